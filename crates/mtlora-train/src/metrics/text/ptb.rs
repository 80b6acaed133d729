//! Penn Treebank tokens as COCO's caption evaluation (`ptbtokenizer.py`) produces them: the tokens of Stanford's
//! `PTBTokenizer` with `-lowerCase`, without punctuation.
//!
//! Stanford's tokenizer is a generated lexer with several hundred rules. This one follows its rules for words, numbers,
//! acronyms, contractions, currencies and punctuation. It knows fewer abbreviations, and no telephone numbers or
//! smileys.

use crate::data::python;

/// Words whose token includes the full stop after them.
const ABBREVIATIONS: [&str; 84] = [
    "adm", "adv", "al", "apr", "assn", "assoc", "aug", "ave", "bldg", "blvd", "brig", "bros",
    "calif", "capt", "cf", "cmdr", "co", "col", "conn", "corp", "ct", "dec", "dept", "dr", "drs",
    "ed", "esq", "est", "etc", "feb", "fig", "fla", "fri", "ft", "gen", "gov", "hon", "ill", "inc",
    "ind", "intl", "jan", "jr", "jul", "jun", "lieut", "lt", "ltd", "maj", "mar", "mass", "messrs",
    "mich", "minn", "mon", "mr", "mrs", "ms", "mt", "nos", "nov", "oct", "pa", "ph.d", "plc", "pp",
    "prof", "rd", "rep", "rev", "sat", "sen", "sep", "sept", "sgt", "sq", "sr", "st", "tel",
    "univ", "va", "vol", "vs", "wash",
];

/// Words with an apostrophe that are not split.
const APOSTROPHE_WORDS: [&str; 12] = [
    "'cause", "'em", "'n", "'n'", "'til", "'till", "c'mon", "e'er", "li'l", "ne'er", "o'clock",
    "ol'",
];

/// Words that are split into two tokens, and the position where the second token begins.
const MERGED: [(&str, usize); 9] = [
    ("'tis", 2),
    ("'twas", 2),
    ("cannot", 3),
    ("dunno", 3),
    ("gimme", 3),
    ("gonna", 3),
    ("gotta", 3),
    ("lemme", 3),
    ("wanna", 3),
];

/// The endings of contracted words, without the apostrophe.
const CONTRACTED: [&str; 6] = ["ll", "re", "ve", "s", "m", "d"];

/// The lower-case tokens of `text` without punctuation.
pub(super) fn caption_tokens(text: &str) -> Vec<String> {
    let mut tokens = tokens(text);
    tokens.retain(|token| !is_punctuation(token));
    tokens
}

/// Whether `ptbtokenizer.py` drops the token. Its list has the names of brackets in upper case, but the tokens are in
/// lower case by then, so brackets are kept.
fn is_punctuation(token: &str) -> bool {
    matches!(
        token,
        "''" | "'" | "``" | "`" | "." | "?" | "!" | "," | ":" | "-" | "--" | "..." | ";"
    )
}

/// The lower-case tokens of `text`.
pub(super) fn tokens(text: &str) -> Vec<String> {
    let characters: Vec<char> = unify_quotes(text).chars().collect();
    let (mut tokens, mut rest) = (Vec::new(), characters.as_slice());
    while let [first, others @ ..] = rest {
        if separates(*first) {
            rest = others;
            continue;
        }
        let (token, others) = rest.split_at(token_length(rest).clamp(1, rest.len()));
        push(&mut tokens, token);
        rest = others;
    }
    tokens
}

/// Whether a character separates tokens and is part of none. Stanford's lexer skips its own white space and characters
/// without width. It deletes the other characters that are white space to Python, because it cannot tokenize them.
fn separates(c: char) -> bool {
    python::is_space(c) || matches!(c, '\0' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{feff}')
}

fn unify_quotes(text: &str) -> String {
    text.replace("&amp;", "&")
        .replace(['‘', '’'], "'")
        .replace(['"', '“', '”', '«', '»'], "''")
}

/// Adds a token, in lower case and with the Treebank's names for some characters.
fn push(tokens: &mut Vec<String>, token: &[char]) {
    let token = token.iter().collect::<String>().to_lowercase();
    if let Some((first, second)) = MERGED
        .iter()
        .find(|(word, _)| *word == token)
        .and_then(|&(word, at)| word.split_at_checked(at))
    {
        tokens.extend([first.to_string(), second.to_string()]);
        return;
    }
    tokens.push(match token.as_str() {
        "(" => "-lrb-".into(),
        ")" => "-rrb-".into(),
        "[" => "-lsb-".into(),
        "]" => "-rsb-".into(),
        "{" => "-lcb-".into(),
        "}" => "-rcb-".into(),
        "£" => "#".into(),
        "€" => "$".into(),
        "¢" => "cents".into(),
        "–" | "—" => "--".into(),
        "…" => "...".into(),
        "½" => "1/2".into(),
        "¼" => "1/4".into(),
        "¾" => "3/4".into(),
        _ => token,
    });
}

/// The number of characters of the token at the start of `text`, which is the longest that any rule allows.
fn token_length(text: &[char]) -> usize {
    let contracted = contraction(text);
    if contracted > 0 {
        return contracted;
    }
    let longest = [
        address(text),
        number(text),
        acronym(text),
        dotted_word(text),
        hyphenated(text),
        with_slashes(text),
        with_ampersand(text),
        dollar(text),
        apostrophe_word(text),
        run(text, |c| c == '-'),
        run(text, |c| matches!(c, '!' | '?')),
        if run(text, |c| c == '.') >= 3 { 3 } else { 0 },
        if text.starts_with(&['\'', '\'']) {
            2
        } else {
            0
        },
    ];
    let longest = longest.into_iter().max().unwrap_or(0);
    let longest = longest + full_stop(text, longest);
    before_nt(text, longest)
}

/// The number of characters at the start of `text` for which `is` is true.
fn run(text: &[char], is: impl Fn(char) -> bool) -> usize {
    text.iter().take_while(|&&c| is(c)).count()
}

/// Whether a character is a letter or a mark on a letter.
fn is_letter(c: char) -> bool {
    c.is_alphabetic() || ('\u{300}'..='\u{36f}').contains(&c)
}

fn is_letter_or_digit(c: char) -> bool {
    is_letter(c) || c.is_ascii_digit()
}

fn tail(text: &[char], from: usize) -> &[char] {
    text.get(from..).unwrap_or_default()
}

/// Whether `text` equals `lower`, ignoring case.
fn equals(text: &[char], lower: &str) -> bool {
    text.iter().flat_map(|c| c.to_lowercase()).eq(lower.chars())
}

/// The number of characters of several parts with one character for which `joins` is true between them. `length` is that
/// of the first part, and `part` measures the others.
fn joined(
    text: &[char],
    first: usize,
    joins: impl Fn(char) -> bool,
    part: impl Fn(&[char]) -> usize,
) -> usize {
    let mut length = first;
    while length > 0 && tail(text, length).first().is_some_and(|&c| joins(c)) {
        match part(tail(text, length + 1)) {
            0 => break,
            more => length += 1 + more,
        }
    }
    length
}

/// `centre.It`: words that begin with a letter, with only a mark between them.
fn dotted_word(text: &[char]) -> usize {
    let word = |text: &[char]| match text.first() {
        Some(&c) if is_letter(c) => run(text, is_letter_or_digit),
        _ => 0,
    };
    joined(text, word(text), |c| matches!(c, '.' | '!' | '?'), word)
}

/// `family-friendly`, `5-star`, `O'Connor`.
fn hyphenated(text: &[char]) -> usize {
    let part = |text: &[char]| match text {
        ['d' | 'D' | 'o' | 'O' | 'l' | 'L', '\'', c, ..] if is_letter(*c) => {
            2 + run(tail(text, 2), is_letter_or_digit)
        }
        _ => run(text, is_letter_or_digit),
    };
    joined(text, part(text), |c| matches!(c, '-' | '_'), part)
}

/// `pub/restaurant`, `1/2`.
fn with_slashes(text: &[char]) -> usize {
    let part = |text: &[char]| {
        let word = |text: &[char]| run(text, |c| c.is_ascii_alphanumeric());
        joined(text, word(text), |c| c == '-', word)
    };
    joined(text, part(text), |c| c == '/', part)
}

/// `R&B`, but not `Marks&Spencer`.
fn with_ampersand(text: &[char]) -> usize {
    let part = |text: &[char]| match run(text, |c| c.is_ascii_uppercase()) {
        0 if !tail(text, 1).first().is_some_and(|&c| is_letter(c)) => {
            run(text, |c| c.is_ascii_lowercase()).min(1)
        }
        length => length,
    };
    joined(text, part(text), |c| c == '&', part)
}

/// `3.5`, `1,000`, `10:30`, `-5`, `.14`.
fn number(text: &[char]) -> usize {
    let digits = |text: &[char]| run(text, |c| c.is_ascii_digit());
    if let ['.' | ',' | ':', c, ..] = text
        && c.is_ascii_digit()
    {
        return 1 + number(tail(text, 1));
    }
    let sign = match text {
        ['-' | '+', c, ..] if c.is_ascii_digit() => 1,
        _ => 0,
    };
    let unsigned = tail(text, sign);
    let length = joined(
        unsigned,
        digits(unsigned),
        |c| matches!(c, '.' | ',' | ':'),
        digits,
    );
    if length == 0 { 0 } else { sign + length }
}

/// `U.S.`, `p.m.`, `J.`; but `m.` at the end of a sentence is a word and a full stop.
fn acronym(text: &[char]) -> usize {
    let pairs = text.chunks_exact(2);
    let letters = pairs
        .take_while(|pair| matches!(pair, [c, '.'] if is_letter(*c)))
        .count();
    let ends = || match tail(text, 2) {
        [' ', next, ..] => next.is_uppercase(),
        rest => rest.is_empty(),
    };
    match text.first() {
        Some(first) if letters == 1 && first.is_lowercase() && ends() => 1,
        _ => 2 * letters,
    }
}

/// `US$`, `A$`.
fn dollar(text: &[char]) -> usize {
    match run(text, |c| c.is_ascii_uppercase()) {
        letters @ 1..=2 if text.get(letters) == Some(&'$') => letters + 1,
        _ => 0,
    }
}

/// The ending of a contraction with its apostrophe, if no letter follows it.
fn contraction(text: &[char]) -> usize {
    let ends = CONTRACTED.iter().filter_map(|end| {
        let length = end.len() + 1;
        let matches = equals(text.get(1..length)?, end);
        let ended = !tail(text, length)
            .first()
            .is_some_and(|&c| is_letter_or_digit(c));
        (text.first() == Some(&'\'') && matches && ended).then_some(length)
    });
    let not = match text {
        ['n' | 'N', '\'', 't' | 'T', rest @ ..] if !rest.first().is_some_and(|&c| is_letter(c)) => {
            3
        }
        _ => 0,
    };
    ends.max().unwrap_or(0).max(not)
}

/// The length of a word without the `n` at its end if that begins an `n't`.
fn before_nt(text: &[char], length: usize) -> usize {
    match length.checked_sub(1) {
        Some(shorter @ 1..)
            if contraction(tail(text, shorter)) == 3 && text.get(length) == Some(&'\'') =>
        {
            shorter
        }
        _ => length,
    }
}

/// `'em`, `o'clock`, `'80s`, `ma'am`.
fn apostrophe_word(text: &[char]) -> usize {
    if let ['\'', '2'..='9', '0', 's', ..] = text {
        return 4;
    }
    let known = APOSTROPHE_WORDS
        .iter()
        .chain(MERGED.iter().map(|(word, _)| word));
    let known = known.filter(|word| {
        let length = word.chars().count();
        let ended = !tail(text, length)
            .first()
            .is_some_and(|&c| is_letter_or_digit(c));
        ended && text.get(..length).is_some_and(|start| equals(start, word))
    });
    let known = known.map(|word| word.chars().count()).max().unwrap_or(0);
    known.max(inner_apostrophe(text))
}

/// `O'Connor` and `ma'am`: an apostrophe after an initial, or between two vowels.
fn inner_apostrophe(text: &[char]) -> usize {
    let head = run(text, is_letter);
    let word = run(tail(text, head + 1), is_letter);
    if text.get(head) != Some(&'\'') || word == 0 {
        return 0;
    }
    let is_vowel = |c: &char| "aeiouAEIOU".contains(*c);
    let initial = match text {
        [c, ..] if head == 1 => *c == 'n' || c.is_ascii_uppercase() && !matches!(c, 'I' | 'Y'),
        _ => false,
    };
    let last = head.checked_sub(1).and_then(|at| text.get(at));
    let between = last.is_some_and(|c| is_vowel(c) || matches!(c, 'y' | 'Y'))
        && tail(text, head + 1)
            .first()
            .is_some_and(|c| is_vowel(c) || c.is_ascii_uppercase());
    if initial && word >= 2 || between && head >= 2 {
        head + 1 + word
    } else {
        0
    }
}

/// An internet or mail address, `@name` or `#name`.
fn address(text: &[char]) -> usize {
    let starts = |start: &str| {
        text.get(..start.len())
            .is_some_and(|head| equals(head, start))
    };
    let length = match text {
        _ if starts("http://") || starts("https://") || starts("www.") => {
            run(text, |c| !c.is_whitespace())
        }
        ['@' | '#', c, ..] if is_letter(*c) => {
            1 + run(tail(text, 1), |c| is_letter_or_digit(c) || c == '_')
        }
        _ => mail_address(text),
    };
    let head = text.get(..length).unwrap_or_default();
    length
        - head
            .iter()
            .rev()
            .take_while(|c| matches!(c, '.' | ',' | '!' | '?' | ';' | ':' | ')' | '\''))
            .count()
}

fn mail_address(text: &[char]) -> usize {
    let part = |text: &[char]| {
        run(text, |c| {
            is_letter_or_digit(c) || matches!(c, '.' | '_' | '-' | '+')
        })
    };
    let name = part(text);
    let host = part(tail(text, name + 1));
    if name > 0 && host > 0 && text.get(name) == Some(&'@') {
        name + 1 + host
    } else {
        0
    }
}

/// 1 if the word of that length is an abbreviation with a full stop after it, and otherwise 0. Abbreviations are the
/// known ones, any word whose full stop is followed by a comma, semicolon or colon, and the word of `No. 5`.
fn full_stop(text: &[char], length: usize) -> usize {
    let word = text.get(..length).unwrap_or_default();
    let abbreviated = match tail(text, length) {
        ['.', ',' | ';' | ':', ..] if word.iter().all(|&c| is_letter(c)) && length > 0 => true,
        ['.', ' ', digit, ..] if equals(word, "no") => digit.is_ascii_digit(),
        ['.', ..] => ABBREVIATIONS.iter().any(|known| equals(word, known)),
        _ => false,
    };
    usize::from(abbreviated)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn captions_are_what_stanfords_tokenizer_makes_of_them() {
        let cases = [
            (
                "It's a pub/restaurant (near the \"river\").",
                "it 's a pub/restaurant -lrb- near the river -rrb-",
            ),
            (
                "It isn't £20-25, or 1/2... cannot",
                "it is n't # 20-25 or 1/2 can not",
            ),
            (
                "U.S. St. John's 5-star, Mr. X.",
                "u.s. st. john 's 5-star mr. x.",
            ),
            (
                "Café Brazil’s 3.5 -- family-friendly; 50% A&B",
                "café brazil 's 3.5 family-friendly 50 % a&b",
            ),
            (
                "10:30 p.m. 1,000 '80s #hash @x US$30 €20",
                "10:30 p.m. 1,000 '80s #hash @x us$ 30 $ 20",
            ),
            (
                "centre.It Marks&Spencer O'Connor ma'am",
                "centre.it marks & spencer o'connor ma'am",
            ),
            (
                "can't I'd they're 'em 'tis -5 (5) what?!",
                "ca n't i 'd they 're 'em 't is -5 -lrb- 5 -rrb- what ?!",
            ),
            (
                "in the center, No. 5 and no. 8.3 m. It",
                "in the center no. 5 and no. 8.3 m it",
            ),
        ];
        for (text, expected) in cases {
            assert_eq!(caption_tokens(text).join(" "), expected);
        }
    }

    #[test]
    fn tokens_stay_what_they_are() {
        for text in ["is n't", "it 's", "20-25 # $ -lrb-"] {
            assert_eq!(caption_tokens(text).join(" "), text.replace("-lrb-", "lrb"));
        }
    }

    #[test]
    fn separators_are_not_part_of_tokens() {
        // The expected tokens follow the rules of Stanford's lexer for white space, for characters without width, and
        // for characters that it cannot tokenize.
        let white = "\t\u{b}\u{1c}\u{1d}\u{1e}\u{1f}\u{85}\u{a0}\u{1680}\u{2028}\u{202f}\u{3000}";
        let no_width = "\u{200b}\u{200e}\u{200f}\u{feff}\0";
        for c in white.chars().chain(no_width.chars()) {
            let text = format!("{c}The cat{c}sat{c}{c}here.{c}");
            assert_eq!(
                caption_tokens(&text),
                ["the", "cat", "sat", "here"],
                "{c:?}"
            );
        }
        // Java's `toLowerCase` uses the final sigma, too.
        assert_eq!(caption_tokens("ΟΔΟΣ ΣΑΣ"), ["οδος", "σας"]);
    }
}
