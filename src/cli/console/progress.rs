//! Writes the log, the best state and the checkpoints of a run, and shows its progress.

use std::error::Error;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use mtlora::core::State;
use mtlora::models::{ModelError, TrainedFormat};
use mtlora::train::{
    Dashboard, EventWriter, FitError, MetricName, Observer, Pause, ReportTo, Run, RunError,
    SaveOptions, Saver, Scores, Snapshot, StepReport, Wish,
};

use crate::cli::console::output::{self, Output};
use crate::cli::console::signals::{Signal, Signals};
use crate::cli::console::terminal::is_drawable;

/// The time between two printed steps.
const EVERY: Duration = Duration::from_secs(2);

/// Logs every step, saves the checkpoints and each best state, and shows the progress. A signal or the dashboard
/// stops the training after a checkpoint.
pub(crate) struct Progress<'a> {
    run: &'a Run,
    format: TrainedFormat,
    saver: Saver,
    events: Option<EventWriter>,
    signals: Signals,
    shown: Box<dyn Observer>,
}

impl<'a> Progress<'a> {
    /// Starts the progress of a run that starts or is resumed after `step` steps. It is shown on Burn's dashboard, or
    /// as plain lines if standard output or standard error cannot be drawn on; `show` can ask for lines or for nothing.
    /// `chosen_on` is the name of the examples on which the best state is chosen.
    pub(crate) fn new(
        run: &'a Run,
        format: TrainedFormat,
        options: &SaveOptions,
        step: usize,
        metrics: &[MetricName],
        chosen_on: &'static str,
        show: Output,
    ) -> Result<Self, Box<dyn Error>> {
        let saver = Saver::new(run, options.clone())?;
        let events = match options.report_to {
            ReportTo::Tensorboard => Some(EventWriter::create(run.folder(), step)?),
            ReportTo::None => None,
        };
        let signals = Signals::listen()?;
        let drawable = is_drawable(&io::stdout()) && is_drawable(&io::stderr());
        let shown: Box<dyn Observer> = if show.quiet {
            Box::new(Nothing)
        } else if drawable && !show.plain {
            Box::new(Dashboard::new(metrics))
        } else {
            Box::new(Lines {
                chosen_on,
                printed: None,
            })
        };
        Ok(Self {
            run,
            format,
            saver,
            events,
            signals,
            shown,
        })
    }

    /// Closes the dashboard. If the training was stopped, the error explains how to resume it.
    pub(crate) fn close<T>(self, trained: Result<T, FitError>) -> Result<T, Box<dyn Error>> {
        let signal = self.signals.heard();
        let folder = self.run.folder().to_path_buf();
        drop(self);
        trained.map_err(|error| match RunError::from(error) {
            RunError::Fit(FitError::Interrupted { step }) => Box::new(Stopped {
                step,
                signal,
                folder,
            }) as Box<dyn Error>,
            error @ (RunError::Checkpoint(_)
            | RunError::Model(ModelError::Write { .. })
            | RunError::Fit(FitError::Model(ModelError::Write { .. }))) => {
                let folder = folder.display();
                format!(
                    "{error}. When there is room again, resume the run with: mtlora train --resume {folder}"
                )
                .into()
            }
            error => Box::new(error),
        })
    }
}

impl Observer for Progress<'_> {
    fn step(&mut self, report: &StepReport) -> Result<(), FitError> {
        self.run.log().step(report)?;
        if let Some(events) = &mut self.events {
            events.step(report)?;
        }
        self.shown.step(report)
    }

    fn evaluated(
        &mut self,
        step: usize,
        scores: &Scores,
        best: Option<&State>,
    ) -> Result<(), FitError> {
        if let Some(values) = best {
            self.run.save_state(&self.format, values)?;
        }
        self.run.log().evaluation(step, scores)?;
        if let Some(events) = &mut self.events {
            events.evaluated(step, scores)?;
        }
        self.shown.evaluated(step, scores, best)
    }

    fn between(&mut self, pause: &Pause) -> Result<Wish, FitError> {
        let stop = self.signals.heard().is_some() || self.shown.between(pause)?.stop;
        Ok(Wish {
            save: stop || self.saver.is_due(pause),
            stop,
        })
    }

    fn save(&mut self, snapshot: Snapshot) -> Result<(), FitError> {
        Ok(self.saver.save(snapshot)?)
    }
}

/// The error of a training that was stopped before its end, after a checkpoint.
#[derive(Debug)]
pub(crate) struct Stopped {
    step: usize,
    signal: Option<Signal>,
    folder: PathBuf,
}

impl Stopped {
    /// The exit code of the program.
    pub(crate) fn exit_code(&self) -> u8 {
        self.signal.map_or(130, Signal::exit_code)
    }
}

impl fmt::Display for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "stopped by {} after step {}, with a checkpoint; resume with: mtlora train --resume {}",
            self.signal.map_or("the user", Signal::name),
            self.step,
            self.folder.display()
        )
    }
}

impl Error for Stopped {}

/// Prints how many items of a known number are done, on standard error at intervals.
pub(crate) struct Counter {
    what: &'static str,
    total: usize,
    started: Instant,
    printed: Instant,
}

impl Counter {
    pub(crate) fn new(what: &'static str, total: usize) -> Self {
        let now = Instant::now();
        Self {
            what,
            total,
            started: now,
            printed: now,
        }
    }

    pub(crate) fn show(&mut self, done: usize) {
        if self.printed.elapsed() < EVERY && done < self.total {
            return;
        }
        let seconds = self.started.elapsed().as_secs_f64();
        let left = seconds / done.max(1) as f64 * (self.total - done.min(self.total)) as f64;
        note!(
            "{done}/{} {} after {seconds:.0} s, {left:.0} s to go",
            self.total,
            self.what
        );
        self.printed = Instant::now();
    }
}

/// Shows nothing.
struct Nothing;

impl Observer for Nothing {
    fn step(&mut self, _: &StepReport) -> Result<(), FitError> {
        Ok(())
    }

    fn evaluated(&mut self, _: usize, _: &Scores, _: Option<&State>) -> Result<(), FitError> {
        Ok(())
    }
}

/// Prints steps and evaluations as lines on standard error.
struct Lines {
    /// The name of the examples that are evaluated.
    chosen_on: &'static str,
    printed: Option<Instant>,
}

impl Observer for Lines {
    fn step(&mut self, report: &StepReport) -> Result<(), FitError> {
        let due = self
            .printed
            .is_none_or(|printed| printed.elapsed() >= EVERY);
        if due || report.step == report.steps {
            note!(
                "step {}/{} epoch {:.2} loss {:.4} lr {:.3e}",
                report.step,
                report.steps,
                report.epoch,
                report.loss,
                report.learning_rate
            );
            self.printed = Some(Instant::now());
        }
        Ok(())
    }

    fn evaluated(
        &mut self,
        step: usize,
        scores: &Scores,
        best: Option<&State>,
    ) -> Result<(), FitError> {
        let mark = if best.is_some() { " (best so far)" } else { "" };
        note!(
            "{} after step {step}: {}{mark}",
            self.chosen_on,
            output::describe(scores)
        );
        Ok(())
    }
}
