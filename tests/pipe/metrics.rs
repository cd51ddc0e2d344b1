//! Metrics in the graph: programs that judge checkpoints, and choices by any metric.

use serde_json::Value;

use crate::project::{Project, TINY};

/// Two trainings, a program that judges each, and the choice by what they say. `fid/RATE.json` is
/// what it says; the name of a stage with that rate ends in the rate.
const JUDGED: &str = "  copy:
    kind: copy_best
    matrix: { learning_rate: [1.0e-3, 1.0e-2] }
    from: base@learning_rate=${matrix.learning_rate}
    to: copies/${matrix.learning_rate}.ckpt
  quality:
    kind: command
    matrix: { learning_rate: [1.0e-3, 1.0e-2] }
    run: cp fid/${matrix.learning_rate}.json scores/${matrix.learning_rate}.json
    inputs: ['copies/${matrix.learning_rate}.ckpt', 'fid/${matrix.learning_rate}.json']
    metrics: scores/${matrix.learning_rate}.json
  winner: { kind: select_best, over: base, by: quality.fid }
  best: { kind: copy_best, from: winner, to: best.ckpt }
  after: { kind: command, run: 'echo once >> ran.txt', inputs: [best.ckpt] }
";

const RATES: [&str; 2] = ["0.001", "0.01"];

fn sweep() -> String {
    TINY.replace(
        "    dataset: data\n",
        "    dataset: data\n    matrix: { learning_rate: [1.0e-3, 1.0e-2] }\n    checkpoint: { keep_last_n: null }\n",
    )
    .replace("    image_size: 8\n", "    image_size: 8\n    val_split: 0.25\n")
}

fn judged() -> Project {
    let project = Project::new();
    project.write("p.yaml", sweep() + JUDGED);
    project
}

fn score(project: &Project, rate: &str, text: &str) {
    project.write(&format!("fid/{rate}.json"), text);
}

/// The stages as `pipe status` has them.
fn stages(project: &Project) -> Vec<Value> {
    let said = project.pipe(&["status", "p.yaml", "--json"]).succeeds().stdout();
    serde_json::from_str(&said).unwrap()
}

fn stage(project: &Project, name: &str) -> Value {
    stages(project).into_iter().find(|stage| stage["stage"] == name).unwrap()
}

/// Which of the rates `best.ckpt` was trained with.
fn chosen(project: &Project) -> &'static str {
    let best = std::fs::read(project.path("best.ckpt")).unwrap();
    let is_best =
        |rate: &&str| std::fs::read(project.path(&format!("copies/{rate}.ckpt"))).unwrap() == best;
    RATES.into_iter().find(is_best).expect("one of the two")
}

#[test]
fn a_choice_by_the_metrics_of_a_program_follows_them() {
    let project = judged();
    score(&project, "0.001", "{\"fid\": 5, \"kid\": 1}");
    score(&project, "0.01", "{\"fid\": 9, \"kid\": 0.5}");
    let said = project.pipe(&["run", "p.yaml"]).succeeds();
    let said = said.says("base@learning_rate=0.001, quality.fid 5.0000");
    drop(said.says("scores/0.01.json: fid=9.0000 kid=0.5000"));
    assert_eq!((chosen(&project), project.read("ran.txt").lines().count()), ("0.001", 1));
    let judge = stage(&project, "quality@learning_rate=0.01");
    assert_eq!(judge["metrics"], serde_json::json!({"fid": 9.0, "kid": 0.5}), "{judge}");
    assert_eq!(judge["detail"], "up to date, fid=9.0000 kid=0.5000");
    let detail = stage(&project, "winner")["detail"].clone();
    assert_eq!(detail, "up to date, base@learning_rate=0.001 with quality.fid 5.0000");
    assert!(stage(&project, "best").get("metrics").is_none());
    project.pipe(&["run", "p.yaml"]).succeeds().says("everything is up to date");

    // Another score is another choice, and what is behind it runs again.
    score(&project, "0.01", "{\"fid\": 3, \"kid\": 0.5}");
    project.pipe(&["run", "p.yaml"]).succeeds().says("quality.fid 3.0000");
    assert_eq!((chosen(&project), project.read("ran.txt").lines().count()), ("0.01", 2));
    // Another score and the same choice: nothing behind it runs.
    score(&project, "0.01", "{\"fid\": 2}");
    project.pipe(&["run", "p.yaml"]).succeeds().says("quality.fid 2.0000");
    assert_eq!((chosen(&project), project.read("ran.txt").lines().count()), ("0.01", 2));
    // The same numbers written in another way are not even another choice.
    score(&project, "0.01", "{ \"fid\" : 2.0 }");
    let said = project.pipe(&["run", "p.yaml"]).succeeds().stderr();
    assert!(!said.contains("Selected"), "{said}");
    // A file that somebody changed is not believed.
    project.write("scores/0.001.json", "{\"fid\": 0.1}");
    project.pipe(&["run", "p.yaml"]).succeeds();
    assert_eq!(chosen(&project), "0.01");

    // Another metric of the same stage, and a name that is none.
    let by = |by: &str| project.write("p.yaml", (sweep() + JUDGED).replace("quality.fid", by));
    score(&project, "0.01", "{\"fid\": 2, \"kid\": 4}");
    by("quality.kid");
    project
        .pipe(&["run", "p.yaml"])
        .succeeds()
        .says("base@learning_rate=0.001, quality.kid 1.0000");
    by("quality.fidd");
    let said = "by: stage quality has no `fidd`; it has fid, kid; did you mean `fid`?";
    project.pipe(&["run", "p.yaml"]).exits(2).says(said);
}

#[test]
fn choices_are_those_of_a_brute_force_search() {
    let project = judged();
    let mut state = 7u64;
    let mut sample = move || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        state >> 33
    };
    for round in 0..12 {
        let scores: Vec<Option<u64>> =
            RATES.iter().map(|_| sample() % 4).map(|n| (n > 0).then_some(n)).collect();
        for (rate, score_of) in RATES.iter().zip(&scores) {
            let text = match score_of {
                Some(fid) => format!("{{\"fid\": {fid}, \"round\": {round}}}"),
                None => format!("{{\"round\": {round}}}"),
            };
            score(&project, rate, &text);
        }
        let is_max = sample() % 2 == 0;
        let mode = if is_max { "max" } else { "min" };
        project.write(
            "p.yaml",
            (sweep() + JUDGED)
                .replace("by: quality.fid", &format!("by: quality.fid, mode: {mode}")),
        );
        // The first of those that no other one beats.
        let beats = |a: u64, b: u64| if is_max { a > b } else { a < b };
        let is_best = |one: &u64| scores.iter().flatten().all(|other| !beats(*other, *one));
        let expected = scores.iter().position(|score| score.as_ref().is_some_and(is_best));
        let ended = project.pipe(&["run", "p.yaml"]);
        match expected {
            None => drop(ended.exits(2).says("has no `fid`; it has round")),
            Some(place) => {
                let is_judged = scores.iter().all(Option::is_some);
                let said = ended.succeeds().stderr();
                assert_eq!(chosen(&project), RATES[place], "round {round}, {mode}: {scores:?}");
                assert_eq!(
                    said.contains("is passed over: quality@"),
                    !is_judged,
                    "{scores:?}: {said}"
                );
            }
        }
    }
}

#[test]
fn a_judge_that_fails_is_passed_over_with_its_checkpoint() {
    let project = judged();
    score(&project, "0.001", "{\"fid\": \"broken\"}");
    score(&project, "0.01", "{\"fid\": 9}");
    let ended = project.pipe(&["run", "p.yaml", "--keep-going"]).exits(1);
    let said = ended.says("metrics: scores/0.001.json: \"fid\" is text").stderr();
    assert!(said.contains("quality@learning_rate=0.001 failed and is passed over"), "{said}");
    assert_eq!(chosen(&project), "0.01");
    score(&project, "0.001", "{\"fid\": 1}");
    project.pipe(&["run", "p.yaml"]).succeeds();
    assert_eq!(chosen(&project), "0.001");
}

/// The epoch whose checkpoint has the lowest (`sign` -1: highest) value, the first of equals.
fn best_epoch(metadata: &Value, metric: &str, sign: f64) -> u64 {
    let of =
        |c: &Value| (c["metrics"][metric].as_f64().unwrap() * sign, c["epoch"].as_u64().unwrap());
    let all: Vec<(f64, u64)> = metadata["checkpoints"].as_array().unwrap().iter().map(of).collect();
    all.into_iter().reduce(|a, b| if b.0 < a.0 { b } else { a }).unwrap().1
}

#[test]
fn a_copy_is_the_best_of_a_run_by_any_of_its_metrics() {
    let project = Project::new();
    let copies = "  low: { kind: copy_best, from: base, by: val_loss, to: low.ckpt }
  high: { kind: copy_best, from: base, by: val_loss, mode: max, to: high.ckpt }
  worst: { kind: copy_best, from: base, by: train_loss, mode: max, to: worst.ckpt }
  again: { kind: copy_best, from: low, by: train_loss, to: again.ckpt }
";
    let base = sweep().replace("    matrix: { learning_rate: [1.0e-3, 1.0e-2] }\n", "");
    let base = base.replace("epochs: 2 }", "epochs: 5 }");
    project.write("p.yaml", format!("{base}{copies}"));
    project.pipe(&["run", "p.yaml"]).succeeds();
    let metadata = project.metadata("checkpoints/base_training/run_001");
    let of_epoch = |epoch: u64| {
        let file = format!("checkpoints/base_training/run_001/checkpoints/epoch_{epoch:03}.ckpt");
        std::fs::read(project.path(&file)).unwrap()
    };
    let (low, high) =
        (best_epoch(&metadata, "val_loss", 1.0), best_epoch(&metadata, "val_loss", -1.0));
    let worst = best_epoch(&metadata, "train_loss", -1.0);
    assert!(low != high && Some(worst) != metadata["best_checkpoint"]["epoch"].as_u64());
    let expected = [("low", low), ("high", high), ("worst", worst), ("again", low)];
    for (copy, epoch) in expected {
        assert!(
            std::fs::read(project.path(&format!("{copy}.ckpt"))).unwrap() == of_epoch(epoch),
            "{copy}"
        );
    }
    project.pipe(&["run", "p.yaml"]).succeeds().says("everything is up to date");
    // Another metric with the same choice is no reason to copy.
    let same = copies.replace("from: low, by: train_loss", "from: low, by: val_loss");
    project.write("p.yaml", format!("{base}{same}"));
    project.pipe(&["run", "p.yaml"]).succeeds().says("everything is up to date");
}

#[test]
fn a_better_epoch_whose_checkpoint_was_not_kept_is_told() {
    let project = Project::new();
    let base = sweep().replace("    matrix: { learning_rate: [1.0e-3, 1.0e-2] }\n", "");
    let copy =
        "  worst: { kind: copy_best, from: base, by: train_loss, mode: max, to: worst.ckpt }\n";
    let all = base.replace("epochs: 2 }", "epochs: 4 }") + copy;
    let few = all.replace("keep_last_n: null", "keep_last_n: 1");
    project.write("p.yaml", few.replace("name: tiny", "name: few"));
    project.pipe(&["run", "p.yaml"]).succeeds().says("its checkpoint was not kept; epoch");
    let project = Project::new();
    project.write("p.yaml", all);
    let said = project.pipe(&["run", "p.yaml"]).succeeds().stderr();
    assert!(!said.contains("was not kept"), "{said}");
}

#[test]
fn the_best_few_stay() {
    let project = Project::new();
    let base = sweep().replace("    matrix: { learning_rate: [1.0e-3, 1.0e-2] }\n", "");
    let all = base.replace("epochs: 2 }", "epochs: 6 }").replace("name: tiny", "name: all");
    project.write("all.yaml", all.replace("keep_last_n: null", "keep_last_n: null, mode: max"));
    let few = all.replace("name: all", "name: few");
    let few =
        few.replace("keep_last_n: null", "keep_last_n: 1, keep_top_k: 3, mode: max, base_dir: few");
    project.write("few.yaml", few);
    project.pipe(&["run", "all.yaml"]).succeeds();
    project.pipe(&["run", "few.yaml"]).succeeds();
    let every = project.metadata("checkpoints/base_training/run_001");
    let mut by_loss: Vec<(f64, u64)> = every["checkpoints"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| (c["metrics"]["train_loss"].as_f64().unwrap(), c["epoch"].as_u64().unwrap()))
        .collect();
    by_loss.sort_by(|a, b| b.0.total_cmp(&a.0));
    let mut expected: Vec<u64> = by_loss.iter().take(3).map(|(_, epoch)| *epoch).collect();
    expected.push(6);
    expected.sort();
    expected.dedup();
    let mut expected: Vec<String> = expected.iter().map(|e| format!("epoch_{e:03}.ckpt")).collect();
    expected.insert(0, "best.ckpt".to_owned());
    expected.push("last.ckpt".to_owned());
    assert_eq!(project.list("few/run_001/checkpoints"), expected);
    // It is no other training.
    let identity = |run: &str| project.metadata(run)["manifest"].clone();
    assert_eq!(identity("few/run_001"), identity("checkpoints/base_training/run_001"));
}

#[test]
fn what_cannot_be_judged_is_refused_before_anything_runs() {
    let project = judged();
    let check = |from: &str, to: &str, said: &str| {
        let file = sweep() + JUDGED;
        assert!(file.contains(from), "{from}");
        project.write("p.yaml", file.replacen(from, to, 1));
        project.pipe(&["check", "p.yaml"]).exits(2).says(said);
    };
    let metrics = "    metrics: scores/${matrix.learning_rate}.json\n";
    check(
        metrics,
        "",
        "stage `quality@learning_rate=0.001` makes files; expected one that makes metrics",
    );
    check(metrics, "", "give `quality` the key `metrics`");
    check("by: quality.fid", "by: base.fid", "makes a checkpoint; expected one that makes metrics");
    check("by: quality.fid", "by: qualiti.fid", "did you mean");
    check(
        "by: quality.fid",
        "by: quality.fid, monitor: train_loss",
        "`by` or `monitor`, and not both",
    );
    check("by: quality.fid", "by: quality.", "expected the name of a metric");
    check(
        "by: quality.fid",
        "by: fid",
        "stages.winner.by: `base` reports no `fid`; it reports train_loss, val_loss",
    );
    check("over: base", "over: [base, copy]", "`quality@learning_rate=0.001` would judge both");
    let one = "quality@learning_rate=0.01.fid";
    check(
        "by: quality.fid",
        &format!("by: {one}"),
        "nothing judges `base@learning_rate=0.001`: there is no stage `quality@learning_rate=0.001`",
    );
    // One of each is enough, whatever they are called.
    let single = (sweep() + JUDGED).replace(
        "over: base, by: quality.fid",
        &format!("over: base@learning_rate=0.01, by: {one}"),
    );
    project.write("p.yaml", single);
    project.pipe(&["check", "p.yaml"]).succeeds();
    assert!(project.list("checkpoints").is_empty());
}

#[test]
fn a_monitor_that_nobody_reports_is_refused_and_a_doubtful_one_is_told() {
    let project = Project::new();
    let with = |more: &str| project.write("p.yaml", sweep() + more);
    let check = |code: i32| project.pipe(&["check", "p.yaml"]).exits(code);
    with("  x: { kind: copy_best, from: base@learning_rate=0.01, by: val_los, to: x.ckpt }\n");
    check(2).says("stages.x.by: `base@learning_rate=0.01` reports no `val_los`; it reports train_loss, val_loss; did you mean `val_loss`?");
    with(
        "  x: { kind: copy_best, from: base@learning_rate=0.01, select: last, by: val_loss, to: x.ckpt }\n",
    );
    check(2).says("no `select` beside it");
    with("  x: { kind: copy_best, from: base@learning_rate=0.01, mode: max, to: x.ckpt }\n");
    check(2).says("stages.x.mode: expected `by` beside it");
    project.write(
        "p.yaml",
        sweep() + JUDGED + "  x: { kind: copy_best, from: winner, by: quality.fid, to: x.ckpt }\n",
    );
    check(2)
        .says("`quality` is a stage")
        .says("{kind: select_best, over: winner, by: quality.fid}");
    project.write("p.yaml", (sweep() + JUDGED).replace("quality.fid", "quality.val_accuracy"));
    check(0).says("the lowest val_accuracy would be the best").says("`mode: max`");
    project.write(
        "p.yaml",
        (sweep() + JUDGED).replace("by: quality.fid", "by: quality.val_accuracy, mode: max"),
    );
    assert!(!check(0).stderr().contains("warning"));
    project.write(
        "p.yaml",
        sweep().replace("keep_last_n: null", "keep_last_n: null, monitor: val_accuracy"),
    );
    check(2).says("checkpoint.monitor: the training reports no `val_accuracy`; it reports train_loss, val_loss");
}

#[test]
fn by_and_monitor_are_two_words_for_the_same_choice() {
    let project = Project::new();
    project.write(
        "p.yaml",
        sweep() + "  winner: { kind: select_best, over: base, monitor: val_loss }\n",
    );
    project.pipe(&["run", "p.yaml"]).succeeds().says("val_loss");
    project
        .write("p.yaml", sweep() + "  winner: { kind: select_best, over: base, by: val_loss }\n");
    project.pipe(&["run", "p.yaml"]).succeeds().says("everything is up to date");
    // On the command line either replaces the other.
    project
        .pipe(&["plan", "p.yaml", "--set", "winner.monitor=train_loss"])
        .succeeds()
        .says("val_loss");
}
