//! The model card that a run's folder has, and the settings file that repeats the run.
#![cfg(feature = "flex")]
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use yaml_rust2::{Yaml, YamlLoader};

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

/// A run's card, and its front matter.
fn card(run: &Path) -> (String, Yaml) {
    let card = fs::read_to_string(run.join("README.md")).unwrap();
    let (matter, body) = card
        .strip_prefix("---\n")
        .unwrap()
        .split_once("---\n")
        .unwrap();
    let mut matter = YamlLoader::load_from_str(matter).unwrap();
    assert_eq!(matter.len(), 1);
    (body.to_string(), matter.remove(0))
}

fn strings(yaml: &Yaml) -> Vec<&str> {
    yaml.as_vec()
        .unwrap()
        .iter()
        .map(|one| one.as_str().unwrap())
        .collect()
}

/// What the Hub asks of a card's `model-index`: a name, and for each result the type of the task, the type and the name of
/// the dataset, and a type and a value of each metric (huggingface/huggingface_hub, `model_index_to_eval_results`).
fn check_model_index(matter: &Yaml) {
    let models = matter["model-index"].as_vec().unwrap();
    assert!(!models.is_empty());
    for model in models {
        assert!(model["name"].as_str().is_some());
        for result in model["results"].as_vec().unwrap() {
            assert!(result["task"]["type"].as_str().is_some());
            assert!(result["dataset"]["type"].as_str().is_some());
            assert!(result["dataset"]["name"].as_str().is_some());
            for metric in result["metrics"].as_vec().unwrap() {
                assert!(metric["type"].as_str().is_some());
                assert!(metric["value"].as_f64().is_some() || metric["value"].as_i64().is_some());
            }
        }
    }
}

#[test]
fn a_run_of_a_model_from_the_hub_names_it_in_its_card() {
    let folder = tempfile::tempdir().unwrap();
    // Where the Hub's cache keeps a model.
    let model = folder
        .path()
        .join("hub/models--some-org--tiny/snapshots/0123abc");
    copy_folder(Path::new(MODEL), &model);
    let run = train(folder.path(), text(&model), &["--structure", "lora"]);
    let (body, matter) = card(&run);
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
    assert!(
        body.contains("AutoModelForCausalLM") && body.contains("| bleu |"),
        "{body}"
    );
}
