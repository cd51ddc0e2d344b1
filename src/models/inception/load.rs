//! The tensors of the network by their names, from wherever they come.

use burn::tensor::Device;
use pipe_runs::tensor::HostTensor;

use super::Inception;
use super::unit::{Parts, Unit};

/// Why tensors are not those of the network.
#[derive(Debug, thiserror::Error)]
pub enum InceptionError {
    #[error("there is no tensor `{name}`: these are not the weights of Inception-v3 as FID has it")]
    Missing { name: String },
    #[error("`{name}` is {found:?}, and Inception-v3 has it as {wanted:?}")]
    Shape { name: String, found: Vec<usize>, wanted: Vec<usize> },
    #[error("`{name}` {wrong}")]
    Values { name: String, wrong: String },
}

/// Where the convolutions of the network come from.
pub(super) trait Names {
    /// The convolution `name` of `[inputs, outputs]` channels with a kernel of `[height, width]`.
    fn unit(
        &mut self,
        name: &str,
        channels: [usize; 2],
        kernel: [usize; 2],
        stride: usize,
        padded: bool,
    ) -> Result<Unit, InceptionError>;
}

/// The tensors of a file.
pub(super) struct Source<'a> {
    pub tensor: &'a mut dyn FnMut(&str) -> Result<Option<HostTensor>, String>,
    pub device: &'a Device,
}

impl Source<'_> {
    fn values(&mut self, name: String, wanted: &[usize]) -> Result<Vec<f32>, InceptionError> {
        let wrong =
            |wrong: &str| InceptionError::Values { name: name.clone(), wrong: wrong.into() };
        let found = (self.tensor)(&name).map_err(|e| wrong(&format!("cannot be read: {e}")))?;
        let Some(found) = found else { return Err(InceptionError::Missing { name }) };
        if found.shape != wanted {
            let (found, wanted) = (found.shape, wanted.to_vec());
            return Err(InceptionError::Shape { name, found, wanted });
        }
        if !found.is_finite() {
            return Err(wrong("holds numbers that are not finite"));
        }
        found.to_f32().ok_or_else(|| wrong("does not hold 32-bit floats"))
    }
}

impl Names for Source<'_> {
    fn unit(
        &mut self,
        name: &str,
        [inputs, outputs]: [usize; 2],
        [height, width]: [usize; 2],
        stride: usize,
        padded: bool,
    ) -> Result<Unit, InceptionError> {
        let shape = [outputs, inputs, height, width];
        let mut norm = |part: &str| self.values(format!("{name}.bn.{part}"), &[outputs]);
        let (gain, shift) = (norm("weight")?, norm("bias")?);
        let (mean, variance) = (norm("running_mean")?, norm("running_var")?);
        if let Some(wrong) = variance.iter().find(|v| **v < 0.0) {
            let wrong = format!("holds {wrong}, and no variance is below zero");
            return Err(InceptionError::Values { name: format!("{name}.bn.running_var"), wrong });
        }
        let weight = self.values(format!("{name}.conv.weight"), &shape)?;
        let parts = Parts { weight, gain, shift, mean, variance };
        Ok(Unit::new(&parts, shape, stride, padded, self.device))
    }
}

/// The tensors that the network has, by name, with their shapes: what is asked for, in order.
pub fn tensor_names() -> Vec<(String, Vec<usize>)> {
    struct List(Vec<(String, Vec<usize>)>);
    impl Names for List {
        fn unit(
            &mut self,
            name: &str,
            [inputs, outputs]: [usize; 2],
            [height, width]: [usize; 2],
            stride: usize,
            padded: bool,
        ) -> Result<Unit, InceptionError> {
            for part in ["weight", "bias", "running_mean", "running_var"] {
                self.0.push((format!("{name}.bn.{part}"), vec![outputs]));
            }
            let shape = [outputs, inputs, height, width];
            self.0.push((format!("{name}.conv.weight"), shape.to_vec()));
            // The smallest that a unit can be: nothing is computed with it.
            let parts = Parts {
                weight: vec![0.0],
                gain: vec![0.0],
                shift: vec![0.0],
                mean: vec![0.0],
                variance: vec![1.0],
            };
            Ok(Unit::new(&parts, [1; 4], stride, padded, &Device::flex()))
        }
    }
    let mut list = List(Vec::new());
    // Nothing of a list can fail.
    let _ = Inception::build(&mut list);
    list.0
}
