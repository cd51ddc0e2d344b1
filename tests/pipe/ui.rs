//! `pipe ui`: whom the server answers, and what clients of all kinds can do to it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::project::Project;
use crate::report::{data, dom_of};

const RUN: &str = "checkpoints/base_training/run_001";

/// `pipe ui` on a free port; ended when it goes out of scope.
pub struct Served {
    child: Child,
    /// What it printed.
    pub link: String,
    /// `127.0.0.1:PORT`
    address: String,
    /// `token=…`, if it asks for one.
    token: String,
}

impl Served {
    pub fn of(project: &Project, more: &[&str]) -> Self {
        let arguments = [&["ui", "p.yaml", "--port", "0"], more].concat();
        let mut child = project
            .command(&arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let link = line.trim().to_owned();
        let (address, token) = link.strip_prefix("http://").unwrap().split_once('/').unwrap();
        let (address, token) = (address.to_owned(), token.trim_start_matches('?').to_owned());
        Self { child, link, address, token }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        stream
    }

    /// The answer to a request, head and body.
    fn ask(&self, request: &str) -> (String, String) {
        let mut stream = self.connect();
        write!(stream, "{request}\r\nConnection: close\r\n\r\n").unwrap();
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        let text = String::from_utf8(bytes).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        (head.to_ascii_lowercase(), body.to_owned())
    }

    /// A request as a browser sends it once it has the cookie.
    fn request(&self, path: &str) -> String {
        let port = self.address.rsplit(':').next().unwrap();
        format!(
            "GET {path} HTTP/1.1\r\nHost: {}\r\nCookie: a=b; pipe-{port}={}",
            self.address,
            self.token.trim_start_matches("token=")
        )
    }

    fn get(&self, path: &str, more: &str) -> (String, String) {
        self.ask(&format!("{}{more}", self.request(path)))
    }

    /// A line of its `/proc/PID/status`, in KiB.
    fn memory(&self, key: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with(key)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    /// How it ends after a signal, and that it does so soon.
    #[track_caller]
    fn ends_after(&mut self, signal: &str) -> ExitStatus {
        let pid = self.child.id().to_string();
        assert!(
            Command::new("kill").args([&format!("-{signal}"), &pid]).status().unwrap().success()
        );
        let sent = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(sent.elapsed() < Duration::from_secs(2), "it does not end");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A project whose page is larger than what the system takes of it for a client that does not read.
fn with_a_large_page() -> Project {
    let project = Project::new();
    project.pipe(&["run", "p.yaml", "--set", "sample_every_n_epochs=1"]).succeeds();
    // Bytes that stand for a picture: nobody looks at them here.
    let picture = [&b"\x89PNG\r\n\x1a\n"[..], &vec![7; 900_000]].concat();
    for epoch in 3..6 {
        project.write(&format!("{RUN}/samples/epoch_{epoch:03}.png"), &picture);
    }
    for number in 2..7 {
        let copy = project.path(&RUN.replace("run_001", &format!("run_{number:03}")));
        let copied =
            Command::new("cp").arg("-r").arg(project.path(RUN)).arg(copy).status().unwrap();
        assert!(copied.success());
    }
    project
}

/// Clients that ask for the page and read nothing of it.
fn that_do_not_read(served: &Served, number: usize) -> Vec<TcpStream> {
    let ask = |_| {
        let mut stream = served.connect();
        write!(stream, "{}\r\n\r\n", served.request("/")).unwrap();
        stream
    };
    (0..number).map(ask).collect()
}

/// Whether the other side closed the connection, or does so within the time.
fn is_closed_within(stream: &mut TcpStream, time: Duration) -> bool {
    let end = Instant::now() + time;
    let mut buffer = [0; 4096];
    while Instant::now() < end {
        stream.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        match stream.read(&mut buffer) {
            Ok(0) => return true,
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return true,
            _ => {}
        }
    }
    false
}

#[test]
fn the_server_answers_this_machine_alone_and_says_when_nothing_is_new() {
    let project = Project::new();
    project.pipe(&["run", "p.yaml"]).succeeds();
    let served = Served::of(&project, &[]);
    assert!(served.address.starts_with("127.0.0.1:"), "{}", served.address);
    let (head, page) = served.get("/", "");
    assert!(head.starts_with("http/1.1 200") && head.contains("content-type: text/html"), "{head}");
    assert!(page.contains("data-live=\"1\"") && data(&page)["runs"].as_array().unwrap().len() == 1);
    for header in [
        "content-security-policy: default-src 'none'; img-src data:;",
        "x-content-type-options: nosniff",
        "x-frame-options: deny",
        "referrer-policy: no-referrer",
    ] {
        assert!(head.contains(header), "no {header} in {head}");
    }

    let (head, _) = served.get("/data.json", "");
    let tag = head.lines().find_map(|line| line.strip_prefix("etag: ")).unwrap().to_owned();
    let again = format!("\r\nIf-None-Match: {tag}");
    let (head, body) = served.get("/data.json", &again);
    assert!(head.starts_with("http/1.1 304") && body.is_empty(), "{head}");
    project.pipe(&["run", "p.yaml", "--epochs", "3"]).succeeds();
    let (head, body) = served.get("/data.json", &again);
    assert!(head.starts_with("http/1.1 200"), "{head}");
    let news: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(news["runs"][0]["curves"]["train_loss"].as_array().unwrap().len(), 3);

    let status = |request: &str| served.ask(request).0.lines().next().unwrap().to_owned();
    let good = served.request("/");
    assert!(status(&good).contains("200"));
    for host in ["evil.example:80", "127.0.0.1.evil.example", "localhost@evil", "127.0.0.1, evil"] {
        let other = good.replace(&format!("Host: {}", served.address), &format!("Host: {host}"));
        assert!(status(&other).contains("403"), "{host}");
    }
    assert!(status(&format!("{good}\r\nHost: evil")).contains("403"), "two hosts");
    assert!(status(&good.replace("GET /", "GET http://evil/")).contains("403"));
    assert!(status(&served.request("/../p.yaml")).contains("404"));
    assert!(status(&served.request(&format!("/{RUN}/metadata.json"))).contains("404"));
    assert!(
        status(&format!("{}\r\nContent-Length: 0", good.replace("GET", "POST"))).contains("405")
    );
    assert!(status(&format!("{good}\r\nContent-Length: 5")).contains("413"));
    let (head, body) = served.ask(&good.replace("GET", "HEAD"));
    assert!(head.starts_with("http/1.1 200") && body.is_empty(), "{head}");

    let port = served.address.rsplit(':').next().unwrap();
    project
        .pipe(&["ui", "--port", port])
        .exits(2)
        .says(&format!("failed to listen on port {port}"))
        .says("--port");
}

#[test]
fn only_whoever_knows_the_token_is_answered() {
    let project = Project::new();
    let served = Served::of(&project, &[]);
    let digits = served.token.strip_prefix("token=").unwrap();
    assert!(digits.len() == 32 && digits.bytes().all(|b| b.is_ascii_hexdigit()), "{}", served.link);
    let plain =
        |path: &str| served.ask(&format!("GET {path} HTTP/1.1\r\nHost: {}", served.address));
    let wrong = digits.chars().rev().collect::<String>();
    for path in
        ["/", "/data.json", "/?token=", &format!("/?token={wrong}"), "/favicon.ico", "/?token"]
    {
        let (head, body) = plain(path);
        assert!(head.starts_with("http/1.1 403") && !head.contains("set-cookie"), "{path}: {head}");
        assert!(body.contains("the address that `pipe ui` printed"), "{body}");
    }
    let cookie = served.get("/", "").0;
    assert!(cookie.starts_with("http/1.1 200"), "{cookie}");
    let stolen = served.request("/").replace(digits, &wrong);
    assert!(served.ask(&stolen).0.starts_with("http/1.1 403"));

    // As it was printed, and again.
    for _ in 0..2 {
        let (head, _) = plain(&format!("/?{}", served.token));
        assert!(head.starts_with("http/1.1 303") && head.contains("location: /\r\n"), "{head}");
        let cookie = head.lines().find_map(|line| line.strip_prefix("set-cookie: ")).unwrap();
        assert!(cookie.contains("httponly") && cookie.contains("samesite=strict"), "{cookie}");
        let given = cookie.split(';').next().unwrap();
        let (head, _) =
            served.ask(&format!("GET / HTTP/1.1\r\nHost: {}\r\nCookie: {given}", served.address));
        assert!(head.starts_with("http/1.1 200"), "{head}");
    }
    assert!(plain(&format!("/data.json?{}", served.token)).0.starts_with("http/1.1 200"));
    // A browser follows, runs the page's script under its policy, and keeps no token in its
    // address.
    if let Some(dom) = dom_of(&project, &served.link) {
        assert!(dom.contains("id=\"title\">tiny</h1>"), "{dom}");
    }
    assert_ne!(Served::of(&project, &[]).token, served.token);

    let open = Served::of(&project, &["--no-token"]);
    assert_eq!(open.link, format!("http://{}/", open.address));
    let (head, _) = open.ask(&format!("GET / HTTP/1.1\r\nHost: {}", open.address));
    assert!(head.starts_with("http/1.1 200"), "{head}");
}

#[test]
fn a_signal_ends_the_server_well() {
    let project = Project::new();
    let mut served = Served::of(&project, &[]);
    assert_eq!(served.ends_after("TERM").code(), Some(0));
}

#[cfg(target_os = "linux")]
#[test]
fn nothing_that_clients_do_blocks_others_or_ctrl_c() {
    let project = with_a_large_page();
    let mut served = Served::of(&project, &[]);
    let size = served.get("/", "").1.len();
    assert!(size > 16_000_000, "{size}");
    let before = served.memory("VmHWM");

    // A header without an end is refused as soon as it is too long.
    let mut endless = served.connect();
    endless.write_all(b"GET / HTTP/1.1\r\nX: ").unwrap();
    let sent = (0..300).take_while(|_| endless.write_all(&[b'a'; 1 << 20]).is_ok()).count();
    assert!(sent < 32, "{sent} MiB of a header were taken");

    let mut idle = served.connect();
    idle.write_all(b"GET / HT").unwrap();
    let mut deaf = that_do_not_read(&served, 100);
    // Half headers, more than there may be connections.
    let half: Vec<TcpStream> = (0..400)
        .map(|_| {
            let mut stream = served.connect();
            stream.write_all(b"GET / HT").unwrap();
            stream
        })
        .collect();
    let asked = Instant::now();
    assert_eq!(served.get("/", "").1.len(), size);
    assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
    // The oldest gave way.
    assert!(is_closed_within(&mut idle, Duration::from_secs(1)));
    assert!(is_closed_within(&mut deaf[0], Duration::from_secs(5)));

    let _deaf = that_do_not_read(&served, 50);
    std::thread::sleep(Duration::from_millis(300));
    // The system counts pages in batches: what did not grow can seem to have shrunk.
    let grown = served.memory("VmHWM").saturating_sub(before);
    assert!(grown < 64 << 10, "{grown} KiB");
    assert_eq!(served.ends_after("INT").code(), Some(0));
    drop(half);
}

#[test]
fn two_hundred_clients_at_once_are_all_answered() {
    let project = Project::new();
    project.pipe(&["run", "p.yaml"]).succeeds();
    let served = Served::of(&project, &[]);
    let size = served.get("/", "").1.len();
    std::thread::scope(|scope| {
        let all: Vec<_> = (0..200).map(|_| scope.spawn(|| served.get("/", "").1.len())).collect();
        for one in all {
            // The page says when it was made, with more or fewer digits.
            let found = one.join().unwrap();
            assert!(found.abs_diff(size) < 16, "{found} of {size}");
        }
    });
}

#[test]
fn slow_clients_are_dropped() {
    let project = with_a_large_page();
    let served = Served::of(&project, &[]);
    let mut half = served.connect();
    half.write_all(b"GET / HT").unwrap();
    let mut silent = served.connect();
    let mut kept = served.connect();
    write!(kept, "{}\r\n\r\n", served.request("/data.json?x")).unwrap();
    let deaf = that_do_not_read(&served, 1).remove(0);
    // What was sent is still there to be read, and it is not all.
    std::thread::sleep(Duration::from_secs(12));
    for stream in [&mut half, &mut silent, &mut kept] {
        assert!(is_closed_within(stream, Duration::from_secs(5)));
    }
    let mut found = 0;
    let mut reader = deaf;
    let mut buffer = vec![0; 1 << 20];
    while let Ok(read @ 1..) = reader.read(&mut buffer) {
        found += read;
    }
    let size = served.get("/", "").1.len();
    assert!(found < size, "{found} of {size}");
}
