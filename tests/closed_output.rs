//! What happens when nobody reads what the program says, as with `| head -1`: work goes on to its end, and no panic.
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
/// What a shell says of a process that SIGPIPE ended.
const UNREAD: Option<i32> = Some(141);

fn spawn(arguments: &[&str]) -> Child {
    Command::new(env!("CARGO_BIN_EXE_mtlora"))
        .args(arguments)
        // Without it, the software driver of a build with wgpu complains where the program is silent.
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

/// Reads the first line of a training's messages, and no more of them.
fn hang_up(child: &mut Child) {
    let mut line = String::new();
    let mut messages = BufReader::new(child.stderr.take().unwrap());
    messages.read_line(&mut line).unwrap();
    assert!(line.contains("64 train and 32 dev examples"), "{line}");
}

#[test]
fn a_training_whose_messages_nobody_reads_goes_on() {
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
fn a_training_whose_results_nobody_reads_is_complete_all_the_same() {
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
fn a_training_whose_results_nobody_reads_has_the_scores_of_its_texts_all_the_same() {
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
fn results_for_a_reader_who_has_gone_end_the_program_without_a_word() {
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
        // A command that has ended does not read.
        let _ = child.stdin.take().unwrap().write_all(b"The dogs sleep.\n");
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), UNREAD, "{arguments:?} {said}");
        assert_eq!(said, "", "{arguments:?}");
    }
}

/// Any other reason is one that the user has to know.
#[cfg(target_os = "linux")]
#[test]
fn results_that_find_no_room_are_an_error() {
    let full = || File::options().write(true).open("/dev/full").unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_mtlora"));
    let output = command.arg("tasks").stdout(full()).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.starts_with("mtlora: standard output: "), "{said}");

    // Messages are not worth an error.
    let mut command = Command::new(env!("CARGO_BIN_EXE_mtlora"));
    let output = command.args(["eval", "--run", "nowhere"]);
    let output = output.stderr(full()).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
}
