//! What the products of several instruction sets are tested with.

use burn::tensor::bf16;
use proptest::prelude::*;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use super::triangle::Triangle;
use super::view::{View, ViewMut};
use super::weights::{AnyWeights, Bf16, Floats, Int8, Stored};

/// Small whole numbers: exact in any order, and as bfloat16.
fn whole(count: usize, step: usize) -> impl Iterator<Item = i8> {
    (0..count).map(move |at| (at * step % 17) as i8 - 8)
}

fn pool(threads: usize) -> Result<rayon::ThreadPool, TestCaseError> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
    pool.map_err(|error| TestCaseError::fail(error.to_string()))
}

/// How the weights are kept.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Form {
    F32,
    Bf16,
    Int8,
}

pub(super) const FORMS: [Form; 3] = [Form::F32, Form::Bf16, Form::Int8];

/// A product to test.
#[derive(Clone, Copy, Debug)]
pub(super) struct Case {
    pub(super) rows: usize,
    pub(super) inner: usize,
    pub(super) columns: usize,
    pub(super) form: Form,
    /// Whether the matrix on the right is the transpose of what is stored.
    pub(super) turned: bool,
    pub(super) biased: bool,
    pub(super) threads: usize,
}

impl Case {
    /// A product of whole numbers against the sums.
    pub(super) fn check(
        self,
        product: impl Fn(&[f32], Stored<'_>, Option<&[f32]>) -> Vec<f32> + Sync,
    ) -> Result<(), TestCaseError> {
        let Self {
            rows,
            inner,
            columns,
            form,
            turned,
            ..
        } = self;
        let floats = |count, step| -> Vec<f32> { whole(count, step).map(f32::from).collect() };
        let left = floats(rows * inner, 5);
        let bias = floats(columns, 3);
        let bias = self.biased.then_some(bias.as_slice());
        let sides = if turned {
            [columns, inner]
        } else {
            [inner, columns]
        };
        let block = 3;
        let integers: Vec<i8> = whole(inner * columns, 7).collect();
        let scales: Vec<f32> = (0..sides[0].div_ceil(block) * sides[1])
            .map(|at| 0.5 * (at % 3) as f32)
            .collect();
        let dense: Vec<f32> = integers
            .iter()
            .enumerate()
            .map(|(at, integer)| {
                let (row, column) = (at / sides[1], at % sides[1]);
                let scale = match form {
                    Form::Int8 => scales[row / block * sides[1] + column],
                    Form::F32 | Form::Bf16 => 1.0,
                };
                f32::from(*integer) * scale
            })
            .collect();
        let halves: Vec<bf16> = dense.iter().map(|x| bf16::from_f32(*x)).collect();
        let weights = match form {
            Form::F32 => AnyWeights::Floats(Floats(&dense)),
            Form::Bf16 => AnyWeights::Bf16(Bf16(&halves)),
            Form::Int8 => AnyWeights::Int8(Int8 {
                integers: &integers,
                scales: &scales,
                block,
            }),
        };
        let right = Stored {
            weights,
            sides,
            turned,
        };
        let pool = pool(self.threads)?;
        // The memory that the output is likely to get.
        drop(vec![f32::NAN; rows * columns]);
        let out = pool.install(|| product(&left, right, bias));
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
}

/// The number of threads changes nothing, with values whose sums depend on their order, and the error of a sum is that of short
/// chains.
pub(super) fn check_long_sums(
    all_rows: &[usize],
    columns: usize,
    product: impl Fn(&[f32], Stored<'_>, Option<&[f32]>) -> Vec<f32> + Sync,
) -> Result<(), TestCaseError> {
    const INNER: usize = 768;
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let mut random = |count| -> Vec<f32> {
        (0..count)
            .map(|_| 2.0 * rng.random::<f32>() - 1.0)
            .collect()
    };
    let dense = random(INNER * columns);
    let right = Stored {
        weights: AnyWeights::Floats(Floats(&dense)),
        sides: [INNER, columns],
        turned: false,
    };
    for rows in all_rows {
        let left = random(rows * INNER);
        let with = |threads| -> Result<Vec<f32>, TestCaseError> {
            Ok(pool(threads)?.install(|| product(&left, right, None)))
        };
        let out = with(1)?;
        for threads in [2, 3] {
            prop_assert!(with(threads)? == out, "{} rows, {} threads", rows, threads);
        }
        let (mut errors, mut squares) = (0.0, 0.0);
        for (at, found) in out.iter().enumerate() {
            let (row, column) = (at / columns, at % columns);
            let exact: f64 = (0..INNER)
                .map(|k| {
                    let right = dense[k * columns + column];
                    f64::from(left[row * INNER + k]) * f64::from(right)
                })
                .sum();
            errors += (f64::from(*found) - exact).powi(2);
            squares += exact.powi(2);
        }
        let error = (errors / squares).sqrt();
        prop_assert!(error < 5.2e-7, "{} rows: {}", rows, error);
    }
    Ok(())
}

/// What need not be multiplied, where the diagonal begins at the first column and where it begins later.
pub(super) const TRIANGLES: [Triangle; 7] = [
    Triangle::None,
    Triangle::Product(0),
    Triangle::AboveLeft(0),
    Triangle::BelowLeft(0),
    Triangle::Product(19),
    Triangle::AboveLeft(19),
    Triangle::BelowLeft(19),
];

/// A product of small matrices that lie anywhere.
#[derive(Clone, Copy, Debug)]
pub(super) struct SmallCase {
    pub(super) rows: usize,
    pub(super) inner: usize,
    pub(super) columns: usize,
    /// Values after each row.
    pub(super) extra: usize,
    /// Whether the transpose of the left matrix is stored, and that of the right one.
    pub(super) turn_a: bool,
    pub(super) turn_b: bool,
    pub(super) triangle: Triangle,
}

impl SmallCase {
    /// Half a product of small whole numbers, which are exact in any order and as bfloat16, into the middle of something larger.
    pub(super) fn check(
        self,
        product: impl Fn(ViewMut<'_>, View<'_>, View<'_>, f32, Triangle),
    ) -> Result<(), TestCaseError> {
        let Self {
            rows,
            inner,
            columns,
            extra,
            triangle,
            ..
        } = self;
        let at =
            |row: usize, column: usize, step: usize| ((row * 7 + column * step) % 17) as f32 - 8.0;
        let a = |row: usize, column: usize| match triangle {
            Triangle::AboveLeft(first) if column > row + first => 0.0,
            Triangle::BelowLeft(first) if column + first < row => 0.0,
            _ => at(row, column, 5),
        };
        let b = |row: usize, column: usize| at(row, column, 3);
        let left = self.stored([rows, inner], self.turn_a, &a);
        let right = self.stored([inner, columns], self.turn_b, &b);
        let view = |values, [rows, columns]: [usize; 2], turned: bool| {
            if turned {
                View::new(values, [columns, rows], rows + extra).t()
            } else {
                View::new(values, [rows, columns], columns + extra)
            }
        };
        let left = view(&left, [rows, inner], self.turn_a);
        let right = view(&right, [inner, columns], self.turn_b);
        let mut out = vec![f32::NAN; (rows + 2) * (columns + 2)];
        let mut whole = ViewMut::new(&mut out, [rows + 2, columns + 2]);
        let part = whole.part(1..rows + 1, 1..columns + 1);
        product(part, left, right, 0.5, triangle);
        for (at, found) in out.iter().enumerate() {
            let (row, column) = (at / (columns + 2), at % (columns + 2));
            if row == 0 || column == 0 || row > rows || column > columns {
                prop_assert!(found.is_nan());
                continue;
            }
            let (row, column) = (row - 1, column - 1);
            let sum: f32 = (0..inner).map(|at| a(row, at) * b(at, column)).sum();
            if !matches!(triangle, Triangle::Product(first) if column > row + first) {
                prop_assert_eq!(*found, 0.5 * sum);
            }
        }
        Ok(())
    }

    /// The values of a matrix, or of its transpose if it is `turned`. After each row stand values that must not count.
    fn stored(
        self,
        [rows, columns]: [usize; 2],
        turned: bool,
        at: &dyn Fn(usize, usize) -> f32,
    ) -> Vec<f32> {
        let [high, wide] = if turned {
            [columns, rows]
        } else {
            [rows, columns]
        };
        let mut values = Vec::new();
        for row in 0..high {
            for column in 0..wide {
                values.push(if turned {
                    at(column, row)
                } else {
                    at(row, column)
                });
            }
            values.extend(vec![f32::NAN; self.extra]);
        }
        values
    }
}
