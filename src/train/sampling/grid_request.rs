//! What a person asks for: so many images, of these classes, in one grid.

use burn::tensor::Device;
use pipe_engine::kind::{Failure, StageError};

use super::generate::generate_strips;
use super::image_grid::Captions;
use super::{Draw, ImageGrid, ModelView, SampleSpec};
use crate::data::find_class;
use crate::diffusion::Sampler;
use crate::kernels;

/// An image grid to be sampled.
#[derive(Debug, Clone)]
pub struct GridRequest {
    pub title: String,
    /// Images in all, shared out among the classes.
    pub n: usize,
    /// By name, a row each; all of them if empty.
    pub classes: Vec<String>,
    pub seed: u64,
    pub sampler: Sampler,
    /// Images that are sampled at once.
    pub batch_size: usize,
    /// A strip of so many columns for each image, from its first estimate to what it became.
    pub strip: Option<usize>,
}

/// Images of the grid of one epoch; more where there are more classes.
const OF_EPOCH: usize = 32;
const OF_EPOCH_EACH: usize = 4;
/// Classes of the grid of one epoch, at most.
const OF_EPOCH_CLASSES: usize = 64;

/// One row of the grid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Row {
    pub name: String,
    pub label: usize,
    pub count: usize,
}

impl GridRequest {
    /// What a training samples after an epoch: some images of each class of `names`, the same
    /// classes each time, so that epochs can be compared. Of very many classes it is a choice,
    /// spread evenly; then which part of them, in words.
    pub fn for_epoch(
        title: &str,
        names: &[String],
        conditional: bool,
        seed: u64,
        batch_size: usize,
    ) -> (Self, Option<String>) {
        let all = if conditional { names.len() } else { 0 };
        let sampled = all.min(OF_EPOCH_CLASSES);
        let classes: Vec<String> =
            (0..sampled).filter_map(|i| names.get(i * all / sampled)).cloned().collect();
        let each = (OF_EPOCH / sampled.max(1)).clamp(1, OF_EPOCH_EACH);
        let part = (sampled < all).then(|| class_subset_words(sampled, all));
        let title = [title].into_iter().chain(part.as_deref()).collect::<Vec<_>>().join(", ");
        let n = each * sampled.max(1);
        let sampler = Sampler::default();
        (Self { title, n, classes, seed, sampler, batch_size, strip: None }, part)
    }

    /// Which part of the classes that are asked for is sampled, in words, if it is not all of them:
    /// each has at least an image.
    pub fn class_subset(&self, num_classes: usize) -> Option<String> {
        let asked = if self.classes.is_empty() { num_classes } else { self.classes.len() };
        (self.n < asked).then(|| class_subset_words(self.n, asked))
    }

    /// Samples it with a model on `device`. `after` is told how many steps of how many are done, and
    /// stops by answering `false`; the result is `None` then.
    ///
    /// # Errors
    /// A class that the network does not know, and what [`generate`](super::generate) reports.
    pub fn sample(
        &self,
        model: ModelView,
        device: &Device,
        mut after: impl FnMut(u64, u64) -> bool + Send,
    ) -> Result<Option<ImageGrid>, StageError> {
        let classes = model.config.num_classes();
        let rows = rows(self.n, &self.classes, classes, model.class_names)?;
        let Self { seed, sampler, batch_size, .. } = *self;
        let labels = rows.iter().flat_map(|row| vec![row.label; row.count]);
        let draw = |(number, label)| Draw { label, seed, number };
        let spec = SampleSpec { draws: (0..).zip(labels).map(draw).collect(), sampler, batch_size };
        let total = spec.total_steps();
        let steps = self.strip.map(|columns| strip_steps(columns, sampler.steps));
        let sampled = kernels::in_own_pool(|| {
            let steps = steps.as_deref().unwrap_or_default();
            generate_strips(model, &spec, steps, device, |done| after(done, total))
        });
        let Some(strips) = sampled? else {
            return Ok(None);
        };
        let part = self.class_subset(classes).map(|part| format!(", {part}"));
        let title = format!("{}{}", self.title, part.unwrap_or_default());
        let mut strips = strips.into_iter();
        let Some(steps) = steps else {
            let mut images = strips.flatten();
            let row = |row: Row| (row.name, images.by_ref().take(row.count).collect());
            let rows = rows.into_iter().map(row).collect();
            return Ok(Some(ImageGrid { title, rows, captions: Captions::Numbers }));
        };
        let names = rows.into_iter().flat_map(|row| vec![row.name; row.count]);
        let name = |(number, name): (usize, String)| format!("{number} {name}");
        let rows = names.enumerate().map(name).zip(strips.by_ref()).collect();
        let sigmas = sampler.sigmas();
        let level = |step: &usize| sigmas.get(step - 1).map(|sigma| format!("σ {}", short(*sigma)));
        let columns = steps.iter().filter_map(level).chain(["image".to_owned()]).collect();
        Ok(Some(ImageGrid { title, rows, captions: Captions::Columns(columns) }))
    }
}

/// The steps, counted from 1, whose estimates a strip of so many columns shows before the image
/// itself: evenly from the first one on.
fn strip_steps(columns: usize, steps: usize) -> Vec<usize> {
    let before = columns.saturating_sub(1);
    (0..before).map(|column| column * steps.saturating_sub(1) / before + 1).collect()
}

/// A noise level in three digits.
fn short(sigma: f64) -> String {
    let digits = (2 - sigma.log10().floor() as i32).clamp(0, 6) as usize;
    let text = format!("{sigma:.digits$}");
    if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        text
    }
}

/// The rows of a grid of `n` images: the classes that are `wanted`, all of them if none is named, of
/// a network that has so many.
pub(super) fn rows(
    n: usize,
    wanted: &[String],
    num_classes: usize,
    names: &[String],
) -> Result<Vec<Row>, StageError> {
    let chosen = chosen_classes(wanted, num_classes, names)?;
    if chosen.is_empty() {
        return Ok(vec![Row { name: String::new(), label: 0, count: n }]);
    }
    let (each, rest) = (n / chosen.len(), n % chosen.len());
    let row = |(index, (label, name))| Row { name, label, count: each + usize::from(index < rest) };
    Ok(chosen.into_iter().enumerate().map(row).filter(|row| row.count > 0).collect())
}

/// The classes that are wanted by name, all of them if `wanted` is empty, of a network that has so
/// many: each with its label. None of a network without classes.
pub(super) fn chosen_classes(
    wanted: &[String],
    num_classes: usize,
    names: &[String],
) -> Result<Vec<(usize, String)>, StageError> {
    let setting = |message: String| StageError::new(Failure::Setting, message).at("classes");
    let name = |label: usize| names.get(label).cloned().unwrap_or_else(|| format!("class {label}"));
    let all: Vec<String> = (0..num_classes).map(name).collect();
    if wanted.is_empty() {
        return Ok(all.into_iter().enumerate().collect());
    }
    let find = |class: &String| {
        let found = find_class(class, &all).map_err(setting)?;
        let label = found.ok_or_else(|| setting(unknown_class(class, &all)))?;
        Ok((label, all[label].clone()))
    };
    wanted.iter().map(find).collect()
}

/// Says that a model with these classes has none of this name.
pub fn unknown_class(class: &str, all: &[String]) -> String {
    if all.is_empty() {
        return format!("the model knows no classes, so none is called `{class}`");
    }
    format!("the model has no class `{class}`; it has {}", all.join(", "))
}

pub(super) fn class_subset_words(sampled: usize, all: usize) -> String {
    format!("{sampled} of {all} classes")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(n: usize, classes: &[&str]) -> GridRequest {
        GridRequest {
            title: String::new(),
            n,
            classes: classes.iter().map(|c| c.to_string()).collect(),
            seed: 0,
            sampler: Sampler::default(),
            batch_size: 16,
            strip: None,
        }
    }

    fn rows(
        n: usize,
        classes: &[&str],
        num_classes: usize,
    ) -> Result<Vec<(String, usize, usize)>, String> {
        let names = ["oak".to_owned(), "pine".to_owned(), "palm".to_owned()];
        let request = request(n, classes);
        let rows = super::rows(n, &request.classes, num_classes, &names).map_err(|e| e.message)?;
        Ok(rows.into_iter().map(|row| (row.name, row.label, row.count)).collect())
    }

    #[test]
    fn images_are_shared_out_among_the_classes() {
        let expected = [("oak", 0, 3), ("pine", 1, 2), ("palm", 2, 2)];
        assert_eq!(rows(7, &[], 3).unwrap(), expected.map(|(n, l, c)| (n.to_owned(), l, c)));
        assert_eq!(rows(2, &["palm"], 3).unwrap(), [("palm".to_owned(), 2, 2)]);
        assert_eq!(rows(1, &[], 3).unwrap().len(), 1, "no empty rows");
        let error = rows(1, &["fir"], 3).unwrap_err();
        assert_eq!(error, "classes: the model has no class `fir`; it has oak, pine, palm");
    }

    #[test]
    fn without_classes_there_is_one_block() {
        assert_eq!(rows(7, &[], 0).unwrap(), [(String::new(), 0, 7)]);
        assert!(rows(7, &["oak"], 0).unwrap_err().contains("knows no classes"));
    }

    #[test]
    fn classes_that_get_no_image_are_told() {
        assert_eq!(request(2, &[]).class_subset(3).unwrap(), "2 of 3 classes");
        assert_eq!(request(1, &["palm", "oak"]).class_subset(3).unwrap(), "1 of 2 classes");
        for (n, classes) in [(3, vec![]), (7, vec![]), (1, vec!["palm"])] {
            assert_eq!(request(n, &classes).class_subset(3), None);
        }
        assert_eq!(
            request(2, &[]).class_subset(0),
            None,
            "a model without classes has none to leave out"
        );
    }

    #[test]
    fn an_epochs_grid_has_every_class_within_a_bound_and_says_when_not() {
        let names = |n: usize| (0..n).map(|i| format!("class {i}")).collect::<Vec<_>>();
        let of = |n: usize| GridRequest::for_epoch("t", &names(n), true, 0, 16);
        for (classes, images) in [(2, 8), (8, 32), (9, 27), (10, 30), (33, 33), (64, 64)] {
            let (request, part) = of(classes);
            assert_eq!(
                (request.classes.len(), request.n, part),
                (classes, images, None),
                "{classes} classes"
            );
            assert_eq!(request.title, "t");
        }
        let (many, part) = of(1000);
        assert_eq!(part.unwrap(), "64 of 1000 classes");
        assert_eq!(
            (many.classes.len(), many.n, many.title.as_str()),
            (64, 64, "t, 64 of 1000 classes")
        );
        assert_eq!(
            (many.classes[1].as_str(), many.classes[63].as_str()),
            ("class 15", "class 984")
        );
        let (none, _) = GridRequest::for_epoch("t", &names(100), false, 0, 16);
        assert_eq!((none.classes.len(), none.n, none.title.as_str()), (0, 4, "t"));
    }

    #[test]
    fn a_strip_shows_steps_from_the_first_on_each_once() {
        assert_eq!(strip_steps(4, 18), [1, 6, 12]);
        assert_eq!(strip_steps(2, 1), [1]);
        for steps in 1..40 {
            for columns in 2..=steps {
                let found = strip_steps(columns, steps);
                assert_eq!((found.len(), found[0]), (columns - 1, 1));
                assert!(found.windows(2).all(|pair| pair[0] < pair[1]), "{columns} of {steps}");
                assert!(found.iter().all(|step| *step < steps.max(2)), "{columns} of {steps}");
            }
        }
    }

    #[test]
    fn noise_levels_have_three_digits() {
        let of = [80.0, 1234.5, 12.345, 0.66149, 0.002, 1e-6].map(short);
        assert_eq!(of, ["80", "1234", "12.3", "0.661", "0.002", "0.000001"]);
    }
}
