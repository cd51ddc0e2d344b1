//! Hooks: who is told what and when, and that nothing that becomes of them changes a stage.

mod beside;
mod settings;

use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use pipe_core::stop::Stop;
use pipe_engine::exec::{LocalExecutor, Summary};
use pipe_engine::hooks::HookClient;
use pipe_engine::session::Session;
use serde_json::{Value, json};

use crate::fake::{FakeFiles, Heard, Project, kinds};

struct Ran {
    summary: Summary,
    heard: Vec<String>,
    posted: Vec<(String, Value)>,
    took: Duration,
}

impl Ran {
    /// What was warned of.
    fn warnings(&self) -> Vec<&String> {
        self.heard.iter().filter(|line| line.contains("Warning")).collect()
    }

    #[track_caller]
    fn warned(&self, pieces: &[&str]) {
        let all = self.warnings();
        let is_it = |line: &&&String| pieces.iter().all(|piece| line.contains(piece));
        assert!(all.iter().any(|line| is_it(&line)), "no {pieces:?} in {all:#?}");
    }
}

/// Remembers what is sent to it, and refuses what an address with `bad` gets.
#[derive(Default)]
struct Client(Mutex<Vec<(String, Value)>>);

impl HookClient for Client {
    fn post(&self, url: &str, body: &str, _: Duration) -> Result<(), String> {
        self.0.lock().unwrap().push((url.to_owned(), serde_json::from_str(body).unwrap()));
        if url.contains("panic") {
            panic!("scripted");
        }
        if url.contains("bad") { Err("it answered 500".into()) } else { Ok(()) }
    }
}

fn run_jobs(project: &Project, jobs: usize) -> Ran {
    let root = project.root.clone();
    let session = Session::load(root, Path::new("p.yaml"), &kinds(), &project.sets);
    let session = session.unwrap_or_else(|e| panic!("{e}")).formats(&FakeFiles);
    let (stop, heard, client) = (Stop::default(), Heard::default(), Client::default());
    let mut execution = session.execution(&stop, &heard);
    execution.hook_client = Some(&client);
    execution.jobs = jobs;
    let (plan, inspected) = session.plan(&execution).unwrap();
    let started = Instant::now();
    let summary = session.run(&LocalExecutor, &execution, &plan, inspected).unwrap();
    let took = started.elapsed();
    let (heard, posted) = (heard.0.into_inner().unwrap(), client.0.into_inner().unwrap());
    Ran { summary, heard, posted, took }
}

fn run(project: &Project) -> Ran {
    run_jobs(project, 1)
}

/// A pipeline of one stage with these keys.
fn single(keys: &str) -> Project {
    Project::new(&format!("name: chain\nstages:\n  base:\n    kind: work\n{}", indented(keys, 4)))
}

fn indented(text: &str, by: usize) -> String {
    text.lines().map(|line| format!("{}{line}\n", " ".repeat(by))).collect()
}

/// The lines of a file, nothing if it is not there.
fn lines(project: &Project, file: &str) -> Vec<String> {
    let text = std::fs::read_to_string(project.folder.path().join(file)).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

fn told(project: &Project) -> Vec<Value> {
    lines(project, "told").iter().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Writes what it is told into a line of `told`.
const TELL: &str = "(cat; echo) >> told";

#[test]
fn a_training_tells_its_hooks_in_order() {
    let project = single(&format!(
        "ends: train\nepochs: 3\non:\n  new_best: {TELL}\n  epoch_end: [sh, -c, '{TELL}']\n  end: {{run: '{TELL}', timeout: 20s}}\n  failure: touch failed"
    ));
    let ran = run(&project);
    assert_eq!(ran.warnings(), [""; 0]);
    let told = told(&project);
    let epochs = told.iter().filter(|t| t["event"] == "epoch_end").map(|t| t["epoch"].clone());
    assert_eq!(epochs.collect::<Vec<_>>(), [json!(1), json!(2), json!(3)]);
    let best = told.iter().rfind(|t| t["event"] == "new_best").unwrap();
    assert_eq!(best["epoch"], 3, "the newest is always told");
    assert_eq!(best["checkpoint"], "runs/run_007/saved/epoch_003.ckpt");
    assert_eq!((&best["monitor"], &best["value"]), (&json!("loss"), &json!(1.0 / 3.0)));
    assert_eq!(best["metrics"], json!({"loss": 1.0 / 3.0}));
    let end = told.last().unwrap();
    for (key, value) in [
        ("event", json!("end")),
        ("pipeline", json!("chain")),
        ("stage", json!("base")),
        ("outcome", json!("completed")),
        ("run", json!(7)),
        ("run_folder", json!("runs/run_007")),
        ("epoch", json!(3)),
    ] {
        assert_eq!(end[key], value, "{key} of {end}");
    }
    assert!(end["time"].as_str().unwrap().contains('T'));
    assert!(!project.folder.path().join("failed").exists());
}

#[test]
fn what_is_told_stands_in_variables_whatever_is_in_it() {
    let project = Project::new(
        "name: it's
stages:
  base:
    kind: command
    run: ['printf', \"'a' \\\"b\\\" $HOME `id`\\nend\"]
    outputs: [never]
    on:
      failure:
      - run: 'printf %s \"$PIPE_EVENT_MESSAGE\" > message; env | grep ^PIPE_ | sort > variables'
      - run: 'cat > json'
",
    )
    .file("message", "");
    let ran = run(&project);
    assert_eq!(ran.warnings(), [""; 0]);
    let (_, error) = &ran.summary.failed[0];
    let read = |file: &str| std::fs::read_to_string(project.folder.path().join(file)).unwrap();
    assert_eq!(read("message"), error.message);
    let json: Value = serde_json::from_str(&read("json")).unwrap();
    assert_eq!(json["message"], error.message);
    let variables = lines(&project, "variables");
    for line in [
        "PIPE_EVENT=failure",
        "PIPE_STAGE=base",
        "PIPE_EVENT_PIPELINE=it's",
        "PIPE_EVENT_FAILURE=command",
        "PIPE_EVENT_OUTCOME=failed",
    ] {
        assert!(variables.iter().any(|found| found == line), "no {line} in {variables:?}");
    }
}

#[test]
fn a_failure_is_told_once_when_it_is_for_good() {
    let hooks = "on: {failure: 'echo $PIPE_EVENT_FAILURE >> failed', end: 'echo $PIPE_EVENT_OUTCOME >> ended'}";
    let project = single(&format!("ends: command command\nretry: {{max: 1}}\n{hooks}"));
    run(&project);
    assert_eq!(lines(&project, "failed"), ["command"]);
    assert_eq!(lines(&project, "ended"), ["failed"]);
    let project = single(&format!("ends: command\nretry: {{max: 1}}\n{hooks}"));
    run(&project);
    assert_eq!(lines(&project, "failed"), [""; 0], "the second attempt went well");
    assert_eq!(lines(&project, "ended"), ["completed"]);
    let project = single(&format!("ends: panic\n{hooks}"));
    run(&project);
    assert_eq!(lines(&project, "failed"), ["bug"]);
}

#[test]
fn a_stop_is_told_too() {
    let project = single(
        "ends: interrupt\non: {failure: 'echo $PIPE_EVENT_FAILURE >> f', end: 'sleep 0.3; echo $PIPE_EVENT_OUTCOME >> e'}",
    );
    assert_eq!(run(&project).summary.failed.len(), 1);
    assert_eq!(
        (lines(&project, "f"), lines(&project, "e")),
        (vec!["interrupted".to_owned()], vec!["interrupted".to_owned()])
    );
}

#[test]
fn hooks_are_no_part_of_the_identity_and_what_is_up_to_date_tells_nothing() {
    let project = single("epochs: 2");
    run(&project);
    let hooks = "on: {end: 'touch own'}";
    let file = format!(
        "name: chain\non: {{end: 'touch all', failure: 'touch all'}}\nstages:\n  base: {{ kind: work, epochs: 2, {hooks} }}\n"
    );
    let project = project.file("p.yaml", &file);
    let ran = run(&project);
    assert_eq!(ran.summary.skipped.len(), 1, "{:?}", ran.summary);
    let found = ["own", "all"].map(|file| project.folder.path().join(file).exists());
    assert_eq!(found, [false, false]);
}

#[test]
fn the_pipeline_hears_of_every_stage_and_of_its_own_end_once() {
    let file = format!(
        "name: chain
on:
  epoch_end: '{TELL}'
  failure: ['https://user:pw@host/bad', '{TELL}']
  end: https://host/end
stages:
  one: {{ kind: work, ends: train, epochs: 2, on: {{ end: [echo, own], epoch_end: 'echo own >> own' }} }}
  two: {{ kind: work, ends: fail, on_failure: continue, matrix: {{ learning_rate: [1, 2] }} }}
  three: {{ kind: work, dataset: two }}
"
    )
    .replace("['https", "[{url: 'https")
    .replace("bad', '", "bad'}, '")
    .replace("dataset: two", "dataset: one");
    let ran = run_jobs(&Project::new(&file), 4);
    let of = |url: &str| -> Vec<&Value> {
        ran.posted.iter().filter(|(to, _)| to.ends_with(url)).map(|(_, body)| body).collect()
    };
    assert_eq!(of("/bad").len(), 2, "{:?}", ran.posted);
    assert!(of("/bad").iter().all(|body| body["event"] == "failure"));
    let [end] = of("/end")[..] else { panic!("{:?}", ran.posted) };
    for (key, value) in [
        ("event", json!("end")),
        ("outcome", json!("failed")),
        ("finished", json!(2)),
        ("failed", json!(2)),
        ("not_begun", json!(0)),
    ] {
        assert_eq!(end[key], value, "{key} of {end}");
    }
    assert!(end.get("stage").is_none());
    assert_eq!(end["failures"][0]["failure"], "input");
    assert!(end["message"].as_str().unwrap().contains("scripted failure"), "{end}");
    ran.warned(&["on.failure", "stage two@learning_rate=1", "https://host`", "it answered 500"]);
    assert!(!ran.warnings().iter().any(|line| line.contains("pw")), "{:?}", ran.warnings());
}
