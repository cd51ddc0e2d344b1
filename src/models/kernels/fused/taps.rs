//! A weight, sorted by tap: PyTorch has `[outputs, inputs, taps]`, the products need
//! `[taps, inputs, outputs]`. A block at a time, so that neither side is read or written far apart.

use rayon::prelude::*;

/// Inputs or outputs of a block: a cache line of floats.
const BLOCK: usize = 16;

/// The transpose of a projection's weight `[outputs, inputs]`. The products read its rows faster
/// than columns that stand a power of two apart.
pub(super) fn transposed(weight: &[f32], [outputs, inputs]: [usize; 2]) -> Vec<f32> {
    Taps { outputs, inputs, taps: 1 }.sort(weight)
}

/// Sizes of a weight.
#[derive(Debug, Clone, Copy)]
pub(super) struct Taps {
    pub outputs: usize,
    pub inputs: usize,
    /// Pixels under the kernel.
    pub taps: usize,
}

impl Taps {
    /// PyTorch's order to ours.
    pub fn sort(self, weight: &[f32]) -> Vec<f32> {
        let Self { outputs, inputs, taps } = self;
        let mut sorted = vec![0.0; weight.len()];
        let mut blocks: Vec<Vec<&mut [f32]>> =
            (0..inputs.div_ceil(BLOCK)).map(|_| Vec::new()).collect();
        for tap in sorted.chunks_mut(inputs * outputs) {
            blocks
                .iter_mut()
                .zip(tap.chunks_mut(BLOCK * outputs))
                .for_each(|(block, part)| block.push(part));
        }
        blocks.into_par_iter().enumerate().for_each(|(block, mut parts)| {
            for first in (0..outputs).step_by(BLOCK) {
                for output in first..outputs.min(first + BLOCK) {
                    let weight = &weight[(output * inputs + block * BLOCK) * taps..];
                    for (tap, part) in parts.iter_mut().enumerate() {
                        for (input, row) in part.chunks_exact_mut(outputs).enumerate() {
                            row[output] = weight[input * taps + tap];
                        }
                    }
                }
            }
        });
        sorted
    }

    /// PyTorch's order to `[outputs, taps, inputs]`.
    pub fn sort_within_outputs(self, weight: &[f32]) -> Vec<f32> {
        let Self { inputs, taps, .. } = self;
        let mut sorted = vec![0.0; weight.len()];
        let len = (BLOCK * inputs * taps).max(1);
        sorted.par_chunks_mut(len).zip(weight.par_chunks(len)).for_each(|(sorted, weight)| {
            let outputs =
                sorted.chunks_exact_mut(inputs * taps).zip(weight.chunks_exact(inputs * taps));
            for (sorted, weight) in outputs {
                for (tap, sorted) in sorted.chunks_exact_mut(inputs).enumerate() {
                    sorted
                        .iter_mut()
                        .zip(weight[tap..].iter().step_by(taps))
                        .for_each(|(to, v)| *to = *v);
                }
            }
        });
        sorted
    }

    /// Our order to PyTorch's.
    pub fn unsort(self, sorted: &[f32]) -> Vec<f32> {
        let Self { outputs, inputs, taps } = self;
        let mut weight = vec![0.0; sorted.len()];
        weight.par_chunks_mut(BLOCK * inputs * taps).enumerate().for_each(|(block, weight)| {
            for first in (0..inputs).step_by(BLOCK) {
                for (output, weight) in weight.chunks_exact_mut(inputs * taps).enumerate() {
                    for input in first..inputs.min(first + BLOCK) {
                        for tap in 0..taps {
                            let place = (tap * inputs + input) * outputs + block * BLOCK + output;
                            weight[input * taps + tap] = sorted[place];
                        }
                    }
                }
            }
        });
        weight
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_weight_has_its_place_and_comes_back() {
        for [outputs, inputs, taps] in [[3, 2, 9], [17, 33, 4], [16, 16, 1]] {
            let sizes = Taps { outputs, inputs, taps };
            let weight: Vec<f32> = (0..outputs * inputs * taps).map(|i| i as f32).collect();
            let sorted = sizes.sort(&weight);
            let (output, input, tap) = (outputs - 1, 1, taps / 2);
            assert_eq!(
                sorted[(tap * inputs + input) * outputs + output],
                weight[(output * inputs + input) * taps + tap]
            );
            assert_eq!(sizes.unsort(&sorted), weight);
            let within = sizes.sort_within_outputs(&weight);
            assert_eq!(
                within[(output * taps + tap) * inputs + input],
                weight[(output * inputs + input) * taps + tap]
            );
        }
    }
}
