//! Names in included files. All that such a file declares comes into the pipeline under longer names:
//! `base` of a file that is included as `small` is `small_base`. A name of a stage or a policy means
//! one of the file in which it is written, else one of the file that includes that, and so on up to the
//! pipeline. A name that is given as a parameter is written where it is given. Parameters themselves
//! are those of the file alone.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

/// What one inclusion of a file declares.
#[derive(Debug, Clone)]
pub(crate) struct Scope {
    /// What its names begin with in the pipeline.
    pub prefix: String,
    /// Its parameters, by their names in the file.
    pub parameters: BTreeSet<String>,
    /// Their values; empty until parameters are filled in.
    pub values: Map<String, Value>,
    /// That of the file which includes it, if that is an included one itself.
    pub outer: Option<usize>,
}
