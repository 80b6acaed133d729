//! The program as a user runs it.
#![cfg(feature = "flex")]
#![allow(clippy::unwrap_used)]

mod common;

use std::path::Path;

use serde_json::Value;

use common::{DATA, MODEL, copy_folder, json, mtlora, refused, small_data, text, text_reading};

const GPT2: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/assets/tiny-gpt2");

fn train(data: &Path, out: &Path, more: &[&str]) -> Value {
    let (data, out) = (data.to_str().unwrap(), out.to_str().unwrap());
    let arguments = [
        "train",
        "--model",
        MODEL,
        "--task",
        "acceptability",
        "--data",
        data,
        "--out",
        out,
        "--epochs",
        "2",
        "--batch",
        "16",
        "--lr",
        "5e-3",
        "--device",
        "flex",
    ];
    json(&[&arguments, more].concat())
}

#[test]
fn a_run_is_scored_merged_and_repeated_to_the_bit() {
    let folder = tempfile::tempdir().unwrap();
    let data = small_data(folder.path(), 96, 64);
    let run = folder.path().join("run");
    let trained = train(&data, &run, &["--structure", "dtsm"]);
    assert!(trained["trainable_parameters"].as_u64() < trained["total_parameters"].as_u64());
    for field in ["train_seconds", "tokens_per_second"] {
        assert!(trained[field].as_f64().unwrap() > 0.0);
    }

    let run = run.to_str().unwrap();
    let scored = json(&["eval", "--run", run]);
    assert_eq!(scored["metrics"], trained["metrics"]);

    // The folded model has the run's scores, but for rounding in the loss.
    let merged = folder.path().join("merged");
    let merged = merged.to_str().unwrap();
    json(&["merge", "--run", run, "--out", merged]);
    let data_path = data.to_str().unwrap();
    let folded = json(&[
        "eval",
        "--model",
        merged,
        "--task",
        "acceptability",
        "--data",
        data_path,
        "--device",
        "flex",
    ]);
    assert_eq!(
        folded["metrics"]["accuracy"],
        trained["metrics"]["accuracy"]
    );
    let loss = |report: &Value| report["metrics"]["loss"].as_f64().unwrap();
    assert!((loss(&folded) - loss(&trained)).abs() < 1e-5);

    // It predicts as the run does, with the classes that its config.json names.
    let predict = |model: &[&str]| {
        let arguments = [&["predict", "--format", "jsonl"], model].concat();
        let rows = text_reading(&arguments, "The dogs sleep.\nA cats sings.\n");
        let rows = rows.lines().map(|row| serde_json::from_str(row).unwrap());
        rows.collect::<Vec<Value>>()
    };
    let [of_run, of_model] = [["--run", run], ["--model", merged]].map(|model| predict(&model));
    assert_eq!(of_run.len(), 2);
    for (of_run, of_model) in of_run.iter().zip(&of_model) {
        assert_eq!(of_run["prediction"], of_model["prediction"]);
        for class in ["acceptable", "unacceptable"] {
            let [one, other] =
                [of_run, of_model].map(|row| row["probabilities"][class].as_f64().unwrap());
            assert!((one - other).abs() < 1e-5, "{of_run} {of_model}");
        }
    }
    let text = refused(&["predict", "--model", MODEL]);
    assert!(
        text.contains("this model has no classification head"),
        "{text}"
    );
    let text = refused(&["predict", "--model", GPT2]);
    assert!(text.contains("use `mtlora generate`"), "{text}");
    let text = refused(&["predict", "--run", run, "--model", merged]);
    assert!(text.contains("so leave out --model"), "{text}");

    // The same seed makes the same run; another makes another.
    let again = folder.path().join("again");
    assert_eq!(
        train(&data, &again, &["--structure", "dtsm"])["metrics"],
        trained["metrics"]
    );
    let values = |path: &Path| std::fs::read(path.join("adapter_model.safetensors")).unwrap();
    assert_eq!(values(Path::new(run)), values(&again));
    let other = folder.path().join("other");
    train(&data, &other, &["--structure", "dtsm", "--seed", "1"]);
    assert_ne!(values(Path::new(run)), values(&other));
}

#[test]
fn a_users_own_table_is_learned_and_predicted() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("table");
    std::fs::create_dir(&data).unwrap();
    let rows = "kind,words\nno,\"The dogs, sleep.\"\nyes,A cat sings.\nno,The old dogs sleep.\nyes,This cat sings.\n";
    for name in ["train.csv", "dev.csv"] {
        std::fs::write(data.join(name), rows).unwrap();
    }
    let run = folder.path().join("run");
    let (data, run) = (data.to_str().unwrap(), run.to_str().unwrap());
    let report = json(&[
        "train",
        "--model",
        MODEL,
        "--task",
        "table",
        "--data",
        data,
        "--text-column",
        "words",
        "--label-column",
        "kind",
        "--out",
        run,
        "--epochs",
        "20",
        "--lr",
        "1e-2",
        "--method",
        "full",
        "--device",
        "flex",
    ]);
    assert_eq!(report["metrics"]["accuracy"].as_f64(), Some(1.0));

    let input = folder.path().join("input.txt");
    std::fs::write(&input, "A cat sings.\nThe dogs, sleep.\n").unwrap();
    let output = mtlora(&["predict", "--run", run, "--input", input.to_str().unwrap()]);
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "text,pair,prediction,p(no),p(yes)");
    assert!(lines[1].starts_with("A cat sings.,,yes,"));
    assert!(lines[2].starts_with("\"The dogs, sleep.\",,no,"));
}

#[test]
fn bad_input_is_refused_with_a_reason_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let out_path = out.to_str().unwrap();
    let train = |more: &[&str]| {
        let usual = [
            "train",
            "--model",
            MODEL,
            "--task",
            "acceptability",
            "--data",
            DATA,
        ];
        refused(&[&usual, more, &["--out", out_path]].concat())
    };
    assert!(train(&["--rank", "0"]).contains("rank 0"));
    assert!(train(&["--rank", "4096"]).contains("choose 1 to 128"));
    assert!(train(&["--targets", "qeury"]).contains("qeury"));
    assert!(train(&["--device", "abacus"]).contains("there is: "));
    assert!(train(&["--lr", "nan"]).contains("--lr must be a positive number"));
    let text = refused(&["train", "--task", "table", "--data", "reviews"]);
    assert!(
        text.contains("--model (the base model) and --out (the run's folder) are needed"),
        "{text}"
    );
    let elsewhere = folder.path().to_str().unwrap();
    let text = refused(&[
        "train", "--model", elsewhere, "--task", "cola", "--data", DATA, "--out", out_path,
    ]);
    assert!(text.contains("config.json"), "{text}");
    assert!(!out.exists());

    let config = folder.path().join("settings.toml");
    std::fs::write(&config, "rank = 4\nrnak = 5\n").unwrap();
    let text = train(&["--config", config.to_str().unwrap()]);
    assert!(
        text.contains("settings.toml") && text.contains("rnak"),
        "{text}"
    );
    assert!(train(&["--targets", "query", "--overwrite", "--init", "sero"]).contains("zero"));
}

#[test]
fn a_loss_that_is_not_finite_stops_the_run() {
    let folder = tempfile::tempdir().unwrap();
    let data = small_data(folder.path(), 96, 64);
    let out = folder.path().join("run");
    let text = refused(&[
        "train",
        "--model",
        MODEL,
        "--task",
        "acceptability",
        "--data",
        data.to_str().unwrap(),
        "--out",
        out.to_str().unwrap(),
        "--lr",
        "1e30",
        "--warmup-ratio",
        "0",
        "--method",
        "full",
        "--device",
        "flex",
    ]);
    assert!(text.contains("at step"), "{text}");
}

#[test]
fn a_report_shows_runs_side_by_side() {
    let folder = tempfile::tempdir().unwrap();
    let data = small_data(folder.path(), 96, 64);
    let [one, two] = ["shim", "lora"].map(|structure| {
        let run = folder.path().join(format!("run-{structure}"));
        train(&data, &run, &["--structure", structure]);
        run.to_str().unwrap().to_string()
    });
    let out = folder.path().join("report.html");
    let out = out.to_str().unwrap();
    let report = json(&["report", &one, &two, "--out", out]);
    assert_eq!(report["runs"].as_u64(), Some(2));
    for (run, result) in [&one, &two]
        .into_iter()
        .zip(report["results"].as_array().unwrap())
    {
        assert_eq!(result["run"].as_str(), Some(run.as_str()));
        assert_eq!(result["task"], "acceptability");
        assert_eq!(result["seed"].as_u64(), Some(0));
        let scored = json(&["eval", "--run", run]);
        assert_eq!(result["metrics"], scored["metrics"]);
        assert!(result["best_step"].as_u64() > Some(0));
    }
    assert_eq!(report["results"].as_array().unwrap().len(), 2);
    let page = std::fs::read_to_string(out).unwrap();
    for shown in [
        "run-shim",
        "run-lora",
        "dev matthews",
        "training loss",
        "structure",
        "What the adapter has learned",
        "roberta.encoder.layer.0.attention.self.query",
        "Eigenvalues of T",
    ] {
        assert!(page.contains(shown), "{shown}");
    }
    // An unfinished run has no metrics yet.
    std::fs::remove_file(Path::new(&two).join("results.json")).unwrap();
    let report = json(&["report", &one, &two, "--out", out]);
    assert!(report["results"][0]["metrics"]["accuracy"].is_number());
    assert!(report["results"][1]["metrics"].is_null());

    let nowhere = folder.path().to_str().unwrap();
    let text = refused(&["report", nowhere, "--out", out]);
    assert!(text.contains("is not a run folder"), "{text}");
}

#[test]
fn a_run_is_used_with_its_base_model_in_another_place() {
    let folder = tempfile::tempdir().unwrap();
    let place = |name: &str| folder.path().join(name);
    let data = small_data(folder.path(), 64, 32);
    let (model, moved, run) = (place("model"), place("moved"), place("run"));
    copy_folder(Path::new(MODEL), &model);
    let trained = json(&[
        "train",
        "--model",
        text(&model),
        "--task",
        "acceptability",
        "--data",
        text(&data),
        "--out",
        text(&run),
        "--epochs",
        "1",
        "--device",
        "flex",
    ]);
    std::fs::rename(&model, &moved).unwrap();
    let (run, moved, merged) = (text(&run), text(&moved), place("merged"));
    let merge = ["merge", "--run", run, "--out", text(&merged)];
    for command in [
        &["eval", "--run", run][..],
        &["predict", "--run", run],
        &merge,
    ] {
        let message = refused(command);
        for part in [text(&model), "does not exist any more", "with --model"] {
            assert!(message.contains(part), "{message}");
        }
    }

    let scored = json(&["eval", "--run", run, "--model", moved]);
    assert_eq!(scored["metrics"], trained["metrics"]);
    json(&[&merge[..], &["--model", moved]].concat());
    let predict = |model: &[&str]| {
        let rows = text_reading(&[&["predict"], model].concat(), "The dogs sleep.\n");
        rows.lines().count()
    };
    assert_eq!(predict(&["--run", run, "--model", moved]), 2);
    assert_eq!(predict(&["--model", text(&merged)]), 2);
    // A model of another kind cannot be the one.
    let message = refused(&["predict", "--run", run, "--model", GPT2]);
    assert!(
        message.contains("this model is of another kind than the base of the run"),
        "{message}"
    );
}
