//! Finds how much of a long text must be tokenised to get the tokens at one of its ends.

use tokenizers::models::ModelWrapper;
use tokenizers::normalizers::NormalizerWrapper;
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::{AddedToken, Tokenizer};

/// The longest text that is tokenised in one piece, in bytes. Tokenising a text that is a single word takes 150 times
/// its memory.
pub(crate) const MAX_WHOLE: usize = 16 << 20;

/// An end of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Its beginning.
    First,
    /// Its end.
    Last,
}

/// Cuts texts at positions where cutting does not change any token. Such a position is a space between two letters or
/// digits, if the tokenizer splits a text into words at spaces and treats each word on its own: byte-level byte pairs
/// with GPT-2's regular expression, and BERT's word pieces. There is no such guarantee for other tokenizers, so their
/// texts are never cut.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cutter {
    cuts: bool,
}

impl Cutter {
    /// Examines a tokenizer to find out whether its texts can be cut.
    pub(crate) fn of(tokenizer: &Tokenizer) -> Self {
        let normalizes_characters = match tokenizer.get_normalizer() {
            None => true,
            Some(normalizer) => matches!(
                normalizer,
                NormalizerWrapper::BertNormalizer(_)
                    | NormalizerWrapper::Lowercase(_)
                    | NormalizerWrapper::NFC(_)
            ),
        };
        let has_words = match tokenizer.get_pre_tokenizer() {
            Some(PreTokenizerWrapper::ByteLevel(byte_level)) => byte_level.use_regex,
            Some(PreTokenizerWrapper::BertPreTokenizer(_)) => true,
            _ => false,
        };
        let splits_words = matches!(
            tokenizer.get_model(),
            ModelWrapper::BPE(_) | ModelWrapper::WordPiece(_)
        );
        // A token may include the spaces before it: no token can cross the cut, because a letter or digit precedes it.
        let reaches_on =
            |token: &AddedToken| token.rstrip || token.content.contains(char::is_whitespace);
        let added = tokenizer.get_added_tokens_decoder();
        let within_words = !added.values().any(reaches_on);
        Self {
            cuts: normalizes_characters && has_words && splits_words && within_words,
        }
    }

    /// The first or last `bytes` of a text, extended to the next position where it can be cut, or the whole text if
    /// there is no such position. The rest of the text has no effect on the tokens of the part.
    pub(crate) fn part(self, text: &str, bytes: usize, end: End) -> &str {
        if !self.cuts || text.len() <= bytes {
            return text;
        }
        let place = match end {
            End::First => first_place(text, bytes),
            End::Last => last_place(text, text.len() - bytes),
        };
        let part = place.and_then(|place| match end {
            End::First => text.get(..place),
            End::Last => text.get(place..),
        });
        part.unwrap_or(text)
    }
}

/// The first space at or after `from` that has a letter or digit on both sides.
fn first_place(text: &str, from: usize) -> Option<usize> {
    let bytes = text.as_bytes();
    let spaces = bytes.iter().enumerate().skip(from);
    let mut spaces = spaces.filter(|(_, byte)| **byte == b' ');
    spaces
        .find(|(place, _)| is_place(text, *place))
        .map(|(place, _)| place)
}

/// The last such space at or before `to`.
fn last_place(text: &str, to: usize) -> Option<usize> {
    let bytes = text.as_bytes().get(..=to)?;
    let spaces = bytes.iter().enumerate().rev();
    let mut spaces = spaces.filter(|(_, byte)| **byte == b' ');
    spaces
        .find(|(place, _)| is_place(text, *place))
        .map(|(place, _)| place)
}

/// Whether the space at `place` has a letter or digit on both sides.
fn is_place(text: &str, place: usize) -> bool {
    let before = text.get(..place).and_then(|text| text.chars().next_back());
    let behind = text.get(place + 1..).and_then(|text| text.chars().next());
    before.is_some_and(char::is_alphanumeric) && behind.is_some_and(char::is_alphanumeric)
}
