//! What the compiler does not keep by itself: that imports go down only and in no circles, and that
//! retired words do not come back.

mod circles;
mod floors;
mod sources;
mod words;
