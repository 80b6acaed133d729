use std::path::Path;

use super::linearise;
use super::record::{Grouped, Record};
use crate::data::error::DataError;
use crate::data::python;

/// Triples and the texts about them, as in WebNLG and DART.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Entry {
    pub category: Option<String>,
    /// Subject, predicate, object.
    pub triples: Vec<[String; 3]>,
    pub texts: Vec<Text>,
}

/// A text and the data set's comment on it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Text {
    pub comment: String,
    pub text: String,
}

/// Collects records from entries, and counts what is left out.
#[derive(Default)]
pub(super) struct Collected {
    grouped: Grouped,
    entries: usize,
    texts: usize,
    left_out: usize,
}

impl Collected {
    /// Adds an entry's texts that are `wanted` and not empty. White space around a text does not matter: the published
    /// code strips it before it scores.
    ///
    /// # Errors
    /// [`DataError::Row`] if there are no triples. It gives the first line, because JSON does not keep line numbers.
    pub fn add(
        &mut self,
        path: &Path,
        entry: Entry,
        wanted: impl Fn(&Text) -> bool,
    ) -> Result<(), DataError> {
        self.entries += 1;
        if entry.triples.is_empty() {
            let message = format!("entry {} has no triples; delete it", self.entries);
            return Err(DataError::row(path, 1, message));
        }
        let record = self.grouped.record(linearise::triples(&entry.triples));
        if record.category.is_none() {
            record.category = entry.category;
        }
        for text in &entry.texts {
            self.texts += 1;
            let line = linearise::one_line(python::strip(&text.text));
            if wanted(text) && !line.is_empty() {
                record.references.push(line);
            } else {
                self.left_out += 1;
            }
        }
        Ok(())
    }

    /// The records that have a reference. If any texts were left out, `note` gets a message with `path`, the file or
    /// folder that was read, and `wanted`, a description of the texts that are used.
    ///
    /// # Errors
    /// [`DataError::Row`] if no record has a reference.
    pub fn finish(
        self,
        path: &Path,
        wanted: &str,
        note: &mut dyn FnMut(&str),
    ) -> Result<Vec<Record>, DataError> {
        let mut records = self.grouped.into_records();
        let inputs = records.len();
        records.retain(|record| !record.references.is_empty());
        if records.is_empty() {
            let message = format!(
                "holds {inputs} inputs and {} texts, none of which is {wanted}",
                self.texts
            );
            return Err(DataError::row(path, 1, message));
        }
        if self.left_out > 0 || records.len() < inputs {
            note(&format!(
                "{}: left out {} of {} texts and {} of {inputs} inputs; only texts that are {wanted} are used",
                path.display(),
                self.left_out,
                self.texts,
                inputs - records.len(),
            ));
        }
        Ok(records)
    }
}
