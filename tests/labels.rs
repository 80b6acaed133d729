//! The outputs of a head are matched to the right classes, whatever the data and the model call them, and in whatever
//! order.
#![cfg(feature = "flex")]
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use common::{DATA, MODEL, json, mtlora, refused, small_data, text, text_reading};

/// A model with a trained head for `unacceptable` (output 0) and `acceptable` (output 1), and the scores that it has
/// with those names.
struct Trained {
    folder: tempfile::TempDir,
    model: PathBuf,
    run: PathBuf,
    accuracy: f64,
    loss: f64,
}

const ROWS: usize = 96;

impl Trained {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data = small_data(folder.path(), 400, ROWS);
        let [run, model] = ["run", "model"].map(|name| folder.path().join(name));
        let report = json(&[
            "train",
            "--model",
            MODEL,
            "--task",
            "acceptability",
            "--data",
            text(&data),
            "--out",
            text(&run),
            "--epochs",
            "2",
            "--batch",
            "16",
            "--lr",
            "5e-3",
            "--targets",
            "all-linear",
        ]);
        json(&["merge", "--run", text(&run), "--out", text(&model)]);
        let metric = |name: &str| report["metrics"][name].as_f64().unwrap();
        let (accuracy, loss) = (metric("accuracy"), metric("loss"));
        // Otherwise a swap of the two classes would not show.
        assert!((accuracy - 0.5).abs() > 0.02, "{accuracy}");
        Self {
            folder,
            model,
            run,
            accuracy,
            loss,
        }
    }

    /// The same examples as a table whose classes are called `names`: first that of output 0, then that of output 1.
    fn table(&self, names: [&str; 2]) -> PathBuf {
        let data = self
            .folder
            .path()
            .join(format!("table-{}-{}", names[0], names[1]));
        if data.exists() {
            return data;
        }
        fs::create_dir(&data).unwrap();
        for split in ["train", "dev"] {
            let rows = fs::read_to_string(Path::new(DATA).join(format!("{split}.tsv"))).unwrap();
            let rows = rows.lines().take(ROWS).map(|row| {
                let cells: Vec<&str> = row.split('\t').collect();
                let class = names[cells[1].parse::<usize>().unwrap()];
                json!({ "text": cells[3], "label": class }).to_string()
            });
            let rows: Vec<String> = rows.collect();
            fs::write(data.join(format!("{split}.jsonl")), rows.join("\n")).unwrap();
        }
        data
    }

    /// A copy of the model whose outputs are called `names`, in their order.
    fn renamed(&self, names: &[&str]) -> PathBuf {
        let to = self
            .folder
            .path()
            .join(format!("model-{}", names.join("-")));
        if to.exists() {
            return to;
        }
        fs::create_dir(&to).unwrap();
        for entry in fs::read_dir(&self.model).unwrap() {
            let path = entry.unwrap().path();
            fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
        }
        let path = to.join("config.json");
        let mut config: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        let numbered = || names.iter().enumerate();
        config["id2label"] = numbered()
            .map(|(id, name)| (id.to_string(), json!(name)))
            .collect();
        config["label2id"] = numbered()
            .map(|(id, name)| (name.to_string(), json!(id)))
            .collect();
        fs::write(&path, config.to_string()).unwrap();
        to
    }

    fn eval(&self, model: &Path, data: &Path, more: &[&str]) -> Value {
        let usual = [
            "eval",
            "--model",
            text(model),
            "--task",
            "table",
            "--data",
            text(data),
        ];
        json(&[&usual, more].concat())["metrics"].clone()
    }

    /// Asserts that `metrics` are those of outputs that were matched to the right classes.
    fn assert_right(&self, metrics: &Value) {
        assert_eq!(
            metrics["accuracy"].as_f64(),
            Some(self.accuracy),
            "{metrics}"
        );
        let loss = metrics["loss"].as_f64().unwrap();
        // Folding an adapter into weights rounds.
        assert!((loss - self.loss).abs() < 1e-5, "{loss} {}", self.loss);
    }
}

/// The program's standard error. The command must succeed.
fn notes(arguments: &[&str]) -> String {
    let output = mtlora(arguments);
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{errors}");
    errors
}

/// The scores of a trained head do not depend on what its outputs are called, as long as data and model agree.
/// `transformers` maps by `label2id` in the same way.
#[test]
fn scores_do_not_depend_on_the_order_of_classes() {
    let trained = Trained::new();
    // (names of outputs 0 and 1 in the model, in the data)
    let cases = [
        // In alphabetical order, and against it.
        (
            ["unacceptable", "acceptable"],
            ["unacceptable", "acceptable"],
        ),
        (["a", "z"], ["a", "z"]),
        (["z", "a"], ["z", "a"]),
        (["POS", "NEG"], ["pos", "neg"]),
        (["Wohl", "Übel"], ["wohl", "übel"]),
        // The outputs' numbers, and other numbers as names.
        (["LABEL_0", "LABEL_1"], ["0", "1"]),
        (["z", "a"], ["0", "1"]),
        (["10", "9"], ["10", "9"]),
        (["1", "0"], ["1", "0"]),
        // Without names in the model, the order of the data's classes is used.
        (["LABEL_0", "LABEL_1"], ["a", "z"]),
    ];
    for (model, data) in cases {
        let (model, data) = (trained.renamed(&model), trained.table(data));
        trained.assert_right(&trained.eval(&model, &data, &[]));
    }
    // A note says that the order was used.
    let (model, data) = (
        trained.renamed(&["LABEL_0", "LABEL_1"]),
        trained.table(["a", "z"]),
    );
    let said = notes(&[
        "eval",
        "--model",
        text(&model),
        "--task",
        "table",
        "--data",
        text(&data),
    ]);
    assert!(said.contains("LABEL_0 = a, LABEL_1 = z"), "{said}");

    // Names that do not agree are refused, and --labels gives the order.
    let (model, data) = (trained.renamed(&["z", "a"]), trained.table(["good", "bad"]));
    let said = refused(&[
        "eval",
        "--model",
        text(&model),
        "--task",
        "table",
        "--data",
        text(&data),
    ]);
    assert!(
        said.contains("their names do not match") && said.contains("--labels"),
        "{said}"
    );
    trained.assert_right(&trained.eval(&model, &data, &["--labels", "good,bad"]));

    // Training starts from the right head, F1 stays about the same class, and `eval` of the run agrees.
    let (model, data) = (trained.renamed(&["z", "a"]), trained.table(["z", "a"]));
    let run = trained.folder.path().join("next");
    let report = json(&[
        "train",
        "--model",
        text(&model),
        "--task",
        "table",
        "--data",
        text(&data),
        "--out",
        text(&run),
        "--epochs",
        "1",
        "--lr",
        "1e-9",
    ]);
    trained.assert_right(&report["metrics_before"]);
    let again = json(&["eval", "--run", text(&run)]);
    assert_eq!(again["metrics"], report["metrics"]);
    // F1 is about `z`, the second class in alphabetical order; the head's order does not change that.
    let plain = trained.eval(
        &trained.renamed(&["a", "z"]),
        &trained.table(["a", "z"]),
        &[],
    );
    let swapped = trained.eval(
        &trained.renamed(&["z", "a"]),
        &trained.table(["z", "a"]),
        &[],
    );
    let f1 = |metrics: &Value| metrics["f1"].as_f64().unwrap();
    // `z` is output 1 of the first model and output 0 of the second, so these are the F1 of different classes.
    assert!((f1(&plain) - f1(&swapped)).abs() > 1e-9);
    assert_eq!(f1(&again["metrics"]), f1(&report["metrics"]));
    assert!((f1(&again["metrics"]) - f1(&swapped)).abs() < 0.02);
}

#[test]
fn a_head_with_more_outputs_keeps_them_and_one_that_does_not_fit_can_be_replaced() {
    let trained = Trained::new();
    let data = trained.table(["down", "up"]);
    let out = trained.folder.path().join("out");
    let train = |model: &Path, more: &[&str]| {
        let usual = [
            "train",
            "--model",
            text(model),
            "--task",
            "table",
            "--data",
            text(&data),
            "--out",
            text(&out),
            "--overwrite",
            "--epochs",
            "1",
        ];
        [&usual, more]
            .concat()
            .into_iter()
            .map(str::to_string)
            .collect::<Vec<_>>()
    };
    let call = |arguments: Vec<String>| {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        refused(&arguments)
    };

    // A head of three outputs, made by training on three classes.
    let three = trained.folder.path().join("three");
    fs::create_dir(&three).unwrap();
    let rows: Vec<String> = ["neg", "neu", "pos", "neg", "neu", "pos"]
        .iter()
        .enumerate()
        .map(|(at, label)| {
            json!({ "text": format!("The tea number {at} is {label}."), "label": label })
                .to_string()
        })
        .collect();
    for split in ["train.jsonl", "dev.jsonl"] {
        fs::write(three.join(split), rows.join("\n")).unwrap();
    }
    let [run, model] = ["run-three", "model-three"].map(|name| trained.folder.path().join(name));
    json(&[
        "train",
        "--model",
        MODEL,
        "--task",
        "table",
        "--data",
        text(&three),
        "--out",
        text(&run),
        "--epochs",
        "1",
    ]);
    json(&["merge", "--run", text(&run), "--out", text(&model)]);

    for method in ["mtlora", "head", "full"] {
        let said = call(train(&model, &["--method", method]));
        assert!(said.contains("3 outputs (`neg`, `neu`, `pos`)"), "{said}");
        assert!(
            said.contains("2 classes (`down`, `up`)") && said.contains("--fresh-head"),
            "{said}"
        );
    }
    for method in ["mtlora", "head", "full"] {
        let arguments = train(&model, &["--method", method, "--fresh-head"]);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let report = json(&arguments);
        let scored = json(&["eval", "--run", text(&out)]);
        assert_eq!(scored["metrics"], report["metrics"], "{method}");
        let answer = text_reading(&["predict", "--run", text(&out)], "The tea is good.\n");
        assert!(
            answer.starts_with("text,pair,prediction,p(down),p(up)\n"),
            "{answer}"
        );
        let merged = trained.folder.path().join(format!("merged-{method}"));
        json(&["merge", "--run", text(&out), "--out", text(&merged)]);
        trained.eval(&merged, &data, &[]);
    }
    // `--regression` needs one output.
    let numbers = trained.table(["1", "2"]);
    let said = refused(&[
        "train",
        "--model",
        text(&model),
        "--task",
        "table",
        "--data",
        text(&numbers),
        "--regression",
        "--out",
        text(&out),
        "--overwrite",
    ]);
    assert!(said.contains("a regression needs one"), "{said}");

    // The training data has only two of the head's three classes, and the dev split has all. The head is kept.
    let two = trained.folder.path().join("two");
    fs::create_dir(&two).unwrap();
    let without: Vec<String> = rows
        .iter()
        .filter(|row| !row.contains("neu"))
        .cloned()
        .collect();
    fs::write(two.join("train.jsonl"), without.join("\n")).unwrap();
    fs::write(two.join("dev.jsonl"), rows.join("\n")).unwrap();
    let said = notes(&[
        "train",
        "--plain",
        "--model",
        text(&model),
        "--task",
        "table",
        "--data",
        text(&two),
        "--out",
        text(&out),
        "--overwrite",
        "--epochs",
        "1",
    ]);
    assert!(
        said.contains("classes that are not in the data: `neu`"),
        "{said}"
    );
    assert!(
        said.contains("3 classes: neg (2), neu (0), pos (2)"),
        "{said}"
    );
    let answer = text_reading(&["predict", "--run", text(&out)], "The tea is good.\n");
    assert!(
        answer.starts_with("text,pair,prediction,p(neg),p(neu),p(pos)\n"),
        "{answer}"
    );
}

#[test]
fn an_adapter_keeps_its_class_names_when_it_is_imported_and_scored() {
    let trained = Trained::new();
    // The base model's own names are LABEL_0 and LABEL_1; the run's adapter brings the head.
    let plain = trained.folder.path().join("plain");
    json(&["export", "--run", text(&trained.run), "--out", text(&plain)]);
    // The classes go along with the adapter, whatever the base model's outputs are called.
    let of_plain = ["predict", "--adapter", text(&plain), "--model", MODEL];
    let named = text_reading(&of_plain, "The dogs sleep.\n");
    assert!(
        named.starts_with("text,pair,prediction,p(unacceptable),p(acceptable)\n"),
        "{named}"
    );
    // An adapter that PEFT has saved knows no classes.
    fs::remove_file(plain.join("labels.json")).unwrap();
    let named = text_reading(&of_plain, "The dogs sleep.\n");
    assert!(
        named.starts_with("text,pair,prediction,p(LABEL_0),p(LABEL_1)\n"),
        "{named}"
    );
    let base = trained.folder.path().join("base");
    fs::create_dir(&base).unwrap();
    for entry in fs::read_dir(MODEL).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, base.join(path.file_name().unwrap())).unwrap();
    }
    let path = base.join("config.json");
    let mut config: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    config["id2label"] = json!({ "0": "z", "1": "a" });
    config["label2id"] = json!({ "z": 0, "a": 1 });
    fs::write(&path, config.to_string()).unwrap();

    let data = trained.table(["z", "a"]);
    let scored = json(&[
        "eval",
        "--adapter",
        text(&plain),
        "--model",
        text(&base),
        "--task",
        "table",
        "--data",
        text(&data),
    ]);
    trained.assert_right(&scored["metrics"]);
    let imported = trained.folder.path().join("imported");
    json(&[
        "import",
        "--adapter",
        text(&plain),
        "--model",
        text(&base),
        "--task",
        "table",
        "--data",
        text(&data),
        "--out",
        text(&imported),
    ]);
    trained.assert_right(&json(&["eval", "--run", text(&imported)])["metrics"]);

    // Without a train split, the classes are those that the model names, or the user.
    let alone = trained.folder.path().join("alone");
    fs::create_dir(&alone).unwrap();
    fs::copy(data.join("dev.jsonl"), alone.join("dev.jsonl")).unwrap();
    let of_adapter = [
        "eval",
        "--adapter",
        text(&plain),
        "--model",
        text(&base),
        "--task",
        "table",
        "--data",
        text(&alone),
    ];
    assert_eq!(json(&of_adapter)["metrics"], scored["metrics"]);
    let named = trained.renamed(&["z", "a"]);
    let by_model = trained.eval(&named, &alone, &[]);
    trained.assert_right(&by_model);
    assert_eq!(by_model, trained.eval(&named, &data, &[]));
    let unnamed = trained.renamed(&["LABEL_0", "LABEL_1"]);
    trained.assert_right(&trained.eval(&unnamed, &alone, &["--labels", "z,a"]));
    let refuse = |more: &[&str]| {
        let usual = [
            "eval",
            "--model",
            text(&unnamed),
            "--task",
            "table",
            "--data",
            text(&alone),
        ];
        refused(&[&usual, more].concat())
    };
    let message = refuse(&[]);
    assert!(message.contains("train.csv: no such file"), "{message}");
    assert!(message.contains("--labels"), "{message}");

    // Both answer alike, by name.
    let input = data.join("dev.jsonl");
    let answers = |arguments: &[&str]| {
        let more = ["--input", text(&input), "--format", "jsonl"];
        let lines = text_reading(&[arguments, &more].concat(), "");
        let answer = |line: &str| {
            let row: Value = serde_json::from_str(line).unwrap();
            row["prediction"].as_str().unwrap().to_string()
        };
        lines.lines().map(answer).collect::<Vec<_>>()
    };
    let by_adapter = answers(&["predict", "--adapter", text(&plain), "--model", text(&base)]);
    assert_eq!(answers(&["predict", "--run", text(&imported)]), by_adapter);
    let rows = fs::read_to_string(&input).unwrap();
    let right = rows.lines().zip(&by_adapter).filter(|(row, answer)| {
        let row: Value = serde_json::from_str(row).unwrap();
        row["label"] == json!(answer)
    });
    assert_eq!(right.count() as f64 / ROWS as f64, trained.accuracy);
    // An adapter without a head can be imported with a new one.
    let headless = trained.folder.path().join("headless");
    json(&[
        "combine",
        "--adapter",
        text(&trained.run),
        "--head",
        "none",
        "--out",
        text(&headless),
    ]);
    let three = trained.folder.path().join("three");
    fs::create_dir(&three).unwrap();
    let rows = "{\"text\":\"a\",\"label\":\"x\"}\n{\"text\":\"b\",\"label\":\"y\"}\n{\"text\":\"c\",\"label\":\"z\"}";
    for split in ["train.jsonl", "dev.jsonl"] {
        fs::write(three.join(split), rows).unwrap();
    }
    let import = [
        "import",
        "--adapter",
        text(&headless),
        "--model",
        text(&trained.model),
        "--task",
        "table",
        "--data",
        text(&three),
        "--overwrite",
        "--out",
        text(&imported),
    ];
    assert!(refused(&import).contains("--fresh-head"));
    json(&[&import[..], &["--fresh-head"]].concat());
    json(&["eval", "--run", text(&imported)]);

    // A table is scored by the columns that the flags name.
    let renamed = trained.folder.path().join("renamed");
    fs::create_dir(&renamed).unwrap();
    for split in ["train.jsonl", "dev.jsonl"] {
        let rows = fs::read_to_string(trained.table(["z", "a"]).join(split)).unwrap();
        let rows = rows
            .replace("\"text\":", "\"words\":")
            .replace("\"label\":", "\"kind\":");
        fs::write(renamed.join(split), rows).unwrap();
    }
    let columns = ["--text-column", "words", "--label-column", "kind"];
    trained.assert_right(&trained.eval(&trained.renamed(&["z", "a"]), &renamed, &columns));

    // A run's folder, used as an adapter, says what its outputs are called.
    let own = answers(&[
        "predict",
        "--adapter",
        text(&trained.run),
        "--model",
        text(&base),
        "--text-column",
        "text",
    ]);
    assert!(
        own.iter().all(|name| name.ends_with("acceptable")),
        "{own:?}"
    );
}

#[test]
fn classes_are_counted_and_likely_mistakes_are_reported() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    let data = folder.path().join("data");
    fs::create_dir(&data).unwrap();
    let train = |rows: &str, more: &[&str]| {
        for split in ["train.csv", "dev.csv"] {
            fs::write(data.join(split), rows).unwrap();
        }
        let usual = [
            "train",
            "--plain",
            "--model",
            MODEL,
            "--task",
            "table",
            "--data",
            text(&data),
            "--out",
            text(&out),
            "--overwrite",
            "--epochs",
            "1",
        ];
        let arguments: Vec<String> = [&usual, more]
            .concat()
            .into_iter()
            .map(str::to_string)
            .collect();
        arguments
    };
    let said = |rows: &str, more: &[&str]| {
        let arguments = train(rows, more);
        notes(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
    };
    let few = said("text,label\na,x\nb,y\nc,x\nd,y\ne,x\n", &[]);
    assert!(few.contains("2 classes: x (3), y (2)\n"), "{few}");
    assert!(few.contains("f1 is computed for the class `y`\n"), "{few}");
    assert!(
        !few.contains("missing value") && !few.contains("differ only"),
        "{few}"
    );
    let spelled = said("text,label\na,Yes\nb,yes\nc,no\nd,no\ne,yes\nf,no\n", &[]);
    assert!(
        spelled.contains("3 classes: Yes (1), no (3), yes (2)\n"),
        "{spelled}"
    );
    assert!(
        spelled.contains("`Yes` (1) and `yes` (2) differ only in case"),
        "{spelled}"
    );
    let missing = said("text,label\na,NaN\nb,yes\nc,no\nd,no\ne,yes\nf,no\n", &[]);
    assert!(
        missing.contains("`NaN` (1 rows) looks like a missing value"),
        "{missing}"
    );
    let many = said("text,label\na,0.5\nb,0.75\nc,1.25\n", &[]);
    assert!(
        many.contains("3 classes in 3 rows") && many.contains("--regression"),
        "{many}"
    );
    // A regression has no classes.
    let regression = said("text,label\na,0.5\nb,0.75\nc,1.25\n", &["--regression"]);
    assert!(!regression.contains("classes"), "{regression}");

    // One column cannot have two roles.
    for more in [
        &["--text-column", "label"][..],
        &["--label-column", "text"],
        &["--pair-column", "text"],
        &["--pair-column", " label "],
        &["--text-column", "x", "--pair-column", "x"],
    ] {
        let arguments = train("text,label,x\na,yes,1\nb,no,2\n", more);
        let said = refused(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
        assert!(said.contains("needs its own column"), "{more:?} {said}");
    }
}
