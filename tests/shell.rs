//! Completions and manual pages.
#![cfg(feature = "flex")]
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use common::{mtlora, refused, text, text_reading};

/// The names of the subcommands in the program's help.
fn subcommands() -> BTreeSet<String> {
    let help = text_reading(&["--help"], "");
    let commands = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let names = commands.take_while(|line| !line.is_empty());
    let names = names.filter(|line| !line.starts_with("   "));
    let names = names.map(|line| line.split_whitespace().next().unwrap().to_string());
    names.filter(|name| name != "help").collect()
}

#[test]
fn each_shell_gets_a_script_with_all_subcommands_and_flags() {
    let names = subcommands();
    assert!(names.contains("train") && names.len() > 15, "{names:?}");
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let script = text_reading(&["completions", shell], "");
        for name in &names {
            assert!(script.contains(name.as_str()), "{shell} {name}");
        }
        assert!(script.contains("gradient-accumulation"), "{shell}");
    }
    assert!(refused(&["completions", "dos"]).contains("possible values"));
}

#[test]
fn bash_completes_a_flag() {
    let bash = |script: &str| Command::new("bash").args(["-c", script]).output();
    if !bash("true").is_ok_and(|output| output.status.success()) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("mtlora.bash");
    fs::write(&script, mtlora(&["completions", "bash"]).stdout).unwrap();
    for (words, begun, before, expected) in [
        (
            "train --gradient-a",
            "--gradient-a",
            "train",
            "--gradient-accumulation",
        ),
        ("train --structure sh", "sh", "--structure", "shim"),
        ("train --task acc", "acc", "--task", "acceptability"),
        (
            "train --lr-scheduler-type cosi",
            "cosi",
            "--lr-scheduler-type",
            "cosine",
        ),
        ("reproduce nlg", "nlg", "reproduce", "nlg-gpt2-medium"),
    ] {
        let at = words.split(' ').count();
        let ask = format!(
            "source {}; COMP_WORDS=(mtlora {words}); COMP_CWORD={at}; _mtlora mtlora {begun} {before}; echo ${{COMPREPLY[@]}}",
            text(&script)
        );
        let output = bash(&ask).unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        let found = String::from_utf8_lossy(&output.stdout);
        assert_eq!(found.trim(), expected, "{words}: {errors}");
    }
}

#[test]
fn every_subcommand_has_a_manual_page() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("share/man/man1");
    text_reading(&["man", "--out", text(&out)], "");
    let page = |name: &str| fs::read_to_string(out.join(format!("mtlora{name}.1"))).unwrap();
    for name in subcommands() {
        assert!(page(&format!("-{name}")).contains(".SH SYNOPSIS"), "{name}");
    }
    assert!(page("").contains("mtlora"));
    assert!(page("-bench-step").contains("mtlora\\-bench\\-step"));
    assert!(page("-train").contains("\\-\\-gradient\\-accumulation"));
    let error = refused(&["man", "--out", text(Path::new("/dev/null"))]);
    assert!(error.contains("/dev/null"), "{error}");
}
