//! The program with names on the Hub in place of folders.
#![cfg(all(feature = "flex", feature = "hub"))]
#![allow(clippy::unwrap_used)]

mod common;
#[path = "../crates/mtlora-hub/tests/server/mod.rs"]
mod server;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

use common::MODEL;
use server::{COMMIT, Fault, Server, etag};

const NAME: &str = "org/tiny";
const GLUE: &str = "nyu-mll/glue";
const DATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/hub/glue");
const WEIGHTS: &str = "model.safetensors";

/// A test Hub with a tiny model and CoLA, and the home folder of a user.
struct Setup {
    server: Server,
    home: tempfile::TempDir,
}

impl Setup {
    fn new() -> Self {
        let server = Server::start();
        let file = |folder: &str, name: &'static str| {
            (name, fs::read(Path::new(folder).join(name)).unwrap())
        };
        let model = [
            "config.json",
            "tokenizer.json",
            "tokenizer_config.json",
            WEIGHTS,
        ];
        let mut files: Vec<_> = model.into_iter().map(|name| file(MODEL, name)).collect();
        files.push(("pytorch_model.bin", b"a pickle".to_vec()));
        server.model(NAME, files);
        let data = [
            "cola/train-00000-of-00001.parquet",
            "cola/validation-00000-of-00001.parquet",
            "cola/test-00000-of-00001.parquet",
            "rte/validation-00000-of-00001.parquet",
        ];
        server.dataset(GLUE, data.into_iter().map(|name| file(DATA, name)));
        Self {
            server,
            home: tempfile::tempdir().unwrap(),
        }
    }

    fn path(&self, name: &str) -> String {
        self.home.path().join(name).to_str().unwrap().to_string()
    }

    fn run(&self, arguments: &[&str], variables: &[(&str, &str)]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mtlora"));
        for (name, _) in std::env::vars() {
            if name.starts_with("HF_")
                || name.starts_with("HUGGING")
                || name.starts_with("TRANSFORMERS_")
            {
                command.env_remove(name);
            }
        }
        command
            .args(arguments)
            .env("HF_ENDPOINT", self.server.endpoint())
            .env("HF_HOME", self.home.path())
            .env("NO_PROXY", "127.0.0.1")
            .envs(variables.iter().copied())
            .output()
            .unwrap()
    }

    fn json(&self, arguments: &[&str], variables: &[(&str, &str)]) -> Value {
        let output = self.run(&[arguments, &["--json"]].concat(), variables);
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let text = String::from_utf8(output.stdout).unwrap();
        serde_json::from_str(text.lines().last().unwrap()).unwrap()
    }

    fn refused(&self, arguments: &[&str], variables: &[(&str, &str)]) -> String {
        let output = self.run(arguments, variables);
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{text}");
        assert!(!text.contains("panicked"), "{text}");
        text
    }

    /// The paths of the requests since the last call, without the Hub's address.
    fn asked(&self) -> Vec<String> {
        self.server
            .requests()
            .into_iter()
            .map(|request| request.path)
            .collect()
    }

    fn blob(&self, ending: &str) -> PathBuf {
        let name = format!("hub/models--org--tiny/blobs/{}{ending}", weights());
        self.home.path().join(name)
    }
}

/// The hash that names the weights on the Hub.
fn weights() -> String {
    etag(&fs::read(Path::new(MODEL).join(WEIGHTS)).unwrap())
}

fn train<'a>(model: &'a str, out: &'a str) -> Vec<&'a str> {
    vec![
        "train", "--model", model, "--task", "cola", "--out", out, "--epochs", "1", "--batch",
        "16", "--plain", "--device", "flex",
    ]
}

#[test]
fn a_model_and_a_task_from_the_hub_are_fetched_once() {
    let setup = Setup::new();
    let [first, second, third] = ["a", "b", "c"].map(|name| setup.path(name));
    let trained = setup.json(&train(NAME, &first), &[]);
    let asked = setup.asked();
    let count =
        |asked: &[String], part: &str| asked.iter().filter(|path| path.contains(part)).count();
    assert_eq!(count(&asked, &weights()), 1);
    for unwanted in [".bin", "/rte/", "test-00000"] {
        assert_eq!(count(&asked, unwanted), 0, "{asked:?}");
    }

    let again = setup.json(&train(NAME, &second), &[]);
    assert_eq!(again["metrics"], trained["metrics"]);
    let asked = setup.asked();
    assert_eq!(asked.len(), 2, "{asked:?}");
    assert_eq!(count(&asked, "/api/"), 2, "{asked:?}");

    let offline = setup.json(&train(NAME, &third), &[("HF_HUB_OFFLINE", "1")]);
    assert_eq!(offline["metrics"], trained["metrics"]);
    assert_eq!(setup.asked(), [""; 0]);

    // A run remembers the commit, and downloads it again when the cache is gone.
    fs::rename(setup.home.path().join("hub"), setup.home.path().join("old")).unwrap();
    let evaluated = setup.json(&["eval", "--run", &first], &[]);
    assert_eq!(evaluated["metrics"], trained["metrics"]);
    let asked = setup.asked();
    let pinned = format!("/api/models/org/tiny/revision/{COMMIT}");
    assert!(asked.contains(&pinned), "{asked:?}");
    assert_eq!(count(&asked, "train-00000"), 0, "{asked:?}");
    setup.json(&["eval", "--run", &first], &[]);
    assert_eq!(setup.asked(), [""; 0]);

    // A model without a run can be scored at a revision.
    let named = format!("{NAME}@{COMMIT}");
    let scored = setup.json(&["eval", "--model", &named, "--task", "cola"], &[]);
    assert_eq!(scored["examples"], 64);
    let merged = setup.path("merged");
    setup.json(
        &["merge", "--run", &first, "--out", &merged],
        &[("HF_HUB_OFFLINE", "1")],
    );
    assert!(Path::new(&merged).join("tokenizer.json").exists());
}

#[test]
fn an_interrupted_download_is_resumed_by_the_next_run() {
    let setup = Setup::new();
    let out = setup.path("run");
    setup.server.fault(&weights(), Fault::Cut(1_000_000), 1);
    setup
        .server
        .fault(&weights(), Fault::Status(403, vec![]), 1);
    let text = setup.refused(&train(NAME, &out), &[]);
    assert!(text.contains("model org/tiny"), "{text}");
    assert!(!text.contains("very-secret"), "{text}");
    assert_eq!(
        fs::metadata(setup.blob(".incomplete")).unwrap().len(),
        1_000_000
    );
    assert!(!setup.blob("").exists());
    assert!(!Path::new(&out).exists());
    setup.server.requests();

    setup.json(&train(NAME, &out), &[]);
    let ranges: Vec<_> = setup
        .server
        .requests()
        .into_iter()
        .filter_map(|request| request.range)
        .collect();
    assert_eq!(ranges, ["bytes=1000000-"; 2]);
    assert!(setup.blob("").exists() && !setup.blob(".incomplete").exists());
}

#[test]
fn weights_with_a_wrong_hash_are_refused_and_leave_nothing() {
    let setup = Setup::new();
    let out = setup.path("run");
    setup.server.fault(&weights(), Fault::Corrupt, 1);
    let text = setup.refused(&train(NAME, &out), &[]);
    assert!(
        text.contains("model.safetensors did not arrive whole: its hash is"),
        "{text}"
    );
    assert!(!setup.blob("").exists() && !setup.blob(".incomplete").exists());
    let snapshot = format!("hub/models--org--tiny/snapshots/{COMMIT}/{WEIGHTS}");
    assert!(fs::symlink_metadata(setup.home.path().join(snapshot)).is_err());
    assert!(!Path::new(&out).exists());
}

#[test]
fn errors_say_what_was_asked_for_and_what_to_do() {
    let setup = Setup::new();
    let out = setup.path("run");
    let refused =
        |model: &str, variables: &[(&str, &str)]| setup.refused(&train(model, &out), variables);
    let text = refused("org/nothing", &[]);
    for part in [
        "org/nothing is not a folder here",
        "no such model",
        "set HF_TOKEN",
        &setup.server.endpoint(),
    ] {
        assert!(text.contains(part), "{text}");
    }
    // What does not exist is not asked for again.
    let asked = setup.asked().into_iter();
    assert_eq!(asked.filter(|path| path.contains("nothing")).count(), 1);
    let text = refused("org/tiny@v7", &[]);
    assert!(text.contains("no such revision"), "{text}");
    let text = refused("no/such/folder", &[]);
    assert!(
        text.contains("no/such/folder is not a model folder: it does not exist"),
        "{text}"
    );
    let text = refused("org/other", &[("HF_HUB_OFFLINE", "1")]);
    assert!(text.contains("HF_HUB_OFFLINE is set; unset it"), "{text}");

    setup
        .server
        .change(NAME, |repo| repo.token = Some("hf_good".into()));
    let text = refused(NAME, &[]);
    assert!(
        text.contains("it is gated") && text.contains("set HF_TOKEN"),
        "{text}"
    );
    let text = refused(NAME, &[("HF_TOKEN", "hf_bad")]);
    assert!(
        text.contains("accept its conditions") && !text.contains("hf_bad"),
        "{text}"
    );
    fs::write(setup.home.path().join("token"), "hf_good\n").unwrap();
    setup.json(&train(NAME, &out), &[]);
    let outside = setup
        .server
        .requests()
        .into_iter()
        .filter(|request| request.storage);
    assert!(
        outside
            .into_iter()
            .all(|request| request.authorization.is_none())
    );
}

#[test]
fn files_that_would_not_be_used_are_not_fetched() {
    let setup = Setup::new();
    let out = setup.path("run");
    setup.server.change(NAME, |repo| {
        repo.files
            .insert("config.json".into(), b"{\"model_type\":\"llama\"}".to_vec());
    });
    let text = setup.refused(&train(NAME, &out), &[]);
    assert!(
        text.contains("the architecture `llama` is not supported"),
        "{text}"
    );
    assert!(!setup.asked().iter().any(|path| path.contains(WEIGHTS)));

    setup.server.change(NAME, |repo| {
        repo.files.remove(WEIGHTS);
    });
    let text = setup.refused(&train(NAME, &out), &[]);
    assert!(!text.contains("panicked"), "{text}");

    // No part of a model is downloaded for settings that are refused.
    setup.server.requests();
    for more in [["--task", "colla"], ["--num-beams", "4"]] {
        let mut arguments = train(NAME, &out);
        if more[0] == "--task" {
            arguments.retain(|argument| *argument != "--task" && *argument != "cola");
        }
        setup.refused(&[&arguments[..], &more].concat(), &[]);
    }
    let text = setup.refused(
        &[
            "train",
            "--model",
            MODEL,
            "--revision",
            "v1",
            "--task",
            "cola",
            "--out",
            &out,
        ],
        &[],
    );
    assert!(text.contains("leave it out"), "{text}");
    let models = setup
        .asked()
        .into_iter()
        .filter(|path| path.contains("/models/"))
        .count();
    assert_eq!(models, 0);
}

#[test]
fn two_programs_at_the_same_time_fetch_once() {
    let setup = Setup::new();
    std::thread::scope(|scope| {
        for name in ["a", "b"] {
            let out = setup.path(name);
            let setup = &setup;
            scope.spawn(move || setup.json(&train(NAME, &out), &[]));
        }
    });
    let stored = setup
        .server
        .requests()
        .into_iter()
        .filter(|request| request.path.contains(&weights()))
        .count();
    assert_eq!(stored, 1);
}

#[test]
fn adapters_from_the_hub_are_read_even_if_they_are_pickles() {
    let setup = Setup::new();
    let theirs = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/pickle/adapter");
    let theirs = ["adapter_config.json", "adapter_model.bin"]
        .map(|name| (name, fs::read(Path::new(theirs).join(name)).unwrap()));
    setup.server.model("user/old", theirs);
    let [imported, again, next] = ["imported", "again", "next"].map(|name| setup.path(name));
    let import = |out: &str| {
        [
            "import",
            "--adapter",
            "user/old",
            "--model",
            NAME,
            "--task",
            "cola",
            "--out",
            out,
        ]
        .map(String::from)
    };
    let run = |arguments: &[String], variables: &[(&str, &str)]| {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        setup.json(&arguments, variables)
    };
    run(&import(&imported), &[]);
    let asked = setup.asked();
    let pickles = asked
        .iter()
        .filter(|path| path.ends_with("adapter_model.bin"));
    assert!(pickles.count() > 0, "{asked:?}");
    run(&import(&again), &[("HF_HUB_OFFLINE", "1")]);
    assert_eq!(setup.asked(), Vec::<String>::new());
    let [one, other] = [&imported, &again]
        .map(|run| fs::read(Path::new(run).join("adapter_model.safetensors")).unwrap());
    assert!(one == other);

    let begun = [&train(NAME, &next)[..], &["--init-from", "user/old"]].concat();
    setup.json(&begun, &[("HF_HUB_OFFLINE", "1")]);
    let wanted = [
        "predict",
        "--adapter",
        "user/old",
        "--model",
        NAME,
        "--input",
        "/dev/null",
    ];
    setup.json(&wanted, &[("HF_HUB_OFFLINE", "1")]);

    let text = setup.refused(
        &[
            "train",
            "--init-from",
            "user/none",
            "--model",
            NAME,
            "--task",
            "cola",
            "--out",
            "x",
        ],
        &[],
    );
    assert!(text.contains("user/none is not a folder here"), "{text}");
}

#[test]
fn a_run_resumes_after_the_cache_was_emptied() {
    let setup = Setup::new();
    let theirs = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/pickle/adapter");
    let theirs = ["adapter_config.json", "adapter_model.bin"]
        .map(|name| (name, fs::read(Path::new(theirs).join(name)).unwrap()));
    setup.server.model("user/old", theirs);
    let run = setup.path("run");
    let begun = [&train(NAME, &run)[..], &["--init-from", "user/old"]].concat();
    let wanted = setup.json(&begun, &[]);
    // As if it had been killed just before its end.
    fs::remove_file(Path::new(&run).join("results.json")).unwrap();
    fs::remove_dir_all(setup.home.path().join("hub")).unwrap();
    setup.asked();
    let resume = ["train", "--resume", &run, "--plain"];
    let text = setup.refused(&resume, &[("HF_HUB_OFFLINE", "1")]);
    assert!(text.contains("HF_HUB_OFFLINE"), "{text}");
    assert_eq!(setup.asked(), Vec::<String>::new());
    let found = setup.json(&resume, &[]);
    assert_eq!(found["metrics"], wanted["metrics"]);
    let asked = setup.asked();
    for file in [
        "adapter_model.bin",
        WEIGHTS,
        "cola/train-00000-of-00001.parquet",
        "cola/validation-00000-of-00001.parquet",
    ] {
        assert!(asked.iter().any(|path| path.ends_with(file)), "{asked:?}");
    }
}
