//! Prints the sizes before a training, and the scores after it.

use std::error::Error;

use burn::module::Module;
use mtlora::core::trainable_parameters;
use mtlora::train::report::write_model_card;
use mtlora::train::{DataSpec, MetricName, ParameterCounts, Run, RunError, RunResults, Scores};

use crate::cli::console::output;
use crate::cli::eval::generation_scores::GenerationScores;
use crate::cli::text::held_back::HELD_BACK;

/// The sizes of the data and the model.
#[derive(Clone, Copy)]
pub(crate) struct Sizes {
    /// The number of training examples.
    pub(crate) train: usize,
    /// The number of examples of the dev split.
    pub(crate) dev: usize,
    /// Whether the dev examples were held back from the train split.
    pub(crate) held_back: bool,
    /// The numbers of parameters of the model.
    pub(crate) parameters: ParameterCounts,
}

impl Sizes {
    /// The numbers of examples in `train` and `dev`, and of parameters of `model`.
    pub(crate) fn of<M: Module, T>(train: &[T], dev: &[T], data: &DataSpec, model: &M) -> Self {
        Self {
            train: train.len(),
            dev: dev.len(),
            held_back: data.validation_fraction.is_some(),
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
            held_back,
            parameters: ParameterCounts { trainable, total },
        } = self;
        let share = 100.0 * trainable as f64 / total as f64;
        let dev_split = chosen_on(held_back);
        note!(
            "{task}: {train} train and {dev} {dev_split} examples; {trainable} of {total} parameters train \
             ({share:.2} %), on {device}"
        );
    }
}

/// The name of the examples on which the best state is chosen.
pub(crate) fn chosen_on(held_back: bool) -> &'static str {
    if held_back { HELD_BACK } else { "dev" }
}

/// Writes the results, which marks the run as complete, and its model card.
pub(crate) fn save(run: &Run, results: &RunResults) -> Result<(), RunError> {
    run.save_results(results)?;
    // The run is complete, whether it has a card or not.
    if let Err(error) = write_model_card(run.folder()) {
        note!("the model card could not be written: {error}");
    }
    Ok(())
}

/// The scores of a completed run.
pub(crate) struct Outcome<'a> {
    /// What the best state was chosen on.
    pub(crate) chosen_on: &'static str,
    /// The metric by which it was chosen.
    pub(crate) metric: MetricName,
    /// The scores before the first step.
    pub(crate) before: &'a Scores,
    /// The scores of the best state.
    pub(crate) best: &'a Scores,
    /// The scores of the texts that the best state generates, if they were scored.
    pub(crate) texts: Option<&'a GenerationScores>,
    /// The scores of the split that was to be scored after training.
    pub(crate) scored: Option<(&'a str, &'a Scores)>,
    /// All results, as in `results.json`.
    pub(crate) results: &'a RunResults,
}

impl Outcome<'_> {
    /// What to know if the kept state is worse than the model was before training.
    fn worse(&self) -> Option<String> {
        let (name, dev) = (self.metric.as_str(), self.chosen_on);
        let (before, kept) = (self.before.get(self.metric)?, self.best.get(self.metric)?);
        let is_worse = match self.metric.higher_is_better() {
            true => kept < before,
            false => kept > before,
        };
        is_worse.then(|| {
            format!(
                "the kept state scores worse than the model did before training: {dev} {name} {kept:.4}, and {before:.4} \
                 before. Another learning rate (--lr) or more steps may help"
            )
        })
    }

    /// When and why the training ended, if that was before its last step.
    fn stopped_early(&self) -> Option<String> {
        let (name, dev) = (self.metric.as_str(), self.chosen_on);
        let RunResults {
            steps,
            planned_steps,
            ..
        } = self.results;
        self.results.stopped_early().then(|| {
            format!(
                "the training stopped after {steps} of {planned_steps} steps, because the {dev} {name} no longer improved \
                 (--patience)"
            )
        })
    }

    /// Prints the scores and the folder of the run.
    pub(crate) fn print(&self, run: &Run, json: bool) -> Result<(), Box<dyn Error>> {
        let dev = self.chosen_on;
        say!("{dev} before: {}", output::describe(self.before))?;
        say!(
            "{dev} after:  {} (step {})",
            output::describe(self.best),
            self.results.best_step
        )?;
        if let Some(early) = self.stopped_early() {
            say!("{early}")?;
        }
        if let Some(worse) = self.worse() {
            note!("{worse}");
        }
        if let Some((split, scores)) = self.scored {
            say!("{split}: {}", output::describe(scores))?;
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_training_that_stopped_early_says_so() {
        let scores = Scores::default();
        let said = |steps, planned_steps| {
            let results = RunResults {
                steps,
                planned_steps,
                ..RunResults::default()
            };
            let outcome = Outcome {
                chosen_on: "dev",
                metric: MetricName::Accuracy,
                before: &scores,
                best: &scores,
                scored: None,
                texts: None,
                results: &results,
            };
            outcome.stopped_early()
        };
        let early = said(40, 120).unwrap_or_default();
        assert!(
            early.contains("after 40 of 120 steps") && early.contains("dev accuracy"),
            "{early}"
        );
        assert_eq!(said(120, 120), None);
        // Results of a version that did not write the number of planned steps.
        assert_eq!(said(120, 0), None);
    }

    #[test]
    fn a_kept_state_that_is_worse_than_the_beginning_is_noted() {
        let scores = |accuracy, loss| {
            let mut scores = Scores::default();
            scores.set(MetricName::Accuracy, accuracy);
            scores.set(MetricName::Loss, loss);
            scores
        };
        let results = RunResults::default();
        let (before, best) = (scores(0.75, 0.6), scores(0.5, 0.4));
        let worse = |metric, before: &Scores, best: &Scores| {
            let outcome = Outcome {
                chosen_on: "held-back",
                metric,
                before,
                best,
                scored: None,
                texts: None,
                results: &results,
            };
            outcome.worse()
        };
        let said = worse(MetricName::Accuracy, &before, &best).unwrap_or_default();
        assert!(
            said.contains("held-back accuracy 0.5000, and 0.7500 before"),
            "{said}"
        );
        assert_eq!(worse(MetricName::Accuracy, &best, &before), None);
        assert_eq!(worse(MetricName::Accuracy, &best, &best), None);
        assert_eq!(worse(MetricName::Loss, &before, &best), None);
        assert!(worse(MetricName::Loss, &best, &before).is_some());
    }
}
