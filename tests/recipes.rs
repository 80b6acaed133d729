//! The program's recipes, and training that starts from another run's adapter.
#![cfg(feature = "flex")]
#![allow(clippy::unwrap_used)]

mod common;

use std::path::{Path, PathBuf};

use serde_json::Value;

use common::{MODEL, json, mtlora, refused, small_data};

/// The arguments of `mtlora train` on the acceptability task, followed by `more`.
fn train<'a>(data: &'a Path, out: &'a Path, more: &[&'a str]) -> Vec<&'a str> {
    let mut arguments = vec!["train", "--model", MODEL, "--task", "acceptability"];
    arguments.extend(["--data", data.to_str().unwrap()]);
    arguments.extend(["--out", out.to_str().unwrap(), "--device", "flex"]);
    arguments.extend(more);
    arguments
}

fn config(run: &Path) -> toml::Table {
    let text = std::fs::read_to_string(run.join("run.toml")).unwrap();
    text.parse().unwrap()
}

#[test]
fn the_recipes_are_listed() {
    let report = json(&["recipes"]);
    let names = report["recipes"].as_array().unwrap();
    assert_eq!(names.len(), 13);
    let output = mtlora(&["recipes"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(text.lines().count(), 13);
    let mrpc = text.lines().find(|line| line.contains("base/mrpc"));
    assert!(mrpc.unwrap().contains("--init-from"), "{text}");
}

#[test]
fn a_recipe_is_printed_as_a_file_of_settings() {
    let report = json(&["recipes", "roberta-base/mrpc"]);
    assert_eq!(report["recipe"], "roberta-base/mrpc");
    assert_eq!(report["starts_from"], "roberta-base/mnli");
    assert_eq!(report["settings"]["lr"].as_f64(), Some(4e-4));
    assert_eq!(report["settings"]["max_length"].as_u64(), Some(512));
    assert!(report["settings"].get("structure").is_none());
    let output = mtlora(&["recipes", "roberta-base/mrpc"]);
    let text = String::from_utf8(output.stdout).unwrap();
    let table: toml::Table = text.parse().unwrap();
    assert_eq!(table["task"].as_str(), Some("mrpc"));
    let said = refused(&["recipes", "roberta-base/cula"]);
    assert!(
        said.contains("unknown recipe `roberta-base/cula`"),
        "{said}"
    );
}

#[test]
fn flags_win_over_a_file_and_the_file_over_the_recipe() {
    let folder = tempfile::tempdir().unwrap();
    let data = small_data(folder.path(), 32, 32);
    let run = folder.path().join("run");
    let file = folder.path().join("settings.toml");
    std::fs::write(&file, "lr = 2e-3\nepochs = 7\nmax_length = 64\n").unwrap();
    let file = file.to_str().unwrap();
    let recipe = ["--recipe", "roberta-base/qnli", "--config", file];
    json(&train(
        &data,
        &run,
        &[&recipe[..], &["--epochs", "1", "--warmup-steps", "3"]].concat(),
    ));
    let config = config(&run);
    let training = config["training"].as_table().unwrap();
    // The first three come from flags, the next two from the file, the last two from the recipe.
    assert_eq!(config["data"]["task"].as_str(), Some("acceptability"));
    assert_eq!(training["epochs"].as_integer(), Some(1));
    assert_eq!(training["warmup_steps"].as_integer(), Some(3));
    assert_eq!(training["learning_rate"].as_float(), Some(2e-3));
    assert_eq!(config["base"]["max_length"].as_integer(), Some(64));
    assert_eq!(training["seed"].as_integer(), Some(1739));
    assert_eq!(training["batch"]["sequences"].as_integer(), Some(64));
}

#[test]
fn a_run_starts_from_anothers_adapter() {
    let folder = tempfile::tempdir().unwrap();
    let data = small_data(folder.path(), 32, 32);
    let [first, second, third, bare, refusal] =
        ["first", "second", "third", "bare", "refusal"].map(|name| folder.path().join(name));
    let short = ["--epochs", "1", "--batch", "16", "--lr", "5e-3"];
    json(&train(&data, &first, &short));
    let from = first.to_str().unwrap();

    // This learning rate is zero in single precision, so that training changes nothing.
    let still = ["--epochs", "1", "--batch", "16", "--lr", "1e-300"];
    let still = [&still[..], &["--weight-decay", "0", "--seed", "5"]].concat();
    let init = ["--init-from", from];
    json(&train(&data, &second, &[&still[..], &init].concat()));
    json(&train(&data, &third, &still));
    let values = |run: &Path| std::fs::read(run.join("adapter_model.safetensors")).unwrap();
    let tensors = |run: &Path, adapter: bool| {
        let bytes = values(run);
        let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        let header: Value = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
        let data = &bytes[8 + length..];
        let tensors = header.as_object().unwrap().iter();
        let tensors = tensors.filter(|(name, _)| name.contains(".lora_") == adapter);
        tensors
            .filter(|(name, _)| *name != "__metadata__")
            .map(|(name, entry)| {
                let at = |end: usize| entry["data_offsets"][end].as_u64().unwrap() as usize;
                (name.clone(), data[at(0)..at(1)].to_vec())
            })
            .collect::<std::collections::BTreeMap<String, Vec<u8>>>()
    };
    assert!(!tensors(&first, true).is_empty());
    assert_eq!(tensors(&second, true), tensors(&first, true));
    assert_ne!(tensors(&third, true), tensors(&first, true));
    // The head is the new run's own.
    assert!(!tensors(&second, false).is_empty());
    assert_eq!(tensors(&second, false), tensors(&third, false));
    let recorded = config(&second)["base"]["adapter"]["init_from"]
        .as_str()
        .map(PathBuf::from);
    assert_eq!(recorded, Some(first.canonicalize().unwrap()));
    let adapter = config(&third)["base"]["adapter"].clone();
    assert!(adapter.get("init_from").is_none());
    // It can be read without the run that it started from.
    std::fs::rename(&first, folder.path().join("moved")).unwrap();
    json(&["eval", "--run", second.to_str().unwrap()]);
    std::fs::rename(folder.path().join("moved"), &first).unwrap();

    // The message names what does not fit.
    let refused = |more: &[&str]| {
        let text = refused(&train(&data, &refusal, &[&init, more].concat()));
        assert!(!refusal.exists());
        text
    };
    assert!(refused(&["--rank", "4"]).contains("choose rank 8"));
    assert!(refused(&["--structure", "icfm"]).contains("choose structure shim"));
    assert!(refused(&["--targets", "query,key,value"]).contains("self_.key`"));
    assert!(refused(&["--targets", "query"]).contains("self_.value`"));
    assert!(refused(&["--method", "head"]).contains("method head has no adapter"));
    json(&train(
        &data,
        &bare,
        &[&short[..], &["--method", "head"]].concat(),
    ));
    let arguments = ["--init-from", bare.to_str().unwrap()];
    let text = common::refused(&train(&data, &refusal, &arguments));
    assert!(text.contains("a run with method mtlora"), "{text}");
}

#[test]
fn bad_input_is_refused_with_a_reason() {
    let folder = tempfile::tempdir().unwrap();
    let data = small_data(folder.path(), 32, 32);
    let out = folder.path().join("out");
    let refused = |more: &[&str]| refused(&train(&data, &out, more));
    let mrpc = ["--recipe", "roberta-base/mrpc"];
    let text = refused(&mrpc);
    assert!(text.contains("roberta-base/mnli"), "{text}");
    assert!(text.contains("--init-from RUN"), "{text}");
    assert!(text.contains("--init-from none"), "{text}");
    let text = refused(&["--recipe", "roberta-base/cula"]);
    assert!(text.contains("roberta-base/cola"), "{text}");
    let text = refused(&["--warmup-steps", "3", "--warmup-ratio", "0.1"]);
    assert!(text.contains("--warmup-ratio"), "{text}");
    let text = refused(&["--num-beams", "3"]);
    assert!(
        text.contains("only data-to-text tasks have num_beams"),
        "{text}"
    );
    let elsewhere = folder.path().to_str().unwrap();
    let text = refused(&["--init-from", elsewhere]);
    assert!(text.contains("is not an adapter folder"), "{text}");
    assert!(!out.exists());
}
