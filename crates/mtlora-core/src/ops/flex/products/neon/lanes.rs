//! How weights are widened to 32-bit floats.

use std::ops::Range;

use burn::tensor::bf16;

use super::super::padded::padded;
use super::super::weights::{Bf16, Floats, Int8, IntegerRow, Weights};
use super::kernel::LANES;
use super::registers::{Register, load, multiply, widened_halves, widened_integers};

/// Weights that these kernels read.
pub(in crate::ops::flex) trait Lanes: Weights {
    /// At most [`LANES`] values of a row, and zeros after them.
    fn lanes(row: Self::Row, columns: Range<usize>) -> Register;
}

impl<'a> Lanes for Floats<'a> {
    #[inline(always)]
    fn lanes(row: &'a [f32], columns: Range<usize>) -> Register {
        load(&padded(&row[columns]))
    }
}

impl<'a> Lanes for Bf16<'a> {
    #[inline(always)]
    fn lanes(row: &'a [bf16], columns: Range<usize>) -> Register {
        let halves: [bf16; LANES] = padded(&row[columns]);
        widened_halves(halves.map(bf16::to_bits))
    }
}

impl<'a> Lanes for Int8<'a> {
    #[inline(always)]
    fn lanes((integers, scales): IntegerRow<'a>, columns: Range<usize>) -> Register {
        let integers: [i8; LANES] = padded(&integers[columns.clone()]);
        multiply(widened_integers(integers), load(&padded(&scales[columns])))
    }
}

/// Rounded to the nearest bfloat16, and in 32-bit floats again.
#[inline(always)]
pub(super) fn rounded(value: f32) -> f32 {
    bf16::from_f32(value).to_f32()
}
