//! Products of matrices that lie in the first caches, as attention makes them, of factors that are rounded to bfloat16.

use std::arch::x86_64::{_mm512_loadu_ps, _mm512_mask_storeu_ps, _mm512_mul_ps, _mm512_set1_ps};
use std::cell::RefCell;
use std::mem::MaybeUninit;
use std::ops::Range;

use super::super::triangle::Triangle;
use super::super::view::{View, ViewMut};
use super::gather::Lanes;
use super::{Amx, Block, DEPTH, Lines, PAIRS, Rows, SIDE, Tiles, WIDTH, masks};

/// The most units of a factor that a thread keeps memory for (1 MiB): for those of longer sequences it allocates again.
const KEPT: usize = 512;

thread_local! {
    /// A thread's memory for the factors.
    static FACTORS: RefCell<(Vec<Rows>, Vec<Lines>)> = const { RefCell::new((Vec::new(), Vec::new())) };
}

/// `factor a b` into `out`. Sums are of 32-bit floats.
///
/// # Panics
/// When the shapes do not fit.
pub(in crate::ops::flex) fn rounded_product(
    amx: Amx,
    mut out: ViewMut<'_>,
    a: View<'_>,
    b: View<'_>,
    factor: f32,
    triangle: Triangle,
) {
    let ([rows, inner], [depth, columns]) = (a.sides(), b.sides());
    assert!(depth == inner && out.sides() == [rows, columns]);
    if rows == 0 || columns == 0 {
        return;
    }
    // With nothing to sum, there is still a sum to write: zeros.
    let units = inner.div_ceil(DEPTH).max(1);
    FACTORS.with_borrow_mut(|(left, right)| {
        let (left_count, right_count) = (
            rows.div_ceil(WIDTH) * units,
            columns.div_ceil(WIDTH) * units,
        );
        left.resize(left.len().max(left_count), Rows([[0; PAIRS]; WIDTH]));
        right.resize(right.len().max(right_count), Lines::default());
        // SAFETY: `amx` proves that the processor has the instructions.
        unsafe {
            pack_left(amx, Lanes(a), units, &mut left[..left_count]);
            pack_right(amx, Lanes(b.t()), units, &mut right[..right_count]);
        }
        let tiles = Tiles::configure(amx);
        for (top, left) in (0..rows).step_by(WIDTH).zip(left.chunks_exact(units)) {
            let block = top..rows.min(top + WIDTH);
            let (needed, summed) = triangle.needed(&block, inner, columns);
            let summed = whole_units(summed, units);
            let firsts = (0..needed).step_by(WIDTH);
            for (first, right) in firsts.zip(right.chunks_exact(units)) {
                let columns = first..needed.min(first + WIDTH);
                let mut sums = MaybeUninit::uninit();
                let (left, _) = left[summed.clone()].as_chunks::<1>();
                let (right, _) = right[summed.clone()].as_chunks::<1>();
                if block.len() > SIDE {
                    tiles.product::<true, 1>(&mut sums, left, right, left.as_ptr());
                } else {
                    tiles.product::<false, 1>(&mut sums, left, right, left.as_ptr());
                }
                let out = out.part(block.clone(), columns);
                // SAFETY: `amx` proves that the processor has the instructions, and the sums have been written.
                unsafe { write_scaled(out, &sums, factor) };
            }
        }
        drop(tiles);
        if left.len() > KEPT {
            *left = Vec::new();
        }
        if right.len() > KEPT {
            *right = Vec::new();
        }
    });
}

/// Writes the sums times a factor to a matrix of at most 32 rows and columns, of each at least one.
///
/// # Safety
/// As many rows of the sums as the matrix has have been written. The processor has the instructions.
#[target_feature(enable = "avx512f")]
unsafe fn write_scaled(mut out: ViewMut<'_>, sums: &MaybeUninit<Block>, factor: f32) {
    let ([rows, columns], stride) = (out.sides(), out.stride());
    let factor = _mm512_set1_ps(factor);
    let masks = masks(columns);
    for row in 0..rows {
        let first = out.first().wrapping_add(row * stride);
        let sums = sums.as_ptr().cast::<f32>().wrapping_add(row * WIDTH);
        for (half, mask) in masks.into_iter().enumerate() {
            let at = half * SIDE;
            // SAFETY: these are 16 of the sums.
            let sums = unsafe { _mm512_loadu_ps(sums.wrapping_add(at)) };
            let product = _mm512_mul_ps(factor, sums);
            // SAFETY: what the mask leaves out is not written; the rest are elements of the row, which `out` has alone.
            unsafe { _mm512_mask_storeu_ps(first.wrapping_add(at), mask, product) };
        }
    }
}

/// The units that have the elements, at least one: units that are needed in part are included.
fn whole_units(elements: Range<usize>, units: usize) -> Range<usize> {
    let start = (elements.start / DEPTH).min(units - 1);
    start..elements.end.div_ceil(DEPTH).max(start + 1)
}

/// The rows of a left matrix in blocks of 32, unit after unit, with zeros where it ends.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
fn pack_left(_amx: Amx, matrix: Lanes<'_>, units: usize, packed: &mut [Rows]) {
    for (block, packed) in packed.chunks_exact_mut(units).enumerate() {
        for (unit, rows) in packed.iter_mut().enumerate() {
            for (half, rows) in rows.0.chunks_exact_mut(SIDE).enumerate() {
                let square = matrix.by_lane(block * WIDTH + half * SIDE, unit * DEPTH);
                for (row, lane) in rows.iter_mut().zip(&square) {
                    *row = pulp::cast(*lane);
                }
            }
        }
    }
}

/// The columns of a right matrix, which are the lanes here, in panels of 32, unit after unit, with zeros where it ends.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
fn pack_right(_amx: Amx, matrix: Lanes<'_>, units: usize, packed: &mut [Lines]) {
    for (panel, packed) in packed.chunks_exact_mut(units).enumerate() {
        for (unit, lines) in packed.iter_mut().enumerate() {
            for half in 0..2 {
                let square = matrix.by_pair(panel * WIDTH + half * SIDE, unit * DEPTH);
                for (line, pair) in lines.0.iter_mut().zip(&square) {
                    line[half * SIDE..][..SIDE]
                        .copy_from_slice(&pulp::cast::<_, [u32; SIDE]>(*pair));
                }
            }
        }
    }
}

#[cfg(test)]
#[cfg(all(target_os = "linux", not(miri)))]
mod tests {
    use super::super::super::testing::{SmallCase, TRIANGLES};
    use super::*;
    use proptest::prelude::*;

    /// Where the processor has the instructions.
    fn check(case: SmallCase) -> Result<(), TestCaseError> {
        let Some(amx) = Amx::for_tests() else {
            return Ok(());
        };
        case.check(|out, a, b, factor, triangle| rounded_product(amx, out, a, b, factor, triangle))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(100))]

        #[test]
        fn is_the_sum_of_products(
            rows in 0usize..70, inner in 0usize..70, columns in 0usize..70, extra in 0usize..5,
            turn_a: bool, turn_b: bool, triangle in prop::sample::select(&TRIANGLES[..]),
        ) {
            check(SmallCase { rows, inner, columns, extra, turn_a, turn_b, triangle })?;
        }
    }

    #[test]
    fn edges_of_the_tiles_are_right() -> Result<(), TestCaseError> {
        for [rows, inner, columns] in [
            [WIDTH, DEPTH, WIDTH],
            [WIDTH + 1, DEPTH + 1, WIDTH + SIDE + 1],
            [SIDE, 2 * DEPTH, SIDE],
            [128, 64, 128],
        ] {
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
        }
        Ok(())
    }
}
