//! The options of what a run writes beside its results: checkpoints, and files for TensorBoard.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::report_to::ReportTo;
use crate::training::options::OptionError;

/// The options of checkpoints and reports. A run also makes a checkpoint after each epoch and after each evaluation that is the best so
/// far. Unlike most settings of a run, these may change when it is resumed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SaveOptions {
    /// The number of steps between checkpoints.
    pub save_steps: Option<usize>,
    /// The time between checkpoints in minutes.
    pub save_minutes: Option<f64>,
    /// The number of newest checkpoints that are kept, beside the one of the best evaluation.
    pub save_total_limit: usize,
    /// Where the curves are reported.
    #[serde(skip_serializing_if = "ReportTo::is_default")]
    pub report_to: ReportTo,
}

impl Default for SaveOptions {
    fn default() -> Self {
        Self {
            save_steps: None,
            save_minutes: None,
            save_total_limit: 2,
            report_to: ReportTo::default(),
        }
    }
}

impl SaveOptions {
    /// Checks the range of each number.
    ///
    /// # Errors
    /// If a number is out of range; the error names the first.
    pub fn validate(&self) -> Result<(), OptionError> {
        if self.save_steps == Some(0) {
            return Err(OptionError {
                option: "save_steps",
                requirement: "be at least 1",
            });
        }
        if self.save_minutes.is_some() && self.interval().is_none() {
            return Err(OptionError {
                option: "save_minutes",
                requirement: "be a positive number, and at most 3e17",
            });
        }
        if self.save_total_limit == 0 {
            return Err(OptionError {
                option: "save_total_limit",
                requirement: "be at least 1",
            });
        }
        Ok(())
    }

    /// The time between checkpoints; `None` if it is not set or not a positive number.
    pub(super) fn interval(&self) -> Option<Duration> {
        let seconds = self.save_minutes? * 60.0;
        Duration::try_from_secs_f64(seconds)
            .ok()
            .filter(|interval| !interval.is_zero())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn numbers_out_of_their_range_are_refused() {
        let refused = |options: SaveOptions| options.validate().unwrap_err().to_string();
        let default = SaveOptions::default();
        assert!(default.validate().is_ok());
        let none = SaveOptions {
            save_steps: Some(0),
            ..default.clone()
        };
        assert!(refused(none).starts_with("save_steps"));
        for minutes in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            let options = SaveOptions {
                save_minutes: Some(minutes),
                ..default.clone()
            };
            assert!(refused(options).starts_with("save_minutes"));
        }
        let long = SaveOptions {
            save_minutes: Some(1e300),
            ..default.clone()
        };
        assert!(refused(long).ends_with("be a positive number, and at most 3e17"));
        let none = SaveOptions {
            save_total_limit: 0,
            ..default
        };
        assert!(refused(none).starts_with("save_total_limit"));
    }
}
