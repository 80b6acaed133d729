//! Makes folders of small models with changed tensors, and runs the models.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use burn::tensor::Device;
use mtlora_models::{CausalBatch, CausalLm, Checkpoint, Gpt2Config, Gpt2Lm, write_checkpoint};
use serde_json::{Map, Value};
use tempfile::TempDir;

use crate::common::{Expected, difference, floats, folder};

pub const EMBEDDINGS: &str = "transformer.wte.weight";
pub const OUTPUT: &str = "lm_head.weight";

/// Tensors by their names, each with its shape.
pub type Tensors = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

pub fn tensors(model: &str) -> Tensors {
    let checkpoint = Checkpoint::open(&folder(model)).unwrap();
    let read = |name: &str| (name.to_string(), checkpoint.read_f32(name).unwrap());
    checkpoint.names().map(read).collect()
}

/// The tensors, with the one called `old` renamed to `new`.
pub fn named(mut tensors: Tensors, old: &str, new: &str) -> Tensors {
    let tensor = tensors.remove(old).unwrap();
    tensors.insert(new.to_string(), tensor);
    tensors
}

pub fn with(mut tensors: Tensors, name: &str, tensor: (Vec<usize>, Vec<f32>)) -> Tensors {
    tensors.insert(name.to_string(), tensor);
    tensors
}

/// The tensors without the model's prefix in their names, as a model without a head is saved.
pub fn bare(tensors: Tensors, prefix: &str) -> Tensors {
    let short = |name: String| name.strip_prefix(prefix).unwrap_or(&name).to_string();
    tensors
        .into_iter()
        .map(|(name, one)| (short(name), one))
        .collect()
}

/// The rows in reverse order: as an output map it gives the same logits from the last token to the first.
pub fn reversed((shape, values): &(Vec<usize>, Vec<f32>)) -> (Vec<usize>, Vec<f32>) {
    let rows = values.chunks(shape[1]).rev();
    (shape.clone(), rows.flatten().copied().collect())
}

pub fn write(path: &Path, tensors: &Tensors) {
    let all = tensors.iter().map(|(name, (shape, values))| {
        (
            name.clone(),
            shape.clone(),
            Cow::Borrowed(values.as_slice()),
        )
    });
    write_checkpoint(path, all).unwrap();
}

pub fn config_of(model: &str, fields: &Value) -> String {
    let text = fs::read_to_string(folder(model).join("config.json")).unwrap();
    let mut map: Map<String, Value> = serde_json::from_str(&text).unwrap();
    map.remove("tie_word_embeddings");
    map.extend(fields.as_object().unwrap().clone());
    Value::Object(map).to_string()
}

/// A model folder with these tensors, and with these fields in the model's configuration.
pub fn model_folder(model: &str, tensors: &Tensors, fields: &Value) -> TempDir {
    let made = tempfile::tempdir().unwrap();
    fs::write(made.path().join("config.json"), config_of(model, fields)).unwrap();
    write(&made.path().join("model.safetensors"), tensors);
    made
}

pub fn gpt2(tensors: &Tensors, fields: &Value) -> TempDir {
    model_folder("gpt2", tensors, fields)
}

pub fn read(folder: &Path) -> CausalLm {
    let config = Gpt2Config::from_folder(folder).unwrap();
    CausalLm::from_folder(folder, &config, &Device::flex()).unwrap()
}

pub fn refused(folder: &Path) -> String {
    let config = Gpt2Config::from_folder(folder).unwrap();
    let error = CausalLm::from_folder(folder, &config, &Device::flex()).unwrap_err();
    error.to_string()
}

pub fn expected() -> Expected {
    Expected(fs::read(folder("gpt2").join("expected.safetensors")).unwrap())
}

pub fn sequences() -> Vec<Vec<u32>> {
    let ids: Vec<u32> = expected()
        .ints("input_ids")
        .into_iter()
        .map(|id| id as u32)
        .collect();
    ids.chunks(ids.len() / 3).map(<[u32]>::to_vec).collect()
}

pub fn batch(sequences: &[Vec<u32>], device: &Device) -> CausalBatch {
    let all = sequences.iter().map(|ids| (ids.as_slice(), 0..ids.len()));
    CausalBatch::new(all, device).unwrap()
}

/// The GPT-2 inside a causal model, for tests that look at its weights.
pub fn own(model: &CausalLm) -> &Gpt2Lm {
    model.downcast_ref().unwrap()
}

pub fn logits(model: &CausalLm) -> Vec<f32> {
    floats(model.logits(&batch(&sequences(), &Device::flex()).packed))
}

/// Transformers' logits of the model with one weight.
pub fn tied_logits() -> Vec<f32> {
    expected().floats("logits")
}

/// The logits of the model whose output map is the embeddings in reverse order: those of each token are reversed.
pub fn reversed_logits() -> Vec<f32> {
    let logits = tied_logits();
    logits
        .chunks(120)
        .flat_map(|row| row.iter().rev().copied())
        .collect()
}

pub fn assert_near(found: &[f32], expected: &[f32], what: &str) {
    let error = difference(found, expected);
    assert!(error < 1e-4, "{what}: {error}");
}

/// The tensors with the one weight by both of its names.
pub fn both(tensors: Tensors) -> Tensors {
    let tensor = tensors[EMBEDDINGS].clone();
    with(tensors, OUTPUT, tensor)
}

/// The tensors with two weights: the output map has the rows of the embeddings in reverse order.
pub fn two(tensors: Tensors) -> Tensors {
    let tensor = reversed(&tensors[EMBEDDINGS]);
    with(tensors, OUTPUT, tensor)
}
