//! The learning rate, the optimizer's numbers and the metric of the best state, as a user sets them.
#![cfg(feature = "flex")]
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::path::Path;

use serde_json::Value;

use common::{MODEL, json, mtlora, refused, small_data, text};

/// Trains an epoch, 10 steps of 8 sequences, into `run`, with these further settings, and returns the result.
fn train(folder: &Path, run: &str, settings: &[&str]) -> Value {
    train_for(folder, run, &[&["--epochs", "1"], settings].concat())
}

/// The same, for as long as the settings say.
fn train_for(folder: &Path, run: &str, settings: &[&str]) -> Value {
    let data = folder.join("data");
    if !data.exists() {
        small_data(folder, 80, 40);
    }
    let out = folder.join(run);
    let fixed = [
        "train",
        "--task",
        "acceptability",
        "--model",
        MODEL,
        "--data",
    ];
    let run = [text(&data), "--out", text(&out), "--batch", "8"];
    json(&[&fixed[..], &run, settings].concat())
}

/// The learning rates in a run's log.
fn rates(run: &Path) -> Vec<f64> {
    let log = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let lines = log
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines
        .filter_map(|line| line["learning_rate"].as_f64())
        .collect()
}

/// An epoch of these data has ten steps of eight sequences.
#[test]
fn a_training_can_have_a_number_of_steps_in_place_of_epochs() {
    let folder = tempfile::tempdir().unwrap();
    let run = |name: &str, settings: &[&str]| -> (Value, Vec<f64>) {
        let settings = [&["--lr", "1e-3"], settings].concat();
        let result = train_for(folder.path(), name, &settings);
        (result, rates(&folder.path().join(name)))
    };
    for (name, steps) in [("short", 3), ("long", 12)] {
        let wanted = steps.to_string();
        let (result, rates) = run(name, &["--max-steps", &wanted, "--warmup-ratio", "0"]);
        assert_eq!(result["steps"], steps, "{result}");
        // The schedule ends with the training.
        assert_eq!(rates.len(), steps);
        assert!(
            (rates[steps - 1] - 1e-3 / steps as f64).abs() < 1e-9,
            "{rates:?}"
        );
    }
    // Flags win over a file, also where these are of one group.
    let file = folder.path().join("settings.toml");
    fs::write(&file, "epochs = 4\n").unwrap();
    let config = ["--config", text(&file), "--max-steps", "2"];
    assert_eq!(run("file", &config).0["steps"], 2);
    let both = ["train", "--max-steps", "2", "--epochs", "2"];
    assert!(refused(&both).contains("cannot be used with"));
}

#[test]
fn the_log_has_the_rates_of_the_chosen_scheduler() {
    let folder = tempfile::tempdir().unwrap();
    let names = ["linear", "cosine", "constant", "constant_with_warmup"];
    for name in names {
        let settings = [
            "--lr-scheduler-type",
            name,
            "--lr",
            "1e-3",
            "--warmup-steps",
            "2",
        ];
        train(folder.path(), name, &settings);
    }
    let of = |name: &str| rates(&folder.path().join(name));
    let near = |found: f64, wanted: f64| assert!((found - wanted).abs() < 1e-9, "{found} {wanted}");
    for (name, halfway) in [
        ("linear", 5e-4),
        ("cosine", 5e-4),
        ("constant_with_warmup", 1e-3),
    ] {
        let rates = of(name);
        assert_eq!(rates.len(), 10, "{name}");
        near(rates[1], 5e-4);
        near(rates[6], halfway);
    }
    near(of("linear")[4], 7.5e-4);
    near(
        of("cosine")[4],
        5e-4 * (1.0 + std::f64::consts::FRAC_1_SQRT_2),
    );
    assert!(of("constant").iter().all(|rate| *rate == 1e-3));
}

#[test]
fn the_settings_are_stored_and_change_what_is_learned() {
    let folder = tempfile::tempdir().unwrap();
    let decay = [
        "--lr-scheduler-type",
        "warmup_stable_decay",
        "--decay-ratio",
        "0.4",
    ];
    let adam = [
        "--adam-beta1",
        "0.8",
        "--adam-beta2",
        "0.98",
        "--adam-epsilon",
        "1e-6",
    ];
    train(folder.path(), "both", &[&decay[..], &adam].concat());
    train(folder.path(), "decay", &decay);
    let config = fs::read_to_string(folder.path().join("both/run.toml")).unwrap();
    for line in [
        "lr_scheduler_type = \"warmup_stable_decay\"",
        "decay_ratio = 0.4",
        "beta1 = 0.8",
        "beta2 = 0.98",
        "epsilon = 0.000001",
    ] {
        assert!(config.contains(line), "{line} {config}");
    }
    let adapter =
        |run: &str| fs::read(folder.path().join(run).join("adapter_model.safetensors")).unwrap();
    assert!(adapter("both") != adapter("decay"));
}

#[test]
fn the_best_state_is_that_of_the_chosen_metric() {
    let folder = tempfile::tempdir().unwrap();
    let settings = [
        "--metric-for-best-model",
        "loss",
        "--eval-steps",
        "1",
        "--lr",
        "1e-2",
    ];
    train(folder.path(), "loss", &settings);
    let log = fs::read_to_string(folder.path().join("loss/metrics.jsonl")).unwrap();
    let lines = log
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    let evaluations: Vec<(u64, f64)> = lines
        .filter_map(|line| Some((line["step"].as_u64()?, line["dev"]["loss"].as_f64()?)))
        .filter(|(step, _)| *step > 0)
        .collect();
    let results = fs::read_to_string(folder.path().join("loss/results.json")).unwrap();
    let results: Value = serde_json::from_str(&results).unwrap();
    let best = evaluations
        .iter()
        .min_by(|a, b| a.1.total_cmp(&b.1))
        .unwrap();
    assert_eq!(
        results["best_step"].as_u64(),
        Some(best.0),
        "{evaluations:?} {results}"
    );
}

#[test]
fn a_metric_that_is_not_computed_is_refused_before_a_run_is_made() {
    let folder = tempfile::tempdir().unwrap();
    let data = small_data(folder.path(), 9, 5);
    let out = folder.path().join("run");
    let all = [
        "train",
        "--task",
        "acceptability",
        "--model",
        MODEL,
        "--data",
        text(&data),
    ];
    let wrong = ["--out", text(&out), "--metric-for-best-model", "pearson"];
    let error = refused(&[&all[..], &wrong].concat());
    assert!(
        error.contains("metric_for_best_model is pearson")
            && error.contains("accuracy, matthews, loss"),
        "{error}"
    );
    assert!(!out.exists());
    let unknown = ["--out", text(&out), "--lr-scheduler-type", "cosin"];
    let output = mtlora(&[&all[..], &unknown].concat());
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("cosine"));
}

#[test]
fn event_files_for_tensorboard_are_left_out_if_they_are_not_wanted() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let event_files = |run: &str| {
        let names = fs::read_dir(folder.join(run)).unwrap();
        let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.starts_with("events.out.")).count()
    };
    let with = train(folder, "with", &[]);
    let without = train(folder, "without", &["--report-to", "none"]);
    assert_eq!(with["metrics"], without["metrics"]);
    assert_eq!((event_files("with"), event_files("without")), (1, 0));
    assert_eq!(rates(&folder.join("without")).len(), 10);
    let said = refused(&["train", "--report-to", "wandb"]);
    assert!(said.contains("tensorboard, none"), "{said}");
}

#[test]
fn the_number_of_threads_is_kept_with_the_settings() {
    let folder = tempfile::tempdir().unwrap();
    let kept = |run: &str| {
        let settings = fs::read_to_string(folder.path().join(run).join("settings.toml")).unwrap();
        let settings: toml::Table = settings.parse().unwrap();
        settings.get("threads").and_then(toml::Value::as_integer)
    };
    train(folder.path(), "default", &[]);
    assert_eq!(kept("default"), None);
    train(folder.path(), "two", &["--threads", "2"]);
    assert_eq!(kept("two"), Some(2));
    let file = folder.path().join("two/settings.toml");
    let again = |run: &str, flags: &[&str]| {
        let out = folder.path().join(run);
        let fixed = ["train", "--config", text(&file), "--out", text(&out)];
        json(&[&fixed[..], flags].concat());
        kept(run)
    };
    assert_eq!(again("again", &[]), Some(2));
    assert_eq!(again("one", &["--threads", "1"]), Some(1));
    let adapter = |run: &str| {
        let file = folder.path().join(run).join("adapter_model.safetensors");
        fs::read(file).unwrap()
    };
    assert!(adapter("again") == adapter("two"));
    json(&["train", "--resume", text(&folder.path().join("two"))]);

    fs::write(&file, "threads = 5000\n").unwrap();
    let said = refused(&["train", "--config", text(&file), "--out", "none"]);
    assert!(said.contains("threads: it must be at most 4096"), "{said}");
}
