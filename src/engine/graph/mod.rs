//! The stages of a pipeline with their settings resolved, and the graph of what they need: order,
//! cycles, selections, drawings. Knows nothing of what stages do, nor how a file is read.

mod drawings;
mod halved;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap, HashSet};
use std::path::{Component, PathBuf};
use std::sync::{Arc, OnceLock};

use petgraph::Direction;
use petgraph::graph::{DiGraph, NodeIndex};
use petgraph::visit::{Dfs, EdgeRef, Reversed};
use pipe_core::error::{SpecError, SpecErrors};
use pipe_core::ids::StageId;
use pipe_core::secret;
use pipe_fs::sync::Level;

use crate::artifact::ArtifactType;
use crate::kind::Stage;
use crate::pipeline_file::{ExecutorSettings, StageLayers, StoreUrl};
use crate::policy::{ExecutionOptions, Hooks, Tasks};
use crate::reference::{DependencyMode, Files};
use crate::source::{Part, Source};
use pipe_core::fingerprint::Manifest;

/// A pipeline with everything filled in and checked.
pub struct LoadedPipeline {
    pub name: String,
    pub source: Source,
    /// Where stages run.
    pub executor: ExecutorSettings,
    /// Where its state is mirrored.
    pub store: Option<StoreUrl>,
    /// What the disk is asked to keep.
    pub fsync: Level,
    /// Who is told of what happens to any stage, and of the end.
    pub on: Hooks,
    /// In the file's order.
    pub stages: Vec<LoadedStage>,
    /// Legal, and probably not meant.
    pub warnings: Vec<SpecError>,
    /// The stages that came of each declared one with a `matrix`.
    pub(crate) matrices: BTreeMap<StageId, Vec<StageId>>,
}

/// A stage with typed settings.
pub struct LoadedStage {
    pub id: StageId,
    pub kind: String,
    /// What it makes.
    pub makes: ArtifactType,
    pub stage: Arc<dyn Stage>,
    /// What its own settings decide.
    pub manifest: Manifest,
    pub options: ExecutionOptions,
    /// What other stages hand to it.
    pub inputs: Vec<Input>,
    /// Files of the project that it reads and writes.
    pub files: Files,
    /// The stages it depends on: the key that says so, and the stage. References first, then
    /// `needs`, then those that make its files.
    pub needs: Vec<(Vec<String>, StageId)>,
    /// Where its settings were read, if that is not the pipeline file alone.
    pub(crate) layers: Option<Box<StageLayers>>,
}

impl LoadedStage {
    /// An error about the value of a setting, where that stands. `key` is a dotted path, relative to
    /// the stage; `pipeline` is the file that declares it.
    pub fn error_at(&self, pipeline: &Source, key: &str, message: impl Into<String>) -> SpecError {
        let path: Vec<String> = key.split('.').map(str::to_owned).collect();
        if let Some(layers) = &self.layers {
            return layers.error_at(&path, message);
        }
        let stage = ["stages", self.id.declared()].map(str::to_owned);
        SpecError::on(pipeline, [&stage[..], &path].concat(), Part::Value, message)
    }

    /// Whether it takes what another stage makes while that makes it, and needs nothing of it that is
    /// there only in the end.
    pub fn streams_from(&self, other: &StageId) -> bool {
        let mut from = self.inputs.iter().filter(|input| input.stage == *other).peekable();
        let streams = |input: &Input| input.counts == DependencyMode::Streaming;
        let is_input = |path: &[String]| self.inputs.iter().any(|i| path == [i.name.as_str()]);
        from.peek().is_some()
            && from.all(streams)
            && self.needs.iter().filter(|(_, id)| id == other).all(|(path, _)| is_input(path))
    }

    /// GPUs that it takes while it runs: its own one, or those that its settings name.
    pub fn gpus(&self) -> u32 {
        self.options.resources.gpu.max(self.stage.gpus())
    }

    /// The processes that it is within its job.
    pub fn tasks(&self) -> Tasks {
        if self.stage.spans_nodes() { self.options.slurm.tasks() } else { Tasks::ONE }
    }

    /// Whether it can begin without a stage before it that failed.
    pub fn passes_over(&self, failed: &StageId) -> bool {
        let mut inputs =
            self.inputs.iter().filter(|input| input.stage == *failed && input.may_fail);
        let Some(key) = inputs.next().and_then(|input| input.name.split('.').next()) else {
            return false;
        };
        self.needs
            .iter()
            .filter(|(_, id)| id == failed)
            .all(|(path, _)| path.len() == 1 && path[0] == key)
    }
}

/// Something that another stage hands on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Input {
    /// The setting's key; with the stage's name behind it where the setting may name several.
    pub name: String,
    pub stage: StageId,
    pub counts: DependencyMode,
    /// See [`Reference::passes_over_failed`](crate::reference::Reference).
    pub may_fail: bool,
}

/// Stages and what they need. An edge goes from a stage to one that needs it.
pub struct Graph {
    pub pipeline: LoadedPipeline,
    graph: DiGraph<usize, String>,
    /// Positions in the file, dependencies first.
    order: Vec<usize>,
    /// Position in the file, by name.
    index: HashMap<StageId, usize>,
    writers: OnceLock<BTreeMap<PathBuf, StageId>>,
}

impl Graph {
    /// Builds the graph; a cycle is an error that prints its way round.
    pub fn build(pipeline: LoadedPipeline) -> Result<Self, SpecErrors> {
        let names =
            pipeline.stages.iter().flat_map(|stage| [stage.id.as_str(), stage.kind.as_str()]);
        [pipeline.name.as_str()].into_iter().chain(names).for_each(secret::is_open);
        let mut graph = DiGraph::new();
        let nodes: Vec<NodeIndex> = (0..pipeline.stages.len()).map(|i| graph.add_node(i)).collect();
        let index: HashMap<StageId, usize> =
            pipeline.stages.iter().enumerate().map(|(i, s)| (s.id.clone(), i)).collect();
        for (to, stage) in pipeline.stages.iter().enumerate() {
            for (key, id) in &stage.needs {
                let Some(&from) = index.get(id) else { continue };
                graph.update_edge(nodes[from], nodes[to], key[0].clone());
            }
        }
        if let Some(cycle) = find_cycle(&graph) {
            return Err(cycle_error(&pipeline, &cycle).into());
        }
        let order = file_like_order(&graph);
        Ok(Self { pipeline, graph, order, index, writers: OnceLock::new() })
    }

    /// The stage that writes each file or folder that some stage writes.
    pub fn writers(&self) -> &BTreeMap<PathBuf, StageId> {
        self.writers.get_or_init(|| {
            let of = |stage: &LoadedStage| -> Vec<(PathBuf, StageId)> {
                let plain = |path: &PathBuf| {
                    path.components().filter(|c| *c != Component::CurDir).collect()
                };
                stage.files.writes.iter().map(|(_, path)| (plain(path), stage.id.clone())).collect()
            };
            self.pipeline.stages.iter().flat_map(of).collect()
        })
    }

    /// All stages, dependencies first, otherwise as in the file.
    pub fn stages(&self) -> impl Iterator<Item = &LoadedStage> {
        self.order.iter().map(|&i| &self.pipeline.stages[i])
    }

    pub fn stage(&self, id: &StageId) -> Option<&LoadedStage> {
        self.index.get(id).map(|&i| &self.pipeline.stages[i])
    }

    /// Places in the file of all stages, dependencies first.
    pub(crate) fn order(&self) -> &[usize] {
        &self.order
    }

    /// Places of the stages that the one at `place` needs directly.
    pub(crate) fn before(&self, place: usize) -> Vec<usize> {
        self.neighbours(place, Direction::Incoming)
    }

    /// Places of the stages that need the one at `place` directly.
    pub(crate) fn after(&self, place: usize) -> Vec<usize> {
        self.neighbours(place, Direction::Outgoing)
    }

    fn neighbours(&self, place: usize, direction: Direction) -> Vec<usize> {
        let nodes = self.graph.neighbors_directed(NodeIndex::new(place), direction);
        let mut found: Vec<usize> = nodes.map(|node| self.graph[node]).collect();
        found.sort_unstable();
        found
    }

    /// The stages that `id` needs directly, with the setting that names each.
    pub fn dependencies(&self, id: &StageId) -> Vec<(&str, &LoadedStage)> {
        let Some(node) = self.node(id) else { return Vec::new() };
        let mut edges: Vec<_> = self.graph.edges_directed(node, Direction::Incoming).collect();
        edges.sort_by_key(|e| e.source());
        edges
            .iter()
            .map(|e| (e.weight().as_str(), &self.pipeline.stages[self.graph[e.source()]]))
            .collect()
    }

    /// The stages that need `id` directly.
    pub fn dependents(&self, id: &StageId) -> Vec<&LoadedStage> {
        let after = self.index.get(id).map(|&place| self.after(place)).unwrap_or_default();
        after.into_iter().map(|place| &self.pipeline.stages[place]).collect()
    }

    /// The stages that one needs, however far before it they are, and itself.
    pub fn upstream(&self, id: &StageId) -> BTreeSet<StageId> {
        let all = reach(Reversed(&self.graph), self.node(id).as_slice());
        all.iter().map(|node| self.pipeline.stages[self.graph[*node]].id.clone()).collect()
    }

    /// The stages that take what `id` makes while it makes it.
    pub fn followers(&self, id: &StageId) -> Vec<&LoadedStage> {
        let mut found = self.dependents(id);
        found.retain(|stage| stage.streams_from(id));
        found
    }

    /// Whether any stage takes what another one makes while that makes it.
    pub fn has_followers(&self) -> bool {
        let mut inputs = self.pipeline.stages.iter().flat_map(|stage| &stage.inputs);
        inputs.any(|input| input.counts == DependencyMode::Streaming)
    }

    /// The stages whose metrics decide what `id` hands on.
    fn judges(&self, id: &StageId) -> Vec<&LoadedStage> {
        let judge = self.stage(id).and_then(|stage| stage.stage.judge());
        let Some(judge) = judge else { return Vec::new() };
        let mut found = self.followers(id);
        found.retain(|stage| stage.id.declared() == judge.stage);
        found
    }

    /// The stages that a command line means, with everything that they need.
    pub fn select(&self, wanted: &Targets) -> Result<Selection, SpecError> {
        let (until, from) = (self.named(&wanted.until)?, self.named(&wanted.from)?);
        if until.is_empty() && from.is_empty() {
            let ids = || self.pipeline.stages.iter().map(|s| s.id.clone());
            return Ok(Selection { stages: ids().collect(), named: ids().collect() });
        }
        let all = || self.graph.node_indices().collect::<BTreeSet<_>>();
        let id = |node: &NodeIndex| self.pipeline.stages[self.graph[*node]].id.clone();
        let upstream = |of: &[NodeIndex]| {
            let mut all = reach(Reversed(&self.graph), of);
            loop {
                let judges = all.iter().flat_map(|node| self.judges(&id(node)));
                let halved = self.halved_with(all.iter().filter_map(|node| self.stage(&id(node))));
                let more: Vec<NodeIndex> =
                    judges.chain(halved).filter_map(|s| self.node(&s.id)).collect();
                let before = all.len();
                all.extend(reach(Reversed(&self.graph), &more));
                if all.len() == before {
                    return all;
                }
            }
        };
        let before = if until.is_empty() { all() } else { upstream(&until) };
        let after = if from.is_empty() { all() } else { reach(&self.graph, &from) };
        let meant: Vec<NodeIndex> = before.intersection(&after).copied().collect();
        let named = until.iter().chain(&from).map(id).collect();
        Ok(Selection { stages: upstream(&meant).iter().map(id).collect(), named })
    }

    /// The nodes of these names; a name of a matrix means all its stages.
    fn named(&self, names: &[String]) -> Result<Vec<NodeIndex>, SpecError> {
        let mut nodes = Vec::new();
        for name in names {
            if let Some(members) = self.pipeline.matrices.get(name.as_str()) {
                nodes.extend(members.iter().filter_map(|id| self.node(id)));
            } else if let Some(&place) = self.index.get(name.as_str()) {
                nodes.push(NodeIndex::new(place));
            } else {
                let all = self.pipeline.stages.iter().map(|s| s.id.as_str());
                let shown = self.pipeline.source.path().display();
                return Err(SpecError::plain(format!("{shown}: no stage is called `{name}`"))
                    .candidates(name, all));
            }
        }
        Ok(nodes)
    }

    fn node(&self, id: &StageId) -> Option<NodeIndex> {
        self.index.get(id).map(|&i| NodeIndex::new(i))
    }
}

/// What a command line asks for, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Targets {
    /// These stages and what they need; all where it is empty.
    pub until: Vec<String>,
    /// These stages and what depends on them; all where it is empty.
    pub from: Vec<String>,
}

/// The stages that are looked at, and those that were named.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection {
    pub stages: HashSet<StageId>,
    /// All where none was named.
    pub named: BTreeSet<StageId>,
}

/// Every node that can be reached, the first ones among them.
fn reach<G>(graph: G, from: &[NodeIndex]) -> BTreeSet<NodeIndex>
where
    G: petgraph::visit::IntoNeighbors<NodeId = NodeIndex>
        + petgraph::visit::Visitable<NodeId = NodeIndex>
        + Copy,
{
    let mut walk = Dfs::empty(graph);
    walk.stack.extend(from);
    let mut found = BTreeSet::new();
    while let Some(node) = walk.next(graph) {
        found.insert(node);
    }
    found
}

/// Kahn's algorithm, taking the stage that stands first in the file among those that are ready.
fn file_like_order(graph: &DiGraph<usize, String>) -> Vec<usize> {
    let mut waiting: Vec<usize> = graph
        .node_indices()
        .map(|n| graph.neighbors_directed(n, Direction::Incoming).count())
        .collect();
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

/// One way round a cycle, each stage before the one that it needs; `None` for a graph without
/// cycles.
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
        let next = graph
            .neighbors_directed(last, Direction::Incoming)
            .filter(|n| inside.contains(n))
            .min()?;
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
    let reference = first
        .needs
        .iter()
        .find(|(_, id)| id == next)
        .map(|(key, _)| key.clone())
        .unwrap_or_default();
    let key = [vec!["stages".to_owned(), first.id.to_string()], reference].concat();
    let message = format!("stages need each other in a circle: {}", names.join(" -> "));
    SpecError::on(&pipeline.source, key, Part::Value, message)
        .note("a stage can only need stages that do not need it")
}
