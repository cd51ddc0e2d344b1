//! Archives that come from elsewhere: getting, checking and unpacking them.

pub mod download;
mod hashed_file;
mod lock;
mod long_names;
pub(crate) mod published;
pub mod unpack;
pub(crate) mod unzip;
