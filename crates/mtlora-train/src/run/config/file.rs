//! Reads and writes `run.toml`, which has the configuration of a run and a format number.

use crate::run::config::earlier::Format2;
use crate::run::config::settings::RunConfig;

/// The key of the format number, which is on the first line.
const FORMAT_KEY: &str = "format";
/// The format that is written. [`Format2`] can be read, too.
const FORMAT: i64 = 3;
const EARLIER_FORMAT: i64 = 2;

/// Writes `config` as the text of `run.toml`.
///
/// # Errors
/// If a value cannot be written as TOML, such as a path that is not Unicode.
pub(crate) fn write(config: &RunConfig) -> Result<String, toml::ser::Error> {
    let text = toml::to_string_pretty(config)?;
    Ok(format!("{FORMAT_KEY} = {FORMAT}\n{text}"))
}

/// Reads the text of a `run.toml`.
///
/// # Errors
/// If the text is not a configuration (the error names the line), or its format is unknown.
pub(crate) fn read(text: &str) -> Result<RunConfig, String> {
    // If the text is not TOML, the error is about its syntax.
    let table = text
        .parse::<toml::Table>()
        .map_err(|error| error.to_string())?;
    if table.is_empty() {
        return Err("the file is empty: the run is damaged".to_string());
    }
    let rest = without_format(text);
    match table.get(FORMAT_KEY).map(toml::Value::as_integer) {
        Some(Some(FORMAT)) => toml::from_str(&rest).map_err(|error| {
            match Format2::read(&rest) {
                Ok(_) => wrong_format(FORMAT, EARLIER_FORMAT),
                Err(_) => error.to_string(),
            }
        }),
        Some(Some(EARLIER_FORMAT)) => {
            Format2::read(&rest)
                .map(RunConfig::from)
                .map_err(|error| match toml::from_str::<RunConfig>(&rest) {
                    Ok(_) => wrong_format(EARLIER_FORMAT, FORMAT),
                    Err(_) => error.to_string(),
                })
        }
        None => Err(
            "the run was made by an earlier build of mtlora, which stored adapters in another format; \
             train it again, or merge it with that build and use the merged folder as the model"
                .to_string(),
        ),
        Some(_) => Err(format!(
            "`{FORMAT_KEY}` is neither {FORMAT} nor {EARLIER_FORMAT}: the run was made by another build of mtlora; use \
             that build"
        )),
    }
}

/// The reason why a file whose settings have the layout of the format `is` cannot be read as the format `marked`.
fn wrong_format(marked: i64, is: i64) -> String {
    format!(
        "`{FORMAT_KEY}` is {marked}, but the settings have the layout of format {is}: change the line to {FORMAT_KEY} = \
         {is}"
    )
}

/// The text without the format key. The other lines keep their line numbers, for error messages.
fn without_format(text: &str) -> String {
    let mut found = false;
    let mut rest = String::with_capacity(text.len());
    for line in text.lines() {
        let is_format = line
            .split_once('=')
            .is_some_and(|(key, _)| key.trim() == FORMAT_KEY);
        if is_format && !found {
            found = true;
        } else {
            rest.push_str(line);
        }
        rest.push('\n');
    }
    rest
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::path::PathBuf;

    use super::*;
    use crate::data::example::Objective;
    use crate::run::config::settings::{
        ChatRun, ClassificationRun, GenerationRun, RunKind, example,
    };
    use crate::tasks::chat::TooLongChat;
    use crate::training::normalization::LossNormalization;
    use mtlora_models::{GenerationConfig, LossOn};

    const CLASSIFICATION: &str = include_str!("earlier/classification.toml");
    const GENERATION: &str = include_str!("earlier/generation.toml");

    #[test]
    fn a_configuration_is_read_as_it_was_written() {
        let mut config = example();
        assert_eq!(read(&write(&config).unwrap()), Ok(config.clone()));
        config.kind = RunKind::Generation(GenerationRun {
            train_split: "train".to_string(),
            label_smoothing: 0.1,
            final_scores: true,
            pairs: None,
            decoding: GenerationConfig::default(),
        });
        let text = write(&config).unwrap();
        assert!(text.starts_with("format = 3\n"), "{text}");
        assert_eq!(read(&text), Ok(config.clone()));
        config.kind = RunKind::Chat(ChatRun {
            loss_on: LossOn::Completion,
            too_long: TooLongChat::Drop,
            label_smoothing: 0.0,
            decoding: GenerationConfig::default(),
        });
        let text = write(&config).unwrap();
        assert!(
            text.contains("loss_on = \"completion\"\ntoo_long = \"drop\"\n"),
            "{text}"
        );
        assert_eq!(read(&text), Ok(config));
    }

    #[test]
    fn runs_of_the_previous_format_can_be_read() {
        let config = read(CLASSIFICATION).unwrap();
        assert_eq!(config.base.model, PathBuf::from("/models/roberta-base"));
        assert_eq!(config.base.max_length, 64);
        assert_eq!(config.base.adapter.targets.as_deref(), Some("all-linear"));
        assert_eq!(config.data.task, "acceptability");
        assert_eq!(config.training.epochs, 5);
        let labels = ["unacceptable", "acceptable"].map(str::to_string).to_vec();
        let RunKind::Classification(ClassificationRun { head, table }) = config.kind else {
            panic!("a classification");
        };
        assert_eq!(head.objective, Objective::Classification { labels });
        assert!(head.fresh && table.is_none());

        // A run that started from an adapter whose targets have no form as a setting stored a description of them.
        let described = CLASSIFICATION.replacen(
            "targets = \"all-linear\"",
            "init_from = \"a\"\ntargets = \"query of some layers\"",
            1,
        );
        assert_eq!(read(&described).unwrap().base.adapter.targets, None);

        let config = read(GENERATION).unwrap();
        assert_eq!(config.base.adapter.projections.as_deref(), Some("qkv"));
        let RunKind::Generation(kind) = config.kind else {
            panic!("a generation");
        };
        assert_eq!(
            (kind.train_split.as_str(), kind.final_scores),
            ("train", true)
        );
        assert_eq!((kind.label_smoothing, kind.decoding.num_beams), (0.1, 10));
    }

    #[test]
    fn a_wrong_format_number_is_explained() {
        for text in [CLASSIFICATION, GENERATION] {
            let marked = text.replacen("format = 2", "format = 3", 1);
            let error = read(&marked).unwrap_err();
            assert!(error.ends_with("change the line to format = 2"), "{error}");
        }
        let marked = write(&example())
            .unwrap()
            .replacen("format = 3", "format = 2", 1);
        let error = read(&marked).unwrap_err();
        assert!(error.ends_with("change the line to format = 3"), "{error}");
    }

    #[test]
    fn a_run_without_loss_normalization_uses_batch() {
        let read = |text: &str| read(text).unwrap().training.loss_normalization;
        assert_eq!(read(CLASSIFICATION), LossNormalization::Step);
        let line = "loss_normalization = \"step\"\n";
        assert!(CLASSIFICATION.contains(line));
        let without = CLASSIFICATION.replacen(line, "", 1);
        assert_eq!(read(&without), LossNormalization::Batch);
    }

    #[test]
    fn an_unknown_key_is_reported_with_its_line() {
        for text in [CLASSIFICATION, GENERATION, &write(&example()).unwrap()] {
            let changed = text.replacen("epochs =", "epcohs =", 1);
            let line = text
                .lines()
                .position(|line| line.starts_with("epochs ="))
                .unwrap()
                + 1;
            let error = read(&changed).unwrap_err();
            let place = format!("line {line}");
            assert!(
                error.contains(&place) && error.contains("epcohs"),
                "{error}"
            );
        }
    }

    #[test]
    fn runs_of_other_builds_are_refused_with_a_remedy() {
        let text = write(&example()).unwrap();
        let without = text.replacen("format = 3\n", "", 1);
        assert!(read(&without).unwrap_err().contains("earlier build"));
        for format in ["4", "\"x\"", "1"] {
            let other = text.replacen("format = 3", &format!("format = {format}"), 1);
            assert!(read(&other).unwrap_err().contains("another build"));
        }
        assert!(read("\n").unwrap_err().contains("is damaged"));
        assert!(read("what = is this").is_err());
    }
}
