//! The loops, for any instruction set, and their entries for each.

// Loops over indices, which have the same form for sums, factors and places.
#![allow(clippy::needless_range_loop)]

use super::registers::Registers;
use super::{MAX_RANK, View};

/// Ranks that are computed at once.
pub(super) const RANKS: usize = 8;
/// Tokens of the wide matrix whose products are summed before they are added to the sums of those before: that many rows
/// stay in the second cache while the panels pass.
const TOKENS: usize = 64;
/// Tokens whose sums are in registers where a rank is the inner dimension.
const ROWS: usize = 4;

/// How an instruction set lays matrices out, in columns.
#[derive(Clone, Copy)]
pub(super) struct Sizes {
    /// Floats of a register.
    pub(super) lanes: usize,
    /// Of a panel whose inner dimension is a rank.
    pub(super) from: usize,
    /// Of a panel of sums over tokens.
    pub(super) sums: usize,
    /// The largest rank that these are used for: the largest for which they were measured to be faster than general products.
    pub(super) most: usize,
}

/// The entries of an instruction set: registers of a panel from a rank, registers of a panel of sums, tokens
/// that are projected at once, and the largest rank.
macro_rules! entries {
    ($module:ident, $proof:ident, $features:literal, $from:literal, $sums:literal, $tokens:literal, $most:expr) => {
        pub(super) mod $module {
            use super::*;
            use crate::ops::flex::instructions::$proof;

            const LANES: usize = $proof::LANES;
            pub(in super::super) const SIZES: Sizes = Sizes {
                lanes: LANES,
                from: $from * LANES,
                sums: $sums * LANES,
                most: $most,
            };

            /// See [`super::project`].
            pub(in super::super) fn project(
                proof: $proof,
                out: &mut [f32],
                x: View<'_>,
                lines: &[f32],
                rank: usize,
            ) {
                #[target_feature(enable = $features)]
                fn compiled(
                    proof: $proof,
                    out: &mut [f32],
                    x: View<'_>,
                    lines: &[f32],
                    rank: usize,
                ) {
                    super::project::<$proof, $tokens>(proof, out, x, lines, rank);
                }
                // SAFETY: the value proves that the processor has the instructions.
                unsafe { compiled(proof, out, x, lines, rank) }
            }

            /// See [`super::expand`].
            pub(in super::super) fn expand(
                proof: $proof,
                out: &mut [f32],
                v: View<'_>,
                lines: &[f32],
                width: usize,
            ) {
                #[target_feature(enable = $features)]
                fn compiled(
                    proof: $proof,
                    out: &mut [f32],
                    v: View<'_>,
                    lines: &[f32],
                    width: usize,
                ) {
                    super::expand::<$proof, $from, { $from * LANES }>(proof, out, v, lines, width);
                }
                // SAFETY: the value proves that the processor has the instructions.
                unsafe { compiled(proof, out, v, lines, width) }
            }

            /// See [`super::sum`].
            pub(in super::super) fn sum(
                proof: $proof,
                out: &mut [f32],
                wide: View<'_>,
                lines: &[f32],
                column: usize,
            ) {
                #[target_feature(enable = $features)]
                fn compiled(
                    proof: $proof,
                    out: &mut [f32],
                    wide: View<'_>,
                    lines: &[f32],
                    column: usize,
                ) {
                    super::sum::<$proof, $sums, { $sums * LANES }>(proof, out, wide, lines, column);
                }
                // SAFETY: the value proves that the processor has the instructions.
                unsafe { compiled(proof, out, wide, lines, column) }
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
entries!(
    avx512,
    Avx512,
    "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma",
    4,
    3,
    3,
    MAX_RANK
);
#[cfg(target_arch = "x86_64")]
entries!(avx2, Avx2, "avx2,fma", 2, 1, 1, 16);
#[cfg(target_arch = "aarch64")]
entries!(neon, Neon, "neon", 4, 2, 2, 16);

/// Writes `x` times a matrix to `out`: `[tokens, rank]`. The matrix is laid out in blocks of [`RANKS`] ranks, and each block in
/// parts of one register of the width, in which the ranks follow one another.
#[inline(always)]
fn project<L: Registers, const R: usize>(
    l: L,
    out: &mut [f32],
    x: View<'_>,
    lines: &[f32],
    rank: usize,
) {
    let [tokens, width] = x.sides();
    let (values, stride) = (x.values(), x.strides()[0]);
    let size = L::LANES * RANKS;
    let blocks = width.div_ceil(L::LANES) * size;
    assert!(x.strides()[1] == 1 && out.len() == tokens * rank);
    assert_eq!(lines.len(), blocks * rank.div_ceil(RANKS));
    let whole = width / L::LANES * L::LANES;
    for (at, out) in out.chunks_mut(R * rank).enumerate() {
        let count = out.len() / rank;
        // Past the last row, the last row is repeated.
        let mut rows = [values; R];
        for (row, place) in rows.iter_mut().enumerate() {
            *place = &values[(at * R + row.min(count - 1)) * stride..][..width];
        }
        for (block, lines) in lines.chunks_exact(blocks).enumerate() {
            let mut sums = [[l.zero(); RANKS]; R];
            let mut line = lines.as_ptr();
            for first in (0..whole).step_by(L::LANES) {
                let mut factors = [l.zero(); R];
                for (factor, row) in factors.iter_mut().zip(&rows) {
                    // SAFETY: `whole` is no more than the row's length.
                    *factor = unsafe { l.load(row.as_ptr().add(first)) };
                }
                for j in 0..RANKS {
                    // SAFETY: `lines` has `RANKS` registers for each of the width.
                    let other = unsafe { l.load(line.add(j * L::LANES)) };
                    for row in 0..R {
                        sums[row][j] = l.multiply_add(factors[row], other, sums[row][j]);
                    }
                }
                line = line.wrapping_add(size);
            }
            if whole < width {
                for (sums, row) in sums.iter_mut().zip(&rows) {
                    let factor = part(l, &row[whole..]);
                    for (j, sum) in sums.iter_mut().enumerate() {
                        // SAFETY: as above; the last register of the width is filled up with zeros.
                        let other = unsafe { l.load(line.add(j * L::LANES)) };
                        *sum = l.multiply_add(factor, other, *sum);
                    }
                }
            }
            let first = block * RANKS;
            let ranks = RANKS.min(rank - first);
            for (out, sums) in out.chunks_exact_mut(rank).zip(sums) {
                out[first..first + ranks].copy_from_slice(&l.sums(sums)[..ranks]);
            }
        }
    }
}

/// Fewer floats than a register has, and zeros.
#[inline(always)]
fn part<L: Registers>(l: L, values: &[f32]) -> L::Register {
    let mut lanes = [0.0; 16];
    lanes[..values.len()].copy_from_slice(values);
    const { assert!(L::LANES <= 16) };
    // SAFETY: there are as many.
    unsafe { l.load(lanes.as_ptr()) }
}

/// Adds `v` by a matrix to `out`: `[tokens, width]`. The matrix is laid out in panels of `V` registers (`W` columns),
/// in which the ranks follow one another.
#[inline(always)]
fn expand<L: Registers, const V: usize, const W: usize>(
    l: L,
    out: &mut [f32],
    v: View<'_>,
    lines: &[f32],
    width: usize,
) {
    const { assert!(V * L::LANES == W) };
    let [tokens, rank] = v.sides();
    let (values, [down, right]) = (v.values(), v.strides());
    assert!(rank <= MAX_RANK && out.len() == tokens * width);
    assert_eq!(lines.len(), width.div_ceil(W) * W * rank);
    let mut factors = [[0.0; ROWS]; MAX_RANK];
    for (at, out) in out.chunks_mut(ROWS * width).enumerate() {
        let rows = out.len() / width;
        for (j, factors) in factors[..rank].iter_mut().enumerate() {
            for (row, factor) in factors[..rows].iter_mut().enumerate() {
                *factor = values[(at * ROWS + row) * down + j * right];
            }
        }
        for (panel, lines) in lines.chunks_exact(W * rank).enumerate() {
            let first = panel * W;
            if rows == ROWS && first + W <= width {
                // SAFETY: `out` has four rows, and these columns of each.
                unsafe { add_tile::<L, V>(l, &mut out[first..], width, &factors[..rank], lines) };
                continue;
            }
            let count = W.min(width - first);
            let mut tile = [[0.0; W]; ROWS];
            for (tile, out) in tile.iter_mut().zip(out.chunks_exact(width)) {
                tile[..count].copy_from_slice(&out[first..first + count]);
            }
            // SAFETY: the tile has four rows of `W` columns.
            unsafe { add_tile::<L, V>(l, tile.as_flattened_mut(), W, &factors[..rank], lines) };
            for (tile, out) in tile.iter().zip(out.chunks_exact_mut(width)) {
                out[first..first + count].copy_from_slice(&tile[..count]);
            }
        }
    }
}

/// Adds the products of four rows and a panel's columns.
///
/// # Safety
/// From its start, `out` has four rows of `V` registers, `stride` apart; `lines` has `V` registers for each of the factors.
#[inline(always)]
unsafe fn add_tile<L: Registers, const V: usize>(
    l: L,
    out: &mut [f32],
    stride: usize,
    factors: &[[f32; ROWS]],
    lines: &[f32],
) {
    let place = |row: usize, column: usize| row * stride + column * L::LANES;
    let mut sums = [[l.zero(); V]; ROWS];
    for row in 0..ROWS {
        for column in 0..V {
            // SAFETY: as the caller promises.
            sums[row][column] = unsafe { l.load(out.as_ptr().add(place(row, column))) };
        }
    }
    for (j, factors) in factors.iter().enumerate() {
        let mut line = [l.zero(); V];
        for (column, line) in line.iter_mut().enumerate() {
            // SAFETY: as the caller promises.
            *line = unsafe { l.load(lines.as_ptr().add((j * V + column) * L::LANES)) };
        }
        for row in 0..ROWS {
            let factor = l.broadcast(factors[row]);
            for column in 0..V {
                sums[row][column] = l.multiply_add(factor, line[column], sums[row][column]);
            }
        }
    }
    for row in 0..ROWS {
        for column in 0..V {
            // SAFETY: as the caller promises.
            unsafe { l.store(out.as_mut_ptr().add(place(row, column)), sums[row][column]) };
        }
    }
}

/// The sums of some panels of `V` registers, `W` columns, of which the first begins at a column: to `out`, which is zeros. Of
/// the thin matrix, `lines` has blocks of [`RANKS`] ranks, of each token after token.
#[inline(always)]
fn sum<L: Registers, const V: usize, const W: usize>(
    l: L,
    out: &mut [f32],
    wide: View<'_>,
    lines: &[f32],
    column: usize,
) {
    const { assert!(V * L::LANES == W) };
    let [tokens, width] = wide.sides();
    let (values, stride) = (wide.values(), wide.strides()[0]);
    let (lines, rest) = lines.as_chunks::<RANKS>();
    assert!(rest.is_empty() && lines.len().is_multiple_of(tokens));
    let blocks = lines.len() / tokens;
    assert!(wide.strides()[1] == 1 && out.len().is_multiple_of(W * RANKS * blocks));
    for start in (0..tokens).step_by(TOKENS) {
        let count = TOKENS.min(tokens - start);
        for (panel, out) in out.chunks_exact_mut(W * RANKS * blocks).enumerate() {
            let first = column + panel * W;
            let columns = W.min(width - first);
            let mut copy;
            let (rows, stride) = if columns == W {
                (&values[start * stride + first..], stride)
            } else {
                copy = [[0.0; W]; TOKENS];
                for (row, copy) in copy[..count].iter_mut().enumerate() {
                    let place = (start + row) * stride + first;
                    copy[..columns].copy_from_slice(&values[place..place + columns]);
                }
                (copy.as_flattened(), W)
            };
            let outs = out.chunks_exact_mut(W * RANKS);
            for (out, lines) in outs.zip(lines.chunks_exact(tokens)) {
                let lines = &lines[start..start + count];
                // SAFETY: there are as many rows of `W` columns, and `out` has `RANKS` rows of them.
                unsafe { add_sums::<L, V>(l, out, rows, stride, lines) };
            }
        }
    }
}

/// Adds to `out` the sums of some rows' columns times their ranks.
///
/// # Safety
/// `rows` has a row of `V` registers for each line, `stride` apart, and `out` has `RANKS` rows of `V` registers.
#[inline(always)]
unsafe fn add_sums<L: Registers, const V: usize>(
    l: L,
    out: &mut [f32],
    rows: &[f32],
    stride: usize,
    lines: &[[f32; RANKS]],
) {
    let mut sums = [[l.zero(); V]; RANKS];
    for (row, line) in lines.iter().enumerate() {
        let mut factors = [l.zero(); V];
        for (column, factor) in factors.iter_mut().enumerate() {
            // SAFETY: as the caller promises.
            *factor = unsafe { l.load(rows.as_ptr().add(row * stride + column * L::LANES)) };
        }
        for j in 0..RANKS {
            let rank = l.broadcast(line[j]);
            for column in 0..V {
                sums[j][column] = l.multiply_add(rank, factors[column], sums[j][column]);
            }
        }
    }
    let one = l.broadcast(1.0);
    for j in 0..RANKS {
        for column in 0..V {
            // SAFETY: as the caller promises.
            unsafe {
                let place = out.as_mut_ptr().add((j * V + column) * L::LANES);
                l.store(place, l.multiply_add(one, sums[j][column], l.load(place)));
            }
        }
    }
}
