//! The file of Inception-v3's weights: found, or downloaded once, and checked.

use std::path::{Path, PathBuf};

use pipe_engine::kind::{Failure, StageError};
use pipe_fs::{ProjectRoot, atomic, sha256_of};

use crate::data::{Progress, download};

/// Where the published weights are kept, relative to the project.
pub const PUBLISHED: &str = "data/pt_inception-2015-12-05-6726825d.pth";
/// Those of pytorch-fid: the network of the original figures, with PyTorch's names.
const ADDRESS: &str = "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/pt_inception-2015-12-05-6726825d.pth";

/// How the SHA-256 of a file begins, as its name tells where it ends like those of PyTorch's
/// weights: `NAME-6726825d.pth`.
pub fn digest_in_name(path: &Path) -> Option<&str> {
    let (_, digest) = path.file_stem()?.to_str()?.rsplit_once('-')?;
    let is_hex = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
    (digest.len() == 8 && digest.chars().all(is_hex)).then_some(digest)
}

/// The file, and its SHA-256 in hexadecimal. The published weights are downloaded where they are
/// not there.
///
/// # Errors
/// A file that is not there, cannot be downloaded, or is not what its name tells.
pub fn find(
    root: &ProjectRoot,
    path: &Path,
    progress: &dyn Progress,
) -> Result<(PathBuf, String), StageError> {
    let (file, shown) = (root.join(path), path.display());
    let input = |message: String| StageError::new(Failure::Input, message).at("features");
    let is_published = path.file_name() == Path::new(PUBLISHED).file_name();
    if !file.exists() && !is_published {
        return Err(StageError::setting(format!("there is no {shown}")).at("features"));
    }
    if !file.exists() {
        if let Some(folder) = file.parent() {
            atomic::create_folder(root.disk(), folder)?;
        }
        let fetched = download::fetch(root.disk(), ADDRESS, &file, None, progress);
        fetched.map_err(|e| input(e.to_string()))?;
    }
    let digest = sha256_of(&file).map_err(|e| input(format!("failed to read {shown}: {e}")))?;
    let digest = digest.strip_prefix("sha256:").unwrap_or(&digest).to_owned();
    match digest_in_name(path) {
        Some(told) if !digest.starts_with(told) => Err(input(format!(
            "{shown} is damaged, or another file: its SHA-256 begins with {}; remove it",
            &digest[..8]
        ))),
        _ => Ok((file, digest)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_tells_how_the_digest_begins() {
        assert_eq!(digest_in_name(Path::new(PUBLISHED)), Some("6726825d"));
        for other in ["inception.pth", "a-b.pth", "a-1234567.pth", "a-1234567G.pth", "a/.pth"] {
            assert_eq!(digest_in_name(Path::new(other)), None, "{other}");
        }
    }

    #[test]
    fn a_file_must_be_there_and_be_what_its_name_tells() {
        let place = tempfile::tempdir().unwrap();
        let root: ProjectRoot = place.path().into();
        let found = |name: &str| find(&root, Path::new(name), &()).map_err(|e| e.message);
        assert_eq!(found("w.pth").unwrap_err(), "features: there is no w.pth");
        std::fs::write(place.path().join("w.pth"), "abc").unwrap();
        let digest = found("w.pth").unwrap().1;
        assert!(digest.starts_with("ba7816bf"));
        for (name, is_so) in [("w-ba7816bf.pth", true), ("w-00000000.pth", false)] {
            std::fs::write(place.path().join(name), "abc").unwrap();
            assert_eq!(found(name).is_ok(), is_so, "{name}");
        }
        assert!(found("w-00000000.pth").unwrap_err().contains("begins with ba7816bf"));
    }
}
