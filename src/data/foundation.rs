//! All that this crate takes from the crates below it.

pub(crate) use pipe_engine::identity::hex;
pub(crate) use pipe_engine::kind::panic_message;
pub(crate) use pipe_engine::store::atomic::WriteError;
pub(crate) use pipe_engine::store::{
    STATE_FOLDER, Stamp as FileStamp, atomic, checksummed_json, disk_space, has_no_locks,
};
