//! Named tensors in host memory, the currency between the training loop and checkpoint files.

/// Element type of a stored tensor, named as in the safetensors format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub enum Dtype {
    F32,
    F16,
    BF16,
    I64,
    I32,
    U8,
}

impl Dtype {
    /// Bytes an element takes.
    pub fn size(self) -> usize {
        match self {
            Dtype::I64 => 8,
            Dtype::F32 | Dtype::I32 => 4,
            Dtype::F16 | Dtype::BF16 => 2,
            Dtype::U8 => 1,
        }
    }
}

/// A tensor in host memory: little-endian, row-major, `bytes.len() == shape.product() *
/// dtype.size()`.
#[derive(Debug, Clone, PartialEq)]
pub struct HostTensor {
    /// Full name in the file, such as `state_dict.tokenizer.weight`.
    pub name: String,
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    pub bytes: Vec<u8>,
}

impl HostTensor {
    /// A tensor of 32-bit floats.
    pub fn f32(name: impl Into<String>, shape: Vec<usize>, values: &[f32]) -> Self {
        debug_assert_eq!(shape.iter().product::<usize>(), values.len());
        let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        Self { name: name.into(), dtype: Dtype::F32, shape, bytes }
    }

    /// The values as 32-bit floats; `None` for another element type.
    pub fn to_f32(&self) -> Option<Vec<f32>> {
        (self.dtype == Dtype::F32).then(|| {
            self.bytes
                .chunks_exact(4)
                .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
                .collect()
        })
    }

    /// Whether no 32-bit float among the values is NaN or infinite.
    pub fn is_finite(&self) -> bool {
        const EXPONENT: u32 = 0x7f80_0000;
        let bits = |b: &[u8]| u32::from_le_bytes([b[0], b[1], b[2], b[3]]);
        self.dtype != Dtype::F32
            || self.bytes.chunks_exact(4).all(|b| bits(b) & EXPONENT != EXPONENT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_are_none_are_found() {
        let tensor = |last: f32| HostTensor::f32("a", vec![3], &[0.0, f32::MAX, last]);
        assert!(tensor(f32::MIN_POSITIVE).is_finite());
        for wrong in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            assert!(!tensor(wrong).is_finite());
        }
        let halves = HostTensor { dtype: Dtype::BF16, ..tensor(f32::NAN) };
        assert!(halves.is_finite(), "only 32-bit floats are looked at");
    }
}
