//! The page of `pipe report`: which run is marked as the best, and pictures that stages drew.

use serde_json::json;

use crate::chain::{CHAIN, chain};
use crate::project::Project;
use crate::report::{data, dom};

#[test]
fn the_highest_is_marked_where_more_is_better() {
    for (mode, pick) in [("min", f64::min as fn(f64, f64) -> f64), ("max", f64::max)] {
        let project = Project::new();
        for rate in ["0.003", "0.000001"] {
            let set = format!("checkpoint.mode={mode}");
            project.pipe(&["run", "p.yaml", "--learning-rate", rate, "--set", &set]).succeeds();
        }
        project.pipe(&["report"]).succeeds();
        let page = data(&project.read("report.html"));
        let best =
            |run: usize| page["runs"][run]["best"]["metrics"]["train_loss"].as_f64().unwrap();
        assert_eq!(page["runs"][0]["mode"], mode);
        let Some(dom) = dom(&project, "report.html") else { return };
        let marked = dom
            .split("<span class=\"best\">")
            .nth(1)
            .expect("a best one")
            .split(' ')
            .next()
            .unwrap();
        let marked: f64 = marked.parse().unwrap();
        assert!(
            (marked - pick(best(0), best(1))).abs() < 1e-4,
            "{mode}: {marked} of {} and {}",
            best(0),
            best(1)
        );
    }
}

#[test]
fn what_sample_stages_drew_is_shown_with_the_run_it_came_from() {
    let project = chain();
    project.pipe(&["run", "p.yaml"]).succeeds();
    for arguments in [&["report", "p.yaml"][..], &["report"]] {
        project.pipe(arguments).succeeds();
        let page = data(&project.read("report.html"));
        for (run, stage) in [(0, "base_picture"), (1, "lora_picture")] {
            let drawn = &page["runs"][run]["drawn"];
            assert_eq!(
                (drawn.as_array().unwrap().len(), &drawn[0]["stage"]),
                (1, &stage.into()),
                "{drawn}"
            );
            assert!(drawn[0]["image"].as_str().unwrap().starts_with("data:image/png;base64,iVBOR"));
        }
        assert_eq!(page["drawn"].as_array().unwrap().len(), 0);
        let Some(dom) = dom(&project, "report.html") else { continue };
        assert!(!dom.contains(" 001 drew no samples"), "they were drawn by stages");
        let base = page["runs"][1]["settings"]["base"].as_str().unwrap();
        let digits = base.rsplit(':').next().unwrap();
        assert!(
            dom.contains(&format!("{}…</td>", &digits[..12])),
            "a digest is shown by its first digits"
        );
        assert!(
            dom.contains("Drawn by stage base_picture")
                && dom.contains("Drawn by stage lora_picture")
        );
    }
    // A checkpoint whose run is gone is no reason to hide its picture.
    project.pipe(&["runs", "rm", "base/1", "--force"]).succeeds();
    project.pipe(&["report", "p.yaml"]).succeeds();
    assert_eq!(data(&project.read("report.html"))["drawn"][0]["stage"], "base_picture");
    project.write("q.yaml", CHAIN.replace("name: chain", "name: other"));
    project.pipe(&["report", "q.yaml"]).succeeds();
    assert_eq!(data(&project.read("report.html"))["drawn"].as_array().unwrap().len(), 0);
}

const EACH: &str = "
  each: { kind: sample, from: base, each_checkpoint: true, to: each.png, n: 3, steps: 2, device: cpu }
  one: { kind: sample, from: base, to: one.png, n: 3, steps: 2, device: cpu }
  many: { kind: sample, from: base, each_checkpoint: true, to: many, seeds: 0-1, steps: 2, device: cpu }
  quality: { kind: evaluate, from: base, each_checkpoint: true, dataset: data, to: quality, metrics: [nearest], seeds: 0-3, steps: 2, device: cpu }
";

#[test]
fn what_was_drawn_from_each_checkpoint_is_shown_of_the_best_one() {
    let project = Project::new();
    let keep = "  base:\n    checkpoint: { keep_last_n: null }";
    project.write("p.yaml", project.read("p.yaml").replace("  base:", keep) + EACH);
    project.pipe(&["run", "p.yaml"]).succeeds();
    // Another run of the same stages takes their files over.
    project.pipe(&["run", "p.yaml", "--learning-rate", "3e-4"]).succeeds();
    project.pipe(&["report", "p.yaml"]).succeeds();
    let page = data(&project.read("report.html"));
    assert_eq!((&page["runs"][0]["drawn"], &page["drawn"]), (&json!([]), &json!([])));
    let run = &page["runs"][1];
    let best = format!("epoch_{:03}", run["best"]["epoch"].as_u64().unwrap());
    let drawn = run["drawn"].as_array().unwrap();
    let shown = |stage: &str| {
        let own = drawn.iter().filter(|drawn| drawn["stage"] == stage);
        own.map(|drawn| {
            assert!(drawn["image"].as_str().unwrap().starts_with("data:image/png;base64,iVBOR"));
            (drawn["path"].as_str().unwrap().to_owned(), drawn["others"].as_u64().unwrap_or(0))
        })
        .collect::<Vec<_>>()
    };
    assert_eq!(shown("each"), [("each.png".to_owned(), 1)]);
    assert_eq!(shown("one"), [("one.png".to_owned(), 0)]);
    assert_eq!(shown("quality"), [(format!("quality/{best}/nearest.png"), 1)]);
    let many = [("circle/000000.png", 0), ("square/000001.png", 2)];
    assert_eq!(shown("many"), many.map(|(name, more)| (format!("many/{best}/{name}"), more)));
    let Some(dom) = dom(&project, "report.html") else { return };
    assert!(dom.contains("Drawn by stage each\"") && dom.contains("Drawn by stage quality\""));
    assert!(dom.contains("1 more of other checkpoints beside each.png"));
}

#[test]
fn a_run_whose_pictures_are_in_an_archive_is_not_said_to_have_none() {
    let project = Project::new();
    let many =
        "  many: { kind: sample, from: base, to: many.zip, seeds: 0-1, steps: 2, device: cpu }\n";
    project.write("p.yaml", project.read("p.yaml") + many);
    project.pipe(&["run", "p.yaml"]).succeeds();
    project.pipe(&["report", "p.yaml"]).succeeds();
    let page = data(&project.read("report.html"));
    assert_eq!(page["runs"][0]["drawn"][0]["path"], "many.zip");
    let Some(dom) = dom(&project, "report.html") else { return };
    assert!(dom.contains("pictures in a file that no page shows: many.zip"));
    let said_to_have_none = [" 001 drew no samples", "A training makes them with <code>"];
    assert!(!said_to_have_none.iter().any(|said| dom.contains(said)));
}
