//! `metrics.jsonl`: the log of a run, with one line for each step and one for each evaluation.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use mtlora_models::ModelError;
use serde::{Deserialize, Deserializer, Serialize};

use crate::metrics::labels::Scores;
use crate::run::file_names::LOG;
use crate::run::folder::Run;
use crate::run::results::MetricValues;
use crate::training::fit::StepReport;
use crate::training::learners::classification::TrainError;

/// The line of an optimizer step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LoggedStep {
    /// The number of the step, from 1.
    pub step: usize,
    /// The number of steps that the run makes.
    pub steps: usize,
    /// Passes over the data so far.
    #[serde(default)]
    pub epoch: f64,
    /// The loss that the step descended; NaN, which JSON writes as `null`, where training diverged.
    #[serde(deserialize_with = "null_is_nan")]
    pub loss: f64,
    /// The learning rate of the step.
    pub learning_rate: f64,
}

impl From<&StepReport> for LoggedStep {
    fn from(report: &StepReport) -> Self {
        Self {
            step: report.step,
            steps: report.steps,
            epoch: report.epoch,
            loss: report.loss,
            learning_rate: report.learning_rate,
        }
    }
}

/// The line of an evaluation.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LoggedEvaluation {
    /// The number of steps before it.
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

impl Run {
    /// Appends the line of a step to the log.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn log_step(&self, report: &StepReport) -> Result<(), TrainError> {
        self.log(&LoggedStep::from(report))
    }

    /// Appends the line of an evaluation after `step` steps to the log.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn log_evaluation(&self, step: usize, scores: &Scores) -> Result<(), TrainError> {
        self.log(&LoggedEvaluation {
            step,
            dev: scores.into(),
        })
    }

    fn log(&self, entry: &impl Serialize) -> Result<(), TrainError> {
        let path = self.log_path();
        let mut line = serde_json::to_string(entry)
            .map_err(|error| TrainError::Report(format!("{LOG}: {error}")))?;
        line.push('\n');
        OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .and_then(|mut file| file.write_all(line.as_bytes()))
            .map_err(|error| ModelError::write(&path, error).into())
    }

    /// The path of the log.
    pub(crate) fn log_path(&self) -> PathBuf {
        self.path(LOG)
    }

    /// Puts the log on the disk and returns its length, in bytes.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn sync_log(&self) -> Result<u64, TrainError> {
        let path = self.log_path();
        let synced = File::open(&path).and_then(|file| {
            file.sync_all()?;
            Ok(file.metadata()?.len())
        });
        match synced {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
            synced => Ok(synced.map_err(|error| ModelError::write(&path, error))?),
        }
    }

    /// Cuts the log to at most `bytes` and returns its length then: less than `bytes`, if it was shorter.
    pub(super) fn cut_log(&self, bytes: u64) -> Result<u64, TrainError> {
        let path = self.log_path();
        let cut = OpenOptions::new().write(true).open(&path).and_then(|file| {
            let length = file.metadata()?.len().min(bytes);
            file.set_len(length)?;
            file.sync_all()?;
            Ok(length)
        });
        match cut {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
            cut => Ok(cut.map_err(|error| ModelError::write(&path, error))?),
        }
    }
}

/// How far a log got, whatever else is wrong with it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LogEnd {
    /// The last step that it has.
    pub(crate) step: usize,
    /// The number of steps that the run makes, if a step was logged.
    pub(crate) steps: Option<usize>,
}

impl LogEnd {
    /// The end of the log at `path`. Lines that cannot be read, as when they were cut off, are skipped.
    pub(crate) fn read(path: &Path) -> Self {
        let bytes = fs::read(path).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        let mut end = Self::default();
        for line in text.lines() {
            match serde_json::from_str(line) {
                Ok(LogLine::Step(line)) => {
                    end = Self {
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
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::metrics::labels::MetricName;
    use crate::run::config::settings::example;

    #[test]
    fn what_is_logged_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let run = Run::create(folder.path(), false, &example()).unwrap();
        let step = StepReport {
            step: 3,
            steps: 9,
            epoch: 0.5,
            loss: f64::NAN,
            learning_rate: 1e-4,
        };
        run.log_step(&step).unwrap();
        let mut scores = Scores::default();
        scores.set(MetricName::Loss, 0.25);
        run.log_evaluation(4, &scores).unwrap();
        let text = fs::read_to_string(run.log_path()).unwrap();
        assert_eq!(
            text,
            "{\"step\":3,\"steps\":9,\"epoch\":0.5,\"loss\":null,\"learning_rate\":0.0001}\n\
             {\"step\":4,\"dev\":{\"loss\":0.25}}\n"
        );
        let read = |line: &str| serde_json::from_str::<LogLine>(line).unwrap();
        let mut lines = text.lines();
        let LogLine::Step(found) = read(lines.next().unwrap()) else {
            panic!("a step");
        };
        assert!(found.loss.is_nan() && found.steps == 9);
        let evaluation = LoggedEvaluation {
            step: 4,
            dev: (&scores).into(),
        };
        assert_eq!(read(lines.next().unwrap()), LogLine::Evaluation(evaluation));
        let end = LogEnd {
            step: 4,
            steps: Some(9),
        };
        assert_eq!(LogEnd::read(&run.log_path()), end);
    }
}
