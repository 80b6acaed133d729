//! Thirty training steps agree with PyTorch's, on every device of this build.
#![allow(clippy::unwrap_used)]

#[path = "../../mtlora-core/tests/common/every_path.rs"]
mod every_path;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use burn::module::Module;
use burn::optim::{GradientsParams, ModuleOptimizer};
use burn::tensor::TensorData;
use every_path::{devices, run_on_other_paths};
use mtlora_core::{
    AdapterMethod, Dora, FusedProjections, MtLoraConfig, NamedDevice, State, Structure, Targets,
    capabilities, load_state, state,
};
use mtlora_models::{
    CausalBatch, CausalConfig, CausalLm, ClassifierConfig, ClassifierModelConfig, PackedBatch,
    SequenceClassifier, Tokens, fused_projections,
};
use mtlora_train::{
    LoraPlus, LrSchedule, LrScheduler, Method, Objective, Target, adamw, lora_plus_adamw, loss_sum,
};
use safetensors::SafeTensors;

#[test]
fn every_path_of_the_processor_agrees() {
    run_on_other_paths("every_path_of_the_processor_agrees");
}

struct Recording {
    bytes: Vec<u8>,
    metadata: HashMap<String, String>,
}

impl Recording {
    fn open(model: &str, case: &str) -> Option<Self> {
        Self::read(&folder(model).join(format!("train_{case}.safetensors")))
    }

    /// A recording that `tests/interop/training_cases.py` made, in this repository.
    fn own(model: &str, case: &str) -> Self {
        let fixtures = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/models");
        let path = PathBuf::from(fixtures).join(model);
        Self::read(&path.join(format!("train_{case}.safetensors"))).unwrap()
    }

    fn read(path: &Path) -> Option<Self> {
        let bytes = std::fs::read(path).ok()?;
        let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
        let metadata = header.metadata().clone().unwrap();
        Some(Self { bytes, metadata })
    }

    fn number(&self, name: &str) -> f64 {
        self.metadata[name].parse().unwrap()
    }

    fn floats(&self, name: &str) -> TensorData {
        let file = SafeTensors::deserialize(&self.bytes).unwrap();
        let tensor = file.tensor(name).unwrap();
        let bytes = tensor.data().chunks_exact(4);
        let values: Vec<f32> = bytes
            .map(|b| f32::from_le_bytes(b.try_into().unwrap()))
            .collect();
        TensorData::new(values, tensor.shape().to_vec())
    }

    fn ints(&self, name: &str) -> Vec<i64> {
        let file = SafeTensors::deserialize(&self.bytes).unwrap();
        let bytes = file.tensor(name).unwrap().data().to_vec();
        bytes
            .chunks_exact(8)
            .map(|b| i64::from_le_bytes(b.try_into().unwrap()))
            .collect()
    }
}

fn folder(model: &str) -> PathBuf {
    let fixtures = std::env::var_os("MTLORA_FIXTURES").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures")),
        PathBuf::from,
    );
    fixtures.join("models").join(model)
}

/// The published code's name for a parameter, and whether it is transposed there.
fn recorded(path: &str, model: &str) -> (String, bool) {
    let transposed = path.ends_with(".weight") && !path.contains("layer_norm");
    let prefix = if model == "deberta_v3" {
        "deberta"
    } else {
        model
    };
    let name = path
        .replace("base.", &format!("{prefix}."))
        .replace(".self_.", ".self.")
        .replace("weight.mtlora.a", "xtuning_A")
        .replace("weight.mtlora.b", "xtuning_B")
        .replace("weight.mtlora.c", "xtuning_C")
        .replace("weight.mtlora.d", "xtuning_D")
        .replace("weight.mtlora.m", "lora_magnitude_vector")
        .replace("layer_norm.beta", "LayerNorm.bias");
    let name = match model {
        "bert" | "deberta_v3" => name
            .replace("classifier.pooler", "pooler")
            .replace("classifier.out_proj", "classifier"),
        _ => name,
    };
    (name, transposed)
}

fn transpose(data: &TensorData) -> TensorData {
    let values: Vec<f32> = data.clone().try_to_vec().unwrap();
    let (rows, columns) = (data.shape()[0], data.shape()[1]);
    let turned = (0..rows * columns).map(|i| values[i % rows * columns + i / rows]);
    TensorData::new(turned.collect::<Vec<f32>>(), [columns, rows])
}

/// The same values in another shape: vectors are columns here.
fn shaped(data: TensorData, shape: Vec<usize>) -> TensorData {
    let values: Vec<f32> = data.try_to_vec().unwrap();
    TensorData::new(values, shape)
}

fn norm(values: impl Iterator<Item = f32>) -> f64 {
    values.map(|v| f64::from(v).powi(2)).sum::<f64>().sqrt()
}

/// Trains an encoder as recorded, and compares every step. Returns on how many devices.
fn follow(model: &str, structure: Structure) -> usize {
    match Recording::open(model, structure.name()) {
        None => 0,
        Some(recording) => {
            let method = adapter(structure, &recording);
            follow_recording(model, structure.name(), &method, &recording, adamw)
        }
    }
}

/// An adapter of this method on query and value, with the settings of a recording.
fn adapter(method: impl Into<AdapterMethod>, recording: &Recording) -> Method {
    adapter_on("query,value", method, recording)
}

/// The same on these targets.
fn adapter_on(targets: &str, method: impl Into<AdapterMethod>, recording: &Recording) -> Method {
    let targets = targets.split(',');
    Method::MtLora(
        MtLoraConfig::new(method)
            .with_rank(recording.number("rank") as usize)
            .with_alpha(recording.number("alpha"))
            .with_target_modules(Targets::names(targets))
            .with_modules_to_save(vec!["classifier".into()]),
    )
}

/// Trains an encoder as recorded, prepared by `method` and with the optimizer that `optimizer_of` makes for a weight decay, and
/// compares every step. Returns on how many devices.
fn follow_recording(
    model: &str,
    what: &str,
    method: &Method,
    recording: &Recording,
    optimizer_of: impl Fn(f64) -> ModuleOptimizer,
) -> usize {
    let source = folder(model);
    let config = ClassifierConfig::from_folder(&source).unwrap();
    let objective = Objective::Classification {
        labels: config.labels().to_vec(),
    };
    let (ids, mask) = (
        recording.ints("input_ids"),
        recording.ints("attention_mask"),
    );
    let labels = recording.ints("labels");
    let steps = recording.number("steps") as usize;
    let batch = labels.len() / steps;
    let length = ids.len() / labels.len();
    let curve = Curve::new(recording);
    let all = devices();
    for named in &all {
        let device = named.device.clone().autodiff();
        let (classifier, _) =
            SequenceClassifier::from_folder(&source, &config, 0, &device).unwrap();
        let classifier = method.prepare(classifier).unwrap();
        let start: State = state(&classifier, |_, trains| trains)
            .into_iter()
            .map(|(path, value)| {
                let (name, transposed) = recorded(&path, model);
                let data = recording.floats(&format!("init.{name}"));
                let data = if transposed { transpose(&data) } else { data };
                (path, shaped(data, value.shape().to_vec()))
            })
            .collect();
        let mut classifier = load_state(classifier, start).unwrap();
        let mut optimizer = optimizer_of(recording.number("weight_decay"));
        for step in 0..steps {
            let rate = curve.rate(step);
            let sequences: Vec<Tokens> = (step * batch..(step + 1) * batch)
                .map(|row| {
                    let range = row * length..(row + 1) * length;
                    let real = mask[range.clone()].iter().filter(|m| **m == 1).count();
                    let ids = &ids[range][..real];
                    Tokens {
                        ids: ids.iter().map(|id| *id as u32).collect(),
                        type_ids: vec![0; real],
                    }
                })
                .collect();
            let targets: Vec<Target> = labels[step * batch..(step + 1) * batch]
                .iter()
                .map(|label| Target::Class(*label as usize))
                .collect();
            let sequences: Vec<&Tokens> = sequences.iter().collect();
            let packed = PackedBatch::new(&sequences, &config, &device).unwrap();
            let sum = loss_sum(classifier.forward(&packed), &targets, &objective).unwrap();
            let loss = sum.div_scalar(batch as f64);
            let what = format!("{} {model} {what}", named.name);
            curve.check(step, loss.clone().into_scalar(), &what);
            let gradients = GradientsParams::from_grads(loss.backward(), &classifier);
            classifier = optimizer.step(rate, classifier, gradients);
        }
        let what = format!("{} {what}", named.name);
        let found = state(&classifier.valid().train(), |_, trains| trains);
        compare(found, recording, model, &what);
    }
    all.len()
}

/// The learning rate and the loss of each recorded step.
struct Curve {
    rates: Vec<f32>,
    losses: Vec<f32>,
    schedule: LrSchedule,
}

impl Curve {
    fn new(recording: &Recording) -> Self {
        let losses: Vec<f32> = recording.floats("loss").try_to_vec().unwrap();
        let warmup = recording.number("warmup_steps") as usize;
        Self {
            rates: recording.floats("lr").try_to_vec().unwrap(),
            schedule: LrSchedule::new(
                LrScheduler::Linear,
                recording.number("lr"),
                warmup,
                losses.len(),
            ),
            losses,
        }
    }

    /// The learning rate of a step, which must be exactly the recorded one.
    fn rate(&self, step: usize) -> f64 {
        let rate = self.schedule.rate(step);
        let recorded = self.rates[step];
        assert_eq!(rate as f32, recorded, "learning rate of step {step}");
        rate
    }

    fn check(&self, step: usize, found: f32, what: &str) {
        let wanted = self.losses[step];
        assert!(
            (found - wanted).abs() < 1e-3,
            "{what} step {step}: loss {found}, PyTorch's {wanted}"
        );
    }
}

/// Compares the trained tensors with PyTorch's.
fn compare(found: State, recording: &Recording, model: &str, what: &str) {
    for (path, found) in found {
        let (name, transposed) = recorded(&path, model);
        let wanted = recording.floats(&format!("final.{name}"));
        let found = if transposed { transpose(&found) } else { found };
        let found: Vec<f32> = found.try_to_vec().unwrap();
        let wanted: Vec<f32> = wanted.try_to_vec().unwrap();
        assert_eq!(found.len(), wanted.len());
        let apart = norm(found.iter().zip(&wanted).map(|(a, b)| a - b));
        let size = norm(wanted.into_iter());
        assert!(apart <= 1e-2 * size, "{what} {path}: {apart} of {size}");
    }
}

/// A row of a causal model's batch without its padding, and the places of the tokens that count in the loss.
fn causal_row<'a>(ids: &'a [u32], mask: &[i64], loss_mask: &[f32]) -> (&'a [u32], Vec<usize>) {
    let real = mask.iter().filter(|m| **m == 1).count();
    let counts = (0..real).filter(|at| loss_mask[*at] == 1.0);
    (&ids[..real], counts.collect())
}

/// What is adapted, and what is added to the number of predicted tokens in a recording's loss.
struct Recipe {
    targets: Vec<String>,
    projections: Vec<FusedProjections>,
    added: f64,
}

fn follow_gpt2(structure: Structure) -> usize {
    let recipe = |_: &Recording| Recipe {
        targets: ["c_attn", "c_fc"].map(str::to_string).to_vec(),
        projections: vec![fused_projections("qkv").unwrap()],
        added: 1e-4,
    };
    follow_causal("gpt2", structure, recipe)
}

/// All linear maps of every layer are adapted.
fn follow_decoder(model: &str, structure: Structure) -> usize {
    let recipe = |recording: &Recording| {
        let targets = recording.metadata["targets"].split(',');
        Recipe {
            targets: targets.map(str::to_string).collect(),
            projections: Vec::new(),
            added: 0.0,
        }
    };
    follow_causal(model, structure, recipe)
}

/// The devices that a causal model is trained on. One that compiles kernels for each shape takes minutes for a model, so
/// it trains GPT-2 in every structure and one of the decoders, which has everything that the others have.
fn devices_for(model: &str, structure: Structure) -> Vec<NamedDevice> {
    let everywhere = model == "gpt2" || (model == "qwen3" && structure == Structure::Ctcm);
    let mut all = devices();
    all.retain(|named| everywhere || !capabilities(&named.device).compiles_per_shape);
    all
}

/// Trains a causal model as recorded, and compares every step. Returns on how many devices.
fn follow_causal(
    model_name: &str,
    structure: Structure,
    recipe: impl Fn(&Recording) -> Recipe,
) -> usize {
    let Some(recording) = Recording::open(model_name, structure.name()) else {
        return 0;
    };
    let recipe = recipe(&recording);
    let source = folder(model_name);
    let config = CausalConfig::from_folder(&source).unwrap();
    let ids: Vec<u32> = recording
        .ints("input_ids")
        .into_iter()
        .map(|id| id as u32)
        .collect();
    let mask = recording.ints("attention_mask");
    let loss_mask: Vec<f32> = recording.floats("loss_mask").try_to_vec().unwrap();
    let shape = recording.floats("loss_mask").shape().to_vec();
    let (steps, batch, length) = (shape[0], shape[1], shape[2]);
    let curve = Curve::new(&recording);
    let smoothing = recording.number("label_smoothing");
    let all = devices_for(model_name, structure);
    for named in &all {
        let device = named.device.clone().autodiff();
        let model = CausalLm::from_folder(&source, &config, &device).unwrap();
        let adapter = MtLoraConfig::new(structure)
            .with_rank(recording.number("rank") as usize)
            .with_alpha(recording.number("alpha"))
            .with_target_modules(Targets::names(recipe.targets.clone()))
            .with_fused_projections(recipe.projections.clone());
        let model = Method::MtLora(adapter).prepare(model).unwrap();
        let start: State = state(&model, |_, trains| trains)
            .into_keys()
            .map(|path| {
                let (name, _) = recorded(&path, model_name);
                let data = recording.floats(&format!("init.{name}"));
                (path, data)
            })
            .collect();
        let mut model = load_state(model, start).unwrap();
        let mut optimizer = adamw(recording.number("weight_decay"));
        for step in 0..steps {
            let rate = curve.rate(step);
            let rows = (step * batch..(step + 1) * batch)
                .map(|row| row * length..(row + 1) * length)
                .map(|row| causal_row(&ids[row.clone()], &mask[row.clone()], &loss_mask[row]));
            let batch = CausalBatch::new(rows, &device).unwrap();
            let sum = model.loss(&batch, smoothing);
            let loss = sum.div_scalar(batch.count as f64 + recipe.added);
            let what = format!("{} {model_name} {structure}", named.name);
            curve.check(step, loss.clone().into_scalar(), &what);
            let gradients = GradientsParams::from_grads(loss.backward(), &model);
            model = optimizer.step(rate, model, gradients);
        }
        let what = format!("{} {model_name} {structure}", named.name);
        let found = state(&model, |_, trains| trains);
        compare(found, &recording, model_name, &what);
    }
    all.len()
}

#[test]
fn gpt2_trains_as_in_pytorch_in_every_structure() {
    let followed: usize = Structure::ALL.into_iter().map(follow_gpt2).sum();
    assert_eq!(followed, 4 * devices().len());
}

#[test]
fn decoders_train_as_in_pytorch_with_every_linear_map_adapted() {
    for model in ["llama", "qwen2", "qwen3", "smollm3"] {
        for structure in [Structure::Lora, Structure::Shim, Structure::Ctcm] {
            let followed = follow_decoder(model, structure);
            let wanted = devices_for(model, structure).len();
            assert_eq!(followed, wanted, "{model} {structure}");
        }
    }
}

#[test]
fn roberta_trains_as_in_pytorch_in_every_structure() {
    let followed: usize = Structure::ALL
        .into_iter()
        .map(|structure| follow("roberta", structure))
        .sum();
    assert_eq!(followed, 4 * devices().len());
}

#[test]
fn bert_trains_as_in_pytorch() {
    assert_eq!(follow("bert", Structure::Shim), devices().len());
}

/// Every linear map of its layers is adapted, and pooler and classifier train.
#[test]
fn deberta_trains_as_with_peft() {
    let recording = Recording::own("deberta_v3", "lora");
    let targets = &recording.metadata["targets"];
    let method = adapter_on(targets, Structure::Lora, &recording);
    let followed = follow_recording("deberta_v3", "lora", &method, &recording, adamw);
    assert_eq!(followed, devices().len());
}

#[test]
fn lora_plus_trains_as_with_pefts_optimizer() {
    let recording = Recording::own("roberta", "loraplus");
    let lora_plus = LoraPlus {
        lr_ratio: recording.number("loraplus_lr_ratio"),
        ..LoraPlus::default()
    };
    let optimizer = |weight_decay| lora_plus_adamw(weight_decay, lora_plus);
    let method = adapter(Structure::Lora, &recording);
    let followed = follow_recording("roberta", "lora plus", &method, &recording, optimizer);
    assert_eq!(followed, devices().len());
}

#[test]
fn bitfit_trains_as_in_pytorch() {
    let recording = Recording::own("roberta", "bitfit");
    let followed = follow_recording("roberta", "bitfit", &Method::BitFit, &recording, adamw);
    assert_eq!(followed, devices().len());
}

#[test]
fn dora_trains_as_with_peft() {
    let recording = Recording::own("roberta", "dora");
    let method = adapter(Dora, &recording);
    let followed = follow_recording("roberta", "dora", &method, &recording, adamw);
    assert_eq!(followed, devices().len());
}
