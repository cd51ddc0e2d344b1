//! The program's allocator: mimalloc, told to keep what was freed for a while.
//!
//! A training step frees and asks again for the same hundreds of megabytes. Given back to the
//! system in between, every page would come back as zeros that the kernel has to write: a tenth of
//! a step's time on the CPU (docs/dev/log.md).
#![allow(unsafe_code)]

use std::ffi::c_long;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// `mi_option_purge_delay`, which the bindings do not name: milliseconds until freed memory goes
/// back to the system.
const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;
const A_MINUTE: c_long = 60_000;

/// To be called first. Freed memory goes back to the system after a minute, and not after a hundredth
/// of a second: the longest steps that somebody waits for have an end within it.
pub fn keep_memory() {
    // SAFETY: sets a number that the allocator reads when it frees; any number is valid, from any
    // thread.
    unsafe { libmimalloc_sys::mi_option_set(PURGE_DELAY, A_MINUTE) }
}
