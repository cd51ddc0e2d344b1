//! New arrays whose pieces are made side by side. Each task writes the zeros that its piece begins
//! with, into the cache that it works in, so that no thread writes all of them before the others
//! begin.
#![allow(unsafe_code)]

use std::mem::MaybeUninit;

use rayon::prelude::*;

/// Numbers that are copied at a time to begin with.
const ROWS: usize = 1024;

/// An array of `len` numbers, and what `work` returns for each piece of `piece` of them, in order.
/// `work` gets the piece's number and the piece itself, which is zeros.
pub(super) fn in_pieces<R: Send>(
    len: usize,
    piece: usize,
    work: impl Fn(usize, &mut [f32]) -> R + Send + Sync,
) -> (Vec<f32>, Vec<R>) {
    in_pieces_of(&[0.0], len, piece, || (), |(), number, piece| work(number, piece))
}

/// [`in_pieces`] that begin with `row`, again and again, and with something that a thread makes
/// once for several pieces.
pub(super) fn in_pieces_of<S, R: Send>(
    row: &[f32],
    len: usize,
    piece: usize,
    init: impl Fn() -> S + Send + Sync,
    work: impl Fn(&mut S, usize, &mut [f32]) -> R + Send + Sync,
) -> (Vec<f32>, Vec<R>) {
    // Long enough that copying it costs no more than filling.
    let row: Vec<MaybeUninit<f32>> = row.iter().copied().map(MaybeUninit::new).collect();
    let rows = row.repeat((ROWS / row.len().max(1)).max(1));
    let mut numbers = Vec::with_capacity(len);
    let pieces = numbers.spare_capacity_mut()[..len].par_chunks_mut(piece.max(1)).enumerate();
    let found =
        pieces.map_init(init, |state, (number, piece): (usize, &mut [MaybeUninit<f32>])| {
            piece.chunks_mut(rows.len()).for_each(|part| part.copy_from_slice(&rows[..part.len()]));
            // SAFETY: every number of the piece was just written, and nothing else refers to it.
            let piece = unsafe { &mut *(std::ptr::from_mut(piece) as *mut [f32]) };
            work(state, number, piece)
        });
    let found = found.collect();
    // SAFETY: the pieces are all of the first `len` numbers, and each was written. A task that
    // panics does not let it come this far.
    unsafe { numbers.set_len(len) };
    (numbers, found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_piece_begins_with_zeros_and_has_its_place() {
        for (len, piece) in [(0, 3), (1, 3), (7, 3), (9, 3)] {
            let (numbers, pieces) = in_pieces(len, piece, |number, piece| {
                assert!(piece.iter().all(|v| *v == 0.0));
                piece.fill(number as f32);
                piece.len()
            });
            let expected: Vec<f32> = (0..len).map(|i| (i / piece) as f32).collect();
            assert_eq!(numbers, expected);
            assert_eq!(pieces.iter().sum::<usize>(), len);
        }
        let (numbers, _) = in_pieces_of(&[1.0, 2.0], 10, 4, || (), |(), _, _| ());
        assert_eq!(numbers, [1.0, 2.0].repeat(5));
    }
}
