//! The settings that may be given when a run is resumed.

use std::error::Error;

use mtlora::train::{ResumeChanges, SaveOptions};

use crate::cli::settings::flags::Settings;

impl Settings {
    /// The changes that these settings make to a resumed run. `current` are its options of checkpoints and reports.
    ///
    /// # Errors
    /// If a setting was given that must not change, or whose value cannot be stored.
    pub(crate) fn resume_changes(
        mut self,
        current: &SaveOptions,
    ) -> Result<ResumeChanges, Box<dyn Error>> {
        self.check_storable()?;
        let checkpoints = SaveOptions {
            save_steps: self.save_steps.take().or(current.save_steps),
            save_minutes: self.save_minutes.take().or(current.save_minutes),
            save_total_limit: self
                .save_total_limit
                .take()
                .unwrap_or(current.save_total_limit),
            report_to: self.report_to.take().unwrap_or(current.report_to),
        };
        let changes = ResumeChanges {
            device: self.device.take(),
            checkpoints: Some(checkpoints),
            final_scores: self.final_scores(),
        };
        self.no_final_scores = None;
        // All other settings must not change.
        if let Some(name) = self.given()?.keys().next() {
            let flag = name.replace('_', "-");
            return Err(format!(
                "--{flag} cannot be used with --resume: a resumed run keeps its settings. Leave it out, or start \
                 a new run (with --init-from if it should start with this one's adapter)"
            )
            .into());
        }
        Ok(changes)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use mtlora::train::ReportTo;

    use super::*;

    fn changes(toml: &str) -> Result<ResumeChanges, Box<dyn Error>> {
        let settings: Settings = toml::from_str(toml).unwrap();
        settings.resume_changes(&SaveOptions::default())
    }

    #[test]
    fn a_resumed_run_keeps_its_loss_normalization() {
        let error = changes("loss_normalization = 'batch'");
        let text = error.err().unwrap().to_string();
        assert!(text.starts_with("--loss-normalization cannot be used with --resume"));
    }

    #[test]
    fn a_number_that_cannot_be_stored_is_refused() {
        let settings = Settings {
            save_steps: Some(usize::MAX),
            ..Settings::default()
        };
        let error = settings.resume_changes(&SaveOptions::default());
        let text = error.err().unwrap().to_string();
        assert!(text.starts_with("--save-steps must be at most"), "{text}");
    }

    #[test]
    fn settings_that_are_not_given_stay() {
        let found =
            changes("save_steps = 5\nreport_to = 'none'\nno_final_scores = true\n").unwrap();
        let expected = ResumeChanges {
            device: None,
            checkpoints: Some(SaveOptions {
                save_steps: Some(5),
                report_to: ReportTo::None,
                ..SaveOptions::default()
            }),
            final_scores: Some(false),
        };
        assert_eq!(found, expected);
    }
}
