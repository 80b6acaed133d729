//! `mtlora eval` of a run of a data-to-text task.

use std::error::Error;
use std::path::{Path, PathBuf};

use burn::module::Module;
use mtlora::core::device;
use mtlora::train::text_metrics::MeteorJar;
use mtlora::train::{GenerationRunConfig, trained_parameters};
use serde_json::{Map, Value, json};

use crate::cli::console::output;
use crate::cli::eval::generation_scores::{GenerationScores, Split};
use crate::cli::settings::task;

/// What `eval` was told.
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
    config: &GenerationRunConfig,
    wanted: Wanted,
    json: bool,
) -> Result<(), Box<dyn Error>> {
    let name = wanted.task.as_ref().unwrap_or(&config.task);
    let task = task::find_generation(name, config.pairs.clone())?
        .ok_or_else(|| format!("the run is of a data-to-text task, which {name} is not"))?;
    let data = wanted.data.as_ref().unwrap_or(&config.data);
    let split = wanted.split.as_deref().unwrap_or(task.dev_split());
    let jar = wanted.meteor_jar.map(MeteorJar::new).transpose()?;
    let device = device(wanted.device.as_ref().unwrap_or(&config.device))?;
    let records = task::read_records(task.as_ref(), data, split)?;
    let trainable = trained_parameters(folder)?;
    let parts = config.load(folder, &device)?;

    let split = Split {
        task: name,
        scorer: task.scorer(),
        name: split,
        records: &records,
    };
    let keep = wanted.texts.as_deref();
    let scores = GenerationScores::of(config, &parts, &split, jar.as_ref(), keep, &device)?;
    scores.say()?;
    if json {
        let mut report = Map::new();
        report.insert("task".to_string(), json!(name));
        report.insert("split".to_string(), json!(split.name));
        report.insert("metrics".to_string(), Value::Object(scores.metrics()));
        report.insert("inputs".to_string(), json!(records.len()));
        report.insert("trainable_parameters".to_string(), json!(trainable));
        report.insert(
            "total_parameters".to_string(),
            json!(parts.model.num_params()),
        );
        report.extend(scores.by_category());
        output::json(&report)?;
    }
    Ok(())
}
