//! The pictures that a new project is for: where they lie, of which classes they are, and which of
//! them cannot be read.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use pipe_core::ids::StageId;
use pipe_core::stop::Stop;
use pipe_fs::{Disk, ProjectRoot, STATE_FOLDER, atomic};
use pipe_train::data::{
    BadImage, ClassSelection, DataError, Dataset, DatasetSettings, FolderSurvey, Progress,
    SkipReason, is_packed, nearest_place, survey,
};

use crate::cli::CliError;
use crate::cli::data::Watching;
use crate::report::{self, Output};

/// Headers that are read, at most.
const HEADERS: usize = 2000;
/// So long pictures are decoded to find bad ones; the first run looks at all of them.
const LONGEST_LOOK: Duration = Duration::from_secs(60);
/// Folders that are parts of a data set and no classes.
const PARTS: [&str; 8] =
    ["train", "training", "test", "testing", "val", "valid", "validation", "eval"];

/// Where pictures lie and what there is of them.
pub struct Pictures {
    /// The folder or file that is read, absolute.
    pub place: PathBuf,
    /// What a pipeline in the project calls it.
    pub root: String,
    pub recursive: bool,
    pub survey: FolderSurvey,
}

/// What opening them showed besides.
pub struct Opened {
    pub train: usize,
    pub validation: usize,
    pub bad: Vec<BadImage>,
    /// Whether all were decoded.
    pub is_complete: bool,
}

impl Pictures {
    /// Finds the pictures in what was typed, for the project in `project`, an absolute path.
    ///
    /// # Errors
    /// A place that is not there, that holds no picture, or that the project lies in.
    pub fn find(typed: &Path, project: &Path) -> Result<Self, CliError> {
        let shown = typed.display();
        let place = typed.canonicalize().map_err(|e| {
            let what = match (e.kind(), nearest_place(typed)) {
                (_, Some(near)) => format!("it is not there; did you mean {}?", near.display()),
                (io::ErrorKind::NotFound, None) => "it is not there".to_owned(),
                _ => e.to_string(),
            };
            CliError::usage(format!("failed to find the pictures {shown}: {what}"))
        })?;
        let is_packed = match is_packed(&place) {
            Err(_) if place.is_file() => {
                return Err(CliError::usage(format!(
                    "{shown} is a file; name a folder of pictures, or a .zip or .parquet file"
                )));
            }
            told => told.map_err(CliError::usage)?,
        };
        if project.starts_with(&place) {
            return Err(CliError::usage(format!(
                "the project {} lies in its own pictures, {shown}, and its samples would become some of them; choose a folder beside them",
                project.display()
            )));
        }
        let root = ProjectRoot::from(project);
        if is_packed {
            // What is in it is unpacked to the project's cache.
            let state = project.join(STATE_FOLDER);
            atomic::create_folder(&Disk::default(), &state).map_err(CliError::failed)?;
        }
        let place = if is_packed { place } else { descend(place, &root)? };
        let (recursive, survey) = look(&place, &root)?;
        if survey.classes.iter().all(|class| class.images == 0) {
            let but = if survey.skipped.is_empty() {
                String::new()
            } else {
                format!(", but {}", survey.skipped)
            };
            let error = CliError::usage(format!("{shown} holds no pictures{but}"));
            let advice = survey.skipped.iter().find_map(|(kind, _)| kind.advice());
            return Err(match advice {
                Some(advice) => error.note(advice),
                None => error.note("JPEG, PNG, WebP, GIF, BMP and TIFF are read"),
            });
        }
        let called = place.strip_prefix(project).unwrap_or(&place);
        let Some(called) = called.to_str().map(str::to_owned) else {
            return Err(CliError::usage(format!("{shown}: its path is not UTF-8; rename it")));
        };
        Ok(Self { place, root: called, recursive, survey })
    }

    /// The names of the classes that hold pictures, where some hold none.
    pub fn chosen_classes(&self) -> Option<Vec<String>> {
        let classes = &self.survey.classes;
        let full = classes.iter().filter(|class| class.images > 0);
        (full.clone().count() < classes.len()).then(|| full.map(|c| c.name.clone()).collect())
    }

    /// How many classes a model has to know: none where all pictures are of one.
    pub fn class_count(&self) -> usize {
        match self.survey.classes.iter().filter(|class| class.images > 0).count() {
            1 => 0,
            count => count,
        }
    }

    /// Opens them as the pipeline will, and decodes them to find bad ones.
    pub fn open(
        &self,
        project: &Path,
        (image_size, val_split): (usize, f64),
        output: &Output,
    ) -> Result<Opened, CliError> {
        let settings = DatasetSettings {
            image_size,
            val_split,
            classes: self.chosen_classes().map(|names| {
                ClassSelection::Names(names.iter().map(|name| name.as_str().into()).collect())
            }),
            ..settings(&self.place, self.recursive)?
        };
        let stage =
            StageId::new("data").ok_or_else(|| CliError::failed("no stage is called data"))?;
        let stop = Stop::default();
        let report = report::reporter(output, false);
        let watching = Watching::new(&stage, &*report, &stop);
        let limited = Limited { inner: &watching, end: Instant::now() + LONGEST_LOOK };
        let dataset = Dataset::open(&settings, &ProjectRoot::from(project), &watching);
        let looked = dataset.and_then(|dataset| {
            let (bad, is_complete) = match dataset.bad_images(&limited) {
                Ok(bad) => (bad, true),
                Err(DataError::Stopped) => (Vec::new(), false),
                Err(error) => return Err(error),
            };
            let counts = dataset.counts();
            let sum = |of: fn(&pipe_train::data::ClassCount) -> usize| counts.iter().map(of).sum();
            Ok(Opened {
                train: sum(|c| c.train),
                validation: sum(|c| c.validation),
                bad,
                is_complete,
            })
        });
        report.finish();
        looked.map_err(CliError::usage)
    }
}

fn settings(place: &Path, recursive: bool) -> Result<DatasetSettings, CliError> {
    let source = "image_folder".parse().map_err(CliError::failed)?;
    let root = place.to_owned();
    Ok(DatasetSettings { source, root, recursive, ..DatasetSettings::default() })
}

/// The folder that holds the classes: inside a folder around everything, and the training part
/// where parts are apart.
fn descend(mut place: PathBuf, root: &ProjectRoot) -> Result<PathBuf, CliError> {
    loop {
        let found = survey(&settings(&place, false)?, root, 0).map_err(CliError::usage)?;
        let names: Vec<&str> = found.classes.iter().map(|class| class.name.as_str()).collect();
        let is_part = |name: &&str| PARTS.contains(&name.to_lowercase().as_str());
        let training = names.iter().find(|name| name.to_lowercase().starts_with("train"));
        let inner = match (&names[..], training) {
            (all, Some(training)) if all.iter().all(is_part) => training,
            ([only], _) if found.classes[0].images == 0 => only,
            _ => return Ok(place),
        };
        let inner = place.join(inner);
        // What is a class by `dataset.json` is no folder.
        if !inner.is_dir() {
            return Ok(place);
        }
        place = inner;
    }
}

/// What is there, with the folders below the classes' where those hold pictures.
fn look(place: &Path, root: &ProjectRoot) -> Result<(bool, FolderSurvey), CliError> {
    let of =
        |recursive| survey(&settings(place, recursive)?, root, HEADERS).map_err(CliError::usage);
    let count =
        |found: &FolderSurvey| found.classes.iter().map(|class| class.images).sum::<usize>();
    let plain = of(false)?;
    if !plain.skipped.iter().any(|(kind, _)| *kind == SkipReason::DeeperFolder) {
        return Ok((false, plain));
    }
    let deep = of(true)?;
    Ok(if count(&deep) > count(&plain) { (true, deep) } else { (false, plain) })
}

/// Ends the work after a while.
struct Limited<'a> {
    inner: &'a Watching<'a>,
    end: Instant,
}

impl Progress for Limited<'_> {
    fn decoded(&self, done: usize, total: usize) {
        self.inner.decoded(done, total);
    }

    fn stopped(&self) -> bool {
        Instant::now() > self.end
    }
}
