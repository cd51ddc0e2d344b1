//! Signals, a clock that jumps, outputs that nobody reads.

use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime};

use crate::project::Project;
use crate::results::{Options, Results, ensure};
use crate::state::{
    RUN, State, chain, changes, faulty, files, goes_on, nothing_reported_is_missing, run_with,
    text, undisturbed,
};

pub fn section(options: &Options, results: &mut Results) {
    let expected = undisturbed();
    let some = options.some_of(changes());
    results.each("SIGTERM at a change of the disk", &some, |at| {
        let project = chain();
        let output = run_with(&project, &format!("term@{at}"));
        // At the very end there is nothing left to stop.
        let code = output.status.code();
        ensure(matches!(code, Some(75 | 0)), || {
            format!("{}: {}", output.status, text(&output.stderr))
        })?;
        nothing_reported_is_missing(&project, &output.stderr)?;
        goes_on(&project, &expected)
    });
    results.one("SIGHUP: the terminal is closed", || {
        // Also where these tests themselves run under nohup, which would be handed down.
        let heard = "exec env --default-signal=HUP \"$PIPE\" \"$@\"";
        let ended = after_a_while(&chain(), &["sh", "-c", heard, "sh"], &["HUP"])?;
        ensure(ended.code() == Some(75), || format!("{ended}"))
    });
    results.one("SIGHUP under nohup", || {
        let project = chain();
        let ended = after_a_while(
            &project,
            &["sh", "-c", "trap '' HUP; exec \"$PIPE\" \"$@\"", "sh"],
            &["HUP"],
        )?;
        ensure(ended.success(), || format!("{ended}"))?;
        goes_on_long(&project)
    });
    results.one("a suspended laptop: stopped for a while", || {
        let project = chain();
        let mut child = long(&project, &["sh", "-c", "exec \"$PIPE\" \"$@\"", "sh"]);
        std::thread::sleep(Duration::from_millis(150));
        send(&child, "STOP");
        std::thread::sleep(Duration::from_secs(2));
        send(&child, "CONT");
        let ended = child.wait().map_err(|e| e.to_string())?;
        ensure(ended.success(), || format!("{ended}"))?;
        goes_on_long(&project)
    });
    let ats: Vec<usize> = some.iter().copied().step_by(some.len().div_ceil(20)).collect();
    results.each("a clock that jumped back", &ats, |at| {
        let project = chain();
        run_with(&project, &format!("kill@{at}"));
        // All that was written was written ten years from now.
        for path in files(&project.path("")) {
            let time = SystemTime::now() + Duration::from_secs(10 * 365 * 86_400);
            std::fs::File::options()
                .append(true)
                .open(path)
                .and_then(|f| f.set_modified(time))
                .map_err(|e| e.to_string())?;
        }
        goes_on(&project, &expected)
    });
    for (what, redirected) in [
        ("stdout is closed", "exec \"$PIPE\" \"$@\" >&-"),
        ("stderr is closed", "exec \"$PIPE\" \"$@\" 2>&-"),
        ("stdout's reader is gone", "{ sleep 0.1; exec \"$PIPE\" \"$@\"; } | true"),
        ("stderr's reader is gone", "{ sleep 0.1; exec \"$PIPE\" \"$@\"; } 2>&1 >/dev/null | true"),
        ("stdout is a full disk", "exec \"$PIPE\" \"$@\" >/dev/full"),
        ("stderr is a full disk", "exec \"$PIPE\" \"$@\" 2>/dev/full"),
    ] {
        results.one(what, || {
            let project = chain();
            let mut command = shell(&project, &["sh", "-c", redirected, "sh"], &["run", "p.yaml"]);
            let output = command.output().map_err(|e| e.to_string())?;
            ensure(output.status.success(), || {
                format!("{}: {}", output.status, text(&output.stderr))
            })?;
            up_to_date(&project, &expected)
        });
    }
    results.one("nobody reads stderr", || {
        let project = chain();
        // More lines than the pipe and the program's queue hold.
        let settings = [
            "run",
            "p.yaml",
            "base",
            "--log",
            "json",
            "--set",
            "base.epochs=1500",
            "--set",
            "base.sample_every_n_epochs=1500",
        ];
        let mut command = project.command(&settings);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let ended = wait(&mut child, Duration::from_secs(300))?;
        ensure(ended.success(), || format!("{ended}"))
    });
    results.one("SIGTERM while nobody reads stderr", || {
        let project = chain();
        let mut command = faulty(&project, "none");
        let mut child = command.stdout(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(100));
        send(&child, "TERM");
        let ended = wait(&mut child, Duration::from_secs(20))?;
        ensure(matches!(ended.code(), Some(75 | 0)) || ended.signal() == Some(15), || {
            format!("{ended}")
        })?;
        goes_on(&project, &expected)
    });
}

/// Enough epochs that a signal meets a training.
const LONG: [&str; 7] = [
    "run",
    "p.yaml",
    "base",
    "--set",
    "base.epochs=150",
    "--set",
    "base.sample_every_n_epochs=150",
];

fn shell(project: &Project, words: &[&str], arguments: &[&str]) -> Command {
    let own = project.command(&RUN);
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).args(arguments).current_dir(project.path(""));
    command.env("PIPE", own.get_program()).stdin(Stdio::null());
    command
}

fn long(project: &Project, words: &[&str]) -> Child {
    shell(project, words, &LONG).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// Sends signals when a checkpoint stands, and waits for the end.
fn after_a_while(
    project: &Project,
    words: &[&str],
    signals: &[&str],
) -> Result<std::process::ExitStatus, String> {
    let mut child = long(project, words);
    let last = project.path("checkpoints/base_training/run_001/checkpoints/last.ckpt");
    for _ in 0..2000 {
        if last.exists() {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    signals.iter().for_each(|signal| send(&child, signal));
    wait(&mut child, Duration::from_secs(60))
}

fn wait(child: &mut Child, limit: Duration) -> Result<std::process::ExitStatus, String> {
    let deadline = std::time::Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait().map_err(|e| e.to_string())? {
            return Ok(status);
        }
        if std::time::Instant::now() > deadline {
            let _ = child.kill();
            let _ = child.wait();
            return Err(format!("it did not end within {limit:?}"));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn send(child: &Child, signal: &str) {
    let sent = Command::new("kill")
        .args([&format!("-{signal}"), &child.id().to_string()])
        .status()
        .unwrap();
    assert!(sent.success());
}

fn goes_on_long(project: &Project) -> Result<(), String> {
    let output = project.command(&LONG).output().map_err(|e| e.to_string())?;
    ensure(text(&output.stdout).contains("everything is up to date"), || text(&output.stderr))
}

/// The run did all it had to, so that there is nothing left to do.
fn up_to_date(project: &Project, expected: &State) -> Result<(), String> {
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    // In a pipeline of the shell the last command's end is what is waited for.
    while crate::state::same(project, expected).is_err() && std::time::Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(50));
    }
    crate::state::same(project, expected)?;
    goes_on(project, expected)
}
