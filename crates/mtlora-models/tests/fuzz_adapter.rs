//! The readers of an adapter's folder read or refuse damaged and hostile files, and take no more memory than a few
//! times the files' size.
//!
//! MTLORA_FUZZ_CASES sets the number of inputs that each test makes; without it, a test takes seconds.
#![allow(clippy::unwrap_used)]

#[path = "../../mtlora-core/tests/common/allocations.rs"]
mod allocations;
mod common;

use std::path::Path;

use allocations::thread_peak_of;
use mtlora_models::{ADAPTER_CONFIG_FILE, ADAPTER_WEIGHTS_FILE, AdapterConfig, PeftAdapter};
use proptest::prelude::*;

fn cases(usual: u32) -> ProptestConfig {
    let asked = std::env::var("MTLORA_FUZZ_CASES").ok();
    let cases = asked.and_then(|cases| cases.parse().ok()).unwrap_or(usual);
    ProptestConfig {
        // Nothing is written beside the sources.
        failure_persistence: None,
        ..ProptestConfig::with_cases(cases)
    }
}

/// The files of the committed adapters: PEFT's and the project's own.
fn sources() -> Vec<(Vec<u8>, Vec<u8>)> {
    let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/peft");
    let folders = [
        "roberta/lora",
        "roberta/patterns",
        "bert/lookahead",
        "bert/layers",
        "gpt2/embeddings",
        "gpt2/mtlora_ctcm",
    ];
    let read = |folder: &str, name: &str| {
        std::fs::read(Path::new(golden).join(folder).join(name)).unwrap()
    };
    folders
        .iter()
        .map(|folder| {
            let config = read(folder, ADAPTER_CONFIG_FILE);
            (config, read(folder, ADAPTER_WEIGHTS_FILE))
        })
        .collect()
}

/// One change of a file.
#[derive(Clone, Debug)]
enum Change {
    /// Replaces a byte. This and the other changes happen at a share of the file's length.
    Byte(f64, u8),
    /// Flips a bit.
    Flip(f64, u8),
    /// Cuts off the rest of the file.
    Cut(f64),
    /// Leaves out a number of bytes.
    Drop(f64, usize),
    /// Writes a number of bytes twice.
    Repeat(f64, usize),
    /// Inserts a text that readers may fail on.
    Insert(f64, &'static str),
}

const PIECES: [&str; 20] = [
    "9223372036854775807",
    "-1",
    "1e308",
    "1e400",
    "null",
    "{}",
    "[]",
    "\"\"",
    "{\"",
    "\\u0000",
    "\u{feff}",
    "[[[[[[[[[[[[[[[[[[[[",
    "(((((((((((((((((((((",
    "(a*)*b",
    "(?=(.*)*)$",
    "{1000}{1000}",
    "true",
    "\"IA3\"",
    "lora_A",
    "base_model.model.",
];

fn change() -> impl Strategy<Value = Change> {
    let place = 0.0..1.0f64;
    prop_oneof![
        (place.clone(), any::<u8>()).prop_map(|(at, byte)| Change::Byte(at, byte)),
        (place.clone(), 0..8u8).prop_map(|(at, bit)| Change::Flip(at, bit)),
        place.clone().prop_map(Change::Cut),
        (place.clone(), 1..40usize).prop_map(|(at, length)| Change::Drop(at, length)),
        (place.clone(), 1..40usize).prop_map(|(at, length)| Change::Repeat(at, length)),
        (place, prop::sample::select(&PIECES[..]))
            .prop_map(|(at, piece)| Change::Insert(at, piece)),
    ]
}

/// Applies the changes to the first `head` bytes only, since a file's header is the hardest to read.
fn apply(bytes: &mut Vec<u8>, changes: &[Change], head: usize) {
    for change in changes {
        let length = bytes.len().min(head);
        if length == 0 {
            return;
        }
        let place = |at: f64| ((at * length as f64) as usize).min(length - 1);
        match *change {
            Change::Byte(at, byte) => bytes[place(at)] = byte,
            Change::Flip(at, bit) => bytes[place(at)] ^= 1 << bit,
            Change::Cut(at) => bytes.truncate(place(at)),
            Change::Drop(at, count) => {
                let from = place(at);
                bytes.drain(from..(from + count).min(length));
            }
            Change::Repeat(at, count) => {
                let from = place(at);
                let stretch = bytes[from..(from + count).min(length)].to_vec();
                bytes.splice(from..from, stretch);
            }
            Change::Insert(at, piece) => {
                let from = place(at);
                bytes.splice(from..from, piece.bytes());
            }
        }
    }
}

/// Reads a folder with these files, and checks how much memory that takes.
fn read_folder(folder: &Path, config: &[u8], weights: &[u8]) -> Result<(), TestCaseError> {
    std::fs::write(folder.join(ADAPTER_CONFIG_FILE), config).unwrap();
    std::fs::write(folder.join(ADAPTER_WEIGHTS_FILE), weights).unwrap();
    let mut answer = None;
    let ((), held) = thread_peak_of(|| answer = Some(PeftAdapter::from_folder(folder)));
    // A compiled expression may take a megabyte or a few, whatever its length.
    let bound = (16 << 20) + 40 * (config.len() + weights.len());
    prop_assert!(
        held < bound,
        "{held} bytes for {} and {}",
        config.len(),
        weights.len()
    );
    match answer.unwrap() {
        Err(error) => prop_assert!(!error.to_string().is_empty()),
        // An adapter that was read can be written, and is read back the same.
        Ok(adapter) => {
            adapter.write(folder).unwrap();
            let again = PeftAdapter::from_folder(folder)
                .map_err(|error| TestCaseError::fail(error.to_string()))?;
            prop_assert_eq!(again.modules, adapter.modules);
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(cases(250))]

    #[test]
    fn changed_configurations_are_read_or_refused(
        source in 0..6usize,
        changes in prop::collection::vec(change(), 1..6),
    ) {
        let (mut config, weights) = sources().swap_remove(source);
        apply(&mut config, &changes, usize::MAX);
        let folder = tempfile::tempdir().unwrap();
        read_folder(folder.path(), &config, &weights)?;
    }

    #[test]
    fn changed_tensor_files_are_read_or_refused(
        source in 0..6usize,
        changes in prop::collection::vec(change(), 1..6),
        whole in any::<bool>(),
    ) {
        let (config, mut weights) = sources().swap_remove(source);
        let header = 8 + u64::from_le_bytes(weights[..8].try_into().unwrap()) as usize;
        apply(&mut weights, &changes, if whole { usize::MAX } else { header });
        let folder = tempfile::tempdir().unwrap();
        read_folder(folder.path(), &config, &weights)?;
    }

    #[test]
    fn configurations_of_other_adapters_are_refused_or_fit(
        config in 0..6usize,
        weights in 0..6usize,
        changes in prop::collection::vec(change(), 0..3),
    ) {
        let mut all = sources();
        let weights = all[weights].1.clone();
        let mut config = all.swap_remove(config).0;
        apply(&mut config, &changes, usize::MAX);
        let folder = tempfile::tempdir().unwrap();
        read_folder(folder.path(), &config, &weights)?;
    }
}

proptest! {
    #![proptest_config(cases(2000))]

    #[test]
    fn any_bytes_are_a_configuration_or_refused(
        source in 0..6usize,
        changes in prop::collection::vec(change(), 1..12),
    ) {
        let (mut bytes, _) = sources().swap_remove(source);
        apply(&mut bytes, &changes, usize::MAX);
        let mut answer = None;
        let read = || answer = Some(AdapterConfig::from_bytes(Path::new("c"), &bytes));
        let ((), held) = thread_peak_of(read);
        prop_assert!(held < (1 << 20) + 40 * bytes.len(), "{held} bytes for {}", bytes.len());
        if let Some(Ok(config)) = answer {
            let again = AdapterConfig::from_bytes(Path::new("c"), config.to_json().as_bytes());
            let known = AdapterConfig { ignored: Vec::new(), ..config };
            prop_assert_eq!(again.unwrap(), known);
        }
    }
}

#[test]
fn a_tensor_file_cut_anywhere_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (config, weights) = sources().swap_remove(5);
    std::fs::write(folder.path().join(ADAPTER_CONFIG_FILE), config).unwrap();
    for length in 0..weights.len() {
        std::fs::write(folder.path().join(ADAPTER_WEIGHTS_FILE), &weights[..length]).unwrap();
        assert!(PeftAdapter::from_folder(folder.path()).is_err(), "{length}");
    }
}
