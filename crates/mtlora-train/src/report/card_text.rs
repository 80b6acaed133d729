//! Texts in the front matter and the tables of a model card.

use std::fmt::Write;

/// A string as JSON writes it, with escapes for the characters that YAML does not allow, so that YAML takes it, too.
pub(super) fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    for c in serde_json::Value::from(text).to_string().chars() {
        match c {
            '\u{7f}'..='\u{9f}' | '\u{2028}' | '\u{2029}' | '\u{fffe}' | '\u{ffff}' => {
                let _ = write!(quoted, "\\u{:04x}", u32::from(c));
            }
            c => quoted.push(c),
        }
    }
    quoted
}

/// A text in a cell of a table: one line, in which nothing is markup.
pub(super) fn cell(text: &str) -> String {
    let mut cell = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() {
            cell.push(' ');
            continue;
        }
        if c.is_ascii_punctuation() && !"-.,:;/()'\"".contains(c) {
            cell.push('\\');
        }
        cell.push(c);
    }
    cell
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_that_yaml_does_not_have_are_escaped() {
        assert_eq!(
            quoted("a\u{7f}\u{85}\u{ffff}\"ü😀"),
            r#""a\u007f\u0085\uffff\"ü😀""#
        );
    }

    #[test]
    fn a_class_is_no_markup_in_its_cell() {
        assert_eq!(cell("not-acceptable, 1"), "not-acceptable, 1");
        assert_eq!(cell("a|b\n<c> *d*"), "a\\|b \\<c\\> \\*d\\*");
    }
}
