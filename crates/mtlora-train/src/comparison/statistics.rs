//! Statistics of a few runs: intervals and tests that hold with five seeds.
//!
//! Scores of runs are few, and need not be distributed normally. So the tests here enumerate what could have happened by chance,
//! and are exact; only Student's intervals assume a normal distribution.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use statrs::distribution::{ContinuousCDF, StudentsT};

/// The confidence of all intervals.
pub const CONFIDENCE: f64 = 0.95;
/// The largest number of outcomes that are enumerated. Beyond it, [`SAMPLES`] of them are drawn.
const ENUMERATED: u64 = 1 << 16;
/// The number of outcomes that are drawn where there are too many to enumerate.
const SAMPLES: u64 = 99_999;
/// The seed of what is drawn.
const SEED: u64 = 0;
/// Two statistics count as equal if they differ by less than this share of their size, which is rounding.
const ROUNDING: f64 = 1e-9;

/// An interval of plausible values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    /// The lower end.
    pub low: f64,
    /// The upper end.
    pub high: f64,
}

/// The mean; NaN if there are no values.
pub fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// The standard deviation of a sample, with `n - 1` in its divisor; `None` of fewer than two values.
pub fn standard_deviation(values: &[f64]) -> Option<f64> {
    if values.len() < 2 {
        return None;
    }
    let mean = mean(values);
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    Some((squares / (values.len() - 1) as f64).sqrt())
}

/// Student's interval of the mean; `None` of fewer than two values.
pub fn interval_of_mean(values: &[f64]) -> Option<Interval> {
    let deviation = standard_deviation(values)?;
    let count = values.len() as f64;
    let student = StudentsT::new(0.0, 1.0, count - 1.0).ok()?;
    let half = student.inverse_cdf(0.5 + CONFIDENCE / 2.0) * deviation / count.sqrt();
    let mean = mean(values);
    Some(Interval {
        low: mean - half,
        high: mean + half,
    })
}

/// The median; NaN if there are no values.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    quantile(&sorted, 0.5)
}

/// A quantile of sorted values, interpolated linearly.
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let at = share * (sorted.len().saturating_sub(1)) as f64;
    let (below, above) = (at.floor() as usize, at.ceil() as usize);
    match (sorted.get(below), sorted.get(above)) {
        (Some(low), Some(high)) => low + (high - low) * (at - at.floor()),
        _ => f64::NAN,
    }
}

/// The percentile bootstrap's interval of the mean (Efron and Tibshirani 1993, chapter 13); `None` of fewer than two values.
///
/// It is too narrow for few values: of normally distributed ones, it holds the true mean in 69 % of the cases with three values
/// and in 84 % with five (docs/compare/statistics.md).
///
/// Up to six values, all samples with replacement are enumerated. Otherwise as many are drawn as are enumerated then, with a
/// fixed seed, so that the same values always have the same interval.
pub fn bootstrap_interval(values: &[f64]) -> Option<Interval> {
    let count = values.len();
    if count < 2 {
        return None;
    }
    let all = (count as u64).checked_pow(count as u32);
    let mut means: Vec<f64> = match all.filter(|all| *all <= ENUMERATED) {
        Some(all) => (0..all)
            .map(|mut number| {
                let drawn = (0..count).map(|_| {
                    let value = values[(number % count as u64) as usize];
                    number /= count as u64;
                    value
                });
                drawn.sum::<f64>() / count as f64
            })
            .collect(),
        None => {
            let mut rng = ChaCha8Rng::seed_from_u64(SEED);
            let mut draw = || {
                let drawn = (0..count).map(|_| values[rng.random_range(0..count)]);
                drawn.sum::<f64>() / count as f64
            };
            (0..ENUMERATED).map(|_| draw()).collect()
        }
    };
    means.sort_by(f64::total_cmp);
    let tail = (1.0 - CONFIDENCE) / 2.0;
    Some(Interval {
        low: quantile(&means, tail),
        high: quantile(&means, 1.0 - tail),
    })
}

/// The two-sided p-value of the hypothesis that differences are symmetric around zero, by the sign-flip test of their mean
/// (Fisher's randomization test for pairs); `None` without differences.
///
/// Up to 16 differences, all flips are enumerated, and the test is exact. With more, flips are drawn with a fixed seed. The
/// smallest p-value that `n` differences can have is `2 / 2^n`: 0.0625 with five, 0.03125 with six.
pub fn sign_flip_test(differences: &[f64]) -> Option<f64> {
    let count = differences.len();
    if count == 0 || differences.iter().any(|one| !one.is_finite()) {
        return None;
    }
    let observed = differences.iter().sum::<f64>().abs();
    let size: f64 = differences.iter().map(|one| one.abs()).sum();
    let is_extreme = |sum: f64| sum.abs() >= observed - ROUNDING * size;
    let all = 1_u64
        .checked_shl(count as u32)
        .filter(|all| *all <= ENUMERATED);
    if let Some(all) = all {
        let extreme = (0..all).filter(|flips| {
            let signed = differences.iter().enumerate();
            let sum = signed.map(|(at, one)| if flips >> at & 1 == 1 { -one } else { *one });
            is_extreme(sum.sum())
        });
        return Some(extreme.count() as f64 / all as f64);
    }
    let mut rng = ChaCha8Rng::seed_from_u64(SEED);
    let extreme = (0..SAMPLES).filter(|_| {
        let signed = differences.iter();
        is_extreme(
            signed
                .map(|one| if rng.random::<bool>() { -one } else { *one })
                .sum(),
        )
    });
    // The observed outcome is one of those that could have been.
    Some((extreme.count() as f64 + 1.0) / (SAMPLES as f64 + 1.0))
}

/// What [`sign_flip_test`] of `count` differences is called: exact, or with drawn flips.
pub fn sign_flip_name(count: usize) -> String {
    match 1_u64.checked_shl(count as u32) {
        Some(all) if all <= ENUMERATED => "the exact sign-flip test".to_string(),
        _ => format!("the sign-flip test with {SAMPLES} drawn flips"),
    }
}

/// The smallest p-value that [`sign_flip_test`] can give for `count` differences.
pub fn smallest_p_value(count: usize) -> f64 {
    let all = 1_u64
        .checked_shl(count as u32)
        .filter(|all| *all <= ENUMERATED);
    match all {
        Some(all) => (2.0 / all as f64).min(1.0),
        None => 1.0 / (SAMPLES as f64 + 1.0),
    }
}

/// The smallest p-value that [`spread_test`] can give for samples of these sizes.
pub fn smallest_spread_p_value(one: usize, other: usize) -> f64 {
    let (one, other) = ((one - one % 2) as u64, (other - other % 2) as u64);
    let all = binomial(one + other, one);
    if one + other >= 64 || all > ENUMERATED {
        return 1.0 / (SAMPLES as f64 + 1.0);
    }
    // With equal sizes, exchanging the samples gives an outcome that is as extreme.
    let extreme = if one == other { 2.0 } else { 1.0 };
    (extreme / all as f64).min(1.0)
}

/// The two-sided p-value of the hypothesis that two samples have the same spread, by the permutation test of their mean
/// absolute deviations from their medians; `None` if a sample has fewer than three values.
///
/// The deviations are those of Brown and Forsythe (1974). The usual F-test of them is far too careful for five values (it rejects
/// a true hypothesis in 0.6 % of the cases in place of 5 %), mostly because the median of an odd number of values is one of them,
/// so that its deviation is always zero. That structural zero is left out here (Hines and O'Hara Hines 2000), and the deviations are
/// permuted. Two samples of five then cannot have a smaller p-value than 2 / 70. Outliers change the test little, which they do
/// to Bartlett's and to the F-test of variances.
pub fn spread_test(one: &[f64], other: &[f64]) -> Option<f64> {
    let are_finite = one.iter().chain(other).all(|value| value.is_finite());
    if one.len() < 3 || other.len() < 3 || !are_finite {
        return None;
    }
    let first = deviations(one);
    let all: Vec<f64> = first.iter().copied().chain(deviations(other)).collect();
    let (count, total) = (first.len(), all.len());
    let sum: f64 = all.iter().sum();
    let rest = (total - count) as f64;
    let difference = |chosen: f64| (chosen / count as f64 - (sum - chosen) / rest).abs();
    let observed = difference(first.iter().sum());
    let is_extreme = |chosen: f64| difference(chosen) >= observed - ROUNDING * sum;
    if total < 64 && binomial(total as u64, count as u64) <= ENUMERATED {
        let (mut extreme, mut all_of_them) = (0_u64, 0_u64);
        let mut chosen: Vec<usize> = (0..count).collect();
        loop {
            all_of_them += 1;
            let of_chosen = chosen.iter().map(|at| all[*at]).sum();
            extreme += u64::from(is_extreme(of_chosen));
            if !next_combination(&mut chosen, total) {
                return Some(extreme as f64 / all_of_them as f64);
            }
        }
    }
    let mut rng = ChaCha8Rng::seed_from_u64(SEED);
    let mut shuffled = all.clone();
    let extreme = (0..SAMPLES).filter(|_| {
        // The first values of a shuffle.
        for at in 0..count {
            shuffled.swap(at, rng.random_range(at..total));
        }
        is_extreme(shuffled[..count].iter().sum())
    });
    Some((extreme.count() as f64 + 1.0) / (SAMPLES as f64 + 1.0))
}

/// The mean of the deviations that [`spread_test`] compares.
pub(super) fn mean_deviation(values: &[f64]) -> f64 {
    mean(&deviations(values))
}

/// The absolute deviations from the median, without the one that is always zero if their number is odd.
fn deviations(values: &[f64]) -> Vec<f64> {
    let median = median(values);
    let mut deviations: Vec<f64> = values.iter().map(|value| (value - median).abs()).collect();
    deviations.sort_by(f64::total_cmp);
    if deviations.len() % 2 == 1 {
        deviations.remove(0);
    }
    deviations
}

fn binomial(total: u64, chosen: u64) -> u64 {
    let mut count: u64 = 1;
    for at in 0..chosen.min(total - chosen) {
        count = match count.checked_mul(total - at) {
            Some(count) => count / (at + 1),
            None => return u64::MAX,
        };
    }
    count
}

/// Advances `chosen`, which is increasing and below `total`, to the next combination; false after the last one.
fn next_combination(chosen: &mut [usize], total: usize) -> bool {
    let count = chosen.len();
    for at in (0..count).rev() {
        if chosen[at] < total - count + at {
            chosen[at] += 1;
            for next in at + 1..count {
                chosen[next] = chosen[next - 1] + 1;
            }
            return true;
        }
    }
    false
}

/// Holm's adjustment of p-values (1979): if those below a level are rejected, the chance of one false rejection among all is
/// at most that level. The order is kept.
pub fn holm(p_values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..p_values.len()).collect();
    order.sort_by(|one, other| p_values[*one].total_cmp(&p_values[*other]));
    let mut adjusted = vec![0.0; p_values.len()];
    let mut highest: f64 = 0.0;
    for (rank, index) in order.into_iter().enumerate() {
        let factor = (p_values.len() - rank) as f64;
        highest = highest.max((factor * p_values[index]).min(1.0));
        adjusted[index] = highest;
    }
    adjusted
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde::Deserialize;

    use super::*;

    /// Made by `scipy_examples.py` beside it, with scipy.
    const EXAMPLES: &str = include_str!("scipy_examples.json");

    #[derive(Deserialize)]
    struct Example {
        one: Vec<f64>,
        other: Vec<f64>,
        mean: f64,
        standard_deviation: f64,
        interval_of_mean: [f64; 2],
        bootstrap_interval: [f64; 2],
        bootstrap_tolerance: f64,
        sign_flip: f64,
        spread: f64,
        /// How far p-values that are drawn may be from the exact ones.
        drawn_tolerance: f64,
    }

    #[derive(Deserialize)]
    struct Examples {
        pairs: Vec<Example>,
        p_values: Vec<f64>,
        holm: Vec<f64>,
    }

    fn close(found: f64, wanted: f64, tolerance: f64) {
        assert!((found - wanted).abs() <= tolerance, "{found} and {wanted}");
    }

    #[test]
    fn the_statistics_are_those_of_scipy() {
        let examples: Examples = serde_json::from_str(EXAMPLES).unwrap();
        assert!(examples.pairs.len() >= 6);
        for example in &examples.pairs {
            let Example { one, other, .. } = example;
            close(mean(one), example.mean, 1e-12);
            close(
                standard_deviation(one).unwrap(),
                example.standard_deviation,
                1e-12,
            );
            let interval = interval_of_mean(one).unwrap();
            close(interval.low, example.interval_of_mean[0], 1e-10);
            close(interval.high, example.interval_of_mean[1], 1e-10);
            let differences: Vec<f64> = one
                .iter()
                .zip(other)
                .map(|(one, other)| one - other)
                .collect();
            let interval = bootstrap_interval(&differences).unwrap();
            close(
                interval.low,
                example.bootstrap_interval[0],
                example.bootstrap_tolerance,
            );
            close(
                interval.high,
                example.bootstrap_interval[1],
                example.bootstrap_tolerance,
            );
            close(
                sign_flip_test(&differences).unwrap(),
                example.sign_flip,
                example.drawn_tolerance,
            );
            close(
                spread_test(one, other).unwrap(),
                example.spread,
                example.drawn_tolerance,
            );
        }
        for (found, wanted) in holm(&examples.p_values).into_iter().zip(examples.holm) {
            close(found, wanted, 1e-12);
        }
    }

    #[test]
    fn tests_are_symmetric_and_repeatable() {
        let one: Vec<f64> = (0..24).map(|at| f64::from(at * at % 17)).collect();
        let other: Vec<f64> = (0..24).map(|at| f64::from(at * at % 23) / 3.0).collect();
        for count in [3, 5, 6, 24] {
            let (one, other) = (&one[..count], &other[..count]);
            assert_eq!(spread_test(one, other), spread_test(one, other));
            let difference = |(one, other): (&f64, &f64)| one - other;
            let there: Vec<f64> = one.iter().zip(other).map(difference).collect();
            let back: Vec<f64> = there.iter().map(|one| -one).collect();
            assert_eq!(sign_flip_test(&there), sign_flip_test(&back));
            assert_eq!(bootstrap_interval(&there), bootstrap_interval(&there));
            if count < 24 {
                assert_eq!(spread_test(one, other), spread_test(other, one));
            }
        }
        // Equal values differ neither in their mean nor in their spread.
        assert_eq!(sign_flip_test(&[0.0; 5]), Some(1.0));
        assert_eq!(spread_test(&[1.0; 5], &[2.0; 5]), Some(1.0));
    }

    #[test]
    fn the_smallest_p_values_are_reached() {
        assert_eq!(
            sign_flip_test(&[1.0, 2.0, 3.0, 4.0, 5.0]),
            Some(smallest_p_value(5))
        );
        assert_eq!(smallest_p_value(5), 0.0625);
        assert_eq!(smallest_p_value(6), 0.03125);
        assert_eq!(smallest_p_value(1), 1.0);
        let wide = [-40.0, -20.0, 0.0, 21.0, 42.0];
        let narrow = [-0.4, -0.2, 0.0, 0.21, 0.42];
        close(spread_test(&wide, &narrow).unwrap(), 2.0 / 70.0, 1e-12);
        close(smallest_spread_p_value(5, 5), 2.0 / 70.0, 1e-12);
        let least = spread_test(&wide, &narrow[..4]).unwrap();
        assert!(least >= smallest_spread_p_value(5, 4));
        let wider = [-43.0, -41.0, 0.0, 40.0, 42.0];
        let least = spread_test(&wider, &[-0.4, -0.2, 0.0]).unwrap();
        close(least, smallest_spread_p_value(5, 3), 1e-12);
        close(least, 1.0 / 15.0, 1e-12);
        assert_eq!(spread_test(&[1.0, 2.0], &wide), None);
        assert_eq!(sign_flip_test(&[]), None);
        assert_eq!(sign_flip_test(&[f64::NAN, 1.0]), None);
        assert_eq!(spread_test(&[f64::NAN, 1.0, 2.0], &wide), None);
        assert_eq!(
            (standard_deviation(&[1.0]), interval_of_mean(&[1.0])),
            (None, None)
        );
    }
}
