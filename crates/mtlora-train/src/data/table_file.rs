//! The user's own tables in CSV, TSV or JSONL: finds the file of a split and reads its rows.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use mtlora_models::messages::shown;
use serde_json::{Map, Value};

use crate::data::error::DataError;
use crate::data::json_row::json_row;
use crate::data::rows;
use crate::data::text_file::read_text_file;

/// The extensions of the supported formats.
pub(crate) const FORMATS: [&str; 3] = ["csv", "tsv", "jsonl"];
/// The splits whose files are found by name.
const SPLITS: [&str; 3] = ["train", "dev", "test"];

/// All splits: the standard ones and those for which `files` names a file.
pub(crate) fn splits(files: &BTreeMap<String, PathBuf>) -> Vec<&str> {
    let mut splits = SPLITS.to_vec();
    let others = files.keys().map(String::as_str);
    splits.extend(others.filter(|split| !SPLITS.contains(split)));
    splits
}

/// The file of a split: the one that `files` names (relative to `data`), or the one in `data` that is named after the
/// split.
///
/// # Errors
/// [`DataError::Setting`] if there are two such files, [`DataError::NotFound`] with the hint `advice` if there is none.
pub(crate) fn split_file(
    files: &BTreeMap<String, PathBuf>,
    data: &Path,
    split: &str,
    advice: impl FnOnce() -> String,
) -> Result<PathBuf, DataError> {
    if let Some(file) = files.get(split) {
        return Ok(data.join(file));
    }
    let candidates = FORMATS.map(|format| data.join(format!("{split}.{format}")));
    for path in &candidates {
        // Otherwise a folder that may not be read would count as one without the files.
        match path.try_exists() {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => {}
            Err(error) => return Err(DataError::io(path, error)),
        }
    }
    let mut there = candidates.iter().filter(|path| path.exists());
    match (there.next(), there.next()) {
        (Some(path), None) => Ok(path.clone()),
        (Some(one), Some(other)) => {
            let message = format!(
                "both {} and {} exist for the split {}; remove one of them",
                one.display(),
                other.display(),
                shown(split)
            );
            Err(DataError::setting("data", message))
        }
        (None, _) => Err(DataError::NotFound {
            path: data.join(format!("{split}.csv")),
            hint: advice(),
        }),
    }
}

/// Rejects settings that use one column in two roles. `roles` are the settings with their column names.
///
/// # Errors
/// [`DataError::Setting`], which names both settings.
pub(crate) fn distinct_columns(roles: &[(&'static str, Option<&str>)]) -> Result<(), DataError> {
    let named: Vec<(&'static str, &str)> = roles
        .iter()
        .filter_map(|(role, column)| Some((*role, column.as_ref()?.trim())))
        .collect();
    for (index, (role, column)) in named.iter().enumerate() {
        let other = named
            .iter()
            .skip(index + 1)
            .find(|(_, other)| other == column);
        if let Some((other, _)) = other {
            let message = format!(
                "names the column {}, and so does `{other}`; each of them needs its own column",
                shown(column)
            );
            return Err(DataError::setting(role, message));
        }
    }
    Ok(())
}

/// A row in the form of its file.
pub(crate) enum RawRow<'a, Columns> {
    /// As many cells as the header has, and the result of `columns` for the header.
    Cells(&'a Columns, &'a [&'a str]),
    /// A JSON object, whose keys are the columns.
    Object(&'a Map<String, Value>),
}

/// Calls `columns` for the header of a CSV or TSV file, and `each` for every row of a file of any format, with the line
/// of the row.
///
/// # Errors
/// The errors of both functions, [`DataError::Empty`] if the file has no rows, and other errors if it cannot be read.
pub(crate) fn each_row<Columns>(
    path: &Path,
    columns: impl Fn(usize, &[&str]) -> Result<Columns, DataError>,
    mut each: impl FnMut(usize, RawRow<'_, Columns>) -> Result<(), DataError>,
) -> Result<(), DataError> {
    let ending = path.extension().map(|ending| ending.to_ascii_lowercase());
    let format = FORMATS
        .into_iter()
        .find(|format| ending.as_deref().is_some_and(|ending| ending == *format))
        .ok_or_else(|| {
            let message = format!(
                "cannot recognize the format of {} by its name; it should end in .csv, .tsv or .jsonl",
                path.display()
            );
            DataError::setting("files", message)
        })?;
    let text = read_text_file(path)?;
    let mut count = 0;
    let mut counted = |line: usize, row: RawRow<'_, Columns>| {
        count += 1;
        each(line, row)
    };
    if format == "jsonl" {
        for (line, json) in rows::lines(&text).filter(|(_, line)| !line.trim().is_empty()) {
            counted(line, RawRow::Object(&object(path, line, json)?))?;
        }
    } else {
        let mut header: Option<(Vec<String>, Columns)> = None;
        let mut row = |line: usize, cells: &[&str]| {
            let Some((names, columns)) = &header else {
                let names = cells.iter().map(|name| name.trim().to_string()).collect();
                header = Some((names, columns(line, cells)?));
                return Ok(());
            };
            rows::check_width(path, line, cells, names)?;
            counted(line, RawRow::Cells(columns, cells))
        };
        if format == "csv" {
            rows::csv(path, &text, row)?;
        } else {
            for (line, cells) in rows::tsv(&text) {
                row(line, &cells)?;
            }
        }
    }
    if count == 0 {
        return Err(DataError::Empty {
            path: path.to_path_buf(),
        });
    }
    Ok(())
}

/// Calls `each` for every row with its line and the cells of these columns.
///
/// # Errors
/// The errors of [`each_row`], and [`DataError::UnknownColumn`] if a column is missing.
pub(crate) fn each_cells<const N: usize>(
    path: &Path,
    columns: [&str; N],
    mut each: impl FnMut(usize, [String; N]) -> Result<(), DataError>,
) -> Result<(), DataError> {
    each_row(
        path,
        |line, header| {
            let mut at = [0; N];
            for (at, column) in at.iter_mut().zip(columns) {
                *at = rows::need_column(path, line, header, column)?;
            }
            Ok(at)
        },
        |line, row| {
            let texts = match row {
                RawRow::Cells(at, cells) => {
                    at.map(|at| cells.get(at).copied().unwrap_or_default().to_string())
                }
                RawRow::Object(object) => {
                    let mut texts = columns.map(|_| String::new());
                    for (text, column) in texts.iter_mut().zip(columns) {
                        *text = text_of(path, line, object, column)?;
                    }
                    texts
                }
            };
            each(line, texts)
        },
    )
}

fn object(path: &Path, line: usize, json: &str) -> Result<Map<String, Value>, DataError> {
    json_row(json).map_err(|message| DataError::row(path, line, message))
}

/// The string value of a key in a row's object.
///
/// # Errors
/// [`DataError::UnknownColumn`] if the key is missing, [`DataError::Row`] if its value is not a string.
pub(crate) fn text_of(
    path: &Path,
    line: usize,
    object: &Map<String, Value>,
    column: &str,
) -> Result<String, DataError> {
    match object.get(column) {
        Some(Value::String(text)) => Ok(text.clone()),
        Some(_) => Err(wrong_type(path, line, column, "string")),
        None => Err(missing(path, line, object, column)),
    }
}

/// The error for a key that an object lacks.
pub(crate) fn missing(
    path: &Path,
    line: usize,
    object: &Map<String, Value>,
    column: &str,
) -> DataError {
    DataError::UnknownColumn {
        path: path.to_path_buf(),
        line,
        column: column.to_string(),
        header: object.keys().cloned().collect(),
    }
}

/// The error for a value that does not have the type `should`.
pub(crate) fn wrong_type(path: &Path, line: usize, column: &str, should: &str) -> DataError {
    let message = format!(
        "the column {} is not a {should}; correct the row",
        shown(column)
    );
    DataError::row(path, line, message)
}

/// The error for an empty cell that must not be empty.
pub(crate) fn empty_cell(path: &Path, line: usize, column: &str) -> DataError {
    let message = format!(
        "the column {} is empty; fill it in or delete the row",
        shown(column)
    );
    DataError::row(path, line, message)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// The system refuses the name for its length; it refuses a folder that may not be read in the same way.
    #[test]
    fn a_folder_that_cannot_be_read_does_not_count_as_one_without_files() {
        let folder = tempfile::tempdir().unwrap();
        let find =
            |data: &Path| split_file(&BTreeMap::new(), data, "dev", String::new).unwrap_err();
        let unreadable = folder.path().join("x".repeat(4096));
        assert!(matches!(find(&unreadable), DataError::Io { .. }));
        assert!(matches!(find(folder.path()), DataError::NotFound { .. }));
    }
}
