//! DeBERTa, XLM-RoBERTa, CamemBERT and DistilBERT agree with transformers in hidden states, logits and loss, and with PEFT in
//! the logits of its adapters, on every device of this build. `tests/interop/encoder_cases.py` made the files, except for
//! those of DeBERTaV3.
#![allow(clippy::unwrap_used)]

mod common;
#[path = "../../mtlora-core/tests/common/every_path.rs"]
mod every_path;

use std::path::{Path, PathBuf};

use burn::module::Module;
use burn::tensor::activation::log_softmax;
use burn::tensor::{Int, Tensor, TensorData};
use common::{Expected, difference, floats, folder};
use every_path::{devices, run_on_other_paths};
use mtlora_core::{Fold, MtLoraConfig, Structure, Targets};
use mtlora_models::{
    Checkpoint, ClassifierConfig, ClassifierModelConfig, DebertaClassifier, DistilBertClassifier,
    EncoderClassifier, PackedBatch, PeftAdapter, SequenceClassifier, TextConfig, Tokens,
};
use safetensors::SafeTensors;

/// The models, and what their weights' names begin with.
const MODELS: [&str; 6] = [
    "deberta_v3",
    "deberta_v2",
    "deberta_c2p",
    "xlm_roberta",
    "camembert",
    "distilbert",
];

#[test]
fn every_path_of_the_processor_agrees() {
    run_on_other_paths("every_path_of_the_processor_agrees");
}

/// The fixture's sequences, with their token types where it has them.
fn sequences(expected: &Expected) -> Vec<Tokens> {
    let mut sequences = expected.sequences();
    let file = SafeTensors::deserialize(&expected.0).unwrap();
    if file.names().contains(&"token_type_ids") {
        let types = expected.ints("token_type_ids");
        let length = types.len() / sequences.len();
        for (sequence, types) in sequences.iter_mut().zip(types.chunks(length)) {
            let types = &types[..sequence.ids.len()];
            sequence.type_ids = types.iter().map(|id| *id as u32).collect();
        }
        assert!(sequences.iter().any(|one| one.type_ids.contains(&1)));
    }
    sequences
}

fn hidden_states(classifier: &SequenceClassifier, batch: &PackedBatch) -> Vec<Tensor<2>> {
    if let Some(model) = classifier.downcast_ref::<DebertaClassifier>() {
        return model.base.hidden_states(batch);
    }
    if let Some(model) = classifier.downcast_ref::<DistilBertClassifier>() {
        return model.base.hidden_states(batch);
    }
    let model = classifier.downcast_ref::<EncoderClassifier>().unwrap();
    model.base.hidden_states(batch)
}

#[test]
fn models_agree_with_transformers() {
    for model in MODELS {
        let folder = folder(model);
        let config = ClassifierConfig::from_folder(&folder).unwrap();
        let expected = Expected(std::fs::read(folder.join("expected.safetensors")).unwrap());
        let sequences = sequences(&expected);
        let padded = expected.ints("input_ids").len() / sequences.len();
        assert!(sequences.iter().any(|s| s.len() < padded));
        for named in devices() {
            let (classifier, fresh) =
                SequenceClassifier::from_folder(&folder, &config, 0, &named.device).unwrap();
            assert!(fresh.is_empty(), "{model}: {fresh:?}");
            let all: Vec<&Tokens> = sequences.iter().collect();
            let packed = PackedBatch::new(&all, &config, &named.device).unwrap();
            let states = hidden_states(&classifier, &packed);
            assert_eq!(states.len(), 3);
            for (layer, state) in states.into_iter().enumerate() {
                let [_, width] = state.dims();
                let found = floats(state);
                let reference = expected.floats(&format!("hidden_{layer}"));
                for (sequence, start) in packed.offsets.starts().iter().enumerate() {
                    let values = sequences[sequence].len() * width;
                    let found = &found[start * width..][..values];
                    let wanted = &reference[sequence * padded * width..][..values];
                    let error = difference(found, wanted);
                    assert!(
                        error < 1e-4,
                        "{} {model} hidden {layer}: {error}",
                        named.name
                    );
                }
            }

            let logits = classifier.forward(&packed);
            let found = floats(logits.clone());
            let error = difference(&found, &expected.floats("logits"));
            assert!(error < 1e-4, "{} {model} logits: {error}", named.name);

            let labels: Vec<i64> = expected.ints("labels");
            let count = labels.len();
            let labels = TensorData::new(labels, [count]);
            let labels = Tensor::<1, Int>::from_data(labels, &named.device);
            let chosen = log_softmax(logits, 1).gather(1, labels.unsqueeze_dim(1));
            let loss = floats(chosen.mean().neg().reshape([1, 1]));
            assert!(difference(&loss, &expected.floats("loss")) < 1e-4);

            // A text alone has the logits that it has in a batch, where the longest one is another.
            for (sequence, together) in sequences.iter().zip(found.chunks(config.num_labels())) {
                let packed = PackedBatch::new(&[sequence], &config, &named.device).unwrap();
                let alone = floats(classifier.forward(&packed));
                assert!(
                    difference(&alone, together) < 1e-5,
                    "{} {model}",
                    named.name
                );
            }
        }
    }
}

#[test]
fn a_saved_model_is_read_back_to_the_bit() {
    for model in MODELS {
        let device = devices().remove(0).device;
        let source = folder(model);
        let config = ClassifierConfig::from_folder(&source).unwrap();
        let (classifier, _) =
            SequenceClassifier::from_folder(&source, &config, 0, &device).unwrap();
        let copy = tempfile::tempdir().unwrap();
        classifier.save(copy.path(), &config).unwrap();
        let read = |path: PathBuf| Checkpoint::open(&path).unwrap();
        let (old, new) = (read(source), read(copy.path().to_path_buf()));
        for name in old.names() {
            let (old, new) = (old.read_f32(name).unwrap(), new.read_f32(name).unwrap());
            assert_eq!(old, new, "{model} {name}");
        }
        assert_eq!(old.names().count(), new.names().count());
        let again = ClassifierConfig::from_folder(copy.path()).unwrap();
        assert_eq!(again.model_type(), config.model_type());
    }
}

/// What the Hub has is an encoder with other heads, or with none: the head and its hidden layer start at random.
#[test]
fn an_encoder_without_a_head_gets_one() {
    for (model, head) in [
        ("deberta_v3", ["classifier.", "pooler."]),
        ("distilbert", ["classifier.", "pre_classifier."]),
    ] {
        let device = devices().remove(0).device;
        let source = folder(model);
        let config = ClassifierConfig::from_folder(&source).unwrap();
        let checkpoint = Checkpoint::open(&source).unwrap();
        let kept = checkpoint
            .names()
            .filter(|name| !head.iter().any(|head| name.starts_with(head)));
        let mut tensors: Vec<(String, Vec<usize>, Vec<f32>)> = kept
            .map(|name| {
                let (shape, values) = checkpoint.read_f32(name).unwrap();
                (name.to_string(), shape, values)
            })
            .collect();
        let foreign = ["lm_predictions.lm_head.bias", "vocab_transform.weight"];
        let foreign = foreign[usize::from(model == "distilbert")];
        tensors.push((foreign.to_string(), vec![2], vec![0.0; 2]));
        let copy = tempfile::tempdir().unwrap();
        let file = copy.path().join("model.safetensors");
        let tensors = tensors
            .iter()
            .map(|(name, shape, values)| (name.clone(), shape.clone(), values.as_slice().into()));
        mtlora_models::write_checkpoint(&file, tensors).unwrap();
        std::fs::copy(source.join("config.json"), copy.path().join("config.json")).unwrap();
        let (_, fresh) = SequenceClassifier::from_folder(copy.path(), &config, 0, &device).unwrap();
        assert_eq!(fresh.len(), 4, "{fresh:?}");
        for name in fresh {
            assert!(head.iter().any(|head| name.starts_with(head)), "{name}");
        }
    }
}

fn adapters(model: &str) -> Vec<PathBuf> {
    let fixtures = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../tests/fixtures/peft_encoders"
    );
    let entries = std::fs::read_dir(Path::new(fixtures).join(model)).unwrap();
    entries.map(|entry| entry.unwrap().path()).collect()
}

/// As they are, merged, and written by this crate and read again.
#[test]
fn logits_with_adapters_agree_with_peft() {
    for model in ["deberta_v3", "deberta_v2", "distilbert"] {
        let source = folder(model);
        let config = ClassifierConfig::from_folder(&source).unwrap();
        let found = adapters(model);
        assert!(found.len() >= 2);
        for case in found {
            let adapter = PeftAdapter::from_folder(&case).unwrap();
            let expected = Expected(std::fs::read(case.join("expected.safetensors")).unwrap());
            let ids: Vec<u32> = expected
                .ints("input_ids")
                .iter()
                .map(|id| *id as u32)
                .collect();
            let tokens = Tokens {
                type_ids: vec![0; ids.len()],
                ids,
            };
            let wanted = expected.floats("logits");
            for named in devices() {
                // On a device that trains, where a head that is saved is known by what trains.
                let device = &named.device.clone().autodiff();
                let base = || {
                    let read = SequenceClassifier::from_folder(&source, &config, 0, device);
                    read.unwrap().0
                };
                let packed = PackedBatch::new(&[&tokens], &config, device).unwrap();
                let logits = |model: &SequenceClassifier| floats(model.forward(&packed));
                let check = |what: &str, found: Vec<f32>| {
                    let error = difference(&found, &wanted);
                    let size = wanted.iter().fold(1.0f32, |a, b| a.max(b.abs()));
                    assert!(
                        error < 2e-5 * size,
                        "{} {case:?} {what}: {error}",
                        named.name
                    );
                };
                assert!(difference(&logits(&base()), &wanted) > 1e-3, "{case:?}");
                let adapted = adapter.attach(base(), &config, &[]).unwrap();
                check("attached", logits(&adapted));
                let written = tempfile::tempdir().unwrap();
                let own = PeftAdapter::of(&adapted, &config, model, false).unwrap();
                own.write(written.path()).unwrap();
                let again = PeftAdapter::from_folder(written.path()).unwrap();
                let again = again.attach(base(), &config, &[]).unwrap();
                check("written and read", logits(&again));
                check("merged", logits(&adapted.materialize()));
            }
        }
    }
}

/// The pooler of DeBERTa's head is trained and saved with it, and so is DistilBERT's hidden layer.
#[test]
fn a_head_is_saved_whole() {
    let device = devices().remove(0).device.autodiff();
    for (model, target, hidden) in [
        ("deberta_v3", "query_proj", "pooler.dense"),
        ("distilbert", "q_lin", "pre_classifier"),
    ] {
        let source = folder(model);
        let config = ClassifierConfig::from_folder(&source).unwrap();
        let (base, _) = SequenceClassifier::from_folder(&source, &config, 0, &device).unwrap();
        let model = MtLoraConfig::new(Structure::Shim)
            .with_target_modules(Targets::names([target]))
            .with_modules_to_save(vec!["classifier".to_string()])
            .attach(base)
            .unwrap();
        let adapter = PeftAdapter::of(&model, &config, "base", false).unwrap();
        for name in [format!("{hidden}.weight"), "classifier.bias".to_string()] {
            assert!(adapter.saved.contains_key(&name), "{name}");
        }
        let folded = adapter.fold(Fold::Balanced).unwrap();
        assert_eq!(folded.num_labels(), Some(config.num_labels()));
    }
}
