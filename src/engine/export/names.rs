//! Names that Kubernetes takes, made of names that it does not: the same ones each time, never one
//! for two.

use std::collections::{BTreeMap, BTreeSet};

use sha2::{Digest, Sha256};

use crate::identity::hex;

/// Kubernetes' limit for a label, which most names keep to.
const LONGEST: usize = 63;
/// Digits of the digest that a changed name has at its end.
const DIGITS: usize = 8;

/// A name for each: itself where it fits, otherwise what of it fits and a digest of all.
pub fn of<'a>(all: impl IntoIterator<Item = &'a str>) -> BTreeMap<&'a str, String> {
    let all: BTreeSet<&str> = all.into_iter().collect();
    let (fitting, others): (Vec<&str>, Vec<&str>) = all.into_iter().partition(|name| fits(name));
    let mut names: BTreeMap<&str, String> =
        fitting.iter().map(|name| (*name, (*name).to_owned())).collect();
    let mut taken: BTreeSet<String> = names.values().cloned().collect();
    for name in others {
        let digest = hex(&Sha256::digest(name.as_bytes()));
        let mut digits = DIGITS;
        let mut made = shortened(name, &digest[..digits]);
        while !taken.insert(made.clone()) && digits < LONGEST {
            digits += 1;
            made = shortened(name, &digest[..digits]);
        }
        names.insert(name, made);
    }
    names
}

/// The beginning of a name that other characters are put behind: at most `room` of them.
pub fn beginning(name: &str, room: usize) -> String {
    let allowed = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
    let plain: String = name.chars().map(allowed).take(room).collect();
    plain.trim_matches('-').to_owned()
}

fn shortened(name: &str, digest: &str) -> String {
    match beginning(name, LONGEST.saturating_sub(digest.len() + 1)).as_str() {
        "" => format!("stage-{digest}").chars().take(LONGEST).collect(),
        plain => format!("{plain}-{digest}"),
    }
}

fn fits(name: &str) -> bool {
    !name.is_empty() && name.len() <= LONGEST && beginning(name, LONGEST) == name
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `[a-z0-9]([-a-z0-9]*[a-z0-9])?`
    fn is_good(name: &str) -> bool {
        let inside = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        let plain = name.chars().all(inside) && !name.starts_with('-') && !name.ends_with('-');
        plain && (1..=LONGEST).contains(&name.len())
    }

    #[test]
    fn what_fits_stays_and_all_else_is_told_apart() {
        let long = "x".repeat(80);
        let all = [
            "base",
            "base@learning_rate=0.001",
            "base@learning_rate=0.0001",
            "A_b",
            "a_b",
            "a-b",
            "-",
            &long,
        ];
        let names = of(all);
        assert_eq!(names["base"], "base");
        assert_eq!(names["a-b"], "a-b");
        assert!(names["A_b"].starts_with("a-b-") && names["a_b"].starts_with("a-b-"), "{names:?}");
        assert!(
            names["base@learning_rate=0.001"].starts_with("base-learning-rate-0-001-"),
            "{names:?}"
        );
        assert!(names.values().all(|name| is_good(name)), "{names:?}");
        assert_eq!(names.values().collect::<BTreeSet<_>>().len(), all.len(), "{names:?}");
    }

    #[test]
    fn a_name_depends_on_nothing_but_itself_unless_it_is_taken() {
        let alone = of(["a_b"]);
        assert_eq!(alone["a_b"], of(["z", "a_b", "A_b"])["a_b"]);
        let taken = alone["a_b"].clone();
        let both = of(["a_b", taken.as_str()]);
        assert_eq!(both[taken.as_str()], taken, "a name that fits is never changed");
        assert!(both["a_b"] != taken && is_good(&both["a_b"]), "{both:?}");
    }
}
