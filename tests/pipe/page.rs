//! The page of `pipe report`: which run is marked as the best, and pictures that stages drew.

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
