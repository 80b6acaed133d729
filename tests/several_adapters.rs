//! Inspecting adapters, adding them, and using several at a time, with the program.
#![cfg(feature = "flex")]
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use mtlora::models::Checkpoint;
use serde_json::Value;

use common::{MODEL, copy_folder, json, mtlora, refused, small_data, text_reading};

/// Two adapters of different structures on the tiny RoBERTa, with heads for two and three labels.
struct Setup {
    folder: tempfile::TempDir,
}

impl Setup {
    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_string()
    }
}

static SETUP: LazyLock<Setup> = LazyLock::new(|| {
    let setup = Setup {
        folder: tempfile::tempdir().unwrap(),
    };
    let data = small_data(setup.folder.path(), 64, 32);
    let table = setup.folder.path().join("table");
    fs::create_dir(&table).unwrap();
    let rows = "text,label\nThe dogs sleep.,many\nA cat sings.,one\nIt rains.,none\nThe old dogs sleep.,many\n";
    for name in ["train.csv", "dev.csv"] {
        fs::write(table.join(name), rows).unwrap();
    }
    let train = |task: &str, data: &Path, out: &str, more: &[&str]| {
        let arguments = [
            "train",
            "--model",
            MODEL,
            "--task",
            task,
            "--data",
            data.to_str().unwrap(),
            "--out",
            &setup.path(out),
            "--batch",
            "16",
            "--lr",
            "5e-3",
            "--device",
            "flex",
        ];
        json(&[&arguments, more].concat());
    };
    let more = ["--structure", "dtsm", "--rank", "4", "--epochs", "2"];
    train("acceptability", &data, "wellformed", &more);
    let more = ["--structure", "icfm", "--rank", "3", "--epochs", "10"];
    train("table", &table, "number", &more);
    setup
});

/// The update of each adapted weight: the merged weight minus the base model's.
fn merged_updates(adapter: &[&str], out: &str) -> BTreeMap<String, Vec<f64>> {
    let arguments = ["merge", "--out", out];
    json(&[&arguments, adapter].concat());
    let [base, merged] = [MODEL, out].map(|folder| Checkpoint::open(Path::new(folder)).unwrap());
    let mut updates = BTreeMap::new();
    for name in base.names().filter(|name| name.contains(".layer.")) {
        let (_, before) = base.read_f32(name).unwrap();
        let (_, after) = merged.read_f32(name).unwrap();
        let pairs = before.iter().zip(&after);
        let update: Vec<f64> = pairs.map(|(one, other)| f64::from(other - one)).collect();
        if update.iter().any(|value| *value != 0.0) {
            updates.insert(name.trim_end_matches(".weight").to_string(), update);
        }
    }
    updates
}

fn norm(values: &[f64]) -> f64 {
    values.iter().map(|value| value * value).sum::<f64>().sqrt()
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap()
}

#[test]
fn inspect_agrees_with_the_merged_weights() {
    let run = SETUP.path("wellformed");
    let found = json(&["inspect", "--run", &run]);
    let updates = merged_updates(&["--run", &run], &SETUP.path("merged-inspect"));
    let layers = found["layers"].as_array().unwrap();
    assert_eq!(layers.len(), updates.len());
    let base = Checkpoint::open(Path::new(MODEL)).unwrap();
    for layer in layers {
        let path = layer["path"].as_str().unwrap();
        let expected = norm(&updates[path]);
        // Merged weights are rounded to single precision.
        assert!((number(&layer["update"]["norm"]) / expected - 1.0).abs() < 1e-3);
        let (_, weight) = base.read_f32(&format!("{path}.weight")).unwrap();
        let weight: Vec<f64> = weight.into_iter().map(f64::from).collect();
        let relative = number(&layer["relative_norm"]);
        assert!((relative / (expected / norm(&weight)) - 1.0).abs() < 1e-3);
        assert_eq!(layer["structure"], "dtsm");
        assert_eq!(
            layer["update"]["singular_values"].as_array().unwrap().len(),
            4
        );
        let rank = number(&layer["update"]["effective_rank"]);
        assert!((1.0..=4.0).contains(&rank), "{rank}");
        let t = &layer["transform"];
        assert_eq!(t["eigenvalues"].as_array().unwrap().len(), 4);
        assert!(number(&t["distance"]) > 0.0 && number(&t["condition"]) >= 1.0);
    }
    let all: f64 = norm(&updates.values().map(|one| norm(one)).collect::<Vec<_>>());
    assert!((number(&found["norm"]) / all - 1.0).abs() < 1e-3);

    // As a table, with the run as a plain argument. The T of `icfm` is a covariance, whose eigenvalues are real.
    let text = text_reading(&["inspect", &SETUP.path("number")], "");
    for wanted in [
        "eff. rank",
        "norm/|W|",
        "cond(T)",
        "eigenvalues of T",
        "attention.self.query",
    ] {
        assert!(text.contains(wanted), "{wanted}: {text}");
    }
    assert!(!text.contains('±'), "{text}");

    // Without the base model there are no relative norms.
    let lone = SETUP.path("lone");
    fs::create_dir(&lone).unwrap();
    for name in ["adapter_config.json", "adapter_model.safetensors"] {
        fs::copy(Path::new(&run).join(name), Path::new(&lone).join(name)).unwrap();
    }
    let config = Path::new(&lone).join("adapter_config.json");
    let mut fields: Value = serde_json::from_str(&fs::read_to_string(&config).unwrap()).unwrap();
    fields["base_model_name_or_path"] = "org/elsewhere".into();
    fs::write(&config, fields.to_string()).unwrap();
    let found = json(&["inspect", &lone]);
    assert!(found["layers"][0]["relative_norm"].is_null());
    assert!(json(&["inspect", &lone, "--model", MODEL])["relative_norm"].is_number());
}

/// The bytes of a safetensors file, with `from` replaced by `to` in the JSON of its header.
fn renamed(bytes: &[u8], from: &str, to: &str) -> Vec<u8> {
    let (length, rest) = bytes.split_at(8);
    let length = u64::from_le_bytes(length.try_into().unwrap()) as usize;
    let (header, tensors) = rest.split_at(length);
    let header = std::str::from_utf8(header).unwrap().replace(from, to);
    let length = (header.len() as u64).to_le_bytes();
    [&length, header.as_bytes(), tensors].concat()
}

#[test]
fn names_in_somebody_elses_adapter_cannot_control_the_terminal() {
    let theirs = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/fixtures/peft/roberta/lora"
    );
    let file = |folder: &str, name: &str| Path::new(folder).join(name);
    let [bad, out] = ["bad", "bad-out"].map(|name| SETUP.path(name));
    fs::create_dir(&bad).unwrap();
    let weights = fs::read(file(theirs, "adapter_model.safetensors")).unwrap();
    let weights = renamed(
        &weights,
        "encoder.layer",
        r"\u001b[31m\u009b2J\n\u202eencoder.layer",
    );
    fs::write(file(&bad, "adapter_model.safetensors"), weights).unwrap();
    let config = fs::read(file(theirs, "adapter_config.json")).unwrap();
    let mut config: Value = serde_json::from_slice(&config).unwrap();
    config["base_model_name_or_path"] = "\u{1b}]0;base\u{7}".into();
    config["\u{1b}[5mfield"] = 1.into();
    fs::write(file(&bad, "adapter_config.json"), config.to_string()).unwrap();

    let said = |arguments: &[&str], succeeds: bool| {
        let output = mtlora(arguments);
        assert_eq!(output.status.success(), succeeds, "{output:?}");
        let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        let acts = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
        assert!(!text.contains(acts), "{text:?}");
        assert!(text.contains(r"ignored: \u{1b}[5mfield"), "{text}");
        text
    };
    let name = r"\u{1b}[31m\u{9b}2J\n\u{202e}encoder.layer.";
    let text = said(&["inspect", &bad, "--json"], true);
    let object = text.lines().find(|line| line.starts_with('{')).unwrap();
    let found: Value = serde_json::from_str(object).unwrap();
    let path = found["layers"][0]["path"].as_str().unwrap();
    assert!(path.contains("\u{1b}[31m\u{9b}2J\n\u{202e}"), "{path:?}");
    for arguments in [
        &["inspect", &bad][..],
        &["combine", "--adapter", &bad, "--rank", "1", "--out", &out],
    ] {
        let text = said(arguments, true);
        assert!(text.contains(name), "{text}");
    }
    let lone = SETUP.path("number");
    let two = [
        "combine",
        "--adapter",
        &bad,
        "--adapter",
        &lone,
        "--head",
        &bad,
    ];
    let text = said(
        &[&two[..], &["--out", &SETUP.path("bad-two")]].concat(),
        true,
    );
    assert!(text.contains(r"\u{1b}]0;base\u{7}"), "{text}");
    let merge = ["merge", "--adapter", &bad, "--model", MODEL];
    let text = said(
        &[&merge[..], &["--out", &SETUP.path("bad-merged")]].concat(),
        false,
    );
    assert!(text.contains("has no module"), "{text}");
}

#[test]
fn combine_refuses_adapters_for_models_of_different_families() {
    let theirs = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/fixtures/peft/roberta/lora"
    );
    let other = SETUP.path("of-bert");
    fs::create_dir(&other).unwrap();
    for name in ["adapter_model.safetensors", "adapter_config.json"] {
        let bytes = fs::read(Path::new(theirs).join(name)).unwrap();
        let bytes = match name {
            "adapter_config.json" => bytes,
            _ => renamed(&bytes, "model.roberta.", "model.bert."),
        };
        fs::write(Path::new(&other).join(name), bytes).unwrap();
    }
    let out = SETUP.path("of-two-families");
    let said = refused(&[
        "combine",
        "--adapter",
        &SETUP.path("wellformed"),
        "--adapter",
        &other,
        "--out",
        &out,
    ]);
    for part in ["different models", "`roberta`", "`bert`"] {
        assert!(said.contains(part), "{said}");
    }
    assert!(!Path::new(&out).exists());
}

#[test]
fn combine_adds_the_updates_that_merging_makes() {
    let [one, other] = ["wellformed", "number"].map(|name| SETUP.path(name));
    let out = SETUP.path("sum");
    let usual = [
        "combine",
        "--adapter",
        &one,
        "--adapter",
        &other,
        "--weights",
        "0.75,-0.5",
    ];
    let said = refused(&[&usual[..], &["--out", &out]].concat());
    assert!(said.contains("--head"), "{said}");
    let with_head = [&usual[..], &["--head", &one]].concat();
    let sum = json(&[&with_head[..], &["--out", &out]].concat());
    assert_eq!(number(&sum["error"]), 0.0);
    assert_eq!(sum["layers"][0]["rank"], 7);
    // The head keeps its classes.
    let labels = fs::read(Path::new(&out).join("labels.json")).unwrap();
    let labels: Value = serde_json::from_slice(&labels).unwrap();
    assert_eq!(labels["id2label"]["1"], "acceptable");

    let on_model = |adapter: &str| ["--adapter", adapter, "--model", MODEL].map(str::to_string);
    let updates = |adapter: &str, out: &str| {
        let arguments = on_model(adapter);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        merged_updates(&arguments, &SETUP.path(out))
    };
    let firsts = merged_updates(&["--run", &one], &SETUP.path("merged-one"));
    let seconds = merged_updates(&["--run", &other], &SETUP.path("merged-other"));
    let made = updates(&out, "merged-sum");
    assert_eq!(made.len(), firsts.len());
    for (name, update) in &made {
        let pairs = firsts[name].iter().zip(&seconds[name]);
        let wanted: Vec<f64> = pairs.map(|(a, b)| 0.75 * a - 0.5 * b).collect();
        let wrong: Vec<f64> = update.iter().zip(&wanted).map(|(a, b)| a - b).collect();
        assert!(norm(&wrong) < 1e-3 * norm(&wanted), "{name}");
    }

    // At rank 2, it is as far from the exact sum as the report says.
    let small = SETUP.path("small");
    let said = json(&[&with_head[..], &["--out", &small, "--rank", "2"]].concat());
    let cut = updates(&small, "merged-small");
    for layer in said["layers"].as_array().unwrap() {
        let name = layer["path"].as_str().unwrap();
        let wrong: Vec<f64> = cut[name]
            .iter()
            .zip(&made[name])
            .map(|(a, b)| a - b)
            .collect();
        assert_eq!(layer["rank"], 2);
        let error = number(&layer["error"]);
        assert!(
            error > 0.0 && (norm(&wrong) / error - 1.0).abs() < 1e-2,
            "{name}"
        );
    }
    // The sum of one adapter with weight 1 is that adapter.
    let same = SETUP.path("same");
    json(&["combine", "--adapter", &one, "--out", &same]);
    let sentence = "The painters near the lake sleeps.\n";
    let before = text_reading(&["predict", "--run", &one], sentence);
    let after = text_reading(&["predict", "--adapter", &same, "--model", MODEL], sentence);
    let probability = |text: &str| -> f64 {
        let line = text.lines().nth(1).unwrap();
        line.rsplit(',').next().unwrap().parse().unwrap()
    };
    assert!((probability(&before) - probability(&after)).abs() < 1e-4);

    let said = refused(&[
        "combine",
        "--adapter",
        &one,
        "--weights",
        "1,2",
        "--out",
        "x",
    ]);
    assert!(said.contains("2 values for 1"), "{said}");
    let said = refused(&[&usual[..], &["--out", &out]].concat());
    assert!(said.contains("not empty"), "{said}");
}

#[test]
fn rows_use_the_adapters_that_they_name() {
    let [one, other] = ["wellformed", "number"].map(|name| SETUP.path(name));
    let rows = [
        "The dogs sleep.",
        "A cat sings.",
        "It rains.",
        "The painters sleeps.",
    ];
    let names = ["number", "wellformed", "number", "wellformed"];
    let table = PathBuf::from(SETUP.path("rows.csv"));
    let mut text = String::from("which,words\n");
    for (row, name) in rows.iter().zip(names) {
        text.push_str(&format!("{name},{row}\n"));
    }
    fs::write(&table, &text).unwrap();
    let [first, second] = [format!("wellformed={one}"), format!("number={other}")];
    let table = table.to_str().unwrap();
    let several = [
        "predict",
        "--adapter",
        &first,
        "--adapter",
        &second,
        "--adapter-column",
        "which",
        "--text-column",
        "words",
        "--input",
        table,
        "--format",
        "jsonl",
    ];
    let found = text_reading(&several, "");
    // Each row has the prediction of its adapter alone, and the rows keep their order.
    for ((row, name), line) in rows.iter().zip(names).zip(found.lines()) {
        let line: Value = serde_json::from_str(line).unwrap();
        assert_eq!(
            (line["text"].as_str(), line["adapter"].as_str()),
            (Some(*row), Some(name))
        );
        let run = SETUP.path(name);
        let alone = text_reading(&["predict", "--run", &run, "--format", "jsonl"], row);
        let alone: Value = serde_json::from_str(alone.trim()).unwrap();
        assert_eq!(line["prediction"], alone["prediction"]);
        let probabilities = alone["probabilities"].as_object().unwrap();
        assert_eq!(
            line["probabilities"].as_object().unwrap().len(),
            probabilities.len()
        );
        for (label, probability) in probabilities {
            let wrong = number(&line["probabilities"][label]) - number(probability);
            assert!(wrong.abs() < 1e-5, "{line} {alone}");
        }
    }
    assert_eq!(found.lines().count(), rows.len());
    let csv = text_reading(&several[..several.len() - 2], "");
    assert_eq!(
        csv.lines().next(),
        Some("text,pair,adapter,prediction,probability")
    );
    assert!(
        csv.lines()
            .nth(1)
            .unwrap()
            .starts_with("The dogs sleep.,,number,many,")
    );

    fs::write(table, text.replace("number,It", "nobody,It")).unwrap();
    let said = refused(&several);
    assert!(
        said.contains("rows.csv:4") && said.contains("nobody"),
        "{said}"
    );
    let said = refused(&[&several[..], &["--adapter", &first]].concat());
    assert!(said.contains("already"), "{said}");

    // A run whose base model is another copy of that model.
    let copy = PathBuf::from(SETUP.path("copy"));
    let moved = PathBuf::from(SETUP.path("moved"));
    copy_folder(Path::new(MODEL), &copy);
    copy_folder(Path::new(&other), &moved);
    let settings = fs::read_to_string(moved.join("run.toml")).unwrap();
    let settings = settings.replace(MODEL, copy.to_str().unwrap());
    fs::write(moved.join("run.toml"), settings).unwrap();
    fs::write(table, &text).unwrap();
    let third = format!("number={}", moved.display());
    let mut apart = several;
    apart[4] = &third;
    let said = refused(&apart);
    assert!(
        said.contains("must have the same base model")
            && said.contains("; or name the base model of all of them with --model"),
        "{said}"
    );
    assert_eq!(
        text_reading(&[&apart[..], &["--model", MODEL]].concat(), ""),
        found
    );

    let said = refused(&[
        "predict",
        "--adapter",
        &first,
        "--adapter",
        &second,
        "--model",
        MODEL,
    ]);
    assert!(said.contains("--adapter-column"), "{said}");
}
