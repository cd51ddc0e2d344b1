//! Metrics by their names: those that are there, and those that are better when they are higher.

use std::collections::BTreeSet;

use pipe_core::error::nearest;

/// More names than this make a message hard to read.
const SHOWN: usize = 20;

/// Words in names of metrics of which more is better.
const HIGHER: [&str; 11] =
    ["accuracy", "acc", "auc", "auroc", "f1", "psnr", "ssim", "r2", "map", "precision", "recall"];

/// Checks that a metric is one of those that `whoever` has. `whoever`: the beginning of a sentence,
/// such as `the training reports`.
///
/// # Errors
/// It is not: a message that lists those that are there.
pub fn find<'a>(
    name: &str,
    there: impl IntoIterator<Item = &'a str>,
    whoever: &str,
) -> Result<(), String> {
    let there: BTreeSet<&str> = there.into_iter().collect();
    if there.contains(name) {
        return Ok(());
    }
    if there.is_empty() {
        return Err(format!("{whoever} no `{name}`, nor any other metric"));
    }
    let verb = whoever.rsplit(' ').next().unwrap_or_default();
    let mut shown = there.iter().take(SHOWN).copied().collect::<Vec<_>>().join(", ");
    if there.len() > SHOWN {
        shown += &format!(" and {} more", there.len() - SHOWN);
    }
    let near = nearest(name, there.iter().copied());
    let near = near.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
    Err(format!("{whoever} no `{name}`; it {verb} {shown}{near}"))
}

/// Whether a metric is known, by a word in its name, as one of which more is better, such as
/// `val_accuracy`. A loss is none, whatever it is of.
pub fn is_better_when_higher(name: &str) -> bool {
    let words: Vec<String> =
        name.split(|c: char| !c.is_alphanumeric()).map(str::to_lowercase).collect();
    let has = |word: &str| words.iter().any(|other| other == word);
    HIGHER.iter().any(|word| has(word)) && !has("loss") && !has("error")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_tell_which_metrics_are_better_when_higher() {
        for name in ["accuracy", "val_acc", "val/F1", "test.psnr", "ssim", "mAP", "r2", "top1-acc"]
        {
            assert!(is_better_when_higher(name), "{name}");
        }
        for name in ["loss", "acc_loss", "fid", "mse", "accumulated", "bitmap", "map_error", ""] {
            assert!(!is_better_when_higher(name), "{name}");
        }
    }

    #[test]
    fn many_names_are_cut_short() {
        let names: Vec<String> = (0..30).map(|n| format!("metric_{n:02}")).collect();
        let said = find("fid", names.iter().map(String::as_str), "stage `a` has").unwrap_err();
        assert!(said.starts_with("stage `a` has no `fid`; it has metric_00, "), "{said}");
        assert!(said.ends_with("metric_19 and 10 more"), "{said}");
    }
}
