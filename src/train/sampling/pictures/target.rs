//! Where pictures are written, and as what: what the name says.

use std::path::{Path, PathBuf};

/// A folder of PNG files, or one file with all of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    Folder(PathBuf),
    /// PNG files, not compressed again, with the labels in `dataset.json` as EDM's tools read them.
    Zip(PathBuf),
    /// `arr_0`, bytes `[pictures, height, width, 3]`, and where there are classes `arr_1`, 64-bit
    /// integers `[pictures]`: as guided-diffusion's evaluation reads them.
    Npz(PathBuf),
}

impl Target {
    /// By the end of the name; a folder where there is none.
    ///
    /// # Errors
    /// Says which ends are known.
    pub fn of(path: &Path) -> Result<Self, String> {
        let own = path.to_owned();
        let Some(end) = path.extension() else { return Ok(Self::Folder(own)) };
        match end.to_string_lossy().to_lowercase().as_str() {
            "zip" => Ok(Self::Zip(own)),
            "npz" => Ok(Self::Npz(own)),
            other => Err(format!(
                "{}: pictures of their own are not written as .{other}; name a folder, a .zip or an .npz file",
                path.display()
            )),
        }
    }

    /// What is there in the end.
    pub fn path(&self) -> &Path {
        match self {
            Self::Folder(path) | Self::Zip(path) | Self::Npz(path) => path,
        }
    }

    /// Where the pictures are gathered: beside a file that is made of them, until it is whole.
    pub fn folder(&self) -> PathBuf {
        match self {
            Self::Folder(path) => path.clone(),
            Self::Zip(path) | Self::Npz(path) => {
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                path.with_file_name(format!(".{name}.parts"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_says_what_is_written() {
        let of = |name: &str| Target::of(Path::new(name));
        assert_eq!(of("a/b"), Ok(Target::Folder("a/b".into())));
        assert_eq!(of("a/b.ZIP"), Ok(Target::Zip("a/b.ZIP".into())));
        assert_eq!(of("b.npz").unwrap().folder(), Path::new(".b.npz.parts"));
        assert!(of("a.png").unwrap_err().contains("name a folder, a .zip or an .npz file"));
    }
}
