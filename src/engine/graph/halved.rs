//! Stages that are halved together.

use std::collections::BTreeSet;

use super::{Graph, LoadedStage};

impl Graph {
    /// The stages of each matrix that are halved together, in the file's order.
    pub fn brackets(&self) -> Vec<Vec<&LoadedStage>> {
        let halved = self.pipeline.stages.iter().filter(|s| s.options.halving.is_some());
        let mut names: Vec<&str> = halved.map(|stage| stage.id.declared()).collect();
        names.dedup();
        let members = |name: &str| -> Vec<&LoadedStage> {
            let ids = self.pipeline.matrices.get(name).into_iter().flatten();
            ids.filter_map(|id| self.stage(id)).collect()
        };
        names.into_iter().map(members).collect()
    }

    /// Those that are halved together with some of these.
    pub(super) fn halved_with<'a>(
        &'a self,
        stages: impl Iterator<Item = &'a LoadedStage>,
    ) -> Vec<&'a LoadedStage> {
        let halved = stages.filter(|stage| stage.options.halving.is_some());
        let names: BTreeSet<&str> = halved.map(|stage| stage.id.declared()).collect();
        let ids = names.into_iter().filter_map(|name| self.pipeline.matrices.get(name)).flatten();
        ids.filter_map(|id| self.stage(id)).collect()
    }
}
