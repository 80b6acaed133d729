//! 32-bit floats on tiles: each factor is the sum of `P` parts in bfloat16, whose products are summed as
//! [`Tiles::multiply`] says. With three parts, six products give all the digits that a sum of 32-bit floats has.

use std::arch::x86_64::{
    __m512, _MM_HINT_T0, _mm_prefetch, _mm512_setzero_ps, _mm512_setzero_si512,
};
use std::cell::RefCell;
use std::ops::Range;
use std::thread::LocalKey;

use super::super::aligned::Aligned;
use super::super::avx512::transposed;
use super::super::blocked::{self, Begin, Blocks};
use super::super::packed_panels::FloatProduct;
use super::super::padded::padded;
use super::super::view::ViewMut;
use super::parts::{of_neighbours, of_pairs};
use super::rows::{Source, pack};
use super::{Amx, DEPTH, Lines, PAIRS, PANELS, Rows, SIDE, Tiles, UNITS, WIDTH, add};
use crate::ops::MatmulPrecision;

/// How many rows ahead of those that are laid out are prefetched.
const AHEAD: usize = 8;

/// A matrix, `[inner, columns]`.
#[derive(Clone, Copy)]
pub(in super::super) struct Floats<'a, const P: usize> {
    amx: Amx,
    values: &'a [f32],
    /// Rows and columns as they lie.
    stored: [usize; 2],
    /// Whether the matrix is the transpose of what is stored.
    transposed: bool,
}

/// A line that a thread has memory for, from product to product.
pub(in super::super) trait Kept: Copy + Default + 'static {
    fn memory() -> &'static LocalKey<RefCell<Vec<Self>>>;
}

macro_rules! kept {
    ($($parts:literal),*) => {
        $(impl Kept for [Lines; $parts] {
            fn memory() -> &'static LocalKey<RefCell<Vec<Self>>> {
                thread_local! {
                    static LINES: RefCell<Vec<[Lines; $parts]>> = const { RefCell::new(Vec::new()) };
                }
                &LINES
            }
        })*
    };
}

kept!(1, 2, 3);

/// A right matrix, `[inner, columns]`, in as many parts as the chosen precision asks for.
#[derive(Clone, Copy)]
pub(in crate::ops::flex) struct FloatRight<'a>(Floats<'a, 3>);

impl<'a> FloatRight<'a> {
    /// `[inner, columns]`, row after row.
    ///
    /// # Panics
    /// When the number of values is another.
    pub(in crate::ops::flex) fn new(amx: Amx, values: &'a [f32], sides: [usize; 2]) -> Self {
        Self(Floats::new(amx, values, sides))
    }

    /// The transpose.
    pub(in crate::ops::flex) fn t(self) -> Self {
        Self(self.0.t())
    }
}

/// `left right + bias`: `[rows, columns]`. `left`: `[rows, inner]`; `bias`: `[columns]`.
///
/// # Panics
/// When the shapes do not fit.
pub(in crate::ops::flex) fn float_product(
    left: &[f32],
    FloatRight(right): FloatRight<'_>,
    bias: Option<&[f32]>,
) -> Vec<f32> {
    match MatmulPrecision::chosen() {
        MatmulPrecision::Highest => blocked::product(left, right, bias),
        MatmulPrecision::High => blocked::product(left, right.parts::<2>(), bias),
        MatmulPrecision::Medium => blocked::product(left, right.parts::<1>(), bias),
    }
}

/// `leftᵀ right`: `[rows, columns]`. `left`: `[inner, rows]`, `right`: `[inner, columns]`. No side is 0.
///
/// # Panics
/// When the shapes do not fit.
pub(in crate::ops::flex) fn turned_float_product(
    left: &[f32],
    rows: usize,
    FloatRight(right): FloatRight<'_>,
) -> Vec<f32> {
    match MatmulPrecision::chosen() {
        MatmulPrecision::Highest => turned_product(left, rows, right),
        MatmulPrecision::High => turned_product(left, rows, right.parts::<2>()),
        MatmulPrecision::Medium => turned_product(left, rows, right.parts::<1>()),
    }
}

fn turned_product<const P: usize>(left: &[f32], rows: usize, right: Floats<'_, P>) -> Vec<f32>
where
    [Lines; P]: Kept,
{
    let inner = left.len() / rows;
    assert_eq!(left.len(), inner * rows);
    let packed = pack(right.amx, Source::Columns(left, rows), [rows, inner]);
    blocked::packed_product(packed, rows, right, None)
}

impl<'a, const P: usize> Floats<'a, P> {
    /// `[inner, columns]`, row after row.
    ///
    /// # Panics
    /// When the number of values is another.
    fn new(amx: Amx, values: &'a [f32], stored: [usize; 2]) -> Self {
        assert_eq!(values.len(), stored[0] * stored[1]);
        Self {
            amx,
            values,
            stored,
            transposed: false,
        }
    }

    /// The transpose.
    fn t(self) -> Self {
        Self {
            transposed: !self.transposed,
            ..self
        }
    }

    /// The same in another number of parts.
    fn parts<const Q: usize>(self) -> Floats<'a, Q> {
        Floats {
            amx: self.amx,
            values: self.values,
            stored: self.stored,
            transposed: self.transposed,
        }
    }

    /// At most 16 values of a row, and zeros after them. Rows after the last are zeros.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn row(&self, row: usize, columns: Range<usize>) -> __m512 {
        let [rows, width] = self.stored;
        if row >= rows {
            return _mm512_setzero_ps();
        }
        pulp::cast(padded::<_, SIDE>(&self.values[row * width..][columns]))
    }

    /// Of a matrix that lies row after row: two neighbouring rows become pairs.
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    fn lay_out_rows(&self, units: Range<usize>, columns: Range<usize>, lines: &mut [[Lines; P]]) {
        let (count, width) = (units.len(), self.stored[1]);
        for (at, unit) in units.enumerate() {
            for pair in 0..PAIRS {
                let row = unit * DEPTH + 2 * pair;
                for ahead in [AHEAD, AHEAD + 1] {
                    for column in columns.clone().step_by(SIDE) {
                        let place = (row + ahead) * width + column;
                        _mm_prefetch::<_MM_HINT_T0>(
                            self.values.as_ptr().wrapping_add(place).cast(),
                        );
                    }
                }
                for (half, first) in columns.clone().step_by(SIDE).enumerate() {
                    let columns = first..columns.end.min(first + SIDE);
                    let low = self.row(row, columns.clone());
                    let parts = of_pairs::<P>(low, self.row(row + 1, columns));
                    for (lines, part) in lines[half / 2 * count + at].iter_mut().zip(parts) {
                        let (halves, _) = lines.0[pair].as_chunks_mut::<SIDE>();
                        halves[half % 2] = pulp::cast(part);
                    }
                }
            }
        }
    }

    /// Of a transpose: a column's pairs lie one after the other, and squares of them are turned.
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    fn lay_out_columns(
        &self,
        units: Range<usize>,
        columns: Range<usize>,
        lines: &mut [[Lines; P]],
    ) {
        let (count, inner) = (units.len(), self.stored[1]);
        for (half, first) in columns.clone().step_by(SIDE).enumerate() {
            let lines = &mut lines[half / 2 * count..][..count];
            let columns = first..columns.end.min(first + SIDE);
            for (lines, unit) in lines.iter_mut().zip(units.clone()) {
                let place = |at: usize| inner.min(unit * DEPTH + at * SIDE);
                let mut squares = [[_mm512_setzero_si512(); SIDE]; P];
                for (lane, column) in columns.clone().enumerate() {
                    let low = self.row(column, place(0)..place(1));
                    let parts = of_neighbours::<P>(low, self.row(column, place(1)..place(2)));
                    for (square, part) in squares.iter_mut().zip(parts) {
                        square[lane] = part;
                    }
                }
                for (lines, square) in lines.iter_mut().zip(&squares) {
                    for (line, turned) in lines.0.iter_mut().zip(&transposed(square)) {
                        let (halves, _) = line.as_chunks_mut::<SIDE>();
                        halves[half % 2] = pulp::cast(*turned);
                    }
                }
            }
        }
    }
}

/// Products of 32-bit floats in this number of parts.
#[derive(Clone, Copy)]
pub(in super::super) struct InParts<const P: usize>(pub(in super::super) Amx);

impl<const P: usize> FloatProduct for InParts<P>
where
    [Lines; P]: Kept,
{
    type Rows = [Rows; P];
    type Line = [Lines; P];
    type Held = Tiles;
    type Right<'a> = Floats<'a, P>;

    fn right(self, values: &[f32], stored: [usize; 2], turned: bool) -> Floats<'_, P> {
        let right = Floats::new(self.0, values, stored);
        if turned { right.t() } else { right }
    }
}

// SAFETY: `add` writes all rows and columns of the tile.
unsafe impl<const P: usize> Blocks for Floats<'_, P>
where
    [Lines; P]: Kept,
{
    type Rows = [Rows; P];
    type Line = [Lines; P];
    type Held = Tiles;

    const ROWS: usize = WIDTH;
    const COLUMNS: usize = WIDTH;
    const UNITS: usize = UNITS;
    const PANELS: usize = PANELS;

    fn sides(self) -> [usize; 2] {
        let [rows, columns] = self.stored;
        if self.transposed {
            [columns, rows]
        } else {
            [rows, columns]
        }
    }

    fn depth(self) -> usize {
        DEPTH
    }

    fn chain(self) -> usize {
        UNITS
    }

    fn pack(self, left: &[f32]) -> Aligned<[Rows; P]> {
        let inner = self.sides()[0];
        pack(self.amx, Source::Rows(left), [left.len() / inner, inner])
    }

    fn lay_out(self, units: Range<usize>, columns: Range<usize>, lines: &mut [[Lines; P]]) {
        // SAFETY: `self.amx` proves that the processor has the instructions.
        unsafe {
            if self.transposed {
                self.lay_out_columns(units, columns, lines);
            } else {
                self.lay_out_rows(units, columns, lines);
            }
        }
    }

    fn hold(self) -> Tiles {
        Tiles::configure(self.amx)
    }

    unsafe fn add(
        self,
        tiles: &Tiles,
        tile: ViewMut<'_>,
        begin: Begin<'_>,
        rows: &[[Rows; P]],
        lines: &[[Lines; P]],
        next: *const [Rows; P],
    ) {
        // SAFETY: as the caller promises.
        unsafe { add(tiles, tile, begin, rows, lines, next) };
    }

    fn memory() -> &'static LocalKey<RefCell<Vec<[Lines; P]>>> {
        Kept::memory()
    }
}

#[cfg(test)]
#[cfg(all(target_os = "linux", not(miri)))]
mod tests {
    use super::super::super::avx512;
    use super::*;
    use proptest::prelude::*;
    use rand::RngExt;
    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::SeedableRng;

    fn on_threads<T: Send>(threads: usize, compute: impl FnOnce() -> T + Send) -> T {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
        pool.build().unwrap().install(compute)
    }

    /// What the test multiplies: whole numbers, so that sums are exact in any order.
    struct Case {
        sides: [usize; 3],
        /// Whether the right matrix lies as its transpose, or else the left one, or neither.
        turned: [bool; 2],
        biased: bool,
        threads: usize,
    }

    impl Case {
        fn check<const P: usize>(&self) -> Result<(), TestCaseError>
        where
            [Lines; P]: Kept,
        {
            let Some(amx) = Amx::for_tests() else {
                return Ok(());
            };
            let [rows, inner, columns] = self.sides;
            // With two parts, 16 bits.
            let most = if P == 1 { 17 } else { 1999 };
            let whole = |at: usize, step: usize| (at * step % most) as f32 - (most / 2) as f32;
            let small = |at: usize, step: usize| (at * step % 13) as f32 - 6.0;
            let (left, right) = (
                |row, k| whole(row * inner + k, 5),
                |k, column| small(k * columns + column, 7),
            );
            let lying = |[a, b]: [usize; 2],
                         turned: bool,
                         value: &dyn Fn(usize, usize) -> f32|
             -> Vec<f32> {
                if turned {
                    (0..a * b).map(|at| value(at % a, at / a)).collect()
                } else {
                    (0..a * b).map(|at| value(at / b, at % b)).collect()
                }
            };
            let bias: Vec<f32> = (0..columns).map(|at| small(at, 3)).collect();
            let bias = (self.biased && !self.turned[0]).then_some(bias.as_slice());
            let left_values = lying([rows, inner], self.turned[0], &left);
            let right_values = lying([inner, columns], self.turned[1], &right);
            let out = on_threads(self.threads, || {
                let matrix = if self.turned[1] {
                    Floats::<P>::new(amx, &right_values, [columns, inner]).t()
                } else {
                    Floats::<P>::new(amx, &right_values, [inner, columns])
                };
                drop(vec![f32::NAN; rows * columns]);
                if self.turned[0] {
                    turned_product(&left_values, rows, matrix)
                } else {
                    blocked::product(&left_values, matrix, bias)
                }
            });
            prop_assert_eq!(out.len(), rows * columns);
            for (at, found) in out.iter().enumerate() {
                let (row, column) = (at / columns, at % columns);
                let sum: f32 = (0..inner).map(|k| left(row, k) * right(k, column)).sum();
                prop_assert_eq!(*found, sum + bias.map_or(0.0, |bias| bias[column]));
            }
            Ok(())
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn is_the_sum_of_products(
            rows in 1usize..70, inner in 1usize..100, columns in 1usize..70, long: bool, wide: bool,
            turned: [bool; 2], biased: bool, threads in 1usize..4,
        ) {
            // More than one pass, and more columns than a task has.
            let inner = if long { inner + UNITS * DEPTH } else { inner };
            let columns = if wide { columns + PANELS * WIDTH } else { columns };
            let case = Case { sides: [rows, inner, columns], turned, biased, threads };
            case.check::<1>()?;
            case.check::<2>()?;
            case.check::<3>()?;
        }
    }

    /// Root of the mean square, and the largest, of the differences to sums in 64 bits, relative to the root of the mean square
    /// of the sums.
    fn errors(found: &[f32], exact: &[f64]) -> [f64; 2] {
        let size = (exact.iter().map(|x| x * x).sum::<f64>() / exact.len() as f64).sqrt();
        let differences = found
            .iter()
            .zip(exact)
            .map(|(found, exact)| (f64::from(*found) - exact).abs());
        let squares: f64 = differences.clone().map(|x| x * x).sum();
        let root = (squares / exact.len() as f64).sqrt();
        [root, differences.fold(0.0, f64::max)].map(|error| error / size)
    }

    /// With three parts, sums are at least as exact as those of 32-bit floats in AVX-512's registers, on average and in the worst
    /// case, at the widths of RoBERTa-base's maps; for every number of threads they are the same. Fewer parts have the digits that
    /// they say.
    #[test]
    fn three_parts_are_as_exact_as_32_bit_floats() {
        let Some(amx) = Amx::for_tests() else {
            return;
        };
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let (rows, columns) = (2 * WIDTH + 3, 3 * WIDTH + 5);
        for inner in [64, 768, 3072] {
            // A mean that is not 0, and values of different sizes.
            let mut value = || {
                let x = 2.0 * rng.random::<f32>() - 0.9;
                x * x * x
            };
            let left: Vec<f32> = (0..rows * inner).map(|_| value()).collect();
            let right: Vec<f32> = (0..inner * columns).map(|_| value()).collect();
            let exact: Vec<f64> = (0..rows * columns)
                .map(|at| {
                    let (row, column) = (at / columns, at % columns);
                    (0..inner)
                        .map(|k| {
                            f64::from(left[row * inner + k])
                                * f64::from(right[k * columns + column])
                        })
                        .sum()
                })
                .collect();
            let stored = [inner, columns];
            let tiles = Floats::<3>::new(amx, &right, stored);
            let found = [1, 2, 3]
                .map(|threads| on_threads(threads, || blocked::product(&left, tiles, None)));
            assert!(found[0] == found[1] && found[0] == found[2]);
            let avx512 = amx.avx512_bf16().avx512();
            let values = avx512::Values::F32(&right);
            let reference =
                avx512::product(&left, avx512::Right::new(avx512, values, stored), None);
            let (found, reference) = (errors(&found[0], &exact), errors(&reference, &exact));
            println!("{inner}: {found:?} on tiles, {reference:?} in registers");
            assert!(found[0] <= reference[0] && found[1] <= reference[1]);
            let two = blocked::product(&left, Floats::<2>::new(amx, &right, stored), None);
            assert!(errors(&two, &exact)[0] < 2f64.powi(-15));
            let one = blocked::product(&left, Floats::<1>::new(amx, &right, stored), None);
            let error = errors(&one, &exact)[0];
            assert!((2f64.powi(-14)..2f64.powi(-7)).contains(&error), "{error}");
        }
    }
}
