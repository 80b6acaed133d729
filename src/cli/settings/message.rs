//! Says in plain words what is wrong with a key of a TOML file, or with its value.

use std::error::Error as _;

use clap::Args as _;
use mtlora::models::messages::needed_and_found;

use crate::cli::settings::elsewhere;
use crate::cli::settings::flags::Settings;

/// The longest list of fields that a message repeats.
const LISTED: usize = 12;

/// Whether a message of serde is about a key that there is not.
pub(crate) fn is_of_unknown_field(message: &str) -> bool {
    message.starts_with("unknown field `")
}

/// The message of serde in plain words.
pub(crate) fn plain(message: &str) -> String {
    if let Some((needed, found)) = needed_and_found(message) {
        return format!("{needed} is needed here, not {found}");
    }
    if let Some(name) = message.strip_prefix("missing field ") {
        return format!("{name} is needed here");
    }
    if let Some((name, known)) = unknown_name(message) {
        return format!("`{name}` is not known here: one of {known}");
    }
    if let Some(name) = message.strip_prefix("duplicate field ") {
        return format!("{name} is there twice, once under another name: remove one");
    }
    unknown_field(message).unwrap_or_else(|| message.to_string())
}

/// What is wrong with the value of a setting, from the message of serde.
pub(crate) fn of_value(key: &str, message: &str) -> String {
    if let Some((needed, found)) = needed_and_found(message) {
        // A list's own values are wrong, rather than the list, if serde names another kind.
        let is_list = matches!(key, "labels" | "eos_token_ids") && needed != "a list in [ ]";
        let subject = if is_list {
            format!("each value of `{key}`")
        } else {
            format!("`{key}`")
        };
        return format!("{subject} must be {needed}, not {found}");
    }
    match unknown_name(message).and_then(|(name, _)| of_flag(key, name)) {
        Some(said) => said,
        None => plain(message),
    }
}

/// The name in a message about one that is not among those of a type, and those that are.
fn unknown_name(message: &str) -> Option<(&str, String)> {
    let rest = message.strip_prefix("unknown variant `")?;
    let (name, known) = rest.split_once("`, expected ")?;
    let known = known.strip_prefix("one of ").unwrap_or(known);
    Some((name, known.replace(" or ", ", ")))
}

/// What the command line says about a value of this setting, if it refuses it with a reason.
fn of_flag(key: &str, value: &str) -> Option<String> {
    let command = Settings::augment_args(clap::Command::new("settings"));
    let flag = command.get_arguments().find(|flag| flag.get_id() == key)?;
    let word = format!("--{}={value}", flag.get_long()?);
    let error = command.try_get_matches_from(["settings", &word]).err()?;
    error.source().map(ToString::to_string)
}

/// A message about an unknown field, with the one that was probably meant, and without the list of all fields where it is as
/// long as that of the settings of `train`.
fn unknown_field(message: &str) -> Option<String> {
    let rest = message.strip_prefix("unknown field `")?;
    let (name, list) = rest.split_once("`, expected one of ")?;
    let known: Vec<&str> = list.split(", ").map(|one| one.trim_matches('`')).collect();
    if known.len() <= LISTED {
        let meant = most_similar(name, known.iter().copied())?;
        return Some(format!("unknown field `{name}`: did you mean `{meant}`?"));
    }
    let on_command_line = |ours: &str| {
        let flag = ours.replace('_', "-");
        format!("is given on the command line (--{flag}), not in a file")
    };
    let is_on_command_line = |ours: &str| elsewhere::COMMAND_LINE.contains(&ours);
    let written = name.replace('-', "_");
    if is_on_command_line(&written) {
        return Some(format!("`{name}` {}", on_command_line(&written)));
    }
    let meant = elsewhere::here(name).or_else(|| most_similar(name, known.iter().copied()));
    Some(match meant {
        Some(ours) if is_on_command_line(ours) => format!(
            "unknown field `{name}`: here it is `{ours}`, which {}",
            on_command_line(ours)
        ),
        Some(meant) => format!("unknown field `{name}`: did you mean `{meant}`?"),
        None => format!(
            "unknown field `{name}`: `mtlora config schema` lists the settings that a file may have"
        ),
    })
}

/// The name that a mistyped one is likely to stand for.
pub(crate) fn most_similar<'a>(
    name: &str,
    known: impl Iterator<Item = &'a str>,
) -> Option<&'a str> {
    let close = known.map(|one| (strsim::jaro_winkler(name, one), one));
    let best = close.max_by(|(one, _), (other, _)| one.total_cmp(other))?;
    (best.0 > 0.8).then_some(best.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is said about a file with one line.
    fn said(line: &str) -> String {
        let source = crate::cli::settings::source::Source::new("s.toml", line);
        Settings::of(&source).err().unwrap_or_default()
    }

    #[test]
    fn names_of_other_programs_lead_to_ours() {
        for (theirs, ours) in [
            ("lora_alpha", "alpha"),
            ("learning_rate", "lr"),
            ("num_train_epochs", "epochs"),
            ("per_device_train_batch_size", "batch"),
            ("r", "rank"),
            ("target_modules", "targets"),
            ("batch_size", "batch"),
            // Mistyped ones of our own.
            ("epcohs", "epochs"),
            ("batch-tokens", "batch_tokens"),
        ] {
            let expected = format!("s.toml:1:1: unknown field `{theirs}`: did you mean `{ours}`?");
            assert_eq!(said(&format!("{theirs} = 1")), expected);
        }
        assert_eq!(
            said("xyz = 1"),
            "s.toml:1:1: unknown field `xyz`: `mtlora config schema` lists the settings that a file may have"
        );
    }

    #[test]
    fn flags_that_are_no_settings_are_named_as_such() {
        for flag in elsewhere::COMMAND_LINE {
            let written = flag.replace('_', "-");
            assert_eq!(
                said(&format!("{flag} = 1")),
                format!(
                    "s.toml:1:1: `{flag}` is given on the command line (--{written}), not in a file"
                )
            );
        }
        assert_eq!(
            said("output_dir = 'runs/x'"),
            "s.toml:1:1: unknown field `output_dir`: here it is `out`, which is given on the command line (--out), not in \
             a file"
        );
    }

    #[test]
    fn values_of_the_wrong_kind_are_refused_in_plain_words() {
        for (line, expected) in [
            (
                "rank = -4",
                "1:8: `rank` must be a whole number, 0 or more, not -4",
            ),
            (
                "epochs = 1.5",
                "1:10: `epochs` must be a whole number, 0 or more, not 1.5",
            ),
            (
                "lr = '2e-3'",
                "1:6: `lr` must be a number, not the text \"2e-3\"",
            ),
            ("lr = [1]", "1:6: `lr` must be a number, not a list"),
            (
                "threads = 0",
                "1:11: `threads` must be a whole number, 1 or more, not 0",
            ),
            (
                "labels = 'a'",
                "1:10: `labels` must be a list in [ ], not the text \"a\"",
            ),
            (
                "labels = [3]",
                "1:11: each value of `labels` must be a text in quotes, not 3",
            ),
            (
                "regression = 1",
                "1:14: `regression` must be true or false, not 1",
            ),
            (
                "method = 'lora'",
                "1:10: `lora` is a structure of method mtlora: use --structure lora",
            ),
            (
                "structure = 'lra'",
                "1:13: unknown structure `lra`: one of lora, ",
            ),
            (
                "lr_scheduler_type = 'cosin'",
                "1:21: unknown learning-rate scheduler `cosin`: one of linear, ",
            ),
            (
                "metric_for_best_model = 'acc'",
                "1:25: unknown metric `acc`, expected one of ",
            ),
        ] {
            let said = said(line);
            assert!(
                said.starts_with(&format!("s.toml:{expected}")),
                "{line}: {said}"
            );
        }
    }
}
