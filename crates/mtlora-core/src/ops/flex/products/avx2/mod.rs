//! Products with AVX2 and FMA, in 32-bit floats: weights in bfloat16 or of 8-bit integers are widened as they are read.
//!
//! Products of many rows are [`blocked`](super::blocked), those of few are in [`gemv`], and those of small matrices in
//! [`direct`].

pub(in crate::ops::flex) mod direct;
mod gemv;
mod kernel;
mod right;
mod rows;
mod tile;
mod transpose;
mod weights;

use super::blocked;
use super::columns::pack_columns;
use super::packed_panels::FloatProduct;
use super::weights::{AnyWeights, Floats, Stored};
use kernel::{Line, Rows};
use right::Right;
use weights::Lanes;

use crate::ops::flex::instructions::Avx2;

/// `left right + bias`: `[rows, columns]`. `left`: `[rows, inner]`, rounded to bfloat16 where the weights are of it;
/// `bias`: `[columns]`.
///
/// # Panics
/// When the shapes do not fit.
pub(in crate::ops::flex) fn product(
    avx2: Avx2,
    left: &[f32],
    right: Stored<'_>,
    bias: Option<&[f32]>,
) -> Vec<f32> {
    let Stored { sides, turned, .. } = right;
    match right.weights {
        AnyWeights::Floats(weights) => {
            product_with(Right::new(avx2, weights, sides, turned), left, bias)
        }
        AnyWeights::Bf16(weights) => {
            product_with(Right::new(avx2, weights, sides, turned), left, bias)
        }
        AnyWeights::Int8(weights) => {
            product_with(Right::new(avx2, weights, sides, turned), left, bias)
        }
    }
}

fn product_with<W: Lanes>(right: Right<W>, left: &[f32], bias: Option<&[f32]>) -> Vec<f32> {
    let [inner, columns] = right.sides();
    assert!(inner > 0 && left.len().is_multiple_of(inner));
    assert!(bias.is_none_or(|bias| bias.len() == columns));
    let rows = left.len() / inner;
    if rows * columns == 0 {
        Vec::new()
    } else if rows <= gemv::MOST {
        gemv::product(right, left, bias)
    } else {
        blocked::product(left, right, bias)
    }
}

/// `leftᵀ right`: `[rows, columns]`. `left`: `[inner, rows]`, `right`: `[inner, columns]`. No side is 0.
///
/// # Panics
/// When the shapes do not fit.
pub(in crate::ops::flex) fn turned_product(
    avx2: Avx2,
    left: &[f32],
    right: &[f32],
    [rows, columns]: [usize; 2],
) -> Vec<f32> {
    let packed = pack_columns(left, rows, |x| x);
    let right = Right::new(avx2, Floats(right), [left.len() / rows, columns], false);
    blocked::packed_product(packed, rows, right, None)
}

impl FloatProduct for Avx2 {
    type Rows = Rows;
    type Line = Line;
    type Held = ();
    type Right<'a> = Right<Floats<'a>>;

    fn right(self, values: &[f32], stored: [usize; 2], turned: bool) -> Right<Floats<'_>> {
        Right::new(self, Floats(values), stored, turned)
    }
}

#[cfg(test)]
mod tests {
    use super::super::WORTH_THREADS;
    use super::super::testing::{Case, FORMS, check_long_sums};
    use super::kernel::{COLUMNS, LANES, PANELS, ROWS, UNITS};
    use super::*;
    use proptest::prelude::*;

    /// Where the processor has the instructions.
    fn check(case: Case) -> Result<(), TestCaseError> {
        let Some(avx2) = Avx2::detect() else {
            return Ok(());
        };
        case.check(|left, right, bias| product(avx2, left, right, bias))
    }

    proptest! {
        #[test]
        #[cfg_attr(miri, ignore = "it would take hours")]
        fn is_the_sum_of_products(
            rows in 1usize..70, inner in 1usize..70, columns in 1usize..70,
            long: bool, tall: bool, wide: bool, turned: bool, biased: bool,
            form in prop::sample::select(&FORMS[..]), threads in 1usize..4,
        ) {
            // More than one pass, more rows than are packed at once, and more columns than a task has.
            let inner = if long { inner + 2 * UNITS } else { inner };
            let rows = if tall { rows + 8 * ROWS } else { rows };
            let columns = if wide { columns + gemv::WIDTH } else { columns };
            check(Case { rows, inner, columns, form, turned, biased, threads })?;
        }

        #[test]
        #[cfg_attr(miri, ignore = "it would take hours")]
        fn few_rows_are_the_sum_of_products(
            rows in 1usize..=gemv::MOST, inner in 1usize..100, columns in 1usize..100,
            wide: bool, turned: bool, biased: bool,
            form in prop::sample::select(&FORMS[..]), threads in 1usize..4,
        ) {
            let columns = if wide { columns + gemv::WIDTH } else { columns };
            check(Case { rows, inner, columns, form, turned, biased, threads })?;
        }
    }

    /// One more than fills a register, a panel, a pass, or the panels of a task.
    #[test]
    fn edges_of_the_blocks_are_right() -> Result<(), TestCaseError> {
        let many = gemv::MOST + 1;
        let shapes = [
            [1, 1, 1],
            [1, LANES + 1, COLUMNS + 1],
            [many, 1, COLUMNS - 1],
            [many, 3, COLUMNS + 1],
            [1, 2 * UNITS + 1, 1],
            [many, 2, PANELS * COLUMNS + 1],
            [many, 2 * UNITS + 1, COLUMNS + 1],
            [8 * ROWS + 1, 3, COLUMNS + 1],
            [gemv::MOST, 2, gemv::WIDTH + 1],
        ];
        // Miri takes a minute for the first four, and hours for all.
        let count = if cfg!(miri) { 4 } else { shapes.len() };
        for (index, [rows, inner, columns]) in shapes.into_iter().take(count).enumerate() {
            let (biased, threads) = (index % 2 == 0, 1);
            for form in FORMS {
                for turned in [false, true] {
                    check(Case {
                        rows,
                        inner,
                        columns,
                        form,
                        turned,
                        biased,
                        threads,
                    })?;
                }
            }
        }
        Ok(())
    }

    /// Enough work for threads, which share the output.
    #[test]
    fn tasks_write_beside_each_other() -> Result<(), TestCaseError> {
        let [rows, inner, columns] = if cfg!(miri) {
            [gemv::MOST + 1, 2, 3 * COLUMNS + 1]
        } else {
            [20 * ROWS + 1, 2 * LANES + 1, 9 * COLUMNS + 1]
        };
        assert!(rows * inner * columns >= WORTH_THREADS);
        let (biased, threads) = (true, 2);
        for (form, turned) in FORMS.into_iter().zip([false, true, true]) {
            check(Case {
                rows,
                inner,
                columns,
                form,
                turned,
                biased,
                threads,
            })?;
        }
        Ok(())
    }

    #[test]
    #[cfg_attr(miri, ignore = "it would take hours")]
    fn sums_are_close_and_the_same_for_every_number_of_threads() -> Result<(), TestCaseError> {
        let Some(avx2) = Avx2::detect() else {
            return Ok(());
        };
        let rows = [1, gemv::MOST, 9 * ROWS + 1];
        check_long_sums(&rows, 5 * COLUMNS + 3, |left, right, bias| {
            product(avx2, left, right, bias)
        })
    }
}
