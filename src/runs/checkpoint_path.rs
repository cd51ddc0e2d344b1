//! What the files of a run's checkpoints are called.

use std::fmt;
use std::path::Path;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::checkpoint::Header;

/// The name of a checkpoint file, as this program gives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Name {
    /// After so many optimizer steps.
    Step(u64),
    /// At the end of an epoch.
    Epoch(u64),
}

impl Name {
    /// The name that the checkpoint with this header has in its run's folder. One that is saved at
    /// an epoch's end for want of that epoch's own has no metrics.
    pub fn of(header: &Header) -> Self {
        if header.step_in_epoch == 0 && !header.metrics.is_empty() {
            Self::Epoch(header.epoch)
        } else {
            Self::Step(header.global_step)
        }
    }

    /// `epoch_003.ckpt`, `step_00000120.ckpt`
    pub fn file(self) -> String {
        match self {
            Self::Epoch(epoch) => format!("epoch_{epoch:03}.ckpt"),
            Self::Step(step) => format!("step_{step:08}.ckpt"),
        }
    }

    /// `None` for any other file, a copy with words behind the number among them.
    pub fn parse(file: &str) -> Option<Self> {
        let stem = file.strip_suffix(".ckpt")?;
        let (kind, digits) = stem.split_once('_')?;
        let number = digits.parse().ok()?;
        let name = match kind {
            "epoch" => Self::Epoch(number),
            "step" => Self::Step(number),
            _ => return None,
        };
        (name.file() == file).then_some(name)
    }

    /// The name of the file at a path, if it is one that this program gives.
    pub fn of_file(path: &Path) -> Option<Self> {
        Self::parse(path.file_name()?.to_str()?)
    }

    /// Whether it is the state at an epoch's end.
    pub fn is_epoch(self) -> bool {
        matches!(self, Self::Epoch(_))
    }

    /// Whether a checkpoint with this header stands rightly under the name.
    pub fn fits(self, header: &Header) -> bool {
        match self {
            Self::Epoch(epoch) => header.epoch == epoch && header.step_in_epoch == 0,
            Self::Step(step) => header.global_step == step,
        }
    }
}

/// The path of a checkpoint in the folder of its run: `checkpoints/` and a name that this program
/// gives.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct CheckpointPath(String);

impl CheckpointPath {
    /// Of the file `name` in the folder of checkpoints.
    pub(crate) fn new(name: Name) -> Self {
        Self(format!("{CHECKPOINTS}/{}", name.file()))
    }

    pub(crate) fn best() -> Self {
        Self(format!("{CHECKPOINTS}/{BEST}"))
    }

    pub fn parse(text: &str) -> Option<Self> {
        let name = text.strip_prefix(CHECKPOINTS)?.strip_prefix('/')?;
        let is_ours = [BEST, LAST].contains(&name) || Name::parse(name).is_some();
        is_ours.then(|| Self(text.to_owned()))
    }

    /// The path as it is written, with `/`.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

pub const CHECKPOINTS: &str = "checkpoints";
pub(crate) const BEST: &str = "best.ckpt";
pub(crate) const LAST: &str = "last.ckpt";

impl fmt::Display for CheckpointPath {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl AsRef<Path> for CheckpointPath {
    fn as_ref(&self) -> &Path {
        Path::new(&self.0)
    }
}

impl Serialize for CheckpointPath {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for CheckpointPath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let wrong =
            || format!("{text:?} is no checkpoint of a run: expected `checkpoints/epoch_001.ckpt`");
        Self::parse(&text).ok_or_else(wrong).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_exact_names_are_the_programs() {
        for (file, name) in [
            ("epoch_003.ckpt", Some(Name::Epoch(3))),
            ("epoch_1000.ckpt", Some(Name::Epoch(1000))),
            ("step_00000016.ckpt", Some(Name::Step(16))),
            ("epoch_3.ckpt", None),
            ("epoch_0003.ckpt", None),
            ("epoch_+03.ckpt", None),
            ("epoch_003_my_favourite.ckpt", None),
            ("epoch_003.ckpt.bak", None),
            ("step_backup.ckpt", None),
            ("best.ckpt", None),
        ] {
            assert_eq!(Name::parse(file), name, "{file}");
        }
    }

    #[test]
    fn checkpoints_of_a_run_have_the_names_of_this_program() {
        for text in [
            "checkpoints/epoch_003.ckpt",
            "checkpoints/step_00000016.ckpt",
            "checkpoints/best.ckpt",
        ] {
            assert_eq!(CheckpointPath::parse(text).unwrap().as_str(), text);
        }
        for text in [
            "",
            "/etc/passwd",
            "../../../../victim.txt",
            "checkpoints",
            "checkpoints/",
            "checkpoints/../epoch_003.ckpt",
            "checkpoints//epoch_003.ckpt",
            "./checkpoints/epoch_003.ckpt",
            "checkpoints\\epoch_003.ckpt",
            "checkpoints/epoch_003.ckpt\0",
            "checkpoints/epoch_3.ckpt",
            "checkpoints/epoch_003_my_favourite.ckpt",
            "checkpointsepoch_003.ckpt",
            "metadata.json",
        ] {
            assert_eq!(CheckpointPath::parse(text), None, "{text:?}");
        }
    }
}
