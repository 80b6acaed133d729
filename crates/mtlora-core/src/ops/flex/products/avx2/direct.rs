//! Products of matrices that lie in the first caches, as attention makes them: as they lie, but for a transpose on the
//! right.

use std::arch::x86_64::{
    __m256, __m256i, _mm256_broadcast_ss, _mm256_cmpgt_epi32, _mm256_fmadd_ps, _mm256_loadu_ps,
    _mm256_maskload_ps, _mm256_mul_ps, _mm256_set1_epi32, _mm256_set1_ps, _mm256_setr_epi32,
    _mm256_setzero_ps, _mm256_storeu_ps,
};
use std::cell::RefCell;
use std::ops::Range;

use super::super::triangle::Triangle;
use super::super::view::{View, ViewMut};
use super::kernel::{COLUMNS, LANES, Line, ROWS};
use super::transpose::transposed;
use super::weights::floats;
use crate::ops::flex::instructions::Avx2;

thread_local! {
    /// A thread's memory for a turned panel.
    static TURNED: RefCell<Vec<Line>> = const { RefCell::new(Vec::new()) };
}

/// `factor a b` into `out`.
///
/// # Panics
/// When the shapes do not fit.
pub(in crate::ops::flex) fn product(
    _avx2: Avx2,
    mut out: ViewMut<'_>,
    a: View<'_>,
    b: View<'_>,
    factor: f32,
    triangle: Triangle,
) {
    let ([rows, inner], [depth, columns]) = (a.sides(), b.sides());
    assert!(depth == inner && out.sides() == [rows, columns]);
    let mut lines = TURNED.take();
    for first in (0..columns).step_by(COLUMNS) {
        let last = columns.min(first + COLUMNS);
        let right = match b.strides() {
            [stride, 1] => Right {
                first: b.values().as_ptr().wrapping_add(first),
                stride,
            },
            _ => {
                // SAFETY: `_avx2` proves that the processor has the instructions.
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
            let left = Left {
                first: a.values().as_ptr().wrapping_add(top * a.strides()[0]),
                strides: a.strides(),
            };
            let out = out.part(block, first..last.min(needed));
            // SAFETY: `_avx2` proves that the processor has the instructions. `View` says that all elements of the two
            // matrices lie in their slices, and these are elements of them, or of `lines`, which have all of the inner
            // dimension: of the block's rows, and of the panel's columns, of which `out` has no more.
            unsafe { multiply(inner, left, right, out, factor) };
        }
    }
    TURNED.set(lines);
}

/// Some rows of a matrix.
#[derive(Clone, Copy)]
struct Left {
    first: *const f32,
    strides: [usize; 2],
}

/// Some columns of a matrix, whose rows have their elements side by side.
#[derive(Clone, Copy)]
struct Right {
    first: *const f32,
    stride: usize,
}

/// Turns some of the rows, at most [`COLUMNS`]: they become the columns of `lines`.
#[target_feature(enable = "avx2")]
fn lay_out(turned: View<'_>, rows: Range<usize>, lines: &mut Vec<Line>) {
    let [inner, stride] = [turned.sides()[1], turned.strides()[0]];
    if lines.len() < inner {
        lines.resize(inner, [0.0; COLUMNS]);
    }
    for (half, first) in rows.clone().step_by(LANES).enumerate() {
        let rows = first..rows.end.min(first + LANES);
        let starts = (0..inner).step_by(LANES);
        for (start, lines) in starts.zip(lines[..inner].chunks_mut(LANES)) {
            let mut square = [_mm256_setzero_ps(); LANES];
            for (register, row) in square.iter_mut().zip(rows.clone()) {
                let values = &turned.values()[row * stride + start..][..lines.len()];
                *register = floats(values);
            }
            for (line, turned) in lines.iter_mut().zip(&transposed(square)) {
                let (halves, _) = line.as_chunks_mut::<LANES>();
                halves[half] = pulp::cast(*turned);
            }
        }
    }
}

/// Writes a tile: at most [`ROWS`] rows of at most [`COLUMNS`] columns.
///
/// # Safety
/// As [`tile`]'s, with the rows of `out`.
unsafe fn multiply(inner: Range<usize>, left: Left, right: Right, out: ViewMut<'_>, factor: f32) {
    let [rows, columns] = out.sides();
    // SAFETY: as the caller promises.
    unsafe {
        match (rows, columns > LANES) {
            (1, false) => tile::<1, 1>(inner, left, right, out, factor),
            (1, true) => tile::<1, 2>(inner, left, right, out, factor),
            (2, false) => tile::<2, 1>(inner, left, right, out, factor),
            (2, true) => tile::<2, 2>(inner, left, right, out, factor),
            (3, false) => tile::<3, 1>(inner, left, right, out, factor),
            (3, true) => tile::<3, 2>(inner, left, right, out, factor),
            (4, false) => tile::<4, 1>(inner, left, right, out, factor),
            (4, true) => tile::<4, 2>(inner, left, right, out, factor),
            (5, false) => tile::<5, 1>(inner, left, right, out, factor),
            (5, true) => tile::<5, 2>(inner, left, right, out, factor),
            (_, false) => tile::<ROWS, 1>(inner, left, right, out, factor),
            (_, true) => tile::<ROWS, 2>(inner, left, right, out, factor),
        }
    }
}

/// # Safety
/// The processor has the instructions. `left` has the `R` rows of `out`, `right` its columns, and both all of `inner`.
// Loops over indices: closures would not be compiled for AVX2.
#[allow(clippy::needless_range_loop)]
#[target_feature(enable = "avx2,fma")]
unsafe fn tile<const R: usize, const REGISTERS: usize>(
    inner: Range<usize>,
    left: Left,
    right: Right,
    mut out: ViewMut<'_>,
    factor: f32,
) {
    let columns = out.sides()[1];
    // The number of columns in the last register.
    let last = columns - (REGISTERS - 1) * LANES;
    let mask = mask(last);
    let [row_stride, column_stride] = left.strides;
    let mut sums = [[_mm256_setzero_ps(); REGISTERS]; R];
    for at in inner {
        let line = right.first.wrapping_add(at * right.stride);
        let mut lanes = [_mm256_setzero_ps(); REGISTERS];
        for part in 0..REGISTERS {
            let line = line.wrapping_add(part * LANES);
            // SAFETY: what is masked out is not read; the rest are elements of `right`.
            lanes[part] = unsafe {
                if part + 1 < REGISTERS || last == LANES {
                    _mm256_loadu_ps(line)
                } else {
                    _mm256_maskload_ps(line, mask)
                }
            };
        }
        let factors = left.first.wrapping_add(at * column_stride);
        for row in 0..R {
            // SAFETY: it is an element of `left`.
            let factor = _mm256_broadcast_ss(unsafe { &*factors.wrapping_add(row * row_stride) });
            for part in 0..REGISTERS {
                sums[row][part] = _mm256_fmadd_ps(factor, lanes[part], sums[row][part]);
            }
        }
    }
    let factor = _mm256_set1_ps(factor);
    for row in 0..R {
        let line = out.first().wrapping_add(row * out.stride());
        for part in 0..REGISTERS {
            let line = line.wrapping_add(part * LANES);
            let product: __m256 = _mm256_mul_ps(factor, sums[row][part]);
            // SAFETY: these are elements of `out`: all of the register's, or those before its last column.
            unsafe {
                if part + 1 < REGISTERS || last == LANES {
                    _mm256_storeu_ps(line, product);
                } else {
                    let product: [f32; LANES] = pulp::cast(product);
                    line.copy_from_nonoverlapping(product.as_ptr(), last);
                }
            }
        }
    }
}

/// Ones in the first `columns` lanes.
#[inline]
#[target_feature(enable = "avx2")]
fn mask(columns: usize) -> __m256i {
    let lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    _mm256_cmpgt_epi32(_mm256_set1_epi32(columns as i32), lanes)
}

#[cfg(test)]
mod tests {
    use super::super::super::testing::{SmallCase, TRIANGLES};
    use super::*;
    use proptest::prelude::*;

    /// Where the processor has the instructions.
    fn check(case: SmallCase) -> Result<(), TestCaseError> {
        let Some(avx2) = Avx2::detect() else {
            return Ok(());
        };
        case.check(|out, a, b, factor, triangle| product(avx2, out, a, b, factor, triangle))
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
