//! A file of PyTorch's or Lightning's with names of its own, by a mapping: weights, EMA weights,
//! the optimizer's state, epoch and step. Of a safetensors file, weights and EMA weights.

mod mapping;
mod optimizer;
mod pickle;

use std::collections::BTreeMap;
use std::path::Path;

use pipe_fs::Disk;
use pipe_runs::checkpoint::{Written, write};
use pipe_runs::tensor::{Dtype, HostTensor};

pub use mapping::Mapping;

use self::mapping::{Resolved, Sources};
use self::optimizer::{MOMENTS, OptimizerState, STEP};
use self::pickle::{Node, Pickle};
use super::foreign::{self, ForeignTensor};
use super::import::{
    ImportError, ImportOptions, LONGEST, Misfit, check_classes, header, listed, marks,
};
use crate::architecture::{Architectures, Shapes};
use crate::trainer::{EMA_WEIGHTS, OPTIMIZER_STATE, WEIGHTS};

/// Where Lightning has the weights.
const STATE_DICT: &str = "state_dict";

/// What was taken over.
#[derive(Debug)]
pub struct Imported {
    pub written: Written,
    /// Completed epochs.
    pub epoch: u64,
    /// Optimizer steps.
    pub global_step: u64,
    pub has_ema: bool,
    pub has_optimizer: bool,
}

/// A file, and what its tensors are called.
struct Foreign<'a> {
    path: &'a Path,
    /// What it holds besides tensors; nothing in a safetensors file.
    pickle: Option<Pickle>,
    tensors: BTreeMap<String, ForeignTensor>,
    /// What stands before the names of the weights.
    prefix: String,
}

/// Converts a file of PyTorch 1.6 or newer to a checkpoint of this program, by a mapping. The
/// architecture is read from the shapes of the tensors under our names.
///
/// # Errors
/// All tensors that the mapping does not name, that are missing or of another shape, at once; and
/// an optimizer that is no Adam, or whose parameters are others than the weights.
pub fn import_mapped(
    disk: &Disk,
    known: &Architectures,
    from: &Path,
    to: &Path,
    mapping: &Mapping,
    options: &ImportOptions,
) -> Result<Imported, ImportError> {
    let file = Foreign::open(from)?;
    let names = file.names();
    let Resolved { weights, ema, mut problems } = mapping.resolve(names.iter().map(String::as_str));
    if !problems.is_empty() {
        return Err(file.misfit(problems));
    }
    let weights = file.read(&weights, &mut problems);
    let ema = file.read(&ema, &mut problems);
    let found = known.iter().find(|arch| weights.iter().any(|t| t.name == arch.mark()));
    let Some(arch) = found.filter(|_| problems.is_empty()) else {
        if problems.is_empty() {
            let ours: Vec<String> = weights.into_iter().map(|tensor| tensor.name).collect();
            problems.push(format!("no tensor is called {}: {}", marks(known), listed(&ours)));
        }
        return Err(file.misfit(problems));
    };
    let shapes = weights.iter().map(|t| (t.name.as_str(), t.shape.as_slice())).collect();
    let config = arch.infer(&Shapes(shapes), options.image_size);
    let wrong_config = |error| ImportError::Config { path: from.to_owned(), error };
    config.validate().map_err(wrong_config)?;
    check_classes(from, &options.class_names, config.num_classes())?;
    for (tensors, what) in [(&weights, ""), (&ema, "EMA weights: ")] {
        if what.is_empty() || !tensors.is_empty() {
            let found = tensors.iter().map(|t| (t.name.as_str(), t.shape.as_slice())).collect();
            let misfit = Misfit::of(&found, &config).map_err(wrong_config)?;
            problems.extend(misfit.lines().map(|line| format!("{what}{line}")));
        }
    }
    if !problems.is_empty() {
        return Err(file.misfit(problems));
    }
    let moments = file.moments(mapping, &names)?;
    let (epoch, global_step) = file.position();
    let header = header(&config, options, epoch, global_step);
    let (has_ema, has_optimizer) = (!ema.is_empty(), !moments.is_empty());
    let prefixed = |tensors: Vec<HostTensor>, prefix: &'static str| {
        tensors.into_iter().map(move |t| HostTensor { name: format!("{prefix}{}", t.name), ..t })
    };
    let all = prefixed(weights, WEIGHTS).chain(prefixed(ema, EMA_WEIGHTS));
    let all: Vec<HostTensor> = all.chain(prefixed(moments, OPTIMIZER_STATE)).collect();
    let written = write(disk, to, &header, &all)?;
    Ok(Imported { written, epoch, global_step, has_ema, has_optimizer })
}

impl Mapping {
    /// Reads a mapping file, which is YAML.
    ///
    /// # Errors
    /// A file that cannot be read, and one that is no mapping.
    pub fn read(path: &Path) -> Result<Self, ImportError> {
        let read = |message: String| ImportError::Read { path: path.to_owned(), message };
        let text = std::fs::read_to_string(path).map_err(|e| read(e.to_string()))?;
        serde_yaml::from_str(&text).map_err(|e| read(e.to_string()))
    }
}

impl<'a> Foreign<'a> {
    fn open(path: &'a Path) -> Result<Self, ImportError> {
        let read = |message: String| ImportError::Read { path: path.to_owned(), message };
        let tensors = foreign::tensors(path, LONGEST).map_err(read)?;
        let is_pickle = !foreign::is_safetensors(path);
        let pickle = is_pickle.then(|| Pickle::of(path)).transpose().map_err(read)?;
        let root = pickle.as_ref().map(Pickle::root);
        let is_inside = root.is_some_and(|root| root.get(STATE_DICT).is_some());
        let prefix = if is_inside { format!("{STATE_DICT}.") } else { String::new() };
        Ok(Self { path, pickle, tensors, prefix })
    }

    /// The names of the tensors that may be weights, in the order of the file: those in its
    /// `state_dict`, or else its own and those in its dictionaries.
    fn names(&self) -> Vec<String> {
        let Some(root) = self.pickle.as_ref().map(Pickle::root) else {
            return self.tensors.keys().cloned().collect();
        };
        let part = root.get(STATE_DICT).unwrap_or(root);
        let names = part.entries().flat_map(|(name, inner)| {
            let below = |(below, _)| format!("{name}.{below}");
            let below: Vec<String> = inner.entries().map(below).collect();
            [name].into_iter().chain(below)
        });
        names.filter(|name| self.tensor(name).is_some()).collect()
    }

    fn tensor(&self, name: &str) -> Option<&ForeignTensor> {
        self.tensors.get(&format!("{}{name}", self.prefix))
    }

    fn misfit(&self, problems: Vec<String>) -> ImportError {
        ImportError::Mapping { path: self.path.to_owned(), problems }
    }

    /// The tensors of one side under our names, without a prefix.
    fn read(&self, side: &Sources, problems: &mut Vec<String>) -> Vec<HostTensor> {
        let tensors = side.iter().map(|(ours, theirs)| {
            let parts: Vec<&ForeignTensor> =
                theirs.iter().filter_map(|name| self.tensor(name)).collect();
            self.joined(ours, &parts)
        });
        take_good(tensors, problems)
    }

    /// Tensors one behind the other along their first axis.
    fn joined(&self, name: &str, parts: &[&ForeignTensor]) -> Result<HostTensor, String> {
        let rest = |tensor: &ForeignTensor| tensor.shape.get(1..).map(<[usize]>::to_vec);
        let [first, others @ ..] = parts else { return Err(format!("{name} has no part")) };
        if let Some(other) = others.iter().find(|o| rest(o).is_none() || rest(o) != rest(first)) {
            let (one, other) = (&first.shape, &other.shape);
            return Err(format!("{name}: shapes {one:?} and {other:?} cannot be joined"));
        }
        let mut joined = first.host(name)?;
        for other in others {
            let other = other.host(name)?;
            joined.shape[0] += other.shape[0];
            joined.bytes.extend(other.bytes);
        }
        Ok(joined)
    }

    /// The optimizer's state under our names, if it is wanted and there: as
    /// [`Optimizer::state_dict`](crate::trainer::Optimizer::state_dict) has it, without a prefix.
    fn moments(&self, mapping: &Mapping, names: &[String]) -> Result<Vec<HostTensor>, ImportError> {
        let wrong = |reason: String| {
            self.misfit(vec![reason, "`optimizer: false` leaves its state out".to_owned()])
        };
        if !mapping.optimizer {
            return Ok(Vec::new());
        }
        let root = self.pickle.as_ref().map(Pickle::root);
        let found = root.map_or(Ok(None), OptimizerState::find).map_err(wrong)?;
        let Some(optimizer) = found else { return Ok(Vec::new()) };
        let sources = mapping.resolve(names.iter().map(String::as_str)).weights;
        let is_mapped = |name: &&String| sources.values().flatten().any(|other| other == *name);
        let mapped: Vec<String> = names.iter().filter(is_mapped).cloned().collect();
        let is_wanted = |name: &&String| !mapping.ignores(name);
        let wanted: Vec<String> = names.iter().filter(is_wanted).cloned().collect();
        let numbers =
            optimizer.numbers(&mapping.parameters, [&mapped, &wanted, names]).map_err(wrong)?;
        let mut problems = Vec::new();
        let mut tensors = Vec::new();
        for (ours, theirs) in &sources {
            let states = theirs.iter().map(|name| self.state(&optimizer, &numbers, name));
            let states = take_good(states, &mut problems);
            if states.len() < theirs.len() {
                continue;
            }
            for (i, moment) in MOMENTS.iter().enumerate() {
                let parts: Vec<&ForeignTensor> =
                    states.iter().map(|state| state.moments[i]).collect();
                let joined = self.joined(&format!("{ours}.{moment}"), &parts);
                tensors.extend(take_good([joined].into_iter(), &mut problems));
            }
            let Some(step) = states.first().map(|state| state.step) else { continue };
            if states.iter().any(|state| state.step != step) {
                problems.push(format!("{ours}: its parts are at different steps of the optimizer"));
            }
            let bytes = step.to_le_bytes().to_vec();
            let name = format!("{ours}.{STEP}");
            tensors.push(HostTensor { name, dtype: Dtype::I64, shape: vec![], bytes });
        }
        if problems.is_empty() { Ok(tensors) } else { Err(wrong(problems.join("\n  "))) }
    }

    /// What the optimizer keeps of the parameter that is called so.
    fn state(
        &self,
        optimizer: &OptimizerState,
        numbers: &BTreeMap<String, String>,
        name: &str,
    ) -> Result<State<'_>, String> {
        let missing = || format!("the optimizer has no state of {name}");
        let number = numbers.get(name).ok_or_else(missing)?;
        let state = optimizer.state.get(number).ok_or_else(missing)?;
        let tensor =
            |field: &str| self.tensors.get(&format!("{}.state.{number}.{field}", optimizer.prefix));
        let shape = self.tensor(name).map(|tensor| tensor.shape.as_slice());
        let moment = |field: &&str| {
            let found = tensor(field).ok_or_else(missing)?;
            if Some(found.shape.as_slice()) == shape {
                return Ok(found);
            }
            let (found, shape) = (&found.shape, shape.unwrap_or_default());
            Err(format!(
                "the optimizer's {field} of {name} has the shape {found:?} instead of {shape:?}: its parameters are in \
                 another order; list their names as `parameters`"
            ))
        };
        let moments = MOMENTS.iter().map(moment).collect::<Result<Vec<_>, String>>()?;
        let step = match (state.get(STEP).and_then(Node::int), tensor(STEP)) {
            (Some(step), _) => Some(step),
            (None, Some(step)) => step
                .host(STEP)
                .ok()
                .and_then(|step| step.to_f32()?.first().map(|step| *step as i64)),
            (None, None) => None,
        };
        let step = step.filter(|step| *step >= 0);
        Ok(State { moments, step: step.ok_or_else(|| format!("{name} has no count of steps"))? })
    }

    /// Completed epochs and the optimizer's steps. Lightning counts epochs from 0, and those whose
    /// batches were all processed apart from that.
    fn position(&self) -> (u64, u64) {
        let Some(root) = self.pickle.as_ref().map(Pickle::root) else { return (0, 0) };
        let number = |keys: &[&str]| {
            let number = root.at(keys).and_then(Node::int);
            number.and_then(|number| u64::try_from(number).ok())
        };
        let processed = ["loops", "fit_loop", "epoch_progress", "current", "processed"];
        let epoch = number(&processed).or_else(|| number(&["epoch"])).unwrap_or(0);
        (epoch, number(&["global_step"]).unwrap_or(0))
    }
}

/// What the optimizer keeps of one parameter.
struct State<'a> {
    moments: Vec<&'a ForeignTensor>,
    step: i64,
}

/// What went well; the rest goes to `problems`.
fn take_good<T>(
    results: impl Iterator<Item = Result<T, String>>,
    problems: &mut Vec<String>,
) -> Vec<T> {
    let good = results.filter_map(|result| result.map_err(|problem| problems.push(problem)).ok());
    good.collect()
}
