//! Hooks run beside their stage: what becomes of them changes nothing for it.

use std::time::{Duration, Instant};

use pipe_engine::kind::StageId;
use pipe_engine::state::lock_stage;

use super::{lines, run, single};

#[test]
fn whatever_becomes_of_a_hook_the_stage_is_done() {
    for (hook, reason) in [
        ("exit 3", "ended with exit code 3"),
        ("echo out of order >&2; exit 1", "ended with exit code 1: out of order"),
        ("[no-such-program, x]", "failed to start"),
        ("kill -9 $$", "SIGKILL"),
        ("{run: 'sleep 60', timeout: 200ms}", "was ended after 200ms, its time limit"),
        ("{run: 'trap \"\" TERM; while :; do sleep 0.1; done', timeout: 200ms}", "its time limit"),
        ("{run: 'sleep 61 & setsid sleep 62 & exit 0', timeout: 300ms}", "what it left running"),
        ("https://host/bad", "it answered 500"),
        ("https://host/panic", "scripted"),
    ] {
        let quoted = if hook.starts_with(['[', '{']) {
            hook.to_owned()
        } else {
            format!("'{}'", hook.replace('\'', "''"))
        };
        let ran = run(&single(&format!("ends: train\nepochs: 1\non: {{epoch_end: {quoted}}}")));
        assert_eq!(ran.summary.finished.len(), 1, "{hook}");
        ran.warned(&["hook `on.epoch_end` of stage base", reason]);
        assert!(ran.took < Duration::from_secs(10), "{hook}: {:?}", ran.took);
    }
}

#[cfg(target_os = "linux")]
#[test]
fn all_that_a_hook_started_ends_with_its_limit() {
    let project = single(
        "on: {end: {run: 'echo $$ > pids; sleep 63 & echo $! >> pids; (setsid sleep 64 & echo $! >> pids); exit 0', timeout: 1s}}",
    );
    run(&project);
    let pids = lines(&project, "pids");
    assert_eq!(pids.len(), 3);
    let alive = |pid: &&String| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        !stat.is_empty() && !stat.contains(") Z ")
    };
    let left: Vec<&String> = pids.iter().filter(alive).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn what_a_hook_leaves_running_has_the_rest_of_its_time() {
    let project = single("on: {end: '(sleep 0.5; echo late > late) & exit 0'}");
    let ran = run(&project);
    assert_eq!(ran.warnings(), [""; 0]);
    assert_eq!(lines(&project, "late"), ["late"]);
}

#[test]
fn a_hook_that_prints_without_end_and_reads_nothing_is_no_burden() {
    let project = single(
        "on: {end: 'head -c 50000000 /dev/zero | tr \"\\0\" x; head -c 3000000 /dev/zero | tr \"\\0\" \"\\n\"'}",
    );
    let ran = run(&project);
    assert_eq!(ran.warnings(), [""; 0]);
    assert_eq!(ran.summary.finished.len(), 1);
}

#[test]
fn a_slow_hook_does_not_slow_its_stage_and_its_backlog_is_bounded() {
    let project = single(
        "ends: train\nepochs: 100\non: {epoch_end: {run: 'echo $PIPE_EVENT_EPOCH >> epochs; sleep 0.2'}, end: 'echo end >> epochs'}",
    );
    let ran = run(&project);
    // Had the stage waited for them, each epoch would be there.
    let epochs = lines(&project, "epochs");
    assert!((16..60).contains(&(epochs.len() - 1)), "{epochs:?}");
    assert_eq!(epochs[epochs.len() - 2..], ["100", "end"]);
    ran.warned(&["hook `on.epoch_end` of stage base", "slower than the epochs"]);
    ran.warned(&["hooks of ", " epochs were left out"]);
}

/// After the stage the epochs that wait have the time limit once, not once each.
#[test]
fn a_hook_that_never_ends_costs_the_end_its_limit_and_not_that_of_each_epoch() {
    let project = single(
        "ends: train\nepochs: 20\non: {epoch_end: {run: 'sleep 60', timeout: 700ms}, end: 'echo end > end'}",
    );
    let ran = run(&project);
    assert!(ran.took < Duration::from_secs(6), "{:?}", ran.took);
    assert_eq!(lines(&project, "end"), ["end"]);
}

#[test]
fn a_hook_holds_no_lock_of_its_stage() {
    let project = single("on: {end: 'touch begun; while [ ! -e go ]; do sleep 0.02; done'}");
    let base = StageId::new("base").unwrap();
    std::thread::scope(|scope| {
        let running = scope.spawn(|| run(&project));
        let path = |name: &str| project.folder.path().join(name);
        let until = Instant::now() + Duration::from_secs(20);
        while !path("begun").exists() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(10));
        }
        let taken = (0..100).any(|_| {
            std::thread::sleep(Duration::from_millis(10));
            lock_stage(&project.root, "chain", &base).is_ok_and(|lock| lock.is_ok())
        });
        std::fs::write(path("go"), "").unwrap();
        assert_eq!(running.join().unwrap().summary.finished.len(), 1);
        assert!(taken, "the hook has it");
    });
}

#[test]
fn of_the_bests_that_wait_the_newest_alone_is_told() {
    let project = single(
        "ends: train\nepochs: 50\non: {new_best: 'echo $PIPE_EVENT_EPOCH >> bests; sleep 0.2'}",
    );
    let ran = run(&project);
    assert_eq!(ran.warnings(), [""; 0], "what a newer one replaces is no loss");
    let bests = lines(&project, "bests");
    assert!(bests.len() < 25, "{bests:?}");
    assert_eq!(bests.last().map(String::as_str), Some("50"));
}
