use std::path::Path;

use super::Line;
use crate::data::error::DataError;
use crate::data::python;
use crate::data::rows::{json_reason, lines};
use crate::data::text_file::read_text;
use crate::tasks::data_to_text::{GenerationTask, Grouped, Record};
use crate::tasks::task::{TaskData, unknown_split};

/// The task with the files that [`write_jsonl`](super::write_jsonl) writes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Facts;

impl Facts {
    /// The name of the task.
    pub const NAME: &'static str = "facts";
}

impl TaskData for Facts {
    type Item = Record;

    fn name(&self) -> &str {
        Self::NAME
    }

    fn read(&self, data: &Path, split: &str) -> Result<Vec<Record>, DataError> {
        if !self.splits().contains(&split) {
            return Err(unknown_split(self, split));
        }
        let path = data.join(format!("{split}.jsonl"));
        let text = read_text(&path, || {
            "name the folder that the example program `facts_data` wrote".into()
        })?;
        let mut grouped = Grouped::default();
        for (number, line) in lines(&text) {
            let wrong = |why: &str| {
                let message = format!("not a record with an input and its references: {why}");
                DataError::row(&path, number, message)
            };
            let line: Line =
                serde_json::from_str(line).map_err(|error| wrong(&json_reason(&error)))?;
            if line.references.is_empty()
                || line.references.iter().any(|text| python::is_blank(text))
            {
                return Err(wrong("a reference is missing or empty"));
            }
            grouped
                .record(line.input)
                .references
                .extend(line.references);
        }
        let records = grouped.into_records();
        if records.is_empty() {
            return Err(DataError::Empty { path });
        }
        Ok(records)
    }

    fn describe(&self) -> &str {
        "one to four facts in a sentence or two; made by this project for the first run"
    }

    fn test_split(&self) -> Option<&str> {
        Some("test")
    }
}

impl GenerationTask for Facts {}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::fs;

    use super::super::{records, write_jsonl};
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let dir = tempfile::tempdir().unwrap();
        write_jsonl(dir.path(), 0, 30, 20, 10).unwrap();
        let sets = records(0, 30, 20, 10);
        for (split, records) in Facts.splits().into_iter().zip(sets) {
            assert_eq!(Facts.read(dir.path(), split).unwrap(), records);
        }
    }

    #[test]
    fn an_error_says_where_and_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let error = Facts.read(dir.path(), "dev").unwrap_err().to_string();
        assert!(
            error.contains("dev.jsonl: no such file; name the folder"),
            "{error}"
        );
        assert!(Facts.read(dir.path(), "all").is_err());
        for (text, expected) in [
            ("", "dev.jsonl: holds no examples"),
            (
                "\n{\"input\":\"a\"}",
                "dev.jsonl:2: not a record with an input and its references: missing field",
            ),
            (
                "{\"input\":\"a\",\"references\":[]}",
                "dev.jsonl:1: not a record",
            ),
            (
                "{\"input\":\"a\",\"references\":[\" \"]}",
                "dev.jsonl:1: not a record",
            ),
            (
                "{\"input\":\"a\",\"references\":[\"b\",\"\\u001c\\u001f\"]}",
                "dev.jsonl:1: not a record",
            ),
            (
                "{\"input\":\"a\",",
                "dev.jsonl:1: not a record with an input and its references: EOF",
            ),
        ] {
            fs::write(dir.path().join("dev.jsonl"), text).unwrap();
            let error = Facts.read(dir.path(), "dev").unwrap_err().to_string();
            assert!(error.contains(expected), "{error} does not say {expected}");
        }
        fs::write(dir.path().join("dev.jsonl"), b"{}\n\xff").unwrap();
        let error = Facts.read(dir.path(), "dev").unwrap_err();
        assert!(matches!(error, DataError::Utf8 { line: 2, .. }), "{error}");
    }
}
