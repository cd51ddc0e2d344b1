//! Names of pipelines and stages as names of files: the same ones each time, never one for two, and
//! short enough for every file system, those that tell no capitals apart too.

use sha2::{Digest, Sha256};

use crate::digest::hex;
use crate::ids::StageId;

/// Bytes of the longest name that is written as it is. File systems take 255, and a file is first
/// written under a name with up to 30 more.
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
pub fn of_stage(stage: &StageId) -> String {
    fitted(stage.as_str(), stage.to_string())
}

/// A pipeline's name in characters that a file's name can hold; two names can come out the same.
pub fn plain_name(pipeline: &str) -> String {
    let safe = |c: char| if c.is_ascii_alphanumeric() || "-_".contains(c) { c } else { '_' };
    pipeline.chars().map(safe).collect()
}

/// `plain`, ASCII, if it says all of the name on every file system; otherwise its beginning and a
/// digest of the name.
fn fitted(name: &str, plain: String) -> String {
    let has_capitals = name.bytes().any(|b| b.is_ascii_uppercase());
    if plain == name && name.len() <= LONGEST && !has_capitals && !is_reserved(name) {
        return plain;
    }
    let digest = hex(&Sha256::digest(name.as_bytes()));
    format!("{}{MARK}{}", plain.chars().take(SHORTENED).collect::<String>(), &digest[..16])
}

/// Whether Windows means a device by it, whatever the extension.
fn is_reserved(name: &str) -> bool {
    let numbered = |of: &str| {
        name.strip_prefix(of).is_some_and(|n| n.len() == 1 && n.bytes().all(|b| b.is_ascii_digit()))
    };
    ["con", "prn", "aux", "nul"].contains(&name) || numbered("com") || numbered("lpt")
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    #[test]
    fn names_of_any_script_and_length_never_share_a_file() {
        let long = "x".repeat(240);
        let longer = "x".repeat(241);
        let all = [
            "base", "a b", "a/b", "a_b", "模型", "数据", "__", "Früchte", "Fruchte", &long,
            &longer, ".",
        ];
        let names: BTreeSet<String> = all.iter().map(|name| of_pipeline(name)).collect();
        assert_eq!(names.len(), all.len(), "{names:?}");
        let fits = |name: &String| name.len() <= LONGEST && !name.contains(['/', '.']);
        assert!(names.iter().all(fits), "{names:?}");
        assert_eq!(of_pipeline("base-1_b"), "base-1_b");
        assert_eq!(of_pipeline(&"x".repeat(220)), "x".repeat(220));
    }

    /// Names drawn from few characters, so that many are alike.
    fn drawn(seed: u64) -> impl Iterator<Item = String> {
        const LETTERS: [&str; 18] = [
            "a", "A", "b", "_", "-", ".", "/", "~", " ", "模", "型", "é", "e\u{301}", "\0", "=",
            "@", "con", "1",
        ];
        let mut state = seed;
        let mut next = move |below: u64| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 33) % below
        };
        std::iter::repeat_with(move || {
            let length = match next(8) {
                0 => 200 + next(100),
                _ => 1 + next(4),
            };
            (0..length).map(|_| LETTERS[next(if length > 9 { 3 } else { 18 }) as usize]).collect()
        })
    }

    #[test]
    fn whatever_two_names_are_their_files_differ_and_fit() {
        let check = |of: &dyn Fn(&str) -> Option<(String, String)>| {
            let mut seen: BTreeMap<String, String> = BTreeMap::new();
            for name in (1..9).flat_map(|seed| drawn(seed).take(5_000)) {
                let Some((name, file)) = of(&name) else { continue };
                assert!(
                    file.is_ascii() && file.len() <= LONGEST && !file.is_empty(),
                    "{name:?}: {file:?}"
                );
                assert!(!file.starts_with('.') && !is_reserved(&file), "{file:?}");
                assert!(
                    !file.contains(|c: char| c.is_control() || "/\\:*?\"<>|".contains(c)),
                    "{file:?}"
                );
                let other = seen.insert(file.to_ascii_lowercase(), name.clone());
                assert!(
                    other.as_ref().is_none_or(|other| *other == name),
                    "{name:?} and {other:?}: {file:?}"
                );
            }
            assert!(seen.len() > 5_000, "{}", seen.len());
        };
        check(&|name| Some((name.to_owned(), of_pipeline(name))));
        let base = StageId::new("base").unwrap();
        check(&|name| {
            let stage = StageId::new(name).unwrap_or_else(|| base.member(name));
            Some((stage.to_string(), of_stage(&stage)))
        });
    }

    #[test]
    fn a_stage_of_a_matrix_has_a_file_whatever_its_values_are() {
        let stage = StageId::new("base").unwrap();
        let member = |values: &str| of_stage(&stage.member(values));
        assert_eq!(member("learning_rate=0.001,seed=1"), "base@learning_rate=0.001,seed=1");
        let (one, two) = (
            member(&format!("a={},b=1", "x".repeat(300))),
            member(&format!("a={},b=2", "x".repeat(300))),
        );
        assert!(one != two && one.len() <= LONGEST, "{one} {two}");
    }
}
