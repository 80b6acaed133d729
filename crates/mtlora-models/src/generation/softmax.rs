//! Softmax of one row.

use mtlora_core::vecmath;

use super::error::Stuck;

/// The number of independent partial sums. With a single sum, each exponential would wait for the previous addition.
const LANES: usize = 8;

/// The logarithm of the sum of the exponentials of `row`, added up in 64 bits.
///
/// # Errors
/// When a value is NaN or plus infinity, or all values are minus infinity. A single minus infinity is a token of
/// probability 0.
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
    // The sum is NaN if any value is NaN, or if the maximum is infinite (of either sign).
    if sum.is_finite() {
        Ok(f64::from(max) + sum.ln())
    } else {
        Err(Stuck::NotADistribution)
    }
}

/// Replaces the contents of `out` by the log-probabilities of `row`.
///
/// # Errors
/// As [`log_sum_exp`].
pub(super) fn log_softmax(row: &[f32], out: &mut Vec<f32>) -> Result<(), Stuck> {
    let total = log_sum_exp(row)?;
    out.clear();
    out.extend(row.iter().map(|x| (f64::from(*x) - total) as f32));
    Ok(())
}

/// The largest value; NaN values are ignored.
pub(super) fn maximum(row: &[f32]) -> f32 {
    row.iter().copied().fold(f32::NEG_INFINITY, f32::max)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn probabilities_sum_to_one_after_any_shift_of_the_logits() {
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
    fn invalid_logits_are_an_error() {
        for bad in [f32::NAN, f32::INFINITY] {
            assert_eq!(log_sum_exp(&[0.0, bad, 1.0]), Err(Stuck::NotADistribution));
        }
        for row in [[f32::NEG_INFINITY; 2], [f32::NAN; 2]] {
            assert_eq!(log_sum_exp(&row), Err(Stuck::NotADistribution));
        }
    }
}
