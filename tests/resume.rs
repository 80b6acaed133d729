//! Runs that are stopped, killed or damaged and then resumed end with the same bytes as a run that nothing disturbed.
#![cfg(all(unix, feature = "flex"))]
#![allow(clippy::unwrap_used)]

mod common;

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::Value;

use common::run::{Ended, checkpoints};
use common::{DATA, MODEL, mtlora, refused, small_data};

const GPT2: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/assets/tiny-gpt2");
const FACTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/assets/facts");
/// The environment variable that sets how often runs are killed; without it, a handful of times.
const KILLS: &str = "MTLORA_KILLS";

/// A folder with a run's data, and the flags of a short run that shows any fault in resuming: it has dropout,
/// accumulated and clipped gradients, evaluations within epochs, and a best state that is not the last.
struct Setup {
    folder: tempfile::TempDir,
    flags: Vec<String>,
}

impl Setup {
    fn new(flags: &[&str]) -> Self {
        let flags = flags.iter().map(ToString::to_string).collect();
        let folder = tempfile::tempdir().unwrap();
        Self { folder, flags }
    }

    fn classification() -> Self {
        Self::classification_of("ctcm")
    }

    /// The same with an adapter of another structure.
    fn classification_of(structure: &str) -> Self {
        let mut setup = Self::new(&[
            "--model",
            MODEL,
            "--task",
            "acceptability",
            "--epochs",
            "3",
            "--batch",
            "8",
            "--gradient-accumulation",
            "2",
            "--max-grad-norm",
            "1",
            "--lr",
            "1e-2",
            "--adapter-dropout",
            "0.1",
            "--lr-scheduler-type",
            "cosine",
            "--adam-beta2",
            "0.98",
            "--metric-for-best-model",
            "loss",
            "--structure",
            structure,
            "--eval-steps",
            "4",
            "--save-steps",
            "1",
        ]);
        let data = small_data(setup.folder.path(), 96, 32);
        setup.flag("--data", data.to_str().unwrap());
        setup
    }

    fn generation() -> Self {
        let mut setup = Self::new(&[
            "--model",
            GPT2,
            "--task",
            "facts",
            "--epochs",
            "2",
            "--batch",
            "4",
            "--lr",
            "1e-2",
            "--num-beams",
            "1",
            "--max-new-tokens",
            "4",
            "--save-steps",
            "2",
        ]);
        let data = setup.folder.path().join("facts");
        fs::create_dir(&data).unwrap();
        for (name, lines) in [("train.jsonl", 24), ("dev.jsonl", 4)] {
            let text = fs::read_to_string(Path::new(FACTS).join(name)).unwrap();
            let kept: Vec<&str> = text.lines().take(lines).collect();
            fs::write(data.join(name), kept.join("\n")).unwrap();
        }
        setup.flag("--data", data.to_str().unwrap());
        setup
    }

    fn flag(&mut self, name: &str, value: &str) {
        self.flags.extend([name.to_string(), value.to_string()]);
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The arguments that train a run in `out` from the beginning.
    fn train(&self, out: &Path) -> Vec<String> {
        let mut arguments = vec!["train".to_string()];
        arguments.extend(self.flags.iter().cloned());
        let end = [
            "--device",
            "flex",
            "--overwrite",
            "--plain",
            "--out",
            out.to_str().unwrap(),
        ];
        arguments.extend(end.map(String::from));
        arguments
    }

    /// Trains a run that nothing disturbs.
    fn undisturbed(&self) -> (PathBuf, Ended) {
        let out = self.path("undisturbed");
        done(&self.train(&out));
        let ended = Ended::of(&out);
        (out, ended)
    }
}

fn resume(run: &Path) -> Vec<String> {
    ["train", "--resume", run.to_str().unwrap(), "--plain"]
        .map(String::from)
        .to_vec()
}

fn spawn(arguments: &[String]) -> Child {
    Command::new(env!("CARGO_BIN_EXE_mtlora"))
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// The program's standard error. The command must succeed.
fn done(arguments: &[String]) -> String {
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let Output { status, stderr, .. } = mtlora(&arguments);
    let text = String::from_utf8(stderr).unwrap();
    assert!(status.success(), "{text}");
    text
}

fn refusal(arguments: &[String]) -> String {
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    refused(&arguments)
}

fn send(signal: &str, child: &Child) {
    let sent = Command::new("kill")
        .args([signal, &child.id().to_string()])
        .status()
        .unwrap();
    assert!(sent.success());
}

/// SplitMix64, for numbers in `[0, 1)`.
struct Random(u64);

impl Random {
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let x = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((x ^ (x >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// Kills runs at random moments and resumes them until they finish, until there were enough kills.
fn killed(setup: &Setup, usual_kills: usize, seed: u64) {
    let kills = std::env::var(KILLS).map_or(usual_kills, |text| text.parse().unwrap());
    let begun = Instant::now();
    let (_, expected) = setup.undisturbed();
    let usual_time = begun.elapsed().as_secs_f64();
    let mut random = Random(seed);
    let (mut done_kills, mut runs, mut resumed) = (0, 0, 0);
    while done_kills < kills {
        let out = setup.path(&format!("killed-{runs}"));
        loop {
            // A run that was killed before there was anything to resume is started again, as a user would.
            let begun = out.join("run.toml").exists();
            resumed += usize::from(!checkpoints(&out).is_empty());
            let mut child = spawn(&if begun {
                resume(&out)
            } else {
                setup.train(&out)
            });
            if done_kills == 0 {
                // The first kill waits for a checkpoint, so that something is resumed even on a fast machine.
                while checkpoints(&out).is_empty() && child.try_wait().unwrap().is_none() {
                    sleep(Duration::from_millis(1));
                }
                child.kill().unwrap();
            } else if done_kills < kills {
                sleep(Duration::from_secs_f64(random.next() * usual_time));
                child.kill().unwrap();
            }
            let mut text = String::new();
            child
                .stderr
                .take()
                .unwrap()
                .read_to_string(&mut text)
                .unwrap();
            let status = child.wait().unwrap();
            if status.success() {
                break;
            }
            assert_eq!(status.signal(), Some(9), "{text}");
            assert!(!text.contains("damaged"), "{text}");
            done_kills += 1;
        }
        Ended::of(&out).assert_same(&expected, &format!("run {runs}"));
        fs::remove_dir_all(&out).unwrap();
        runs += 1;
    }
    println!("{done_kills} kills, {resumed} resumed from a checkpoint, {runs} runs finished");
    assert!(resumed > 0);
}

#[test]
fn a_killed_classification_run_resumes_to_the_same_bytes() {
    killed(&Setup::classification(), 6, 1);
}

#[test]
fn a_killed_run_with_lora_plus_resumes_to_the_same_bytes() {
    let mut setup = Setup::classification();
    setup.flag("--loraplus-lr-ratio", "4");
    setup.flag("--loraplus-lr-ratio-t", "0.5");
    killed(&setup, 3, 3);
}

#[test]
fn a_killed_run_with_adalora_resumes_to_the_same_bytes() {
    let mut setup = Setup::classification_of("adalora");
    // 18 steps: the ranks are pruned in the middle, and stay as they are in the last five.
    for (name, value) in [("--init-r", "4"), ("--target-r", "2")] {
        setup.flag(name, value);
    }
    for (name, value) in [("--tinit", "2"), ("--tfinal", "5"), ("--delta-t", "2")] {
        setup.flag(name, value);
    }
    killed(&setup, 5, 4);
}

#[test]
fn a_killed_run_with_bitfit_resumes_to_the_same_bytes() {
    let mut setup = Setup::classification();
    setup.flag("--method", "bitfit");
    killed(&setup, 3, 5);
}

#[test]
fn a_killed_run_with_dora_resumes_to_the_same_bytes() {
    killed(&Setup::classification_of("dora"), 3, 6);
}

#[test]
fn a_killed_data_to_text_run_resumes_to_the_same_bytes() {
    killed(&Setup::generation(), 4, 2);
}

#[test]
fn a_signal_stops_after_the_step_and_saves() {
    let setup = Setup::classification();
    let (_, expected) = setup.undisturbed();
    for (signal, code) in [("-INT", 130), ("-TERM", 143)] {
        let out = setup.path(signal);
        let child = spawn(&setup.train(&out));
        while checkpoints(&out).is_empty() {
            sleep(Duration::from_millis(5));
        }
        send(signal, &child);
        let output = child.wait_with_output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{text}");
        let end = format!("resume with: mtlora train --resume {}\n", out.display());
        assert!(text.ends_with(&end), "{text}");
        done(&resume(&out));
        Ended::of(&out).assert_same(&expected, signal);
    }
}

#[test]
fn a_second_signal_stops_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    let mut setup = Setup::new(&["--model", MODEL, "--task", "acceptability", "--data", DATA]);
    // One step is the whole epoch, which takes seconds.
    setup.flag("--batch", "8000");
    let mut child = spawn(&setup.train(&out));
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().starts_with("dev after step 0")));
    sleep(Duration::from_millis(20));
    send("-INT", &child);
    sleep(Duration::from_millis(50));
    assert!(
        child.try_wait().unwrap().is_none(),
        "the first signal did not wait for the end of the step"
    );
    send("-INT", &child);
    assert_eq!(child.wait().unwrap().signal(), Some(2));
    assert!(checkpoints(&out).is_empty());
}

/// Flips a bit in the tensors of `checkpoint`.
fn damage(checkpoint: &Path) {
    let path = checkpoint.join("state.safetensors");
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&path, bytes).unwrap();
}

#[test]
fn a_damaged_checkpoint_is_reported_and_an_older_one_used() {
    let setup = Setup::classification();
    let (out, expected) = setup.undisturbed();
    // As if killed just before it was complete.
    fs::remove_file(out.join("results.json")).unwrap();
    let newest = checkpoints(&out).pop().unwrap();
    damage(&newest);
    let text = done(&resume(&out));
    let reported = format!("{}: is damaged: ", newest.display());
    assert!(text.contains(&reported), "{text}");
    assert!(
        text.contains("resuming from the last undamaged checkpoint, after step 17"),
        "{text}"
    );
    Ended::of(&out).assert_same(&expected, "one damaged");

    // Every checkpoint is damaged, so the run starts from the beginning.
    fs::remove_file(out.join("results.json")).unwrap();
    for folder in checkpoints(&out) {
        damage(&folder);
    }
    let text = done(&resume(&out));
    assert!(
        text.contains("every checkpoint is damaged: the run starts from the beginning"),
        "{text}"
    );
    Ended::of(&out).assert_same(&expected, "all damaged");

    // Resuming a complete run changes nothing.
    let output = mtlora(&["train", "--resume", out.to_str().unwrap()]);
    assert!(
        String::from_utf8(output.stdout)
            .unwrap()
            .contains("is complete")
    );
    Ended::of(&out).assert_same(&expected, "complete");
}

#[test]
fn a_disk_that_fills_up_leaves_what_was_saved() {
    let setup = Setup::classification();
    let (_, expected) = setup.undisturbed();
    let out = setup.path("full");
    // The limit on the size of a file is above that of the first checkpoints, which hold the trained values once, and
    // below that of the later ones, which hold the best state as well as the last.
    let quoted: Vec<String> = setup
        .train(&out)
        .iter()
        .map(|one| format!("'{one}'"))
        .collect();
    let program = env!("CARGO_BIN_EXE_mtlora");
    let script = format!(
        "trap '' XFSZ; ulimit -f 800; exec '{program}' {}",
        quoted.join(" ")
    );
    let output = Command::new("sh").args(["-c", &script]).output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(
        text.contains("cannot write") && text.contains("state.safetensors"),
        "{text}"
    );
    assert!(text.contains("mtlora train --resume"), "{text}");
    let hidden = fs::read_dir(out.join("checkpoints")).unwrap();
    let hidden = hidden.filter(|entry| {
        let name = entry.as_ref().unwrap().file_name();
        name.to_str().unwrap().starts_with('.')
    });
    assert_eq!(hidden.count(), 0);
    let text = done(&resume(&out));
    assert!(text.contains("resuming after step 4"), "{text}");
    Ended::of(&out).assert_same(&expected, "full");
}

/// A data-to-text run in which generating the texts takes longer than everything else.
fn long_scoring() -> Setup {
    let mut setup = Setup::new(&[
        "--model", GPT2, "--task", "facts", "--epochs", "1", "--batch", "4",
    ]);
    for (name, value) in [
        ("--num-beams", "10"),
        ("--max-new-tokens", "64"),
        ("--save-steps", "2"),
    ] {
        setup.flag(name, value);
    }
    let data = setup.path("facts");
    fs::create_dir(&data).unwrap();
    for (name, lines) in [("train.jsonl", 16), ("dev.jsonl", 60)] {
        let text = fs::read_to_string(Path::new(FACTS).join(name)).unwrap();
        let kept: Vec<&str> = text.lines().take(lines).collect();
        fs::write(data.join(name), kept.join("\n")).unwrap();
    }
    setup.flag("--data", data.to_str().unwrap());
    setup
}

/// The metrics in a run's `results.json`, or `None` if there is no such file.
fn metrics(run: &Path) -> Option<Value> {
    let text = fs::read_to_string(run.join("results.json")).ok()?;
    let mut results: Value = serde_json::from_str(&text).unwrap();
    Some(results["metrics"].take())
}

#[test]
fn a_run_stopped_while_its_texts_are_scored_is_complete_and_scores_them_on_resume() {
    let setup = long_scoring();
    let (_, expected) = setup.undisturbed();
    assert!(expected.results["metrics"]["bleu"].is_number());
    for (signal, number) in [("-KILL", 9), ("-INT", 2), ("-TERM", 15)] {
        let out = setup.path(signal);
        let mut child = spawn(&setup.train(&out));
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let command = format!("mtlora train --resume {}", out.display());
        assert!(lines.any(|line| line.unwrap().contains(&command)));
        send(signal, &child);
        assert_eq!(child.wait().unwrap().signal(), Some(number));
        // The run is complete, except for the scores of its texts.
        let found = metrics(&out).unwrap();
        assert!(found["loss"].is_number() && found.get("bleu").is_none());
        // With --no-final-scores, resuming does not add them.
        let mut without = resume(&out);
        without.push("--no-final-scores".to_string());
        done(&without);
        assert!(metrics(&out).unwrap().get("bleu").is_none());
        done(&resume(&out));
        Ended::of(&out).assert_same(&expected, signal);
    }

    // A run whose checkpoints were deleted is not trained again to get the scores.
    let out = setup.path("-INT");
    let kept = out.join("checkpoints");
    let results = out.join("results.json");
    let mut text: Value = serde_json::from_str(&fs::read_to_string(&results).unwrap()).unwrap();
    text["metrics"]
        .as_object_mut()
        .unwrap()
        .retain(|name, _| name == "loss");
    fs::write(&results, text.to_string()).unwrap();
    fs::remove_dir_all(&kept).unwrap();
    let log = fs::read(out.join("metrics.jsonl")).unwrap();
    let output = mtlora(&["train", "--resume", out.to_str().unwrap()]);
    assert!(output.status.success());
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains("mtlora eval --run"), "{said}");
    assert_eq!(fs::read(out.join("metrics.jsonl")).unwrap(), log);
}

#[test]
fn a_run_whose_texts_cannot_be_scored_is_complete() {
    let mut setup = Setup::generation();
    let model = setup.path("model");
    fs::create_dir(&model).unwrap();
    for entry in fs::read_dir(GPT2).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, model.join(path.file_name().unwrap())).unwrap();
    }
    setup.flags[1] = model.to_str().unwrap().to_string();
    let (_, expected) = setup.undisturbed();
    let out = setup.path("run");
    let arguments = setup.train(&out);
    let child = Command::new(env!("CARGO_BIN_EXE_mtlora"))
        .args(&arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    while checkpoints(&out).is_empty() {
        sleep(Duration::from_millis(2));
    }
    // The model is read again before the texts are generated.
    let (weights, elsewhere) = (model.join("model.safetensors"), setup.path("weights"));
    fs::rename(&weights, &elsewhere).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(
        text.contains("is complete, but its texts could not be scored"),
        "{text}"
    );
    assert!(
        text.contains("model.safetensors") && text.contains("train --resume"),
        "{text}"
    );
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains("dev after:"), "{said}");
    assert!(metrics(&out).unwrap()["loss"].is_number());
    fs::rename(&elsewhere, &weights).unwrap();
    done(&resume(&out));
    Ended::of(&out).assert_same(&expected, "scored later");
}

#[test]
fn what_may_not_change_is_refused() {
    let mut setup = Setup::classification();
    let model = setup.path("model");
    fs::create_dir(&model).unwrap();
    for entry in fs::read_dir(MODEL).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, model.join(path.file_name().unwrap())).unwrap();
    }
    // Train on the copy, which can be changed.
    setup.flags[1] = model.to_str().unwrap().to_string();
    let (out, expected) = setup.undisturbed();
    fs::remove_file(out.join("results.json")).unwrap();
    let again = resume(&out);
    let with = |more: &[&str]| {
        let more = more.iter().map(ToString::to_string);
        refusal(&again.iter().cloned().chain(more).collect::<Vec<_>>())
    };
    assert!(with(&["--lr", "1e-3"]).contains("--lr cannot be used with --resume"));
    assert!(with(&["--eval-steps", "9"]).contains("--eval-steps cannot be used"));
    assert!(with(&["--out", "elsewhere"]).contains("--out"));
    assert!(with(&["--save-steps", "0"]).contains("--save-steps must"));

    // The refusal while `path` is changed; then the file is restored.
    let changed = |path: &Path, change: &dyn Fn(Vec<u8>) -> Vec<u8>| {
        let was = fs::read(path).unwrap();
        fs::write(path, change(was.clone())).unwrap();
        let text = refusal(&again);
        fs::write(path, was).unwrap();
        text
    };
    let replaced = |from: &'static str, to: &'static str| {
        move |bytes: Vec<u8>| {
            let text = String::from_utf8(bytes).unwrap();
            assert!(text.contains(from));
            text.replacen(from, to, 1).into_bytes()
        }
    };
    let config = out.join("run.toml");
    let text = changed(
        &config,
        &replaced("learning_rate = 0.01", "learning_rate = 0.02"),
    );
    assert!(
        text.contains("`training.learning_rate` was 0.01 when"),
        "{text}"
    );
    let text = changed(&config, &replaced("alpha = 16.0", "alpha = 32.0"));
    assert!(
        text.contains("`base.adapter.alpha` was 16.0 when"),
        "{text}"
    );
    let text = changed(
        &setup.path("data").join("train.tsv"),
        &replaced("\t1\t", "\t0\t"),
    );
    assert!(text.contains("the examples are not those"), "{text}");
    let text = changed(&model.join("model.safetensors"), &|mut bytes| {
        let end = bytes.len() - 4;
        bytes[end] ^= 1;
        bytes
    });
    assert!(
        text.contains("the base model's weights are not those"),
        "{text}"
    );

    // Another process is training the run.
    let lock = File::open(out.join(".lock")).unwrap();
    lock.lock().unwrap();
    assert!(refusal(&again).contains("another process is training this run"));
    drop(lock);

    let elsewhere = resume(&setup.path("nowhere"));
    assert!(refusal(&elsewhere).contains("is not a run folder"));

    // How often it saves may change.
    let more = ["--save-total-limit", "5", "--save-minutes", "0.5"].map(String::from);
    done(&again.iter().cloned().chain(more).collect::<Vec<_>>());
    Ended::of(&out).assert_same(&expected, "as it was");
}
