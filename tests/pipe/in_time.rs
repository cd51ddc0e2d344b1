//! Trainings that are to end in time, with their schedule.

use std::time::Duration;

use crate::project::{Project, TINY, all_tensors, send};

const RUN: &str = "checkpoints/base_training/run_001";
const DECAY: &str = "    schedule: { kind: constant_then_decay, decay_share: 0.25 }\n";

/// The tiny training without a number of epochs, and with further keys of its stage.
fn tiny(keys: &str) -> Project {
    let project = Project::new();
    let endless = TINY.replace("    epochs: ${params.epochs}\n", "");
    let endless = endless.replace("params: { epochs: 2 }\n", "");
    project.write("p.yaml", format!("{endless}{DECAY}{keys}"));
    project
}

/// The time that so many epochs of it take on this machine now, as settings say it.
fn time_of(epochs: f64) -> String {
    let project = tiny("");
    project.pipe(&["run", "p.yaml", "--epochs=2"]).succeeds();
    let history = project.metadata(RUN)["history"].clone();
    let slowest = history.as_array().unwrap().iter().map(|e| e["seconds"].as_f64().unwrap());
    format!("{}ms", (slowest.fold(0.02, f64::max) * epochs * 1000.0).ceil())
}

/// A training within a time in which it did what is wanted of it, and that time. One that was slower
/// than it had been timed a moment before, beside others on its machine, is given more.
#[track_caller]
fn trained_in_time(keys: &str, did: impl Fn(&serde_json::Value) -> bool) -> (Project, String) {
    for epochs in [8.0, 16.0, 32.0, 64.0] {
        let time = time_of(epochs);
        let project = tiny(&format!("    budget: {time}\n{keys}"));
        project.pipe(&["run", "p.yaml"]).succeeds().says("epochs in all fit (budget of ");
        if did(&project.metadata(RUN)) {
            return (project, time);
        }
    }
    panic!("too little was done in the time of 64 epochs");
}

fn last(project: &Project, run: &str) -> Vec<(String, Vec<u8>)> {
    all_tensors(&project.path(&format!("{run}/checkpoints/last.ckpt")))
}

/// That a run is the training of its length, which is done here in a project of its own: all of its
/// epochs, and its last checkpoint. One whose last epochs took longer than those before them was
/// ended inside its last ones.
#[track_caller]
fn is_plain(project: &Project, run: &str) {
    let epochs = planned(project, run);
    let whole = tiny("");
    whole.pipe(&["run", "p.yaml", &format!("--epochs={epochs}")]).succeeds();
    let values = |metadata: serde_json::Value| -> Vec<serde_json::Value> {
        let history = metadata["history"].as_array().unwrap().clone();
        let rates = history
            .iter()
            .map(|e| serde_json::json!([e["epoch"], e["metrics"], e["learning_rate"]]));
        rates.collect()
    };
    let (own, all) = (values(project.metadata(run)), values(whole.metadata(RUN)));
    for epoch in &own {
        assert!(all.contains(epoch), "of {epochs} epochs: {epoch} is not among {all:?}");
    }
    if own.last() == all.last() {
        assert!(last(project, run) == last(&whole, RUN), "of {epochs} epochs");
    }
}

fn planned(project: &Project, run: &str) -> u64 {
    project.metadata(run)["planned_length"]["epochs"].as_u64().unwrap()
}

#[test]
fn a_budget_places_the_decay_and_the_run_equals_one_of_that_length() {
    tiny("    budget: 8h\n").pipe(&["plan", "p.yaml"]).succeeds().says("its budget");
    let (project, time) =
        trained_in_time("", |metadata| metadata["planned_length"]["epochs"].as_u64() > Some(2));
    let metadata = project.metadata(RUN);
    let epochs = planned(&project, RUN);
    assert_eq!(metadata["epochs"], epochs);
    assert_eq!(metadata["ended_by"], "budget");
    let seconds: f64 = metadata["history"]
        .as_array()
        .unwrap()
        .iter()
        .map(|e| e["seconds"].as_f64().unwrap())
        .sum();
    let budget = time.trim_end_matches("ms").parse::<f64>().unwrap() / 1000.0;
    assert!(seconds < budget * 1.5, "{seconds} of {budget}");
    is_plain(&project, RUN);

    project.pipe(&["run", "p.yaml"]).succeeds().says("up to date, run 001");
    project.pipe(&["plan", "p.yaml", "--set", "budget=1ms"]).succeeds().says("up to date, run 001");
    project.pipe(&["verify"]).succeeds();
    project.pipe(&["audit", "base/1"]).succeeds();
    // The same training by its length is that run too.
    let length = format!("--epochs={epochs}");
    let by_length = ["plan", "p.yaml", "--set", "budget=null", &length];
    let plan = project.pipe(&by_length).succeeds();
    let done = metadata["history"].as_array().unwrap().len() as u64;
    if done == epochs {
        plan.says("up to date, run 001")
    } else {
        plan.says("extend ")
    };

    // More time goes on from where the rate began to fall.
    let stable = metadata["kept_epoch"].as_u64().unwrap();
    let more = ["--set", &format!("budget={}ms", (3000.0 * budget).ceil())];
    let plan = project.pipe(&[&["plan", "p.yaml"], &more[..]].concat()).succeeds();
    let plan = plan.says("run 001 was planned for a budget of ");
    plan.says(&format!("shares epochs 1-{stable} with run 001"));
    project.pipe(&[&["run", "p.yaml"], &more[..]].concat()).succeeds();
    let second = "checkpoints/base_training/run_002";
    let longer = planned(&project, second);
    assert!(longer > epochs, "{longer} of {epochs}");
    is_plain(&project, second);
}

#[test]
fn it_is_interrupted_and_killed_and_ends_as_if_it_had_not_been() {
    let project = tiny(&format!("    budget: {}\n", time_of(12.0)));
    for (kills, delay) in [300, 700, 1100, 500, 900, 400].into_iter().enumerate() {
        let mut child = project.start(&["run", "p.yaml"]);
        std::thread::sleep(Duration::from_millis(delay));
        if child.try_wait().unwrap().is_some() {
            break;
        }
        send(&child, if kills % 2 == 0 { "KILL" } else { "TERM" });
        child.wait().unwrap();
    }
    project.pipe(&["run", "p.yaml"]).succeeds();
    is_plain(&project, RUN);
}

/// The epochs of a run whose checkpoints its policy has removed.
fn removed(metadata: &serde_json::Value) -> Vec<u64> {
    let epochs = |list: &str| -> Vec<u64> {
        let list = metadata[list].as_array().unwrap().iter();
        list.map(|e| e["epoch"].as_u64().unwrap()).collect()
    };
    let kept = epochs("checkpoints");
    epochs("history").into_iter().filter(|epoch| !kept.contains(epoch)).collect()
}

#[test]
fn each_of_its_checkpoints_is_made_again_as_the_same_file() {
    let (project, _) = trained_in_time("    checkpoint: { keep_last_n: 1 }\n", |metadata| {
        !removed(metadata).is_empty()
    });
    for epoch in removed(&project.metadata(RUN)) {
        let again = ["ckpt", "again", "base/1", "--epoch", &epoch.to_string()];
        project.pipe(&again).succeeds().says("the same file");
    }
}

#[test]
fn what_has_no_decay_ends_where_it_is() {
    let project = Project::new();
    project.write("p.yaml", format!("{TINY}    budget: 400ms\n"));
    let slow =
        ["run", "p.yaml", "--epochs=400", "--set", "num_images=2048", "--set", "batch_size=4"];
    project.pipe(&slow).succeeds().says("0 of 400 epochs (budget of 400ms is used)");
    project.pipe(&slow).succeeds().says("up to date, run 001");
    let more =
        ["plan", "p.yaml", "--epochs=400", "--set", "num_images=2048", "--set", "batch_size=4"];
    let more = [&more[..], &["--set", "budget=1h"]].concat();
    project.pipe(&more).succeeds().says("extend 0 -> 400");
}

#[test]
fn a_moment_by_the_clock_ends_it_too() {
    let project = tiny("");
    let now =
        std::process::Command::new("date").args(["-d", "3 seconds", "+%F %T"]).output().unwrap();
    let until = format!("--set=until={}", String::from_utf8(now.stdout).unwrap().trim());
    let began = std::time::Instant::now();
    project.pipe(&["run", "p.yaml", &until]).succeeds();
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    is_plain(&project, RUN);
    assert_eq!(project.metadata(RUN)["ended_by"], "until");
    project.pipe(&["run", "p.yaml", &until]).succeeds().says("up to date, run 001");
    let past = tiny("");
    past.pipe(&["run", "p.yaml", "--set=until=2020-01-01 07:00"]).succeeds().says("(until 2020");
}

#[test]
fn a_pipeline_shares_its_time_out() {
    let project = tiny("    matrix: { seed: [1, 2, 3] }\n");
    let text = std::fs::read_to_string(project.path("p.yaml")).unwrap();
    project.write("p.yaml", format!("budget: 900ms\nuntil: 2100-01-01 07:00\n{text}"));
    let run = ["run", "p.yaml", "--epochs=1"];
    let limits = |run: &str| {
        let settings =
            project.metadata(&format!("checkpoints/base_training/{run}"))["settings"].clone();
        [settings["budget"].clone(), settings["until"].clone()]
    };
    project.pipe(&run).succeeds();
    assert_eq!(limits("run_001"), ["300ms", "1/3 of 2100-01-01 07:00"]);
    assert_eq!(limits("run_002"), ["300ms", "1/2 of 2100-01-01 07:00"]);
    assert_eq!(limits("run_003"), ["300ms", "2100-01-01 07:00"]);
    project.pipe(&run).succeeds().says("up to date, run 003");
    // What is set outside is stronger: of the pipeline, or of its stages.
    let forced =
        |set: &str| project.pipe(&[&run[..], &["--force", "--set", set]].concat()).succeeds();
    forced("budget=60s");
    assert_eq!(limits("run_004")[0], "20s");
    forced("base.budget=60s");
    assert_eq!(limits("run_007")[0], "1m");
    assert_eq!(
        limits("run_007")[1],
        serde_json::Value::Null,
        "a limit of its own is all that it has"
    );
    let wrong = project.pipe(&["check", "p.yaml", "--set", "budget=soon"]).exits(2);
    wrong.says("--set budget=soon").says("a time such as");
}

#[test]
fn what_cannot_be_is_said() {
    for (keys, named, said) in [
        ("    budget: 0s\n", "budget", "a time above 0"),
        ("    budget: soon\n", "budget", "a time such as"),
        ("    until: soon\n", "until", "07:00"),
        ("    budget: 8h\n    max_steps: 9\n", "max_steps", "leave one of the two out"),
        ("    budget: 8h\n    schedule_epochs: 9\n", "schedule_epochs", "leave one of the two out"),
        (
            "    budget: 8h\n    then: [{ from: 2, learning_rate: 1.0e-4 }]\n",
            "then",
            "found on the way",
        ),
    ] {
        let project = tiny(keys);
        project.pipe(&["check", "p.yaml"]).exits(2).says(named).says(said);
    }
    let keys = "    budget: 8h\n    matrix: { seed: [1, 2, 3] }\n    halving: { rungs: [1, 2], keep: 1/2, monitor: train_loss }\n";
    let halved = tiny(keys).pipe(&["check", "p.yaml"]).exits(2);
    halved.says("budget").says("`halving` decides");
    for kind in ["cosine", "linear"] {
        let project = tiny("    budget: 8h\n");
        let kind = format!("schedule.kind={kind}");
        let run = project.pipe(&["check", "p.yaml", "--set", &kind]).exits(2);
        run.says("constant_then_decay").says("length at the first step");
    }
}

#[test]
#[cfg(unix)]
fn on_slurm_the_walltime_ends_it() {
    let Some(cluster) = crate::slurm::Cluster::start() else { return };
    let slurm = "    slurm: { time: 2m, signal_before: 30s }\n";
    let keys = "    epochs: 100000\n    until: 1/15 of walltime\n";
    let project = cluster.project(&tiny(&format!("{slurm}{keys}")).read("p.yaml"));
    project.pipe(&["run", "p.yaml", "--executor", "slurm"]).succeeds();
    let metadata = project.metadata(RUN);
    assert_eq!(metadata["ended_by"], "until", "{metadata:#}");
    assert_eq!(metadata["finished_early"], "until 1/15 of walltime");
}
