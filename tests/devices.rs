//! `devices`: what the build can compute on.
#![cfg(feature = "flex")]
#![allow(clippy::unwrap_used)]

mod common;

use common::{json, text_reading};

#[test]
fn devices_are_listed_with_what_they_can_do() {
    let lines = text_reading(&["devices"], "");
    assert!(
        lines.starts_with("flex: a base in f32, bf16, int8 (default)\n"),
        "{lines}"
    );
    let listed = &json(&["devices"])["devices"];
    assert_eq!(listed[0]["name"], "flex");
    assert_eq!(
        listed[0]["base_dtypes"],
        serde_json::json!(["f32", "bf16", "int8"])
    );
    assert!(listed[0].get("check").is_none());
}

#[test]
fn every_device_of_the_build_computes_as_it_should() {
    for device in json(&["devices", "--check"])["devices"].as_array().unwrap() {
        assert_eq!(device["check"]["passed"], true, "{device}");
    }
}
