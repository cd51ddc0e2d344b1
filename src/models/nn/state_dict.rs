//! A network's parameters as named tensors in host memory, and back.
//!
//! Names and layout are PyTorch's without any translation, because the modules hold them so, but
//! for the axes of length 1 of 1x1 kernels; the numbers pass through to the bit. Knows nothing of
//! files.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::tensor::{ExecutionError, Tensor, TensorData, Transaction};
use pipe_runs::tensor::{Dtype, HostTensor};

/// End of the name of the factor that LoRA applies first, `[r, in]`, or the kernel `[r, in, k, k]`.
pub const LORA_A: &str = ".lora_A.weight";
/// End of the name of the factor that LoRA applies second, `[out, r]`, or the kernel `[out, r, 1,
/// 1]`.
pub const LORA_B: &str = ".lora_B.weight";

/// The parameters of a module that are trained, and so saved.
#[derive(Debug, Clone, Default)]
pub enum Scope {
    #[default]
    All,
    /// These, by name; the others never change.
    Only(Arc<BTreeSet<String>>),
}

impl Scope {
    pub fn holds(&self, name: &str) -> bool {
        match self {
            Self::All => true,
            Self::Only(names) => names.contains(name),
        }
    }
}

/// One parameter's place in a module.
pub struct ParamPath {
    pub id: ParamId,
    /// Full dotted name.
    pub name: String,
    /// Last part of the name.
    pub field: String,
    /// burn's name of the type that holds it, such as `Struct:Linear`.
    pub container: String,
    pub shape: Vec<usize>,
}

/// Where a walk through a module stands.
#[derive(Default)]
struct Path {
    names: Vec<(String, String)>,
    /// Sides of the last kernel: the factors of LoRA come after the weight that they are beside.
    kernel: [usize; 2],
}

impl Path {
    pub fn enter(&mut self, name: &str, container: &str) {
        self.names.push((name.to_owned(), container.to_owned()));
    }

    pub fn exit(&mut self) {
        self.names.pop();
    }

    /// PyTorch's name; for the factors of LoRA the one in PEFT, where the module holds them and not
    /// its weight.
    pub fn name(&self) -> String {
        let names: Vec<&str> = self.names.iter().map(|(name, _)| name.as_str()).collect();
        match names.as_slice() {
            [module @ .., "weight", "lora", "a"] => format!("{}{LORA_B}", module.join(".")),
            [module @ .., "weight", "lora", "b"] => format!("{}{LORA_A}", module.join(".")),
            _ => names.join("."),
        }
    }

    /// PyTorch's shape of a parameter: a 1x1 kernel has two axes more than the matrix that
    /// [`Pointwise`](super::Pointwise) holds. The factors beside a larger kernel are a kernel as
    /// large and a 1x1 one.
    pub fn shape(&mut self, dims: &[usize]) -> Vec<usize> {
        let is_in = |name: &str| self.names.iter().any(|(_, container)| container == name);
        match *dims {
            [_, _, height, width] => self.kernel = [height, width],
            [outputs, inputs] if is_in("Struct:Pointwise") => return vec![outputs, inputs, 1, 1],
            [outputs, inputs] if is_in("Struct:Conv2d") => {
                let is_first = self.names.last().is_some_and(|(name, _)| name == "b");
                let [height, width] = if is_first { self.kernel } else { [1, 1] };
                return vec![outputs, inputs / (height * width).max(1), height, width];
            }
            _ => {}
        }
        dims.to_vec()
    }
}

/// Every float parameter, in the module's order.
pub fn walk<M: Module>(module: &M) -> Vec<ParamPath> {
    struct Walk {
        path: Path,
        found: Vec<ParamPath>,
    }
    impl ModuleVisitor for Walk {
        fn enter_module(&mut self, name: &str, container: &str) {
            self.path.enter(name, container);
        }
        fn exit_module(&mut self, _name: &str, _container: &str) {
            self.path.exit();
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let (field, container) = self.path.names.last().cloned().unwrap_or_default();
            let shape = self.path.shape(&param.lazy_shape());
            self.found.push(ParamPath {
                id: param.id,
                name: self.path.name(),
                field,
                container,
                shape,
            });
        }
    }
    let mut walk = Walk { path: Path::default(), found: Vec::new() };
    module.visit(&mut walk);
    walk.found
}

/// Process-local id, PyTorch name and shape of every float parameter, sorted by name.
pub fn param_paths<M: Module>(module: &M) -> Vec<(ParamId, String, Vec<usize>)> {
    let mut paths: Vec<_> = walk(module).into_iter().map(|p| (p.id, p.name, p.shape)).collect();
    paths.sort_by(|a, b| a.1.cmp(&b.1));
    paths
}

/// The float parameters in `scope` under their PyTorch names with `prefix` before them, sorted by
/// name.
///
/// Waits for the device once; 32-bit floats keep their bits.
///
/// # Errors
/// The first parameter that could not be computed on the device.
pub fn state_dict<M: Module>(
    module: &M,
    scope: &Scope,
    prefix: &str,
) -> Result<Vec<HostTensor>, ExecutionError> {
    struct Collect<'a> {
        path: Path,
        scope: &'a Scope,
        prefix: &'a str,
        read: Transaction,
        found: Vec<(String, Vec<usize>)>,
    }
    impl ModuleVisitor for Collect<'_> {
        fn enter_module(&mut self, name: &str, container: &str) {
            self.path.enter(name, container);
        }
        fn exit_module(&mut self, _name: &str, _container: &str) {
            self.path.exit();
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let name = self.path.name();
            let shape = self.path.shape(&param.lazy_shape());
            if !self.scope.holds(&name) {
                return;
            }
            let tensor = param.base();
            self.found.push((format!("{}{name}", self.prefix), shape));
            self.read = std::mem::take(&mut self.read).register(tensor);
        }
    }
    let mut collect = Collect {
        path: Path::default(),
        scope,
        prefix,
        read: Transaction::default(),
        found: Vec::new(),
    };
    module.visit(&mut collect);
    let data = collect.read.try_execute()?;
    let mut found: Vec<HostTensor> = collect
        .found
        .into_iter()
        .zip(data)
        .map(|((name, shape), data)| host_tensor(name, shape, data))
        .collect();
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

/// Numbers that were read from a device, as 32-bit floats.
pub fn host_tensor(name: String, shape: Vec<usize>, data: TensorData) -> HostTensor {
    HostTensor { name, dtype: Dtype::F32, shape, bytes: data.convert::<f32>().bytes().to_vec() }
}

/// Why a module could not be filled.
#[derive(Debug, thiserror::Error)]
pub enum LoadError<E: std::error::Error + 'static> {
    /// The tensors do not fit the module: every parameter concerned, one line each, not only the
    /// first. The message names some of them.
    #[error("failed to load the parameters: {}", first_of(problems))]
    Mismatch { problems: Vec<String> },
    /// A tensor could not be read.
    #[error(transparent)]
    Lookup(E),
}

/// Fills the parameters in `scope` from named tensors: `lookup` is asked for `prefix` + name of
/// each. `available` holds the full names of all that is on offer; those under `prefix` that no
/// parameter has are unexpected.
///
/// # Errors
/// The first `lookup` that fails; otherwise all missing, unexpected and wrong-shaped names at once.
pub fn load_state_dict<'n, M, E>(
    module: M,
    scope: &Scope,
    prefix: &str,
    available: impl IntoIterator<Item = &'n str>,
    mut lookup: impl FnMut(&str) -> Result<Option<HostTensor>, E>,
) -> Result<M, LoadError<E>>
where
    M: Module,
    E: std::error::Error + 'static,
{
    let mut values = HashMap::new();
    let mut problems = Vec::new();
    let mut unexpected: BTreeSet<&str> =
        available.into_iter().filter(|n| n.starts_with(prefix)).collect();
    for ParamPath { name, shape, .. } in walk(&module).into_iter().filter(|p| scope.holds(&p.name))
    {
        let full = format!("{prefix}{name}");
        unexpected.remove(full.as_str());
        let found = lookup(&full).map_err(LoadError::Lookup)?;
        match found.map(|found| (found.to_f32(), found.shape, found.dtype)) {
            None => problems.push(format!("`{full}` is missing")),
            Some((_, found, _)) if found != shape => {
                problems
                    .push(format!("`{full}` has the shape {found:?}, the model needs {shape:?}"));
            }
            Some((None, _, dtype)) => {
                problems.push(format!("`{full}` holds {dtype:?}, the model needs F32"));
            }
            Some((Some(numbers), _, _)) => {
                values.insert(name, numbers);
            }
        }
    }
    problems
        .extend(unexpected.into_iter().map(|name| format!("`{name}` is not part of the model")));
    if problems.is_empty() {
        Ok(fill(module, values))
    } else {
        Err(LoadError::Mismatch { problems })
    }
}

/// The first of many problems in one sentence, and how many more there are.
pub fn first_of(problems: &[String]) -> String {
    const SHOWN: usize = 5;
    let shown = problems.iter().take(SHOWN).cloned().collect::<Vec<_>>().join("; ");
    match problems.len().saturating_sub(SHOWN) {
        0 => shown,
        1 => format!("{shown}; and one more"),
        more => format!("{shown}; and {more} more"),
    }
}

/// The module with the named parameters replaced; others stay. Shapes must fit.
pub fn fill<M: Module>(module: M, values: HashMap<String, Vec<f32>>) -> M {
    struct Fill {
        path: Path,
        values: HashMap<String, Vec<f32>>,
    }
    impl ModuleMapper for Fill {
        fn enter_module(&mut self, name: &str, container: &str) {
            self.path.enter(name, container);
        }
        fn exit_module(&mut self, _name: &str, _container: &str) {
            self.path.exit();
        }
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            let Some(values) = self.values.remove(&self.path.name()) else { return param };
            let data = TensorData::new(values, param.lazy_shape());
            let (id, device) = (param.id, param.lazy_device());
            param.transform_for_load(Tensor::from_data(data, &device), id)
        }
    }
    module.map(&mut Fill { path: Path::default(), values })
}
