//! Products of few rows, as decoding makes them: the weight comes from memory once, in the order in which it lies there,
//! and is multiplied as it comes. Laying it out would take longer than the products.

use std::arch::x86_64::{
    __m256, _MM_HINT_T1, _mm_prefetch, _mm256_broadcast_ss, _mm256_fmadd_ps, _mm256_setzero_ps,
};
use std::ops::Range;

use rayon::prelude::*;

use super::super::pieces::assembled;
use super::kernel::{COLUMNS, LANES, ROWS};
use super::right::Right;
use super::rows::rounded;
use super::weights::{Weights, floats};

/// The most rows of such a product: two groups, each with sums that fit in the registers.
pub(super) const MOST: usize = 2 * ROWS;
/// Columns of a task of a matrix that lies row after row: such long pieces of its rows come fast.
pub(super) const WIDTH: usize = 768;
/// Tasks that such a matrix is cut into at least, whatever the number of threads, so that results do
/// not depend on it.
const TASKS: usize = 8;
/// Rows of such a matrix that are multiplied while the next ones, as many, are fetched.
const DEPTH: usize = 16;
/// Columns of a task of a transpose.
const TURNED_WIDTH: usize = 64;
/// Rows of a transpose that are multiplied at a time.
const TOGETHER: usize = 2;
/// How far ahead of what is multiplied the rows of a transpose are fetched, in floats.
const AHEAD: usize = 512;
/// Floats of a cache line.
const CACHE_LINE: usize = 16;

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
pub(super) fn product<W: Weights>(right: Right<W>, left: &[f32], bias: Option<&[f32]>) -> Vec<f32> {
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
    // SAFETY: `right.avx2` proves that the processor has the instructions.
    if right.turned {
        let pieces: Vec<Vec<f32>> = (0..columns.div_ceil(TURNED_WIDTH))
            .into_par_iter()
            .map(|index| {
                let columns = index * TURNED_WIDTH..columns.min((index + 1) * TURNED_WIDTH);
                // SAFETY: as above.
                unsafe { with_rows!(group, dots::<W>(&work, rows, columns)) }
            })
            .collect();
        return assembled([rows, columns], TURNED_WIDTH, pieces.chunks(1), bias);
    }
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
            // SAFETY: as above.
            unsafe { with_rows!(group, sums::<W>(&work, rows, inner_of, columns_of)) }
        })
        .collect();
    assembled([rows, columns], WIDTH, pieces.chunks(parts), bias)
}

/// What all tasks read. The rows of `left` are those of whole groups.
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
fn sums<W: Weights, const R: usize>(
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
fn add<W: Weights, const R: usize>(
    sums: &mut [[f32; COLUMNS]; R],
    factors: &[[f32; R]; DEPTH],
    lines: &[W::Row],
    panel: Range<usize>,
) {
    let middle = panel.end.min(panel.start + LANES);
    let mut totals = [[_mm256_setzero_ps(); 2]; R];
    for r in 0..R {
        totals[r] = pulp::cast(sums[r]);
    }
    for (factors, line) in factors.iter().zip(lines) {
        // SAFETY: this function has the instructions.
        let lanes = unsafe {
            [
                W::lanes(*line, panel.start..middle),
                W::lanes(*line, middle..panel.end),
            ]
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

/// The dot products of all rows with some rows of a transpose: `[rows, columns]`. The rows are in groups of `R`.
#[target_feature(enable = "avx2,fma")]
fn dots<W: Weights, const R: usize>(
    work: &Work<'_, W>,
    rows: usize,
    columns: Range<usize>,
) -> Vec<f32> {
    let (width, inner) = (columns.len(), work.inner);
    let weights = work.right.weights;
    let mut out = vec![0.0; rows * width];
    for first in columns.clone().step_by(TOGETHER) {
        // Where there are fewer, the last is multiplied more than once.
        let column = |at: usize| (first + at).min(columns.end - 1);
        let rights: [W::Row; TOGETHER] = std::array::from_fn(|at| weights.row(column(at), inner));
        for (group, left) in work.left.chunks_exact(R * inner).enumerate() {
            let ahead = (group == 0).then(|| weights.place(first * inner + AHEAD));
            let found = group_dots::<W, R>(left, rights, inner, ahead);
            for (r, dots) in found.iter().enumerate() {
                let row = group * R + r;
                if row < rows {
                    let out = &mut out[row * width..][first - columns.start..width];
                    out.iter_mut().zip(dots).for_each(|(out, dot)| *out = *dot);
                }
            }
        }
    }
    out
}

/// The dot products of `R` rows with [`TOGETHER`]. What follows `ahead`, as long as these, is fetched.
// Loops over indices: closures would not be compiled for AVX2.
#[allow(clippy::needless_range_loop)]
#[inline]
#[target_feature(enable = "avx2,fma")]
fn group_dots<W: Weights, const R: usize>(
    left: &[f32],
    rights: [W::Row; TOGETHER],
    inner: usize,
    ahead: Option<*const i8>,
) -> [[f32; TOGETHER]; R] {
    let lefts: [&[f32]; R] = std::array::from_fn(|r| &left[r * inner..][..inner]);
    let mut sums = [[_mm256_setzero_ps(); TOGETHER]; R];
    for start in (0..inner).step_by(LANES) {
        if let Some(ahead) = ahead
            && start.is_multiple_of(CACHE_LINE)
        {
            for row in 0..TOGETHER {
                let distance = size_of::<f32>() * (row * inner + start);
                _mm_prefetch::<_MM_HINT_T1>(ahead.wrapping_add(distance));
            }
        }
        let columns = start..inner.min(start + LANES);
        let mut lanes = [_mm256_setzero_ps(); TOGETHER];
        for row in 0..TOGETHER {
            // SAFETY: this function has the instructions.
            lanes[row] = unsafe { W::lanes(rights[row], columns.clone()) };
        }
        for r in 0..R {
            let left = floats(&lefts[r][columns.clone()]);
            for row in 0..TOGETHER {
                sums[r][row] = _mm256_fmadd_ps(left, lanes[row], sums[r][row]);
            }
        }
    }
    let mut out = [[0.0; TOGETHER]; R];
    for r in 0..R {
        for row in 0..TOGETHER {
            out[r][row] = total(sums[r][row]);
        }
    }
    out
}

/// The sum of a register's floats, by halves.
#[inline]
#[target_feature(enable = "avx2")]
fn total(sum: __m256) -> f32 {
    let [a, b, c, d, e, f, g, h]: [f32; LANES] = pulp::cast(sum);
    ((a + e) + (c + g)) + ((b + f) + (d + h))
}
