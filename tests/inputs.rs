//! `predict` and `generate` read lines and tables with the columns that the run was trained on.
#![cfg(feature = "flex")]
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use common::{MODEL, json, refused, refused_reading, text, text_reading};

const GPT2: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/assets/tiny-gpt2");

/// Trains a run on pairs of texts (columns `a` and `b`) and one on single texts (column `words`).
fn runs(folder: &Path) -> [PathBuf; 2] {
    let data = folder.join("data");
    fs::create_dir(&data).unwrap();
    let rows = "a,b,words,label\nI like tea.,We had tea.,Tea.,same\nI like tea.,We had soup.,Soup.,other\n\
                I like soup.,We had soup.,Soup!,same\nI like soup.,We had tea.,Tea!,other\n";
    for split in ["train.csv", "dev.csv"] {
        fs::write(data.join(split), rows).unwrap();
    }
    let train = |name: &str, columns: &[&str]| {
        let run = folder.join(name);
        let usual = [
            "train",
            "--model",
            MODEL,
            "--task",
            "table",
            "--data",
            text(&data),
            "--epochs",
            "1",
            "--out",
            text(&run),
        ];
        json(&[&usual, columns].concat());
        run
    };
    [
        train("pairs", &["--text-column", "a", "--pair-column", "b"]),
        train("single", &["--text-column", "words"]),
    ]
}

/// The rows of JSON that a command writes.
fn rows(arguments: &[&str], input: &str) -> Vec<Value> {
    let lines = text_reading(arguments, input);
    lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn rows_of(arguments: &[&str]) -> Vec<Value> {
    rows(arguments, "")
}

/// The same texts get the same answers, in whatever format they come.
#[test]
fn predict_reads_lines_and_tables_as_the_run_does() {
    let folder = tempfile::tempdir().unwrap();
    let [pairs, single] = runs(folder.path());
    let write = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    };
    let predict = |run: &Path, name: &str, bytes: &[u8]| {
        let input = write(name, bytes);
        rows(
            &[
                "predict",
                "--run",
                text(run),
                "--input",
                text(&input),
                "--format",
                "jsonl",
            ],
            "",
        )
    };
    let lines = "I like tea.\tWe had tea.\nI like tea.\tWe had soup.\n";
    let expected = predict(&pairs, "lines.txt", lines.as_bytes());
    assert_eq!(expected.len(), 2);
    assert_eq!(expected[1]["pair"], "We had soup.");
    let utf16: Vec<u8> = [0xff, 0xfe]
        .into_iter()
        .chain(lines.encode_utf16().flat_map(u16::to_le_bytes))
        .collect();
    for (name, bytes) in [
        ("mark.txt", [b"\xef\xbb\xbf", lines.as_bytes()].concat()),
        ("ends.txt", lines.replace('\n', "\r\n").into_bytes()),
        ("utf16.txt", utf16),
        ("t.csv", b"label,b,a\nx,We had tea.,I like tea.\ny,We had soup.,I like tea.\n".to_vec()),
        ("t.tsv", b"\xef\xbb\xbfa\tb\nI like tea.\tWe had tea.\nI like tea.\tWe had soup.\n".to_vec()),
        (
            "t.jsonl",
            b"{\"b\": \"We had tea.\", \"a\": \"I like tea.\"}\n{\"a\": \"I like tea.\", \"b\": \"We had soup.\"}".to_vec(),
        ),
    ] {
        assert_eq!(predict(&pairs, name, &bytes), expected, "{name}");
    }
    let piped = ["predict", "--run", text(&pairs), "--format", "jsonl"];
    assert_eq!(rows(&piped, &format!("\u{feff}{lines}")), expected);
    // A table whose columns have other names.
    let other = write(
        "other.csv",
        b"x,y\nI like tea.,We had tea.\nI like tea.,We had soup.\n",
    );
    let flags = [
        "--input",
        text(&other),
        "--text-column",
        "x",
        "--pair-column",
        "y",
    ];
    assert_eq!(rows(&[&piped[..], &flags].concat(), ""), expected);

    let refuse = |run: &Path, name: &str, text_: &str| {
        let input = write(name, text_.as_bytes());
        refused(&["predict", "--run", text(run), "--input", text(&input)])
    };
    assert!(refuse(&pairs, "x.txt", "a\tb\nno tab\n").contains("x.txt:2: the line has no tab"));
    assert!(
        refuse(&pairs, "x.txt", "a\tb\tc\n").contains("x.txt:1: the line has more than one tab")
    );
    assert!(refuse(&pairs, "x.csv", "a,label\nx,y\n").contains("x.csv:1: no column `b`"));
    assert!(refuse(&single, "x.txt", "fine\na\tb\n").contains("x.txt:2: the line has a tab"));
    assert!(
        refuse(&single, "x.csv", "text\nx\n")
            .contains("x.csv:1: no column `words`; the columns are `text`")
    );
    assert!(refuse(&single, "x.jsonl", "{\"words\": 3}\n").contains("x.jsonl:1: "));
    assert!(refuse(&single, "x.json", "[]").contains("convert it"));
    let said = refused_reading(&["predict", "--run", text(&pairs)], "no tab\n");
    assert!(
        said.contains("standard input:1: the line has no tab"),
        "{said}"
    );
    let input = write("y.csv", b"words,more\nx,y\n");
    let said = refused(&[
        "predict",
        "--run",
        text(&single),
        "--input",
        text(&input),
        "--pair-column",
        "more",
    ]);
    assert!(said.contains("trained on single texts"), "{said}");

    // A run on a GLUE task knows the columns of its files, as GLUE and as the Hub publish them.
    let glue = folder.path().join("MRPC");
    fs::create_dir(&glue).unwrap();
    let rows = "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\n1\t1\t2\tI like tea.\tWe had tea.\n0\t3\t4\tI like tea.\tWe had soup.\n";
    for split in ["train.tsv", "dev.tsv"] {
        fs::write(glue.join(split), rows).unwrap();
    }
    let mrpc = folder.path().join("mrpc");
    json(&[
        "train",
        "--model",
        MODEL,
        "--task",
        "mrpc",
        "--data",
        text(&glue),
        "--epochs",
        "1",
        "--out",
        text(&mrpc),
    ]);
    let expected = predict(&mrpc, "lines.txt", lines.as_bytes());
    assert_eq!(predict(&mrpc, "published.tsv", rows.as_bytes()), expected);
    let hub = "sentence1,sentence2\nI like tea.,We had tea.\nI like tea.,We had soup.\n";
    assert_eq!(predict(&mrpc, "hub.csv", hub.as_bytes()), expected);

    // A run's folder that is used as an adapter still knows the columns.
    let input = write("again.csv", b"b,a\nWe had tea.,I like tea.\n");
    let flags = ["--input", text(&input), "--format", "jsonl"];
    let by_run = rows_of(&[&["predict", "--run", text(&pairs)][..], &flags].concat());
    let by_adapter = ["predict", "--adapter", text(&pairs), "--model", MODEL];
    assert_eq!(rows_of(&[&by_adapter[..], &flags].concat()), by_run);
    let lone = write("lone.txt", b"no tab\n");
    let said = refused(&[&by_adapter[..], &["--input", text(&lone)]].concat());
    assert!(said.contains("lone.txt:1: the line has no tab"), "{said}");

    // Each row has one text, and the header is not a row.
    let table = predict(
        &single,
        "s.csv",
        b"label,words\nsame,Tea.\nother,\"Soup, hot.\"\n",
    );
    let plain = predict(&single, "s.txt", b"Tea.\nSoup, hot.\n");
    assert_eq!(table, plain);
    assert_eq!(table[1]["text"], "Soup, hot.");
}

#[test]
fn generate_reads_the_column_that_the_run_was_trained_on() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    fs::create_dir(&data).unwrap();
    for split in ["train", "dev", "test"] {
        let rows = "{\"notes\": \"tea | hot\", \"letter\": \"The tea is hot.\"}\n{\"notes\": \"soup | cold\", \"letter\": \"The soup is cold.\"}\n";
        fs::write(data.join(format!("{split}.jsonl")), rows).unwrap();
    }
    let run = folder.path().join("run");
    json(&[
        "train",
        "--model",
        GPT2,
        "--task",
        "pairs",
        "--data",
        text(&data),
        "--prompt-column",
        "notes",
        "--completion-column",
        "letter",
        "--epochs",
        "1",
        "--num-beams",
        "1",
        "--max-new-tokens",
        "4",
        "--out",
        text(&run),
    ]);
    let written = |arguments: &[&str], input: &str| {
        let usual = ["generate", "--num-beams", "1", "--max-new-tokens", "6"];
        rows(&[&usual, arguments].concat(), input)
    };
    let lines = written(&["--run", text(&run)], "tea | hot\nsoup | cold\n");
    let file = |name: &str, bytes: &str| {
        let path = folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    };
    let dev = data.join("dev.jsonl");
    assert_eq!(
        written(&["--run", text(&run), "--input", text(&dev)], ""),
        lines
    );
    assert_eq!(written(&["--run", text(&run), "--split", "dev"], ""), lines);
    let csv = file("x.csv", "notes,more\ntea | hot,1\nsoup | cold,2\n");
    assert_eq!(
        written(&["--run", text(&run), "--input", text(&csv)], ""),
        lines
    );
    let csv = file("y.csv", "other\ntea | hot\nsoup | cold\n");
    let flags = [
        "--run",
        text(&run),
        "--input",
        text(&csv),
        "--prompt-column",
        "other",
    ];
    assert_eq!(written(&flags, ""), lines);

    // Prompts for a model without a run, from lines and from a table.
    let begun = written(&["--model", GPT2], "It is\nThe tea\n");
    let table = file(
        "begun.jsonl",
        "{\"prompt\": \"It is\"}\n{\"prompt\": \"The tea\"}\n",
    );
    assert_eq!(
        written(&["--model", GPT2, "--input", text(&table)], ""),
        begun
    );
    assert_eq!(
        written(&["--model", GPT2], "\u{feff}It is\nThe tea\n"),
        begun
    );
    // A tab is part of the text.
    let tab = written(&["--model", GPT2], "It\tis\n");
    assert_eq!(tab[0]["input"], "It\tis");

    let refuse = |name: &str, bytes: &str, more: &[&str]| {
        let path = file(name, bytes);
        let usual = ["generate", "--input", text(&path)];
        refused(&[&usual, more].concat())
    };
    let of_run = ["--run", text(&run)];
    assert!(refuse("z.csv", "prompt\nx\n", &of_run).contains("z.csv:1: no column `notes`"));
    assert!(refuse("z.csv", "notes\n\"\"\n", &of_run).contains("z.csv:2: the line is empty"));
    assert!(refuse("z.txt", "tea\n\nsoup\n", &of_run).contains("z.txt:2: the line is empty"));
    assert!(refuse("z.txt", "", &of_run).contains("there are no lines"));
    assert!(refuse("z.json", "[]", &of_run).contains("convert it"));
    assert!(
        refuse("z.jsonl", "plain\n", &["--model", GPT2]).contains("z.jsonl:1: not a JSON object")
    );
}
