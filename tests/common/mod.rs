//! Helpers that run the program, shared by the tests in this folder.
#![allow(dead_code)] // No test file uses all of them.

pub mod card;
pub mod run;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

pub const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/assets/tiny-roberta");
pub const DATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/assets/acceptability");
/// A chat template whose turns end with the end of text.
pub const CHAT_TEMPLATE: &str = "{% for m in messages %}{{ m.role }} : {{ m.content }}{% if m.role == 'assistant' %}{{ eos_token }}\
                                 {% endif %}{{ '\\n' }}{% endfor %}{% if add_generation_prompt %}assistant :{% endif %}";

pub fn mtlora(arguments: &[&str]) -> Output {
    mtlora_reading(arguments, "")
}

/// Runs the program with `input` on its standard input.
pub fn mtlora_reading(arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_mtlora"))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // This fails if the command refuses its flags and ends without reading.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    child.wait_with_output().unwrap()
}

/// The program's standard output. The command must succeed.
pub fn text_reading(arguments: &[&str], input: &str) -> String {
    let output = mtlora_reading(arguments, input);
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{errors}");
    String::from_utf8(output.stdout).unwrap()
}

/// The JSON object at the end of the program's standard output. The command must succeed.
pub fn json(arguments: &[&str]) -> Value {
    let text = text_reading(&[arguments, &["--json"]].concat(), "");
    serde_json::from_str(text.lines().last().unwrap()).unwrap()
}

/// The program's error message. The command must be refused.
pub fn refused(arguments: &[&str]) -> String {
    refused_reading(arguments, "")
}

/// The program's error message with `input` on its standard input. The command must be refused.
pub fn refused_reading(arguments: &[&str], input: &str) -> String {
    let output = mtlora_reading(arguments, input);
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{arguments:?} {text}");
    assert!(!text.contains("panicked"), "{text}");
    text
}

/// A path as an argument of the program.
pub fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Makes a data folder with the first `train` and `dev` lines of the acceptability task's files.
pub fn small_data(folder: &Path, train: usize, dev: usize) -> PathBuf {
    let data = folder.join("data");
    std::fs::create_dir(&data).unwrap();
    for (name, lines) in [("train.tsv", train), ("dev.tsv", dev)] {
        let text = std::fs::read_to_string(Path::new(DATA).join(name)).unwrap();
        let kept: Vec<&str> = text.lines().take(lines).collect();
        std::fs::write(data.join(name), kept.join("\n")).unwrap();
    }
    data
}

/// Copies the files of a folder, without the folders in it, into a new one.
pub fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        if entry.path().is_file() {
            std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}
