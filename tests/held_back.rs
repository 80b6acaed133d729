//! Runs whose training data has no dev file, and holds a part of the train split back (`--validation-fraction`).
#![cfg(feature = "flex")]
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;

use serde_json::Value;

use common::{MODEL, json, mtlora, refused, small_data, text};

const GPT2: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/assets/tiny-gpt2");

#[test]
fn what_was_held_back_has_one_name_and_is_scored_again() {
    let folder = tempfile::tempdir().unwrap();
    let data = small_data(folder.path(), 96, 64);
    let [run, whole, page] = ["run", "whole", "page.html"].map(|name| folder.path().join(name));
    let train = |out| {
        [
            "train",
            "--model",
            MODEL,
            "--task",
            "acceptability",
            "--data",
            text(&data),
            "--epochs",
            "2",
            "--device",
            "flex",
            "--out",
            out,
        ]
    };
    json(&train(text(&whole)));
    fs::remove_file(data.join("dev.tsv")).unwrap();
    let message = refused(&train(text(&run)));
    assert!(message.contains("dev.tsv: no such file"), "{message}");
    assert!(message.contains("--validation-fraction 0.1"), "{message}");

    let output = mtlora(&[&train(text(&run))[..], &["--validation-fraction", "0.25"]].concat());
    let [said, shown] = [&output.stdout, &output.stderr].map(|it| String::from_utf8_lossy(it));
    assert!(output.status.success(), "{shown}");
    assert!(said.contains("held-back after:"), "{said}");
    assert!(shown.contains("held-back after step"), "{shown}");
    assert!(!shown.contains("dev after"), "{shown}");
    json(&["report", text(&run), "--out", text(&page)]);
    let page = fs::read_to_string(page).unwrap();
    assert!(page.contains("held-back matthews") && !page.contains("dev matthews"));

    let results = fs::read_to_string(run.join("results.json")).unwrap();
    let results: Value = serde_json::from_str(&results).unwrap();
    for split in [&[][..], &["--split", "held-back"]] {
        let scored = json(&[&["eval", "--run", text(&run)], split].concat());
        assert_eq!(scored["metrics"], results["metrics"]);
        assert_eq!(scored["split"], "held-back");
        // A quarter of each of the two classes is a quarter of the whole, but for rounding.
        let examples = scored["examples"].as_u64().unwrap();
        assert!((23..=25).contains(&examples), "{examples}");
    }
    let message = refused(&["eval", "--run", text(&whole), "--split", "held-back"]);
    assert!(message.contains("--validation-fraction"), "{message}");
}

#[test]
fn pairs_without_a_dev_file_are_scored_on_what_was_held_back() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    fs::create_dir(&data).unwrap();
    let rows: String = (0..12)
        .map(|at| format!("{{\"prompt\":\"tea {at}\",\"completion\":\"hot tea {at}\"}}\n"))
        .collect();
    fs::write(data.join("train.jsonl"), rows).unwrap();
    let run = folder.path().join("run");
    let train = [
        "train",
        "--model",
        GPT2,
        "--task",
        "pairs",
        "--data",
        text(&data),
        "--epochs",
        "1",
        "--num-beams",
        "1",
        "--max-new-tokens",
        "4",
        "--device",
        "flex",
        "--out",
        text(&run),
    ];
    let message = refused(&train);
    assert!(message.contains("dev.csv: no such file"), "{message}");
    assert!(message.contains("--validation-fraction 0.1"), "{message}");
    let trained = json(&[&train[..], &["--validation-fraction", "0.25"]].concat());
    assert!(trained["metrics"]["bleu"].is_number(), "{trained}");
    let scored = json(&["eval", "--run", text(&run)]);
    assert_eq!(scored["split"], "held-back");
    assert_eq!(scored["inputs"], 3);
    assert_eq!(scored["metrics"], trained["metrics"]);
}
