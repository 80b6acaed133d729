//! `mtlora bench`, and the number of threads that compute.
#![cfg(feature = "flex")]
#![allow(clippy::unwrap_used)]

mod common;

use std::path::Path;

use serde_json::Value;

use common::{MODEL, json, refused, small_data};

const GPT2: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/assets/tiny-gpt2");
const FACTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/assets/facts");

fn number(report: &Value, field: &str) -> f64 {
    let found = report[field].as_f64();
    found.unwrap_or_else(|| panic!("{field} is missing in {report}"))
}

/// Checks the fields that every measurement has, and that they agree with each other.
fn check(report: &Value, what: &str, steps: usize) {
    assert_eq!(report["what"], what);
    assert_eq!(report["device"], "flex");
    assert_eq!(report["dtype"], "f32");
    let step_s = report["step_s"].as_array().unwrap();
    assert_eq!(step_s.len(), steps);
    let mut seconds: Vec<f64> = step_s.iter().map(|one| one.as_f64().unwrap()).collect();
    seconds.sort_by(f64::total_cmp);
    assert!(seconds[0] > 0.0);
    let median = number(report, "median_step_s");
    assert!(median >= seconds[0] && median <= seconds[steps - 1]);
    let fraction = number(report, "fraction_of_peak");
    // How large it is depends on what else the machine does meanwhile.
    assert!(fraction > 0.0 && fraction.is_finite(), "{report}");
    let share = number(report, "gflops") / number(report, "peak_gflops");
    assert!((share / fraction - 1.0).abs() < 1e-9);
    let disturbance = &report["disturbance"];
    let peaks = disturbance["peak_before_and_after_gflops"].as_array();
    let peaks: Vec<f64> = peaks
        .unwrap()
        .iter()
        .map(|one| one.as_f64().unwrap())
        .collect();
    assert_eq!(peaks[0].max(peaks[1]), number(report, "peak_gflops"));
    assert!(disturbance["reasons"].is_array(), "{report}");
    if cfg!(target_os = "linux") {
        for share in ["waited_fraction", "stolen_fraction"] {
            assert!(number(disturbance, share) >= 0.0, "{report}");
        }
        // The model is tiny, and the program holds little else.
        assert!((5.0..2000.0).contains(&number(report, "peak_rss_mb")));
    }
}

#[test]
fn a_step_of_either_model_is_measured() {
    for (model, batch, seq) in [(MODEL, 3, 8), (GPT2, 2, 16)] {
        let run = |more: &[&str]| {
            let (batch, seq) = (batch.to_string(), seq.to_string());
            let size = ["--batch", &batch, "--seq", &seq, "--steps", "3"];
            json(&[&["bench", "step", "--model", model], &size[..], more].concat())
        };
        let report = run(&["--threads", "2"]);
        check(&report, "step", 3);
        assert_eq!(report["threads"], 2);
        assert_eq!(report["structure"], "shim");
        let median = number(&report, "median_step_s");
        for (field, amount) in [("examples_per_s", batch), ("tokens_per_s", batch * seq)] {
            let expected = f64::from(amount) / median;
            assert!((number(&report, field) / expected - 1.0).abs() < 1e-9);
        }
        let achieved = number(&report, "flops_per_step") / median / 1e9;
        assert!((number(&report, "gflops") / achieved - 1.0).abs() < 1e-9);
        // An adapter without T takes less work, and one of a higher rank takes more.
        let flops = |report: &Value| number(report, "flops_per_step");
        assert!(flops(&run(&["--structure", "lora"])) < flops(&report));
        let higher = run(&["--rank", "16", "--threads", "1"]);
        assert!(flops(&higher) > flops(&report));
        let trained = |report: &Value| report["trainable_parameters"].as_u64();
        assert!(trained(&higher) > trained(&report));
        assert_eq!(higher["threads"], 1);
        for structure in ["adalora", "dora"] {
            let of_method = run(&["--structure", structure]);
            assert_eq!(of_method["structure"], structure);
            check(&of_method, "step", 3);
        }
        // The peak is higher in bf16, if the processor multiplies pairs of bfloat16.
        check(&run(&["--base-dtype", "bf16"]), "step", 3);
    }
}

#[test]
fn an_epoch_is_measured_on_the_tasks_examples_at_their_real_lengths() {
    let folder = tempfile::tempdir().unwrap();
    let data = small_data(folder.path(), 97, 1);
    let data = data.to_str().unwrap();
    let usual = [
        "bench",
        "epoch",
        "--model",
        MODEL,
        "--task",
        "acceptability",
        "--data",
        data,
    ];
    let report = json(&[&usual[..], &["--batch", "40"]].concat());
    check(&report, "epoch", 3);
    assert_eq!(report["examples"], report["epoch_examples"]);
    let (tokens, padded) = (number(&report, "tokens"), number(&report, "padded_tokens"));
    assert!(tokens < padded && tokens > number(&report, "examples"));
    let seconds: f64 = report["step_s"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(Value::as_f64)
        .sum();
    let rate = number(&report, "examples") / seconds;
    assert!((number(&report, "examples_per_s") / rate - 1.0).abs() < 1e-9);

    let part = json(&[&usual[..], &["--batch", "40", "--max-steps", "1"]].concat());
    check(&part, "epoch", 1);
    assert_eq!(part["examples"], 40);
    assert_eq!(part["epoch_examples"], report["epoch_examples"]);

    let tokenizer = Path::new(GPT2).join("tokenizer.json");
    let causal = |more: &[&str]| {
        let usual = [
            "bench",
            "epoch",
            "--model",
            GPT2,
            "--task",
            "facts",
            "--data",
            FACTS,
            "--max-steps",
            "2",
        ];
        json(&[&usual, more].concat())
    };
    let report = causal(&[]);
    check(&report, "epoch", 2);
    assert_eq!(report["examples"], 16);
    let named = causal(&["--tokenizer", tokenizer.to_str().unwrap()]);
    assert_eq!(named["tokens"], report["tokens"]);
    let tokens = causal(&["--batch-tokens", "300"]);
    assert!(number(&tokens, "tokens") <= 600.0);
}

#[test]
fn generating_texts_of_a_fixed_length_is_measured() {
    let usual = [
        "bench",
        "generate",
        "--model",
        GPT2,
        "--seq",
        "5",
        "--new-tokens",
        "7",
        "--steps",
        "2",
    ];
    let flops = [1, 4].map(|beams: usize| {
        let report = json(&[&usual[..], &["--beams", &beams.to_string()]].concat());
        check(&report, "generate", 2);
        let expected = 7.0 / number(&report, "median_step_s");
        assert!((number(&report, "tokens_per_s") / expected - 1.0).abs() < 1e-9);
        number(&report, "flops_per_step")
    });
    assert!(flops[1] > 2.0 * flops[0]);
}

#[test]
fn what_cannot_be_measured_is_refused_with_a_reason() {
    let step = |more: &[&str]| refused(&[&["bench", "step"], more].concat());
    let error = step(&["--model", "nowhere"]);
    for name in ["one of ", "roberta-base", "deberta-v3-base", "gpt2"] {
        assert!(error.contains(name), "{error}");
    }
    assert!(step(&["--model", MODEL, "--batch", "0"]).contains("--batch"));
    assert!(step(&["--model", MODEL, "--seq", "100000"]).contains("--seq"));
    assert!(step(&["--model", MODEL, "--steps", "0"]).contains("--steps"));
    assert!(step(&["--model", MODEL, "--projections", "q"]).contains("for causal models"));
    assert!(step(&["--model", GPT2, "--method", "head"]).contains("no head"));
    assert!(step(&["--model", MODEL, "--threads", "0"]).contains("--threads"));
    assert!(step(&["--model", MODEL, "--card", "1000"]).contains("two positive numbers"));
    assert!(step(&["--model", MODEL, "--card", "1000,20"]).contains("other than the processor"));
    let epoch = |more: &[&str]| refused(&[&["bench", "epoch", "--data", FACTS], more].concat());
    assert!(epoch(&["--model", MODEL, "--task", "facts"]).contains("needs a causal model"));
    assert!(epoch(&["--model", GPT2, "--task", "cola"]).contains("needs an encoder"));
    let named = epoch(&["--model", "gpt2", "--task", "facts"]);
    assert!(named.contains("--tokenizer is needed"), "{named}");
    let none = epoch(&["--model", GPT2, "--task", "facts", "--max-steps", "0"]);
    assert!(none.contains("--max-steps"), "{none}");
    let encoder = refused(&["bench", "generate", "--model", MODEL]);
    assert!(
        encoder.contains("only a causal model generates texts"),
        "{encoder}"
    );
}

#[test]
fn a_run_on_three_threads_repeats_itself() {
    let folder = tempfile::tempdir().unwrap();
    let data = small_data(folder.path(), 64, 16);
    let run = |name: &str| {
        let out = folder.path().join(name);
        json(&[
            "train",
            "--model",
            MODEL,
            "--task",
            "acceptability",
            "--data",
            data.to_str().unwrap(),
            "--out",
            out.to_str().unwrap(),
            "--epochs",
            "1",
            "--threads",
            "3",
        ]);
        std::fs::read(out.join("adapter_model.safetensors")).unwrap()
    };
    assert_eq!(run("one"), run("two"));
}
