//! What a person asks for: so many images, of these classes, in one grid.

use burn::tensor::Device;
use pipe_engine::kind::{Failure, StageError};

use super::{Draw, ImageGrid, SampleSpec, generate};
use crate::architecture::{ModelConfig, Network};
use crate::data::same_class_name;
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
}

/// Images of the grid of one epoch; more where there are more classes.
const OF_EPOCH: usize = 32;
const OF_EPOCH_EACH: usize = 4;
/// Classes of the grid of one epoch, at most.
const OF_EPOCH_CLASSES: usize = 64;

/// One row of the grid.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Row {
    name: String,
    label: usize,
    count: usize,
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
        (Self { title, n, classes, seed, sampler: Sampler::default(), batch_size }, part)
    }

    /// Which part of the classes that are asked for is sampled, in words, if it is not all of them:
    /// each has at least an image.
    pub fn class_subset(&self, num_classes: usize) -> Option<String> {
        let asked = if self.classes.is_empty() { num_classes } else { self.classes.len() };
        (self.n < asked).then(|| class_subset_words(self.n, asked))
    }

    /// Samples it with a network on `device`, whose classes are called `names`. `after` is told how
    /// many steps of how many are done, and stops by answering `false`; the result is `None` then.
    ///
    /// # Errors
    /// A class that the network does not know, and what [`generate`] reports.
    pub fn sample(
        &self,
        net: &Network,
        config: &ModelConfig,
        names: &[String],
        device: &Device,
        mut after: impl FnMut(u64, u64) -> bool + Send,
    ) -> Result<Option<ImageGrid>, StageError> {
        let rows = self.rows(config.num_classes(), names)?;
        let Self { seed, sampler, batch_size, .. } = *self;
        let labels = rows.iter().flat_map(|row| vec![row.label; row.count]);
        let draw = |(number, label)| Draw { label, seed, number };
        let spec = SampleSpec { draws: (0..).zip(labels).map(draw).collect(), sampler, batch_size };
        let total = spec.total_steps();
        let sampled = kernels::in_own_pool(|| {
            generate(net, config, &spec, device, |done| after(done, total))
        });
        let Some(images) = sampled? else {
            return Ok(None);
        };
        let mut images = images.into_iter();
        let rows =
            rows.into_iter().map(|row| (row.name, images.by_ref().take(row.count).collect()));
        let class_subset = self
            .class_subset(config.num_classes())
            .map(|part| format!(", {part}"))
            .unwrap_or_default();
        Ok(Some(ImageGrid { title: format!("{}{class_subset}", self.title), rows: rows.collect() }))
    }

    fn rows(&self, num_classes: usize, names: &[String]) -> Result<Vec<Row>, StageError> {
        let chosen = chosen_classes(&self.classes, num_classes, names)?;
        if chosen.is_empty() {
            return Ok(vec![Row { name: String::new(), label: 0, count: self.n }]);
        }
        let (each, rest) = (self.n / chosen.len(), self.n % chosen.len());
        let row =
            |(index, (label, name))| Row { name, label, count: each + usize::from(index < rest) };
        Ok(chosen.into_iter().enumerate().map(row).filter(|row| row.count > 0).collect())
    }
}

/// The classes that are wanted by name, all of them if `wanted` is empty, of a network that has so
/// many: each with its label. None of a network without classes.
pub(super) fn chosen_classes(
    wanted: &[String],
    num_classes: usize,
    names: &[String],
) -> Result<Vec<(usize, String)>, StageError> {
    let setting = |message: String| StageError::new(Failure::Setting, message);
    if num_classes == 0 {
        return match wanted.first() {
            None => Ok(Vec::new()),
            Some(class) => Err(setting(format!(
                "classes: the model knows no classes, so none is called `{class}`"
            ))),
        };
    }
    let name = |label: usize| names.get(label).cloned().unwrap_or_else(|| format!("class {label}"));
    if wanted.is_empty() {
        return Ok((0..num_classes).map(|label| (label, name(label))).collect());
    }
    let find = |class: &String| {
        let exact = (0..num_classes).find(|label| name(*label) == *class);
        let same = || (0..num_classes).find(|label| same_class_name(&name(*label), class));
        let found = exact.or_else(same).map(|label| (label, name(label)));
        found.ok_or_else(|| {
            let all: Vec<String> = (0..num_classes).map(name).collect();
            setting(format!("classes: the model has no class `{class}`; it has {}", all.join(", ")))
        })
    };
    wanted.iter().map(find).collect()
}

/// Why a guidance other than 1 does nothing, or harm, for a model of so many classes that was
/// trained with this share of its images unlabelled. What is unknown is taken to be fine.
pub fn ineffective_guidance(
    guidance: f64,
    classes: Option<usize>,
    label_dropout: Option<f64>,
) -> Option<String> {
    match (classes, label_dropout) {
        _ if guidance == 1.0 => None,
        (Some(0), _) => {
            Some(format!("guidance {guidance} changes nothing: the model knows no classes"))
        }
        (_, Some(0.0)) => Some(format!(
            "guidance {guidance} needs what the model samples without a class, and it was trained with label_dropout 0: \
             it has not learned that"
        )),
        _ => None,
    }
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
        }
    }

    fn rows(
        n: usize,
        classes: &[&str],
        num_classes: usize,
    ) -> Result<Vec<(String, usize, usize)>, String> {
        let request = request(n, classes);
        let names = ["oak".to_owned(), "pine".to_owned(), "palm".to_owned()];
        let rows = request.rows(num_classes, &names).map_err(|e| e.message)?;
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
    fn guidance_is_doubted_only_where_it_cannot_work() {
        let doubt =
            |g, classes, dropout| ineffective_guidance(g, classes, dropout).unwrap_or_default();
        assert!(doubt(2.0, Some(0), Some(0.1)).contains("knows no classes"));
        assert!(doubt(0.0, Some(3), Some(0.0)).contains("label_dropout 0"));
        assert!(doubt(1.5, None, Some(0.0)).contains("label_dropout 0"));
        for (g, classes, dropout) in
            [(1.0, Some(0), Some(0.0)), (2.0, Some(3), Some(0.1)), (2.0, None, None)]
        {
            assert_eq!(doubt(g, classes, dropout), "");
        }
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
}
