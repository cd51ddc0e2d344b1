//! What Inception-v3 says of pictures: FID, KID, precision and recall.

use std::collections::BTreeMap;

use image::RgbImage;
use pipe_core::progress::Event;
use pipe_engine::kind::{Failure, StageError};

use super::super::progress::{Throttled, tell, unless_stopped};
use super::judge::Judge;
use super::settings::Metric;
use crate::data::CacheFolder;
use crate::evaluate::{
    FeatureCache, FeatureNetwork, Features, Moments, NEIGHBOURS, Statistics, frechet_distance,
    kernel_distance, precision_recall, real_image, weights,
};
use crate::kernels;

/// Features of each side that KID, precision and recall look at, as their papers do.
const MOST: usize = 10_000;
/// Pictures from which on a FID is near that of many more.
const ENOUGH: u64 = 10_000;

/// Pictures beside real images, as the network sees them.
pub(super) struct FeatureJudge<'a> {
    judge: &'a Judge<'a>,
    network: FeatureNetwork,
    cache: FeatureCache,
}

/// What is known of many images.
struct Seen {
    /// Of all, where FID is of them.
    moments: Option<Moments>,
    /// Of the first ones.
    features: Features,
}

impl<'a> FeatureJudge<'a> {
    /// Finds the network's weights, and reads them.
    pub fn load(judge: &'a Judge<'a>) -> Result<Self, StageError> {
        let (s, root) = (judge.settings, &judge.context.root);
        let (path, digest) = weights::find(root, &s.features, &Throttled::new(judge.context))?;
        let network = FeatureNetwork::load(&path, &judge.device);
        let network = network.map_err(|e| StageError::new(Failure::Input, e.to_string()))?;
        let cache = FeatureCache {
            folder: CacheFolder::of(root),
            network: format!("inception {digest} {:?}", s.resize),
            dimensions: FeatureNetwork::FEATURES,
        };
        Ok(Self { judge, network, cache })
    }

    /// Finds out all metrics that are wanted of features.
    pub fn judge(
        &self,
        pictures: &[RgbImage],
        metrics: &mut BTreeMap<String, f64>,
    ) -> Result<(), StageError> {
        let s = self.judge.settings;
        let image = |at: usize| {
            let none = || StageError::new(Failure::Bug, "a picture is missing");
            pictures.get(at).cloned().ok_or_else(none)
        };
        let has_fid = s.has(Metric::Fid);
        let sampled = self.see("features of pictures", pictures.len(), has_fid, image)?;
        let needs_real = s.statistics.is_none()
            || s.metrics.iter().any(|m| m.is_of_features() && *m != Metric::Fid);
        let real = if needs_real {
            let real = self.judge.real()?;
            let image = |at: usize| {
                let none = || StageError::new(Failure::Bug, "an image is missing");
                real_image(self.judge.dataset, *real.get(at).ok_or_else(none)?)
            };
            let has_fid = has_fid && s.statistics.is_none();
            Some(self.see("features of real images", real.len(), has_fid, image)?)
        } else {
            None
        };
        if has_fid {
            let distance = self.fid(&sampled, real.as_ref())?;
            metrics.insert("fid".to_owned(), distance);
        }
        if let Some(real) = real {
            self.of_neighbours(&sampled.features, &real.features, metrics)?;
        }
        Ok(())
    }

    /// Looks at so many images, or knows what it saw of them before. FID is of all of them, and the
    /// other metrics are of the first ones.
    fn see(
        &self,
        what: &str,
        count: usize,
        has_fid: bool,
        image: impl Fn(usize) -> Result<RgbImage, StageError> + Sync,
    ) -> Result<Seen, StageError> {
        let width = FeatureNetwork::FEATURES;
        let count = if has_fid { count } else { count.min(MOST) };
        let moments = has_fid.then(|| Moments::new(width));
        let mut seen = Seen { moments, features: Features::new(width) };
        let compute = |images: &[RgbImage]| {
            let images =
                images.iter().map(|i| (&i.as_raw()[..], i.width() as usize, i.height() as usize));
            kernels::in_own_pool(|| self.network.of_pictures(self.judge.settings.resize, images))
        };
        let each = |rows: &[f32]| {
            if let Some(moments) = &mut seen.moments {
                moments.push(rows);
            }
            let left = MOST.saturating_sub(seen.features.len()) * width;
            seen.features.push(&rows[..rows.len().min(left)]);
            Ok(())
        };
        let after = |done, total| tell(self.judge.context, what, done, total);
        let done = self.cache.for_each(count, image, compute, each, after)?;
        unless_stopped(self.judge.context, done)?;
        Ok(seen)
    }

    fn fid(&self, sampled: &Seen, real: Option<&Seen>) -> Result<f64, StageError> {
        let s = self.judge.settings;
        let few =
            || StageError::setting("fid needs two pictures and two images at least").at("seeds");
        let of = |seen: &Seen| seen.moments.as_ref().and_then(Moments::statistics).ok_or_else(few);
        let real = match (&s.statistics, real) {
            (Some(file), _) => {
                let read = Statistics::read(&self.judge.context.root.join(file));
                read.map_err(|e| StageError::setting(e.to_string()).at("statistics"))?
            }
            (None, Some(real)) => of(real)?,
            (None, None) => return Err(StageError::new(Failure::Bug, "no real images")),
        };
        let count = sampled.moments.as_ref().map_or(0, Moments::count);
        if count < ENOUGH {
            let text = format!(
                "fid of {count} pictures: of fewer than {ENOUGH} it is larger than it would be of more; compare \
                 it with figures of as many alone, or look at kid"
            );
            self.judge.context.event(Event::Warning { text });
        }
        let distance = frechet_distance(&of(sampled)?, &real);
        distance.map_err(|e| StageError::setting(e.to_string()).at("statistics"))
    }

    fn of_neighbours(
        &self,
        sampled: &Features,
        real: &Features,
        metrics: &mut BTreeMap<String, f64>,
    ) -> Result<(), StageError> {
        let s = self.judge.settings;
        let few = |metric: &str, least: usize| {
            StageError::setting(format!("{metric} needs {least} pictures and images at least"))
                .at("seeds")
        };
        if s.has(Metric::Kid) {
            let found = kernel_distance(real, sampled, 0).ok_or_else(|| few("kid", 2))?;
            metrics.insert("kid".to_owned(), found.mean);
            metrics.insert("kid/deviation".to_owned(), found.deviation);
        }
        if s.has(Metric::Precision) || s.has(Metric::Recall) {
            let found = precision_recall(real, sampled, NEIGHBOURS);
            let found = found.ok_or_else(|| few("precision", NEIGHBOURS + 1))?;
            for (metric, name, value) in [
                (Metric::Precision, "precision", found.precision),
                (Metric::Recall, "recall", found.recall),
            ] {
                if s.has(metric) {
                    metrics.insert(name.to_owned(), value);
                }
            }
        }
        Ok(())
    }
}
