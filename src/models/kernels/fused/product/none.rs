//! In the place of vectors, for processors that these products are not written for.

use super::{Columns, Rows, Target};

/// The vectors that a processor has: none of those.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Width {}

impl Width {
    pub fn of_processor() -> Option<Self> {
        None
    }

    pub fn columns(self, _outputs: usize) -> usize {
        match self {}
    }

    pub fn rows(self) -> usize {
        match self {}
    }

    pub unsafe fn multiply(self, _columns: usize, _rows: &Rows, _panel: &[f32], _target: Target) {
        match self {}
    }

    pub unsafe fn multiply_transposed(
        self,
        _columns: usize,
        _tall: usize,
        _left: Columns,
        _panel: &[f32],
        _target: Target,
    ) {
        match self {}
    }
}
