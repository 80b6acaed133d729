//! Data-to-text tasks: a model writes a sentence or two about a few facts.
//!
//! | task             | files in the data folder, or in its folder of that name                        | scored like |
//! |------------------|--------------------------------------------------------------------------------|-------------|
//! | [`E2e`]          | `trainset.csv`, `devset.csv`, `testset_w_refs.csv` (Novikova et al. 2017)       | E2E         |
//! | [`WebNlg`]       | `train/Ntriples/*.xml` or `train.json`, ... (Gardent et al. 2017)               | WebNLG      |
//! | [`Dart`]         | `dart-v1.1.1-full-train.json` or `.xml`, ... (Nan et al. 2021)                  | WebNLG      |
//! | [`PairsTask`]    | the user's own `train.csv`, `.tsv` or `.jsonl`, ...                             | WebNLG      |
//!
//! The input of a model is one line ([`linearise`]). A [`Record`] holds an input and all of its references, and
//! [`sequence`] encodes one input and one reference as tokens. Inputs are those of the GPT-2 experiments of Hu et al.
//! (2021, LoRA), which follow Li and Liang (2021, prefix-tuning).

mod dart;
mod e2e;
mod entry;
mod json;
pub mod linearise;
mod pairs;
mod record;
mod sequence;
mod task;
mod webnlg;
mod xml;

pub use dart::Dart;
pub use e2e::E2e;
pub use pairs::{PairsConfig, PairsTask};
pub use record::Record;
pub(crate) use sequence::target_text;
pub use sequence::{Sequence, TooLong, sequence};
pub use task::{GenerationTask, Scorer};
pub use webnlg::WebNlg;

pub(crate) use record::Grouped;

/// Checks that each reader turns a damaged file into an error with the file's name, or into records.
#[cfg(test)]
mod fuzz {
    #![allow(clippy::unwrap_used)]
    use std::fs;
    use std::path::Path;

    use proptest::prelude::*;
    use proptest::test_runner::TestCaseError;

    use super::*;

    /// A task, a file of it and its text.
    fn samples() -> Vec<(Box<dyn GenerationTask>, &'static str, String)> {
        let pairs = || Box::new(PairsTask::new("mine", PairsConfig::default()).unwrap());
        vec![
            (Box::new(E2e), "devset.csv", e2e::SAMPLE.into()),
            (
                Box::new(WebNlg),
                "dev/1triples/A.xml",
                webnlg::SAMPLE_XML.into(),
            ),
            (Box::new(WebNlg), "dev.json", webnlg::SAMPLE_JSON.into()),
            (
                Box::new(Dart),
                "dart-v1.1.1-full-dev.xml",
                dart::SAMPLE_XML.into(),
            ),
            (
                Box::new(Dart),
                "dart-v1.1.1-full-dev.json",
                dart::SAMPLE_JSON.into(),
            ),
            (
                pairs(),
                "dev.csv",
                "prompt,completion\n\"a \"\"b\"\"\",c\nd,\"e\nf\"\n".into(),
            ),
            (pairs(), "dev.tsv", "prompt\tcompletion\na\tb\n".into()),
            (
                pairs(),
                "dev.jsonl",
                "{\"prompt\":\"a\",\"completion\":\"b\\u00e9\"}\n".into(),
            ),
        ]
    }

    fn try_one(task: &dyn GenerationTask, file: &str, bytes: &[u8]) -> Result<(), TestCaseError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        match task.read(folder.path(), "dev") {
            Ok(records) => {
                prop_assert!(!records.is_empty());
                for record in records {
                    prop_assert!(!record.references.is_empty());
                    prop_assert!(
                        record
                            .references
                            .iter()
                            .all(|text| !crate::data::python::is_blank(text))
                    );
                }
            }
            Err(error) => {
                let name = Path::new(file).file_name().unwrap().to_string_lossy();
                prop_assert!(error.to_string().contains(&*name), "{}", error);
            }
        }
        Ok(())
    }

    #[test]
    fn the_samples_themselves_are_read() {
        for (task, file, text) in samples() {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, text).unwrap();
            let records = task.read(folder.path(), "dev");
            assert!(!records.unwrap().is_empty(), "{file}");
        }
    }

    #[test]
    fn invalid_utf8_is_an_error_on_its_line() {
        for (task, file, text) in samples() {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            let bytes = [b"\n\n\xff", text.as_bytes()].concat();
            fs::write(&path, bytes).unwrap();
            let error = task.read(folder.path(), "dev").unwrap_err();
            assert!(
                matches!(error, crate::DataError::Utf8 { line: 3, .. }),
                "{file}: {error}"
            );
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(96))]

        #[test]
        fn no_bytes_make_a_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            for (task, file, _) in samples() {
                try_one(task.as_ref(), file, &bytes)?;
            }
        }

        #[test]
        fn no_damaged_file_makes_a_reader_panic(
            changes in prop::collection::vec((any::<prop::sample::Index>(), 0..3usize, prop::sample::select(
                b"<>/&;#\"'=[]{}(),:|!-?\t\n\r\\ \xff\xc30x".to_vec())), 1..8),
        ) {
            for (task, file, text) in samples() {
                let mut bytes = text.into_bytes();
                for (at, how, byte) in &changes {
                    let at = at.index(bytes.len());
                    match how {
                        0 => bytes.insert(at, *byte),
                        1 => bytes[at] = *byte,
                        _ => bytes.truncate(at.max(1)),
                    }
                }
                try_one(task.as_ref(), file, &bytes)?;
            }
        }
    }
}
