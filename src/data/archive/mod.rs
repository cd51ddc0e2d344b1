//! Archives that come from elsewhere: getting, checking and unpacking them.

pub mod download;
mod hashed_file;
mod lock;
mod long_names;
pub(crate) mod packed;
mod parquet_rows;
pub(crate) mod published;
pub mod unpack;
mod unzip;
