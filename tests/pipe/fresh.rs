//! One run gives what a fresh build gives, from the command line: chains of programs, names of any
//! script, members that fail, runs that a store would not get.

use crate::project::{Project, TINY};

const CHAIN: &str = "\
name: z
stages:
  a: { kind: command, run: 'echo one > a.txt', outputs: [a.txt] }
  b: { kind: command, run: 'cat a.txt > b.txt', inputs: [a.txt], outputs: [b.txt] }
  c: { kind: command, run: 'cat b.txt > c.txt', inputs: [b.txt], outputs: [c.txt] }
  d: { kind: command, run: 'cat c.txt > d.txt', outputs: [d.txt], needs: c }
";

#[test]
fn an_edit_reaches_the_end_of_a_chain_in_one_run() {
    let project = Project::new();
    project.write("p.yaml", CHAIN);
    project.pipe(&["run", "p.yaml"]).succeeds();
    project.write("p.yaml", CHAIN.replace("echo one", "echo two"));
    let plan = project.pipe(&["plan", "p.yaml", "--json"]).succeeds();
    let plan: serde_json::Value = serde_json::from_str(&plan.stdout()).unwrap();
    let on: Vec<_> =
        plan["steps"].as_array().unwrap().iter().map(|step| step["depends_on"].clone()).collect();
    assert_eq!(on, [serde_json::Value::Null, "a".into(), "b".into(), "c".into()]);
    project.pipe(&["run", "p.yaml"]).succeeds();
    assert_eq!(project.read("c.txt"), "two\n");
    // The last one says by `needs` alone that it comes later: what it reads is not declared.
    assert_eq!(project.read("d.txt"), "one\n");
    assert!(
        project.pipe(&["run", "p.yaml"]).succeeds().stdout().contains("everything is up to date")
    );
}

#[test]
fn what_a_copied_checkpoint_changes_reaches_the_programs_behind_it() {
    let project = Project::new();
    let tail = "  best: { kind: copy_best, from: base, to: best.ckpt }\n  sum: { kind: command, run: 'sha256sum best.ckpt > sum.txt', inputs: [best.ckpt], outputs: [sum.txt] }\n";
    project.write("p.yaml", format!("{TINY}{tail}"));
    project.pipe(&["run", "p.yaml"]).succeeds();
    let before = project.read("sum.txt");
    project.pipe(&["run", "p.yaml", "--seed", "7"]).succeeds();
    assert_ne!(project.read("sum.txt"), before);
}

#[test]
fn pipelines_of_any_script_and_stages_of_any_length_keep_apart() {
    let project = Project::new();
    let stage = "s".repeat(240);
    for (file, name) in [("a.yaml", "模型"), ("b.yaml", "数据")] {
        project.write(file, format!("name: {name}\nstages:\n  {stage}: {{ kind: command, run: 'echo {name} >> ran.txt' }}\n  words: {{ kind: command, run: 'true', matrix: {{ word: [模, 型] }}, env: {{ WORD: '${{matrix.word}}' }} }}\n"));
        project.pipe(&["check", file]).succeeds();
    }
    for _ in 0..2 {
        project.pipe(&["run", "a.yaml"]).succeeds();
        project.pipe(&["run", "b.yaml"]).succeeds();
    }
    assert_eq!(project.read("ran.txt"), "模型\n数据\n");
}

#[test]
fn a_training_that_fails_does_not_keep_the_best_of_the_others() {
    let project = Project::new();
    let sweep = TINY.replace(
        "    dataset: data\n",
        "    dataset: data\n    matrix: { learning_rate: [1.0e-3, 1.0e38] }\n    gradient_clip_val: null\n",
    );
    project.write("p.yaml", format!("{sweep}  winner: {{ kind: select_best, over: base }}\n  best: {{ kind: copy_best, from: winner, to: best.ckpt }}\n"));
    for _ in 0..2 {
        let ended = project.pipe(&["run", "p.yaml", "--keep-going"]).exits(1);
        let said = ended.stderr();
        assert!(said.contains("failed and is passed over"), "{said}");
        assert!(project.path("best.ckpt").exists(), "{said}");
    }
    // Where all of them fail there is no best one.
    project.write(
        "q.yaml",
        project.read("p.yaml").replace("1.0e-3, ", "").replace("name: tiny", "name: other"),
    );
    let ended = project.pipe(&["run", "q.yaml", "--keep-going"]).exits(1);
    assert!(ended.stdout().contains("not begun: winner, best"), "{}", ended.stdout());
}

#[test]
fn runs_that_a_store_would_not_get_are_refused() {
    let outside = tempfile::tempdir().unwrap();
    let base_dir = outside.path().display();
    let project = Project::with(
        "    device: cpu\n",
        &format!("    device: cpu\n    checkpoint: {{ base_dir: {base_dir} }}\n"),
    );
    let store = format!("file://{}", project.path("store").display());
    project.pipe(&["check", "p.yaml"]).succeeds();
    let said = project.pipe(&["plan", "p.yaml", "--store", &store]).exits(2).stderr();
    assert!(
        said.contains("outside of the project") && said.contains("base.checkpoint.base_dir"),
        "{said}"
    );
    project.write("p.yaml", format!("{}store: '{store}'\n", project.read("p.yaml")));
    for command in ["check", "run"] {
        project.pipe(&[command, "p.yaml"]).exits(2);
    }
}
