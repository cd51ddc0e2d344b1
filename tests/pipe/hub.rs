//! `pipe ckpt export --hub`: a folder that a model hub takes, and `pipe sample` reads.

use serde_json::Value;

use crate::chain::{LORA, chain};
use crate::project::{Project, all_tensors};

const BEST: &str = "checkpoints/base_training/run_001/checkpoints/best.ckpt";

fn trained() -> Project {
    let project =
        Project::with("    device: cpu\n", "    device: cpu\n    sample_every_n_epochs: 1\n");
    project.pipe(&["run", "p.yaml"]).succeeds();
    project
}

#[test]
fn the_folder_has_weights_a_configuration_and_a_card_that_says_where_they_come_from() {
    let project = trained();
    project.pipe(&["ckpt", "export", BEST, "--hub", "hub"]).succeeds();
    let names = project.list("hub");
    for name in ["model.safetensors", "config.json", "README.md"] {
        assert!(names.contains(&name.to_owned()), "{names:?}");
    }
    let config: Value = serde_json::from_str(&project.read("hub/config.json")).unwrap();
    assert_eq!(config["classes"], serde_json::json!(["circle", "square"]));
    // The EMA weights, which are sampled from, are the only ones.
    let of = |path: &str, prefix: &str| -> Vec<_> {
        let all = all_tensors(&project.path(path)).into_iter();
        all.filter_map(|(name, bytes)| Some((name.strip_prefix(prefix)?.to_owned(), bytes)))
            .collect()
    };
    let exported = of("hub/model.safetensors", "state_dict.");
    assert!(!exported.is_empty() && exported == of(BEST, "ema_state_dict."));
    assert!(of("hub/model.safetensors", "ema_state_dict.").is_empty());
    let card = project.read("hub/README.md");
    let run = project.metadata("checkpoints/base_training/run_001");
    for piece in [
        run["identity"].as_str().unwrap(),
        run["dataset"]["digest"].as_str().unwrap(),
        "`shapes`: 64 training images",
        "| train_loss |",
        "| `learning_rate` |",
        "circle, square",
    ] {
        assert!(card.contains(piece), "{piece} is not in\n{card}");
    }
    // A picture that the training drew stands beside the card.
    let picture = card.split("](").nth(1).unwrap().split(')').next().unwrap();
    assert!(project.path("hub").join(picture).is_file(), "{picture}");
    let front = card.strip_prefix("---\n").unwrap().split("\n---\n").next().unwrap();
    let front: serde_yaml::Value = serde_yaml::from_str(front).unwrap();
    assert_eq!(front["library_name"].as_str(), Some("burn-pipe"));
    // What the card tells people to type, and the pictures that the run's own checkpoint draws.
    project.pipe(&["sample", "hub/model.safetensors", "--n", "16", "-o", "samples.png"]).succeeds();
    let picture = |checkpoint: &str, to: &str| {
        let numbers = ["--n", "2", "--numbers", "0-1", "--output", to];
        project.pipe(&[&["sample", checkpoint][..], &numbers].concat()).succeeds();
        let of_class = |class: &str| {
            let names = project.list(&format!("{to}/{class}"));
            assert_eq!(names.len(), 1, "{names:?}");
            image::open(project.path(to).join(class).join(&names[0])).unwrap().to_rgb8()
        };
        ["circle", "square"].map(of_class)
    };
    let (hub, best) = (picture("hub/model.safetensors", "by_hub"), picture(BEST, "by_best"));
    assert!(hub == best);
}

#[test]
fn nothing_is_written_over_and_pictures_can_be_named() {
    let project = trained();
    project.write("note.txt", "no picture");
    let export = |more: &[&str]| {
        let all = [&["ckpt", "export", BEST, "--hub", "hub"], more].concat();
        project.pipe(&all)
    };
    export(&["--picture", "note.txt"]).exits(2).says("expected a .png, .jpg or .webp");
    project.pipe(&["sample", BEST, "--n", "2", "-o", "mine.png"]).succeeds();
    export(&["--picture", "mine.png"]).succeeds();
    assert!(project.read("hub/README.md").contains("](mine.png)"));
    export(&[]).exits(2).says("exists; --overwrite replaces it");
    export(&["--overwrite"]).succeeds();
    project
        .pipe(&["ckpt", "export", BEST, "--hub", "h", "-o", "x.ckpt"])
        .exits(2)
        .says("cannot be used with");
    project.pipe(&["ckpt", "export", BEST, "--weights-only"]).exits(2).says("--output <FILE>");
}

#[test]
fn of_lora_the_folder_holds_a_whole_model() {
    let project = chain();
    project.pipe(&["run", "p.yaml"]).succeeds();
    let best = format!("{LORA}/checkpoints/best.ckpt");
    project.pipe(&["ckpt", "export", &best, "--hub", "hub"]).succeeds();
    project.pipe(&["ckpt", "export", &best, "--merge", "-o", "merged.ckpt"]).succeeds();
    let of = |path: &str, prefix: &str| -> Vec<_> {
        let all = all_tensors(&project.path(path)).into_iter();
        all.filter_map(|(name, bytes)| Some((name.strip_prefix(prefix)?.to_owned(), bytes)))
            .collect()
    };
    let exported = of("hub/model.safetensors", "state_dict.");
    assert!(!exported.is_empty() && exported == of("merged.ckpt", "ema_state_dict."));
    assert!(project.read("hub/README.md").contains("folded into their base model, checkpoint `"));
    // Where nothing of the run is.
    let other = Project::new();
    std::fs::copy(project.path("hub/model.safetensors"), other.path("model.safetensors")).unwrap();
    let sample = ["sample", "model.safetensors", "--n", "3", "--steps", "2", "-o", "a.png"];
    other.pipe(&sample).succeeds();
}
