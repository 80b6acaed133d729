//! `mtlora train` for a classification or a regression.

use std::error::Error;

use mtlora::core::TrainingHooks;
use mtlora::train::{
    ClassificationData, ClassificationRun, Example, MetricName, ModelSpec, RunConfig, RunResults,
    Started, Task, class_counts, class_warnings, train_with_hooks,
};

use crate::cli::console::output;
use crate::cli::console::progress::Progress;
use crate::cli::model::device;
use crate::cli::settings::task;
use crate::cli::text::encoding;
use crate::cli::train::begin::Begin;
use crate::cli::train::method::{Scheduled, refuse_untrainable};
use crate::cli::train::outcome::{Outcome, Output, Sizes};

/// Prints the number of examples of each class, and warnings about the classes of the user's own table.
fn print_classes(config: &RunConfig<ClassificationRun>, task: &dyn Task, examples: &[Example]) {
    let counts = class_counts(task.objective(), examples);
    if let Some(classes) = output::classes(&counts) {
        note!("{classes}");
    }
    if config.kind.table.is_some() {
        for warning in class_warnings(&counts) {
            note!("{} {}: {warning}", task.name(), task.train_split());
        }
    }
}

pub(super) fn run(
    config: &RunConfig<ClassificationRun>,
    task: &dyn Task,
    begin: Begin<'_>,
    show: Output,
) -> Result<(), Box<dyn Error>> {
    config.training.validate()?;
    let computed = [task.metric_names(), &[MetricName::Loss]].concat();
    config.training.check_metric(&computed)?;
    config.base.adapter.check_training(&config.training)?;
    config.checkpoints.validate()?;
    refuse_untrainable(&config.base.adapter)?;
    let device = device::open(&config.device)?.autodiff();
    let train_examples = task::read(task, &config.data.folder, task.train_split())?;
    let dev_examples = task::read(task, &config.data.folder, task.dev_split())?;
    let spec = config.model();
    let Started {
        loaded: parts,
        missing,
    } = spec.start(&device)?;
    let place = |split| encoding::of_split(&config.data.folder, split);
    let items = encoding::encoded(&parts.text, &train_examples, place(task.train_split()))?;
    let dev = encoding::encoded(&parts.text, &dev_examples, place(task.dev_split()))?;
    let lengths: Vec<usize> = items.iter().map(|item| item.tokens.len()).collect();
    let method = Scheduled::new(config, &lengths, spec.format(&parts)?)?;
    let Scheduled { format, mut hooks } = method;
    let (run, from) = begin.open(config.clone(), &format)?;

    let sizes = Sizes::of(&items, &dev, &parts.model);
    sizes.print(task.name(), &config.device);
    print_classes(config, task, &train_examples);
    if !missing.is_empty() && from.is_none() {
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
    let mut progress = Progress::new(&run, format, &config.checkpoints, step, metrics, show.plain)?;
    let trained = train_with_hooks(
        parts.model,
        ClassificationData {
            config: &parts.config,
            task,
            items: &items,
            dev: &dev,
        },
        &config.training,
        from,
        &device,
        &mut progress,
        hooks.as_mut().map(|hooks| hooks as &mut dyn TrainingHooks),
    );
    let trained = progress.close(trained)?;

    let results = RunResults::of_training(
        task.name(),
        &trained,
        sizes.parameters,
        output::peak_rss_mb(),
    );
    run.save_results(&results)?;
    let outcome = Outcome {
        before: &trained.before,
        best: &trained.best,
        texts: None,
        results: &results,
    };
    outcome.print(&run, show.json)
}
