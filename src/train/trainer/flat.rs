//! Parameters, moments and EMA weights as long arrays, one parameter behind the other. An optimizer
//! step then launches a handful of kernels, and not several for each parameter: what counts on a
//! GPU, where a launch costs as much as the update of many thousand numbers.
//!
//! The model's parameters are views of the long arrays. Checkpoints know nothing of this: what they
//! hold is taken apart again.

use std::collections::{BTreeMap, HashMap};

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::optim::{AdaptiveMomentumState, GradientsParams};
use burn::tensor::{FloatDType, Tensor};

use super::ema;
use super::optimizer::{Optimizer, StepSettings, clip_factor};
use crate::kernels;
use crate::nn::sum_all;

/// Each parameter begins at a multiple of so many numbers: 256 bytes in 16-bit formats, the most that
/// a graphics API asks of the beginning of a buffer.
const ALIGNMENT: usize = 128;
/// The long arrays are whole blocks of so many numbers, whose sum is taken in few stages.
const BLOCK: usize = 1 << 16;

/// All trained parameters of a model, with their moments and EMA weights.
pub struct Flat(Vec<Group>);

/// Parameters that have taken as many optimizer steps.
struct Group {
    layout: Layout,
    values: Tensor<1>,
    /// `None` before the first step.
    moments: Option<AdaptiveMomentumState<1>>,
    /// `None` where there are no EMA weights.
    mean: Option<Tensor<1>>,
}

/// Which parameter is where in the long arrays. Between them are zeros.
struct Layout {
    segments: Vec<Segment>,
    length: usize,
}

struct Segment {
    id: ParamId,
    path: String,
    start: usize,
    count: usize,
}

impl Flat {
    /// Lays out the trained parameters of `model`, whose names are `paths`. `moments` are by name;
    /// a parameter without any has taken no step. `mean` is a copy of `model` with the EMA weights.
    pub fn new<M: Module>(
        model: &M,
        paths: &HashMap<ParamId, String>,
        moments: &BTreeMap<String, AdaptiveMomentumState<1>>,
        mean: Option<&M>,
    ) -> Self {
        let (trained, mean) = (rows(model, Rows::Trained), mean.map(|mean| rows(mean, Rows::All)));
        let mut groups: BTreeMap<usize, Vec<Segment>> = BTreeMap::new();
        for (id, value) in &trained {
            let Some(path) = paths.get(id).cloned() else { continue };
            let (time, [count]) = (moments.get(&path).map_or(0, |s| s.time), value.dims());
            groups.entry(time).or_default().push(Segment { id: *id, path, start: 0, count });
        }
        let values: HashMap<_, _> = trained.into_iter().collect();
        let mean: Option<HashMap<_, _>> = mean.map(|mean| mean.into_iter().collect());
        let group = |(time, segments): (usize, Vec<Segment>)| {
            let layout = Layout::new(segments);
            Group {
                values: layout.join(|segment| values[&segment.id].clone()),
                moments: (time > 0).then(|| {
                    AdaptiveMomentumState::new(
                        time,
                        layout.join(|segment| moments[&segment.path].moment_1.clone()),
                        layout.join(|segment| moments[&segment.path].moment_2.clone()),
                    )
                }),
                mean: mean.as_ref().map(|mean| layout.join(|segment| mean[&segment.id].clone())),
                layout,
            }
        };
        Self(groups.into_iter().map(group).collect())
    }

    /// One step down the gradients, of which there is one for each parameter: clipping, the
    /// optimizer's rule and the EMA weights. Gives the model with its new values.
    pub fn step<M: Module>(
        &mut self,
        model: M,
        gradients: GradientsParams,
        rule: &Optimizer,
        settings: StepSettings,
    ) -> M {
        let found: HashMap<_, _> = rows(&model, Rows::Gradients(&gradients)).into_iter().collect();
        drop(gradients);
        let mut gradients: Vec<Tensor<1>> = (self.0.iter())
            .map(|group| group.layout.join(|segment| found[&segment.id].clone()))
            .collect();
        drop(found);
        if let Some(max) = settings.clip {
            let squares = gradients.iter().map(|gradient| sum_all(gradient.clone().square()));
            if let Some(sum) = squares.reduce(|a, b| a + b) {
                let factor = clip_factor(sum, max);
                gradients.iter_mut().for_each(|g| *g = g.clone() * factor.clone());
            }
        }
        for (group, gradient) in self.0.iter_mut().zip(gradients) {
            let (values, moments) = rule.update(
                settings.learning_rate,
                group.values.clone(),
                gradient,
                group.moments.take(),
            );
            (group.values, group.moments) = (values, moments);
            if let Some(mean) = group.mean.take() {
                group.mean = Some(ema::blend(mean, group.values.clone(), settings.ema_decay));
            }
        }
        self.views(|group| Some(group.values.clone()), model)
    }

    /// `model` with its values in another number format.
    pub fn cast<M: Module>(&self, model: M, dtype: FloatDType) -> M {
        self.views(|group| Some(group.values.clone().cast(dtype)), model)
    }

    /// `model`, which may have gradients or not, with the EMA weights, if there are any.
    pub fn mean<M: Module>(&self, model: M) -> Option<M> {
        let any = self.0.iter().any(|group| group.mean.is_some());
        any.then(|| self.views(|group| group.mean.clone(), model))
    }

    /// The moments of each parameter, by its name.
    pub fn moments(&self) -> BTreeMap<String, AdaptiveMomentumState<1>> {
        let mut all = BTreeMap::new();
        for group in &self.0 {
            let Some(state) = &group.moments else { continue };
            let first = group.layout.cut(&state.moment_1);
            for ((segment, first), (_, second)) in first.zip(group.layout.cut(&state.moment_2)) {
                let state = AdaptiveMomentumState::new(state.time, first, second);
                all.insert(segment.path.clone(), state);
            }
        }
        all
    }

    /// `model` with parts of the long arrays as its parameters.
    fn views<M: Module>(&self, array: impl Fn(&Group) -> Option<Tensor<1>>, model: M) -> M {
        struct Views(HashMap<ParamId, Tensor<1>>);
        impl ModuleMapper for Views {
            fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
                let Some(view) = self.0.remove(&param.id) else { return param };
                let (id, old, mapper) = param.consume();
                let view = view.reshape(old.shape());
                let value = if old.device().is_autodiff() {
                    Tensor::from_inner(view).set_require_grad(old.is_require_grad())
                } else {
                    view
                };
                Param::from_mapped_value(id, value, mapper)
            }
        }
        let mut views = HashMap::new();
        for group in &self.0 {
            let Some(array) = array(group) else { continue };
            views.extend(group.layout.cut(&array).map(|(segment, view)| (segment.id, view)));
        }
        model.map(&mut Views(views))
    }
}

impl Layout {
    /// Of parameters in the order of their module.
    fn new(mut segments: Vec<Segment>) -> Self {
        let mut end = 0usize;
        for segment in &mut segments {
            segment.start = end.next_multiple_of(ALIGNMENT);
            end = segment.start + segment.count;
        }
        Self { segments, length: end.next_multiple_of(BLOCK) }
    }

    /// One array of a part for each parameter.
    fn join(&self, part: impl FnMut(&Segment) -> Tensor<1>) -> Tensor<1> {
        let starts: Vec<usize> = self.segments.iter().map(|segment| segment.start).collect();
        kernels::join(self.segments.iter().map(part).collect(), &starts, self.length)
    }

    /// Each parameter's part of an array.
    fn cut(&self, whole: &Tensor<1>) -> impl Iterator<Item = (&Segment, Tensor<1>)> {
        let places: Vec<_> = self.segments.iter().map(|s| (s.start, s.count)).collect();
        self.segments.iter().zip(kernels::parts(whole, &places))
    }
}

/// Whether the parameters of a module are somewhere else than in host memory, where one array after
/// the other costs nothing more than all at once.
pub fn suits<M: Module>(module: &M) -> bool {
    rows(module, Rows::All).first().is_some_and(|(_, row)| !kernels::in_host_memory(row))
}

/// Whether there is a gradient for each trained parameter of a module.
pub fn is_complete<M: Module>(module: &M, gradients: &GradientsParams) -> bool {
    struct Missing<'a>(&'a GradientsParams, bool);
    impl ModuleVisitor for Missing<'_> {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            self.1 |= param.is_require_grad() && self.0.get::<D>(param.id).is_none();
        }
    }
    let mut missing = Missing(gradients, false);
    module.visit(&mut missing);
    !missing.1
}

/// What is looked at of a module.
enum Rows<'a> {
    /// All parameters.
    All,
    /// Those that are trained.
    Trained,
    /// Their gradients, where there are any.
    Gradients(&'a GradientsParams),
}

impl ModuleVisitor for Visit<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let value = param.base();
        let value = match self.of {
            Rows::Gradients(all) => all.get::<D>(param.id),
            Rows::Trained if !value.is_require_grad() => None,
            _ if value.device().is_autodiff() => Some(value.inner()),
            _ => Some(value),
        };
        let Some(value) = value else { return };
        let count = value.shape().num_elements();
        self.found.push((param.id, value.reshape([count])));
    }
}

struct Visit<'a> {
    of: Rows<'a>,
    found: Vec<(ParamId, Tensor<1>)>,
}

/// Each as one row of numbers, without gradients of its own, in the module's order.
fn rows<M: Module>(module: &M, of: Rows) -> Vec<(ParamId, Tensor<1>)> {
    let mut visit = Visit { of, found: Vec::new() };
    module.visit(&mut visit);
    visit.found
}
