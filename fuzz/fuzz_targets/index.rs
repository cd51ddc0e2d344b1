#![no_main]

#[path = "../targets.rs"]
#[allow(dead_code, reason = "one of them each")]
mod targets;

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::state::index(data));
