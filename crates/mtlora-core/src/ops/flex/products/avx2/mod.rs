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
use kernel::{Line, Rows};
use right::Right;
pub(in crate::ops::flex) use weights::{Bf16, Floats, Int8, Weights};

use crate::ops::flex::instructions::Avx2;
/// `left W + bias`, or `left Wᵀ + bias` if `turned`: `[rows, columns]`. `left`: `[rows, inner]`, rounded to bfloat16 where
/// the weights are of it; `stored` are the rows and columns of the weights as they lie; `bias`: `[columns]`.
///
/// # Panics
/// When the shapes do not fit.
pub(in crate::ops::flex) fn product(
    avx2: Avx2,
    left: &[f32],
    weights: impl Weights,
    stored: [usize; 2],
    turned: bool,
    bias: Option<&[f32]>,
) -> Vec<f32> {
    let right = Right::new(avx2, weights, stored, turned);
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
    use super::kernel::{COLUMNS, LANES, PANELS, ROWS, UNITS};
    use super::*;
    use burn::tensor::bf16;
    use proptest::prelude::*;
    use rand::RngExt;
    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::SeedableRng;

    /// Small whole numbers: exact in any order, and as bfloat16.
    fn whole(count: usize, step: usize) -> impl Iterator<Item = i8> {
        (0..count).map(move |at| (at * step % 17) as i8 - 8)
    }

    /// How the weights are kept.
    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Form {
        F32,
        Bf16,
        Int8,
    }

    const FORMS: [Form; 3] = [Form::F32, Form::Bf16, Form::Int8];

    /// A product of whole numbers against the sums, where the processor has the instructions.
    fn check(
        [rows, inner, columns]: [usize; 3],
        form: Form,
        turned: bool,
        biased: bool,
        threads: usize,
    ) -> Result<(), TestCaseError> {
        let Some(avx2) = Avx2::detect() else {
            return Ok(());
        };
        let floats = |count, step| -> Vec<f32> { whole(count, step).map(f32::from).collect() };
        let left = floats(rows * inner, 5);
        let bias = floats(columns, 3);
        let bias = biased.then_some(bias.as_slice());
        let stored = if turned {
            [columns, inner]
        } else {
            [inner, columns]
        };
        let block = 3;
        let integers: Vec<i8> = whole(inner * columns, 7).collect();
        let scales: Vec<f32> = (0..stored[0].div_ceil(block) * stored[1])
            .map(|at| 0.5 * (at % 3) as f32)
            .collect();
        let dense: Vec<f32> = integers
            .iter()
            .enumerate()
            .map(|(at, integer)| {
                let (row, column) = (at / stored[1], at % stored[1]);
                let scale = match form {
                    Form::Int8 => scales[row / block * stored[1] + column],
                    Form::F32 | Form::Bf16 => 1.0,
                };
                f32::from(*integer) * scale
            })
            .collect();
        let halves: Vec<bf16> = dense.iter().map(|x| bf16::from_f32(*x)).collect();
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .map_err(|error| TestCaseError::fail(error.to_string()))?;
        // The memory that the output is likely to get.
        drop(vec![f32::NAN; rows * columns]);
        let out = pool.install(|| match form {
            Form::F32 => product(avx2, &left, Floats(&dense), stored, turned, bias),
            Form::Bf16 => product(avx2, &left, Bf16(&halves), stored, turned, bias),
            Form::Int8 => {
                let weights = Int8 {
                    integers: &integers,
                    scales: &scales,
                    block,
                };
                product(avx2, &left, weights, stored, turned, bias)
            }
        });
        prop_assert_eq!(out.len(), rows * columns);
        for (at, found) in out.iter().enumerate() {
            let (row, column) = (at / columns, at % columns);
            let sum: f32 = (0..inner)
                .map(|k| {
                    let right = if turned {
                        column * inner + k
                    } else {
                        k * columns + column
                    };
                    left[row * inner + k] * dense[right]
                })
                .sum();
            prop_assert_eq!(*found, sum + bias.map_or(0.0, |bias| bias[column]));
        }
        Ok(())
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
            check([rows, inner, columns], form, turned, biased, threads)?;
        }

        #[test]
        #[cfg_attr(miri, ignore = "it would take hours")]
        fn few_rows_are_the_sum_of_products(
            rows in 1usize..=gemv::MOST, inner in 1usize..100, columns in 1usize..100,
            wide: bool, turned: bool, biased: bool,
            form in prop::sample::select(&FORMS[..]), threads in 1usize..4,
        ) {
            let columns = if wide { columns + gemv::WIDTH } else { columns };
            check([rows, inner, columns], form, turned, biased, threads)?;
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
        for (index, shape) in shapes.into_iter().take(count).enumerate() {
            for form in FORMS {
                for turned in [false, true] {
                    check(shape, form, turned, index % 2 == 0, 1)?;
                }
            }
        }
        Ok(())
    }

    /// Enough work for threads, which share the output.
    #[test]
    fn tasks_write_beside_each_other() -> Result<(), TestCaseError> {
        let shape = if cfg!(miri) {
            [gemv::MOST + 1, 2, 3 * COLUMNS + 1]
        } else {
            [20 * ROWS + 1, 2 * LANES + 1, 9 * COLUMNS + 1]
        };
        assert!(shape.iter().product::<usize>() >= WORTH_THREADS);
        for (form, turned) in FORMS.into_iter().zip([false, true, true]) {
            check(shape, form, turned, true, 2)?;
        }
        Ok(())
    }

    /// The number of threads changes nothing, with values whose sums depend on their order, and the error of a sum is that
    /// of short chains.
    #[test]
    #[cfg_attr(miri, ignore = "it would take hours")]
    fn sums_are_close_and_the_same_for_every_number_of_threads() {
        const INNER: usize = 768;
        let Some(avx2) = Avx2::detect() else {
            return;
        };
        let columns = 5 * COLUMNS + 3;
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let mut random = |count| -> Vec<f32> {
            (0..count)
                .map(|_| 2.0 * rng.random::<f32>() - 1.0)
                .collect()
        };
        let right = random(INNER * columns);
        for rows in [1, gemv::MOST, 9 * ROWS + 1] {
            let left = random(rows * INNER);
            let outs = [1, 2, 3].map(|threads| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
                let work = || product(avx2, &left, Floats(&right), [INNER, columns], false, None);
                pool.build().unwrap().install(work)
            });
            assert!(outs[0] == outs[1] && outs[0] == outs[2], "{rows} rows");
            let (mut errors, mut squares) = (0.0, 0.0);
            for (at, found) in outs[0].iter().enumerate() {
                let (row, column) = (at / columns, at % columns);
                let exact: f64 = (0..INNER)
                    .map(|k| {
                        let right = right[k * columns + column];
                        f64::from(left[row * INNER + k]) * f64::from(right)
                    })
                    .sum();
                errors += (f64::from(*found) - exact).powi(2);
                squares += exact.powi(2);
            }
            let error = (errors / squares).sqrt();
            assert!(error < 5.2e-7, "{rows} rows: {error}");
        }
    }
}
