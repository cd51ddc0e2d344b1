//! Whatever comes in, memory stays below 256 MB.
#![cfg(target_os = "linux")]

use std::io::Read;
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::children::peak;
use crate::project::Project;
use crate::secrets::{response, server};

const MOST: u64 = 256;

/// Runs a command that is to be refused, within its time and memory. Returns what it says.
#[track_caller]
fn refused(project: &Project, arguments: &[&str]) -> String {
    let started = Instant::now();
    let mut child =
        project.command(arguments).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let peak = peak(&mut child);
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(!child.wait().unwrap().success(), "pipe {}: {said}", arguments.join(" "));
    assert!(peak < MOST, "pipe {}: {peak} MB; {said}", arguments.join(" "));
    assert!(started.elapsed() < Duration::from_secs(60), "pipe {}", arguments.join(" "));
    assert!(said.len() < 10_000, "{} bytes of message", said.len());
    said
}

#[test]
fn headers_of_checkpoints() {
    const MB: usize = 1 << 20;
    let project = Project::new();
    let names = |of: &str, count: usize| {
        (0..count).map(|i| format!("\"{i:x}\":{of}")).collect::<Vec<_>>().join(",")
    };
    for (what, header) in [
        ("zeros", format!("{{\"a\":[{}0]}}", "0,".repeat(31 * MB))),
        ("zeros that are not too long", format!("{{\"a\":[{}0]}}", "0,".repeat(7 * MB))),
        ("empty lists", format!("{{\"a\":[{}0]}}", "[],".repeat(5 * MB))),
        ("names", format!("{{{}}}", names("0", MB))),
        ("metadata", format!("{{\"__metadata__\":{{{}}}}}", names("\"\"", MB))),
        (
            "few and long",
            format!(
                "{{\"__metadata__\":{{{}}}}}",
                names(&format!("\"{}\"", "x".repeat(40)), 200_000)
            ),
        ),
        ("deep", format!("{{\"a\":{}{}}}", "[".repeat(5 * MB), "]".repeat(5 * MB))),
        ("spaces", format!("{{\"a\":1{}}}", " ".repeat(65 * MB))),
    ] {
        let bytes = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes()].concat();
        project.write("a.ckpt", bytes);
        let said = refused(&project, &["ckpt", "show", "a.ckpt"]);
        assert!(said.contains("a.ckpt"), "{what}: {said}");
    }
}

#[test]
fn pipeline_files() {
    let project = Project::new();
    project.write(
        "p.yaml",
        format!(
            "name: b\nstages:\n  c: {{ kind: command, run: \"{}\" }}\n",
            "x".repeat(50_000_000)
        ),
    );
    let said = refused(&project, &["plan", "p.yaml"]);
    assert!(said.contains("longer than 16 MB"), "{said}");
}

#[test]
fn parameters_that_repeat_each_other() {
    for (first, next) in [
        (
            "xxxxxxxxxx".to_owned(),
            (|p: usize| format!("\"${{params.p{p}}}${{params.p{p}}}\"")) as fn(usize) -> String,
        ),
        ("[1, 2]".to_owned(), |p: usize| format!("[\"${{params.p{p}}}\", \"${{params.p{p}}}\"]")),
    ] {
        let project = Project::new();
        let params: String = (1..40).map(|p| format!("  p{p}: {}\n", next(p - 1))).collect();
        let file = "stages:\n  c: { kind: command, run: 'echo ${params.p39}' }\n";
        project.write("p.yaml", format!("name: b\nparams:\n  p0: {first}\n{params}{file}"));
        let said = refused(&project, &["plan", "p.yaml"]);
        assert!(said.contains("it is larger than 4 MB"), "{said}");
    }
}

fn of_store(project: Project, port: u16) -> Project {
    project
        .environment("AWS_ENDPOINT_URL", format!("http://127.0.0.1:{port}"))
        .environment("AWS_ALLOW_HTTP", "true")
        .environment("AWS_ACCESS_KEY_ID", "AKIATEST")
        .environment("AWS_SECRET_ACCESS_KEY", "SECRETKEY")
        .environment("AWS_REGION", "us-east-1")
}

fn listed(keys: impl Iterator<Item = u64>, next: Option<u64>) -> Vec<u8> {
    let keys = keys.map(|key| {
        format!("<Contents><Key>p/tiny/.pipe/index/{key:010}.json</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified><ETag>\"x\"</ETag><Size>10</Size></Contents>")
    });
    let keys = keys.collect::<String>();
    let next = next.map_or("<IsTruncated>false</IsTruncated>".to_owned(), |next| {
        format!(
            "<IsTruncated>true</IsTruncated><NextContinuationToken>t{next}</NextContinuationToken>"
        )
    });
    let text = format!("<?xml version=\"1.0\"?><ListBucketResult>{next}{keys}</ListBucketResult>");
    response("200 OK", text.as_bytes())
}

#[test]
fn lists_without_end() {
    let pages = AtomicU64::new(0);
    let port = server(move |_| {
        let page = pages.fetch_add(1, Ordering::Relaxed);
        listed((page * 1000)..(page * 1000 + 1000), Some(page))
    });
    let project = of_store(Project::new(), port);
    let said = refused(&project, &["plan", "p.yaml", "--store", "s3://bucket/p"]);
    assert!(said.contains("the list names more than"), "{said}");
}

#[test]
fn answers_of_any_length() {
    let long = |status: &'static str, body: fn() -> Vec<u8>| {
        server(move |request| {
            if status == "200 OK" && request.contains("list-type=2") {
                listed(1..2, None)
            } else {
                response(status, &body())
            }
        })
    };
    for port in [
        long("200 OK", || vec![b' '; 300 << 20]),
        long("200 OK", || vec![b' '; 70 << 20]),
        long("200 OK", || format!("{{\"a\":[{}0]}}", "0,".repeat(30 << 20)).into_bytes()),
        long("403 Forbidden", || vec![b'x'; 300 << 20]),
    ] {
        let project = of_store(Project::new(), port);
        refused(&project, &["plan", "p.yaml", "--store", "s3://bucket/p"]);
    }
}
