//! Functions of floats that the compiler vectorises: no branch, no call.

/// `1.5 * 2^23`: adding it leaves a float's integer part in the low bits.
const ROUND: f32 = 12_582_912.0;

/// `e^x` to 2 ULP from -87.3 to 88; beyond, the value at the nearer end (1.2e-38, 1.7e38). NaN stays NaN.
///
/// `x = n ln 2 + r`, `|r| <= ln 2 / 2`; the polynomial for `e^r` is that of Cephes' `expf` (Moshier).
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    // ln 2 in two parts, so that n times the first is exact.
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    let x = x.clamp(-87.336, 88.02);
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = x - n * LN_2_HIGH - n * LN_2_LOW;
    let p = 1.987_569_1e-4;
    let p = p * r + 1.398_2e-3;
    let p = p * r + 8.333_452e-3;
    let p = p * r + 4.166_579_6e-2;
    let p = p * r + 1.666_666_5e-1;
    let p = p * r + 0.5;
    let p = p * (r * r) + r + 1.0;
    let exponent = shifted.to_bits().wrapping_sub(ROUND.to_bits());
    p * f32::from_bits(exponent.wrapping_add(127) << 23)
}

/// `1 / (1 + e^-x)`.
#[inline(always)]
pub fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// `Φ(x)` and `e^(-x² / 2)`, the normal distribution function and its unscaled density. The
/// absolute error of the first is below 1.5e-7: Abramowitz and Stegun, 7.1.26.
#[inline(always)]
pub fn normal(x: f32) -> (f32, f32) {
    let density = exp(-0.5 * x * x);
    let t = 1.0 / (1.0 + 0.327_591_1 * std::f32::consts::FRAC_1_SQRT_2 * x.abs());
    let p = 1.061_405_4;
    let p = p * t - 1.453_152;
    let p = p * t + 1.421_413_8;
    let p = p * t - 0.284_496_74;
    let p = p * t + 0.254_829_6;
    let tail = 0.5 * p * t * density;
    (if x < 0.0 { tail } else { 1.0 - tail }, density)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_within_two_ulp() {
        let mut worst = 0u32;
        let mut x = -87.0f32;
        while x < 88.0 {
            let exact = f64::from(x).exp() as f32;
            worst = worst.max(exp(x).to_bits().abs_diff(exact.to_bits()));
            x += 1.37e-3;
        }
        assert!(worst <= 2, "{worst} ULP");
        assert_eq!(exp(0.0), 1.0);
        assert!(exp(f32::NAN).is_nan());
        assert!(exp(f32::NEG_INFINITY) < 1.3e-38 && exp(f32::INFINITY) > 1e38);
    }

    /// Against Simpson's rule.
    #[test]
    fn normal_is_the_distribution_function() {
        let density = |t: f64| (-0.5 * t * t).exp() / std::f64::consts::TAU.sqrt();
        for step in -60..=60 {
            let x = f64::from(step) / 10.0;
            let (parts, mut sum) = (2000, 0.0);
            let width = x / f64::from(parts);
            for part in 0..parts {
                let from = width * f64::from(part);
                let middle = density(from + width / 2.0);
                sum += width / 6.0 * (density(from) + 4.0 * middle + density(from + width));
            }
            let (found, unscaled) = normal(x as f32);
            assert!((f64::from(found) - (0.5 + sum)).abs() < 2e-7, "{x}");
            assert!((f64::from(unscaled) - (-0.5 * x * x).exp()).abs() < 1e-6);
        }
    }
}
