//! The scores of what a data-to-text run writes for a split: those of `mtlora eval`, and of a training's end.

use std::error::Error;
use std::io;
use std::path::Path;

use burn::tensor::Device;
use mtlora::train::data_to_text::{Record, Scorer};
use mtlora::train::text_metrics::{self, MeteorJar};
use mtlora::train::{
    GenerationRunConfig, LoadedGenerator, MetricName, Scores, TextScores, TrainError, score_texts,
};
use serde_json::{Map, Value, json};

use crate::cli::console::output;
use crate::cli::console::progress::Counter;
use crate::cli::text::encoding;

/// What is scored.
pub(crate) struct Split<'a> {
    /// The task's name.
    pub(crate) task: &'a str,
    /// Whose script scores it.
    pub(crate) scorer: Scorer,
    /// The split's name.
    pub(crate) name: &'a str,
    /// What is in it.
    pub(crate) records: &'a [Record],
}

/// How good the texts are, and how likely the references.
pub(crate) struct GenerationScores {
    place: String,
    texts: TextScores,
    likelihood: Scores,
}

impl GenerationScores {
    /// Writes a text for each record with the model of `parts`, and scores them. The texts are kept in the file
    /// `keep_texts`, if it is named, as soon as they are there.
    pub(crate) fn of(
        config: &GenerationRunConfig,
        parts: &LoadedGenerator,
        split: &Split<'_>,
        meteor: Option<&MeteorJar>,
        keep_texts: Option<&Path>,
        device: &Device,
    ) -> Result<Self, Box<dyn Error>> {
        let mut counter = Counter::new("texts", split.records.len());
        let mut show = |done| counter.show(done);
        let texts = config.write_texts(parts, split.records, device, &mut show)?;
        if let Some(path) = keep_texts {
            std::fs::write(path, texts.join("\n") + "\n")
                .map_err(|error| format!("{}: {error}", path.display()))?;
        }
        Ok(Self {
            place: format!("{} {}", split.task, split.name),
            likelihood: config
                .likelihood(parts, split.records, device)
                .map_err(|error| located(error, split))?,
            texts: score_texts(split.scorer, split.records, &texts, meteor)?,
        })
    }

    /// Prints them.
    pub(crate) fn say(&self) -> io::Result<()> {
        let place = &self.place;
        say!("{place}: {}", describe(&self.texts.all))?;
        say!("{place}: {}", output::describe(&self.likelihood))?;
        for (which, scores) in self.categories() {
            say!("{place}, {which} categories: {}", describe(scores))?;
        }
        Ok(())
    }

    /// All metrics, for `--json`.
    pub(crate) fn metrics(&self) -> Map<String, Value> {
        let mut metrics = object(&self.texts.all);
        for (name, value) in self.likelihood.iter() {
            metrics.insert(name.as_str().to_string(), json!(value));
        }
        metrics
    }

    /// The texts' scores by whether the train set has their category, for `--json`.
    pub(crate) fn by_category(&self) -> Map<String, Value> {
        let entry = |(which, scores): (&str, _)| (which.to_string(), Value::Object(object(scores)));
        self.categories().map(entry).collect()
    }

    fn categories(&self) -> impl Iterator<Item = (&'static str, &text_metrics::Scores)> {
        let both = [("seen", &self.texts.seen), ("unseen", &self.texts.unseen)];
        let there = both.into_iter();
        there.filter_map(|(which, scores)| Some((which, scores.as_ref()?)))
    }
}

/// An error about one of a split's examples, with the split.
fn located(error: TrainError, split: &Split<'_>) -> Box<dyn Error> {
    match error {
        TrainError::Model(error) => encoding::located(error, |number| {
            format!("{} {}, example {number}", split.task, split.name)
        }),
        other => other.into(),
    }
}

/// Whether there is the score of a text among the metrics that `results.json` has.
pub(crate) fn are_in(results: &Value) -> bool {
    let metrics = results.get("metrics").and_then(Value::as_object);
    metrics.is_some_and(|metrics| {
        metrics
            .keys()
            .any(|name| name.parse::<MetricName>().is_err())
    })
}

fn describe(scores: &text_metrics::Scores) -> String {
    let parts = scores
        .iter()
        .map(|(name, value)| format!("{name} {value:.4}"));
    parts.collect::<Vec<_>>().join(", ")
}

fn object(scores: &text_metrics::Scores) -> Map<String, Value> {
    let entries = scores.iter();
    entries
        .map(|(name, value)| (name.to_string(), json!(value)))
        .collect()
}
