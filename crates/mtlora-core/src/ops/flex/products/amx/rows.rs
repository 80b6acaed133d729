//! The left matrix and how it is packed.

use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
use std::mem::MaybeUninit;

use rayon::prelude::*;

use super::super::avx512::rounded;
use super::super::padded::padded;
use super::{Amx, DEPTH, PAIRS, Rows, WIDTH};

/// Blocks of rows that a task packs.
const TOGETHER: usize = 2;
/// How many elements ahead of those that are packed are prefetched in each row: the processor does not predict as many
/// rows as a block has.
const AHEAD: usize = 128;

/// The rows in blocks of 32: of each, 32 elements after 32, rounded to bfloat16; below the last row and after the last element
/// zeros.
pub(super) fn pack(amx: Amx, left: &[f32], inner: usize) -> Vec<Rows> {
    let units = inner.div_ceil(DEPTH);
    let size = units * left.len().div_ceil(inner * WIDTH);
    let mut packed: Vec<Rows> = Vec::with_capacity(size);
    packed.spare_capacity_mut()[..size]
        .par_chunks_mut(units * TOGETHER)
        .zip(left.par_chunks(inner * WIDTH * TOGETHER))
        .for_each(|(packed, left)| {
            for (packed, rows) in packed.chunks_mut(units).zip(left.chunks(inner * WIDTH)) {
                // SAFETY: `amx` proves that the processor has the instructions.
                unsafe { pack_block(amx, packed, rows, inner) };
            }
        });
    // SAFETY: each block has `units` units, and all of them have been written.
    unsafe { packed.set_len(size) };
    packed
}

/// Packs at most 32 rows.
#[target_feature(enable = "avx512f,avx512bf16")]
fn pack_block(_amx: Amx, packed: &mut [MaybeUninit<Rows>], rows: &[f32], inner: usize) {
    for (packed, first) in packed.iter_mut().zip((0..inner).step_by(DEPTH)) {
        let mut unit = Rows([[0; PAIRS]; WIDTH]);
        for (out, row) in unit.0.iter_mut().zip(rows.chunks_exact(inner)) {
            for line in (0..DEPTH).step_by(PAIRS) {
                let place = row.as_ptr().wrapping_add(first + AHEAD + line);
                _mm_prefetch::<_MM_HINT_T0>(place.cast());
            }
            *out = rounded(&padded(&row[first..inner.min(first + DEPTH)]));
        }
        packed.write(unit);
    }
}
