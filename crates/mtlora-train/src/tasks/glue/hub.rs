//! GLUE in the form of the Hugging Face Hub: Parquet files, with a folder for each task.

use std::fs;
use std::path::{Path, PathBuf};

use mtlora_models::messages::shown;
use parquet::record::Field;

use super::{GlueTask, SIMILARITY};
use crate::data::error::DataError;
use crate::data::example::{Example, Objective, Target};
use crate::data::parquet_rows::each_row;

/// The data set's name on the Hub.
pub const HUB_DATASET: &str = "nyu-mll/glue";

const LABEL: &str = "label";
/// The label of rows whose label is not published.
const UNPUBLISHED: i64 = -1;

/// Whether `file`, a path in the Hub's data set, holds rows of the split that the Hub calls `hub_split`. For example,
/// `cola/validation-00000-of-00001.parquet` holds rows of CoLA's `validation`.
pub fn is_hub_file(file: &str, task: &GlueTask, hub_split: &str) -> bool {
    let inside = file
        .strip_prefix(task.hub_folder())
        .and_then(|rest| rest.strip_prefix('/'));
    inside.is_some_and(|name| part(name, hub_split).is_some())
}

/// The number of the part of a split that the Parquet file `name` holds, and the number of all parts.
fn part(name: &str, hub_split: &str) -> Option<(usize, usize)> {
    let numbers = name
        .strip_prefix(hub_split)?
        .strip_prefix('-')?
        .strip_suffix(".parquet")?;
    let (number, count) = numbers.split_once("-of-")?;
    Some((number.parse().ok()?, count.parse().ok()?))
}

impl GlueTask {
    /// The task's folder in the Hub's data set, [`HUB_DATASET`].
    pub fn hub_folder(&self) -> &'static str {
        self.spec.name
    }

    /// The Hub's name of a split: `dev` is called `validation` there.
    ///
    /// # Errors
    /// [`DataError::UnknownSplit`] if the task has no such split.
    pub fn hub_split(&self, split: &str) -> Result<String, DataError> {
        Ok(self.split_name(split)?.replacen("dev", "validation", 1))
    }

    /// Whether the folder `data` contains that split in the form of the Hub.
    pub fn has_hub_split(&self, data: &Path, split: &str) -> bool {
        self.hub_split(split).is_ok_and(|split| {
            self.hub_files(data, &split)
                .is_ok_and(|files| !files.is_empty())
        })
    }

    /// The names of the columns with the text and with the second text of a pair.
    pub(super) fn hub_columns(&self) -> (&'static str, Option<&'static str>) {
        match self.spec.name {
            "cola" | "sst2" => ("sentence", None),
            "qqp" => ("question1", Some("question2")),
            "mnli" => ("premise", Some("hypothesis")),
            "qnli" => ("question", Some("sentence")),
            _ => ("sentence1", Some("sentence2")),
        }
    }

    /// The Parquet files of a split in order; empty if there are none. They are in the task's folder inside of `data`,
    /// or in `data` itself.
    ///
    /// # Errors
    /// If some parts of the split are missing.
    pub(super) fn hub_files(
        &self,
        data: &Path,
        hub_split: &str,
    ) -> Result<Vec<PathBuf>, DataError> {
        for folder in [data.join(self.hub_folder()), data.to_path_buf()] {
            let entries = fs::read_dir(&folder).into_iter().flatten().flatten();
            let mut parts: Vec<((usize, usize), PathBuf)> = entries
                .filter_map(|entry| {
                    Some((part(entry.file_name().to_str()?, hub_split)?, entry.path()))
                })
                .collect();
            parts.sort();
            let Some(((_, count), first)) = parts.first() else {
                continue;
            };
            let numbers = parts.iter().map(|((number, of), _)| (*number, *of));
            if !numbers.eq((0..*count).map(|number| (number, *count))) {
                return Err(DataError::other(format!(
                    "{}: the split {hub_split} has {count} parts, but only {} of them exist; download the folder again",
                    first.display(),
                    parts.len()
                )));
            }
            return Ok(parts.into_iter().map(|(_, path)| path).collect());
        }
        Ok(Vec::new())
    }

    /// The examples in these files.
    pub(super) fn read_hub_files(&self, files: &[PathBuf]) -> Result<Vec<Example>, DataError> {
        let (text, pair) = self.hub_columns();
        let columns: Vec<&str> = [text, LABEL].into_iter().chain(pair).collect();
        let mut examples = Vec::new();
        for path in files {
            each_row(path, &columns, |row, values| {
                let text = |at: usize| match values.get(at) {
                    Some(Field::Str(text)) => Ok(text.clone()),
                    other => Err(DataError::row(
                        path,
                        row,
                        format!(
                            "the {} is {}, but must be a text",
                            columns[at],
                            described(other)
                        ),
                    )),
                };
                examples.push(Example {
                    text: text(0)?,
                    pair: match pair {
                        Some(_) => Some(text(2)?),
                        None => None,
                    },
                    target: self.hub_target(path, row, values.get(1))?,
                });
                Ok(())
            })?;
        }
        match (examples.is_empty(), files.first()) {
            (true, Some(path)) => Err(DataError::Empty { path: path.clone() }),
            _ => Ok(examples),
        }
    }

    fn hub_target(
        &self,
        path: &Path,
        row: usize,
        value: Option<&Field>,
    ) -> Result<Option<Target>, DataError> {
        let number = match value {
            Some(Field::Long(number)) => *number as f64,
            Some(Field::Int(number)) => f64::from(*number),
            Some(Field::Float(number)) => f64::from(*number),
            Some(Field::Double(number)) => *number,
            _ => f64::NAN,
        };
        if number == UNPUBLISHED as f64 {
            return Ok(None);
        }
        let (target, wanted) = match &self.objective {
            Objective::Regression => {
                let number = number as f32;
                let value = SIMILARITY
                    .contains(&number)
                    .then_some(Target::Value(number));
                (value, "a number from 0 to 5".to_string())
            }
            Objective::Classification { labels } => {
                let class = (0..labels.len()).find(|class| *class as f64 == number);
                (
                    class.map(Target::Class),
                    format!("a whole number below {}", labels.len()),
                )
            }
        };
        match target {
            Some(target) => Ok(Some(target)),
            None => Err(DataError::row(
                path,
                row,
                format!(
                    "the {LABEL} is {}, but must be {wanted}, or {UNPUBLISHED} if it is not published",
                    described(value)
                ),
            )),
        }
    }
}

fn described(value: Option<&Field>) -> String {
    value.map_or_else(|| "missing".to_string(), |value| shown(&value.to_string()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::tasks::glue::{task, tasks};
    use crate::tasks::task::TaskData;

    /// Files that pyarrow wrote with make.py in this folder.
    fn fixtures() -> PathBuf {
        PathBuf::from(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../../tests/fixtures/hub/glue"
        ))
    }

    #[test]
    fn every_task_is_read_from_the_hubs_files() {
        for task in tasks().into_iter().filter(|task| task.name() != "cola") {
            assert!(task.has_hub_split(&fixtures(), "dev"), "{task:?}");
            let read = task.read(&fixtures(), task.dev_split()).unwrap();
            assert_eq!(read.len(), 2);
            let targets: Vec<Target> = read.iter().map(|example| example.target.unwrap()).collect();
            let expected = match task.name() {
                "stsb" => [Target::Value(5.0), Target::Value(0.25)],
                "mnli" => [Target::Class(0), Target::Class(2)],
                "sst2" | "mrpc" | "rte" => [Target::Class(1), Target::Class(0)],
                _ => [Target::Class(0), Target::Class(1)],
            };
            assert_eq!(targets, expected, "{task:?}");
            let texts: Vec<_> = read
                .iter()
                .map(|example| (example.text.as_str(), example.pair.as_deref()))
                .collect();
            let expected = match task.name() {
                "sst2" => [("a joy to watch ", None), ("flat and \" dull ", None)],
                _ => [("Why?", Some("Why é?")), ("Says \"who\"?", Some(""))],
            };
            assert_eq!(texts, expected, "{task:?}");
        }
    }

    #[test]
    fn both_forms_of_a_task_are_the_same_examples() {
        let cola = task("cola").unwrap();
        let assets = PathBuf::from(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../../assets/acceptability"
        ));
        for (split, rows) in [("train", 96), ("dev", 64)] {
            let published = cola.read(&assets, split).unwrap();
            // The data folder may be the task's own folder, as for the published files.
            for folder in [fixtures(), fixtures().join("cola")] {
                assert_eq!(cola.read(&folder, split).unwrap(), published[..rows]);
            }
        }
        let test = cola.read(&fixtures(), "test").unwrap();
        assert_eq!(test[0].text, "A cat sings.");
        assert!(test.iter().all(|example| example.target.is_none()));
    }

    #[test]
    fn a_split_is_its_parts_and_all_of_them() {
        let cola = task("cola").unwrap();
        let folder = tempfile::tempdir().unwrap();
        let source = fixtures().join("cola/validation-00000-of-00001.parquet");
        let copy = |name: &str| {
            fs::copy(&source, folder.path().join(name))
                .map(|_| ())
                .unwrap()
        };
        copy("train-00001-of-00002.parquet");
        let error = cola.read(folder.path(), "train").unwrap_err().to_string();
        assert!(
            error.contains("has 2 parts, but only 1 of them exist"),
            "{error}"
        );
        copy("train-00000-of-00002.parquet");
        assert_eq!(cola.read(folder.path(), "train").unwrap().len(), 128);
        // If there is neither form, the error is about the published one.
        let error = cola.read(folder.path(), "dev").unwrap_err();
        assert!(matches!(error, DataError::NotFound { .. }), "{error}");
    }

    #[test]
    fn files_of_a_split_are_known_by_their_names() {
        let (cola, mnli) = (task("cola").unwrap(), task("mnli").unwrap());
        assert_eq!(cola.hub_split("dev").unwrap(), "validation");
        assert_eq!(mnli.hub_split("dev").unwrap(), "validation_matched");
        assert_eq!(
            mnli.hub_split("dev_mismatched").unwrap(),
            "validation_mismatched"
        );
        assert_eq!(mnli.hub_split("test").unwrap(), "test_matched");
        assert!(is_hub_file(
            "cola/train-00000-of-00001.parquet",
            &cola,
            "train"
        ));
        for other in [
            "train-00000-of-00001.parquet",
            "cola/train.parquet",
            "colax/train-0-of-1.parquet",
            "cola/test-0-of-1.parquet",
        ] {
            assert!(!is_hub_file(other, &cola, "train"), "{other}");
        }
        assert!(!is_hub_file(
            "mnli/validation_matched-0-of-1.parquet",
            &mnli,
            "validation"
        ));
    }

    #[test]
    fn wrong_files_are_refused_with_the_row() {
        let (cola, sst2) = (task("cola").unwrap(), task("sst2").unwrap());
        let folder = tempfile::tempdir().unwrap();
        let name = "validation-00000-of-00001.parquet";
        let put = |bytes: &[u8]| fs::write(folder.path().join(name), bytes).unwrap();
        let bytes = |file: &str| fs::read(fixtures().join(file).join(name)).unwrap();
        let error = |task: &GlueTask| task.read(folder.path(), "dev").unwrap_err().to_string();
        put(b"PAR1 no PAR1");
        assert!(error(&cola).contains("cannot be read as Parquet"));
        put(&bytes("rte"));
        let text = error(&cola);
        assert!(
            text.contains("no column `sentence`; the columns are `sentence1`"),
            "{text}"
        );
        put(&bytes("sst2"));
        assert_eq!(sst2.read(folder.path(), "dev").unwrap().len(), 2);
        // Labels of three classes in a task with two.
        let mut changed = task("mnli").unwrap();
        changed.objective = sst2.objective.clone();
        let files = [fixtures().join("mnli/validation_matched-00000-of-00001.parquet")];
        let text = changed.read_hub_files(&files).unwrap_err().to_string();
        assert!(
            text.contains(":2: the label is `2`, but must be a whole number below 2"),
            "{text}"
        );
        let whole = bytes("cola");
        for length in (0..whole.len()).step_by(37) {
            put(&whole[..length]);
            assert!(cola.read(folder.path(), "dev").is_err());
        }
    }

    /// Changes each byte of a file in turn. One of these changes made the Parquet library panic.
    #[test]
    fn no_changed_byte_makes_it_panic() {
        let name = "validation-00000-of-00001.parquet";
        let cola = task("cola").unwrap();
        let whole = fs::read(fixtures().join("cola").join(name)).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let mut refused = 0;
        for at in 0..whole.len() {
            for byte in [0, 2, 0x7f, 0xff] {
                let mut bytes = whole.clone();
                bytes[at] = byte;
                fs::write(folder.path().join(name), bytes).unwrap();
                refused += usize::from(cola.read(folder.path(), "dev").is_err());
            }
        }
        assert!(refused > whole.len());
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(200))]
        /// Changed bytes: no panic.
        #[test]
        fn mutated_files_are_refused_or_read(
            changes in proptest::collection::vec((proptest::prelude::any::<proptest::sample::Index>(), proptest::prelude::any::<u8>()), 1..5),
        ) {
            let mut bytes = fs::read(fixtures().join("cola/validation-00000-of-00001.parquet")).unwrap();
            for (at, byte) in changes {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            let folder = tempfile::tempdir().unwrap();
            fs::write(folder.path().join("validation-00000-of-00001.parquet"), bytes).unwrap();
            let _ = task("cola").unwrap().read(folder.path(), "dev");
        }
    }
}
