//! The sizes that all parts agree on, and how units are multiplied.

use crate::ops::flex::instructions::{Avx512, Avx512Bf16};

/// Rows of a tile.
pub(super) const ROWS: usize = 12;
/// Columns of a tile: two registers.
pub(super) const COLUMNS: usize = 32;
/// Units of the inner dimension that are summed in one pass: with fewer, the output would come from memory
/// more often; with more, a task's panels would leave the second cache.
pub(super) const UNITS: usize = 768;
/// The most panels of a task (384 KiB): with a block of rows they stay in the second cache, from which
/// both come fast enough.
pub(super) const PANELS: usize = 4;
/// Floats of a register: a cache line.
pub(super) const LANES: usize = 16;
/// A float's bits, or two bfloat16, the one of the even index in the low half.
pub(super) type Unit = u32;
/// One unit of a block's rows.
pub(super) type Rows = [Unit; ROWS];
/// One unit of a panel's columns.
pub(super) type Line = [Unit; COLUMNS];

/// How units are multiplied.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kernel {
    /// One by one, as 32-bit floats.
    F32(Avx512),
    /// In pairs, as bfloat16.
    Bf16(Avx512Bf16),
}

impl Kernel {
    /// Elements of the inner dimension in a unit.
    pub(super) fn depth(self) -> usize {
        match self {
            Kernel::F32(_) => 1,
            Kernel::Bf16(_) => 2,
        }
    }

    /// Units that are added up one by one, before the sum goes to the output: its error grows with them. With
    /// bfloat16 the rounding of the factors outweighs it.
    pub(super) fn chain(self) -> usize {
        match self {
            Kernel::F32(_) => 384,
            Kernel::Bf16(_) => UNITS,
        }
    }
}
