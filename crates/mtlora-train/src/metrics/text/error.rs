//! The errors of scoring generated text.

use std::io;
use std::path::PathBuf;

use crate::data::error::DataError;

/// Why text could not be scored. Lines are counted from 1, as in editors.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TextMetricError {
    /// A file that cannot be read.
    #[error("{}: cannot read: {source}; check the path and its permissions", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The operating system's reason.
        source: io::Error,
    },
    /// Bytes that are not valid UTF-8.
    #[error("{}:{line}: invalid UTF-8; save the file as UTF-8", .path.display())]
    Utf8 {
        /// The file.
        path: PathBuf,
        /// The line of the first such byte.
        line: usize,
    },
    /// A text in an encoding that is not supported.
    #[error(transparent)]
    Encoding(DataError),
    /// A file without text.
    #[error("{}: is empty; at least one line of text is needed", .path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// Two files with different numbers of lines or blocks.
    #[error(
        "{} has {count} {what}, but {} has {other_count}; both need the same number, in the same order",
        .path.display(), .other.display()
    )]
    Lengths {
        /// The first file.
        path: PathBuf,
        /// The number of lines or blocks in the first file.
        count: usize,
        /// The name of what is counted in both files.
        what: &'static str,
        /// The second file.
        other: PathBuf,
        /// The number of lines or blocks in the second file.
        other_count: usize,
    },
    /// The number of reference files does not fit their layout.
    #[error("expected {needed}, but {given} files are given")]
    ReferenceFiles {
        /// What is needed.
        needed: &'static str,
        /// The number of files that are given.
        given: usize,
    },
    /// A hypothesis without a reference.
    #[error("hypothesis {number} has no reference; add one, or remove the hypothesis")]
    NoReference {
        /// The number of the hypothesis, from 1.
        number: usize,
    },
    /// A hypothesis that has no reference in any file.
    #[error(
        "{}:{line}: this hypothesis has no reference: line {line} of {} is blank; add one, or remove the line \
         from every file",
        .path.display(), list(.references)
    )]
    NoReferenceInFiles {
        /// The file with the hypotheses.
        path: PathBuf,
        /// The line of the hypothesis and of its references.
        line: usize,
        /// The reference files.
        references: Vec<PathBuf>,
    },
    /// There is nothing to score.
    #[error("no hypotheses; at least one is needed")]
    NoHypotheses,
    /// The official METEOR program does not exist.
    #[error("{}: no such file; give the path of METEOR 1.5's meteor-1.5.jar, next to its data folder", .path.display())]
    NoMeteorJar {
        /// The file that was looked for.
        path: PathBuf,
    },
    /// Java could not be started.
    #[error(
        "cannot start java, which METEOR runs on: {source}; install a Java runtime, version 8 or later, on the PATH"
    )]
    Java {
        /// The operating system's reason.
        source: io::Error,
    },
    /// METEOR ended early, or its output was not a score.
    #[error("{}: METEOR failed: {message}; check that this is a complete METEOR 1.5 next to its data folder, and that 2 GB of memory are free", .path.display())]
    Meteor {
        /// The program.
        path: PathBuf,
        /// The reason, or the last output of the program.
        message: String,
    },
}

/// The names of the files, separated by commas.
fn list(paths: &[PathBuf]) -> String {
    let names: Vec<String> = paths
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    names.join(", ")
}
