//! `mtlora eval` for a run on conversations.

use std::error::Error;
use std::path::{Path, PathBuf};

use burn::module::Module;
use mtlora::train::chat::ChatTask;
use mtlora::train::{ChatRun, ModelSpec, RunConfig, TaskData, chat_scores, trained_parameters};
use serde_json::json;

use crate::cli::chat::examples::{self, Split};
use crate::cli::console::output;
use crate::cli::model::device;

/// The flags of `mtlora eval` that apply to runs on conversations.
pub(crate) struct Wanted {
    pub(crate) data: Option<PathBuf>,
    pub(crate) split: Option<String>,
    pub(crate) max_length: Option<usize>,
    pub(crate) device: Option<String>,
}

pub(crate) fn run(
    folder: &Path,
    config: &RunConfig<ChatRun>,
    wanted: Wanted,
    json: bool,
) -> Result<(), Box<dyn Error>> {
    let device = device::open(wanted.device.as_ref().unwrap_or(&config.device))?;
    let data = wanted.data.as_ref().unwrap_or(&config.data.folder);
    let name = wanted.split.as_deref().unwrap_or(ChatTask.dev_split());
    let split = Split::read(data, name)?;
    let trainable = trained_parameters(folder)?;
    let parts = config.model().load(folder, &device)?;
    let kind = &config.kind;
    let template = examples::template(&config.base.model, &parts.text, &[&split.examples])?;
    let encoder = examples::encoder(&parts.text, template.as_ref(), &parts.config, kind.loss_on);
    let max_length = wanted.max_length.unwrap_or(config.base.max_length);
    let encoded = split.encode(encoder, max_length, kind.too_long)?;
    let scores = chat_scores(&parts.model, &encoded.sequences, &device)?;
    let task = ChatTask::NAME;
    say!("{task} {name}: {}", output::describe(&scores))?;
    if json {
        output::json(&json!({
            "task": task,
            "split": name,
            "metrics": scores,
            "examples": encoded.sequences.len(),
            "trainable_parameters": trainable,
            "total_parameters": parts.model.num_params(),
        }))?;
    }
    Ok(())
}
