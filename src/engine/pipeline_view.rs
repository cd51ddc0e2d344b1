//! What a stage sees of its pipeline before anything runs.

use std::any::Any;
use std::cell::Cell;
use std::collections::HashMap;
use std::sync::Arc;

/// What a stage will hand on, as far as settings tell.
pub type Preview = Arc<dyn Any + Send + Sync>;

/// Stages that a preview may be asked through, one after the other. A circle of references is
/// another check's business.
const LONGEST_CHAIN: usize = 64;

/// What makes the preview of one stage.
type Previewing<'a> = Box<dyn Fn(&PipelineView<'a>) -> Option<Preview> + 'a>;

/// What a stage sees of its pipeline before anything runs: the previews of its stages, by name.
pub struct PipelineView<'a> {
    stages: HashMap<&'a str, Previewing<'a>>,
    /// Previews that are being asked for.
    depth: Cell<usize>,
}

impl<'a> PipelineView<'a> {
    pub(crate) fn new<F>(stages: impl Iterator<Item = (&'a str, F)>) -> Self
    where
        F: Fn(&Self) -> Option<Preview> + 'a,
    {
        let boxed = |(name, preview): (&'a str, F)| (name, Box::new(preview) as Previewing<'a>);
        Self { stages: stages.map(boxed).collect(), depth: Cell::new(0) }
    }

    /// What a stage will hand on, if that is a `T`; of a matrix that of its first stage by name.
    pub fn preview<T: Any + Send + Sync>(&self, stage: &str) -> Option<Arc<T>> {
        let id = self.members(stage).into_iter().next()?;
        self.preview_of(id)
    }

    /// The same of every stage of a matrix, by name; of one that has none, of itself.
    pub fn each_preview<T: Any + Send + Sync>(&self, stage: &str) -> Vec<(&str, Arc<T>)> {
        let members = self.members(stage).into_iter();
        members.filter_map(|id| Some((id, self.preview_of(id)?))).collect()
    }

    fn preview_of<T: Any + Send + Sync>(&self, id: &str) -> Option<Arc<T>> {
        let depth = self.depth.get();
        if depth == LONGEST_CHAIN {
            return None;
        }
        self.depth.set(depth + 1);
        let preview = self.stages.get(id).and_then(|preview| preview(self));
        self.depth.set(depth);
        preview?.downcast().ok()
    }

    /// The stage of that name, or those of the matrix, by name; none if there is no such stage.
    pub fn members(&self, stage: &str) -> Vec<&'a str> {
        if let Some((id, _)) = self.stages.get_key_value(stage) {
            return vec![id];
        }
        let is_member = |id: &&str| id.split_once('@').is_some_and(|(of, _)| of == stage);
        let mut found: Vec<&str> = self.stages.keys().copied().filter(is_member).collect();
        found.sort_unstable();
        found
    }
}
