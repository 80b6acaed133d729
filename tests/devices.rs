//! `devices`: what the build can compute on.
#![cfg(feature = "flex")]
#![allow(clippy::unwrap_used)]

mod common;

use std::process::Command;

use common::{json, text_reading};

#[test]
fn devices_are_listed_with_what_they_can_do() {
    let lines = text_reading(&["devices"], "");
    assert!(
        lines.starts_with(
            "flex (default)\n  precisions: f32, bf16, f16, int8, nf4, packed\n  kernels: "
        ),
        "{lines}"
    );
    let listed = &json(&["devices"])["devices"];
    assert_eq!(listed[0]["name"], "flex");
    assert_eq!(
        listed[0]["base_dtypes"],
        serde_json::json!(["f32", "bf16", "f16", "int8", "nf4", "packed"])
    );
    assert!(listed[0].get("check").is_none());
}

#[test]
fn the_instructions_can_be_restricted() {
    let devices = |value: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mtlora"));
        let output = command.arg("devices").env("MTLORA_CPU", value).output();
        let output = output.unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (
            output.status.success(),
            text(&output.stdout),
            text(&output.stderr),
        )
    };
    let (passed, lines, _) = devices("portable");
    let expected = "\n  kernels: portable, which MTLORA_CPU names\n  to let the program choose: unset MTLORA_CPU\n";
    assert!(passed && lines.contains(expected), "{lines}");
    // On a processor with tiles, `amx` names a path; elsewhere the message says what is in the way.
    let (passed, lines, error) = devices("amx");
    if passed {
        assert!(
            lines.contains("\n  kernels: amx, which MTLORA_CPU names\n"),
            "{lines}"
        );
    } else {
        assert!(
            error.starts_with("mtlora: MTLORA_CPU is `amx`, but "),
            "{error}"
        );
        assert!(error.contains("; there is portable"), "{error}");
    }
    let (passed, _, error) = devices("sse9");
    let expected = "mtlora: MTLORA_CPU is `sse9`, but must be one of portable, avx2, avx512, avx512bf16, amx, neon, \
                    neonbf16\n";
    assert!(!passed && error == expected, "{error}");
}

#[test]
fn every_device_of_the_build_computes_as_it_should() {
    for device in json(&["devices", "--check"])["devices"].as_array().unwrap() {
        assert_eq!(device["check"]["passed"], true, "{device}");
    }
}
