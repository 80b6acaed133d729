//! In which precision weights are kept, for the kernels that widen them to 32-bit floats as they are read.

use burn::tensor::bf16;

/// The values of a matrix that lies row after row.
pub(in crate::ops::flex) trait Weights: Copy + Sync {
    /// What is read of a row.
    type Row: Copy;
    /// Whether the factors that they are multiplied with are rounded to bfloat16.
    const ROUNDS: bool;

    /// Whether there are as many values as a matrix with these rows and columns has.
    fn fill(self, sides: [usize; 2]) -> bool;

    /// The row with this index, of `width` values.
    fn row(self, index: usize, width: usize) -> Self::Row;
}

/// 32-bit floats.
#[derive(Clone, Copy)]
pub(in crate::ops::flex) struct Floats<'a>(pub(in crate::ops::flex) &'a [f32]);

impl<'a> Weights for Floats<'a> {
    type Row = &'a [f32];
    const ROUNDS: bool = false;

    fn fill(self, [rows, columns]: [usize; 2]) -> bool {
        self.0.len() == rows * columns
    }

    #[inline(always)]
    fn row(self, index: usize, width: usize) -> &'a [f32] {
        &self.0[index * width..][..width]
    }
}

/// Upper halves of 32-bit floats.
#[derive(Clone, Copy)]
pub(in crate::ops::flex) struct Bf16<'a>(pub(in crate::ops::flex) &'a [bf16]);

impl<'a> Weights for Bf16<'a> {
    type Row = &'a [bf16];
    const ROUNDS: bool = true;

    fn fill(self, [rows, columns]: [usize; 2]) -> bool {
        self.0.len() == rows * columns
    }

    #[inline(always)]
    fn row(self, index: usize, width: usize) -> &'a [bf16] {
        &self.0[index * width..][..width]
    }
}

/// Integers, each of which stands for itself times a scale: that of its column, and of its `block` rows.
#[derive(Clone, Copy)]
pub(in crate::ops::flex) struct Int8<'a> {
    pub(in crate::ops::flex) integers: &'a [i8],
    pub(in crate::ops::flex) scales: &'a [f32],
    pub(in crate::ops::flex) block: usize,
}

/// Some of a row's integers, and the scales of their columns.
pub(super) type IntegerRow<'a> = (&'a [i8], &'a [f32]);

impl<'a> Weights for Int8<'a> {
    type Row = IntegerRow<'a>;
    const ROUNDS: bool = false;

    fn fill(self, [rows, columns]: [usize; 2]) -> bool {
        self.integers.len() == rows * columns
            && self.scales.len() >= rows.div_ceil(self.block) * columns
    }

    #[inline(always)]
    fn row(self, index: usize, width: usize) -> IntegerRow<'a> {
        let integers = &self.integers[index * width..][..width];
        let scales = &self.scales[index / self.block * width..][..width];
        (integers, scales)
    }
}

/// Weights in any of these precisions.
#[derive(Clone, Copy)]
pub(in crate::ops::flex) enum AnyWeights<'a> {
    Floats(Floats<'a>),
    Bf16(Bf16<'a>),
    Int8(Int8<'a>),
}

/// A matrix that a product has on its right, or its transpose.
#[derive(Clone, Copy)]
pub(in crate::ops::flex) struct Stored<'a> {
    /// The values as they lie, row after row.
    pub(in crate::ops::flex) weights: AnyWeights<'a>,
    /// The rows and columns that they lie in.
    pub(in crate::ops::flex) sides: [usize; 2],
    /// Whether the product has the transpose of that.
    pub(in crate::ops::flex) turned: bool,
}
