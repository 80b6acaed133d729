//! The settings that a run cannot do without.

use mtlora::train::{DataError, glue, registry};

use crate::cli::settings::flags::Settings;

/// What is missing, as a message names it: the flag, and what it is for.
type Missing = Vec<(&'static str, &'static str)>;

/// The flag for the run's folder, which is not one of the settings.
pub(crate) const OUT: (&str, &str) = ("--out", "the run's folder");

impl Settings {
    /// The settings that are needed and not given.
    ///
    /// # Errors
    /// If the task is unknown: it is not known what it needs.
    pub(crate) fn missing(&self) -> Result<Missing, DataError> {
        let mut missing = Missing::new();
        if self.model.is_none() {
            missing.push(("--model", "the base model"));
        }
        let data = match self.task.as_deref() {
            None => {
                missing.push(("--task", "see `mtlora tasks`"));
                Some("the folder with the data, except for GLUE's tasks")
            }
            Some(name) => {
                registry::find(name)?;
                glue::task(name)
                    .is_err()
                    .then_some("the folder with the data")
            }
        };
        if let (Some(what), None) = (data, &self.data) {
            missing.push(("--data", what));
        }
        Ok(missing)
    }
}

/// `--model (the base model) and --out (the run's folder) are needed`
pub(crate) fn message(missing: &[(&str, &str)]) -> String {
    let named: Vec<String> = missing
        .iter()
        .map(|(flag, what)| format!("{flag} ({what})"))
        .collect();
    match named.as_slice() {
        [one] => format!("{one} is needed"),
        [first @ .., last] => format!("{} and {last} are needed", first.join(", ")),
        [] => "nothing is missing".to_string(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn all_that_is_missing_is_named_at_once() {
        let found = |toml: &str| {
            let settings: Settings = toml::from_str(toml).unwrap();
            let missing = settings.missing().unwrap();
            missing
                .into_iter()
                .map(|(flag, _)| flag)
                .collect::<Vec<_>>()
        };
        assert_eq!(found("task = 'table'\ndata = 'd'"), ["--model"]);
        assert_eq!(found("task = 'table'"), ["--model", "--data"]);
        assert_eq!(found("rank = 4"), ["--model", "--task", "--data"]);
        // The Hub has the data of GLUE's tasks.
        assert_eq!(found("task = 'cola'"), ["--model"]);
        assert!(found("task = 'cola'\nmodel = 'm'").is_empty());
        let unknown: Settings = toml::from_str("task = 'squad'").unwrap();
        assert!(unknown.missing().is_err());
        assert_eq!(message(&[OUT]), "--out (the run's folder) is needed");
        assert_eq!(
            message(&[("--a", "1"), ("--b", "2"), OUT]),
            "--a (1), --b (2) and --out (the run's folder) are needed"
        );
    }
}
