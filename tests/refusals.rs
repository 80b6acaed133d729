//! Commands that would lose data or give wrong numbers are refused.
#![cfg(feature = "flex")]
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use burn::tensor::TensorData;
use mtlora::models::PeftAdapter;

use common::{DATA, MODEL, copy_folder, json, refused, refused_reading, small_data, text};

/// A finished run of the acceptability task, and its folder.
struct Trained {
    folder: tempfile::TempDir,
    run: PathBuf,
    model: PathBuf,
}

impl Trained {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data = small_data(folder.path(), 32, 16);
        let [run, model] = ["run", "model"].map(|name| folder.path().join(name));
        copy_folder(Path::new(MODEL), &model);
        json(&[
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
        ]);
        Self { folder, run, model }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A copy of the run.
    fn copied(&self, name: &str) -> PathBuf {
        let to = self.path(name);
        copy_folder(&self.run, &to);
        to
    }
}

#[test]
fn results_that_would_be_wrong_or_replace_their_source_are_refused() {
    let trained = Trained::new();
    let run = text(&trained.run);
    let weights = trained.run.join("adapter_model.safetensors");
    let before = fs::read(&weights).unwrap();
    let base = fs::read(trained.model.join("model.safetensors")).unwrap();

    // A result does not replace what it is made from.
    let same = "name another folder for --out";
    let merge = ["merge", "--run", run, "--overwrite", "--out"];
    let export = ["export", "--run", run, "--overwrite", "--out"];
    let combine = [
        "combine",
        "--adapter",
        run,
        "--adapter",
        run,
        "--head",
        "none",
        "--overwrite",
        "--out",
    ];
    for (command, out) in [
        (&merge[..], text(&trained.model)),
        (&merge, run),
        (&export, run),
        (&combine, run),
    ] {
        let message = refused(&[command, &[out]].concat());
        assert!(message.contains(same), "{command:?} {message}");
    }
    assert_eq!(fs::read(&weights).unwrap(), before);
    assert_eq!(
        fs::read(trained.model.join("model.safetensors")).unwrap(),
        base
    );

    // A run whose head is lost is not used with another head.
    let headless = trained.path("headless");
    json(&[
        "combine",
        "--adapter",
        run,
        "--head",
        "none",
        "--out",
        text(&headless),
    ]);
    let lost = trained.copied("lost");
    for name in ["adapter_model.safetensors", "adapter_config.json"] {
        fs::copy(headless.join(name), lost.join(name)).unwrap();
    }
    let (lost, merged) = (text(&lost), trained.path("merged"));
    let commands: [&[&str]; 3] = [
        &["eval", "--run", lost],
        &["predict", "--run", lost],
        &["merge", "--run", lost, "--out", text(&merged)],
    ];
    for command in commands {
        let message = refused_reading(command, "A test.\n");
        assert!(
            message.contains("has no classification head"),
            "{command:?} {message}"
        );
    }
    assert!(!merged.exists());

    // Values that overflow are refused, whether the model predicts or is merged.
    let diverged = trained.copied("diverged");
    let mut adapter = PeftAdapter::from_folder(&diverged).unwrap();
    for module in adapter.modules.values_mut() {
        let shape = module.values.a.shape();
        module.values.a = TensorData::new(vec![3e38f32; shape.num_elements()], shape);
        let shape = module.values.b.shape();
        module.values.b = TensorData::new(vec![3e38f32; shape.num_elements()], shape);
    }
    adapter.write(&diverged).unwrap();
    let diverged = text(&diverged);
    let message = refused_reading(&["predict", "--run", diverged], "A test.\n");
    assert!(
        message.contains("the prediction is not finite"),
        "{message}"
    );
    let message = refused(&["merge", "--run", diverged, "--out", text(&merged)]);
    assert!(
        message.contains("has a value that is not finite"),
        "{message}"
    );
    assert!(!merged.exists());

    // A flag that would be ignored is refused.
    let input = trained.path("input.txt");
    fs::write(&input, "A test.\n").unwrap();
    let message = refused(&[
        "predict",
        "--run",
        run,
        "--input",
        text(&input),
        "--text-column",
        "text",
    ]);
    assert!(message.contains("--text-column is for tables"), "{message}");
}

#[test]
fn numbers_of_pre_training_are_checked_before_anything_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let lines = folder.path().join("lines.txt");
    fs::write(&lines, "a line of text\n".repeat(8)).unwrap();
    let out = folder.path().join("out");
    let pretrain = |flag: &str, architecture: &str| {
        refused(&[
            "pretrain",
            "--text",
            text(&lines),
            "--out",
            text(&out),
            "--architecture",
            architecture,
            flag,
        ])
    };
    for (flag, message) in [
        ("--lr=-1", "--lr must be a positive number"),
        ("--lr=nan", "lr must be a positive number"),
        ("--lr=inf", "lr must be a positive number"),
        ("--warmup-ratio=5", "--warmup-ratio must be from 0 to 1"),
        ("--weight-decay=nan", "--weight-decay must not be negative"),
    ] {
        for architecture in ["roberta", "gpt2"] {
            let said = pretrain(flag, architecture);
            assert!(said.contains(message), "{flag} {said}");
        }
    }
    for value in ["2", "nan", "-1"] {
        let said = pretrain(&format!("--mask-probability={value}"), "roberta");
        assert!(
            said.contains("mask_probability must be from 0 to 1"),
            "{said}"
        );
    }
    assert!(!out.exists());
    let said = pretrain("--max-length=2", "gpt2");
    assert!(said.contains("max_length must be at least 3"), "{said}");
}

#[test]
fn a_number_that_a_run_cannot_store_is_refused_with_its_flag() {
    let folder = tempfile::tempdir().unwrap();
    let [out, config] = ["out", "settings.toml"].map(|name| folder.path().join(name));
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
        refused(&[&usual, more, &["--out", text(&out)]].concat())
    };
    let bound = "--seed must be at most 9223372036854775807";
    assert!(train(&["--seed", "9223372036854775808"]).contains(bound));
    fs::write(&config, "seed = 9223372036854775808\n").unwrap();
    assert!(train(&["--config", text(&config)]).contains(bound));
    assert!(!out.exists());
}

#[test]
fn a_complete_run_with_a_lost_or_damaged_file_says_how_to_mend_it() {
    let trained = Trained::new();
    let run = text(&trained.run);
    let weights = trained.run.join("adapter_model.safetensors");
    let before = fs::read(&weights).unwrap();

    // The values come from the last checkpoint.
    fs::remove_file(&weights).unwrap();
    let message = refused(&["eval", "--run", run]);
    let advice = format!("`mtlora train --resume {run}` restores it");
    assert!(message.contains(&advice), "{message}");
    json(&["train", "--resume", run]);
    assert_eq!(fs::read(&weights).unwrap(), before);

    // Leftovers of a killed program are removed although nothing is saved.
    let results = trained.run.join("results.json");
    let leftovers =
        [".step-1.old", ".step-1.new"].map(|name| trained.run.join("checkpoints").join(name));
    for folder in &leftovers {
        fs::create_dir(folder).unwrap();
    }
    let written = fs::read_to_string(&results).unwrap();
    fs::write(&results, &written[..written.len() / 2]).unwrap();
    let page = trained.path("report.html");
    let commands: [&[&str]; 2] = [
        &["train", "--resume", run],
        &["report", run, "--out", text(&page)],
    ];
    for command in commands {
        let message = refused(command);
        assert!(
            message.contains("results.json: the file is damaged"),
            "{message}"
        );
        assert!(message.contains(&format!("mtlora train --resume {run} writes it again")));
    }
    fs::remove_file(&results).unwrap();
    json(&["train", "--resume", run]);
    assert_eq!(fs::read(&weights).unwrap(), before);
    assert!(leftovers.iter().all(|folder| !folder.exists()));
}

#[test]
fn a_flag_for_a_model_is_refused_with_a_run() {
    for flag in ["--labels", "--text-column", "--prompt-column"] {
        let message = refused(&["eval", "--run", "r", flag, "x"]);
        assert!(
            message.contains(&format!("'--run <RUN>' cannot be used with '{flag}")),
            "{message}"
        );
    }
}
