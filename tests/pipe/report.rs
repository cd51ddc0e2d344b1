//! `pipe report` and `pipe ui`: what the page holds, what a browser makes of it, whom the server answers.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

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
        let found: Vec<&str> = html.match_indices(outside).map(|(at, _)| &html[at..][..60]).collect();
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
    assert_eq!((&runs[1]["settings"]["learning_rate"], &runs[1]["note"]), (&3e-4.into(), &"lower".into()));
    for run in runs {
        assert_eq!(run["curves"]["train_loss"].as_array().unwrap().len(), 2);
        assert_eq!(run["samples"].as_array().unwrap().len(), 2);
        assert!(run["samples"][0]["image"].as_str().unwrap().starts_with("data:image/png;base64,iVBOR"));
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
    let hostile = "</script><script>document.title='taken'</script><!--<img src=x onerror=alert(1)>";
    project.pipe(&["runs", "note", "1", hostile]).succeeds();
    project.pipe(&["report", "p.yaml"]).succeeds();
    let html = project.read("report.html");
    assert!(!html.contains("<script>document.title"), "the note ends the data's element");
    assert_eq!(html.matches("</script>").count(), 2);
    assert_eq!(data(&html)["runs"][0]["note"], hostile);
    let Some(dom) = dom(&project, "report.html") else { return };
    assert!(dom.contains("<title>tiny - pipe</title>"), "{}", &dom[..400]);
    assert!(dom.contains("&lt;img src=x onerror=alert(1)&gt;"), "the note is shown as it was written");
}

/// The name of a Chromium that can be started.
fn browser() -> Option<&'static str> {
    let names = ["chromium", "chromium-browser", "google-chrome"];
    let found = names
        .into_iter()
        .find(|name| Command::new(name).arg("--version").output().is_ok_and(|o| o.status.success()));
    if found.is_none() {
        eprintln!("skipped: no chromium is installed");
    }
    found
}

fn browse(project: &Project, arguments: &[&str], page: &str) -> Option<Vec<u8>> {
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
        .arg(format!("file://{}", project.path("").join(page).display()))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(output.stdout)
}

/// What the page is after its script has run.
pub fn dom(project: &Project, page: &str) -> Option<String> {
    browse(project, &["--dump-dom"], page).map(|bytes| String::from_utf8(bytes).unwrap())
}

/// A picture of the page at a width.
fn picture(project: &Project, page: &str, width: u32) -> Option<image::RgbImage> {
    let file = project.path("page.png");
    let _ = std::fs::remove_file(&file);
    let size = format!("--window-size={width},2200");
    browse(project, &[&size, &format!("--screenshot={}", file.display())], page)?;
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
    assert!(dom.contains(">Settings that differ<") && dom.contains(">learning_rate<"), "no comparison");
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
            assert!(full > without + 200, "{theme}, {width} px: {full} pixels, {without} without curves");
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

/// `pipe ui` on a free port; ended when it goes out of scope.
struct Served {
    child: Child,
    address: String,
}

impl Served {
    fn of(project: &Project) -> Self {
        let mut child = project
            .command(&["ui", "p.yaml", "--port", "0"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address =
            line.trim().strip_prefix("http://").and_then(|l| l.strip_suffix('/')).unwrap().to_owned();
        Self { child, address }
    }

    /// The answer to a request, head and body.
    fn ask(&self, request: &str) -> (String, String) {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        write!(stream, "{request}\r\nConnection: close\r\n\r\n").unwrap();
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        let text = String::from_utf8(bytes).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        (head.to_owned(), body.to_owned())
    }

    fn get(&self, path: &str, more: &str) -> (String, String) {
        self.ask(&format!("GET {path} HTTP/1.1\r\nHost: {}{more}", self.address))
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn the_server_answers_this_machine_alone_and_says_when_nothing_is_new() {
    let project = Project::new();
    project.pipe(&["run", "p.yaml"]).succeeds();
    let served = Served::of(&project);
    assert!(served.address.starts_with("127.0.0.1:"), "{}", served.address);
    let (head, page) = served.get("/", "");
    assert!(head.starts_with("HTTP/1.1 200") && head.contains("Content-Type: text/html"), "{head}");
    assert!(page.contains("data-live=\"1\"") && data(&page)["runs"].as_array().unwrap().len() == 1);

    let (head, _) = served.get("/data.json", "");
    let tag = head.lines().find_map(|line| line.strip_prefix("ETag: ")).unwrap().to_owned();
    let again = format!("\r\nIf-None-Match: {tag}");
    let (head, body) = served.get("/data.json", &again);
    assert!(head.starts_with("HTTP/1.1 304") && body.is_empty(), "{head}");
    project.pipe(&["run", "p.yaml", "--epochs", "3"]).succeeds();
    let (head, body) = served.get("/data.json", &again);
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    let news: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(news["runs"][0]["curves"]["train_loss"].as_array().unwrap().len(), 3);

    let status = |request: &str| served.ask(request).0.lines().next().unwrap().to_owned();
    let host = format!("Host: {}", served.address);
    assert!(status("GET / HTTP/1.1\r\nHost: evil.example:80").contains("403"));
    assert!(status(&format!("GET /../p.yaml HTTP/1.1\r\n{host}")).contains("404"));
    assert!(
        status(&format!("GET /checkpoints/base_training/run_001/metadata.json HTTP/1.1\r\n{host}"))
            .contains("404")
    );
    assert!(status(&format!("POST / HTTP/1.1\r\n{host}\r\nContent-Length: 0")).contains("405"));
    let (head, body) = served.ask(&format!("HEAD / HTTP/1.1\r\n{host}"));
    assert!(head.starts_with("HTTP/1.1 200") && body.is_empty(), "{head}");

    let port = served.address.rsplit(':').next().unwrap();
    project
        .pipe(&["ui", "--port", port])
        .exits(2)
        .says(&format!("failed to listen on port {port}"))
        .says("--port");
}

#[test]
fn a_signal_ends_the_server_well() {
    let project = Project::new();
    let mut served = Served::of(&project);
    let pid = served.child.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    assert_eq!(served.child.wait().unwrap().code(), Some(0));
}
