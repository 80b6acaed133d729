//! Texts in the front matter and the tables of a model card.

/// A string in YAML, which takes JSON's strings.
pub(super) fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
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
    fn a_class_is_no_markup_in_its_cell() {
        assert_eq!(cell("not-acceptable, 1"), "not-acceptable, 1");
        assert_eq!(cell("a|b\n<c> *d*"), "a\\|b \\<c\\> \\*d\\*");
    }
}
