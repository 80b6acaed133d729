//! `metrics.jsonl`: the log of a run, with one line for each step and one for each evaluation.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use mtlora_models::ModelError;
use serde::{Deserialize, Deserializer, Serialize};

use crate::metrics::labels::Scores;
use crate::run::file_names::LOG;
use crate::run::results::MetricValues;
use crate::training::observer::StepReport;

/// The line of a training step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LoggedStep {
    /// The number of the step, counted from 1.
    pub step: usize,
    /// The total number of steps of the run.
    pub steps: usize,
    /// The number of passes over the data so far, including fractions.
    #[serde(default)]
    pub epoch: f64,
    /// The loss of the step before the update. JSON represents NaN, which means that training diverged, as `null`.
    #[serde(deserialize_with = "null_is_nan")]
    pub loss: f64,
    /// The learning rate of the step.
    pub learning_rate: f64,
    /// The rank of all adapters together that is left after the step, for adapter methods that have a budget of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rank_budget: Option<usize>,
}

impl From<&StepReport> for LoggedStep {
    fn from(report: &StepReport) -> Self {
        Self {
            step: report.step,
            steps: report.steps,
            epoch: report.epoch,
            loss: report.loss,
            learning_rate: report.learning_rate,
            rank_budget: report.rank_budget,
        }
    }
}

/// The line of an evaluation.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LoggedEvaluation {
    /// The number of steps before the evaluation.
    pub step: usize,
    /// The metrics on the dev split.
    pub dev: MetricValues,
}

/// A line of the log.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(untagged)]
pub(crate) enum LogLine {
    /// A step.
    Step(LoggedStep),
    /// An evaluation.
    Evaluation(LoggedEvaluation),
    /// A kind of line that a later version may write.
    Other {},
}

fn null_is_nan<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    let number = Option::<f64>::deserialize(deserializer)?;
    Ok(number.unwrap_or(f64::NAN))
}

/// The metrics log of a run's folder.
#[derive(Clone, Debug)]
pub struct MetricsLog {
    path: PathBuf,
}

impl MetricsLog {
    /// The log of the run in `folder`. It need not exist yet.
    pub(crate) fn of_run(folder: &Path) -> Self {
        Self {
            path: folder.join(LOG),
        }
    }

    /// Appends the line of a step.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn step(&self, report: &StepReport) -> Result<(), ModelError> {
        self.append(&LoggedStep::from(report))
    }

    /// Appends the line of an evaluation after `step` steps.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn evaluation(&self, step: usize, scores: &Scores) -> Result<(), ModelError> {
        self.append(&LoggedEvaluation {
            step,
            dev: scores.into(),
        })
    }

    fn append(&self, entry: &impl Serialize) -> Result<(), ModelError> {
        let at = |error| ModelError::write(&self.path, error);
        let mut line = serde_json::to_string(entry).map_err(|error| at(error.into()))?;
        line.push('\n');
        let mut options = OpenOptions::new();
        let file = options.create(true).append(true).open(&self.path);
        file.and_then(|mut file| file.write_all(line.as_bytes()))
            .map_err(at)
    }

    /// Flushes the log to the disk and returns its length in bytes.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn sync(&self) -> Result<u64, ModelError> {
        self.length_after(File::open(&self.path).and_then(|file| {
            file.sync_all()?;
            Ok(file.metadata()?.len())
        }))
    }

    /// Truncates the log to at most `bytes` bytes and returns its new length, which is less than `bytes` if it was
    /// shorter.
    pub(crate) fn cut(&self, bytes: u64) -> Result<u64, ModelError> {
        let file = OpenOptions::new().write(true).open(&self.path);
        self.length_after(file.and_then(|file| {
            let length = file.metadata()?.len().min(bytes);
            file.set_len(length)?;
            file.sync_all()?;
            Ok(length)
        }))
    }

    /// The length after a change; a log that does not exist has length 0.
    fn length_after(&self, change: io::Result<u64>) -> Result<u64, ModelError> {
        match change {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
            change => change.map_err(|error| ModelError::write(&self.path, error)),
        }
    }

    /// Reads all lines.
    ///
    /// # Errors
    /// If the file cannot be read. Lines that cannot be parsed are returned as errors in their place.
    pub(crate) fn lines(&self) -> io::Result<Vec<Result<LogLine, serde_json::Error>>> {
        let text = match fs::read_to_string(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(error),
        };
        // A last line without a line end is still being written.
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        Ok(whole.lines().map(serde_json::from_str).collect())
    }

    /// The last step in the log. Lines that cannot be parsed, such as truncated ones, are skipped.
    pub(crate) fn end(&self) -> LogEnd {
        let bytes = fs::read(&self.path).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        let mut end = LogEnd::default();
        for line in text.lines() {
            match serde_json::from_str(line) {
                Ok(LogLine::Step(line)) => {
                    end = LogEnd {
                        step: line.step,
                        steps: Some(line.steps),
                    };
                }
                Ok(LogLine::Evaluation(line)) => end.step = line.step,
                Ok(LogLine::Other {}) | Err(_) => {}
            }
        }
        end
    }

    /// The path of the file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

/// The progress that a log shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LogEnd {
    /// The last step in the log.
    pub(crate) step: usize,
    /// The total number of steps of the run, if a step was logged.
    pub(crate) steps: Option<usize>,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::metrics::labels::MetricName;

    #[test]
    fn what_is_logged_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let log = MetricsLog::of_run(folder.path());
        assert_eq!((log.sync().unwrap(), log.cut(5).unwrap()), (0, 0));
        let step = StepReport {
            step: 3,
            steps: 9,
            epoch: 0.5,
            loss: f64::NAN,
            learning_rate: 1e-4,
            rank_budget: None,
        };
        log.step(&step).unwrap();
        let mut scores = Scores::default();
        scores.set(MetricName::Loss, 0.25);
        log.evaluation(4, &scores).unwrap();
        let text = fs::read_to_string(log.path()).unwrap();
        assert_eq!(
            text,
            "{\"step\":3,\"steps\":9,\"epoch\":0.5,\"loss\":null,\"learning_rate\":0.0001}\n\
             {\"step\":4,\"dev\":{\"loss\":0.25}}\n"
        );
        let mut lines = log.lines().unwrap().into_iter().map(Result::unwrap);
        let Some(LogLine::Step(found)) = lines.next() else {
            panic!("a step");
        };
        assert!(found.loss.is_nan() && found.steps == 9);
        let evaluation = LoggedEvaluation {
            step: 4,
            dev: (&scores).into(),
        };
        assert_eq!(lines.next(), Some(LogLine::Evaluation(evaluation)));
        let end = LogEnd {
            step: 4,
            steps: Some(9),
        };
        assert_eq!(log.end(), end);
        let length = text.len() as u64;
        assert_eq!((log.sync().unwrap(), log.cut(3).unwrap()), (length, 3));
    }
}
