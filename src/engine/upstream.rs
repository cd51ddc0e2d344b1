//! How stages stand whose results are taken while they are made, for those that take them.

use pipe_core::ids::StageId;

use crate::artifact::Artifact;

/// How a stage stands, as one sees it that takes what it makes while it makes that.
#[derive(Clone)]
pub enum Upstream {
    /// It may make more.
    Running,
    /// It makes no more; what it hands on.
    Ended(Option<Artifact>),
    /// It makes no more, since it failed: why.
    Failed(String),
}

/// All stages of a run.
pub(crate) trait Upstreams: Sync {
    fn state(&self, stage: &StageId) -> Upstream;

    /// The stages of this run that take what one makes while it makes it.
    fn followers(&self, stage: &StageId) -> Vec<StageId>;
}

/// Whether stages that this process does not run are being run elsewhere, such as by another job.
pub trait RunsElsewhere: Sync {
    /// Whether the stage is being run, or will be.
    fn is_live(&self, stage: &StageId) -> bool;
}
