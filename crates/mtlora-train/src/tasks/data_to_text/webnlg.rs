use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::entry::{Collected, Entry, Text};
use super::record::Record;
use super::task::GenerationTask;
use super::{json, xml};
use crate::data::error::DataError;
use crate::data::text_file::read_text;
use crate::tasks::task::{TaskData, unknown_split};

/// The folder that the splits may be in, inside of the data folder.
const FOLDER: &str = "webnlg";

/// The categories of the challenge's train set, which count as seen if there is no train set.
const SEEN: [&str; 10] = [
    "Airport",
    "Astronaut",
    "Building",
    "City",
    "ComicsCharacter",
    "Food",
    "Monument",
    "SportsTeam",
    "University",
    "WrittenWork",
];

/// Facts from DBpedia: the WebNLG challenge (Gardent et al. 2017).
///
/// A split is the challenge's folder `SPLIT` with XML files in it or one level below (`train/3triples/Airport.xml`),
/// or, where that is not there, the file `SPLIT.json` of the GPT-2 experiments. Triples are the modified ones, taken as
/// they are, with underscores and quotation marks; references are the texts whose comment is `good`.
/// [`Record::seen`] says whether the train split has the category, or, where that split is not there, whether the
/// challenge's has it.
#[derive(Clone, Copy, Debug, Default)]
pub struct WebNlg;

impl TaskData for WebNlg {
    type Item = Record;

    fn name(&self) -> &str {
        "webnlg"
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
        let files = find(data, split)?.ok_or_else(|| DataError::NotFound {
            path: data.join(split),
            hint: format!(
                "{split}.json does not exist either; name the folder with WebNLG's splits, or the one that {FOLDER} is in"
            ),
        })?;
        let mut collected = Collected::default();
        for entry in files.entries()? {
            collected.add(&files.path, entry, |text| text.comment == "good")?;
        }
        let mut records = collected.finish(&files.path, "marked as good and not empty", note)?;
        let seen = seen(data)?;
        for record in &mut records {
            record.seen = record
                .category
                .as_ref()
                .map(|category| seen.contains(category));
        }
        Ok(records)
    }

    fn describe(&self) -> &str {
        "triples from DBpedia in a sentence or two; the WebNLG challenge of 2017"
    }

    fn test_split(&self) -> Option<&str> {
        Some("test")
    }
}

impl GenerationTask for WebNlg {}

/// The files of a split.
struct Files {
    /// The path that errors name: that of the only file, or of the folder with several files.
    path: PathBuf,
    /// The XML files; empty for JSON.
    xml: Vec<PathBuf>,
}

impl Files {
    fn entries(&self) -> Result<Vec<Entry>, DataError> {
        let gone = || "it was there a moment ago; try again".to_string();
        if self.xml.is_empty() {
            let text = read_text(&self.path, gone)?;
            let benchmark: JsonBenchmark = json::parse(&self.path, &text, "WebNLG's JSON")?;
            let entries = benchmark.entries.into_iter();
            return Ok(entries
                .flat_map(BTreeMap::into_values)
                .map(Entry::from)
                .collect());
        }
        let mut entries = Vec::new();
        for path in &self.xml {
            entries.extend(xml::entries(path, &read_text(path, gone)?)?);
        }
        Ok(entries)
    }
}

/// The files of a split, or `None` if there are none.
fn find(data: &Path, split: &str) -> Result<Option<Files>, DataError> {
    for folder in [data.join(FOLDER), data.to_path_buf()] {
        let path = folder.join(split);
        if path.is_dir() {
            let mut xml = Vec::new();
            for inside in listing(&path)? {
                if inside.is_dir() {
                    xml.extend(listing(&inside)?);
                } else {
                    xml.push(inside);
                }
            }
            xml.retain(|file| file.extension().is_some_and(|ending| ending == "xml"));
            if let [only] = &xml[..] {
                let path = only.clone();
                return Ok(Some(Files { path, xml }));
            }
            if !xml.is_empty() {
                return Ok(Some(Files { path, xml }));
            }
        }
        let path = folder.join(format!("{split}.json"));
        if path.is_file() {
            let xml = Vec::new();
            return Ok(Some(Files { path, xml }));
        }
    }
    Ok(None)
}

/// The paths of everything in a folder, sorted by name.
fn listing(folder: &Path) -> Result<Vec<PathBuf>, DataError> {
    let read = || {
        fs::read_dir(folder)?
            .map(|entry| Ok(entry?.path()))
            .collect::<std::io::Result<Vec<_>>>()
    };
    let mut paths = read().map_err(|error| DataError::io(folder, error))?;
    paths.sort();
    Ok(paths)
}

/// The categories of the train split.
fn seen(data: &Path) -> Result<BTreeSet<String>, DataError> {
    match find(data, "train")? {
        Some(files) => {
            let entries = files.entries()?.into_iter();
            Ok(entries.filter_map(|entry| entry.category).collect())
        }
        None => Ok(SEEN.map(String::from).into()),
    }
}

/// Each entry is an object with one key, its number.
#[derive(Deserialize)]
struct JsonBenchmark {
    entries: Vec<BTreeMap<String, JsonEntry>>,
}

#[derive(Deserialize)]
struct JsonEntry {
    category: String,
    modifiedtripleset: Vec<JsonTriple>,
    lexicalisations: Vec<JsonText>,
}

#[derive(Deserialize)]
struct JsonTriple {
    subject: String,
    property: String,
    object: String,
}

#[derive(Deserialize)]
struct JsonText {
    comment: String,
    lex: String,
}

impl From<JsonEntry> for Entry {
    fn from(entry: JsonEntry) -> Self {
        let triples = entry.modifiedtripleset.into_iter();
        let texts = entry.lexicalisations.into_iter();
        Self {
            category: Some(entry.category),
            triples: triples
                .map(|triple| [triple.subject, triple.property, triple.object])
                .collect(),
            texts: texts
                .map(|text| Text {
                    comment: text.comment,
                    text: text.lex,
                })
                .collect(),
        }
    }
}

#[cfg(test)]
pub(super) const SAMPLE_XML: &str = "<?xml version=\"1.0\" encoding=\"utf-8\"?>
<benchmark>
  <entries>
    <entry category=\"Airport\" eid=\"Id1\" size=\"2\">
      <originaltripleset>
        <otriple>Aarhus_Airport | runwayLength | \"2702.0\"^^xsd:double</otriple>
      </originaltripleset>
      <modifiedtripleset>
        <mtriple>Aarhus_Airport | runwayLength | 2702.0</mtriple>
        <mtriple>Aarhus_Airport | runwayName | \"10L/28R\"</mtriple>
      </modifiedtripleset>
      <lex comment=\"good\" lid=\"Id1\">Aarhus Airport's runway &quot;10L/28R&quot; is 2702 long.</lex>
      <lex comment=\"toFix\" lid=\"Id2\">Aarhus Airport is long.</lex>
    </entry>
    <entry category=\"Artist\" eid=\"Id2\" size=\"1\">
      <modifiedtripleset><mtriple>Aaron_Deer | genre | Indie_rock</mtriple></modifiedtripleset>
      <lex comment=\"good\" lid=\"Id1\">Aaron Deer plays indie rock.</lex>
    </entry>
    <entry category=\"Artist\" eid=\"Id3\" size=\"1\">
      <modifiedtripleset><mtriple>Aaron_Deer | origin | Indiana</mtriple></modifiedtripleset>
      <lex comment=\"bad\" lid=\"Id1\">Indiana.</lex>
    </entry>
  </entries>
</benchmark>
";

#[cfg(test)]
pub(super) const SAMPLE_JSON: &str = r#"{
  "entries": [
    {"1": {
      "category": "Airport", "dbpedialinks": [], "links": [], "shape": "NA", "size": "2", "xml_id": "Id1",
      "lexicalisations": [
        {"comment": "good", "lang": "", "lex": "Aarhus Airport's runway \"10L/28R\" is 2702 long.", "xml_id": "Id1"},
        {"comment": "toFix", "lang": "", "lex": "Aarhus Airport is long.", "xml_id": "Id2"}
      ],
      "modifiedtripleset": [
        {"object": "2702.0", "property": "runwayLength", "subject": "Aarhus_Airport"},
        {"object": "\"10L/28R\"", "property": "runwayName", "subject": "Aarhus_Airport"}
      ],
      "originaltriplesets": {"originaltripleset": [[{"object": "2", "property": "runwayLength", "subject": "A"}]]}
    }},
    {"2": {
      "category": "Artist",
      "lexicalisations": [{"comment": "good", "lex": "Aaron Deer plays indie rock."}],
      "modifiedtripleset": [{"object": "Indie_rock", "property": "genre", "subject": "Aaron_Deer"}]
    }},
    {"3": {
      "category": "Artist",
      "lexicalisations": [{"comment": "bad", "lex": "Indiana."}],
      "modifiedtripleset": [{"object": "Indiana", "property": "origin", "subject": "Aaron_Deer"}]
    }}
  ]
}"#;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use tempfile::TempDir;

    use super::*;

    fn folder(files: &[(&str, &str)]) -> TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (file, text) in files {
            let path = folder.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        folder
    }

    #[test]
    fn both_formats_say_the_same() {
        let mut both = Vec::new();
        for (file, text) in [
            ("webnlg/test/2triples/Mixed.xml", SAMPLE_XML),
            ("test/Mixed.xml", SAMPLE_XML),
            ("test.json", SAMPLE_JSON),
        ] {
            let data = folder(&[(file, text), ("test/2triples/notes.txt", "")]);
            let mut notes = Vec::new();
            let mut note = |text: &str| notes.push(text.to_string());
            let records = WebNlg.read_noting(data.path(), "test", &mut note).unwrap();
            assert!(
                notes[0].ends_with(
                    "left out 2 of 4 texts and 1 of 3 inputs; only texts that are marked as good and not empty are used"
                ),
                "{notes:?}"
            );
            both.push(records);
        }
        let [airport, artist] = &both[0][..] else {
            panic!("{both:?}");
        };
        assert_eq!(
            airport.input,
            "Aarhus_Airport : runwayLength : 2702.0 | Aarhus_Airport : runwayName : \"10L/28R\""
        );
        assert_eq!(
            airport.references,
            ["Aarhus Airport's runway \"10L/28R\" is 2702 long."]
        );
        assert_eq!(
            (airport.category.as_deref(), airport.seen),
            (Some("Airport"), Some(true))
        );
        assert_eq!(
            (artist.category.as_deref(), artist.seen),
            (Some("Artist"), Some(false))
        );
        assert_eq!(both[1], both[0]);
        assert_eq!(both[2], both[0]);
    }

    #[test]
    fn seen_is_what_the_train_split_has() {
        let train = SAMPLE_JSON.replace("Airport\",", "Food\",");
        let data = folder(&[("train.json", &train), ("test.json", SAMPLE_JSON)]);
        let records = WebNlg.read(data.path(), "test").unwrap();
        let seen: Vec<_> = records.iter().map(|record| record.seen).collect();
        assert_eq!(seen, [Some(false), Some(true)]);
    }

    #[test]
    fn an_error_says_where_and_what_to_do() {
        let data = folder(&[]);
        let error = WebNlg.read(data.path(), "train").unwrap_err().to_string();
        assert!(
            error.contains("no such file; train.json does not exist"),
            "{error}"
        );
        assert!(WebNlg.read(data.path(), "all").is_err());
        let cut = &SAMPLE_XML[..SAMPLE_XML.find("<lex comment=\"toFix\"").unwrap()];
        let bad = SAMPLE_XML.replace("\"good\"", "\"\"");
        for (file, text, expected) in [
            ("dev/1triples/A.xml", cut, "A.xml:13: the file is cut off"),
            (
                "dev/1triples/A.xml",
                &bad,
                "A.xml:1: holds 3 inputs and 4 texts, none of which is marked",
            ),
            ("dev.json", "[]", "dev.json:1: not WebNLG's JSON"),
            (
                "dev.json",
                "{\"entries\": []}",
                "dev.json:1: holds 0 inputs",
            ),
            (
                "dev.json",
                "{\"entries\":\n[{\"1\": {}}]}",
                "dev.json:2: not WebNLG's JSON, at column 9: missing field",
            ),
            (
                "dev.json",
                "{\"entries\":\n[{\"1\"",
                "dev.json:2: not WebNLG's JSON",
            ),
        ] {
            let data = folder(&[(file, text)]);
            let error = WebNlg.read(data.path(), "dev").unwrap_err().to_string();
            assert!(error.contains(expected), "{error} does not say {expected}");
        }
    }

    #[test]
    fn the_published_files_are_as_they_should_be() {
        let Some(data) = std::env::var_os("MTLORA_DATA") else {
            println!("skipped: MTLORA_DATA names no folder with the published data");
            return;
        };
        for (split, inputs, good, texts) in [
            ("train", 6888, 17_979, 18_102),
            ("dev", 868, 2253, 2262),
            ("test", 1862, 4922, 4928),
        ] {
            let mut notes = String::new();
            let mut note = |text: &str| notes.push_str(text);
            let records = WebNlg
                .read_noting(Path::new(&data), split, &mut note)
                .unwrap();
            let count: usize = records.iter().map(|record| record.references.len()).sum();
            assert_eq!((records.len(), count), (inputs, good), "{split}");
            let note = format!("left out {} of {texts} texts", texts - good);
            assert!(notes.contains(&note), "{notes}");
            let unseen: BTreeSet<_> = records
                .iter()
                .filter(|record| record.seen == Some(false))
                .filter_map(|record| record.category.as_deref())
                .collect();
            let unseen: Vec<_> = unseen.into_iter().collect();
            if split == "test" {
                assert_eq!(
                    unseen,
                    [
                        "Artist",
                        "Athlete",
                        "CelestialBody",
                        "MeanOfTransportation",
                        "Politician"
                    ]
                );
                let count = records
                    .iter()
                    .filter(|record| record.seen == Some(true))
                    .count();
                assert_eq!(count, 971);
            } else {
                assert!(unseen.is_empty());
            }
        }
        // The categories that are hard-coded are those of the train set.
        let published = seen(Path::new(&data)).unwrap();
        assert_eq!(published, SEEN.map(String::from).into());
    }
}
