//! Adapters that PEFT wrote, and MTLoRA adapters folded into plain LoRA, give the logits that PEFT computed, on every
//! device of this build. tests/interop/peft_interop.py made the files.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use common::{Expected, difference, floats, folder};
use mtlora_core::{
    AdapterMethod, Dora, Fold, MtLoraConfig, Structure, Targets, WeightKind, adapters, devices,
    state, trainable_parameters,
};
use mtlora_models::{
    AdapterConfig, CausalBatch, CausalLm, Checkpoint, EncoderConfig, Gpt2Config, PackedBatch,
    PeftAdapter, PeftType, ProblemType, SequenceClassifier, Tokens, TrainedFormat,
};

const MODELS: [&str; 3] = ["roberta", "bert", "gpt2"];
/// The number of tokens at the end of each of GPT-2's sequences whose logits are in the files.
const LAST: usize = 4;

fn golden(model: &str) -> PathBuf {
    let fixtures = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/peft");
    Path::new(fixtures).join(model)
}

/// The cases of a model: its adapters' folders.
fn cases(model: &str) -> BTreeMap<String, PathBuf> {
    let entries = std::fs::read_dir(golden(model)).unwrap();
    let folders = entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_dir());
    let named = folders.map(|path| {
        let name = path.file_name().unwrap().to_str().unwrap().to_string();
        (name, path)
    });
    named.collect()
}

/// A base model and its configuration.
enum Base {
    Encoder(Box<SequenceClassifier>, EncoderConfig),
    Causal(Box<CausalLm>, Gpt2Config),
}

impl Base {
    fn new(model: &str, adapter: &PeftAdapter, device: &Device) -> Self {
        let source = folder(model);
        if model == "gpt2" {
            let config = Gpt2Config::from_folder(&source).unwrap();
            let model = CausalLm::from_folder(&source, &config, device).unwrap();
            return Base::Causal(Box::new(model), config);
        }
        let mut config = EncoderConfig::from_folder(&source).unwrap();
        if let Some(labels) = adapter.num_labels() {
            let labels = (0..labels).map(|label| format!("LABEL_{label}")).collect();
            let kind = ProblemType::SingleLabelClassification;
            config = config.with_classifier(labels, kind).unwrap();
        }
        let (model, _) = SequenceClassifier::from_folder(&source, &config, 0, device).unwrap();
        Base::Encoder(Box::new(model), config)
    }

    fn with(self, adapter: &PeftAdapter) -> Self {
        match self {
            Base::Encoder(model, config) => {
                let model = adapter.attach(*model, &config, &[]).unwrap();
                Base::Encoder(Box::new(model), config)
            }
            Base::Causal(model, config) => {
                let model = adapter.attach(*model, &config, &[]).unwrap();
                Base::Causal(Box::new(model), config)
            }
        }
    }

    fn materialized(self) -> Self {
        match self {
            Base::Encoder(model, config) => Base::Encoder(Box::new(model.materialize()), config),
            Base::Causal(model, config) => Base::Causal(Box::new(model.materialize()), config),
        }
    }

    fn logits(&self, inputs: &Expected, device: &Device) -> Vec<f32> {
        match self {
            Base::Encoder(model, config) => {
                let sequences = inputs.sequences();
                let all: Vec<&Tokens> = sequences.iter().collect();
                floats(model.forward(&PackedBatch::new(&all, config, device).unwrap()))
            }
            Base::Causal(model, _) => {
                let ids = inputs.ints("input_ids");
                let ids: Vec<u32> = ids.into_iter().map(|id| id as u32).collect();
                let length = ids.len() / 3;
                let batch = ids.chunks(length).map(|ids| (ids, 0..length));
                let batch = CausalBatch::new(batch, device).unwrap();
                let all: Tensor<2> = model.logits(&batch.packed);
                let last =
                    (1..=3).map(|end| floats(all.clone().narrow(0, end * length - LAST, LAST)));
                last.flatten().collect()
            }
        }
    }
}

fn inputs(model: &str) -> Expected {
    Expected(std::fs::read(folder(model).join("expected.safetensors")).unwrap())
}

fn expected(model: &str) -> Expected {
    Expected(std::fs::read(golden(model).join("expected.safetensors")).unwrap())
}

#[test]
fn logits_agree_with_peft() {
    for model in MODELS {
        let (inputs, expected) = (inputs(model), expected(model));
        let cases = cases(model);
        assert!(cases.len() > 10);
        for (case, folder) in &cases {
            let adapter = PeftAdapter::from_folder(folder).unwrap();
            let wanted = expected.floats(case);
            for named in devices() {
                let device = &named.device;
                let check = |what: &str, found: Vec<f32>| {
                    let error = difference(&found, &wanted);
                    // 1e-5 on flex, where people train; other backends add up in other orders, and
                    // get 1e-5 of the largest logit (up to 3.4).
                    let bound = match named.name.as_str() {
                        "flex" => 1e-5,
                        _ => wanted.iter().fold(1.0f32, |a, b| a.max(b.abs())) * 1e-5,
                    };
                    assert!(
                        error < bound,
                        "{} {model} {case} {what}: {error}",
                        named.name
                    );
                };
                let base = || Base::new(model, &adapter, device);
                // The adapter must change the logits, or the comparison would show nothing.
                let plain = base().logits(&inputs, device);
                assert!(difference(&plain, &wanted) > 1e-3, "{model} {case}");
                let adapted = base().with(&adapter);
                check("attached", adapted.logits(&inputs, device));
                check("merged", adapted.materialized().logits(&inputs, device));
            }
        }
    }
}

#[test]
fn folded_adapters_are_plain_lora_with_the_same_logits() {
    let device = &devices().remove(0).device;
    for model in MODELS {
        let (inputs, expected) = (inputs(model), expected(model));
        for (case, folder) in cases(model) {
            let adapter = PeftAdapter::from_folder(&folder).unwrap();
            if !adapter.config.method.is_low_rank() {
                let error = adapter.fold(Fold::Balanced).unwrap_err().to_string();
                assert!(error.contains("merge the adapter"), "{error}");
                continue;
            }
            for fold in Fold::ALL {
                let out = tempfile::tempdir().unwrap();
                adapter.fold(fold).unwrap().write(out.path()).unwrap();
                let plain = PeftAdapter::from_folder(out.path()).unwrap();
                assert_eq!(plain.config.peft_type, PeftType::Lora);
                assert!(plain.config.fused_projections.is_empty());
                assert_eq!(plain.modules.len(), adapter.modules.len());
                let found = Base::new(model, &plain, device).with(&plain);
                let error = difference(&found.logits(&inputs, device), &expected.floats(&case));
                assert!(error < 1e-5, "{model} {case} {fold}: {error}");
            }
        }
    }
}

#[test]
fn what_is_written_is_read_back() {
    for model in MODELS {
        for (case, folder) in cases(model) {
            let adapter = PeftAdapter::from_folder(&folder).unwrap();
            let out = tempfile::tempdir().unwrap();
            adapter.write(out.path()).unwrap();
            let again = PeftAdapter::from_folder(out.path()).unwrap();
            assert_eq!(again.modules, adapter.modules, "{model} {case}");
            assert_eq!(again.saved, adapter.saved, "{model} {case}");
            let config = AdapterConfig {
                ignored: Vec::new(),
                ..adapter.config
            };
            assert_eq!(again.config, config, "{model} {case}");
        }
    }
}

/// The folder is made from the model, and from the state that is saved while training.
#[test]
fn an_adapters_folder_can_be_made_from_its_model() {
    let device = devices().remove(0).device.autodiff();
    for model in MODELS {
        for (case, folder) in cases(model) {
            let adapter = PeftAdapter::from_folder(&folder).unwrap();
            let rslora = adapter.config.use_rslora;
            let out = tempfile::tempdir().unwrap();
            let (taken, back) = match Base::new(model, &adapter, &device).with(&adapter) {
                Base::Encoder(model, config) => (
                    PeftAdapter::of(&*model, &config, "base", rslora).unwrap(),
                    through_state(&*model, &config, rslora, out.path()),
                ),
                Base::Causal(model, config) => (
                    PeftAdapter::of(&*model, &config, "base", rslora).unwrap(),
                    through_state(&*model, &config, rslora, out.path()),
                ),
            };
            assert_eq!(taken.saved, adapter.saved, "{model} {case}");
            assert_eq!(taken.modules, adapter.modules, "{model} {case}");
            assert_eq!(back.modules, adapter.modules, "{model} {case}");
            assert_eq!(back.saved, adapter.saved, "{model} {case}");
            assert_eq!(back.config.peft_type, taken.config.peft_type);
        }
    }
}

fn through_state<M: Module>(
    model: &M,
    layout: &impl mtlora_models::CheckpointLayout,
    rslora: bool,
    out: &Path,
) -> PeftAdapter {
    let format = TrainedFormat::new(model, layout, "base", rslora).unwrap();
    let values = state(model, |_, trains| trains);
    format.write(out, &values).unwrap();
    assert_eq!(format.read(out).unwrap(), values);
    PeftAdapter::from_folder(out).unwrap()
}

/// The folder has each method's factors, by the keys that the method declares.
#[test]
fn an_adapter_of_every_method_comes_back_from_its_folder() {
    let device = devices().remove(0).device.autodiff();
    let source = folder("roberta");
    let config = EncoderConfig::from_folder(&source).unwrap();
    for method in AdapterMethod::all() {
        let (model, _) = SequenceClassifier::from_folder(&source, &config, 0, &device).unwrap();
        let model = MtLoraConfig::new(method)
            .with_rank(3)
            .with_alpha(0.7)
            .with_target_modules(match method.refuses_weight(WeightKind::Embedding) {
                None => Targets::names(["query", "word_embeddings"]),
                Some(_) => Targets::names(["query"]),
            })
            .with_modules_to_save(vec!["classifier".to_string()])
            .attach(model)
            .unwrap();
        let out = tempfile::tempdir().unwrap();
        let back = through_state(&model, &config, false, out.path());
        let taken = PeftAdapter::of(&model, &config, "base", false).unwrap();
        assert!(!taken.saved.is_empty());
        // A training returns the model as `valid` makes it.
        let valid = PeftAdapter::of(&model.valid(), &config, "base", false).unwrap();
        assert_eq!(valid.saved, taken.saved, "{method}");
        assert_eq!(valid.config, taken.config, "{method}");
        assert_eq!(back.modules, taken.modules, "{method}");
        assert_eq!(back.config.method, method);
        let file = Checkpoint::open_file(&out.path().join("adapter_model.safetensors")).unwrap();
        for (name, module) in &back.modules {
            for factor in method.factors() {
                let key = factor.key(module.embedding);
                let key = format!("base_model.model.{name}.{key}");
                assert!(file.contains(&key), "{method}: {key}");
            }
        }
    }
}

#[test]
fn every_method_can_start_from_plain_lora() {
    let device = &devices().remove(0).device.autodiff();
    let inputs = inputs("roberta");
    let wanted = expected("roberta").floats("lora");
    let lora = PeftAdapter::from_folder(&cases("roberta")["lora"]).unwrap();
    for structure in AdapterMethod::all() {
        let Some(adapter) = lora.clone().in_method(structure, 0.1) else {
            // A method whose start depends on the frozen weight.
            assert_eq!(structure, AdapterMethod::from(Dora));
            continue;
        };
        let folder = tempfile::tempdir().unwrap();
        adapter.write(folder.path()).unwrap();
        let again = PeftAdapter::from_folder(folder.path()).unwrap();
        assert_eq!(again.config.method, structure);
        assert_eq!(again.modules, adapter.modules, "{structure}");
        let Base::Encoder(model, config) = Base::new("roberta", &adapter, device) else {
            panic!("roberta is an encoder");
        };
        let model = adapter.attach(*model, &config, &[]).unwrap();
        let forms = adapters(&model);
        assert!(forms.values().all(|values| values.form.method == structure));
        // Adapter and head train.
        assert_eq!(trainable_parameters(&model), adapter.num_params());
        let model = Base::Encoder(Box::new(model.valid()), config);
        let found = model.logits(&inputs, &device.clone().inner());
        assert!(difference(&found, &wanted) < 1e-5, "{structure}");
    }
    let shim = PeftAdapter::from_folder(&cases("roberta")["mtlora_shim"]).unwrap();
    assert!(shim.in_method(Structure::Icfm, 0.0).is_none());
}

#[test]
fn adapters_of_other_models_are_refused_by_name() {
    let device = &devices().remove(0).device;
    let adapter = PeftAdapter::from_folder(&cases("bert")["mtlora_shim"]).unwrap();
    let Base::Encoder(model, config) = Base::new("roberta", &adapter, device) else {
        panic!("roberta is an encoder");
    };
    let error = adapter
        .attach(*model, &config, &[])
        .unwrap_err()
        .to_string();
    assert!(error.contains("bert.encoder.layer.0"), "{error}");

    // A layer that the configuration targets and the file lacks, and the other way round.
    let mut adapter = PeftAdapter::from_folder(&cases("bert")["lora"]).unwrap();
    let name = adapter.modules.keys().next().unwrap().clone();
    adapter.modules.remove(&name);
    let Base::Encoder(model, config) = Base::new("bert", &adapter, device) else {
        panic!("bert is an encoder");
    };
    let error = adapter
        .attach(*model, &config, &[])
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("no adapter for") && error.contains(&name),
        "{error}"
    );
    let out = tempfile::tempdir().unwrap();
    let mut adapter = PeftAdapter::from_folder(&cases("bert")["lora"]).unwrap();
    adapter.config.layers_to_transform = vec![0];
    adapter.write(out.path()).unwrap();
    let error = PeftAdapter::from_folder(out.path())
        .unwrap_err()
        .to_string();
    assert!(error.contains("does not target"), "{error}");
}

/// GPT-2's output map is its token embeddings, but PEFT adapts the two separately.
#[test]
fn an_adapter_on_gpt2s_embeddings_is_two_adapters_in_peft() {
    let device = &devices().remove(0).device;
    let inputs = inputs("gpt2");
    let mut adapter = PeftAdapter::from_folder(&cases("gpt2")["embeddings"]).unwrap();
    let module = adapter.modules.remove("transformer.wpe").unwrap();
    // The factor needs as many columns as there are tokens.
    let rank = module.values.rank();
    let values: Vec<f32> = (0..rank * 120)
        .map(|at| (at as f32 * 0.7).sin() * 0.3)
        .collect();
    let mut tokens = module.clone();
    tokens.values.a = burn::tensor::TensorData::new(values, [rank, 120]);
    tokens.values.form.method = Structure::Lora.into();
    adapter.modules = BTreeMap::from([("transformer.wte".to_string(), tokens)]);
    adapter.config.target_modules = Some(mtlora_models::TargetModules::Names(vec!["wte".into()]));
    let Base::Causal(model, config) = Base::new("gpt2", &adapter, device) else {
        panic!("gpt2 is causal");
    };
    let model = *model;
    // An adapter of PEFT's on only one of the two cannot be read onto the one weight.
    let error = adapter.attach(model.clone(), &config, &[]).unwrap_err();
    assert!(error.to_string().contains("lm_head"), "{error}");
    adapter.config.peft_type = PeftType::MtLora;
    let ours = adapter.attach(model.clone(), &config, &[]).unwrap();
    let plain = adapter.fold(Fold::A).unwrap();
    assert_eq!(plain.config.peft_type, PeftType::Lora);
    assert_eq!(plain.modules.len(), 2);
    let again = plain.attach(model, &config, &[]).unwrap();
    let [ours, again] = [ours, again]
        .map(|model| Base::Causal(Box::new(model), config.clone()).logits(&inputs, device));
    assert!(difference(&ours, &again) < 1e-5);
}
