//! What keeps a folder from being made.

use std::path::{Path, PathBuf};

/// The file that stands where a folder, or one above it, would be made. A link to a folder is none.
pub fn file_in_place_of(folder: &Path) -> Option<PathBuf> {
    let there = folder.ancestors().find_map(|path| Some((path, path.metadata().ok()?)));
    there.filter(|(_, found)| !found.is_dir()).map(|(path, _)| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_found_wherever_it_stands_above() {
        let folder = tempfile::tempdir().unwrap();
        let at = |path: &str| folder.path().join(path);
        std::fs::create_dir(at("there")).unwrap();
        std::fs::write(at("file"), "").unwrap();
        assert_eq!(file_in_place_of(&at("there/new/deeper")), None);
        assert_eq!(file_in_place_of(&at("new")), None);
        for path in ["file", "file/new", "file/new/deeper"] {
            assert_eq!(file_in_place_of(&at(path)), Some(at("file")), "{path}");
        }
    }
}
