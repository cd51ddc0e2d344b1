//! Runs as one names them: by number, or with the stage or the folder in front of it where several
//! folders have that number.

use std::convert::Infallible;
use std::path::Path;
use std::str::FromStr;

use pipe_runs::{Metadata, Run, Runs};

use crate::cli::{CliError, project};

/// `3`, `base/3`, `FOLDER/3`, or the path of a run's folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name {
    text: String,
    /// What stands before the number.
    place: Option<String>,
    /// Unset if it is none.
    number: Option<u32>,
}

impl FromStr for Name {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        let trimmed = text.trim_end_matches('/');
        let (place, last) = match trimmed.rsplit_once('/') {
            Some((place, last)) => (Some(place.to_owned()), last),
            None => (None, trimmed),
        };
        let number = last.strip_prefix("run_").unwrap_or(last).parse().ok();
        Ok(Self { text: text.to_owned(), place, number })
    }
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

impl Name {
    /// The run that a word names, where it names no file.
    pub fn of_word(word: &Path) -> Option<Self> {
        let Ok(name) = word.to_str()?.parse::<Self>();
        (!word.exists() && name.number.is_some()).then_some(name)
    }
}

/// A run with the names that its metadata gives it.
struct Known {
    run: Run,
    pipeline: String,
    stage: String,
}

impl Known {
    fn new(run: Run, metadata: Option<&Metadata>) -> Self {
        let of = metadata.map(|m| (m.pipeline.clone(), m.stage.clone()));
        let (pipeline, stage) = of.unwrap_or_default();
        Self { run, pipeline, stage }
    }

    fn is_named_by(&self, name: &Name) -> bool {
        let Some(place) = &name.place else { return name.number == Some(self.run.number.0) };
        let folder = self.run.folder.parent().unwrap_or(Path::new(""));
        let is_folder = || {
            folder.ends_with(place) || {
                let typed = project::path(Path::new(place)).canonicalize();
                typed.is_ok_and(|typed| folder.canonicalize().is_ok_and(|folder| folder == typed))
            }
        };
        name.number == Some(self.run.number.0)
            && (*place == self.stage
                || *place == format!("{}/{}", self.pipeline, self.stage)
                || is_folder())
    }
}

/// The run that is meant.
///
/// # Errors
/// There is none, or there are several: then all their names are told, each of which means one run.
pub fn one(folders: &[Runs], name: &Name) -> Result<Run, CliError> {
    let known = known(folders);
    let matching: Vec<&Known> = known.iter().filter(|known| known.is_named_by(name)).collect();
    match matching.as_slice() {
        [one] => Ok(one.run.clone()),
        [] => {
            let text = &name.text;
            let message = match (name.number, known.is_empty()) {
                (_, true) => format!("there is no run {text}: there are no runs yet"),
                (None, false) => format!("{text} names no run; `pipe runs` lists them"),
                (Some(_), false) => format!("there is no run {text}; `pipe runs` lists them"),
            };
            let near = known.iter().filter(|k| name.number == Some(k.run.number.0));
            let names: Vec<String> = near.take(SHOWN).map(|k| unique(k, &known)).collect();
            let error = CliError::usage(message);
            Err(if names.is_empty() {
                error
            } else {
                error.note(format!("there is {}", names.join(", ")))
            })
        }
        several => {
            let names: Vec<String> =
                several.iter().take(SHOWN).map(|k| unique(k, &known)).collect();
            let more = several.len().saturating_sub(SHOWN);
            let more = if more > 0 {
                format!(" and {more} more; `pipe runs` lists them")
            } else {
                String::new()
            };
            let message = format!("run {} is there more than once", name.text);
            Err(CliError::usage(message).note(format!("say which: {}{more}", names.join(", "))))
        }
    }
}

/// The most names in a message.
const SHOWN: usize = 10;

/// What to call runs that are shown beside each other: their numbers, or where those are the same
/// the names that tell them apart.
pub fn titles(folders: &[Runs], runs: &[Run]) -> Vec<String> {
    let differ =
        runs.iter().enumerate().all(|(i, run)| runs[..i].iter().all(|o| o.number != run.number));
    let known = if differ { Vec::new() } else { known(folders) };
    let title = |run: &Run| match known.iter().find(|k| k.run.folder == run.folder) {
        Some(found) => unique(found, &known),
        None => format!("run {}", run.number),
    };
    runs.iter().map(title).collect()
}

/// All runs, by the shortest names that mean one run each.
pub fn all(folders: &[Runs]) -> Vec<(String, Run)> {
    let known = known(folders);
    let names = shortest(&known);
    names.into_iter().zip(known.into_iter().map(|known| known.run)).collect()
}

/// The shortest names that mean one run each, of all runs there are and what is known of them.
pub fn names<'a>(all: impl Iterator<Item = (&'a Run, Option<&'a Metadata>)>) -> Vec<String> {
    let known = all.map(|(run, metadata)| Known::new(run.clone(), metadata));
    shortest(&known.collect::<Vec<_>>())
}

fn shortest(known: &[Known]) -> Vec<String> {
    let name = |run: &Known| {
        let number = run.run.number;
        let is_other = |other: &&Known| other.run.number == number;
        match known.iter().filter(is_other).count() {
            1 => number.0.to_string(),
            _ => unique(run, known),
        }
    };
    known.iter().map(name).collect()
}

fn known(folders: &[Runs]) -> Vec<Known> {
    let runs = folders.iter().flat_map(Runs::list);
    runs.map(|run| {
        let metadata = run.metadata().ok();
        Known::new(run, metadata.as_ref())
    })
    .collect()
}

/// The shortest name that means this run alone: with its stage, with the last part of its folder, or
/// else with all of that.
fn unique(one: &Known, all: &[Known]) -> String {
    let number = one.run.number.0;
    let folder = one.run.folder.parent().unwrap_or(Path::new("")).display();
    let last = one.run.folder.parent().and_then(Path::file_name).unwrap_or_default();
    let mut names = vec![format!("{}/{number}", last.to_string_lossy())];
    if !one.stage.is_empty() {
        names.insert(0, format!("{}/{number}", one.stage));
        names.push(format!("{}/{}/{number}", one.pipeline, one.stage));
    }
    let is_unique = |text: &String| {
        let Ok(name) = text.parse::<Name>();
        all.iter().filter(|other| other.is_named_by(&name)).count() == 1
    };
    let fitting = names.into_iter().filter(is_unique).min_by_key(String::len);
    fitting.unwrap_or_else(|| format!("{folder}/{number}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_number_with_what_stands_before_it() {
        let read = |text: &str| {
            let Ok(Name { place, number, .. }) = text.parse::<Name>();
            (place.unwrap_or_default(), number)
        };
        assert_eq!(read("3"), (String::new(), Some(3)));
        assert_eq!(read("run_003"), (String::new(), Some(3)));
        assert_eq!(read("base/3"), ("base".into(), Some(3)));
        assert_eq!(read("checkpoints/a b/run_012/"), ("checkpoints/a b".into(), Some(12)));
        assert_eq!(read("base@learning_rate=0.1/1"), ("base@learning_rate=0.1".into(), Some(1)));
        assert_eq!(read("base"), (String::new(), None));
    }
}
