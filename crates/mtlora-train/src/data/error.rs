//! The errors of reading data sets.

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};

use mtlora_models::messages::{listed_up_to, shown};

/// The number of names that a message lists before "and N more": more than in messages about models, because these are
/// columns and classes, of which the user has to choose one.
const LISTED: usize = 20;

/// Why a data set could not be read. Lines are counted from 1, as in editors.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// A file or folder does not exist.
    #[error("{}: no such file; {hint}", .path.display())]
    NotFound {
        /// The file that was looked for.
        path: PathBuf,
        /// Where else it was looked for, and what to do.
        hint: String,
    },
    /// The operating system reported an error.
    #[error("{}: cannot read: {source}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The operating system's reason.
        source: io::Error,
    },
    /// A row with an invalid format.
    #[error("{}:{line}: {message}", .path.display())]
    Row {
        /// The file.
        path: PathBuf,
        /// The line on which the row begins.
        line: usize,
        /// What is wrong with it and what to do.
        message: String,
    },
    /// A label that is not one of the task's classes.
    #[error("{}:{line}: unknown label {}, expected one of {}; {hint}", .path.display(), shown(.label), listed(.known))]
    UnknownLabel {
        /// The file.
        path: PathBuf,
        /// The line on which the row begins.
        line: usize,
        /// The label in the file.
        label: String,
        /// The labels of the task, as files spell them.
        known: Vec<String>,
        /// What to do.
        hint: String,
    },
    /// A column that the header lacks.
    #[error("{}:{line}: no column {}; the columns are {}{}", .path.display(), shown(.column), listed(.header), other_separator(.path, .header))]
    UnknownColumn {
        /// The file.
        path: PathBuf,
        /// The line of the header, or of the JSON object.
        line: usize,
        /// The column that is needed.
        column: String,
        /// The columns of the file.
        header: Vec<String>,
    },
    /// Bytes that are not valid UTF-8.
    #[error("{}:{line}: invalid UTF-8; save the file as UTF-8", .path.display())]
    Utf8 {
        /// The file.
        path: PathBuf,
        /// The line of the first such byte.
        line: usize,
    },
    /// A file in a format that is not supported.
    #[error("{}: {message}", .path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// The supported formats, and what to do.
        message: String,
    },
    /// A text in an encoding other than UTF-8 or UTF-16 with a byte order mark.
    #[error("{}:{line}: {message}", .path.display())]
    Encoding {
        /// The file.
        path: PathBuf,
        /// The line where this is detected.
        line: usize,
        /// The encoding, and what to do.
        message: String,
    },
    /// A file without examples.
    #[error("{}: holds no examples; at least one row is needed, below the header if the file has one", .path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// There is no task of this name.
    #[error("unknown task {}, expected one of {}", shown(.name), listed(.known))]
    UnknownTask {
        /// The given name.
        name: String,
        /// The names of the tasks.
        known: Vec<String>,
    },
    /// The task has no split of this name.
    #[error("task {task} has no split {}; its splits are {}", shown(.split), listed(.known))]
    UnknownSplit {
        /// The task.
        task: String,
        /// The given split.
        split: String,
        /// The splits of the task.
        known: Vec<String>,
    },
    /// A setting of a task that contradicts another one or the data.
    #[error("setting `{setting}`: {message}")]
    Setting {
        /// The setting, as [`TableConfig`](crate::TableConfig) names it.
        setting: &'static str,
        /// What is wrong with it and what to do.
        message: String,
    },
    /// An error of a task that is defined outside of this crate.
    #[error(transparent)]
    Other(Box<dyn Error + Send + Sync>),
}

impl DataError {
    /// An invalid row.
    pub fn row(path: &Path, line: usize, message: impl Into<String>) -> Self {
        Self::Row {
            path: path.to_path_buf(),
            line,
            message: message.into(),
        }
    }

    /// A setting that contradicts another one or the data.
    pub(crate) fn setting(setting: &'static str, message: impl Into<String>) -> Self {
        let message = message.into();
        Self::Setting { setting, message }
    }

    /// An error of the operating system about `path`.
    pub fn io(path: &Path, source: io::Error) -> Self {
        Self::Io {
            path: path.to_path_buf(),
            source,
        }
    }

    /// Any other error, or a message, of a task that is defined outside of this crate.
    pub fn other(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Other(error.into())
    }
}

/// What to do about a table with one column in whose name there is a separator of another format; else nothing.
fn other_separator(path: &Path, header: &[String]) -> &'static str {
    let [only] = header else {
        return "";
    };
    let is_tsv = path
        .extension()
        .is_some_and(|ending| ending.eq_ignore_ascii_case("tsv"));
    let is_csv = path
        .extension()
        .is_some_and(|ending| ending.eq_ignore_ascii_case("csv"));
    if (is_csv || is_tsv) && only.contains(';') {
        "; it looks separated by semicolons: save it with commas as .csv, or with tabs as .tsv"
    } else if is_csv && only.contains('\t') {
        "; it looks separated by tabs: name it .tsv, or save it with commas"
    } else if is_tsv && only.contains(',') {
        "; it looks separated by commas: name it .csv, or save it with tabs"
    } else {
        ""
    }
}

/// Names, separated by commas; a long list is truncated.
pub(crate) fn listed<S: AsRef<str>>(names: &[S]) -> String {
    listed_up_to(names, LISTED)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_table_with_other_separators_is_recognized() {
        let said = |name: &str, header: &[&str]| {
            let error = DataError::UnknownColumn {
                path: PathBuf::from(name),
                line: 1,
                column: "text".into(),
                header: header.iter().map(ToString::to_string).collect(),
            };
            error.to_string()
        };
        for (name, header, advice) in [
            (
                "a.csv",
                "x;label",
                "semicolons: save it with commas as .csv",
            ),
            (
                "a.tsv",
                "x;label",
                "semicolons: save it with commas as .csv",
            ),
            (
                "a.CSV",
                "x\tlabel",
                "tabs: name it .tsv, or save it with commas",
            ),
            (
                "a.tsv",
                "x,label",
                "commas: name it .csv, or save it with tabs",
            ),
        ] {
            let text = said(name, &[header]);
            let advice = format!("; it looks separated by {advice}");
            assert!(text.contains(&advice), "{text}");
        }
        for (name, header) in [
            ("a.csv", &["x"][..]),
            ("a.csv", &["x;y", "label"]),
            ("a.tsv", &["x y"]),
            ("a.jsonl", &["x;y"]),
        ] {
            assert!(!said(name, header).contains("it looks"), "{name}");
        }
    }

    #[test]
    fn messages_say_where_and_what_to_do() {
        let path = PathBuf::from("data/train.tsv");
        let error = DataError::UnknownLabel {
            path: path.clone(),
            line: 7,
            label: "maybe".into(),
            known: vec!["0".into(), "1".into()],
            hint: "correct the row".into(),
        };
        assert_eq!(
            error.to_string(),
            "data/train.tsv:7: unknown label `maybe`, expected one of `0`, `1`; correct the row"
        );
        let error = DataError::Utf8 { path, line: 3 };
        assert!(error.to_string().starts_with("data/train.tsv:3: "));
        assert_eq!(DataError::other("so it is").to_string(), "so it is");
    }

    #[test]
    fn long_cells_and_long_lists_are_truncated() {
        assert_eq!(shown("a\tb"), "`a\\tb`");
        let names: Vec<String> = (0..LISTED + 3).map(|n| n.to_string()).collect();
        assert!(listed(&names).ends_with(" and 3 more"));
        assert!(!listed(names.get(..LISTED).unwrap()).contains("more"));
        assert_eq!(listed::<&str>(&[]), "none");
    }
}
