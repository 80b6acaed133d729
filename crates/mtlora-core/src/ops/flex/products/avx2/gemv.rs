//! Products of few rows, as decoding makes them: the weight comes from memory once, in the order in which it lies there,
//! and is multiplied as it comes. Laying it out would take longer than the products.

use std::arch::x86_64::{
    __m256, _MM_HINT_T1, _mm_prefetch, _mm256_broadcast_ss, _mm256_fmadd_ps, _mm256_setzero_ps,
};
use std::ops::Range;

use rayon::prelude::*;

use super::super::padded::padded;
use super::super::pieces::assembled;
use super::kernel::{COLUMNS, LANES, ROWS};
use super::right::Right;
use super::rows::rounded;
use super::weights::{Lanes, floats};

/// The most rows of such a product: two groups, each with sums that fit in the registers.
pub(super) const MOST: usize = 2 * ROWS;
/// Columns of a task of a matrix that lies row after row: such long pieces of its rows come fast.
pub(super) const WIDTH: usize = 768;
/// Tasks that such a matrix is cut into at least, whatever the number of threads, so that results do
/// not depend on it.
const TASKS: usize = 8;
/// Rows of such a matrix that are multiplied while the next ones, as many, are fetched. A cache line of each stays in the
/// first cache until all groups have read it, even where the rows lie a multiple of 4 KiB apart: then only eight fit.
const DEPTH: usize = 8;
/// Columns of a task of a transpose.
const TURNED_WIDTH: usize = 64;
/// Rows of a transpose that are multiplied at a time: with a group of rows, their sums fit in the registers.
const TOGETHER: usize = 2;
/// How far ahead of what is multiplied the rows of a transpose are fetched, in values.
const AHEAD: usize = 2048;

/// Calls a function with the number of rows of a group as a constant.
macro_rules! with_rows {
    ($rows:expr, $function:ident::<$weights:ident> $arguments:tt) => {
        match $rows {
            1 => $function::<$weights, 1> $arguments,
            2 => $function::<$weights, 2> $arguments,
            3 => $function::<$weights, 3> $arguments,
            4 => $function::<$weights, 4> $arguments,
            5 => $function::<$weights, 5> $arguments,
            _ => $function::<$weights, ROWS> $arguments,
        }
    };
}

/// `left right + bias` of at most [`MOST`] rows.
pub(super) fn product<W: Lanes>(right: Right<W>, left: &[f32], bias: Option<&[f32]>) -> Vec<f32> {
    let [inner, columns] = right.sides();
    let rows = left.len() / inner;
    let rounded: Vec<f32>;
    let left = if W::ROUNDS {
        // SAFETY: `right.avx2` proves that the processor has the instructions.
        rounded = unsafe { all_rounded(left) };
        &rounded
    } else {
        left
    };
    if right.turned {
        let groups = groups(left, inner);
        let pieces: Vec<Vec<f32>> = (0..columns.div_ceil(TURNED_WIDTH))
            .into_par_iter()
            .map(|index| {
                let columns = index * TURNED_WIDTH..columns.min((index + 1) * TURNED_WIDTH);
                dots(right, &groups, rows, columns)
            })
            .collect();
        return assembled([rows, columns], TURNED_WIDTH, pieces.chunks(1), bias);
    }
    // The rows in one group or in two of the same size, the second of which may end with rows of zeros.
    let groups = rows.div_ceil(ROWS);
    let group = rows.div_ceil(groups);
    let padded: Vec<f32>;
    let left = if groups * group == rows {
        left
    } else {
        let mut all = left.to_vec();
        all.resize(groups * group * inner, 0.0);
        padded = all;
        &padded
    };
    let work = Work { right, left, inner };
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
            // SAFETY: `right.avx2` proves that the processor has the instructions.
            unsafe { with_rows!(group, sums::<W>(&work, rows, inner_of, columns_of)) }
        })
        .collect();
    assembled([rows, columns], WIDTH, pieces.chunks(parts), bias)
}

/// What all tasks read. For [`sums`], the rows of `left` are those of whole groups.
struct Work<'a, W> {
    right: Right<W>,
    left: &'a [f32],
    inner: usize,
}

#[target_feature(enable = "avx2")]
fn all_rounded(values: &[f32]) -> Vec<f32> {
    let mut out = Vec::with_capacity(values.len());
    for values in values.chunks(LANES) {
        let lanes: [f32; LANES] = pulp::cast(rounded(floats(values)));
        out.extend_from_slice(&lanes[..values.len()]);
    }
    out
}

/// The products over some of the inner dimension, for some columns: `[rows, columns]`. The rows are in groups of `R`.
#[target_feature(enable = "avx2,fma")]
fn sums<W: Lanes, const R: usize>(
    work: &Work<'_, W>,
    rows: usize,
    inner_of: Range<usize>,
    columns: Range<usize>,
) -> Vec<f32> {
    let (width, stride) = (columns.len(), work.right.stored[1]);
    let weights = work.right.weights;
    let groups = rows.div_ceil(R);
    // The sums of a panel, group after group.
    let mut sums = vec![[[0.0; COLUMNS]; R]; groups * width.div_ceil(COLUMNS)];
    let mut factors = Vec::with_capacity(groups);
    let mut lines = Vec::with_capacity(DEPTH);
    for start in inner_of.clone().step_by(DEPTH) {
        let end = inner_of.end.min(start + DEPTH);
        factors.clear();
        for left in work.left.chunks_exact(R * work.inner) {
            let mut group = [[0.0; R]; DEPTH];
            for (r, row) in left.chunks_exact(work.inner).enumerate() {
                for (factors, left) in group.iter_mut().zip(&row[start..end]) {
                    factors[r] = *left;
                }
            }
            factors.push(group);
        }
        lines.clear();
        lines.extend((start..end).map(|row| weights.row(row, stride)));
        let panels = columns.clone().step_by(COLUMNS);
        for (sums, first) in sums.chunks_exact_mut(groups).zip(panels) {
            for row in start..end {
                let place = weights.place((row + DEPTH) * stride + first);
                _mm_prefetch::<_MM_HINT_T1>(place);
            }
            let panel = first..columns.end.min(first + COLUMNS);
            for (sums, factors) in sums.iter_mut().zip(&factors) {
                add::<W, R>(sums, factors, &lines, panel.clone());
            }
        }
    }
    let mut out = vec![0.0; rows * width];
    for (row, out) in out.chunks_exact_mut(width).enumerate() {
        let sums = sums
            .chunks_exact(groups)
            .map(|sums| &sums[row / R][row % R]);
        for (out, sums) in out.chunks_mut(COLUMNS).zip(sums) {
            out.copy_from_slice(&sums[..out.len()]);
        }
    }
    out
}

/// Adds a panel's rows, each times its factors.
// Loops over indices: closures would not be compiled for AVX2.
#[allow(clippy::needless_range_loop)]
#[inline]
#[target_feature(enable = "avx2,fma")]
fn add<W: Lanes, const R: usize>(
    sums: &mut [[f32; COLUMNS]; R],
    factors: &[[f32; R]; DEPTH],
    lines: &[W::Row],
    panel: Range<usize>,
) {
    // Of a whole panel, the compiler knows how long the parts are.
    let whole = panel.len() == COLUMNS;
    let (start, middle) = (panel.start, panel.end.min(panel.start + LANES));
    let mut totals = [[_mm256_setzero_ps(); 2]; R];
    for r in 0..R {
        totals[r] = pulp::cast(sums[r]);
    }
    for (factors, line) in factors.iter().zip(lines) {
        // SAFETY: this function has the instructions, and the row has the panel's columns.
        let lanes = unsafe {
            if whole {
                [W::whole(*line, start), W::whole(*line, start + LANES)]
            } else {
                [
                    W::lanes(*line, start..middle),
                    W::lanes(*line, middle..panel.end),
                ]
            }
        };
        for r in 0..R {
            let factor = _mm256_broadcast_ss(&factors[r]);
            totals[r][0] = _mm256_fmadd_ps(factor, lanes[0], totals[r][0]);
            totals[r][1] = _mm256_fmadd_ps(factor, lanes[1], totals[r][1]);
        }
    }
    for r in 0..R {
        sums[r] = pulp::cast(totals[r]);
    }
}

/// The rows in groups of at most [`ROWS`], each as [`group_dots`] reads it: the first values of all rows, then the next ones, and
/// zeros after the last.
fn groups(left: &[f32], inner: usize) -> Vec<Vec<[f32; LANES]>> {
    let rows = left.len() / inner;
    left.chunks(rows.div_ceil(rows.div_ceil(ROWS)) * inner)
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

/// The dot products of all rows with some rows of a transpose: `[rows, columns]`.
fn dots<W: Lanes>(
    right: Right<W>,
    groups: &[Vec<[f32; LANES]>],
    rows: usize,
    columns: Range<usize>,
) -> Vec<f32> {
    let (width, inner) = (columns.len(), right.stored[1]);
    let weights = right.weights;
    let mut out = vec![0.0; rows * width];
    for (index, first) in columns.clone().step_by(TOGETHER).enumerate() {
        let count = TOGETHER.min(columns.end - first);
        // Where there are fewer, the last is multiplied more than once.
        let rights: [W::Row; TOGETHER] =
            std::array::from_fn(|at| weights.row(first + at.min(count - 1), inner));
        let ahead = weights.place(first * inner + AHEAD);
        let outs = out.chunks_mut(rows.div_ceil(groups.len()) * width);
        for (left, out) in groups.iter().zip(outs) {
            let rows = out.len() / width;
            let mut put = |r: usize, at: usize, sum: f32| {
                if at < count {
                    out[r * width + index * TOGETHER + at] = sum;
                }
            };
            // SAFETY: the value in `right` proves that the processor has the instructions.
            unsafe { with_rows!(rows, group_dots::<W>(left, rights, inner, ahead, &mut put)) }
        }
    }
    out
}

/// The dot products of `R` rows with [`TOGETHER`], each `inner` long. What follows `ahead`, as long as these, is fetched.
// Loops over indices: closures would not be compiled for AVX2.
#[allow(clippy::needless_range_loop)]
#[target_feature(enable = "avx2,fma")]
fn group_dots<W: Lanes, const R: usize>(
    left: &[[f32; LANES]],
    rights: [W::Row; TOGETHER],
    inner: usize,
    ahead: *const i8,
    put: &mut impl FnMut(usize, usize, f32),
) {
    let (left, _) = left.as_chunks::<R>();
    let (whole, last) = left.split_at(inner / LANES);
    let mut sums = [[_mm256_setzero_ps(); TOGETHER]; R];
    let mut start = 0;
    for left in whole {
        for row in 0..TOGETHER {
            // Every second time it is a cache line of its own.
            let distance = size_of::<f32>() * (row * inner + start);
            _mm_prefetch::<_MM_HINT_T1>(ahead.wrapping_add(distance));
        }
        let mut lanes = [_mm256_setzero_ps(); TOGETHER];
        for row in 0..TOGETHER {
            // SAFETY: this function has the instructions, and there are as many whole registers.
            lanes[row] = unsafe { W::whole(rights[row], start) };
        }
        for r in 0..R {
            let left: __m256 = pulp::cast(left[r]);
            for row in 0..TOGETHER {
                sums[r][row] = _mm256_fmadd_ps(left, lanes[row], sums[r][row]);
            }
        }
        start += LANES;
    }
    if let [left] = last {
        for row in 0..TOGETHER {
            // SAFETY: this function has the instructions.
            let lanes = unsafe { W::lanes(rights[row], start..inner) };
            for r in 0..R {
                sums[r][row] = _mm256_fmadd_ps(pulp::cast(left[r]), lanes, sums[r][row]);
            }
        }
    }
    for r in 0..R {
        for row in 0..TOGETHER {
            put(r, row, total(sums[r][row]));
        }
    }
}

/// The sum of a register's floats, by halves.
#[inline]
#[target_feature(enable = "avx2")]
fn total(sum: __m256) -> f32 {
    let [a, b, c, d, e, f, g, h]: [f32; LANES] = pulp::cast(sum);
    ((a + e) + (c + g)) + ((b + f) + (d + h))
}
