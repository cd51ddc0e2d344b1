//! The dependency graph of a pipeline: order, cycles, selections, pictures. Knows nothing of what stages do.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};
use std::fmt::Write;

use petgraph::Direction;
use petgraph::graph::{DiGraph, NodeIndex};
use petgraph::visit::{Dfs, EdgeRef, Reversed};

use crate::error::SpecError;
use crate::kind::StageId;
use crate::source::Part;
use crate::spec::{LoadedPipeline, LoadedStage};

/// Stages and what they need. An edge goes from a stage to one that needs it.
pub struct Graph {
    pub pipeline: LoadedPipeline,
    graph: DiGraph<usize, String>,
    order: Vec<usize>,
}

impl Graph {
    /// Builds the graph; a cycle is an error that prints its way round.
    pub fn build(pipeline: LoadedPipeline) -> Result<Self, SpecError> {
        let mut graph = DiGraph::new();
        let nodes: Vec<NodeIndex> = (0..pipeline.stages.len()).map(|i| graph.add_node(i)).collect();
        let position = |id: &StageId| pipeline.stages.iter().position(|s| s.id == *id);
        for (to, stage) in pipeline.stages.iter().enumerate() {
            for (key, id) in &stage.needs {
                let Some(from) = position(id) else { continue };
                graph.update_edge(nodes[from], nodes[to], key[0].clone());
            }
        }
        if let Some(cycle) = find_cycle(&graph) {
            return Err(cycle_error(&pipeline, &cycle));
        }
        let order = file_like_order(&graph);
        Ok(Self { pipeline, graph, order })
    }

    /// All stages, dependencies first, otherwise as in the file.
    pub fn stages(&self) -> impl Iterator<Item = &LoadedStage> {
        self.order.iter().map(|&i| &self.pipeline.stages[i])
    }

    pub fn stage(&self, id: &StageId) -> Option<&LoadedStage> {
        self.pipeline.stages.iter().find(|s| s.id == *id)
    }

    /// The stages that `id` needs directly, with the setting that names each.
    pub fn dependencies(&self, id: &StageId) -> Vec<(&str, &LoadedStage)> {
        let Some(node) = self.node(id) else { return Vec::new() };
        let mut edges: Vec<_> = self.graph.edges_directed(node, Direction::Incoming).collect();
        edges.sort_by_key(|e| e.source());
        edges.iter().map(|e| (e.weight().as_str(), &self.pipeline.stages[self.graph[e.source()]])).collect()
    }

    /// The stages that need `id` directly.
    pub fn dependents(&self, id: &StageId) -> Vec<&LoadedStage> {
        let Some(node) = self.node(id) else { return Vec::new() };
        let mut found: Vec<_> = self.graph.neighbors_directed(node, Direction::Outgoing).collect();
        found.sort();
        found.iter().map(|n| &self.pipeline.stages[self.graph[*n]]).collect()
    }

    /// `targets` and everything they need; everything when `targets` is empty.
    pub fn select(&self, targets: &[String]) -> Result<BTreeSet<StageId>, SpecError> {
        if targets.is_empty() {
            return Ok(self.pipeline.stages.iter().map(|s| s.id.clone()).collect());
        }
        let mut selected = BTreeSet::new();
        for target in targets {
            let found = self.pipeline.stages.iter().position(|s| s.id.as_str() == target);
            let Some(node) = found else {
                let names = self.pipeline.stages.iter().map(|s| s.id.as_str());
                let shown = self.pipeline.source.path().display();
                return Err(SpecError::plain(format!("{shown}: no stage is called `{target}`"))
                    .candidates(target, names));
            };
            let mut walk = Dfs::new(Reversed(&self.graph), NodeIndex::new(node));
            while let Some(node) = walk.next(Reversed(&self.graph)) {
                selected.insert(self.pipeline.stages[self.graph[node]].id.clone());
            }
        }
        Ok(selected)
    }

    /// Lines such as `base (train) <- data`, dependencies first.
    pub fn to_text(&self) -> String {
        let width = self.stages().map(|s| s.id.as_str().len()).max().unwrap_or(0);
        let mut text = String::new();
        for stage in self.stages() {
            let needs: Vec<&str> = self.dependencies(&stage.id).iter().map(|(_, s)| s.id.as_str()).collect();
            let arrow = if needs.is_empty() { String::new() } else { format!("  <- {}", needs.join(", ")) };
            let line = format!("{:width$}  {}{arrow}", stage.id, stage.kind);
            let _ = writeln!(text, "{}", line.trim_end());
        }
        text
    }

    /// Graphviz.
    pub fn to_dot(&self) -> String {
        let mut text = format!(
            "digraph \"{}\" {{\n  rankdir=LR;\n  node [shape=box];\n",
            self.pipeline.name.replace('"', "'")
        );
        for stage in self.stages() {
            let _ = writeln!(text, "  \"{}\" [label=\"{}\\n{}\"];", stage.id, stage.id, stage.kind);
        }
        for (from, to, key) in self.edges() {
            let _ = writeln!(text, "  \"{from}\" -> \"{to}\" [label=\"{key}\"];");
        }
        text + "}\n"
    }

    /// Mermaid flowchart.
    pub fn to_mermaid(&self) -> String {
        let mut text = String::from("flowchart LR\n");
        for stage in self.stages() {
            let _ = writeln!(text, "  {}[\"{}<br/>{}\"]", stage.id, stage.id, stage.kind);
        }
        for (from, to, key) in self.edges() {
            let _ = writeln!(text, "  {from} -->|{key}| {to}");
        }
        text
    }

    fn edges(&self) -> Vec<(&StageId, &StageId, &str)> {
        let stages = self.stages();
        stages
            .flat_map(|to| self.dependencies(&to.id).into_iter().map(|(key, from)| (&from.id, &to.id, key)))
            .collect()
    }

    fn node(&self, id: &StageId) -> Option<NodeIndex> {
        self.pipeline.stages.iter().position(|s| s.id == *id).map(NodeIndex::new)
    }
}

/// Kahn's algorithm, taking the stage that stands first in the file among those that are ready.
fn file_like_order(graph: &DiGraph<usize, String>) -> Vec<usize> {
    let mut waiting: Vec<usize> =
        graph.node_indices().map(|n| graph.neighbors_directed(n, Direction::Incoming).count()).collect();
    let mut ready: BinaryHeap<Reverse<usize>> =
        (0..waiting.len()).filter(|&i| waiting[i] == 0).map(Reverse).collect();
    let mut order = Vec::with_capacity(waiting.len());
    while let Some(Reverse(node)) = ready.pop() {
        order.push(node);
        for next in graph.neighbors_directed(NodeIndex::new(node), Direction::Outgoing) {
            waiting[next.index()] -= 1;
            if waiting[next.index()] == 0 {
                ready.push(Reverse(next.index()));
            }
        }
    }
    order
}

/// One way round a cycle, each stage before the one that it needs; `None` for a graph without cycles.
fn find_cycle(graph: &DiGraph<usize, String>) -> Option<Vec<usize>> {
    let knots = petgraph::algo::tarjan_scc(graph);
    let knot = knots
        .into_iter()
        .filter(|k| k.len() > 1 || graph.contains_edge(k[0], k[0]))
        .min_by_key(|k| k.iter().min().copied())?;
    let inside: BTreeSet<NodeIndex> = knot.iter().copied().collect();
    // Inside a knot every stage needs another one of the knot: walking on must come back.
    let mut path = vec![*inside.first()?];
    loop {
        let last = *path.last()?;
        let next =
            graph.neighbors_directed(last, Direction::Incoming).filter(|n| inside.contains(n)).min()?;
        if let Some(start) = path.iter().position(|n| *n == next) {
            let mut cycle: Vec<usize> = path[start..].iter().map(|n| n.index()).collect();
            cycle.push(next.index());
            return Some(cycle);
        }
        path.push(next);
    }
}

fn cycle_error(pipeline: &LoadedPipeline, cycle: &[usize]) -> SpecError {
    let names: Vec<&str> = cycle.iter().map(|&i| pipeline.stages[i].id.as_str()).collect();
    let first = &pipeline.stages[cycle[0]];
    let next = &pipeline.stages[cycle[1]].id;
    let reference =
        first.needs.iter().find(|(_, id)| id == next).map(|(key, _)| key.clone()).unwrap_or_default();
    let key = [vec!["stages".to_owned(), first.id.to_string()], reference].concat();
    let at = pipeline.source.locate(&key, Part::Value).or_else(|| pipeline.source.locate_nearest(&key));
    SpecError::at(
        &pipeline.source,
        at,
        key,
        format!("stages need each other in a circle: {}", names.join(" -> ")),
    )
    .note("a stage can only need stages that do not need it")
}
