//! A task from the user's own files: CSV, TSV or JSONL with a prompt and a completion, in the formats of
//! [`TableTask`](crate::TableTask).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use mtlora_models::messages::shown;
use serde::{Deserialize, Serialize};

use super::record::{Grouped, Record};
use super::task::GenerationTask;
use crate::data::error::DataError;
use crate::data::python;
use crate::data::table_file;
use crate::tasks::task::{TaskData, unknown_split};

/// The meaning of the columns of a table of pairs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PairsConfig {
    /// The column with the model's input; `prompt` by default.
    pub prompt: String,
    /// The column with the text to write; `completion` by default. Several rows with one prompt are several references.
    pub completion: String,
    /// The files of splits, relative to the data folder. By default a split is the file of its name: `train.csv`, ...
    pub files: BTreeMap<String, PathBuf>,
}

impl Default for PairsConfig {
    fn default() -> Self {
        Self {
            prompt: "prompt".into(),
            completion: "completion".into(),
            files: BTreeMap::new(),
        }
    }
}

/// A task whose records are the rows of a table with a prompt and a completion.
///
/// Prompts are taken as they are. White space around a completion does not matter, and line breaks in it are kept.
#[derive(Clone, Debug)]
pub struct PairsTask {
    name: String,
    config: PairsConfig,
}

impl PairsTask {
    /// The name on the command line of the task with the user's own pairs.
    pub const NAME: &'static str = "pairs";

    /// Creates the task under the name `name`.
    ///
    /// # Errors
    /// [`DataError::Setting`] if both columns are the same.
    pub fn new(name: &str, config: PairsConfig) -> Result<Self, DataError> {
        if config.prompt.trim() == config.completion.trim() {
            let message = format!(
                "{} is the column with the prompts; name another",
                shown(&config.completion)
            );
            return Err(DataError::setting("completion", message));
        }
        let name = name.to_string();
        Ok(Self { name, config })
    }

    /// The settings.
    pub fn config(&self) -> &PairsConfig {
        &self.config
    }

    /// Reads the records of any file.
    ///
    /// # Errors
    /// If the file cannot be read, has an invalid row or an empty completion; the error names the file and the line.
    pub fn read_file(&self, path: &Path) -> Result<Vec<Record>, DataError> {
        let PairsConfig {
            prompt, completion, ..
        } = &self.config;
        let mut grouped = Grouped::default();
        table_file::each_cells(path, [prompt, completion], |line, [prompt, text]| {
            // A text that is blank to the scores counts as empty here.
            let text = python::strip(&text);
            if text.is_empty() {
                return Err(table_file::empty_cell(path, line, completion));
            }
            grouped.record(prompt).references.push(text.to_string());
            Ok(())
        })?;
        Ok(grouped.into_records())
    }

    /// Reads the prompts of any file, one for each row. Other columns are ignored and may be missing.
    ///
    /// # Errors
    /// If the file cannot be read or has an invalid row; the error names the file and the line.
    pub fn read_prompts(&self, path: &Path) -> Result<Vec<String>, DataError> {
        let mut prompts = Vec::new();
        table_file::each_cells(path, [&self.config.prompt], |_, [prompt]| {
            prompts.push(prompt);
            Ok(())
        })?;
        Ok(prompts)
    }
}

impl TaskData for PairsTask {
    type Item = Record;

    fn name(&self) -> &str {
        &self.name
    }

    fn read(&self, data: &Path, split: &str) -> Result<Vec<Record>, DataError> {
        if !self.splits().contains(&split) {
            return Err(unknown_split(self, split));
        }
        let path = table_file::split_file(&self.config.files, data, split, || {
            format!(
                "{split}.tsv and {split}.jsonl do not exist either; correct the data folder, or put the split {} there",
                shown(split)
            )
        })?;
        self.read_file(&path)
    }

    fn describe(&self) -> &str {
        "your own prompts and completions: CSV, TSV or JSONL"
    }

    fn splits(&self) -> Vec<&str> {
        table_file::splits(&self.config.files)
    }
}

impl GenerationTask for PairsTask {
    fn input_column(&self) -> &str {
        &self.config.prompt
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::fs;

    use tempfile::TempDir;

    use super::*;

    fn folder(files: &[(&str, &str)]) -> TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::write(folder.path().join(name), text).unwrap();
        }
        folder
    }

    fn mine() -> PairsTask {
        let config = PairsConfig {
            prompt: "in".into(),
            completion: "out".into(),
            ..PairsConfig::default()
        };
        PairsTask::new("mine", config).unwrap()
    }

    #[test]
    fn the_three_formats_say_the_same() {
        for (name, text) in [
            (
                "train.csv",
                "\u{feff}in, out ,id\r\n\"a, b \",one,1\r\nc,\" \"\"two\"\" \",2\r\n\"a, b \",three,3\r\n",
            ),
            (
                "train.tsv",
                "id\tin\tout\n1\ta, b \tone\n2\tc\t\"two\"\n3\ta, b \tthree\n",
            ),
            (
                "train.jsonl",
                "{\"in\":\"a, b \",\"out\":\"one\"}\n\n{\"out\":\"\\\"two\\\"\\n\",\"in\":\"c\"}\n\
                 {\"in\":\"a, b \",\"out\":\"three\"}",
            ),
        ] {
            let data = folder(&[(name, text)]);
            let records = mine().read(data.path(), "train").unwrap();
            assert_eq!(records.len(), 2, "{name}");
            assert_eq!(records[0].input, "a, b ");
            assert_eq!(records[0].references, ["one", "three"]);
            assert_eq!(records[1].references, ["\"two\""]);
            let prompts = mine().read_prompts(&data.path().join(name)).unwrap();
            assert_eq!(prompts, ["a, b ", "c", "a, b "]);
        }
    }

    #[test]
    fn prompts_need_no_completions() {
        let data = folder(&[
            ("test.csv", "in\na\n"),
            ("test.jsonl", "{\"in\":\"a\",\"out\":\"\"}"),
        ]);
        for name in ["test.csv", "test.jsonl"] {
            let prompts = mine().read_prompts(&data.path().join(name)).unwrap();
            assert_eq!(prompts, ["a"]);
        }
    }

    #[test]
    fn an_error_says_where_and_what_to_do() {
        for (name, text, expected) in [
            (
                "dev.csv",
                "in,out\na,b\n\n\"c\nd\",\" \"\n",
                "dev.csv:4: the column `out` is empty",
            ),
            (
                "dev.tsv",
                "in\tout\na\t\n",
                "dev.tsv:2: the column `out` is empty",
            ),
            (
                "dev.jsonl",
                "\n{\"in\":\"a\",\"out\":\"\\n\"}",
                "dev.jsonl:2: the column `out` is empty",
            ),
            (
                "dev.jsonl",
                "{\"in\":\"a\"}",
                "dev.jsonl:1: no column `out`; the columns are `in`",
            ),
            (
                "dev.jsonl",
                "{\"in\":1,\"out\":\"b\"}",
                "dev.jsonl:1: the column `in` is not a string",
            ),
            (
                "dev.jsonl",
                "{\"in\":\"a\",",
                "dev.jsonl:1: not a JSON object, at column 10",
            ),
            (
                "dev.csv",
                "in\na\n",
                "dev.csv:1: no column `out`; the columns are `in`",
            ),
            ("dev.csv", "in,out\na\n", "dev.csv:2: only 1 column"),
            ("dev.csv", "in,out\n", "dev.csv: holds no examples"),
            ("dev.csv", "in,out\na,\"b\n", "dev.csv:2: a quotation mark"),
            ("other.csv", "", "dev.csv: no such file; dev.tsv and"),
        ] {
            let data = folder(&[(name, text)]);
            let error = mine().read(data.path(), "dev").unwrap_err().to_string();
            assert!(error.contains(expected), "{error} does not say {expected}");
        }
        let data = folder(&[("dev.csv", ""), ("dev.tsv", "")]);
        let error = mine().read(data.path(), "dev").unwrap_err().to_string();
        assert!(error.contains("setting `data`: both"), "{error}");
        let error = mine().read_file(Path::new("a.parquet")).unwrap_err();
        assert!(
            error.to_string().contains(".csv, .tsv or .jsonl"),
            "{error}"
        );
    }

    #[test]
    fn settings_survive_their_file_and_may_name_files() {
        let config: PairsConfig =
            toml::from_str("prompt = \"a\"\n[files]\nextra = \"x.jsonl\"").unwrap();
        let saved = toml::to_string(&config).unwrap();
        assert_eq!(toml::from_str::<PairsConfig>(&saved).unwrap(), config);
        let task = PairsTask::new("mine", config).unwrap();
        assert_eq!(task.splits(), ["train", "dev", "test", "extra"]);
        let data = folder(&[("x.jsonl", "{\"a\":\"b\",\"completion\":\"c\"}")]);
        assert_eq!(task.read(data.path(), "extra").unwrap().len(), 1);
        assert!(task.read(data.path(), "other").is_err());

        let same = PairsConfig {
            completion: "prompt ".into(),
            ..PairsConfig::default()
        };
        assert!(PairsTask::new("mine", same).is_err());
    }
}
