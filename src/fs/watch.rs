//! What the listener of a [`Disk`](crate::Disk) hears of: every name that `atomic` changes, when
//! the change is made and before anything that follows from it. Knows nothing of who listens and
//! what for.

use std::path::Path;

/// A change that stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileEvent<'a> {
    /// The name has a new content: it was written as a whole, or made another name of a file. What
    /// an open file of the name holds from now on never changes.
    Written(&'a Path),
    /// The file was opened to grow; nobody is told of each addition.
    Grows(&'a Path),
    /// The file, or the folder with all in it, is gone.
    Removed(&'a Path),
}

/// Who wants to know. Called by the thread that made the change, which waits: it must be quick.
pub trait Listener: Send + Sync {
    fn hear(&self, news: FileEvent);
}
