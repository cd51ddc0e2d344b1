//! The number of a run, and the name of its folder.

use std::fmt;

/// Number of a run, counted from 1, shown with at least three digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
pub struct RunNumber(pub u32);

impl fmt::Display for RunNumber {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{:03}", self.0)
    }
}

/// The number of the run whose folder is called so; `None` for any other name.
pub fn number_of(name: &str) -> Option<RunNumber> {
    let digits = name.strip_prefix("run_")?;
    let canonical = digits.len() >= 3 && digits.bytes().all(|b| b.is_ascii_digit());
    let number: u32 = canonical.then(|| digits.parse().ok())??;
    (format!("{}", RunNumber(number)) == digits).then_some(RunNumber(number))
}
