//! How the files in a model's folder change what the program does. docs/MODEL_FILES.md says what is read.
#![cfg(feature = "flex")]
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use common::{MODEL, json as report, mtlora_reading, refused_reading, small_data, text_reading};

const GPT2: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/assets/tiny-gpt2");

/// A copy of a model's folder, with these files over its own.
fn folder(model: &str, files: &[(&str, Value)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(model).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), folder.path().join(entry.file_name())).unwrap();
    }
    for (name, value) in files {
        fs::write(folder.path().join(name), value.to_string()).unwrap();
    }
    folder
}

/// A JSON file of a model with one more field.
fn with(model: &str, name: &str, field: &str, value: Value) -> Value {
    let text = fs::read(Path::new(model).join(name)).unwrap();
    let mut file: Value = serde_json::from_slice(&text).unwrap();
    file[field] = value;
    file
}

fn path(folder: &tempfile::TempDir) -> &str {
    folder.path().to_str().unwrap()
}

/// Trains a model's head. The run is in the temporary folder that is returned with it.
fn run(model: &str, more: &[&str]) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let (data, out) = (small_data(folder.path(), 12, 4), folder.path().join("run"));
    let arguments = [
        "train",
        "--model",
        model,
        "--task",
        "acceptability",
        "--data",
        data.to_str().unwrap(),
        "--out",
        out.to_str().unwrap(),
        "--method",
        "head",
        "--epochs",
        "1",
        "--plain",
        "--device",
        "flex",
    ];
    report(&[&arguments, more].concat());
    (folder, out)
}

fn logits(run: &Path, input: &str) -> Vec<Value> {
    let arguments = [
        "predict",
        "--run",
        run.to_str().unwrap(),
        "--format",
        "jsonl",
    ];
    let rows = text_reading(&arguments, input);
    rows.lines()
        .map(|row| serde_json::from_str::<Value>(row).unwrap()["logits"].clone())
        .collect()
}

/// Texts of more than 64 tokens that differ only at their ends.
fn alike_but_for_the_end() -> String {
    let tea = "tea ".repeat(80);
    format!("{tea}good\n{tea}bad\n")
}

#[test]
fn the_end_of_a_text_is_kept_if_the_folder_says_so() {
    let direction =
        json!({"direction": "Left", "max_length": 5, "strategy": "OnlyFirst", "stride": 0});
    let left = [
        ("tokenizer_config.json", "truncation_side", json!("left")),
        ("tokenizer.json", "truncation", direction),
    ];
    for (name, field, value) in left {
        let model = folder(MODEL, &[(name, with(MODEL, name, field, value))]);
        let (_kept, run) = run(path(&model), &[]);
        let found = logits(&run, &alike_but_for_the_end());
        assert_ne!(found[0], found[1], "{name}");
        // With the original file in place again, the beginnings are kept, which are equal.
        fs::copy(Path::new(MODEL).join(name), model.path().join(name)).unwrap();
        let found = logits(&run, &alike_but_for_the_end());
        assert_eq!(found[0], found[1], "{name}");
    }
}

/// As transformers 5.24 does: `truncation=True` without a `max_length` cuts to `model_max_length`.
#[test]
fn a_tokenizers_own_length_is_used_if_no_flag_gives_another() {
    let config = with(
        MODEL,
        "tokenizer_config.json",
        "model_max_length",
        json!(16),
    );
    let model = folder(MODEL, &[("tokenizer_config.json", config)]);
    for (flags, expected) in [(&[][..], 16), (&["--max-length", "40"], 40)] {
        let (_kept, run) = run(path(&model), flags);
        let text = fs::read_to_string(run.join("run.toml")).unwrap();
        assert!(
            text.contains(&format!("max_length = {expected}\n")),
            "{text}"
        );
    }
}

#[test]
fn a_file_that_is_not_read_is_named_once() {
    let folder = folder(
        MODEL,
        &[
            ("adapter_config.json", json!({})),
            ("modules.json", json!([])),
        ],
    );
    let said = |model: &str| {
        let data = concat!(env!("CARGO_MANIFEST_DIR"), "/assets/acceptability");
        let output = mtlora_reading(
            &[
                "eval",
                "--model",
                model,
                "--task",
                "acceptability",
                "--data",
                data,
            ],
            "",
        );
        assert!(output.status.success());
        String::from_utf8(output.stderr).unwrap()
    };
    let errors = said(path(&folder));
    for name in [
        "adapter_config.json: is not read",
        "modules.json: is not read",
    ] {
        assert_eq!(errors.matches(name).count(), 1, "{errors}");
    }
    assert!(!said(MODEL).contains("is not read"));
}

fn generated(model: &str, flags: &[&str]) -> String {
    let arguments = ["generate", "--model", model, "--device", "flex"];
    let row = text_reading(&[&arguments, flags].concat(), "The Royal Mill\n");
    let row: Value = serde_json::from_str(&row).unwrap();
    row["text"].as_str().unwrap().to_string()
}

/// The texts are those that transformers 5.24's `generate` writes with assets/tiny-gpt2 and these files.
#[test]
fn a_model_generates_with_the_settings_of_its_folder() {
    let beams = json!({"eos_token_id": 0, "num_beams": 4, "length_penalty": 2.0, "no_repeat_ngram_size": 2,
        "early_stopping": true, "max_new_tokens": 20});
    let with_beams = " is home to a gallery and can be found in Selworth. It is the work of Daniel";
    let penalty = json!({"eos_token_id": 0, "repetition_penalty": 5.0, "max_new_tokens": 20});
    let with_penalty = ", home to a hotel is the work of Boris Walker. It was built in 1988 The";
    for (settings, expected) in [
        (
            json!({"eos_token_id": 0, "max_new_tokens": 6}),
            ", home to a hot",
        ),
        (beams.clone(), with_beams),
        (penalty, with_penalty),
    ] {
        let model = folder(GPT2, &[("generation_config.json", settings)]);
        assert_eq!(generated(path(&model), &[]), expected);
    }
    // Settings in config.json are used if that is the only file with any, and flags override both files.
    let mut older = with(GPT2, "config.json", "num_beams", json!(4));
    older["no_repeat_ngram_size"] = json!(2);
    older["length_penalty"] = json!(2.0);
    older["early_stopping"] = json!(true);
    older["max_new_tokens"] = json!(20);
    let model = folder(GPT2, &[("config.json", older.clone())]);
    assert_eq!(generated(path(&model), &[]), with_beams);
    let flags = ["--num-beams", "1", "--max-new-tokens", "6"];
    assert_eq!(generated(path(&model), &flags), ", home to a hot");
    let both = [
        ("config.json", older),
        (
            "generation_config.json",
            json!({"eos_token_id": 0, "max_new_tokens": 6}),
        ),
    ];
    let model = folder(GPT2, &both);
    assert_eq!(generated(path(&model), &[]), ", home to a hot");
    // A flag turns off the sampling that the file asks for.
    let drawn =
        json!({"eos_token_id": 0, "do_sample": true, "temperature": 5.0, "max_new_tokens": 6});
    let model = folder(GPT2, &[("generation_config.json", drawn)]);
    assert_ne!(generated(path(&model), &[]), ", home to a hot");
    assert_eq!(
        generated(path(&model), &["--do-sample=false"]),
        ", home to a hot"
    );
}

#[test]
fn a_generation_setting_that_is_not_supported_is_refused_or_reported() {
    let said = |settings: Value| {
        let model = folder(GPT2, &[("generation_config.json", settings)]);
        let output = mtlora_reading(&["generate", "--model", path(&model)], "The\n");
        (
            output.status.success(),
            String::from_utf8(output.stderr).unwrap(),
        )
    };
    let (done, errors) = said(json!({"bad_words_ids": [[3]], "max_new_tokens": 2}));
    assert!(done, "{errors}");
    assert_eq!(
        errors.matches("without `bad_words_ids`").count(),
        1,
        "{errors}"
    );
    let (done, errors) = said(json!({"do_sample": true, "num_beams": 4}));
    assert!(
        !done && errors.contains("generation_config.json:1: field `do_sample`"),
        "{errors}"
    );
    let (done, errors) = said(json!({"num_beams": "many"}));
    assert!(
        !done && errors.contains("generation_config.json:1: field `num_beams`"),
        "{errors}"
    );
}

#[test]
fn a_text_of_megabytes_is_cut_as_any_other() {
    let (_kept, run) = run(MODEL, &[]);
    let long = "the painters near the lake sleep ".repeat(100_000);
    assert!(long.len() > 3 << 20);
    let short: String = long.chars().take(2000).collect();
    let found = logits(&run, &format!("{long}\n{short}\n"));
    assert_eq!(found[0], found[1]);

    // A text that is too long even to be cut is refused, and its line is named.
    let word = "x".repeat((16 << 20) + 1);
    let arguments = ["predict", "--run", run.to_str().unwrap()];
    let errors = refused_reading(&arguments, &format!("the lake\n{word}\n"));
    assert!(
        errors.contains("standard input:2: a text of 16777217 bytes"),
        "{errors}"
    );
    // In a table, the line is the one on which the row begins.
    let kept = tempfile::tempdir().unwrap();
    let table = kept.path().join("long.csv");
    fs::write(&table, format!("n,sentence\n1,\"the\nlake\"\n2,{word}\n")).unwrap();
    let flags = ["--input", table.to_str().unwrap()];
    let errors = refused_reading(&[&arguments[..], &flags].concat(), "");
    assert!(
        errors.contains("long.csv:4: a text of 16777217 bytes"),
        "{errors}"
    );
}

#[test]
fn a_prompt_of_megabytes_is_cut_from_the_left() {
    let end = "The Royal Mill, built in 1920, is home to".to_string();
    let long = format!(
        "{}{end}",
        "the old house near the lake and ".repeat(100_000)
    );
    let short: String = {
        let from = long.len() - 4000;
        long[from..].to_string()
    };
    let write = |prompt: &str| {
        let arguments = [
            "generate",
            "--model",
            GPT2,
            "--cut-input",
            "--max-new-tokens",
            "8",
        ];
        let row = text_reading(&arguments, &format!("{prompt}\n"));
        serde_json::from_str::<Value>(&row).unwrap()["text"].clone()
    };
    assert_eq!(write(&long), write(&short));
    let errors = refused_reading(&["generate", "--model", GPT2], &format!("The\n{long}\n"));
    assert!(
        errors.contains("standard input:2: input 2 is ") && errors.contains("--cut-input"),
        "{errors}"
    );
    let word = "x".repeat((16 << 20) + 1);
    let errors = refused_reading(&["generate", "--model", GPT2], &format!("The\n{word}\n"));
    assert!(
        errors.contains("standard input:2: a text of 16777217 bytes"),
        "{errors}"
    );
}
