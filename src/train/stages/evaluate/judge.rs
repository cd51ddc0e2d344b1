//! The work of an `evaluate` stage, one metric after the other.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::tensor::Device;
use image::RgbImage;
use pipe_engine::kind::{Failure, Metrics, RunContext, StageError};
use pipe_fs::atomic;

use super::super::progress::{tell, tell_sampling, unless_stopped};
use super::super::result_files::{files_of, write_result};
use super::feature_judge::FeatureJudge;
use super::settings::{EvaluateSettings, Metric};
use crate::checkpoint::SamplingModel;
use crate::data::{Dataset, Split};
use crate::diffusion::Sampler;
use crate::evaluate::{LossRequest, Nearest, nearest, nearest_sheet, real_image};
use crate::sampling::{Format, ModelView, PictureRequest, Target, Which, is_sampled_picture};

/// The file of what was found, below `to`.
pub(super) const METRICS_FILE: &str = "metrics.json";
/// The sheet of pictures beside their nearest images, below `to`.
pub(super) const SHEET_FILE: &str = "nearest.png";
/// The folder of the sampled pictures, below `to`.
pub(super) const PICTURES: &str = "pictures";
/// Validation images that tell how near images are that the model cannot have learned by heart.
const COMPARED: usize = 2048;

/// A model to be judged, with what it is judged by.
pub(super) struct Judge<'a> {
    pub settings: &'a EvaluateSettings,
    /// For what is found, relative to the project.
    pub folder: &'a Path,
    pub sampler: Sampler,
    pub context: &'a RunContext<'a>,
    pub model: SamplingModel,
    pub dataset: &'a Arc<Dataset>,
    pub device: Device,
}

impl Judge<'_> {
    /// Finds out all that is wanted, and writes it: the metrics, and the files below the stage's
    /// folder.
    pub fn run(&self) -> Result<(Metrics, Vec<PathBuf>), StageError> {
        let (s, root) = (self.settings, &self.context.root);
        let folder = root.join(self.folder);
        // So that a folder which a kill leaves without files is known, too.
        let metrics_file = self.folder.join(METRICS_FILE);
        if !root.join(&metrics_file).exists() {
            self.context.note_place(&metrics_file)?;
        }
        atomic::create_folder(root.disk(), &folder)?;
        atomic::remove_temporary_files(root.disk(), &folder);
        let mut metrics = BTreeMap::new();
        let mut files = vec![PathBuf::from(METRICS_FILE)];
        if s.has(Metric::ValLoss) {
            self.val_loss(&mut metrics)?;
        }
        if s.samples() {
            let pictures = self.pictures(&folder)?;
            if s.uses_features() {
                FeatureJudge::load(self)?.judge(&pictures, &mut metrics)?;
            }
            if s.has(Metric::Nearest) {
                self.nearest(&pictures, &mut metrics)?;
                files.push(SHEET_FILE.into());
            }
        }
        let metrics = Metrics(metrics);
        write_metrics(self.context, self.folder, &metrics)?;
        Ok((metrics, files))
    }

    fn val_loss(&self, metrics: &mut BTreeMap<String, f64>) -> Result<(), StageError> {
        let request = LossRequest {
            net: &self.model.net,
            config: &self.model.config,
            class_names: &self.model.class_names,
            dataset: self.dataset,
            images: self.images(Split::Validation)?,
            batch_size: self.settings.batch_size,
        };
        let after = |done, total| tell(self.context, "validation loss", done, total);
        let found = request.losses(&self.device, after)?;
        let found = unless_stopped(self.context, found)?;
        metrics.insert("val_loss".to_owned(), found.mean);
        let levels = found.by_level.iter().map(|(sigma, loss)| (format!("sigma_{sigma:.3}"), loss));
        let classes = found.by_class.iter().map(|(class, loss)| (format!("class_{class}"), loss));
        let details = levels.chain(classes).map(|(of, loss)| (format!("val_loss/{of}"), *loss));
        metrics.extend(details);
        Ok(())
    }

    /// The images of a split, which must have some.
    fn images(&self, split: Split) -> Result<&[usize], StageError> {
        let images = self.dataset.indices(split);
        let name = if split == Split::Train { "training" } else { "validation" };
        let none = || format!("dataset: {} has no {name} images", self.settings.dataset);
        if images.is_empty() { Err(StageError::setting(none())) } else { Ok(images) }
    }

    /// The real images that pictures are compared with.
    pub fn real(&self) -> Result<&[usize], StageError> {
        let is_test = self.dataset.indices(Split::Train).is_empty();
        let unset = if is_test { Split::Validation } else { Split::Train };
        self.images(self.settings.split.map_or(unset, Split::from))
    }

    /// The pictures of all seeds: those that are there already, and the others.
    fn pictures(&self, folder: &Path) -> Result<Vec<RgbImage>, StageError> {
        let s = self.settings;
        let request = PictureRequest {
            which: Which::Seeds(s.seeds.clone()),
            classes: s.classes.clone().unwrap_or_default(),
            sampler: self.sampler,
            batch_size: s.batch_size,
            source: self.model.source.clone(),
        };
        self.context.note_place(&self.folder.join(PICTURES))?;
        let target = Target::Folder(folder.join(PICTURES));
        let model = ModelView::of(&self.model, None);
        let after = |done, total| tell_sampling(self.context, done, total);
        let written =
            request.write(self.context.root.disk(), &target, model, &self.device, after)?;
        let written = unless_stopped(self.context, written)?;
        // Those of other seeds and classes, which an earlier look left.
        let todays: HashSet<PathBuf> =
            written.files.iter().map(|name| self.folder.join(PICTURES).join(name)).collect();
        for file in files_of(&self.context.root, self.folder.join(PICTURES)) {
            let path = self.context.root.join(&file);
            if !todays.contains(&file) && is_sampled_picture(&path) {
                atomic::remove(self.context.root.disk(), &path)?;
            }
        }
        let read = |name: &String| {
            let path = target.path().join(name);
            let failed = |e: &dyn std::fmt::Display| {
                let text = format!("failed to read {}: {e}", path.display());
                StageError::new(Failure::Input, text)
            };
            let bytes = std::fs::read(&path).map_err(|e| failed(&e))?;
            Ok(image::load_from_memory(&bytes).map_err(|e| failed(&e))?.to_rgb8())
        };
        written.files.iter().map(read).collect()
    }

    /// How near pictures are to real images, and how near images are that were kept aside.
    fn nearest(
        &self,
        pictures: &[RgbImage],
        metrics: &mut BTreeMap<String, f64>,
    ) -> Result<(), StageError> {
        let real = self.real()?;
        let found = self.nearest_of(pictures, real, "nearest images")?;
        metrics.insert("nearest".to_owned(), mean(&found));
        let aside = self.dataset.indices(Split::Validation);
        if !aside.is_empty() && aside != real {
            let images = aside.iter().take(COMPARED).map(|index| real_image(self.dataset, *index));
            let images: Result<Vec<_>, _> = images.collect();
            let found = self.nearest_of(&images?, real, "nearest images of validation")?;
            metrics.insert("nearest/of_validation".to_owned(), mean(&found));
        }
        let title = "Each picture beside the image that is nearest to it, with their distance";
        let sheet = nearest_sheet(title, pictures, &found, self.dataset)?;
        let bytes = Format::of(Path::new(SHEET_FILE)).map_err(StageError::setting)?;
        let bytes = bytes.encode(&sheet.render())?;
        write_result(self.context, &self.folder.join(SHEET_FILE), &bytes)
    }

    fn nearest_of(
        &self,
        pictures: &[RgbImage],
        real: &[usize],
        what: &str,
    ) -> Result<Vec<Nearest>, StageError> {
        let augmentation = self.dataset.augmentation();
        let mirrored = augmentation.enabled && augmentation.horizontal_flip;
        let after = |done, total| tell(self.context, what, done, total);
        unless_stopped(self.context, nearest(pictures, self.dataset, real, mirrored, after)?)
    }
}

/// Writes what was found into a folder of the project: see [`write_result`].
pub(super) fn write_metrics(
    context: &RunContext,
    folder: &Path,
    found: &Metrics,
) -> Result<(), StageError> {
    let text = serde_json::to_string_pretty(&found.0);
    let text = text.map_err(|e| StageError::new(Failure::Bug, e.to_string()))? + "\n";
    write_result(context, &folder.join(METRICS_FILE), text.as_bytes())
}

fn mean(found: &[Nearest]) -> f64 {
    found.iter().map(|nearest| nearest.distance).sum::<f64>() / found.len().max(1) as f64
}
