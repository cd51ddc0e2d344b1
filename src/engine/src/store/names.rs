//! Names of pipelines and stages as names of files: the same ones each time, never one for two, and short enough for
//! every file system. Names that were always written as they are stay so.

use sha2::{Digest, Sha256};

use crate::identity::hex;
use crate::kind::StageId;

/// Bytes of the longest name that is written as it is. File systems take 255, and a file is first written under a name
/// with up to 30 more.
const LONGEST: usize = 220;
/// Bytes of a longer one that are written before its digest.
const SHORTENED: usize = 100;
/// Stands before the digest, and in no name that is written as it is.
const MARK: char = '~';

/// A pipeline's name as that of a folder or file.
pub fn of_pipeline(pipeline: &str) -> String {
    fitted(pipeline, plain_name(pipeline))
}

/// A stage's name as that of a file, without an extension.
pub(super) fn of_stage(stage: &StageId) -> String {
    fitted(stage.as_str(), stage.to_string())
}

/// A pipeline's name in characters that a file's name can hold; two names can come out the same.
pub fn plain_name(pipeline: &str) -> String {
    let safe = |c: char| if c.is_ascii_alphanumeric() || "-_".contains(c) { c } else { '_' };
    pipeline.chars().map(safe).collect()
}

/// `plain`, ASCII, if it says all of the name and is short enough; otherwise its beginning and a digest of the name.
fn fitted(name: &str, plain: String) -> String {
    if plain == name && name.len() <= LONGEST {
        return plain;
    }
    let digest = hex(&Sha256::digest(name.as_bytes()));
    format!("{}{MARK}{}", plain.chars().take(SHORTENED).collect::<String>(), &digest[..16])
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_of_any_script_and_length_never_share_a_file() {
        let long = "x".repeat(240);
        let longer = "x".repeat(241);
        let all =
            ["base", "a b", "a/b", "a_b", "模型", "数据", "__", "Früchte", "Fruchte", &long, &longer, "."];
        let names: BTreeSet<String> = all.iter().map(|name| of_pipeline(name)).collect();
        assert_eq!(names.len(), all.len(), "{names:?}");
        let fits = |name: &String| name.len() <= LONGEST && !name.contains(['/', '.']);
        assert!(names.iter().all(fits), "{names:?}");
        assert_eq!(of_pipeline("base-1_b"), "base-1_b");
        assert_eq!(of_pipeline(&"x".repeat(220)), "x".repeat(220));
    }

    #[test]
    fn a_stage_of_a_matrix_has_a_file_whatever_its_values_are() {
        let stage = StageId::new("base").unwrap();
        let member = |values: &str| of_stage(&stage.member(values));
        assert_eq!(member("learning_rate=0.001,seed=1"), "base@learning_rate=0.001,seed=1");
        let (one, two) =
            (member(&format!("a={},b=1", "x".repeat(300))), member(&format!("a={},b=2", "x".repeat(300))));
        assert!(one != two && one.len() <= LONGEST, "{one} {two}");
    }
}
