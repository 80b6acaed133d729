//! The model card that a run's folder has, and the settings file that repeats the run.
#![cfg(feature = "flex")]
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::card::{card, check_model_index, strings};
use common::{MODEL, copy_folder, json, small_data, text};

const GPT2: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/assets/tiny-gpt2");
const FACTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/assets/facts");

/// A run of a few steps in `folder`, with these further settings.
fn train(folder: &Path, model: &str, settings: &[&str]) -> PathBuf {
    let data = folder.join("data");
    if !data.exists() {
        small_data(folder, 24, 12);
    }
    let run = folder.join("run");
    let fixed = [
        "train",
        "--task",
        "acceptability",
        "--model",
        model,
        "--data",
        text(&data),
    ];
    let more = [
        "--out",
        text(&run),
        "--overwrite",
        "--batch",
        "8",
        "--epochs",
        "1",
    ];
    json(&[&fixed[..], &more, settings].concat());
    run
}

#[test]
fn a_run_of_a_model_from_the_hub_names_it_in_its_card() {
    let folder = tempfile::tempdir().unwrap();
    // Where the Hub's cache keeps a model.
    let model = folder
        .path()
        .join("hub/models--some-org--tiny/snapshots/0123abc");
    copy_folder(Path::new(MODEL), &model);
    let own = "---\nlanguage: en\nlicense: \"apache-2.0\"\n---\n# tiny\n";
    fs::write(model.join("README.md"), own).unwrap();
    let run = train(folder.path(), text(&model), &["--structure", "lora"]);
    let (body, matter) = card(&run);
    assert_eq!(matter["license"].as_str(), Some("apache-2.0"));
    assert_eq!(matter["library_name"].as_str(), Some("peft"));
    assert_eq!(matter["base_model"].as_str(), Some("some-org/tiny"));
    assert_eq!(matter["pipeline_tag"].as_str(), Some("text-classification"));
    let tags = strings(&matter["tags"]);
    assert_eq!(tags, ["mtlora", "lora", "base_model:adapter:some-org/tiny"]);
    assert_eq!(
        strings(&matter["metrics"]),
        ["accuracy", "matthews_correlation"]
    );
    check_model_index(&matter);
    for part in [
        "An adapter with the structure `lora` and rank 8",
        "](curves.svg)",
        "lr_scheduler_type = \"cosine\"",
        "PeftModel.from_pretrained(base, \"FOLDER\")",
        "from_pretrained(\"some-org/tiny\", num_labels=2)",
    ] {
        let there = body.contains(part) != part.contains("cosine");
        assert!(there, "{part}: {body}");
    }
    let picture = fs::read_to_string(run.join("curves.svg")).unwrap();
    assert!(picture.starts_with("<svg xmlns=") && picture.contains("training loss"));
}

/// Another run in the same folder replaces the card, and one without an adapter has no advice for PEFT.
#[test]
fn the_card_is_that_of_the_newest_run_and_of_its_method() {
    let folder = tempfile::tempdir().unwrap();
    let run = train(folder.path(), MODEL, &["--lr-scheduler-type", "cosine"]);
    let (body, matter) = card(&run);
    assert_eq!(matter["library_name"].as_str(), Some("mtlora"));
    assert_eq!(strings(&matter["tags"]), ["mtlora", "shim"]);
    assert!(
        matter["base_model"].is_badvalue(),
        "a folder is no name on the Hub"
    );
    assert!(
        body.contains("mtlora export --run FOLDER --out lora"),
        "{body}"
    );
    assert!(body.contains("lr_scheduler_type = \"cosine\""), "{body}");
    let run = train(folder.path(), MODEL, &["--method", "head"]);
    let (body, matter) = card(&run);
    assert_eq!(strings(&matter["tags"]), ["mtlora"]);
    assert!(
        body.contains("A classification head for") && !body.contains("PEFT"),
        "{body}"
    );
    check_model_index(&matter);
}

#[test]
fn a_run_is_repeated_from_its_settings_file() {
    let folder = tempfile::tempdir().unwrap();
    let settings = [
        "--structure",
        "ctcm",
        "--lr",
        "1e-3",
        "--seed",
        "7",
        "--targets",
        "all-linear",
    ];
    let run = train(folder.path(), MODEL, &settings);
    let again = folder.path().join("again");
    json(&[
        "train",
        "--config",
        text(&run.join("settings.toml")),
        "--out",
        text(&again),
    ]);
    let adapter = |run: &Path| fs::read(run.join("adapter_model.safetensors")).unwrap();
    assert!(adapter(&run) == adapter(&again));
    let config = |run: &Path| fs::read_to_string(run.join("run.toml")).unwrap();
    assert_eq!(config(&run), config(&again));
}

#[test]
fn a_text_task_has_its_scores_in_the_card() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("facts");
    fs::create_dir(&data).unwrap();
    for (name, lines) in [("train.jsonl", 8), ("dev.jsonl", 2)] {
        let text = fs::read_to_string(Path::new(FACTS).join(name)).unwrap();
        let kept: Vec<&str> = text.lines().take(lines).collect();
        fs::write(data.join(name), kept.join("\n")).unwrap();
    }
    let run = folder.path().join("run");
    let fixed = [
        "train",
        "--task",
        "facts",
        "--model",
        GPT2,
        "--data",
        text(&data),
    ];
    let more = [
        "--out",
        text(&run),
        "--epochs",
        "1",
        "--num-beams",
        "1",
        "--max-new-tokens",
        "4",
    ];
    // Texts are those of dev, whatever chose the state.
    let held_back = folder.path().join("held-back");
    let mut other = more;
    other[1] = text(&held_back);
    json(&[&fixed[..], &other, &["--validation-fraction", "0.25"]].concat());
    let (body, matter) = card(&held_back);
    assert_eq!(
        matter["model-index"][0]["results"][0]["dataset"]["split"].as_str(),
        Some("dev")
    );
    assert!(body.contains("On the dev examples;"), "{body}");
    assert!(
        body.contains("It was chosen on the held-back examples."),
        "{body}"
    );
    let loss = body
        .lines()
        .find(|line| line.starts_with("| loss |"))
        .unwrap();
    assert!(loss.contains("| – |"), "{loss}");

    json(&[&fixed[..], &more].concat());
    let (body, matter) = card(&run);
    assert_eq!(matter["pipeline_tag"].as_str(), Some("text-generation"));
    let metrics = strings(&matter["metrics"]);
    assert!(
        metrics.contains(&"bleu") && metrics.contains(&"perplexity"),
        "{metrics:?}"
    );
    assert!(!metrics.contains(&"loss"));
    check_model_index(&matter);
    for part in [
        "AutoModelForCausalLM",
        "| bleu |",
        "prompt + tokenizer.eos_token",
    ] {
        assert!(body.contains(part), "{part}\n{body}");
    }
}

/// What is made from a run tells of the run, and says how it is opened.
#[test]
fn exports_and_merged_models_have_a_card() {
    let folder = tempfile::tempdir().unwrap();
    let model = folder
        .path()
        .join("hub/models--some-org--tiny/snapshots/0123abc");
    copy_folder(Path::new(MODEL), &model);
    let run = train(folder.path(), text(&model), &["--structure", "icfm"]);
    let at = |name: &str| folder.path().join(name);
    let (plain, peft, merged) = (at("plain"), at("peft"), at("merged"));
    let export = ["export", "--run", text(&run), "--out"];
    json(&[&export[..], &[text(&plain)]].concat());
    json(&[&export[..], &[text(&peft), "--for", "peft"]].concat());
    json(&["merge", "--run", text(&run), "--out", text(&merged)]);
    for folder in [plain, peft] {
        let (body, matter) = card(&folder);
        assert_eq!(matter["library_name"].as_str(), Some("peft"));
        let tags = ["mtlora", "icfm", "lora", "base_model:adapter:some-org/tiny"];
        assert_eq!(strings(&matter["tags"]), tags);
        for part in [
            "| accuracy |",
            "| output | class |\n|---|---|\n| 0 | unacceptable |\n| 1 | acceptable |\n",
            "written as plain LoRA here",
            "from_pretrained(\"some-org/tiny\", num_labels=2)",
            "PeftModel.from_pretrained(base, \"FOLDER\")",
        ] {
            assert!(body.contains(part), "{part}: {body}");
        }
        assert!(!body.contains("which is in this folder"), "{body}");
    }
    let (body, matter) = card(&merged);
    assert_eq!(matter["library_name"].as_str(), Some("transformers"));
    let tags = ["mtlora", "icfm", "base_model:finetune:some-org/tiny"];
    assert_eq!(strings(&matter["tags"]), tags);
    assert!(body.contains("AutoModelForSequenceClassification.from_pretrained(\"FOLDER\")"));
    assert!(!body.contains("PEFT"), "{body}");
    assert!(body.contains("| 1 | acceptable |"), "{body}");
    assert!(card(&run).0.contains("| 1 | acceptable |"));

    // An adapter that is no run has no scores to tell of.
    let bare = folder.path().join("bare");
    let plain = at("plain");
    fs::remove_file(plain.join("README.md")).unwrap();
    json(&["export", "--run", text(&plain), "--out", text(&bare)]);
    assert!(!bare.join("README.md").exists());
}
