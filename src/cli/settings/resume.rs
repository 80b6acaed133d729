//! The settings that may be given when a run is resumed.

use std::error::Error;

use mtlora::train::SaveOptions;

use crate::cli::settings::flags::Settings;

/// The settings that may change when a run is resumed.
const MAY_CHANGE: [&str; 5] = [
    "device",
    "no_final_scores",
    "save_minutes",
    "save_steps",
    "save_total_limit",
];

impl Settings {
    /// Of a run that goes on, its checkpoints' options and its device as these settings change them.
    ///
    /// # Errors
    /// When anything else is set: it may not change.
    pub(crate) fn on_resume(
        &self,
        checkpoints: &SaveOptions,
        device: &str,
    ) -> Result<(SaveOptions, String), Box<dyn Error>> {
        let set = toml::Table::try_from(self)?;
        let fixed = set.keys().find(|name| !MAY_CHANGE.contains(&name.as_str()));
        if let Some(name) = fixed {
            let flag = name.replace('_', "-");
            return Err(format!(
                "--{flag} cannot be used with --resume: a run that goes on keeps its settings. Leave it out, or start \
                 a new run (with --init-from if it should start with this one's adapter)"
            )
            .into());
        }
        let device = self.device.clone().unwrap_or_else(|| device.to_string());
        Ok((self.checkpoints(checkpoints.clone()), device))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn settings(toml: &str) -> Settings {
        toml::from_str(toml).unwrap()
    }

    #[test]
    fn a_run_that_goes_on_keeps_what_its_losses_are_divided_by() {
        let usual = SaveOptions::default();
        let error = settings("loss_normalization = 'batch'").on_resume(&usual, "flex");
        let text = error.err().unwrap().to_string();
        assert!(text.starts_with("--loss-normalization cannot be used with --resume"));
        assert!(settings("save_steps = 5").on_resume(&usual, "flex").is_ok());
    }
}
