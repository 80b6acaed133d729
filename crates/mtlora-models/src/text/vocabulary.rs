//! Trains a tokenizer on text, for a model that is trained from scratch.

use std::collections::HashSet;
use std::path::Path;

use serde_json::{Value, json};
use tokenizers::models::TrainerWrapper;
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::processors::roberta::RobertaProcessing;
use tokenizers::{AddedToken, Tokenizer};

use crate::error::ModelError;
use crate::files::names::TOKENIZER_FILE;
use crate::files::save::write_atomically;

/// RoBERTa's special tokens; a token's index is its id.
pub const SPECIAL_TOKENS: [&str; 5] = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"];
/// GPT-2's special token, which separates texts.
pub const END_OF_TEXT: &str = "<|endoftext|>";
/// The number of byte tokens: every byte has one.
const BYTES: usize = 256;
/// The minimum number of occurrences of a pair of tokens that is merged into one.
const MIN_FREQUENCY: u64 = 2;

/// Trains a byte-level byte-pair encoding with RoBERTa's special tokens and post-processor on lines of text. The same
/// lines and size give the same tokenizer. The vocabulary has `vocab_size` tokens, or fewer if the text has too few
/// repeated pairs of tokens: take the model's `vocab_size` from the result, `get_vocab_size(true)`.
///
/// # Errors
/// When `vocab_size` is below 261 (the special tokens and one token for each byte), or the library fails.
pub fn train_tokenizer<S: AsRef<str> + Send>(
    lines: impl Iterator<Item = S> + Send,
    vocab_size: usize,
) -> Result<Tokenizer, ModelError> {
    let [begin, pad, end, unknown, mask] = SPECIAL_TOKENS;
    let special = |token: &str| AddedToken::from(token, true);
    let special_tokens = vec![
        special(begin),
        special(pad),
        special(end),
        special(unknown),
        // The mask token replaces a word together with the space before it.
        special(mask).lstrip(true),
    ];
    let mut tokenizer = train(lines, vocab_size, special_tokens, Some(unknown))?;
    tokenizer.with_post_processor(Some(
        RobertaProcessing::new((end.to_string(), 2), (begin.to_string(), 0))
            .add_prefix_space(false),
    ));
    Ok(tokenizer)
}

/// Trains a byte-level byte-pair encoding like GPT-2's, with [`END_OF_TEXT`] as token 0 and its only special token, and
/// without special tokens around a text. Otherwise it works like [`train_tokenizer`].
///
/// # Errors
/// When `vocab_size` is below 257, or the library fails.
pub fn train_causal_tokenizer<S: AsRef<str> + Send>(
    lines: impl Iterator<Item = S> + Send,
    vocab_size: usize,
) -> Result<Tokenizer, ModelError> {
    let special_tokens = vec![AddedToken::from(END_OF_TEXT, true)];
    train(lines, vocab_size, special_tokens, None)
}

fn train<S: AsRef<str> + Send>(
    lines: impl Iterator<Item = S> + Send,
    vocab_size: usize,
    special_tokens: Vec<AddedToken>,
    unknown: Option<&str>,
) -> Result<Tokenizer, ModelError> {
    let special = special_tokens.len();
    let least = special + BYTES;
    if vocab_size < least {
        return Err(ModelError::Training {
            message: format!(
                "a vocabulary of {vocab_size} tokens is too small: {special} special tokens and {BYTES} bytes need \
                 {least}"
            ),
        });
    }
    let failed = |error: tokenizers::Error| ModelError::Training {
        message: error.to_string(),
    };
    let mut trainer: TrainerWrapper = BpeTrainer::builder()
        .show_progress(false)
        .vocab_size(vocab_size)
        .min_frequency(MIN_FREQUENCY)
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect::<HashSet<_>>())
        .special_tokens(special_tokens)
        .build()
        .into();
    let mut model = BPE::builder();
    if let Some(unknown) = unknown {
        model = model.unk_token(unknown.to_string());
    }
    let mut tokenizer = Tokenizer::new(model.build().map_err(failed)?);
    tokenizer
        .with_pre_tokenizer(Some(ByteLevel::default().add_prefix_space(false)))
        .with_decoder(Some(ByteLevel::default()))
        .train(&mut trainer, lines)
        .map_err(failed)?;
    Ok(tokenizer)
}

/// Writes `tokenizer.json` and the `tokenizer_config.json` that Python's tools need to open it, each atomically.
/// `max_tokens` is the longest sequence that the model accepts.
///
/// # Errors
/// When the operating system reports an error.
pub fn write_tokenizer(
    tokenizer: &Tokenizer,
    folder: &Path,
    max_tokens: usize,
) -> Result<(), ModelError> {
    let [begin, pad, end, unknown, mask] = SPECIAL_TOKENS;
    let settings = json!({
        "bos_token": begin,
        "cls_token": begin,
        "eos_token": end,
        "mask_token": mask,
        "model_input_names": ["input_ids", "attention_mask"],
        "model_max_length": max_tokens,
        "pad_token": pad,
        "sep_token": end,
        "tokenizer_class": "PreTrainedTokenizerFast",
        "unk_token": unknown,
    });
    write(tokenizer, &settings, folder)
}

/// Like [`write_tokenizer`], for a tokenizer of [`train_causal_tokenizer`].
///
/// # Errors
/// When the operating system reports an error.
pub fn write_causal_tokenizer(
    tokenizer: &Tokenizer,
    folder: &Path,
    max_tokens: usize,
) -> Result<(), ModelError> {
    let settings = json!({
        "bos_token": END_OF_TEXT,
        "eos_token": END_OF_TEXT,
        "model_input_names": ["input_ids", "attention_mask"],
        "model_max_length": max_tokens,
        "tokenizer_class": "PreTrainedTokenizerFast",
    });
    write(tokenizer, &settings, folder)
}

fn write(tokenizer: &Tokenizer, settings: &Value, folder: &Path) -> Result<(), ModelError> {
    let text = tokenizer
        .to_string(true)
        .map_err(|error| ModelError::Training {
            message: error.to_string(),
        })?;
    write_atomically(&folder.join(TOKENIZER_FILE), text.as_bytes())?;
    write_atomically(
        &folder.join("tokenizer_config.json"),
        format!("{settings:#}\n").as_bytes(),
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    /// The special tokens and the bytes.
    const MIN: usize = SPECIAL_TOKENS.len() + BYTES;

    /// Lines with words that repeat and share parts, and with pairs that occur equally often.
    fn lines() -> impl Iterator<Item = String> + Send {
        let parts = [
            "lo", "new", "est", "wid", "er", "un", "re", "ab", "c", "bc", "abc",
        ];
        (0u32..600).map(move |n| {
            // Knuth's multiplicative hash chooses the same parts in every run.
            let part = |k: u32| {
                let hash = (8 * n + k).wrapping_mul(2_654_435_761) >> 16;
                parts[hash as usize % parts.len()]
            };
            format!(
                "{}{} {}{}{} é{}",
                part(0),
                part(1),
                part(2),
                part(3),
                part(4),
                n % 13
            )
        })
    }

    #[test]
    fn training_twice_gives_the_same_bytes() {
        let train = || {
            train_tokenizer(lines(), 500)
                .unwrap()
                .to_string(true)
                .unwrap()
        };
        let first = train();
        for _ in 0..5 {
            assert!(train() == first);
        }
    }

    #[test]
    fn special_tokens_have_robertas_ids_and_positions() {
        let tokenizer = train_tokenizer(lines(), 340).unwrap();
        for (id, token) in SPECIAL_TOKENS.into_iter().enumerate() {
            assert_eq!(tokenizer.token_to_id(token), Some(id as u32));
        }
        assert_eq!(tokenizer.get_vocab_size(true), 340);
        let ids = |text| {
            tokenizer
                .encode_fast(text, true)
                .unwrap()
                .get_ids()
                .to_vec()
        };
        let one = ids("lower");
        assert_eq!((one[0], one[one.len() - 1]), (0, 2));
        let pair = tokenizer.encode_fast(("newest", "lower"), true).unwrap();
        let newest = ids("newest");
        // <s> A </s></s> B </s>
        let expected = [&newest[..], &[2], &one[1..]].concat();
        assert_eq!(pair.get_ids(), expected);
        assert!(ids("new <mask>").contains(&4));
        assert!(!ids("new <mask>").contains(&tokenizer.token_to_id("Ġ").unwrap()));
    }

    #[test]
    fn text_with_few_pairs_gives_a_smaller_vocabulary_and_too_small_a_size_is_refused() {
        let tokenizer = train_tokenizer(["ab ab"].into_iter(), 1000).unwrap();
        assert_eq!(tokenizer.get_vocab_size(true), MIN + 1);
        let none = train_tokenizer(std::iter::empty::<String>(), MIN).unwrap();
        assert_eq!(none.get_vocab_size(true), MIN);
        let error = train_tokenizer(lines(), MIN - 1).unwrap_err();
        assert!(error.to_string().contains("too small"), "{error}");
    }

    #[test]
    fn a_written_tokenizer_is_read_back_unchanged() {
        let folder = tempfile::tempdir().unwrap();
        let tokenizer = train_tokenizer(lines(), 300).unwrap();
        write_tokenizer(&tokenizer, folder.path(), 64).unwrap();
        let read = Tokenizer::from_file(folder.path().join(TOKENIZER_FILE)).unwrap();
        assert_eq!(
            read.to_string(false).unwrap(),
            tokenizer.to_string(false).unwrap()
        );
        assert!(folder.path().join("tokenizer_config.json").exists());
    }

    #[test]
    fn a_causal_tokenizer_has_one_special_token_and_no_frame() {
        let tokenizer = train_causal_tokenizer(lines(), 300).unwrap();
        assert_eq!(tokenizer.token_to_id(END_OF_TEXT), Some(0));
        let encoding = tokenizer.encode_fast("the mat", true).unwrap();
        assert!(!encoding.get_ids().contains(&0));
        assert_eq!(
            tokenizer.decode(encoding.get_ids(), false).unwrap(),
            "the mat"
        );
        let error = train_causal_tokenizer(lines(), 256).unwrap_err();
        assert!(error.to_string().contains("need 257"));
        let folder = tempfile::tempdir().unwrap();
        write_causal_tokenizer(&tokenizer, folder.path(), 64).unwrap();
        assert!(Tokenizer::from_file(folder.path().join("tokenizer.json")).is_ok());
    }

    proptest! {
        #[test]
        fn any_text_is_encoded_without_loss(text in "\\PC*") {
            thread_local!(static TOKENIZER: Tokenizer = train_tokenizer(lines(), 300).unwrap());
            TOKENIZER.with(|tokenizer| {
                let encoding = tokenizer.encode_fast(text.as_str(), false).unwrap();
                prop_assert!(!encoding.get_ids().contains(&3), "<unk> in {:?}", text);
                prop_assert_eq!(tokenizer.decode(encoding.get_ids(), false).unwrap(), text);
                Ok(())
            })?;
        }
    }
}
