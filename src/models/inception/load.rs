//! The tensors of the network by their names, from wherever they come.

use burn::tensor::Device;
use pipe_runs::tensor::HostTensor;

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

/// Gives the tensor of a name that has this shape, or what else there is of that name, if anything.
pub type TensorSource<'a> = dyn FnMut(&str, &[usize]) -> Result<Option<HostTensor>, String> + 'a;

/// Where the convolutions of the network come from.
pub(super) struct Source<'a> {
    pub tensor: &'a mut TensorSource<'a>,
    pub device: &'a Device,
}

impl Source<'_> {
    fn values(&mut self, name: String, wanted: &[usize]) -> Result<Vec<f32>, InceptionError> {
        let wrong =
            |wrong: &str| InceptionError::Values { name: name.clone(), wrong: wrong.into() };
        let found =
            (self.tensor)(&name, wanted).map_err(|e| wrong(&format!("cannot be read: {e}")))?;
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

    /// The convolution `name` of `[inputs, outputs]` channels with a kernel of `[height, width]`.
    pub fn unit(
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
