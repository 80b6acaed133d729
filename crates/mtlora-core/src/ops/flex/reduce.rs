//! Sums and maxima of slices, in an order that vectorises.

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
