use std::path::Path;

use super::linearise;
use super::record::{Grouped, Record};
use super::task::{GenerationTask, Scorer};
use mtlora_models::messages::shown;

use crate::data::error::DataError;
use crate::data::python;
use crate::data::rows::{check_width, csv, need_column};
use crate::data::text_file::read_text;
use crate::tasks::task::{TaskData, unknown_split};

/// The folder that the files may be in, inside of the data folder.
const FOLDER: &str = "e2e";

/// Restaurants: the E2E NLG challenge (Novikova, Dušek, Rieser 2017), CSV with the columns `mr` and `ref`.
///
/// A meaning representation `name[Alimentum], area[city centre], familyFriendly[no]` is read as
/// `name : Alimentum | area : city centre | family friendly : no`.
#[derive(Clone, Copy, Debug, Default)]
pub struct E2e;

impl TaskData for E2e {
    type Item = Record;

    fn name(&self) -> &str {
        "e2e"
    }

    fn read(&self, data: &Path, split: &str) -> Result<Vec<Record>, DataError> {
        let file = match split {
            "train" => "trainset.csv",
            "dev" => "devset.csv",
            "test" => "testset_w_refs.csv",
            _ => return Err(unknown_split(self, split)),
        };
        let inside = data.join(FOLDER).join(file);
        let direct = data.join(file);
        let path = if inside.exists() { inside } else { direct };
        let text = read_text(&path, || {
            let other = match split {
                "train" => {
                    ", or train on a split that exists (`train --train-split dev`); the scores are then not comparable \
                     with published ones"
                }
                _ => "",
            };
            format!("put the challenge's {file} there{other}")
        })?;

        let mut header: Option<(Vec<String>, usize, usize)> = None;
        let mut grouped = Grouped::default();
        csv(&path, &text, |line, row| {
            let Some((columns, mr, reference)) = &header else {
                let mr = need_column(&path, line, row, "mr")?;
                let reference = need_column(&path, line, row, "ref")?;
                let columns = row.iter().map(|name| name.trim().to_string()).collect();
                header = Some((columns, mr, reference));
                return Ok(());
            };
            check_width(&path, line, row, columns)?;
            let cell = |index: usize| row.get(index).copied().unwrap_or_default();
            let input = linearise::slots(slots(&path, line, cell(*mr))?);
            let text = linearise::one_line(python::strip(cell(*reference)));
            if text.is_empty() {
                let message = "the column `ref` is empty; fill it in or delete the row";
                return Err(DataError::row(&path, line, message));
            }
            grouped.record(input).references.push(text);
            Ok(())
        })?;
        let records = grouped.into_records();
        if records.is_empty() {
            return Err(DataError::Empty { path });
        }
        Ok(records)
    }

    fn describe(&self) -> &str {
        "a restaurant's attributes in a sentence or two; the E2E challenge"
    }

    fn test_split(&self) -> Option<&str> {
        Some("test")
    }
}

impl GenerationTask for E2e {
    fn input_column(&self) -> &str {
        "mr"
    }

    /// The input for a cell that contains a meaning representation, or already an input of [`read`](TaskData::read).
    fn input(&self, path: &Path, line: usize, cell: &str) -> Result<String, DataError> {
        if cell.contains('[') && !cell.contains(" : ") {
            Ok(linearise::slots(slots(path, line, cell)?))
        } else {
            Ok(cell.to_string())
        }
    }

    fn scorer(&self) -> Scorer {
        Scorer::E2e
    }
}

/// The slots of a meaning representation, with their keys as words.
fn slots(path: &Path, line: usize, mr: &str) -> Result<Vec<(String, String)>, DataError> {
    let wrong = || {
        let message = format!(
            "the mr {} is not of the form `key[value], key[value]`; correct the row or delete it",
            shown(mr)
        );
        DataError::row(path, line, message)
    };
    let mut slots = Vec::new();
    let mut rest = mr.trim();
    loop {
        let (key, after) = rest.split_once('[').ok_or_else(wrong)?;
        let (value, after) = after.split_once(']').ok_or_else(wrong)?;
        let key = key.trim();
        if key.is_empty() || key.contains([']', ',']) || value.contains('[') {
            return Err(wrong());
        }
        let value = linearise::one_line(value.trim());
        slots.push((linearise::slot_key(key), value));
        rest = after.trim_start();
        if rest.is_empty() {
            return Ok(slots);
        }
        rest = rest.strip_prefix(',').ok_or_else(wrong)?;
    }
}

#[cfg(test)]
pub(super) const SAMPLE: &str = "mr,ref\n\
    \"name[Alimentum], area[city centre], familyFriendly[no]\",\"In the city centre there is Alimentum, not for families.\"\n\
    \"name[Café Rouge], eatType[pub], priceRange[£20-25], customer rating[5 out of 5]\",Café Rouge is a pub.\n\
    \"name[Alimentum], area[city centre], familyFriendly[no]\",\"A \"\"second\"\"\ntext. \"\n";

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::fs;

    use super::*;

    fn read(text: &str) -> Result<Vec<Record>, DataError> {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("devset.csv"), text).unwrap();
        E2e.read(folder.path(), "dev")
    }

    #[test]
    fn rows_become_records() {
        let records = read(SAMPLE).unwrap();
        assert_eq!(records.len(), 2);
        assert_eq!(
            records[0].input,
            "name : Alimentum | area : city centre | family friendly : no"
        );
        assert_eq!(
            records[0].references,
            [
                "In the city centre there is Alimentum, not for families.",
                "A \"second\" text."
            ]
        );
        assert_eq!(
            records[1].input,
            "name : Café Rouge | Type : pub | price range : £20-25 | customer rating : 5 out of 5"
        );
    }

    #[test]
    fn an_error_says_where_and_what_to_do() {
        for (text, expected) in [
            ("", "devset.csv: holds no examples"),
            ("mr,ref\n", "devset.csv: holds no examples"),
            ("mr,text\na[b],c\n", "devset.csv:1: no column `ref`"),
            (
                "mr,ref\n\na[b],\" \"\n",
                "devset.csv:3: the column `ref` is empty",
            ),
            // This is white space to Python, and therefore to the scores.
            (
                "mr,ref\na[b],\u{1c}\u{1f}\n",
                "devset.csv:2: the column `ref` is empty",
            ),
            ("mr,ref\na[b]\n", "devset.csv:2: only 1 column"),
            (
                "mr,ref\n\"a[b], c\",d\n",
                "devset.csv:2: the mr `a[b], c` is not",
            ),
            ("mr,ref\n\"a[b] c[d]\",e\n", "devset.csv:2: the mr"),
            ("mr,ref\n\"a[b],\",e\n", "devset.csv:2: the mr"),
            ("mr,ref\n[b],e\n", "devset.csv:2: the mr"),
            ("mr,ref\na[b[c],e\n", "devset.csv:2: the mr"),
            (",\n", "devset.csv:1: no column `mr`"),
        ] {
            let error = read(text).unwrap_err().to_string();
            assert!(error.contains(expected), "{error} does not say {expected}");
        }
        let folder = tempfile::tempdir().unwrap();
        let error = E2e.read(folder.path(), "train").unwrap_err().to_string();
        assert!(error.contains("trainset.csv: no such file"), "{error}");
        assert!(error.contains("--train-split dev"), "{error}");
        let error = E2e.read(folder.path(), "all").unwrap_err().to_string();
        assert!(error.contains("has no split `all`"), "{error}");
    }

    #[test]
    fn the_published_files_are_as_they_should_be() {
        let Some(data) = std::env::var_os("MTLORA_DATA") else {
            println!("skipped: MTLORA_DATA names no folder with the published data");
            return;
        };
        for (split, inputs, texts) in [("dev", 547, 4672), ("test", 630, 4693)] {
            let records = E2e.read(Path::new(&data), split).unwrap();
            assert_eq!(records.len(), inputs, "{split}");
            let count: usize = records.iter().map(|record| record.references.len()).sum();
            assert_eq!(count, texts, "{split}");
        }
    }
}
