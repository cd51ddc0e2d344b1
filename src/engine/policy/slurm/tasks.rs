//! The processes that a training program is started as within one job.

use super::{Slurm, Word};

/// So many processes on each of so many nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tasks {
    pub nodes: u32,
    pub per_node: u32,
}

impl Tasks {
    /// One process, as every stage has it that says nothing else.
    pub const ONE: Self = Self { nodes: 1, per_node: 1 };

    /// All of them.
    pub fn count(self) -> u32 {
        self.nodes.saturating_mul(self.per_node)
    }
}

impl Slurm {
    /// The processes of a training program: on each node as many as `ntasks_per_node` says, or one
    /// for each of `gpus_per_node`, or one.
    pub fn tasks(&self) -> Tasks {
        let gpus = self.gpus_per_node.as_ref().map(count);
        let per_node = self.ntasks_per_node.or(gpus).unwrap_or(1).max(1);
        Tasks { nodes: self.nodes.unwrap_or(1).max(1), per_node }
    }

    /// The key that asks for several processes, if one does whatever the kind of the stage.
    pub fn asks_for_several(&self) -> Option<&'static str> {
        let several = |number: Option<u32>| number.is_some_and(|number| number > 1);
        let keys = [("nodes", self.nodes), ("ntasks_per_node", self.ntasks_per_node)];
        keys.into_iter().find(|(_, number)| several(*number)).map(|(key, _)| key)
    }

    /// The same for a stage that is one process.
    pub fn on_one_node(self) -> Self {
        Self { nodes: None, ntasks_per_node: None, ..self }
    }
}

/// How many `4`, `a100:4` or `a100:2,v100:2` are.
fn count(gpus: &Word) -> u32 {
    let of = |part: &str| match part.rsplit(':').next().map(str::parse) {
        Some(Ok(number)) => number,
        _ => 1,
    };
    gpus.as_str().split(',').map(of).fold(0, u32::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tasks(text: &str) -> (u32, u32) {
        let Tasks { nodes, per_node } = serde_yaml::from_str::<Slurm>(text).unwrap().tasks();
        (nodes, per_node)
    }

    #[test]
    fn a_program_is_started_once_a_node_or_once_a_gpu() {
        assert_eq!(tasks("{}"), (1, 1));
        assert_eq!(tasks("{nodes: 2}"), (2, 1));
        assert_eq!(tasks("{nodes: 2, gpus: 8}"), (2, 1), "it sees the node's GPUs itself");
        assert_eq!(tasks("{nodes: 2, gpus_per_node: 4}"), (2, 4));
        assert_eq!(tasks("{gpus_per_node: 'a100:4'}"), (1, 4));
        assert_eq!(tasks("{gpus_per_node: 'a100:2,v100:1'}"), (1, 3));
        assert_eq!(tasks("{gpus_per_node: a100}"), (1, 1));
        assert_eq!(tasks("{gpus_per_node: 0}"), (1, 1));
        assert_eq!(tasks("{nodes: 3, gpus_per_node: 4, ntasks_per_node: 1}"), (3, 1));
    }
}
