//! `mtlora train --resume`.

use std::error::Error;
use std::path::Path;

use mtlora::train::{ProcessGroup, Run, RunKind, RunResults, TypedConfig, registry};

use crate::cli::console::output::{self, Output};
use crate::cli::hub;
use crate::cli::model::finished;
use crate::cli::settings::flags::Settings;
use crate::cli::settings::task;
use crate::cli::train::begin::Begin;
use crate::cli::train::{chat, classification, generation};

pub(super) fn run(
    folder: &Path,
    settings: Settings,
    output: Output,
    group: Option<&ProcessGroup<'_>>,
) -> Result<(), Box<dyn Error>> {
    if group.is_some_and(|group| group.rank() > 0) {
        // Rank 0 has the run.
        return train(folder, settings, Begin::NoRun, output, group);
    }
    let (run, config) = Run::open(folder)?;
    if finished::is_imported(folder) {
        return Err(format!(
            "{}: this run was imported and never trained, so there is nothing to resume: train a new run that starts \
             from it (train --init-from {})",
            folder.display(),
            folder.display()
        )
        .into());
    }
    let wants_scores = match &config.kind {
        RunKind::Generation(kind) => settings.final_scores().unwrap_or(kind.final_scores),
        RunKind::Classification(_) | RunKind::Chat(_) => false,
    };
    let is_lost = finished::lacks_values(folder);
    // A complete run need not be locked, so its folder may be one that cannot be written.
    let is_done = |results: &RunResults| !wants_scores || results.has_text_scores();
    let run = match run.results()? {
        Some(results) if is_done(&results) && !is_lost => run,
        _ => run.lock()?,
    };
    if is_lost && run.results()?.is_some() {
        note!(
            "{}: the trained values of this complete run are gone; they are restored from its last checkpoint",
            folder.display()
        );
    } else if let Some(results) = run.results()? {
        let is_scored = is_done(&results);
        // The texts are scored with the model of the last checkpoint.
        if is_scored || run.checkpoints().newest()?.0.is_none() {
            let place = folder.display();
            if is_scored {
                say!("the run in {place} is complete")?;
            } else {
                say!(
                    "the run in {place} is complete, except for the scores of its texts, which need its last checkpoint, \
                     and that is gone; compute them with: mtlora eval --run {place}"
                )?;
            }
            if output.json {
                output::json(&results)?;
            }
            return Ok(());
        }
    }
    train(folder, settings, Begin::Resume(run), output, group)
}

/// Goes on with the training of the run in `folder`.
fn train(
    folder: &Path,
    settings: Settings,
    begin: Begin<'_>,
    output: Output,
    group: Option<&ProcessGroup<'_>>,
) -> Result<(), Box<dyn Error>> {
    // Data and models that are no longer in the Hub's cache are fetched again.
    let (_, mut config) = hub::open_run(folder)?;
    let base = &config.base.model;
    if !base.exists() {
        return Err(format!(
            "{}: the base model of this run was in {}, which does not exist any more: put it back there, or correct the \
             line `model = ...` of {}",
            folder.display(),
            base.display(),
            folder.join("run.toml").display()
        )
        .into());
    }
    hub::run_origin(&mut config.base.adapter)?;
    config.change(settings.resume_changes(&config.checkpoints)?);
    match config.typed() {
        TypedConfig::Classification(mut config) => {
            let task = task::of_run(&config)?;
            let scored = config.data.score_split.clone();
            let chosen = [task.train_split(), task.dev_split()];
            for split in chosen.into_iter().chain(scored.as_deref()) {
                let data = &config.data;
                config.data.folder = hub::run_data(&data.folder, &data.task, Some(split))?;
            }
            classification::run(&config, task.as_ref(), begin, output, None, group).map(drop)
        }
        TypedConfig::Generation(config) => {
            let name = &config.data.task;
            let unknown = || format!("there is no task {name} (see `mtlora tasks`)");
            let task =
                registry::open_generation(name, config.kind.pairs.clone())?.ok_or_else(unknown)?;
            generation::run(&config, task.as_ref(), begin, output, None, group).map(drop)
        }
        TypedConfig::Chat(config) => chat::run(&config, begin, output, None, group).map(drop),
    }
}
