//! Reads hypotheses and references from files.

use std::fs;
use std::path::{Path, PathBuf};

use super::{Pair, TextMetricError};
use crate::data::error::DataError;
use crate::data::python;
use crate::data::text_file::decode_text;

/// The layout of files with references. It also determines where lines end in them and in the file with the hypotheses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReferenceLayout {
    /// The layout of E2E: one file with a block of lines for each hypothesis and blank lines between the blocks. If
    /// there is no blank line, each line is the only reference of one hypothesis. Lines end as for Python's
    /// `str.splitlines`, including at a line separator (U+2028), because the challenge's script uses `codecs.open`.
    Blocks,
    /// The layout of WebNLG and DART: files in which each line is a reference of the hypothesis on the same line. A
    /// blank line means that there is no reference. Lines end only at `\n`, as in sacreBLEU, the WebNLG evaluation and
    /// Perl.
    Parallel,
}

impl ReferenceLayout {
    /// The lines of a text, without white space around them.
    fn lines(self, text: &str) -> Vec<String> {
        match self {
            Self::Blocks => python::split_lines(text)
                .map(|line| python::strip(line).to_string())
                .collect(),
            // This removes only characters that are white space to Perl, too.
            Self::Parallel => text.lines().map(|line| line.trim().to_string()).collect(),
        }
    }
}

/// Reads hypotheses, one on each line, and their references.
///
/// # Errors
/// If a file cannot be read, is empty or is not text; if the files differ in length; if the number of reference files
/// does not fit the layout; if a hypothesis has no reference.
pub fn read_pairs<P: AsRef<Path>>(
    hypotheses: &Path,
    references: &[P],
    layout: ReferenceLayout,
) -> Result<Vec<Pair>, TextMetricError> {
    let texts = read_hypotheses(hypotheses, layout)?;
    let (sets, first) = match (layout, references) {
        (ReferenceLayout::Blocks, [file]) => {
            let blocks = read_reference_blocks(file.as_ref())?;
            let blocks = if texts.len() > 1 {
                one_each(blocks)
            } else {
                blocks
            };
            (blocks, file.as_ref())
        }
        (ReferenceLayout::Parallel, [first, ..]) => {
            (read_parallel_references(references)?, first.as_ref())
        }
        (ReferenceLayout::Blocks, files) => {
            let needed = "one file of reference blocks";
            let given = files.len();
            return Err(TextMetricError::ReferenceFiles { needed, given });
        }
        (ReferenceLayout::Parallel, []) => return Err(no_reference_files()),
    };
    let what = match layout {
        ReferenceLayout::Blocks => "hypotheses or reference blocks",
        ReferenceLayout::Parallel => "lines",
    };
    same_length((hypotheses, texts.len()), what, (first, sets.len()))?;
    let pairs = texts
        .into_iter()
        .zip(sets)
        .map(|(hypothesis, references)| Pair {
            hypothesis,
            references,
        });
    let pairs: Vec<_> = pairs.collect();
    match super::check(&pairs) {
        Ok(()) => Ok(pairs),
        // A block has at least one line, so the layout is `Parallel`, where the number of a hypothesis is its line.
        Err(TextMetricError::NoReference { number }) => Err(TextMetricError::NoReferenceInFiles {
            path: hypotheses.into(),
            line: number,
            references: references.iter().map(|path| path.as_ref().into()).collect(),
        }),
        Err(error) => Err(error),
    }
}

/// Reads the hypotheses, one on each line, that go with references in this layout. A blank line is an empty hypothesis.
///
/// # Errors
/// If the file cannot be read, is empty or is not text.
pub fn read_hypotheses(
    path: &Path,
    layout: ReferenceLayout,
) -> Result<Vec<String>, TextMetricError> {
    Ok(layout.lines(&read(path)?))
}

/// Reads blocks of references, with one or more blank lines between the blocks.
///
/// # Errors
/// If the file cannot be read, is empty or is not text.
pub fn read_reference_blocks(path: &Path) -> Result<Vec<Vec<String>>, TextMetricError> {
    let mut blocks = vec![Vec::new()];
    for line in ReferenceLayout::Blocks.lines(&read(path)?) {
        match blocks.last_mut() {
            Some(block) if !line.is_empty() => block.push(line),
            Some(block) if block.is_empty() => {}
            _ => blocks.push(Vec::new()),
        }
    }
    blocks.retain(|block: &Vec<_>| !block.is_empty());
    if blocks.is_empty() {
        return Err(TextMetricError::Empty { path: path.into() });
    }
    Ok(blocks)
}

/// Reads parallel files of references. The result holds, for each line, its text in every file, which is blank if the
/// file has no reference there.
///
/// # Errors
/// If a file cannot be read, is empty or is not text; if the files differ in length; if no file is given.
pub fn read_parallel_references<P: AsRef<Path>>(
    paths: &[P],
) -> Result<Vec<Vec<String>>, TextMetricError> {
    let (first, others) = paths.split_first().ok_or_else(no_reference_files)?;
    let mut sets: Vec<Vec<_>> = read_hypotheses(first.as_ref(), ReferenceLayout::Parallel)?
        .into_iter()
        .map(|line| vec![line])
        .collect();
    for path in others {
        let lines = read_hypotheses(path.as_ref(), ReferenceLayout::Parallel)?;
        same_length(
            (first.as_ref(), sets.len()),
            "lines",
            (path.as_ref(), lines.len()),
        )?;
        for (set, line) in sets.iter_mut().zip(lines) {
            set.push(line);
        }
    }
    Ok(sets)
}

/// Splits a single block into one block for each line, as the E2E challenge's script reads a file without blank lines.
fn one_each(blocks: Vec<Vec<String>>) -> Vec<Vec<String>> {
    match <[_; 1]>::try_from(blocks) {
        Ok([block]) => block.into_iter().map(|line| vec![line]).collect(),
        Err(blocks) => blocks,
    }
}

fn same_length(
    (path, count): (&Path, usize),
    what: &'static str,
    (other, other_count): (&Path, usize),
) -> Result<(), TextMetricError> {
    if count == other_count {
        return Ok(());
    }
    Err(TextMetricError::Lengths {
        path: path.into(),
        count,
        what,
        other: other.into(),
        other_count,
    })
}

fn no_reference_files() -> TextMetricError {
    TextMetricError::ReferenceFiles {
        needed: "at least one file of references",
        given: 0,
    }
}

fn read(path: &Path) -> Result<String, TextMetricError> {
    let path_buf = || PathBuf::from(path);
    let bytes = fs::read(path).map_err(|source| TextMetricError::Io {
        path: path_buf(),
        source,
    })?;
    let text = decode_text(path, bytes).map_err(|error| match error {
        DataError::Utf8 { path, line } => TextMetricError::Utf8 { path, line },
        other => TextMetricError::Encoding(other),
    })?;
    if text.is_empty() {
        return Err(TextMetricError::Empty { path: path_buf() });
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    /// Writes files with these contents into a new folder.
    fn files<B: AsRef<[u8]>>(contents: &[B]) -> (tempfile::TempDir, Vec<PathBuf>) {
        let folder = tempfile::tempdir().unwrap();
        let write = |(at, content): (usize, &B)| {
            let path = folder.path().join(format!("{at}.txt"));
            fs::write(&path, content).unwrap();
            path
        };
        let paths = contents.iter().enumerate().map(write).collect();
        (folder, paths)
    }

    fn pairs(contents: &[&str], layout: ReferenceLayout) -> Result<Vec<Pair>, String> {
        let (folder, paths) = files(contents);
        let pairs = read_pairs(&paths[0], &paths[1..], layout);
        pairs.map_err(|error| {
            let folder = format!("{}{}", folder.path().display(), std::path::MAIN_SEPARATOR);
            error.to_string().replace(&folder, "")
        })
    }

    #[test]
    fn layouts_are_read() {
        let read = pairs(
            &["\u{feff}a\r\n\nc", "x\ny\n\n\nz\n\nw\n\n"],
            ReferenceLayout::Blocks,
        )
        .unwrap();
        assert_eq!(read[0].hypothesis, "a");
        assert_eq!(read[0].references, ["x", "y"]);
        assert_eq!(read[1].hypothesis, "");
        assert_eq!(read[2].references, ["w"]);
        let read = pairs(&["a\nb\n", "x\ny\n"], ReferenceLayout::Blocks).unwrap();
        assert_eq!(read[1].references, ["y"]);
        let read = pairs(&["a\n", "x\ny\n"], ReferenceLayout::Blocks).unwrap();
        assert_eq!(read[0].references, ["x", "y"]);
        let read = pairs(&["a\nb\n", "x\n\n", "\ny\n"], ReferenceLayout::Parallel).unwrap();
        assert_eq!(read[0].present().collect::<Vec<_>>(), ["x"]);
        assert_eq!(read[1].present().collect::<Vec<_>>(), ["y"]);
    }

    #[test]
    fn lines_end_as_in_the_scripts_of_each_layout() {
        // The expected lines are those of CPython 3.11's `codecs.open(name, "rb", "UTF-8")`, stripped, as in
        // `measure_scores.py`.
        let blocks = |text: &str| ReferenceLayout::Blocks.lines(text);
        assert_eq!(blocks("a\u{2028}b\n"), ["a", "b"]);
        assert_eq!(blocks("a\rb\r\nc"), ["a", "b", "c"]);
        assert_eq!(blocks("a\u{1c}b\u{1d}\u{1e}c\n"), ["a", "b", "", "c"]);
        assert_eq!(blocks("a\u{85}b\u{c}c\u{b}d"), ["a", "b", "c", "d"]);
        assert_eq!(blocks("\u{1f}a\u{1f}b\u{a0}\n\u{1f}\n"), ["a\u{1f}b", ""]);
        // The expected lines are those of `open(name, newline="\n")`, as in sacreBLEU 2.6.
        let parallel = |text: &str| ReferenceLayout::Parallel.lines(text);
        assert_eq!(parallel("a\u{2028}b\n"), ["a\u{2028}b"]);
        assert_eq!(parallel("a\rb\r\nc"), ["a\rb", "c"]);
        assert_eq!(
            parallel("a\u{1c}b\u{85}c\u{b}d\n\n"),
            ["a\u{1c}b\u{85}c\u{b}d", ""]
        );
        // A line that is blank to Python ends a block, and a reference that is blank to Python is missing.
        let read = pairs(
            &["a\nb\n", "x\n\u{1f}\ny\u{1c}z\n"],
            ReferenceLayout::Blocks,
        )
        .unwrap();
        assert_eq!(read[1].references, ["y", "z"]);
        let read = pairs(&["a\n", "\u{1f}\n", "x\n"], ReferenceLayout::Parallel).unwrap();
        assert_eq!(read[0].present().collect::<Vec<_>>(), ["x"]);
        let error = pairs(&["a\nb\n", "x\n\u{1c}\n"], ReferenceLayout::Parallel).unwrap_err();
        assert!(
            error.starts_with("0.txt:2: this hypothesis has no reference"),
            "{error}"
        );
    }

    #[test]
    fn errors_say_where_and_how_many() {
        let error = |contents: &[&str], layout| pairs(contents, layout).unwrap_err();
        let (blocks, parallel) = (ReferenceLayout::Blocks, ReferenceLayout::Parallel);
        let message = error(&["a\nb\n", "x\n\ny\n\nz\n"], blocks);
        assert!(message.starts_with("0.txt has 2 hypotheses or reference blocks, but 1.txt has 3"));
        let message = error(&["a\nb\n", "x\ny\n", "z\n"], parallel);
        assert!(message.starts_with("1.txt has 2 lines, but 2.txt has 1;"));
        let message = error(&["a\nb\n", "x\n\n", "x\n \n"], parallel);
        assert!(message.starts_with("0.txt:2: this hypothesis has no reference"));
        assert!(message.contains("line 2 of 1.txt, 2.txt is blank"));
        assert!(error(&["", "x\n"], parallel).starts_with("0.txt: is empty"));
        assert!(error(&["a", "\n\n"], blocks).starts_with("1.txt: is empty"));
        assert!(error(&["a"], parallel).starts_with("expected at least one file of references"));
        assert!(error(&["a", "b", "c"], blocks).ends_with(", but 2 files are given"));
        let (_folder, paths) = files(&[&b"a\nb\xff\n"[..]]);
        let message = read_hypotheses(&paths[0], parallel)
            .unwrap_err()
            .to_string();
        assert!(message.contains("0.txt:2: invalid UTF-8"));
        let message = read_hypotheses(Path::new("no/such"), blocks)
            .unwrap_err()
            .to_string();
        assert!(message.starts_with("no/such: cannot read"));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(contents in prop::collection::vec(
            prop::collection::vec(prop_oneof![Just(b'\n'), any::<u8>()], 0..40), 1..4)
        ) {
            let (_folder, paths) = files(&contents);
            for layout in [ReferenceLayout::Blocks, ReferenceLayout::Parallel] {
                if let Ok(pairs) = read_pairs(&paths[0], &paths[1..], layout) {
                    prop_assert!(super::super::check(&pairs).is_ok());
                }
            }
        }
    }

    #[test]
    fn other_encodings_are_read_or_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("h.txt");
        let text = "tea, thé\nsoup";
        let little = text.encode_utf16().flat_map(u16::to_le_bytes);
        fs::write(
            &path,
            [0xff, 0xfe].into_iter().chain(little).collect::<Vec<u8>>(),
        )
        .unwrap();
        let read = || read_hypotheses(&path, ReferenceLayout::Parallel);
        assert_eq!(read().unwrap(), ["tea, thé", "soup"]);
        let unmarked: Vec<u8> = text.encode_utf16().flat_map(u16::to_be_bytes).collect();
        fs::write(&path, unmarked).unwrap();
        let error = read().unwrap_err().to_string();
        assert!(error.contains("looks like UTF-16"), "{error}");
    }
}
