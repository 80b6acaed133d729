//! `mtlora score` as a user runs it, against the official scripts' numbers.
#![allow(clippy::unwrap_used)]

mod common;

use std::path::{Path, PathBuf};

use serde_json::Value;

use common::{json, mtlora, refused};

fn fixtures(task: &str) -> PathBuf {
    let project = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures");
    let folder = std::env::var_os("MTLORA_FIXTURES").unwrap_or_else(|| project.into());
    PathBuf::from(folder).join("metrics").join(task)
}

fn expected(task: &str) -> Value {
    let text = std::fs::read_to_string(fixtures(task).join("expected.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// The report on a fixture's hypotheses, with these files of references.
fn scored(task: &str, folder: &str, references: &[&str]) -> Value {
    let path = |name: &str| fixtures(folder).join(name).to_str().unwrap().to_string();
    let hypotheses = path("hypotheses.txt");
    let references: Vec<String> = references.iter().map(|name| path(name)).collect();
    let mut arguments = vec!["score", "--task", task, "--hypotheses", &hypotheses];
    arguments.push("--references");
    arguments.extend(references.iter().map(String::as_str));
    json(&arguments)
}

fn close(report: &Value, name: &str, expected: f64, tolerance: f64) {
    let value = report["metrics"][name].as_f64().unwrap();
    assert!(
        (value - expected).abs() <= tolerance,
        "{name}: {value} is not {expected}"
    );
}

#[test]
fn e2e_is_scored_as_by_the_challenge() {
    let report = scored("e2e", "e2e", &["references.txt"]);
    let expected = expected("e2e");
    for (name, key) in [
        ("bleu", "BLEU"),
        ("nist", "NIST"),
        ("rouge_l", "ROUGE_L"),
        ("cider", "CIDEr"),
    ] {
        close(&report, name, expected[key].as_f64().unwrap(), 0.5e-4);
    }
    assert_eq!(report["task"], "e2e");
    let hypotheses = std::fs::read_to_string(fixtures("e2e").join("hypotheses.txt")).unwrap();
    assert_eq!(
        report["sentences"].as_u64().unwrap() as usize,
        hypotheses.lines().count()
    );
    let names: Vec<&String> = report["metrics"].as_object().unwrap().keys().collect();
    assert_eq!(
        names,
        ["bleu", "nist", "rouge_l", "cider", "meteor_exact_stem"]
    );
}

#[test]
fn dart_is_scored_as_by_its_scripts() {
    let files = ["reference0", "reference1", "reference2"];
    let report = scored("dart", "dart", &files);
    let expected = expected("dart");
    let bleu = expected["multi_bleu_detok"].as_str().unwrap();
    let bleu = bleu.strip_prefix("BLEU = ").unwrap();
    let bleu = bleu.split(',').next().unwrap().parse().unwrap();
    close(&report, "bleu", bleu, 0.5e-2);
    let sacrebleu = &expected["sacrebleu"];
    for (name, key) in [("sacrebleu", "bleu"), ("ter", "ter"), ("chrf++", "chrf2++")] {
        close(&report, name, sacrebleu[key].as_f64().unwrap(), 0.5e-4);
    }
    // sacreBLEU 2.6.0's chrF for the same files.
    close(&report, "chrf", 58.538_169_834_690_7, 1e-9);
    let names: Vec<&String> = report["metrics"].as_object().unwrap().keys().collect();
    let expected = [
        "bleu",
        "sacrebleu",
        "ter",
        "chrf",
        "chrf++",
        "meteor_exact_stem",
    ];
    assert_eq!(names, expected);

    // The tasks webnlg and text differ from dart only in the tokens of sacreBLEU's BLEU.
    let webnlg = scored("webnlg", "dart", &files);
    assert_eq!(webnlg["task"], "webnlg");
    assert_eq!(webnlg["metrics"]["ter"], report["metrics"]["ter"]);
    assert_ne!(
        webnlg["metrics"]["sacrebleu"],
        report["metrics"]["sacrebleu"]
    );
    let text = scored("text", "dart", &files);
    assert_eq!(text["metrics"], webnlg["metrics"]);
}

#[test]
fn scores_are_printed_as_a_table() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("texts.txt");
    std::fs::write(&file, "the cat sat on the mat\n").unwrap();
    let file = file.to_str().unwrap();
    let output = mtlora(&[
        "score",
        "--task",
        "text",
        "--hypotheses",
        file,
        "--references",
        file,
    ]);
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    let rows: Vec<Vec<&str>> = text
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(rows[0], ["bleu", "100.0000"]);
    assert_eq!(rows[2], ["ter", "0.0000"]);
    assert_eq!(rows[3], ["chrf", "100.0000"]);
    assert_eq!(rows[4], ["chrf++", "100.0000"]);
    assert_eq!(rows[6], ["sentences", "1"]);
}

#[test]
fn what_is_white_space_to_python_separates_words() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_string()
    };
    let score = |task: &str, hypotheses: &str, references: &str| {
        let hypotheses = file("hypotheses.txt", hypotheses);
        let references = file("references.txt", references);
        json(&[
            "score",
            "--task",
            task,
            "--hypotheses",
            &hypotheses,
            "--references",
            &references,
        ])
    };
    let reference = "The cat sat on the mat.\n";
    for c in [
        '\u{1c}', '\u{1d}', '\u{1e}', '\u{1f}', '\u{85}', '\u{a0}', '\u{2028}', '\u{3000}',
    ] {
        let hypothesis = format!("The cat{c}sat on{c}{c}the mat.{c}\n");
        for task in ["text", "webnlg", "dart"] {
            let report = score(task, &hypothesis, reference);
            assert_eq!(report["sentences"], 1, "{c:?}");
            // sacreBLEU 2.6.0 gives these scores for each of the characters.
            for (name, value) in [
                ("sacrebleu", 100.0),
                ("chrf", 100.0),
                ("chrf++", 100.0),
                ("ter", 0.0),
            ] {
                close(&report, name, value, 1e-9);
            }
        }
    }
    // A character that only looks like white space, with the scores of sacreBLEU 2.6.0.
    let report = score("text", "The cat\u{200b}sat on the mat.\n", reference);
    close(&report, "chrf", 81.387_270_497_027_46, 1e-9);
    close(&report, "ter", 100.0 / 3.0, 1e-9);

    // The E2E challenge's script ends lines where `str.splitlines` does, and splits words at the unit separator.
    let report = score(
        "e2e",
        "a cheap\u{1f}pub\u{2028}a fine pub\r",
        "a cheap pub\n\u{1f}\na fine pub\u{1e}",
    );
    assert_eq!(report["sentences"], 2);
    close(&report, "rouge_l", 1.0, 1e-12);
}

#[test]
fn bad_input_is_refused_with_a_reason() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_string()
    };
    let two = file("two.txt", "a\nb\n");
    let three = file("three.txt", "a\nb\nc\n");
    let blocks = file("blocks.txt", "a\n\nb\n\nc\n");
    let first = file("first.txt", "x\n\n");
    let empty = file("empty.txt", "");
    let score = |task: &str, hypotheses: &str, references: &[&str]| {
        let usual = ["score", "--task", task, "--hypotheses", hypotheses];
        refused(&[&usual, ["--references"].as_slice(), references].concat())
    };

    // For files of different lengths, the message has the lengths of both.
    let text = score("webnlg", &two, &[&three]);
    assert!(text.contains("two.txt has 2 lines"), "{text}");
    assert!(text.contains("three.txt has 3"), "{text}");
    let text = score("e2e", &two, &[&blocks]);
    assert!(text.contains("two.txt has 2"), "{text}");
    assert!(text.contains("blocks.txt has 3"), "{text}");
    let text = score("dart", &two, &[&two, &three]);
    assert!(text.contains("two.txt has 2 lines"), "{text}");
    assert!(text.contains("three.txt has 3"), "{text}");

    // For a missing reference, the message has the file and the line.
    let text = score("text", &two, &[&first, &first]);
    assert!(text.contains("two.txt:2: "), "{text}");
    assert!(text.contains("first.txt"), "{text}");

    let missing = folder.path().join("missing.txt");
    let missing = missing.to_str().unwrap();
    assert!(score("text", missing, &[&two]).contains("missing.txt: cannot read"));
    assert!(score("text", &two, &[missing]).contains("missing.txt: cannot read"));
    assert!(score("text", &empty, &[&two]).contains("empty.txt: is empty"));
    assert!(score("e2e", &two, &[&blocks, &blocks]).contains("2 files are given"));
    assert!(score("glue", &two, &[&two]).contains("webnlg"));
    let jar = Path::new(missing).with_extension("jar");
    let jar = jar.to_str().unwrap();
    let text = score("text", &two, &[&two, "--meteor-jar", jar]);
    assert!(text.contains("missing.jar: no such file"), "{text}");
    let text = refused(&["score", "--task", "text", "--hypotheses", &two]);
    assert!(text.contains("--references"), "{text}");
}
