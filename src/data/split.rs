//! Which images train and which validate.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::distributions::shuffle;
use pipe_core::rng::{Purpose, stream};

/// One side of a data set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Split {
    /// Images that the model learns from.
    Train,
    /// Images kept aside by `val_split`.
    Validation,
}

/// The images that a source publishes apart from each other.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum PublishedSplit {
    /// Those to learn from.
    #[default]
    Train,
    /// Those to judge by.
    Test,
}

/// The (training, validation) images, each in ascending order, as positions in `labels`.
///
/// `share` of all images, rounded, goes to validation; each class gives its share of them, give or
/// take one. A share above zero keeps at least one image on either side, as long as there are two.
pub(crate) fn split(
    labels: &[u32],
    classes: usize,
    share: f64,
    seed: u64,
) -> (Vec<usize>, Vec<usize>) {
    if share <= 0.0 || labels.len() < 2 {
        return ((0..labels.len()).collect(), Vec::new());
    }
    let mut members = vec![Vec::new(); classes];
    for (index, label) in labels.iter().enumerate() {
        members[*label as usize].push(index);
    }
    // Rounding the running total, rather than each class, makes the sum exact.
    let (mut before, mut taken) = (0, 0);
    let (mut train, mut validation) = (Vec::new(), Vec::new());
    for (class, mut images) in members.into_iter().enumerate() {
        shuffle(&mut stream(seed, Purpose::Split, 0, class as u64), &mut images);
        before += images.len();
        let due = (before as f64 * share).round() as usize;
        let take = (due - taken).min(images.len());
        taken += take;
        validation.extend_from_slice(&images[..take]);
        train.extend_from_slice(&images[take..]);
    }
    if validation.is_empty() {
        validation.extend(train.pop());
    } else if train.is_empty() {
        train.extend(validation.pop());
    }
    train.sort_unstable();
    validation.sort_unstable();
    (train, validation)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_class_gives_its_share_and_nothing_is_lost() {
        let labels: Vec<u32> = (0..105).map(|i| i % 5).collect();
        let (train, validation) = split(&labels, 5, 0.2, 7);
        assert_eq!((train.len(), validation.len()), (84, 21));
        for class in 0..5 {
            let n = validation.iter().filter(|i| labels[**i] == class).count();
            assert!((4..=5).contains(&n), "class {class}: {n}");
        }
        let mut all = [train.clone(), validation.clone()].concat();
        all.sort();
        assert_eq!(all, (0..105).collect::<Vec<_>>());
        assert_eq!(split(&labels, 5, 0.2, 7), (train, validation.clone()));
        assert_ne!(split(&labels, 5, 0.2, 8).1, validation);
    }

    #[test]
    fn no_share_means_no_validation_and_a_tiny_one_means_one_image() {
        assert_eq!(split(&[0, 1, 0], 2, 0.0, 7), (vec![0, 1, 2], vec![]));
        let (train, validation) = split(&[0, 1, 0], 2, 0.01, 7);
        assert_eq!((train.len(), validation.len()), (2, 1));
        let (train, validation) = split(&[0, 0], 1, 0.9, 7);
        assert_eq!((train.len(), validation.len()), (1, 1));
    }
}
