//! `mtlora eval` of a run of a data-to-text task.

use std::error::Error;
use std::path::{Path, PathBuf};

use burn::module::Module;
use mtlora::core::device;
use mtlora::train::text_metrics::{MeteorJar, Scores};
use mtlora::train::{
    GenerationRunConfig, PromptForm, WriteOptions, causal_scores, encode_records, score_texts,
    trained_parameters,
};
use serde_json::{Map, Value, json};

use super::output;
use super::progress::Counter;
use super::{task, texts};

/// What `eval` was told.
pub(super) struct Wanted {
    pub(super) task: Option<String>,
    pub(super) data: Option<PathBuf>,
    pub(super) split: Option<String>,
    pub(super) device: Option<String>,
    pub(super) meteor_jar: Option<PathBuf>,
    pub(super) texts: Option<PathBuf>,
}

pub(super) fn run(
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

    let inputs: Vec<&str> = records.iter().map(|record| record.input.as_str()).collect();
    let options = WriteOptions {
        decoding: config.decoding.clone(),
        form: PromptForm::Input,
        cut: true,
    };
    let mut counter = Counter::new("texts", inputs.len());
    let written = parts.write(&inputs, &options, &device, &mut |done| counter.show(done))?;
    // One line each, whatever was written.
    let texts: Vec<String> = written
        .into_iter()
        .map(|one| one.text.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect();
    if let Some(path) = &wanted.texts {
        std::fs::write(path, texts.join("\n") + "\n")
            .map_err(|error| format!("{}: {error}", path.display()))?;
    }
    let end = parts.config.eos_token_id;
    let (sequences, _) = encode_records(&parts.text, end, &records, config.max_length)
        .map_err(|error| texts::located(error, texts::of_split(data, split)))?;
    let causal = causal_scores(&parts.model, &sequences, &device)?;
    let scores = score_texts(task.scorer(), &records, &texts, jar.as_ref())?;

    say!("{name} {split}: {}", describe(&scores.all))?;
    say!("{name} {split}: {}", output::describe(&causal))?;
    for (which, scores) in [("seen", &scores.seen), ("unseen", &scores.unseen)] {
        if let Some(scores) = scores {
            say!("{name} {split}, {which} categories: {}", describe(scores))?;
        }
    }
    if json {
        let mut metrics = object(&scores.all);
        for (name, value) in causal.iter() {
            metrics.insert(name.as_str().to_string(), json!(value));
        }
        let mut report = json!({
            "task": name,
            "split": split,
            "metrics": metrics,
            "inputs": inputs.len(),
            "trainable_parameters": trainable,
            "total_parameters": parts.model.num_params(),
        });
        for (which, scores) in [("seen", &scores.seen), ("unseen", &scores.unseen)] {
            if let Some(scores) = scores {
                report[which] = Value::Object(object(scores));
            }
        }
        output::json(&report)?;
    }
    Ok(())
}

fn describe(scores: &Scores) -> String {
    let parts = scores
        .iter()
        .map(|(name, value)| format!("{name} {value:.4}"));
    parts.collect::<Vec<_>>().join(", ")
}

fn object(scores: &Scores) -> Map<String, Value> {
    let entries = scores.iter();
    entries
        .map(|(name, value)| (name.to_string(), json!(value)))
        .collect()
}
