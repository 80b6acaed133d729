//! The methods that MTLoRA is compared with, as a user trains, reads and refuses them.
#![cfg(feature = "flex")]
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::path::Path;

use serde_json::Value;

use mtlora::models::Checkpoint;

use common::{MODEL, json, mtlora, refused, small_data, text_reading};

const TASK: [&str; 4] = ["--model", MODEL, "--task", "acceptability"];
/// 64 examples in batches of 8 are 8 steps an epoch.
const RUN: [&str; 6] = ["--epochs", "2", "--lr", "1e-2", "--batch", "8"];
const ADALORA: [&str; 14] = [
    "--structure",
    "adalora",
    "--init-r",
    "4",
    "--target-r",
    "2",
    "--tinit",
    "2",
    "--tfinal",
    "5",
    "--deltaT",
    "2",
    "--eval-steps",
    "4",
];

fn train(data: &Path, out: &Path, more: &[&str]) -> Value {
    let place = [
        "--data",
        data.to_str().unwrap(),
        "--out",
        out.to_str().unwrap(),
    ];
    json(&[&["train"], &TASK[..], &RUN, &place, more].concat())
}

fn config(folder: &Path) -> Value {
    serde_json::from_slice(&fs::read(folder.join("adapter_config.json")).unwrap()).unwrap()
}

fn logits(source: &[&str]) -> Vec<f64> {
    let arguments = [&["predict", "--format", "jsonl"], source].concat();
    let rows = text_reading(&arguments, "The dogs sleep.\nA cats sings.\n");
    let rows = rows
        .lines()
        .map(|row| serde_json::from_str::<Value>(row).unwrap());
    let rows = rows.flat_map(|row| row["logits"].as_array().unwrap().clone());
    rows.map(|value| value.as_f64().unwrap()).collect()
}

fn assert_close(found: &[f64], wanted: &[f64]) {
    assert_eq!(found.len(), wanted.len());
    for (one, other) in found.iter().zip(wanted) {
        assert!((one - other).abs() < 1e-4, "{found:?} and {wanted:?}");
    }
}

#[test]
fn adalora_ends_with_its_budget_in_pefts_format_and_folds_to_lora() {
    let folder = tempfile::tempdir().unwrap();
    let data = small_data(folder.path(), 64, 32);
    let [run, lora, merged, page] =
        ["run", "lora", "merged", "page.html"].map(|name| folder.path().join(name));
    let [run_text, lora_text, merged_text, page_text] =
        [&run, &lora, &merged, &page].map(|path| path.to_str().unwrap());
    let results = train(&data, &run, &ADALORA);
    // Step 11, counted from 0, is the first with the final mask, and the evaluation after it that of step 12.
    let best = results["best_step"].as_u64().unwrap();
    assert!(best == 12 || best == 16, "{best}");

    let config = config(&run);
    assert_eq!(config["peft_type"], "ADALORA");
    assert_eq!(
        (&config["init_r"], &config["target_r"]),
        (&4.into(), &2.into())
    );
    assert_eq!(
        (&config["tinit"], &config["total_step"]),
        (&2.into(), &16.into())
    );
    let kept = config["rank_pattern"].as_object().unwrap().values();
    let kept = kept.flat_map(|kept| kept.as_array().unwrap());
    let pruned = kept.filter(|kept| *kept == &Value::Bool(false)).count();

    let found = json(&["inspect", run_text]);
    let layers = found["layers"].as_array().unwrap();
    let ranks = layers.iter().map(|layer| layer["rank"].as_u64());
    let ranks: u64 = ranks.map(Option::unwrap).sum();
    assert_eq!(ranks as usize, 2 * layers.len());
    assert_eq!(pruned, 2 * layers.len());

    let log = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let steps = log
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    let budgets: Vec<u64> = steps
        .filter_map(|step| step["rank_budget"].as_u64())
        .collect();
    assert_eq!(budgets.len(), 16);
    assert!(budgets.is_sorted_by(|one, next| one >= next), "{budgets:?}");
    assert_eq!(budgets[0] as usize, 4 * layers.len());
    assert_eq!(budgets[15] as usize, 2 * layers.len());
    assert!(
        mtlora(&["report", run_text, "--out", page_text])
            .status
            .success()
    );
    let page = fs::read_to_string(&page).unwrap();
    assert!(page.contains("rank of all adapters"));

    let wanted = logits(&["--run", run_text]);
    json(&["export", "--run", run_text, "--out", lora_text]);
    assert_eq!(self::config(&lora)["peft_type"], "LORA");
    assert_close(
        &logits(&["--adapter", lora_text, "--model", MODEL]),
        &wanted,
    );
    assert_close(&logits(&["--adapter", run_text, "--model", MODEL]), &wanted);
    json(&["merge", "--run", run_text, "--out", merged_text]);
    assert_close(&logits(&["--model", merged_text]), &wanted);
}

#[test]
fn a_schedule_that_does_not_fit_is_refused_before_the_run_begins() {
    let folder = tempfile::tempdir().unwrap();
    let data = small_data(folder.path(), 64, 32);
    let out = folder.path().join("run");
    let place = [
        "--data",
        data.to_str().unwrap(),
        "--out",
        out.to_str().unwrap(),
    ];
    let refused = |more: &[&str]| {
        let text = refused(&[&["train"], &TASK[..], &RUN, &place, more].concat());
        assert!(!out.exists(), "{text}");
        text
    };
    let adalora = ["--structure", "adalora"];
    for (more, says) in [
        (&["--tinit", "16"][..], "a training of 16 steps"),
        (&["--tfinal", "15"], "tfinal"),
        (&["--beta1", "1"], "beta1 = 1"),
        (&["--init", "zero"], "--init is not for"),
        (&["--loraplus-lr-ratio", "4"], "LoRA+ is not for adalora"),
        (&["--use-rslora"], "use_rslora"),
        (&["--init-r", "4", "--target-r", "5"], "init_r"),
    ] {
        let text = refused(&[&adalora, more].concat());
        assert!(text.contains(says), "{text}");
    }
    let gpt2 = ["--model", "assets/tiny-gpt2", "--task", "facts"];
    let data = ["--data", "assets/facts", "--out", out.to_str().unwrap()];
    let text = common::refused(
        &[
            &["train"],
            &gpt2[..],
            &data,
            &adalora,
            &["--projections", "qv"],
        ]
        .concat(),
    );
    assert!(text.contains("--projections is not for"), "{text}");
    let text = refused(&["--structure", "shim", "--target-r", "2"]);
    assert!(
        text.contains("only --structure adalora has target_r"),
        "{text}"
    );
    let text = refused(&["--method", "head", "--loraplus-lr-ratio", "2"]);
    assert!(text.contains("loraplus_lr_ratio"), "{text}");
    let text = refused(&["--structure", "lora", "--loraplus-lr-ratio-t", "2"]);
    assert!(text.contains("loraplus_lr_ratio_t"), "{text}");
    let text = refused(&["--method", "adalora"]);
    assert!(text.contains("--structure adalora"), "{text}");
}

#[test]
fn bitfit_is_trained_merged_and_predicts() {
    let folder = tempfile::tempdir().unwrap();
    let data = small_data(folder.path(), 64, 32);
    let [run, merged] = ["run", "merged"].map(|name| folder.path().join(name));
    let [run_text, merged_text] = [&run, &merged].map(|path| path.to_str().unwrap());
    train(&data, &run, &["--method", "bitfit"]);
    let file = Checkpoint::open_file(&run.join("trained.safetensors")).unwrap();
    let names: Vec<&str> = file.names().collect();
    assert!(names.contains(&"roberta.encoder.layer.0.attention.self.key.bias"));
    assert!(names.contains(&"roberta.embeddings.LayerNorm.bias"));
    let is_meant = |name: &&str| name.ends_with(".bias") || name.starts_with("classifier.");
    assert!(names.iter().all(is_meant), "{names:?}");
    let wanted = logits(&["--run", run_text]);
    json(&["merge", "--run", run_text, "--out", merged_text]);
    assert_close(&logits(&["--model", merged_text]), &wanted);
    // There is no adapter to write or to show.
    let out = folder.path().join("exported");
    let mut commands = vec![
        vec!["export", "--run", run_text, "--out", out.to_str().unwrap()],
        vec!["inspect", run_text],
        vec!["predict", "--adapter", run_text, "--model", MODEL],
    ];
    if cfg!(feature = "hub") {
        commands.push(vec!["push", run_text, "org/name", "--dry-run"]);
    }
    for command in commands {
        let text = refused(&command);
        for part in ["--method bitfit", "mtlora merge", "push --merged"] {
            assert!(text.contains(part), "{text}");
        }
    }
    for (more, says) in [
        (&["--init-from", run_text][..], "adapter"),
        (&["--loraplus-lr-ratio", "4"], "loraplus_lr_ratio"),
    ] {
        let out = folder.path().join("refused");
        let place = [
            "--data",
            data.to_str().unwrap(),
            "--out",
            out.to_str().unwrap(),
        ];
        let line = [&["train"], &TASK[..], &place, &["--method", "bitfit"], more].concat();
        let text = refused(&line);
        assert!(text.contains(says), "{text}");
    }
}

#[test]
fn dora_is_in_pefts_format_and_merges_exactly() {
    let folder = tempfile::tempdir().unwrap();
    let data = small_data(folder.path(), 64, 32);
    let [run, merged, page] = ["run", "merged", "page.html"].map(|name| folder.path().join(name));
    let [run_text, merged_text, page_text] =
        [&run, &merged, &page].map(|path| path.to_str().unwrap());
    let dropout = ["--structure", "dora", "--adapter-dropout", "0.1"];
    train(&data, &run, &dropout);
    let config = config(&run);
    assert_eq!(
        (&config["peft_type"], &config["use_dora"]),
        (&"LORA".into(), &true.into())
    );
    let file = Checkpoint::open_file(&run.join("adapter_model.safetensors")).unwrap();
    let key = "base_model.model.roberta.encoder.layer.0.attention.self.query.lora_magnitude_vector";
    assert_eq!(file.shape(key), Some(&[128][..]));
    let wanted = logits(&["--run", run_text]);
    json(&["merge", "--run", run_text, "--out", merged_text]);
    assert_close(&logits(&["--model", merged_text]), &wanted);
    assert_close(&logits(&["--adapter", run_text, "--model", MODEL]), &wanted);
    // Its update is not of low rank.
    for command in ["export", "inspect"] {
        let out = folder.path().join("refused");
        let out = ["--out", out.to_str().unwrap()];
        let more = if command == "export" { &out[..] } else { &[] };
        let text = refused(&[&[command, "--run", run_text], more].concat());
        assert!(text.contains("dora") && text.contains("merge"), "{text}");
    }
    assert!(
        mtlora(&["report", run_text, "--out", page_text])
            .status
            .success()
    );
    // It continues as DoRA, with rsLoRA's scale or LoRA+'s rates it trains too, and nothing else becomes one.
    let next = folder.path().join("next");
    train(&data, &next, &["--init-from", run_text]);
    let other = folder.path().join("other");
    let combined = [
        "--structure",
        "dora",
        "--use-rslora",
        "--loraplus-lr-ratio",
        "4",
    ];
    train(&data, &other, &combined);
    assert_eq!(self::config(&other)["use_rslora"], true);
    let place = ["--data", data.to_str().unwrap(), "--out", "nowhere"];
    let text = refused(
        &[
            &["train"],
            &TASK[..],
            &place,
            &["--init-from", run_text, "--structure", "shim"],
        ]
        .concat(),
    );
    assert!(text.contains("structure"), "{text}");
    let text = refused(
        &[
            &["train"],
            &TASK[..],
            &place,
            &["--structure", "dora", "--targets", "word_embeddings"],
        ]
        .concat(),
    );
    assert!(
        text.contains("embeddings") && text.contains("dora"),
        "{text}"
    );
}
