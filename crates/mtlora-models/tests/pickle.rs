//! A model that was saved before there were safetensors.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Expected, difference, floats, folder};
use mtlora_core::devices;
use mtlora_models::{EncoderConfig, PackedBatch, SequenceClassifier, Tokens};

#[test]
fn an_old_bert_computes_the_same_from_its_pickle() {
    let pickle = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../tests/fixtures/pickle/bert.bin"
    );
    let old = tempfile::tempdir().unwrap();
    std::fs::copy(pickle, old.path().join("pytorch_model.bin")).unwrap();
    std::fs::copy(
        folder("bert").join("config.json"),
        old.path().join("config.json"),
    )
    .unwrap();

    let config = EncoderConfig::from_folder(old.path()).unwrap();
    let expected = Expected(std::fs::read(folder("bert").join("expected.safetensors")).unwrap());
    let device = devices().into_iter().next().unwrap().device;
    let (model, fresh) = SequenceClassifier::from_folder(old.path(), &config, 0, &device).unwrap();
    assert_eq!(fresh, [""; 0]);
    let sequences = expected.sequences();
    let all: Vec<&Tokens> = sequences.iter().collect();
    let packed = PackedBatch::new(&all, &config, &device).unwrap();
    let error = difference(&floats(model.forward(&packed)), &expected.floats("logits"));
    assert!(error < 1e-4, "{error}");
}
