//! Pieces of different size that several threads read and digest together.

use std::io;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{Builder, available_parallelism, scope};

/// Threads that read together, where there are as many cores.
const READERS: usize = 4;

/// `work` of each item, in order. Whichever thread is free takes the next one; `begin` makes what a
/// thread needs for all of its own.
pub(super) fn share<T: Sync, S, R: Send>(
    items: &[T],
    begin: impl Fn() -> io::Result<S> + Sync,
    work: impl Fn(&mut S, &T) -> io::Result<R> + Sync,
) -> io::Result<Vec<R>> {
    let next = AtomicUsize::new(0);
    let take = || -> io::Result<Vec<(usize, R)>> {
        let (mut state, mut done) = (begin()?, Vec::new());
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(number) else { return Ok(done) };
            done.push((number, work(&mut state, item)?));
        }
    };
    let cores = available_parallelism().map_or(1, usize::from);
    let threads = cores.min(READERS).min(items.len());
    let mut done = scope(|scope| {
        // Where the system has no thread to give, those that there are do the work.
        let others: Vec<_> =
            (1..threads).map_while(|_| Builder::new().spawn_scoped(scope, take).ok()).collect();
        let mut done = take();
        for other in others {
            let more = other.join().unwrap_or_else(|panic| resume_unwind(panic));
            done = done.and_then(|mut all| {
                all.extend(more?);
                Ok(all)
            });
        }
        done
    })?;
    done.sort_by_key(|(number, _)| *number);
    Ok(done.into_iter().map(|(_, result)| result).collect())
}
