//! Patterns that may reach into the folders that other stages write. Whether an output is a folder
//! is not known before it is there.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};

use pipe_core::ids::StageId;

use crate::graph::LoadedStage;

/// A pattern, part by part.
struct Reach {
    /// The folders in front that stand for one name each.
    plain: PathBuf,
    parts: Vec<glob::Pattern>,
}

impl Reach {
    /// `None` for a path that means one file or folder.
    fn of(pattern: &str) -> Option<Self> {
        let part_of = |part: std::path::Component| part.as_os_str().to_string_lossy().into_owned();
        let parts: Vec<String> = Path::new(pattern).components().map(part_of).collect();
        let is_plain = |part: &&String| !part.contains(['*', '?', '[']);
        let plain: PathBuf = parts.iter().take_while(is_plain).collect();
        let parts: Vec<_> =
            parts.iter().map(|part| glob::Pattern::new(part)).collect::<Result<_, _>>().ok()?;
        (plain.components().count() < parts.len()).then_some(Self { plain, parts })
    }

    /// Whether it may mean files inside `output`, if that is a folder.
    fn is_into(&self, output: &Path) -> bool {
        let mut parts = self.parts.iter();
        for name in output.components().map(|part| part.as_os_str().to_string_lossy()) {
            match parts.next() {
                // What has an ending is taken for a file.
                Some(part) if part.as_str() == "**" => return output.extension().is_none(),
                Some(part) if part.matches(&name) => {}
                _ => return false,
            }
        }
        parts.next().is_some()
    }
}

/// Has stages wait for those into whose folders their patterns may reach, unless those wait for
/// them.
pub(super) fn connect(stages: &mut [LoadedStage], makers: &BTreeMap<PathBuf, StageId>) {
    let places: HashMap<StageId, usize> =
        stages.iter().enumerate().map(|(i, s)| (s.id.clone(), i)).collect();
    for place in 0..stages.len() {
        let reads = stages[place].files.reads.iter();
        let patterns: Vec<(String, Reach)> =
            reads.filter_map(|(key, path)| Some((key.clone(), Reach::of(path)?))).collect();
        for (key, reach) in patterns {
            let near = makers.range(reach.plain.clone()..);
            let near = near.take_while(|(output, _)| output.starts_with(&reach.plain));
            for (_, maker) in near.filter(|(output, _)| reach.is_into(output)) {
                let known = stages[place].needs.iter().any(|(_, id)| id == maker);
                let Some(&before) = places.get(maker).filter(|before| !known && **before != place)
                else {
                    continue;
                };
                if !waits_for(stages, &places, before, place) {
                    stages[place].needs.push((vec![key.clone()], maker.clone()));
                }
            }
        }
    }
}

/// Whether the stage at `from` needs the one at `to`, however far before it.
fn waits_for(
    stages: &[LoadedStage],
    places: &HashMap<StageId, usize>,
    from: usize,
    to: usize,
) -> bool {
    let (mut to_see, mut seen) = (vec![from], HashSet::new());
    while let Some(place) = to_see.pop() {
        if place == to {
            return true;
        }
        if seen.insert(place) {
            to_see.extend(stages[place].needs.iter().filter_map(|(_, id)| places.get(id)));
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_may_reach_into_a_folder_that_its_beginning_means() {
        let reaches = |pattern: &str, output: &str| {
            let reach = Reach::of(pattern).unwrap();
            Path::new(output).starts_with(&reach.plain) && reach.is_into(Path::new(output))
        };
        assert!(reaches("*/x.csv", "out") && reaches("data/r*/*.csv", "data/raw"));
        assert!(reaches("data/**/*.csv", "data/raw") && reaches("**/*.csv", "out/deep"));
        assert!(
            !reaches("*.csv", "out") && !reaches("data/*.csv", "data/raw"),
            "nothing lies so deep"
        );
        assert!(!reaches("data/**/*.csv", "other") && !reaches("**/*.csv", "table.html"));
        assert!(!reaches("data/a*/*.csv", "data/raw"));
    }
}
