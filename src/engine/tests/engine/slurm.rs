//! Stages as jobs, on a scripted cluster: what is submitted, what waits for what, what becomes of
//! it. The real one is in `tests/pipe/slurm.rs`.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Mutex;
use std::time::Duration;

use pipe_core::Status;
use pipe_core::shell::CommandLine;
use pipe_core::stop::{Signal, Stop};
use pipe_engine::exec::slurm::{
    Cluster, Invocation, JobMonitor, JobState, SlurmError, Submission, follow, submit,
};
use pipe_engine::exec::{Execution, InspectedStage, Summary, inspect};
use pipe_engine::graph::Targets;
use pipe_engine::identity;
use pipe_engine::kind::{Failure, StageId};
use pipe_engine::plan::{Plan, plan};
use pipe_engine::state::{Attempt, JobId, Jobs, Record};

use crate::fake::{Heard, Project};

const CHAIN: &str = "\
name: chain
executor: { kind: slurm, partition: work, time: 1h }
stages:
  data: { kind: source }
  base: { kind: work, dataset: data, slurm: { cpus: 4, time: 2h } }
  next: { kind: work, dataset: base }
  other: { kind: work, learning_rate: 2 }
";

/// Jobs get the numbers 1, 2, …; each look at them is the next one of a list, and the last one
/// stays.
#[derive(Default)]
struct Scripted {
    submitted: Mutex<Vec<Vec<String>>>,
    cancelled: Mutex<Vec<String>>,
    looks: Mutex<VecDeque<Vec<(u32, &'static str)>>>,
    comments: Mutex<Vec<(u32, String)>>,
    /// The job that is refused.
    refused: Option<usize>,
}

fn id_of(number: u32) -> JobId {
    number.to_string().parse().unwrap()
}

impl Scripted {
    fn looks(looks: &[&[(u32, &'static str)]]) -> Self {
        let looks = looks.iter().map(|look| look.to_vec()).collect();
        Self { looks: Mutex::new(looks), ..Self::default() }
    }

    /// The value of an argument of a job.
    fn argument(&self, job: usize, key: &str) -> Option<String> {
        let all = self.submitted.lock().unwrap();
        all[job - 1]
            .iter()
            .find_map(|text| Some(text.strip_prefix(key)?.strip_prefix('=')?.to_owned()))
    }
}

impl Cluster for Scripted {
    fn submit(&self, arguments: &[String], script: &str) -> Result<JobId, SlurmError> {
        let mut all = self.submitted.lock().unwrap();
        assert!(script.starts_with("#!/bin/sh\n") && script.contains("'--only'"), "{script}");
        if self.refused == Some(all.len() + 1) {
            return Err(SlurmError::Refused {
                program: "sbatch",
                message: "no such partition".into(),
            });
        }
        all.push(arguments.to_vec());
        Ok(id_of(all.len() as u32))
    }

    fn states(&self, jobs: &BTreeSet<JobId>) -> Result<BTreeMap<JobId, JobState>, SlurmError> {
        let mut looks = self.looks.lock().unwrap();
        let look = if looks.len() > 1 { looks.pop_front() } else { looks.front().cloned() };
        let state = |word: &str| {
            let (word, reason) = word.split_once(' ').unwrap_or((word, ""));
            JobState { word: word.into(), reason: reason.into(), node: String::new() }
        };
        let look =
            look.unwrap_or_default().into_iter().map(|(job, word)| (id_of(job), state(word)));
        Ok(look.filter(|(job, _)| jobs.contains(job)).collect())
    }

    fn own(&self) -> Result<Vec<(JobId, String)>, SlurmError> {
        Ok(self
            .comments
            .lock()
            .unwrap()
            .iter()
            .map(|(job, comment)| (id_of(*job), comment.clone()))
            .collect())
    }

    fn cancel(&self, jobs: &BTreeSet<JobId>) -> Result<(), SlurmError> {
        self.cancelled.lock().unwrap().extend(jobs.iter().map(JobId::to_string));
        Ok(())
    }
}

/// Plans, and hands the execution to `act`.
fn with<T>(
    project: &Project,
    stop: &Stop,
    heard: &Heard,
    act: impl FnOnce(&Execution, &Plan, &HashMap<StageId, InspectedStage>) -> T,
) -> T {
    let graph = project.load().unwrap_or_else(|e| panic!("{e}"));
    let manifests = identity::manifests(&graph);
    let execution = Execution::new(&project.root, &graph, &manifests, stop, heard);
    let selection = graph.select(&Targets::default()).unwrap();
    let observed = inspect(&execution, &selection.stages).unwrap();
    let plan = plan(&graph, &selection, &BTreeSet::new(), &observed);
    act(&execution, &plan, &observed)
}

fn call(settings: &[&str]) -> Invocation {
    let settings = settings.iter().map(|s| (*s).to_owned()).collect();
    let cancel = CommandLine::new(["pipe", "cancel", "p.yaml"]);
    Invocation { program: "/opt/pipe".into(), file: "p.yaml".into(), settings, cancel }
}

/// `stage job new` of each.
fn shown(all: &[Submission]) -> Vec<String> {
    all.iter()
        .map(|s| format!("{} {}{}", s.stage.id, s.job.id, if s.new { " new" } else { "" }))
        .collect()
}

fn submitted(project: &Project, cluster: &Scripted) -> Result<Vec<String>, String> {
    let (stop, heard) = (Stop::default(), Heard::default());
    with(project, &stop, &heard, |execution, plan, observed| {
        submit(cluster, execution, plan, observed, &call(&[]))
            .map(|all| shown(&all))
            .map_err(|e| e.to_string())
    })
}

/// Submits and follows to the end.
fn followed(project: &Project, cluster: &Scripted) -> (Summary, Vec<String>) {
    let (stop, heard) = (Stop::default(), Heard::default());
    let summary = with(project, &stop, &heard, |execution, plan, observed| {
        let all = submit(cluster, execution, plan, observed, &call(&[])).unwrap();
        follow(&JobMonitor { cluster, execution, poll: Duration::from_secs(1) }, all).unwrap()
    });
    (summary, heard.0.into_inner().unwrap())
}

/// As a job leaves it.
fn record(project: &Project, stage: &str, job: u32, status: Status, message: &str) {
    let id = StageId::new(stage).unwrap();
    let mut record = Record::begun("chain", &id, "work", "run".into(), String::new(), None);
    (record.status, record.message, record.job) =
        (status, Some(message.to_owned()), Some(id_of(job)));
    if status == Status::Failed {
        let (ended_at, failure) = (record.started_at, Failure::Input);
        record.attempts.push(Attempt { ended_at, failure, message: message.into(), change: None });
    }
    record.save(&project.root, &id).unwrap();
}

#[test]
fn each_stage_that_runs_is_a_job_that_waits_for_those_before_it() {
    let project = Project::new(CHAIN);
    let cluster = Scripted::default();
    assert_eq!(
        submitted(&project, &cluster).unwrap(),
        ["data 1 new", "base 2 new", "next 3 new", "other 4 new"]
    );
    let dependencies = [1, 2, 3, 4].map(|job| cluster.argument(job, "--dependency"));
    assert_eq!(dependencies, [None, Some("afterok:1".into()), Some("afterok:2".into()), None]);
    assert_eq!(cluster.argument(2, "--kill-on-invalid-dep").as_deref(), Some("yes"));
    // The stage's own settings on those of the executor.
    assert_eq!(cluster.argument(1, "--time").as_deref(), Some("0-01:00:00"));
    assert_eq!(cluster.argument(2, "--time").as_deref(), Some("0-02:00:00"));
    assert_eq!(cluster.argument(2, "--partition").as_deref(), Some("work"));
    assert_eq!(cluster.argument(2, "--cpus-per-task").as_deref(), Some("4"));
    assert_eq!(cluster.argument(2, "--output").as_deref(), Some(".pipe/slurm/chain/base-%j.log"));
    let jobs = Jobs::load(project.folder.path(), "chain");
    assert_eq!(
        jobs.iter().map(|(stage, job)| format!("{stage} {}", job.id)).collect::<Vec<_>>().len(),
        4
    );
}

#[test]
fn what_is_up_to_date_gets_no_job_and_is_not_waited_for() {
    let project = Project::new(CHAIN);
    crate::exec::run(&project, false);
    assert_eq!(submitted(&project, &Scripted::default()).unwrap(), [] as [&str; 0]);
    let longer = CHAIN.replace("kind: work, dataset: base", "kind: work, dataset: base, epochs: 9");
    let project = project.file("p.yaml", &longer);
    let cluster = Scripted::default();
    assert_eq!(submitted(&project, &cluster).unwrap(), ["next 1 new"]);
    assert_eq!(cluster.argument(1, "--dependency"), None);
}

#[test]
fn the_same_command_again_follows_the_jobs_that_live() {
    let project = Project::new(CHAIN);
    submitted(&project, &Scripted::default()).unwrap();
    let again = Scripted::looks(&[&[
        (1, "COMPLETED"),
        (2, "RUNNING"),
        (3, "PENDING Dependency"),
        (4, "FAILED"),
    ]]);
    // `data` keeps nothing, and was made ready for `base`; `other` failed.
    again.submitted.lock().unwrap().resize(4, Vec::new());
    let found = submitted(&project, &again).unwrap();
    assert_eq!(found, ["base 2", "next 3", "other 5 new"]);

    // A job that waits for one that is gone is replaced.
    let gone = Scripted::looks(&[&[(2, "FAILED"), (3, "PENDING DependencyNeverSatisfied")]]);
    gone.submitted.lock().unwrap().resize(5, Vec::new());
    let found = submitted(&project, &gone).unwrap();
    assert_eq!(found, ["data 6 new", "base 7 new", "next 8 new", "other 9 new"]);
    assert_eq!(*gone.cancelled.lock().unwrap(), ["3"]);
}

#[test]
fn a_job_whose_number_was_lost_is_found_by_its_comment() {
    let project = Project::new(CHAIN);
    let first = Scripted::default();
    submitted(&project, &first).unwrap();
    let comment = first.argument(2, "--comment").unwrap();
    std::fs::remove_dir_all(project.folder.path().join(".pipe/slurm")).unwrap();
    let again = Scripted::looks(&[&[(2, "RUNNING")]]);
    *again.comments.lock().unwrap() = vec![(2, comment), (77, "somebody else's".into())];
    again.submitted.lock().unwrap().resize(4, Vec::new());
    assert_eq!(submitted(&project, &again).unwrap(), ["base 2", "next 5 new", "other 6 new"]);
}

#[test]
fn a_living_job_with_other_settings_is_not_taken_for_this_one() {
    let project = Project::new(CHAIN);
    submitted(&project, &Scripted::default()).unwrap();
    let other = CHAIN.replace("dataset: data,", "dataset: data, learning_rate: 7,");
    let project = project.file("p.yaml", &other);
    let cluster = Scripted::looks(&[&[(2, "RUNNING")]]);
    let error = submitted(&project, &cluster).unwrap_err();
    assert!(error.contains("job 2 of stage base was submitted with other settings"), "{error}");
    assert!(cluster.submitted.lock().unwrap().is_empty());
    // What does not decide the result is no other setting.
    let project = project.file("p.yaml", &CHAIN.replace("cpus: 4", "cpus: 8"));
    assert!(submitted(&project, &Scripted::looks(&[&[(2, "RUNNING")]])).is_ok());
}

#[test]
fn when_one_is_refused_those_before_it_are_taken_back() {
    let project = Project::new(CHAIN);
    let cluster = Scripted { refused: Some(3), ..Scripted::default() };
    let error = submitted(&project, &cluster).unwrap_err();
    assert_eq!(error, "`sbatch` refused: the job of stage next: no such partition");
    assert_eq!(*cluster.cancelled.lock().unwrap(), ["1", "2"]);
}

#[test]
fn jobs_are_followed_to_their_end() {
    let project = Project::new(CHAIN);
    for (job, stage) in (1..).zip(["data", "base", "next", "other"]) {
        record(&project, stage, job, Status::Completed, "done well");
    }
    let cluster = Scripted::looks(&[
        &[],
        &[(1, "RUNNING"), (2, "PENDING Dependency"), (3, "PENDING Dependency"), (4, "RUNNING")],
        &[(1, "COMPLETED"), (2, "RUNNING"), (3, "PENDING Dependency"), (4, "COMPLETED")],
        &[(2, "PENDING BeginTime"), (3, "PENDING Dependency")],
        &[(2, "PENDING launch failed requeued held"), (3, "PENDING Dependency")],
        &[(2, "RUNNING"), (3, "PENDING Dependency")],
        &[(2, "COMPLETED"), (3, "COMPLETED")],
    ]);
    let (summary, heard) = followed(&project, &cluster);
    let finished: Vec<String> =
        summary.finished.iter().map(|(id, line)| format!("{id}: {line}")).collect();
    assert_eq!(
        finished,
        ["data: done well", "other: done well", "base: done well", "next: done well"]
    );
    let said = |text: &str| heard.iter().filter(|line| line.contains(text)).count();
    assert_eq!(said("job 2 was requeued: PENDING (BeginTime)"), 1, "{heard:#?}");
    assert_eq!(said("job 3: PENDING (Dependency)"), 1, "said once: {heard:#?}");
    let held = "(launch failed requeued held); Slurm holds it until `scontrol release 2`";
    assert_eq!((said(held), said("scontrol")), (1, 1), "{heard:#?}");
    let jobs = Jobs::load(project.folder.path(), "chain");
    assert!(jobs.iter().all(|(_, job)| job.ended.as_deref() == Some("COMPLETED")));
}

#[test]
fn a_failure_takes_back_what_waits_unless_told_otherwise() {
    let looks: [&[(u32, &'static str)]; 4] = [
        &[],
        &[(1, "COMPLETED"), (2, "RUNNING"), (3, "PENDING Dependency"), (4, "PENDING Priority")],
        &[(2, "FAILED"), (3, "PENDING Dependency"), (4, "PENDING Priority")],
        &[(3, "CANCELLED DependencyNeverSatisfied"), (4, "CANCELLED")],
    ];
    let project = Project::new(CHAIN);
    record(&project, "data", 1, Status::Completed, "ready");
    record(&project, "base", 2, Status::Failed, "scripted failure");
    let cluster = Scripted::looks(&looks);
    let (summary, _) = followed(&project, &cluster);
    assert_eq!(summary.failed.len(), 1);
    assert_eq!(
        (summary.failed[0].1.failure, &*summary.failed[0].1.message),
        (Failure::Input, "scripted failure")
    );
    assert_eq!(
        summary.not_begun.iter().map(|id| id.to_string()).collect::<Vec<_>>(),
        ["next", "other"]
    );
    assert_eq!(*cluster.cancelled.lock().unwrap(), ["3", "4"]);

    let careful =
        Project::new(&CHAIN.replace("dataset: data,", "dataset: data, on_failure: continue,"));
    record(&careful, "base", 2, Status::Failed, "scripted failure");
    record(&careful, "other", 4, Status::Completed, "done");
    let looks = [
        looks[0],
        looks[1],
        looks[2],
        &[(3, "CANCELLED DependencyNeverSatisfied"), (4, "COMPLETED")],
    ];
    let cluster = Scripted::looks(&looks);
    let (summary, _) = followed(&careful, &cluster);
    assert!(cluster.cancelled.lock().unwrap().is_empty());
    assert!(summary.finished.iter().any(|(id, _)| id.as_str() == "other"));
}

#[test]
fn ctrl_c_cancels_and_other_signals_leave_the_jobs_alone() {
    let project = Project::new(CHAIN);
    let ended = |signal, looks: &[&[(u32, &'static str)]]| {
        let (stop, heard) = (Stop::default(), Heard::default());
        let cluster = Scripted::looks(looks);
        let summary = with(&project, &stop, &heard, |execution, plan, observed| {
            let all = submit(&cluster, execution, plan, observed, &call(&[])).unwrap();
            stop.request(signal);
            follow(&JobMonitor { cluster: &cluster, execution, poll: Duration::from_secs(1) }, all)
                .unwrap()
        });
        (summary, cluster.cancelled.into_inner().unwrap())
    };
    let over: &[(u32, &str)] =
        &[(1, "CANCELLED"), (2, "CANCELLED"), (3, "CANCELLED"), (4, "CANCELLED")];
    let (summary, cancelled) = ended(Signal::Interrupt, &[&[], over]);
    assert_eq!((cancelled.len(), summary.not_begun.len(), summary.failed.len()), (4, 4, 0));
    let (summary, cancelled) = ended(Signal::HangUp, &[&[]]);
    assert!(cancelled.is_empty() && summary.failed.is_empty());
}

#[test]
fn a_job_that_slurm_forgot_is_judged_by_its_record() {
    let project = Project::new("name: chain\nstages:\n  base: { kind: work }\n");
    record(&project, "base", 1, Status::Completed, "done well");
    let (summary, _) = followed(&project, &Scripted::default());
    assert_eq!(summary.finished[0].1, "done well");
    assert_eq!(
        Jobs::load(project.folder.path(), "chain").iter().next().unwrap().1.ended.as_deref(),
        Some("FORGOTTEN")
    );
}

#[test]
fn a_policy_against_going_on_does_not_stop_a_requeued_job() {
    let project =
        Project::new("name: chain\nstages:\n  base: { kind: work, ends: signal, resume: never }\n");
    crate::exec::run(&project, false);
    let (stop, heard) = (Stop::default(), Heard::default());
    with(&project, &stop, &heard, |execution, plan, _| {
        let (forced, request, carried, given_up) = Default::default();
        let execution =
            Execution { restarted: true, forced, request, carried, given_up, ..*execution };
        let observed =
            inspect(&execution, &plan.steps.iter().map(|s| s.stage.clone()).collect()).unwrap();
        pipe_engine::exec::execute(&execution, plan, observed).unwrap()
    });
    let heard = heard.0.into_inner().unwrap();
    assert!(heard.iter().any(|line| line.contains("resume at epoch 2/5")), "{heard:#?}");
    assert!(
        !std::fs::read_to_string(project.folder.path().join("base.attempts"))
            .unwrap()
            .contains("forced")
    );
}

#[test]
fn a_program_that_is_told_to_stop_beside_this_one_did_not_fail() {
    // Slurm tells all processes of a job at once; here the program hears it first.
    let run = "echo begun >> begun; kill -TERM $$";
    let file = format!(
        "name: chain\nstages:\n  base: {{ kind: command, run: \"{run}\", retry: {{ max: 1 }} }}\n"
    );
    let project = Project::new(&file);
    let (stop, heard) = (Stop::default(), Heard::default());
    let begun = project.folder.path().join("begun");
    let summary = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !begun.exists() {
                std::thread::sleep(Duration::from_millis(5));
            }
            std::thread::sleep(Duration::from_millis(150));
            stop.request(Signal::Terminate);
        });
        with(&project, &stop, &heard, |execution, plan, _| {
            let observed =
                inspect(execution, &plan.steps.iter().map(|s| s.stage.clone()).collect()).unwrap();
            pipe_engine::exec::execute(execution, plan, observed).unwrap()
        })
    });
    assert_eq!(summary.failed[0].1.failure, Failure::Interrupted(Signal::Terminate));
    assert_eq!(std::fs::read_to_string(begun).unwrap(), "begun\n", "no retry was used up");
}
