//! The readers of files from elsewhere, on damaged ones: no panic, and no more memory than a few times the file.
//!
//! A few hundred cases a test; `MTLORA_FUZZ_CASES` says how many instead. Many write files: point `TMPDIR` at a folder
//! in memory.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use crate::testing::allocations::thread_peak_of;
use crate::{
    Checkpoint, DebertaConfig, DistilBertConfig, EncoderConfig, GenerationConfig, Gpt2Config,
    LlamaConfig, convert_gguf,
};

/// What a reader takes whatever the file's size, in bytes: buffers, and the message.
const FIXED: usize = 256 << 10;
/// How many times the file's size it may take at once.
const TIMES: usize = 10;
/// Parts of files in which numbers and names stand.
const PIECES: [&[u8]; 16] = [
    b"0",
    b"-1",
    b"1e999",
    b"18446744073709551615",
    b"9223372036854775808",
    b"null",
    b"[]",
    b"{}",
    b"\"",
    b"[[[[",
    b"\\u0000",
    b"../",
    b"\xff\xff\xff\xff",
    b"\xff\xff\xff\x7f",
    b"\x00\x00\x00\x80",
    b"\xff",
];

fn cases() -> ProptestConfig {
    let cases = std::env::var("MTLORA_FUZZ_CASES")
        .ok()
        .and_then(|cases| cases.parse().ok());
    ProptestConfig {
        // There is nothing to keep: a failure prints its case.
        failure_persistence: None,
        ..ProptestConfig::with_cases(cases.unwrap_or(300))
    }
}

/// One change of a file.
#[derive(Clone, Debug)]
enum Change {
    Set(Index, u8),
    Flip(Index, u8),
    Insert(Index, Vec<u8>),
    Piece(Index, usize),
    Remove(Index, usize),
    Repeat(Index, usize),
    Swap(Index, Index, usize),
    Cut(Index),
}

fn change() -> impl Strategy<Value = Change> {
    let at = any::<Index>;
    prop_oneof![
        6 => (at(), any::<u8>()).prop_map(|(at, byte)| Change::Set(at, byte)),
        4 => (at(), 0u8..8).prop_map(|(at, bit)| Change::Flip(at, bit)),
        2 => (at(), vec(any::<u8>(), 1..9)).prop_map(|(at, bytes)| Change::Insert(at, bytes)),
        3 => (at(), 0..PIECES.len()).prop_map(|(at, piece)| Change::Piece(at, piece)),
        2 => (at(), 1usize..40).prop_map(|(at, length)| Change::Remove(at, length)),
        2 => (at(), 1usize..200).prop_map(|(at, length)| Change::Repeat(at, length)),
        1 => (at(), at(), 1usize..40).prop_map(|(from, to, length)| Change::Swap(from, to, length)),
        1 => at().prop_map(Change::Cut),
    ]
}

fn changes() -> impl Strategy<Value = Vec<Change>> {
    vec(change(), 1..5)
}

fn changed(bytes: &[u8], changes: &[Change]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for change in changes {
        if bytes.is_empty() {
            return bytes;
        }
        let length = bytes.len();
        let range = |at: &Index, wanted: usize| {
            let at = at.index(length);
            at..(at + wanted).min(length)
        };
        match change {
            Change::Set(at, byte) => bytes[at.index(length)] = *byte,
            Change::Flip(at, bit) => bytes[at.index(length)] ^= 1 << bit,
            Change::Insert(at, new) => drop(bytes.splice(range(at, 0), new.iter().copied())),
            Change::Piece(at, piece) => {
                let piece = PIECES[*piece];
                drop(bytes.splice(range(at, piece.len()), piece.iter().copied()));
            }
            Change::Remove(at, wanted) => drop(bytes.drain(range(at, *wanted))),
            Change::Repeat(at, wanted) => {
                let copy = bytes[range(at, *wanted)].to_vec();
                drop(bytes.splice(range(at, 0), copy));
            }
            Change::Swap(from, to, wanted) => {
                let copy = bytes[range(from, *wanted)].to_vec();
                for (place, byte) in range(to, copy.len()).zip(copy) {
                    bytes[place] = byte;
                }
            }
            Change::Cut(at) => bytes.truncate(at.index(length)),
        }
    }
    bytes
}

/// A folder that a test writes its cases into.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn put(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.0.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    }
}

thread_local!(static FOLDER: Folder = Folder::new());

fn bounded<T>(length: usize, run: impl FnOnce() -> T) -> T {
    let (result, peak) = thread_peak_of(run);
    assert!(
        peak < TIMES * length + FIXED,
        "{peak} bytes for a file of {length}"
    );
    result
}

/// Opens a tensor file and reads all of it.
fn read_all(path: &Path, length: usize) {
    if let Ok(checkpoint) = bounded(length, || Checkpoint::open_file(path)) {
        let names: Vec<String> = checkpoint.names().map(str::to_string).collect();
        for name in names {
            let _ = bounded(length, || checkpoint.read_f32(&name));
        }
    }
}

fn fixture(name: &str) -> Vec<u8> {
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures"));
    fs::read(folder.join(name)).unwrap()
}

/// The CRC-32 of zip files.
fn crc(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            let mask = 0u32.wrapping_sub(crc & 1);
            crc >> 1 ^ 0xedb8_8320 & mask
        })
    })
}

/// The places of the contents and of the CRC of the zip entry whose name ends in `name`.
fn entry(zip: &[u8], name: &[u8]) -> (std::ops::Range<usize>, usize) {
    let number = |at: usize, bytes: usize| {
        zip[at..at + bytes]
            .iter()
            .rev()
            .fold(0, |n, b| n << 8 | usize::from(*b))
    };
    let central = (0..zip.len() - 46)
        .filter(|at| zip[*at..].starts_with(b"PK\x01\x02"))
        .find(|at| zip[at + 46..at + 46 + number(at + 28, 2)].ends_with(name))
        .unwrap();
    let local = number(central + 42, 4);
    let start = local + 30 + number(local + 26, 2) + number(local + 28, 2);
    // The header before the contents has no CRC: torch.save writes it after them, where it is not read.
    (start..start + number(central + 20, 4), central + 16)
}

/// `torch.save`'s zip file with a changed pickle of the same length in it, and the CRC that goes with it.
fn with_pickle(zip: &[u8], changes: &[Change]) -> Vec<u8> {
    let (place, at) = entry(zip, b"data.pkl");
    let mut pickle = changed(&zip[place.clone()], changes);
    pickle.resize(place.len(), b'.');
    let mut zip = zip.to_vec();
    let sum = crc(&pickle).to_le_bytes();
    zip[place].copy_from_slice(&pickle);
    zip[at..at + 4].copy_from_slice(&sum);
    zip
}

/// One instruction of a pickle, with what follows it.
fn instruction() -> impl Strategy<Value = Vec<u8>> {
    let plain = prop::sample::select(
        b"0123(.NI}]()lt\x85\x86\x87\x88\x89abdesuoRbQ\x81\x90\x91\x8f\x93\x94\x97\x98".to_vec(),
    );
    let small = prop::sample::select(b"KhqJM\x8a\x8cUC\x80\x82hhqq".to_vec());
    let globals = prop::sample::select(vec![
        "ctorch._utils\n_rebuild_tensor_v2\n",
        "ctorch._utils\n_rebuild_parameter\n",
        "ccollections\nOrderedDict\n",
        "ctorch\nFloatStorage\n",
        "ctorch\nSize\n",
        "cos\nsystem\n",
        "c__builtin__\ngetattr\n",
        "c__builtin__\nset\n",
        "ctorch.nn.modules.linear\nLinear\n",
    ]);
    prop_oneof![
        6 => plain.prop_map(|code| vec![code]),
        4 => (small, vec(any::<u8>(), 1..5)).prop_map(|(code, rest)| [vec![code], rest].concat()),
        3 => (prop::sample::select(b"hq".to_vec()), 0u8..6).prop_map(|(code, slot)| vec![code, slot]),
        2 => vec(b'a'..=b'e', 1..3).prop_map(|name| [b"X", &(name.len() as u32).to_le_bytes()[..], &name].concat()),
        2 => globals.prop_map(|text| text.as_bytes().to_vec()),
        1 => any::<u32>().prop_map(|length| [b"X", &length.to_le_bytes()[..]].concat()),
        1 => any::<u64>().prop_map(|length| [b"\x8d", &length.to_le_bytes()[..]].concat()),
        1 => any::<u64>().prop_map(|length| [b"\x95", &length.to_le_bytes()[..]].concat()),
    ]
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn configurations(which in 0usize..10, changes in changes()) {
        let folder = ["roberta", "bert", "gpt2", "llama", "qwen2_window", "qwen3", "smollm3", "deberta_v3", "deberta_v2", "distilbert"][which];
        let bytes = changed(&fixture(&format!("models/{folder}/config.json")), &changes);
        FOLDER.with(|folder| {
            folder.put("config.json", &bytes);
            let folder = folder.0.path();
            if let Ok(config) = bounded(bytes.len(), || EncoderConfig::from_folder(folder)) {
                let _ = config.to_json();
            }
            if let Ok(config) = bounded(bytes.len(), || DebertaConfig::from_folder(folder)) {
                let _ = config.to_json();
            }
            if let Ok(config) = bounded(bytes.len(), || DistilBertConfig::from_folder(folder)) {
                let _ = config.to_json();
            }
            if let Ok(config) = bounded(bytes.len(), || Gpt2Config::from_folder(folder)) {
                let _ = config.to_json();
            }
            if let Ok(config) = bounded(bytes.len(), || LlamaConfig::from_folder(folder)) {
                let _ = config.to_json();
            }
        });
    }

    #[test]
    fn generation_configurations(changes in changes()) {
        let bytes = changed(&fixture("models/gpt2/generation_config.json"), &changes);
        let _ = serde_json::from_slice::<GenerationConfig>(&bytes).map(|config| config.validate());
    }

    #[test]
    fn safetensors_files(which in 0usize..3, changes in changes()) {
        let name = ["shim_linear", "ctcm_merged_qv", "dtsm_embedding"][which];
        let mut bytes = fixture(&format!("layers/{name}.safetensors"));
        // The header is what there is to get wrong.
        let header = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        let data = bytes.split_off(header);
        let bytes = [changed(&bytes, &changes), data].concat();
        FOLDER.with(|folder| read_all(&folder.put("t.safetensors", &bytes), bytes.len()));
    }

    #[test]
    fn gguf_files(changes in changes()) {
        let mut bytes = fixture("gguf/llama_bias.gguf");
        // The metadata and the list of tensors are what there is to get wrong.
        let data = bytes.split_off(3_800);
        let bytes = [changed(&bytes, &changes), data].concat();
        FOLDER.with(|folder| {
            let path = folder.put("t.gguf", &bytes);
            let out = tempfile::tempdir().unwrap();
            // The tokenizer library sets a cache up, however small the vocabulary is.
            const CACHE: usize = 256 << 10;
            let _ = bounded(bytes.len() + CACHE, || convert_gguf(&path, out.path()));
        });
    }

    #[test]
    fn lists_of_parts(changes in changes()) {
        let index = br#"{"metadata":{"total_size":8},"weight_map":{"a":"one.safetensors","b.LayerNorm.gamma":"two.safetensors"}}"#;
        let bytes = changed(index, &changes);
        let part = |name: &str| {
            let header = format!(r#"{{"{name}":{{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}}}"#);
            [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &[0; 4]].concat()
        };
        FOLDER.with(|folder| {
            if !folder.0.path().join("one.safetensors").exists() {
                folder.put("one.safetensors", &part("a"));
                folder.put("two.safetensors", &part("b.LayerNorm.gamma"));
            }
            folder.put("model.safetensors.index.json", &bytes);
            let _ = bounded(bytes.len(), || Checkpoint::open(folder.0.path()));
        });
    }

    #[test]
    fn pytorch_files(zip in any::<bool>(), changes in changes()) {
        let name = if zip { "zip" } else { "legacy" };
        let bytes = changed(&fixture(&format!("pickle/{name}.bin")), &changes);
        FOLDER.with(|folder| read_all(&folder.put("t.bin", &bytes), bytes.len()));
    }

    #[test]
    fn pickles_in_pytorch_files(changes in changes()) {
        let bytes = with_pickle(&fixture("pickle/zip.bin"), &changes);
        FOLDER.with(|folder| read_all(&folder.put("t.bin", &bytes), bytes.len()));
    }

    #[test]
    fn any_pickle(instructions in vec(instruction(), 0..40)) {
        let bytes = [b"\x80\x02}q\x00".as_slice(), &instructions.concat(), b"."].concat();
        FOLDER.with(|folder| read_all(&folder.put("t.bin", &bytes), bytes.len()));
    }
}

#[test]
fn an_unchanged_pickle_is_still_read() {
    let zip = fixture("pickle/zip.bin");
    assert_eq!(with_pickle(&zip, &[]), zip);
}
