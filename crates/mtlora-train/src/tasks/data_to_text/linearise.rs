//! Facts on one line, as the GPT-2 experiments of Hu et al. (2021) write them.
//!
//! [`slots`] and [`slot_key`] write the slots of E2E as in the data of those experiments, with one exception: the
//! challenge's key `priceRange` is `price` there, and `price range` here. WebNLG's triples are used as they are, with
//! underscores, quotation marks and camel case. In DART's triples only the predicate is lower-cased.

use crate::data::python;

/// Writes slots in the form `key : value | key : value`.
pub fn slots<K: AsRef<str>, V: AsRef<str>>(slots: impl IntoIterator<Item = (K, V)>) -> String {
    let mut line = String::new();
    for (key, value) in slots {
        separate(&mut line);
        line.push_str(key.as_ref());
        line.push_str(" : ");
        line.push_str(value.as_ref());
    }
    line
}

/// Writes triples in the form `subject : predicate : object | subject : predicate : object`.
pub fn triples<S: AsRef<str>>(triples: &[[S; 3]]) -> String {
    let mut line = String::new();
    for [subject, predicate, object] in triples {
        separate(&mut line);
        line.push_str(subject.as_ref());
        line.push_str(" : ");
        line.push_str(predicate.as_ref());
        line.push_str(" : ");
        line.push_str(object.as_ref());
    }
    line
}

/// The key of an E2E slot as words: split at capitals and lower-cased (`family friendly`). `eatType` becomes `Type`.
pub fn slot_key(key: &str) -> String {
    if key == "eatType" {
        return "Type".to_string();
    }
    let mut words = String::new();
    for letter in key.chars() {
        if letter.is_uppercase() && !words.is_empty() && !words.ends_with(' ') {
            words.push(' ');
        }
        words.extend(letter.to_lowercase());
    }
    words
}

fn separate(line: &mut String) {
    if !line.is_empty() {
        line.push_str(" | ");
    }
}

/// The text without line breaks, which inputs and files of hypotheses cannot contain. A text without them is unchanged.
pub(crate) fn one_line(text: &str) -> String {
    if !text.contains(['\n', '\r']) {
        return text.to_string();
    }
    let lines = text.split(['\n', '\r']).map(python::strip);
    let lines: Vec<&str> = lines.filter(|line| !line.is_empty()).collect();
    lines.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_are_written_as_published() {
        let line = slots([("name", "Alimentum"), ("area", "city centre")]);
        assert_eq!(line, "name : Alimentum | area : city centre");
        let line = triples(&[["A_B", "isIn", "\"C\""], ["C", "size", ""]]);
        assert_eq!(line, "A_B : isIn : \"C\" | C : size : ");
        assert_eq!(slots::<&str, &str>([]), "");
    }

    #[test]
    fn keys_are_split_at_capitals() {
        for (key, words) in [
            ("name", "name"),
            ("familyFriendly", "family friendly"),
            ("priceRange", "price range"),
            ("customer rating", "customer rating"),
            ("customer Rating", "customer rating"),
            ("eatType", "Type"),
            ("Area", "area"),
        ] {
            assert_eq!(slot_key(key), words);
        }
    }

    #[test]
    fn only_line_breaks_are_touched() {
        assert_eq!(one_line(" a  b "), " a  b ");
        assert_eq!(one_line("\r\n  a |\n  b\n"), "a | b");
        // As Python strips lines.
        assert_eq!(one_line("a\u{1c}\n\u{1f}\n\u{1d}b\u{1e}c"), "a b\u{1e}c");
    }
}
