//! Names of stages. Knows nothing of what a stage is.

use std::fmt;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::digest::hex;

/// Name of a stage in a pipeline file: letters, digits, `_`, `-`. A stage of a matrix has its
/// values behind it: `base@learning_rate=0.001`. A clone shares the name.
#[derive(
    Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
pub struct StageId(#[serde(with = "shared")] Arc<str>);

impl StageId {
    /// `None` when the name has a character that file names and messages cannot carry safely.
    pub fn new(name: &str) -> Option<Self> {
        let valid = !name.is_empty()
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
        valid.then(|| Self(name.into()))
    }

    /// The stage of a matrix that has these values.
    pub fn member(&self, values: &str) -> Self {
        let safe =
            |c: char| if c.is_ascii_alphanumeric() || "_-.,=+".contains(c) { c } else { '_' };
        Self(format!("{}@{}", self.0, values.chars().map(safe).collect::<String>()).into())
    }

    /// The same where [`member`](Self::member) is the name of another one, whose values differ in
    /// what a name cannot hold.
    pub fn disambiguated(&self, values: &str) -> Self {
        let digest = hex(&Sha256::digest(values.as_bytes()));
        self.member(&format!("{values}+{}", &digest[..8]))
    }

    /// A name that a stage of a matrix came out with. The `config.yaml` of its run declares it so.
    pub fn of_matrix(name: &str) -> Option<Self> {
        let (stage, values) = name.split_once('@')?;
        let member = Self::new(stage)?.member(values);
        (member.as_str() == name && !values.is_empty()).then_some(member)
    }

    /// The name as declared in the file: without the values of a matrix.
    pub fn declared(&self) -> &str {
        self.0.split('@').next().unwrap_or(&self.0)
    }

    /// The name as it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

mod shared {
    use std::sync::Arc;

    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(name: &Arc<str>, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(name)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Arc<str>, D::Error> {
        String::deserialize(deserializer).map(Into::into)
    }
}

impl std::borrow::Borrow<str> for StageId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for StageId {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.pad(&self.0)
    }
}
