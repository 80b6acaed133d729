//! Reads the inputs of `predict` and `generate`: lines of text, or the rows of a table.

use std::io::Read;
use std::path::Path;

use crate::data::error::DataError;
use crate::data::table_file::{self, RawRow};
use crate::data::text_file::{numbered_lines, read_text_file, read_text_from};

/// Extensions of formats that are not supported and must not be read as lines of text.
const OTHER_FORMATS: [&str; 23] = [
    "ndjson",
    "jsonlines",
    "psv",
    "yaml",
    "yml",
    "json",
    "parquet",
    "arrow",
    "feather",
    "xlsx",
    "xls",
    "ods",
    "xml",
    "html",
    "pdf",
    "docx",
    "odt",
    "gz",
    "zip",
    "bz2",
    "xz",
    "zst",
    "npy",
];

/// Whether an input has one text or two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pairs<'a> {
    /// One text, in which a tab has no special meaning.
    Never,
    /// One text, for a model that was trained on single texts: a tab in a line is an error.
    Single,
    /// Two texts: the second is in this column of a table, or after a tab in a line.
    Column(&'a str),
    /// Unknown: a line with a tab is a pair, and tables have no second column.
    Unknown,
}

/// The columns that hold the texts of a table, and the meaning of lines of text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InputColumns<'a> {
    /// The column with the text.
    pub text: &'a str,
    /// Whether there is a second text.
    pub pairs: Pairs<'a>,
}

/// One input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Input {
    /// The line of the input, counted from 1.
    pub line: usize,
    /// The text.
    pub text: String,
    /// The second text of a pair.
    pub pair: Option<String>,
}

/// Whether a file is a table, which is the case if its name ends in `.csv`, `.tsv` or `.jsonl`.
pub fn is_table(path: &Path) -> bool {
    table_file::FORMATS.contains(&ending(path).as_str())
}

fn ending(path: &Path) -> String {
    let ending = path.extension().and_then(|ending| ending.to_str());
    ending.map(str::to_ascii_lowercase).unwrap_or_default()
}

/// The inputs in a file: the rows of a table if its name ends in `.csv`, `.tsv` or `.jsonl`, and otherwise its lines.
///
/// # Errors
/// When the file cannot be read, or a line has the wrong number of texts; the error names the file and the line.
pub fn read_inputs(path: &Path, columns: &InputColumns<'_>) -> Result<Vec<Input>, DataError> {
    if is_table(path) {
        return read_table(path, columns);
    }
    if OTHER_FORMATS.contains(&ending(path).as_str()) {
        return Err(DataError::Format {
            path: path.to_path_buf(),
            message: "is neither lines of text (.txt) nor a table in a supported format (.csv, .tsv, .jsonl); convert \
                      it"
                .to_string(),
        });
    }
    lines(path, &read_text_file(path)?, columns.pairs)
}

/// The inputs on the lines of a stream; `name` is used only in messages.
///
/// # Errors
/// As [`read_inputs`].
pub fn read_input_lines(
    name: &Path,
    stream: impl Read,
    pairs: Pairs<'_>,
) -> Result<Vec<Input>, DataError> {
    lines(name, &read_text_from(name, stream)?, pairs)
}

fn lines(path: &Path, text: &str, pairs: Pairs<'_>) -> Result<Vec<Input>, DataError> {
    let input = |(line, text): (usize, &str)| {
        let mut parts = text.split('\t');
        let first = parts.next().unwrap_or_default();
        let (second, third) = (parts.next(), parts.next());
        let wrong = |message: &str| Err(DataError::row(path, line, message));
        let whole = Input {
            line,
            text: text.to_string(),
            pair: None,
        };
        match (pairs, second, third) {
            (Pairs::Never, ..) | (Pairs::Single, None, _) => Ok(whole),
            (Pairs::Single, ..) => wrong(
                "the line has a tab, which separates the two texts of a pair, but the model was trained on single texts; \
                 remove the tab, or give a table (.csv, .tsv, .jsonl)",
            ),
            (Pairs::Column(_), None, _) => wrong(
                "the line has no tab, but the model was trained on pairs of texts; separate the two texts with a tab, \
                 or give a table (.csv, .tsv, .jsonl)",
            ),
            (Pairs::Column(_), _, Some(_)) => wrong(
                "the line has more than one tab; separate the two texts of a pair with one tab, or give a table (.csv, \
                 .jsonl)",
            ),
            (Pairs::Column(_), Some(pair), None) => Ok(Input {
                line,
                text: first.to_string(),
                pair: Some(pair.to_string()),
            }),
            (Pairs::Unknown, ..) => Ok(match text.split_once('\t') {
                Some((text, pair)) => Input {
                    line,
                    text: text.to_string(),
                    pair: Some(pair.to_string()),
                },
                None => whole,
            }),
        }
    };
    numbered_lines(text).map(input).collect()
}

fn read_table(path: &Path, columns: &InputColumns<'_>) -> Result<Vec<Input>, DataError> {
    let pair = match columns.pairs {
        Pairs::Column(column) => Some(column),
        Pairs::Never | Pairs::Single | Pairs::Unknown => None,
    };
    let roles = [("text_column", Some(columns.text)), ("pair_column", pair)];
    table_file::distinct_columns(&roles)?;
    let mut inputs = Vec::new();
    table_file::each_row(
        path,
        |line, header| {
            let at = |column| crate::data::rows::need_column(path, line, header, column);
            Ok((at(columns.text)?, pair.map(at).transpose()?))
        },
        |line, row| {
            let (text, pair) = match row {
                RawRow::Cells((text, pair), cells) => {
                    let cell = |at: usize| cells.get(at).copied().unwrap_or_default().to_string();
                    (cell(*text), pair.map(cell))
                }
                RawRow::Object(object) => {
                    let text = |column| table_file::text_of(path, line, object, column);
                    (text(columns.text)?, pair.map(text).transpose()?)
                }
            };
            inputs.push(Input { line, text, pair });
            Ok(())
        },
    )?;
    Ok(inputs)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const SINGLE: InputColumns<'_> = InputColumns {
        text: "text",
        pairs: Pairs::Single,
    };
    const PAIRS: InputColumns<'_> = InputColumns {
        text: "a",
        pairs: Pairs::Column("b"),
    };

    fn read(
        name: &str,
        bytes: &[u8],
        columns: InputColumns<'_>,
    ) -> Result<Vec<(usize, String, Option<String>)>, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        match read_inputs(&path, &columns) {
            Ok(inputs) => Ok(inputs
                .into_iter()
                .map(|one| (one.line, one.text, one.pair))
                .collect()),
            Err(error) => Err(error.to_string().replace(&path.display().to_string(), name)),
        }
    }

    fn one(line: usize, text: &str, pair: Option<&str>) -> (usize, String, Option<String>) {
        (line, text.to_string(), pair.map(str::to_string))
    }

    #[test]
    fn lines_are_split_into_as_many_texts_as_the_model_reads() {
        let text = "\u{feff}first\n\n second \r\n";
        let expected = [
            one(1, "first", None),
            one(2, "", None),
            one(3, " second ", None),
        ];
        assert_eq!(read("x.txt", text.as_bytes(), SINGLE).unwrap(), expected);
        assert_eq!(
            read("no-ending", text.as_bytes(), SINGLE).unwrap(),
            expected
        );
        let pair = [one(1, "one", Some("two")), one(2, "", Some("x"))];
        assert_eq!(read("x.txt", b"one\ttwo\n\tx\n", PAIRS).unwrap(), pair);
        let unknown = InputColumns {
            pairs: Pairs::Unknown,
            ..SINGLE
        };
        let never = InputColumns {
            pairs: Pairs::Never,
            ..SINGLE
        };
        assert_eq!(
            read("x.txt", b"one\ttwo", never).unwrap(),
            [one(1, "one\ttwo", None)]
        );
        let either = [one(1, "one", Some("two\tthree")), one(2, "x", None)];
        assert_eq!(
            read("x.txt", b"one\ttwo\tthree\nx", unknown).unwrap(),
            either
        );
    }

    #[test]
    fn lines_with_the_wrong_number_of_texts_are_refused() {
        for (columns, text, message) in [
            (SINGLE, "fine\ta pair", "x.txt:1: the line has a tab"),
            (SINGLE, "fine\nnot\tfine\n", "x.txt:2: the line has a tab"),
            (PAIRS, "a\tb\nno tab\n", "x.txt:2: the line has no tab"),
            (PAIRS, "a\tb\n\n", "x.txt:2: the line has no tab"),
            (
                PAIRS,
                "a\tb\tc\n",
                "x.txt:1: the line has more than one tab",
            ),
        ] {
            let error = read("x.txt", text.as_bytes(), columns).unwrap_err();
            assert!(error.starts_with(message), "{error}");
        }
    }

    #[test]
    fn tables_are_read_by_their_columns() {
        let expected = [one(2, "x, y", Some("z")), one(3, "u", Some(""))];
        let csv = "label,b,a\nyes,z,\"x, y\"\nno,,u\n";
        assert_eq!(read("dev.csv", csv.as_bytes(), PAIRS).unwrap(), expected);
        assert_eq!(read("DEV.CSV", csv.as_bytes(), PAIRS).unwrap(), expected);
        let tsv = "label\tb\ta\nyes\tz\tx, y\nno\t\tu\n";
        assert_eq!(read("dev.tsv", tsv.as_bytes(), PAIRS).unwrap(), expected);
        let jsonl = "{\"a\": \"x, y\", \"b\": \"z\"}\n{\"b\": \"\", \"a\": \"u\", \"label\": 3}\n";
        let expected = [one(1, "x, y", Some("z")), one(2, "u", Some(""))];
        assert_eq!(
            read("dev.jsonl", jsonl.as_bytes(), PAIRS).unwrap(),
            expected
        );
        // A tab in a cell has no special meaning.
        assert_eq!(
            read("dev.csv", b"text\na\tb\n", SINGLE).unwrap(),
            [one(2, "a\tb", None)]
        );
    }

    #[test]
    fn invalid_tables_are_refused() {
        for (name, text, columns, message) in [
            (
                "x.csv",
                "a,label\nx,y\n",
                PAIRS,
                "x.csv:1: no column `b`; the columns are `a`, `label`",
            ),
            (
                "x.jsonl",
                "{\"prompt\": \"x\"}\n",
                SINGLE,
                "x.jsonl:1: no column `text`; the columns are `prompt`",
            ),
            (
                "x.jsonl",
                "plain words\n",
                SINGLE,
                "x.jsonl:1: not a JSON object",
            ),
            (
                "x.jsonl",
                "{\"text\": \"x\"}\n{\"text\": \"y\", \"text\": \"z\"}\n",
                SINGLE,
                "x.jsonl:2: the row has the key `text` twice",
            ),
            ("x.tsv", "one\ttwo\n", PAIRS, "x.tsv:1: no column `a`"),
            ("x.csv", "text\n", SINGLE, "x.csv: holds no examples"),
            ("x.json", "[]", SINGLE, "x.json: is neither"),
            ("x.Parquet", "PAR1", SINGLE, "x.Parquet: is neither"),
        ] {
            let error = read(name, text.as_bytes(), columns).unwrap_err();
            assert!(error.starts_with(message), "{error}");
        }
        let twice = InputColumns {
            text: "a",
            pairs: Pairs::Column(" a"),
        };
        let error = read("x.csv", b"a\nx\n", twice).unwrap_err();
        assert!(error.contains("text_column"), "{error}");
    }
}
