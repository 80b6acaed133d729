//! Exporting adapters to PEFT's format and importing them, with the program.
#![cfg(feature = "flex")]
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use mtlora::core::AdaLora;
use mtlora::models::PeftAdapter;
use serde_json::{Value, json as object};

use common::{MODEL, json, refused, small_data, text_reading};

const TASK: [&str; 4] = ["--model", MODEL, "--task", "acceptability"];

fn train(data: &Path, out: &Path, more: &[&str]) -> Value {
    let (data, out) = (data.to_str().unwrap(), out.to_str().unwrap());
    let usual = [
        "--data", data, "--out", out, "--epochs", "1", "--lr", "1e-2", "--batch", "16",
    ];
    json(&[&["train"], &TASK[..], &usual, more].concat())
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
    rows.flat_map(|row| row["logits"].as_array().unwrap().clone())
        .map(|logit| logit.as_f64().unwrap())
        .collect()
}

fn close(a: &[f64], b: &[f64]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-5)
}

#[test]
fn a_run_is_exported_as_lora_and_imported_again() {
    let folder = tempfile::tempdir().unwrap();
    let data = small_data(folder.path(), 64, 32);
    let [run, lora, merged, imported, next] =
        ["run", "lora", "merged", "imported", "next"].map(|name| folder.path().join(name));
    train(&data, &run, &["--structure", "dtsm", "--use-rslora"]);
    let ours = config(&run);
    assert_eq!(
        (&ours["peft_type"], &ours["structure"]),
        (&object!("MTLORA"), &object!("dtsm"))
    );
    assert_eq!(ours["use_rslora"], true);
    let run_text = run.to_str().unwrap();
    let wanted = logits(&["--run", run_text]);

    let lora_text = lora.to_str().unwrap();
    for fold in ["a", "b", "balanced"] {
        json(&[
            "export",
            "--run",
            run_text,
            "--out",
            lora_text,
            "--fold",
            fold,
            "--overwrite",
        ]);
        let plain = config(&lora);
        assert_eq!(plain["peft_type"], "LORA");
        assert!(plain.get("structure").is_none());
        assert_eq!(plain["target_modules"], object!(["query", "value"]));
        assert!(
            close(
                &logits(&["--adapter", lora_text, "--model", MODEL]),
                &wanted
            ),
            "{fold}"
        );
    }
    let text = refused(&["export", "--run", run_text, "--out", lora_text]);
    assert!(text.contains("--overwrite"), "{text}");
    // A run cannot be written over the adapter that it starts from.
    let from = ["--init-from", lora_text, "--out", lora_text, "--overwrite"];
    let onto = ["--adapter", lora_text, "--out", lora_text, "--overwrite"];
    let data_flag = ["--data", data.to_str().unwrap()];
    for (command, flags) in [("train", &from[..]), ("import", &onto[..])] {
        let text = refused(&[&[command], flags, &TASK[..], &data_flag[..]].concat());
        assert!(
            text.contains("the folder of the adapter that the run starts from"),
            "{text}"
        );
    }

    let data_text = data.to_str().unwrap();
    let task = [&TASK[..], &["--data", data_text]].concat();
    let scored = json(&["eval", "--run", run_text]);
    let again = json(&[&["eval", "--adapter", lora_text], &task[..]].concat());
    assert_eq!(again["metrics"]["accuracy"], scored["metrics"]["accuracy"]);
    assert_eq!(again["examples"], scored["examples"]);

    let [merged_text, imported_text] = [&merged, &imported].map(|path| path.to_str().unwrap());
    json(&[
        "merge",
        "--adapter",
        lora_text,
        "--model",
        MODEL,
        "--out",
        merged_text,
    ]);
    let merged_score = json(&[
        "eval",
        "--model",
        merged_text,
        "--task",
        "acceptability",
        "--data",
        data_text,
    ]);
    assert_eq!(
        merged_score["metrics"]["accuracy"],
        scored["metrics"]["accuracy"]
    );

    // Imported as a run of another structure, it has T = I and computes the same.
    let import = ["import", "--adapter", lora_text, "--out", imported_text];
    json(&[&import, &task[..], &["--structure", "ctcm"]].concat());
    assert_eq!(config(&imported)["structure"], "ctcm");
    assert!(close(&logits(&["--run", imported_text]), &wanted));

    // A training can start from it, too.
    train(
        &data,
        &next,
        &["--init-from", lora_text, "--structure", "shim"],
    );
    assert_eq!(config(&next)["structure"], "shim");
    let text = fs::read_to_string(next.join("run.toml")).unwrap();
    assert!(
        text.contains("rank = 8") && text.contains("init_from"),
        "{text}"
    );
}

#[test]
fn an_adapter_that_needs_a_schedule_is_refused_before_an_old_run_is_removed() {
    let folder = tempfile::tempdir().unwrap();
    let data = small_data(folder.path(), 32, 32);
    let [run, adalora, lora, next] =
        ["run", "adalora", "lora", "next"].map(|name| folder.path().join(name));
    train(&data, &run, &["--structure", "lora"]);
    let plain = PeftAdapter::from_folder(&run).unwrap();
    fs::create_dir(&adalora).unwrap();
    let pruned = plain.in_method(AdaLora, 0.0).unwrap();
    pruned.write(&adalora).unwrap();

    let files = |folder: &Path| -> BTreeMap<String, Option<Vec<u8>>> {
        let entries = fs::read_dir(folder).unwrap().map(Result::unwrap);
        let named = entries.map(|entry| {
            let name = entry.file_name().into_string().unwrap();
            (name, fs::read(entry.path()).ok())
        });
        named.collect()
    };
    let before = files(&run);
    assert!(before.contains_key("results.json"), "{:?}", before.keys());
    let [data_text, run_text, adalora_text, lora_text] =
        [&data, &run, &adalora, &lora].map(|path| path.to_str().unwrap());
    let flags = ["--data", data_text, "--out", run_text, "--overwrite"];
    let from = ["--init-from", adalora_text];
    for more in [&[][..], &["--structure", "shim"]] {
        let text = refused(&[&["train"], &TASK[..], &flags, &from, more].concat());
        assert!(text.contains("the method adalora"), "{text}");
        assert!(
            text.contains(&format!("mtlora export --run {adalora_text} --out LORA")),
            "{text}"
        );
        assert!(files(&run) == before, "{more:?}");
    }

    // The advice works.
    json(&["export", "--run", adalora_text, "--out", lora_text]);
    train(&data, &next, &["--init-from", lora_text]);
}

#[test]
fn adapters_that_cannot_be_read_are_refused_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let data = small_data(folder.path(), 32, 32);
    let run = folder.path().join("run");
    train(&data, &run, &[]);
    let run_text = run.to_str().unwrap();
    let original = config(&run);
    let refused_with = |field: &str, value: Value| {
        let mut changed = original.clone();
        changed[field] = value;
        fs::write(run.join("adapter_config.json"), changed.to_string()).unwrap();
        refused(&[
            "merge",
            "--adapter",
            run_text,
            "--model",
            MODEL,
            "--out",
            "nowhere",
        ])
    };
    for (field, value, says) in [
        ("use_dora", object!(true), "DoRA"),
        ("peft_type", object!("LOHA"), "LOHA"),
        ("bias", object!("all"), "trained biases"),
        ("r", object!(3), "the rank is 3"),
        ("target_modules", object!(["query"]), "does not target"),
        (
            "target_modules",
            object!(["query", "value", "key"]),
            "no adapter for",
        ),
        ("target_modules", object!("(query"), "target_modules"),
        ("modules_to_save", object!(null), "modules_to_save"),
        ("structure", object!("lora"), "lora_C is there"),
    ] {
        let text = refused_with(field, value);
        assert!(text.contains(says), "{text}");
    }
    assert!(!Path::new("nowhere").exists());
    fs::write(run.join("adapter_config.json"), original.to_string()).unwrap();

    // The adapter's head is for another task.
    let rows = "text,label\na,1\nb,2\nc,3\n";
    let table = folder.path().join("table");
    fs::create_dir(&table).unwrap();
    for name in ["train.csv", "dev.csv"] {
        fs::write(table.join(name), rows).unwrap();
    }
    let text = refused(&[
        "eval",
        "--adapter",
        run_text,
        "--model",
        MODEL,
        "--task",
        "table",
        "--data",
        table.to_str().unwrap(),
    ]);
    assert!(text.contains("its head has 2 outputs"), "{text}");

    // The run was trained by an earlier build.
    let path = run.join("run.toml");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replacen("format = 3\n", "", 1)).unwrap();
    for arguments in [
        &["eval", "--run", run_text][..],
        &["predict", "--run", run_text],
    ] {
        let text = refused(arguments);
        assert!(
            text.contains("earlier build") && text.contains("train it again"),
            "{text}"
        );
    }
    fs::remove_file(run.join("adapter_model.safetensors")).unwrap();
    fs::write(run.join("adapter_model.bin"), "").unwrap();
    let text = refused(&["export", "--run", run_text, "--out", "nowhere"]);
    assert!(
        text.contains("adapter_model.bin") && text.contains("no code in it was run"),
        "{text}"
    );
    fs::remove_file(run.join("adapter_model.bin")).unwrap();
    let text = refused(&["export", "--run", run_text, "--out", "nowhere"]);
    assert!(
        text.contains("it has no adapter_model.safetensors"),
        "{text}"
    );
}

/// PEFT saved the adapter and computed the logits that are expected of it (tests/fixtures/pickle/make.py).
#[test]
fn an_adapter_from_before_safetensors_is_read_as_any_other() {
    let old = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/pickle/adapter");
    let wanted = fs::read_to_string(old.join("logits.jsonl")).unwrap();
    let rows = wanted
        .lines()
        .map(|row| serde_json::from_str::<Value>(row).unwrap());
    let wanted: Vec<f64> = rows
        .take(2)
        .flat_map(|row| row["logits"].as_array().unwrap().clone())
        .map(|logit| logit.as_f64().unwrap())
        .collect();
    let folder = tempfile::tempdir().unwrap();
    let data = small_data(folder.path(), 64, 32);
    let [imported, next] = ["imported", "next"].map(|name| folder.path().join(name));
    let old = old.to_str().unwrap();
    let adapter = ["--adapter", old, "--model", MODEL];
    assert!(close(&logits(&adapter), &wanted), "{wanted:?}");

    let task = [&TASK[..], &["--data", data.to_str().unwrap()]].concat();
    json(&[&["eval", "--adapter", old], &task[..]].concat());
    let imported_text = imported.to_str().unwrap();
    // Files that are not those of a run are left alone.
    fs::create_dir(&imported).unwrap();
    fs::write(imported.join("adapter_model.bin"), "old").unwrap();
    let import = ["import", "--adapter", old, "--out", imported_text];
    let said = refused(&[&import, &task[..], &["--overwrite"]].concat());
    assert!(said.contains("adapter_model.bin"), "{said}");
    fs::remove_file(imported.join("adapter_model.bin")).unwrap();
    json(&[&import[..], &task].concat());
    // A file that was in the run's folder before is not taken for the new run's own.
    fs::write(imported.join("adapter_model.bin"), "old").unwrap();
    json(&[&import, &task[..], &["--overwrite"]].concat());
    assert!(close(&logits(&["--run", imported_text]), &wanted));
    assert!(imported.join("adapter_model.safetensors").exists());
    assert!(!imported.join("adapter_model.bin").exists());

    train(&data, &next, &["--init-from", old, "--structure", "icfm"]);
    assert_eq!(config(&next)["r"], 2);
    let found = json(&["inspect", old]);
    assert_eq!(found["layers"].as_array().unwrap().len(), 6);
}
