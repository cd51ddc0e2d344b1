//! A data set as `pipe data` shows it.

use std::path::{Path, PathBuf};

use pipe_core::number_text::counted;
use pipe_engine::kind::StageId;
use pipe_train::data::Dataset;
use serde::Serialize;

use super::table;

/// Bad images that are shown, at most; as JSON there are all.
const SHOWN: usize = 20;

/// What there is, what is left out, and what is wrong.
#[derive(Debug, Serialize)]
pub struct DatasetReport {
    stage: String,
    source: &'static str,
    /// Of sources that read files.
    root: Option<PathBuf>,
    /// Side of the square images, in pixels.
    image_size: usize,
    digest: String,
    classes: Vec<Class>,
    passed_over: Vec<PassedOver>,
    #[serde(skip)]
    passed_over_text: String,
    pub bad: Vec<UnreadableImage>,
}

#[derive(Debug, Serialize)]
struct Class {
    name: String,
    train: usize,
    validation: usize,
}

#[derive(Debug, Serialize)]
struct PassedOver {
    kind: String,
    count: usize,
    advice: Option<&'static str>,
}

/// An image that cannot be read.
#[derive(Debug, Serialize)]
pub struct UnreadableImage {
    /// Below the root.
    file: PathBuf,
    reason: String,
}

impl DatasetReport {
    pub fn new<'a>(
        stage: &StageId,
        dataset: &Dataset,
        root: Option<PathBuf>,
        bad: impl Iterator<Item = (&'a Path, &'a str)>,
    ) -> Self {
        let classes = dataset.counts().into_iter();
        let passed = dataset.skipped();
        let kinds = passed.iter().map(|(kind, count)| PassedOver {
            kind: kind.name(),
            count,
            advice: kind.advice(),
        });
        Self {
            stage: stage.to_string(),
            source: dataset.source().name(),
            root,
            image_size: dataset.image_size(),
            digest: dataset.digest().to_owned(),
            classes: classes
                .map(|class| Class {
                    name: class.name,
                    train: class.train,
                    validation: class.validation,
                })
                .collect(),
            passed_over: kinds.collect(),
            passed_over_text: passed.to_string(),
            bad: bad
                .map(|(file, reason)| UnreadableImage {
                    file: file.to_owned(),
                    reason: reason.to_owned(),
                })
                .collect(),
        }
    }

    /// For a terminal, in several lines.
    pub fn text(&self) -> String {
        let root =
            self.root.as_ref().map(|root| format!(" {}", root.display())).unwrap_or_default();
        let size = self.image_size;
        let mut lines =
            vec![format!("{}: {}{root}, {size} x {size} pixels", self.stage, self.source)];
        lines.extend(self.counts().lines().map(|line| format!("  {line}")));
        let without: Vec<&str> = self
            .classes
            .iter()
            .filter(|class| class.train == 0)
            .map(|class| &*class.name)
            .collect();
        if !without.is_empty() {
            lines.push(format!("  no training image: {}", without.join(", ")));
        }
        if !self.passed_over_text.is_empty() {
            lines.push(format!("  passed over: {}", self.passed_over_text));
        }
        for passed in &self.passed_over {
            let kind = passed.kind.replace('_', " ");
            lines.extend(passed.advice.map(|advice| format!("    {kind}: {advice}")));
        }
        if !self.bad.is_empty() {
            lines.push(format!("  {} that cannot be read:", counted(self.bad.len(), "image")));
            let shown = self.bad.iter().take(SHOWN);
            lines.extend(shown.map(|bad| format!("    {}: {}", bad.file.display(), bad.reason)));
            if self.bad.len() > SHOWN {
                lines.push(format!("    and {} more: --json has them all", self.bad.len() - SHOWN));
            }
        }
        // Names of files may hold what moves a terminal's cursor.
        lines
            .iter()
            .map(|line| line.replace(char::is_control, "\u{fffd}"))
            .collect::<Vec<_>>()
            .join("\n")
    }

    fn counts(&self) -> String {
        let validates = self.classes.iter().any(|class| class.validation > 0);
        let row = |name: &str, train: usize, validation: usize| {
            let aside = validates.then(|| validation.to_string());
            [name.to_owned(), train.to_string()].into_iter().chain(aside).collect::<Vec<_>>()
        };
        let mut rows: Vec<_> =
            self.classes.iter().map(|c| row(&c.name, c.train, c.validation)).collect();
        if self.classes.len() > 1 {
            let sum = |of: fn(&Class) -> usize| self.classes.iter().map(of).sum();
            let all = counted(self.classes.len(), "class");
            rows.push(row(&format!("= {all}"), sum(|c| c.train), sum(|c| c.validation)));
        }
        table::table(
            if validates { &["Class", "Train", "Validation"] } else { &["Class", "Train"] },
            &rows,
        )
    }
}
