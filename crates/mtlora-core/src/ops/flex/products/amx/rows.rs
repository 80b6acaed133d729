//! The left matrix and how it is packed.

use std::arch::x86_64::{__m512, _MM_HINT_T0, _mm_prefetch, _mm512_setzero_si512};
use std::mem::MaybeUninit;
use std::ops::Range;

use rayon::prelude::*;

use super::super::aligned::Aligned;
use super::super::avx512::transposed;
use super::super::padded::padded;
use super::parts::{of_neighbours, of_pairs};
use super::{Amx, DEPTH, PAIRS, Rows, SIDE, WIDTH};

/// How many elements ahead of those that are packed are prefetched in each row: the processor does not predict as many
/// rows as a block has.
const AHEAD: usize = 128;

/// A left matrix as it lies.
#[derive(Clone, Copy)]
pub(super) enum Source<'a> {
    /// Row after row.
    Rows(&'a [f32]),
    /// Column after column, that is, as rows of the transpose, of which each has as many values.
    Columns(&'a [f32], usize),
}

/// The rows in blocks of 32: of each, the parts of 32 elements after 32; below the last row and after the last element zeros.
pub(super) fn pack<const P: usize>(
    amx: Amx,
    left: Source<'_>,
    [rows, inner]: [usize; 2],
) -> Aligned<[Rows; P]> {
    let units = inner.div_ceil(DEPTH);
    let size = units * rows.div_ceil(WIDTH);
    let mut packed = Aligned::with_capacity(size);
    if size == 0 {
        return packed;
    }
    packed.memory()[..size]
        .par_chunks_mut(units)
        .enumerate()
        .for_each(|(block, packed)| {
            let rows = block * WIDTH..rows.min((block + 1) * WIDTH);
            // SAFETY: `amx` proves that the processor has the instructions.
            unsafe {
                match left {
                    Source::Rows(values) => {
                        let values = &values[rows.start * inner..rows.end * inner];
                        pack_rows(amx, packed, values, inner);
                    }
                    Source::Columns(values, width) => {
                        pack_columns(amx, packed, values, width, rows)
                    }
                }
            }
        });
    // SAFETY: each block has `units` units, and all of them have been written.
    unsafe { packed.set_len(size) };
    packed
}

/// Packs at most 32 rows.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
fn pack_rows<const P: usize>(
    _amx: Amx,
    packed: &mut [MaybeUninit<[Rows; P]>],
    rows: &[f32],
    inner: usize,
) {
    for (packed, first) in packed.iter_mut().zip((0..inner).step_by(DEPTH)) {
        let unit = packed.write([Rows([[0; PAIRS]; WIDTH]); P]);
        for (at, row) in rows.chunks_exact(inner).enumerate() {
            for line in (0..DEPTH).step_by(PAIRS) {
                let place = row.as_ptr().wrapping_add(first + AHEAD + line);
                _mm_prefetch::<_MM_HINT_T0>(place.cast());
            }
            let [low, high]: [__m512; 2] =
                pulp::cast(padded::<_, DEPTH>(&row[first..inner.min(first + DEPTH)]));
            for (rows, part) in unit.iter_mut().zip(of_neighbours::<P>(low, high)) {
                rows.0[at] = pulp::cast(part);
            }
        }
    }
}

/// Packs at most 32 columns of a matrix whose rows have `width` values.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
fn pack_columns<const P: usize>(
    _amx: Amx,
    packed: &mut [MaybeUninit<[Rows; P]>],
    values: &[f32],
    width: usize,
    columns: Range<usize>,
) {
    let row = |at: usize, columns: Range<usize>| -> [f32; SIDE] {
        let row = values.get(at * width..(at + 1) * width).unwrap_or_default();
        padded(row.get(columns).unwrap_or_default())
    };
    for (index, packed) in packed.iter_mut().enumerate() {
        let unit = packed.write([Rows([[0; PAIRS]; WIDTH]); P]);
        for (half, first) in columns.clone().step_by(SIDE).enumerate() {
            let columns = first..columns.end.min(first + SIDE);
            let mut squares = [[_mm512_setzero_si512(); PAIRS]; P];
            for pair in 0..PAIRS {
                let at = index * DEPTH + 2 * pair;
                let low = pulp::cast(row(at, columns.clone()));
                let high = pulp::cast(row(at + 1, columns.clone()));
                for (square, part) in squares.iter_mut().zip(of_pairs::<P>(low, high)) {
                    square[pair] = part;
                }
            }
            for (rows, square) in unit.iter_mut().zip(&squares) {
                let rows = rows.0[half * SIDE..].iter_mut();
                for (row, turned) in rows.zip(&transposed(square)) {
                    *row = pulp::cast(*turned);
                }
            }
        }
    }
}
