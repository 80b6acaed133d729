//! Writes runs as PEFT's `method_comparison` keeps its results: one JSON file for each run, with `run_info`, `train_info` and
//! `meta_info`, which its `processing.py` reads.

use std::error::Error;
use std::path::Path;
use std::{fs, io};

use mtlora::models::write_atomically;
use mtlora::train::comparison::Comparison;
use mtlora::train::report::Curves;
use mtlora::train::{BatchSize, Run, RunConfig, RunResults};
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::cli::compare::gather::scored;
use crate::cli::console::output;
use crate::cli::sweep::plan::{Phase, Plan};
use crate::cli::sweep::store::{Outcome, Outcomes, Store};

/// Bytes in a MiB.
const MIB: f64 = 1024.0 * 1024.0;

/// Writes the final runs that have ended into `folder`, with the metric that `comparison` has for each task, and returns their
/// number.
pub(super) fn write(
    folder: &Path,
    plan: &Plan,
    outcomes: &Outcomes,
    store: &Store,
    comparison: &Comparison,
) -> Result<usize, Box<dyn Error>> {
    output::make_folder(folder)?;
    let mut count = 0;
    for (index, cell) in plan.cells.iter().enumerate() {
        let Some(outcome) = outcomes.get(index).filter(|_| cell.phase == Phase::Final) else {
            continue;
        };
        let place = store.run_folder(cell);
        let (run, config) = Run::open(&place)?;
        let curves = Curves::read(&run.log())?;
        let task = comparison.tasks.get(cell.task);
        let ended = Ended {
            name: &cell.name,
            config: &config,
            outcome,
            curves: &curves,
            place: &place,
            metric: task.map_or("", |task| task.metric.as_str()),
        };
        let text = serde_json::to_string_pretty(&entry(&ended)?)?;
        // No name of a task, an arm or a setting has this character, so no two runs get the same file.
        let name = cell.name.replace('/', "~");
        write_atomically(
            &folder.join(format!("{name}.json")),
            format!("{text}\n").as_bytes(),
        )?;
        count += 1;
    }
    Ok(count)
}

/// A run that has ended.
struct Ended<'a> {
    name: &'a str,
    config: &'a RunConfig,
    outcome: &'a Outcome,
    curves: &'a Curves,
    /// Its folder.
    place: &'a Path,
    /// The metric that stands as `test accuracy`.
    metric: &'a str,
}

/// What there is at `path`; `None` if there is nothing, as in the folder of a run that diverged or has no adapter.
fn existing<T>(path: &Path, found: io::Result<T>) -> Result<Option<T>, String> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(format!("{}: {error}", path.display())),
    }
}

fn entry(ended: &Ended<'_>) -> Result<Value, Box<dyn Error>> {
    let Ended {
        name,
        config,
        outcome,
        curves,
        place,
        metric,
    } = *ended;
    let path = place.join("adapter_config.json");
    let peft_config: Option<Value> = match existing(&path, fs::read_to_string(&path))? {
        Some(text) => {
            serde_json::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))?
        }
        None => None,
    };
    let mut file_size = None;
    for name in ["adapter_model.safetensors", "trained.safetensors"] {
        let path = place.join(name);
        let found = existing(&path, fs::metadata(&path))?;
        file_size = file_size.or(found.map(|one| one.len()));
    }
    let results = match outcome {
        Outcome::Done(results) => Some(results.as_ref()),
        Outcome::Diverged { .. } => None,
    };
    let error = match outcome {
        Outcome::Done(_) => String::new(),
        Outcome::Diverged { step } => format!("training diverged at step {step}"),
    };
    let bytes = results
        .and_then(|results| results.peak_rss_mb)
        .map_or(0.0, |mib| mib * MIB) as u64;
    let seconds = results.map_or(0.0, |results| results.train_seconds);
    let mut train_config = serde_json::to_value(config)?;
    if let Some(fields) = train_config.as_object_mut() {
        fields.insert("model_id".to_string(), json!(config.base.model));
        fields.insert("seed".to_string(), json!(config.training.seed));
    }
    Ok(json!({
        "run_info": {
            "created_at": created(&place.join("run.toml"))?,
            "total_time": seconds,
            "experiment_name": name,
            "peft_branch": "",
            "train_config": train_config,
            "peft_config": peft_config,
            "error_msg": error,
        },
        "train_info": {
            // The memory of the whole process; there is no accelerator whose average could be measured.
            "accelerator_memory_reserved_avg": bytes,
            "accelerator_memory_max": bytes,
            "accelerator_memory_reserved_99th": bytes,
            "train_time": seconds,
            "file_size": file_size.unwrap_or(0),
            "num_trainable_params": results.map(|results| results.trainable_parameters),
            "num_total_params": results.map(|results| results.total_parameters),
            "status": if results.is_some() { "success" } else { "failed" },
            "metrics": results.map(|results| metrics(results, metric, config, curves)).into_iter().collect::<Vec<_>>(),
        },
        "meta_info": {
            "model_info": null,
            "dataset_info": { "task": config.data.task },
            // The names that processing.py asks for; none of these packages is used.
            "package_info": {
                "mtlora-version": env!("CARGO_PKG_VERSION"),
                "peft-version": null,
                "transformers-version": null,
                "datasets-version": null,
                "torch-version": null,
                "bitsandbytes-version": null,
            },
            "system_info": {
                "system": std::env::consts::OS,
                "machine": std::env::consts::ARCH,
                "device": config.device,
            },
            "pytorch_info": null,
        },
    }))
}

/// The last entry of `metrics`, which has the final score as `test accuracy`, whatever the metric is.
fn metrics(results: &RunResults, metric: &str, config: &RunConfig, curves: &Curves) -> Value {
    let metrics = scored(results);
    let training = &config.training;
    // The last batch of an epoch may have fewer; a budget of tokens does not say how many sequences there were.
    let samples = match training.batch {
        BatchSize::Sequences(count) => results.steps * training.gradient_accumulation * count,
        BatchSize::Tokens(_) => 0,
    };
    json!({
        "step": results.steps,
        "test accuracy": metrics.get(metric),
        "train loss": curves.steps.last().map(|step| step.loss),
        "train samples": samples,
        "train total tokens": (results.tokens_per_second * results.train_seconds).round() as u64,
        "metric": metric,
        "metrics": metrics,
    })
}

/// When a file was written last, such as `2026-01-31T23:59:59Z`.
fn created(path: &Path) -> Result<String, Box<dyn Error>> {
    let written = fs::metadata(path)?.modified()?;
    Ok(OffsetDateTime::from(written).format(&Rfc3339)?)
}
