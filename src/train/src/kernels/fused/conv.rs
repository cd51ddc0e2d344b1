//! Convolution as a matrix product over unfolded patches.

use burn::tensor::Shape;
use rayon::prelude::*;

use super::machine::{Onto, View, product};
use super::op::Kernel;
use super::parts::{add_rows, add_up, fill_rows, part_len, zeros_if};
use super::patches::Patches;

/// `x [batch, height, width, inputs]`, `weight [outputs, inputs, kernel, kernel]`, `bias [outputs]`.
#[derive(Debug, Clone)]
pub(super) struct Conv {
    pub batch: usize,
    pub outputs: usize,
    pub patches: Patches,
}

impl Conv {
    /// Calls `f` with each weight's place in PyTorch's layout and in `[patch, outputs]`.
    fn each_weight(&self, mut f: impl FnMut(usize, usize)) {
        let (inputs, taps) = (self.patches.channels, self.patches.kernel.pow(2));
        for output in 0..self.outputs {
            for input in 0..inputs {
                for tap in 0..taps {
                    let torch = (output * inputs + input) * taps + tap;
                    f(torch, (tap * inputs + input) * self.outputs + output);
                }
            }
        }
    }

    /// The weight as `[patch, outputs]`.
    fn by_patch(&self, weight: &[f32]) -> Vec<f32> {
        let mut out = vec![0.0; weight.len()];
        self.each_weight(|torch, patch| out[patch] = weight[torch]);
        out
    }
}

impl Kernel<3> for Conv {
    fn shape(&self) -> Shape {
        [self.batch, self.patches.out_height, self.patches.out_width, self.outputs].into()
    }

    fn forward(&self, [x, weight, bias]: [&[f32]; 3], _keep: bool) -> (Vec<f32>, Vec<f32>) {
        let weight = self.by_patch(weight);
        let (patches, n) = (&self.patches, self.outputs);
        let mut y = vec![0.0; self.batch * patches.pixels() * n];
        let images = y.par_chunks_mut(patches.pixels() * n).zip(x.par_chunks(patches.image()));
        images.for_each(|(y, x)| {
            let mut unfolded = patches.buffer();
            for (rows, y) in patches.bands().zip(y.chunks_mut(patches.band() * patches.out_width * n)) {
                patches.unfold(x, rows, &mut unfolded);
                fill_rows(y, bias);
                let (unfolded, weight) = (View::rows(&unfolded, patches.len()), View::rows(&weight, n));
                product([y.len() / n, patches.len(), n], 1.0, unfolded, weight, Onto::Sum, y, n);
            }
        });
        (y, Vec::new())
    }

    fn backward(
        &self,
        [x, weight, _]: [&[f32]; 3],
        _kept: &[f32],
        dy: &[f32],
        wanted: [bool; 3],
    ) -> [Option<Vec<f32>>; 3] {
        let weight = self.by_patch(weight);
        let (patches, n) = (&self.patches, self.outputs);
        let (image, out_image) = (patches.image(), patches.pixels() * n);
        let part = part_len(self.batch);
        let mut dx = zeros_if(wanted[0], x.len());
        // Without a wanted `dx` its parts are empty.
        let mut dx_parts: Vec<&mut [f32]> = match wanted[0] {
            true => dx.chunks_mut(part * image).collect(),
            false => x.chunks(part * image).map(|_| Default::default()).collect(),
        };
        let groups =
            dx_parts.par_iter_mut().zip(x.par_chunks(part * image)).zip(dy.par_chunks(part * out_image));
        let sums: Vec<[Vec<f32>; 2]> = groups
            .map(|((dx, x), dy)| {
                let (mut dw, mut db) = (zeros_if(wanted[1], patches.len() * n), zeros_if(wanted[2], n));
                let mut unfolded = patches.buffer();
                if wanted[2] {
                    add_rows(&mut db, dy);
                }
                for (index, (x, dy)) in x.chunks(image).zip(dy.chunks(out_image)).enumerate() {
                    let bands = patches.bands().zip(dy.chunks(patches.band() * patches.out_width * n));
                    for (rows, dy) in bands {
                        let pixels = dy.len() / n;
                        let dy = View::rows(dy, n);
                        if wanted[1] {
                            patches.unfold(x, rows.clone(), &mut unfolded);
                            let unfolded = View::rows(&unfolded, patches.len()).t();
                            product([patches.len(), pixels, n], 1.0, unfolded, dy, Onto::Sum, &mut dw, n);
                        }
                        if wanted[0] {
                            let (sizes, weight) = ([pixels, n, patches.len()], View::rows(&weight, n).t());
                            product(sizes, 1.0, dy, weight, Onto::Nothing, &mut unfolded, patches.len());
                            patches.fold(&unfolded, rows, &mut dx[index * image..][..image]);
                        }
                    }
                }
                [dw, db]
            })
            .collect();
        let [by_patch, db] = add_up(sums);
        let dw = wanted[1].then(|| {
            let mut dw = vec![0.0; by_patch.len()];
            self.each_weight(|torch, patch| dw[torch] = by_patch[patch]);
            dw
        });
        [wanted[0].then_some(dx), dw, wanted[2].then_some(db)]
    }
}
