//! What the compiler does not keep by itself: that imports go down only and in no circles, that
//! retired words do not come back, and that what a process has once has a reason.

mod circles;
mod floors;
mod sources;
mod statics;
mod words;
