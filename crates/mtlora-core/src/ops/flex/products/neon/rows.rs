//! How the left matrix is laid out.

use rayon::prelude::*;

use super::super::aligned::Aligned;
use super::kernel::ROWS;

/// Blocks of rows that a task packs.
const TOGETHER: usize = 8;

/// The rows in blocks: of each, unit after unit, and below the last row zeros. A unit has `D` of a row's elements, and beyond the
/// last element zeros; `element` is how a product reads a float.
pub(super) fn pack<const D: usize, E: Copy + Default + Send + Sync>(
    left: &[f32],
    inner: usize,
    element: impl Fn(f32) -> E + Sync,
) -> Aligned<[[E; D]; ROWS]> {
    let units = inner.div_ceil(D);
    let size = units * left.len().div_ceil(inner * ROWS);
    let mut packed = Aligned::with_capacity(size);
    packed.memory()[..size]
        .par_chunks_mut(units * TOGETHER)
        .zip(left.par_chunks(inner * ROWS * TOGETHER))
        .for_each(|(packed, left)| {
            for (packed, rows) in packed.chunks_mut(units).zip(left.chunks(inner * ROWS)) {
                for (unit, packed) in packed.iter_mut().enumerate() {
                    let first = unit * D;
                    let mut block = [[E::default(); D]; ROWS];
                    for (to, row) in block.iter_mut().zip(rows.chunks_exact(inner)) {
                        let values = &row[first..inner.min(first + D)];
                        for (to, value) in to.iter_mut().zip(values) {
                            *to = element(*value);
                        }
                    }
                    packed.write(block);
                }
            }
        });
    // SAFETY: each block has all its units, and all of them have been written.
    unsafe { packed.set_len(size) };
    packed
}
