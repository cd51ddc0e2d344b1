//! The sum of a whole tensor, with the same bits every time.
//!
//! burn's own `sum` lets thread groups add to one number atomically, in the order in which they
//! finish: on a GPU that can do that, two calls differ. Its `mean` and `sum_dim` are exact, but
//! without autotune one GPU thread adds up all that goes into one number; that is slow for a whole
//! tensor, and in f32 loses digits. Where there is no kernel of our own, each thread adds [`WIDTH`]
//! numbers at most, and the rows of partial sums are added in the same way.

use burn::tensor::Tensor;

use crate::kernels;

/// How many numbers one thread adds up.
const WIDTH: usize = 256;

/// The sum of all elements, `[1]`. The order of the additions depends on the number of elements
/// alone, and the error grows with the logarithm of it (pairwise summation: Higham 1993, SIAM J.
/// Sci. Comput. 14(4)).
pub fn sum_all<const D: usize>(tensor: Tensor<D>) -> Tensor<1> {
    let count = tensor.shape().num_elements();
    let mut left: Tensor<1> = tensor.reshape([count]);
    if let Some(sum) = kernels::sum(&left) {
        return sum;
    }
    loop {
        let count = left.dims()[0];
        let columns = count / WIDTH;
        if columns == 0 {
            return left.sum_dim(0);
        }
        // Neighbouring threads read neighbouring columns.
        let whole = left.clone().narrow(0, 0, columns * WIDTH).reshape([WIDTH, columns]);
        let sums = whole.sum_dim(0).reshape([columns]);
        let rest = count % WIDTH;
        left = match rest {
            0 => sums,
            _ => Tensor::cat(vec![sums, left.narrow(0, columns * WIDTH, rest)], 0),
        };
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, TensorData};

    use super::*;

    fn numbers(count: usize) -> Vec<f32> {
        (0..count as u32)
            .map(|i| (i.wrapping_mul(2_654_435_761) >> 8) as f32 / 16_777_216.0)
            .collect()
    }

    #[test]
    fn every_element_counts_once() {
        for count in [1, 2, 255, 256, 257, 511, 65_535, 65_536, 65_539, 300_007] {
            let numbers = numbers(count);
            let exact: f64 = numbers.iter().map(|x| f64::from(*x)).sum();
            let tensor = Tensor::<1>::from_data(TensorData::new(numbers, [count]), &Device::flex());
            let error = f64::from(sum_all(tensor).into_scalar::<f32>()) / exact.max(1e-30) - 1.0;
            assert!(exact == 0.0 || error.abs() < 1e-6, "{count} numbers: relative error {error}");
        }
    }

    #[test]
    fn the_gradient_is_one_everywhere() {
        let device = Device::flex().autodiff();
        let tensor = Tensor::<2>::from_data(TensorData::new(numbers(3 * 211), [3, 211]), &device)
            .require_grad();
        let gradients = sum_all(tensor.clone()).backward();
        let gradient = tensor.grad(&gradients).unwrap().into_data().try_into_vec::<f32>().unwrap();
        assert_eq!(gradient, vec![1.0; 3 * 211]);
    }
}
