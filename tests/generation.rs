//! Data-to-text with the program: pre-training, fine-tuning, scoring, generating and merging.
#![cfg(feature = "flex")]
#![allow(clippy::unwrap_used)]

mod common;

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use serde_json::Value;

use common::{json, mtlora, refused, refused_reading, text_reading};

const FACTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/assets/facts");
/// The metrics of generated texts, for all tasks but E2E.
const TEXT_METRICS: [&str; 6] = [
    "bleu",
    "sacrebleu",
    "ter",
    "chrf",
    "chrf++",
    "meteor_exact_stem",
];

/// A small GPT-2, and the first lines of the facts task's files.
struct Setup {
    folder: tempfile::TempDir,
}

impl Setup {
    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn train(&self, out: &str, more: &[&str]) -> Value {
        let [model, data, out] = ["model", "data", out].map(|name| self.path(name));
        let arguments = [
            "train",
            "--model",
            model.to_str().unwrap(),
            "--task",
            "facts",
            "--data",
            data.to_str().unwrap(),
            "--out",
            out.to_str().unwrap(),
            "--epochs",
            "2",
            "--lr",
            "1e-2",
            "--num-beams",
            "3",
            "--max-new-tokens",
            "20",
            "--device",
            "flex",
        ];
        json(&[&arguments, more].concat())
    }
}

static SETUP: LazyLock<Setup> = LazyLock::new(|| {
    let setup = Setup {
        folder: tempfile::tempdir().unwrap(),
    };
    let data = setup.path("data");
    fs::create_dir(&data).unwrap();
    let mut corpus = String::new();
    for (split, lines) in [("train", 40), ("dev", 6), ("test", 6)] {
        let name = format!("{split}.jsonl");
        let text = fs::read_to_string(Path::new(FACTS).join(&name)).unwrap();
        let kept: Vec<&str> = text.lines().take(lines).collect();
        for line in &kept {
            let row: Value = serde_json::from_str(line).unwrap();
            writeln!(corpus, "{}", row["references"][0].as_str().unwrap()).unwrap();
        }
        fs::write(data.join(name), kept.join("\n")).unwrap();
    }
    let (text_file, model) = (setup.path("corpus.txt"), setup.path("model"));
    fs::write(&text_file, corpus).unwrap();
    let made = json(&[
        "pretrain",
        "--architecture",
        "gpt2",
        "--text",
        text_file.to_str().unwrap(),
        "--out",
        model.to_str().unwrap(),
        "--vocab-size",
        "400",
        "--hidden-size",
        "32",
        "--layers",
        "2",
        "--heads",
        "2",
        "--max-length",
        "160",
        "--steps",
        "30",
        "--batch",
        "8",
        "--lr",
        "1e-2",
        "--device",
        "flex",
    ]);
    assert!(made["loss"].as_f64().unwrap() < 400f64.ln());
    setup
});

#[test]
fn a_run_is_trained_scored_used_to_generate_and_merged() {
    let trained = SETUP.train("run", &["--structure", "ctcm"]);
    let loss = |report: &Value, field: &str| report[field]["loss"].as_f64().unwrap();
    assert!(loss(&trained, "metrics") < loss(&trained, "metrics_before"));
    assert!(trained["trainable_parameters"].as_u64() < trained["total_parameters"].as_u64());

    // `eval` finds the loss that training ended with, and names the METEOR variant.
    let run = SETUP.path("run");
    let run = run.to_str().unwrap();
    // A file that cannot be written is refused before any text is generated.
    for place in [SETUP.path("missing/texts.txt"), SETUP.path("data")] {
        let text = refused(&["eval", "--run", run, "--texts", place.to_str().unwrap()]);
        assert!(
            text.contains(": cannot write: ") && !text.contains("texts after"),
            "{text}"
        );
    }
    let texts = SETUP.path("texts.txt");
    let scored = json(&["eval", "--run", run, "--texts", texts.to_str().unwrap()]);
    assert!((loss(&scored, "metrics") - loss(&trained, "metrics")).abs() < 1e-4);
    for name in TEXT_METRICS {
        assert!(scored["metrics"][name].as_f64().unwrap() >= 0.0, "{name}");
    }
    // All metrics are equal to the last bit, also in the run's folder.
    assert_eq!(trained["metrics"], scored["metrics"]);
    let results = fs::read_to_string(SETUP.path("run").join("results.json")).unwrap();
    let results: Value = serde_json::from_str(&results).unwrap();
    assert_eq!(results, trained);
    let written = fs::read_to_string(&texts).unwrap();
    assert_eq!(written.lines().count(), 6);

    // `generate` writes the same texts for the same inputs, with the run and with the merged model.
    let dev = fs::read_to_string(SETUP.path("data").join("dev.jsonl")).unwrap();
    let inputs: Vec<String> = dev
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["input"].clone())
        .map(|input| input.as_str().unwrap().to_string())
        .collect();
    let rows = text_reading(&["generate", "--run", run], &inputs.join("\n"));
    let texts = |rows: &str| -> Vec<String> {
        let rows = rows
            .lines()
            .map(|row| serde_json::from_str::<Value>(row).unwrap());
        rows.map(|row| row["text"].as_str().unwrap().to_string())
            .collect()
    };
    let plain = |text: &String| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let generated: Vec<String> = texts(&rows).iter().map(plain).collect();
    assert_eq!(generated, written.lines().collect::<Vec<_>>());

    let merged = SETUP.path("merged");
    let merged = merged.to_str().unwrap();
    json(&["merge", "--run", run, "--out", merged]);
    let arguments = [
        "generate",
        "--model",
        merged,
        "--inputs",
        "--num-beams",
        "3",
        "--length-penalty",
        "0.8",
        "--no-repeat-ngram-size",
        "4",
        "--max-new-tokens",
        "20",
    ];
    let rows = text_reading(&arguments, &inputs.join("\n"));
    let again: Vec<String> = texts(&rows).iter().map(plain).collect();
    assert_eq!(again, generated);
}

/// The arguments of a short training of the small GPT-2.
fn short(task: &str, data: &Path, out: &Path) -> Vec<String> {
    let model = SETUP.path("model");
    let mut arguments = ["train", "--plain", "--device", "flex", "--task", task]
        .map(String::from)
        .to_vec();
    for (name, value) in [("--model", &*model), ("--data", data), ("--out", out)] {
        arguments.extend([name.to_string(), value.to_str().unwrap().to_string()]);
    }
    let short = ["--epochs", "1", "--num-beams", "2", "--max-new-tokens", "6"];
    arguments.extend(short.map(String::from));
    arguments
}

/// The names of a report's metrics.
fn names(report: &Value) -> Vec<&str> {
    let metrics = report["metrics"].as_object().unwrap();
    metrics.keys().map(String::as_str).collect()
}

#[test]
fn a_training_ends_with_the_scores_that_eval_prints() {
    let data = SETUP.path("data");
    let out = SETUP.path("ends");
    let arguments = short("facts", &data, &out);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let output = mtlora(&arguments);
    assert!(output.status.success());
    let said = String::from_utf8(output.stdout).unwrap();
    let run = out.to_str().unwrap();
    let eval = text_reading(&["eval", "--run", run], "");
    assert!(eval.starts_with("facts dev: bleu "), "{eval}");
    assert_eq!(eval.lines().count(), 2);
    let end = format!("{eval}the run is in {run}\n");
    assert!(said.ends_with(&end), "{said} does not end with {end}");
    // Progress is shown on standard error.
    let notes = String::from_utf8(output.stderr).unwrap();
    assert!(notes.contains("6/6 texts after"), "{notes}");
    // The HTML report shows the scores.
    let page = SETUP.path("report.html");
    text_reading(&["report", run, "--out", page.to_str().unwrap()], "");
    let page = fs::read_to_string(page).unwrap();
    assert!(page.contains(">bleu<") && page.contains(">chrf++<") && page.contains(">perplexity<"));
}

#[test]
fn every_task_ends_with_its_own_scores() {
    // E2E has metrics of its own.
    let data = SETUP.path("e2e-data");
    fs::create_dir(&data).unwrap();
    let row = |name: &str| format!("\"name[{name}], area[riverside]\",{name} is near the river.\n");
    let rows = ["The Mill", "Zizzi", "Alimentum", "Cotto"]
        .map(row)
        .concat();
    for file in ["trainset.csv", "devset.csv"] {
        fs::write(data.join(file), format!("mr,ref\n{rows}")).unwrap();
    }
    let train = |task: &str, data: &Path, more: &[&str]| {
        let out = SETUP.path(&format!("{task}-run"));
        let arguments = short(task, data, &out);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let trained = json(&[&arguments, more].concat());
        let scored = json(&["eval", "--run", out.to_str().unwrap()]);
        assert_eq!(trained["metrics"], scored["metrics"], "{task}");
        assert_eq!(trained["seen"], scored["seen"], "{task}");
        assert_eq!(trained["unseen"], scored["unseen"], "{task}");
        trained
    };
    let e2e = train("e2e", &data, &[]);
    let expected = [
        "bleu",
        "nist",
        "rouge_l",
        "cider",
        "meteor_exact_stem",
        "loss",
        "perplexity",
    ];
    assert_eq!(names(&e2e), expected);
    assert!(e2e.get("seen").is_none());

    // WebNLG's texts are also scored by whether their category was seen in training.
    let data = SETUP.path("webnlg-data");
    fs::create_dir(&data).unwrap();
    let entry = |number: usize, category: &str| {
        serde_json::json!({ number.to_string(): {
            "category": category,
            "modifiedtripleset": [{"subject": format!("Place_{number}"), "property": "isIn", "object": "Italy"}],
            "lexicalisations": [{"comment": "good", "lex": format!("Place {number} is in Italy.")}],
        }})
    };
    for (split, categories) in [
        ("train", ["City", "City", "Food"]),
        ("dev", ["City", "Artist", "Food"]),
    ] {
        let entries: Vec<Value> = categories
            .iter()
            .enumerate()
            .map(|(at, one)| entry(at, one))
            .collect();
        let text = serde_json::json!({ "entries": entries }).to_string();
        fs::write(data.join(format!("{split}.json")), text).unwrap();
    }
    let webnlg = train("webnlg", &data, &[]);
    assert_eq!(names(&webnlg)[..6], TEXT_METRICS);
    for which in ["seen", "unseen"] {
        let scores = webnlg[which].as_object().unwrap();
        assert_eq!(scores.keys().collect::<Vec<_>>(), TEXT_METRICS);
    }

    // The user's own pairs. A text stays one line even if Python would split it, and a reference that Python takes for
    // blank is refused before the training starts.
    let data = SETUP.path("own-pairs");
    fs::create_dir(&data).unwrap();
    let rows = "{\"prompt\":\"a b\",\"completion\":\"one\\u001ctwo\\nthree\"}\n";
    fs::write(data.join("train.jsonl"), rows.repeat(4)).unwrap();
    fs::write(data.join("dev.jsonl"), rows).unwrap();
    let pairs = train("pairs", &data, &["--method", "full"]);
    assert_eq!(names(&pairs)[..6], TEXT_METRICS);
    fs::write(
        data.join("dev.jsonl"),
        rows.replace("one\\u001ctwo\\nthree", "\\u001c\\u001f"),
    )
    .unwrap();
    let arguments = short("pairs", &data, &SETUP.path("refused-pairs"));
    let said = refused(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
    assert!(
        said.contains("dev.jsonl:1") && said.contains("completion"),
        "{said}"
    );
}

#[test]
fn final_scores_may_be_left_out() {
    let data = SETUP.path("data");
    let out = SETUP.path("unscored");
    let arguments = short("facts", &data, &out);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let trained = json(&[&arguments, ["--no-final-scores"].as_slice()].concat());
    assert_eq!(names(&trained), ["loss", "perplexity"]);
    let run = out.to_str().unwrap();
    let resumed = json(&["train", "--resume", run]);
    assert_eq!(names(&resumed), ["loss", "perplexity"]);
    // A settings file can leave them out too, and a flag overrides it.
    let settings = SETUP.path("settings.toml");
    fs::write(&settings, "no_final_scores = true\n").unwrap();
    let with_file = ["--config", settings.to_str().unwrap(), "--overwrite"];
    let trained = json(&[&arguments, with_file.as_slice()].concat());
    assert_eq!(names(&trained), ["loss", "perplexity"]);
    let flag = ["--no-final-scores", "false"];
    let trained = json(&[&arguments, with_file.as_slice(), &flag].concat());
    assert_eq!(names(&trained)[..6], TEXT_METRICS);
    // The flag is refused for tasks that generate no texts.
    let said = refused(&[
        "train",
        "--task",
        "cola",
        "--model",
        "m",
        "--out",
        "o",
        "--no-final-scores",
    ]);
    assert!(said.contains("no_final_scores"), "{said}");
}

#[test]
fn the_same_seed_gives_the_same_run_and_a_run_can_start_from_another() {
    let first = SETUP.train("first", &["--seed", "3"]);
    let again = SETUP.train("again", &["--seed", "3"]);
    assert_eq!(first["metrics"], again["metrics"]);
    let values = |name: &str| fs::read(SETUP.path(name).join("adapter_model.safetensors")).unwrap();
    assert_eq!(values("first"), values("again"));
    let from = SETUP.path("first");
    let next = SETUP.train("next", &["--init-from", from.to_str().unwrap()]);
    // It starts where the other run was at its best.
    let before = next["metrics_before"]["loss"].as_f64().unwrap();
    let best = first["metrics"]["loss"].as_f64().unwrap();
    assert!((before - best).abs() < 1e-4, "{before} {best}");
}

#[test]
fn bad_input_is_refused_with_a_reason() {
    let model = SETUP.path("model");
    let model = model.to_str().unwrap();
    let long = "word ".repeat(400);
    let said = refused_reading(&["generate", "--model", model], &long);
    assert!(
        said.contains("input 1") && said.contains("--cut-input"),
        "{said}"
    );
    let cut = text_reading(
        &[
            "generate",
            "--model",
            model,
            "--cut-input",
            "--max-new-tokens",
            "3",
        ],
        &long,
    );
    assert_eq!(cut.lines().count(), 1);
    let said = refused_reading(&["generate", "--model", model], "a\n\nb\n");
    assert!(said.contains("standard input:2"), "{said}");
    let said = refused_reading(&["generate", "--model", model, "--num-beams", "0"], "a\n");
    assert!(said.contains("num_beams"), "{said}");

    let data = SETUP.path("pairs");
    fs::create_dir(&data).unwrap();
    fs::write(data.join("train.csv"), "prompt,completion\na,b\nc,\n").unwrap();
    fs::write(data.join("dev.csv"), "prompt,completion\na,b\n").unwrap();
    let out = SETUP.path("refused");
    let train = |task: &str, data: &Path, more: &[&str]| {
        let arguments = [
            "train",
            "--model",
            model,
            "--task",
            task,
            "--data",
            data.to_str().unwrap(),
            "--out",
            out.to_str().unwrap(),
        ];
        refused(&[&arguments, more].concat())
    };
    let said = train("pairs", &data, &[]);
    assert!(said.contains("train.csv:3"), "{said}");
    let said = train("facts", &SETUP.path("data"), &["--method", "head"]);
    assert!(said.contains("no head"), "{said}");
    let said = train("facts", &SETUP.path("data"), &["--projections", "qx"]);
    assert!(said.contains("qkv"), "{said}");
    let said = train("facts", &SETUP.path("data"), &["--text-column", "x"]);
    assert!(said.contains("text_column"), "{said}");
    let said = train("webnlg", &SETUP.path("data"), &[]);
    assert!(said.contains("data"), "{said}");
    assert!(!out.exists());
}

#[test]
fn rows_are_generated_by_the_adapters_that_they_name() {
    SETUP.train("short", &["--structure", "icfm", "--seed", "5"]);
    SETUP.train(
        "long",
        &["--structure", "lora", "--rank", "2", "--seed", "6"],
    );
    let dev = fs::read_to_string(SETUP.path("data").join("dev.jsonl")).unwrap();
    let names = ["long", "short", "short", "long"];
    let mut inputs = Vec::new();
    let mut rows = String::new();
    for (line, name) in dev.lines().zip(names) {
        let row: Value = serde_json::from_str(line).unwrap();
        let input = row["input"].as_str().unwrap().to_string();
        let row = serde_json::json!({ "prompt": input, "adapter": name });
        writeln!(rows, "{row}").unwrap();
        inputs.push(input);
    }
    let table = SETUP.path("rows.jsonl");
    fs::write(&table, &rows).unwrap();
    let adapters = ["short", "long"].map(|name| format!("{name}={}", SETUP.path(name).display()));
    let several = [
        "generate",
        "--adapter",
        &adapters[0],
        "--adapter",
        &adapters[1],
        "--adapter-column",
        "adapter",
        "--input",
        table.to_str().unwrap(),
    ];
    let found = text_reading(&several, "");
    assert_eq!(found.lines().count(), names.len());
    for ((input, name), line) in inputs.iter().zip(names).zip(found.lines()) {
        let line: Value = serde_json::from_str(line).unwrap();
        assert_eq!(line["input"].as_str(), Some(input.as_str()));
        assert_eq!(line["adapter"], name);
        let run = SETUP.path(name);
        let alone = text_reading(&["generate", "--run", run.to_str().unwrap()], input);
        let alone: Value = serde_json::from_str(alone.trim()).unwrap();
        assert_eq!(line["text"], alone["text"]);
    }

    // A row that is too long is named by its place in the table.
    let long = serde_json::json!({ "prompt": "word ".repeat(400), "adapter": "long" });
    fs::write(&table, format!("{rows}{long}\n")).unwrap();
    let said = refused(&several);
    assert!(said.contains("input 5"), "{said}");
    fs::write(&table, rows.replace("\"long\"", "\"lung\"")).unwrap();
    let said = refused(&several);
    assert!(
        said.contains("rows.jsonl:1") && said.contains("lung"),
        "{said}"
    );
}
