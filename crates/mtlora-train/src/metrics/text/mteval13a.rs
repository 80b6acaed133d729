//! The tokenizer of NIST's `mteval-v13a.pl` for languages in Latin script. Moses' `multi-bleu-detok.perl`, the E2E
//! challenge's `pymteval.py` and sacreBLEU (as `13a`) also use it.

use crate::data::python;

/// The tokens of `text` that the Python versions of the tokenizer produce. Case is kept.
pub(super) fn tokenize(text: &str) -> Vec<String> {
    let spaced = separated(text);
    python::split(&spaced).map(str::to_string).collect()
}

/// The tokens of `text` that the Perl versions of the tokenizer produce. Case is kept. White space is that of Unicode,
/// as in Rust, because these versions decode the text.
pub(super) fn tokenize_as_perl(text: &str) -> Vec<String> {
    let spaced = separated(text);
    spaced.split_whitespace().map(str::to_string).collect()
}

/// The text with white space around everything that is a separate token.
fn separated(text: &str) -> String {
    let text = text
        .replace("<skipped>", "")
        .replace("-\n", "")
        .replace('\n', " ")
        .replace("&quot;", "\"")
        .replace("&amp;", "&")
        .replace("&lt;", "<")
        .replace("&gt;", ">");
    let spaced = separate_punctuation(&text);
    let spaced = split_pairs(
        &spaced,
        |a, b| !a.is_ascii_digit() && is_point(b),
        ["", " ", " "],
    );
    let spaced = split_pairs(
        &spaced,
        |a, b| is_point(a) && !b.is_ascii_digit(),
        [" ", " ", ""],
    );
    let spaced = split_pairs(
        &spaced,
        |a, b| a.is_ascii_digit() && b == '-',
        ["", " ", " "],
    );
    spaced.into_iter().collect()
}

/// The tokens that the E2E challenge's `pymteval.py` produces: in lower case, and a single empty token for blank text.
pub(super) fn tokenize_for_pymteval(text: &str) -> Vec<String> {
    let mut tokens = tokenize(text);
    if tokens.is_empty() {
        tokens.push(String::new());
    }
    tokens.iter().map(|token| token.to_lowercase()).collect()
}

fn is_point(character: char) -> bool {
    matches!(character, '.' | ',')
}

/// Puts spaces around ASCII punctuation, except around `'`, `,`, `-` and `.`.
fn separate_punctuation(text: &str) -> Vec<char> {
    let mut spaced = vec![' '];
    for character in text.chars() {
        if character.is_ascii_punctuation() && !matches!(character, '\'' | ',' | '-' | '.') {
            spaced.extend([' ', character, ' ']);
        } else {
            spaced.push(character);
        }
    }
    spaced.push(' ');
    spaced
}

/// Puts `around[0]` before, `around[1]` between and `around[2]` after each pair of neighbouring characters for which
/// `splits` is true. Pairs are found from left to right and do not overlap, as in the scripts' regular expressions.
fn split_pairs(text: &[char], splits: impl Fn(char, char) -> bool, around: [&str; 3]) -> Vec<char> {
    let [before, between, after] = around;
    let mut split = Vec::with_capacity(text.len() + text.len() / 4);
    let mut rest = text;
    while let [first, tail @ ..] = rest {
        match tail {
            [second, tail @ ..] if splits(*first, *second) => {
                split.extend(before.chars().chain([*first]).chain(between.chars()));
                split.extend([*second].into_iter().chain(after.chars()));
                rest = tail;
            }
            _ => {
                split.push(*first);
                rest = tail;
            }
        }
    }
    split
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_as_mteval_does() {
        let joined = |text: &str| tokenize(text).join(" ");
        assert_eq!(joined("It's 3.5, not 1,000."), "It's 3.5 , not 1,000 .");
        assert_eq!(
            joined("20-25 mid-priced (A&amp;B)"),
            "20 - 25 mid-priced ( A & B )"
        );
        assert_eq!(joined("nm_014157.3 £20,- .5"), "nm _ 014157.3 £20 , - . 5");
        assert_eq!(joined("a.. 5. b"), "a . . 5 . b");
        assert!(tokenize(" <skipped> ").is_empty());
    }

    #[test]
    fn white_space_is_that_of_each_language() {
        // The expected tokens are those of CPython 3.11's `re` as in pymteval.py, and of Perl 5.36 as in
        // multi-bleu-detok.perl.
        let text = "a\u{1c}b\u{1f}. c\u{a0}d\u{2028}e\u{200b}f\u{85}g";
        let python = ["a", "b", ".", "c", "d", "e\u{200b}f", "g"];
        assert_eq!(tokenize(text), python);
        let perl = ["a\u{1c}b\u{1f}", ".", "c", "d", "e\u{200b}f", "g"];
        assert_eq!(tokenize_as_perl(text), perl);
        assert_eq!(tokenize_for_pymteval("A\u{1d}\u{1e}B"), ["a", "b"]);
        assert_eq!(tokenize_for_pymteval("\u{1c} \u{1f}"), [""]);
        // pymteval.py converts each token to lower case separately, so the sigma at its end becomes a final sigma.
        assert_eq!(tokenize_for_pymteval("ΑΣ.Β"), ["ας", ".", "β"]);
    }
}
