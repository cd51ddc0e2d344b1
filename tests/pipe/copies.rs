//! Copies of checkpoints outside of their run: whoever writes to one damages nothing else.

use std::fs::Metadata;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::Path;

use crate::chain::{BASE, CHAIN, LORA, chain, results};
use crate::project::{Project, TINY, all_tensors};

const RUN: &str = "checkpoints/base_training/run_001";

fn file(project: &Project, name: &str) -> Metadata {
    std::fs::metadata(project.path(name)).unwrap()
}

fn overwrite(path: &Path) {
    let file = std::fs::File::options().write(true).open(path).unwrap();
    file.write_all_at(b"XXXXXXXX", 9000).unwrap();
}

#[test]
fn who_writes_to_a_copy_damages_that_copy_alone() {
    let project = chain();
    let plan = project.pipe(&["run", "p.yaml", "base", "-q"]).succeeds();
    drop(plan);
    project.pipe(&["plan", "p.yaml"]).says(&format!("{BASE} is not there; copies 1."));
    project.pipe(&["run", "p.yaml", "best", "-q"]).succeeds();
    project.pipe(&["plan", "p.yaml"]).says("no run yet; copies 1.");
    project.pipe(&["run", "p.yaml", "-q"]).succeeds();
    let expected = results(&project);
    let base = format!("{LORA}/base_model.ckpt");
    let own = format!("{RUN}/checkpoints/epoch_002.ckpt");
    for name in [BASE, &base] {
        assert_eq!(file(&project, name).nlink(), 1, "{name}");
    }
    // A run's own names may be of one file.
    assert_eq!(file(&project, &own).nlink(), 3);
    overwrite(&project.path(BASE));
    for name in [&base, &own, &format!("{RUN}/checkpoints/best.ckpt")] {
        project.pipe(&["ckpt", "verify", name]).succeeds();
    }
    let refused = project.pipe(&["run", "p.yaml", "-q"]).exits(2);
    refused.says("is not as this stage made it; move it away (`pipe verify --repair` does)");
    project.pipe(&["verify", "--repair"]).succeeds();
    project.pipe(&["run", "p.yaml", "-q"]).succeeds();
    project.pipe(&["verify"]).succeeds();
    assert!(results(&project) == expected);
}

#[test]
fn a_hard_link_is_made_on_request_and_is_read_only() {
    let project = chain();
    project.write("p.yaml", CHAIN.replace("kind: copy_best,", "kind: copy_best, link: hard,"));
    let copies = project.pipe(&["plan", "p.yaml"]).stdout();
    assert!(!copies.contains("copies"), "{copies}");
    project.pipe(&["run", "p.yaml", "-q"]).succeeds();
    let own = file(&project, &format!("{RUN}/checkpoints/epoch_002.ckpt"));
    let copy = file(&project, BASE);
    assert_eq!((copy.ino(), copy.permissions().mode() & 0o222), (own.ino(), 0));
    project.pipe(&["verify"]).succeeds();
    // LoRA's base is a file of its own all the same, and can be written.
    assert_eq!(file(&project, &format!("{LORA}/base_model.ckpt")).nlink(), 1);
    // Going on, pruning and copying again work.
    let more =
        ["run", "p.yaml", "-q", "--set", "base.epochs=6", "--set", "base.checkpoint.keep_last_n=1"];
    project.pipe(&more).succeeds();
    assert!(project.list(&format!("{RUN}/checkpoints")).len() <= 4);
    project.pipe(&["verify"]).succeeds();
    // The setting decides nothing: what is there stays.
    project.write("p.yaml", CHAIN);
    let again = more.iter().filter(|word| **word != "-q").copied().collect::<Vec<_>>();
    assert!(project.pipe(&again).succeeds().stdout().contains("everything is up to date"));
    project.write("p.yaml", CHAIN.replace("kind: copy_best,", "kind: copy_best, link: soft,"));
    project.pipe(&["check", "p.yaml"]).exits(2).says("link");
}

#[test]
fn what_an_earlier_version_linked_is_told_and_separated() {
    let project = chain();
    project.pipe(&["run", "p.yaml", "-q"]).succeeds();
    let expected = all_tensors(&project.path(BASE));
    let own = project.path(&format!("{RUN}/checkpoints/epoch_002.ckpt"));
    let base = format!("{LORA}/base_model.ckpt");
    for name in [BASE, &base] {
        std::fs::remove_file(project.path(name)).unwrap();
        std::fs::hard_link(&own, project.path(name)).unwrap();
    }
    assert!(
        project.pipe(&["run", "p.yaml"]).succeeds().stdout().contains("everything is up to date")
    );
    let said = project.pipe(&["verify"]).succeeds().stdout();
    assert!(
        said.contains(&format!("shared {BASE}")) && said.contains(&format!("shared {base}")),
        "{said}"
    );
    project
        .pipe(&["verify", "--repair"])
        .succeeds()
        .says(&format!("made {BASE} a file of its own"));
    for name in [BASE, &base] {
        assert_eq!(file(&project, name).nlink(), 1, "{name}");
    }
    assert!(!project.pipe(&["verify"]).succeeds().stdout().contains("shared"));
    assert!(
        project.pipe(&["run", "p.yaml"]).succeeds().stdout().contains("everything is up to date")
    );

    // Damaged through one of its names, it is damaged under all.
    for name in [BASE, &base] {
        std::fs::remove_file(project.path(name)).unwrap();
        std::fs::hard_link(&own, project.path(name)).unwrap();
    }
    overwrite(&own);
    let said = project.pipe(&["verify"]).exits(1).stdout();
    for name in [BASE, &base, &format!("{RUN}/checkpoints/epoch_002.ckpt")] {
        assert!(said.contains(&format!("damaged {name}")), "{name}: {said}");
    }
    project.pipe(&["verify", "--repair"]).succeeds();
    // The base is trained again and is another file; the first adapters keep their run, which
    // nothing can be done with.
    project.pipe(&["run", "p.yaml", "-q"]).succeeds();
    project
        .pipe(&["verify"])
        .exits(1)
        .says(&format!("damaged {base}: it is not there"))
        .says("but to remove it");
    project.pipe(&["runs", "rm", "lora/1"]).succeeds();
    project.pipe(&["verify"]).succeeds();
    assert!(all_tensors(&project.path(BASE)) == expected);
}

#[test]
fn a_copy_under_another_name_is_another_copy() {
    let project = Project::new();
    let copies = |a: &str, b: &str| {
        format!(
            "{TINY}  one: {{ kind: copy_best, from: base, select: {{ epoch: 1 }}, to: {a} }}\n  \
             two: {{ kind: copy_best, from: base, select: {{ epoch: 2 }}, to: {b} }}\n"
        )
    };
    let epoch = |name: &str| {
        let shown = project.pipe(&["ckpt", "show", "--json", name]).succeeds().stdout();
        serde_json::from_str::<serde_json::Value>(&shown).unwrap()["epoch"].as_u64().unwrap()
    };
    project.write("p.yaml", copies("x.ckpt", "y.ckpt"));
    project.pipe(&["run", "p.yaml"]).succeeds();
    project.write("p.yaml", copies("z.ckpt", "y.ckpt"));
    project.pipe(&["plan", "p.yaml"]).succeeds().says("to x.ckpt -> z.ckpt");
    project.pipe(&["run", "p.yaml"]).succeeds();
    assert_eq!(epoch("z.ckpt"), 1);
    // Each in the place of the other: refused, since one of them is made by nobody else.
    project.write("p.yaml", copies("y.ckpt", "z.ckpt"));
    project.pipe(&["run", "p.yaml"]).exits(2).says("y.ckpt exists and was not made by this stage");
    std::fs::remove_file(project.path("y.ckpt")).unwrap();
    std::fs::remove_file(project.path("z.ckpt")).unwrap();
    project.pipe(&["run", "p.yaml"]).succeeds();
    assert_eq!((epoch("y.ckpt"), epoch("z.ckpt")), (1, 2));
    project.pipe(&["run", "p.yaml"]).succeeds().says("everything is up to date");
}
