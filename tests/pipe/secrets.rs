//! Secrets go nowhere: values of `env:`, and user, password and query of addresses.

use std::io::{Read, Write};
use std::net::TcpListener;

use crate::project::Project;

const SECRET: &str = "hunter2SECRET";

/// The files of the project, but for the pipeline itself, that hold a text.
pub fn files_with(project: &Project, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![project.path("")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.file_name().unwrap() != "p.yaml" {
                let bytes = std::fs::read(&path).unwrap();
                if bytes.windows(text.len()).any(|window| window == text.as_bytes()) {
                    found.push(path.display().to_string());
                }
            }
        }
    }
    found
}

#[track_caller]
fn nowhere(project: &Project, commands: &[&[&str]]) {
    for arguments in commands {
        let ended = project.pipe(arguments);
        let said = ended.stdout() + &ended.stderr();
        assert!(!said.contains(SECRET), "pipe {}:\n{said}", arguments.join(" "));
    }
    assert_eq!(files_with(project, SECRET), [""; 0]);
}

/// Answers every request alike; returns its port.
pub fn server(answer: impl Fn(&str) -> Vec<u8> + Send + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut stream = stream;
            let mut request = [0; 4096];
            let read = stream.read(&mut request).unwrap_or(0);
            let answer = answer(&String::from_utf8_lossy(&request[..read]));
            let _ = stream.write_all(&answer);
        }
    });
    port
}

pub fn response(status: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/xml\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

#[test]
fn a_program_that_prints_its_secrets_has_them_masked_everywhere() {
    let project = Project::new();
    let more = format!(
        "  prep: {{ kind: command, run: 'echo with $TOKEN', env: {{ TOKEN: {SECRET}, MODE: base, N: '10' }} }}
  bad: {{ kind: command, run: 'echo \"token $TOKEN mode $MODE n $N\" >&2; exit 3', env: {{ TOKEN: {SECRET}, MODE: base, N: '10' }}, needs: [base, prep], retry: {{ max: 1 }} }}\n"
    );
    project.write("p.yaml", crate::project::TINY.to_owned() + &more);
    let ended = project.pipe(&["run", "p.yaml"]).exits(1).says("token *** mode base n 10");
    assert!(!ended.stderr().contains(SECRET), "{}", ended.stderr());
    nowhere(
        &project,
        &[
            &["run", "p.yaml", "--log", "json"],
            &["report", "p.yaml", "-o", "r.html"],
            &["plan", "p.yaml"],
            &["plan", "p.yaml", "--json"],
            &["status", "p.yaml"],
            &["status", "p.yaml", "--json"],
            &["graph", "p.yaml"],
            &["check", "p.yaml"],
            &["runs", "--json"],
            &["run", "p.yaml", "--set", &format!("bad.env.TOKEN={SECRET}2")],
        ],
    );
    // What is asked for is given, with a word about it.
    let exported = project.pipe(&["export", "argo", "p.yaml"]).succeeds().says("values of `env:`");
    assert!(exported.stdout().contains("kind: Workflow"));
}

#[test]
fn what_is_wrong_with_env_does_not_repeat_it() {
    for env in [
        format!("env: {{ TOKEN: [{SECRET}] }}"),
        format!("env: {{ 'A=B': {SECRET} }}"),
        format!("env: {{ TOKEN: {SECRET}, TOKEN: {SECRET}2 }}"),
        format!("env: {SECRET}"),
    ] {
        let project = Project::new();
        project.write(
            "p.yaml",
            format!("name: s\nstages:\n  c: {{ kind: command, run: 'true', {env} }}\n"),
        );
        let ended = project.pipe(&["plan", "p.yaml"]).exits(2);
        assert!(!ended.stderr().contains(SECRET), "{}", ended.stderr());
    }
}

#[test]
fn addresses_are_shown_without_their_secrets() {
    let port = server(|_| response("404 Not Found", b"no"));
    let project = Project::new();
    let url = format!("http://user:{SECRET}@127.0.0.1:{port}/x.tgz?sig={SECRET}");
    project.write(
        "p.yaml",
        format!(
            "name: u\nstages:\n  data: {{ kind: dataset, source: cifar10, url: '{url}' }}\n  base: {{ kind: train, dataset: data, epochs: 1, device: cpu }}\n"
        ),
    );
    project.pipe(&["run", "p.yaml"]).exits(1).says("http://***@127.0.0.1:").says("/x.tgz?***");
    nowhere(
        &project,
        &[
            &["status", "p.yaml"],
            &["plan", "p.yaml", "--json"],
            &["report", "p.yaml", "-o", "r.html"],
        ],
    );
    let store = format!("s3://user:{SECRET}@bucket/x");
    nowhere(
        &project,
        &[
            &["plan", "p.yaml", "--store", &store],
            &["plan", "p.yaml", "--store", &format!("file:///x?sig={SECRET}")],
        ],
    );
    let project = project.environment("PIPE_STORE", format!("https://user:{SECRET}@bucket/x"));
    nowhere(&project, &[&["plan", "p.yaml"]]);
}

#[test]
fn an_address_in_a_command_is_kept_by_its_digest() {
    let project = Project::new();
    let file = |password: &str| {
        format!(
            "name: u\nstages:\n  c: {{ kind: command, run: 'echo http://me:{password}@host/ > a.txt; rm a.txt' }}\n"
        )
    };
    project.write("p.yaml", file(SECRET));
    project.pipe(&["run", "p.yaml"]).succeeds();
    nowhere(&project, &[&["plan", "p.yaml"], &["plan", "p.yaml", "--json"]]);
    project.pipe(&["plan", "p.yaml"]).succeeds().says("up to date");
    // A record of an earlier version has it whole, and still says what the stage was made of.
    let path = ".pipe/records/u/c.json";
    let record: serde_json::Value = serde_json::from_str(&project.read(path)).unwrap();
    let mut old = record.clone();
    old.as_object_mut().unwrap().remove("checksum");
    old["made"]["manifest"]["run"] =
        format!("echo http://me:{SECRET}@host/ > a.txt; rm a.txt").into();
    assert_ne!(old["made"]["manifest"], record["made"]["manifest"]);
    project.write(path, old.to_string());
    project.pipe(&["plan", "p.yaml"]).succeeds().says("up to date");
    project.write("p.yaml", file("another-SECRET"));
    let plan = project.pipe(&["plan", "p.yaml"]).succeeds().says("run ");
    assert!(
        !plan.stdout().contains("SECRET") && !plan.stdout().contains("up to date"),
        "{}",
        plan.stdout()
    );
}
