//! Products of few rows in 32-bit floats, as decoding makes them: the weight comes from memory once,
//! in the order in which it lies there, and is multiplied as it comes. Laying it out would take longer
//! than the products.

use std::arch::x86_64::{
    __m512, _MM_HINT_T0, _mm_prefetch, _mm512_fmadd_ps, _mm512_reduce_add_ps, _mm512_set1_ps,
    _mm512_setzero_ps,
};
use std::ops::Range;

use rayon::prelude::*;

use super::{LANES, ROWS, right::padded};

/// The most rows of such a product: their factors stay in registers.
pub(super) const MOST: usize = ROWS;
/// Columns of a task of a matrix that lies row after row: their sums stay in the first cache.
pub(super) const WIDTH: usize = 384;
/// Tasks that such a matrix is cut into at least, whatever the number of threads, so that results do
/// not depend on it.
const TASKS: usize = 8;
/// Columns of a task of a transpose.
const TURNED_WIDTH: usize = 64;

type Lanes = [f32; LANES];

/// Calls a function with the number of rows as a constant.
macro_rules! with_rows {
    ($function:ident, $rows:expr, $($argument:expr),*) => {
        match $rows {
            1 => $function::<1>($($argument),*),
            2 => $function::<2>($($argument),*),
            3 => $function::<3>($($argument),*),
            4 => $function::<4>($($argument),*),
            5 => $function::<5>($($argument),*),
            6 => $function::<6>($($argument),*),
            7 => $function::<7>($($argument),*),
            8 => $function::<8>($($argument),*),
            9 => $function::<9>($($argument),*),
            10 => $function::<10>($($argument),*),
            11 => $function::<11>($($argument),*),
            _ => $function::<MOST>($($argument),*),
        }
    };
}

/// `left right + bias`, where `right`, `[inner, columns]`, lies row after row.
pub(super) fn product(
    left: &[f32],
    right: &[f32],
    columns: usize,
    bias: Option<&[f32]>,
) -> Vec<f32> {
    let inner = right.len() / columns;
    let rows = left.len() / inner;
    let blocks = columns.div_ceil(WIDTH);
    let height = inner.div_ceil(TASKS.div_ceil(blocks));
    let parts = inner.div_ceil(height);
    let pieces: Vec<Vec<f32>> = (0..blocks * parts)
        .into_par_iter()
        .with_max_len(1)
        .map(|index| {
            let (block, part) = (index / parts, index % parts);
            let columns_of = block * WIDTH..columns.min((block + 1) * WIDTH);
            let inner_of = part * height..inner.min((part + 1) * height);
            // SAFETY: `avx512::product` asserts that the processor has the instructions.
            unsafe {
                with_rows!(
                    sums, rows, left, inner, right, columns, inner_of, columns_of
                )
            }
        })
        .collect();
    assembled([rows, columns], WIDTH, pieces.chunks(parts), bias)
}

/// The same where the transpose, `[columns, inner]`, lies row after row.
pub(super) fn turned_product(
    left: &[f32],
    right: &[f32],
    inner: usize,
    bias: Option<&[f32]>,
) -> Vec<f32> {
    let columns = right.len() / inner;
    let rows = left.len() / inner;
    let pieces: Vec<Vec<f32>> = right
        .par_chunks(TURNED_WIDTH * inner)
        // SAFETY: `avx512::product` asserts that the processor has the instructions.
        .map(|right| unsafe { with_rows!(dots, rows, left, right, inner) })
        .collect();
    assembled([rows, columns], TURNED_WIDTH, pieces.chunks(1), bias)
}

/// The output of the tasks' pieces, `[rows, width of the block]` each; those of one block are added up.
fn assembled<'a>(
    [rows, columns]: [usize; 2],
    width: usize,
    blocks: impl Iterator<Item = &'a [Vec<f32>]>,
    bias: Option<&[f32]>,
) -> Vec<f32> {
    let mut out = match bias {
        Some(bias) => bias.repeat(rows),
        None => vec![0.0; rows * columns],
    };
    for (block, parts) in blocks.enumerate() {
        let columns_of = block * width..columns.min((block + 1) * width);
        for part in parts {
            let rows = part.chunks_exact(columns_of.len());
            for (out, part) in out.chunks_exact_mut(columns).zip(rows) {
                let out = &mut out[columns_of.clone()];
                out.iter_mut().zip(part).for_each(|(out, x)| *out += x);
            }
        }
    }
    out
}

/// The products over some of the inner dimension, for some columns: `[R, columns]`.
#[target_feature(enable = "avx512f")]
fn sums<const R: usize>(
    left: &[f32],
    inner: usize,
    right: &[f32],
    stride: usize,
    inner_of: Range<usize>,
    columns: Range<usize>,
) -> Vec<f32> {
    let width = columns.len();
    // The rows' sums of the same columns lie side by side.
    let mut sums = vec![[[0.0; LANES]; R]; width.div_ceil(LANES)];
    let row = |at: usize| &right[at * stride..][columns.clone()];
    // The partner of a lone last row. In the row's own place, nought times infinity would be no number.
    let nothing = vec![0.0; if inner_of.len() % 2 == 1 { width } else { 0 }];
    let mut at = inner_of.start;
    while at < inner_of.end {
        let two = at + 1 < inner_of.end;
        let (upper, lower) = (row(at), if two { row(at + 1) } else { &nothing });
        let mut factors = [[_mm512_setzero_ps(); 2]; R];
        for r in 0..R {
            factors[r][0] = _mm512_set1_ps(left[r * inner + at]);
            if two {
                factors[r][1] = _mm512_set1_ps(left[r * inner + at + 1]);
            }
        }
        let (upper, upper_rest) = upper.as_chunks::<LANES>();
        let (lower, lower_rest) = lower.as_chunks::<LANES>();
        let (whole, rest) = sums.split_at_mut(upper.len());
        for ((sums, upper), lower) in whole.iter_mut().zip(upper).zip(lower) {
            fetch(upper, 2 * stride);
            fetch(lower, 2 * stride);
            add::<R>(sums, &factors, upper, lower);
        }
        for sums in rest {
            add::<R>(sums, &factors, &padded(upper_rest), &padded(lower_rest));
        }
        at += 2;
    }
    let mut out = vec![0.0; R * width];
    for (r, out) in out.chunks_exact_mut(width).enumerate() {
        for (out, sums) in out.chunks_mut(LANES).zip(&sums) {
            out.copy_from_slice(&sums[r][..out.len()]);
        }
    }
    out
}

#[inline]
#[target_feature(enable = "avx512f")]
fn add<const R: usize>(
    sums: &mut [Lanes; R],
    factors: &[[__m512; 2]; R],
    upper: &Lanes,
    lower: &Lanes,
) {
    let (upper, lower) = (pulp::cast(*upper), pulp::cast(*lower));
    for r in 0..R {
        let sum = _mm512_fmadd_ps(factors[r][0], upper, pulp::cast(sums[r]));
        sums[r] = pulp::cast(_mm512_fmadd_ps(factors[r][1], lower, sum));
    }
}

/// The rows' dot products with the rows of `right`: `[R, rows of right]`.
#[target_feature(enable = "avx512f")]
fn dots<const R: usize>(left: &[f32], right: &[f32], inner: usize) -> Vec<f32> {
    let width = right.len() / inner;
    let mut out = vec![0.0; R * width];
    let left: [&[f32]; R] = std::array::from_fn(|r| &left[r * inner..][..inner]);
    for (pair, rows) in right.chunks(2 * inner).enumerate() {
        let (upper, lower) = rows.split_at(inner);
        // A lone last row is multiplied twice.
        let two = !lower.is_empty();
        let lower = if two { lower } else { upper };
        let mut sums = [[_mm512_setzero_ps(); 2]; R];
        let mut at = 0;
        while at + LANES <= inner {
            fetch(&upper[at..], 2 * inner);
            fetch(&lower[at..], 2 * inner);
            let upper = pulp::cast(lanes(upper, at));
            let lower = pulp::cast(lanes(lower, at));
            for r in 0..R {
                let left = pulp::cast(lanes(left[r], at));
                sums[r][0] = _mm512_fmadd_ps(left, upper, sums[r][0]);
                sums[r][1] = _mm512_fmadd_ps(left, lower, sums[r][1]);
            }
            at += LANES;
        }
        if at < inner {
            let upper = pulp::cast(padded::<_, LANES>(&upper[at..]));
            let lower = pulp::cast(padded::<_, LANES>(&lower[at..]));
            for r in 0..R {
                let left = pulp::cast(padded::<_, LANES>(&left[r][at..]));
                sums[r][0] = _mm512_fmadd_ps(left, upper, sums[r][0]);
                sums[r][1] = _mm512_fmadd_ps(left, lower, sums[r][1]);
            }
        }
        for r in 0..R {
            out[r * width + 2 * pair] = _mm512_reduce_add_ps(sums[r][0]);
            if two {
                out[r * width + 2 * pair + 1] = _mm512_reduce_add_ps(sums[r][1]);
            }
        }
    }
    out
}

#[inline(always)]
fn lanes(values: &[f32], at: usize) -> Lanes {
    padded(&values[at..at + LANES])
}

/// Asks for the cache line so many floats behind these: with two rows at a time, that of the next two.
#[inline(always)]
fn fetch(values: &[f32], distance: usize) {
    let place = values.as_ptr().wrapping_add(distance);
    // SAFETY: every x86-64 processor has the instruction, and it faults for no address.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(place.cast()) };
}
