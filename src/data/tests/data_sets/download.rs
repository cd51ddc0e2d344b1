use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::{fs, thread};

use md5::{Digest, Md5};
use pipe_data::download::fetch;
use pipe_data::{DatasetSettings, Progress};
use pipe_fs::Disk;

use crate::made::{Project, settings};

/// Serves `content` on the loopback address, one connection at a time.
struct Server {
    url: String,
    /// The `Range` header of each request so far.
    ranges: Arc<Mutex<Vec<Option<String>>>>,
}

#[derive(Clone, Copy, Default)]
struct Habits {
    ignores_range: bool,
    /// The first connection breaks after this many bytes of the body.
    breaks_after: Option<usize>,
    /// Each request is answered with this status and nothing else.
    status: Option<&'static str>,
}

impl Server {
    fn start(content: Vec<u8>, habits: Habits) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/files/data.bin", listener.local_addr().unwrap());
        let ranges = Arc::new(Mutex::new(Vec::new()));
        let seen = ranges.clone();
        thread::spawn(move || {
            for stream in listener.incoming() {
                // A client that hangs up early is no failure of the server's.
                let _ = answer(stream.unwrap(), &content, habits, &seen);
            }
        });
        Self { url, ranges }
    }

    fn ranges(&self) -> Vec<Option<String>> {
        self.ranges.lock().unwrap().clone()
    }
}

fn answer(
    mut stream: TcpStream,
    content: &[u8],
    habits: Habits,
    seen: &Mutex<Vec<Option<String>>>,
) -> std::io::Result<()> {
    let mut range = None;
    for line in BufReader::new(stream.try_clone()?).lines() {
        let line = line?.to_lowercase();
        if line.is_empty() {
            break;
        }
        range = line.strip_prefix("range: ").map(str::to_owned).or(range);
    }
    let first = seen.lock().unwrap().is_empty();
    seen.lock().unwrap().push(range.clone());
    if let Some(status) = habits.status {
        return write!(
            stream,
            "HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        );
    }
    let total = content.len();
    let start = match &range {
        Some(range) if !habits.ignores_range => {
            range.trim_start_matches("bytes=").trim_end_matches('-').parse().unwrap()
        }
        _ => 0,
    };
    if start > 0 && start >= total {
        return write!(
            stream,
            "HTTP/1.1 416 Range Not Satisfiable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        );
    }
    let body = &content[start..];
    let head = if start > 0 {
        format!("206 Partial Content\r\nContent-Range: bytes {start}-{}/{total}", total - 1)
    } else {
        "200 OK".to_owned()
    };
    write!(
        stream,
        "HTTP/1.1 {head}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    )?;
    let sent = habits.breaks_after.filter(|_| first).unwrap_or(body.len());
    stream.write_all(&body[..sent])?;
    stream.flush()
}

fn content() -> Vec<u8> {
    (0..300_000u32).map(|i| (i.wrapping_mul(2654435761) >> 13) as u8).collect()
}

fn md5(bytes: &[u8]) -> String {
    Md5::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

fn range(from: usize) -> Option<String> {
    Some(format!("bytes={from}-"))
}

#[derive(Default)]
struct Watched(Mutex<Vec<(u64, Option<u64>)>>);

impl Progress for Watched {
    fn downloaded(&self, name: &str, done: u64, total: Option<u64>) {
        assert_eq!(name, "data.bin");
        self.0.lock().unwrap().push((done, total));
    }
}

#[test]
fn a_file_arrives_whole_with_progress_and_is_not_fetched_again() {
    let (project, server) = (Project::new(), Server::start(content(), Habits::default()));
    let (target, watched) = (project.data("data.bin"), Watched::default());
    for _ in 0..2 {
        fetch(&Disk::default(), &server.url, &target, Some(&md5(&content())), &watched).unwrap();
    }
    assert_eq!(fs::read(&target).unwrap(), content());
    assert_eq!(server.ranges(), [None]);
    assert_eq!(project.listing(), [".data.bin.lock", "data.bin"]);
    let watched = watched.0.into_inner().unwrap();
    assert!(watched.windows(2).all(|pair| pair[0].0 < pair[1].0));
    assert_eq!(watched.last(), Some(&(300_000, Some(300_000))));
}

#[test]
fn a_broken_connection_and_an_old_part_are_gone_on_with() {
    let sum = md5(&content());
    let habits = Habits { breaks_after: Some(100_000), ..Habits::default() };
    let (project, server) = (Project::new(), Server::start(content(), habits));
    fetch(&Disk::default(), &server.url, &project.data("data.bin"), Some(&sum), &()).unwrap();
    assert_eq!(fs::read(project.data("data.bin")).unwrap(), content());
    assert_eq!(server.ranges(), [None, range(100_000)]);

    let (project, server) = (Project::new(), Server::start(content(), Habits::default()));
    project.put("data.bin.part", &content()[..70_000]);
    fetch(&Disk::default(), &server.url, &project.data("data.bin"), Some(&sum), &()).unwrap();
    assert_eq!(fs::read(project.data("data.bin")).unwrap(), content());
    assert_eq!(server.ranges(), [range(70_000)]);

    let (project, server) = (Project::new(), Server::start(content(), Habits::default()));
    project.put("data.bin.part", &content());
    fetch(&Disk::default(), &server.url, &project.data("data.bin"), Some(&sum), &()).unwrap();
    assert_eq!(server.ranges(), [], "all of it was there");
    assert_eq!(project.listing(), [".data.bin.lock", "data.bin"]);
}

#[test]
fn a_part_of_another_file_or_a_server_without_ranges_means_a_fresh_start() {
    let sum = md5(&content());
    let (project, server) = (Project::new(), Server::start(content(), Habits::default()));
    project.put("data.bin.part", &[7; 1000]);
    fetch(&Disk::default(), &server.url, &project.data("data.bin"), Some(&sum), &()).unwrap();
    assert_eq!(server.ranges(), [range(1000), None]);

    let (project, server) = (Project::new(), Server::start(content(), Habits::default()));
    project.put("data.bin.part", &[7; 400_000]); // longer than the file
    fetch(&Disk::default(), &server.url, &project.data("data.bin"), Some(&sum), &()).unwrap();
    assert_eq!(server.ranges(), [range(400_000), None]);

    let habits = Habits { ignores_range: true, breaks_after: Some(100_000), ..Habits::default() };
    let (project, server) = (Project::new(), Server::start(content(), habits));
    fetch(&Disk::default(), &server.url, &project.data("data.bin"), Some(&sum), &()).unwrap();
    assert_eq!(fs::read(project.data("data.bin")).unwrap(), content());
    assert_eq!(server.ranges(), [None, range(100_000)]);
}

#[test]
fn a_wrong_checksum_leaves_nothing_in_place() {
    let (project, server) = (Project::new(), Server::start(content(), Habits::default()));
    let target = project.data("data.bin");
    let expected = "0123456789abcdef0123456789abcdef";
    let message =
        fetch(&Disk::default(), &server.url, &target, Some(expected), &()).unwrap_err().to_string();
    for part in [server.url.as_str(), expected, &md5(&content()), &target.display().to_string()] {
        assert!(message.contains(part), "{message}");
    }
    assert_eq!(project.listing(), [".data.bin.lock"]);
}

#[test]
fn without_a_network_the_error_names_the_address_and_the_path() {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap(); // closed again at once
    let project = Project::new();
    let url = format!("http://{address}/cifar.tar.gz");
    let settings =
        DatasetSettings { download: true, url: Some(url.clone()), ..settings("cifar10") };
    let message = project.refusal(&settings);
    assert!(message.starts_with(&format!("failed to download {url}: ")), "{message}");
    let path = project.data("cifar-10-binary.tar.gz");
    assert!(message.ends_with(&format!("put it at {}", path.display())), "{message}");
    assert_eq!(project.listing(), [".cifar-10-binary.tar.gz.lock"]);
}

#[test]
fn a_server_that_refuses_is_quoted() {
    let habits = Habits { status: Some("404 Not Found"), ..Habits::default() };
    let (project, server) = (Project::new(), Server::start(content(), habits));
    let message = fetch(&Disk::default(), &server.url, &project.data("data.bin"), None, &())
        .unwrap_err()
        .to_string();
    assert!(message.contains("the server answers 404 Not Found"), "{message}");
    assert_eq!(server.ranges().len(), 1);
}

#[test]
fn of_several_at_once_one_downloads() {
    let (project, server) = (Project::new(), Server::start(content(), Habits::default()));
    let target = project.data("data.bin");
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                fetch(&Disk::default(), &server.url, &target, Some(&md5(&content())), &()).unwrap()
            });
        }
    });
    assert_eq!(fs::read(&target).unwrap(), content());
    assert_eq!(server.ranges(), [None]);
}
