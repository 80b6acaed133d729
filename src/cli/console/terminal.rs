//! Whether what is shown may be drawn over: a dashboard, a bar. Elsewhere plain lines are written.

use std::env;
use std::ffi::OsStr;
use std::io::IsTerminal;

/// Whether escape codes that move the cursor can be written to `stream`: it is a terminal, and the environment does
/// not say that it only prints lines.
pub(crate) fn is_drawable(stream: &impl IsTerminal) -> bool {
    let variable = |name| env::var_os(name);
    stream.is_terminal()
        && moves_cursor(
            variable("TERM").as_deref(),
            variable("CI").as_deref(),
            cfg!(windows),
        )
}

/// Whether a terminal understands more than lines, by the variables `TERM` and `CI`.
///
/// `TERM` is `dumb` in editors' shells, and empty or missing where nobody said what the terminal is; Windows' consoles
/// have none, and understand escape codes. `CI` is set where a log is kept of a terminal that nobody watches; a value
/// of `false` or `0` is as good as none.
///
/// `NO_COLOR` asks for no colours, and not for lines: the dashboard and the bars leave colours out then.
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
    fn only_a_terminal_that_says_what_it_is_is_drawn_on() {
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
