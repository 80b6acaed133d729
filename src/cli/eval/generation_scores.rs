//! Scores the texts that a data-to-text run generates for a split, for `mtlora eval` and at the end of a training.

use std::error::Error;
use std::io;
use std::path::Path;

use burn::tensor::Device;
use mtlora::train::data_to_text::{Record, Scorer};
use mtlora::train::text_metrics::{self, MeteorJar};
use mtlora::train::{
    FitError, GenerationRun, LoadedGenerator, RunConfig, RunResults, Scores, TextScores,
    score_texts,
};

use crate::cli::console::output;
use crate::cli::console::progress::Counter;
use crate::cli::text::encoding;

/// The split that is scored.
pub(crate) struct Split<'a> {
    /// The name of the task.
    pub(crate) task: &'a str,
    /// The scoring script whose metrics are computed.
    pub(crate) scorer: Scorer,
    /// The name of the split.
    pub(crate) name: &'a str,
    /// The records of the split.
    pub(crate) records: &'a [Record],
}

/// The scores of the generated texts, and the likelihood of the references.
pub(crate) struct GenerationScores {
    place: String,
    texts: TextScores,
    likelihood: Scores,
}

impl GenerationScores {
    /// Generates a text for each record with the model of `parts`, and scores the texts. If `keep_texts` is set, the
    /// texts are written into this file as soon as they are complete.
    pub(crate) fn of(
        config: &RunConfig<GenerationRun>,
        parts: &LoadedGenerator,
        split: &Split<'_>,
        meteor: Option<&MeteorJar>,
        keep_texts: Option<&Path>,
        device: &Device,
    ) -> Result<Self, Box<dyn Error>> {
        let mut counter = Counter::new("texts", split.records.len());
        let mut show = |done| counter.show(done);
        let decoding = &config.kind.decoding;
        let texts = parts.write_records(split.records, decoding, device, &mut show)?;
        if let Some(path) = keep_texts {
            std::fs::write(path, texts.join("\n") + "\n")
                .map_err(|error| format!("{}: {error}", path.display()))?;
        }
        Ok(Self {
            place: format!("{} {}", split.task, split.name),
            likelihood: parts
                .likelihood(split.records, config.base.max_length, device)
                .map_err(|error| located(error, split))?,
            texts: score_texts(split.scorer, split.records, &texts, meteor)?,
        })
    }

    /// Prints the scores.
    pub(crate) fn say(&self) -> io::Result<()> {
        let place = &self.place;
        say!("{place}: {}", describe(&self.texts.all))?;
        say!("{place}: {}", output::describe(&self.likelihood))?;
        for (which, scores) in self.categories() {
            say!("{place}, {which} categories: {}", describe(scores))?;
        }
        Ok(())
    }

    /// Adds the scores to the results of a run.
    pub(crate) fn add_to(&self, results: &mut RunResults) {
        results.set_text_scores(&self.texts, &self.likelihood);
    }

    fn categories(&self) -> impl Iterator<Item = (&'static str, &text_metrics::Scores)> {
        let both = [("seen", &self.texts.seen), ("unseen", &self.texts.unseen)];
        let there = both.into_iter();
        there.filter_map(|(which, scores)| Some((which, scores.as_ref()?)))
    }
}

/// Adds the split to an error about one of its examples.
fn located(error: FitError, split: &Split<'_>) -> Box<dyn Error> {
    match error {
        FitError::Model(error) => encoding::located(error, |number| {
            format!("{} {}, example {number}", split.task, split.name)
        }),
        other => other.into(),
    }
}

fn describe(scores: &text_metrics::Scores) -> String {
    let parts = scores
        .iter()
        .map(|(name, value)| format!("{name} {value:.4}"));
    parts.collect::<Vec<_>>().join(", ")
}
