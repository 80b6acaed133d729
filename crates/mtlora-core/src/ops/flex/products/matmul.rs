//! Matrix products on strided views of slices. They are the `gemm` crate's, which burn-flex uses too, except for
//! small ones and an adapter's with AVX2, AVX-512 or NEON.

use gemm::{Parallelism, gemm};

use super::WORTH_THREADS;
#[cfg(target_arch = "aarch64")]
use super::neon;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
use super::thin;
use super::triangle::Triangle;
use super::view::{View, ViewMut};
#[cfg(target_arch = "x86_64")]
use super::{amx, avx2, avx512};
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
use crate::ops::flex::instructions;
use crate::ops::flex::made;

/// Products in one part of what [`in_parts`] makes: enough to hide what a task costs.
const PART: usize = if cfg!(miri) { 1 } else { 1 << 18 };

/// The fewest rows or columns of a part: those of a transpose are read a cache line here and a cache
/// line there.
const NARROWEST: usize = 64;

/// `factor a b` into `out`, which is `[a.rows, b.columns]` and is overwritten, on this thread: fastest for
/// matrices that lie in the first caches.
///
/// # Panics
/// When the shapes do not fit.
pub(in crate::ops::flex) fn small_matmul(
    out: ViewMut<'_>,
    a: View<'_>,
    b: View<'_>,
    factor: f32,
    triangle: Triangle,
) {
    #[cfg(target_arch = "x86_64")]
    if let Some(avx512) = instructions::avx512() {
        return avx512::direct::product(avx512, out, a, b, factor, triangle);
    }
    #[cfg(target_arch = "x86_64")]
    if let Some(avx2) = instructions::avx2() {
        return avx2::direct::product(avx2, out, a, b, factor, triangle);
    }
    #[cfg(target_arch = "aarch64")]
    if let Some(neon) = instructions::neon() {
        return neon::direct::product(neon, out, a, b, factor, triangle);
    }
    // With what need not be multiplied.
    let _ = triangle;
    product(out, a, b, factor, false, Parallelism::None);
}

/// The same with factors that are rounded to bfloat16 first, where the processor multiplies pairs or tiles of them; else
/// with the factors as they are.
///
/// # Panics
/// As [`small_matmul`].
pub(in crate::ops::flex) fn rounded_matmul(
    out: ViewMut<'_>,
    a: View<'_>,
    b: View<'_>,
    factor: f32,
    triangle: Triangle,
) {
    #[cfg(target_arch = "x86_64")]
    if let Some(amx) = instructions::amx().filter(|_| a.sides()[0] >= amx::LEAST_LENGTH) {
        return amx::direct::rounded_product(amx, out, a, b, factor, triangle);
    }
    #[cfg(target_arch = "x86_64")]
    if let Some(avx512) = instructions::avx512_bf16() {
        return avx512::direct::rounded_product(avx512, out, a, b, factor, triangle);
    }
    small_matmul(out, a, b, factor, triangle);
}

/// `factor a b` added to `out`, which is `[a.rows, b.columns]`, on all threads.
///
/// # Panics
/// When the shapes do not fit.
pub(in crate::ops::flex) fn add_matmul(out: &mut [f32], a: View<'_>, b: View<'_>, factor: f32) {
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    if thin::add(out, a, b, factor) {
        return;
    }
    let parallelism = if a.sides()[0] * a.sides()[1] * b.sides()[1] >= WORTH_THREADS {
        Parallelism::Rayon(0)
    } else {
        Parallelism::None
    };
    let out = ViewMut::new(out, [a.sides()[0], b.sides()[1]]);
    product(out, a, b, factor, true, parallelism);
}

/// `a b`, `[a.rows, b.columns]`, whose longer side is made in parts by all threads. Which parts there
/// are follows from the sides alone, and so does the result.
///
/// # Panics
/// When the shapes do not fit.
pub(in crate::ops::flex) fn in_parts(a: View<'_>, b: View<'_>) -> Vec<f32> {
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    if let Some(out) = thin::product(a, b) {
        return out;
    }
    let ([rows, inner], columns) = (a.sides(), b.sides()[1]);
    if rows >= columns {
        let step = step(inner * columns);
        return made(rows * columns, step * columns, |index, out| {
            let first = index * step;
            let part = a.rows(first..first + out.len() / columns);
            matmul(out, part, b);
        });
    }
    // Each part in memory of its own, then side by side.
    let step = step(inner * rows);
    let parts = made(rows * columns, step * rows, |index, out| {
        let first = index * step;
        let part = b.t().rows(first..first + out.len() / rows).t();
        matmul(out, a, part);
    });
    let mut out = Vec::with_capacity(rows * columns);
    for row in 0..rows {
        for part in parts.chunks(step * rows) {
            let width = part.len() / rows;
            out.extend_from_slice(&part[row * width..][..width]);
        }
    }
    out
}

/// The number of rows or columns of a part, if each takes `products` multiplications.
fn step(products: usize) -> usize {
    PART.div_ceil(products.max(1))
        .next_multiple_of(16)
        .max(NARROWEST)
}

/// `a b` into `out`, which is overwritten. Long sums come out closer than in [`small_matmul`], whose sums
/// are one chain each: of 768 uniform products they are off by 3.5e-7 of their size, these by 5.0e-7.
fn matmul(out: &mut [f32], a: View<'_>, b: View<'_>) {
    let out = ViewMut::new(out, [a.sides()[0], b.sides()[1]]);
    product(out, a, b, 1.0, false, Parallelism::None);
}

fn product(
    mut out: ViewMut<'_>,
    a: View<'_>,
    b: View<'_>,
    factor: f32,
    adds: bool,
    parallelism: Parallelism,
) {
    let ([rows, inner], [depth, columns]) = (a.sides(), b.sides());
    assert!(depth == inner && out.sides() == [rows, columns]);
    let strides = |view: View<'_>| view.strides().map(|stride| stride as isize);
    let ([a_row, a_column], [b_row, b_column]) = (strides(a), strides(b));
    // SAFETY: all elements of the three matrices lie in memory that their views have; `out` has its
    // elements alone and so overlaps neither of the others. Where `adds` is false it is written without
    // being read.
    unsafe {
        gemm(
            rows,
            columns,
            inner,
            out.first(),
            1,
            out.stride() as isize,
            adds,
            a.values().as_ptr(),
            a_column,
            a_row,
            b.values().as_ptr(),
            b_column,
            b_row,
            if adds { 1.0 } else { 0.0 },
            factor,
            false,
            false,
            false,
            parallelism,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Both products of small whole numbers against the sums.
    fn check(
        [m, n, k]: [usize; 3],
        extra: usize,
        turn_a: bool,
        turn_b: bool,
    ) -> Result<(), TestCaseError> {
        let fill = |count: usize, step: usize| -> Vec<f32> {
            (0..count).map(|at| (at * step % 17) as f32 - 8.0).collect()
        };
        let [a_rows, a_columns] = if turn_a { [k, m] } else { [m, k] };
        let [b_rows, b_columns] = if turn_b { [n, k] } else { [k, n] };
        let (a_stride, b_stride) = (a_columns + extra, b_columns + extra);
        let (a, b) = (fill(a_rows * a_stride, 5), fill(b_rows * b_stride, 7));
        let a_view = View::new(&a, [a_rows, a_columns], a_stride);
        let b_view = View::new(&b, [b_rows, b_columns], b_stride);
        let a_view = if turn_a { a_view.t() } else { a_view };
        let b_view = if turn_b { b_view.t() } else { b_view };
        let (mut out, mut added) = (vec![f32::NAN; m * n], vec![3.0; m * n]);
        let view = ViewMut::new(&mut out, [m, n]);
        small_matmul(view, a_view, b_view, 0.5, Triangle::None);
        add_matmul(&mut added, a_view, b_view, 0.5);
        let parts = in_parts(a_view, b_view);
        for row in 0..m {
            for column in 0..n {
                let product = |at: usize| {
                    let a = if turn_a {
                        a[at * a_stride + row]
                    } else {
                        a[row * a_stride + at]
                    };
                    let b = if turn_b {
                        b[column * b_stride + at]
                    } else {
                        b[at * b_stride + column]
                    };
                    a * b
                };
                let sum: f32 = (0..k).map(product).sum();
                // Small whole numbers: exact in any order.
                prop_assert_eq!(out[row * n + column], 0.5 * sum);
                prop_assert_eq!(added[row * n + column], 3.0 + 0.5 * sum);
                prop_assert_eq!(parts[row * n + column], sum);
            }
        }
        Ok(())
    }

    proptest! {
        #[test]
        fn is_the_sum_of_products(
            m in 1usize..20, n in 1usize..20, k in 1usize..20, extra in 0usize..5,
            turn_a: bool, turn_b: bool,
        ) {
            check([m, n, k], extra, turn_a, turn_b)?;
        }
    }

    /// What threads share is right, too; and a long side of either kind, of more than one part.
    #[test]
    fn is_the_sum_of_products_on_threads() -> Result<(), TestCaseError> {
        let sides = if cfg!(miri) { [9, 7, 5] } else { [70, 67, 65] };
        assert!(sides.iter().product::<usize>() >= WORTH_THREADS);
        check(sides, 1, false, true)?;
        let long = if cfg!(miri) {
            2 * NARROWEST + 1
        } else {
            2 * step(8 * 70) + 1
        };
        check([long, 8, 70], 1, false, true)?;
        check([8, long, 70], 0, true, false)
    }

    #[test]
    fn no_rows_are_no_product() {
        let none = View::new(&[], [0, 3], 3);
        let some = View::new(&[1.0; 6], [3, 2], 2);
        assert_eq!(in_parts(none, some), [0.0; 0]);
        assert_eq!(in_parts(some.t(), none.t()), [0.0; 0]);
        // Nothing to sum, in more than one part.
        assert_eq!(in_parts(none.t(), none), [0.0; 9]);
        let columns = PART + 1;
        let wide = in_parts(
            View::new(&[], [2, 0], 0),
            View::new(&[], [0, columns], columns),
        );
        assert!(wide.len() == 2 * columns && wide.iter().all(|x| *x == 0.0));
    }
}
