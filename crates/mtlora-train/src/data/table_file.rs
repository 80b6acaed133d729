//! Tables of the user's own, CSV, TSV or JSONL: finding a split's file, and reading its rows.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::data::error::{DataError, shown};
use crate::data::rows;
use crate::data::text_file::read_text_file;

/// The endings of the files that can be read.
pub(crate) const FORMATS: [&str; 3] = ["csv", "tsv", "jsonl"];
/// The splits that need no file named.
const SPLITS: [&str; 3] = ["train", "dev", "test"];

/// The splits there may be where `files` names those of some.
pub(crate) fn splits(files: &BTreeMap<String, PathBuf>) -> Vec<&str> {
    let mut splits = SPLITS.to_vec();
    let others = files.keys().map(String::as_str);
    splits.extend(others.filter(|split| !SPLITS.contains(split)));
    splits
}

/// The file of a split: the one that `files` names, seen from `data`, or the one of its name there.
///
/// # Errors
/// [`DataError::Setting`] if there are two, [`DataError::NotFound`] with what `advice` says to do if there is none.
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
    let mut there = candidates.iter().filter(|path| path.exists());
    match (there.next(), there.next()) {
        (Some(path), None) => Ok(path.clone()),
        (Some(one), Some(other)) => {
            let message = format!(
                "both {} and {} are there for the split {}; remove one of them",
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

/// Refuses settings that name one column in two roles. `roles` are the settings and what they name.
///
/// # Errors
/// [`DataError::Setting`] with both settings.
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
                "is {}, and so is {other}; each needs a column of its own",
                shown(column)
            );
            return Err(DataError::setting(role, message));
        }
    }
    Ok(())
}

/// A row as its file has it.
pub(crate) enum RawRow<'a, Columns> {
    /// As many cells as the header has, and what was made of the header.
    Cells(&'a Columns, &'a [&'a str]),
    /// An object, whose keys are the columns.
    Object(&'a Map<String, Value>),
}

/// Gives `columns` the header of a CSV or TSV file, and `each` the rows of any file, each with its line.
///
/// # Errors
/// Those of both, and whatever keeps the file from being read; [`DataError::Empty`] if it has no row.
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
                "{} is of a format that cannot be told from its name, which should end in .csv, .tsv or .jsonl",
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

/// Gives `each` the cells of these columns, row by row, each with its line.
///
/// # Errors
/// As [`each_row`], and a column that is not there.
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
    serde_json::from_str(json).map_err(|error| {
        let message = format!(
            "no JSON object, at column {}: {}; a row is one object on one line",
            error.column(),
            rows::json_reason(&error)
        );
        DataError::row(path, line, message)
    })
}

/// The text under a key of a row's object.
///
/// # Errors
/// [`DataError::UnknownColumn`] if it is not there, [`DataError::Row`] if it is no string.
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

/// That an object lacks a key.
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

/// That a value under a key is not what it `should` be.
pub(crate) fn wrong_type(path: &Path, line: usize, column: &str, should: &str) -> DataError {
    let message = format!(
        "the column {} is no {should}; correct the row",
        shown(column)
    );
    DataError::row(path, line, message)
}

/// That a cell which has to say something is empty.
pub(crate) fn empty_cell(path: &Path, line: usize, column: &str) -> DataError {
    let message = format!(
        "the column {} is empty; fill it in or delete the row",
        shown(column)
    );
    DataError::row(path, line, message)
}
