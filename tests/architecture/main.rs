//! What the compiler does not keep by itself: that imports go down only and in no circles, that
//! retired words do not come back, that what a process has once has a reason, and that functions
//! and files stay short.

mod circles;
mod floors;
mod sizes;
mod sources;
mod statics;
mod words;
