//! What can go wrong when generated text is scored.

use std::io;
use std::path::PathBuf;

use crate::data::error::DataError;

/// Why text could not be scored. Lines count from 1, as editors count them.
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
    /// Bytes that are no UTF-8.
    #[error("{}:{line}: invalid UTF-8; save the file as UTF-8", .path.display())]
    Utf8 {
        /// The file.
        path: PathBuf,
        /// The line of the first such byte.
        line: usize,
    },
    /// Another encoding.
    #[error(transparent)]
    Encoding(DataError),
    /// A file without text.
    #[error("{}: is empty; at least one line of text is needed", .path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// Files that do not belong together.
    #[error(
        "{} has {count} {what} and {} has {other_count}; there must be as many, in the same order",
        .path.display(), .other.display()
    )]
    Lengths {
        /// The first file.
        path: PathBuf,
        /// How many it has.
        count: usize,
        /// What is counted in both.
        what: &'static str,
        /// The second file.
        other: PathBuf,
        /// How many that has.
        other_count: usize,
    },
    /// More or fewer reference files than the layout has.
    #[error("{needed} needed, {given} given")]
    ReferenceFiles {
        /// What is needed.
        needed: &'static str,
        /// How many there are.
        given: usize,
    },
    /// A hypothesis with nothing to compare it with.
    #[error("hypothesis {number} has no reference; add one, or remove the hypothesis")]
    NoReference {
        /// Its place in the set, from 1.
        number: usize,
    },
    /// A hypothesis whose line has no reference in any file.
    #[error(
        "{}:{line}: this hypothesis has no reference: line {line} of {} is blank; add one, or remove the line \
         from every file",
        .path.display(), list(.references)
    )]
    NoReferenceInFiles {
        /// The hypotheses' file.
        path: PathBuf,
        /// The hypothesis's line, and its references'.
        line: usize,
        /// The reference files.
        references: Vec<PathBuf>,
    },
    /// Nothing to score.
    #[error("no hypotheses; at least one is needed")]
    NoHypotheses,
    /// No METEOR where it should be.
    #[error("{}: no such file; name METEOR 1.5's meteor-1.5.jar, which has its data folder beside it", .path.display())]
    NoMeteorJar {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// Java does not start.
    #[error(
        "cannot start java, which METEOR runs on: {source}; install a Java runtime, version 8 or later, on the PATH"
    )]
    Java {
        /// The operating system's reason.
        source: io::Error,
    },
    /// METEOR ended before its time or said something else than a score.
    #[error("{}: METEOR failed: {message}; it must be METEOR 1.5, whole, with its data folder beside it, and needs 2 GB of memory", .path.display())]
    Meteor {
        /// The program.
        path: PathBuf,
        /// What it said last.
        message: String,
    },
}

/// The files' names with commas between.
fn list(paths: &[PathBuf]) -> String {
    let names: Vec<String> = paths
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    names.join(", ")
}
