//! `mtlora train` for a classification or a regression.

use std::error::Error;
use std::fmt;

use burn::module::Module;
use mtlora::core::TrainingHooks;
use mtlora::models::messages::shown;
use mtlora::train::bench::Subject;
use mtlora::train::{
    ClassificationData, ClassificationRun, EVALUATION_TOKENS, Example, Extras, MetricName,
    ModelSpec, ProcessGroup, RunConfig, RunResults, ScoredSplit, Started, Target, Task,
    class_counts, class_warnings, evaluate, serve_classification, train_with,
};

use crate::cli::console::output::{self, Output};
use crate::cli::console::progress::Progress;
use crate::cli::model::device;
use crate::cli::ranks;
use crate::cli::settings::task;
use crate::cli::text::{encoding, held_back};
use crate::cli::train::bases::Bases;
use crate::cli::train::begin::Begin;
use crate::cli::train::method::{Scheduled, refuse_untrainable};
use crate::cli::train::outcome::{self, Outcome, Sizes, chosen_on};
use crate::cli::train::preview::{longest, measure, note_lengths};

/// Prints the number of examples of each class, and warnings about the classes of the user's own table. For a regression, it prints
/// the error of always answering with the mean.
fn print_classes(config: &RunConfig<ClassificationRun>, task: &dyn Task, examples: &[Example]) {
    if let Some(numbers) = Numbers::of(examples) {
        note!("{numbers}");
    }
    let is_empty = |example: &&Example| {
        let pair = example.pair.as_deref();
        example.text.trim().is_empty() && pair.is_none_or(|pair| pair.trim().is_empty())
    };
    let empty = examples.iter().filter(is_empty).count();
    if empty > 0 {
        note!(
            "{} {}: {empty} of {} examples without a text: correct or delete such rows, unless they are empty on purpose",
            task.name(),
            task.train_split(),
            examples.len()
        );
    }
    let counts = class_counts(task.objective(), examples);
    if let Some(classes) = output::classes(&counts) {
        note!("{classes}");
    }
    if config.kind.table.is_some() {
        let positive = counts.get(task.positive_class());
        if let Some(positive) = positive.filter(|_| task.metric_names().contains(&MetricName::F1)) {
            note!("f1 is computed for the class {}", shown(&positive.label));
        }
        for warning in class_warnings(&counts) {
            note!("{} {}: {warning}", task.name(), task.train_split());
        }
    }
}

/// The values of a regression's examples.
struct Numbers {
    least: f32,
    largest: f32,
    mean: f64,
    variance: f64,
}

impl Numbers {
    /// `None` if there are no values.
    fn of(examples: &[Example]) -> Option<Self> {
        let values: Vec<f64> = examples
            .iter()
            .filter_map(|example| match example.target {
                Some(Target::Value(value)) => Some(f64::from(value)),
                Some(Target::Class(_)) | None => None,
            })
            .collect();
        let mean_of =
            |values: &mut dyn Iterator<Item = f64>| values.sum::<f64>() / examples.len() as f64;
        if values.len() != examples.len() || values.is_empty() {
            return None;
        }
        let mean = mean_of(&mut values.iter().copied());
        Some(Self {
            least: values
                .iter()
                .fold(f32::INFINITY, |least, one| least.min(*one as f32)),
            largest: values
                .iter()
                .fold(f32::NEG_INFINITY, |largest, one| largest.max(*one as f32)),
            mean,
            variance: mean_of(&mut values.iter().map(|value| (value - mean).powi(2))),
        })
    }
}

impl fmt::Display for Numbers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "numbers to learn from {} to {}; always answering with their mean, {:.4}, would have an rmse of {:.4} and a loss of {:.4} on them",
            self.least,
            self.largest,
            self.mean,
            self.variance.sqrt(),
            self.variance
        )
    }
}

/// Trains, on all ranks of the group if there is one, and returns the results; `None` after a dry run, and on the ranks after
/// rank 0.
pub(crate) fn run(
    config: &RunConfig<ClassificationRun>,
    task: &dyn Task,
    begin: Begin<'_>,
    show: Output,
    bases: Option<&mut Bases>,
    group: Option<&ProcessGroup<'_>>,
) -> Result<Option<RunResults>, Box<dyn Error>> {
    config.training.validate()?;
    let computed = [task.metric_names(), &[MetricName::Loss]].concat();
    config.training.check_metric(&computed)?;
    config.base.adapter.check_training(&config.training)?;
    config.checkpoints.validate()?;
    refuse_untrainable(&config.base.adapter)?;
    ranks::begin(group, &config.training)?;
    let device = device::open(&config.device)?.autodiff();
    let train_examples = task::read(task, &config.data.folder, task.train_split())?;
    let folder = &config.data.folder;
    let fraction = config.data.validation_fraction;
    let dev_split = match fraction {
        None => Some(task::read(task, folder, task.dev_split()).map_err(held_back::or_hold_back)?),
        Some(_) => None,
    };
    let score_split = match &config.data.score_split {
        Some(split) => Some((split.as_str(), task::read(task, folder, split)?)),
        None => None,
    };
    let spec = config.model();
    let Started {
        loaded: parts,
        missing,
    } = match bases {
        Some(bases) => bases.classifier(&spec, &config.device, &device)?,
        None => spec.start(&device)?,
    };
    let place = |split| encoding::of_split(folder, split);
    let items = encoding::encoded(&parts.text, &train_examples, place(task.train_split()))?;
    let (items, dev) = match (dev_split, fraction) {
        (None, Some(fraction)) => held_back::by_class(items, fraction, |item| item.target)?,
        (dev, _) => {
            let dev = dev.unwrap_or_default();
            let dev = encoding::encoded(&parts.text, &dev, place(task.dev_split()))?;
            (items, dev)
        }
    };
    let to_score = match &score_split {
        Some((split, examples)) => {
            let items = encoding::encoded(&parts.text, examples, place(split))?;
            if let Some(at) = items.iter().position(|item| item.target.is_none()) {
                return Err(format!(
                    "{}: it has no label, so the split cannot be scored: choose another --score-split",
                    place(split)(at + 1)
                )
                .into());
            }
            Some((*split, items))
        }
        None => None,
    };
    let data = ClassificationData {
        config: &parts.config,
        task,
        items: &items,
        dev: &dev,
    };
    if let Some(group) = group.filter(|group| group.rank() > 0) {
        serve_classification(parts.model, data, &device, group)?;
        return Ok(None);
    }
    let lengths: Vec<usize> = items.iter().map(|item| item.tokens.len()).collect();
    let method = Scheduled::new(config, &lengths, spec.format(&parts)?)?;
    let Scheduled { format, mut hooks } = method;
    let opened = begin.open(config.clone(), &format)?;

    let sizes = Sizes::of(&items, &dev, &config.data, &parts.model);
    if !show.quiet {
        sizes.print(task.name(), &config.device);
        print_classes(config, task, &train_examples);
        let max_length = parts.text.max_length();
        note_lengths(task.train_split(), &lengths, max_length);
        let dev: Vec<usize> = dev.iter().map(|item| item.tokens.len()).collect();
        note_lengths(chosen_on(sizes.held_back), &dev, max_length);
    }
    let Some((run, from)) = opened else {
        let largest = longest(&dev, EVALUATION_TOKENS, |item| item.tokens.len());
        let model = parts.model.clone().valid();
        evaluate(
            &model,
            &parts.config,
            &largest,
            task,
            &device.clone().inner(),
        )?;
        let options = &config.training;
        let subject = Subject::classifier(parts.model, &parts.config, &items, options, &device);
        measure(subject, &lengths, options, group, show.json)?;
        return Ok(None);
    };
    if !missing.is_empty() && from.is_none() && !show.quiet {
        let why = if config.kind.head.fresh {
            "--fresh-head, or not in the model's folder"
        } else {
            "not in the model's folder"
        };
        note!(
            "these start with new values ({why}): {}",
            missing.join(", ")
        );
    }
    let step = from.as_ref().map_or(0, |snapshot| snapshot.step);
    let metrics = task.metric_names();
    let mut progress = Progress::new(
        &run,
        format,
        &config.checkpoints,
        step,
        metrics,
        chosen_on(sizes.held_back),
        show,
    )?;
    let trained = train_with(
        parts.model,
        data,
        &config.training,
        from,
        &device,
        &mut progress,
        Extras {
            hooks: hooks.as_mut().map(|hooks| hooks as &mut dyn TrainingHooks),
            group,
        },
    );
    let trained = progress.close(trained)?;

    let scored = match to_score {
        Some((split, items)) => {
            let model = trained.model.clone().valid();
            let scores = evaluate(&model, &parts.config, &items, task, &device.inner())?;
            Some((split, scores))
        }
        None => None,
    };
    let mut results = RunResults::of_training(
        task.name(),
        &trained,
        sizes.parameters,
        output::peak_rss_mb(),
    );
    results.scored = scored.as_ref().map(|(split, scores)| ScoredSplit {
        split: split.to_string(),
        metrics: scores.into(),
    });
    outcome::save(&run, &results)?;
    if show.quiet {
        return Ok(Some(results));
    }
    let outcome = Outcome {
        chosen_on: chosen_on(sizes.held_back),
        metric: config
            .training
            .metric_for_best_model
            .unwrap_or(task.main_metric()),
        scored: scored.as_ref().map(|(split, scores)| (*split, scores)),
        before: &trained.before,
        best: &trained.best,
        texts: None,
        results: &results,
    };
    outcome.print(&run, show.json)?;
    Ok(Some(results))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn numbers_are_described_by_what_their_mean_would_miss() {
        let example = |target| Example {
            text: "t".to_string(),
            pair: None,
            target,
        };
        let values = [0.1, 2.0, 6.0].map(|value| example(Some(Target::Value(value))));
        let shown = Numbers::of(&values).unwrap().to_string();
        assert_eq!(
            shown,
            "numbers to learn from 0.1 to 6; always answering with their mean, 2.7000, would have an rmse of 2.4590 and a loss of 6.0467 on them"
        );
        assert!(Numbers::of(&[example(Some(Target::Class(1)))]).is_none());
        assert!(Numbers::of(&[]).is_none());
    }
}
