//! Products of matrices that lie in the first caches, as attention makes them: of 32-bit floats as they
//! lie, but for a transpose on the right; with pairs of bfloat16 as [`pairs`] rounds them.

use std::arch::x86_64::{
    _mm512_mask_storeu_ps, _mm512_maskz_loadu_epi32, _mm512_mul_ps, _mm512_set1_ps,
    _mm512_setzero_ps, _mm512_setzero_si512,
};
use std::cell::RefCell;
use std::ops::Range;

use super::super::padded::padded;
use super::super::triangle::Triangle;
use super::super::view::{View, ViewMut};
use super::kernel::{COLUMNS, Kernel, LANES, ROWS, Unit};
use super::pairs;
use super::tile::{masks, multiply_add, multiply_add_pairs};
use super::transpose::transposed;
use crate::ops::flex::instructions::{Avx512, Avx512Bf16};

/// The most pairs that a thread keeps memory for (1 MiB): for those of longer sequences it allocates again.
const KEPT: usize = 1 << 18;

thread_local! {
    /// A thread's memory for factors in pairs.
    static ROUNDED: RefCell<[Vec<Unit>; 2]> = const { RefCell::new([Vec::new(), Vec::new()]) };
    /// The same for a turned panel.
    static TURNED: RefCell<Vec<[[Unit; LANES]; 2]>> = const { RefCell::new(Vec::new()) };
}

/// `factor a b` into `out`.
///
/// # Panics
/// When the shapes do not fit.
pub(in crate::ops::flex) fn product(
    avx512: Avx512,
    out: ViewMut<'_>,
    a: View<'_>,
    b: View<'_>,
    factor: f32,
    triangle: Triangle,
) {
    let inner = a.sides()[1];
    let [a, b] = [a, b].map(|view| view.of::<Unit>(pulp::bytemuck::cast_slice(view.values())));
    units_product(Kernel::F32(avx512), inner, out, a, b, factor, triangle);
}

/// The same of factors that are rounded to bfloat16 first. Sums are of 32-bit floats.
///
/// # Panics
/// As [`product`].
pub(in crate::ops::flex) fn rounded_product(
    avx512: Avx512Bf16,
    out: ViewMut<'_>,
    a: View<'_>,
    b: View<'_>,
    factor: f32,
    triangle: Triangle,
) {
    let inner = a.sides()[1];
    assert_eq!(inner, b.sides()[0]);
    ROUNDED.with_borrow_mut(|[left, right]| {
        let a = pairs::of_rows(avx512, a, left);
        let b = pairs::of_rows(avx512, b.t(), right).t();
        units_product(Kernel::Bf16(avx512), inner, out, a, b, factor, triangle);
        for pairs in [left, right] {
            if pairs.len() > KEPT {
                *pairs = Vec::new();
            }
        }
    });
}

/// The product of units, of which each has as many elements of the inner dimension as the kernel's depth.
fn units_product(
    kernel: Kernel,
    inner: usize,
    mut out: ViewMut<'_>,
    a: View<'_, Unit>,
    b: View<'_, Unit>,
    factor: f32,
    triangle: Triangle,
) {
    let ([rows, units], [depth, columns]) = (a.sides(), b.sides());
    assert!(depth == units && out.sides() == [rows, columns]);
    assert_eq!(units, inner.div_ceil(kernel.depth()));
    let mut lines = TURNED.take();
    for first in (0..columns).step_by(COLUMNS) {
        let last = columns.min(first + COLUMNS);
        let right = match b.strides() {
            [stride, 1] => Right {
                first: b.values().as_ptr().wrapping_add(first),
                stride,
            },
            _ => {
                // SAFETY: `kernel` proves that the processor has the instructions.
                unsafe { lay_out(b.t(), first..last, &mut lines) };
                Right {
                    first: lines.as_ptr().cast(),
                    stride: COLUMNS,
                }
            }
        };
        for top in (0..rows).step_by(ROWS) {
            let block = top..rows.min(top + ROWS);
            let (needed, inner) = triangle.needed(&block, inner, columns);
            if needed <= first {
                continue;
            }
            // Round outward: partially needed units are included.
            let units = inner.start / kernel.depth()..inner.end.div_ceil(kernel.depth());
            let left = Left {
                first: a.values().as_ptr().wrapping_add(top * a.strides()[0]),
                strides: a.strides(),
            };
            let out = out.part(block, first..last.min(needed));
            // SAFETY: `kernel` proves that the processor has the instructions. `View` says that all elements of the two
            // matrices lie in their slices, and these are elements of them, or of `lines`, which have all
            // of the inner dimension: of the block's rows, and of the panel's columns, of which `out` has
            // no more.
            unsafe {
                match kernel {
                    Kernel::F32(_) => multiply_floats(units, left, right, out, factor),
                    Kernel::Bf16(_) => multiply_pairs(units, left, right, out, factor),
                }
            }
        }
    }
    TURNED.set(lines);
}

/// Some rows of a matrix.
#[derive(Clone, Copy)]
struct Left {
    first: *const Unit,
    strides: [usize; 2],
}

/// Some columns of a matrix, whose rows have their elements side by side.
#[derive(Clone, Copy)]
struct Right {
    first: *const Unit,
    stride: usize,
}

/// Turns some of the rows, at most [`COLUMNS`]: they become the columns of `lines`.
#[target_feature(enable = "avx512f,avx512bw")]
fn lay_out(turned: View<'_, Unit>, rows: Range<usize>, lines: &mut Vec<[[Unit; LANES]; 2]>) {
    let [inner, stride] = [turned.sides()[1], turned.strides()[0]];
    if lines.len() < inner {
        lines.resize(inner, [[0; LANES]; 2]);
    }
    for (half, first) in rows.clone().step_by(LANES).enumerate() {
        let rows = first..rows.end.min(first + LANES);
        for (start, lines) in (0..inner)
            .step_by(LANES)
            .zip(lines[..inner].chunks_mut(LANES))
        {
            let mut square = [_mm512_setzero_si512(); LANES];
            for (register, row) in square.iter_mut().zip(rows.clone()) {
                let units = &turned.values()[row * stride + start..][..lines.len()];
                *register = pulp::cast(padded::<_, LANES>(units));
            }
            for (line, turned) in lines.iter_mut().zip(&transposed(&square)) {
                line[half] = pulp::cast(*turned);
            }
        }
    }
}

/// Calls a tile's function with the number of rows and of registers a row as constants.
macro_rules! multiply {
    ($name:ident, $tile:ident) => {
        multiply!($name, $tile, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]);
    };
    ($name:ident, $tile:ident, [$($rows:literal),*]) => {
        /// Writes a tile: at most [`ROWS`] rows of at most [`COLUMNS`] columns.
        ///
        /// # Safety
        /// As the tile's.
        unsafe fn $name(
            units: Range<usize>,
            left: Left,
            right: Right,
            out: ViewMut<'_>,
            factor: f32,
        ) {
            let [rows, columns] = out.sides();
            // SAFETY: as the caller promises.
            unsafe {
                match (rows, columns > LANES) {
                    $(
                        ($rows, false) => $tile::<$rows, 1>(units, left, right, out, factor),
                        ($rows, true) => $tile::<$rows, 2>(units, left, right, out, factor),
                    )*
                    (_, false) => $tile::<ROWS, 1>(units, left, right, out, factor),
                    (_, true) => $tile::<ROWS, 2>(units, left, right, out, factor),
                }
            }
        }
    };
}

multiply!(multiply_floats, float_tile);
multiply!(multiply_pairs, pair_tile);

/// Defines a tile's function, which differs in its instructions only.
macro_rules! tile {
    ($name:ident, $features:literal, $multiply_add:ident) => {
        /// # Safety
        /// The processor has the instructions. `left` has the `R` rows of `out`, `right` its columns,
        /// and both all of `units`.
        // Loops over indices: closures would not be compiled for AVX-512.
        #[allow(clippy::needless_range_loop)]
        #[target_feature(enable = $features)]
        unsafe fn $name<const R: usize, const REGISTERS: usize>(
            units: Range<usize>,
            left: Left,
            right: Right,
            mut out: ViewMut<'_>,
            factor: f32,
        ) {
            let masks = masks(out.sides()[1]);
            let [row_stride, column_stride] = left.strides;
            let mut sums = [[_mm512_setzero_ps(); REGISTERS]; R];
            for at in units {
                let line = right.first.wrapping_add(at * right.stride);
                let mut lanes = [[0; LANES]; REGISTERS];
                for part in 0..REGISTERS {
                    let line = line.wrapping_add(part * LANES).cast();
                    // SAFETY: what is masked out is not read; the rest are units of `right`.
                    let units = unsafe { _mm512_maskz_loadu_epi32(masks[part], line) };
                    lanes[part] = pulp::cast(units);
                }
                let factors = left.first.wrapping_add(at * column_stride);
                for (row, sums) in sums.iter_mut().enumerate() {
                    // SAFETY: it is a unit of `left`.
                    let factor = unsafe { *factors.wrapping_add(row * row_stride) };
                    for part in 0..REGISTERS {
                        sums[part] = $multiply_add(sums[part], factor, lanes[part]);
                    }
                }
            }
            let factor = _mm512_set1_ps(factor);
            for (row, sums) in sums.iter().enumerate() {
                let line = out.first().wrapping_add(row * out.stride());
                for part in 0..REGISTERS {
                    let line = line.wrapping_add(part * LANES);
                    let product = _mm512_mul_ps(factor, sums[part]);
                    // SAFETY: what is masked out is not written; the rest are elements of `out`.
                    unsafe { _mm512_mask_storeu_ps(line, masks[part], product) };
                }
            }
        }
    };
}

tile!(float_tile, "avx512f", multiply_add);
tile!(pair_tile, "avx512f,avx512bf16", multiply_add_pairs);

#[cfg(test)]
mod tests {
    use super::super::super::testing::{SmallCase, TRIANGLES};
    use super::*;
    use proptest::prelude::*;

    /// Where the processor has the instructions.
    fn check(case: SmallCase) -> Result<(), TestCaseError> {
        let Some(avx512) = Avx512::detect() else {
            return Ok(());
        };
        case.check(|out, a, b, factor, triangle| product(avx512, out, a, b, factor, triangle))?;
        let Some(bf16) = Avx512Bf16::detect() else {
            return Ok(());
        };
        case.check(|out, a, b, factor, triangle| rounded_product(bf16, out, a, b, factor, triangle))
    }

    proptest! {
        #[test]
        #[cfg_attr(miri, ignore = "it would take hours")]
        fn is_the_sum_of_products(
            rows in 0usize..40, inner in 0usize..40, columns in 0usize..70, extra in 0usize..5,
            turn_a: bool, turn_b: bool, triangle in prop::sample::select(&TRIANGLES[..]),
        ) {
            check(SmallCase { rows, inner, columns, extra, turn_a, turn_b, triangle })?;
        }
    }

    #[test]
    fn edges_of_the_tiles_are_right() -> Result<(), TestCaseError> {
        let [rows, inner, columns] = [ROWS + 1, LANES + 1, COLUMNS + LANES + 1];
        for turn in [false, true] {
            let case = SmallCase {
                rows,
                inner,
                columns,
                extra: 1,
                turn_a: turn,
                turn_b: turn,
                triangle: Triangle::None,
            };
            check(case)?;
            check(SmallCase {
                extra: 0,
                turn_a: !turn,
                triangle: Triangle::Product(0),
                ..case
            })?;
        }
        Ok(())
    }
}
