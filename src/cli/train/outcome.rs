//! What `mtlora train` prints before and after the training.

use std::error::Error;

use burn::module::Module;
use mtlora::core::trainable_parameters;
use mtlora::train::{ParameterCounts, Run, RunResults, Scores};

use crate::cli::console::output;
use crate::cli::eval::generation_scores::GenerationScores;

/// How progress and results are shown.
#[derive(Clone, Copy)]
pub(crate) struct Output {
    /// Plain lines in place of the dashboard.
    pub(crate) plain: bool,
    /// End with one JSON object.
    pub(crate) json: bool,
}

/// The sizes of the data and the model.
#[derive(Clone, Copy)]
pub(crate) struct Sizes {
    /// The examples to train on.
    pub(crate) train: usize,
    /// The examples of the dev split.
    pub(crate) dev: usize,
    /// The values of the model.
    pub(crate) parameters: ParameterCounts,
}

impl Sizes {
    /// The sizes of the data in `train` and `dev` and of `model`.
    pub(crate) fn of<M: Module, T>(train: &[T], dev: &[T], model: &M) -> Self {
        Self {
            train: train.len(),
            dev: dev.len(),
            parameters: ParameterCounts {
                trainable: trainable_parameters(model),
                total: model.num_params(),
            },
        }
    }

    /// Prints them, with the device that computes.
    pub(crate) fn print(self, task: &str, device: &str) {
        let Self {
            train,
            dev,
            parameters: ParameterCounts { trainable, total },
        } = self;
        let share = 100.0 * trainable as f64 / total as f64;
        note!(
            "{task}: {train} train and {dev} dev examples; {trainable} of {total} parameters train \
             ({share:.2} %), on {device}"
        );
    }
}

/// The scores of a run that has ended.
pub(crate) struct Outcome<'a> {
    /// Before the first step.
    pub(crate) before: &'a Scores,
    /// Of the best state.
    pub(crate) best: &'a Scores,
    /// Of the texts that the best state writes, if they were scored.
    pub(crate) texts: Option<&'a GenerationScores>,
    /// All, as `results.json` has them.
    pub(crate) results: &'a RunResults,
}

impl Outcome<'_> {
    /// Prints the scores, and where the run is.
    pub(crate) fn print(&self, run: &Run, json: bool) -> Result<(), Box<dyn Error>> {
        say!("dev before: {}", output::describe(self.before))?;
        say!(
            "dev after:  {} (step {})",
            output::describe(self.best),
            self.results.best_step
        )?;
        if let Some(texts) = self.texts {
            texts.say()?;
        }
        say!("the run is in {}", run.folder().display())?;
        if json {
            output::json(self.results)?;
        }
        Ok(())
    }
}
