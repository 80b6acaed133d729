//! Token ids of model folders with all kinds of tokenizer settings are those of transformers 5.24, which
//! tests/interop/tokenizer_settings.py wrote.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

use mtlora_models::{
    Architecture, CausalText, EncoderConfig, EncoderSizes, Gpt2Config, Gpt2Sizes, TextEncoder,
    model_max_length,
};
use serde_json::{Value, json};

fn project(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .join(path)
}

fn read(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// The size of the vocabulary in the configuration, with room for the tokens that transformers adds.
fn rows(base: &str) -> usize {
    match base {
        "bert" => 64,
        "roberta" => 1264,
        _ => 1064,
    }
}

fn config(base: &str) -> Value {
    let text = match base {
        "gpt2" => Gpt2Config::new(Gpt2Sizes {
            vocab_size: rows(base),
            n_embd: 8,
            n_layer: 1,
            n_head: 2,
            n_positions: 64,
            end_of_text: 0,
        })
        .unwrap()
        .to_json(),
        _ => {
            let architecture = match base {
                "bert" => Architecture::Bert,
                _ => Architecture::Roberta,
            };
            let sizes = EncoderSizes {
                vocab_size: rows(base),
                hidden_size: 8,
                num_hidden_layers: 1,
                num_attention_heads: 2,
                intermediate_size: 16,
                max_tokens: 64,
            };
            let config = EncoderConfig::new(architecture, sizes).unwrap();
            config.to_json()
        }
    };
    let mut config: Value = serde_json::from_str(&text).unwrap();
    if base != "gpt2" {
        config["type_vocab_size"] = json!(2);
    }
    config
}

/// Writes the folder of a case.
fn build(case: &Value, fixture: &Value, folder: &Path) {
    let base = case["base"].as_str().unwrap();
    let mut tokenizer = match base {
        "bert" => fixture["bert"].clone(),
        _ => read(&project(&format!("assets/tiny-{base}/tokenizer.json"))),
    };
    let changes = |field: &str| case[field].as_object().cloned().unwrap_or_default();
    for (key, value) in changes("tokenizer") {
        tokenizer[key] = value;
    }
    for (key, value) in changes("model") {
        tokenizer["model"][key] = value;
    }
    let mut config = config(base);
    for (key, value) in changes("config") {
        config[key] = value;
    }
    let write = |name: &str, value: &Value| {
        fs::write(folder.join(name), value.to_string()).unwrap();
    };
    write("tokenizer.json", &tokenizer);
    write("config.json", &config);
    for name in ["tokenizer_config", "special_tokens_map", "added_tokens"] {
        if let Some(value) = case.get(name) {
            write(&format!("{name}.json"), value);
        }
    }
}

fn texts<'a>(case: &'a Value, fixture: &'a Value) -> Vec<(&'a str, Option<&'a str>)> {
    let of_base = &fixture["rows"][case["base"].as_str().unwrap()];
    let rows = case.get("rows").unwrap_or(of_base).as_array().unwrap();
    rows.iter()
        .map(|row| (row[0].as_str().unwrap(), row[1].as_str()))
        .collect()
}

fn numbers(value: &Value) -> Vec<u32> {
    let all = value.as_array().unwrap();
    all.iter()
        .map(|number| u32::try_from(number.as_u64().unwrap()).unwrap())
        .collect()
}

#[test]
fn every_setting_gives_the_ids_of_transformers() {
    let fixture = read(&project("tests/fixtures/tokenizer_settings.json"));
    let cases = fixture["cases"].as_array().unwrap();
    assert!(cases.len() > 250);
    let mut wrong = Vec::new();
    for case in cases {
        let name = case["name"].as_str().unwrap();
        let folder = tempfile::tempdir().unwrap();
        build(case, &fixture, folder.path());
        let expected = &case["expected"];
        let texts = texts(case, &fixture);
        let mut check = |what: &str, found: Value, expected: Value| {
            if found != expected {
                wrong.push(format!("{name}: {what}: {found} is not {expected}"));
            }
        };
        if case["base"] == "gpt2" {
            let config = Gpt2Config::from_folder(folder.path()).unwrap();
            let text = CausalText::from_folder(folder.path(), &config).unwrap();
            for (row, (written, _)) in texts.iter().enumerate() {
                let ids = text.encode(written).unwrap();
                check("ids", json!(ids), expected["ids"][row].clone());
                let decoded = text.decode(&numbers(&expected["ids"][row])).unwrap();
                check("text", json!(decoded), expected["decoded"][row].clone());
            }
            continue;
        }
        let config = EncoderConfig::from_folder(folder.path()).unwrap();
        let max_length = case["max_length"].as_u64().map(|length| length as usize);
        let max_length = max_length
            .or_else(|| model_max_length(folder.path()).unwrap())
            .unwrap_or(64);
        let text = match TextEncoder::from_folder(folder.path(), &config, max_length) {
            Ok(text) => text,
            Err(error) => {
                check("loading", json!(error.to_string()), Value::Null);
                continue;
            }
        };
        for (row, tokens) in text.encode_batch(&texts).unwrap().into_iter().enumerate() {
            check("ids", json!(tokens.ids), expected["ids"][row].clone());
            let types = match expected.get("type_ids") {
                Some(types) => types[row].clone(),
                None => json!(vec![0; tokens.len()]),
            };
            check("types", json!(tokens.type_ids), types);
        }
        for (purpose, found) in [
            ("cls", text.bos_token_id()),
            ("sep", text.eos_token_id()),
            ("pad", text.pad_token_id()),
            ("mask", text.mask_token_id()),
        ] {
            let expected = &expected["tokens"][purpose];
            if !expected.is_null() {
                check(purpose, json!(found), expected.clone());
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
