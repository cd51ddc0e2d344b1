//! What the pages tell people to type is typed here, page by page, in a folder with the shipped
//! pipelines and configs. In front of a block a page may say, in a comment that readers do not see:
//!
//!     <!-- file: NAME -->     the block is the content of this file
//!     <!-- first: COMMAND --> to be done before
//!     <!-- in: FOLDER -->     the reader is in this folder of the project
//!     <!-- not run: WHY -->   it needs something that a test does not have

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::project::{Project, root};

/// So small that each page takes seconds. Settings on a command line are stronger.
/// The architecture is one whose keys they are.
const SMALL: [(&str, &str); 16] = [
    ("PIPE_EPOCHS", "2"),
    ("PIPE_BASE_EPOCHS", "2"),
    ("PIPE_LORA_EPOCHS", "2"),
    ("PIPE_NUM_IMAGES", "48"),
    ("PIPE_BATCH_SIZE", "16"),
    ("PIPE_MODEL__ARCH", "diffit"),
    ("PIPE_MODEL__PRESET", "diffit_tiny"),
    ("PIPE_MODEL__DIM", "16"),
    ("PIPE_MODEL__MULTS", "[1, 2]"),
    ("PIPE_MODEL__DEPTHS", "[1, 1]"),
    ("PIPE_MODEL__HEADS", "2"),
    ("PIPE_MODEL__WINDOW", "2"),
    ("PIPE_SCHEDULE__WARMUP_STEPS", "2"),
    ("PIPE_STEPS", "2"),
    ("PIPE_N", "12"),
    ("PIPE_DEVICE", "cpu"),
];

/// A fenced block with what stands in front of it.
#[derive(Debug)]
struct Block {
    language: String,
    text: String,
    file: Option<String>,
    first: Vec<String>,
    folder: Option<String>,
    not_run: Option<String>,
    line: usize,
}

fn blocks(page: &str) -> Vec<Block> {
    let mut found = Vec::new();
    let (mut file, mut first, mut folder, mut not_run) = (None, Vec::new(), None, None);
    let mut lines = page.lines().enumerate();
    while let Some((at, line)) = lines.next() {
        let comment = line.strip_prefix("<!-- ").and_then(|l| l.strip_suffix(" -->"));
        if let Some((key, value)) = comment.and_then(|c| c.split_once(": ")) {
            match key {
                "file" => file = Some(value.to_owned()),
                "first" => first.push(value.to_owned()),
                "in" => folder = Some(value.to_owned()),
                "not run" => not_run = Some(value.to_owned()),
                other => panic!("line {}: {other} means nothing here", at + 1),
            }
        } else if let Some(language) = line.strip_prefix("```") {
            let inside = lines.by_ref().map(|(_, l)| l).take_while(|l| !l.starts_with("```"));
            let text = inside.flat_map(|l| [l, "\n"]).collect();
            let (file, first) = (file.take(), std::mem::take(&mut first));
            let (folder, not_run) = (folder.take(), not_run.take());
            found.push(Block {
                language: language.to_owned(),
                text,
                file,
                first,
                folder,
                not_run,
                line: at + 1,
            });
        }
    }
    found
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        if entry.path().is_dir() {
            copy(&entry.path(), &to.join(entry.file_name()))
        } else {
            std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

struct Reader {
    project: Project,
    page: String,
    ran: usize,
}

impl Reader {
    fn of(page: &str) -> Self {
        let mut project = Project::new();
        for (key, value) in SMALL {
            project = project.environment(key, value);
        }
        for folder in ["pipelines", "configs"] {
            copy(&root().join(folder), &project.path(folder));
        }
        std::fs::remove_file(project.path("p.yaml")).unwrap();
        Self { project, page: page.to_owned(), ran: 0 }
    }

    fn run(&mut self, line: usize, program: &str, arguments: &[&str]) {
        let program_folder = Path::new(env!("CARGO_BIN_EXE_pipe")).parent().unwrap();
        let mut folders = vec![program_folder.to_owned()];
        folders.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap()));
        // The project's way to start a program takes the tester's own settings out of the
        // environment.
        let pipe = self.project.command(&[]);
        let mut command = Command::new(program);
        command
            .args(arguments)
            .current_dir(self.project.path(""))
            .env("PATH", std::env::join_paths(folders).unwrap())
            .env("PYTHONPATH", root().join("python"));
        for (key, value) in pipe.get_envs() {
            match value {
                Some(value) => drop(command.env(key, value)),
                None => drop(command.env_remove(key)),
            }
        }
        let output = command.output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned()
            + &String::from_utf8_lossy(&output.stderr);
        let page = &self.page;
        assert!(
            output.status.success(),
            "{page}:{line}: {program} {arguments:?}: {}\n{text}",
            output.status
        );
        self.ran += 1;
    }

    fn read(&mut self, block: &Block) {
        let Block { language, text, file, first, folder, not_run, line } = block;
        for command in first {
            self.run(*line, "bash", &["-ec", command]);
        }
        if let Some(file) = file {
            self.project.write(file, text);
        }
        if not_run.is_some() {
            return;
        }
        match language.as_str() {
            "sh" => {
                let folder = folder.as_deref().unwrap_or(".");
                self.run(*line, "bash", &["-ec", &format!("cd {folder}\n{text}")]);
            }
            "python" => match std::env::var("PIPE_TEST_PYTHON") {
                Ok(python) => self.run(*line, &python, &["-c", text]),
                Err(_) => eprintln!("{}:{line}: skipped: PIPE_TEST_PYTHON is not set", self.page),
            },
            // What pipelines include is no pipeline.
            "yaml" if file.as_ref().is_some_and(|file| file.starts_with("parts/")) => {}
            "yaml" if text.contains("\nstages:") || text.starts_with("stages:") => {
                let named = if text.contains("name:") {
                    text.clone()
                } else {
                    format!("name: page\n{text}")
                };
                self.project.write("block.yaml", named);
                self.run(*line, "pipe", &["check", "block.yaml"]);
            }
            "text" | "yaml" | "json" => {}
            other => panic!("{}:{line}: a block of {other:?}", self.page),
        }
    }
}

#[track_caller]
fn read_page(page: &str) {
    let text = std::fs::read_to_string(root().join(page)).unwrap();
    let mut reader = Reader::of(page);
    for block in blocks(&text) {
        reader.read(&block);
    }
}

/// Every page, so that they are read side by side.
macro_rules! pages {
    ($($name:ident: $page:literal,)*) => {
        const PAGES: &[&str] = &[$($page),*];
        $(#[test] fn $name() { read_page($page); })*
    };
}

pages! {
    readme: "README.md",
    checkpoints: "docs/checkpoints.md",
    comparison: "docs/comparison.md",
    configs: "docs/configs.md",
    data: "docs/data.md",
    devices: "docs/devices.md",
    first_pictures: "docs/first_pictures.md",
    gpus: "docs/gpus.md",
    graph: "docs/graph.md",
    history: "docs/history.md",
    hooks: "docs/hooks.md",
    images: "docs/images.md",
    kubernetes: "docs/kubernetes.md",
    lightning: "docs/lightning.md",
    lora: "docs/lora.md",
    performance: "docs/performance.md",
    pipeline: "docs/pipeline.md",
    python: "docs/python.md",
    pytorch: "docs/pytorch.md",
    quality: "docs/quality.md",
    recipes: "docs/recipes.md",
    report: "docs/report.md",
    reuse: "docs/reuse.md",
    reproduce: "docs/reproduce.md",
    sampling: "docs/sampling.md",
    scale: "docs/scale.md",
    slurm: "docs/slurm.md",
    storage: "docs/storage.md",
    sweeps: "docs/sweeps.md",
    trainers: "docs/trainers.md",
    tutorial: "docs/tutorial.md",
    testing: "docs/dev/testing.md",
}

fn all_pages() -> Vec<PathBuf> {
    let docs = ["", "docs", "docs/dev", "docs/reference"]
        .map(|folder| std::fs::read_dir(root().join(folder)).unwrap());
    let docs = docs.into_iter().flatten().map(|entry| entry.unwrap().path());
    let mut pages: Vec<PathBuf> =
        docs.filter(|p| p.extension().is_some_and(|e| e == "md")).collect();
    pages.sort();
    pages
}

#[test]
fn every_page_with_commands_is_read() {
    let read: BTreeSet<PathBuf> = PAGES.iter().map(|page| root().join(page)).collect();
    for page in all_pages().into_iter().filter(|page| !read.contains(page)) {
        let text = std::fs::read_to_string(&page).unwrap();
        assert!(
            !blocks(&text).iter().any(|b| b.language == "sh"),
            "{} is not read",
            page.display()
        );
    }
}

#[test]
fn few_blocks_are_left_out_and_each_has_a_reason() {
    let (mut run, mut not_run, mut reasons) = (0, 0, Vec::new());
    for page in all_pages() {
        let text = std::fs::read_to_string(&page).unwrap();
        for block in blocks(&text).into_iter().filter(|b| b.language == "sh") {
            let commands = block.text.lines().filter(|line| !line.trim().is_empty()).count();
            match block.not_run {
                Some(why) => {
                    assert!(
                        why.len() > 10,
                        "{}:{}: {why:?} is no reason",
                        page.display(),
                        block.line
                    );
                    not_run += commands;
                    reasons.push(why);
                }
                None => run += commands,
            }
        }
    }
    assert!(run > 2 * not_run, "{run} commands are run, {not_run} are not: {reasons:#?}");
}

/// What a heading is called in a link, as GitHub and mdBook do: lower case, `-` for spaces, and
/// nothing but letters, digits, `-` and `_`.
fn anchor(heading: &str) -> String {
    let kept = heading.trim().chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    kept.collect::<String>().to_lowercase().replace(' ', "-")
}

/// The anchors of a page's headings. Comments of a shell inside blocks are none.
fn anchors(page: &Path) -> BTreeSet<String> {
    let text = std::fs::read_to_string(page).unwrap();
    let (mut found, mut inside) = (BTreeSet::new(), false);
    for line in text.lines() {
        inside ^= line.starts_with("```");
        let heading = line.trim_start_matches('#');
        if !inside && heading.len() < line.len() && heading.starts_with(' ') {
            found.insert(anchor(heading));
        }
    }
    found
}

/// Where the links of a page lead inside the project: path and anchor, one of them may be empty.
fn links(text: &str) -> impl Iterator<Item = (&str, &str)> {
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    let inside = targets.filter(|link| !link.contains("://") && !link.contains(' '));
    inside.map(|link| link.split_once('#').unwrap_or((link, "")))
}

#[test]
fn every_link_inside_the_project_leads_somewhere() {
    let mut with_anchors = 0;
    for page in all_pages() {
        let text = std::fs::read_to_string(&page).unwrap();
        for (path, heading) in links(&text) {
            let target =
                if path.is_empty() { page.clone() } else { page.parent().unwrap().join(path) };
            let here = page.display();
            assert!(target.exists(), "{here}: {path} leads nowhere");
            if !heading.is_empty() {
                assert!(anchors(&target).contains(heading), "{here}: {path} has no #{heading}");
                with_anchors += 1;
            }
        }
    }
    assert!(with_anchors > 50, "{with_anchors}");
}

#[test]
fn every_page_stands_once_in_the_table_of_contents() {
    let docs = root().join("docs");
    let summary = std::fs::read_to_string(docs.join("SUMMARY.md")).unwrap();
    let mut listed: Vec<PathBuf> = links(&summary).map(|(path, _)| docs.join(path)).collect();
    listed.sort();
    let is_page = |page: &PathBuf| page.starts_with(&docs) && !page.ends_with("SUMMARY.md");
    let pages: Vec<PathBuf> = all_pages().into_iter().filter(is_page).collect();
    assert_eq!(listed, pages);
}
