//! The state of a training from which it can be resumed as if it had never stopped.

use mtlora_core::{HookError, State};

use crate::metrics::labels::Scores;
use crate::training::optimizer::state::OptimizerState;
use crate::training::options::TrainOptions;

/// The state of a training between two steps.
///
/// Everything else follows from it: the learning rate and the order of the data follow from the options and the
/// number of steps, and the initial values from the seed.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    /// The options of the training.
    pub options: TrainOptions,
    /// The number of steps so far.
    pub step: usize,
    /// The number of tokens that were read in these steps.
    pub tokens: usize,
    /// The time that the steps took in seconds, without evaluations.
    pub seconds: f64,
    /// The number of evaluations since the best one.
    pub evals_since_best: usize,
    /// The state of the generator of dropout masks, from [`random_state`](mtlora_core::random_state).
    pub random: u64,
    /// The scores before the first step.
    pub before: Scores,
    /// The scores of the last evaluation.
    pub last: Scores,
    /// The best state so far; `None` before the first evaluation.
    pub best: Option<Best>,
    /// The values of the trained parameters, by path.
    pub model: State,
    /// The state of the optimizer.
    pub optimizer: OptimizerState,
    /// The state of the adapter method's [`TrainingHooks`](mtlora_core::TrainingHooks), by name; empty for most
    /// methods.
    pub hooks: State,
    /// Identifies the examples and the frozen weights.
    pub fingerprints: Fingerprints,
}

/// The [`Fingerprint`](crate::Fingerprint)s of the data that a training needs and a snapshot does not contain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fingerprints {
    /// The fingerprint of the examples.
    pub data: String,
    /// The fingerprint of the frozen parameters.
    pub base: String,
}

/// The state with the best score.
#[derive(Clone, Debug, PartialEq)]
pub struct Best {
    /// The scores of this state.
    pub scores: Scores,
    /// The number of steps after which it was reached.
    pub step: usize,
    /// The values of the trained parameters, by path.
    pub values: State,
}

/// The reason why a training cannot be resumed from a [`Snapshot`].
#[derive(Debug, thiserror::Error, PartialEq)]
#[non_exhaustive]
pub enum ResumeError {
    /// A setting has changed.
    #[error(
        "`{setting}` was {was} when the run was stopped and is {is} now, but a resumed run must keep its settings. \
         Set it back, or start a new run (with --init-from if it should start with this one's adapter)"
    )]
    Setting {
        /// The name of the setting, as in `run.toml`.
        setting: String,
        /// The value when the run was stopped.
        was: String,
        /// The value now.
        is: String,
    },
    /// The examples have changed.
    #[error(
        "the examples are not those that the run started with: its data or its tokenizer has changed. \
         Restore them, or start a new run"
    )]
    Data,
    /// The base model has changed.
    #[error(
        "the base model's weights are not those that the run started with. Restore the model's folder, or start a new \
         run"
    )]
    Base,
    /// The adapter method's hooks reject their stored state.
    #[error(transparent)]
    Hooks(#[from] HookError),
    /// The snapshot has a state of training hooks, but there are no hooks now.
    #[error(
        "the run was stopped with the state of its adapter method's training hooks, and is now resumed without them; \
         pass the same hooks again"
    )]
    NoHooks,
    /// The set of trained parameters has changed.
    #[error(
        "the set of trained parameters has changed: {}. Restore the run's settings and its model's folder, or start a \
         new run",
        if *.missing { format!("`{path}` is new") } else { format!("`{path}` is gone") }
    )]
    Trains {
        /// The path of the first parameter that differs.
        path: String,
        /// Whether the snapshot lacks the parameter; otherwise the model lacks it.
        missing: bool,
    },
}

impl Snapshot {
    /// Checks that the snapshot belongs to a training with these options, fingerprints and trained parameters.
    ///
    /// # Errors
    /// When something differs; the error names the first difference.
    pub fn check(
        &self,
        options: &TrainOptions,
        fingerprints: &Fingerprints,
        trains: &State,
    ) -> Result<(), ResumeError> {
        if let Some(setting) = changed_setting(&self.options, options) {
            return Err(setting);
        }
        if self.fingerprints.data != fingerprints.data {
            return Err(ResumeError::Data);
        }
        let lacking = |these: &State, those: &State, missing| {
            let mut paths = these.keys();
            let path = paths.find(|path| !those.contains_key(*path))?.clone();
            Some(ResumeError::Trains { path, missing })
        };
        let differs =
            lacking(trains, &self.model, true).or_else(|| lacking(&self.model, trains, false));
        if let Some(error) = differs {
            return Err(error);
        }
        if self.fingerprints.base == fingerprints.base {
            Ok(())
        } else {
            Err(ResumeError::Base)
        }
    }
}

fn changed_setting(was: &TrainOptions, is: &TrainOptions) -> Option<ResumeError> {
    let [was, is] = [was, is].map(|options| toml::Table::try_from(options).unwrap_or_default());
    changed(&was, &is)
}

/// The first setting that differs between two tables of settings.
pub(crate) fn changed(was: &toml::Table, is: &toml::Table) -> Option<ResumeError> {
    for name in was.keys().chain(is.keys()) {
        match (was.get(name), is.get(name)) {
            (was, is) if was == is => {}
            (Some(toml::Value::Table(was)), Some(toml::Value::Table(is))) => {
                return changed(was, is).map(|error| match error {
                    ResumeError::Setting { setting, was, is } => ResumeError::Setting {
                        setting: format!("{name}.{setting}"),
                        was,
                        is,
                    },
                    other => other,
                });
            }
            (was, is) => {
                let shown = |value: Option<&toml::Value>| match value {
                    Some(value) => value.to_string(),
                    None => "not set".to_string(),
                };
                return Some(ResumeError::Setting {
                    setting: name.clone(),
                    was: shown(was),
                    is: shown(is),
                });
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_setting_is_named_with_both_values() {
        let was = TrainOptions::default();
        let is = TrainOptions {
            learning_rate: 1e-3,
            ..was.clone()
        };
        assert_eq!(changed_setting(&was, &was), None);
        let text = changed_setting(&was, &is).map(|error| error.to_string());
        let text = text.unwrap_or_default();
        assert!(
            text.starts_with(
                "`learning_rate` was 0.0004 when the run was stopped and is 0.001 now"
            ),
            "{text}"
        );
        let is = TrainOptions {
            batch: crate::BatchSize::Sequences(8),
            patience: Some(2),
            ..was.clone()
        };
        let text = changed_setting(&was, &is).map(|error| error.to_string());
        assert!(
            text.unwrap_or_default()
                .starts_with("`batch.sequences` was 32")
        );
        let is = TrainOptions {
            patience: Some(2),
            ..was.clone()
        };
        let text = changed_setting(&was, &is).map(|error| error.to_string());
        assert!(
            text.unwrap_or_default()
                .starts_with("`patience` was not set")
        );
    }
}
