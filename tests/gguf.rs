//! GGUF files with the program: a model is merged into one, and one is trained on, scored, asked, exported and merged.
#![cfg(feature = "flex")]
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use mtlora_models::{
    CausalLm, Checkpoint, END_OF_TEXT, GgufType, ModelFamilies, ModelSizes, save_gguf,
    train_causal_tokenizer, write_causal_tokenizer,
};
use serde_json::Value;

use common::card;
use common::{CHAT_TEMPLATE, json, refused, text, text_reading};

const CHATS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/assets/chat/train.jsonl");

/// A tiny Llama with a chat template, as a folder and as a GGUF file in Q8_0, and some conversations.
struct Setup {
    whole: PathBuf,
    gguf: PathBuf,
    data: PathBuf,
}

fn setup(folder: &Path) -> Setup {
    let all = fs::read_to_string(CHATS).unwrap();
    let kept: Vec<&str> = all.lines().take(20).collect();
    let data = folder.join("data");
    fs::create_dir(&data).unwrap();
    fs::write(data.join("train.jsonl"), kept.join("\n")).unwrap();
    let tokenizer = train_causal_tokenizer(kept.iter().copied(), 400).unwrap();
    let sizes = ModelSizes {
        vocab_size: tokenizer.get_vocab_size(true),
        hidden_size: 32,
        layers: 2,
        heads: 4,
        key_value_heads: Some(2),
        head_width: Some(16),
        intermediate_size: Some(64),
        max_tokens: 512,
        end_of_text: tokenizer.token_to_id(END_OF_TEXT),
    };
    let families = ModelFamilies::builtin();
    let config = families.new_causal("llama", &sizes).unwrap();
    let device = mtlora_core::device("flex").unwrap();
    let model = CausalLm::fresh(&config, 1, &device).unwrap();
    let whole = folder.join("whole");
    model.clone().save(&whole, &config).unwrap();
    write_causal_tokenizer(&tokenizer, &whole, sizes.max_tokens).unwrap();
    fs::write(whole.join("chat_template.jinja"), CHAT_TEMPLATE).unwrap();
    let gguf = folder.join("model.gguf");
    save_gguf(model, &config, &whole, GgufType::Q8_0, &gguf).unwrap();
    Setup { whole, gguf, data }
}

fn train(model: &Path, data: &Path, out: &Path, more: &[&str]) -> Value {
    let arguments = [
        "train", "--task", "chat", "--epochs", "2", "--lr", "1e-2", "--batch", "4",
    ];
    let paths = [
        "--model",
        text(model),
        "--data",
        text(data),
        "--out",
        text(out),
    ];
    json(&[&arguments[..], &paths, more].concat())
}

/// What the model answers to two questions.
fn answers(source: &[&str]) -> Vec<Value> {
    let arguments = [&["generate", "--max-new-tokens", "6"], source].concat();
    let written = text_reading(&arguments, "Hello!\nWho are you?\n");
    let lines = written.lines();
    lines
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["text"].clone())
        .collect()
}

#[test]
fn a_gguf_file_is_trained_on_scored_asked_exported_and_merged() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let Setup { whole, gguf, data } = setup(folder.path());

    let all = ["--targets", "all-linear", "--structure", "ctcm"];
    let trained = train(&gguf, &data, &path("run"), &all);
    let loss = |report: &Value, field: &str| report[field]["loss"].as_f64().unwrap();
    assert!(
        loss(&trained, "metrics") < loss(&trained, "metrics_before"),
        "{trained}"
    );
    // The weights stayed packed, which the run's configuration says.
    let config = fs::read_to_string(path("run").join("run.toml")).unwrap();
    assert!(config.contains("base_dtype = \"packed\""), "{config}");
    // With gradient checkpointing, every byte is the same.
    let again = [&all[..], &["--gradient-checkpointing"]].concat();
    train(&gguf, &data, &path("again"), &again);
    let adapter = |run: &str| fs::read(path(run).join("adapter_model.safetensors")).unwrap();
    assert_eq!(adapter("run"), adapter("again"));
    // NF4 is another rounding of the same weights.
    let nf4 = [&all[..], &["--base-dtype", "nf4"]].concat();
    let nf4 = train(&whole, &data, &path("nf4"), &nf4);
    assert!(
        (loss(&nf4, "metrics") / loss(&trained, "metrics") - 1.0).abs() < 0.1,
        "{nf4}"
    );

    let run = path("run");
    let scored = json(&["eval", "--run", text(&run)]);
    assert!((loss(&scored, "metrics") / loss(&trained, "metrics") - 1.0).abs() < 1e-4);

    // The adapter, a merged folder and a merged GGUF file answer alike.
    let by_run = answers(&["--run", text(&run)]);
    assert_eq!(by_run.len(), 2);
    let (merged, file) = (path("merged"), path("merged.gguf"));
    json(&["merge", "--run", text(&run), "--out", text(&merged)]);
    let report = json(&[
        "merge",
        "--run",
        text(&run),
        "--gguf",
        "F32",
        "--out",
        text(&file),
    ]);
    assert_eq!(report["gguf"], "F32");
    let beside = ["md", "svg"].map(|end| file.with_extension(end));
    assert_eq!(report["card"], serde_json::json!(beside));
    // The card lies beside the file, and nothing else in its folder is touched.
    assert!(!file.with_file_name("README.md").exists());
    let (body, matter) = card::read(&file.with_extension("md"));
    assert!(file.with_extension("svg").is_file());
    assert!(matter["library_name"].is_badvalue(), "{matter:?}");
    let tags = card::strings(&matter["tags"]);
    assert_eq!(tags[0], "mtlora");
    assert!(
        tags.contains(&"gguf") && !tags.contains(&"lora"),
        "{tags:?}"
    );
    for part in [
        "](merged.svg)",
        "merged into the weights, as a GGUF file with matrices in F32",
        "llama-cli -m merged.gguf\n",
        "mtlora generate --model merged.gguf --chat --input texts.txt\n",
        "FROM ./merged.gguf",
        "| perplexity |",
    ] {
        assert!(body.contains(part), "{part}: {body}");
    }
    // Neither does it tell where files lie on this machine.
    assert!(!body.contains(text(folder.path())), "{body}");
    let by_merged = answers(&["--model", text(&merged)]);
    assert_eq!(by_merged.len(), 2);
    assert_eq!(answers(&["--model", text(&file)]), by_merged);
    // The file's tensors are the folder's, whose rows of query and key have another order.
    let (one, other) = (
        Checkpoint::open(&merged).unwrap(),
        Checkpoint::open(&file).unwrap(),
    );
    assert_eq!(one.names().count(), other.names().count());
    for name in one.names() {
        assert_eq!(
            one.read_f32(name).unwrap(),
            other.read_f32(name).unwrap(),
            "{name}"
        );
    }

    // In fewer bits, with the values that these have.
    for (dtype, torch, bound) in [("bf16", "bfloat16", 4e-3), ("f16", "float16", 5e-4)] {
        let out = path(dtype);
        json(&[
            "merge",
            "--run",
            text(&run),
            "--dtype",
            dtype,
            "--out",
            text(&out),
        ]);
        let config: Value =
            serde_json::from_slice(&fs::read(out.join("config.json")).unwrap()).unwrap();
        assert_eq!(config["torch_dtype"], torch);
        assert_near(&one, &Checkpoint::open(&out).unwrap(), bound);
        let sizes = [&out, &merged].map(|folder| {
            fs::metadata(folder.join("model.safetensors"))
                .unwrap()
                .len()
        });
        assert!(sizes[0] * 2 < sizes[1] + 8192, "{sizes:?}");
        assert_eq!(answers(&["--model", text(&out)]).len(), 2);
    }
    for (kind, bound) in [("F16", 5e-4), ("BF16", 4e-3), ("Q8_0", 1e-2)] {
        let out = path(&format!("{kind}.gguf"));
        json(&[
            "merge",
            "--run",
            text(&run),
            "--gguf",
            kind,
            "--out",
            text(&out),
        ]);
        assert_near(&one, &Checkpoint::open(&out).unwrap(), bound);
        assert_eq!(answers(&["--model", text(&out)]).len(), 2);
    }

    let out = path("exported");
    let report = json(&[
        "export",
        "--run",
        text(&run),
        "--for",
        "llama.cpp",
        "--out",
        text(&out),
    ]);
    assert_eq!(report["modules"], 14);
    assert!(out.join("adapter.gguf").exists());

    // What would be sent to the Hub.
    if cfg!(feature = "hub") {
        let listed = |more: &[&str]| -> Vec<String> {
            let push = ["push", text(&run), "org/letters", "--dry-run"];
            let report = json(&[&push[..], more].concat());
            let files = report["files"].as_array().unwrap().iter();
            files
                .map(|file| file["name"].as_str().unwrap().to_string())
                .collect()
        };
        assert_eq!(
            listed(&["--merged", "--gguf", "Q8_0"]),
            ["README.md", "letters.gguf", "letters.svg"]
        );
        let adapter = ["README.md", "adapter.gguf", "curves.svg"];
        assert_eq!(listed(&["--for", "llama.cpp"]), adapter);
    }

    // Nothing is written over, and the names must be those of files.
    let message = refused(&[
        "merge",
        "--run",
        text(&run),
        "--gguf",
        "F16",
        "--out",
        text(&file),
    ]);
    assert!(message.contains("--overwrite"), "{message}");
    let message = refused(&[
        "merge",
        "--run",
        text(&run),
        "--gguf",
        "F16",
        "--out",
        text(&path("x")),
    ]);
    assert!(message.contains("end in .gguf"), "{message}");
    let base = [
        "merge",
        "--run",
        text(&run),
        "--gguf",
        "F16",
        "--overwrite",
        "--out",
        text(&gguf),
    ];
    assert!(refused(&base).contains("the base model"));
}

/// Each tensor is within `bound` of its largest value.
fn assert_near(exact: &Checkpoint, rounded: &Checkpoint, bound: f32) {
    for name in exact.names() {
        let ((shape, wanted), (found_shape, found)) = (
            exact.read_f32(name).unwrap(),
            rounded.read_f32(name).unwrap(),
        );
        assert_eq!(shape, found_shape, "{name}");
        let size = wanted
            .iter()
            .fold(0f32, |most, value| most.max(value.abs()));
        for (found, wanted) in found.iter().zip(&wanted) {
            assert!(
                (found - wanted).abs() <= bound * size,
                "{name}: {found} for {wanted}"
            );
        }
    }
}
