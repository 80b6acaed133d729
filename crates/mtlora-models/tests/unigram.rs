//! Token ids of Unigram tokenizers (DeBERTa's, XLM-RoBERTa's and CamemBERT's) with several settings are those of transformers
//! 5.24, which tests/interop/encoder_cases.py wrote.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;

use mtlora_models::{ClassifierConfig, TextEncoder};
use serde_json::{Value, json};

/// A configuration with as many rows as the tokenizer has tokens, and some for those that settings add.
fn config(kind: &str) -> Value {
    let sizes = json!({
        "vocab_size": 64, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2,
        "intermediate_size": 16, "max_position_embeddings": 66, "pad_token_id": 1,
    });
    let mut config = sizes.as_object().unwrap().clone();
    let model_type = match kind {
        "deberta" => "deberta-v2",
        "xlm" => "xlm-roberta",
        _ => "camembert",
    };
    config.insert("model_type".to_string(), json!(model_type));
    config.insert("type_vocab_size".to_string(), json!(2));
    Value::Object(config)
}

#[test]
fn ids_are_those_of_transformers() {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/unigram_tokenizers.json");
    let fixture: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    let cases = fixture["cases"].as_array().unwrap();
    assert!(cases.len() > 30);
    let rows: Vec<(&str, Option<&str>)> = fixture["rows"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| (row[0].as_str().unwrap(), row[1].as_str()))
        .collect();
    let mut wrong = Vec::new();
    for case in cases {
        let (name, kind) = (
            case["name"].as_str().unwrap(),
            case["kind"].as_str().unwrap(),
        );
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, value: &Value| {
            fs::write(folder.path().join(name), value.to_string()).unwrap();
        };
        write("tokenizer.json", &fixture["files"][kind]);
        write("config.json", &config(kind));
        if !case["tokenizer_config"].is_null() {
            write("tokenizer_config.json", &case["tokenizer_config"]);
        }
        let config = ClassifierConfig::from_folder(folder.path()).unwrap();
        let length = case["max_length"].as_u64().unwrap_or(64);
        let text = TextEncoder::from_folder(folder.path(), &config, length as usize).unwrap();
        let found = text.encode_batch(&rows).unwrap();
        for (row, tokens) in found.into_iter().enumerate() {
            let expected = &case["expected"];
            for (what, found) in [("ids", &tokens.ids), ("type_ids", &tokens.type_ids)] {
                if json!(found) != expected[what][row] {
                    let wanted = &expected[what][row];
                    wrong.push(format!(
                        "{name}: {:?}: {what} {found:?}, not {wanted}",
                        rows[row]
                    ));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
