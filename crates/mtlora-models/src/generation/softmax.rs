//! Softmax of one row.

use mtlora_core::vecmath;

use super::error::Stuck;

/// Sums that run side by side: one alone would make each exponential wait for the addition before.
const LANES: usize = 8;

/// The logarithm of the sum of the exponentials of `row`, added up in 64 bits.
///
/// # Errors
/// A NaN, plus infinity, or nothing but minus infinity. Single values of minus infinity are tokens of probability 0.
pub(super) fn log_sum_exp(row: &[f32]) -> Result<f64, Stuck> {
    let max = maximum(row);
    let exp = |x: &f32| f64::from(vecmath::exp(x - max));
    let (chunks, rest) = row.as_chunks::<LANES>();
    let mut sums = [0.0; LANES];
    for chunk in chunks {
        for (sum, x) in sums.iter_mut().zip(chunk) {
            *sum += exp(x);
        }
    }
    let sum = sums.into_iter().chain(rest.iter().map(exp)).sum::<f64>();
    // A NaN anywhere makes the sum one; so does infinity, of either sign, as the maximum.
    if sum.is_finite() {
        Ok(f64::from(max) + sum.ln())
    } else {
        Err(Stuck::NotADistribution)
    }
}

/// Writes the log-probabilities of `row` over what `out` held.
///
/// # Errors
/// As [`log_sum_exp`].
pub(super) fn log_softmax(row: &[f32], out: &mut Vec<f32>) -> Result<(), Stuck> {
    let total = log_sum_exp(row)?;
    out.clear();
    out.extend(row.iter().map(|x| (f64::from(*x) - total) as f32));
    Ok(())
}

/// The largest value; NaN are passed over.
pub(super) fn maximum(row: &[f32]) -> f32 {
    row.iter().copied().fold(f32::NEG_INFINITY, f32::max)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn log_probabilities_add_up_to_one_whatever_is_added() {
        for shift in [-1e4, 0.0, 1e4] {
            let row: Vec<f32> = (0..1000).map(|n| (n % 17) as f32 + shift).collect();
            let mut out = vec![7.0];
            log_softmax(&row, &mut out).unwrap();
            assert_eq!(out.len(), row.len());
            let sum: f64 = out.iter().map(|x| f64::from(*x).exp()).sum();
            assert!((sum - 1.0).abs() < 1e-6, "{sum}");
        }
    }

    #[test]
    fn minus_infinity_is_probability_zero() {
        let mut out = Vec::new();
        log_softmax(&[0.0, f32::NEG_INFINITY, 0.0], &mut out).unwrap();
        assert_eq!(out[1], f32::NEG_INFINITY);
        assert!((out[0] - 0.5f32.ln()).abs() < 1e-7);
    }

    #[test]
    fn what_is_no_distribution_is_an_error() {
        for bad in [f32::NAN, f32::INFINITY] {
            assert_eq!(log_sum_exp(&[0.0, bad, 1.0]), Err(Stuck::NotADistribution));
        }
        for row in [[f32::NEG_INFINITY; 2], [f32::NAN; 2]] {
            assert_eq!(log_sum_exp(&row), Err(Stuck::NotADistribution));
        }
    }
}
