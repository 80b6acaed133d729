//! The settings that may be given when a run is resumed.

use std::error::Error;

use mtlora::train::{ResumeChanges, SaveOptions};

use crate::cli::settings::flags::Settings;

impl Settings {
    /// The changes to a resumed run, which has made its checkpoints as `current` says.
    ///
    /// # Errors
    /// If a setting is given that may not change.
    pub(crate) fn resume_changes(
        mut self,
        current: &SaveOptions,
    ) -> Result<ResumeChanges, Box<dyn Error>> {
        let checkpoints = SaveOptions {
            save_steps: self.save_steps.take().or(current.save_steps),
            save_minutes: self.save_minutes.take().or(current.save_minutes),
            save_total_limit: self
                .save_total_limit
                .take()
                .unwrap_or(current.save_total_limit),
        };
        let changes = ResumeChanges {
            device: self.device.take(),
            checkpoints: Some(checkpoints),
            final_scores: self.final_scores(),
        };
        self.no_final_scores = None;
        // Whatever is left may not change.
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
    use super::*;

    fn changes(toml: &str) -> Result<ResumeChanges, Box<dyn Error>> {
        let settings: Settings = toml::from_str(toml).unwrap();
        settings.resume_changes(&SaveOptions::default())
    }

    #[test]
    fn a_run_that_goes_on_keeps_what_its_losses_are_divided_by() {
        let error = changes("loss_normalization = 'batch'");
        let text = error.err().unwrap().to_string();
        assert!(text.starts_with("--loss-normalization cannot be used with --resume"));
    }

    #[test]
    fn what_is_not_given_stays() {
        let found = changes("save_steps = 5\nno_final_scores = true\n").unwrap();
        let expected = ResumeChanges {
            device: None,
            checkpoints: Some(SaveOptions {
                save_steps: Some(5),
                ..SaveOptions::default()
            }),
            final_scores: Some(false),
        };
        assert_eq!(found, expected);
    }
}
