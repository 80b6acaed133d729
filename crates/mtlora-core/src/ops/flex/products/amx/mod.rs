//! Products with AMX: a linear layer's, and attention's whose factors are rounded to bfloat16. Sums are 32-bit floats.
//!
//! A weight in bfloat16 or of 8-bit integers is multiplied with rows that are rounded to bfloat16; of one of 32-bit floats, both factors
//! are split into parts ([`floats`]).
//!
//! The weight keeps the layout that it has in memory, and each task lays out the part that it reads in the second cache, as
//! with the other instruction sets ([`blocked`](super::blocked)). Laying it out once would save little and cost much: the pairs
//! of bfloat16 that an instruction multiplies are neighbours of a column in the forward pass and of a row in the
//! backward pass, so there would have to be two more copies of the base, or one and a slower pass. By count of instructions,
//! a panel takes three cycles for each cache line that is laid out forward (two loads that widen, a shift, a union, a
//! store) and five backward (squares are turned), and its products take two cycles for each line and 32 rows: laying it out
//! takes 2 to 4 % of their time with 2048 rows, and 14 to 23 % with 350. Integers become bfloat16 at the same time, for about
//! eight cycles a line.

pub(in crate::ops::flex) mod direct;
mod floats;
mod gather;
mod parts;
mod right;
mod rows;

use std::arch::x86_64::{
    __mmask16, _mm512_add_ps, _mm512_loadu_ps, _mm512_mask_storeu_ps, _mm512_maskz_loadu_ps,
};
use std::cell::RefCell;
use std::mem::MaybeUninit;
use std::ops::Range;
use std::thread::LocalKey;

use super::aligned::Aligned;
use super::blocked::{self, Begin, Blocks};
use super::view::ViewMut;
use crate::ops::cpu::{Amx, Block, FETCHED, Lines, PAIRS, Rows, SIDE, Start, Tiles, WIDTH};
pub(super) use floats::InParts;
pub(in crate::ops::flex) use floats::{FloatRight, float_product, turned_float_product};
pub(in crate::ops::flex) use right::{Right, Values};
use rows::Source;

/// The fewest rows of a linear layer's product that tiles are used for, of a weight in bfloat16 or of 8-bit integers. With ten rows they
/// are as fast as products of 32-bit floats. With a larger number, weights of 8-bit integers would be rounded in some products and
/// not in others.
pub(in crate::ops::flex) const LEAST_ROWS: usize = 1;
/// The same for a weight of 32-bit floats: with ten rows, splitting the weight takes longer than multiplying it as it is; with 32,
/// tiles are as fast, and with 350 they are 1.5 times as fast.
pub(in crate::ops::flex) const LEAST_FLOAT_ROWS: usize = 32;
/// The fewest rows of attention's products that tiles are used for: with 32, they are as fast as those of 32-bit floats, and with 128
/// two and a half times as fast.
pub(in crate::ops::flex) const LEAST_LENGTH: usize = 32;

/// Elements of the inner dimension that an instruction multiplies.
const DEPTH: usize = 2 * PAIRS;
/// The most of these that are summed in one pass (768 elements), as with AVX-512: with fewer, the output would come from memory
/// more often; with more, a task's panels would leave the second cache.
const UNITS: usize = 24;
/// The most panels of a task (384 KiB of the second cache's 2 MiB): a block of rows is read from there once for each of them.
const PANELS: usize = 8;

/// The fewest panels of a task that have all of the next block fetched, each its share.
const FETCHING: usize = 4;

const _: () = assert!(FETCHED * FETCHING == size_of::<Rows>());

thread_local! {
    /// A thread's memory for panels.
    static LINES: RefCell<Vec<[Lines; 1]>> = const { RefCell::new(Vec::new()) };
}

/// `left right + bias`: `[rows, columns]`. `left`: `[rows, inner]`, rounded to bfloat16; `bias`: `[columns]`.
///
/// # Panics
/// When the shapes do not fit.
pub(in crate::ops::flex) fn product(
    left: &[f32],
    right: Right<'_>,
    bias: Option<&[f32]>,
) -> Vec<f32> {
    blocked::product(left, right, bias)
}

// SAFETY: `add` writes all rows and columns of the tile.
unsafe impl Blocks for Right<'_> {
    type Rows = [Rows; 1];
    type Line = [Lines; 1];
    type Held = Tiles;

    const ROWS: usize = WIDTH;
    const COLUMNS: usize = WIDTH;
    const UNITS: usize = UNITS;
    const PANELS: usize = PANELS;

    fn sides(self) -> [usize; 2] {
        Right::sides(&self)
    }

    fn depth(self) -> usize {
        DEPTH
    }

    fn chain(self) -> usize {
        UNITS
    }

    fn pack(self, left: &[f32]) -> Aligned<[Rows; 1]> {
        let inner = Right::sides(&self)[0];
        rows::pack(self.amx(), Source::Rows(left), [left.len() / inner, inner])
    }

    fn lay_out(self, units: Range<usize>, columns: Range<usize>, lines: &mut [[Lines; 1]]) {
        Right::lay_out(&self, units, columns, lines.as_flattened_mut());
    }

    fn hold(self) -> Tiles {
        Tiles::configure(self.amx())
    }

    unsafe fn add(
        self,
        tiles: &Tiles,
        tile: ViewMut<'_>,
        begin: Begin<'_>,
        rows: &[[Rows; 1]],
        lines: &[[Lines; 1]],
        next: *const [Rows; 1],
    ) {
        // SAFETY: as the caller promises.
        unsafe { add(tiles, tile, begin, rows, lines, next) };
    }

    fn memory() -> &'static LocalKey<RefCell<Vec<[Lines; 1]>>> {
        &LINES
    }
}

/// Writes the start and the products of `rows` with a panel's `lines` to the tile. Meanwhile, the share of a panel of what begins at
/// `next` is fetched.
///
/// Of factors in several parts, the sums begin with zeros, and the start is added to them: an instruction rounds relative to the
/// sum that it adds to, and there are several of them for each product of floats.
///
/// # Safety
/// As [`Blocks::add`]'s.
unsafe fn add<const P: usize>(
    tiles: &Tiles,
    mut tile: ViewMut<'_>,
    begin: Begin<'_>,
    rows: &[[Rows; P]],
    lines: &[[Lines; P]],
    next: *const [Rows; P],
) {
    let sides = tile.sides();
    let is_added = P > 1 && !matches!(begin, Begin::Zero);
    if sides == [WIDTH; 2] && !is_added {
        let (first, stride) = (tile.first(), tile.stride());
        let start = match begin {
            Begin::Zero => Start::zero(),
            Begin::Bias(bias) => Start {
                first: bias[..WIDTH].as_ptr(),
                stride: 0,
            },
            Begin::Sum => Start { first, stride },
        };
        // SAFETY: the tile has 32 rows of 32 floats, which the view has alone, and which have been written where sums begin
        // with them, as the caller promises. The bias is as long as a row.
        unsafe { tiles.multiply::<true, P>(rows, lines, start, first, stride, next) };
        return;
    }
    // The edges of the output pass through memory that is as large as whole tiles are.
    let mut block = MaybeUninit::uninit();
    if sides[0] > SIDE {
        tiles.product::<true, P>(&mut block, rows, lines, next);
    } else {
        tiles.product::<false, P>(&mut block, rows, lines, next);
    }
    // SAFETY: the product has as many rows as the tile, and the tile's elements have been written where sums begin with them, as
    // the caller promises. There are tiles, so the processor has AVX-512.
    unsafe { write(tile, begin, &block) };
}

/// Writes the start and a product to a tile.
///
/// # Safety
/// The product has been written, as many rows of it as the tile has, which has at most 32 rows and columns, and of each at least one.
/// With [`Begin::Sum`], the tile's elements have been written. The processor has the instructions.
#[target_feature(enable = "avx512f")]
unsafe fn write(mut tile: ViewMut<'_>, begin: Begin<'_>, product: &MaybeUninit<Block>) {
    let ([rows, columns], stride) = (tile.sides(), tile.stride());
    let masks = masks(columns);
    for row in 0..rows {
        let first = tile.first().wrapping_add(row * stride);
        let start = match begin {
            Begin::Zero => None,
            Begin::Bias(bias) => Some(bias[..columns].as_ptr()),
            Begin::Sum => Some(first.cast_const()),
        };
        let product = product.as_ptr().cast::<f32>().wrapping_add(row * WIDTH);
        for (half, mask) in masks.into_iter().enumerate() {
            let at = half * SIDE;
            // SAFETY: these are 16 of the product's floats.
            let mut sums = unsafe { _mm512_loadu_ps(product.wrapping_add(at)) };
            if let Some(start) = start {
                // SAFETY: what the mask leaves out is not read; the rest are floats of the bias, or of the tile, which have been
                // written.
                let start = unsafe { _mm512_maskz_loadu_ps(mask, start.wrapping_add(at)) };
                sums = _mm512_add_ps(start, sums);
            }
            // SAFETY: what the mask leaves out is not written; the rest are elements of the tile, which it has alone.
            unsafe { _mm512_mask_storeu_ps(first.wrapping_add(at), mask, sums) };
        }
    }
}

/// The lanes of two registers that some columns are in, at least one and at most 32.
fn masks(columns: usize) -> [__mmask16; 2] {
    let written = u32::MAX >> (WIDTH - columns);
    [written as __mmask16, (written >> SIDE) as __mmask16]
}

#[cfg(test)]
#[cfg(all(target_os = "linux", not(miri)))]
mod tests {
    use super::super::WORTH_THREADS;
    use super::*;
    use burn::tensor::bf16;
    use proptest::prelude::*;
    use rand::RngExt;
    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::SeedableRng;

    /// How the right matrix is kept.
    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Form {
        Bf16,
        Int8,
    }

    const FORMS: [Form; 2] = [Form::Bf16, Form::Int8];
    /// Rows that share a scale.
    const BLOCK: usize = 3;

    /// A right matrix, and what its values stand for, after rounding.
    struct Weight {
        form: Form,
        stored: [usize; 2],
        halves: Vec<bf16>,
        integers: Vec<i8>,
        scales: Vec<f32>,
        dense: Vec<f32>,
    }

    impl Weight {
        fn new(
            form: Form,
            stored: [usize; 2],
            integer: impl FnMut(usize) -> i8,
            scale: impl FnMut(usize) -> f32,
        ) -> Self {
            let [rows, columns] = stored;
            let integers: Vec<i8> = (0..rows * columns).map(integer).collect();
            let scales: Vec<f32> = (0..rows.div_ceil(BLOCK) * columns).map(scale).collect();
            let halves: Vec<bf16> = integers
                .iter()
                .enumerate()
                .map(|(at, integer)| {
                    let scale = scales[at / columns / BLOCK * columns + at % columns];
                    bf16::from_f32(f32::from(*integer) * scale)
                })
                .collect();
            Self {
                form,
                stored,
                dense: halves.iter().map(|x| x.to_f32()).collect(),
                halves,
                integers,
                scales,
            }
        }

        fn right(&self, amx: Amx) -> Right<'_> {
            let values = match self.form {
                Form::Bf16 => Values::Bf16(&self.halves),
                Form::Int8 => Values::Int8 {
                    integers: &self.integers,
                    scales: &self.scales,
                    block: BLOCK,
                },
            };
            Right::new(amx, values, self.stored)
        }
    }

    /// The product, computed by this number of threads into memory that probably holds other values.
    fn product_on(
        threads: usize,
        left: &[f32],
        right: Right<'_>,
        bias: Option<&[f32]>,
    ) -> Vec<f32> {
        let [inner, columns] = right.sides();
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
        pool.build().unwrap().install(|| {
            drop(vec![f32::NAN; left.len() / inner * columns]);
            product(left, right, bias)
        })
    }

    /// A product of whole numbers against the sums: exact in any order, and as bfloat16.
    fn check(
        [rows, inner, columns]: [usize; 3],
        form: Form,
        turned: bool,
        biased: bool,
        threads: usize,
    ) -> Result<(), TestCaseError> {
        let Some(amx) = Amx::for_tests() else {
            return Ok(());
        };
        let whole = |at: usize, step: usize| (at * step % 17) as i8 - 8;
        let left: Vec<f32> = (0..rows * inner)
            .map(|at| f32::from(whole(at, 5)))
            .collect();
        let bias: Vec<f32> = (0..columns).map(|at| f32::from(whole(at, 3))).collect();
        let bias = biased.then_some(bias.as_slice());
        let stored = if turned {
            [columns, inner]
        } else {
            [inner, columns]
        };
        let scale = |at: usize| 0.5 * (at % 3) as f32;
        let weight = Weight::new(form, stored, |at| whole(at, 7), scale);
        let right = weight.right(amx);
        let right = if turned { right.t() } else { right };
        let out = product_on(threads, &left, right, bias);
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
                    left[row * inner + k] * weight.dense[right]
                })
                .sum();
            prop_assert_eq!(*found, sum + bias.map_or(0.0, |bias| bias[column]));
        }
        Ok(())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn is_the_sum_of_products(
            rows in 1usize..70, inner in 1usize..100, columns in 1usize..70,
            long: bool, tall: bool, wide: bool, turned: bool, biased: bool,
            form in prop::sample::select(&FORMS[..]), threads in 1usize..4,
        ) {
            // More than one pass, more rows than are packed at once, and more columns than a task has.
            let inner = if long { inner + UNITS * DEPTH } else { inner };
            let rows = if tall { rows + 2 * WIDTH } else { rows };
            let columns = if wide { columns + PANELS * WIDTH } else { columns };
            check([rows, inner, columns], form, turned, biased, threads)?;
        }
    }

    /// One more, or one less, than fills a tile, a block, an instruction, a pass, or the panels of a task.
    #[test]
    fn edges_of_the_blocks_are_right() -> Result<(), TestCaseError> {
        let shapes = [
            [1, 1, 1],
            [SIDE, DEPTH, WIDTH],
            [SIDE + 1, DEPTH - 1, SIDE + 1],
            [WIDTH, DEPTH + 1, WIDTH],
            [WIDTH - 1, PAIRS + 1, WIDTH + 1],
            [WIDTH + 1, DEPTH, WIDTH - 1],
            [WIDTH + SIDE, 2 * DEPTH, PANELS * WIDTH + 1],
            [WIDTH + 1, UNITS * DEPTH + 1, WIDTH + 1],
            [2 * WIDTH, 2 * UNITS * DEPTH, 2 * WIDTH],
            [SIDE, 768, 768],
        ];
        for (index, shape) in shapes.into_iter().enumerate() {
            for form in FORMS {
                for turned in [false, true] {
                    check(shape, form, turned, index % 2 == 0, 1 + index % 2)?;
                }
            }
        }
        Ok(())
    }

    /// Enough work for threads, which share the output and have tiles of their own.
    #[test]
    fn tasks_write_beside_each_other() -> Result<(), TestCaseError> {
        let shape = [5 * WIDTH + 1, DEPTH + 1, 9 * WIDTH + 1];
        assert!(shape.iter().product::<usize>() >= WORTH_THREADS);
        for (form, turned) in FORMS.into_iter().zip([false, true]) {
            check(shape, form, turned, true, 3)?;
        }
        Ok(())
    }

    /// Values that round: the error of sums in 32-bit floats, as far as factors are what they are rounded to; and the number of
    /// threads changes nothing.
    #[test]
    fn sums_are_close_and_the_same_for_every_number_of_threads() {
        const INNER: usize = 800;
        let Some(amx) = Amx::for_tests() else {
            return;
        };
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let (rows, columns) = (2 * WIDTH + 3, 3 * WIDTH + 5);
        let left: Vec<f32> = (0..rows * INNER)
            .map(|_| 2.0 * rng.random::<f32>() - 1.0)
            .collect();
        let rounded = |x: f32| f64::from(bf16::from_f32(x).to_f32());
        for form in FORMS {
            let integers: Vec<i8> = (0..INNER * columns)
                .map(|_| rng.random_range(-127..=127))
                .collect();
            let scales: Vec<f32> = (0..INNER * columns).map(|_| rng.random()).collect();
            let stored = [INNER, columns];
            let weight = Weight::new(form, stored, |at| integers[at], |at| scales[at]);
            let outs = [1, 2, 3].map(|threads| product_on(threads, &left, weight.right(amx), None));
            assert!(outs[0] == outs[1] && outs[0] == outs[2]);
            let (mut errors, mut squares) = (0.0, 0.0);
            for (at, found) in outs[0].iter().enumerate() {
                let (row, column) = (at / columns, at % columns);
                let exact: f64 = (0..INNER)
                    .map(|k| {
                        let right = f64::from(weight.dense[k * columns + column]);
                        rounded(left[row * INNER + k]) * right
                    })
                    .sum();
                errors += (f64::from(*found) - exact).powi(2);
                squares += exact.powi(2);
            }
            let error = (errors / squares).sqrt();
            assert!(error < 2e-7, "{form:?}: {error}");
        }
    }

    /// The last inputs do not fill a unit: what the memory holds after them must not count.
    #[test]
    fn nothing_after_the_last_input_counts() {
        let Some(amx) = Amx::for_tests() else {
            return;
        };
        let values = [f32::NAN, 1.0, 2.0, 3.0, f32::NAN].map(bf16::from_f32);
        for turned in [false, true] {
            let sides = if turned { [1, 3] } else { [3, 1] };
            let right = Right::new(amx, Values::Bf16(&values[1..4]), sides);
            let right = if turned { right.t() } else { right };
            assert_eq!(product(&[1.0, 2.0, 4.0], right, None), [17.0]);
        }
    }

    /// An infinite weight is multiplied by no zero that fills something up.
    #[test]
    fn an_infinite_weight_is_infinite() {
        let Some(amx) = Amx::for_tests() else {
            return;
        };
        let weight = [1.0, 1.0, f32::INFINITY].map(bf16::from_f32);
        let right = Right::new(amx, Values::Bf16(&weight), [3, 1]);
        assert_eq!(product(&[1.0; 60], right, None), [f32::INFINITY; 20]);
    }
}
