//! What the threads of this program have in common.

/// Stack of a thread that runs a stage or computes, in bytes: as deep as the main thread's, because
/// networks are walked recursively.
pub const STACK_SIZE: usize = 8 << 20;
