//! The result of an adapter's self-test, kept in the project's cache until the adapter, its driver
//! or this program change.

use std::path::{Path, PathBuf};

use pipe_fs::{ProjectRoot, STATE_FOLDER, atomic};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::Adapter;

/// To be raised when the self-test, or what kernels it stands for, changes within a version of the
/// program.
const REVISION: u32 = 2;

/// Whether an adapter computes a training step as the CPU does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "verdict")]
pub enum SelfTestResult {
    Passed,
    Failed { reason: String },
}

/// What a result is of: a key of the cache.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct CacheKey {
    name: String,
    backend: String,
    id: String,
    driver: String,
    precision: String,
    program: String,
}

/// The file's content: it is believed only for the key that it names.
#[derive(Serialize, Deserialize)]
struct CacheEntry {
    subject: CacheKey,
    #[serde(flatten)]
    verdict: SelfTestResult,
}

impl CacheKey {
    fn new(adapter: &Adapter, precision: &str) -> Self {
        let features = [
            (cfg!(feature = "vulkan"), " vulkan"),
            (cfg!(feature = "metal"), " metal"),
            (cfg!(feature = "autotune"), " autotune"),
        ];
        let kernels: String =
            features.iter().filter(|(on, _)| *on).map(|(_, name)| *name).collect();
        Self {
            name: adapter.name.clone(),
            backend: adapter.backend.clone(),
            id: adapter.id.clone(),
            driver: adapter.driver.clone(),
            precision: precision.to_owned(),
            program: format!("{}-{REVISION}{kernels}", env!("CARGO_PKG_VERSION")),
        }
    }

    fn file(&self, project: &Path) -> PathBuf {
        let text = serde_json::to_vec(self).unwrap_or_default();
        let name: String =
            Sha256::digest(text).iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        project.join(STATE_FOLDER).join("cache").join("devices").join(name + ".json")
    }
}

impl SelfTestResult {
    /// The result for an adapter that the project's cache has, if it has one.
    pub fn cached(project: &Path, adapter: &Adapter, precision: &str) -> Option<Self> {
        let subject = CacheKey::new(adapter, precision);
        let text = std::fs::read(subject.file(project)).ok()?;
        let kept: CacheEntry = serde_json::from_slice(&text).ok()?;
        (kept.subject == subject).then_some(kept.verdict)
    }

    /// Keeps it in the cache. Where the cache cannot be written, the next training tests again.
    pub fn save(&self, project: &ProjectRoot, adapter: &Adapter, precision: &str) {
        let subject = CacheKey::new(adapter, precision);
        let file = subject.file(project);
        let kept = CacheEntry { subject, verdict: self.clone() };
        let text = serde_json::to_vec_pretty(&kept).unwrap_or_default();
        let written = atomic::create_folder(project.disk(), file.parent().unwrap_or(project))
            .and_then(|()| atomic::write(project.disk(), &file, |out| out.write_all(&text)));
        if let Err(error) = written {
            tracing::info!("the self-test's result is not kept: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::adapters::tests::adapter;

    #[test]
    fn a_result_is_believed_for_the_adapter_driver_and_precision_that_it_was_made_for() {
        let folder = tempfile::tempdir().unwrap();
        let here = &ProjectRoot::from(folder.path());
        let gpu = Adapter { driver: "driver 1".into(), ..adapter(0, "discrete", "Vulkan") };
        assert_eq!(SelfTestResult::cached(here, &gpu, "f32"), None);
        let failed = SelfTestResult::Failed { reason: "NaN".into() };
        failed.save(here, &gpu, "f32");
        SelfTestResult::Passed.save(here, &gpu, "f16");
        assert_eq!(SelfTestResult::cached(here, &gpu, "f32"), Some(failed));
        assert_eq!(SelfTestResult::cached(here, &gpu, "f16"), Some(SelfTestResult::Passed));
        let newer = Adapter { driver: "driver 2".into(), ..gpu.clone() };
        assert_eq!(
            SelfTestResult::cached(here, &newer, "f32"),
            None,
            "another driver is another matter"
        );
        let same = Adapter { index: 3, nth: 1, ..gpu.clone() };
        assert_ne!(
            SelfTestResult::cached(here, &same, "f32"),
            None,
            "its place in the list says nothing"
        );
        let file = CacheKey::new(&gpu, "f32").file(here);
        std::fs::copy(CacheKey::new(&gpu, "f16").file(here), &file).unwrap();
        assert_eq!(SelfTestResult::cached(here, &gpu, "f32"), None, "another subject's file");
        std::fs::write(&file, "{").unwrap();
        assert_eq!(SelfTestResult::cached(here, &gpu, "f32"), None);
    }
}
