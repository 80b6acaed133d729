//! Progress: the run's log and best state, and what the user sees meanwhile.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use mtlora::core::State;
use mtlora::models::TrainedFormat;
use mtlora::train::{Dashboard, MetricName, Observer, Run, Scores, StepReport, TrainError};
use serde_json::json;

use super::output;

/// How often a step is printed.
const EVERY: Duration = Duration::from_secs(2);

/// Logs every step, saves each best state, and shows both.
pub(crate) struct Progress<'a> {
    run: &'a Run,
    format: TrainedFormat,
    shown: Box<dyn Observer>,
}

impl<'a> Progress<'a> {
    /// Burn's dashboard where standard output is a terminal, plain lines elsewhere or if `plain`.
    pub(crate) fn new(
        run: &'a Run,
        format: TrainedFormat,
        metrics: &[MetricName],
        plain: bool,
    ) -> Self {
        let terminal = std::io::stdout().is_terminal() && std::io::stderr().is_terminal();
        let shown: Box<dyn Observer> = match terminal && !plain {
            true => Box::new(Dashboard::new(metrics)),
            false => Box::new(Lines { printed: None }),
        };
        Self { run, format, shown }
    }
}

impl Observer for Progress<'_> {
    fn step(&mut self, report: &StepReport) -> Result<(), TrainError> {
        self.run.log(report)?;
        self.shown.step(report)
    }

    fn evaluated(
        &mut self,
        step: usize,
        scores: &Scores,
        best: Option<&State>,
    ) -> Result<(), TrainError> {
        if let Some(values) = best {
            self.run.save_state(&self.format, values)?;
        }
        self.run.log(&json!({ "step": step, "dev": scores }))?;
        self.shown.evaluated(step, scores, best)
    }
}

/// How many of a number of things are done: a line on standard error now and then.
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
        eprintln!(
            "{done}/{} {} after {seconds:.0} s, {left:.0} s to go",
            self.total, self.what
        );
        self.printed = Instant::now();
    }
}

/// A line on standard error now and then.
struct Lines {
    printed: Option<Instant>,
}

impl Observer for Lines {
    fn step(&mut self, report: &StepReport) -> Result<(), TrainError> {
        let due = self
            .printed
            .is_none_or(|printed| printed.elapsed() >= EVERY);
        if due || report.step == report.steps {
            eprintln!(
                "step {}/{} epoch {:.2} loss {:.4} lr {:.3e}",
                report.step, report.steps, report.epoch, report.loss, report.learning_rate
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
    ) -> Result<(), TrainError> {
        let mark = if best.is_some() { " (best so far)" } else { "" };
        eprintln!("dev after step {step}: {}{mark}", output::describe(scores));
        Ok(())
    }
}
