//! Checks settings without looking for a model or data.

use std::error::Error;

use mtlora::train::{OptionError, RunError, SaveOptions, TrainOptions};

use crate::cli::settings::flags::Settings;
use crate::cli::settings::source::{Mistakes, Source};

/// What is wrong with settings that can be read.
pub(crate) struct Wrong {
    /// The settings that it is about, the most important first.
    keys: Vec<String>,
    pub(crate) message: String,
}

impl Wrong {
    /// Where the settings of the file are that it is about, in the table of this name or at the top.
    fn place(&self, source: &Source, table: Option<&str>) -> Option<usize> {
        let mut root = source.entries().ok()?;
        let entries = match table {
            Some(name) => root.take_table(name).ok()?,
            None => root,
        };
        let mut keys = self.keys.iter();
        keys.find_map(|key| entries.place_of(key))
    }

    /// Adds it to the mistakes of a file.
    pub(crate) fn add_to(&self, mistakes: &mut Mistakes, source: &Source, table: Option<&str>) {
        let at = self.place(source, table).unwrap_or(0);
        mistakes.add(at, source.error(at, &self.message));
    }

    /// A note about the file, with the place.
    pub(crate) fn note(&self, source: &Source) -> String {
        source.error(self.place(source, None).unwrap_or(0), &self.message)
    }
}

impl Settings {
    /// Everything that is wrong with them: the task, if one is named, is unknown or does not have one of them, or a number is
    /// out of range.
    pub(crate) fn wrong(&self) -> Vec<Wrong> {
        // The message begins with the flag.
        if let Err(message) = self.given() {
            let flag = message.split([' ', ':']).next().unwrap_or_default();
            let keys = vec![flag.trim_start_matches('-').replace('-', "_")];
            return vec![Wrong { keys, message }];
        }
        let mut all = Vec::new();
        if let Some(Err(error)) = self.task.as_ref().map(|task| self.check_for_task(task)) {
            all.push(Wrong {
                keys: vec!["task".to_string()],
                message: error.to_string(),
            });
        }
        // The check names the first number that is out of range, and then the next one among the others.
        let mut rest = self.clone();
        loop {
            let options = rest.training(TrainOptions::default()).validate();
            let saving = rest.checkpoints(SaveOptions::default()).validate();
            let Err(error) = options.and(saving) else {
                return all;
            };
            let Ok(mut given) = rest.given() else {
                return all;
            };
            let mut keys: Vec<&str> = keys_of(error.option).to_vec();
            keys.retain(|key| given.contains_key(*key));
            if keys.is_empty() {
                return all;
            }
            all.push(Wrong {
                message: format!("{} must {}", keys.join(" and "), error.requirement),
                keys: keys.iter().map(ToString::to_string).collect(),
            });
            given.retain(|key, _| !keys.contains(&key));
            match given.try_into() {
                Ok(others) => rest = others,
                Err(_) => return all,
            }
        }
    }

    /// The settings of an adapter that have no effect, because the method trains none.
    pub(crate) fn without_effect(&self) -> Option<Wrong> {
        let (method, idle) = self.idle().ok()??;
        let verb = if idle.len() == 1 { "has" } else { "have" };
        Some(Wrong {
            message: format!(
                "method {method} has no adapter, so {} {verb} no effect",
                idle.join(", ")
            ),
            keys: idle.iter().map(ToString::to_string).collect(),
        })
    }

    /// Checks these settings, which those of a file and the given flags make together. What is wrong with a setting of the file
    /// is said with its place.
    ///
    /// # Errors
    /// If something is wrong with a setting that is in the file and not overridden: a line for each.
    pub(super) fn check_file(&self, source: &Source, flags: &toml::Table) -> Result<(), String> {
        let mut mistakes = Mistakes::default();
        for wrong in self.wrong() {
            let is_of_file = !wrong.keys.iter().any(|key| flags.contains_key(key));
            if is_of_file && wrong.place(source, None).is_some() {
                wrong.add_to(&mut mistakes, source, None);
            }
        }
        mistakes.into_result()
    }
}

/// What is wrong with an option of `train`, by the name of its flag.
pub(crate) fn in_flags(error: &(dyn Error + 'static)) -> Option<String> {
    let option = match error.downcast_ref::<RunError>() {
        Some(RunError::Option(option)) => option,
        _ => error.downcast_ref::<OptionError>()?,
    };
    let flag = Settings::flag_of(&format!("training.{}", option.option))?;
    Some(format!("{flag} must {}", option.requirement))
}

/// The settings that decide an option of run.toml.
fn keys_of(option: &'static str) -> &'static [&'static str] {
    match option {
        "batch.sequences" => &["batch"],
        "batch.tokens" => &["batch_tokens"],
        "learning_rate" => &["lr"],
        "gradient_accumulation" => &["gradient_accumulation"],
        "epochs" => &["epochs"],
        "max_steps" => &["max_steps"],
        "warmup_ratio" => &["warmup_ratio"],
        "decay_ratio" => &["decay_ratio"],
        "adam.beta1" => &["adam_beta1"],
        "adam.beta2" => &["adam_beta2"],
        "adam.epsilon" => &["adam_epsilon"],
        "weight_decay" => &["weight_decay"],
        "lora_plus.lr_ratio" => &["loraplus_lr_ratio"],
        "lora_plus.lr_ratio_t" => &["loraplus_lr_ratio_t"],
        "max_grad_norm" => &["max_grad_norm"],
        "eval_steps" => &["eval_steps"],
        "patience" => &["patience"],
        "save_steps" => &["save_steps"],
        "save_minutes" => &["save_minutes"],
        "save_total_limit" => &["save_total_limit"],
        // A setting of the same name, or one that is not in a file.
        _ => &[],
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn messages(toml: &str) -> Vec<String> {
        let settings: Settings = toml::from_str(toml).unwrap();
        settings
            .wrong()
            .into_iter()
            .map(|one| one.message)
            .collect()
    }

    #[test]
    fn everything_that_is_wrong_is_found() {
        let found = messages(
            "task = 'cula'\nlr = 0\nepochs = 0\nbatch_tokens = 0\nsave_steps = 0\nseed = 3\n",
        );
        assert!(found[0].starts_with("unknown task `cula`"), "{found:?}");
        let rest = [
            "batch_tokens must be at least 1",
            "lr must be a positive number",
            "epochs must be at least 1",
            "save_steps must be at least 1",
        ];
        assert_eq!(found[1..], rest);
        assert!(messages("task = 'cola'\nepochs = 1\n").is_empty());
        let found = messages("seed = 9223372036854775808\n");
        assert_eq!(found, ["--seed must be at most 9223372036854775807"]);
    }

    #[test]
    fn settings_that_a_task_does_not_use_are_refused() {
        for (toml, message) in [
            (
                "task = 'cola'\ntext_column = 'x'\nregression = true",
                "only the task table has text_column, regression; the task is cola: leave them out",
            ),
            (
                "task = 'e2e'\nprompt_column = 'x'",
                "only the task pairs has prompt_column; the task is e2e: leave them out",
            ),
            (
                "task = 'cola'\nmetric_for_best_model = 'pearson'",
                "metric_for_best_model is pearson, which is not computed here: choose one of matthews, loss",
            ),
            (
                "task = 'chat'\nmetric_for_best_model = 'accuracy'",
                "metric_for_best_model is accuracy, which is not computed here: choose one of loss, perplexity, token_accuracy",
            ),
        ] {
            assert_eq!(messages(toml), [message], "{toml}");
        }
        for toml in [
            "task = 'table'\ntext_column = 'x'\nregression = true\nmetric_for_best_model = 'pearson'",
            "task = 'pairs'\nprompt_column = 'x'",
            "task = 'cola'\nmetric_for_best_model = 'loss'",
        ] {
            assert!(messages(toml).is_empty(), "{toml}");
        }
    }

    #[test]
    fn settings_of_an_adapter_have_no_effect_without_one() {
        let note = |toml: &str| {
            let settings: Settings = toml::from_str(toml).unwrap();
            settings.without_effect().map(|one| one.message)
        };
        assert_eq!(
            note("method = 'full'\nrank = 4\nstructure = 'lora'\n").as_deref(),
            Some("method full has no adapter, so structure, rank have no effect")
        );
        assert_eq!(
            note("method = 'head'\ntargets = 'query'\n").as_deref(),
            Some("method head has no adapter, so targets has no effect")
        );
        assert_eq!(note("method = 'bitfit'\nlr = 1\n"), None);
        assert_eq!(note("method = 'mtlora'\nrank = 4\n"), None);
        assert_eq!(note("rank = 4\n"), None);
    }
}
