//! Python's string functions, for code that reproduces a Python script. Python and Rust agree on lower case
//! (`str::to_lowercase` is `str.lower`, final sigma included, except for letters that are newer than Python's Unicode
//! version), but not on white space and line ends. The functions here were compared with CPython 3.11 for all
//! characters.

/// Whether `str.isspace` is true for a character; `str.split` splits at the same characters and `\s` matches them.
/// These are Unicode's white space, as in Rust, and the information separators U+001C to U+001F.
pub(crate) fn is_space(c: char) -> bool {
    c.is_whitespace() || matches!(c, '\u{1c}'..='\u{1f}')
}

/// `text.split()`.
pub(crate) fn split(text: &str) -> impl Iterator<Item = &str> {
    text.split(is_space).filter(|word| !word.is_empty())
}

/// `text.strip()`.
pub(crate) fn strip(text: &str) -> &str {
    text.trim_matches(is_space)
}

/// `text.rstrip()`.
pub(crate) fn rstrip(text: &str) -> &str {
    text.trim_end_matches(is_space)
}

/// Whether `text.strip()` is empty.
pub(crate) fn is_blank(text: &str) -> bool {
    text.chars().all(is_space)
}

/// `text.splitlines()`. Files opened with `codecs.open` are split into lines in the same way; files opened with `open`
/// have fewer line ends.
pub(crate) fn split_lines(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let end = rest.find(ends_line).unwrap_or(rest.len());
        let (line, behind) = rest.split_at(end);
        rest = match behind.strip_prefix("\r\n") {
            Some(behind) => behind,
            None => behind.strip_prefix(ends_line).unwrap_or(behind),
        };
        Some(line)
    })
}

/// Whether `str.splitlines` ends a line at this character.
fn ends_line(c: char) -> bool {
    matches!(
        c,
        '\n'..='\r' | '\u{1c}'..='\u{1e}' | '\u{85}' | '\u{2028}' | '\u{2029}'
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The code points of the characters for which `is` is true.
    fn all(is: impl Fn(char) -> bool) -> Vec<u32> {
        let characters = (0..=u32::from(char::MAX)).filter_map(char::from_u32);
        characters.filter(|&c| is(c)).map(u32::from).collect()
    }

    #[test]
    fn white_space_is_that_of_python_for_every_character() {
        // CPython 3.11: [c for c in range(0x110000) if chr(c).isspace()]; the same for re.match(r"\s", chr(c)) and for
        // len(("a" + chr(c) + "b").split()) == 2.
        let expected = [
            0x9, 0xa, 0xb, 0xc, 0xd, 0x1c, 0x1d, 0x1e, 0x1f, 0x20, 0x85, 0xa0, 0x1680, 0x2000,
            0x2001, 0x2002, 0x2003, 0x2004, 0x2005, 0x2006, 0x2007, 0x2008, 0x2009, 0x200a, 0x2028,
            0x2029, 0x202f, 0x205f, 0x3000,
        ];
        assert_eq!(all(is_space), expected);
    }

    #[test]
    fn line_ends_are_those_of_python_for_every_character() {
        // CPython 3.11: [c for c in range(0x110000) if len(("a" + chr(c) + "b").splitlines()) == 2].
        let expected = [0xa, 0xb, 0xc, 0xd, 0x1c, 0x1d, 0x1e, 0x85, 0x2028, 0x2029];
        assert_eq!(all(ends_line), expected);
    }

    #[test]
    fn words_and_lines_are_those_of_python() {
        // The expected values are those of CPython 3.11.
        let words = |text| split(text).collect::<Vec<_>>();
        assert_eq!(
            words("\u{1f}a\u{1c}\u{1d}b\u{a0}c\u{200b}d "),
            ["a", "b", "c\u{200b}d"]
        );
        assert!(words(" \u{1e}\u{2028}").is_empty() && words("").is_empty());
        assert_eq!(strip("\u{1c} a \u{1c}b\u{85}\u{1f}"), "a \u{1c}b");
        assert_eq!(rstrip("\u{1c}a\u{1d}\n"), "\u{1c}a");
        assert!(is_blank("\u{1c}\t\u{3000}") && is_blank("") && !is_blank("\u{200b}"));
        let lines = |text| split_lines(text).collect::<Vec<_>>();
        assert_eq!(lines("a\r\nb\rc\n\nd"), ["a", "b", "c", "", "d"]);
        assert_eq!(lines("a\u{1c}\u{1e}b\u{1f}c\u{85}"), ["a", "", "b\u{1f}c"]);
        assert_eq!(lines("\n\r"), ["", ""]);
        assert_eq!(lines("\u{b}a\u{2028}\u{2029}"), ["", "a", ""]);
        assert!(lines("").is_empty());
    }

    #[test]
    fn lower_case_is_that_of_python() {
        // The expected values are those of CPython 3.11.
        for (text, lower) in [
            ("ΟΔΟΣ ΣΑΣ.", "οδος σας."),
            ("Α.Σ ΑΣ'Β Σ", "α.ς ασ'β σ"),
            ("Α\u{1c}Σ", "α\u{1c}σ"),
            ("İSTANBUL", "i\u{307}stanbul"),
            ("ẞ Ǆ Ω", "ß ǆ ω"),
        ] {
            assert_eq!(text.to_lowercase(), lower);
        }
    }
}
