//! What a stage says of the stages and files that it refers to.

use std::path::{Component, Path, PathBuf};

use crate::artifact::ArtifactType;

/// A setting whose value is the name of another stage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// The key that holds the name, such as `dataset`.
    pub key: &'static str,
    pub stage: String,
    /// What the stage must make.
    pub wants: ArtifactType,
    pub mode: DependencyMode,
    /// Whether it may name a whole matrix. The inputs are then called `key.STAGE`, one for each of
    /// its stages.
    pub many: bool,
    /// Whether stages of the matrix that failed may be passed over, as long as one is left.
    pub passes_over_failed: bool,
}

impl Reference {
    /// A reference to one stage, of any kind that makes what is wanted.
    pub fn of_type(
        wants: ArtifactType,
        key: &'static str,
        stage: &str,
        mode: DependencyMode,
    ) -> Self {
        Self { key, stage: stage.to_owned(), wants, mode, many: false, passes_over_failed: false }
    }
}

/// A stage whose metrics decide what another one hands on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judge {
    /// The setting's key that names it.
    pub key: &'static str,
    /// Its name, without the values of a matrix.
    pub stage: String,
    /// What makes a stage one that judges, for those who named another.
    pub advice: &'static str,
}

/// Names of the inputs by which a stage hears of the judges of one that it follows begin with this.
pub(crate) const JUDGE_INPUT: &str = "judge.";

/// Files, each with the setting's key that names it. Relative to the project.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Files {
    /// Paths and patterns.
    pub reads: Vec<(String, String)>,
    pub writes: Vec<(String, PathBuf)>,
}

/// Whether a relative path stays inside the project, as far as its words say.
pub fn is_inside_project(path: &Path) -> bool {
    let plain = path.components().all(|c| matches!(c, Component::Normal(_) | Component::CurDir));
    plain && !path.as_os_str().is_empty()
}

/// What of another stage goes into the identity of the one that refers to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DependencyMode {
    /// Its settings: they decide what it hands on.
    Fingerprint,
    /// The digest of what it hands on, however that came about.
    Content,
    /// Both: its settings, and the digest of what it hands on where those do not decide it.
    FingerprintAndContent,
    /// Nothing: the stage takes what the other one makes while that makes it, and keeps account of
    /// what it took. It begins when the other one does.
    Streaming,
}

impl DependencyMode {
    pub fn by_fingerprint(self) -> bool {
        matches!(self, DependencyMode::Fingerprint | DependencyMode::FingerprintAndContent)
    }

    pub fn by_content(self) -> bool {
        matches!(self, DependencyMode::Content | DependencyMode::FingerprintAndContent)
    }
}

/// Whether a setting that takes a stage or a file of the project names a file: a stage's name has
/// neither a `/` nor a `.`, but for that of a member of a matrix, `base@learning_rate=0.001`.
pub fn names_file(name: &str) -> bool {
    let stage = match name.split_once('@') {
        Some((stage, values)) if values.contains('=') => stage,
        _ => name,
    };
    stage.contains(['/', '.'])
}

#[cfg(test)]
mod tests {
    use super::names_file;

    #[test]
    fn a_member_of_a_matrix_is_no_file() {
        for file in
            ["best.ckpt", "models/best", "a@b/c.ckpt", "models/a@lr=1/best.ckpt", "a@b.ckpt"]
        {
            assert!(names_file(file), "{file}");
        }
        for stage in ["base", "base@seed=1", "base@learning_rate=0.001", "a-b@x.y=0.1,z=2.5"] {
            assert!(!names_file(stage), "{stage}");
        }
    }
}
