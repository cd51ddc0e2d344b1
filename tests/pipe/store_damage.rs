//! A project with a store in which something is damaged or lost: what the store has comes back, and
//! nothing goes from there for that.

use std::os::unix::fs::{FileExt, MetadataExt};

use crate::project::Project;

const RUN: &str = "checkpoints/base_training/run_001";
const FILE: &str = "
name: f
stages:
  data: { kind: dataset, source: shapes, image_size: 8, num_images: 32 }
  base:
    kind: train
    dataset: data
    epochs: 4
    batch_size: 16
    learning_rate: 3.0e-3
    model: { dim: 16, mults: [1], depths: [1], heads: 2, window: 4 }
  best: { kind: copy_best, from: base, to: out/best.ckpt }
";

/// A trained project whose store is the folder `nas` in it.
fn trained(arguments: &[&str]) -> Project {
    let project = Project::new();
    let store = format!("file://{}", project.path("nas").display());
    let project = project.environment("PIPE_STORE", store);
    project.write("p.yaml", FILE);
    project.pipe(&[&["run", "-q", "p.yaml"], arguments].concat()).succeeds();
    project
}

fn flip(project: &Project, file: &str) {
    let file = std::fs::File::options().write(true).open(project.path(file)).unwrap();
    file.write_all_at(b"xxxx", 9000).unwrap();
}

/// The objects of the store that are checkpoints of one epoch.
fn stored(project: &Project, epoch: u64) -> usize {
    let names = project.list(&format!("nas/f/{RUN}/checkpoints"));
    names.iter().filter(|name| name.starts_with(&format!("epoch_{epoch:03}-"))).count()
}

fn epochs(project: &Project) -> Vec<u64> {
    let listed = project.metadata(RUN)["checkpoints"].as_array().unwrap().clone();
    listed.iter().map(|checkpoint| checkpoint["epoch"].as_u64().unwrap()).collect()
}

#[test]
fn a_checkpoint_that_was_set_aside_comes_back_with_its_line_and_its_names() {
    let project = trained(&["--epochs", "6"]);
    let newest = format!("{RUN}/checkpoints/epoch_006.ckpt");
    let metadata = project.read(&format!("{RUN}/metadata.json"));
    let whole = std::fs::read(project.path(&newest)).unwrap();
    let all = epochs(&project);
    let names = project.list(&format!("{RUN}/checkpoints"));
    flip(&project, &newest);
    project.pipe(&["verify"]).exits(1);
    project.pipe(&["verify", "--repair"]).succeeds().says("epoch_006.ckpt.damaged");
    // Without a store the run is whole, and goes on from what is left.
    assert!(!epochs(&project).contains(&6));
    project.pipe(&["verify"]).succeeds();

    project.pipe(&["plan", "p.yaml", "--epochs", "6"]).succeeds().says("up to date, run 001");
    project.pipe(&["run", "p.yaml", "--epochs", "6"]).succeeds().says("everything is up to date");
    assert!(std::fs::read(project.path(&newest)).unwrap() == whole);
    assert_eq!(epochs(&project), all);
    assert_eq!(project.read(&format!("{RUN}/metadata.json")), metadata);
    let last = project.path(&format!("{RUN}/checkpoints/last.ckpt"));
    let ino = |path| std::fs::metadata(path).unwrap().ino();
    assert_eq!(ino(last), ino(project.path(&newest)));
    let left = project.list(&format!("{RUN}/checkpoints"));
    assert_eq!(left.len(), names.len() + 1, "{left:?}");
    assert_eq!(stored(&project, 6), 1);
    project.pipe(&["verify"]).succeeds();
    project.pipe(&["run", "p.yaml", "--epochs", "6"]).succeeds().says("everything is up to date");
    assert_eq!(stored(&project, 6), 1);
}

#[test]
fn a_run_that_goes_on_after_a_repair_has_all_in_the_store() {
    let project = trained(&["--epochs", "3"]);
    flip(&project, &format!("{RUN}/checkpoints/epoch_003.ckpt"));
    project.pipe(&["verify", "--repair"]).succeeds();
    let more = ["run", "-q", "p.yaml", "--epochs", "5"];
    project.pipe(&[&more[..], &["--store", "none"]].concat()).succeeds();
    let epoch = |epoch: u64| project.path(&format!("{RUN}/checkpoints/epoch_{epoch:03}.ckpt"));
    let expected = std::fs::read(epoch(5)).unwrap();
    project.pipe(&more).succeeds();
    assert!(std::fs::read(epoch(5)).unwrap() == expected);
    let standing = epochs(&project);
    assert!(standing.contains(&5), "{standing:?}");
    std::fs::remove_dir_all(project.path("checkpoints")).unwrap();
    project.pipe(&more).succeeds();
    assert_eq!(epochs(&project), standing);
    assert!(std::fs::read(epoch(5)).unwrap() == expected);
    project.pipe(&["verify"]).succeeds();
}

#[test]
fn metadata_and_copies_that_were_damaged_come_back_as_they_were() {
    let project = trained(&[]);
    let path = format!("{RUN}/metadata.json");
    let metadata = project.read(&path);
    let copy = std::fs::read(project.path("out/best.ckpt")).unwrap();
    project.write(&path, "{");
    project.write("out/best.ckpt", "mine");
    project.pipe(&["verify", "--repair"]).succeeds().says("out/best.ckpt.damaged");
    project.pipe(&["run", "p.yaml"]).succeeds().says("everything is up to date");
    assert_eq!(project.read(&path), metadata);
    assert!(std::fs::read(project.path("out/best.ckpt")).unwrap() == copy);
    project.pipe(&["verify"]).succeeds();
}

const PROGRAM: &str = "
name: c
stages:
  base: { kind: trainer, run: sh train.sh, inputs: [train.sh], epochs: 1 }
  best: { kind: copy_best, from: base, to: out/model.bin }
";

/// Two machines with one store. A checkpoint is what `make` leaves in `$scratch/s`.
fn machines(make: &str) -> [Project; 2] {
    let nas = tempfile::tempdir().unwrap().keep();
    let script = format!(
        "set -e
scratch=$(pipe job get scratch)
for e in $(pipe job epochs); do
  {make}
  pipe job epoch $e --metric train_loss=0.$((9-e)) --checkpoint $scratch/s > /dev/null
done
"
    );
    let folder = std::path::Path::new(env!("CARGO_BIN_EXE_pipe")).parent().unwrap().to_owned();
    let path = format!("{}:{}", folder.display(), std::env::var("PATH").unwrap());
    [(); 2].map(|()| {
        let project = Project::new()
            .environment("PIPE_STORE", format!("file://{}", nas.display()))
            .environment("PATH", &path);
        project.write("p.yaml", PROGRAM);
        project.write("train.sh", &script);
        project
    })
}

#[test]
fn a_copy_and_the_header_beside_it_go_together() {
    for (make, inner) in [
        ("echo $e > $scratch/s", ""),
        ("mkdir -p $scratch/s/in; echo $e > $scratch/s/in/w", "/in/w"),
    ] {
        let [a, b] = machines(make);
        let content = format!("out/model.bin{inner}");
        a.pipe(&["run", "-q", "p.yaml"]).succeeds();
        b.pipe(&["run", "-q", "p.yaml", "--epochs", "2"]).succeeds();
        a.pipe(&["run", "p.yaml", "--epochs", "2"]).succeeds().says("everything is up to date");
        assert_eq!((a.read(&content), b.read(&content)), ("2\n".into(), "2\n".into()));
        assert_eq!(a.read("out/model.bin.json"), b.read("out/model.bin.json"));
        // Where all is lost it comes back as it was.
        std::fs::remove_dir_all(a.path("out")).unwrap();
        a.pipe(&["run", "p.yaml", "--epochs", "2"]).succeeds().says("everything is up to date");
        assert_eq!(a.read("out/model.bin.json"), b.read("out/model.bin.json"));
        assert_eq!(a.read(&content), "2\n");
        a.pipe(&["run", "-q", "p.yaml", "--epochs", "3"]).succeeds();
        b.pipe(&["run", "p.yaml", "--epochs", "3"]).succeeds().says("everything is up to date");
        assert_eq!((a.read(&content), b.read(&content)), ("3\n".into(), "3\n".into()));
        b.pipe(&["verify"]).succeeds();
    }
}
