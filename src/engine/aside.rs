//! A part of a numbered run that is done once more, in a folder aside, by a stage with the settings
//! of that run.

use std::any::Any;
use std::path::PathBuf;
use std::sync::Arc;

/// What part of a run is done once more, and where.
#[derive(Clone)]
pub struct Aside {
    /// The folder of a run that begins as the one did that is repeated.
    pub folder: PathBuf,
    /// The last round of it.
    pub until: u64,
    /// It may be done on another device than the run was.
    pub any_device: bool,
    /// How often batches were halved in the run.
    pub micro_batch_splits: u32,
    /// What looks at it meanwhile, of a type that the stage knows.
    pub observer: Option<Arc<dyn Any + Send + Sync>>,
}
