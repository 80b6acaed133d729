//! Products of few rows, as decoding makes them: the weight comes from memory once, in the order in which it lies there,
//! and is multiplied as it comes. Laying it out would take longer than the products.

use std::ops::Range;

use rayon::prelude::*;

use super::super::padded::padded;
use super::super::pieces::assembled;
use super::kernel::{COLUMNS, LANES, REGISTERS};
use super::lanes::{Lanes, rounded};
use super::registers::{broadcast, load, multiply_add, store, total, zero};
use super::right::Right;

/// Rows whose sums are in registers at a time.
const GROUP: usize = 4;
/// The most rows of such a product: two groups.
pub(super) const MOST: usize = 2 * GROUP;
/// Columns of a task of a matrix that lies row after row: such long pieces of its rows come fast.
pub(super) const WIDTH: usize = 768;
/// Tasks that such a matrix is cut into at least, whatever the number of threads, so that results do not depend on it.
const TASKS: usize = 8;
/// Rows of such a matrix that are multiplied before the next ones: a cache line of each stays in the first cache until all
/// groups have read it.
const DEPTH: usize = 8;
/// Columns of a task of a transpose.
const TURNED_WIDTH: usize = 64;

/// Calls [`sums`] with the number of rows of a group as a constant.
macro_rules! with_rows {
    ($rows:expr, sums::<$weights:ident> $arguments:tt) => {
        match $rows {
            1 => sums::<$weights, 1> $arguments,
            2 => sums::<$weights, 2> $arguments,
            3 => sums::<$weights, 3> $arguments,
            _ => sums::<$weights, GROUP> $arguments,
        }
    };
}

/// Calls [`dots`] with the number of rows as a constant, and with as many rows of the transpose at a time as keep all
/// multipliers busy and leave their sums in the registers.
macro_rules! with_all_rows {
    ($rows:expr, dots::<$weights:ident> $arguments:tt) => {
        match $rows {
            1 => dots::<$weights, 1, 8> $arguments,
            2 => dots::<$weights, 2, 8> $arguments,
            3 => dots::<$weights, 3, 4> $arguments,
            4 => dots::<$weights, 4, 4> $arguments,
            5 => dots::<$weights, 5, 2> $arguments,
            6 => dots::<$weights, 6, 2> $arguments,
            7 => dots::<$weights, 7, 2> $arguments,
            _ => dots::<$weights, MOST, 2> $arguments,
        }
    };
}

/// `left right + bias` of at most [`MOST`] rows.
pub(super) fn product<W: Lanes>(right: Right<W>, left: &[f32], bias: Option<&[f32]>) -> Vec<f32> {
    let [inner, columns] = right.sides();
    let rows = left.len() / inner;
    let rounded: Vec<f32> = match W::ROUNDS {
        true => left.iter().map(|value| rounded(*value)).collect(),
        false => Vec::new(),
    };
    let left = if W::ROUNDS { &rounded } else { left };
    if right.turned {
        let work = Work { right, left, inner };
        let pieces: Vec<Vec<f32>> = (0..columns.div_ceil(TURNED_WIDTH))
            .into_par_iter()
            .map(|index| {
                let columns = index * TURNED_WIDTH..columns.min((index + 1) * TURNED_WIDTH);
                with_all_rows!(rows, dots::<W>(&work, columns))
            })
            .collect();
        return assembled([rows, columns], TURNED_WIDTH, pieces.chunks(1), bias);
    }
    // The rows in one group or in two of the same size, the second of which may end with rows of zeros.
    let groups = rows.div_ceil(GROUP);
    let group = rows.div_ceil(groups);
    let mut padded = left.to_vec();
    padded.resize(groups * group * inner, 0.0);
    let work = Work {
        right,
        left: &padded,
        inner,
    };
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
            with_rows!(group, sums::<W>(&work, rows, inner_of, columns_of))
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

/// The products over some of the inner dimension, for some columns: `[rows, columns]`. The rows are in groups of `R`.
fn sums<W: Lanes, const R: usize>(
    work: &Work<'_, W>,
    rows: usize,
    inner_of: Range<usize>,
    columns: Range<usize>,
) -> Vec<f32> {
    let (width, stride) = (columns.len(), work.right.stored[1]);
    let groups = rows.div_ceil(R);
    // The sums of a panel, group after group.
    let mut sums = vec![[[0.0; COLUMNS]; R]; groups * width.div_ceil(COLUMNS)];
    let mut lines = Vec::with_capacity(DEPTH);
    for start in inner_of.clone().step_by(DEPTH) {
        let end = inner_of.end.min(start + DEPTH);
        lines.clear();
        lines.extend((start..end).map(|row| work.right.weights.row(row, stride)));
        let panels = columns.clone().step_by(COLUMNS);
        for (sums, first) in sums.chunks_exact_mut(groups).zip(panels) {
            let panel = first..columns.end.min(first + COLUMNS);
            let lefts = work.left.chunks_exact(R * work.inner);
            for (sums, left) in sums.iter_mut().zip(lefts) {
                let factors = std::array::from_fn(|r| &left[r * work.inner..][start..end]);
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
// Loops over indices: with iterators, the totals would not stay in registers.
#[allow(clippy::needless_range_loop)]
#[inline(always)]
fn add<W: Lanes, const R: usize>(
    sums: &mut [[f32; COLUMNS]; R],
    factors: [&[f32]; R],
    lines: &[W::Row],
    panel: Range<usize>,
) {
    // Of a whole panel, the compiler knows how long the parts are.
    let whole = panel.len() == COLUMNS;
    let mut totals = [[zero(); REGISTERS]; R];
    for r in 0..R {
        for part in 0..REGISTERS {
            totals[r][part] = load(&sums[r].as_chunks::<LANES>().0[part]);
        }
    }
    for (at, line) in lines.iter().enumerate() {
        let mut lanes = [zero(); REGISTERS];
        for part in 0..REGISTERS {
            let first = panel.start + part * LANES;
            lanes[part] = if whole {
                W::lanes(*line, first..first + LANES)
            } else {
                let first = first.min(panel.end);
                W::lanes(*line, first..panel.end.min(first + LANES))
            };
        }
        for r in 0..R {
            let factor = broadcast(factors[r][at]);
            for part in 0..REGISTERS {
                totals[r][part] = multiply_add(factor, lanes[part], totals[r][part]);
            }
        }
    }
    for r in 0..R {
        for part in 0..REGISTERS {
            store(
                &mut sums[r].as_chunks_mut::<LANES>().0[part],
                totals[r][part],
            );
        }
    }
}

/// The dot products of the `R` rows with some rows of a transpose, `T` at a time: `[R, columns]`.
fn dots<W: Lanes, const R: usize, const T: usize>(
    work: &Work<'_, W>,
    columns: Range<usize>,
) -> Vec<f32> {
    let (width, inner) = (columns.len(), work.inner);
    let lefts: [&[f32]; R] = std::array::from_fn(|r| &work.left[r * inner..][..inner]);
    let mut out = vec![0.0; R * width];
    for first in columns.clone().step_by(T) {
        // Where there are fewer, the last is multiplied more than once.
        let column = |at: usize| (first + at).min(columns.end - 1);
        let rights: [W::Row; T] =
            std::array::from_fn(|at| work.right.weights.row(column(at), inner));
        let found = few_dots::<W, R, T>(lefts, rights, inner);
        for (r, dots) in found.iter().enumerate() {
            let out = &mut out[r * width..][first - columns.start..width];
            out.iter_mut().zip(dots).for_each(|(out, dot)| *out = *dot);
        }
    }
    out
}

/// The dot products of `R` rows with `T`, each `inner` long.
// Loops over indices, as in `add`.
#[allow(clippy::needless_range_loop)]
#[inline(always)]
fn few_dots<W: Lanes, const R: usize, const T: usize>(
    lefts: [&[f32]; R],
    rights: [W::Row; T],
    inner: usize,
) -> [[f32; T]; R] {
    let whole = inner / LANES;
    // As long as the loop, so that it need not ask each time whether they are.
    let chunks: [&[[f32; LANES]]; R] =
        std::array::from_fn(|r| &lefts[r].as_chunks::<LANES>().0[..whole]);
    let mut sums = [[zero(); T]; R];
    for at in 0..whole {
        let start = at * LANES;
        let mut lanes = [zero(); T];
        for row in 0..T {
            lanes[row] = W::lanes(rights[row], start..start + LANES);
        }
        for r in 0..R {
            let left = load(&chunks[r][at]);
            for row in 0..T {
                sums[r][row] = multiply_add(left, lanes[row], sums[r][row]);
            }
        }
    }
    let rest = whole * LANES..inner;
    if !rest.is_empty() {
        for row in 0..T {
            let lanes = W::lanes(rights[row], rest.clone());
            for r in 0..R {
                let left = load(&padded(&lefts[r][rest.clone()]));
                sums[r][row] = multiply_add(left, lanes, sums[r][row]);
            }
        }
    }
    let mut out = [[0.0; T]; R];
    for r in 0..R {
        for row in 0..T {
            out[r][row] = total(sums[r][row]);
        }
    }
    out
}
