//! Decides whether a dashboard or a progress bar can be drawn, or only plain lines can be written.

use std::env;
use std::ffi::OsStr;
use std::io::IsTerminal;

/// Whether `stream` supports escape codes that move the cursor: it must be a terminal, and the environment must not
/// say that the terminal only prints lines.
pub(crate) fn is_drawable(stream: &impl IsTerminal) -> bool {
    let variable = |name| env::var_os(name);
    stream.is_terminal()
        && moves_cursor(
            variable("TERM").as_deref(),
            variable("CI").as_deref(),
            cfg!(windows),
        )
}

/// Whether colours are wanted where a terminal has them: the variable `NO_COLOR` (no-color.org) is not set, or is empty.
pub(crate) fn is_coloured() -> bool {
    env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Whether a terminal supports moving the cursor, according to the variables `TERM` and `CI`.
///
/// `TERM` is `dumb` in the shells of some editors, and empty or missing if the kind of terminal is unknown. Consoles
/// on Windows do not set it, but support escape codes. `CI` is set where the output goes to a log that nobody
/// watches; the values `false` and `0` count as not set.
///
/// `NO_COLOR` disables only colours: the dashboard and the progress bars are then drawn without them.
fn moves_cursor(term: Option<&OsStr>, ci: Option<&OsStr>, is_windows: bool) -> bool {
    let logged = ci.is_some_and(|value| {
        !value.is_empty() && value != OsStr::new("false") && value != OsStr::new("0")
    });
    let known = match term {
        Some(term) => !term.is_empty() && !term.eq_ignore_ascii_case("dumb"),
        None => is_windows,
    };
    known && !logged
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_known_terminals_are_drawn_on() {
        let decide = |term: Option<&str>, ci: Option<&str>| {
            moves_cursor(term.map(OsStr::new), ci.map(OsStr::new), false)
        };
        for term in [
            "xterm",
            "xterm-256color",
            "screen",
            "tmux-256color",
            "linux",
            "vt100",
            "dumber",
        ] {
            assert!(decide(Some(term), None), "{term}");
        }
        for term in [None, Some(""), Some("dumb"), Some("DUMB"), Some("Dumb")] {
            assert!(!decide(term, None), "{term:?}");
        }
        for ci in ["true", "1", "yes", "woodpecker"] {
            assert!(!decide(Some("xterm"), Some(ci)), "{ci}");
        }
        for ci in ["", "false", "0"] {
            assert!(decide(Some("xterm"), Some(ci)), "{ci:?}");
            assert!(!decide(Some("dumb"), Some(ci)), "{ci:?}");
        }
    }

    #[test]
    fn windows_has_no_term() {
        let decide = |term: Option<&str>| moves_cursor(term.map(OsStr::new), None, true);
        assert!(decide(None) && decide(Some("xterm")));
        assert!(!decide(Some("dumb")) && !decide(Some("")));
        assert!(!moves_cursor(None, Some(OsStr::new("1")), true));
    }
}
