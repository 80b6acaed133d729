//! The right matrix and how it is laid out.

use std::arch::x86_64::{
    __m512i, _MM_HINT_T0, _MM_HINT_T1, _mm_prefetch, _mm512_cvtepi8_epi32, _mm512_cvtepi32_ps,
    _mm512_cvtepu16_epi32, _mm512_mul_ps, _mm512_or_si512, _mm512_setzero_si512, _mm512_slli_epi32,
};
use std::ops::Range;

use burn::tensor::bf16;

use super::super::padded::padded;
use super::kernel::{Kernel, LANES, Line};
use super::transpose::transposed;
use crate::ops::flex::instructions::{Avx512, Avx512Bf16};

/// How many rows ahead of the one that is laid out are prefetched.
const AHEAD: usize = 6;

/// The right matrix: `[inner, columns]`.
#[derive(Clone, Copy)]
pub(in crate::ops::flex) struct Right<'a> {
    avx512: Avx512,
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
    /// Values for a processor that multiplies pairs of them.
    Bf16(Avx512Bf16, &'a [bf16]),
    /// The same values where they are widened and multiplied as 32-bit floats.
    Widened(&'a [bf16]),
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
    /// When the number of values is another.
    pub(in crate::ops::flex) fn new(
        avx512: Avx512,
        values: Values<'a>,
        [inner, columns]: [usize; 2],
    ) -> Self {
        let found = match values {
            Values::F32(values) => values.len(),
            Values::Bf16(_, values) | Values::Widened(values) => values.len(),
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
            avx512,
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

    /// The numbers of rows and columns.
    pub(in super::super) fn sides(&self) -> [usize; 2] {
        let [rows, columns] = self.stored;
        if self.transposed {
            [columns, rows]
        } else {
            [rows, columns]
        }
    }

    /// If it is of 32-bit floats, these, and whether they are those of the transpose.
    pub(super) fn floats(&self) -> Option<(&'a [f32], bool)> {
        match self.values {
            Values::F32(values) => Some((values, self.transposed)),
            Values::Bf16(..) | Values::Widened(_) | Values::Int8 { .. } => None,
        }
    }

    /// The proof that it was made with.
    pub(super) fn avx512(&self) -> Avx512 {
        self.avx512
    }

    /// What its units are multiplied by.
    pub(super) fn kernel(&self) -> Kernel {
        match self.values {
            Values::Bf16(avx512, _) => Kernel::Bf16(avx512),
            Values::F32(_) | Values::Widened(_) | Values::Int8 { .. } => Kernel::F32(self.avx512),
        }
    }

    /// Whether the factors that it is multiplied with are rounded to bfloat16 first.
    pub(super) fn rounds(&self) -> bool {
        matches!(self.values, Values::Bf16(..) | Values::Widened(_))
    }

    /// Lays out some columns, the first of which begins a panel: in `lines` panel after panel, of
    /// each the `units`, and zeros for those after the last. Lanes after the last column stay as they are.
    pub(in super::super) fn lay_out(
        &self,
        units: Range<usize>,
        columns: Range<usize>,
        lines: &mut [Line],
    ) {
        // SAFETY: `self.avx512` proves that the processor has the instructions.
        unsafe {
            if self.transposed {
                self.lay_out_columns(units, columns, lines)
            } else {
                self.lay_out_rows(units, columns, lines)
            }
        }
    }

    /// Of a matrix that lies row after row: a unit's lines are pieces of its rows.
    #[target_feature(enable = "avx512f,avx512bw")]
    fn lay_out_rows(&self, units: Range<usize>, columns: Range<usize>, lines: &mut [Line]) {
        let count = units.len();
        let rows = self.stored[0];
        let depth = self.kernel().depth();
        for (at, unit) in units.enumerate() {
            let ahead = (unit + AHEAD) * depth;
            for row in ahead..rows.min(ahead + depth) {
                for column in columns.clone().step_by(LANES * depth) {
                    self.prefetch::<_MM_HINT_T0>(row, column);
                }
            }
            for (half, first) in columns.clone().step_by(LANES).enumerate() {
                let (halves, _) = lines[half / 2 * count + at].as_chunks_mut::<LANES>();
                let columns = first..columns.end.min(first + LANES);
                halves[half % 2] = pulp::cast(self.row(unit, columns));
            }
        }
    }

    /// At most [`LANES`] columns of a unit, and zeros after them and in units after the last.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    fn row(&self, unit: usize, columns: Range<usize>) -> __m512i {
        let [rows, width] = self.stored;
        if unit * self.kernel().depth() >= rows {
            return _mm512_setzero_si512();
        }
        match self.values {
            Values::F32(values) => floats(&values[unit * width..][columns]),
            Values::Widened(values) => widened(&values[unit * width..][columns]),
            Values::Int8 {
                integers,
                scales,
                block,
            } => {
                let scales = &scales[unit / block * width..][columns.clone()];
                dense(&integers[unit * width..][columns], scales)
            }
            Values::Bf16(_, values) => {
                let low = &values[2 * unit * width..][columns.clone()];
                if 2 * unit + 1 < rows {
                    joined(low, &values[(2 * unit + 1) * width..][columns])
                } else {
                    joined(low, &[])
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
            let columns = first..columns.end.min(first + LANES);
            for (lines, start) in lines.chunks_mut(LANES).zip(units.clone().step_by(LANES)) {
                // The square below: its rows lie too far apart for the processor to foresee them.
                for column in columns.end..self.stored[0].min(columns.end + LANES) {
                    self.prefetch::<_MM_HINT_T1>(column, start * self.kernel().depth());
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
    fn prefetch<const HINT: i32>(&self, row: usize, column: usize) {
        let at = row * self.stored[1] + column;
        let place: *const i8 = match self.values {
            Values::F32(values) => values.as_ptr().wrapping_add(at).cast(),
            Values::Bf16(_, values) | Values::Widened(values) => {
                values.as_ptr().wrapping_add(at).cast()
            }
            Values::Int8 { integers, .. } => integers.as_ptr().wrapping_add(at),
        };
        // SAFETY: every x86-64 processor has the instruction, and it reads nothing that counts.
        unsafe { _mm_prefetch::<HINT>(place) };
    }

    /// At most [`LANES`] units of a column of a transpose, and zeros after them.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    fn column(&self, column: usize, units: Range<usize>) -> __m512i {
        let width = self.stored[1];
        match self.values {
            Values::F32(values) => floats(&values[column * width..][units]),
            Values::Widened(values) => widened(&values[column * width..][units]),
            Values::Int8 {
                integers,
                scales,
                block,
            } => {
                let scales = &scales[column / block * width..][units.clone()];
                dense(&integers[column * width..][units], scales)
            }
            Values::Bf16(_, values) => {
                let [first, last] = [units.start, units.end].map(|unit| width.min(2 * unit));
                let values = &values[column * width..][first..last];
                pulp::cast(padded::<_, { 2 * LANES }>(values))
            }
        }
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn floats(values: &[f32]) -> __m512i {
    pulp::cast(padded::<_, LANES>(values))
}

/// 32-bit floats, of which the values are the upper halves.
#[inline]
#[target_feature(enable = "avx512f")]
fn widened(values: &[bf16]) -> __m512i {
    let halves = _mm512_cvtepu16_epi32(pulp::cast(padded::<_, LANES>(values)));
    _mm512_slli_epi32::<16>(halves)
}

/// Integers times scales.
#[inline]
#[target_feature(enable = "avx512f")]
fn dense(integers: &[i8], scales: &[f32]) -> __m512i {
    let integers = _mm512_cvtepi8_epi32(pulp::cast(padded::<_, LANES>(integers)));
    let scales = pulp::cast(padded::<_, LANES>(scales));
    pulp::cast(_mm512_mul_ps(_mm512_cvtepi32_ps(integers), scales))
}

/// Pairs: `low` in the low halves.
#[inline]
#[target_feature(enable = "avx512f")]
fn joined(low: &[bf16], high: &[bf16]) -> __m512i {
    let low = _mm512_cvtepu16_epi32(pulp::cast(padded::<_, LANES>(low)));
    let high = _mm512_cvtepu16_epi32(pulp::cast(padded::<_, LANES>(high)));
    _mm512_or_si512(low, _mm512_slli_epi32::<16>(high))
}
