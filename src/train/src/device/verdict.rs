//! What a self-test said of an adapter, kept in the project's cache until the adapter, its driver
//! or this program change.

use std::path::{Path, PathBuf};

use pipe_engine::store::{STATE_FOLDER, atomic};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::Adapter;

/// To be raised when the self-test, or what kernels it stands for, changes within a version of the
/// program.
const EDITION: u32 = 1;

/// Whether an adapter computes a training step as the CPU does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "verdict")]
pub enum Verdict {
    Passed,
    Failed { reason: String },
}

/// What a verdict is of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Subject {
    name: String,
    backend: String,
    id: String,
    driver: String,
    precision: String,
    program: String,
}

/// The file's content: it is believed only for the subject that it names.
#[derive(Serialize, Deserialize)]
struct Kept {
    subject: Subject,
    #[serde(flatten)]
    verdict: Verdict,
}

impl Subject {
    fn new(adapter: &Adapter, precision: &str) -> Self {
        let kernels = match (cfg!(feature = "vulkan"), cfg!(feature = "autotune")) {
            (false, false) => "",
            (true, false) => " vulkan",
            (false, true) => " autotune",
            (true, true) => " vulkan autotune",
        };
        Self {
            name: adapter.name.clone(),
            backend: adapter.backend.clone(),
            id: adapter.id.clone(),
            driver: adapter.driver.clone(),
            precision: precision.to_owned(),
            program: format!("{}-{EDITION}{kernels}", env!("CARGO_PKG_VERSION")),
        }
    }

    fn file(&self, project: &Path) -> PathBuf {
        let text = serde_json::to_vec(self).unwrap_or_default();
        let name: String =
            Sha256::digest(text).iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        project.join(STATE_FOLDER).join("cache").join("devices").join(name + ".json")
    }
}

impl Verdict {
    /// The verdict on an adapter that the project's cache has, if it has one.
    pub fn known(project: &Path, adapter: &Adapter, precision: &str) -> Option<Self> {
        let subject = Subject::new(adapter, precision);
        let text = std::fs::read(subject.file(project)).ok()?;
        let kept: Kept = serde_json::from_slice(&text).ok()?;
        (kept.subject == subject).then_some(kept.verdict)
    }

    /// Keeps it. Where the cache cannot be written, the next training tests again.
    pub fn keep(&self, project: &Path, adapter: &Adapter, precision: &str) {
        let subject = Subject::new(adapter, precision);
        let file = subject.file(project);
        let kept = Kept { subject, verdict: self.clone() };
        let text = serde_json::to_vec_pretty(&kept).unwrap_or_default();
        let written = atomic::create_folder(file.parent().unwrap_or(project))
            .and_then(|()| atomic::write(&file, |out| out.write_all(&text)));
        if let Err(error) = written {
            tracing::info!("the self-test's verdict is not kept: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::adapters::tests::adapter;

    #[test]
    fn a_verdict_is_believed_for_the_adapter_driver_and_precision_that_it_was_made_for() {
        let folder = tempfile::tempdir().unwrap();
        let here = folder.path();
        let gpu = Adapter { driver: "driver 1".into(), ..adapter(0, "discrete", "Vulkan") };
        assert_eq!(Verdict::known(here, &gpu, "f32"), None);
        let failed = Verdict::Failed { reason: "NaN".into() };
        failed.keep(here, &gpu, "f32");
        Verdict::Passed.keep(here, &gpu, "f16");
        assert_eq!(Verdict::known(here, &gpu, "f32"), Some(failed));
        assert_eq!(Verdict::known(here, &gpu, "f16"), Some(Verdict::Passed));
        let newer = Adapter { driver: "driver 2".into(), ..gpu.clone() };
        assert_eq!(Verdict::known(here, &newer, "f32"), None, "another driver is another matter");
        let same = Adapter { index: 3, nth: 1, ..gpu.clone() };
        assert_ne!(Verdict::known(here, &same, "f32"), None, "its place in the list says nothing");
        let file = Subject::new(&gpu, "f32").file(here);
        std::fs::copy(Subject::new(&gpu, "f16").file(here), &file).unwrap();
        assert_eq!(Verdict::known(here, &gpu, "f32"), None, "another subject's file");
        std::fs::write(&file, "{").unwrap();
        assert_eq!(Verdict::known(here, &gpu, "f32"), None);
    }
}
