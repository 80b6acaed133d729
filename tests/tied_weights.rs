//! The program with GPT-2 models whose token embeddings and output map are one weight, by either of its names, or two.
#![cfg(feature = "flex")]
#![allow(clippy::unwrap_used)]

mod common;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use burn::tensor::TensorData;
use mtlora::core::{AdapterForm, AdapterValues, Factors, Structure};
use mtlora::models::{
    AdaptedModule, AdapterConfig, Checkpoint, PeftAdapter, TargetModules, copy_tokenizer_files,
    write_checkpoint,
};
use serde_json::{Value, json};

use common::{json, refused, text_reading};

const GPT2: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/assets/tiny-gpt2");
const FACTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/assets/facts");
const EMBEDDINGS: &str = "transformer.wte.weight";
const OUTPUT: &str = "lm_head.weight";

/// Prompts, and how transformers 5.24 continues them: the part of `decode(all)` after `decode(prompt)`, with
/// `generate(max_new_tokens=8, do_sample=False)` and `skip_special_tokens=True`.
const CONTINUED: [(&str, &str); 12] = [
    (
        "The Black Ravens play",
        " football and are based in Selworth. They",
    ),
    ("The li", "brary, the Green Tower"),
    ("The library", ", the Green Tower is home to a"),
    ("The Black Ravens ", "opera, are based in"),
    ("name", ", on the river Tarn, is a"),
    ("A", "The White Hall, home to a m"),
    ("Irene Evans is", " a painter and has a house"),
    ("é", " Miller, is a gardener and has"),
    (
        "The Black Ravens play football.",
        " They are based in Selworth and have Irene",
    ),
    ("  The", " Old Gate, home to a sho"),
    ("<|endoftext|>The li", "brary, is known for"),
    ("Selworth is a city in ", "editor and stands on the Calder"),
];

type Tensors = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

/// Makes a copy of `assets/tiny-gpt2` with changed tensors, and with these fields in its configuration.
fn folder(at: &Path, change: impl Fn(&mut Tensors), fields: &Value) -> PathBuf {
    fs::create_dir(at).unwrap();
    let checkpoint = Checkpoint::open(Path::new(GPT2)).unwrap();
    let read = |name: &str| (name.to_string(), checkpoint.read_f32(name).unwrap());
    let mut tensors: Tensors = checkpoint.names().map(read).collect();
    change(&mut tensors);
    let all = tensors.iter().map(|(name, (shape, values))| {
        (
            name.clone(),
            shape.clone(),
            Cow::Borrowed(values.as_slice()),
        )
    });
    write_checkpoint(&at.join("model.safetensors"), all).unwrap();
    let text = fs::read_to_string(Path::new(GPT2).join("config.json")).unwrap();
    let mut config: Value = serde_json::from_str(&text).unwrap();
    for (field, value) in fields.as_object().unwrap() {
        config[field] = value.clone();
    }
    fs::write(at.join("config.json"), config.to_string()).unwrap();
    copy_tokenizer_files(Path::new(GPT2), at).unwrap();
    at.to_path_buf()
}

/// Adds an output map, which is a copy of the embeddings with the rows of some tokens exchanged.
fn exchange(tensors: &mut Tensors) {
    let (shape, mut values) = tensors[EMBEDDINGS].clone();
    let width = shape[1];
    for token in (300..900).step_by(2) {
        let (first, second) = values[token * width..(token + 2) * width].split_at_mut(width);
        first.swap_with_slice(second);
    }
    tensors.insert(OUTPUT.to_string(), (shape, values));
}

fn texts(rows: &str) -> Vec<String> {
    let rows = rows
        .lines()
        .map(|row| serde_json::from_str::<Value>(row).unwrap());
    rows.map(|row| row["text"].as_str().unwrap().to_string())
        .collect()
}

const GREEDY: [&str; 8] = [
    "--num-beams",
    "1",
    "--max-new-tokens",
    "8",
    "--no-repeat-ngram-size",
    "0",
    "--device",
    "flex",
];

/// What `generate` adds to the prompts.
fn continued(source: &[&str]) -> Vec<String> {
    let lines: Vec<&str> = CONTINUED.iter().map(|(prompt, _)| *prompt).collect();
    texts(&text_reading(
        &[&["generate"], source, &GREEDY[..]].concat(),
        &lines.join("\n"),
    ))
}

fn expected() -> Vec<&'static str> {
    CONTINUED.iter().map(|(_, text)| *text).collect()
}

#[test]
fn prompts_are_continued_as_in_transformers_by_either_name_of_the_weight() {
    let made = tempfile::tempdir().unwrap();
    let moved = |tensors: &mut Tensors| {
        let tensor = tensors.remove(EMBEDDINGS).unwrap();
        tensors.insert(OUTPUT.to_string(), tensor);
    };
    let doubled = |tensors: &mut Tensors| {
        let tensor = tensors[EMBEDDINGS].clone();
        tensors.insert(OUTPUT.to_string(), tensor);
    };
    let none = json!({});
    for folder in [
        PathBuf::from(GPT2),
        folder(&made.path().join("moved"), moved, &none),
        folder(&made.path().join("doubled"), doubled, &none),
        folder(
            &made.path().join("apart"),
            doubled,
            &json!({"tie_word_embeddings": false}),
        ),
    ] {
        assert_eq!(
            continued(&["--model", folder.to_str().unwrap()]),
            expected(),
            "{folder:?}"
        );
    }
}

/// An adapter that changes nothing continues prompts exactly as its model does, alone or chosen by a table's column.
#[test]
fn continuations_with_adapters_keep_their_white_space() {
    let made = tempfile::tempdir().unwrap();
    let adapter = made.path().join("adapter");
    fs::create_dir(&adapter).unwrap();
    let name = "transformer.h.0.attn.c_attn";
    let module = AdaptedModule {
        values: AdapterValues {
            a: TensorData::new(vec![0.5f32; 128], [1, 128]),
            b: TensorData::new(vec![0f32; 384], [384, 1]),
            further: Factors::none(),
            form: AdapterForm::new(Structure::Lora, 1.0),
        },
        embedding: false,
    };
    let config = AdapterConfig {
        task_type: Some("CAUSAL_LM".to_string()),
        ..AdapterConfig::new(1, 1.0, TargetModules::Names(vec!["c_attn".to_string()]))
    };
    let modules = BTreeMap::from([
        (name.to_string(), module.clone()),
        (name.replace(".0.", ".1."), module.clone()),
        (name.replace(".0.", ".2."), module),
    ]);
    PeftAdapter::new(config, modules, BTreeMap::new())
        .write(&adapter)
        .unwrap();
    let adapter = adapter.to_str().unwrap();
    assert_eq!(
        continued(&["--model", GPT2, "--adapter", adapter]),
        expected()
    );

    let rows: Vec<String> = CONTINUED
        .iter()
        .map(|(prompt, _)| json!({"prompt": prompt, "which": "one"}).to_string())
        .collect();
    let table = made.path().join("rows.jsonl");
    fs::write(&table, rows.join("\n")).unwrap();
    let named = format!("one={adapter}");
    let arguments = [
        "generate",
        "--model",
        GPT2,
        "--adapter",
        &named,
        "--adapter-column",
        "which",
        "--input",
        table.to_str().unwrap(),
    ];
    let found = text_reading(&[&arguments[..], &GREEDY[..]].concat(), "");
    assert_eq!(texts(&found), expected());
    // The inputs of a data-to-text task get texts, which are trimmed, and not continuations.
    let found = text_reading(&[&arguments[..], &GREEDY[..], &["--inputs"]].concat(), "");
    assert!(texts(&found).iter().all(|text| text.trim() == text));
}

#[test]
fn a_model_with_two_weights_is_trained_merged_and_written() {
    let made = tempfile::tempdir().unwrap();
    let data = made.path().join("data");
    fs::create_dir(&data).unwrap();
    for (split, lines) in [("train", 24), ("dev", 4), ("test", 4)] {
        let name = format!("{split}.jsonl");
        let text = fs::read_to_string(Path::new(FACTS).join(&name)).unwrap();
        let kept: Vec<&str> = text.lines().take(lines).collect();
        fs::write(data.join(name), kept.join("\n")).unwrap();
    }
    // The configuration does not say that there are two weights.
    let base = folder(&made.path().join("base"), exchange, &json!({}));
    let base = base.to_str().unwrap();
    let before = continued(&["--model", base]);
    assert_ne!(before, expected());
    let inputs = {
        let dev = fs::read_to_string(data.join("dev.jsonl")).unwrap();
        let rows = dev
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap());
        let inputs: Vec<String> = rows
            .map(|row| row["input"].as_str().unwrap().to_string())
            .collect();
        inputs.join("\n")
    };
    for (name, more) in [
        ("adapter", &["--structure", "ctcm"][..]),
        (
            "output",
            &["--structure", "shim", "--targets", "lm_head,wte,c_attn"],
        ),
        ("full", &["--method", "full"]),
        ("rounded", &["--base-dtype", "bf16"]),
    ] {
        let run = made.path().join(name);
        let run = run.to_str().unwrap();
        let usual = [
            "train",
            "--model",
            base,
            "--task",
            "facts",
            "--data",
            data.to_str().unwrap(),
            "--out",
            run,
            "--epochs",
            "1",
            "--lr",
            "1e-3",
            "--device",
            "flex",
        ];
        let trained = json(&[&usual[..], &GREEDY[..6], more].concat());
        let scored = json(&["eval", "--run", run]);
        let loss = |report: &Value| report["metrics"]["loss"].as_f64().unwrap();
        assert!((loss(&trained) - loss(&scored)).abs() < 1e-3, "{name}");
        assert_ne!(
            trained["metrics"]["loss"], trained["metrics_before"]["loss"],
            "{name}"
        );

        let merged = made.path().join(format!("{name}-merged"));
        let merged = merged.to_str().unwrap();
        json(&["merge", "--run", run, "--out", merged]);
        let tensors = Checkpoint::open(Path::new(merged)).unwrap();
        assert!(
            tensors.contains(EMBEDDINGS) && tensors.contains(OUTPUT),
            "{name}"
        );
        let config = fs::read_to_string(Path::new(merged).join("config.json")).unwrap();
        let config: Value = serde_json::from_str(&config).unwrap();
        assert_eq!(config["tie_word_embeddings"], false, "{name}");
        if name == "rounded" {
            // The merged weights are not rounded to bf16, so they give other texts.
            continue;
        }
        let written = text_reading(&["generate", "--run", run], &inputs);
        let source = ["generate", "--model", merged, "--inputs"];
        let again = text_reading(&[&source[..], &GREEDY[..6]].concat(), &inputs);
        assert_eq!(texts(&written), texts(&again), "{name}");
    }
    // In plain LoRA, the adapter on the output map has the shape of a linear layer's, as in PEFT.
    let run = made.path().join("output");
    let plain = made.path().join("plain");
    let paths = [&run, &plain].map(|path| path.to_str().unwrap());
    json(&["export", "--run", paths[0], "--out", paths[1]]);
    let tensors = Checkpoint::open_file(&plain.join("adapter_model.safetensors")).unwrap();
    let shape = |name: &str| {
        tensors
            .shape(&format!("base_model.model.{name}"))
            .map(<[usize]>::to_vec)
    };
    let rank = shape("lm_head.lora_A.weight").unwrap()[0];
    assert_eq!(shape("lm_head.lora_A.weight"), Some(vec![rank, 128]));
    assert_eq!(shape("lm_head.lora_B.weight"), Some(vec![1000, rank]));
    assert_eq!(
        shape("transformer.wte.lora_embedding_A"),
        Some(vec![rank, 1000])
    );
    let written = text_reading(&["generate", "--run", paths[0]], &inputs);
    let source = [
        "generate",
        "--adapter",
        paths[1],
        "--model",
        base,
        "--inputs",
    ];
    let again = text_reading(&[&source[..], &GREEDY[..6]].concat(), &inputs);
    assert_eq!(texts(&written), texts(&again));
    // A base with one weight cannot have two adapters on it.
    let out = made.path().join("refused");
    let out = out.to_str().unwrap();
    let said = refused(&[
        "merge",
        "--adapter",
        paths[1],
        "--model",
        GPT2,
        "--out",
        out,
    ]);
    assert!(
        said.contains("base.config.tie_word_embeddings = False"),
        "{said}"
    );
}
