//! Gradient accumulation: a step trains the same, however its examples are split into batches.
#![cfg(feature = "flex")]
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use common::{MODEL, mtlora, refused};

const GPT2: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/assets/tiny-gpt2");

/// Prompts and completions, of 5, 25, 4, 5, 12, 3 and 15 target tokens with the tiny GPT-2's tokenizer. The first four
/// are those on which a step was once found to be the mean of its batches' means.
const PAIRS: [(&str, &str); 7] = [
    ("a", "yes."),
    (
        "b",
        "the old mill by the river was built in 1920 and is home to a polo team from the town of Upland.",
    ),
    ("c", "no."),
    ("d", "it is."),
    ("the mill", "it stands in Upland and was built in 1920."),
    ("e", "a."),
    (
        "who plays there",
        "the polo team from the town plays by the old mill.",
    ),
];

/// Texts of 1 to 16 words, with a class and a number.
const TEXTS: [(&str, &str, f64); 10] = [
    ("No.", "bad", 0.5),
    ("The old mill stands by the river.", "good", 2.0),
    ("Dogs bark.", "good", -1.0),
    ("The painters near the lake sleeps.", "bad", 3.0),
    (
        "Birds sing in the morning by the river and in the evening near the old town hall.",
        "good",
        1.0,
    ),
    ("She see.", "bad", 0.0),
    ("Every child likes the small red boat.", "good", -2.5),
    ("Them.", "bad", 0.25),
    (
        "The captain of the ship forgets the harbour that he left.",
        "good",
        4.0,
    ),
    ("A gull like waves.", "bad", 1.5),
];

/// A copy of the model without dropout, since the masks would differ between splits.
fn without_dropout(model: &str, folder: &Path) -> PathBuf {
    let copy = folder.join("model");
    fs::create_dir(&copy).unwrap();
    for entry in fs::read_dir(model).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, copy.join(path.file_name().unwrap())).unwrap();
    }
    let path = copy.join("config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    for (name, value) in config.as_object_mut().unwrap() {
        if name.contains("drop") {
            *value = json!(0.0);
        }
    }
    fs::write(path, config.to_string()).unwrap();
    copy
}

fn write_lines(path: &Path, rows: impl Iterator<Item = Value>) {
    let lines: Vec<String> = rows.map(|row| row.to_string()).collect();
    fs::write(path, lines.join("\n")).unwrap();
}

/// A folder with a model and data, and the flags that train on them.
struct Setup {
    folder: tempfile::TempDir,
    flags: Vec<String>,
}

/// The losses of the steps, and those of the evaluations, the first of which comes before the first step.
struct Losses {
    steps: Vec<f64>,
    dev: Vec<f64>,
}

impl Setup {
    fn new(model: &str, rows: &[Value], flags: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let model = without_dropout(model, folder.path());
        let data = folder.path().join("data");
        fs::create_dir(&data).unwrap();
        for split in ["train", "dev", "test"] {
            write_lines(&data.join(format!("{split}.jsonl")), rows.iter().cloned());
        }
        let places = [
            "--model",
            model.to_str().unwrap(),
            "--data",
            data.to_str().unwrap(),
        ];
        let flags = places.iter().chain(flags).map(ToString::to_string);
        Self {
            flags: flags.collect(),
            folder,
        }
    }

    /// Generation on the first `pairs` of [`PAIRS`]. All weights train, so no result depends on a random start.
    fn generation(pairs: usize) -> Self {
        let row = |(prompt, completion): &(&str, &str)| json!({"prompt": prompt, "completion": completion});
        let rows: Vec<Value> = PAIRS[..pairs].iter().map(row).collect();
        let flags = [
            "--task",
            "pairs",
            "--method",
            "full",
            "--label-smoothing",
            "0",
            "--num-beams",
            "1",
            "--max-new-tokens",
            "2",
        ];
        Self::new(GPT2, &rows, &flags)
    }

    fn classification() -> Self {
        let row = |(text, label, _): &(&str, &str, f64)| json!({"text": text, "label": label});
        let rows: Vec<Value> = TEXTS.iter().map(row).collect();
        Self::new(MODEL, &rows, &["--task", "table"])
    }

    fn regression() -> Self {
        let row = |(text, _, number): &(&str, &str, f64)| json!({"text": text, "label": number});
        let rows: Vec<Value> = TEXTS.iter().map(row).collect();
        Self::new(MODEL, &rows, &["--task", "table", "--regression"])
    }

    fn run(&self) -> PathBuf {
        self.folder.path().join("run")
    }

    fn train(&self, epochs: usize, more: &str) -> Losses {
        let (run, epochs) = (self.run(), epochs.to_string());
        let mut arguments = vec![
            "train",
            "--plain",
            "--overwrite",
            "--out",
            run.to_str().unwrap(),
        ];
        arguments.extend(self.flags.iter().map(String::as_str));
        arguments.extend(["--lr", "1e-3", "--warmup-steps", "0", "--weight-decay", "0"]);
        arguments.extend([
            "--adapter-dropout",
            "0",
            "--device",
            "flex",
            "--epochs",
            &epochs,
        ]);
        arguments.extend(more.split(' '));
        let output = mtlora(&arguments);
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{errors}");
        let (mut steps, mut dev) = (Vec::new(), Vec::new());
        for line in fs::read_to_string(run.join("metrics.jsonl"))
            .unwrap()
            .lines()
        {
            let line: Value = serde_json::from_str(line).unwrap();
            match &line["dev"]["loss"] {
                Value::Null => steps.push(line["loss"].as_f64().unwrap()),
                loss => dev.push(loss.as_f64().unwrap()),
            }
        }
        Losses { steps, dev }
    }
}

fn near(found: &[f64], wanted: &[f64], within: f64, what: &str) {
    assert_eq!(found.len(), wanted.len(), "{what}: {found:?}");
    for (step, (found, wanted)) in found.iter().zip(wanted).enumerate() {
        let apart = (found - wanted).abs();
        assert!(apart < within, "{what}, {step}: {found} is not {wanted}");
    }
}

/// The expected losses are those of ten steps of transformers 5.24's Trainer, and the loss after them. All weights
/// train with AdamW and a learning rate that falls linearly from 1e-3, without dropout and weight decay, and with
/// `per_device_train_batch_size=1, gradient_accumulation_steps=4`. mtlora adds 1e-4 to the number of tokens that it
/// divides by, which is 39 here.
#[test]
fn four_texts_of_unequal_lengths_train_as_in_transformers() {
    let steps = [
        8.678484, 5.624771, 4.082125, 3.110505, 2.380531, 1.968912, 1.711810, 1.522473, 1.383293,
        1.288167,
    ];
    let setup = Setup::generation(4);
    for batches in [
        "--batch 4",
        "--batch 2 --gradient-accumulation 2",
        "--batch 1 --gradient-accumulation 4",
        "--batch 3 --gradient-accumulation 2",
        "--batch 1 --gradient-accumulation 100",
        "--batch-tokens 20 --gradient-accumulation 9",
    ] {
        let found = setup.train(10, batches);
        near(&found.steps, &steps, 1e-3, batches);
        near(&found.dev[..1], &[8.678484], 1e-4, batches);
        near(&found.dev[10..], &[1.238428], 1e-3, batches);
    }
}

/// An epoch is one step here, with a short last batch or with batches of a limited number of tokens. The expected
/// losses are those of four steps of transformers 5.24's Trainer on the same texts, and the loss after them.
#[test]
fn short_last_batches_and_budgets_of_tokens_train_as_in_transformers() {
    let three = ([8.203840, 5.082668, 3.778475, 3.064294], 2.697073);
    let five = ([7.958387, 5.226871, 4.058761, 3.376639], 3.053493);
    let six = ([7.900570, 5.190740, 3.958066, 3.298060], 2.991985);
    let seven = ([8.689331, 5.981047, 4.569687, 3.860849], 3.524611);
    for (pairs, (steps, dev), batches) in [
        (3, three, "--batch 2 --gradient-accumulation 2"),
        (5, five, "--batch 2 --gradient-accumulation 3"),
        (6, six, "--batch 4 --gradient-accumulation 2"),
        (7, seven, "--batch 2 --gradient-accumulation 4"),
        (7, seven, "--batch 3 --gradient-accumulation 3"),
        (7, seven, "--batch 1 --gradient-accumulation 7"),
        (7, seven, "--batch-tokens 30 --gradient-accumulation 50"),
    ] {
        let found = Setup::generation(pairs).train(4, batches);
        let what = format!("{pairs} texts, {batches}");
        near(&found.steps, &steps, 1e-3, &what);
        near(&found.dev[4..], &[dev], 1e-3, &what);
    }
}

/// Seven texts in steps of four: the second step of each epoch has three.
#[test]
fn an_epochs_last_step_is_divided_by_its_own_number_of_tokens() {
    let setup = Setup::generation(7);
    let whole = setup.train(3, "--batch 4");
    assert_eq!(whole.steps.len(), 6);
    for batches in [
        "--batch 2 --gradient-accumulation 2",
        "--batch 1 --gradient-accumulation 4",
    ] {
        let split = setup.train(3, batches);
        near(&split.steps, &whole.steps, 1e-3, batches);
        near(&split.dev, &whole.dev, 1e-3, batches);
    }
}

/// There are ten texts: with four to a step, the third step of an epoch has two, and with three to a batch, the last
/// batch has one.
#[test]
fn classifications_and_regressions_train_the_same_however_a_step_is_split() {
    for setup in [Setup::classification(), Setup::regression()] {
        for (one, others) in [
            (
                "--batch 4",
                [
                    "--batch 2 --gradient-accumulation 2",
                    "--batch 1 --gradient-accumulation 4",
                ],
            ),
            (
                "--batch 6",
                [
                    "--batch 3 --gradient-accumulation 2",
                    "--batch 2 --gradient-accumulation 3",
                ],
            ),
            (
                "--batch 10",
                [
                    "--batch 4 --gradient-accumulation 3",
                    "--batch-tokens 20 --gradient-accumulation 20",
                ],
            ),
        ] {
            let whole = setup.train(4, one);
            for batches in others {
                let split = setup.train(4, batches);
                near(&split.steps, &whole.steps, 1e-3, batches);
                near(&split.dev, &whole.dev, 1e-3, batches);
            }
        }
    }
}

/// transformers' losses of the four texts, one at a time, are 9.818920, 7.715470, 9.237305 and 11.906057. Their mean
/// is 9.669438; the 1e-4 that mtlora adds to each divisor makes it slightly smaller.
#[test]
fn loss_normalization_batch_takes_the_mean_of_the_batches_means() {
    let setup = Setup::generation(4);
    let batch = "--batch 1 --gradient-accumulation 4 --loss-normalization batch";
    let found = setup.train(1, batch);
    near(&found.steps, &[9.669438], 1e-3, batch);
    let run = setup.run();
    let config = fs::read_to_string(run.join("run.toml")).unwrap();
    assert!(
        config.contains("loss_normalization = \"batch\""),
        "{config}"
    );
    // With one batch to a step, both normalizations are the same.
    let both = [
        "--batch 4 --loss-normalization batch",
        "--batch 4 --loss-normalization step",
    ];
    let [batch, step] = both.map(|flags| setup.train(2, flags));
    assert_eq!((batch.steps, batch.dev), (step.steps, step.dev));

    let text = refused(&["train", "--loss-normalization", "mean"]);
    assert!(
        text.contains("unknown loss normalization `mean`: one of step, batch"),
        "{text}"
    );
}

#[test]
fn pre_training_takes_several_batches_to_a_step() {
    let folder = tempfile::tempdir().unwrap();
    let text = folder.path().join("text.txt");
    let lines: Vec<&str> = TEXTS.iter().map(|(text, _, _)| *text).collect();
    fs::write(&text, lines.join("\n")).unwrap();
    for architecture in ["roberta", "gpt2"] {
        let loss = |batches: &[&str]| {
            let out = folder.path().join("out");
            let mut arguments = vec!["pretrain", "--architecture", architecture, "--overwrite"];
            arguments.extend([
                "--text",
                text.to_str().unwrap(),
                "--out",
                out.to_str().unwrap(),
            ]);
            arguments.extend([
                "--hidden-size",
                "16",
                "--layers",
                "1",
                "--heads",
                "2",
                "--steps",
                "1",
            ]);
            arguments.extend(["--vocab-size", "300", "--device", "flex"]);
            arguments.extend(batches);
            common::json(&arguments)["loss"].as_f64().unwrap()
        };
        let whole = loss(&["--batch", "10"]);
        let split = loss(&["--batch", "3", "--gradient-accumulation", "4"]);
        // Dropout is 0.1, and its masks differ between the two.
        assert!(
            (whole - split).abs() < 0.1,
            "{architecture}: {whole} {split}"
        );
        assert!((whole - 300f64.ln()).abs() < 0.5, "{architecture}: {whole}");
    }
}
