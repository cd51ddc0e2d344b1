//! One tensor in the table of a checkpoint file.

use serde_json::Value;

use super::super::tensor::Dtype;

/// Place and form of one tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorEntry {
    pub name: String,
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    /// Offset from the start of the data.
    pub(super) start: u64,
    pub bytes: u64,
}

impl TensorEntry {
    /// Sorts by where the data stands; one that is empty comes before the one that begins there.
    pub(super) fn place(&self) -> (u64, u64) {
        (self.start, self.bytes)
    }

    pub(super) fn parse(name: &str, value: &Value) -> Result<Self, String> {
        let dtype: Dtype = serde_json::from_value(value["dtype"].clone())
            .map_err(|_| "unknown dtype".to_owned())?;
        let shape: Vec<usize> =
            serde_json::from_value(value["shape"].clone()).map_err(|_| "bad shape".to_owned())?;
        let [start, end]: [u64; 2] = serde_json::from_value(value["data_offsets"].clone())
            .map_err(|_| "bad offsets".to_owned())?;
        let bytes = end.checked_sub(start).ok_or("offsets run backwards")?;
        let expected = shape.iter().try_fold(dtype.size() as u64, |n, d| n.checked_mul(*d as u64));
        if expected != Some(bytes) {
            return Err(format!("{bytes} bytes do not fit shape {shape:?} of {dtype:?}"));
        }
        Ok(Self { name: name.to_owned(), dtype, shape, start, bytes })
    }
}
