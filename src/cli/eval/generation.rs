//! `mtlora eval` for a data-to-text run.

use std::error::Error;
use std::fs::OpenOptions;
use std::path::{Path, PathBuf};

use burn::module::Module;
use mtlora::train::registry;
use mtlora::train::text_metrics::MeteorJar;
use mtlora::train::{
    GenerationRun, MetricValues, ModelSpec, RunConfig, RunResults, hold_back, trained_parameters,
};
use serde::Serialize;

use crate::cli::console::output;
use crate::cli::eval::generation_scores::{GenerationScores, Split};
use crate::cli::model::device;
use crate::cli::settings::task;
use crate::cli::text::held_back::{self, Splits};

/// The flags of `mtlora eval` that apply to data-to-text runs.
pub(crate) struct Wanted {
    pub(crate) task: Option<String>,
    pub(crate) data: Option<PathBuf>,
    pub(crate) split: Option<String>,
    pub(crate) device: Option<String>,
    pub(crate) meteor_jar: Option<PathBuf>,
    pub(crate) texts: Option<PathBuf>,
}

pub(crate) fn run(
    folder: &Path,
    config: &RunConfig<GenerationRun>,
    wanted: Wanted,
    json: bool,
) -> Result<(), Box<dyn Error>> {
    let name = wanted.task.as_ref().unwrap_or(&config.data.task);
    let task = registry::open_generation(name, config.kind.pairs.clone())?.ok_or_else(|| {
        format!("the run is of a data-to-text task, but {name} is not such a task")
    })?;
    let data = wanted.data.as_ref().unwrap_or(&config.data.folder);
    let jar = wanted.meteor_jar.map(MeteorJar::new).transpose()?;
    if let Some(path) = &wanted.texts {
        check_writable(path)?;
    }
    let device = device::open(wanted.device.as_ref().unwrap_or(&config.device))?;
    let splits = Splits {
        train: &config.kind.train_split,
        dev: task.dev_split(),
        // Another task, and other data, have other examples than those that were held back.
        fraction: (*name == config.data.task && held_back::are_its_data(&wanted.data, config))
            .then_some(config.data.validation_fraction)
            .flatten(),
    };
    let (split, records) = splits.choose(
        wanted.split.as_deref(),
        |split| task::read_records(task.as_ref(), data, split),
        |records, fraction| hold_back(records, fraction, |_| None),
    )?;
    let trainable = trained_parameters(folder)?;
    let parts = config.model().load(folder, &device)?;

    let split = Split {
        task: name,
        scorer: task.scorer(),
        name: &split,
        records: &records,
    };
    let keep = wanted.texts.as_deref();
    let scores = GenerationScores::of(config, &parts, &split, jar.as_ref(), keep, &device)?;
    scores.say()?;
    if json {
        let mut results = RunResults::default();
        scores.add_to(&mut results);
        output::json(&Report {
            task: name,
            split: split.name,
            metrics: &results.metrics,
            inputs: records.len(),
            trainable_parameters: trainable,
            total_parameters: parts.model.num_params(),
            seen: results.seen.as_ref(),
            unseen: results.unseen.as_ref(),
        })?;
    }
    Ok(())
}

/// Checks that a file can be written, before the texts for it are generated. The file is created, and one that exists
/// stays as it is.
fn check_writable(path: &Path) -> Result<(), String> {
    let opened = OpenOptions::new().append(true).create(true).open(path);
    opened
        .map(drop)
        .map_err(|error| format!("--texts {}: cannot write: {error}", path.display()))
}

/// What `--json` prints.
#[derive(Serialize)]
struct Report<'a> {
    task: &'a str,
    split: &'a str,
    metrics: &'a MetricValues,
    inputs: usize,
    trainable_parameters: usize,
    total_parameters: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    seen: Option<&'a MetricValues>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unseen: Option<&'a MetricValues>,
}
