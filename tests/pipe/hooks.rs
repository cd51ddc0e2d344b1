//! Hooks of real trainings and programs: commands and addresses that are told what happens.
#![cfg(unix)]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::project::{Project, TINY, send};

/// The tiny training with `on:` for its stage and for the pipeline.
fn training(on: &str, of_all: &str) -> Project {
    let project = Project::new();
    project.write("p.yaml", format!("on: {of_all}\n{TINY}    on: {on}\n"));
    project
}

/// A pipeline of one program.
fn program(run: &str, on: &str) -> Project {
    let project = Project::new();
    project.write(
        "p.yaml",
        format!("name: c\nstages:\n  one: {{ kind: command, run: '{run}', on: {on} }}\n"),
    );
    project
}

/// Where a server listens that treats each request so, and what it was asked.
fn server(treat: impl Fn(TcpStream) + Send + 'static) -> (String, Receiver<(String, Value)>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("127.0.0.1:{}", listener.local_addr().unwrap().port());
    let (sender, asked) = channel();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut request = Vec::new();
            let mut piece = [0; 4096];
            let (head, body) = loop {
                let read = stream.read(&mut piece).unwrap_or(0);
                request.extend_from_slice(&piece[..read]);
                let text = String::from_utf8_lossy(&request).into_owned();
                let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
                let length = head.lines().find_map(|line| {
                    line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok()
                });
                if read == 0 || length.is_some_and(|length: usize| body.len() >= length) {
                    break (head.to_owned(), body.to_owned());
                }
            };
            let _ = sender.send((head, serde_json::from_str(&body).unwrap_or_default()));
            treat(stream);
        }
    });
    (address, asked)
}

fn answer(status: &str) -> impl Fn(TcpStream) + Send + 'static {
    let text = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    move |mut stream| {
        let _ = stream.write_all(text.as_bytes());
    }
}

#[track_caller]
fn until_there(project: &Project, name: &str) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !project.path(name).exists() {
        assert!(Instant::now() < deadline, "no {name}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn json_lines(project: &Project, file: &str) -> Vec<Value> {
    project.read(file).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_training_tells_of_its_epochs_and_its_best() {
    let tell = "'(cat; echo) >> told'";
    let project = training(
        &format!(
            "{{ epoch_end: {tell}, new_best: [{{run: 'cp \"$PIPE_EVENT_CHECKPOINT\" copy.ckpt'}}, {{run: {tell}}}], end: {tell}, failure: 'touch failed' }}"
        ),
        "{ end: '(cat; echo) >> end' }",
    );
    let ended = project.pipe(&["run", "p.yaml", "--set", "epochs=3"]).succeeds();
    assert!(!ended.stderr().contains("hook"), "{}", ended.stderr());
    let told = json_lines(&project, "told");
    let of = |event: &str| told.iter().filter(|t| t["event"] == event).collect::<Vec<_>>();
    let epochs: Vec<&Value> = of("epoch_end").iter().map(|t| &t["epoch"]).collect();
    assert_eq!(epochs, [1, 2, 3]);
    let metadata = project.metadata("checkpoints/base_training/run_001");
    let best = of("new_best").last().copied().unwrap();
    assert_eq!(best["epoch"], metadata["best_checkpoint"]["epoch"], "{best}");
    assert_eq!(best["run_folder"], "checkpoints/base_training/run_001");
    assert_eq!(best["metrics"]["train_loss"], best["value"]);
    let checkpoint = best["checkpoint"].as_str().unwrap();
    assert!(project.path(checkpoint).is_file(), "{best}");
    let read = |path: &str| std::fs::read(project.path(path)).unwrap();
    assert!(read(checkpoint) == read("copy.ckpt"), "it could be copied");
    let end = told.last().unwrap();
    assert_eq!((&end["event"], &end["outcome"]), (&"end".into(), &"completed".into()));
    assert!(!project.path("failed").exists());
    let ends = json_lines(&project, "end");
    assert_eq!(ends.len(), 1, "{ends:?}");
    assert_eq!(ends[0]["outcome"], "completed");
    // Hooks are no reason to train again, and tell nothing of what is up to date.
    let text = project.read("p.yaml").replace("failed' }", "other' }");
    project.write("p.yaml", text);
    project.pipe(&["run", "p.yaml", "--set", "epochs=3"]).succeeds().says("up to date");
    assert_eq!((json_lines(&project, "told"), json_lines(&project, "end")), (told, ends));
}

#[test]
fn a_stage_that_judges_tells_of_the_best_and_of_what_it_found() {
    let tell = "'(cat; echo) >> told.$PIPE_STAGE'";
    let best = "'cp \"$PIPE_EVENT_CHECKPOINT\" copy.ckpt'";
    let judge = format!(
        "kind: evaluate, from: base, dataset: data, metrics: [val_loss], device: cpu, on: {{ end: {tell}, new_best: [{{run: {tell}}}, {{run: {best}}}] }}"
    );
    let text = TINY.replace("num_images: 64", "num_images: 64\n    val_split: 0.25");
    let project = Project::new();
    project.write(
        "p.yaml",
        format!(
            "{text}    checkpoint: {{ monitor: quality.val_loss }}\n  quality: {{ {judge}, each_checkpoint: true, to: quality }}\n  once: {{ {judge}, to: once }}\n"
        ),
    );
    project
        .pipe(&["run", "p.yaml", "--set", "epochs=3"])
        .succeeds()
        .says("New best checkpoint! quality.val_loss=");
    let told = json_lines(&project, "told.quality");
    let (end, bests) = told.split_last().unwrap();
    let run = "checkpoints/base_training/run_001";
    let best = &project.metadata(run)["best_checkpoint"];
    // The first checkpoint is the best so far, and each one after it that is better.
    assert_eq!(bests.first().unwrap()["epoch"], 1, "{told:?}");
    let last = bests.last().unwrap();
    assert_eq!((&last["event"], &last["epoch"]), (&"new_best".into(), &best["epoch"]));
    assert_eq!(last["monitor"], "quality.val_loss");
    assert_eq!(last["value"], last["metrics"]["val_loss"]);
    let read = |path: &str| std::fs::read(project.path(path)).unwrap();
    assert!(read("copy.ckpt") == read(&format!("{run}/checkpoints/best.ckpt")));
    // What the end tells is of the best one.
    let once = json_lines(&project, "told.once");
    for (end, file) in [(end, last["checkpoint"].as_str().unwrap()), (&once[0], "best.ckpt")] {
        assert_eq!((&end["event"], &end["epoch"]), (&"end".into(), &best["epoch"]), "{end}");
        assert_eq!(end["metrics"], serde_json::json!({ "val_loss": last["value"] }), "{end}");
        assert!(end["checkpoint"].as_str().unwrap().ends_with(file), "{end}");
    }
    assert_eq!(once.len(), 1, "it chooses none: {once:?}");
}

#[test]
fn a_failure_is_told_once_after_the_last_attempt() {
    let project = program(
        "echo it \"is\" \\\"bad\\\"; exit 3",
        "{ failure: '(cat; echo) >> failed', end: '(cat; echo) >> failed' }, retry: { max: 2 }",
    );
    project.pipe(&["run", "p.yaml"]).exits(1);
    let told = json_lines(&project, "failed");
    let events: Vec<&Value> = told.iter().map(|t| &t["event"]).collect();
    assert_eq!(events, ["failure", "end"]);
    assert_eq!((&told[0]["failure"], &told[0]["outcome"]), (&"command".into(), &"failed".into()));
    assert!(told[0]["message"].as_str().unwrap().contains("it is \"bad\""), "{}", told[0]);
}

#[test]
fn an_address_gets_the_event_and_its_secrets_are_masked() {
    const SECRET: &str = "hunter2SECRET";
    let (address, asked) = server(answer("204 No Content"));
    let (broken, _asked) = server(answer("500 Internal Server Error"));
    let project = program(
        "true",
        &format!(
            "{{ end: [{{url: 'http://user:{SECRET}@{address}/a?token={SECRET}'}}, {{url: 'http://{broken}/T0{SECRET}9/x?k={SECRET}'}}] }}"
        ),
    );
    let ended = project.pipe(&["run", "p.yaml", "-vv"]).succeeds();
    ended.says("hook `on.end` of stage one").says("it answered 500");
    let (head, body) = asked.recv_timeout(Duration::from_secs(5)).unwrap();
    let head = head.to_ascii_lowercase();
    assert!(head.starts_with("post /a?token="), "{head}");
    assert!(head.contains("content-type: application/json"), "{head}");
    assert!(head.contains("authorization: basic "), "{head}");
    assert_eq!((&body["event"], &body["stage"]), (&"end".into(), &"one".into()));
    for arguments in [
        &["run", "p.yaml", "-vv", "--force"][..],
        &["run", "p.yaml", "--log", "json", "--force"],
        &["plan", "p.yaml", "--json"],
        &["check", "p.yaml"],
        &["graph", "p.yaml"],
        &["status", "p.yaml", "--json"],
        &["report", "p.yaml", "-o", "r.html"],
        &["run", "p.yaml", "--force", "--set", &format!("one.on.end=ftp://u:{SECRET}@h")],
    ] {
        let ended = project.pipe(arguments);
        let said = ended.stdout() + &ended.stderr();
        assert!(!said.contains(SECRET), "{arguments:?}: {said}");
    }
    assert_eq!(crate::secrets::files_with(&project, SECRET), [""; 0]);
}

#[test]
fn an_address_that_does_not_answer_costs_its_limit() {
    let hanging = |stream: TcpStream| {
        std::thread::sleep(Duration::from_secs(30));
        drop(stream);
    };
    let drop_by_drop = |mut stream: TcpStream| {
        for byte in b"HTTP/1.1 200 OK\r\nX: ".iter().chain(&[b'x'; 300]) {
            if stream.write_all(&[*byte]).is_err() {
                return;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    };
    let refusing = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    for (address, reason) in [
        (server(hanging).0, "no answer within"),
        (server(drop_by_drop).0, "no answer within"),
        (server(answer("302 Found")).0, "it answered 302 Found; give the address"),
        (server(drop).0, "hook `on.end`"),
        (refusing, "hook `on.end`"),
    ] {
        let project =
            program("true", &format!("{{ end: {{url: 'http://{address}/', timeout: 1s}} }}"));
        let started = Instant::now();
        project.pipe(&["run", "p.yaml"]).succeeds().says(reason);
        assert!(started.elapsed() < Duration::from_secs(8), "{reason}: {:?}", started.elapsed());
    }
}

#[test]
fn a_stop_is_told() {
    let project = program(
        "touch begun; sleep 6190",
        "{ failure: 'sleep 0.5; (cat; echo) >> told', end: '(cat; echo) >> told' }",
    );
    let mut child = project.start(&["run", "p.yaml"]);
    until_there(&project, "begun");
    send(&child, "TERM");
    assert_eq!(child.wait().unwrap().code(), Some(75));
    let told = json_lines(&project, "told");
    assert_eq!(told.len(), 2, "{told:?}");
    assert_eq!(told[0]["failure"], "interrupted");
    assert_eq!(told[1]["outcome"], "interrupted");
}

#[test]
fn a_second_ctrl_c_waits_for_no_hook() {
    let project = program("touch begun; sleep 6191", "{ end: 'touch hook; sleep 6192' }");
    let mut child = project.start(&["run", "p.yaml"]);
    until_there(&project, "begun");
    send(&child, "INT");
    until_there(&project, "hook");
    send(&child, "INT");
    let started = Instant::now();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(started.elapsed() < Duration::from_secs(5));
    std::thread::sleep(Duration::from_millis(300));
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let is_left = |path: &std::path::Path| {
        std::fs::read(path.join("cmdline")).is_ok_and(|line| line.starts_with(b"sleep\x006192"))
    };
    assert!(!entries.map(|entry| entry.path()).any(|path| is_left(&path)), "it ended the hook");
}

#[test]
fn hooks_of_stages_side_by_side_and_one_end_of_all() {
    let project = Project::new();
    project.write(
        "p.yaml",
        "name: c
on: { failure: 'echo $PIPE_STAGE >> failed', end: 'cat > end' }
stages:
  many: { kind: command, run: 'test ${matrix.n} != 3', matrix: { n: [1, 2, 3, 4] }, on_failure: continue, on: { end: 'echo $PIPE_STAGE >> ended' } }
",
    );
    project.pipe(&["run", "p.yaml", "--jobs", "4"]).exits(1);
    let mut ended: Vec<String> = project.read("ended").lines().map(str::to_owned).collect();
    ended.sort();
    assert_eq!(ended, ["many@n=1", "many@n=2", "many@n=3", "many@n=4"]);
    assert_eq!(project.read("failed"), "many@n=3\n");
    let end: Value = serde_json::from_str(&project.read("end")).unwrap();
    assert_eq!((&end["outcome"], &end["finished"]), (&"failed".into(), &3.into()));
}

#[test]
fn a_hook_may_call_pipe() {
    let project = Project::new();
    let pipe = env!("CARGO_BIN_EXE_pipe");
    project.write(
        "q.yaml",
        "name: q\nparams: { event: unset }\nstages:\n  two: { kind: command, run: 'echo ${params.event} > two' }\n",
    );
    project.write(
        "p.yaml",
        format!(
            "name: c\non: {{ end: '{pipe} run q.yaml && {pipe} run p.yaml && {pipe} status p.yaml > status' }}\nstages:\n  one: {{ kind: command, run: 'true' }}\n"
        ),
    );
    let ended = project.pipe(&["run", "p.yaml"]).succeeds();
    assert!(!ended.stderr().contains("hook"), "{}", ended.stderr());
    assert_eq!(project.read("two"), "unset\n", "what a hook is told is no setting");
    assert!(project.read("status").contains("one"));
}

/// Otherwise a run that fails again and again would never end.
#[test]
fn a_pipeline_that_a_hook_of_its_own_runs_tells_nobody() {
    let project = Project::new();
    let pipe = env!("CARGO_BIN_EXE_pipe");
    let again = format!("echo x >> told; {pipe} run p.yaml");
    project.write(
        "p.yaml",
        format!(
            "name: c\non: {{ failure: '{again}', end: '{again}' }}\nstages:\n  one: {{ kind: command, run: 'false', on: {{ end: '{again}' }} }}\n"
        ),
    );
    project.pipe(&["run", "p.yaml"]).exits(1).says("ended with exit code 1");
    assert_eq!(project.read("told"), "x\n".repeat(3), "each once");
}

#[test]
fn output_is_shown_when_asked_for_and_check_refuses_what_is_wrong() {
    let project = program("true", "{ end: 'echo heard; echo aside >&2' }");
    let quiet = project.pipe(&["run", "p.yaml"]).succeeds();
    assert!(!quiet.stderr().contains("heard"), "{}", quiet.stderr());
    project.pipe(&["run", "p.yaml", "--force", "-v"]).succeeds().says("heard").says("aside");
    let project = program("true", "{ enb: x }");
    project.pipe(&["check", "p.yaml"]).exits(2).says("did you mean `end`?");
    let project = program("true", "{ end: 'ftp://h/x' }");
    project.pipe(&["check", "p.yaml"]).exits(2).says("begins with `https://`").says("p.yaml:");
}

#[test]
fn pods_of_argo_leave_the_end_of_the_pipeline_alone() {
    let project = program("true", "{ end: 'true' }");
    let plain = project.pipe(&["export", "argo", "p.yaml"]).succeeds().stdout();
    assert!(!plain.contains("on.end"), "{plain}");
    project.write("p.yaml", format!("on: {{ end: 'touch all' }}\n{}", project.read("p.yaml")));
    let told = project.pipe(&["export", "argo", "p.yaml"]).succeeds().stdout();
    assert!(told.contains("--set=on.end=null"), "{told}");
    project.pipe(&["run", "p.yaml", "one", "--set=on.end=null"]).succeeds();
    assert!(!project.path("all").exists());
}
