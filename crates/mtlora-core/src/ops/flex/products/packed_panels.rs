//! Products with packed matrices: a task unpacks the part that a panel reads into memory of its own, which stays in the caches,
//! and the kernel for 32-bit floats lays that out. The matrix is never there as a whole.

use std::cell::RefCell;
use std::ops::Range;
use std::thread::LocalKey;

use super::aligned::Aligned;
#[cfg(target_arch = "x86_64")]
use super::amx;
use super::blocked::{self, Begin, Blocks};
use super::packed::unpack;
use super::view::ViewMut;
#[cfg(target_arch = "x86_64")]
use crate::ops::MatmulPrecision;
use crate::ops::flex::instructions;
use crate::packed::{GROUP, PackedView, whole_groups};

thread_local! {
    /// A thread's memory for unpacked values.
    static VALUES: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

/// An instruction set's product of 32-bit floats.
pub(super) trait FloatProduct: Copy + Sync {
    /// One unit of a block's rows.
    type Rows: Copy + Send + Sync;
    /// One unit of a panel's columns.
    type Line: Copy + Default + 'static;
    /// What a thread has to hold.
    type Held;
    /// A right matrix.
    type Right<'a>: Blocks<Rows = Self::Rows, Line = Self::Line, Held = Self::Held>;

    /// The right matrix whose values lie row after row, or the transpose of that if it is `turned`.
    fn right(self, values: &[f32], stored: [usize; 2], turned: bool) -> Self::Right<'_>;
}

/// A packed right matrix, `[inner, columns]`.
#[derive(Clone, Copy)]
pub(super) struct PackedRight<'a, F> {
    kernel: F,
    matrix: PackedView<'a>,
    /// Whether it is the transpose of the packed one.
    turned: bool,
}

/// `left W + bias`, where `W` is the transpose of the packed matrix if it is `turned`: `[rows, columns]`. `left`:
/// `[rows, inner]`; `bias`: `[columns]`. `None` where the processor has no kernel.
pub(in crate::ops::flex) fn product(
    left: &[f32],
    matrix: PackedView<'_>,
    turned: bool,
    bias: Option<&[f32]>,
) -> Option<Vec<f32>> {
    #[cfg(target_arch = "x86_64")]
    {
        let inner = matrix.sides()[usize::from(turned)];
        if let Some(amx) =
            instructions::amx().filter(|_| left.len() / inner >= amx::LEAST_FLOAT_ROWS)
        {
            return Some(match MatmulPrecision::chosen() {
                MatmulPrecision::Highest => {
                    product_with(amx::InParts::<3>(amx), left, matrix, turned, bias)
                }
                MatmulPrecision::High => {
                    product_with(amx::InParts::<2>(amx), left, matrix, turned, bias)
                }
                MatmulPrecision::Medium => {
                    product_with(amx::InParts::<1>(amx), left, matrix, turned, bias)
                }
            });
        }
        if let Some(avx512) = instructions::avx512() {
            return Some(product_with(avx512, left, matrix, turned, bias));
        }
        let avx2 = instructions::avx2()?;
        Some(product_with(avx2, left, matrix, turned, bias))
    }
    #[cfg(target_arch = "aarch64")]
    {
        let neon = instructions::neon()?;
        Some(product_with(neon, left, matrix, turned, bias))
    }
}

fn product_with(
    kernel: impl FloatProduct,
    left: &[f32],
    matrix: PackedView<'_>,
    turned: bool,
    bias: Option<&[f32]>,
) -> Vec<f32> {
    let right = PackedRight {
        kernel,
        matrix,
        turned,
    };
    blocked::product(left, right, bias)
}

/// Calls `then` with some columns of some rows, one row after the other, and with the width of a row and the place of the
/// first column in it.
fn with_values(
    matrix: PackedView<'_>,
    rows: Range<usize>,
    columns: Range<usize>,
    then: impl FnOnce(&[f32], usize, usize),
) {
    let whole = whole_groups(&columns);
    let (width, skipped) = (whole.len(), columns.start - whole.start);
    VALUES.with_borrow_mut(|values| {
        let count = rows.len() * width;
        if values.len() < count {
            values.resize(count, 0.0);
        }
        unpack(matrix, rows, whole, &mut values[..count]);
        then(&values[..count], width, skipped);
    });
}

// SAFETY: `add` is that of the kernel's own matrix.
unsafe impl<F: FloatProduct> Blocks for PackedRight<'_, F> {
    type Rows = F::Rows;
    type Line = F::Line;
    type Held = F::Held;

    const ROWS: usize = <F::Right<'static> as Blocks>::ROWS;
    const COLUMNS: usize = <F::Right<'static> as Blocks>::COLUMNS;
    const UNITS: usize = <F::Right<'static> as Blocks>::UNITS;
    const PANELS: usize = <F::Right<'static> as Blocks>::PANELS;

    fn sides(self) -> [usize; 2] {
        let [rows, columns] = self.matrix.sides();
        if self.turned {
            [columns, rows]
        } else {
            [rows, columns]
        }
    }

    fn depth(self) -> usize {
        self.kernel.right(&[], [0, 0], false).depth()
    }

    fn hold(self) -> F::Held {
        self.kernel.right(&[], [0, 0], false).hold()
    }

    fn chain(self) -> usize {
        self.kernel.right(&[], [0, 0], false).chain()
    }

    fn pack(self, left: &[f32]) -> Aligned<F::Rows> {
        // The inner dimension is all that counts.
        let inner = self.sides()[0];
        self.kernel.right(&[], [inner, 0], false).pack(left)
    }

    /// A panel at a time, so that the unpacked values stay in the second cache.
    fn lay_out(self, units: Range<usize>, columns: Range<usize>, lines: &mut [F::Line]) {
        let (count, depth) = (units.len(), self.depth());
        // A group has whole units, so that a unit begins where its elements do.
        debug_assert!(GROUP.is_multiple_of(depth));
        let summed = units.start * depth..self.sides()[0].min(units.end * depth);
        let panels = columns.clone().step_by(Self::COLUMNS);
        for (first, lines) in panels.zip(lines.chunks_mut(count)) {
            let columns = first..columns.end.min(first + Self::COLUMNS);
            let wide = columns.len();
            let (rows, across) = if self.turned {
                (columns, summed.clone())
            } else {
                (summed.clone(), columns)
            };
            let stored_rows = rows.len();
            with_values(self.matrix, rows, across, |values, width, skipped| {
                let right = self.kernel.right(values, [stored_rows, width], self.turned);
                if self.turned {
                    let first = skipped / depth;
                    right.lay_out(first..first + count, 0..wide, lines);
                } else {
                    right.lay_out(0..count, skipped..skipped + wide, lines);
                }
            });
        }
    }

    unsafe fn add(
        self,
        held: &F::Held,
        tile: ViewMut<'_>,
        begin: Begin<'_>,
        rows: &[F::Rows],
        lines: &[F::Line],
        next: *const F::Rows,
    ) {
        // SAFETY: as the caller promises.
        unsafe {
            self.kernel
                .right(&[], [0, 0], false)
                .add(held, tile, begin, rows, lines, next)
        }
    }

    fn memory() -> &'static LocalKey<RefCell<Vec<F::Line>>> {
        F::Right::memory()
    }
}
