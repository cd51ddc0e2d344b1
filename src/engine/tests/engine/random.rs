//! Random graphs and random interruptions: running again until done gives what one uninterrupted
//! run gives, and nothing runs twice without cause.

use std::collections::BTreeMap;

use crate::exec::{How, run_with};
use crate::fake::Project;

/// Numbers that depend on a seed alone.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15).max(1))
    }

    /// A number below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        // xorshift64*
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize % end
    }

    fn of<'a>(&mut self, words: &[&'a str]) -> &'a str {
        words[self.below(words.len())]
    }
}

/// A pipeline whose stages fail as listed before they succeed, and the failures of each.
fn pipeline(random: &mut Random) -> (String, Vec<Vec<&'static str>>) {
    let count = 2 + random.below(9);
    let mut text = "name: random\nstages:\n".to_owned();
    let mut failures = Vec::new();
    for i in 0..count {
        let kind = random.of(&["work", "work", "follow", "source", "gather"]);
        // What keeps nothing hands nothing on by content.
        let before: Vec<usize> = (0..i).filter(|_| random.below(3) == 0).collect();
        let with = |kinds: &[&str], text: &str| {
            let is =
                |j: &&usize| kinds.iter().any(|k| text.contains(&format!("  s{j}: {{ kind: {k},")));
            before.iter().find(is).copied()
        };
        let input = match kind {
            "work" => with(&["work", "source", "follow", "gather"], &text),
            "follow" | "gather" => with(&["work", "follow", "gather"], &text),
            _ => None,
        };
        let input = input.map(|j| format!(", dataset: s{j}")).unwrap_or_default();
        let needs: Vec<String> = before.iter().map(|j| format!("s{j}")).collect();
        let fails: Vec<&str> =
            (0..random.below(3)).map(|_| random.of(&["signal", "input", "command"])).collect();
        let fails = if kind == "source" { Vec::new() } else { fails };
        let ends = if fails.is_empty() { "succeed".to_owned() } else { fails.join(" ") };
        let policy = random.of(&["", ", on_failure: continue", ", retry: { max: 1 }"]);
        text += &format!(
            "  s{i}: {{ kind: {kind}, content: c{i}, ends: {ends}, learning_rate: {i}{input}, needs: [{}]{policy} }}\n",
            needs.join(", ")
        );
        failures.push(fails);
    }
    (text, failures)
}

/// What stages left: their files by name, without those that only count attempts.
fn left(project: &Project) -> BTreeMap<String, String> {
    let entries = std::fs::read_dir(project.folder.path()).unwrap().flatten();
    entries
        .filter(|e| e.path().is_file() && e.path().extension().is_none())
        .map(|e| (e.file_name().into_string().unwrap(), std::fs::read_to_string(e.path()).unwrap()))
        .collect()
}

#[test]
fn running_again_until_done_gives_what_one_run_gives() {
    for seed in 1..=150 {
        let mut random = Random::new(seed);
        let (text, failures) = pipeline(&mut random);
        let smooth: String = text.lines().map(|line| without_failures(line) + "\n").collect();
        let straight = Project::new(&smooth);
        let ran = run_with(&straight, How::default());
        assert!(ran.summary.failed.is_empty(), "seed {seed}: {:?}\n{smooth}", ran.summary.failed);

        let project = Project::new(&text);
        let mut starts = 0;
        loop {
            starts += 1;
            assert!(starts < 60, "seed {seed}: no end\n{text}");
            let how = How {
                jobs: 1 + random.below(3),
                keep_going: random.below(2) == 0,
                ..How::default()
            };
            let ran = run_with(&project, how);
            let all = ran.summary.finished.len()
                + ran.summary.skipped.len()
                + ran.summary.failed.len()
                + ran.summary.not_begun.len();
            assert_eq!(all, failures.len(), "seed {seed}: each stage ends in one way\n{text}");
            if ran.summary.failed.is_empty() && ran.summary.not_begun.is_empty() {
                break;
            }
        }
        assert_eq!(left(&project), left(&straight), "seed {seed}\n{text}");
        let again = run_with(&project, How::default());
        assert!(
            again.planned.iter().all(|step| step.ends_with(" skip") || is_source(step, &text)),
            "seed {seed}: {:?}\n{text}",
            again.planned
        );
        for (i, fails) in failures
            .iter()
            .enumerate()
            .filter(|(i, _)| !text.contains(&format!("  s{i}: {{ kind: source")))
        {
            let attempts =
                std::fs::read_to_string(project.folder.path().join(format!("s{i}.attempts")))
                    .unwrap();
            assert_eq!(
                attempts.lines().count(),
                fails.len() + 1,
                "seed {seed}: s{i} ran without cause\n{text}"
            );
        }
    }
}

fn without_failures(line: &str) -> String {
    match (line.find("ends: "), line.find(", learning_rate")) {
        (Some(from), Some(to)) => format!("{}ends: succeed{}", &line[..from], &line[to..]),
        _ => line.to_owned(),
    }
}

/// What keeps nothing runs when it is asked for.
fn is_source(step: &str, text: &str) -> bool {
    let id = step.split_whitespace().next().unwrap_or_default();
    text.contains(&format!("  {id}: {{ kind: source"))
}
