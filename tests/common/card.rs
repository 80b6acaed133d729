//! Model cards, and what the Hub asks of them.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;

use yaml_rust2::{Yaml, YamlLoader};

/// The card in a folder, and its front matter, which must be as the Hub wants it.
pub fn card(run: &Path) -> (String, Yaml) {
    let (body, matter) = read(&run.join("README.md"));
    assert!(!body.contains("](curves.svg)") || run.join("curves.svg").is_file());
    (body, matter)
}

/// The card in a file, and its front matter, which must be as the Hub wants it.
pub fn read(file: &Path) -> (String, Yaml) {
    let card = fs::read_to_string(file).unwrap();
    let (matter, body) = card
        .strip_prefix("---\n")
        .unwrap()
        .split_once("---\n")
        .unwrap();
    let mut matter = YamlLoader::load_from_str(matter).unwrap();
    assert_eq!(matter.len(), 1);
    let matter = matter.remove(0);
    check_front_matter(&matter);
    (body.to_string(), matter)
}

/// Whether a name is one of a repository on the Hub: `org/name`, or `name` for the oldest models
/// (huggingface/huggingface_hub, `validate_repo_id`).
fn is_repository(name: &str) -> bool {
    let part = |part: &str| {
        let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let fits = |c: char| is_word(c) || "-.".contains(c);
        let ends = [part.chars().next(), part.chars().last()];
        let is_marked = |c: Option<char>| c.is_none_or(|c| "-.".contains(c));
        !ends.into_iter().any(is_marked)
            && part.chars().all(fits)
            && !part.contains("--")
            && !part.contains("..")
            && part.len() <= 96
    };
    let parts: Vec<&str> = name.split('/').collect();
    parts.len() <= 2 && parts.into_iter().all(part)
}

/// What the Hub asks of the front matter (huggingface/hub-docs, `modelcard.md`, and what its validation of cards
/// refuses): the types of the fields, names of repositories, and fields that agree with each other.
fn check_front_matter(matter: &Yaml) {
    let known = [
        "library_name",
        "pipeline_tag",
        "license",
        "base_model",
        "tags",
        "datasets",
        "metrics",
        "model-index",
    ];
    let fields = matter.as_hash().unwrap();
    for (key, value) in fields {
        let key = key.as_str().unwrap();
        assert!(known.contains(&key), "{key} is no field of a card");
        match key {
            "tags" | "datasets" | "metrics" => {
                let all = strings(value);
                let distinct: std::collections::BTreeSet<&&str> = all.iter().collect();
                assert_eq!(distinct.len(), all.len(), "{all:?}");
                assert!(all.iter().all(|one| !one.is_empty()), "{all:?}");
            }
            "model-index" => check_model_index(matter),
            _ => assert!(value.as_str().is_some_and(|text| !text.is_empty()), "{key}"),
        }
    }
    // Of the libraries and tasks that the Hub knows, those that this program names.
    let libraries = ["peft", "transformers", "mlx", "mtlora"];
    if let Some(library) = matter["library_name"].as_str() {
        assert!(libraries.contains(&library), "{library}");
    }
    let task = matter["pipeline_tag"].as_str().unwrap();
    assert!(
        ["text-classification", "text-generation"].contains(&task),
        "{task}"
    );
    let tags = strings(&matter["tags"]);
    let related: Vec<&&str> = tags
        .iter()
        .filter(|tag| tag.starts_with("base_model:"))
        .collect();
    match matter["base_model"].as_str() {
        Some(base) => {
            assert!(is_repository(base), "{base}");
            let allowed =
                ["adapter", "finetune"].map(|relation| format!("base_model:{relation}:{base}"));
            assert_eq!(related.len(), 1, "{tags:?}");
            assert!(allowed.contains(&related[0].to_string()), "{tags:?}");
        }
        None => assert!(related.is_empty(), "{tags:?}"),
    }
    if !matter["datasets"].is_badvalue() {
        assert!(strings(&matter["datasets"]).into_iter().all(is_repository));
    }
    if let Some(license) = matter["license"].as_str() {
        let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-.+".contains(c);
        assert!(license.chars().all(fits) && license != "other", "{license}");
    }
}

pub fn strings(yaml: &Yaml) -> Vec<&str> {
    yaml.as_vec()
        .unwrap()
        .iter()
        .map(|one| one.as_str().unwrap())
        .collect()
}

/// What the Hub asks of a card's `model-index`: a name, and for each result the type of the task, the type and the name of
/// the dataset, and a type and a value of each metric (huggingface/huggingface_hub, `model_index_to_eval_results`).
pub fn check_model_index(matter: &Yaml) {
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
