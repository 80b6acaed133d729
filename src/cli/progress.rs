//! Progress as plain lines on standard error, and the run's log.

use std::time::{Duration, Instant};

use mtlora::core::State;
use mtlora::train::{Observer, Run, Scores, StepReport, TrainError};
use serde_json::json;

use super::output;

/// How often a step is printed.
const EVERY: Duration = Duration::from_secs(2);

/// Prints a line now and then, logs every step, and saves each best state.
pub(crate) struct Progress<'a> {
    run: &'a Run,
    printed: Option<Instant>,
}

impl<'a> Progress<'a> {
    pub(crate) fn new(run: &'a Run) -> Self {
        Self { run, printed: None }
    }
}

impl Observer for Progress<'_> {
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
        self.run.log(report)
    }

    fn evaluated(
        &mut self,
        step: usize,
        scores: &Scores,
        best: Option<&State>,
    ) -> Result<(), TrainError> {
        let mark = if best.is_some() { " (best so far)" } else { "" };
        eprintln!("dev after step {step}: {}{mark}", output::describe(scores));
        if let Some(values) = best {
            self.run.save_state(values)?;
        }
        self.run.log(&json!({ "step": step, "dev": scores }))
    }
}
