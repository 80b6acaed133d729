//! Products with packed matrices on any processor, and those of few rows: some rows are unpacked at a time, and the matrix is never
//! there as a whole.

use std::marker::PhantomData;
use std::ops::Range;

use super::matmul;
use super::view::View;
use crate::ops::flex::instructions::vectorized;
use crate::ops::flex::made;
use crate::packed::{GROUP, PackedView, Packing, WithPacking};

/// Unpacks some columns of some rows, one row after the other; the columns begin and end with a group.
pub(in crate::ops::flex) fn unpack(
    matrix: PackedView<'_>,
    rows: Range<usize>,
    columns: Range<usize>,
    out: &mut [f32],
) {
    struct Unpack<'a>(PackedView<'a>, Range<usize>, Range<usize>, &'a mut [f32]);
    impl WithPacking for Unpack<'_> {
        fn with<P: Packing>(self) {
            let Unpack(matrix, rows, columns, out) = self;
            let width = matrix.sides()[1];
            unpack_part(PhantomData::<P>, matrix.bytes(), width, rows, columns, out);
        }
    }
    matrix.format().work(Unpack(matrix, rows, columns, out));
}

vectorized! {
    /// [`unpack`] of a matrix of `width` columns in one format. In one function for all formats, the compiler does not
    /// vectorise them.
    fn unpack_part[P: Packing](
        format: PhantomData<P>, bytes: &[u8], width: usize, rows: Range<usize>, columns: Range<usize>, out: &mut [f32],
    ) {
        let _ = format;
        for (row, out) in rows.zip(out.chunks_exact_mut(columns.len())) {
            P::unpack(bytes, (row * width + columns.start) / GROUP, out);
        }
    }
}

/// The most rows of [`few_rows`]: with more, it pays to lay out what is unpacked.
pub(in crate::ops::flex) const FEW: usize = 4;
/// Rows of the packed matrix that a task of such a product unpacks, one after the other.
const TASK: usize = 64;

/// `left Mᵀ + bias` for few rows, as decoding makes them: a row of the packed matrix is unpacked into the first cache,
/// multiplied there with each of them, and laid out nowhere. `left`: `[rows, columns]`; `bias`: as many as `M` has rows.
pub(in crate::ops::flex) fn few_rows(
    left: &[f32],
    matrix: PackedView<'_>,
    bias: Option<&[f32]>,
) -> Vec<f32> {
    let [rows, columns] = matrix.sides();
    let few = left.len() / columns;
    let products: Vec<f32> = made(rows * few, TASK * few, |index, out| {
        let mut values = vec![0.0; columns];
        for (row, out) in (index * TASK..).zip(out.chunks_exact_mut(few)) {
            unpack(matrix, row..row + 1, 0..columns, &mut values);
            dots(&values, left, out);
        }
    });
    if few == 1 && bias.is_none() {
        return products;
    }
    let product = |at: usize| {
        let (left, row) = (at / rows, at % rows);
        products[row * few + left] + bias.map_or(0.0, |bias| bias[row])
    };
    (0..rows * few).map(product).collect()
}

vectorized! {
    /// A row times each row of `left`.
    fn dots(row: &[f32], left: &[f32], out: &mut [f32]) {
        for (out, left) in out.iter_mut().zip(left.chunks_exact(row.len())) {
            *out = dot(row, left);
        }
    }
}

/// The sum of the products, in an order that vectorises.
#[inline(always)]
fn dot(x: &[f32], y: &[f32]) -> f32 {
    const LANES: usize = GROUP;
    let mut lanes = [0.0; LANES];
    // A row is whole groups.
    for (x, y) in x
        .as_chunks::<LANES>()
        .0
        .iter()
        .zip(y.as_chunks::<LANES>().0)
    {
        for lane in 0..LANES {
            lanes[lane] += x[lane] * y[lane];
        }
    }
    lanes.iter().sum()
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
