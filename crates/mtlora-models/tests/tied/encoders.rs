//! The word embeddings of encoders, which a masked language model's head names too.

use std::path::Path;

use burn::tensor::Device;
use mtlora_models::{EncoderClassifier, EncoderConfig, SequenceClassifier};
use serde_json::json;

use crate::common::floats;
use crate::support::{Tensors, bare, model_folder, named, reversed, tensors, with};

fn classifier(folder: &Path) -> Result<SequenceClassifier, String> {
    let config = EncoderConfig::from_folder(folder).unwrap();
    let read = SequenceClassifier::from_folder(folder, &config, 0, &Device::flex());
    read.map(|(model, _)| model)
        .map_err(|error| error.to_string())
}

fn words(model: &SequenceClassifier) -> Vec<f32> {
    let model: &EncoderClassifier = model.downcast_ref().unwrap();
    floats(model.base.embeddings.word_embeddings.weight.val())
}

/// Of the one weight's two names, `save_model` keeps `lm_head.decoder.weight` for a RobertaForMaskedLM, and the
/// embeddings' name for a BertForMaskedLM.
#[test]
fn an_encoders_word_embeddings_are_read_by_the_name_in_the_masked_lm_head() {
    for (model, decoder) in [
        ("roberta", "lm_head.decoder.weight"),
        ("bert", "cls.predictions.decoder.weight"),
    ] {
        let (prefix, whole) = (format!("{model}."), tensors(model));
        let embeddings = format!("{prefix}embeddings.word_embeddings.weight");
        let tensor = whole[&embeddings].clone();
        let bias = (vec![tensor.0[0]], vec![0.5; tensor.0[0]]);
        let head = decoder.trim_end_matches("decoder.weight");
        let headed = |tensors: Tensors| {
            let tensors = with(tensors, &format!("{head}bias"), bias.clone());
            with(tensors, &format!("{head}decoder.bias"), bias.clone())
        };
        let one = named(headed(whole.clone()), &embeddings, decoder);
        let other = with(headed(whole.clone()), decoder, reversed(&tensor));
        for (form, tensors) in [
            ("plain", whole.clone()),
            ("one name", one.clone()),
            (
                "both names",
                with(headed(whole.clone()), decoder, tensor.clone()),
            ),
            // A classifier ignores the masked language model's head, so its output weight does not matter.
            ("two weights", other.clone()),
            ("bare", bare(headed(whole.clone()), &prefix)),
            ("bare, one name", bare(one.clone(), &prefix)),
        ] {
            let made = model_folder(model, &tensors, &json!({}));
            let read = classifier(made.path()).unwrap();
            assert_eq!(words(&read), tensor.1, "{model} {form}");
        }
        let apart = json!({"tie_word_embeddings": false});
        let read = classifier(model_folder(model, &other, &apart).path()).unwrap();
        assert_eq!(words(&read), tensor.1);
        let said = classifier(model_folder(model, &one, &apart).path()).unwrap_err();
        assert!(
            said.contains(&format!("1 tensor is missing: `{embeddings}`")),
            "{said}"
        );
    }
}
