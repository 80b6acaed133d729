//! `mtlora train` for a data-to-text task.

use std::error::Error;

use burn::module::Module;
use burn::tensor::Device;
use mtlora::core::TrainingHooks;
use mtlora::train::bench::Subject;
use mtlora::train::data_to_text::{GenerationTask, Record};
use mtlora::train::{
    CAUSAL_EVALUATION_TOKENS, CausalData, Extras, GenerationRun, LoadedGenerator, MetricName,
    ModelSpec, ProcessGroup, PromptForm, Run, RunConfig, RunResults, ScoredSplit, WriteOptions,
    causal_scores, encode_records, hold_back, serve_causal, train_causal_with,
};

use crate::cli::console::output::{self, Output};
use crate::cli::console::progress::Progress;
use crate::cli::eval::generation_scores::{GenerationScores, Split};
use crate::cli::model::device;
use crate::cli::ranks;
use crate::cli::settings::task;
use crate::cli::text::encoding;
use crate::cli::text::held_back::{self, Splits};
use crate::cli::train::bases::Bases;
use crate::cli::train::begin::Begin;
use crate::cli::train::method::{Scheduled, refuse_untrainable};
use crate::cli::train::outcome::{self, Outcome, Sizes, chosen_on};
use crate::cli::train::preview::{longest, measure, note_lengths};

/// What is computed on the dev split.
pub(crate) const METRICS: [MetricName; 2] = [MetricName::Loss, MetricName::Perplexity];
/// The number of inputs whose texts are printed before and after training.
const SHOWN: usize = 3;

/// Trains, on all ranks of the group if there is one, and returns the results; `None` after a dry run, and on the ranks after
/// rank 0.
pub(crate) fn run(
    config: &RunConfig<GenerationRun>,
    task: &dyn GenerationTask,
    begin: Begin<'_>,
    show: Output,
    bases: Option<&mut Bases>,
    group: Option<&ProcessGroup<'_>>,
) -> Result<Option<RunResults>, Box<dyn Error>> {
    config.training.validate()?;
    config.training.check_metric(&METRICS)?;
    config.base.adapter.check_training(&config.training)?;
    config.checkpoints.validate()?;
    refuse_untrainable(&config.base.adapter)?;
    ranks::begin(group, &config.training)?;
    let device = device::open(&config.device)?.autodiff();
    let records = task::read_records(task, &config.data.folder, &config.kind.train_split)?;
    // The split whose texts are scored at the end.
    let score_split = config.data.score_split.as_deref();
    let splits = Splits {
        train: &config.kind.train_split,
        dev: task.dev_split(),
        fraction: config.data.validation_fraction,
    };
    let (score_split, final_records) = match (score_split, splits.fraction) {
        (None, Some(_)) => splits.choose(
            None,
            |split| match split == splits.train {
                true => Ok(records.clone()),
                false => task::read_records(task, &config.data.folder, split),
            },
            |records, fraction| hold_back(records, fraction, |_| None),
        )?,
        (None, None) => {
            let records = task::read_records(task, &config.data.folder, splits.dev);
            let records = records.map_err(held_back::or_hold_back)?;
            (splits.dev.to_string(), records)
        }
        (Some(split), _) => {
            let records = task::read_records(task, &config.data.folder, split)?;
            (split.to_string(), records)
        }
    };
    let spec = config.model();
    let started = match bases {
        Some(bases) => bases.generator(&spec, &config.device, &device)?,
        None => spec.start(&device)?,
    };
    let parts = started.loaded;
    let all = |records: &[Record]| (0..records.len()).collect::<Vec<usize>>();
    let encode = |records: &[Record], kept: &[usize], split: &str| {
        let end = parts.config.end_of_text();
        let kept_records: Vec<Record> = kept.iter().map(|at| records[*at].clone()).collect();
        let encoded = encode_records(&parts.text, end, &kept_records, config.base.max_length);
        encoded.map_err(|error| {
            let place = encoding::of_split(&config.data.folder, split);
            encoding::located(error, |number| {
                let at = number.checked_sub(1).and_then(|at| kept.get(at));
                place(at.map_or(number, |at| at + 1))
            })
        })
    };
    let train_split = &config.kind.train_split;
    let (items, counts, dev) = match config.data.validation_fraction {
        Some(fraction) => {
            let (rest, held_back) = hold_back(all(&records), fraction, |_| None)?;
            let (items, counts) = encode(&records, &rest, train_split)?;
            let (dev, _) = encode(&records, &held_back, train_split)?;
            (items, counts, dev)
        }
        None => {
            let dev_records = task::read_records(task, &config.data.folder, task.dev_split());
            let dev_records = dev_records.map_err(held_back::or_hold_back)?;
            let (items, counts) = encode(&records, &all(&records), train_split)?;
            let (dev, _) = encode(&dev_records, &all(&dev_records), task.dev_split())?;
            (items, counts, dev)
        }
    };
    let data = CausalData {
        items: &items,
        dev: &dev,
        label_smoothing: config.kind.label_smoothing,
    };
    if let Some(group) = group.filter(|group| group.rank() > 0) {
        serve_causal(parts.model, data, &config.training, &device, group)?;
        return Ok(None);
    }
    let lengths: Vec<usize> = items.iter().map(|item| item.ids.len()).collect();
    let method = Scheduled::new(config, &lengths, spec.format(&parts)?)?;
    let Scheduled { format, mut hooks } = method;
    let opened = begin.open(config.clone(), &format)?;

    let sizes = Sizes::of(&items, &dev, &config.data, &parts.model);
    if !show.quiet {
        sizes.print(task.name(), &config.device);
        note_lengths(train_split, &lengths, config.base.max_length);
        let dev: Vec<usize> = dev.iter().map(|item| item.ids.len()).collect();
        note_lengths(chosen_on(sizes.held_back), &dev, config.base.max_length);
    }
    if counts.cut + counts.left_out > 0 {
        note!(
            "{} inputs are truncated to {} tokens, and {} texts are longer than that and are left out",
            counts.cut,
            config.base.max_length,
            counts.left_out
        );
    }
    let Some((run, from)) = opened else {
        let largest = longest(&dev, CAUSAL_EVALUATION_TOKENS, |item| item.ids.len());
        causal_scores(
            &parts.model.clone().valid(),
            &largest,
            &device.clone().inner(),
        )?;
        let (options, smoothing) = (&config.training, config.kind.label_smoothing);
        let subject = Subject::causal(parts.model, &items, smoothing, options, &device);
        measure(subject, &lengths, options, group, show.json)?;
        return Ok(None);
    };
    let shown = if show.quiet {
        &[]
    } else {
        &final_records[..final_records.len().min(SHOWN)]
    };
    let plain_device = device.clone().inner();
    let before = samples(config, &parts, shown, &plain_device)?;
    let step = from.as_ref().map_or(0, |snapshot| snapshot.step);
    let mut progress = Progress::new(
        &run,
        format,
        &config.checkpoints,
        step,
        &METRICS,
        chosen_on(sizes.held_back),
        show,
    )?;
    let trained = train_causal_with(
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

    let mut results = RunResults::of_training(
        task.name(),
        &trained,
        sizes.parameters,
        output::peak_rss_mb(),
    );
    let parts = LoadedGenerator {
        model: trained.model,
        ..parts
    };
    // This comes before any output: the run is complete even if nobody reads the output or waits for the scores.
    outcome::save(&run, &results)?;
    if config.kind.final_scores && !show.quiet {
        let place = run.folder().display();
        note!(
            "the run in {place} is complete; its texts for the {} inputs of the {} split are now generated and scored. \
             If this is stopped, mtlora train --resume {place} repeats it; --no-final-scores leaves it out",
            final_records.len(),
            score_split
        );
    }
    let after = samples(config, &parts, shown, &plain_device)?;
    // The model is loaded from its files again, so that the scores are those of `mtlora eval`.
    drop(parts);
    let scored = config
        .kind
        .final_scores
        .then(|| final_scores(config, task, (&score_split, &final_records), &run));
    let (scores, failure) = match scored.transpose() {
        Ok(scores) => (scores, None),
        Err(error) => (None, Some(error)),
    };
    if let Some(scores) = &scores {
        scores.add_to(&mut results);
        results.scored = config.data.score_split.as_ref().map(|split| ScoredSplit {
            split: split.clone(),
            metrics: results.metrics.clone(),
        });
        outcome::save(&run, &results)?;
    }
    for ((record, before), after) in shown.iter().zip(before).zip(after) {
        say!("input:  {}", output::printable(&record.input))?;
        say!("before: {}", output::printable(&before))?;
        say!("after:  {}", output::printable(&after))?;
    }
    let outcome = Outcome {
        chosen_on: chosen_on(sizes.held_back),
        metric: config
            .training
            .metric_for_best_model
            .unwrap_or(MetricName::Loss),
        scored: None,
        before: &trained.before,
        best: &trained.best,
        texts: scores.as_ref(),
        results: &results,
    };
    if !show.quiet {
        outcome.print(&run, show.json)?;
    }
    if let Some(error) = failure {
        let place = run.folder().display();
        return Err(format!(
            "the run in {place} is complete, but its texts could not be scored: {error}. Try again with: mtlora train \
             --resume {place}"
        )
        .into());
    }
    Ok(Some(results))
}

/// The scores of a split with its name, as `mtlora eval` prints them.
fn final_scores(
    config: &RunConfig<GenerationRun>,
    task: &dyn GenerationTask,
    (name, records): (&str, &[Record]),
    run: &Run,
) -> Result<GenerationScores, Box<dyn Error>> {
    let device = device::open(&config.device)?;
    let parts = config.model().load(run.folder(), &device)?;
    let split = Split {
        task: task.name(),
        scorer: task.scorer(),
        name,
        records,
    };
    GenerationScores::of(config, &parts, &split, None, None, &device)
}

/// The texts that the model generates for some records.
fn samples(
    config: &RunConfig<GenerationRun>,
    parts: &LoadedGenerator,
    records: &[Record],
    device: &Device,
) -> Result<Vec<String>, Box<dyn Error>> {
    let parts = LoadedGenerator {
        model: config.base.adapter.folded(parts.model.clone().valid()),
        config: parts.config.clone(),
        text: parts.text.clone(),
    };
    let inputs: Vec<&str> = records.iter().map(|record| record.input.as_str()).collect();
    if inputs.is_empty() {
        return Ok(Vec::new());
    }
    let options = WriteOptions {
        decoding: config.kind.decoding.clone(),
        form: PromptForm::Input,
        cut: true,
    };
    let written = parts.write(&inputs, &options, device, &mut |_| ())?;
    Ok(written.into_iter().map(|one| one.text).collect())
}
