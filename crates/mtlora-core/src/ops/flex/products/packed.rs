//! Products with packed matrices on any processor: some rows are unpacked at a time, and the matrix is never there as a whole.

use std::ops::Range;

use super::matmul;
use super::view::View;
use crate::ops::flex::instructions::vectorized;
use crate::packed::PackedView;

vectorized! {
    /// Some columns of some rows, one row after the other; the columns begin and end with a group.
    pub(super) fn unpack(matrix: PackedView<'_>, rows: Range<usize>, columns: Range<usize>, out: &mut [f32]) {
        let width = columns.len();
        for (row, out) in rows.zip(out.chunks_exact_mut(width)) {
            matrix.unpack(row, columns.clone(), out);
        }
    }
}

/// Adds the product to `out`, on any processor: some rows of the packed matrix at a time.
pub(in crate::ops::flex) fn add_portably(
    out: &mut [f32],
    left: &[f32],
    matrix: PackedView<'_>,
    turned: bool,
) {
    /// Values that are unpacked at a time.
    const VALUES: usize = 1 << 16;
    let [rows, columns] = matrix.sides();
    let step = (VALUES / columns.max(1)).max(1);
    let [inner, width] = if turned {
        [columns, rows]
    } else {
        [rows, columns]
    };
    let tokens = left.len() / inner.max(1);
    let mut values = vec![0.0; step.min(rows) * columns];
    for first in (0..rows).step_by(step) {
        let part = first..rows.min(first + step);
        let count = part.len();
        // Not the thread's memory: while threads share a product, this one may take up another.
        unpack(matrix, part, 0..columns, &mut values[..count * columns]);
        let part = View::new(&values, [count, columns], columns);
        if turned {
            let mut sums = vec![0.0; tokens * count];
            let left = View::new(left, [tokens, inner], inner);
            matmul::add_matmul(&mut sums, left, part.t(), 1.0);
            for (out, sums) in out.chunks_mut(width).zip(sums.chunks(count)) {
                for (out, sum) in out[first..].iter_mut().zip(sums) {
                    *out += sum;
                }
            }
        } else {
            let left = View::new(&left[first..], [tokens, count], inner);
            matmul::add_matmul(out, left, part, 1.0);
        }
    }
}
