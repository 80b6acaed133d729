//! When a run's checkpoints are made, and which are kept.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::run::checkpoints::CheckpointContents;
use crate::run::folder::Run;
use crate::training::fit::Pause;
use crate::training::learners::classification::TrainError;

/// When checkpoints are made beyond those after each epoch and each best evaluation, and how many are
/// kept. Unlike all else in a run's configuration, it may change when a run goes on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SaveOptions {
    /// Steps between checkpoints.
    pub save_steps: Option<usize>,
    /// Minutes between checkpoints.
    pub save_minutes: Option<f64>,
    /// How many of the newest are kept, beside the one of the best evaluation.
    pub save_total_limit: usize,
}

impl Default for SaveOptions {
    fn default() -> Self {
        Self {
            save_steps: None,
            save_minutes: None,
            save_total_limit: 2,
        }
    }
}

impl SaveOptions {
    /// Checks each number's range.
    ///
    /// # Errors
    /// With the name of the first that is out of it.
    pub fn validate(&self) -> Result<(), TrainError> {
        if self.save_steps == Some(0) {
            return Err(TrainError::Option("save_steps must be at least 1"));
        }
        if self.interval().is_some_and(|interval| interval.is_none()) {
            return Err(TrainError::Option("save_minutes must be a positive number"));
        }
        match self.save_total_limit {
            0 => Err(TrainError::Option("save_total_limit must be at least 1")),
            _ => Ok(()),
        }
    }

    /// The time between checkpoints; `Some(None)` when it is no time.
    fn interval(&self) -> Option<Option<Duration>> {
        let seconds = self.save_minutes? * 60.0;
        Some(match seconds > 0.0 {
            true => Duration::try_from_secs_f64(seconds).ok(),
            false => None,
        })
    }
}

/// Makes a run's checkpoints while it trains: [`Observer::between`](crate::Observer::between) passes
/// its pauses on to [`between`](Self::between).
///
/// ```no_run
/// use std::ops::ControlFlow;
///
/// use mtlora_core::State;
/// use mtlora_models::TrainedFormat;
/// use mtlora_train::{
///     ModelSpec, Observer, Pause, Run, SaveOptions, Saver, Scores, StepReport, TrainError, TypedConfig,
/// };
///
/// struct Keep(Run, TrainedFormat, Saver);
///
/// impl Observer for Keep {
///     fn step(&mut self, report: &StepReport) -> Result<(), TrainError> {
///         self.0.log_step(report)
///     }
///
///     fn evaluated(&mut self, _: usize, _: &Scores, best: Option<&State>) -> Result<(), TrainError> {
///         best.map_or(Ok(()), |values| self.0.save_state(&self.1, values))
///     }
///
///     fn between(&mut self, pause: &Pause<'_>) -> Result<ControlFlow<()>, TrainError> {
///         self.2.between(pause, false)?;
///         Ok(ControlFlow::Continue(()))
///     }
/// }
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// // A new run is made with `Run::create`; one that was stopped goes on:
/// let (run, config) = Run::open("runs/mrpc".as_ref())?;
/// let run = run.lock()?;
/// let TypedConfig::Classification(config) = config.typed() else {
///     return Err("the run is of a data-to-text task".into());
/// };
/// let spec = config.model();
/// let started = spec.start(&mtlora_core::device("flex")?.autodiff())?;
/// let format = spec.format(&started.loaded)?;
/// let (from, _notes) = run.rewind(&format)?;
/// let saver = Saver::new(&run, SaveOptions::default())?;
/// let mut observer = Keep(run, format, saver);
/// // `train`, `train_causal` and `fit` take `from` and the observer.
/// # let _ = (from, &mut observer);
/// # Ok(())
/// # }
/// ```
pub struct Saver {
    run: Run,
    options: SaveOptions,
    config: String,
    last: Instant,
}

impl Saver {
    /// For a run that begins or goes on now.
    ///
    /// # Errors
    /// When an option is out of its range, or the run's configuration cannot be read.
    pub fn new(run: &Run, options: SaveOptions) -> Result<Self, TrainError> {
        options.validate()?;
        Ok(Self {
            config: run.config_text()?,
            run: run.clone(),
            options,
            last: Instant::now(),
        })
    }

    /// Makes a checkpoint if one is due, or if training is to `stop` here; true if one was made.
    ///
    /// # Errors
    /// When it cannot be written; older ones are as they were.
    pub fn between(&mut self, pause: &Pause<'_>, stop: bool) -> Result<bool, TrainError> {
        if !stop && !self.due(pause) {
            return Ok(false);
        }
        let snapshot = pause.snapshot()?;
        let best = snapshot.best.as_ref().map(|best| best.step);
        let checkpoints = self.run.checkpoints();
        checkpoints.save(&CheckpointContents {
            snapshot,
            config: self.config.clone(),
            log_bytes: self.run.sync_log()?,
        })?;
        checkpoints.prune(pause.step, best, self.options.save_total_limit)?;
        self.last = Instant::now();
        Ok(true)
    }

    fn due(&self, pause: &Pause<'_>) -> bool {
        let steps = self.options.save_steps;
        let time = self.options.interval().flatten();
        let counted = steps.is_some_and(|every| pause.step.is_multiple_of(every));
        let timed = time.is_some_and(|time| self.last.elapsed() >= time);
        pause.step > 0 && (pause.epoch_ended || pause.best || pause.ended || counted || timed)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn numbers_out_of_their_range_are_refused() {
        let refused = |options: SaveOptions| options.validate().unwrap_err().to_string();
        let usual = SaveOptions::default();
        assert!(usual.validate().is_ok());
        let none = SaveOptions {
            save_steps: Some(0),
            ..usual.clone()
        };
        assert!(refused(none).starts_with("save_steps"));
        for minutes in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            let options = SaveOptions {
                save_minutes: Some(minutes),
                ..usual.clone()
            };
            assert!(refused(options).starts_with("save_minutes"));
        }
        let none = SaveOptions {
            save_total_limit: 0,
            ..usual
        };
        assert!(refused(none).starts_with("save_total_limit"));
    }
}
