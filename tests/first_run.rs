//! The first run: `mtlora train` without a model, data or a folder for the run.
#![cfg(feature = "flex")]
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use common::{MODEL, copy_folder, small_data};

fn train(folder: &Path, more: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_mtlora"))
        .current_dir(folder)
        .args(["train", "--plain"])
        .args(more)
        .output()
        .unwrap()
}

#[test]
fn a_finished_first_run_is_replaced_by_the_same_one_only() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let assets = folder.join("assets");
    copy_folder(Path::new(MODEL), &assets.join("tiny-roberta"));
    fs::rename(small_data(folder, 64, 32), assets.join("acceptability")).unwrap();
    let run = folder.join("runs/first");
    let values = || fs::read(run.join("adapter_model.safetensors")).unwrap();
    let done = |more: &[&str]| {
        let output = train(folder, more);
        let errors = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{errors}");
    };
    let refused = |more: &[&str]| {
        let before = (
            values(),
            fs::read_to_string(run.join("results.json")).unwrap(),
        );
        let output = train(folder, more);
        let errors = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{errors}");
        let after = (
            values(),
            fs::read_to_string(run.join("results.json")).unwrap(),
        );
        assert_eq!(before, after);
        errors
    };

    done(&[]);
    let first = values();
    // The same settings make the same bytes, whenever checkpoints are made.
    done(&[]);
    done(&["--save-steps", "3"]);
    assert_eq!(values(), first);

    let text = refused(&["--method", "head"]);
    for part in [
        "runs/first",
        "a finished run with other settings",
        "--method is \"mtlora\" there and would be \"head\"",
        "--out",
        "--overwrite",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let text = refused(&["--seed", "1", "--max-grad-norm", "1"]);
    assert!(text.contains("--seed is 0 there and would be 1"), "{text}");
    assert!(
        text.contains("--max-grad-norm is not set there and would be 1"),
        "{text}"
    );

    // A folder of its own, or the wish to replace the run.
    done(&["--seed", "1", "--out", "runs/second"]);
    assert_eq!(values(), first);
    done(&["--seed", "1", "--overwrite"]);
    assert_ne!(values(), first);

    // An unfinished run may be replaced, and one that cannot be read may not.
    fs::remove_file(run.join("results.json")).unwrap();
    done(&[]);
    assert_eq!(values(), first);
    fs::write(run.join("run.toml"), "format = 99\n").unwrap();
    let text = refused(&[]);
    assert!(
        text.contains("a finished run that cannot be read"),
        "{text}"
    );
}

/// What a training takes is shown without a folder for a run, and nothing is written.
#[test]
fn a_dry_run_shows_the_data_and_writes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let data = small_data(folder, 65, 32);
    let before = fs::read_dir(folder).unwrap().count();
    let task = ["--task", "acceptability", "--model", MODEL, "--data"];
    let flags = [
        &task[..],
        &[data.to_str().unwrap(), "--epochs", "2", "--batch", "16"],
    ]
    .concat();
    let output = train(folder, &[&flags[..], &["--dry-run", "--json"]].concat());
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{errors}");
    for shown in [
        "\ntrain: 65 examples of ",
        "\ndev: 32 examples of ",
        "2 classes: ",
    ] {
        assert!(errors.contains(shown), "{errors}");
    }
    let text = String::from_utf8(output.stdout).unwrap();
    let shown: serde_json::Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    assert_eq!(shown["examples"], 65);
    assert_eq!(shown["steps"], 10);
    assert_eq!(shown["largest_batch"][0], 16);
    let seconds = ["largest_step_s", "epoch_s"].map(|name| shown[name].as_f64().unwrap());
    assert!(seconds.iter().all(|time| *time > 0.0), "{shown}");
    assert_eq!(fs::read_dir(folder).unwrap().count(), before);

    // Longer texts are cut, which the user learns before the training.
    let output = train(
        folder,
        &[&flags[..], &["--dry-run", "--max-length", "6"]].concat(),
    );
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(
        errors.contains("have the maximum of 6 and may have been cut"),
        "{errors}"
    );
    let output = train(folder, &["--dry-run", "--task", "cola"]);
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(
        errors.contains("--model (the base model) is needed"),
        "{errors}"
    );
}

/// In a folder without them, the first run brings its model and its data along.
#[test]
fn the_first_run_needs_nothing_but_the_program() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    for (task, model, data) in [
        ("acceptability", "tiny-roberta", "acceptability/dev.tsv"),
        ("facts", "tiny-gpt2", "facts/test.jsonl"),
    ] {
        let output = train(folder, &["--task", "facts", "--dry-run"]);
        let errors = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{errors}");
        assert!(errors.contains("--dry-run writes nothing"), "{errors}");
        assert!(!folder.join("assets").join(model).exists());

        let more = ["--batch", "512", "--epochs", "1", "--no-final-scores"];
        let more = match task {
            "facts" => [&["--task", task][..], &more].concat(),
            _ => more[..4].to_vec(),
        };
        let output = train(folder, &more);
        let errors = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{errors}");
        assert!(errors.contains("are written into assets"), "{errors}");
        let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets");
        let files = [format!("{model}/model.safetensors"), data.to_string()];
        for file in files {
            let read = |folder: &Path| fs::read(folder.join(&file)).unwrap();
            assert_eq!(read(&folder.join("assets")), read(&repository), "{file}");
        }
    }
    assert!(folder.join("runs/first/results.json").is_file());
    assert!(folder.join("runs/facts/results.json").is_file());
}
