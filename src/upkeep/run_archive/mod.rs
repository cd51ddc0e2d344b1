//! One numbered run as one file: a plain tar archive that begins with the list of what is in it.
//!
//! # What is in it
//!
//! | entry | |
//! |---|---|
//! | `run_003/manifest.json` | the first: which run it is, and each file with its size and SHA-256 |
//! | `run_003/metadata.json`, … | the files of that list, in its order, as `is_run_file` knows them |
//!
//! A file with two names in the run (`best.ckpt`, `last.ckpt`) is there once; its second name is a
//! hard link of tar. Where it is a folder, the second name is no entry, and is given to it again when
//! the run is taken in. Locks, the spare copy of `metadata.json` and files that are none of the
//! program's stay behind. A name that the header of an entry has no room for stands before it, in
//! an entry of pax.
//!
//! # What is taken in
//!
//! An archive may come from anyone. Its entries must be those of its list, one for one: the same
//! names, sizes and kinds, in the same order, with the same digests. A list names files of a run
//! and no others, each once, and links lead to a file before them. So an archive cannot name a path
//! outside of its run, cannot hold a device or a link that leads out, and is refused at the first
//! entry that is not what was announced.
//!
//! Files are unpacked beside the runs under a hidden name, checked there, and become a run in one
//! rename. A process that is killed before that leaves a hidden folder, which `pipe gc` removes.

mod check;
mod error;
mod exact_bytes;
mod export;
mod import;
mod long_names;
mod manifest;

pub use self::error::ArchiveError;
pub use self::export::RunExport;
pub(crate) use self::import::IMPORT;
pub use self::import::{Imported, import};
pub use self::manifest::{ArchivedFile, Manifest};
