//! Why settings make no network.

/// Why no network can be built from its settings. Each names the key to change.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    #[error("`{key}` must be at least 1")]
    Zero { key: &'static str },
    #[error("`mults` and `depths` need one number for each resolution, found {mults} and {depths}")]
    Levels { mults: usize, depths: usize },
    #[error("`dim` times `mults[{level}]` is {dim} channels, not a multiple of {of} ({why})")]
    Channels { level: usize, dim: usize, of: usize, why: &'static str },
    #[error("`dim` {dim} is not a multiple of {of} ({why})")]
    Dim { dim: usize, of: usize, why: &'static str },
    #[error(
        "`image_size` {image_size} cannot be halved {} (once for each resolution after the first); \
         use a multiple of {multiple}",
        if *times == 1 { "once".to_owned() } else { format!("{times} times") }
    )]
    Halving { image_size: usize, times: usize, multiple: usize },
    #[error(
        "`window` {window} does not divide the {side} px side at resolution {level} of `image_size` {image_size}; \
         choose another `window` or `image_size`"
    )]
    Window { window: usize, side: usize, level: usize, image_size: usize },
    /// What an architecture of one's own asks for; `message` names the key.
    #[error("{message}")]
    Other { key: &'static str, message: String },
}

impl ConfigError {
    /// Whether the side of an image can be halved so many times.
    ///
    /// # Errors
    /// [`Halving`](Self::Halving) where it cannot.
    pub fn check_halving(image_size: usize, times: usize) -> Result<(), Self> {
        let multiple =
            u32::try_from(times).ok().and_then(|times| 1usize.checked_shl(times)).unwrap_or(0);
        if image_size.is_multiple_of(multiple) {
            Ok(())
        } else {
            Err(Self::Halving { image_size, times, multiple })
        }
    }

    /// The key to change.
    pub fn key(&self) -> &'static str {
        match self {
            Self::Zero { key } | Self::Other { key, .. } => key,
            Self::Levels { .. } => "depths",
            Self::Channels { why, .. } if *why == "`heads`" => "heads",
            Self::Channels { .. } | Self::Dim { .. } => "dim",
            Self::Halving { .. } => "mults",
            Self::Window { .. } => "window",
        }
    }
}
