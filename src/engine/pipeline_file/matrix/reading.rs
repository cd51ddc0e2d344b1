//! What every part of a matrix is read with.

use pipe_core::error::SpecError;
use pipe_core::ids::StageId;
use serde_json::{Map, Value};

use crate::pipeline_file::values::{error_at, mapping};
use crate::source::{Part, Source};

/// More stages than this are a slip of the fingers.
pub(super) const MOST: usize = 100_000;

/// What is drawn with where nothing in the pipeline says otherwise, and the first of `seeds` of a
/// stage that has no setting `seed`.
pub(crate) const DEFAULT_SEED: u64 = 42;

/// What a matrix is read with.
#[derive(Clone, Copy)]
pub(crate) struct Reading<'a> {
    pub source: &'a Source,
    pub stage: &'a StageId,
    /// What random values are drawn with.
    pub seed: u64,
    /// The seed of the first of `seeds`.
    pub first_seed: u64,
}

impl Reading<'_> {
    /// An error at a place below `matrix`.
    pub(super) fn wrong(&self, at: &[&str], part: Part, message: impl Into<String>) -> SpecError {
        error_at(self.source, &[self.whole().as_slice(), at].concat(), part, message)
    }

    /// The mapping at a place below `matrix`.
    pub(super) fn mapping(
        &self,
        at: &[&str],
        value: &Value,
    ) -> Result<Map<String, Value>, SpecError> {
        mapping(self.source, &[self.whole().as_slice(), at].concat(), value.clone())
    }

    fn whole(&self) -> [&str; 3] {
        ["stages", self.stage.as_str(), "matrix"]
    }
}

/// Whether two values are the same in a matrix: `1` and `1.0` are.
pub(crate) fn same(one: &Value, other: &Value) -> bool {
    one == other || (one.is_number() && one.as_f64() == other.as_f64() && other.is_number())
}
