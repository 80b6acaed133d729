//! `results.json`: the results of a run. The file exists once the run is complete.

use std::fmt;
use std::fs;
use std::io;
use std::path::Path;

use mtlora_models::{ModelError, write_atomically};
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::metrics::labels::{MetricName, Scores};
use crate::metrics::text_scores::TextScores;
use crate::run::file_names::RESULTS;
use crate::training::fit::Trained;

/// Metrics of labels and of texts by name, in the order in which they were computed.
///
/// In JSON they are an object. A value that is not finite is `null`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MetricValues(Vec<(String, f64)>);

impl MetricValues {
    /// Appends metrics.
    pub fn extend<N: ToString>(&mut self, metrics: impl IntoIterator<Item = (N, f64)>) {
        let named = metrics.into_iter();
        self.0
            .extend(named.map(|(name, value)| (name.to_string(), value)));
    }

    /// The metrics and their values, in order. A value may be NaN.
    pub fn iter(&self) -> impl Iterator<Item = (&str, f64)> {
        self.0.iter().map(|(name, value)| (name.as_str(), *value))
    }

    /// The value of a metric; `None` if it is absent or NaN.
    pub fn get(&self, metric: &str) -> Option<f64> {
        let mut all = self.iter();
        all.find_map(|(name, value)| (name == metric && !value.is_nan()).then_some(value))
    }

    /// The metrics of generated texts: all whose name is not a [`MetricName`].
    pub fn of_texts(&self) -> impl Iterator<Item = (&str, f64)> {
        self.iter()
            .filter(|(name, _)| name.parse::<MetricName>().is_err())
    }
}

impl<N: ToString> FromIterator<(N, f64)> for MetricValues {
    fn from_iter<I: IntoIterator<Item = (N, f64)>>(metrics: I) -> Self {
        let mut values = Self::default();
        values.extend(metrics);
        values
    }
}

impl From<&Scores> for MetricValues {
    fn from(scores: &Scores) -> Self {
        scores.iter().collect()
    }
}

impl Serialize for MetricValues {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter())
    }
}

impl<'de> Deserialize<'de> for MetricValues {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;

        impl<'de> Visitor<'de> for Entries {
            type Value = MetricValues;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map from metrics to numbers")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<MetricValues, M::Error> {
                let mut values = Vec::new();
                while let Some((name, value)) = map.next_entry::<String, Option<f64>>()? {
                    values.push((name, value.unwrap_or(f64::NAN)));
                }
                Ok(MetricValues(values))
            }
        }

        deserializer.deserialize_map(Entries)
    }
}

/// The number of parameters of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParameterCounts {
    /// The number of trainable parameters.
    pub trainable: usize,
    /// The number of all parameters.
    pub total: usize,
}

/// The metrics on a split that chose neither a setting nor the best state.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ScoredSplit {
    /// The name of the split.
    pub split: String,
    /// The metrics.
    pub metrics: MetricValues,
}

/// The results of a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RunResults {
    /// The name of the task.
    pub task: String,
    /// The metrics of the best state on the dev split.
    pub metrics: MetricValues,
    /// The metrics before the first step.
    pub metrics_before: MetricValues,
    /// The metrics after the last step.
    pub metrics_last: MetricValues,
    /// The number of steps after which the best state was reached.
    pub best_step: usize,
    /// The number of steps.
    pub steps: usize,
    /// The number of steps that were planned, 0 in the results of versions that did not write it.
    pub planned_steps: usize,
    /// The number of trained parameters.
    pub trainable_parameters: usize,
    /// The number of all parameters of the model.
    pub total_parameters: usize,
    /// The metrics of the best state on the split that was to be scored after training.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scored: Option<ScoredSplit>,
    /// The time that the steps took in seconds, without evaluations.
    pub train_seconds: f64,
    /// The number of tokens that the steps read per second.
    pub tokens_per_second: f64,
    /// The peak resident memory of the process in MiB, if the system reports it.
    pub peak_rss_mb: Option<f64>,
    /// For data-to-text tasks with known categories: the scores of texts whose category occurs in the train split.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seen: Option<MetricValues>,
    /// For data-to-text tasks with known categories: the scores of texts of other categories.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unseen: Option<MetricValues>,
}

impl RunResults {
    /// The results of training on `task`, before any text is scored. `peak_rss_mb` is the peak resident memory of the
    /// process in MiB.
    pub fn of_training<M>(
        task: &str,
        trained: &Trained<M>,
        parameters: ParameterCounts,
        peak_rss_mb: Option<f64>,
    ) -> Self {
        let seconds = trained.time.as_secs_f64();
        Self {
            task: task.to_string(),
            metrics: (&trained.best).into(),
            metrics_before: (&trained.before).into(),
            metrics_last: (&trained.last).into(),
            best_step: trained.best_step,
            steps: trained.steps,
            planned_steps: trained.planned_steps,
            scored: None,
            trainable_parameters: parameters.trainable,
            total_parameters: parameters.total,
            train_seconds: seconds,
            tokens_per_second: trained.tokens as f64 / seconds.max(f64::MIN_POSITIVE),
            peak_rss_mb,
            seen: None,
            unseen: None,
        }
    }

    /// Replaces the metrics of the best state by the scores of its generated texts and the likelihood of the
    /// references.
    pub fn set_text_scores(&mut self, texts: &TextScores, likelihood: &Scores) {
        self.metrics = texts.all.iter().copied().collect();
        self.metrics.extend(likelihood.iter());
        let category = |scores: &Option<Vec<(&'static str, f64)>>| {
            let scores = scores.as_ref()?;
            Some(scores.iter().copied().collect())
        };
        self.seen = category(&texts.seen);
        self.unseen = category(&texts.unseen);
    }

    /// Whether the training ended before its last step, because the score no longer improved.
    pub fn stopped_early(&self) -> bool {
        self.steps < self.planned_steps
    }

    /// Whether texts have been scored.
    pub fn has_text_scores(&self) -> bool {
        self.metrics.of_texts().next().is_some()
    }
}

impl RunResults {
    /// Writes `results.json` into a run's folder.
    pub(super) fn write(&self, folder: &Path) -> Result<(), ModelError> {
        let path = folder.join(RESULTS);
        let mut text = serde_json::to_string_pretty(self)
            .map_err(|error| ModelError::write(&path, error.into()))?;
        text.push('\n');
        write_atomically(&path, text.as_bytes())
    }

    /// Reads `results.json` from a run's folder; `None` if it does not exist.
    ///
    /// # Errors
    /// If the file is invalid or cannot be read.
    pub(super) fn read(folder: &Path) -> io::Result<Option<Self>> {
        match fs::read_to_string(folder.join(RESULTS)) {
            Ok(text) => Ok(Some(serde_json::from_str(&text)?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn metrics_of_texts_are_distinguished_from_the_others() {
        let results = r#"{"metrics": {"bleu": 41.5, "chrf++": 60.25, "loss": 0.5, "perplexity": null}, "steps": 3}"#;
        let results: RunResults = serde_json::from_str(results).unwrap();
        assert_eq!(results.metrics.get("loss"), Some(0.5));
        assert_eq!(results.metrics.get("perplexity"), None);
        let of_texts: Vec<(&str, f64)> = results.metrics.of_texts().collect();
        assert_eq!(of_texts, [("bleu", 41.5), ("chrf++", 60.25)]);
        assert_eq!(results.steps, 3);
        let empty: RunResults = serde_json::from_str("{}").unwrap();
        assert!(!empty.has_text_scores() && results.has_text_scores());
        assert!(serde_json::from_str::<RunResults>(r#"{"metrics": 1}"#).is_err());
    }

    #[test]
    fn what_is_written_is_read_back_in_the_same_order() {
        let mut results = RunResults {
            metrics: [("ter", 3.5), ("bleu", 0.1 + 0.2)].into_iter().collect(),
            ..RunResults::default()
        };
        results.metrics.extend([("loss", 1.0)]);
        let text = serde_json::to_string(&results).unwrap();
        assert_eq!(serde_json::from_str::<RunResults>(&text).unwrap(), results);
        assert!(text.contains(r#"{"ter":3.5,"bleu":0.30000000000000004,"loss":1.0}"#));
        // A run without categories does not mention them.
        assert!(!text.contains("seen"));
    }
}
