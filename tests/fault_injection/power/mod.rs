//! The power goes: on a simulated disk, in every state that POSIX permits afterwards.
//!
//! A row records what the program and its children change on the disk (`recorder.c`), replays it on
//! a disk that knows what lasts (`disk.rs`), puts a state in place that a power cut leaves, and has
//! the program go on from there.

mod cuts;
mod disk;
mod recording;
mod workloads;

use std::collections::HashSet;
use std::num::NonZero;
use std::panic::resume_unwind;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::ScopedJoinHandle;
use std::time::{Duration, Instant};

use disk::{Cut, Data, Disk, Kept, Tree};
use recording::{Change, Recorder};
use workloads::{ALL, Workload};

use crate::crash::Random;
use crate::project::Project;
use crate::results::{Options, Results, ensure};
use crate::state::{State, nothing_reported_is_missing};

/// Random states at each change, beside those that are always looked at.
const RANDOM: u64 = 4;
/// How many unsynced changes are lost or kept alone at each change.
const SINGLE: usize = 12;

pub fn section(options: &Options, results: &mut Results) {
    // In memory: the disk is another one here, and thousands of states are written.
    if Path::new("/dev/shm").is_dir() {
        let _ = tempfile::env::override_temp_dir(Path::new("/dev/shm"));
    }
    let recorder = match Recorder::build() {
        Ok(recorder) => recorder,
        Err(why) => return results.skip("power cut, simulated", &why),
    };
    let shares: u32 = ALL.iter().map(|workload| workload.share).sum();
    let bench = Bench { recorder, seed: options.seed, limited: options.seconds.is_some() };
    results.one("what the simulated disk keeps and loses", || bench.disk_is_right());
    eprintln!("power cuts: --seed {} chooses the same states again", options.seed);
    // One more than there are processors, since programs that start and sync leave them idle now
    // and then.
    let workers = std::thread::available_parallelism().map_or(2, NonZero::get) as u32 + 1;
    let next = AtomicUsize::new(0);
    let work = || {
        let mut done = Vec::new();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some(Workload { what, share, row }) = ALL.get(number) else { return done };
            let started = Instant::now();
            let whole = options.seconds.map(Duration::from_secs);
            let limit = whole.map(|whole| whole.min(whole * workers * *share / shares));
            let (tried, lost) = bench.tries(*row, started, limit);
            let seconds = started.elapsed().as_secs_f64();
            eprintln!("power cut {what}: {tried} states, {} lost ({seconds:.0} s)", lost.len());
            done.push((number, tried, lost, seconds));
        }
    };
    let mut rows = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        let done = |worker: ScopedJoinHandle<_>| {
            worker.join().unwrap_or_else(|panic| resume_unwind(panic))
        };
        workers.into_iter().flat_map(done).collect::<Vec<_>>()
    });
    rows.sort_by_key(|(number, ..)| *number);
    for (number, tried, lost, seconds) in rows {
        results.add(&format!("power cut {}", ALL[number].what), tried, lost, seconds);
    }
    cuts::section(options, results);
}

pub struct Bench {
    recorder: Recorder,
    seed: u64,
    /// Whether a row has only so much time.
    limited: bool,
}

/// Something to do during which the power goes, and what must come of it.
pub struct Row {
    /// In whose folder it was recorded, and the states are tried.
    project: Project,
    lives: Vec<Life>,
    /// The state that comes of it if the power does not go.
    expected: State,
    /// Goes on after the cut, and compares.
    check: Box<Check>,
}

type Check = dyn Fn(&Project, &State) -> Result<(), String>;

/// What was recorded between two starts of a machine.
pub struct Life {
    /// The disk at the start and after every change.
    moments: Vec<Moment>,
    /// The changes, in words, by their number.
    changes: Vec<String>,
    told: Vec<u8>,
}

struct Moment {
    disk: Disk,
    /// How much was told until then.
    told: usize,
    /// How many changes of the log it comes after.
    at: usize,
}

/// A state: which life, which moment of it, and what the power cut does.
type Place = (usize, usize, Cut);

impl Bench {
    /// Tries the states of a row: how many were tried, and what was lost.
    fn tries(
        &self,
        row: fn(&Self) -> Row,
        started: Instant,
        limit: Option<Duration>,
    ) -> (usize, Vec<String>) {
        let row = row(self);
        let (mut seen, mut tried, mut lost) = (HashSet::new(), 0, Vec::new());
        for (life, moment, cut) in places(&row.lives, self.seed) {
            if limit.is_some_and(|limit| started.elapsed() > limit) {
                break;
            }
            let life = &row.lives[life];
            let Moment { disk, told, at } = &life.moments[moment];
            let (tree, told) = (disk.after(cut), &life.told[..*told]);
            if !seen.insert((tree.digest(), saved(told))) {
                continue;
            }
            tried += 1;
            tree.put(&row.project.path(""));
            let result = nothing_reported_is_missing(&row.project, told)
                .and_then(|()| (row.check)(&row.project, &row.expected));
            if let Err(error) = result {
                let about = |at: &usize| format!("\n  {at}: {}", life.changes[*at]);
                let changes: String =
                    cut.named().iter().chain(&at.checked_sub(1)).map(about).collect();
                lost.push(format!("{cut:?} after change {at}: {error}{changes}"));
            }
        }
        (tried, lost)
    }

    /// Has a small program write, and looks at what a power cut may leave of it.
    fn disk_is_right(&self) -> Result<(), String> {
        let project = Project::new();
        let script = "printf gone > e && printf old > a && sync e a . && rm e
                      printf newer > b && mv b a && printf X | dd of=a seek=5 bs=1 conv=notrunc
                      mkdir c && printf far > c/d && sync c/d";
        let mut command = Command::new("sh");
        command.args(["-ec", script]).current_dir(project.path(""));
        let life = self.record(&project, &[command], 0, Vec::new());
        let expected = [
            (Kept::Nothing, Data::Nothing, ["old", "-", "gone"]),
            (Kept::Nothing, Data::All, ["old", "-", "gone"]),
            (Kept::All, Data::Nothing, ["", "far", "-"]),
            (Kept::All, Data::Zeros, ["\0\0\0\0\0\0", "far", "-"]),
            (Kept::All, Data::All, ["newerX", "far", "-"]),
        ];
        let disk = life.moments.last().map(|moment| &moment.disk).ok_or("nothing was recorded")?;
        for (names, data, expected) in expected {
            let tree = disk.after(Cut { names, data });
            let found = ["a", "c/d", "e"].map(|path| tree.text(path).unwrap_or("-".into()));
            ensure(found == expected, || {
                format!("{names:?}, {data:?}: {found:?}, expected {expected:?}")
            })?;
        }
        Ok(())
    }

    /// Records some commands in a project. The power goes from the command of number `from` on.
    /// What was told before is `before`.
    fn record(
        &self,
        project: &Project,
        commands: &[Command],
        from: usize,
        before: Vec<u8>,
    ) -> Life {
        let root = project.path("");
        let place = tempfile::tempdir().unwrap();
        let log = place.path().join("log");
        let mut disk = Disk::of(&root);
        let mut first = 0;
        for (number, command) in commands.iter().enumerate() {
            if number == from && log.exists() {
                first = recording::read(&log).unwrap().len();
            }
            let output = self.recorder.run(command, &root, &log).unwrap();
            let code = output.status.code();
            assert_ne!(
                code,
                Some(125),
                "the recorder: {}",
                String::from_utf8_lossy(&output.stderr)
            );
        }
        let log = recording::read(&log).unwrap();
        let changes = log.iter().map(Change::to_string).collect();
        let mut life = Life { moments: Vec::new(), changes, told: before };
        for (at, change) in log.iter().enumerate() {
            if at == first {
                life.moments.push(Moment { disk: disk.clone(), told: life.told.len(), at });
            }
            disk.change(at, change).unwrap_or_else(|e| panic!("{commands:?}: {at}: {change}: {e}"));
            match change {
                Change::Told(text) => life.told.extend(text),
                _ if at >= first => {
                    life.moments.push(Moment {
                        disk: disk.clone(),
                        told: life.told.len(),
                        at: at + 1,
                    });
                }
                _ => {}
            }
        }
        // Nothing was missed: what was recorded makes what is there.
        let differs = disk.now().difference(&Disk::of(&root).now());
        assert_eq!(differs, None, "{commands:?}: recorded is not what is there");
        life
    }
}

/// States of these lives, of which some may be the same, in an order that the seed chooses.
fn places(lives: &[Life], seed: u64) -> Vec<Place> {
    let mut random = Random(seed | 1);
    let mut all = Vec::new();
    for (life, recorded) in lives.iter().enumerate() {
        for (moment, Moment { disk, .. }) in recorded.moments.iter().enumerate() {
            all.extend(cuts_of(disk, &mut random).into_iter().map(|cut| (life, moment, cut)));
        }
    }
    for i in (1..all.len()).rev() {
        all.swap(i, random.below(i as u64 + 1) as usize);
    }
    all
}

/// What a power cut at a moment may do: what is most likely to hurt, and some of what else may be.
fn cuts_of(disk: &Disk, random: &mut Random) -> Vec<Cut> {
    let (names, data) = disk.unsynced();
    let cut = |names, data| Cut { names, data };
    let mut all = vec![
        cut(Kept::Nothing, Data::Nothing),
        cut(Kept::All, Data::Nothing),
        cut(Kept::All, Data::Zeros),
        cut(Kept::Nothing, Data::All),
        cut(Kept::All, Data::All),
    ];
    for at in some(names, random) {
        all.extend([
            cut(Kept::AllBut(at), Data::All),
            cut(Kept::Only(at), Data::All),
            cut(Kept::Only(at), Data::Nothing),
            cut(Kept::Until(at), Data::All),
        ]);
    }
    for at in some(data, random) {
        all.extend([cut(Kept::All, Data::Torn(at)), cut(Kept::All, Data::Until(at))]);
    }
    for _ in 0..RANDOM {
        let seed = random.below(u64::MAX);
        all.push(cut(Kept::Random(seed), Data::Random(seed)));
    }
    all
}

/// The newest of these changes, and others of them. What the program leaves unsynced for long would
/// else be most of all states.
fn some(mut all: Vec<usize>, random: &mut Random) -> Vec<usize> {
    while all.len() > SINGLE {
        all.remove(random.below(all.len() as u64 - 1) as usize);
    }
    all
}

/// How many checkpoints were reported as saved.
fn saved(told: &[u8]) -> usize {
    let what = br#""event":"saved""#;
    told.windows(what.len()).filter(|window| window == what).count()
}

/// A state of a life, by a number that chooses it.
fn some_state(life: &Life, random: &mut Random) -> (Tree, usize) {
    let Moment { disk, told, .. } = &life.moments[random.below(life.moments.len() as u64) as usize];
    let cuts = cuts_of(disk, random);
    (disk.after(cuts[random.below(cuts.len() as u64) as usize]), *told)
}
