//! Products with a matrix of bfloat16 by the processor's dot products of bfloat16 pairs (AVX-512
//! BF16: `vdpbf16ps`), which do twice the work of a multiplication of 32-bit floats.
//!
//! The left matrix is rounded to bfloat16; sums are 32-bit floats. Blocked as in BLIS (Van Zee and
//! van de Geijn, 2015): the right matrix is laid out in panels of [`COLUMNS`] columns, blocks of
//! the left one in panels of [`ROWS`] rows, and a tile of `ROWS x COLUMNS` sums stays in
//! registers. A sum runs over the inner dimension in the same order whatever the number of threads.

use std::arch::x86_64::{
    __m512, __m512bh, __m512i, _mm512_dpbf16_ps, _mm512_set1_epi32, _mm512_setzero_ps,
};

use burn::tensor::bf16;
use rayon::prelude::*;

/// Rows of a tile.
const ROWS: usize = 12;
/// Columns of a tile: two registers.
const COLUMNS: usize = 32;
/// Pairs of the inner dimension that are summed in one pass: a panel of the right matrix (32 KiB)
/// stays in the first cache.
const PAIRS: usize = 256;
/// Rows that a task takes at most: its block of the left matrix (200 KiB) stays in the second cache.
const TASK: usize = 192;
/// Up to so many rows, the right matrix is laid out a panel at a time: it is read once, and writing
/// it down again would take longer than the products.
const FEW: usize = 4 * ROWS;
/// Pairs of a row that are laid out at a time: a cache line.
const LINE: usize = 16;

/// Two bfloat16, the one of the even index in the low half.
type Pair = u32;

/// Whether this processor has the instructions.
pub(super) fn available() -> bool {
    is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bf16")
}

/// The right matrix: `[inner, columns]`.
#[derive(Clone, Copy)]
pub(super) struct Right<'a> {
    values: &'a [bf16],
    inner: usize,
    columns: usize,
    /// Whether `values` are the transpose, `[columns, inner]`.
    transposed: bool,
}

impl<'a> Right<'a> {
    /// `[inner, columns]`, row after row.
    pub(super) fn new(values: &'a [bf16], [inner, columns]: [usize; 2]) -> Self {
        assert_eq!(values.len(), inner * columns);
        Self {
            values,
            inner,
            columns,
            transposed: false,
        }
    }

    /// The transpose.
    pub(super) fn t(self) -> Self {
        Self {
            inner: self.columns,
            columns: self.inner,
            transposed: !self.transposed,
            ..self
        }
    }

    fn pairs(&self) -> usize {
        self.inner.div_ceil(2)
    }

    /// Lays out the columns from `first` on: `[pairs, COLUMNS]`, which must be zeros before.
    fn lay_out(&self, first: usize, panel: &mut [Pair]) {
        let (lines, _) = panel.as_chunks_mut::<COLUMNS>();
        match self.transposed {
            true => self.lay_out_rows(first, lines),
            false => self.lay_out_columns(first, lines),
        }
    }

    fn lay_out_columns(&self, first: usize, lines: &mut [[Pair; COLUMNS]]) {
        let width = COLUMNS.min(self.columns - first);
        let mut rows = self.values.chunks_exact(self.columns);
        for line in lines {
            let (Some(low), high) = (rows.next(), rows.next()) else {
                return;
            };
            let low = &low[first..first + width];
            match high {
                Some(high) => {
                    let high = &high[first..first + width];
                    for ((pair, low), high) in line.iter_mut().zip(low).zip(high) {
                        *pair = joined(*low, *high);
                    }
                }
                None => {
                    for (pair, low) in line.iter_mut().zip(low) {
                        *pair = joined(*low, bf16::ZERO);
                    }
                }
            }
        }
    }

    fn lay_out_rows(&self, first: usize, lines: &mut [[Pair; COLUMNS]]) {
        let rows = self.values[first * self.inner..].chunks_exact(self.inner);
        for (column, row) in rows.take(COLUMNS).enumerate() {
            let (pairs, last) = row.as_chunks::<2>();
            let (blocks, rest) = pairs.as_chunks::<LINE>();
            let (whole, behind) = lines.split_at_mut(blocks.len() * LINE);
            let (whole, _) = whole.as_chunks_mut::<LINE>();
            for (lines, block) in whole.iter_mut().zip(blocks) {
                for (line, [low, high]) in lines.iter_mut().zip(block) {
                    line[column] = joined(*low, *high);
                }
            }
            let rest = rest.iter().map(|[low, high]| joined(*low, *high));
            let last = last.iter().map(|last| joined(*last, bf16::ZERO));
            for (line, pair) in behind.iter_mut().zip(rest.chain(last)) {
                line[column] = pair;
            }
        }
    }
}

#[inline(always)]
fn joined(low: bf16, high: bf16) -> Pair {
    u32::from(low.to_bits()) | u32::from(high.to_bits()) << 16
}

/// The bits of the nearest bfloat16, ties to even; infinities and NaN stay.
#[inline(always)]
fn rounded(x: f32) -> u32 {
    let bits = x.to_bits();
    let nearest = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16;
    // Rounding could carry a NaN's payload into its exponent.
    if x.is_nan() {
        bits >> 16 | 0x40
    } else {
        nearest
    }
}

/// Adds `left right` to `out`. `left`: `[rows, inner]`, `out`: `[rows, columns]`.
///
/// # Panics
/// When the shapes do not fit, or the processor does not have the instructions.
pub(super) fn add_matmul(out: &mut [f32], left: &[f32], right: Right<'_>) {
    if right.inner == 0 || right.columns == 0 {
        return;
    }
    let rows = left.len() / right.inner;
    assert!(rows * right.inner == left.len() && rows * right.columns == out.len());
    assert!(available());
    match rows {
        0 => {}
        1..=FEW => add_few_rows(out, left, right),
        _ => add_rows(out, left, right),
    }
}

/// Threads share the columns.
fn add_few_rows(out: &mut [f32], left: &[f32], right: Right<'_>) {
    let pairs = right.pairs();
    let panels = left.len().div_ceil(right.inner * ROWS);
    let mut packed = vec![0; panels * pairs * ROWS];
    pack(&mut packed, left, right.inner, 0..pairs);
    let sums: Vec<Vec<[f32; COLUMNS]>> = (0..right.columns.div_ceil(COLUMNS))
        .into_par_iter()
        .map_init(
            || vec![0; pairs * COLUMNS],
            |panel, index| {
                panel.fill(0);
                right.lay_out(index * COLUMNS, panel);
                let rows = packed.chunks_exact(pairs * ROWS);
                rows.flat_map(|rows| tile(rows, panel)).collect()
            },
        )
        .collect();
    for (row, out) in out.chunks_exact_mut(right.columns).enumerate() {
        for (out, sums) in out.chunks_mut(COLUMNS).zip(&sums) {
            add(out, &sums[row]);
        }
    }
}

/// Threads share the rows.
fn add_rows(out: &mut [f32], left: &[f32], right: Right<'_>) {
    let per_panel = right.pairs() * COLUMNS;
    let mut panels = vec![0; right.columns.div_ceil(COLUMNS) * per_panel];
    panels
        .par_chunks_exact_mut(per_panel)
        .enumerate()
        .for_each(|(index, panel)| right.lay_out(index * COLUMNS, panel));
    let rows = left.len() / right.inner;
    let threads = rayon::current_num_threads();
    let tasks = threads * rows.div_ceil(TASK * threads);
    let per_task = rows.div_ceil(tasks).next_multiple_of(ROWS);
    out.par_chunks_mut(per_task * right.columns)
        .zip(left.par_chunks(per_task * right.inner))
        .for_each(|(out, left)| add_block(out, left, right, &panels));
}

/// The rows of one task, with all of the right matrix.
fn add_block(out: &mut [f32], left: &[f32], right: Right<'_>, panels: &[Pair]) {
    let passes = right.pairs().div_ceil(PAIRS);
    let per_pass = right.pairs().div_ceil(passes);
    let blocks = left.len().div_ceil(right.inner * ROWS);
    let mut packed = vec![0; blocks * per_pass * ROWS];
    for first in (0..right.pairs()).step_by(per_pass) {
        let count = per_pass.min(right.pairs() - first);
        let packed = &mut packed[..blocks * count * ROWS];
        pack(packed, left, right.inner, first..first + count);
        let panels = panels.chunks_exact(right.pairs() * COLUMNS);
        for (index, panel) in panels.enumerate() {
            let panel = &panel[first * COLUMNS..][..count * COLUMNS];
            let from = index * COLUMNS;
            let to = right.columns.min(from + COLUMNS);
            let rows = packed.chunks_exact(count * ROWS);
            for (rows, out) in rows.zip(out.chunks_mut(ROWS * right.columns)) {
                let sums = tile(rows, panel);
                for (out, sums) in out.chunks_exact_mut(right.columns).zip(&sums) {
                    add(&mut out[from..to], sums);
                }
            }
        }
    }
}

fn add(out: &mut [f32], sums: &[f32; COLUMNS]) {
    match <&mut [f32; COLUMNS]>::try_from(&mut *out) {
        // With a known length, registers at a time.
        Ok(out) => out.iter_mut().zip(sums).for_each(|(out, sum)| *out += sum),
        Err(_) => out.iter_mut().zip(sums).for_each(|(out, sum)| *out += sum),
    }
}

/// The rows' given pairs in panels, `[panel, pair, ROWS]`, with zeros below the last row.
fn pack(panels: &mut [Pair], left: &[f32], inner: usize, pairs: std::ops::Range<usize>) {
    let panels = panels.chunks_exact_mut(pairs.len() * ROWS);
    for (panel, rows) in panels.zip(left.chunks(inner * ROWS)) {
        let (slots, _) = panel.as_chunks_mut::<ROWS>();
        for (place, row) in rows.chunks_exact(inner).enumerate() {
            let row = &row[2 * pairs.start..inner.min(2 * pairs.end)];
            let (whole, last) = row.as_chunks::<2>();
            let whole = whole
                .iter()
                .map(|[low, high]| rounded(*low) | rounded(*high) << 16);
            let last = last.iter().map(|last| rounded(*last));
            for (slot, pair) in slots.iter_mut().zip(whole.chain(last)) {
                slot[place] = pair;
            }
        }
    }
}

/// The sums of a tile: `rows` is `[pairs, ROWS]`, `columns` `[pairs, COLUMNS]`.
fn tile(rows: &[Pair], columns: &[Pair]) -> [[f32; COLUMNS]; ROWS] {
    // SAFETY: every path here goes through `add_matmul`, which asserts that the processor has
    // AVX-512 BF16.
    unsafe { tile_avx512(rows, columns) }
}

#[target_feature(enable = "avx512f,avx512bf16")]
fn tile_avx512(rows: &[Pair], columns: &[Pair]) -> [[f32; COLUMNS]; ROWS] {
    let mut sums = [[_mm512_setzero_ps(); 2]; ROWS];
    let (rows, _) = rows.as_chunks::<ROWS>();
    let (columns, _) = columns.as_chunks::<{ COLUMNS / 2 }>();
    let (columns, _) = columns.as_chunks::<2>();
    for (row, columns) in rows.iter().zip(columns) {
        let [left, right] = columns.map(|lanes| pairs(pulp::cast(lanes)));
        for (pair, sums) in row.iter().zip(&mut sums) {
            let pair = pairs(_mm512_set1_epi32(pair.cast_signed()));
            sums[0] = _mm512_dpbf16_ps(sums[0], pair, left);
            sums[1] = _mm512_dpbf16_ps(sums[1], pair, right);
        }
    }
    sums.map(|sums: [__m512; 2]| pulp::cast(sums.map(pulp::cast::<__m512, [f32; 16]>)))
}

#[inline(always)]
fn pairs(lanes: __m512i) -> __m512bh {
    // SAFETY: both are 512 bits wide, and every pattern of them is a value.
    unsafe { std::mem::transmute(lanes) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn rounds_as_half_does(bits: u32) {
            let x = f32::from_bits(bits);
            let (found, expected) = (bf16::from_bits(rounded(x) as u16), bf16::from_f32(x));
            prop_assert!(found == expected || found.is_nan() && expected.is_nan());
        }

        #[test]
        fn is_the_sum_of_products(
            rows in 1usize..70, inner in 1usize..70, columns in 1usize..70, long: bool, turned: bool,
        ) {
            if !available() {
                return Ok(());
            }
            // More than one pass, and more rows than a task takes.
            let inner = if long { inner + 2 * PAIRS } else { inner };
            let rows = if long { rows + TASK } else { rows };
            // Small whole numbers: exact in any order, and as bfloat16.
            let fill = |count: usize, step: usize| {
                (0..count).map(move |at| (at * step % 17) as f32 - 8.0)
            };
            let left: Vec<f32> = fill(rows * inner, 5).collect();
            let right: Vec<bf16> = fill(inner * columns, 7).map(bf16::from_f32).collect();
            let mut out = vec![3.0; rows * columns];
            let view = match turned {
                true => Right::new(&right, [columns, inner]).t(),
                false => Right::new(&right, [inner, columns]),
            };
            add_matmul(&mut out, &left, view);
            for row in 0..rows {
                for column in 0..columns {
                    let sum: f32 = (0..inner)
                        .map(|at| {
                            let right = match turned {
                                true => right[column * inner + at],
                                false => right[at * columns + column],
                            };
                            left[row * inner + at] * right.to_f32()
                        })
                        .sum();
                    prop_assert_eq!(out[row * columns + column], 3.0 + sum);
                }
            }
        }
    }
}
