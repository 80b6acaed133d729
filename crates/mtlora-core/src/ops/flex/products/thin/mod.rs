//! Products in which one of the three sizes is an adapter's rank, or as small: onto it, from it, and sums over all tokens.
//!
//! They read or write a matrix of `[tokens, width]` once and compute little for each of its elements. A general product lays
//! such a matrix out again before it multiplies, and its tiles are wider than a rank. These read it where it lies, keep the sums
//! of some rows in registers, and lay out the small matrix alone.
//!
//! The order of each sum follows from the sizes, not from the number of threads.

mod kernels;
mod registers;

use std::borrow::Cow;

use rayon::prelude::*;

use super::WORTH_THREADS;
use super::view::View;
use crate::ops::flex::instructions;
use crate::ops::flex::made;
#[cfg(target_arch = "aarch64")]
use kernels::neon;
use kernels::{RANKS, Sizes};
#[cfg(target_arch = "x86_64")]
use kernels::{avx2, avx512};

/// The largest rank that any of these is used for.
const MAX_RANK: usize = 64;
/// The least width, and the fewest tokens of a sum over them: with less, there is nothing to gain. Products whose rows are
/// tokens are made here for any number of them, so that a row does not depend on how many there are.
const MIN_SIDE: usize = 32;

/// The kernels of an instruction set.
#[derive(Clone, Copy)]
enum Kernels {
    #[cfg(target_arch = "x86_64")]
    Avx512(instructions::Avx512),
    #[cfg(target_arch = "x86_64")]
    Avx2(instructions::Avx2),
    #[cfg(target_arch = "aarch64")]
    Neon(instructions::Neon),
}

impl Kernels {
    /// Those of the chosen path, if it has some.
    fn chosen() -> Option<Self> {
        #[cfg(target_arch = "x86_64")]
        {
            let avx512 = instructions::avx512().map(Kernels::Avx512);
            avx512.or_else(|| instructions::avx2().map(Kernels::Avx2))
        }
        #[cfg(target_arch = "aarch64")]
        instructions::neon().map(Kernels::Neon)
    }

    fn sizes(self) -> Sizes {
        match self {
            #[cfg(target_arch = "x86_64")]
            Kernels::Avx512(_) => avx512::SIZES,
            #[cfg(target_arch = "x86_64")]
            Kernels::Avx2(_) => avx2::SIZES,
            #[cfg(target_arch = "aarch64")]
            Kernels::Neon(_) => neon::SIZES,
        }
    }

    /// See [`kernels::project`].
    fn project(self, out: &mut [f32], x: View<'_>, lines: &[f32], rank: usize) {
        match self {
            #[cfg(target_arch = "x86_64")]
            Kernels::Avx512(proof) => avx512::project(proof, out, x, lines, rank),
            #[cfg(target_arch = "x86_64")]
            Kernels::Avx2(proof) => avx2::project(proof, out, x, lines, rank),
            #[cfg(target_arch = "aarch64")]
            Kernels::Neon(proof) => neon::project(proof, out, x, lines, rank),
        }
    }

    /// See [`kernels::expand`].
    fn expand(self, out: &mut [f32], v: View<'_>, lines: &[f32], width: usize) {
        match self {
            #[cfg(target_arch = "x86_64")]
            Kernels::Avx512(proof) => avx512::expand(proof, out, v, lines, width),
            #[cfg(target_arch = "x86_64")]
            Kernels::Avx2(proof) => avx2::expand(proof, out, v, lines, width),
            #[cfg(target_arch = "aarch64")]
            Kernels::Neon(proof) => neon::expand(proof, out, v, lines, width),
        }
    }

    /// See [`kernels::sum`].
    fn sum(self, out: &mut [f32], wide: View<'_>, lines: &[f32], column: usize) {
        match self {
            #[cfg(target_arch = "x86_64")]
            Kernels::Avx512(proof) => avx512::sum(proof, out, wide, lines, column),
            #[cfg(target_arch = "x86_64")]
            Kernels::Avx2(proof) => avx2::sum(proof, out, wide, lines, column),
            #[cfg(target_arch = "aarch64")]
            Kernels::Neon(proof) => neon::sum(proof, out, wide, lines, column),
        }
    }
}

/// `a b`, if one of its sizes is a rank, the matrices lie as these kernels read them, and the processor has the instructions.
///
/// # Panics
/// When the shapes do not fit.
pub(super) fn product(a: View<'_>, b: View<'_>) -> Option<Vec<f32>> {
    let ([rows, inner], [depth, columns]) = (a.sides(), b.sides());
    assert_eq!(inner, depth, "the inner dimension");
    let kernels = Kernels::chosen()?;
    let is_rank = |side: usize| (1..=kernels.sizes().most).contains(&side);
    let are_wide = |sides: [usize; 2]| sides.iter().all(|side| *side >= MIN_SIDE);
    if is_rank(columns) && inner >= MIN_SIDE && a.strides()[1] == 1 {
        return Some(onto(kernels, a, b));
    }
    if is_rank(columns) && are_wide([rows, inner]) {
        return Some(Sums::of(kernels, a.t(), b).by_column(columns));
    }
    if is_rank(rows) && are_wide([inner, columns]) && b.strides()[1] == 1 {
        return Some(Sums::of(kernels, b, a.t()).by_rank(rows));
    }
    if is_rank(inner) && columns >= MIN_SIDE {
        let panels = Panels::scaled(kernels, b, 1.0);
        let step = rows_of_a_task(inner * columns);
        return Some(made(rows * columns, step * columns, |index, out| {
            panels.add(out, a, index * step);
        }));
    }
    None
}

/// Adds `factor a b` to `out` and returns true, if the inner dimension is a rank and the processor has the instructions.
///
/// # Panics
/// When the shapes do not fit.
pub(super) fn add(out: &mut [f32], a: View<'_>, b: View<'_>, factor: f32) -> bool {
    let ([rows, inner], [depth, columns]) = (a.sides(), b.sides());
    assert!(inner == depth && out.len() == rows * columns, "the shapes");
    let suits =
        |kernels: &Kernels| columns >= MIN_SIDE && (1..=kernels.sizes().most).contains(&inner);
    let Some(kernels) = Kernels::chosen().filter(suits) else {
        return false;
    };
    let panels = Panels::scaled(kernels, b, factor);
    let step = rows_of_a_task(inner * columns);
    out.par_chunks_mut(step * columns)
        .enumerate()
        .for_each(|(index, out)| panels.add(out, a, index * step));
    true
}

/// Rows of a task, if each row takes `products` multiplications.
fn rows_of_a_task(products: usize) -> usize {
    WORTH_THREADS.div_ceil(products).next_multiple_of(24)
}

/// `x m`: `[tokens, width]`, whose rows have their elements side by side, by `[width, rank]`.
fn onto(kernels: Kernels, x: View<'_>, m: View<'_>) -> Vec<f32> {
    let ([tokens, width], rank) = (x.sides(), m.sides()[1]);
    let lines = laid_out(m.t(), RANKS, kernels.sizes().lanes);
    let step = rows_of_a_task(width * rank);
    made(tokens * rank, step * rank, |index, out| {
        let first = index * step;
        let x = x.rows(first..first + out.len() / rank);
        kernels.project(out, x, &lines, rank);
    })
}

/// A matrix in blocks of `height` rows and `width` columns, from left to right and from top to bottom. Beyond the last row and
/// the last column are zeros.
fn laid_out(m: View<'_>, height: usize, width: usize) -> Cow<'_, [f32]> {
    let ([rows, columns], [down, right], values) = (m.sides(), m.strides(), m.values());
    if (rows, columns, [down, right]) == (height, width, [width, 1]) {
        return Cow::Borrowed(&values[..rows * columns]);
    }
    let (high, wide) = (rows.div_ceil(height), columns.div_ceil(width));
    let mut out = vec![0.0; high * wide * height * width];
    for (block, out) in out.chunks_exact_mut(height * width).enumerate() {
        let (top, first) = (block / wide * height, block % wide * width);
        let count = width.min(columns - first);
        for (row, out) in (top..rows).zip(out.chunks_exact_mut(width)) {
            let values = &values[row * down + first * right..];
            for (out, value) in out[..count].iter_mut().zip(values.iter().step_by(right)) {
                *out = *value;
            }
        }
    }
    Cow::Owned(out)
}

/// A matrix `[rank, width]` in panels of columns, of each row after row.
struct Panels {
    kernels: Kernels,
    lines: Vec<f32>,
    width: usize,
}

impl Panels {
    fn scaled(kernels: Kernels, m: View<'_>, factor: f32) -> Self {
        let [rank, width] = m.sides();
        let mut lines = laid_out(m, rank, kernels.sizes().from).into_owned();
        lines.iter_mut().for_each(|value| *value *= factor);
        Self {
            kernels,
            lines,
            width,
        }
    }

    /// Adds the rows of `v`, from `first` on, times this matrix to `out`, which has as many rows as are wanted.
    fn add(&self, out: &mut [f32], v: View<'_>, first: usize) {
        let v = v.rows(first..first + out.len() / self.width);
        self.kernels.expand(out, v, &self.lines, self.width);
    }
}

/// The sums over all tokens of a wide row's elements times those of a thin one: of each panel of columns, and of each rank,
/// those of the panel's columns.
struct Sums {
    values: Vec<f32>,
    width: usize,
    /// Columns of a panel.
    panel: usize,
    /// Ranks, with those that fill the last block.
    ranks: usize,
}

impl Sums {
    /// `wideᵀ thin`: `[tokens, width]`, whose rows have their elements side by side, and `[tokens, rank]`.
    fn of(kernels: Kernels, wide: View<'_>, thin: View<'_>) -> Self {
        let ([tokens, width], rank) = (wide.sides(), thin.sides()[1]);
        let panel = kernels.sizes().sums;
        let lines = laid_out(thin, tokens, RANKS);
        let ranks = rank.next_multiple_of(RANKS);
        let panels = width.div_ceil(panel);
        let threads = match tokens * width * rank {
            ..WORTH_THREADS => 1,
            _ => rayon::current_num_threads(),
        };
        // A task reads as much of each row as it can, and leaves something for the other threads.
        let per_task = panels.div_ceil(threads);
        let size = panel * ranks;
        let values = made(panels * size, per_task * size, |index, out| {
            let first = index * per_task * panel;
            kernels.sum(out, wide, &lines, first);
        });
        Self {
            values,
            width,
            panel,
            ranks,
        }
    }

    /// `[rank, width]`.
    fn by_rank(&self, rank: usize) -> Vec<f32> {
        let mut out = Vec::with_capacity(rank * self.width);
        for j in 0..rank {
            for (at, panel) in self
                .values
                .chunks_exact(self.panel * self.ranks)
                .enumerate()
            {
                let count = self.panel.min(self.width - at * self.panel);
                out.extend_from_slice(&panel[j * self.panel..][..count]);
            }
        }
        out
    }

    /// `[width, rank]`.
    fn by_column(&self, rank: usize) -> Vec<f32> {
        let mut out = Vec::with_capacity(rank * self.width);
        for column in 0..self.width {
            let panel = &self.values[column / self.panel * self.panel * self.ranks..];
            out.extend((0..rank).map(|j| panel[j * self.panel + column % self.panel]));
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A matrix of small whole numbers, whose sums are exact in any order, or its transpose.
    struct Whole {
        values: Vec<f32>,
        sides: [usize; 2],
        stride: usize,
        turned: bool,
    }

    impl Whole {
        fn new(sides: [usize; 2], extra: usize, turned: bool, step: usize) -> Self {
            let stored = if turned { [sides[1], sides[0]] } else { sides };
            let stride = stored[1] + extra;
            let values = (0..stored[0] * stride)
                .map(|at| (at * step % 17) as f32 - 8.0)
                .collect();
            Self {
                values,
                sides,
                stride,
                turned,
            }
        }

        fn view(&self) -> View<'_> {
            let [rows, columns] = self.sides;
            match self.turned {
                true => View::new(&self.values, [columns, rows], self.stride).t(),
                false => View::new(&self.values, self.sides, self.stride),
            }
        }

        fn at(&self, row: usize, column: usize) -> f32 {
            let [down, right] = self.view().strides();
            self.values[row * down + column * right]
        }
    }

    fn sums(a: &Whole, b: &Whole) -> Vec<f32> {
        let ([rows, inner], columns) = (a.sides, b.sides[1]);
        let places = (0..rows).flat_map(|row| (0..columns).map(move |column| (row, column)));
        places
            .map(|(row, column)| (0..inner).map(|k| a.at(row, k) * b.at(k, column)).sum())
            .collect()
    }

    fn all() -> Vec<Kernels> {
        #[cfg(target_arch = "x86_64")]
        {
            let avx2 = instructions::Avx2::detect().map(Kernels::Avx2);
            let avx512 = instructions::Avx512::detect().map(Kernels::Avx512);
            avx2.into_iter().chain(avx512).collect()
        }
        #[cfg(target_arch = "aarch64")]
        instructions::Neon::detect()
            .map(Kernels::Neon)
            .into_iter()
            .collect()
    }

    proptest! {
        #[test]
        fn are_the_sums_of_products(
            tokens in 1usize..140, width in 1usize..140, rank in 1usize..=MAX_RANK,
            extra in 0usize..3, turned: bool,
        ) {
            let x = Whole::new([tokens, width], extra, false, 5);
            let m = Whole::new([width, rank], extra, turned, 7);
            let v = Whole::new([tokens, rank], extra, turned, 11);
            let from = Whole::new([rank, width], extra, turned, 3);
            let x_turned = Whole::new([width, tokens], extra, true, 5);
            for kernels in all() {
                prop_assert_eq!(onto(kernels, x.view(), m.view()), sums(&x, &m));
                let found = Sums::of(kernels, x_turned.view().t(), v.view());
                let by_column = sums(&x_turned, &v);
                prop_assert_eq!(&found.by_column(rank), &by_column);
                let by_rank = found.by_rank(rank);
                for (at, found) in by_rank.iter().enumerate() {
                    prop_assert_eq!(*found, by_column[at % width * rank + at / width]);
                }
                let mut out = vec![3.0; tokens * width];
                Panels::scaled(kernels, from.view(), 0.5).add(&mut out, v.view(), 0);
                let expected = sums(&v, &from).into_iter().map(|sum| 3.0 + 0.5 * sum);
                prop_assert_eq!(out, expected.collect::<Vec<_>>());
            }
        }
    }

    /// The products that an adapted layer makes are made here, in several tasks, and are the sums.
    #[test]
    fn an_adapters_products_are_made_here() {
        let Some(_) = Kernels::chosen() else {
            return;
        };
        let (tokens, width, rank) = (1000, 70, 8);
        assert!(tokens > rows_of_a_task(width * rank));
        let x = Whole::new([tokens, width], 0, false, 5);
        let a = Whole::new([width, rank], 0, true, 7);
        let v = Whole::new([tokens, rank], 0, false, 11);
        let b = Whole::new([rank, width], 0, true, 3);
        assert_eq!(product(x.view(), a.view()), Some(sums(&x, &a)));
        assert_eq!(product(v.view(), b.view()), Some(sums(&v, &b)));
        let turned = |matrix: &Whole| Whole {
            values: matrix.values.clone(),
            sides: [matrix.sides[1], matrix.sides[0]],
            stride: matrix.stride,
            turned: !matrix.turned,
        };
        assert_eq!(
            product(turned(&x).view(), v.view()),
            Some(sums(&turned(&x), &v))
        );
        assert_eq!(
            product(turned(&v).view(), x.view()),
            Some(sums(&turned(&v), &x))
        );
        let mut out = vec![1.0; tokens * width];
        assert!(add(&mut out, v.view(), b.view(), 2.0));
        let expected = sums(&v, &b).into_iter().map(|sum| 1.0 + 2.0 * sum);
        assert_eq!(out, expected.collect::<Vec<_>>());
    }

    /// To the same bits for every number of threads.
    #[test]
    fn threads_do_not_change_the_sums() {
        let (tokens, width, rank) = (1000, 200, 8);
        let fractions = |sides: [usize; 2], turned, step| {
            let mut matrix = Whole::new(sides, 0, turned, step);
            matrix.values.iter_mut().for_each(|value| *value /= 3.0);
            matrix
        };
        let x = fractions([tokens, width], false, 5);
        let a = fractions([width, rank], true, 7);
        let v = fractions([tokens, rank], false, 11);
        let b = fractions([rank, width], true, 3);
        let found = [1, 2, 3].map(|threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
            pool.build().unwrap().install(|| {
                let products = [
                    (x.view(), a.view()),
                    (v.view(), b.view()),
                    (x.view().t(), v.view()),
                ];
                let mut sum = x.values.clone();
                add(&mut sum, v.view(), b.view(), 0.3);
                (products.map(|(one, other)| product(one, other)), sum)
            })
        });
        assert!(found.iter().all(|one| *one == found[0]));
    }

    /// The error of a long sum, of 768 products and of 3,000 tokens: a share of 3.5e-7, which is that of the `gemm` crate's
    /// products of 768.
    #[test]
    fn long_sums_are_close() {
        let random = |count: usize, seed: u64| -> Vec<f32> {
            use rand::RngExt;
            use rand_chacha::rand_core::SeedableRng;
            let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
            (0..count)
                .map(|_| 2.0 * rng.random::<f32>() - 1.0)
                .collect()
        };
        let (tokens, width, rank) = (3000, 768, 8);
        let (x, m, v) = (
            random(tokens * width, 1),
            random(width * rank, 2),
            random(tokens * rank, 3),
        );
        let x = View::new(&x, [tokens, width], width);
        let m = View::new(&m, [width, rank], rank);
        let v = View::new(&v, [tokens, rank], rank);
        for kernels in all() {
            let error = error(&onto(kernels, x, m), x, m);
            assert!(error < 3.5e-7, "{error}");
            let error = self::error(&Sums::of(kernels, x, v).by_column(rank), x.t(), v);
            assert!(error < 3.5e-7, "{error}");
        }
    }

    /// The root mean square of the errors, as a share of that of the sums.
    fn error(found: &[f32], a: View<'_>, b: View<'_>) -> f64 {
        let at = |view: View<'_>, row: usize, column: usize| {
            let [down, right] = view.strides();
            f64::from(view.values()[row * down + column * right])
        };
        let columns = b.sides()[1];
        let (mut errors, mut squares) = (0.0, 0.0);
        for (place, found) in found.iter().enumerate() {
            let exact: f64 = (0..a.sides()[1])
                .map(|k| at(a, place / columns, k) * at(b, k, place % columns))
                .sum();
            errors += (f64::from(*found) - exact).powi(2);
            squares += exact.powi(2);
        }
        (errors / squares).sqrt()
    }
}
