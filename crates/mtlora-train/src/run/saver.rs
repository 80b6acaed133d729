//! Makes the checkpoints of a run while it is trained.

use std::time::Instant;

use crate::run::checkpoints::contents::CheckpointContents;
use crate::run::error::RunError;
use crate::run::folder::Run;
use crate::run::save_options::SaveOptions;
use crate::training::observer::Pause;
use crate::training::snapshot::Snapshot;

/// Makes the checkpoints of a run while it is trained. [`Observer::between`](crate::Observer::between) should ask
/// [`is_due`](Self::is_due), and [`Observer::save`](crate::Observer::save) should pass the snapshot to
/// [`save`](Self::save).
///
/// ```no_run
/// use mtlora_core::State;
/// use mtlora_models::TrainedFormat;
/// use mtlora_train::{
///     FitError, ModelSpec, Observer, Pause, Run, SaveOptions, Saver, Scores, Snapshot, StepReport, TypedConfig, Wish,
/// };
///
/// struct Keep(Run, TrainedFormat, Saver);
///
/// impl Observer for Keep {
///     fn step(&mut self, report: &StepReport) -> Result<(), FitError> {
///         Ok(self.0.log().step(report)?)
///     }
///
///     fn evaluated(&mut self, _: usize, _: &Scores, best: Option<&State>) -> Result<(), FitError> {
///         if let Some(values) = best {
///             self.0.save_state(&self.1, values)?;
///         }
///         Ok(())
///     }
///
///     fn between(&mut self, pause: &Pause) -> Result<Wish, FitError> {
///         Ok(Wish { save: self.2.is_due(pause), stop: false })
///     }
///
///     fn save(&mut self, snapshot: Snapshot) -> Result<(), FitError> {
///         Ok(self.2.save(snapshot)?)
///     }
/// }
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// // A new run is made with `Run::create`; one that was stopped is resumed:
/// let (run, config) = Run::open("runs/mrpc".as_ref())?;
/// let run = run.lock()?;
/// let TypedConfig::Classification(config) = config.typed() else {
///     return Err("the run is of a data-to-text task".into());
/// };
/// let spec = config.model();
/// let started = spec.start(&mtlora_core::device("flex")?.autodiff())?;
/// let format = spec.format(&started.loaded)?;
/// let from = run.rewind(&format)?.snapshot;
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
    /// Creates the saver of a run that starts or is resumed now.
    ///
    /// # Errors
    /// If an option is out of range, or the run's configuration cannot be read.
    pub fn new(run: &Run, options: SaveOptions) -> Result<Self, RunError> {
        options.validate()?;
        Ok(Self {
            config: run.config_text()?,
            run: run.clone(),
            options,
            last: Instant::now(),
        })
    }

    /// Whether a checkpoint is due: after each epoch, after each evaluation that is the best so far, at the end, and
    /// at the intervals in the [`SaveOptions`].
    pub fn is_due(&self, pause: &Pause) -> bool {
        let steps = self.options.save_steps;
        let time = self.options.interval();
        let counted = steps.is_some_and(|every| pause.step.is_multiple_of(every));
        let timed = time.is_some_and(|time| self.last.elapsed() >= time);
        pause.step > 0 && (pause.epoch_ended || pause.best || pause.ended || counted || timed)
    }

    /// Makes a checkpoint, and removes the oldest ones beyond [`save_total_limit`](SaveOptions::save_total_limit).
    ///
    /// # Errors
    /// If the checkpoint cannot be written. The older ones are unchanged then.
    pub fn save(&mut self, snapshot: Snapshot) -> Result<(), RunError> {
        let step = snapshot.step;
        let best = snapshot.best.as_ref().map(|best| best.step);
        let checkpoints = self.run.checkpoints();
        checkpoints.save(&CheckpointContents {
            snapshot,
            config: self.config.clone(),
            log_bytes: self.run.log().sync()?,
        })?;
        checkpoints.prune(step, best, self.options.save_total_limit)?;
        self.last = Instant::now();
        Ok(())
    }
}
