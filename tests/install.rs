//! The script that installs an archive of a release, with a stand-in for the program.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use common::text;

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/release/install.sh");

fn shell(script: &str, folder: &Path) -> Output {
    let mut command = Command::new("sh");
    command.args(["-c", script]).current_dir(folder);
    command.output().unwrap()
}

/// Makes an archive of this version in `folder`, which starts as `program` says, and lists its sum.
fn archive(folder: &Path, version: &str, program: &str) {
    let name = format!("mtlora-{version}-x86_64-linux");
    let inside = folder.join(&name);
    fs::create_dir_all(inside.join("bin")).unwrap();
    fs::create_dir_all(inside.join("share/man/man1")).unwrap();
    fs::write(inside.join("bin/mtlora"), format!("#!/bin/sh\n{program}\n")).unwrap();
    fs::write(inside.join("share/man/man1/mtlora.1"), version).unwrap();
    let script = format!(
        "chmod +x {name}/bin/mtlora && tar -czf {name}.tar.gz {name} && rm -r {name} && sha256sum {name}.tar.gz >>SHA256SUMS"
    );
    let output = shell(&script, folder);
    assert!(output.status.success(), "{output:?}");
}

/// Runs the script. Returns whether it succeeded, and what it said.
fn install(arguments: &[&str]) -> (bool, String) {
    let output = Command::new("sh").arg(SCRIPT).args(arguments).output();
    let output = output.unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(said).unwrap())
}

#[test]
fn an_archive_is_installed_replaced_and_removed() {
    let folder = tempfile::tempdir().unwrap();
    let from = folder.path().join("from here");
    let to = folder.path().join("to there");
    fs::create_dir(&from).unwrap();
    archive(&from, "1.0.0", "echo mtlora 1.0.0");
    let arguments = ["--from", text(&from), "--to", text(&to)];
    let (succeeded, said) = install(&arguments);
    assert!(succeeded, "{said}");
    assert!(said.contains("mtlora 1.0.0 is installed"), "{said}");
    // What others have put there stays.
    let other = to.join("bin/other");
    fs::write(&other, "x").unwrap();

    archive(&from, "1.1.0", "echo mtlora 1.1.0");
    let (succeeded, said) = install(&arguments);
    assert!(
        !succeeded && said.contains("choose one with --version"),
        "{said}"
    );
    let (succeeded, said) = install(&[&arguments[..], &["--version", "1.1.0"]].concat());
    assert!(
        succeeded && said.contains("mtlora 1.1.0 is installed"),
        "{said}"
    );
    let page = to.join("share/man/man1/mtlora.1");
    assert_eq!(fs::read_to_string(&page).unwrap(), "1.1.0");

    let (succeeded, said) = install(&["--remove", "--to", text(&to)]);
    assert!(succeeded, "{said}");
    assert!(!page.exists() && !to.join("bin/mtlora").exists() && !to.join("share").exists());
    assert!(other.exists());
    let (succeeded, said) = install(&["--remove", "--to", text(&to)]);
    assert!(
        !succeeded && said.contains("no installation was found"),
        "{said}"
    );
}

#[test]
fn what_is_damaged_or_does_not_start_is_not_installed() {
    let folder = tempfile::tempdir().unwrap();
    let from = folder.path().join("from");
    let to = folder.path().join("to");
    fs::create_dir(&from).unwrap();
    archive(&from, "1.0.0", "echo mtlora 1.0.0");
    let arguments = ["--from", text(&from), "--to", text(&to)];
    let file = from.join("mtlora-1.0.0-x86_64-linux.tar.gz");
    let whole = fs::read(&file).unwrap();
    fs::write(&file, [whole.as_slice(), b"\n"].concat()).unwrap();
    let (succeeded, said) = install(&arguments);
    assert!(
        !succeeded && said.contains("is damaged or not the one"),
        "{said}"
    );
    assert!(!to.exists());

    fs::remove_file(from.join("SHA256SUMS")).unwrap();
    let (succeeded, said) = install(&arguments);
    assert!(
        !succeeded && said.contains("SHA256SUMS could not be read"),
        "{said}"
    );

    archive(&from, "1.0.0", "exit 1");
    let (succeeded, said) = install(&arguments);
    assert!(
        !succeeded && said.contains("does not start on this machine"),
        "{said}"
    );
    assert!(!to.exists());

    let list = fs::read_to_string(from.join("SHA256SUMS")).unwrap();
    fs::write(
        from.join("SHA256SUMS"),
        list.replace("x86_64-linux", "x86_64-macos"),
    )
    .unwrap();
    let (succeeded, said) = install(&arguments);
    assert!(
        !succeeded && said.contains("lists no archive for x86_64-linux"),
        "{said}"
    );
    let (succeeded, said) = install(&["--form", "x"]);
    assert!(
        !succeeded && said.contains("unknown argument --form"),
        "{said}"
    );
}
