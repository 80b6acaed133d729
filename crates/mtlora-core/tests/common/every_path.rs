//! Runs a test program again on the other paths that the processor has.

use std::process::Command;

use mtlora_core::{CpuChoice, CpuPath, NamedDevice};

/// Runs the other tests of this program on each [`CpuPath`] of this processor that they have not been run on. `this` is
/// the name of the calling test. If the environment names a path, the tests are for that path alone, and nothing is done.
///
/// # Panics
/// When tests fail on a path.
#[allow(clippy::expect_used)]
pub fn run_on_other_paths(this: &str) {
    let choice = CpuChoice::read().expect("the path can be read");
    // The path is that of flex.
    if choice.is_requested || !cfg!(feature = "flex") {
        return;
    }
    let program = std::env::current_exe().expect("the program has a path");
    for path in CpuPath::available().filter(|path| *path != choice.path) {
        let output = Command::new(&program)
            .args(["--skip", this])
            .env(CpuChoice::VARIABLE, path.name())
            .output()
            .expect("the program starts");
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "on the path {path}:\n{text}");
        assert!(!text.contains("running 0 tests"), "{text}");
    }
}

/// The devices to test: all of this build, or where the environment names a path, those whose kernels it chooses.
#[allow(dead_code)]
pub fn devices() -> Vec<NamedDevice> {
    let mut all = mtlora_core::devices();
    if CpuChoice::read().is_ok_and(|choice| choice.is_requested) {
        all.retain(|named| named.name == "flex");
    }
    all
}
