//! Prints the sizes before a training, and the scores after it.

use std::error::Error;

use burn::module::Module;
use mtlora::core::trainable_parameters;
use mtlora::train::{ParameterCounts, Run, RunResults, Scores};

use crate::cli::console::output;
use crate::cli::eval::generation_scores::GenerationScores;

/// The flags for the output of `mtlora train`.
#[derive(Clone, Copy)]
pub(crate) struct Output {
    /// Print plain lines instead of the dashboard.
    pub(crate) plain: bool,
    /// End standard output with one JSON object.
    pub(crate) json: bool,
}

/// The sizes of the data and the model.
#[derive(Clone, Copy)]
pub(crate) struct Sizes {
    /// The number of training examples.
    pub(crate) train: usize,
    /// The number of examples of the dev split.
    pub(crate) dev: usize,
    /// The numbers of parameters of the model.
    pub(crate) parameters: ParameterCounts,
}

impl Sizes {
    /// The numbers of examples in `train` and `dev`, and of parameters of `model`.
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

    /// Prints the sizes and the device.
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

/// The scores of a completed run.
pub(crate) struct Outcome<'a> {
    /// The scores before the first step.
    pub(crate) before: &'a Scores,
    /// The scores of the best state.
    pub(crate) best: &'a Scores,
    /// The scores of the texts that the best state generates, if they were scored.
    pub(crate) texts: Option<&'a GenerationScores>,
    /// All results, as in `results.json`.
    pub(crate) results: &'a RunResults,
}

impl Outcome<'_> {
    /// Prints the scores and the folder of the run.
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
