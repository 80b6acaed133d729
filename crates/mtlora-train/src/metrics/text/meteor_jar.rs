//! Computes METEOR with the official program, METEOR 1.5, which is not part of this project.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread::{self, JoinHandle};

use super::{Pair, TextMetricError};

/// The number of bytes of the program's error output that a message shows.
const SHOWN: usize = 400;

/// A copy of `meteor-1.5.jar` next to its `data` folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MeteorJar {
    path: PathBuf,
}

impl MeteorJar {
    /// Uses the program at `path`.
    ///
    /// # Errors
    /// [`TextMetricError::NoMeteorJar`] if there is no such file.
    pub fn new(path: impl Into<PathBuf>) -> Result<Self, TextMetricError> {
        let path = path.into();
        if path.is_file() {
            Ok(Self { path })
        } else {
            Err(TextMetricError::NoMeteorJar { path })
        }
    }

    /// METEOR 1.5 for English with all stages. The program normalises the texts (`-norm`) and compares each hypothesis
    /// with its best reference. The score is from 0 to 1.
    ///
    /// # Errors
    /// If Java cannot be started, or if the program fails.
    pub fn score(&self, pairs: &[Pair]) -> Result<f64, TextMetricError> {
        let mut process = Process::start("java", &self.path)?;
        let mut evaluation = "EVAL".to_string();
        for pair in pairs {
            let references = pair
                .present()
                .map(one_line)
                .collect::<Vec<_>>()
                .join(" ||| ");
            let hypothesis = one_line(&pair.hypothesis);
            let statistics = process.ask(&format!("SCORE ||| {references} ||| {hypothesis}"))?;
            if !statistics
                .split_whitespace()
                .all(|number| number.parse::<f64>().is_ok())
            {
                return Err(process.failed(&statistics));
            }
            evaluation.push_str(" ||| ");
            evaluation.push_str(&statistics);
        }
        // The program answers with a score for each sentence, and then with that of the corpus.
        let mut answer = process.ask(&evaluation)?;
        for _ in pairs {
            answer = process.answer()?;
        }
        match answer.parse::<f64>() {
            Ok(score) if score.is_finite() => Ok(score),
            _ => Err(process.failed(&answer)),
        }
    }
}

/// The text without the separators of fields and lines in the program's protocol. Other characters that are white space
/// to Unicode, but not to the program's Java regular expressions, are passed on as they are, as when the program reads
/// files.
fn one_line(text: &str) -> String {
    let text = text.replace("|||", " ");
    let words = text.split(|c| matches!(c, '\t'..='\r' | ' '));
    let words: Vec<&str> = words.filter(|word| !word.is_empty()).collect();
    words.join(" ")
}

/// The running program, which is ended when this value is dropped.
struct Process {
    path: PathBuf,
    child: Child,
    input: Option<ChildStdin>,
    output: Option<BufReader<ChildStdout>>,
    errors: Option<JoinHandle<String>>,
}

impl Process {
    fn start(java: &str, path: &Path) -> Result<Self, TextMetricError> {
        let mut child = Command::new(java)
            // The program expects numbers in the format of the locale.
            .args([
                "-Duser.language=en",
                "-Duser.country=US",
                "-Dfile.encoding=UTF-8",
                "-Xmx2G",
                "-jar",
            ])
            .arg(path)
            .args(["-", "-", "-stdio", "-l", "en", "-norm"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|source| TextMetricError::Java { source })?;
        let errors = child.stderr.take();
        Ok(Self {
            path: path.to_path_buf(),
            input: child.stdin.take(),
            output: child.stdout.take().map(BufReader::new),
            // A thread reads the error output all the time, because the program would wait if the pipe were full.
            errors: errors.map(|stream| thread::spawn(move || read_beginning(stream))),
            child,
        })
    }

    fn ask(&mut self, line: &str) -> Result<String, TextMetricError> {
        let sent = self.input.as_mut().map(|input| {
            input.write_all(line.as_bytes())?;
            input.write_all(b"\n")?;
            input.flush()
        });
        match sent {
            Some(Ok(())) => self.answer(),
            _ => Err(self.failed("it ended early")),
        }
    }

    fn answer(&mut self) -> Result<String, TextMetricError> {
        let mut line = String::new();
        match self
            .output
            .as_mut()
            .map(|output| output.read_line(&mut line))
        {
            Some(Ok(1..)) => Ok(line.trim().to_string()),
            _ => Err(self.failed("it ended early")),
        }
    }

    /// Ends the program and says why it failed.
    fn failed(&mut self, message: &str) -> TextMetricError {
        self.end();
        let errors = self.errors.take().and_then(|thread| thread.join().ok());
        let errors = errors.unwrap_or_default();
        let message = [message.trim(), errors.trim()].join(": ");
        TextMetricError::Meteor {
            path: self.path.clone(),
            message: message.trim_matches([':', ' ']).to_string(),
        }
    }

    fn end(&mut self) {
        self.input = None;
        // Both fail only if the program has already ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}

/// Reads `stream` to its end and returns the beginning of its contents.
fn read_beginning(mut stream: impl Read) -> String {
    let mut kept = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(length @ 1..) = stream.read(&mut buffer) {
        let room = SHOWN.saturating_sub(kept.len());
        kept.extend(buffer.iter().take(length.min(room)));
    }
    String::from_utf8_lossy(&kept).into_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::tests::pair;
    use super::*;

    #[test]
    fn errors_say_what_is_missing() {
        let error = MeteorJar::new("no/meteor.jar").unwrap_err().to_string();
        assert!(error.starts_with("no/meteor.jar: no such file; give the path of METEOR 1.5's"));
        let started = Process::start("no-such-java", Path::new("meteor.jar"));
        let error = started.err().map(|error| error.to_string()).unwrap();
        assert!(error.starts_with("cannot start java") && error.contains("install"));
    }

    #[test]
    fn a_file_that_is_not_the_program_is_an_error() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let jar = MeteorJar::new(file.path()).unwrap();
        // Without Java there is also an error, but a different one.
        let error = jar.score(&[pair("a", &["a"])]).unwrap_err();
        assert!(matches!(
            error,
            TextMetricError::Meteor { .. } | TextMetricError::Java { .. }
        ));
    }

    #[test]
    fn separators_in_a_text_are_removed() {
        assert_eq!(one_line(" a ||| b\n|||| c"), "a b | c");
        // Java's `\s` matches only ASCII white space, and `BufferedReader` ends lines only at `\n` and `\r`.
        assert_eq!(one_line("a\r\nb\u{b}c\td"), "a b c d");
        let kept = "a\u{a0}b\u{1c}c\u{2028}d\u{85}e";
        assert_eq!(one_line(kept), kept);
    }
}
