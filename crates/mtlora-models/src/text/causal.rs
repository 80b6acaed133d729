use std::ops::Range;
use std::path::{Path, PathBuf};

use tokenizers::Tokenizer;

use crate::error::{ModelError, start_of};
use crate::families::text_config::TextConfig;
use crate::files::read::read_bounded;
use crate::text::encoder::{input, is_padded};
use crate::text::long_text::{Cutter, End};
use crate::text::tokenizer::{FolderTokenizer, TokenNames, TokenizerOf};
use crate::text::tokenizer::{MAX_TOKENIZER_BYTES, check_merges, check_template, guarded};

/// Reads the tokenizer of a folder like [`CausalText::from_folder`], for a model of that `model_type` that does not exist
/// yet.
///
/// # Errors
/// When `tokenizer.json` is missing or invalid, or when a setting is invalid.
pub fn read_tokenizer(folder: &Path, model_type: &str) -> Result<Tokenizer, ModelError> {
    let of = TokenizerOf {
        model_type,
        tokenizer_class: None,
        // The model will have a row for every token.
        vocab_size: usize::MAX,
    };
    Ok(FolderTokenizer::read(folder, of)?.tokenizer)
}

fn read_tokenizer_file(path: &Path) -> Result<Tokenizer, ModelError> {
    let bytes = read_bounded(path, MAX_TOKENIZER_BYTES)?;
    let value = serde_json::from_slice(&bytes).map_err(|error| ModelError::json(path, &error))?;
    check_merges(path, &value)?;
    check_template(path, value.get("post_processor"))?;
    guarded(|| Tokenizer::from_bytes(&bytes)).map_err(|message| ModelError::Tokenizer {
        path: path.to_path_buf(),
        message,
    })
}

/// A causal model's tokenizer: it turns text into tokens and back, without special tokens around the text.
#[derive(Clone, Debug)]
pub struct CausalText {
    tokenizer: Tokenizer,
    vocab_size: usize,
    cutter: Cutter,
    cleans_up: bool,
    names: TokenNames,
}

impl CausalText {
    /// Reads the tokenizer of a model folder, as `AutoTokenizer` of transformers 5.24 does: `tokenizer.json`, and if
    /// they exist `tokenizer_config.json`, `special_tokens_map.json` and `added_tokens.json`.
    ///
    /// # Errors
    /// When `tokenizer.json` is missing or invalid, when a setting is invalid, or when the vocabulary does not match
    /// the configuration.
    pub fn from_folder(folder: &Path, config: &dyn TextConfig) -> Result<Self, ModelError> {
        let of = TokenizerOf {
            model_type: config.model_type(),
            tokenizer_class: config.tokenizer_class(),
            vocab_size: config.vocab_size(),
        };
        let read = FolderTokenizer::read(folder, of)?;
        let text = Self::new(read.path, read.tokenizer, config.vocab_size())?;
        Ok(Self {
            cleans_up: read.cleans_up,
            names: read.names,
            ..text
        })
    }

    /// Reads a `tokenizer.json` at any path, without the files next to it.
    ///
    /// # Errors
    /// As [`Self::from_folder`].
    pub fn from_file(path: &Path, config: &dyn TextConfig) -> Result<Self, ModelError> {
        let tokenizer = read_tokenizer_file(path)?;
        Self::new(path.to_path_buf(), tokenizer, config.vocab_size())
    }

    /// Checks and sets up a tokenizer that is in memory; `path` is used only in messages.
    ///
    /// # Errors
    /// As [`Self::from_folder`].
    pub fn new(
        path: PathBuf,
        mut tokenizer: Tokenizer,
        vocab_size: usize,
    ) -> Result<Self, ModelError> {
        tokenizer.with_padding(None);
        guarded(|| tokenizer.with_truncation(None).map(|_| ())).map_err(|message| {
            ModelError::Tokenizer {
                path: path.clone(),
                message,
            }
        })?;
        let ids = tokenizer.get_vocab(true).into_values();
        let size = ids.max().map_or(0, |id| id as usize + 1);
        if size > vocab_size || !is_padded(size, vocab_size) {
            return Err(ModelError::VocabularySize {
                path,
                tokenizer: size,
                config: vocab_size,
            });
        }
        Ok(Self {
            cutter: Cutter::of(&tokenizer),
            tokenizer,
            vocab_size,
            cleans_up: false,
            names: TokenNames::default(),
        })
    }

    /// The tokens of a text if there are at most `most`; otherwise its first tokens, more than `most` of them. If the
    /// tokenizer splits words at spaces, only as much of a long text is tokenised as this takes.
    ///
    /// # Errors
    /// As [`Self::encode`], for the part that must be tokenised together.
    pub fn encode_first(&self, text: &str, most: usize) -> Result<Vec<u32>, ModelError> {
        self.encode_end(text, most, End::First)
    }

    /// Like [`Self::encode_first`], for the end of a text and its last tokens.
    ///
    /// # Errors
    /// As [`Self::encode_first`].
    pub fn encode_last(&self, text: &str, most: usize) -> Result<Vec<u32>, ModelError> {
        self.encode_end(text, most, End::Last)
    }

    fn encode_end(&self, text: &str, most: usize, end: End) -> Result<Vec<u32>, ModelError> {
        let mut bytes = most.saturating_mul(16).max(1 << 12);
        loop {
            let part = self.cutter.part(text, bytes, end);
            let ids = self.encode(part)?;
            if part.len() == text.len() || ids.len() > most {
                return Ok(ids);
            }
            bytes = bytes.saturating_mul(8);
        }
    }

    /// The tokens of a text, without special tokens around it even if the tokenizer has a post-processor that adds
    /// them. An empty text has no tokens.
    ///
    /// # Errors
    /// When the text has more than 16 MiB, or the tokenizer rejects it.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, ModelError> {
        let failed = |message| ModelError::Encode {
            start: start_of(text),
            message,
        };
        let input = input(text, None)?;
        let encoding = guarded(|| self.tokenizer.encode_fast(input, false)).map_err(failed)?;
        Ok(self.within_vocabulary(text, encoding.get_ids())?.to_vec())
    }

    /// The tokens of a text, if the model has all of them.
    fn within_vocabulary<'a>(&self, text: &str, ids: &'a [u32]) -> Result<&'a [u32], ModelError> {
        match ids.iter().find(|id| **id as usize >= self.vocab_size) {
            Some(id) => Err(ModelError::Encode {
                start: start_of(text),
                message: format!(
                    "the tokenizer gives the token {id}, but the model has only {}",
                    self.vocab_size
                ),
            }),
            None => Ok(ids),
        }
    }

    /// As [`Self::encode`], with the part of the text that each token stands for, in bytes.
    ///
    /// # Errors
    /// As [`Self::encode`].
    pub fn encode_parts(&self, text: &str) -> Result<Vec<(u32, Range<usize>)>, ModelError> {
        let failed = |message| ModelError::Encode {
            start: start_of(text),
            message,
        };
        let input = input(text, None)?;
        let encoding = guarded(|| self.tokenizer.encode(input, false)).map_err(failed)?;
        let parts = encoding.get_offsets().iter();
        let parts = parts.map(|(start, end)| *start..*end);
        let ids = self.within_vocabulary(text, encoding.get_ids())?;
        Ok(ids.iter().copied().zip(parts).collect())
    }

    /// The tokenizer itself, which may add special tokens.
    pub(crate) fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// The special tokens by their purpose (`bos_token`, `eos_token`, ...), as the model's folder names them.
    pub fn special_tokens(&self) -> impl Iterator<Item = (&str, &str)> {
        self.names.iter()
    }

    /// The token whose text this is, if the vocabulary has it.
    pub fn token(&self, text: &str) -> Option<u32> {
        self.tokenizer.token_to_id(text)
    }

    /// The text that the tokens `new` add to the text of the tokens `before` them, without special tokens: the text of
    /// `before` followed by the result is the text of all tokens. White space is kept, also at both ends. Decoding the
    /// new tokens alone can give a different text: some decoders remove a space at the beginning of a text, and a token
    /// can hold the last bytes of a character whose first bytes are in the token before.
    ///
    /// # Errors
    /// When the tokenizer rejects the tokens.
    pub fn decode_after(&self, before: &[u32], new: &[u32]) -> Result<String, ModelError> {
        let (start, whole) = (self.decode(before)?, self.decode(&[before, new].concat())?);
        // A character that was incomplete before is returned as a whole with the token that completes it.
        let complete = start.trim_end_matches(char::REPLACEMENT_CHARACTER);
        let added = whole
            .strip_prefix(start.as_str())
            .or_else(|| whole.strip_prefix(complete));
        match added {
            Some(added) => Ok(added.to_string()),
            None => self.decode(new),
        }
    }

    /// The text of tokens, with that of special tokens. Invalid UTF-8 becomes `�`.
    ///
    /// # Errors
    /// When the tokenizer rejects the tokens.
    pub fn decode_all(&self, ids: &[u32]) -> Result<String, ModelError> {
        self.decoded(ids, false)
    }

    fn decoded(&self, ids: &[u32], skip_special: bool) -> Result<String, ModelError> {
        guarded(|| self.tokenizer.decode(ids, skip_special)).map_err(|message| ModelError::Encode {
            start: format!("{ids:?}"),
            message,
        })
    }

    /// The text of tokens, without special tokens. Invalid UTF-8 becomes `�`.
    ///
    /// # Errors
    /// When the tokenizer rejects the tokens.
    pub fn decode(&self, ids: &[u32]) -> Result<String, ModelError> {
        let text = self.decoded(ids, true)?;
        Ok(if self.cleans_up {
            cleaned_up(text)
        } else {
            text
        })
    }
}

/// Removes the spaces before punctuation and English contractions, like transformers' `clean_up_tokenization`.
fn cleaned_up(text: String) -> String {
    let pairs = [
        (" .", "."),
        (" ?", "?"),
        (" !", "!"),
        (" ,", ","),
        (" ' ", "'"),
        (" n't", "n't"),
        (" 'm", "'m"),
        (" 's", "'s"),
        (" 've", "'ve"),
        (" 're", "'re"),
    ];
    pairs
        .into_iter()
        .fold(text, |text, (spaced, joined)| text.replace(spaced, joined))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::{Value, json};

    use super::*;
    use crate::families::causal::CausalConfig;
    use crate::text::vocabulary::train_causal_tokenizer;

    fn byte_level() -> CausalText {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../assets/tiny-gpt2");
        let config = CausalConfig::from_folder(Path::new(folder)).unwrap();
        CausalText::from_folder(Path::new(folder), &config).unwrap()
    }

    /// A tokenizer of whole words, whose ids are their positions in `words`, with this decoder.
    fn of_words(words: &[&str], decoder: &Value) -> CausalText {
        let vocabulary: serde_json::Map<String, Value> = words
            .iter()
            .enumerate()
            .map(|(id, word)| (word.to_string(), json!(id)))
            .collect();
        let text = json!({
            "version": "1.0", "truncation": null, "padding": null, "normalizer": null,
            "added_tokens": [], "pre_tokenizer": null, "post_processor": null, "decoder": decoder,
            "model": { "type": "WordLevel", "vocab": vocabulary, "unk_token": words[0] },
        });
        let tokenizer = Tokenizer::from_bytes(text.to_string().as_bytes()).unwrap();
        CausalText::new(PathBuf::from("tokenizer.json"), tokenizer, words.len()).unwrap()
    }

    #[test]
    fn added_text_keeps_its_white_space() {
        let text = byte_level();
        for (before, new) in [
            ("The Black Ravens play", " football and"),
            ("The li", "brary"),
            ("The library", ", the Green Tower"),
            ("The Black Ravens ", "opera"),
            ("A", "\n\nB\n"),
            ("A", "  \t two  "),
            ("A\n", " "),
            (" ", " "),
            ("", " football "),
            ("é", "ü "),
            ("a\u{fffd}", "b"),
            ("A", ""),
        ] {
            let [start, rest] = [before, new].map(|text_of| text.encode(text_of).unwrap());
            assert_eq!(text.decode_after(&start, &rest).unwrap(), new, "{before:?}");
        }
        // Special tokens are skipped, both in the prompt and in the continuation.
        let [start, rest] = ["The li", "brary"].map(|part| text.encode(part).unwrap());
        let start = [vec![0], start].concat();
        let rest = [rest.clone(), vec![0], rest].concat();
        assert_eq!(text.decode_after(&start, &rest).unwrap(), "brarybrary");
    }

    #[test]
    fn a_character_is_added_with_the_token_that_completes_it() {
        let text = byte_level();
        for whole in ["é", "aé😀 b", "😀", "你好", "x\u{10ffff}"] {
            let ids = text.encode(whole).unwrap();
            assert!(ids.len() > 1, "{whole}");
            for at in 0..=ids.len() {
                let (before, new) = ids.split_at(at);
                let before_it = text.decode(before).unwrap();
                let complete = before_it.trim_end_matches(char::REPLACEMENT_CHARACTER);
                let added = text.decode_after(before, new).unwrap();
                if new.is_empty() {
                    assert_eq!(added, "", "{whole}");
                } else {
                    assert_eq!(format!("{complete}{added}"), whole, "{at}");
                }
            }
        }
        // A character that stays incomplete becomes `�`, as in transformers 5.24.
        let ids = text.encode("😀").unwrap();
        let start = text.encode("a").unwrap();
        assert_eq!(text.decode_after(&start, &ids[..1]).unwrap(), "\u{fffd}");
    }

    /// The expected values are `tokenizer.decode(all)[len(tokenizer.decode(before)):]` of tokenizers 0.23.
    #[test]
    fn decoding_new_tokens_alone_can_give_another_text() {
        let metaspace = json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true});
        let text = of_words(&["▁The", "▁li", "brary", "▁"], &metaspace);
        assert_eq!(text.decode(&[1]).unwrap(), "li");
        assert_eq!(text.decode_after(&[0], &[1]).unwrap(), " li");
        assert_eq!(text.decode_after(&[0, 1], &[2]).unwrap(), "brary");
        assert_eq!(text.decode_after(&[0], &[3]).unwrap(), " ");
        assert_eq!(text.decode_after(&[], &[0]).unwrap(), "The");

        let pieces = json!({"type": "WordPiece", "prefix": "##", "cleanup": true});
        let text = of_words(&["the", "play", "##ing", ".", "do", "n't"], &pieces);
        assert_eq!(text.decode(&[2]).unwrap(), "##ing");
        assert_eq!(text.decode_after(&[0, 1], &[2]).unwrap(), "ing");
        assert_eq!(text.decode_after(&[0], &[1, 2]).unwrap(), " playing");
        assert_eq!(text.decode_after(&[1], &[3]).unwrap(), ".");
        assert_eq!(text.decode_after(&[4], &[5]).unwrap(), "n't");
    }

    fn text() -> CausalText {
        let lines = (0..200).map(|n| format!("the cat number {n} sat on the other mat"));
        let tokenizer = train_causal_tokenizer(lines, 300).unwrap();
        let size = tokenizer.get_vocab_size(true);
        CausalText::new(PathBuf::from("tokenizer.json"), tokenizer, size).unwrap()
    }

    #[test]
    fn tokenising_one_end_of_a_long_text_gives_the_tokens_of_the_whole() {
        let text = text();
        let mut long = String::new();
        for n in 0..4000 {
            long.push_str(&format!(
                "{}the <|endoftext|>cat's mat, {n}  é\n",
                "x".repeat(n % 7)
            ));
        }
        let whole = text.encode(&long).unwrap();
        for most in [0, 1, 2, 17, 300] {
            let first = text.encode_first(&long, most).unwrap();
            assert!(first.len() > most && first.len() < whole.len() / 2);
            assert_eq!(first, whole[..first.len()]);
            let last = text.encode_last(&long, most).unwrap();
            assert!(last.len() > most && last.len() < whole.len() / 2);
            assert_eq!(last, whole[whole.len() - last.len()..]);
        }
        for short in ["", "the cat", "<|endoftext|>"] {
            let all = text.encode(short).unwrap();
            assert_eq!(text.encode_first(short, 5).unwrap(), all);
            assert_eq!(text.encode_last(short, 5).unwrap(), all);
        }
        assert_eq!(text.encode_last(&long, whole.len()).unwrap(), whole);
    }

    /// The expected text is that of transformers 5.24's `clean_up_tokenization`.
    #[test]
    fn spaces_before_punctuation_are_removed() {
        let text = "Who ? I 'm here , he 's not , they do n't . ' we 've";
        let expected = "Who? I'm here, he's not, they don't.'we've";
        assert_eq!(cleaned_up(text.to_string()), expected);
    }
}
