use std::path::Path;

use serde::Deserialize;

use super::entry::{Collected, Entry, Text};
use super::record::Record;
use super::task::{GenerationTask, Scorer};
use super::{json, xml};
use crate::data::error::DataError;
use crate::data::text_file::read_text;
use crate::tasks::task::{TaskData, unknown_split};

/// The folder that the files may be in, inside of the data folder.
const FOLDER: &str = "dart";

/// Tables of all kinds: DART 1.1.1 (Nan et al. 2021), `dart-v1.1.1-full-SPLIT.json` or, if there is none, `.xml`.
///
/// The predicate of a triple is lower-cased, as in the GPT-2 experiments; subject and object are taken as they are.
#[derive(Clone, Copy, Debug, Default)]
pub struct Dart;

impl TaskData for Dart {
    type Item = Record;

    fn name(&self) -> &str {
        "dart"
    }

    fn read(&self, data: &Path, split: &str) -> Result<Vec<Record>, DataError> {
        self.read_noting(data, split, &mut |_| ())
    }

    fn read_noting(
        &self,
        data: &Path,
        split: &str,
        note: &mut dyn FnMut(&str),
    ) -> Result<Vec<Record>, DataError> {
        if !self.splits().contains(&split) {
            return Err(unknown_split(self, split));
        }
        let file = format!("dart-v1.1.1-full-{split}");
        let folders = [data.join(FOLDER), data.to_path_buf()];
        let candidates = folders.iter().flat_map(|folder| {
            ["json", "xml"].map(|ending| folder.join(format!("{file}.{ending}")))
        });
        let path = candidates
            .into_iter()
            .find(|path| path.exists())
            .unwrap_or_else(|| data.join(format!("{file}.json")));
        let text = read_text(&path, || {
            format!(
                "{file}.xml does not exist either; name the folder with DART's files, or the one that {FOLDER} is in"
            )
        })?;
        let entries = if path.extension().is_some_and(|ending| ending == "xml") {
            xml::entries(&path, &text)?
        } else {
            let entries: Vec<JsonEntry> = json::parse(&path, &text, "DART's JSON")?;
            entries.into_iter().map(Entry::from).collect()
        };
        let mut collected = Collected::default();
        for mut entry in entries {
            for [_, predicate, _] in &mut entry.triples {
                *predicate = predicate.to_lowercase();
            }
            // The category of all entries is `MISC`.
            entry.category = None;
            collected.add(&path, entry, |_| true)?;
        }
        collected.finish(&path, "not empty", note)
    }

    fn describe(&self) -> &str {
        "triples from tables of all kinds in a sentence or two; DART"
    }

    fn test_split(&self) -> Option<&str> {
        Some("test")
    }
}

impl GenerationTask for Dart {
    fn scorer(&self) -> Scorer {
        Scorer::Dart
    }
}

#[derive(Deserialize)]
struct JsonEntry {
    tripleset: Vec<[String; 3]>,
    annotations: Vec<Annotation>,
}

#[derive(Deserialize)]
struct Annotation {
    text: String,
}

impl From<JsonEntry> for Entry {
    fn from(entry: JsonEntry) -> Self {
        let texts = entry.annotations.into_iter().map(|annotation| Text {
            comment: String::new(),
            text: annotation.text,
        });
        Self {
            category: None,
            triples: entry.tripleset,
            texts: texts.collect(),
        }
    }
}

#[cfg(test)]
pub(super) const SAMPLE_JSON: &str = r#"[
  {
    "tripleset": [["Mars Hill College", "JOINED", "1973"], ["Mars Hill College", "LOCATION", "Mars Hill"]],
    "subtree_was_extended": true,
    "annotations": [{"source": "WikiSQL_decl_sents", "text": "A school from Mars Hill joined in 1973. "}]
  },
  {"tripleset": [["a", "B", ""]], "annotations": [{"source": "x", "text": "b\nc"}, {"source": "x", "text": ""}]}
]"#;

#[cfg(test)]
pub(super) const SAMPLE_XML: &str = "<?xml version='1.0' encoding='utf-8'?>
<benchmark>
  <entries>
    <entry category=\"MISC\" eid=\"Id1\" size=\"3\">
      <modifiedtripleset>
        <mtriple>Mars Hill College | JOINED | 1973</mtriple>
        <mtriple>Mars Hill College | LOCATION | Mars Hill</mtriple>
      </modifiedtripleset>
      <lex comment=\"WikiSQL_decl_sents\" lid=\"Id1\">A school from Mars Hill joined in 1973.</lex>
    </entry>
    <entry category=\"MISC\" eid=\"Id2\" size=\"1\">
      <modifiedtripleset>
        <mtriple>a | B | </mtriple>
      </modifiedtripleset>
      <lex comment=\"x\" lid=\"Id1\">b
      c</lex>
      <lex comment=\"x\" lid=\"Id2\"/>
    </entry>
  </entries>
</benchmark>
";

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::fs;

    use super::*;

    #[test]
    fn both_formats_say_the_same() {
        for (ending, text) in [("json", SAMPLE_JSON), ("xml", SAMPLE_XML)] {
            let folder = tempfile::tempdir().unwrap();
            let file = folder
                .path()
                .join(format!("dart-v1.1.1-full-test.{ending}"));
            fs::write(file, text).unwrap();
            let mut notes = Vec::new();
            let mut note = |text: &str| notes.push(text.to_string());
            let records = Dart.read_noting(folder.path(), "test", &mut note).unwrap();
            assert_eq!(records.len(), 2, "{ending}");
            assert_eq!(
                records[0].input,
                "Mars Hill College : joined : 1973 | Mars Hill College : location : Mars Hill"
            );
            assert_eq!(
                records[0].references,
                ["A school from Mars Hill joined in 1973."]
            );
            assert_eq!(records[1].input, "a : b : ");
            assert_eq!(records[1].references, ["b c"]);
            assert!(
                notes[0].contains("left out 1 of 3 texts and 0 of 2 inputs"),
                "{notes:?}"
            );
        }
    }

    #[test]
    fn a_text_is_blank_where_python_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("dart-v1.1.1-full-test.json");
        let text = SAMPLE_JSON
            .replace("\"text\": \"\"", "\"text\": \"\\u001f\"")
            .replace("b\\nc", "\\u001cb\\nc\\u001d");
        fs::write(path, text).unwrap();
        let records = Dart.read(folder.path(), "test").unwrap();
        assert_eq!(records[1].references, ["b c"]);
    }

    #[test]
    fn an_error_says_where_and_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let error = Dart.read(folder.path(), "dev").unwrap_err().to_string();
        assert!(
            error.contains("full-dev.json: no such file; dart-v1.1.1-full-dev.xml does not exist"),
            "{error}"
        );
        let path = folder.path().join("dart-v1.1.1-full-dev.json");
        for (text, expected) in [
            ("[]", "full-dev.json:1: holds 0 inputs"),
            (
                "[{\"tripleset\":[],\"annotations\":[]}]",
                "full-dev.json:1: entry 1 has no triples",
            ),
            (
                "[\n{}]",
                "full-dev.json:2: not DART's JSON, at column 2: missing field `tripleset`",
            ),
            ("{\n\"entries\": []}", "full-dev.json:1: not DART's JSON"),
            (
                "[\n{\"tripleset\":\n[[\"a\"",
                "full-dev.json:3: not DART's JSON",
            ),
            ("<benchmark/>", "full-dev.json:1: not DART's JSON"),
        ] {
            fs::write(&path, text).unwrap();
            let error = Dart.read(folder.path(), "dev").unwrap_err().to_string();
            assert!(error.contains(expected), "{error} does not say {expected}");
        }
        assert!(Dart.read(folder.path(), "all").is_err());
    }

    #[test]
    fn the_published_files_are_as_they_should_be() {
        let Some(data) = std::env::var_os("MTLORA_DATA") else {
            println!("skipped: MTLORA_DATA names no folder with the published data");
            return;
        };
        for (split, inputs, texts) in [("dev", 2721, 6980), ("test", 4159, 12551)] {
            let records = Dart.read(Path::new(&data), split).unwrap();
            assert_eq!(records.len(), inputs, "{split}");
            let count: usize = records.iter().map(|record| record.references.len()).sum();
            assert_eq!(count, texts, "{split}");
        }
    }
}
