//! The right matrix and how it is laid out.

use std::arch::x86_64::{__m512i, _MM_HINT_T1, _mm_prefetch, _mm512_setzero_si512};
use std::ops::Range;

use burn::tensor::bf16;

use super::transpose::transposed;
use super::{COLUMNS, Kernel, LANES, Line, Unit};

/// Rows that are asked for before they are laid out.
const AHEAD: usize = 8;

/// The right matrix: `[inner, columns]`.
#[derive(Clone, Copy)]
pub(in crate::ops::flex) struct Right<'a> {
    values: Values<'a>,
    /// Rows and columns of `values`, row after row.
    stored: [usize; 2],
    /// Whether `values` are the transpose, `[columns, inner]`.
    transposed: bool,
}

/// In which precision the matrix is kept.
#[derive(Clone, Copy)]
pub(in crate::ops::flex) enum Values<'a> {
    F32(&'a [f32]),
    Bf16(&'a [bf16]),
    /// Each integer stands for itself times a scale: that of its column, and of its `block` rows.
    Int8 {
        integers: &'a [i8],
        scales: &'a [f32],
        block: usize,
    },
}

impl<'a> Right<'a> {
    /// `[inner, columns]`, row after row.
    ///
    /// # Panics
    /// When there are not so many values.
    pub(in crate::ops::flex) fn new(values: Values<'a>, [inner, columns]: [usize; 2]) -> Self {
        let found = match values {
            Values::F32(values) => values.len(),
            Values::Bf16(values) => values.len(),
            Values::Int8 {
                integers,
                scales,
                block,
            } => {
                assert!(scales.len() >= inner.div_ceil(block) * columns);
                integers.len()
            }
        };
        assert_eq!(found, inner * columns);
        Self {
            values,
            stored: [inner, columns],
            transposed: false,
        }
    }

    /// The transpose.
    pub(in crate::ops::flex) fn t(self) -> Self {
        Self {
            transposed: !self.transposed,
            ..self
        }
    }

    /// How many rows it has, and columns.
    pub(super) fn sides(&self) -> [usize; 2] {
        let [rows, columns] = self.stored;
        match self.transposed {
            true => [columns, rows],
            false => [rows, columns],
        }
    }

    /// What its units are multiplied by.
    pub(super) fn kernel(&self) -> Kernel {
        match self.values {
            Values::Bf16(_) => Kernel::Bf16,
            Values::F32(_) | Values::Int8 { .. } => Kernel::F32,
        }
    }

    /// Lays out some columns, the first of which begins a panel: in `lines` panel after panel, of
    /// each the `units`. Lanes behind the last column stay as they are.
    pub(super) fn lay_out(&self, units: Range<usize>, columns: Range<usize>, lines: &mut [Line]) {
        // SAFETY: `product` asserts that the processor has the instructions.
        unsafe {
            match self.transposed {
                true => self.lay_out_columns(units, columns, lines),
                false => self.lay_out_rows(units, columns, lines),
            }
        }
    }

    /// Of a matrix that lies row after row: a unit's line is a piece of its rows.
    #[target_feature(enable = "avx512f,avx512bw")]
    fn lay_out_rows(&self, units: Range<usize>, columns: Range<usize>, lines: &mut [Line]) {
        let count = units.len();
        let [rows, width] = self.stored;
        let depth = self.kernel().depth();
        for (at, unit) in units.enumerate() {
            let lines = lines.iter_mut().skip(at).step_by(count);
            let pieces = columns.clone().step_by(COLUMNS);
            let ahead = (unit + AHEAD) * depth;
            for row in ahead..rows.min(ahead + depth) {
                for column in columns.clone().step_by(LANES * depth) {
                    self.prefetch(row, column);
                }
            }
            for (line, first) in lines.zip(pieces) {
                let piece = first..columns.end.min(first + COLUMNS);
                match self.values {
                    Values::F32(values) => {
                        let row = &values[unit * width..][piece];
                        fill(line, row.iter().map(|x| x.to_bits()));
                    }
                    Values::Int8 {
                        integers,
                        scales,
                        block,
                    } => {
                        let row = &integers[unit * width..][piece.clone()];
                        let scales = &scales[unit / block * width..][piece];
                        fill(line, dense(row, scales));
                    }
                    Values::Bf16(values) => {
                        let low = &values[2 * unit * width..][piece.clone()];
                        match 2 * unit + 1 < rows {
                            true => {
                                let high = &values[(2 * unit + 1) * width..][piece];
                                fill(
                                    line,
                                    low.iter().zip(high).map(|(low, high)| pair(*low, *high)),
                                );
                            }
                            false => fill(line, low.iter().map(|low| pair(*low, bf16::ZERO))),
                        }
                    }
                }
            }
        }
    }

    /// Of a transpose: a column's units lie one after the other, and squares of them are turned.
    #[target_feature(enable = "avx512f,avx512bw")]
    fn lay_out_columns(&self, units: Range<usize>, columns: Range<usize>, lines: &mut [Line]) {
        let count = units.len();
        let firsts = columns.clone().step_by(LANES).enumerate();
        for (half, first) in firsts {
            let lines = &mut lines[half / 2 * count..][..count];
            let place = half % 2 * LANES;
            let columns = first..columns.end.min(first + LANES);
            for (lines, start) in lines.chunks_mut(LANES).zip(units.clone().step_by(LANES)) {
                // The square below: its rows lie too far apart for the processor to foresee them.
                for column in columns.end..self.stored[0].min(columns.end + LANES) {
                    self.prefetch(column, start * self.kernel().depth());
                }
                let mut square = [_mm512_setzero_si512(); LANES];
                for (row, column) in square.iter_mut().zip(columns.clone()) {
                    *row = self.column(column, start..start + lines.len());
                }
                let turned = transposed(&square);
                for (line, turned) in lines.iter_mut().zip(&turned) {
                    let (halves, _) = line.as_chunks_mut::<LANES>();
                    halves[half % 2] = pulp::cast(*turned);
                }
            }
        }
    }

    /// Has the cache line with an element fetched.
    #[inline]
    fn prefetch(&self, row: usize, column: usize) {
        let at = row * self.stored[1] + column;
        let place: *const i8 = match self.values {
            Values::F32(values) => values[at..].as_ptr().cast(),
            Values::Bf16(values) => values[at..].as_ptr().cast(),
            Values::Int8 { integers, .. } => integers[at..].as_ptr(),
        };
        // SAFETY: every x86-64 processor has the instruction, and it reads nothing that counts.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(place) };
    }

    /// At most [`LANES`] units of a column of a transpose; behind them zeros.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    fn column(&self, column: usize, units: Range<usize>) -> __m512i {
        let width = self.stored[1];
        let mut row = [0; LANES];
        match self.values {
            Values::F32(values) => {
                let values = &values[column * width..][units];
                if let Ok(values) = <&[f32; LANES]>::try_from(values) {
                    return pulp::cast(*values);
                }
                fill(&mut row, values.iter().map(|x| x.to_bits()));
            }
            Values::Int8 {
                integers,
                scales,
                block,
            } => {
                let scales = &scales[column / block * width..][units.clone()];
                fill(&mut row, dense(&integers[column * width..][units], scales));
            }
            Values::Bf16(values) => {
                let values = &values[column * width..][2 * units.start..width.min(2 * units.end)];
                if let Ok(values) = <&[bf16; 2 * LANES]>::try_from(values) {
                    return pulp::cast(*values);
                }
                let (pairs, last) = values.as_chunks::<2>();
                let pairs = pairs.iter().map(|[low, high]| pair(*low, *high));
                let last = last.iter().map(|last| pair(*last, bf16::ZERO));
                fill(&mut row, pairs.chain(last));
            }
        }
        pulp::cast(row)
    }
}

#[inline(always)]
fn fill(units: &mut [Unit], values: impl Iterator<Item = Unit>) {
    units
        .iter_mut()
        .zip(values)
        .for_each(|(unit, value)| *unit = value);
}

#[inline(always)]
fn dense<'a>(integers: &'a [i8], scales: &'a [f32]) -> impl Iterator<Item = Unit> + 'a {
    let both = integers.iter().zip(scales);
    both.map(|(integer, scale)| (f32::from(*integer) * scale).to_bits())
}

#[inline(always)]
fn pair(low: bf16, high: bf16) -> Unit {
    u32::from(low.to_bits()) | u32::from(high.to_bits()) << 16
}
