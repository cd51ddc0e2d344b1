//! A part of a run once more: `pipe ckpt again`, `pipe audit`, `pipe replay`. What they compute is
//! what the run computed, and the run stays as it was.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use burn_pipe::pipe_fs::Disk;
use burn_pipe::pipe_runs::{Checkpoint, checkpoint};
use image::{Rgb, RgbImage};
use serde_json::Value;

use crate::chain::{CHAIN, LORA};
use crate::project::{Ended, Project, TINY, all_tensors};
use crate::resume::{delays, kill_after};

const RUN: &str = "checkpoints/base_training/run_001";
const LAST_ONLY: &str = "    checkpoint: { keep_last_n: 1 }\n";

/// The tiny training of six epochs that keeps the last checkpoint and the best, which falls with
/// the loss, so that they are one.
fn trained(keys: &str) -> Project {
    let project = Project::new();
    project.write("p.yaml", format!("{TINY}{keys}"));
    project.pipe(&["run", "p.yaml", "--epochs=6"]).succeeds();
    project
}

/// Every file below a folder with its content, but locks.
fn files(project: &Project, folder: &str) -> BTreeMap<String, Vec<u8>> {
    fn walk(folder: &Path, top: &Path, found: &mut BTreeMap<String, Vec<u8>>) {
        for entry in std::fs::read_dir(folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, top, found);
            } else if path.extension().is_none_or(|end| end != "lock") {
                let name = path.strip_prefix(top).unwrap().display().to_string();
                found.insert(name, std::fs::read(&path).unwrap());
            }
        }
    }
    let (top, mut found) = (project.path(folder), BTreeMap::new());
    walk(&top, &top, &mut found);
    found
}

/// The run, and what the state notes of it; what is measured once for a machine is none of it.
fn state(project: &Project) -> BTreeMap<String, Vec<u8>> {
    let mut all = files(project, "checkpoints");
    all.extend(files(project, ".pipe").into_iter().filter(|(name, _)| !name.starts_with("cache")));
    all
}

fn bytes_of(project: &Project, path: &str) -> Vec<u8> {
    std::fs::read(project.path(path)).unwrap()
}

fn kept(project: &Project, run: &str) -> Vec<u64> {
    let metadata = project.metadata(run);
    let listed = metadata["checkpoints"].as_array().unwrap().iter();
    listed.map(|c| c["epoch"].as_u64().unwrap()).collect()
}

/// An epoch that a run keeps no checkpoint of.
fn removed(project: &Project, run: &str) -> u64 {
    let kept = kept(project, run);
    (1..6).rev().find(|epoch| !kept.contains(epoch)).unwrap()
}

/// Changes a run's metadata, as a person or an earlier version would have written them.
fn edit(project: &Project, run: &str, change: impl FnOnce(&mut Value)) {
    let mut metadata = project.metadata(run);
    metadata.as_object_mut().unwrap().remove("checksum");
    change(&mut metadata);
    project.write(&format!("{run}/metadata.json"), metadata.to_string());
}

fn json_of(ended: &Ended) -> Value {
    serde_json::from_str(&ended.stdout()).unwrap()
}

#[test]
fn a_removed_checkpoint_comes_back_as_the_same_file() {
    let project = trained(LAST_ONLY);
    let epoch = removed(&project, RUN);
    let (before, bytes) = (project.metadata(RUN), state(&project));
    let number = epoch.to_string();
    let again =
        |more: &[&str]| project.pipe(&[&["ckpt", "again", "1", "--epoch", &number], more].concat());

    // Elsewhere first: the run stays as it was.
    let aside = again(&["-o", "aside.ckpt"]).succeeds();
    aside.says("the same file as then, byte for byte");
    assert!(state(&project) == bytes, "the run changed");
    again(&["-o", "aside.ckpt"]).exits(2).says("--overwrite");

    let name = format!("{RUN}/checkpoints/epoch_{epoch:03}.ckpt");
    again(&[]).succeeds().says("the same file as then").says(&name);
    let after = project.metadata(RUN);
    let saved = &before["history"][epoch as usize - 1]["saved"];
    let listed = after["checkpoints"].as_array().unwrap();
    let record = listed.iter().find(|c| c["epoch"] == epoch).unwrap();
    assert_eq!(record["digest"], saved["digest"]);
    assert_eq!(record["saved_at"], saved["saved_at"]);
    assert!(bytes_of(&project, &name) == bytes_of(&project, "aside.ckpt"));
    project.pipe(&["ckpt", "verify", &name]).succeeds();
    for key in ["history", "best_checkpoint", "status", "identity", "settings", "epochs"] {
        assert_eq!(after[key], before[key], "{key}");
    }
    // Beside that file and the metadata nothing is another one.
    let mut now = state(&project);
    let own = [format!("epoch_{epoch:03}.ckpt"), "metadata.json".into(), "previous".into()];
    now.retain(|name, _| !own.iter().any(|own| name.ends_with(own)));
    let mut then = bytes;
    then.retain(|name, _| !own.iter().any(|own| name.ends_with(own)));
    assert!(now == then);

    // It is what a run that keeps all has.
    let all = trained("    checkpoint: { keep_last_n: null }\n");
    assert!(all_tensors(&project.path(&name)) == all_tensors(&all.path(&name)));

    // It stays when the run goes on, and is not made twice.
    again(&[]).succeeds().says("it stands");
    project.pipe(&["run", "p.yaml", "--epochs=8"]).succeeds();
    assert!(kept(&project, RUN).contains(&epoch), "{:?}", kept(&project, RUN));
    project.pipe(&["verify"]).succeeds();
    // Of a run that was extended the header says so, and the tensors are the same.
    let other = (1..8).rev().find(|e| !kept(&project, RUN).contains(e)).unwrap().to_string();
    project.pipe(&["ckpt", "again", "1", "--epoch", &other]).succeeds().says("the same");
}

#[test]
fn what_cannot_be_recomputed_is_refused_and_says_why() {
    let project = trained(LAST_ONLY);
    let bytes = state(&project);
    let again = |epoch: &str, more: &[&str]| {
        project.pipe(&[&["ckpt", "again", "1", "--epoch", epoch], more].concat())
    };
    again("9", &[]).exits(2).says("run 001 has not completed epoch 9: it has come to epoch 6");
    project.pipe(&["ckpt", "again", "7", "--epoch", "1"]).exits(2).says("there is no run 7");
    assert!(state(&project) == bytes);

    // Another device.
    let epoch = removed(&project, RUN).to_string();
    edit(&project, RUN, |m| m["device"] = "NVIDIA H100 (Vulkan)".into());
    let refused = again(&epoch, &[]).exits(2).says("another device computes other bits");
    refused.says("run 001 was trained on NVIDIA H100 (Vulkan), and this is cpu (flex)");
    again(&epoch, &["--any-device"]).succeeds().says("the bits may differ");

    // A digest that is another one: nothing is written.
    let project = trained(LAST_ONLY);
    let epoch = removed(&project, RUN);
    let other = format!("blake3:{}", "0".repeat(64));
    edit(&project, RUN, |m| {
        let saved = &mut m["history"][epoch as usize - 1]["saved"];
        (saved["digest"], saved["state_digest"]) = (other.clone().into(), other.clone().into());
    });
    let bytes = state(&project);
    let (number, file) = (epoch.to_string(), project.path("x.ckpt"));
    let arguments = ["ckpt", "again", "1", "--epoch", &number];
    project.pipe(&arguments).exits(1).says("came out otherwise").says("the run is as it was");
    project.pipe(&[&arguments[..], &["-o", "x.ckpt"]].concat()).exits(1);
    assert!(state(&project) == bytes && !file.exists());

    // A run of an earlier version, which noted no digest.
    edit(&project, RUN, |m| {
        for epoch in m["history"].as_array_mut().unwrap() {
            epoch.as_object_mut().unwrap().remove("saved");
        }
    });
    project.pipe(&arguments).succeeds().says("no digest on record");
}

#[test]
fn a_run_that_is_being_trained_is_left_alone() {
    let project = Project::new();
    project.write("p.yaml", format!("{TINY}{LAST_ONLY}"));
    let mut child = project.start(&["run", "p.yaml", "--epochs=5000"]);
    let deadline = Instant::now() + Duration::from_secs(60);
    let is_far = || {
        let text = std::fs::read_to_string(project.path(&format!("{RUN}/metadata.json")));
        let metadata: Option<Value> = text.ok().and_then(|t| serde_json::from_str(&t).ok());
        metadata.is_some_and(|m| m["history"].as_array().is_some_and(|h| h.len() > 4))
    };
    while !is_far() {
        assert!(Instant::now() < deadline, "no fifth epoch after a minute");
        std::thread::sleep(Duration::from_millis(10));
    }
    let refused = project.pipe(&["ckpt", "again", "1", "--epoch", "2"]);
    child.kill().unwrap();
    child.wait().unwrap();
    refused.exits(2).says("run 001 is being trained by").says("wait for it");
    // Once it was cut off, nobody trains in it.
    project.pipe(&["ckpt", "again", "1", "--epoch", "2"]).succeeds().says("the same file");
}

#[test]
fn other_images_than_the_runs_are_refused() {
    let project = Project::new();
    pictures(&project, 16);
    let pipeline = TINY
        .replace(
            "source: shapes\n    classes: [circle, square]",
            "source: image_folder\n    root: images",
        )
        .replace("    num_images: 64\n", "")
        .replace("batch_size: 16", "batch_size: 4");
    project.write("p.yaml", format!("{pipeline}{LAST_ONLY}"));
    project.pipe(&["run", "p.yaml", "--epochs=6"]).succeeds();
    let epoch = removed(&project, RUN).to_string();
    let picture = bytes_of(&project, "images/a/00.png");
    RgbImage::from_pixel(8, 8, Rgb([1, 2, 3])).save(project.path("images/a/00.png")).unwrap();
    let bytes = state(&project);
    let refused = project.pipe(&["ckpt", "again", "1", "--epoch", &epoch]).exits(1);
    refused.says("run 001 was trained on other images").says("put the old images back");
    project.pipe(&["audit", "1"]).exits(1).says("on other images");
    assert!(state(&project) == bytes);
    project.write("images/a/00.png", picture);
    project.pipe(&["ckpt", "again", "1", "--epoch", &epoch]).succeeds().says("the same file");
}

#[test]
fn killed_at_any_moment_it_loses_nothing() {
    let project = trained(LAST_ONLY);
    let epoch = removed(&project, RUN);
    let (number, bytes) = (epoch.to_string(), state(&project));
    let arguments = ["ckpt", "again", "1", "--epoch", &number];
    let began = Instant::now();
    project.pipe(&[&arguments[..], &["-o", "aside.ckpt"]].concat()).succeeds();
    let took = began.elapsed().as_millis() as u64;
    let mut killed = 0;
    for delay in delays(20, took + 50).take(25) {
        if kept(&project, RUN).contains(&epoch) {
            break;
        }
        // What comes to its end is over: the first ones are killed well before.
        let delay = if killed < 4 { delay / 3 } else { delay };
        killed += u32::from(kill_after(&project, &arguments, delay));
        let now = project.metadata(RUN);
        if !kept(&project, RUN).contains(&epoch) {
            let run = |all: &BTreeMap<String, Vec<u8>>| {
                let own = |(name, _): &(&String, &Vec<u8>)| {
                    let passing = [&format!("epoch_{epoch:03}"), ".tmp-", "previous"];
                    name.starts_with("base_training") && !passing.iter().any(|p| name.contains(*p))
                };
                all.iter().filter(own).map(|(n, b)| (n.clone(), b.clone())).collect::<Vec<_>>()
            };
            assert!(run(&state(&project)) == run(&bytes), "{now:#}");
        }
    }
    assert!(killed > 3, "{killed}");
    project.pipe(&arguments).succeeds();
    project.pipe(&["verify"]).succeeds();
    assert!(
        all_tensors(&project.path("aside.ckpt")) == {
            all_tensors(&project.path(&format!("{RUN}/checkpoints/epoch_{epoch:03}.ckpt")))
        }
    );
    // What those that were killed left is gone.
    let left = project.list(".pipe/again");
    assert!(left.iter().all(|name| name.ends_with(".lock")), "{left:?}");
}

#[test]
fn an_honest_run_passes_an_audit_and_stays_as_it_was() {
    let project = trained("    checkpoint: { keep_last_n: 3 }\n");
    let bytes = state(&project);
    project.pipe(&["audit", "1"]).succeeds().says("epochs 6 to 6: the same, bit for bit");
    project.pipe(&["audit", "1", "--from", "4"]).succeeds().says("epochs 5 to 6: the same");
    let found = project.pipe(&["audit", "1", "--from=0", "--to=5", "--json"]).succeeds();
    let found = json_of(&found);
    assert_eq!(
        (&found["same"], &found["from"], &found["to"]),
        (&true.into(), &0.into(), &5.into())
    );
    // Of an epoch whose checkpoint is gone the digest is known.
    project.pipe(&["audit", "1", "--to", "2"]).succeeds().says("epochs 1 to 2: the same");
    assert!(state(&project) == bytes, "an audit changes nothing");
    project.pipe(&["audit", "1", "--from", "2"]).exits(2).says("keeps the checkpoints of 4, 5, 6");
    project.pipe(&["audit", "1", "--to", "7"]).exits(2).says("has not completed epoch 7");
    project.pipe(&["audit", "1", "--from", "6", "--to", "5"]).exits(2);
}

/// Replaces a checkpoint by one that is whole and has other numbers in tensors whose names begin so.
fn tamper(path: &Path, prefix: &str) {
    let mut loaded = Checkpoint::open(path).unwrap().load().unwrap();
    let names: Vec<String> = loaded.names().map(str::to_owned).collect();
    let mut tensors: Vec<_> = names.iter().map(|name| loaded.take(name).unwrap()).collect();
    let one = tensors.iter_mut().find(|t| t.name.starts_with(prefix)).unwrap();
    let first = f32::from_le_bytes(one.bytes[..4].try_into().unwrap()) + 0.5;
    one.bytes[..4].copy_from_slice(&first.to_le_bytes());
    checkpoint::write(&Disk::default(), path, loaded.header(), &tensors).unwrap();
}

#[test]
fn an_audit_names_the_file_and_the_part_that_somebody_changed() {
    for (prefix, part) in [
        ("state_dict.", "weights"),
        ("ema_state_dict.", "EMA weights"),
        ("optimizer_state_dict.", "optimizer's state"),
    ] {
        let project = trained("    checkpoint: { keep_last_n: 3 }\n");
        tamper(&project.path(&format!("{RUN}/checkpoints/epoch_006.ckpt")), prefix);
        let found = project.pipe(&["audit", "1"]).exits(1);
        let found = found.says("epoch_006.ckpt").says("not the file that the run recorded");
        found.says(&format!("{part}: 1 of "));
        let found = json_of(&project.pipe(&["audit", "1", "--json"]).exits(1));
        assert_eq!(
            (&found["same"], found["differences"].as_array().unwrap().len()),
            (&false.into(), 1)
        );
        let largest = found["differences"][0]["largest"].as_f64().unwrap();
        assert!((largest - 0.5).abs() < 1e-6, "{largest}");
    }
    // One that the interval begins with is named, and nothing is trained from it.
    let project = trained("    checkpoint: { keep_last_n: 3 }\n");
    tamper(&project.path(&format!("{RUN}/checkpoints/epoch_005.ckpt")), "state_dict.");
    project.pipe(&["audit", "1"]).exits(1).says("epoch_005.ckpt");
    // So is a damaged one.
    let path = format!("{RUN}/checkpoints/epoch_006.ckpt");
    let mut bytes = bytes_of(&project, &path);
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(project.path(&path), bytes).unwrap();
    project.pipe(&["audit", "1", "--from", "4"]).exits(1).says("epoch_006.ckpt");
}

/// `train_loss_step` by step, as the logs have it.
fn logged(project: &Project) -> BTreeMap<u64, f64> {
    let text = project.read(&format!("{RUN}/logs/metrics.jsonl"));
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines
        .filter_map(|line| {
            Some((
                line["step"].as_u64()?,
                line["metrics"]["train_loss_step"].as_f64().or(line["train_loss_step"].as_f64())?,
            ))
        })
        .collect()
}

#[test]
fn a_step_s_images_have_the_loss_that_the_logs_have() {
    let project = trained(LAST_ONLY);
    let (logged, bytes) = (logged(&project), state(&project));
    assert_eq!(logged.len(), 24, "{logged:?}");
    for step in [1u64, 6, 24] {
        let ended =
            project.pipe(&["replay", "1", "--step", &step.to_string(), "--json"]).succeeds();
        let found = json_of(&ended)["step"].clone();
        assert_eq!((&found["step"], &found["epoch"]), (&step.into(), &step.div_ceil(4).into()));
        assert_eq!(found["loss"].as_f64().unwrap(), logged[&step], "step {step}");
        let images = found["images"].as_array().unwrap();
        assert_eq!(images.len(), 16);
        let of = |key: &str| images.iter().map(|i| i[key].as_f64().unwrap()).collect::<Vec<_>>();
        let mean = of("loss").iter().sum::<f64>() / 16.0;
        assert!((mean - logged[&step]).abs() < 1e-4 * mean, "{mean} {}", logged[&step]);
        assert!(of("sigma").iter().all(|sigma| *sigma > 0.0));
        assert!(of("gradient_norm").iter().all(|norm| *norm > 0.0));
        // The gradient of the mean is at most as long as the mean of the gradients.
        let norms = of("gradient_norm").iter().sum::<f64>() / 16.0;
        assert!(found["gradient_norm"].as_f64().unwrap() <= norms * 1.001);
        let mut indices = of("index");
        indices.sort_by(f64::total_cmp);
        indices.dedup();
        assert_eq!(indices.len(), 16, "each image once");
    }
    let ended = project.pipe(&["replay", "1", "--from=5", "--to=12", "--json"]).succeeds();
    for step in json_of(&ended)["steps"].as_array().unwrap() {
        assert_eq!(step["loss"].as_f64().unwrap(), logged[&step["step"].as_u64().unwrap()]);
    }
    project.pipe(&["replay", "1", "--step", "6", "-o", "step.png"]).succeeds().says("circle");
    let sheet = image::open(project.path("step.png")).unwrap();
    assert!(sheet.height() > 16 * 8, "a row for each image");
    assert!(state(&project) == bytes, "a replay changes nothing");
    project.pipe(&["replay", "1", "--step", "25"]).exits(2).says("it has come to step 24");
    project.pipe(&["replay", "1"]).exits(2);
}

/// Plain pictures of two classes, `count` of each.
fn pictures(project: &Project, count: u32) {
    for (class, shade) in [("a", 120u8), ("b", 136)] {
        std::fs::create_dir_all(project.path(&format!("images/{class}"))).unwrap();
        for number in 0..count {
            let shade = shade.wrapping_add(number as u8 % 4);
            let path = project.path(&format!("images/{class}/{number:02}.png"));
            RgbImage::from_pixel(8, 8, Rgb([shade, shade, 128])).save(path).unwrap();
        }
    }
}

#[test]
fn a_poisoned_image_is_found_by_the_jump_of_the_loss() {
    let project = Project::new();
    pictures(&project, 16);
    let noise = RgbImage::from_fn(8, 8, |x, y| {
        let hash = (x * 2_654_435_761) ^ (y * 40_503 + 977).wrapping_mul(2_246_822_519);
        Rgb([0, 1, 2].map(|c| if (hash >> (7 + 5 * c)) & 1 == 1 { 255 } else { 0 }))
    });
    noise.save(project.path("images/a/07.png")).unwrap();
    let pipeline = TINY
        .replace(
            "source: shapes\n    classes: [circle, square]",
            "source: image_folder\n    root: images",
        )
        .replace("    num_images: 64\n", "")
        .replace("batch_size: 16", "batch_size: 4\n    learning_rate: 3e-3");
    project.write("p.yaml", format!("{pipeline}{LAST_ONLY}"));
    project.pipe(&["run", "p.yaml", "--epochs=24"]).succeeds();
    // Three epochs, of eight steps each, behind those that it learned in.
    let ended = project.pipe(&["replay", "1", "--from=169", "--to=192", "--json"]).succeeds();
    let found = json_of(&ended);
    assert_eq!(found["is_certain"], true, "{:#}", found["jump"]);
    let steps = found["steps"].as_array().unwrap();
    let jump = steps.iter().find(|step| step["step"] == found["jump"]["step"]).unwrap();
    let images = jump["images"].as_array().unwrap().iter();
    let loss = |image: &&Value| image["loss"].as_f64().unwrap();
    let worst = images.max_by(|a, b| loss(a).total_cmp(&loss(b))).unwrap();
    assert!(worst["file"].as_str().unwrap() == "images/a/07.png", "{worst}");
    let ended = project.pipe(&["replay", "1", "--from=169", "--to=192"]).succeeds();
    ended.says("the loss jumped at step").says("images/a/07.png");
}

#[test]
fn what_was_trained_before_a_change_inside_the_run_is_refused() {
    let project = Project::new();
    project.write("p.yaml", format!("{TINY}    checkpoint: {{ keep_last_n: null }}\n"));
    project.pipe(&["run", "p.yaml", "--epochs=4"]).succeeds();
    let more =
        ["run", "p.yaml", "--run-number=1", "--resume", "--epochs=6", "--learning-rate=1e-4"];
    project.pipe(&more).succeeds().says("goes on with changed settings");
    project.pipe(&["audit", "1"]).succeeds().says("epochs 6 to 6: the same, bit for bit");
    project.pipe(&["audit", "1", "--from=4"]).succeeds().says("epochs 5 to 6: the same");
    let refused = project.pipe(&["audit", "1", "--from=3"]).exits(2);
    refused.says("went on with changed settings from epoch 5: learning_rate");
    std::fs::remove_file(project.path(&format!("{RUN}/checkpoints/epoch_002.ckpt"))).unwrap();
    project.pipe(&["ckpt", "again", "1", "--epoch=2"]).exits(2).says("changed settings");
}

#[test]
fn lora_is_recomputed_audited_and_replayed_as_well() {
    let project = Project::new();
    let pipeline =
        CHAIN.replace("    epochs: 3\n", "    epochs: 6\n    checkpoint: { keep_last_n: 1 }\n");
    project.write("p.yaml", pipeline);
    project.pipe(&["run", "p.yaml", "lora"]).succeeds();
    let (epoch, bytes) = (removed(&project, LORA), state(&project));
    project.pipe(&["audit", "lora/1", "--from", "0"]).succeeds().says("the same, bit for bit");
    project.pipe(&["replay", "lora/1", "--step", "7"]).succeeds().says("sigma");
    assert!(state(&project) == bytes);
    let number = epoch.to_string();
    let again = project.pipe(&["ckpt", "again", "lora/1", "--epoch", &number]).succeeds();
    again.says("the same file as then, byte for byte");
    let name = format!("{LORA}/checkpoints/epoch_{epoch:03}.ckpt");
    project.pipe(&["ckpt", "probe", &name]).succeeds();
}

#[cfg(unix)]
#[test]
fn a_program_s_checkpoint_is_recomputed_where_it_resumes_to_the_bit() {
    const RUN: &str = "checkpoints/trainer/run_001";
    for folder in [false, true] {
        let project = Project::new();
        let keys =
            format!("    checkpoint: {{ keep_last_n: 1 }}\n    settings: {{ folder: {folder} }}\n");
        project.write("p.yaml", crate::trainer::stage(&keys));
        project.pipe(&["run", "p.yaml", "--epochs=6"]).succeeds();
        let epoch = removed(&project, RUN);
        let bytes = state(&project);
        project.pipe(&["audit", "1", "--from", "0"]).succeeds().says("the same, bit for bit");
        project.pipe(&["replay", "1", "--step", "3"]).exits(2).says("a program of its own");
        assert!(state(&project) == bytes);
        let number = epoch.to_string();
        let again = project.pipe(&["ckpt", "again", "1", "--epoch", &number]).succeeds();
        again.says("the same file as then");
        let name = format!("{RUN}/checkpoints/epoch_{epoch:03}.ckpt");
        project.pipe(&["ckpt", "verify", &name]).succeeds();
        assert!(kept(&project, RUN).contains(&epoch));
    }
}
