//! The right matrix and how it is laid out.

use std::arch::x86_64::{
    __m512, _mm512_cvtepi8_epi32, _mm512_cvtepi32_ps, _mm512_mul_ps, _mm512_setzero_ps,
    _mm512_setzero_si512,
};
use std::ops::Range;

use burn::tensor::bf16;

use super::super::avx512::{self, interleaved, rounded, transposed};
use super::super::padded::padded;
use super::{Amx, Lines, PAIRS, WIDTH};

/// Values of a register.
const LANES: usize = 16;

/// The right matrix: `[inner, columns]`.
#[derive(Clone, Copy)]
pub(in crate::ops::flex) struct Right<'a> {
    amx: Amx,
    values: Stored<'a>,
}

/// In which precision the matrix is kept.
#[derive(Clone, Copy)]
pub(in crate::ops::flex) enum Values<'a> {
    Bf16(&'a [bf16]),
    /// Each integer stands for itself times a scale, rounded to bfloat16: the scale of its column, and of its `block` rows.
    Int8 {
        integers: &'a [i8],
        scales: &'a [f32],
        block: usize,
    },
}

#[derive(Clone, Copy)]
enum Stored<'a> {
    /// As AVX-512 multiplies it, whose pairs lie as tiles have them.
    Bf16(avx512::Right<'a>),
    Int8(Integers<'a>),
}

impl<'a> Right<'a> {
    /// `[inner, columns]`, row after row.
    ///
    /// # Panics
    /// When the number of values is another.
    pub(in crate::ops::flex) fn new(amx: Amx, values: Values<'a>, sides: [usize; 2]) -> Self {
        let values = match values {
            Values::Bf16(values) => {
                let proof = amx.avx512_bf16();
                let values = avx512::Values::Bf16(proof, values);
                Stored::Bf16(avx512::Right::new(proof.avx512(), values, sides))
            }
            Values::Int8 {
                integers,
                scales,
                block,
            } => {
                let [inner, columns] = sides;
                assert_eq!(integers.len(), inner * columns);
                assert!(scales.len() >= inner.div_ceil(block) * columns);
                Stored::Int8(Integers {
                    integers,
                    scales,
                    block,
                    stored: sides,
                    transposed: false,
                })
            }
        };
        Self { amx, values }
    }

    /// The transpose.
    pub(in crate::ops::flex) fn t(self) -> Self {
        let values = match self.values {
            Stored::Bf16(right) => Stored::Bf16(right.t()),
            Stored::Int8(integers) => Stored::Int8(Integers {
                transposed: !integers.transposed,
                ..integers
            }),
        };
        Self { values, ..self }
    }

    /// The numbers of rows and columns.
    pub(super) fn sides(&self) -> [usize; 2] {
        match self.values {
            Stored::Bf16(right) => right.sides(),
            Stored::Int8(integers) => integers.sides(),
        }
    }

    /// The proof that it was made with.
    pub(super) fn amx(&self) -> Amx {
        self.amx
    }

    /// Lays out some columns, the first of which begins a panel: in `lines` panel after panel, of each the `units`, with zeros
    /// after the last row. Lanes after the last column stay as they are, or become zeros.
    pub(super) fn lay_out(&self, units: Range<usize>, columns: Range<usize>, lines: &mut [Lines]) {
        let pairs = units.start * PAIRS..units.end * PAIRS;
        let count = lines.len() * PAIRS;
        // SAFETY: one of `Lines` is 16 arrays of 32, one after the other, and nothing else.
        let lines = unsafe {
            std::slice::from_raw_parts_mut(lines.as_mut_ptr().cast::<[u32; WIDTH]>(), count)
        };
        match self.values {
            Stored::Bf16(right) => right.lay_out(pairs, columns, lines),
            // SAFETY: `self.amx` proves that the processor has the instructions.
            Stored::Int8(integers) => unsafe { integers.lay_out(pairs, columns, lines) },
        }
    }
}

/// A matrix of integers and scales.
#[derive(Clone, Copy)]
struct Integers<'a> {
    integers: &'a [i8],
    scales: &'a [f32],
    block: usize,
    /// Rows and columns as they lie.
    stored: [usize; 2],
    /// Whether the matrix is the transpose of what is stored.
    transposed: bool,
}

impl Integers<'_> {
    fn sides(&self) -> [usize; 2] {
        let [rows, columns] = self.stored;
        if self.transposed {
            [columns, rows]
        } else {
            [rows, columns]
        }
    }

    /// As [`Right::lay_out`], in pairs of rows.
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    fn lay_out(&self, pairs: Range<usize>, columns: Range<usize>, lines: &mut [[u32; WIDTH]]) {
        if self.transposed {
            self.lay_out_columns(pairs, columns, lines);
        } else {
            self.lay_out_rows(pairs, columns, lines);
        }
    }

    /// Of a matrix that lies row after row: two neighbouring rows become pairs.
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    fn lay_out_rows(&self, pairs: Range<usize>, columns: Range<usize>, lines: &mut [[u32; WIDTH]]) {
        let count = pairs.len();
        for (at, pair) in pairs.enumerate() {
            for (half, first) in columns.clone().step_by(LANES).enumerate() {
                let columns = first..columns.end.min(first + LANES);
                let low = self.dense(2 * pair, columns.clone());
                let high = self.dense(2 * pair + 1, columns);
                let (halves, _) = lines[half / 2 * count + at].as_chunks_mut::<LANES>();
                halves[half % 2] = interleaved(low, high);
            }
        }
    }

    /// Of a transpose: a column's pairs lie one after the other, and squares of them are turned.
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    fn lay_out_columns(
        &self,
        pairs: Range<usize>,
        columns: Range<usize>,
        lines: &mut [[u32; WIDTH]],
    ) {
        let (count, inner) = (pairs.len(), self.stored[1]);
        for (half, first) in columns.clone().step_by(LANES).enumerate() {
            let lines = &mut lines[half / 2 * count..][..count];
            let columns = first..columns.end.min(first + LANES);
            for (lines, start) in lines.chunks_mut(LANES).zip(pairs.clone().step_by(LANES)) {
                let place = |at: usize| inner.min(2 * start + at * LANES);
                let mut square = [_mm512_setzero_si512(); LANES];
                for (row, column) in square.iter_mut().zip(columns.clone()) {
                    let low = self.dense(column, place(0)..place(1));
                    let high = self.dense(column, place(1)..place(2));
                    *row = pulp::cast(rounded(&pulp::cast([low, high])));
                }
                for (line, turned) in lines.iter_mut().zip(&transposed(&square)) {
                    let (halves, _) = line.as_chunks_mut::<LANES>();
                    halves[half % 2] = pulp::cast(*turned);
                }
            }
        }
    }

    /// At most 16 values of a row as they lie, and zeros after them. Rows after the last are zeros.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn dense(&self, row: usize, columns: Range<usize>) -> __m512 {
        let [rows, width] = self.stored;
        if row >= rows {
            return _mm512_setzero_ps();
        }
        let integers = padded::<_, LANES>(&self.integers[row * width..][columns.clone()]);
        let scales = &self.scales[row / self.block * width..][columns];
        let integers = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(pulp::cast(integers)));
        _mm512_mul_ps(integers, pulp::cast(padded::<_, LANES>(scales)))
    }
}
