//! `pipe report`: what the page holds, what a browser makes of it.

use std::process::{Command, Stdio};

use crate::project::{Project, TINY};

/// Two runs with pictures.
fn with_runs() -> Project {
    let project = Project::new();
    let sampled = ["run", "p.yaml", "--set", "sample_every_n_epochs=1"];
    project.pipe(&sampled).succeeds();
    project.pipe(&[&sampled[..], &["--learning-rate", "3e-4"]].concat()).succeeds();
    project
}

/// The data in a page.
pub fn data(html: &str) -> serde_json::Value {
    let start = html.find("id=\"data\">").unwrap() + "id=\"data\">".len();
    let end = start + html[start..].find("</script>").unwrap();
    serde_json::from_str(&html[start..end]).unwrap()
}

#[test]
fn the_page_holds_all_and_loads_nothing() {
    let project = with_runs();
    project.pipe(&["runs", "note", "2", "lower"]).succeeds();
    project.pipe(&["report", "p.yaml", "-o", "out.html"]).succeeds().says("out.html");
    let html = project.read("out.html");
    for outside in ["http://", "https://", "src=\"//", "@import", "url(http", "url(/"] {
        let found: Vec<&str> =
            html.match_indices(outside).map(|(at, _)| &html[at..][..60]).collect();
        // The name of SVG's namespace is no address to load from.
        let found: Vec<_> =
            found.iter().filter(|text| !text.starts_with("http://www.w3.org/2000/svg")).collect();
        assert!(found.is_empty(), "{found:?}");
    }
    let data = data(&html);
    let stages: Vec<&str> =
        data["stages"].as_array().unwrap().iter().map(|s| s["stage"].as_str().unwrap()).collect();
    assert_eq!(stages, ["data", "base"]);
    assert_eq!(data["stages"][1]["needs"], serde_json::json!(["data"]));
    let runs = data["runs"].as_array().unwrap();
    assert_eq!(runs.len(), 2);
    assert_eq!(runs[0]["settings"]["learning_rate"], 1e-3);
    assert_eq!(
        (&runs[1]["settings"]["learning_rate"], &runs[1]["note"]),
        (&3e-4.into(), &"lower".into())
    );
    for run in runs {
        assert_eq!(run["curves"]["train_loss"].as_array().unwrap().len(), 2);
        assert_eq!(run["samples"].as_array().unwrap().len(), 2);
        assert!(
            run["samples"][0]["image"].as_str().unwrap().starts_with("data:image/png;base64,iVBOR")
        );
        assert!(run["config"].as_str().unwrap().contains("learning_rate"));
        assert!(run["checkpoints"][0]["digest"].as_str().unwrap().starts_with("blake3-head:"));
    }
}

#[test]
fn without_a_file_all_runs_are_on_it_and_what_cannot_be_read_is_named() {
    let project = with_runs();
    project.write(
        "q.yaml",
        TINY.replace("name: tiny", "name: other")
            .replace("shapes", "trees")
            .replace("[circle, square]", "[oak, pine]"),
    );
    project.pipe(&["run", "q.yaml"]).succeeds();
    project.pipe(&["report"]).succeeds();
    assert_eq!(data(&project.read("report.html"))["runs"].as_array().unwrap().len(), 3);
    project.pipe(&["report", "q.yaml"]).succeeds();
    assert_eq!(data(&project.read("report.html"))["runs"].as_array().unwrap().len(), 1);
    let broken = "checkpoints/base_training/run_001/metadata.json";
    project.write(broken, "{");
    project.write(&format!("{broken}.previous"), "{");
    project.pipe(&["report"]).succeeds().says("run_001/metadata.json");
    let page = data(&project.read("report.html"));
    assert_eq!(page["runs"].as_array().unwrap().len(), 2);
    assert!(page["warnings"][0].as_str().unwrap().contains("run_001/metadata.json"));
}

#[test]
fn names_from_files_stay_text() {
    let project = with_runs();
    let hostile =
        "</script><script>document.title='taken'</script><!--<img src=x onerror=alert(1)>";
    project.pipe(&["runs", "note", "1", hostile]).succeeds();
    project.pipe(&["report", "p.yaml"]).succeeds();
    let html = project.read("report.html");
    assert!(!html.contains("<script>document.title"), "the note ends the data's element");
    assert_eq!(html.matches("</script>").count(), 2);
    assert_eq!(data(&html)["runs"][0]["note"], hostile);
    let Some(dom) = dom(&project, "report.html") else { return };
    assert!(dom.contains("<title>tiny - pipe</title>"), "{}", &dom[..400]);
    assert!(
        dom.contains("&lt;img src=x onerror=alert(1)&gt;"),
        "the note is shown as it was written"
    );
}

/// The name of a Chromium that can be started.
pub fn browser() -> Option<&'static str> {
    let names = ["chromium", "chromium-browser", "google-chrome"];
    let found = names.into_iter().find(|name| {
        Command::new(name).arg("--version").output().is_ok_and(|o| o.status.success())
    });
    if found.is_none() {
        eprintln!("skipped: no chromium is installed");
    }
    found
}

fn browse(project: &Project, arguments: &[&str], address: &str) -> Option<Vec<u8>> {
    let output = Command::new(browser()?)
        .args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--hide-scrollbars",
            "--virtual-time-budget=3000",
        ])
        .arg(format!("--user-data-dir={}", project.path("chromium").display()))
        .args(arguments)
        .arg(address)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(output.stdout)
}

/// The address of a file in the project.
pub fn address(project: &Project, page: &str) -> String {
    format!("file://{}", project.path("").join(page).display())
}

/// What the page is after its script has run.
pub fn dom(project: &Project, page: &str) -> Option<String> {
    dom_of(project, &address(project, page))
}

pub fn dom_of(project: &Project, address: &str) -> Option<String> {
    browse(project, &["--dump-dom"], address).map(|bytes| String::from_utf8(bytes).unwrap())
}

/// A picture of the page at a width.
fn picture(project: &Project, page: &str, width: u32) -> Option<image::RgbImage> {
    let file = project.path("page.png");
    let _ = std::fs::remove_file(&file);
    let size = format!("--window-size={width},2200");
    browse(
        project,
        &[&size, &format!("--screenshot={}", file.display())],
        &address(project, page),
    )?;
    Some(image::open(&file).unwrap().to_rgb8())
}

/// Pixels that are nearly of this colour.
fn count(image: &image::RgbImage, colour: [u8; 3]) -> usize {
    let near = |pixel: &image::Rgb<u8>| pixel.0.iter().zip(colour).all(|(a, b)| a.abs_diff(b) < 12);
    image.pixels().filter(|pixel| near(pixel)).count()
}

/// The first run's colour in page.css.
const LIGHT: [u8; 3] = [0x25, 0x63, 0xc9];
const DARK: [u8; 3] = [0x7f, 0xb0, 0xff];

#[test]
fn a_browser_draws_a_curve_for_each_run() {
    if browser().is_none() {
        return;
    }
    let project = with_runs();
    project.pipe(&["report", "p.yaml"]).succeeds();
    let html = project.read("report.html");
    let dom = dom(&project, "report.html").unwrap();
    for run in ["run_001", "run_002"] {
        let curve = dom
            .split("<path class=\"curve\" d=\"M")
            .skip(1)
            .find(|rest| rest.split('>').next().unwrap().contains(run));
        let curve = curve.unwrap_or_else(|| panic!("no curve of {run}"));
        assert!(curve.split('"').next().unwrap().contains('L'), "{run}: a curve of one point");
    }
    assert!(
        dom.contains(">Settings that differ<") && dom.contains(">learning_rate<"),
        "no comparison"
    );
    assert!(dom.contains("class=\"node done\""), "no graph");

    // The same page without the figures has all but the curves: what is more, is drawn.
    let mut empty = data(&html);
    for run in empty["runs"].as_array_mut().unwrap() {
        run["curves"] = serde_json::json!({});
    }
    let start = html.find("id=\"data\">").unwrap() + "id=\"data\">".len();
    let end = start + html[start..].find("</script>").unwrap();
    project.write(
        "empty.html",
        format!("{}{}{}", &html[..start], empty.to_string().replace('<', "\\u003c"), &html[end..]),
    );
    for (theme, colour) in [("light", LIGHT), ("dark", DARK)] {
        for width in [1200, 400] {
            let drawn = |page: &str| {
                count(&picture(&project, &format!("{page}.html#{theme}"), width).unwrap(), colour)
            };
            let (full, without) = (drawn("report"), drawn("empty"));
            assert!(
                full > without + 200,
                "{theme}, {width} px: {full} pixels, {without} without curves"
            );
        }
    }
}

#[test]
fn a_browser_shows_what_to_type_when_there_is_nothing_yet() {
    let project = Project::new();
    project.pipe(&["report", "p.yaml"]).succeeds();
    let Some(dom) = dom(&project, "report.html") else { return };
    assert!(dom.contains("<code>pipe run p.yaml</code>"), "{dom}");
    assert!(dom.contains("class=\"node not-run\""), "{dom}");
}

#[test]
fn a_project_without_runs_has_nothing_to_report() {
    let project = Project::new();
    let ended = project.pipe(&["report"]).exits(2).says("there are no runs here to report on");
    ended.says("`pipe run p.yaml` makes the first");
    assert!(!project.path("report.html").exists());
    // A pipeline has its stages to show.
    project.pipe(&["report", "p.yaml"]).succeeds();
}
