//! What a program's stage leaves behind: nothing that runs, no second one beside it, and no more
//! memory than a line takes.
#![cfg(target_os = "linux")]

use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::project::{Project, send};

fn pipeline(stages: &str) -> Project {
    let project = Project::new();
    project.write("p.yaml", format!("name: c\nstages:\n{stages}"));
    project
}

/// The processes whose command line is exactly these words.
fn running(words: &str) -> Vec<u32> {
    let line = format!("{}\0", words.replace(' ', "\0"));
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid| {
        std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|l| l == line.as_bytes())
    })
    .collect()
}

#[track_caller]
fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The most memory that a process had, in MB, asked for until it ends.
pub fn peak(child: &mut Child) -> u64 {
    let mut peak = 0;
    while child.try_wait().unwrap().is_none() {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kilobytes = line.and_then(|text| text.split_whitespace().next()?.parse::<u64>().ok());
        peak = peak.max(kilobytes.unwrap_or(0));
        std::thread::sleep(Duration::from_millis(1));
    }
    peak >> 10
}

#[test]
fn a_program_that_outlives_its_pipe_has_the_stage_to_itself() {
    let project = pipeline(
        "  slow: { kind: command, run: 'echo x >> begun.txt; sleep 6171; echo done > out.txt', outputs: [out.txt] }\n",
    );
    let mut first = project.start(&["run", "p.yaml"]);
    until("the program was started", || !running("sleep 6171").is_empty());
    send(&first, "KILL");
    first.wait().unwrap();
    project.pipe(&["status", "p.yaml"]).succeeds().says("running").says("left behind");
    let refused = project.pipe(&["run", "p.yaml"]).exits(2).says("left behind").says("sleep 6171");
    assert_eq!(project.read("begun.txt"), "x\n", "no second one was started");
    let said = refused.stderr();
    let way_out = said.split("wait for that, or stop it: ").nth(1).unwrap().lines().next().unwrap();
    let typed = Command::new("sh").args(["-c", way_out]).status().unwrap();
    assert!(typed.success(), "{way_out}");
    until("it has ended", || running("sleep 6171").is_empty());
    project.write("p.yaml", project.read("p.yaml").replace("sleep 6171", "sleep 0"));
    project.pipe(&["run", "p.yaml"]).succeeds();
}

#[test]
fn what_runs_in_the_background_ends_with_its_stage_and_is_told() {
    let project = pipeline(
        "  a: { kind: command, run: 'setsid sleep 6172 & sleep 6173 & (setsid sh -c \"setsid sleep 6174 & exit\" &) ; echo ok > a.txt', outputs: [a.txt] }\n  b: { kind: command, run: 'cat a.txt', inputs: [a.txt] }\n",
    );
    let ended = project
        .pipe(&["run", "p.yaml"])
        .succeeds()
        .says("left processes running, which were ended");
    for seconds in [6172, 6173, 6174] {
        assert!(ended.stderr().contains(&format!("sleep {seconds} (pid ")), "{}", ended.stderr());
        assert!(running(&format!("sleep {seconds}")).is_empty(), "{seconds}");
    }
    project.pipe(&["run", "p.yaml"]).succeeds().says("up to date");
}

#[test]
fn what_forgets_where_it_comes_from_ends_too() {
    let project = pipeline(
        "  a: { kind: command, run: 'env -i /bin/sh -c \"setsid sleep 6175 >/dev/null 2>&1 &\"' }\n",
    );
    project.pipe(&["run", "p.yaml"]).succeeds().says("sleep 6175");
    assert!(running("sleep 6175").is_empty());
}

#[test]
fn what_is_about_to_end_by_itself_may() {
    let project =
        pipeline("  a: { kind: command, run: '(sleep 0.3; echo late > late.txt) & true' }\n");
    let ended = project.pipe(&["run", "p.yaml"]).succeeds();
    assert!(!ended.stderr().contains("left processes running"), "{}", ended.stderr());
    assert_eq!(project.read("late.txt"), "late\n");
}

#[test]
fn a_stop_reaches_what_left_the_process_group() {
    let project = pipeline(
        "  a: { kind: command, run: 'setsid sleep 6176 & (setsid sleep 6177 &); sleep 6178' }\n",
    );
    let mut child = project.start(&["run", "p.yaml"]);
    until("all run", || {
        [6176, 6177, 6178].iter().all(|s| !running(&format!("sleep {s}")).is_empty())
    });
    let started = Instant::now();
    send(&child, "TERM");
    assert_eq!(child.wait().unwrap().code(), Some(75));
    assert!(started.elapsed() < Duration::from_secs(8), "{:?}", started.elapsed());
    for seconds in [6176, 6177, 6178] {
        assert!(running(&format!("sleep {seconds}")).is_empty(), "{seconds}");
    }
}

#[test]
fn stages_that_run_at_once_leave_each_others_programs_alone() {
    let project = pipeline(
        "  a: { kind: command, run: 'sleep 0.2' }\n  b: { kind: command, run: '(setsid sleep 1.5 &) ; sleep 2.5' }\n  c: { kind: command, run: 'setsid sh -c \"sleep 2; echo whole > c.txt\" & wait', outputs: [c.txt] }\n",
    );
    let ended = project.pipe(&["run", "p.yaml", "--jobs", "3"]).succeeds();
    assert!(!ended.stderr().contains("left processes running"), "{}", ended.stderr());
    assert_eq!(project.read("c.txt"), "whole\n");
}

#[test]
fn output_without_end_takes_no_memory() {
    for program in [
        "timeout 4 yes",
        "timeout 4 cat /dev/zero | tr \"\\\\0\" x",
        "timeout 4 yes | tr \"\\\\n\" \"\\\\r\"",
    ] {
        let project = pipeline(&format!("  a: {{ kind: command, run: '({program}) || true' }}\n"));
        for (out, most) in [(Stdio::null(), 120), (Stdio::piped(), 120)] {
            let mut child = project
                .command(&["run", "p.yaml", "--force"])
                .stdout(Stdio::null())
                .stderr(out)
                .spawn()
                .unwrap();
            // Nobody reads what is piped, until the end.
            let started = Instant::now();
            let peak = peak(&mut child);
            assert!(child.wait().unwrap().success());
            assert!(peak < most, "{program}: {peak} MB");
            assert!(
                started.elapsed() < Duration::from_secs(15),
                "{program}: {:?}",
                started.elapsed()
            );
        }
    }
}

#[test]
fn a_descendant_that_prints_for_ever_does_not_hold_the_stage() {
    let project = pipeline("  a: { kind: command, run: 'setsid yes descendant & sleep 0.2' }\n");
    let started = Instant::now();
    project.pipe(&["run", "p.yaml"]).succeeds();
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    assert!(running("yes descendant").is_empty());
}

#[test]
fn a_long_line_is_cut_with_a_mark() {
    let project = pipeline(
        "  a: { kind: command, run: \"head -c 300000 /dev/zero | tr '\\\\0' x; echo; echo end; exit 3\" }\n",
    );
    let ended = project.pipe(&["run", "p.yaml"]).exits(1);
    let said = ended.stderr();
    let long: Vec<&str> = said.lines().filter(|line| line.len() > 10_000).collect();
    assert_eq!(long.len(), 1, "one line, not several");
    assert!(long[0].ends_with("(the rest of this line is left out)") && long[0].len() < 70_000);
    let record = project.read(".pipe/records/c/a.json");
    assert!(record.len() < 20_000 && record.contains("\\n  end"), "{} bytes", record.len());
}

#[test]
fn an_end_by_a_limit_has_words() {
    let project = pipeline(
        "  a: { kind: command, run: 'ulimit -f 8; exec head -c 100000 /dev/zero > big' }\n",
    );
    project.pipe(&["run", "p.yaml"]).exits(1).says("SIGXFSZ").says("ulimit -f");
    // The program itself is not ended by it.
    let project = Project::new();
    let mut limited = Command::new("sh");
    limited.args(["-c", "ulimit -f 16; exec \"$0\" run p.yaml", env!("CARGO_BIN_EXE_pipe")]);
    let mut child = limited
        .current_dir(project.path(""))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(1), "{said}");
    assert!(said.contains("File too large"), "{said}");
}
