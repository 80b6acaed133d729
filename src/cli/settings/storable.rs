//! Refuses settings that a run cannot store: `run.toml` has numbers of 64 bits with a sign, and paths in Unicode.

use std::path::Path;

use crate::cli::settings::flags::Settings;

/// The largest number that TOML can hold.
const LARGEST: u64 = i64::MAX as u64;

impl Settings {
    /// Refuses the first setting whose value cannot be stored.
    pub(super) fn check_storable(&self) -> Result<(), String> {
        let wide = |number: Option<usize>| number.map(|number| number as u64);
        let numbers = [
            ("rank", wide(self.rank)),
            ("batch", wide(self.batch)),
            ("batch_tokens", wide(self.batch_tokens)),
            ("gradient_accumulation", wide(self.gradient_accumulation)),
            ("epochs", wide(self.epochs)),
            ("max_steps", wide(self.max_steps)),
            ("warmup_steps", wide(self.warmup_steps)),
            ("eval_steps", wide(self.eval_steps)),
            ("patience", wide(self.patience)),
            ("save_steps", wide(self.save_steps)),
            ("save_total_limit", wide(self.save_total_limit)),
            ("max_length", wide(self.max_length)),
            ("target_r", wide(self.target_r)),
            ("tinit", wide(self.tinit)),
            ("tfinal", wide(self.tfinal)),
            ("delta_t", wide(self.delta_t)),
            ("seed", self.seed),
            ("num_beams", wide(self.num_beams)),
            ("no_repeat_ngram_size", wide(self.no_repeat_ngram_size)),
            ("max_new_tokens", wide(self.max_new_tokens)),
        ];
        let too_large = |(_, number): &(_, Option<u64>)| number.is_some_and(|one| one > LARGEST);
        if let Some((name, _)) = numbers.into_iter().find(too_large) {
            let flag = name.replace('_', "-");
            return Err(format!("--{flag} must be at most {LARGEST}"));
        }
        let paths = [
            ("model", &self.model),
            ("data", &self.data),
            ("init-from", &self.init_from),
        ];
        for (flag, path) in paths {
            path.as_deref()
                .map_or(Ok(()), |path| storable(flag, path))?;
        }
        Ok(())
    }
}

/// Refuses a path that is not Unicode, which was given by `flag`.
pub(super) fn storable(flag: &str, path: &Path) -> Result<(), String> {
    if path.to_str().is_some() {
        return Ok(());
    }
    Err(format!(
        "--{flag}: the name {} is not valid UTF-8, so it cannot be stored in run.toml: rename the folder",
        path.display()
    ))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use clap::{Args, FromArgMatches};

    use super::*;

    /// The settings of a command line with one flag; `None` if the flag does not take the value.
    fn with_flag(flag: &str, value: &str) -> Option<Settings> {
        let command = Settings::augment_args(clap::Command::new("settings"));
        let line = ["settings", &format!("--{flag}"), value];
        let found = command.try_get_matches_from(line).ok()?;
        Settings::from_arg_matches(&found).ok()
    }

    #[test]
    fn numbers_that_toml_cannot_hold_are_refused_by_their_flags() {
        let command = Settings::augment_args(clap::Command::new("settings"));
        let mut refused = 0;
        for flag in command.get_arguments().filter_map(clap::Arg::get_long) {
            for value in ["9223372036854775808", "18446744073709551615"] {
                let Some(settings) = with_flag(flag, value) else {
                    continue;
                };
                if let Err(text) = settings.given() {
                    let expected = format!("--{flag} must be at most 9223372036854775807");
                    assert_eq!(text, expected);
                    refused += 1;
                }
            }
            if let Some(settings) = with_flag(flag, "9223372036854775807") {
                assert!(settings.given().is_ok(), "{flag}");
            }
        }
        assert_eq!(refused, 2 * 20);
    }

    #[cfg(unix)]
    #[test]
    fn paths_that_are_not_unicode_are_refused_by_their_flags() {
        use std::ffi::OsStr;
        use std::os::unix::ffi::OsStrExt;
        use std::path::PathBuf;

        let path = || Some(PathBuf::from(OsStr::from_bytes(b"d\xff")));
        let model = Settings {
            model: path(),
            ..Settings::default()
        };
        let data = Settings {
            data: path(),
            ..Settings::default()
        };
        let init_from = Settings {
            init_from: path(),
            ..Settings::default()
        };
        for (flag, settings) in [("model", model), ("data", data), ("init-from", init_from)] {
            let text = settings.given().unwrap_err();
            assert!(text.starts_with(&format!("--{flag}: the name d\u{fffd} is not")));
            assert!(text.ends_with("rename the folder"), "{text}");
        }
    }
}
