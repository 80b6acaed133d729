//! The scores of what a data-to-text run writes for a split: those of `mtlora eval`, and of a training's end.

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

    /// Puts them into a run's results.
    pub(crate) fn add_to(&self, results: &mut RunResults) {
        results.set_text_scores(&self.texts, &self.likelihood);
    }

    fn categories(&self) -> impl Iterator<Item = (&'static str, &text_metrics::Scores)> {
        let both = [("seen", &self.texts.seen), ("unseen", &self.texts.unseen)];
        let there = both.into_iter();
        there.filter_map(|(which, scores)| Some((which, scores.as_ref()?)))
    }
}

/// An error about one of a split's examples, with the split.
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
