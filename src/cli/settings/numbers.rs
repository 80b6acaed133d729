//! Reads the numbers of flags, with errors in plain words.

use std::any::TypeId;
use std::num::IntErrorKind;

use clap::Arg;

/// The flag as it is, or, if it takes a number, with a parser that says plainly what is needed. A negative number is read, so
/// that the message about its range appears. What clap recognizes as a negative number has no negative exponent, so a flag
/// with a fraction takes any word that begins with a hyphen.
pub(super) fn in_plain_words(flag: Arg) -> Arg {
    let kind = flag.get_value_parser().type_id();
    if kind == TypeId::of::<f64>() {
        flag.allow_hyphen_values(true).value_parser(number)
    } else if kind == TypeId::of::<usize>() {
        flag.allow_negative_numbers(true)
            .value_parser(whole::<usize>)
    } else if kind == TypeId::of::<u64>() {
        flag.allow_negative_numbers(true).value_parser(whole::<u64>)
    } else {
        flag
    }
}

fn number(text: &str) -> Result<f64, String> {
    let wrong = |_| "it must be a number, such as 1e-3".to_string();
    text.parse().map_err(wrong)
}

fn whole<T: std::str::FromStr<Err = std::num::ParseIntError>>(text: &str) -> Result<T, String> {
    text.parse()
        .map_err(|error: std::num::ParseIntError| match error.kind() {
            IntErrorKind::PosOverflow => "it is too large".to_string(),
            _ => "it must be a whole number, 0 or more".to_string(),
        })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::error::Error as _;

    use clap::{Args, FromArgMatches};

    use crate::cli::settings::flags::Settings;

    /// The settings of a command line with these words, or what is wrong with a value.
    fn settings(words: &[&str]) -> Result<Settings, String> {
        let command = Settings::augment_args(clap::Command::new("settings"));
        let line = ["settings"].iter().chain(words);
        let found = command.try_get_matches_from(line).map_err(|error| {
            let reason = error.source().map(ToString::to_string);
            reason.unwrap_or_else(|| error.to_string())
        })?;
        Ok(Settings::from_arg_matches(&found).unwrap())
    }

    #[test]
    fn numbers_that_cannot_be_read_are_refused_in_plain_words() {
        let whole = "it must be a whole number, 0 or more";
        for (flag, value, message) in [
            ("--rank", "x", whole),
            ("--rank", "-1", whole),
            ("--epochs", "1.5", whole),
            ("--seed", "-7", whole),
            ("--seed", "99999999999999999999", "it is too large"),
            ("--lr", "x", "it must be a number, such as 1e-3"),
            ("--lr", "--rank", "it must be a number, such as 1e-3"),
        ] {
            assert_eq!(settings(&[flag, value]).unwrap_err(), message, "{flag}");
        }
        // Their ranges are checked later.
        assert_eq!(settings(&["--lr", "-1"]).unwrap().lr, Some(-1.0));
        assert_eq!(settings(&["--lr", "-1e-3"]).unwrap().lr, Some(-1e-3));
        assert_eq!(settings(&["--seed", "7"]).unwrap().seed, Some(7));
    }
}
