//! Products of few rows in 32-bit floats, as decoding makes them: the weight comes from memory once,
//! in the order in which it lies there, and is multiplied as it comes. Laying it out would take longer
//! than the products.

use std::arch::x86_64::{
    __m512, _MM_HINT_T1, _mm_prefetch, _mm512_fmadd_ps, _mm512_mul_ps, _mm512_reduce_add_ps,
    _mm512_set1_ps, _mm512_setzero_ps,
};
use std::ops::Range;

use rayon::prelude::*;

use super::super::padded::padded;
use super::super::pieces::assembled;
use super::kernel::{COLUMNS, LANES, ROWS};
use crate::ops::flex::instructions::Avx512;

/// The most rows of such a product: their factors stay in registers.
pub(super) const MOST: usize = ROWS;
/// Columns of a task of a matrix that lies row after row: such long pieces of its rows come fast.
pub(super) const WIDTH: usize = 768;
/// Tasks that such a matrix is cut into at least, whatever the number of threads, so that results do
/// not depend on it.
const TASKS: usize = 8;
/// Rows of such a matrix that are multiplied while the next ones, as many, are fetched: a panel's sums stay in registers
/// for as long.
const DEPTH: usize = 16;
/// Columns of a task of a transpose.
const TURNED_WIDTH: usize = 64;
/// Rows of a transpose that are multiplied at a time.
const TOGETHER: usize = 4;
/// The most rows that they are multiplied with at a time: their sums fit in the registers.
const GROUP: usize = 6;

type Lanes = [f32; LANES];

/// Calls a function with the number of rows as a constant; `$most` stands for the largest.
macro_rules! with_rows {
    ($rows:expr, [$($few:literal),*], $most:ident, $function:ident $arguments:tt) => {
        match $rows {
            $($few => $function::<$few> $arguments,)*
            _ => $function::<$most> $arguments,
        }
    };
}

/// `left right + bias`, where `right`, `[inner, columns]`, lies row after row.
pub(super) fn product(
    _avx512: Avx512,
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
            // SAFETY: `_avx512` proves that the processor has the instructions.
            unsafe {
                with_rows!(
                    rows,
                    [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11],
                    MOST,
                    sums(left, inner, right, columns, inner_of, columns_of)
                )
            }
        })
        .collect();
    assembled([rows, columns], WIDTH, pieces.chunks(parts), bias)
}

/// The same where the transpose, `[columns, inner]`, lies row after row.
pub(super) fn turned_product(
    avx512: Avx512,
    left: &[f32],
    right: &[f32],
    inner: usize,
    bias: Option<&[f32]>,
) -> Vec<f32> {
    let columns = right.len() / inner;
    let rows = left.len() / inner;
    let groups = groups(left, inner);
    let pieces: Vec<Vec<f32>> = right
        .par_chunks(TURNED_WIDTH * inner)
        .map(|right| dots(avx512, &groups, rows, right, inner))
        .collect();
    assembled([rows, columns], TURNED_WIDTH, pieces.chunks(1), bias)
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
    let mut sums = vec![[[0.0; COLUMNS]; R]; width.div_ceil(COLUMNS)];
    let mut factors = Vec::with_capacity(DEPTH);
    for start in inner_of.clone().step_by(DEPTH) {
        let end = inner_of.end.min(start + DEPTH);
        factors.clear();
        factors.resize(end - start, [0.0; R]);
        for r in 0..R {
            let row = &left[r * inner..][start..end];
            for (factors, left) in factors.iter_mut().zip(row) {
                factors[r] = *left;
            }
        }
        let right = &right[start * stride..end * stride];
        for (sums, first) in sums.iter_mut().zip(columns.clone().step_by(COLUMNS)) {
            let panel = first..columns.end.min(first + COLUMNS);
            add::<R>(sums, &factors, right, stride, panel);
        }
    }
    let mut out = vec![0.0; R * width];
    for (r, out) in out.chunks_exact_mut(width).enumerate() {
        for (out, sums) in out.chunks_mut(COLUMNS).zip(&sums) {
            out.copy_from_slice(&sums[r][..out.len()]);
        }
    }
    out
}

/// Adds a panel's rows, each times its factors.
// Loops over indices: closures would not be compiled for AVX-512.
#[allow(clippy::needless_range_loop)]
#[inline]
#[target_feature(enable = "avx512f")]
fn add<const R: usize>(
    sums: &mut [[f32; COLUMNS]; R],
    factors: &[[f32; R]],
    right: &[f32],
    stride: usize,
    panel: Range<usize>,
) {
    let mut totals = [[_mm512_setzero_ps(); 2]; R];
    for r in 0..R {
        totals[r] = pulp::cast(sums[r]);
    }
    for (factors, row) in factors.iter().zip(right.chunks_exact(stride)) {
        let row = &row[panel.clone()];
        for line in (0..row.len()).step_by(LANES) {
            fetch(&row[line..], DEPTH * stride);
        }
        let lanes: [__m512; 2] = pulp::cast(padded::<_, COLUMNS>(row));
        for r in 0..R {
            let factor = _mm512_set1_ps(factors[r]);
            totals[r][0] = _mm512_fmadd_ps(factor, lanes[0], totals[r][0]);
            totals[r][1] = _mm512_fmadd_ps(factor, lanes[1], totals[r][1]);
        }
    }
    for r in 0..R {
        sums[r] = pulp::cast(totals[r]);
    }
}

/// The rows in groups of at most [`GROUP`], each as [`group_dots`] reads it.
fn groups(left: &[f32], inner: usize) -> Vec<Vec<Lanes>> {
    let rows = left.len() / inner;
    left.chunks(rows.div_ceil(rows.div_ceil(GROUP)) * inner)
        .map(|left| {
            let starts = (0..inner).step_by(LANES);
            let rows = |at| {
                left.chunks_exact(inner)
                    .map(move |row| padded(&row[at..inner.min(at + LANES)]))
            };
            starts.flat_map(rows).collect()
        })
        .collect()
}

/// The dot products of all rows with those of `right`: `[rows, rows of right]`.
fn dots(
    _avx512: Avx512,
    groups: &[Vec<Lanes>],
    rows: usize,
    right: &[f32],
    inner: usize,
) -> Vec<f32> {
    let width = right.len() / inner;
    let mut out = vec![0.0; rows * width];
    for (index, right) in right.chunks(TOGETHER * inner).enumerate() {
        let outs = out.chunks_mut(rows.div_ceil(groups.len()) * width);
        for (part, (left, out)) in groups.iter().zip(outs).enumerate() {
            // Each group has a part of the rows to come fetched.
            let ahead = |part: usize| part * TOGETHER / groups.len();
            let ahead = ahead(part)..ahead(part + 1);
            let rows = out.len() / width;
            let out = &mut out[index * TOGETHER..];
            // SAFETY: `_avx512` proves that the processor has the instructions.
            unsafe {
                with_rows!(
                    rows,
                    [1, 2, 3, 4, 5],
                    GROUP,
                    group_dots(left, right, inner, ahead, out, width)
                )
            }
        }
    }
    out
}

/// The dot products of `R` rows with at most [`TOGETHER`], into rows of `out` that lie `stride` apart.
/// `left`: the first values of all rows, then the next ones.
// Loops over indices: closures would not be compiled for AVX-512.
#[allow(clippy::needless_range_loop)]
#[target_feature(enable = "avx512f")]
fn group_dots<const R: usize>(
    left: &[Lanes],
    right: &[f32],
    inner: usize,
    ahead: Range<usize>,
    out: &mut [f32],
    stride: usize,
) {
    let count = right.len() / inner;
    // Where there are fewer, the last is multiplied more than once.
    let rights: [&[f32]; TOGETHER] =
        std::array::from_fn(|row| &right[row.min(count - 1) * inner..][..inner]);
    let mut sums = [[_mm512_setzero_ps(); TOGETHER]; R];
    let (left, last) = left.as_chunks::<R>().0.split_at(inner / LANES);
    if let [last] = last {
        for row in 0..TOGETHER {
            let lanes = pulp::cast(padded::<_, LANES>(rights[row].as_chunks::<LANES>().1));
            for r in 0..R {
                sums[r][row] = _mm512_mul_ps(pulp::cast(last[r]), lanes);
            }
        }
    }
    let rights = rights.map(|row| &row.as_chunks::<LANES>().0[..left.len()]);
    for (at, left) in left.iter().enumerate() {
        for row in 0..TOGETHER {
            if ahead.contains(&row) {
                fetch(&right[at * LANES..], (TOGETHER + row) * inner);
            }
        }
        let mut lanes = [_mm512_setzero_ps(); TOGETHER];
        for row in 0..TOGETHER {
            lanes[row] = pulp::cast(rights[row][at]);
        }
        for r in 0..R {
            let left = pulp::cast(left[r]);
            for row in 0..TOGETHER {
                sums[r][row] = _mm512_fmadd_ps(left, lanes[row], sums[r][row]);
            }
        }
    }
    // The sums are stored first: indexing them by a variable would not let them stay in registers above.
    let mut stored = [[[0.0f32; LANES]; TOGETHER]; R];
    for r in 0..R {
        stored[r] = pulp::cast(sums[r]);
    }
    for (sums, out) in stored.iter().zip(out.chunks_mut(stride)) {
        for (sum, out) in sums.iter().zip(&mut out[..count]) {
            *out = _mm512_reduce_add_ps(pulp::cast(*sum));
        }
    }
}

/// Prefetches the cache line `distance` floats after the first of these into the second cache. The first cache is full
/// of what is multiplied meanwhile.
#[inline(always)]
fn fetch(values: &[f32], distance: usize) {
    let place = values.as_ptr().wrapping_add(distance);
    // SAFETY: every x86-64 processor has the instruction, and it faults for no address.
    unsafe { _mm_prefetch::<_MM_HINT_T1>(place.cast()) };
}
