//! Llama-style decoders with the program: training, scoring, generating, merging, exporting, inspecting and measuring.
#![cfg(feature = "flex")]
#![allow(clippy::unwrap_used)]

mod common;

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use mtlora_models::{
    CausalLm, END_OF_TEXT, ModelFamilies, ModelSizes, train_causal_tokenizer,
    write_causal_tokenizer,
};
use serde_json::Value;

use common::{json, refused, text, text_reading};

const FACTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/assets/facts");

/// A tiny decoder with random weights for each `model_type`, and the first lines of the facts task's files.
struct Setup {
    folder: tempfile::TempDir,
}

impl Setup {
    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

static SETUP: LazyLock<Setup> = LazyLock::new(|| {
    let setup = Setup {
        folder: tempfile::tempdir().unwrap(),
    };
    let data = setup.path("data");
    fs::create_dir(&data).unwrap();
    let mut corpus = String::new();
    for (split, lines) in [("train", 40), ("dev", 4), ("test", 4)] {
        let name = format!("{split}.jsonl");
        let file = fs::read_to_string(Path::new(FACTS).join(&name)).unwrap();
        let kept: Vec<&str> = file.lines().take(lines).collect();
        for line in &kept {
            let row: Value = serde_json::from_str(line).unwrap();
            writeln!(corpus, "{}", row["references"][0].as_str().unwrap()).unwrap();
        }
        fs::write(data.join(name), kept.join("\n")).unwrap();
    }
    let tokenizer = train_causal_tokenizer(corpus.lines(), 400).unwrap();
    let device = mtlora_core::device("flex").unwrap();
    for model_type in ["llama", "qwen3"] {
        let sizes = ModelSizes {
            vocab_size: tokenizer.get_vocab_size(true),
            hidden_size: 32,
            layers: 2,
            heads: 4,
            key_value_heads: Some(2),
            head_width: Some(12),
            intermediate_size: Some(48),
            max_tokens: 160,
            end_of_text: tokenizer.token_to_id(END_OF_TEXT),
        };
        let config = ModelFamilies::builtin()
            .new_causal(model_type, &sizes)
            .unwrap();
        let folder = setup.path(model_type);
        CausalLm::fresh(&config, 1, &device)
            .unwrap()
            .save(&folder, &config)
            .unwrap();
        write_causal_tokenizer(&tokenizer, &folder, sizes.max_tokens).unwrap();
    }
    setup
});

fn train(model: &str, out: &str, more: &[&str]) -> Value {
    let [model, data, out] = [model, "data", out].map(|name| SETUP.path(name));
    let arguments = ["train", "--task", "facts", "--epochs", "2", "--lr", "1e-2"];
    let paths = [
        "--model",
        text(&model),
        "--data",
        text(&data),
        "--out",
        text(&out),
    ];
    let decoding = [
        "--num-beams",
        "2",
        "--max-new-tokens",
        "12",
        "--device",
        "flex",
    ];
    json(&[&arguments[..], &paths, &decoding, more].concat())
}

#[test]
fn a_decoder_is_trained_scored_used_to_generate_merged_and_exported() {
    let all = ["--targets", "all-linear", "--structure", "ctcm"];
    let trained = train("qwen3", "run", &all);
    let loss = |report: &Value, field: &str| report[field]["loss"].as_f64().unwrap();
    assert!(loss(&trained, "metrics") < loss(&trained, "metrics_before"));
    let run = SETUP.path("run");
    let scored = json(&["eval", "--run", text(&run), "--split", "dev"]);
    assert!((loss(&scored, "metrics") - loss(&trained, "metrics")).abs() < 1e-4);

    // All seven maps of both layers.
    let inspected = json(&["inspect", text(&run)]);
    assert_eq!(inspected["layers"].as_array().unwrap().len(), 14);

    let inputs = SETUP.path("inputs.txt");
    let dev = fs::read_to_string(SETUP.path("data").join("dev.jsonl")).unwrap();
    let lines: Vec<String> = dev
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["input"].clone())
        .map(|input| input.as_str().unwrap().to_string())
        .collect();
    fs::write(&inputs, lines.join("\n")).unwrap();
    let settings = ["--input", text(&inputs), "--max-new-tokens", "8"];
    let texts = |source: &[&str]| -> Vec<Value> {
        let written = text_reading(&[&["generate"], source, &settings[..]].concat(), "");
        let lines = written
            .lines()
            .map(|line| serde_json::from_str(line).unwrap());
        lines.map(|line: Value| line["text"].clone()).collect()
    };
    let by_run = texts(&["--run", text(&run)]);
    assert_eq!(by_run.len(), lines.len());

    // A merged model and an exported adapter are the same model as the run.
    let (merged, exported) = (SETUP.path("merged"), SETUP.path("exported"));
    json(&["merge", "--run", text(&run), "--out", text(&merged)]);
    json(&["export", "--run", text(&run), "--out", text(&exported)]);
    let model = SETUP.path("qwen3");
    let by_merged = texts(&["--model", text(&merged)]);
    let by_exported = texts(&["--model", text(&model), "--adapter", text(&exported)]);
    let by_adapter = texts(&["--model", text(&model), "--adapter", text(&run)]);
    assert_eq!(by_merged, by_adapter);
    assert_eq!(by_exported, by_adapter);
    let config: Value =
        serde_json::from_slice(&fs::read(exported.join("adapter_config.json")).unwrap()).unwrap();
    assert_eq!(config["peft_type"], "LORA");
    assert_eq!(config["task_type"], "CAUSAL_LM");

    // For the programs that serve models; the base is the run's.
    for (server, file, library, use_it) in [
        ("peft", "adapter_model.safetensors", "peft", "PeftModel"),
        (
            "vllm",
            "adapter_model.safetensors",
            "peft",
            "vllm serve MODEL --enable-lora --lora-modules adapter=FOLDER --max-lora-rank 8\n",
        ),
        (
            "llama.cpp",
            "adapter.gguf",
            "",
            "llama-cli -m BASE.gguf --lora FOLDER/adapter.gguf\n",
        ),
        (
            "ollama",
            "Modelfile",
            "",
            "ollama create NAME -f FOLDER/Modelfile\n",
        ),
        (
            "mlx",
            "adapters.safetensors",
            "mlx",
            "mlx_lm.generate --model MODEL --adapter-path FOLDER",
        ),
    ] {
        let out = SETUP.path(&format!("for-{server}"));
        let flags = ["--run", text(&run), "--for", server, "--out", text(&out)];
        let report = json(&[&["export"], &flags[..]].concat());
        assert_eq!(report["files"][0], text(&out.join(file)));
        assert_eq!(
            (&report["for"], &report["modules"]),
            (&server.into(), &14.into())
        );
        assert!(out.join(file).exists());
        let card = fs::read_to_string(out.join("README.md")).unwrap();
        let found = card
            .lines()
            .find_map(|line| line.strip_prefix("library_name: "));
        assert_eq!(found.unwrap_or_default(), library, "{server}");
        assert!(card.contains(use_it), "{server}: {card}");
    }
    let modelfile = fs::read_to_string(SETUP.path("for-ollama").join("Modelfile")).unwrap();
    assert!(
        modelfile.contains(text(&model.canonicalize().unwrap())),
        "{modelfile}"
    );
    let vllm = SETUP.path("for-vllm");
    assert_eq!(
        texts(&["--model", text(&model), "--adapter", text(&vllm)]),
        by_adapter
    );
    let message = refused(&[
        "export",
        "--run",
        text(&run),
        "--for",
        "tgi",
        "--out",
        "nowhere",
    ]);
    assert!(
        message.contains("one of peft, vllm, llama.cpp, ollama, mlx"),
        "{message}"
    );
}

/// As PEFT's for these models.
#[test]
fn query_and_value_are_adapted_by_default() {
    train("llama", "defaults", &["--no-final-scores"]);
    let config = fs::read(SETUP.path("defaults").join("adapter_config.json")).unwrap();
    let config: Value = serde_json::from_slice(&config).unwrap();
    let mut targets: Vec<&str> = config["target_modules"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(Value::as_str)
        .collect();
    targets.sort_unstable();
    assert_eq!(targets, ["q_proj", "v_proj"]);
}

#[test]
fn pairs_of_a_table_are_learned() {
    let table = SETUP.path("pairs");
    fs::create_dir(&table).unwrap();
    let rows: String = (0..12)
        .map(|row| format!("{{\"notes\": \"area {row}\", \"letter\": \"It is in area {row}.\"}}\n"))
        .collect();
    for split in ["train", "dev"] {
        fs::write(table.join(format!("{split}.jsonl")), &rows).unwrap();
    }
    let [model, out] = ["llama", "pairs-run"].map(|name| SETUP.path(name));
    let columns = ["--prompt-column", "notes", "--completion-column", "letter"];
    let arguments = [
        "train",
        "--task",
        "pairs",
        "--epochs",
        "2",
        "--lr",
        "1e-2",
        "--no-final-scores",
    ];
    let paths = [
        "--model",
        text(&model),
        "--data",
        text(&table),
        "--out",
        text(&out),
    ];
    let trained = json(&[&arguments[..], &paths, &columns].concat());
    let loss = |field: &str| trained[field]["loss"].as_f64().unwrap();
    assert!(loss("metrics") < loss("metrics_before"));
}

#[test]
fn a_decoder_is_measured() {
    let model = SETUP.path("qwen3");
    let size = ["--batch", "2", "--seq", "16", "--steps", "2"];
    let step = json(&[&["bench", "step", "--model", text(&model)], &size[..]].concat());
    assert_eq!(step["what"], "step");
    assert!(step["gflops"].as_f64().unwrap() > 0.0);
    let beams = ["--beams", "2", "--new-tokens", "4", "--steps", "2"];
    let generated = json(&[&["bench", "generate", "--model", text(&model)], &beams[..]].concat());
    assert_eq!(generated["what"], "generate");
}

#[test]
fn what_a_decoder_cannot_do_is_refused_by_name() {
    let changed = SETUP.path("changed");
    common::copy_folder(&SETUP.path("llama"), &changed);
    let path = changed.join("config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    config["rope_scaling"] = serde_json::json!({"type": "dynamic", "factor": 2.0});
    fs::write(&path, config.to_string()).unwrap();
    let error = refused(&[
        "generate",
        "--model",
        text(&changed),
        "--input",
        text(&path),
    ]);
    assert!(
        error.contains("`rope_scaling`") && error.contains("`dynamic`"),
        "{error}"
    );
}

/// These models have neither biases nor a head.
#[test]
fn a_method_that_would_train_nothing_is_refused_before_the_run_begins() {
    let (model, data, out) = (SETUP.path("llama"), SETUP.path("data"), SETUP.path("none"));
    let path = |path: &Path| path.to_str().unwrap().to_string();
    for (method, message) in [
        ("bitfit", "bitfit needs biases"),
        ("head", "no head of its own"),
    ] {
        let error = refused(&[
            "train",
            "--task",
            "facts",
            "--method",
            method,
            "--model",
            &path(&model),
            "--data",
            &path(&data),
            "--out",
            &path(&out),
        ]);
        assert!(error.contains(message), "{error}");
        assert!(!out.join("results.json").exists());
    }
}
