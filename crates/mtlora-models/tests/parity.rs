//! RoBERTa and BERT agree with transformers in hidden states, logits and loss, on every device of this build.
#![allow(clippy::unwrap_used)]

mod common;
#[path = "../../mtlora-core/tests/common/every_path.rs"]
mod every_path;

use std::path::PathBuf;

use burn::tensor::activation::log_softmax;
use burn::tensor::{Tensor, TensorData};
use common::{Expected, difference, floats, folder};
use every_path::{devices, run_on_other_paths};
use mtlora_models::{EncoderClassifier, EncoderConfig, PackedBatch, SequenceClassifier, Tokens};

#[test]
fn every_path_of_the_processor_agrees() {
    run_on_other_paths("every_path_of_the_processor_agrees");
}

#[test]
fn models_agree_with_transformers() {
    for model in ["roberta", "bert"] {
        let folder = folder(model);
        let config = EncoderConfig::from_folder(&folder).unwrap();
        let expected = Expected(std::fs::read(folder.join("expected.safetensors")).unwrap());
        let sequences = expected.sequences();
        let padded = expected.ints("input_ids").len() / sequences.len();
        assert!(
            sequences.iter().any(|s| s.len() < padded),
            "no sequence of the fixture is padded"
        );
        for named in devices() {
            let (classifier, fresh) =
                SequenceClassifier::from_folder(&folder, &config, 0, &named.device).unwrap();
            assert!(fresh.is_empty());
            let all: Vec<&Tokens> = sequences.iter().collect();
            let packed = PackedBatch::new(&all, &config, &named.device).unwrap();

            for (layer, state) in classifier
                .downcast_ref::<EncoderClassifier>()
                .unwrap()
                .base
                .hidden_states(&packed)
                .into_iter()
                .enumerate()
            {
                let found = floats(state);
                let reference = expected.floats(&format!("hidden_{layer}"));
                for (sequence, start) in packed.offsets.starts().iter().enumerate() {
                    let values = sequences[sequence].len() * config.hidden_size;
                    let found = &found[start * config.hidden_size..][..values];
                    let wanted = &reference[sequence * padded * config.hidden_size..][..values];
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
            let labels = Tensor::<1, burn::tensor::Int>::from_data(
                TensorData::new(labels, [count]),
                &named.device,
            );
            let chosen = log_softmax(logits, 1).gather(1, labels.unsqueeze_dim(1));
            let loss = floats(chosen.mean().neg().reshape([1, 1]));
            assert!(difference(&loss, &expected.floats("loss")) < 1e-4);

            // A sentence alone has the logits that it has in a batch.
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
    for model in ["roberta", "bert"] {
        let device = devices().remove(0).device;
        let source = folder(model);
        let config = EncoderConfig::from_folder(&source).unwrap();
        let (classifier, _) =
            SequenceClassifier::from_folder(&source, &config, 0, &device).unwrap();
        let copy = tempfile::tempdir().unwrap();
        classifier.save(copy.path(), &config).unwrap();
        let read = |path: PathBuf| mtlora_models::Checkpoint::open(&path).unwrap();
        let (old, new) = (read(source), read(copy.path().to_path_buf()));
        for name in old.names() {
            assert_eq!(
                old.read_f32(name).unwrap(),
                new.read_f32(name).unwrap(),
                "{name}"
            );
        }
        assert_eq!(old.names().count(), new.names().count());
    }
}
