//! When nobody reads the program's output any more, as with `| head -1`, it finishes its work and does not panic.
#![cfg(all(unix, feature = "flex"))]
#![allow(clippy::unwrap_used)]

mod common;

use std::fs::File;
use std::io::{BufRead, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use common::{MODEL, small_data};

const GPT2: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/assets/tiny-gpt2");
const FACTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/assets/facts");
/// The status that a shell reports for a process that SIGPIPE ended.
const UNREAD: Option<i32> = Some(141);

fn spawn(arguments: &[&str]) -> Child {
    Command::new(env!("CARGO_BIN_EXE_mtlora"))
        .args(arguments)
        // If this is not set, the software GPU driver of a build with wgpu writes to standard error.
        .env("XDG_RUNTIME_DIR", std::env::temp_dir())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Starts a training.
fn train(folder: &Path, out: &str) -> Child {
    let data = small_data(folder, 64, 32);
    spawn(&[
        "train",
        "--model",
        MODEL,
        "--task",
        "acceptability",
        "--data",
        data.to_str().unwrap(),
        "--out",
        out,
        "--epochs",
        "3",
        "--plain",
    ])
}

/// Reads the first line of a training's messages, and closes the pipe.
fn hang_up(child: &mut Child) {
    let mut line = String::new();
    let mut messages = BufReader::new(child.stderr.take().unwrap());
    messages.read_line(&mut line).unwrap();
    assert!(line.contains("64 train and 32 dev examples"), "{line}");
}

#[test]
fn a_training_whose_messages_nobody_reads_finishes() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    let mut child = train(folder.path(), run.to_str().unwrap());
    hang_up(&mut child);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", output.status);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("dev after:"), "{text}");
    assert!(run.join("results.json").exists());
}

#[test]
fn a_training_whose_results_nobody_reads_still_completes() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    let mut child = train(folder.path(), run.to_str().unwrap());
    drop(child.stdout.take());
    hang_up(&mut child);
    let status = child.wait().unwrap();
    assert_eq!(status.code(), UNREAD, "{status}");
    assert!(run.join("results.json").exists());
}

#[test]
fn a_training_whose_results_nobody_reads_still_scores_its_texts() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    let data = folder.path().join("facts");
    std::fs::create_dir(&data).unwrap();
    for (name, lines) in [("train.jsonl", 16), ("dev.jsonl", 4)] {
        let text = std::fs::read_to_string(Path::new(FACTS).join(name)).unwrap();
        let kept: Vec<&str> = text.lines().take(lines).collect();
        std::fs::write(data.join(name), kept.join("\n")).unwrap();
    }
    let mut child = spawn(&[
        "train",
        "--model",
        GPT2,
        "--task",
        "facts",
        "--data",
        data.to_str().unwrap(),
        "--out",
        run.to_str().unwrap(),
        "--epochs",
        "1",
        "--max-new-tokens",
        "4",
        "--plain",
    ]);
    drop(child.stdout.take());
    drop(child.stderr.take());
    let status = child.wait().unwrap();
    assert_eq!(status.code(), UNREAD, "{status}");
    let results = std::fs::read_to_string(run.join("results.json")).unwrap();
    let results: serde_json::Value = serde_json::from_str(&results).unwrap();
    assert!(results["metrics"]["bleu"].is_number(), "{results}");
}

#[test]
fn results_that_nobody_reads_end_the_program_silently() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    let child = train(folder.path(), run.to_str().unwrap());
    assert!(child.wait_with_output().unwrap().status.success());
    let run = run.to_str().unwrap();
    for arguments in [
        &["tasks"][..],
        &["tasks", "--json"],
        &["inspect", "--run", run],
        &["predict", "--run", run],
        &["predict", "--run", run, "--format", "jsonl"],
        &["eval", "--run", run],
    ] {
        let mut child = spawn(arguments);
        drop(child.stdout.take());
        // This fails if the command has ended already.
        let _ = child.stdin.take().unwrap().write_all(b"The dogs sleep.\n");
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), UNREAD, "{arguments:?} {said}");
        assert_eq!(said, "", "{arguments:?}");
    }
}

/// Unlike a closed pipe, a full disk is something that the user has to know.
#[cfg(target_os = "linux")]
#[test]
fn results_that_do_not_fit_on_the_disk_are_an_error() {
    let full = || File::options().write(true).open("/dev/full").unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_mtlora"));
    let output = command.arg("tasks").stdout(full()).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.starts_with("mtlora: standard output: "), "{said}");

    // Messages that cannot be written are no error: the status is that of the missing run.
    let mut command = Command::new(env!("CARGO_BIN_EXE_mtlora"));
    let output = command.args(["eval", "--run", "nowhere"]);
    let output = output.stderr(full()).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
}
