//! Sums and maxima of slices, in an order that vectorises.

use super::instructions::vectorized;
use super::made;

/// Partial sums that are kept side by side, so that a sum vectorises: its order is part of the
/// result.
const LANES: usize = 16;

/// Sums `f` over the pairs of `x` and `y`.
#[inline(always)]
pub(super) fn sum_of(x: &[f32], y: &[f32], f: impl Fn(f32, f32) -> f32) -> f32 {
    let mut lanes = [0.0; LANES];
    let (x_blocks, x_rest) = x.as_chunks::<LANES>();
    let (y_blocks, y_rest) = y.as_chunks::<LANES>();
    for (x, y) in x_blocks.iter().zip(y_blocks) {
        for lane in 0..LANES {
            lanes[lane] += f(x[lane], y[lane]);
        }
    }
    let rest: f32 = x_rest.iter().zip(y_rest).map(|(x, y)| f(*x, *y)).sum();
    lanes.iter().sum::<f32>() + rest
}

/// The largest value, or minus infinity for an empty slice.
#[inline(always)]
pub(super) fn largest(x: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let (blocks, rest) = x.as_chunks::<LANES>();
    for block in blocks {
        for (lane, x) in lanes.iter_mut().zip(block) {
            *lane = if *x > *lane { *x } else { *lane };
        }
    }
    let all = lanes.iter().chain(rest);
    all.fold(f32::NEG_INFINITY, |a, b| a.max(*b))
}

/// Rows that are summed before their sum is added to the others' where all threads share the rows.
const ROWS: usize = 64;

vectorized! {
    /// Adds rows, `width` apart, to `sums`, from their column `first` on.
    pub(super) fn add_rows(sums: &mut [f32], x: &[f32], width: usize, first: usize) {
        for row in x.chunks_exact(width) {
            for (sum, x) in sums.iter_mut().zip(&row[first..]) {
                *sum += x;
            }
        }
    }
}

/// The sum of what `add` makes of the rows of two matrices, `width` wide, on all threads: it adds some rows' part to
/// sums of as many columns. The order does not depend on the number of threads.
pub(super) fn summed_rows(
    x: &[f32],
    y: &[f32],
    width: usize,
    add: impl Fn(&mut [f32], &[f32], &[f32]) + Sync,
) -> Vec<f32> {
    let count = ROWS * width.max(1);
    let parts = x.len().div_ceil(count);
    let parts = made(parts * width, width, |index, sums| {
        let part = index * count..x.len().min((index + 1) * count);
        add(sums, &x[part.clone()], &y[part]);
    });
    let mut sums = vec![0.0; width];
    add_rows(&mut sums, &parts, width.max(1), 0);
    sums
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_counts_once() {
        for length in 0..70 {
            let x: Vec<f32> = (0..length).map(|at| (at * 7 % 31) as f32).collect();
            let sum: f32 = x.iter().sum();
            assert_eq!(sum_of(&x, &x, |x, _| x), sum);
            let most = x.iter().fold(f32::NEG_INFINITY, |a, b| a.max(*b));
            assert_eq!(largest(&x), most);
        }
    }
}
