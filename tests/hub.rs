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

use common::card::{card, strings};
use common::{MODEL, copy_folder, small_data};
use server::writing::WRITER;
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
            .current_dir(self.home.path())
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

/// Writes the files of a repository on the test Hub into a folder.
fn save(server: &Server, name: &str, folder: &Path) -> Vec<String> {
    fs::create_dir(folder).unwrap();
    let files = server.files(name);
    for (file, contents) in &files {
        fs::write(folder.join(file), contents).unwrap();
    }
    let names = files.into_keys();
    names.filter(|name| name != ".gitattributes").collect()
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

#[test]
fn the_first_run_is_pushed_and_used_from_the_hub() {
    let setup = Setup::new();
    let home = setup.home.path();
    let assets = home.join("assets");
    copy_folder(Path::new(MODEL), &assets.join("tiny-roberta"));
    fs::rename(small_data(home, 64, 32), assets.join("acceptability")).unwrap();
    let trained = setup.json(&["train", "--plain", "--device", "flex"], &[]);

    // The list comes first, and needs no token.
    let push = ["push", "runs/first", "org/first", "--private"];
    let output = setup.run(&[&push[..], &["--dry-run"]].concat(), &[]);
    let listed = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{listed}");
    let noted = String::from_utf8(output.stderr).unwrap();
    assert!(noted.ends_with("nothing was sent (--dry-run)\n"), "{noted}");
    let names = [
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
        "curves.svg",
        "labels.json",
    ];
    for name in names {
        assert!(listed.contains(&format!("  {name} ")), "{listed}");
    }
    assert!(
        listed.contains("/org/first:\n") && listed.contains("\n5 files, "),
        "{listed}"
    );
    let text = setup.refused(&push, &[]);
    assert!(
        text.contains("no token to write with") && text.contains("HF_TOKEN"),
        "{text}"
    );
    let text = setup.refused(&push, &[("HF_TOKEN", WRITER), ("HF_HUB_OFFLINE", "1")]);
    assert!(text.contains("HF_HUB_OFFLINE: is set"), "{text}");
    assert_eq!(setup.asked(), [""; 0]);

    let output = setup.run(&push, &[("HF_TOKEN", WRITER)]);
    let errors = String::from_utf8(output.stderr).unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{errors}");
    assert!(
        said.starts_with(&listed) && said.contains("sent to "),
        "{said}"
    );
    assert!(errors.contains("pass --base-model-name"), "{errors}");
    assert!(!(said + &errors).contains(WRITER));
    let there = home.join("there");
    assert_eq!(save(&setup.server, "org/first", &there), names);
    // What is published says nothing about this machine.
    for file in ["README.md", "adapter_config.json"] {
        let text = fs::read_to_string(there.join(file)).unwrap();
        assert!(!text.contains(home.to_str().unwrap()), "{text}");
    }
    let (body, matter) = card(&there);
    assert_eq!(matter["library_name"].as_str(), Some("peft"));
    assert!(matter["base_model"].is_badvalue(), "{matter:?}");
    assert!(body.contains("the model `tiny-roberta`"), "{body}");

    // Nobody has anything in the cache; the repository is private.
    assert!(!home.join("hub").exists());
    let eval = [
        "eval",
        "--adapter",
        "org/first",
        "--model",
        "assets/tiny-roberta",
        "--task",
        "acceptability",
        "--data",
        "assets/acceptability",
    ];
    let text = setup.refused(&eval, &[]);
    assert!(text.contains("no such model"), "{text}");
    let scored = setup.json(&eval, &[("HF_TOKEN", WRITER)]);
    assert!(home.join("hub/models--org--first").exists());
    for metric in ["accuracy", "matthews"] {
        assert_eq!(
            scored["metrics"][metric], trained["metrics"][metric],
            "{metric}"
        );
    }
    let loss = |of: &Value| of["metrics"]["loss"].as_f64().unwrap();
    assert!((loss(&scored) - loss(&trained)).abs() < 1e-4, "{scored}");

    // Another push has nothing to send, and another run does not replace this one by accident.
    let again = setup.json(&push, &[("HF_TOKEN", WRITER)]);
    assert_eq!(again["commit"], Value::Null);
    assert_eq!(again["kept"], serde_json::json!(names));
    setup.json(&["train", "--plain", "--seed", "1", "--out", "other"], &[]);
    let other = ["push", "other", "org/first"];
    let text = setup.refused(&other, &[("HF_TOKEN", WRITER)]);
    assert!(
        text.contains("exists already") && text.contains("--overwrite"),
        "{text}"
    );
    let text = setup.refused(&other, &[("HF_TOKEN", "hf_expired")]);
    assert!(
        text.contains("Invalid username") && text.contains("HF_TOKEN"),
        "{text}"
    );
    let replaced = [&other[..], &["--overwrite"]].concat();
    let replaced = setup.json(&replaced, &[("HF_TOKEN", WRITER)]);
    assert!(replaced["commit"].is_string());
    let text = setup.refused(&["push", "other", "org"], &[("HF_TOKEN", WRITER)]);
    assert!(text.contains("as ORG/NAME"), "{text}");
    let text = setup.refused(&["push", "other", "mail", "--dry-run"], &[]);
    assert!(text.contains("as ORG/NAME"), "{text}");
}

/// Ctrl-C in the middle of a transfer.
#[cfg(unix)]
#[test]
fn a_push_that_is_stopped_leaves_nothing_behind_and_says_how_to_go_on() {
    let setup = Setup::new();
    let run = setup.path("run");
    setup.json(&train(NAME, &run), &[]);
    let temporary = setup.home.path().join("tmp");
    fs::create_dir(&temporary).unwrap();
    // The first attempt to store the weights is refused, and the next one is asked for in five seconds.
    let later = vec![("Retry-After", "5".to_string())];
    setup.server.fault("PUT ", Fault::Status(503, later), 1);
    setup.asked();
    let mut child = Command::new(env!("CARGO_BIN_EXE_mtlora"))
        .args(["push", &run, "org/cola"])
        .env("HF_ENDPOINT", setup.server.endpoint())
        .env("HF_HOME", setup.home.path())
        .env("HF_TOKEN", WRITER)
        .env("NO_PROXY", "127.0.0.1")
        .env("TMPDIR", &temporary)
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut asked = Vec::new();
    while !asked.iter().any(|path: &String| path.contains("Signature")) {
        assert!(
            child.try_wait().unwrap().is_none(),
            "it ended before it sent the weights"
        );
        std::thread::sleep(std::time::Duration::from_millis(10));
        asked.extend(setup.asked());
    }
    assert_eq!(fs::read_dir(&temporary).unwrap().count(), 1);
    let signal = ["-INT", &child.id().to_string()];
    assert!(
        Command::new("kill")
            .args(signal)
            .status()
            .unwrap()
            .success()
    );
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(130), "{text}");
    assert!(
        text.contains("status 503 Service Unavailable; trying again in 5 s"),
        "{text}"
    );
    assert!(
        text.contains("stopped by SIGINT; the same command sends what is missing"),
        "{text}"
    );
    assert_eq!(fs::read_dir(&temporary).unwrap().count(), 0);
    assert!(!setup.asked().iter().any(|path| path.contains("/commit/")));
    assert!(setup.server.file("org/cola", WEIGHTS).is_none());
}

/// The base model is called by its name on the Hub, whoever reads it.
#[test]
fn a_run_of_a_model_from_the_hub_is_pushed_as_an_adapter_and_merged() {
    let setup = Setup::new();
    let run = setup.path("run");
    let trained = setup.json(&train(NAME, &run), &[]);
    let token = [("HF_TOKEN", WRITER)];
    // Cut in the middle of the weights; the next command sends what is missing.
    let push = ["push", &run, "org/cola"];
    setup.server.fault("PUT ", Fault::CutRequest(1000), 5);
    let text = setup.refused(&push, &token);
    assert!(
        text.contains("the transfer continues where it stopped"),
        "{text}"
    );
    let pushed = setup.json(&push, &token);
    assert!(pushed["commit"].is_string());
    let there = setup.home.path().join("there");
    save(&setup.server, "org/cola", &there);
    let (_, matter) = card(&there);
    assert_eq!(matter["base_model"].as_str(), Some(NAME));
    assert!(strings(&matter["tags"]).contains(&"base_model:adapter:org/tiny"));
    let config = fs::read(there.join("adapter_config.json")).unwrap();
    let config: Value = serde_json::from_slice(&config).unwrap();
    assert_eq!(config["base_model_name_or_path"], NAME);
    assert_eq!(config["peft_type"], "LORA");
    let eval = |more: &[&str]| setup.json(&[&["eval", "--task", "cola"], more].concat(), &token);
    let scored = eval(&["--adapter", "org/cola", "--model", NAME]);
    assert_eq!(
        scored["metrics"]["matthews"],
        trained["metrics"]["matthews"]
    );

    let pushed = setup.json(&["push", &run, "org/whole", "--merged"], &token);
    assert!(pushed["commit"].is_string());
    let there = setup.home.path().join("whole");
    let names = save(&setup.server, "org/whole", &there);
    for name in ["README.md", "config.json", "tokenizer.json", WEIGHTS] {
        assert!(names.contains(&name.to_string()), "{names:?}");
    }
    let (_, matter) = card(&there);
    assert!(strings(&matter["tags"]).contains(&"base_model:finetune:org/tiny"));
    let config = fs::read_to_string(there.join("config.json")).unwrap();
    assert!(
        !config.contains(setup.home.path().to_str().unwrap()),
        "{config}"
    );
    let scored = eval(&["--model", "org/whole"]);
    assert_eq!(
        scored["metrics"]["matthews"],
        trained["metrics"]["matthews"]
    );
    // What does not go together is said before anything is made.
    let text = setup.refused(
        &["push", &run, "org/x", "--merged", "--for", "vllm"],
        &token,
    );
    assert!(text.contains("cannot be used with"), "{text}");
    let text = setup.refused(&["push", &run, "org/x", "--gguf", "F16"], &token);
    assert!(text.contains("--merged"), "{text}");
    let text = setup.refused(&["push", "nowhere", "org/x"], &token);
    assert!(text.contains("nowhere is not a folder of a run"), "{text}");
}
