//! The least time that a card takes for a step: its roofline.

use serde::Serialize;

/// What a card can do at most, as its data sheet says.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Card {
    /// Gigabytes that its memory moves in a second.
    gb_per_s: f64,
    /// Thousands of billions of floating-point operations in a second.
    tflop_per_s: f64,
}

impl Card {
    /// Reads the value of `--card`.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let numbers: Option<Vec<f64>> = text
            .split(',')
            .map(|number| number.trim().parse().ok())
            .collect();
        let positive = |number: &f64| number.is_finite() && *number > 0.0;
        match numbers.as_deref() {
            Some([gb_per_s, tflop_per_s]) if [gb_per_s, tflop_per_s].into_iter().all(positive) => {
                Ok(Self {
                    gb_per_s: *gb_per_s,
                    tflop_per_s: *tflop_per_s,
                })
            }
            _ => Err("it must be two positive numbers, such as 3350,67: GB/s and TFLOP/s".into()),
        }
    }

    /// The time in seconds that it takes at least to move these bytes and to make these floating-point operations.
    pub(super) fn least_time(self, bytes: f64, flops: f64) -> f64 {
        let moving = bytes / (self.gb_per_s * 1e9);
        let computing = flops / (self.tflop_per_s * 1e12);
        moving.max(computing)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_slower_of_memory_and_arithmetic_decides() {
        let card = Card::parse("1000, 20").unwrap();
        assert_eq!(card.least_time(2e12, 1e12), 2.0);
        assert_eq!(card.least_time(2e9, 1e12), 0.05);
        for wrong in ["", "1000", "0,20", "1,-2", "1,2,3", "nan,1", "a,b"] {
            assert!(Card::parse(wrong).is_err(), "{wrong}");
        }
    }
}
