//! `mtlora sweep` as a user runs it: once, killed, by several processes, and with runs that fail.
#![cfg(feature = "flex")]
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use common::{MODEL, json, mtlora, refused, small_data, text, text_reading};

/// How often the test kills a sweep, unless `MTLORA_SWEEP_KILLS` says another number.
const KILLS: u64 = 8;

/// Twelve runs: two arms, each with two runs that choose its learning rate and four that are scored.
const TWELVE: &str = r#"
seeds = [1, 2, 3, 4]
tuning_seeds = [9]
threads = 1

[settings]
targets = "query,value"
rank = 2
batch = 8
epochs = 2
save_steps = 3

[grid]
lr = [1e-3, 1e-2]

[arms.lora]
structure = "lora"

[arms.shim]
structure = "shim"
"#;

/// A folder with a small data set and the file of a sweep on it.
struct Place {
    folder: TempDir,
    file: PathBuf,
}

impl Place {
    fn new(sweep: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data = small_data(folder.path(), 64, 24);
        let file = folder.path().join("sweep.toml");
        let task = format!(
            "\n[tasks.acceptability]\nmodel = '{MODEL}'\ndata = '{}'\n",
            data.display()
        );
        fs::write(&file, format!("{sweep}{task}")).unwrap();
        Self { folder, file }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn arguments<'a>(&'a self, out: &'a Path) -> Vec<&'a str> {
        vec!["sweep", "run", text(&self.file), "--out", text(out)]
    }

    fn start(&self, out: &Path) -> Child {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mtlora"));
        command.args(self.arguments(out));
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().unwrap()
    }
}

/// Every file with this name below a folder, by the path of its folder.
fn files(folder: &Path, name: &str) -> BTreeMap<String, PathBuf> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(one) = folders.pop() {
        for entry in fs::read_dir(&one).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.file_name().unwrap().to_str().unwrap().ends_with(name) {
                let inside = path.strip_prefix(folder).unwrap();
                found.insert(inside.display().to_string(), path);
            }
        }
    }
    found
}

fn read_json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// What the runs of a sweep have learned and scored, which must not depend on who made them when.
fn learned(out: &Path) -> BTreeMap<String, (Vec<u8>, Value, Value)> {
    let runs = out.join("runs");
    let results = files(&runs, "results.json");
    let all = results.into_iter().map(|(name, path)| {
        let weights = path.with_file_name("adapter_model.safetensors");
        let results = read_json(&path);
        let scores = (results["metrics"].clone(), results["scored"].clone());
        (name, (fs::read(weights).unwrap(), scores.0, scores.1))
    });
    all.collect()
}

/// How often the history of each run has an event.
fn counted(out: &Path, event: &str) -> BTreeMap<String, usize> {
    let claims = files(&out.join("claims"), ".log");
    let count = |path: &PathBuf| {
        let history = fs::read_to_string(path).unwrap();
        history.lines().filter(|line| line.ends_with(event)).count()
    };
    claims
        .iter()
        .map(|(name, path)| (name.clone(), count(path)))
        .collect()
}

#[test]
fn a_sweep_that_is_killed_again_and_again_ends_as_if_it_had_not_been() {
    let place = Place::new(TWELVE);
    let (whole, killed) = (place.path("whole"), place.path("killed"));
    let status = json(&place.arguments(&whole));
    assert_eq!(
        (&status["done"], &status["total"]),
        (&12.into(), &12.into())
    );

    let kills = std::env::var("MTLORA_SWEEP_KILLS");
    let kills = kills.map_or(KILLS, |kills| kills.parse().unwrap());
    // Waits of up to a second and a half, which reach every stage of a run of this size.
    let mut random: u64 = 20_240_607;
    for _ in 0..kills {
        let mut child = place.start(&killed);
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        std::thread::sleep(Duration::from_millis((random >> 33) % 1500));
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let mut both = [place.start(&killed), place.start(&killed)];
    for child in &mut both {
        assert!(child.wait().unwrap().success());
    }
    let (expected, found) = (learned(&whole), learned(&killed));
    assert_eq!(
        expected.keys().collect::<Vec<_>>(),
        found.keys().collect::<Vec<_>>()
    );
    assert_eq!(expected.len(), 12);
    for (name, one) in &expected {
        assert!(*one == found[name], "{name} differs");
    }
    let ends = counted(&killed, " ends");
    assert_eq!(ends.len(), 12);
    for (name, count) in ends {
        // A process that is killed after the results are written does not write that it has ended.
        assert!(count <= 1, "{name} was completed {count} times");
    }
    assert!(counted(&whole, " begins").values().all(|count| *count == 1));
    // The tables are the same to the byte, in every form.
    for format in ["markdown", "latex", "csv", "json"] {
        let table = |out: &Path| text_reading(&["table", text(out), "--format", format], "");
        assert_eq!(table(&whole), table(&killed), "{format}");
        assert!(table(&whole).contains("shim"), "{format}");
    }
    // Nothing is made again.
    let again = json(&place.arguments(&killed));
    assert_eq!(again["done"], 12);
    assert_eq!(learned(&killed), expected);
}

#[test]
fn a_run_of_a_sweep_is_that_of_train() {
    let sweep = TWELVE.replace("seeds = [1, 2, 3, 4]", "seeds = [5]");
    let place = Place::new(&sweep);
    let (out, own) = (place.path("out"), place.path("own"));
    let arguments = place.arguments(&out);
    // Two processes share what is to be made.
    let status = json(&[&arguments[..], &["--jobs", "2"]].concat());
    assert_eq!(status["done"], 6);
    let chosen = status["arms"][1]["chosen"].as_str().unwrap();
    let lr = chosen.strip_prefix("lr=").unwrap();
    let data = place.path("data");
    let common = [
        "train",
        "--model",
        MODEL,
        "--task",
        "acceptability",
        "--data",
        text(&data),
    ];
    let settings = "--structure shim --targets query,value --rank 2 --batch 8 --epochs 2 --save-steps 3 --threads 1 \
                    --validation-fraction 0.1";
    let settings: Vec<&str> = settings.split_whitespace().collect();
    let own_place = [
        "--out",
        text(&own),
        "--seed",
        "5",
        "--lr",
        lr,
        "--score-split",
        "dev",
    ];
    let results = json(&[&common[..], &settings, &own_place].concat());
    let run = out.join("runs/acceptability/shim/final/seed-5");
    let of_sweep = read_json(&run.join("results.json"));
    assert_eq!(results["metrics"], of_sweep["metrics"]);
    assert_eq!(results["scored"], of_sweep["scored"]);
    assert_eq!(results["scored"]["split"], "dev");
    let weights = |folder: &Path| fs::read(folder.join("adapter_model.safetensors")).unwrap();
    assert!(weights(&run) == weights(&own));
    // The score is what `eval` computes on dev.
    let eval = json(&["eval", "--run", text(&run)]);
    assert_eq!(eval["split"], "dev");
    let accuracy = |metrics: &Value| metrics["accuracy"].as_f64().unwrap();
    assert_eq!(
        accuracy(&eval["metrics"]),
        accuracy(&of_sweep["scored"]["metrics"])
    );
    assert!(
        !run.join("checkpoints").exists()
            || fs::read_dir(run.join("checkpoints"))
                .unwrap()
                .next()
                .is_none()
    );
}

#[test]
fn a_run_that_diverges_is_a_result() {
    let sweep = TWELVE
        .replace("seeds = [1, 2, 3, 4]", "seeds = [5, 6]")
        .replace("[arms.shim]", "[arms.wild]\ngrid.lr = [1e30, 2e30]");
    let place = Place::new(&sweep);
    let out = place.path("out");
    let status = json(&place.arguments(&out));
    assert_eq!((&status["done"], &status["total"]), (&8.into(), &8.into()));
    let arms = status["arms"].as_array().unwrap();
    let diverged: Vec<u64> = arms
        .iter()
        .map(|arm| arm["diverged"].as_u64().unwrap())
        .collect();
    assert_eq!(diverged, [0, 4]);
    let table = text_reading(&["table", text(&out)], "");
    assert!(table.contains("| wild | 2 of 2 diverged |"), "{table}");
    assert!(
        table.contains("| acceptability | wild | lr=1e30 |"),
        "{table}"
    );
    let again = json(&["sweep", "status", text(&out)]);
    assert_eq!(again, status);
}

#[test]
fn single_runs_can_be_started_by_other_programs() {
    let sweep = TWELVE.replace("seeds = [1, 2, 3, 4]", "seeds = [5]");
    let place = Place::new(&sweep);
    let out = place.path("my out");
    let commands = text_reading(
        &["sweep", "commands", text(&place.file), "--out", text(&out)],
        "",
    );
    let lines: Vec<&str> = commands.lines().collect();
    assert_eq!(lines.len(), 6);
    let names: Vec<&str> = lines
        .iter()
        .map(|line| line.rsplit_once(" --cell ").unwrap().1)
        .collect();
    assert_eq!(names[0], "acceptability/lora/tune/lr=1e-3/seed-9");
    assert!(lines[0].contains("--out '"), "{}", lines[0]);
    // A final run makes the runs that choose its settings, too, and no others.
    let final_run = names
        .iter()
        .position(|name| name.contains("shim/final"))
        .unwrap();
    let status = json(&[&place.arguments(&out)[..], &["--cell", names[final_run]]].concat());
    assert_eq!(status["done"], 3);
    let unknown = refused(&[&place.arguments(&out)[..], &["--cell", "x"]].concat());
    assert!(unknown.contains("the sweep has no run x"), "{unknown}");
    // Another run that chooses settings could choose others than those of the final runs that are there.
    let more = fs::read_to_string(&place.file).unwrap();
    fs::write(
        &place.file,
        more.replace("tuning_seeds = [9]", "tuning_seeds = [9, 10]"),
    )
    .unwrap();
    let error = refused(&place.arguments(&out));
    assert!(error.contains("would be changed or removed"), "{error}");
    // An arm none of whose runs has begun may change.
    let other = more.replace("structure = \"lora\"", "structure = \"lora\"\nalpha = 3");
    fs::write(&place.file, other).unwrap();
    let status = json(&[&place.arguments(&out)[..], &["--cell", names[final_run]]].concat());
    assert_eq!(status["done"], 3);
    let kept = fs::read_to_string(out.join("sweep.toml")).unwrap();
    assert!(kept.contains("alpha = 3"));
    let error = refused(&[&place.arguments(&out)[..], &["--threads", "2"]].concat());
    assert!(error.contains("threads = 1"), "{error}");
}

#[test]
fn what_does_not_fit_is_refused_before_anything_runs() {
    let place = Place::new(TWELVE);
    let out = place.path("out");
    let arguments = place.arguments(&out);
    let whole = fs::read_to_string(&place.file).unwrap();
    let cases = [
        ("rank = 2", "rank = 0", "rank"),
        (MODEL, "./nowhere/at-all", "nowhere/at-all"),
        ("data = '", "data = '/nowhere", "train"),
        (
            "structure = \"shim\"",
            "structure = \"shim\"\nnum_beams = 3",
            ":19:7: arm shim on acceptability: only data-to-text",
        ),
        (
            "structure = \"shim\"",
            "structure = \"adalora\"\ntinit = 5000",
            "tinit = 5000 does not suit a training of 16 steps",
        ),
        (
            "epochs = 2",
            "epoch = 2",
            "sweep.toml:10:1: unknown field `epoch`",
        ),
    ];
    for (from, to, message) in cases {
        assert!(whole.contains(from), "{from}");
        fs::write(&place.file, whole.replacen(from, to, 1)).unwrap();
        let error = refused(&arguments);
        assert!(error.contains(message), "{to}: {error}");
        assert!(!out.exists(), "{to}");
    }
    let status = refused(&["sweep", "status", text(&place.path("data"))]);
    assert!(
        status.contains("it is not the folder of a sweep"),
        "{status}"
    );
}

#[test]
fn a_sweep_can_grow_but_what_is_there_stays() {
    let small = TWELVE
        .replace("seeds = [1, 2, 3, 4]", "seeds = [5]")
        .replace("lr = [1e-3, 1e-2]", "lr = [1e-2]");
    let place = Place::new(&small);
    let out = place.path("out");
    let first = fs::read_to_string(&place.file).unwrap();
    assert_eq!(json(&place.arguments(&out))["total"], 2);
    let before = learned(&out);
    let change =
        |from: &str, to: &str| fs::write(&place.file, first.replacen(from, to, 1)).unwrap();
    for (from, to) in [
        ("rank = 2", "rank = 3"),
        ("[5]", "[6]"),
        ("[1e-2]", "[1e-2, 1e-3]"),
    ] {
        change(from, to);
        let error = refused(&place.arguments(&out));
        assert!(
            error.contains("would be changed or removed"),
            "{to}: {error}"
        );
    }
    change("[5]", "[5, 6]");
    assert_eq!(json(&place.arguments(&out))["total"], 4);
    let after = learned(&out);
    assert!(before.iter().all(|(name, one)| after[name] == *one));
    // A folder with something else is left alone.
    let other = place.path("data");
    let output = mtlora(&place.arguments(&other));
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains("it is not the folder of a sweep"), "{error}");
    assert!(!other.join("sweep.toml").exists());
}

#[test]
fn a_sweep_has_a_table_a_page_and_files_for_peft() {
    let place = Place::new(&format!(
        "{}\n[[published]]\nname = 'others'\nsource = 'a paper'\nscores.acceptability = '63.4 ± 1.2'\n",
        TWELVE
            .replace("seeds = [1, 2, 3, 4]", "seeds = [5, 6, 7]")
            .replace("epochs = 2", "epochs = 1")
    ));
    let out = place.path("out");
    json(&place.arguments(&out));
    let found = json(&["table", text(&out)]);
    let arms = &found["comparison"]["tasks"][0]["arms"];
    for (arm, name) in [(0, "lora"), (1, "shim")] {
        for (at, seed) in [5, 6, 7].into_iter().enumerate() {
            let run = out.join(format!(
                "runs/acceptability/{name}/final/seed-{seed}/results.json"
            ));
            let score = read_json(&run)["scored"]["metrics"]["accuracy"]
                .as_f64()
                .unwrap();
            let shown = arms[arm]["scores"][at].as_f64().unwrap();
            assert!((shown - 100.0 * score).abs() < 1e-9);
        }
        assert!(arms[arm]["costs"]["trainable_parameters"].as_u64().unwrap() > 0);
    }
    let shim = &found["analysis"]["tasks"][0][1];
    // Three seeds cannot show any difference.
    assert_eq!(shim["difference"]["conclusion"], "too-few-seeds");
    assert_eq!(shim["difference"]["pairs"], 3);
    let turned = json(&[
        "table",
        text(&out),
        "--baseline",
        "shim",
        "--metric",
        "loss",
    ]);
    let lora = &turned["analysis"]["tasks"][0][0];
    assert!(lora["difference"].is_object() && turned["comparison"]["tasks"][0]["scale"] == 1.0);
    let table = text_reading(&["table", text(&out), "--costs"], "");
    assert!(
        table.contains("63.4 ± 1.2") && table.contains("## What a run needs"),
        "{table}"
    );
    assert!(refused(&["table", text(&out), "--baseline", "x"]).contains("one of lora, shim"));
    assert!(refused(&["table", text(&out), "--metric", "x"]).contains("has no metric x"));

    let page = place.path("page.html");
    json(&["report", text(&out), "--out", text(&page)]);
    let page = fs::read_to_string(page).unwrap();
    // Two arms with three seeds.
    assert_eq!(page.matches("<circle").count(), 6);
    assert!(page.contains("63.4 ± 1.2") && !page.contains("NaN") && !page.contains("<script"));
    assert_eq!(page.matches("<svg").count(), page.matches("</svg>").count());
    let run = out.join("runs/acceptability/lora/final/seed-5");
    let other = out.join("runs/acceptability/shim/final/seed-5");
    assert!(refused(&["report", text(&out), text(&run)]).contains("name it alone"));

    let peft = place.path("peft");
    text_reading(
        &[
            "table",
            text(&out),
            "--format",
            "peft",
            "--out",
            text(&peft),
        ],
        "",
    );
    let files = files(&peft, ".json");
    assert_eq!(files.len(), 6);
    let one = read_json(&files["acceptability~shim~final~seed-6.json"]);
    assert_eq!(
        one["run_info"]["experiment_name"],
        "acceptability/shim/final/seed-6"
    );
    assert_eq!(one["train_info"]["status"], "success");
    let last = one["train_info"]["metrics"]
        .as_array()
        .unwrap()
        .last()
        .unwrap();
    assert!(last["test accuracy"].is_number() && last["train loss"].is_number());
    assert!(one["train_info"]["file_size"].as_u64().unwrap() > 0);
    assert!(one["meta_info"]["package_info"]["mtlora-version"].is_string());
    let by_loss = place.path("by-loss");
    let arguments = [
        "table",
        text(&out),
        "--format",
        "peft",
        "--metric",
        "loss",
        "--out",
        text(&by_loss),
    ];
    text_reading(&arguments, "");
    let one = read_json(&by_loss.join("acceptability~shim~final~seed-6.json"));
    let last = &one["train_info"]["metrics"][0];
    assert_eq!(last["metric"], "loss");
    assert_eq!(last["test accuracy"], last["metrics"]["loss"]);

    // A score that is not a number, as JSON has it, is that of a complete run.
    let results = run.join("results.json");
    let whole = fs::read_to_string(&results).unwrap();
    let mut changed = read_json(&results);
    changed["scored"]["metrics"]["accuracy"] = Value::Null;
    fs::write(&results, changed.to_string()).unwrap();
    let output = mtlora(&["table", text(&out)]);
    let table = String::from_utf8(output.stdout).unwrap();
    assert!(table.contains("(1 of 3 NaN) |"), "{table}");
    assert!(output.stderr.is_empty());
    // A damaged file does not keep the other runs from being shown.
    fs::write(&results, &whole[..whole.len() / 2]).unwrap();
    let page = place.path("damaged.html");
    for arguments in [
        vec!["table", text(&out)],
        vec!["sweep", "status", text(&out)],
        vec!["report", text(&out), "--out", text(&page)],
        vec!["report", text(&run), text(&other), "--out", text(&page)],
    ] {
        let output = mtlora(&arguments);
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{arguments:?}: {error}");
        assert!(
            error.contains("results.json: the file is damaged"),
            "{error}"
        );
    }
    assert!(refused(&["report", text(&run)]).contains("the file is damaged"));
    let error = refused(&place.arguments(&out));
    assert!(
        error.contains("the file is damaged") && error.contains("1 of 10 runs failed"),
        "{error}"
    );
    // It can be mended as the message says.
    fs::remove_file(&results).unwrap();
    assert_eq!(json(&place.arguments(&out))["done"], 10);
}

#[test]
fn the_papers_tables_are_listed_printed_and_looked_for_before_anything_runs() {
    let found = json(&["reproduce"]);
    let tables = found["tables"].as_array().unwrap();
    assert_eq!(tables.len(), 3);
    for table in tables {
        let name = table["name"].as_str().unwrap();
        let printed = text_reading(&["reproduce", name, "--print"], "");
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("recipes/{name}.toml"));
        assert_eq!(printed, fs::read_to_string(path).unwrap());
        assert!(table["runs"].as_u64().unwrap() > 100);
    }
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let output = Command::new(env!("CARGO_BIN_EXE_mtlora"))
        .current_dir(folder.path())
        .env("HF_HUB_OFFLINE", "1")
        .env("HF_HOME", folder.path().join("empty"))
        .args(["reproduce", "nlg-gpt2-medium", "--out", text(&out)])
        .output()
        .unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{error}");
    assert!(
        error.contains("recipes/nlg-gpt2-medium.toml:") && error.contains("gpt2-medium"),
        "{error}"
    );
    assert!(!out.exists());
    // A Hub that cannot be reached is not asked again for each of the arms and tasks.
    let output = Command::new(env!("CARGO_BIN_EXE_mtlora"))
        .current_dir(folder.path())
        .env("HF_ENDPOINT", "http://127.0.0.1:1")
        .env("HF_HOME", folder.path().join("empty"))
        .args(["reproduce", "glue-roberta-base", "--check"])
        .output()
        .unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(error.matches("cannot reach").count(), 1, "{error}");
    assert!(refused(&["reproduce", "x"]).contains("one of glue-roberta-base"));
}

#[test]
fn what_the_runs_will_lack_is_said_before_they_are_made() {
    let place = Place::new(
        r#"
        seeds = [1]
        [settings]
        epochs = 1
        [arms.lora]
        structure = "lora"
        [arms.full]
        method = "full"
        [arms.adalora]
        structure = "adalora"
        rank = 4
        target_r = 2
        tinit = 1
        tfinal = 1
        delta_t = 1
        "#,
    );
    let out = place.path("out");
    let whole = fs::read_to_string(&place.file).unwrap();
    fs::write(&place.file, format!("{whole}metric = \"acuracy\"\n")).unwrap();
    let said = refused(&place.arguments(&out));
    assert!(
        said.contains("the runs have no metric acuracy: choose one of accuracy, "),
        "{said}"
    );
    let data = place.path("data");
    let second = format!(
        "\n[tasks.second]\ntask = \"acceptability\"\nmodel = '{MODEL}'\ndata = '{}'\nstarts_from = \"acceptability\"\n",
        data.display()
    );
    fs::write(&place.file, format!("{whole}{second}")).unwrap();
    let said = refused(&place.arguments(&out));
    for what in [
        "arm full on second: method full",
        "arm adalora on second: an adapter with structure adalora",
    ] {
        assert!(
            said.contains(&format!("{what} cannot start from the run of another task")),
            "{said}"
        );
    }
    assert!(!said.contains("arm lora"), "{said}");
}

/// An evaluation after each step sees what has become of the weights before the next loss does.
#[test]
fn a_run_whose_evaluation_is_not_finite_has_diverged() {
    let place = Place::new(
        r#"
        seeds = [1, 2]
        [settings]
        epochs = 1
        batch = 8
        eval_steps = 1
        warmup_ratio = 0
        [arms.lora]
        structure = "lora"
        [arms.wild]
        method = "full"
        lr = 1e30
        "#,
    );
    let out = place.path("out");
    let made = json(&place.arguments(&out));
    assert_eq!(made["done"], 4, "{made}");
    let arms = made["arms"].as_array().unwrap().iter();
    let diverged: Vec<Option<u64>> = arms.map(|arm| arm["diverged"].as_u64()).collect();
    assert_eq!(diverged, [Some(0), Some(2)], "{made}");
}
