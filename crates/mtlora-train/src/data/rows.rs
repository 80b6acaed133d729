//! Splits text files into rows with line numbers; all readers of tasks use this.

use std::path::Path;

use mtlora_models::messages::shown;

use crate::data::error::{DataError, listed};

/// The lines that are not empty, numbered from 1, without their line ends (`\n` or `\r\n`).
pub(crate) fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.split('\n')
        .enumerate()
        .map(|(index, line)| (index + 1, line.strip_suffix('\r').unwrap_or(line)))
        .filter(|(_, line)| !line.is_empty())
}

/// The rows of tab-separated text. Every line is a row, and quotation marks have no special meaning.
pub(crate) fn tsv(text: &str) -> impl Iterator<Item = (usize, Vec<&str>)> {
    lines(text).map(|(line, row)| (line, row.split('\t').collect()))
}

/// Calls `each` for every row of comma-separated text (RFC 4180) with the line on which the row begins.
///
/// # Errors
/// [`DataError::Row`] if a quotation mark is never closed, and the errors of `each`.
pub(crate) fn csv(
    path: &Path,
    text: &str,
    mut each: impl FnMut(usize, &[&str]) -> Result<(), DataError>,
) -> Result<(), DataError> {
    let bytes = text.as_bytes();
    let mut reader = csv::ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .from_reader(bytes);
    let mut record = csv::StringRecord::new();
    let (mut line, mut counted) = (1, 0);
    loop {
        let more = reader
            .read_record(&mut record)
            .map_err(|error| DataError::row(path, line, format!("invalid CSV: {error}")))?;
        if !more {
            return Ok(());
        }
        // The reader notes a record's position before it skips empty lines and the `\n` of a preceding `\r\n`, so its
        // line number can be too low; its byte position is reliable.
        let from = record
            .position()
            .and_then(|position| usize::try_from(position.byte()).ok())
            .unwrap_or(counted);
        let rest = bytes.get(from..).unwrap_or_default();
        let skipped = rest.iter().take_while(|byte| matches!(byte, b'\r' | b'\n'));
        let start = from + skipped.count();
        line += newlines(bytes.get(counted..start).unwrap_or_default());
        counted = start;

        // The reader silently extends an open quotation to the next mark or to the end of the file, so that rows would
        // be lost in one cell. In that case the marks of the row, which spans several lines, do not pair up.
        if record.iter().any(|cell| cell.contains('\n')) {
            let end = usize::try_from(reader.position().byte()).unwrap_or(bytes.len());
            let raw = bytes.get(start..end).unwrap_or_default();
            if raw.iter().filter(|&&byte| byte == b'"').count() % 2 == 1 {
                let message = "a quotation mark opened in this row is never closed; close it, or write a literal one \
                               as two inside of a quoted cell";
                return Err(DataError::row(path, line, message));
            }
        }
        each(line, &record.iter().collect::<Vec<_>>())?;
    }
}

fn newlines(bytes: &[u8]) -> usize {
    bytes.iter().filter(|&&byte| byte == b'\n').count()
}

/// The index of `column` in the header on `line`, or `None` if the header lacks it. White space around a name does not
/// matter.
///
/// # Errors
/// [`DataError::Row`] if the header has the column twice.
pub(crate) fn find_column(
    path: &Path,
    line: usize,
    header: &[&str],
    column: &str,
) -> Result<Option<usize>, DataError> {
    let mut found = header
        .iter()
        .enumerate()
        .filter(|(_, name)| name.trim() == column.trim());
    let first = found.next();
    if found.next().is_some() {
        let message = format!(
            "the header has the column {} twice; rename one",
            shown(column)
        );
        return Err(DataError::row(path, line, message));
    }
    Ok(first.map(|(index, _)| index))
}

/// The index of `column` in the header on `line`.
///
/// # Errors
/// [`DataError::UnknownColumn`] if the header lacks the column, [`DataError::Row`] if it has the column twice.
pub(crate) fn need_column(
    path: &Path,
    line: usize,
    header: &[&str],
    column: &str,
) -> Result<usize, DataError> {
    find_column(path, line, header, column)?.ok_or_else(|| DataError::UnknownColumn {
        path: path.to_path_buf(),
        line,
        column: column.to_string(),
        header: header.iter().map(|name| name.trim().to_string()).collect(),
    })
}

/// Checks that a row has as many columns as the header.
///
/// # Errors
/// [`DataError::Row`], which lists the columns of the header.
pub(crate) fn check_width<S: AsRef<str>>(
    path: &Path,
    line: usize,
    row: &[&str],
    columns: &[S],
) -> Result<(), DataError> {
    if row.len() == columns.len() {
        return Ok(());
    }
    let (many, hint) = if row.len() < columns.len() {
        (
            "only ",
            "a column is missing, or a line break splits the row",
        )
    } else {
        ("", "a text may contain a separator")
    };
    let message = format!(
        "{many}{} column{} instead of {} ({}); {hint}: correct the row or delete it",
        row.len(),
        if row.len() == 1 { "" } else { "s" },
        columns.len(),
        listed(columns),
    );
    Err(DataError::row(path, line, message))
}

/// The number in a cell, or `None` if the cell does not hold a finite number.
pub(crate) fn number(cell: &str) -> Option<f32> {
    cell.trim()
        .parse()
        .ok()
        .filter(|value: &f32| value.is_finite())
}

/// The message of a JSON error without the position that the parser adds, which would be relative to the single line
/// that was parsed.
pub(crate) fn json_reason(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let reason = text.split(" at line ").next();
    reason.unwrap_or_default().to_string()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::fs;

    use super::*;
    use crate::data::text_file::read_text;

    fn csv_rows(text: &str) -> Result<Vec<(usize, Vec<String>)>, DataError> {
        let mut rows = Vec::new();
        csv(Path::new("t.csv"), text, |line, row| {
            rows.push((line, row.iter().map(|cell| cell.to_string()).collect()));
            Ok(())
        })?;
        Ok(rows)
    }

    #[test]
    fn lines_are_numbered_as_in_an_editor() {
        let found: Vec<_> = tsv("a\tb\r\n\r\n\"c\t\n\nd").collect();
        assert_eq!(
            found,
            [(1, vec!["a", "b"]), (3, vec!["\"c", ""]), (5, vec!["d"])]
        );
        for end in ["\n", "\r\n"] {
            let text = ["a,b", "", "\"1", "2\",x", "", "", "y,\"q\"\"q\"", "z,"].join(end);
            let rows = csv_rows(&text).unwrap();
            let at: Vec<usize> = rows.iter().map(|(line, _)| *line).collect();
            assert_eq!(at, [1, 3, 7, 8], "{end:?}");
            assert_eq!(rows[1].1, [format!("1{end}2"), "x".to_string()]);
            assert_eq!(rows[2].1, ["y", "q\"q"]);
        }
    }

    #[test]
    fn an_open_quotation_is_an_error_on_its_line() {
        let error = csv_rows("a,b\n1,2\n3,\"4\n5,6\n").unwrap_err();
        assert!(
            error.to_string().starts_with("t.csv:3: a quotation mark"),
            "{error}"
        );
        // A quotation mark inside an unquoted cell has no special meaning.
        assert_eq!(csv_rows("a,b\n5\" disk,6\n7,8").unwrap().len(), 3);
        for open in [
            "a\n\"b\n",
            "a\n\"b\nc,\"d\"\n",
            "a\n\"b\"\"\r\n",
            "a,b\n\"1,2\n3,\"4\"\n5,6\n",
        ] {
            let error = csv_rows(open).unwrap_err().to_string();
            assert!(
                error.starts_with("t.csv:2: a quotation"),
                "{open:?} {error}"
            );
        }
    }

    #[test]
    fn files_are_utf8_with_or_without_a_mark() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f.tsv");
        fs::write(&path, b"\xef\xbb\xbfa\xc3\xa9").unwrap();
        assert_eq!(read_text(&path, String::new).unwrap(), "aé");
        fs::write(&path, b"a\nb\nc\xff\nd").unwrap();
        assert!(matches!(
            read_text(&path, String::new),
            Err(DataError::Utf8 { line: 3, .. })
        ));
        let missing = folder.path().join("g.tsv");
        let error = read_text(&missing, || "look elsewhere".into()).unwrap_err();
        assert!(error.to_string().ends_with("look elsewhere"), "{error}");
        assert!(matches!(
            read_text(folder.path(), String::new),
            Err(DataError::Io { .. })
        ));
    }

    #[test]
    fn numbers_are_finite() {
        assert_eq!(number(" -1.5e2 "), Some(-150.0));
        for cell in ["", "nan", "inf", "1e39", "1,5", "x"] {
            assert_eq!(number(cell), None, "{cell}");
        }
    }
}
