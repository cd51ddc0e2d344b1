//! What the compiler does not keep by itself: that imports go down only and in no circles, and that
//! retired words do not come back, and that functions and files stay short.

mod circles;
mod floors;
mod sizes;
mod sources;
mod words;
