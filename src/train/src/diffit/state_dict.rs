//! A network's parameters as named tensors in host memory, and back.
//!
//! Names and layout are PyTorch's without any translation, because the modules hold them so; the numbers pass
//! through to the bit. Knows nothing of files.

use std::collections::{BTreeSet, HashMap};

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::tensor::{Tensor, TensorData};
use pipe_engine::store::tensor::{Dtype, HostTensor};

/// One parameter's place in a module.
pub(super) struct ParamPath {
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
pub(super) struct Path(Vec<(String, String)>);

impl Path {
    pub fn enter(&mut self, name: &str, container: &str) {
        self.0.push((name.to_owned(), container.to_owned()));
    }

    pub fn exit(&mut self) {
        self.0.pop();
    }

    pub fn name(&self) -> String {
        let names: Vec<&str> = self.0.iter().map(|(name, _)| name.as_str()).collect();
        names.join(".")
    }
}

/// Every float parameter, in the module's order.
pub(super) fn walk<M: Module>(module: &M) -> Vec<ParamPath> {
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
            let (field, container) = self.path.0.last().cloned().unwrap_or_default();
            let shape = param.lazy_shape().to_vec();
            self.found.push(ParamPath { id: param.id, name: self.path.name(), field, container, shape });
        }
    }
    let mut walk = Walk { path: Path::default(), found: Vec::new() };
    module.visit(&mut walk);
    walk.found
}

/// Process-local id, PyTorch name and shape of every float parameter, sorted by name. The shape is at once
/// PyTorch's and that of the tensor in the module.
pub fn param_paths<M: Module>(module: &M) -> Vec<(ParamId, String, Vec<usize>)> {
    let mut paths: Vec<_> = walk(module).into_iter().map(|p| (p.id, p.name, p.shape)).collect();
    paths.sort_by(|a, b| a.1.cmp(&b.1));
    paths
}

/// Every float parameter under its PyTorch name with `prefix` before it, sorted by name.
///
/// Waits for the device; 32-bit floats keep their bits.
pub fn state_dict<M: Module>(module: &M, prefix: &str) -> Vec<HostTensor> {
    struct Collect<'a> {
        path: Path,
        prefix: &'a str,
        found: Vec<HostTensor>,
    }
    impl ModuleVisitor for Collect<'_> {
        fn enter_module(&mut self, name: &str, container: &str) {
            self.path.enter(name, container);
        }
        fn exit_module(&mut self, _name: &str, _container: &str) {
            self.path.exit();
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let tensor = param.base();
            let shape = tensor.dims().to_vec();
            let bytes = tensor.into_data().convert::<f32>().bytes().to_vec();
            let name = format!("{}{}", self.prefix, self.path.name());
            self.found.push(HostTensor { name, dtype: Dtype::F32, shape, bytes });
        }
    }
    let mut collect = Collect { path: Path::default(), prefix, found: Vec::new() };
    module.visit(&mut collect);
    collect.found.sort_by(|a, b| a.name.cmp(&b.name));
    collect.found
}

/// Why a module could not be filled.
#[derive(Debug, thiserror::Error)]
pub enum LoadError<E: std::error::Error + 'static> {
    /// The tensors do not fit the module: every parameter concerned, one line each, not only the first.
    #[error("failed to load the parameters: {}", problems.join("; "))]
    Mismatch { problems: Vec<String> },
    /// A tensor could not be read.
    #[error(transparent)]
    Lookup(E),
}

/// Fills a module from named tensors: `lookup` is asked for `prefix` + name of every parameter. `available` holds
/// the full names of all that is on offer; those under `prefix` that no parameter has are unexpected.
///
/// # Errors
/// The first `lookup` that fails; otherwise all missing, unexpected and wrong-shaped names at once.
pub fn load_state_dict<'n, M, E>(
    module: M,
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
    let mut unexpected: BTreeSet<&str> = available.into_iter().filter(|n| n.starts_with(prefix)).collect();
    for ParamPath { name, shape, .. } in walk(&module) {
        let full = format!("{prefix}{name}");
        unexpected.remove(full.as_str());
        let found = lookup(&full).map_err(LoadError::Lookup)?;
        match found.map(|found| (found.to_f32(), found.shape, found.dtype)) {
            None => problems.push(format!("`{full}` is missing")),
            Some((_, found, _)) if found != shape => {
                problems.push(format!("`{full}` has the shape {found:?}, the model needs {shape:?}"));
            }
            Some((None, _, dtype)) => {
                problems.push(format!("`{full}` holds {dtype:?}, the model needs F32"));
            }
            Some((Some(numbers), _, _)) => {
                values.insert(name, numbers);
            }
        }
    }
    problems.extend(unexpected.into_iter().map(|name| format!("`{name}` is not part of the model")));
    match problems.is_empty() {
        true => Ok(fill(module, values)),
        false => Err(LoadError::Mismatch { problems }),
    }
}

/// The module with the named parameters replaced; others stay. Shapes must fit.
pub(super) fn fill<M: Module>(module: M, values: HashMap<String, Vec<f32>>) -> M {
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
