//! Everything that a training needs to be resumed as if it had never stopped.

use mtlora_core::{HookError, State};

use crate::metrics::labels::Scores;
use crate::training::optimizer::state::OptimizerState;
use crate::training::options::TrainOptions;

/// A training between two of its steps.
///
/// Everything else follows from it: the learning rate and the order of the data from the options
/// and the number of steps, the initial values from the seed.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    /// The options of the training.
    pub options: TrainOptions,
    /// Steps made.
    pub step: usize,
    /// Tokens that were read in them.
    pub tokens: usize,
    /// Seconds that the steps took, without evaluations.
    pub seconds: f64,
    /// Evaluations since the best one.
    pub evals_since_best: usize,
    /// The state that the masks of dropout come from: [`random_state`](mtlora_core::random_state).
    pub random: u64,
    /// The scores before the first step.
    pub before: Scores,
    /// The last scores.
    pub last: Scores,
    /// The best so far, if there was an evaluation.
    pub best: Option<Best>,
    /// The parameters that train, by path.
    pub model: State,
    /// The state of the optimizer.
    pub optimizer: OptimizerState,
    /// What the adapter method's [`TrainingHooks`](mtlora_core::TrainingHooks) keep, by name. Most methods keep nothing.
    pub hooks: State,
    /// What shows that the examples and the frozen weights are the same.
    pub fingerprints: Fingerprints,
}

/// [`Fingerprint`](crate::Fingerprint)s of what a training needs and a snapshot does not contain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fingerprints {
    /// Of the examples.
    pub data: String,
    /// Of the parameters that do not train.
    pub base: String,
}

/// The state with the best score.
#[derive(Clone, Debug, PartialEq)]
pub struct Best {
    /// Its scores.
    pub scores: Scores,
    /// The steps after which it was.
    pub step: usize,
    /// The parameters that train, by path.
    pub values: State,
}

/// The reason why a training cannot be resumed from a [`Snapshot`].
#[derive(Debug, thiserror::Error, PartialEq)]
#[non_exhaustive]
pub enum ResumeError {
    /// A setting has changed.
    #[error(
        "`{setting}` was {was} when the run was stopped and is {is} now: a run that goes on keeps its settings. \
         Set it back, or start a new run (with --init-from if it should start with this one's adapter)"
    )]
    Setting {
        /// The setting, as `run.toml` has it.
        setting: String,
        /// Its value then.
        was: String,
        /// Its value now.
        is: String,
    },
    /// The examples have changed.
    #[error(
        "the examples are not those that the run began with: its data or its tokenizer has changed. \
         Put them back, or start a new run"
    )]
    Data,
    /// The base model has changed.
    #[error(
        "the base model's weights are not those that the run began with. Put the model's folder back as it was, \
         or start a new run"
    )]
    Base,
    /// The adapter method's hooks refuse the state that they had.
    #[error(transparent)]
    Hooks(#[from] HookError),
    /// The adapter method had hooks.
    #[error(
        "the run was stopped with a state of its adapter method's training hooks, and now trains without them: pass the \
         same hooks again"
    )]
    NoHooks,
    /// Other parameters train.
    #[error(
        "what trains has changed: {}. Put the run's settings and its model's folder back as they were, or start a \
         new run",
        if *.missing { format!("`{path}` is new") } else { format!("`{path}` is gone") }
    )]
    Trains {
        /// The first such parameter.
        path: String,
        /// Whether the snapshot lacks it; else the model does.
        missing: bool,
    },
}

impl Snapshot {
    /// Checks that a training with these options, examples, frozen parameters and values that train is the one that
    /// this is of.
    ///
    /// # Errors
    /// With the first thing that differs.
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

/// The first setting that differs between two tables.
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
