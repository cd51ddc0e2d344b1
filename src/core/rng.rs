//! Random numbers as a pure function of what they are for.
//!
//! Nothing in the product draws from hidden state: each use asks for the stream of its `(seed,
//! purpose, epoch, step)`. So a resumed run needs no generator state, and the number of loader
//! threads changes nothing.

use rand::{Rng, SeedableRng};
pub use rand_chacha::ChaCha8Rng;

/// What a stream of random numbers is used for. The numbers are part of the checkpoint contract:
/// never reuse one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Purpose {
    /// Initial weights; `step` is the index of the parameter.
    Init = 1,
    /// The order of the images in an epoch.
    Shuffle = 2,
    /// Augmentation of one image; `step` is the image's position in the epoch.
    Augment = 3,
    /// Noise levels (sigma) of one optimizer step.
    Sigma = 4,
    /// Gaussian noise of one optimizer step.
    Noise = 5,
    /// Which labels are dropped in one optimizer step.
    LabelDropout = 6,
    /// Validation's fixed noise; `epoch` is always 0, so that epochs compare.
    Validation = 7,
    /// A synthetic image of a built-in data set; `step` is the image's index.
    SyntheticImage = 8,
    /// Which images go to the validation split.
    Split = 9,
    /// Starting noise of the sampler; `step` is the image's index.
    Sample = 10,
    /// Initial factors of LoRA; `step` is the index of the factor.
    Lora = 11,
    /// Dropout in front of LoRA's factors; `step` is the batch and the layer.
    LoraDropout = 12,
    /// Dropout inside the network; `step` is the batch and the layer.
    Dropout = 13,
    /// Which pictures a subset holds, of which the kernel distance is computed; `epoch` is the set,
    /// `step` the subset.
    QualitySubset = 14,
    /// Fresh noise of the sampler (churn); `epoch` is the sampler's step, `step` the image's number.
    Churn = 15,
    /// A value of a member of a random matrix; `epoch` is the first 8 bytes of the SHA-256 of its
    /// key, `step` the number of the draw.
    RandomMatrix = 16,
}

/// The stream of `(seed, purpose, epoch, step)`: ChaCha8 (RFC 8439's block function with 8 rounds),
/// keyed by the four numbers, little-endian. The same on every platform.
///
/// ```
/// use pipe_core::rng::{stream, Purpose};
/// use rand::RngExt;
///
/// let a: u64 = stream(42, Purpose::Noise, 3, 17).random();
/// let b: u64 = stream(42, Purpose::Noise, 3, 17).random();
/// assert_eq!(a, b);
/// ```
pub fn stream(seed: u64, purpose: Purpose, epoch: u64, step: u64) -> ChaCha8Rng {
    let mut key = [0u8; 32];
    key[0..8].copy_from_slice(&seed.to_le_bytes());
    key[8..16].copy_from_slice(&epoch.to_le_bytes());
    key[16..24].copy_from_slice(&step.to_le_bytes());
    key[24..28].copy_from_slice(&(purpose as u32).to_le_bytes());
    ChaCha8Rng::from_seed(key)
}

/// The first number of a stream, as one in `[0, 1)`: the upper 53 bits of 64.
pub fn unit(seed: u64, purpose: Purpose, epoch: u64, step: u64) -> f64 {
    const STEPS: f64 = (1_u64 << 53) as f64;
    (stream(seed, purpose, epoch, step).next_u64() >> 11) as f64 / STEPS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_differ_in_each_of_their_four_keys() {
        let first = |seed, purpose, epoch, step| stream(seed, purpose, epoch, step).next_u64();
        let all = [
            first(1, Purpose::Noise, 2, 3),
            first(2, Purpose::Noise, 2, 3),
            first(1, Purpose::Sigma, 2, 3),
            first(1, Purpose::Noise, 3, 3),
            first(1, Purpose::Noise, 2, 4),
        ];
        for (i, a) in all.iter().enumerate() {
            for b in &all[i + 1..] {
                assert_ne!(a, b);
            }
        }
    }

    #[test]
    fn the_numbers_never_change() {
        // A change here would break the resume of every existing run.
        assert_eq!(stream(42, Purpose::Noise, 3, 17).next_u64(), 6_449_151_482_246_699_272);
        let unit = unit(42, Purpose::Noise, 3, 17);
        assert_eq!(unit, (6_449_151_482_246_699_272_u64 >> 11) as f64 / 2f64.powi(53));
    }
}
