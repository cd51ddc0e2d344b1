//! Tensors of files that other programs wrote: PyTorch's, which are pickles, and safetensors files.
//! A pickle is interpreted by a reader that knows tensors and containers only; no code in it is ever
//! executed.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use burn::tensor::{DType, TensorData};
use pipe_fs::bounded_read;
use pipe_runs::tensor::HostTensor;
use pytorch_reader::{DType as TorchType, PytorchReader, Tensor};
use safetensors::{Dtype as SafeType, SafeTensors};

/// A tensor of a file, whose numbers are still there.
pub(crate) struct ForeignTensor {
    pub shape: Vec<usize>,
    content: Content,
}

enum Content {
    Torch(Tensor),
    /// Where its bytes are in the whole file.
    Safe(Arc<Vec<u8>>, SafeType, Range<usize>),
}

/// Whether a file begins as safetensors files do.
pub(crate) fn is_safetensors(path: &Path) -> bool {
    let mut head = [0; 9];
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut head));
    read.is_ok() && head[8] == b'{'
}

/// The tensors of a file by name. A safetensors file has `longest` bytes at most: it is read as a
/// whole.
///
/// # Errors
/// A file that is not there, that is of neither form, or that is damaged.
pub(crate) fn tensors(
    path: &Path,
    longest: u64,
) -> Result<BTreeMap<String, ForeignTensor>, String> {
    match path.metadata() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err("there is no such file".to_owned());
        }
        Ok(found) if found.is_dir() => return Err("it is a folder".to_owned()),
        _ => {}
    }
    if is_safetensors(path) {
        return of_safetensors(path, longest);
    }
    let all = PytorchReader::new(path).map_err(|error| {
        let text = error.to_string();
        if text.contains("not a PyTorch checkpoint") {
            "it is neither a file of PyTorch nor a safetensors file".to_owned()
        } else {
            text
        }
    })?;
    let all = all.into_tensors().into_iter().map(|(name, tensor)| {
        let shape = tensor.shape().to_vec();
        (name, ForeignTensor { shape, content: Content::Torch(tensor) })
    });
    Ok(all.collect())
}

fn of_safetensors(path: &Path, longest: u64) -> Result<BTreeMap<String, ForeignTensor>, String> {
    let bytes = Arc::new(bounded_read::read(path, longest).map_err(|e| e.to_string())?);
    let (length, metadata) = SafeTensors::read_metadata(&bytes).map_err(|e| e.to_string())?;
    // Eight bytes have the header's length, and the data begin behind the header.
    let data = 8 + length;
    let all = metadata.tensors().into_iter().map(|(name, info)| {
        let (from, to) = info.data_offsets;
        let content = Content::Safe(bytes.clone(), info.dtype, data + from..data + to);
        (name, ForeignTensor { shape: info.shape.clone(), content })
    });
    Ok(all.collect())
}

impl ForeignTensor {
    /// A tensor of any floats as one of 32-bit floats, called `name`.
    ///
    /// # Errors
    /// It holds no floats, or its bytes cannot be read.
    pub fn host(&self, name: &str) -> Result<HostTensor, String> {
        let others = |kind: String| Err(format!("`{name}` holds {kind}, not floats"));
        let (dtype, bytes) = match &self.content {
            Content::Torch(tensor) => {
                let dtype = match tensor.dtype() {
                    TorchType::F64 => DType::F64,
                    TorchType::F32 => DType::F32,
                    TorchType::F16 => DType::F16,
                    TorchType::BF16 => DType::BF16,
                    other => return others(format!("{other:?}")),
                };
                (dtype, tensor.read().map_err(|e| format!("`{}`: {e}", tensor.name))?)
            }
            Content::Safe(file, dtype, place) => {
                let dtype = match dtype {
                    SafeType::F64 => DType::F64,
                    SafeType::F32 => DType::F32,
                    SafeType::F16 => DType::F16,
                    SafeType::BF16 => DType::BF16,
                    other => return others(format!("{other:?}")),
                };
                (dtype, file[place.clone()].to_vec())
            }
        };
        let data = TensorData::from_bytes_vec(bytes, self.shape.clone(), dtype);
        let values: Vec<f32> = data.iter::<f32>().collect();
        Ok(HostTensor::f32(name, self.shape.clone(), &values))
    }
}
