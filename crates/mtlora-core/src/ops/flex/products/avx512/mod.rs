//! A linear layer's product on AVX-512, in 32-bit floats or with pairs of bfloat16 (`vdpbf16ps`,
//! which does twice the work of a multiplication of 32-bit floats). Sums are 32-bit floats.
//!
//! Products of many rows are [`blocked`](super::blocked), those of few are in [`gemv`], and those of small matrices in
//! [`direct`].

pub(in crate::ops::flex) mod direct;
mod gemv;
mod kernel;
mod pairs;
mod right;
mod rows;
mod tile;
mod transpose;

use std::cell::RefCell;
use std::ops::Range;
use std::thread::LocalKey;

use super::aligned::Aligned;
use super::blocked::{self, Begin, Blocks};
use super::columns::pack_columns;
use super::packed_panels::FloatProduct;
use super::view::ViewMut;
use crate::ops::flex::instructions::Avx512;
use kernel::{COLUMNS, Line, PANELS, ROWS, Rows, UNITS};
pub(super) use pairs::interleaved;
pub(in crate::ops::flex) use right::{Right, Values};
pub(super) use rows::rounded;
pub(super) use transpose::transposed;

thread_local! {
    /// A thread's memory for panels.
    static LINES: RefCell<Vec<Line>> = const { RefCell::new(Vec::new()) };
}

/// `left right + bias`: `[rows, columns]`. `left`: `[rows, inner]`, rounded to bfloat16 where `right`
/// is of it; `bias`: `[columns]`.
///
/// # Panics
/// When the shapes do not fit.
pub(in crate::ops::flex) fn product(
    left: &[f32],
    right: Right<'_>,
    bias: Option<&[f32]>,
) -> Vec<f32> {
    let [inner, columns] = right.sides();
    assert!(inner > 0 && left.len().is_multiple_of(inner));
    assert!(bias.is_none_or(|bias| bias.len() == columns));
    let rows = left.len() / inner;
    match right.floats() {
        _ if rows * columns == 0 => Vec::new(),
        Some((values, false)) if rows <= gemv::MOST => {
            gemv::product(right.avx512(), left, values, columns, bias)
        }
        Some((values, true)) if rows <= gemv::MOST => {
            gemv::turned_product(right.avx512(), left, values, inner, bias)
        }
        _ => blocked::product(left, right, bias),
    }
}

/// `leftᵀ right`: `[rows, columns]`. `left`: `[inner, rows]`, `right`: `[inner, columns]`. No side is 0.
///
/// # Panics
/// When the shapes do not fit.
pub(in crate::ops::flex) fn turned_product(
    avx512: Avx512,
    left: &[f32],
    right: &[f32],
    [rows, columns]: [usize; 2],
) -> Vec<f32> {
    let packed = pack_columns(left, rows, f32::to_bits);
    let sides = [left.len() / rows, columns];
    let right = Right::new(avx512, Values::F32(right), sides);
    blocked::packed_product(packed, rows, right, None)
}

impl FloatProduct for Avx512 {
    type Rows = Rows;
    type Line = Line;
    type Held = ();
    type Right<'a> = Right<'a>;

    fn right(self, values: &[f32], stored: [usize; 2], turned: bool) -> Right<'_> {
        let right = Right::new(self, Values::F32(values), stored);
        if turned { right.t() } else { right }
    }
}

// SAFETY: `add` writes all rows and columns of the tile.
unsafe impl Blocks for Right<'_> {
    type Rows = Rows;
    type Line = Line;
    type Held = ();

    const ROWS: usize = ROWS;
    const COLUMNS: usize = COLUMNS;
    const UNITS: usize = UNITS;
    const PANELS: usize = PANELS;

    fn sides(self) -> [usize; 2] {
        Right::sides(&self)
    }

    fn depth(self) -> usize {
        self.kernel().depth()
    }

    fn chain(self) -> usize {
        self.kernel().chain()
    }

    fn pack(self, left: &[f32]) -> Aligned<Rows> {
        rows::pack(left, Right::sides(&self)[0], self.kernel(), self.rounds())
    }

    fn lay_out(self, units: Range<usize>, columns: Range<usize>, lines: &mut [Line]) {
        Right::lay_out(&self, units, columns, lines);
    }

    fn hold(self) {}

    unsafe fn add(
        self,
        (): &(),
        tile: ViewMut<'_>,
        begin: Begin<'_>,
        rows: &[Rows],
        lines: &[Line],
        next: *const Rows,
    ) {
        // SAFETY: as the caller promises.
        unsafe { tile::add(self.kernel(), tile, begin, rows, lines, next) }
    }

    fn memory() -> &'static LocalKey<RefCell<Vec<Line>>> {
        &LINES
    }
}

#[cfg(test)]
mod tests {
    use super::super::WORTH_THREADS;
    use super::kernel::LANES;
    use super::*;
    use crate::ops::flex::instructions::Avx512Bf16;
    use burn::tensor::bf16;
    use proptest::prelude::*;
    use rand::RngExt;
    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::SeedableRng;

    /// Small whole numbers: exact in any order, and as bfloat16.
    fn whole(count: usize, step: usize) -> impl Iterator<Item = i8> {
        (0..count).map(move |at| (at * step % 17) as i8 - 8)
    }

    /// How the right matrix is kept.
    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Form {
        F32,
        Bf16,
        Widened,
        Int8,
    }

    const FORMS: [Form; 4] = [Form::F32, Form::Bf16, Form::Widened, Form::Int8];

    /// A product of whole numbers against the sums, where the processor has the instructions.
    fn check(
        [rows, inner, columns]: [usize; 3],
        form: Form,
        turned: bool,
        biased: bool,
        threads: usize,
    ) -> Result<(), TestCaseError> {
        let Some(avx512) = Avx512::detect() else {
            return Ok(());
        };
        let floats = |count, step| -> Vec<f32> { whole(count, step).map(f32::from).collect() };
        let left = floats(rows * inner, 5);
        let bias = floats(columns, 3);
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
                    Form::F32 | Form::Bf16 | Form::Widened => 1.0,
                };
                f32::from(*integer) * scale
            })
            .collect();
        let halves: Vec<bf16> = dense.iter().map(|x| bf16::from_f32(*x)).collect();
        let values = match form {
            Form::F32 => Values::F32(&dense),
            Form::Bf16 => match Avx512Bf16::detect() {
                Some(proof) => Values::Bf16(proof, &halves),
                None => return Ok(()),
            },
            Form::Widened => Values::Widened(&halves),
            Form::Int8 => Values::Int8 {
                integers: &integers,
                scales: &scales,
                block,
            },
        };
        let right = Right::new(avx512, values, stored);
        let right = if turned { right.t() } else { right };
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .map_err(|error| TestCaseError::fail(error.to_string()))?;
        let out = pool.install(|| product(&left, right, biased.then_some(&bias)));
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
            prop_assert_eq!(*found, sum + if biased { bias[column] } else { 0.0 });
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
    }

    /// One more than fills a register, a panel, a pass, or the panels of a task.
    #[test]
    fn edges_of_the_blocks_are_right() -> Result<(), TestCaseError> {
        let shapes = [
            [1, 1, 1],
            [1, LANES + 1, COLUMNS + 1],
            [1, 2 * UNITS + 1, 1],
            [ROWS + 1, 1, COLUMNS - 1],
            [ROWS + 1, 3, COLUMNS + 1],
            [ROWS + 1, 2, PANELS * COLUMNS + 1],
            [ROWS + 1, 2 * UNITS + 1, COLUMNS + 1],
            [8 * ROWS + 1, 3, COLUMNS + 1],
            [gemv::MOST, 2, gemv::WIDTH + 1],
        ];
        // Miri takes a minute for the first five, and hours for all.
        let count = if cfg!(miri) { 5 } else { shapes.len() };
        for (index, shape) in shapes.into_iter().take(count).enumerate() {
            for form in FORMS {
                for turned in [false, true] {
                    check(shape, form, turned, index % 2 == 0, 1)?;
                }
            }
        }
        Ok(())
    }

    /// The error of a sum is as of chains of 384; of one chain of 768 it would be 5.1e-7.
    #[test]
    #[cfg_attr(miri, ignore = "it would take hours")]
    fn long_sums_are_close() {
        const INNER: usize = 768;
        let Some(avx512) = Avx512::detect() else {
            return;
        };
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let mut random = |count| -> Vec<f32> {
            (0..count)
                .map(|_| 2.0 * rng.random::<f32>() - 1.0)
                .collect()
        };
        let (left, right) = (random(4 * ROWS * INNER), random(INNER * 2 * COLUMNS));
        let sides = [INNER, 2 * COLUMNS];
        let out = product(&left, Right::new(avx512, Values::F32(&right), sides), None);
        let (mut errors, mut squares) = (0.0, 0.0);
        for (at, found) in out.iter().enumerate() {
            let (row, column) = (at / (2 * COLUMNS), at % (2 * COLUMNS));
            let exact: f64 = (0..INNER)
                .map(|k| {
                    let right = right[k * 2 * COLUMNS + column];
                    f64::from(left[row * INNER + k]) * f64::from(right)
                })
                .sum();
            errors += (f64::from(*found) - exact).powi(2);
            squares += exact.powi(2);
        }
        let error = (errors / squares).sqrt();
        assert!(error < 4.2e-7, "{error}");
    }

    /// Enough work for threads, which share the output.
    #[test]
    fn tasks_write_beside_each_other() -> Result<(), TestCaseError> {
        let shape = if cfg!(miri) {
            [ROWS + 1, 2, 3 * COLUMNS + 1]
        } else {
            [8 * ROWS + 1, LANES + 1, 5 * COLUMNS + 1]
        };
        assert!(shape.iter().product::<usize>() >= WORTH_THREADS);
        for (form, turned) in FORMS.into_iter().zip([false, true, false, true]) {
            check(shape, form, turned, true, 2)?;
        }
        Ok(())
    }

    /// The last inputs do not fill a unit: what the memory holds after them must not count.
    #[test]
    fn nothing_after_the_last_input_counts() {
        let (Some(avx512), Some(proof)) = (Avx512::detect(), Avx512Bf16::detect()) else {
            return;
        };
        let values = [f32::NAN, 1.0, 2.0, 3.0, f32::NAN].map(bf16::from_f32);
        for turned in [false, true] {
            let right = Right::new(
                avx512,
                Values::Bf16(proof, &values[1..4]),
                if turned { [1, 3] } else { [3, 1] },
            );
            let right = if turned { right.t() } else { right };
            assert_eq!(product(&[1.0, 2.0, 4.0], right, None), [17.0]);
        }
    }
}
