//! What travels between devices: parameters, and sums of gradients.

use std::collections::HashMap;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::optim::GradientsParams;
use burn::tensor::{Device, Tensor, TensorData, Transaction};
use pipe_engine::kind::{Failure, StageError};
use rayon::prelude::*;

use crate::architecture::Network;
use crate::device;

/// Which parameters travel.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Params {
    All,
    /// Those that an optimizer step changes.
    Trainable,
}

impl Params {
    fn holds<const D: usize>(self, param: &Param<Tensor<D>>) -> bool {
        self == Self::All || param.is_require_grad()
    }
}

/// The numbers of parameters, in the network's order. Waits for the device once.
pub(super) fn params_of(weights: &Network, which: Params) -> Result<Vec<TensorData>, StageError> {
    struct Register {
        read: Transaction,
        which: Params,
    }
    impl ModuleVisitor for Register {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            if self.which.holds(param) {
                self.read = std::mem::take(&mut self.read).register(param.base());
            }
        }
    }
    let mut register = Register { read: Transaction::default(), which };
    weights.visit(&mut register);
    device::read_all(register.read)
}

/// Puts numbers into a network, on a device.
struct Replace<'a> {
    values: std::slice::Iter<'a, TensorData>,
    which: Params,
    device: &'a Device,
}

impl ModuleMapper for Replace<'_> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let new = self.which.holds(&param).then(|| self.values.next()).flatten();
        let Some(data) = new.cloned() else { return param };
        let (trained, dtype) = (param.is_require_grad(), data.dtype());
        let (id, _, mapper) = param.consume();
        let value = Tensor::from_data(data, (self.device, dtype)).set_require_grad(trained);
        Param::from_mapped_value(id, value, mapper)
    }
}

/// The network with other numbers, on a device.
pub(super) fn with_params(
    weights: Network,
    values: &[TensorData],
    which: Params,
    device: &Device,
) -> Network {
    weights.map(&mut Replace { values: values.iter(), which, device })
}

/// Adds numbers to the sum of a parameter.
pub(super) fn accumulate(
    sums: &mut HashMap<ParamId, TensorData>,
    id: ParamId,
    data: TensorData,
) -> Result<(), StageError> {
    /// Numbers that a thread adds at a time.
    const RUN: usize = 1 << 16;
    let Some(sum) = sums.get_mut(&id) else {
        sums.insert(id, data);
        return Ok(());
    };
    let unlike = |_| StageError::new(Failure::Bug, "gradients of two devices do not go together");
    let (sum, data) =
        (sum.as_mut_slice::<f32>().map_err(unlike)?, data.as_slice::<f32>().map_err(unlike)?);
    sum.par_chunks_mut(RUN).zip(data.par_chunks(RUN)).for_each(|(sum, data)| {
        sum.iter_mut().zip(data).for_each(|(sum, x)| *sum += x);
    });
    Ok(())
}

/// Adds the replicas' sums to the main device's gradients.
pub(super) fn add_to_gradients(
    weights: &Network,
    gradients: GradientsParams,
    sums: HashMap<ParamId, TensorData>,
) -> GradientsParams {
    let mut add = Add { gradients, sums };
    weights.visit(&mut add);
    add.gradients
}

struct Add {
    gradients: GradientsParams,
    sums: HashMap<ParamId, TensorData>,
}

impl ModuleVisitor for Add {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let Some(sum) = self.sums.remove(&param.id) else { return };
        let sum = Tensor::<D>::from_data(sum, &param.device().inner());
        let whole = match self.gradients.remove::<D>(param.id) {
            Some(own) => own + sum,
            None => sum,
        };
        self.gradients.register(param.id, whole);
    }
}
