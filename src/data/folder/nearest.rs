//! Which place was probably meant by a path that leads nowhere.

use std::fs;
use std::path::{Component, Path, PathBuf};

use pipe_core::error::nearest;

/// The path with another name in the place of the first that is not there, the nearest one in that
/// folder; `None` if there is none like it, or if all of the path is there.
pub fn nearest_place(path: &Path) -> Option<PathBuf> {
    let mut above = PathBuf::new();
    let mut parts = path.components();
    while let Some(part) = parts.next() {
        let next = above.join(part);
        if next.exists() {
            above = next;
            continue;
        }
        let Component::Normal(wrong) = part else { return None };
        let folder = if above.as_os_str().is_empty() { Path::new(".") } else { &above };
        let names = fs::read_dir(folder).ok()?.flatten().map(|entry| entry.file_name());
        let mut names: Vec<String> = names.filter_map(|name| name.into_string().ok()).collect();
        names.sort();
        let near = above.join(nearest(wrong.to_str()?, names.iter().map(String::as_str))?);
        let whole = near.join(parts.as_path());
        return Some(if whole.exists() { whole } else { near });
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_name_that_is_not_there_is_replaced_by_the_nearest() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("pictures/stamps/cats")).unwrap();
        let near = |path: &str| {
            let found = nearest_place(&folder.path().join(path))?;
            Some(found.strip_prefix(folder.path()).unwrap().to_str().unwrap().to_owned())
        };
        assert_eq!(near("pictures/stamp").as_deref(), Some("pictures/stamps"));
        assert_eq!(near("pictrues/stamps/cats").as_deref(), Some("pictures/stamps/cats"));
        assert_eq!(near("pictrues/dogs").as_deref(), Some("pictures"));
        assert_eq!(near("pictures/emoji"), None);
        assert_eq!(near("pictures/stamps"), None);
        #[cfg(unix)]
        std::os::unix::fs::symlink("nowhere", folder.path().join("link")).unwrap();
        assert_eq!(near("link"), None, "the name is right, and what it leads to is missing");
    }
}
