//! What `pipe -V` and `pipe --version` say.

use std::sync::OnceLock;

/// Features that a build may have, besides what every build has.
const FEATURES: [(&str, bool); 6] = [
    ("wgpu", cfg!(feature = "wgpu")),
    ("vulkan", cfg!(feature = "vulkan")),
    ("metal", cfg!(feature = "metal")),
    ("cuda", cfg!(feature = "cuda")),
    ("rocm", cfg!(feature = "rocm")),
    ("autotune", cfg!(feature = "autotune")),
];

pub const SHORT: &str = env!("CARGO_PKG_VERSION");

/// The version with the commit it was built from, where that is known, and the features of the
/// build.
pub fn long() -> &'static str {
    static LONG: OnceLock<String> = OnceLock::new();
    LONG.get_or_init(|| {
        let commit =
            option_env!("PIPE_COMMIT").map(|commit| format!(" ({commit})")).unwrap_or_default();
        let features: Vec<&str> =
            FEATURES.iter().filter(|(_, on)| *on).map(|(name, _)| *name).collect();
        let features = if features.is_empty() { "none".to_owned() } else { features.join(", ") };
        format!("{SHORT}{commit}\nfeatures: {features}")
    })
}
