use std::path::{Path, PathBuf};

use tokenizers::Tokenizer;

use crate::error::{ModelError, start_of};
use crate::families::text_config::TextConfig;
use crate::files::read::read_bounded;
use crate::text::encoder::{input, is_padded};
use crate::text::long_text::{Cutter, End};
use crate::text::tokenizer::{FolderTokenizer, TokenizerOf};
use crate::text::tokenizer::{MAX_TOKENIZER_BYTES, check_merges, check_template, guarded};

/// Reads the tokenizer of a folder, as [`CausalText::from_folder`] does, for a model that is yet to be made.
///
/// # Errors
/// No `tokenizer.json`, or one that is no tokenizer; a setting that cannot be.
pub fn read_tokenizer(folder: &Path) -> Result<Tokenizer, ModelError> {
    let of = TokenizerOf {
        model_type: "gpt2",
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

/// A causal model's tokenizer: text to tokens and back, without special tokens around it.
#[derive(Clone, Debug)]
pub struct CausalText {
    tokenizer: Tokenizer,
    vocab_size: usize,
    cutter: Cutter,
    cleans_up: bool,
}

impl CausalText {
    /// Reads the tokenizer of a model folder: `tokenizer.json`, and `tokenizer_config.json`, `special_tokens_map.json`
    /// and `added_tokens.json` where they are, as `AutoTokenizer` of transformers 5.24 does.
    ///
    /// # Errors
    /// No `tokenizer.json`, or one that is no tokenizer; a setting that cannot be; a vocabulary that is not the
    /// configuration's.
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
            ..text
        })
    }

    /// Reads a `tokenizer.json` that lies anywhere, as it is: no file beside it is read.
    ///
    /// # Errors
    /// As [`Self::from_folder`].
    pub fn from_file(path: &Path, config: &dyn TextConfig) -> Result<Self, ModelError> {
        let tokenizer = read_tokenizer_file(path)?;
        Self::new(path.to_path_buf(), tokenizer, config.vocab_size())
    }

    /// Checks and sets up a tokenizer that is in memory; `path` is for the messages.
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
        })
    }

    /// The tokens of a text if they are no more than `most`, else its first tokens, more than `most` of them. No more
    /// of a long text is tokenised than that takes, where the tokenizer's words end at spaces.
    ///
    /// # Errors
    /// As [`Self::encode`], for what must be tokenised together.
    pub fn encode_first(&self, text: &str, most: usize) -> Result<Vec<u32>, ModelError> {
        self.encode_end(text, most, End::First)
    }

    /// The same for the end of a text and its last tokens.
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

    /// The tokens of a text; none for an empty one. None are put around it, whatever the tokenizer's post-processor is.
    ///
    /// # Errors
    /// A text of more than 16 MiB, or one that the tokenizer refuses.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, ModelError> {
        let failed = |message| ModelError::Encode {
            start: start_of(text),
            message,
        };
        let input = input(text, None)?;
        let encoding = guarded(|| self.tokenizer.encode_fast(input, false)).map_err(failed)?;
        let ids = encoding.get_ids();
        match ids.iter().find(|id| **id as usize >= self.vocab_size) {
            Some(id) => Err(failed(format!(
                "the tokenizer gives the token {id}, but the model has only {}",
                self.vocab_size
            ))),
            None => Ok(ids.to_vec()),
        }
    }

    /// What `new` tokens add to the text of the tokens before them, special ones left out: with the text of `before`
    /// in front it is the text of all. White space stays, also at both ends.
    ///
    /// The new tokens alone can have another text: some tokenizers' decoders take a space off a text's beginning, and a
    /// token can hold the rest of a character whose first bytes are in the one before it.
    ///
    /// # Errors
    /// What the tokenizer refuses.
    pub fn decode_after(&self, before: &[u32], new: &[u32]) -> Result<String, ModelError> {
        let (start, whole) = (self.decode(before)?, self.decode(&[before, new].concat())?);
        // A character that was not complete before comes whole with what completes it.
        let complete = start.trim_end_matches(char::REPLACEMENT_CHARACTER);
        let added = whole
            .strip_prefix(start.as_str())
            .or_else(|| whole.strip_prefix(complete));
        match added {
            Some(added) => Ok(added.to_string()),
            None => self.decode(new),
        }
    }

    /// The text of tokens, special ones left out. Bytes that are no UTF-8 become `�`.
    ///
    /// # Errors
    /// What the tokenizer refuses.
    pub fn decode(&self, ids: &[u32]) -> Result<String, ModelError> {
        let decoded = guarded(|| self.tokenizer.decode(ids, true));
        let text = decoded.map_err(|message| ModelError::Encode {
            start: format!("{ids:?}"),
            message,
        })?;
        Ok(if self.cleans_up {
            cleaned_up(text)
        } else {
            text
        })
    }
}

/// What transformers calls `clean_up_tokenization`: no space before punctuation and English endings.
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

    /// A tokenizer of whole words, numbered as they come here, with this decoder.
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
    fn what_is_added_has_its_white_space() {
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
    fn a_character_comes_whole_with_the_token_that_completes_it() {
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
        // One that stays incomplete is shown as such, as transformers 5.24 shows it.
        let ids = text.encode("😀").unwrap();
        let start = text.encode("a").unwrap();
        assert_eq!(text.decode_after(&start, &ids[..1]).unwrap(), "\u{fffd}");
    }

    /// Values: `tokenizer.decode(all)[len(tokenizer.decode(before)):]` with tokenizers 0.23.
    #[test]
    fn new_tokens_alone_can_have_another_text() {
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
    fn an_end_of_a_long_text_has_the_tokens_of_the_whole() {
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

    /// transformers 5.24's `clean_up_tokenization`.
    #[test]
    fn spaces_before_punctuation_are_removed() {
        let text = "Who ? I 'm here , he 's not , they do n't . ' we 've";
        let expected = "Who? I'm here, he's not, they don't.'we've";
        assert_eq!(cleaned_up(text.to_string()), expected);
    }
}
