//! Turns text into token ids with the model's own tokenizer.

use std::path::{Path, PathBuf};

use serde_json::Value;
use tokenizers::models::ModelWrapper;
use tokenizers::{
    EncodeInput, Encoding, PostProcessor, Tokenizer, TruncationDirection, TruncationParams,
    truncate_encodings,
};

use crate::error::{ModelError, start_of};
use crate::families::text_config::TextConfig;
use crate::files::read::read_bounded;
use crate::text::long_text::{Cutter, End, MAX_WHOLE};
use crate::text::tokenizer::{
    FolderTokenizer, MAX_TOKENIZER_BYTES, TokenNames, TokenizerOf, TruncationSide, check_merges,
    check_template, guarded,
};

/// The bytes of text that are tokenised at a time. The tokenizer's output takes about twenty times their memory.
const BATCH_BYTES: usize = 8 << 20;

/// A sequence of tokens as the model reads it, with special tokens and without padding.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tokens {
    /// The row of each token in the word embedding, below the configuration's `vocab_size`.
    pub ids: Vec<u32>,
    /// The row of each token in the token-type embedding: 0 for the first text, and 1 for the second if the model
    /// distinguishes them.
    pub type_ids: Vec<u32>,
}

impl Tokens {
    /// The number of tokens.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether there are no tokens, which is never the case for the results of a [`TextEncoder`].
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }
}

/// A model's tokenizer, checked against the model's configuration.
#[derive(Clone, Debug)]
pub struct TextEncoder {
    tokenizer: Tokenizer,
    truncation: TruncationParams,
    vocab_size: usize,
    type_vocab_size: usize,
    max_length: usize,
    special: Vec<u32>,
    names: TokenNames,
    token_types: bool,
    cutter: Cutter,
    /// Which end of a long text is kept.
    kept: End,
}

/// The settings in a folder's files that affect texts, apart from the tokenizer itself.
#[derive(Default)]
struct TextSettings {
    truncation_side: Option<TruncationSide>,
    names: TokenNames,
    no_token_types: bool,
}

impl TextEncoder {
    /// Reads the tokenizer of a model folder, as `AutoTokenizer` of transformers 5.24 does: `tokenizer.json`, and if
    /// they exist `tokenizer_config.json`, `special_tokens_map.json` and `added_tokens.json`. Sequences are truncated
    /// to `max_length` tokens or to the number of the model's positions, whichever is less. The longer text of a pair
    /// is truncated first, on the side that the files name, or else on the right. Sequences are not padded, even if the
    /// files ask for it.
    ///
    /// # Errors
    /// When `tokenizer.json` is missing or invalid, when a setting is invalid, when the tokenizer adds no special
    /// tokens or its vocabulary does not match the configuration, or when `max_length` leaves no room for text.
    pub fn from_folder(
        folder: &Path,
        config: &dyn TextConfig,
        max_length: usize,
    ) -> Result<Self, ModelError> {
        let of = TokenizerOf {
            model_type: config.model_type(),
            tokenizer_class: config.tokenizer_class(),
            vocab_size: config.vocab_size(),
        };
        let read = FolderTokenizer::read(folder, of)?;
        let settings = TextSettings {
            truncation_side: read.truncation_side,
            names: read.names,
            no_token_types: !read.token_types,
        };
        Self::with_settings(read.path, read.tokenizer, settings, config, max_length)
    }

    /// Reads a `tokenizer.json` at any path, without the files next to it.
    ///
    /// # Errors
    /// As [`Self::from_folder`].
    pub fn from_file(
        path: &Path,
        config: &dyn TextConfig,
        max_length: usize,
    ) -> Result<Self, ModelError> {
        let bytes = read_bounded(path, MAX_TOKENIZER_BYTES)?;
        Self::from_bytes(path, &bytes, config, max_length)
    }

    /// Reads the bytes of a `tokenizer.json`; `path` is used only in messages.
    ///
    /// # Errors
    /// As [`Self::from_folder`].
    pub fn from_bytes(
        path: &Path,
        bytes: &[u8],
        config: &dyn TextConfig,
        max_length: usize,
    ) -> Result<Self, ModelError> {
        let value: Value =
            serde_json::from_slice(bytes).map_err(|error| ModelError::json(path, &error))?;
        check_merges(path, &value)?;
        check_template(path, value.get("post_processor"))?;
        drop(value);
        let refused = |message: String| ModelError::Tokenizer {
            path: path.to_path_buf(),
            message,
        };
        let tokenizer = guarded(|| Tokenizer::from_bytes(bytes)).map_err(refused)?;
        Self::new(path.to_path_buf(), tokenizer, config, max_length)
    }

    /// Checks and sets up a tokenizer that is in memory; `path` is used only in messages.
    ///
    /// # Errors
    /// As [`Self::from_folder`].
    pub fn new(
        path: PathBuf,
        tokenizer: Tokenizer,
        config: &dyn TextConfig,
        max_length: usize,
    ) -> Result<Self, ModelError> {
        Self::with_settings(path, tokenizer, TextSettings::default(), config, max_length)
    }

    fn with_settings(
        path: PathBuf,
        mut tokenizer: Tokenizer,
        settings: TextSettings,
        config: &dyn TextConfig,
        max_length: usize,
    ) -> Result<Self, ModelError> {
        let refused = |message: String| ModelError::Tokenizer {
            path: path.clone(),
            message,
        };
        let of_file = tokenizer
            .get_truncation()
            .map_or(TruncationDirection::Right, |truncation| {
                truncation.direction
            });
        let direction = match settings.truncation_side {
            Some(TruncationSide::Left) => TruncationDirection::Left,
            Some(TruncationSide::Right) => TruncationDirection::Right,
            None => of_file,
        };
        tokenizer.with_padding(None);
        guarded(|| tokenizer.with_truncation(None).map(|_| ())).map_err(refused)?;
        // BPE dropout skips merges at random, which would make every run different.
        let without_dropout = match tokenizer.get_model() {
            ModelWrapper::BPE(bpe) if bpe.dropout.is_some() => Some(bpe.clone()),
            _ => None,
        };
        if let Some(mut bpe) = without_dropout {
            bpe.dropout = None;
            tokenizer.with_model(bpe);
        }

        let frame = guarded(|| tokenizer.encode_fast("", true)).map_err(refused)?;
        let pair_frame = guarded(|| tokenizer.encode_fast(("", ""), true)).map_err(refused)?;
        let frames = [frame.get_ids(), pair_frame.get_ids()];
        let in_vocabulary = tokenizer.get_vocab(true).into_values();
        let largest = in_vocabulary
            .chain(frames.concat())
            .max()
            .map_or(0, |id| id as usize);
        let size = largest.saturating_add(1);
        if size > config.vocab_size() || !is_padded(size, config.vocab_size()) {
            return Err(ModelError::VocabularySize {
                path,
                tokenizer: size,
                config: config.vocab_size(),
            });
        }
        if frames.iter().any(|ids| ids.len() < 2) {
            return Err(refused(
                "it adds no special tokens around a text, such as <s> and </s>, which the model expects; take the \
                 tokenizer.json of this model, with its post_processor"
                    .to_string(),
            ));
        }

        let special_tokens = tokenizer
            .get_post_processor()
            .map_or(0, |post| post.added_tokens(true))
            .max(pair_frame.get_ids().len());
        // A pair needs at least one token of each text.
        let least = special_tokens.saturating_add(2);
        let max_length = max_length.min(config.max_tokens());
        if max_length < least {
            return Err(ModelError::MaxLength {
                asked: max_length,
                special: special_tokens,
                least,
            });
        }
        let truncation = TruncationParams {
            max_length,
            direction,
            ..TruncationParams::default()
        };
        // The library stops tokenising a text after `max_length` tokens, and then truncates a pair as if the texts were
        // no longer than that. Truncating here, with the full lengths, gives the same split as transformers.
        guarded(|| tokenizer.with_truncation(None).map(|_| ())).map_err(refused)?;

        let mut special: Vec<u32> = tokenizer
            .get_added_tokens_decoder()
            .into_iter()
            .filter(|(_, token)| token.special)
            .map(|(id, _)| id)
            .collect();
        special.sort_unstable();
        Ok(Self {
            cutter: Cutter::of(&tokenizer),
            kept: match direction {
                TruncationDirection::Left => End::Last,
                TruncationDirection::Right => End::First,
            },
            tokenizer,
            truncation,
            vocab_size: config.vocab_size(),
            type_vocab_size: config.token_types(),
            max_length,
            special,
            names: settings.names,
            token_types: !settings.no_token_types,
        })
    }

    /// The tokens of one text, or of a pair of texts as one sequence. If the tokenizer splits words at spaces, only the
    /// part of a long text that is kept is tokenised. The tokens are the same as if the whole text were tokenised and
    /// truncated.
    ///
    /// # Errors
    /// When more than 16 MiB would have to be tokenised together (both texts of a pair count), or when the tokenizer
    /// rejects the text.
    pub fn encode(&self, text: &str, pair: Option<&str>) -> Result<Tokens, ModelError> {
        let mut bytes = self.enough();
        loop {
            let part = self.part(text, pair, bytes);
            let tokens = self.encode_whole(part, pair)?;
            // This is either the whole text or a part that is long enough to yield every token that is kept.
            if part.len() == text.len() || tokens.len() == self.max_length {
                return Ok(tokens);
            }
            bytes = bytes.saturating_mul(8);
        }
    }

    /// Encodes many texts or pairs like [`Self::encode`], on all processors; the results are in the order of the texts.
    ///
    /// # Errors
    /// [`ModelError::OneOf`] for the first text that fails.
    pub fn encode_batch(&self, rows: &[(&str, Option<&str>)]) -> Result<Vec<Tokens>, ModelError> {
        let mut all = Vec::with_capacity(rows.len());
        while all.len() < rows.len() {
            let mut bytes = 0;
            let rest = rows.get(all.len()..).unwrap_or_default();
            let together: Vec<(&str, Option<&str>)> = rest
                .iter()
                .map(|&(text, pair)| (self.part(text, pair, self.enough()), pair))
                .take_while(|(part, pair)| {
                    let is_first = bytes == 0;
                    bytes += (part.len() + pair.map_or(0, str::len)).max(1);
                    is_first || bytes <= BATCH_BYTES
                })
                .collect();
            let done = all.len();
            match self.encode_together(&together) {
                Ok(tokens) => all.extend(tokens),
                // The library does not say which text of the batch failed.
                Err(_) => {
                    for (index, &(text, pair)) in rest.iter().take(together.len()).enumerate() {
                        let tokens = self.encode(text, pair);
                        all.push(tokens.map_err(|source| ModelError::OneOf {
                            number: done + index + 1,
                            source: Box::new(source),
                        })?);
                    }
                }
            }
            // Encode a long text again if the part of it did not yield enough tokens.
            for (index, (&(text, pair), (part, _))) in rest.iter().zip(&together).enumerate() {
                let number = done + index;
                let too_little =
                    |tokens: &Tokens| part.len() < text.len() && tokens.len() < self.max_length;
                if let Some(tokens) = all.get_mut(number).filter(|tokens| too_little(tokens)) {
                    *tokens = self
                        .encode(text, pair)
                        .map_err(|source| ModelError::OneOf {
                            number: number + 1,
                            source: Box::new(source),
                        })?;
                }
            }
        }
        Ok(all)
    }

    /// How many bytes of an ordinary text contain all tokens that are kept.
    fn enough(&self) -> usize {
        self.max_length.saturating_mul(16).max(1 << 12)
    }

    /// The part of a text that must be tokenised if `bytes` of it contain every token that is kept. A pair is always
    /// tokenised whole, because how it is truncated depends on the lengths of both texts.
    fn part<'a>(&self, text: &'a str, pair: Option<&str>, bytes: usize) -> &'a str {
        match pair {
            None => self.cutter.part(text, bytes, self.kept),
            Some(_) => text,
        }
    }

    fn encode_whole(&self, text: &str, pair: Option<&str>) -> Result<Tokens, ModelError> {
        let input = input(text, pair)?;
        let failed = |message| ModelError::Encode {
            start: start_of(text),
            message,
        };
        let encoded = guarded(|| match input {
            EncodeInput::Single(text) => {
                self.framed(self.tokenizer.encode_fast(text, false)?, None)
            }
            EncodeInput::Dual(text, pair) => self.framed(
                self.tokenizer.encode_fast(text, false)?,
                Some(self.tokenizer.encode_fast(pair, false)?),
            ),
        });
        encoded
            .and_then(|encoding| self.tokens(&encoding))
            .map_err(failed)
    }

    /// The tokens of a text or of both texts of a pair, truncated to the maximum length and framed with special tokens.
    fn framed(&self, text: Encoding, pair: Option<Encoding>) -> tokenizers::Result<Encoding> {
        let special = self
            .tokenizer
            .get_post_processor()
            .map_or(0, |post| post.added_tokens(pair.is_some()));
        let truncation = TruncationParams {
            max_length: self.max_length.saturating_sub(special),
            ..self.truncation.clone()
        };
        let (text, pair) = truncate_encodings(text, pair, &truncation)?;
        self.tokenizer.post_process(text, pair, true)
    }

    fn encode_together(&self, rows: &[(&str, Option<&str>)]) -> Result<Vec<Tokens>, String> {
        let texts = rows.iter().flat_map(|&(text, pair)| [Some(text), pair]);
        let texts = texts
            .flatten()
            .map(|text| input(text, None))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| error.to_string())?;
        let encodings = guarded(|| self.tokenizer.encode_batch_fast(texts, false))?;
        let mut encodings = encodings.into_iter();
        let mut all = Vec::with_capacity(rows.len());
        for (_, pair) in rows {
            let text = encodings.next().unwrap_or_default();
            let pair = pair.map(|_| encodings.next().unwrap_or_default());
            all.push(self.tokens(&guarded(|| self.framed(text, pair))?)?);
        }
        Ok(all)
    }

    fn tokens(&self, encoding: &Encoding) -> Result<Tokens, String> {
        let ids = encoding.get_ids();
        if let Some(id) = ids.iter().find(|&&id| id as usize >= self.vocab_size) {
            return Err(format!(
                "the tokenizer gives the token {id}, but the model has only {}",
                self.vocab_size
            ));
        }
        if ids.len() > self.max_length {
            return Err(format!(
                "the tokenizer gives {} tokens instead of the {} that were asked for, because its special tokens are \
                 inconsistent; download it again",
                ids.len(),
                self.max_length
            ));
        }
        let largest = u32::try_from(self.type_vocab_size.saturating_sub(1)).unwrap_or(u32::MAX);
        // Without token type ids, a model treats all tokens as type 0.
        let largest = if self.token_types { largest } else { 0 };
        let types = encoding.get_type_ids().iter();
        Ok(Tokens {
            ids: ids.to_vec(),
            type_ids: types.map(|&id| id.min(largest)).collect(),
        })
    }

    /// The maximum length of a sequence in tokens, special tokens included.
    pub fn max_length(&self) -> usize {
        self.max_length
    }

    /// The number of token ids that the model has. Random tokens are drawn from these ids.
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// The token that replaces a masked token: the folder's `mask_token`, else `<mask>` or `[MASK]`.
    pub fn mask_token_id(&self) -> Option<u32> {
        self.named(&["mask_token"], ["<mask>", "[MASK]"])
    }

    /// The token at the beginning of a sequence, whose hidden state a classifier reads: the folder's `cls_token` or
    /// `bos_token`, else `<s>` or `[CLS]`.
    pub fn bos_token_id(&self) -> Option<u32> {
        self.named(&["cls_token", "bos_token"], ["<s>", "[CLS]"])
    }

    /// The token at the end of a text: the folder's `sep_token` or `eos_token`, else `</s>` or `[SEP]`.
    pub fn eos_token_id(&self) -> Option<u32> {
        self.named(&["sep_token", "eos_token"], ["</s>", "[SEP]"])
    }

    /// The padding token: the folder's `pad_token`, else `<pad>` or `[PAD]`.
    pub fn pad_token_id(&self) -> Option<u32> {
        self.named(&["pad_token"], ["<pad>", "[PAD]"])
    }

    /// All special tokens, sorted. Masked-language-model training neither masks these nor draws them as random tokens.
    pub fn special_token_ids(&self) -> &[u32] {
        &self.special
    }

    /// The tokenizer itself.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// The token that the folder names for one of these purposes, else the first of the common names that is in the
    /// vocabulary.
    fn named(&self, purposes: &[&str], usual: [&str; 2]) -> Option<u32> {
        let named = purposes.iter().find_map(|purpose| self.names.get(purpose));
        let names = named.into_iter().chain(usual);
        let mut ids = names.map(|name| self.tokenizer.token_to_id(name));
        ids.find_map(|id| id)
    }
}

/// Tokenises one text or a pair, if it is not too long.
pub(crate) fn input<'a>(
    text: &'a str,
    pair: Option<&'a str>,
) -> Result<EncodeInput<'a>, ModelError> {
    if let Some(long) = [Some(text), pair]
        .into_iter()
        .flatten()
        .find(|text| text.len() > MAX_WHOLE)
    {
        return Err(ModelError::TextTooLong {
            bytes: long.len(),
            limit: MAX_WHOLE,
            start: start_of(long),
        });
    }
    Ok(match pair {
        Some(pair) => (text, pair).into(),
        None => text.into(),
    })
}

/// Whether a model with `config` embedding rows can belong to a tokenizer with `size` tokens: the numbers are equal, or
/// the model has a few more rows because its embedding was rounded up for the hardware. Vocabularies as large as Qwen's have
/// up to 418 more. With any other number, the model belongs to another tokenizer, and the ids would be valid but
/// meaningless.
pub(crate) fn is_padded(size: usize, config: usize) -> bool {
    let rounded = config.is_multiple_of(8) || config.is_multiple_of(100);
    let more = config.saturating_sub(size);
    let is_large = config >= 100_000 && config.is_multiple_of(128);
    config == size || (rounded && more < 128) || (is_large && more < 512)
}

#[cfg(test)]
mod tests;
