//! A Chromium that a test drives: it opens a page, clicks and types, and is asked what it sees.
//! It speaks the DevTools protocol over two named pipes.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::project::Project;
use crate::report::browser;

pub struct Browser {
    child: Child,
    to: File,
    from: BufReader<File>,
    sent: u64,
    session: Option<String>,
    /// What scripts threw.
    thrown: Vec<String>,
}

impl Browser {
    /// Opens an address in a window of this width; `None` where no Chromium is installed.
    pub fn open(project: &Project, address: &str, width: u32) -> Option<Self> {
        let program = browser()?;
        let [to, from] = ["to", "from"].map(|name| project.path(&format!("chromium.{name}")));
        for pipe in [&to, &from] {
            let _ = std::fs::remove_file(pipe);
            assert!(Command::new("mkfifo").arg(pipe).status().unwrap().success());
        }
        let child = Command::new("sh")
            .args(["-c", r#"exec "$@" 3<"$TO" 4>"$FROM""#, "sh", program])
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe"])
            .arg(format!("--user-data-dir={}", project.path("chromium").display()))
            .env("TO", &to)
            .env("FROM", &from)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // Each waits for the other side.
        let to = OpenOptions::new().write(true).open(to).unwrap();
        let from = BufReader::new(File::open(from).unwrap());
        let (session, thrown) = (None, Vec::new());
        let mut browser = Self { child, to, from, sent: 0, session, thrown };
        let target = browser.call("Target.createTarget", json!({"url": "about:blank"}));
        let attach = json!({"targetId": target["targetId"], "flatten": true});
        let attached = browser.call("Target.attachToTarget", attach);
        browser.session = attached["sessionId"].as_str().map(str::to_owned);
        browser.call("Runtime.enable", json!({}));
        browser.resize(width);
        // Nothing glides while the test looks for its place.
        let still = json!({"features": [{"name": "prefers-reduced-motion", "value": "reduce"}]});
        browser.call("Emulation.setEmulatedMedia", still);
        browser.call("Page.navigate", json!({"url": address}));
        browser.until("document.readyState === 'complete' && location.href !== 'about:blank'");
        Some(browser)
    }

    /// A command of the protocol, and its result.
    #[track_caller]
    pub fn call(&mut self, method: &str, parameters: Value) -> Value {
        self.sent += 1;
        let mut message = json!({"id": self.sent, "method": method, "params": parameters});
        if let Some(session) = &self.session {
            message["sessionId"] = session.as_str().into();
        }
        write!(self.to, "{message}\0").unwrap();
        loop {
            let mut bytes = Vec::new();
            self.from.read_until(0, &mut bytes).unwrap();
            assert_eq!(bytes.pop(), Some(0), "the browser has ended");
            let mut answer: Value = serde_json::from_slice(&bytes).unwrap();
            if answer["method"] == "Runtime.exceptionThrown" {
                self.thrown.push(answer["params"].to_string());
            }
            if answer["id"] == self.sent {
                assert!(answer["error"].is_null(), "{method}: {answer}");
                return answer["result"].take();
            }
        }
    }

    pub fn resize(&mut self, width: u32) {
        let size = json!({"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": false});
        self.call("Emulation.setDeviceMetricsOverride", size);
    }

    /// The value of an expression in the page.
    #[track_caller]
    pub fn value(&mut self, expression: &str) -> Value {
        let ask = json!({"expression": expression, "returnByValue": true, "awaitPromise": true});
        let mut answer = self.call("Runtime.evaluate", ask);
        assert!(answer["exceptionDetails"].is_null(), "{expression}: {answer}");
        answer["result"]["value"].take()
    }

    #[track_caller]
    pub fn texts(&mut self, selector: &str) -> Vec<String> {
        let all = format!(
            "[...document.querySelectorAll({})].map((x) => x.textContent.trim())",
            json!(selector)
        );
        serde_json::from_value(self.value(&all)).unwrap()
    }

    /// Waits until an expression holds.
    #[track_caller]
    pub fn until(&mut self, expression: &str) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while self.value(expression) != true {
            assert!(Instant::now() < deadline, "not after a minute: {expression}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Where the middle of an element is in the window, once it is scrolled there.
    #[track_caller]
    pub fn place(&mut self, selector: &str) -> (f64, f64) {
        let place = self.value(&format!(
            "(() => {{ const x = document.querySelector({}); x.scrollIntoView({{ block: 'center' }});
              const r = x.getBoundingClientRect(); return [r.x + r.width / 2, r.y + r.height / 2]; }})()",
            json!(selector)
        ));
        (place[0].as_f64().unwrap(), place[1].as_f64().unwrap())
    }

    /// Moves the mouse with its button pressed from one place to another one.
    #[track_caller]
    pub fn drag(&mut self, from: (f64, f64), to: (f64, f64)) {
        let steps = [("mousePressed", from), ("mouseMoved", to), ("mouseReleased", to)];
        for (kind, (x, y)) in steps {
            let event = json!({"type": kind, "x": x, "y": y, "button": "left", "buttons": 1,
                               "clickCount": 1});
            self.call("Input.dispatchMouseEvent", event);
        }
    }

    #[track_caller]
    pub fn click(&mut self, selector: &str) {
        let place = self.place(selector);
        self.drag(place, place);
    }

    /// Presses a key where the focus is.
    #[track_caller]
    pub fn press(&mut self, key: &str) {
        for kind in ["keyDown", "keyUp"] {
            self.call("Input.dispatchKeyEvent", json!({"type": kind, "key": key}));
        }
    }

    /// Writes into a field in the place of what stood there.
    #[track_caller]
    pub fn write(&mut self, selector: &str, text: &str) {
        let field = json!(selector);
        self.value(&format!(
            "(() => {{ const x = document.querySelector({field}); x.focus(); x.select(); }})()"
        ));
        self.call("Input.insertText", json!({"text": text}));
    }

    /// What is wider than the window, if the page can be scrolled sideways.
    pub fn sideways(&mut self) -> Vec<String> {
        let wide =
            "document.documentElement.scrollWidth <= document.documentElement.clientWidth ? [] :
            [...document.body.querySelectorAll('*')].filter((x) => !x.closest('.scroll') &&
            x.getBoundingClientRect().right > document.documentElement.clientWidth + 0.5)
            .map((x) => x.outerHTML.slice(0, 120)).concat('the page')";
        serde_json::from_value(self.value(wide)).unwrap()
    }

    /// What can be used and has no name for a screen reader, as the browser computes names.
    pub fn nameless(&mut self) -> Vec<String> {
        const USED: [&str; 10] = [
            "button",
            "checkbox",
            "link",
            "slider",
            "searchbox",
            "textbox",
            "combobox",
            "image",
            "region",
            "DisclosureTriangle",
        ];
        self.call("Accessibility.enable", json!({}));
        let tree = self.call("Accessibility.getFullAXTree", json!({}));
        let nodes = tree["nodes"].as_array().unwrap().clone();
        let role = |node: &Value| node["role"]["value"].as_str().unwrap_or_default().to_owned();
        let used: Vec<_> = nodes
            .into_iter()
            .filter(|node| node["ignored"] != true && USED.contains(&role(node).as_str()))
            .collect();
        assert!(used.len() > 5, "{used:?}");
        let is_nameless = |node: &&Value| {
            node["name"]["value"].as_str().is_none_or(|name| name.trim().is_empty())
        };
        used.iter().filter(is_nameless).map(|node| format!("{}: {node}", role(node))).collect()
    }

    /// What axe-core finds, where `PIPE_TEST_AXE` names its `axe.min.js`.
    pub fn axe(&mut self) -> Vec<String> {
        let Ok(path) = std::env::var("PIPE_TEST_AXE") else {
            eprintln!("skipped: PIPE_TEST_AXE names no axe.min.js");
            return Vec::new();
        };
        let script = std::fs::read_to_string(path).unwrap();
        self.value(&format!("{script}; 0"));
        let found = self.value(
            "axe.run(document, { resultTypes: ['violations'] }).then((r) =>
             r.violations.map((v) => `${v.id}: ${v.nodes.map((n) => n.html.slice(0, 160)).join('\\n')}`))",
        );
        serde_json::from_value(found).unwrap()
    }

    /// Ends, once nothing that the page ran has failed.
    #[track_caller]
    pub fn close(mut self) {
        self.value("0");
        assert!(self.thrown.is_empty(), "{:?}", self.thrown);
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
