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
use crate::cli::text::held_back::{self, HELD_BACK, Splits};

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
    let split = match (&wanted.data, wanted.split.as_deref()) {
        // The run has learned from another file, so there is nothing in this one that would have to be left out.
        (Some(file), None) if file.is_file() && !learned(config, file) => Split::read_whole(file)?,
        (Some(file), None) if file.is_file() && !is_same(file, &config.data.folder) => {
            return Err(format!(
                "{}: the run has learned conversations of this file; leave out --data, and choose a split with --split",
                file.display()
            )
            .into());
        }
        (data, Some(HELD_BACK)) => {
            let splits = Splits {
                train: ChatTask.train_split(),
                dev: ChatTask.dev_split(),
                fraction: held_back::are_its_data(&wanted.data, config)
                    .then_some(config.data.validation_fraction)
                    .flatten(),
            };
            let data = data.as_ref().unwrap_or(&config.data.folder);
            let fraction = splits.share()?;
            let [_, held_back] = Split::read(data, splits.train)?.hold_back(fraction)?;
            held_back
        }
        (data, split) => {
            let data = data.as_ref().unwrap_or(&config.data.folder);
            Split::read(data, split.unwrap_or(ChatTask.dev_split()))?
        }
    };
    let name = &split.name;
    let trainable = trained_parameters(folder)?;
    let parts = config.model().load(folder, &device)?;
    let kind = &config.kind;
    let template = examples::template(&config.base.model, &parts.text, &[&split.examples])?;
    if let Some(template) = &template {
        examples::note_left_out(template, &[&split.examples]);
    }
    let encoder = examples::encoder(&parts.text, template.as_ref(), &parts.config, kind.loss_on);
    let max_length = wanted.max_length.unwrap_or(config.base.max_length);
    let encoded = split.encode(encoder, max_length, kind.too_long)?;
    split.note_cut(&encoded, max_length);
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

/// Whether a file is the one that a run has learned from.
fn learned(config: &RunConfig<ChatRun>, file: &Path) -> bool {
    let trained = ChatTask.file_of(&config.data.folder, ChatTask.train_split());
    is_same(file, &trained)
}

/// Whether two paths lead to the same file.
fn is_same(one: &Path, other: &Path) -> bool {
    matches!((one.canonicalize(), other.canonicalize()), (Ok(one), Ok(other)) if one == other)
}
