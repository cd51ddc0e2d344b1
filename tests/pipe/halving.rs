//! Members of a matrix that are halved, with real trainings: the bytes of one that paused, what is
//! trained when more is asked for, and what plan and lists say.

use serde_json::Value;

use crate::project::{Project, TINY, all_tensors};
#[cfg(unix)]
use crate::resume::{delays, in_pieces};

const RATES: [&str; 4] = ["0.01", "0.001", "0.0001", "0.003"];
const RUNS: &str = "checkpoints/base_training";

/// Four trainings with a rate that falls over the whole length, and the best of them.
fn search(keep: &str) -> Project {
    let matrix = format!("    matrix: {{ learning_rate: [{}] }}\n", RATES.join(", "));
    let halving =
        format!("    halving: {{ rungs: [1, 2, 4], keep: {keep}, monitor: train_loss }}\n");
    let schedule = "    schedule: { kind: cosine, warmup_steps: 2 }\n";
    let best = "  best: { kind: select_best, over: base, by: train_loss }\n";
    let tiny =
        TINY.replace("    epochs: ${params.epochs}\n", "").replace("params: { epochs: 2 }\n", "");
    let project = Project::new();
    project.write("p.yaml", tiny + &matrix + &halving + schedule + best);
    project
}

/// The epochs of each run, by its learning rate.
fn trained(project: &Project) -> Vec<(String, Vec<u64>)> {
    let of_run = |run: String| {
        let metadata = project.metadata(&format!("{RUNS}/{run}"));
        let rate = metadata["settings"]["learning_rate"].to_string();
        let history = metadata["history"].as_array().unwrap().iter();
        (rate, history.map(|epoch| epoch["epoch"].as_u64().unwrap()).collect())
    };
    let mut all: Vec<_> = project.list(RUNS).into_iter().map(of_run).collect();
    all.sort();
    all
}

/// The losses of a run's steps in its logs: each step once.
fn steps(project: &Project, run: &str) -> usize {
    let text = project.read(&format!("{RUNS}/{run}/logs/metrics.jsonl"));
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.filter(|line| line["train_loss_step"].is_number()).count()
}

/// The run that was trained to the end, with its learning rate.
fn winner(project: &Project) -> (String, String) {
    let is_whole = |run: &String| {
        let history = project.metadata(&format!("{RUNS}/{run}"))["history"].clone();
        history.as_array().unwrap().len() == 4
    };
    let run = project.list(RUNS).into_iter().find(is_whole).unwrap();
    let rate = project.metadata(&format!("{RUNS}/{run}"))["settings"]["learning_rate"].to_string();
    (run, rate)
}

#[test]
fn what_paused_at_rungs_is_what_never_paused_to_the_bit() {
    let project = search("1/2");
    project
        .pipe(&["plan", "p.yaml"])
        .succeeds()
        .says("rung 1 of 3, to epoch 1")
        .says("base: 4 to epoch 1, 2 to epoch 2, 1 to epoch 4; 8 epochs in the place of 16");
    let run = project.pipe(&["run", "p.yaml", "--jobs", "2"]).succeeds();
    run.says("goes on to epoch 2: ")
        .says("goes no further: ")
        .says("1st of 4 at epoch 1, train_loss ");
    let mut lengths: Vec<usize> = trained(&project).iter().map(|(_, all)| all.len()).collect();
    lengths.sort_unstable();
    assert_eq!(lengths, [1, 1, 2, 4]);

    let (run, rate) = winner(&project);
    let straight = Project::new();
    let schedule = "    schedule: { kind: cosine, warmup_steps: 2 }\n";
    straight.write("p.yaml", format!("{TINY}    learning_rate: {rate}\n{schedule}"));
    straight.pipe(&["run", "p.yaml", "--epochs=4"]).succeeds();
    let last = |project: &Project, run: &str| {
        all_tensors(&project.path(&format!("{RUNS}/{run}/checkpoints/last.ckpt")))
    };
    assert!(last(&project, &run) == last(&straight, "run_001"), "{rate}");
    assert_eq!(steps(&project, &run), steps(&straight, "run_001"));
    let metrics = |project: &Project, run: &str| -> Vec<Value> {
        let history = project.metadata(&format!("{RUNS}/{run}"))["history"].clone();
        history.as_array().unwrap().iter().map(|epoch| epoch["metrics"].clone()).collect()
    };
    assert_eq!(metrics(&project, &run), metrics(&straight, "run_001"));

    let again = project.pipe(&["plan", "p.yaml"]).succeeds();
    again.says("; halved out, ").says("rung 3 of 3, to the end, 1st of 1 at epoch 4");
    project.pipe(&["status", "p.yaml"]).succeeds().says("; halved out, ");
    project.pipe(&["run", "p.yaml"]).succeeds().says("everything is up to date");

    // A larger share trains what is missing, and nothing twice.
    let more = ["run", "p.yaml", "--set", "base.halving.keep=3/4"];
    project.pipe(&more).succeeds().says("extend 1 -> 2");
    for (rate, epochs) in trained(&project) {
        assert!(epochs.iter().copied().eq(1..=epochs.len() as u64), "{rate}: {epochs:?}");
    }
    for run in project.list(RUNS) {
        let epochs =
            project.metadata(&format!("{RUNS}/{run}"))["history"].as_array().unwrap().len();
        assert_eq!(steps(&project, &run), epochs * 4, "{run}");
    }
    project.pipe(&more).succeeds().says("everything is up to date");
    // Without the halving they are trained to the end, as usual.
    let whole = ["plan", "p.yaml", "--set", "base.halving=null", "--epochs=4"];
    project.pipe(&whole).succeeds().says("extend 1 -> 4");
}

#[cfg(unix)]
#[test]
fn a_search_that_is_killed_again_and_again_comes_to_the_same() {
    let straight = search("1/2");
    let began = std::time::Instant::now();
    straight.pipe(&["run", "p.yaml"]).succeeds();
    let took = began.elapsed().as_millis() as u64;
    let pieces = search("1/2");
    in_pieces(&pieces, &["run", "p.yaml"], delays(took / 10 + 20, took / 2 + 60));
    assert_eq!(trained(&pieces), trained(&straight));
    let last = |project: &Project| {
        let (run, rate) = winner(project);
        (rate, all_tensors(&project.path(&format!("{RUNS}/{run}/checkpoints/last.ckpt"))))
    };
    assert!(last(&pieces) == last(&straight));
    for run in pieces.list(RUNS) {
        let epochs = pieces.metadata(&format!("{RUNS}/{run}"))["history"].as_array().unwrap().len();
        assert_eq!(steps(&pieces, &run), epochs * 4, "{run}");
    }
}

#[cfg(unix)]
#[test]
fn a_program_of_ones_own_is_halved_too() {
    let project = Project::new();
    let keys = "    settings: { rate: 0.1 }\n    matrix: { rate: [0.1, 0.2, 0.3, 0.4] }\n    \
                halving: { rungs: [1, 4], keep: 1/2, monitor: accuracy, mode: max }\n";
    project.write("p.yaml", crate::trainer::stage(keys));
    project
        .pipe(&["run", "p.yaml"])
        .succeeds()
        .says("goes no further: 4th of 4 at epoch 1, accuracy ");
    let mut all: Vec<(String, u64)> = project
        .list("checkpoints/trainer")
        .into_iter()
        .map(|run| {
            let metadata = project.metadata(&format!("checkpoints/trainer/{run}"));
            let epochs = metadata["history"].as_array().unwrap().len() as u64;
            (metadata["settings"]["settings"]["rate"].to_string(), epochs)
        })
        .collect();
    all.sort();
    let wanted = [("0.1", 4), ("0.2", 4), ("0.3", 1), ("0.4", 1)];
    assert_eq!(all, wanted.map(|(rate, epochs)| (rate.to_owned(), epochs)));
    project.pipe(&["run", "p.yaml"]).succeeds().says("everything is up to date");
}

#[cfg(unix)]
#[test]
fn on_slurm_the_jobs_of_a_rung_are_followed_by_those_that_go_on() {
    let Some(cluster) = crate::slurm::Cluster::start() else { return };
    let local = search("1/2");
    local.pipe(&["run", "p.yaml"]).succeeds();
    let jobs = cluster.project(&local.read("p.yaml"));
    let run = ["run", "p.yaml", "--executor", "slurm"];
    jobs.pipe(&run).succeeds();
    assert_eq!(trained(&jobs), trained(&local));
    let last = |project: &Project| {
        let (run, rate) = winner(project);
        (rate, all_tensors(&project.path(&format!("{RUNS}/{run}/checkpoints/last.ckpt"))))
    };
    assert!(last(&jobs) == last(&local));
    jobs.pipe(&run).succeeds().says("everything is up to date");
    // More of it, as jobs of what is missing.
    let more = ["--set", "base.halving.keep=3/4"];
    jobs.pipe(&[&run[..], &more].concat()).succeeds();
    local.pipe(&[&["run", "p.yaml"][..], &more].concat()).succeeds();
    assert_eq!(trained(&jobs), trained(&local));
}

#[cfg(unix)]
#[test]
fn on_slurm_a_member_that_fails_counts_as_last() {
    let Some(cluster) = crate::slurm::Cluster::start() else { return };
    let keys = "    settings: { rate: 0.1, script: null }\n    \
                matrix: [{ rate: 0.2 }, { rate: 0.3 }, { rate: 0.1, script: [{ exit: 3 }] }]\n    \
                halving: { rungs: [1, 2], keep: 1/2, monitor: accuracy, mode: max }\n  \
                best: { kind: select_best, over: base, by: accuracy, mode: max }\n";
    let project = cluster.project(&crate::trainer::stage(keys).replace("epochs: 4", "epochs: 2"));
    let run = project.pipe(&["run", "p.yaml", "--executor", "slurm"]).exits(1);
    run.says("rate=0.1").says("best");
    let mut epochs: Vec<usize> = project
        .list("checkpoints/trainer")
        .into_iter()
        .map(|run| project.metadata(&format!("checkpoints/trainer/{run}"))["history"].clone())
        .map(|history| history.as_array().unwrap().len())
        .collect();
    epochs.sort_unstable();
    assert_eq!(epochs, [0, 1, 2], "the better one of the two goes on");
}

#[test]
fn what_cannot_be_halved_is_refused_before_anything_runs() {
    let project = search("1/2");
    let check = |set: &str| project.pipe(&["check", "p.yaml", "--set", set]).exits(2);
    check("base.halving.monitor=val_los").says("val_los");
    check("base.halving.keep=2").says("--set base.halving.keep=2").says("such as `1/3` or `0.25`");
    check("base.epochs=9").says("the last rung is 4, and `epochs` is 9");
    check("base.halving.rungs=[4, 2]").says("expected numbers of epochs that rise");
    let detached = project.pipe(&["run", "p.yaml", "--executor", "slurm", "--detach"]);
    detached.exits(1).says("a halving needs a process that decides at each rung who goes on");
    project.pipe(&["run", "p.yaml", "--executor", "local"]).succeeds();
    let export = project.pipe(&["export", "argo", "p.yaml"]).exits(2);
    export.says("stages.base.halving: which stages go on one process decides");
}
