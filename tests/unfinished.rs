//! What the commands say about unfinished runs, and about folders that are not runs.
#![cfg(feature = "flex")]
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::path::Path;

use common::{DATA, MODEL, json, mtlora_reading, refused, small_data, text};

/// A killed run lacks `results.json`, which is written last.
#[test]
fn an_unfinished_run_is_refused_but_its_best_state_can_be_used() {
    let folder = tempfile::tempdir().unwrap();
    let data = small_data(folder.path(), 96, 32);
    let run = folder.path().join("run");
    let run = text(&run);
    let trained = json(&[
        "train",
        "--model",
        MODEL,
        "--task",
        "acceptability",
        "--data",
        text(&data),
        "--out",
        run,
        "--epochs",
        "2",
        "--batch",
        "16",
        "--lr",
        "5e-3",
    ]);
    let steps = trained["steps"].as_u64().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::remove_file(Path::new(run).join("results.json")).unwrap();

    let said = format!(
        "this run is unfinished (step {steps} of {steps}): finish it with `mtlora train --resume {run}`"
    );
    let (merged, exported) = (at("merged"), at("exported"));
    let commands: [&[&str]; 4] = [
        &["eval", "--run", run],
        &["predict", "--run", run],
        &["merge", "--run", run, "--out", text(&merged)],
        &["export", "--run", run, "--out", text(&exported)],
    ];
    for command in commands {
        let message = refused(command);
        assert!(
            message.contains(&said) && message.contains("--checkpoint best"),
            "{command:?} {message}"
        );
    }
    assert!(!merged.exists() && !exported.exists());
    for command in commands {
        let output = mtlora_reading(&[command, &["--checkpoint", "best"]].concat(), "A test.\n");
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    let best = json(&["eval", "--run", run, "--checkpoint", "best"]);
    assert_eq!(best["metrics"], trained["metrics"]);
    // Used as an adapter, it works, with a note that the run is unfinished.
    let output = mtlora_reading(
        &["predict", "--adapter", run, "--model", MODEL],
        "A test.\n",
    );
    assert!(output.status.success());
    assert!(
        String::from_utf8_lossy(&output.stderr)
            .contains("this run is unfinished; the state with the best score")
    );

    // Before the first evaluation there is no best state.
    fs::remove_file(Path::new(run).join("adapter_model.safetensors")).unwrap();
    fs::remove_file(Path::new(run).join("adapter_config.json")).unwrap();
    let out = at("next");
    let commands: [&[&str]; 7] = [
        &["eval", "--run", run],
        &["eval", "--run", run, "--checkpoint", "best"],
        &["predict", "--run", run],
        &["predict", "--adapter", run, "--model", MODEL],
        &["inspect", run],
        &["combine", "--adapter", run, "--out", text(&out)],
        &[
            "train",
            "--init-from",
            run,
            "--model",
            MODEL,
            "--task",
            "acceptability",
            "--data",
            DATA,
            "--out",
            text(&out),
        ],
    ];
    for command in commands {
        let message = refused(command);
        assert!(
            message.contains(&said) && message.contains("no best state yet"),
            "{command:?} {message}"
        );
    }

    // Once finished, it is an ordinary run.
    json(&["train", "--resume", run]);
    assert_eq!(json(&["eval", "--run", run])["metrics"], trained["metrics"]);

    // The message says what a folder or file is that was given in place of a run.
    let step = fs::read_dir(Path::new(run).join("checkpoints"))
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    json(&["export", "--run", run, "--out", text(&at("plain"))]);
    for (given, said) in [
        (text(&step), "it is a checkpoint of the run in"),
        (
            text(&Path::new(run).join("run.toml")),
            "it is a file of the run in",
        ),
        (text(folder.path()), "it holds runs: name one of"),
        (MODEL, "it is a model: use --model"),
        (text(&at("plain")), "it is an adapter: use --adapter"),
        (text(&at("missing")), "there is no such folder"),
    ] {
        let message = refused(&["predict", "--run", given]);
        assert!(
            message.contains(" is not a ") && message.contains(said),
            "{message}"
        );
    }
    let message = refused(&[
        "eval",
        "--model",
        run,
        "--task",
        "acceptability",
        "--data",
        DATA,
    ]);
    assert!(message.contains("it is a run or an adapter"), "{message}");
    let message = refused(&["predict", "--adapter", MODEL, "--model", MODEL]);
    assert!(message.contains("it is a model"), "{message}");
}
