//! `results.json`: the outcome of a run. A run's folder has one once the run is complete.

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

/// Metrics of labels and of texts by name, with their values, in the order in which they were computed.
///
/// As JSON it is an object, in which a value that is not a finite number is `null`.
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

    /// The value of a metric, if it is there and not NaN.
    pub fn get(&self, metric: &str) -> Option<f64> {
        let mut all = self.iter();
        all.find_map(|(name, value)| (name == metric && !value.is_nan()).then_some(value))
    }

    /// The metrics of texts: all whose name is not a [`MetricName`].
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

/// The sizes of a model, in values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParameterCounts {
    /// Those that train.
    pub trainable: usize,
    /// All.
    pub total: usize,
}

/// The outcome of a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RunResults {
    /// The task's name.
    pub task: String,
    /// The metrics of the best state on the dev split.
    pub metrics: MetricValues,
    /// The metrics before the first step.
    pub metrics_before: MetricValues,
    /// The metrics after the last step.
    pub metrics_last: MetricValues,
    /// The step after which the best state was found.
    pub best_step: usize,
    /// The steps that were made.
    pub steps: usize,
    /// The values that trained.
    pub trainable_parameters: usize,
    /// The values in the model.
    pub total_parameters: usize,
    /// The seconds that the steps took, without evaluations.
    pub train_seconds: f64,
    /// The tokens that the steps read in a second.
    pub tokens_per_second: f64,
    /// The process's highest resident memory, in MiB, if the system reports it.
    pub peak_rss_mb: Option<f64>,
    /// Of a data-to-text task: the scores of the texts whose category the train split has, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seen: Option<MetricValues>,
    /// Of a data-to-text task: the scores of the texts of other categories.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unseen: Option<MetricValues>,
}

impl RunResults {
    /// The outcome of training on `task`, before any text is scored. `peak_rss_mb` is the process's highest resident
    /// memory, in MiB.
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
            trainable_parameters: parameters.trainable,
            total_parameters: parameters.total,
            train_seconds: seconds,
            tokens_per_second: trained.tokens as f64 / seconds.max(f64::MIN_POSITIVE),
            peak_rss_mb,
            seen: None,
            unseen: None,
        }
    }

    /// Replaces the metrics of the best state by the scores of the texts that it writes and the likelihood of the
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

    /// Reads `results.json` from a run's folder, if it is there.
    ///
    /// # Errors
    /// If it cannot be read, or is something else.
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
    fn metrics_of_texts_are_told_from_the_others() {
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
