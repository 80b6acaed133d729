//! The program draws on a terminal only if the environment says that it can. It runs in a pseudo terminal here.
#![cfg(all(
    feature = "flex",
    feature = "hub",
    target_os = "linux",
    target_env = "gnu"
))]
#![allow(clippy::unwrap_used)]

mod common;
#[path = "../crates/mtlora-hub/tests/server/mod.rs"]
mod server;

use std::fs::{self, File};
use std::io::Read as _;
use std::os::fd::{FromRawFd as _, OwnedFd};
use std::path::Path;
use std::process::Command;
use std::ptr;

use common::{MODEL, small_data};
use server::Server;

const GPT2: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/assets/tiny-gpt2");
/// What begins every escape code.
const ESCAPE: char = '\u{1b}';

/// Both ends of a new pseudo terminal: the user's and the program's.
fn terminal() -> (File, OwnedFd) {
    let size = libc::winsize {
        ws_row: 24,
        ws_col: 80,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    let (mut ours, mut programs) = (-1, -1);
    // SAFETY: both numbers and the size outlive the call, and the name and settings may be left out.
    let failed = unsafe {
        libc::openpty(
            &raw mut ours,
            &raw mut programs,
            ptr::null_mut(),
            ptr::null(),
            &raw const size,
        )
    };
    assert_eq!(failed, 0, "{}", std::io::Error::last_os_error());
    // SAFETY: both are open, and nothing else owns them.
    unsafe { (File::from_raw_fd(ours), OwnedFd::from_raw_fd(programs)) }
}

/// What the program writes to its terminal. The command must succeed. `None` removes a variable.
fn shown(arguments: &[&str], variables: &[(&str, Option<&str>)]) -> String {
    let (mut ours, programs) = terminal();
    let mut command = Command::new(env!("CARGO_BIN_EXE_mtlora"));
    command
        .args(arguments)
        .env_remove("CI")
        .env_remove("NO_COLOR")
        .stdin(programs.try_clone().unwrap())
        .stdout(programs.try_clone().unwrap())
        .stderr(programs);
    for (name, value) in variables {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    let mut child = command.spawn().unwrap();
    // `command` holds the program's end, which would keep the terminal open.
    drop(command);
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    // Reading from a terminal whose other end is closed gives an error, and no end of file.
    while let Ok(count @ 1..) = ours.read(&mut buffer) {
        bytes.extend_from_slice(&buffer[..count]);
    }
    let text = String::from_utf8_lossy(&bytes).into_owned();
    assert!(child.wait().unwrap().success(), "{text}");
    text
}

fn train(folder: &Path, data: &Path, variables: &[(&str, Option<&str>)]) -> String {
    let out = folder.join("run");
    let arguments = [
        "train",
        "--model",
        MODEL,
        "--task",
        "acceptability",
        "--data",
        data.to_str().unwrap(),
        "--epochs",
        "1",
        "--device",
        "flex",
        "--overwrite",
        "--out",
        out.to_str().unwrap(),
    ];
    shown(&arguments, variables)
}

#[test]
fn training_draws_only_where_the_terminal_can() {
    let folder = tempfile::tempdir().unwrap();
    let data = small_data(folder.path(), 32, 8);
    for variables in [
        [("TERM", Some("dumb")), ("CI", None)],
        [("TERM", Some("")), ("CI", None)],
        [("TERM", None), ("CI", None)],
        [("TERM", Some("xterm")), ("CI", Some("true"))],
        [("TERM", Some("dumb")), ("CI", Some("false"))],
    ] {
        let text = train(folder.path(), &data, &variables);
        assert!(!text.contains(ESCAPE), "{variables:?} {text}");
        assert!(text.contains("dev after step 0: "), "{variables:?} {text}");
        assert!(text.contains("step 1/1 "), "{variables:?} {text}");
    }
    for variables in [
        [("TERM", Some("xterm")), ("CI", None)],
        [("TERM", Some("xterm-256color")), ("CI", Some("false"))],
        [("TERM", Some("screen")), ("NO_COLOR", Some("1"))],
    ] {
        let text = train(folder.path(), &data, &variables);
        // The codes that switch to the alternate screen and back: `smcup` and `rmcup` of terminfo.
        assert!(text.contains("\u{1b}[?1049h"), "{variables:?} {text}");
        assert!(text.contains("\u{1b}[?1049l"), "{variables:?} {text}");
        assert!(!text.contains("step 1/1 "), "{variables:?} {text}");
    }
}

#[test]
fn downloads_draw_only_where_the_terminal_can() {
    let server = Server::start();
    let model = [
        "config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "model.safetensors",
    ];
    let files = model.map(|name| (name, fs::read(Path::new(GPT2).join(name)).unwrap()));
    server.model("org/tiny", files);
    let folder = tempfile::tempdir().unwrap();
    let prompts = folder.path().join("prompts.txt");
    fs::write(&prompts, "The li\n").unwrap();
    let arguments = [
        "generate",
        "--model",
        "org/tiny",
        "--input",
        prompts.to_str().unwrap(),
        "--num-beams",
        "1",
        "--max-new-tokens",
        "1",
    ];
    let endpoint = server.endpoint();
    let fetched = |term: Option<&str>, ci: Option<&str>| {
        let home = tempfile::tempdir().unwrap();
        let variables = [
            ("HF_ENDPOINT", Some(endpoint.as_str())),
            ("HF_HOME", home.path().to_str()),
            ("HF_HUB_OFFLINE", None),
            ("HF_TOKEN", None),
            ("NO_PROXY", Some("127.0.0.1")),
            ("TERM", term),
            ("CI", ci),
        ];
        shown(&arguments, &variables)
    };
    for (term, ci) in [
        (Some("dumb"), None),
        (Some(""), None),
        (None, None),
        (Some("xterm"), Some("1")),
    ] {
        let text = fetched(term, ci);
        assert!(!text.contains(ESCAPE), "{term:?} {ci:?} {text}");
        assert!(text.contains("fetching model.safetensors ("), "{text}");
    }
    let text = fetched(Some("xterm"), None);
    assert!(
        text.contains(ESCAPE) && !text.contains("fetching"),
        "{text}"
    );
}
