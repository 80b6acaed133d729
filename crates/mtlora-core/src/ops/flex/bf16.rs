//! Products with a matrix of bfloat16 by the processor's dot products of bfloat16 pairs (AVX-512
//! BF16: `vdpbf16ps`), which do twice the work of a multiplication of 32-bit floats.
//!
//! The left matrix is rounded to bfloat16; sums are 32-bit floats. Blocked as in BLIS (Van Zee and
//! van de Geijn, 2015): the right matrix is laid out in panels of [`COLUMNS`] columns, blocks of
//! the left one in panels of [`ROWS`] rows, and a tile of `ROWS x COLUMNS` sums stays in
//! registers. A sum runs over the inner dimension in the same order whatever the number of threads.

use std::arch::x86_64::{
    __m512, __m512bh, _mm512_add_ps, _mm512_cvtne2ps_pbh, _mm512_dpbf16_ps, _mm512_set1_epi32,
    _mm512_setzero_ps,
};
use std::ops::Range;

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
/// Floats of a register; pairs of one, too: a cache line.
const LANES: usize = 16;

/// Two bfloat16, the one of the even index in the low half.
type Pair = u32;
/// Rows of the left matrix, with zeros below the last one. Of each, so many pairs as a pass sums are
/// used.
type Rows = [[Pair; PAIRS]; ROWS];

/// Whether this processor has the instructions.
pub(super) fn available() -> bool {
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bf16")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vl")
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
    #[target_feature(enable = "avx512f,avx512bf16,avx512bw,avx512vl")]
    fn lay_out(&self, first: usize, panel: &mut [Pair]) {
        let (lines, _) = panel.as_chunks_mut::<COLUMNS>();
        match self.transposed {
            true => self.lay_out_rows(first, lines),
            false => self.lay_out_columns(first, lines),
        }
    }

    #[inline(always)]
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

    #[inline(always)]
    fn lay_out_rows(&self, first: usize, lines: &mut [[Pair; COLUMNS]]) {
        let rows = self.values[first * self.inner..].chunks_exact(self.inner);
        for (column, row) in rows.take(COLUMNS).enumerate() {
            let (pairs, last) = row.as_chunks::<2>();
            let (blocks, rest) = pairs.as_chunks::<LANES>();
            let (whole, behind) = lines.split_at_mut(blocks.len() * LANES);
            let (whole, _) = whole.as_chunks_mut::<LANES>();
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
    let (pairs, columns) = (right.pairs(), right.columns);
    let passes = passes(pairs);
    let packed: Vec<Vec<Rows>> = passes
        .iter()
        .map(|pass| packed(left, right.inner, pass.clone()))
        .collect();
    let rows = left.len() / right.inner;
    let sums: Vec<Vec<f32>> = (0..columns.div_ceil(COLUMNS))
        .into_par_iter()
        .map_init(
            || vec![0; pairs * COLUMNS],
            |panel, index| {
                panel.fill(0);
                lay_out(right, index * COLUMNS, panel);
                let mut sums = vec![0.0; rows * COLUMNS];
                for (pass, packed) in passes.iter().zip(&packed) {
                    let panel = &panel[pass.start * COLUMNS..pass.end * COLUMNS];
                    for (rows, sums) in packed.iter().zip(sums.chunks_mut(ROWS * COLUMNS)) {
                        add_tile(sums, COLUMNS, 0..COLUMNS, rows, panel);
                    }
                }
                sums
            },
        )
        .collect();
    for (row, out) in out.chunks_exact_mut(columns).enumerate() {
        for (out, sums) in out.chunks_mut(COLUMNS).zip(&sums) {
            let sums = &sums[row * COLUMNS..];
            out.iter_mut().zip(sums).for_each(|(out, sum)| *out += sum);
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
        .for_each(|(index, panel)| lay_out(right, index * COLUMNS, panel));
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
    for pass in passes(right.pairs()) {
        let packed = packed(left, right.inner, pass.clone());
        let panels = panels.chunks_exact(right.pairs() * COLUMNS);
        for (index, panel) in panels.enumerate() {
            let panel = &panel[pass.start * COLUMNS..pass.end * COLUMNS];
            let columns = index * COLUMNS..right.columns.min((index + 1) * COLUMNS);
            let blocks = out.chunks_mut(ROWS * right.columns);
            for (rows, out) in packed.iter().zip(blocks) {
                add_tile(out, right.columns, columns.clone(), rows, panel);
            }
        }
    }
}

/// The pairs that are summed in each pass: parts of about one size.
fn passes(pairs: usize) -> Vec<Range<usize>> {
    let step = pairs.div_ceil(pairs.div_ceil(PAIRS));
    (0..pairs)
        .step_by(step)
        .map(|first| first..pairs.min(first + step))
        .collect()
}

fn lay_out(right: Right<'_>, first: usize, panel: &mut [Pair]) {
    // SAFETY: every path here goes through `add_matmul`, which asserts that the processor has the
    // instructions.
    unsafe { right.lay_out(first, panel) }
}

fn packed(left: &[f32], inner: usize, pass: Range<usize>) -> Vec<Rows> {
    // SAFETY: as in `lay_out`.
    unsafe { pack(left, inner, pass) }
}

/// `rows` times `panel`, added to those rows and columns of `out` that there are; `stride` leads
/// from one row of `out` to the next.
fn add_tile(out: &mut [f32], stride: usize, columns: Range<usize>, rows: &Rows, panel: &[Pair]) {
    // SAFETY: as in `lay_out`.
    unsafe { add_tile_avx512(out, stride, columns, rows, panel) }
}

#[target_feature(enable = "avx512f,avx512bf16")]
fn add_tile_avx512(
    out: &mut [f32],
    stride: usize,
    columns: Range<usize>,
    rows: &Rows,
    panel: &[Pair],
) {
    let sums = tile(rows, panel);
    for (out, sums) in out.chunks_exact_mut(stride).zip(&sums) {
        let out = &mut out[columns.clone()];
        match out.as_chunks_mut::<LANES>() {
            ([left, right], []) => {
                *left = pulp::cast(_mm512_add_ps(pulp::cast(*left), sums[0]));
                *right = pulp::cast(_mm512_add_ps(pulp::cast(*right), sums[1]));
            }
            _ => {
                let sums = floats(*sums);
                out.iter_mut().zip(sums).for_each(|(out, sum)| *out += sum);
            }
        }
    }
}

/// A row of a tile as floats.
fn floats(sums: [__m512; 2]) -> [f32; COLUMNS] {
    // SAFETY: both are 1024 bits wide, and every pattern of them is a value.
    unsafe { std::mem::transmute(sums) }
}

/// The rows' pairs of one pass, rounded to the nearest, ties to even.
#[target_feature(enable = "avx512f,avx512bf16,avx512bw,avx512vl")]
fn pack(left: &[f32], inner: usize, pass: Range<usize>) -> Vec<Rows> {
    let mut packed = vec![[[0; PAIRS]; ROWS]; left.len().div_ceil(inner * ROWS)];
    for (block, rows) in packed.iter_mut().zip(left.chunks(inner * ROWS)) {
        for (pairs, row) in block.iter_mut().zip(rows.chunks_exact(inner)) {
            let row = &row[2 * pass.start..inner.min(2 * pass.end)];
            let (whole, rest) = row.as_chunks::<{ 2 * LANES }>();
            let (registers, _) = pairs.as_chunks_mut::<LANES>();
            for (register, row) in registers.iter_mut().zip(whole) {
                *register = rounded(row);
            }
            if let (Some(register), false) = (registers.get_mut(whole.len()), rest.is_empty()) {
                let mut row = [0.0; 2 * LANES];
                row[..rest.len()].copy_from_slice(rest);
                *register = rounded(&row);
            }
        }
    }
    packed
}

#[target_feature(enable = "avx512f,avx512bf16")]
fn rounded(row: &[f32; 2 * LANES]) -> [Pair; LANES] {
    let [low, high]: [__m512; 2] = pulp::cast(*row);
    let pairs = _mm512_cvtne2ps_pbh(high, low);
    // SAFETY: both are 512 bits wide, and every pattern of them is a value.
    unsafe { std::mem::transmute(pairs) }
}

/// The sums of a tile; `panel` is `[pairs of the pass, COLUMNS]`.
#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
fn tile(rows: &Rows, panel: &[Pair]) -> [[__m512; 2]; ROWS] {
    let mut sums = [[_mm512_setzero_ps(); 2]; ROWS];
    let (lanes, _) = panel.as_chunks::<LANES>();
    let (columns, _) = lanes.as_chunks::<2>();
    for (pair, columns) in columns.iter().take(PAIRS).enumerate() {
        let left = registers(columns[0]);
        let right = registers(columns[1]);
        for (row, sums) in rows.iter().zip(&mut sums) {
            let row = _mm512_set1_epi32(row[pair].cast_signed());
            // SAFETY: both are 512 bits wide, and every pattern of them is a value.
            let row: __m512bh = unsafe { std::mem::transmute(row) };
            sums[0] = _mm512_dpbf16_ps(sums[0], row, left);
            sums[1] = _mm512_dpbf16_ps(sums[1], row, right);
        }
    }
    sums
}

#[inline(always)]
fn registers(pairs: [Pair; LANES]) -> __m512bh {
    // SAFETY: both are 512 bits wide, and every pattern of them is a value.
    unsafe { std::mem::transmute(pairs) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn rounds_as_half_does(bits: [u32; 2 * LANES]) {
            if !available() {
                return Ok(());
            }
            let row = bits.map(f32::from_bits);
            // SAFETY: the processor has the instructions.
            let found = unsafe { rounded(&row) };
            for (pair, row) in found.iter().zip(row.as_chunks::<2>().0) {
                for (found, x) in [*pair as u16, (*pair >> 16) as u16].into_iter().zip(row) {
                    let (found, expected) = (bf16::from_bits(found), bf16::from_f32(*x));
                    // The instruction takes what is below the normal range for zero.
                    prop_assert!(
                        found == expected
                            || found.is_nan() && expected.is_nan()
                            || !x.is_normal() && found.to_f32() == 0.0,
                        "{} became {}", x, found
                    );
                }
            }
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
