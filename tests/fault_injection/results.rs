//! What was tried and what became of it.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Instant, UNIX_EPOCH};

/// What the command line asks for.
pub struct Options {
    /// Random rounds of each kind.
    pub rounds: usize,
    /// Chooses what is tried where not all is.
    pub seed: u64,
    /// How long each kind of fault may take: a share of it is tried, which the seed chooses. Without
    /// it all is.
    pub seconds: Option<u64>,
    sections: Vec<String>,
}

impl Options {
    pub fn parse() -> Self {
        let since = UNIX_EPOCH.elapsed().unwrap_or_default();
        let mut options =
            Self { rounds: 200, seed: since.as_secs(), seconds: Some(300), sections: Vec::new() };
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--rounds" => options.rounds = number(&mut arguments, "--rounds NUMBER") as usize,
                "--seed" => options.seed = number(&mut arguments, "--seed NUMBER"),
                "--seconds" => options.seconds = Some(number(&mut arguments, "--seconds NUMBER")),
                "--all" => options.seconds = None,
                // What cargo hands on to every test.
                flag if flag.starts_with('-') => {}
                name => options.sections.push(name.to_owned()),
            }
        }
        options
    }

    pub fn wants(&self, section: &str) -> bool {
        self.sections.is_empty() || self.sections.iter().any(|s| section.contains(s.as_str()))
    }

    /// Some of the numbers from 1 to `last`, evenly apart, never more than the rounds.
    pub fn some_of(&self, last: usize) -> Vec<usize> {
        self.part_of(last, 1)
    }

    /// The same with that part of the rounds; all numbers where everything is tried.
    pub fn part_of(&self, last: usize, part: usize) -> Vec<usize> {
        let most = if self.seconds.is_some() { (self.rounds / part).max(1) } else { last.max(1) };
        (1..=last).step_by(last.div_ceil(most).max(1)).collect()
    }
}

fn number(arguments: &mut impl Iterator<Item = String>, usage: &str) -> u64 {
    arguments.next().and_then(|n| n.parse().ok()).expect(usage)
}

pub struct Results {
    rows: Vec<Row>,
    /// See [`Options`].
    seconds: Option<u64>,
    seed: u64,
}

struct Row {
    what: String,
    tried: usize,
    lost: Vec<String>,
    skipped: Option<String>,
    seconds: f64,
}

impl Results {
    pub fn new(options: &Options) -> Self {
        Self { rows: Vec::new(), seconds: options.seconds, seed: options.seed }
    }

    /// Tries the items, two at a time, and no more once the time is over. An error is a loss.
    pub fn each<T: Sync + std::fmt::Debug>(
        &mut self,
        what: &str,
        items: &[T],
        attempt: impl Fn(&T) -> Result<(), String> + Sync,
    ) {
        let (next, lost, started) = (AtomicUsize::new(0), Mutex::new(Vec::new()), Instant::now());
        let tried = AtomicUsize::new(0);
        let order = self.order(items.len());
        let is_over = || self.seconds.is_some_and(|most| started.elapsed().as_secs() >= most);
        let work = || {
            while let Some(at) =
                order.get(next.fetch_add(1, Ordering::Relaxed)).filter(|_| !is_over())
            {
                let item = &items[*at];
                tried.fetch_add(1, Ordering::Relaxed);
                if let Err(error) = attempt(item) {
                    lost.lock().unwrap().push(format!("{item:?}: {error}"));
                }
            }
        };
        std::thread::scope(|scope| {
            scope.spawn(work);
            work();
        });
        let (tried, lost) = (tried.into_inner(), lost.into_inner().unwrap());
        let seconds = started.elapsed().as_secs_f64();
        let of = if tried < items.len() { format!(" of {}", items.len()) } else { String::new() };
        eprintln!("{what}: {tried}{of} tried, {} lost ({seconds:.0} s)", lost.len());
        self.add(what, tried, lost, seconds);
    }

    /// The order in which so many items are tried: any, where the time may be over before all are.
    fn order(&self, count: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..count).collect();
        if self.seconds.is_some() {
            order.sort_by_cached_key(|at| {
                let mut hash = DefaultHasher::new();
                (self.seed, at).hash(&mut hash);
                hash.finish()
            });
        }
        order
    }

    /// A row that was tried elsewhere.
    pub fn add(&mut self, what: &str, tried: usize, lost: Vec<String>, seconds: f64) {
        self.rows.push(Row { what: what.to_owned(), tried, lost, skipped: None, seconds });
    }

    /// Says how much the last row tried, where an item was several attempts.
    pub fn tried(&mut self, count: usize) {
        if let Some(row) = self.rows.last_mut() {
            row.tried = count;
        }
    }

    /// Tries one thing.
    pub fn one(&mut self, what: &str, attempt: impl Fn() -> Result<(), String> + Sync) {
        self.each(what, &[what], |_| attempt());
    }

    /// Says what cannot be tried on this machine.
    pub fn skip(&mut self, what: &str, why: &str) {
        let (what, skipped) = (what.to_owned(), Some(why.to_owned()));
        self.rows.push(Row { what, tried: 0, lost: Vec::new(), skipped, seconds: 0.0 });
    }

    /// Prints the table; the exit code.
    pub fn conclude(self) -> i32 {
        let width = self.rows.iter().map(|r| r.what.len()).max().unwrap_or(0);
        if let Some(seconds) = self.seconds {
            println!("\nof each kind what {seconds} s allow, chosen by --seed {}", self.seed);
        }
        println!("\n{:width$}  tried  survived  lost  seconds", "fault");
        let mut lost = 0;
        for row in &self.rows {
            match &row.skipped {
                Some(why) => println!("{:width$}  not tried: {why}", row.what),
                None => println!(
                    "{:width$}  {:5}  {:8}  {:4}  {:7.0}",
                    row.what,
                    row.tried,
                    row.tried - row.lost.len(),
                    row.lost.len(),
                    row.seconds
                ),
            }
            lost += row.lost.len();
        }
        for row in &self.rows {
            for text in row.lost.iter().take(8) {
                println!("\nlost: {}: {text}", row.what);
            }
        }
        i32::from(lost > 0)
    }
}

/// Fails with a text unless it holds.
pub fn ensure(holds: bool, text: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(text()) }
}
