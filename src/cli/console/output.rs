//! Writes to standard output and standard error. Results go to standard output, and messages about the work go to
//! standard error. No other code of the program writes to either.

use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::io::{self, StdoutLock, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use mtlora::train::{ClassCount, Run, Scores};
use serde::Serialize;

/// What a training prints.
#[derive(Clone, Copy)]
pub(crate) struct Output {
    /// Print plain lines instead of the dashboard.
    pub(crate) plain: bool,
    /// End standard output with one JSON object.
    pub(crate) json: bool,
    /// Print nothing but warnings: one of many runs.
    pub(crate) quiet: bool,
}

/// Prints a line to standard error, like `eprintln!`. If it cannot be written, it is dropped, because the work must
/// not stop for that.
macro_rules! note {
    ($($text:tt)*) => { $crate::cli::console::output::note(format_args!($($text)*)) };
}

/// Prints a line of results to standard output, like `println!`, but returns an error if it cannot be written.
macro_rules! say {
    ($($text:tt)*) => { $crate::cli::console::output::say(format_args!($($text)*)) };
}

/// Whether nothing is printed.
static SILENT: AtomicBool = AtomicBool::new(false);

/// From now on, nothing is printed: another process of the same training does it.
pub(crate) fn be_silent() {
    SILENT.store(true, Ordering::Relaxed);
}

/// Ends [`be_silent`].
#[cfg(feature = "mpi")]
pub(crate) fn be_heard() {
    SILENT.store(false, Ordering::Relaxed);
}

/// Implements the macro of the same name.
pub(crate) fn note(text: fmt::Arguments<'_>) {
    if SILENT.load(Ordering::Relaxed) {
        return;
    }
    let line = format!("{text}\n");
    // There is no place where a failure could be reported.
    let _ = io::stderr().write_all(printable_lines(&line).as_bytes());
}

/// Implements the macro of the same name.
pub(crate) fn say(text: fmt::Arguments<'_>) -> io::Result<()> {
    print(&format!("{text}\n"))
}

/// Prints several lines of results to standard output.
pub(crate) fn print(lines: &str) -> io::Result<()> {
    stdout().write_all(printable_lines(lines).as_bytes())
}

/// Prints `object` as the last line of standard output.
pub(crate) fn json(object: &impl Serialize) -> io::Result<()> {
    writeln!(stdout(), "{}", json_text(object)?)
}

/// `object` as JSON on one line. Control characters, which can occur only in its strings, are written as JSON
/// escapes, which have the same meaning.
pub(crate) fn json_text(object: &impl Serialize) -> serde_json::Result<String> {
    let text = serde_json::to_string(object)?;
    if !text.contains(acts) {
        return Ok(text);
    }
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        if acts(c) {
            // All of these characters fit into one UTF-16 unit.
            safe.push_str(&format!("\\u{:04x}", u32::from(c)));
        } else {
            safe.push(c);
        }
    }
    Ok(safe)
}

/// Standard output for data, which is written unchanged.
pub(crate) fn stdout() -> Stdout {
    Stdout(io::stdout().lock())
}

/// Standard output with errors that name it.
pub(crate) struct Stdout(StdoutLock<'static>);

impl Write for Stdout {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if SILENT.load(Ordering::Relaxed) {
            return Ok(bytes.len());
        }
        self.0.write(bytes).map_err(unwritten)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush().map_err(unwritten)
    }
}

/// The reason why results could not be written.
#[derive(Debug)]
struct Unwritten(io::Error);

impl fmt::Display for Unwritten {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "standard output: {}", self.0)
    }
}

impl Error for Unwritten {}

fn unwritten(error: io::Error) -> io::Error {
    match error.kind() {
        // The caller tries again.
        io::ErrorKind::Interrupted => error,
        kind => io::Error::new(kind, Unwritten(error)),
    }
}

/// Whether `error` means that the reader of standard output is gone, as `head` is after its last line.
pub(crate) fn is_unread(error: &(dyn Error + 'static)) -> bool {
    let of_table = error.downcast_ref::<csv::Error>();
    let error = match of_table.map(csv::Error::kind) {
        Some(csv::ErrorKind::Io(error)) => Some(error),
        _ => error.downcast_ref::<io::Error>(),
    };
    let unwritten = error.and_then(io::Error::get_ref);
    unwritten
        .and_then(|error| error.downcast_ref::<Unwritten>())
        .is_some_and(|Unwritten(error)| error.kind() == io::ErrorKind::BrokenPipe)
}

/// Makes a name or value from outside safe for a terminal: characters that control the terminal, end the line or
/// change the writing direction are escaped.
pub(crate) fn printable(text: &str) -> Cow<'_, str> {
    escaped(text, |_| false)
}

/// Like [`printable`], for a text of several lines.
pub(crate) fn printable_lines(text: &str) -> Cow<'_, str> {
    escaped(text, |c| matches!(c, '\n' | '\t'))
}

/// Whether `c` controls the terminal instead of being shown.
fn acts(c: char) -> bool {
    let directs = matches!(
        c,
        '\u{61c}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}'
    );
    c.is_control() || directs
}

fn escaped(text: &str, stays: impl Fn(char) -> bool) -> Cow<'_, str> {
    let acts = |c: char| acts(c) && !stays(c);
    if !text.contains(acts) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if acts(c) {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
    }
    Cow::Owned(shown)
}

/// `accuracy 0.8431, f1 0.8874, loss 0.3567`
pub(crate) fn describe(scores: &Scores) -> String {
    let parts: Vec<String> = scores
        .iter()
        .map(|(name, value)| format!("{} {value:.4}", name.as_str()))
        .collect();
    parts.join(", ")
}

/// The maximum number of classes that are listed.
const CLASSES: usize = 20;

/// `2 classes: neg (12), pos (15)`; `None` if there are no classes.
pub(crate) fn classes(counts: &[ClassCount]) -> Option<String> {
    if counts.is_empty() {
        return None;
    }
    let mut parts: Vec<String> = counts
        .iter()
        .take(CLASSES)
        .map(|class| format!("{} ({})", printable(&class.label), class.count))
        .collect();
    if let Some(more) = counts.len().checked_sub(CLASSES).filter(|more| *more > 0) {
        parts.push(format!("and {more} more"));
    }
    Some(format!("{} classes: {}", counts.len(), parts.join(", ")))
}

/// The peak resident memory of the process in MiB, if the system reports it.
pub(crate) fn peak_rss_mb() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: f64 = line.trim().trim_end_matches("kB").trim().parse().ok()?;
    Some(kib / 1024.0)
}

/// Starts a new measurement of [`peak_rss_mb`], where the system can do that, for another training in this process.
pub(crate) fn forget_peak_rss() {
    crate::memory::give_back();
    // Where this cannot be written, the peak stays that of the whole process.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

/// Creates a folder and its parents.
pub(crate) fn make_folder(folder: &Path) -> Result<(), String> {
    std::fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))
}

/// Returns an error if `folder` is a file, or is not empty, unless it may be overwritten.
pub(crate) fn ensure_empty_dir(folder: &Path, overwrite: bool) -> Result<(), String> {
    if folder.is_file() {
        return Err(format!(
            "{}: this is a file; name a folder with --out",
            folder.display()
        ));
    }
    let occupied = std::fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some());
    if overwrite && Run::is_in(folder) {
        return Err(format!(
            "{}: this is the folder of a run, which would be damaged; name another folder with --out",
            folder.display()
        ));
    }
    if occupied && !overwrite {
        Err(format!(
            "{}: exists and is not empty; name another folder, or pass --overwrite",
            folder.display()
        ))
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn control_characters_are_escaped() {
        for plain in ["layer.0.query", "häßlich \\ \"q\" e\u{301} 你 ±", ""] {
            assert!(matches!(printable(plain), Cow::Borrowed(same) if same == plain));
        }
        for (text, shown) in [
            ("\u{1b}[31mred", "\\u{1b}[31mred"),
            ("\u{9b}2J\u{7f}", "\\u{9b}2J\\u{7f}"),
            ("a\nb\rc\td", "a\\nb\\rc\\td"),
            ("a\u{202e}b\u{2066}", "a\\u{202e}b\\u{2066}"),
        ] {
            assert_eq!(printable(text), shown);
        }
        let text = "\u{1b}\u{9b}\u{7f}\n\u{202e}\\ \"ä";
        let json = json_text(&[text]).unwrap();
        assert_eq!(json, r#"["\u001b\u009b\u007f\n\u202e\\ \"ä"]"#);
        let read: Vec<String> = serde_json::from_str(&json).unwrap();
        assert_eq!(read, [text]);
        assert_eq!(printable_lines("a\n\tb\u{1b}c\r"), "a\n\tb\\u{1b}c\\r");
    }
}
