//! From text to token ids, as the model's own `tokenizer.json` says.

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

/// Bytes of text that are tokenised at a time: what comes out of the tokenizer takes some twenty times their memory.
const BATCH_BYTES: usize = 8 << 20;

/// A sequence of tokens as the model reads it, with its special tokens and without padding.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tokens {
    /// Rows of the word embedding, each below the configuration's `vocab_size`.
    pub ids: Vec<u32>,
    /// Rows of the token-type embedding: 0 for the first text, 1 for the second where the model tells them apart.
    pub type_ids: Vec<u32>,
}

impl Tokens {
    /// The number of tokens.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether there is no token; never so for what a [`TextEncoder`] returns.
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
    /// The end of a long text that is kept.
    kept: End,
}

/// What a folder's files say about texts beside the tokenizer itself.
#[derive(Default)]
struct TextSettings {
    truncation_side: Option<TruncationSide>,
    names: TokenNames,
    no_token_types: bool,
}

impl TextEncoder {
    /// Reads the tokenizer of a model folder: `tokenizer.json`, and `tokenizer_config.json`, `special_tokens_map.json`
    /// and `added_tokens.json` where they are, as `AutoTokenizer` of transformers 5.24 does. Sequences are cut, the
    /// longer text of a pair first and on the side that the files say (else on the right), to `max_length` tokens or
    /// to what the model has positions for, whichever is less. They are not padded, whatever the files say.
    ///
    /// # Errors
    /// No `tokenizer.json`, or one that is no tokenizer; a setting that cannot be; a tokenizer that adds no special
    /// tokens, or whose vocabulary is not the configuration's; a `max_length` without room for text.
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

    /// Reads a `tokenizer.json` that lies anywhere, as it is: no file beside it is read.
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

    /// Reads the bytes of a `tokenizer.json`; `path` is for the messages.
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

    /// Checks and sets up a tokenizer that is in memory; `path` is for the messages.
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
        // Merges left out at random would make no two runs alike.
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
        // One token of each text of a pair.
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
        // The library stops tokenising a text once it has `max_length` tokens, and then truncates a pair as if the texts
        // were no longer than that. Truncating here, with the full lengths, gives the split that transformers gives.
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

    /// The tokens of one text, or of a pair of texts as one sequence.
    ///
    /// Of a long text only as much is tokenised as is kept, where the tokenizer's words end at spaces; the tokens are
    /// those of the whole.
    ///
    /// # Errors
    /// A text of which more than 16 MiB must be tokenised together (as both of a pair are), or one that the tokenizer
    /// refuses.
    pub fn encode(&self, text: &str, pair: Option<&str>) -> Result<Tokens, ModelError> {
        let mut bytes = self.enough();
        loop {
            let part = self.part(text, pair, bytes);
            let tokens = self.encode_whole(part, pair)?;
            // Either the whole text, or a part long enough to yield every token that is kept.
            if part.len() == text.len() || tokens.len() == self.max_length {
                return Ok(tokens);
            }
            bytes = bytes.saturating_mul(8);
        }
    }

    /// As [`Self::encode`], for many texts or pairs, in their order, on all processors.
    ///
    /// # Errors
    /// [`ModelError::OneOf`], for the first text that fails.
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
                // The batch does not tell which text failed.
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

    /// How many bytes of an ordinary text have all tokens that are kept.
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

    /// The tokens of a text, or of both of a pair, cut to the most tokens and with the special ones around them.
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
                "the tokenizer gives {} tokens where {} were asked for: its special tokens contradict themselves; download it again",
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

    /// The longest sequence that comes out, in tokens with the special ones.
    pub fn max_length(&self) -> usize {
        self.max_length
    }

    /// The number of token ids the model has, which is what a random token is drawn from.
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// The token that stands for a hidden one: the folder's `mask_token`, else `<mask>` or `[MASK]`.
    pub fn mask_token_id(&self) -> Option<u32> {
        self.named(&["mask_token"], ["<mask>", "[MASK]"])
    }

    /// The token at a sequence's beginning, whose hidden state a classifier reads: the folder's `cls_token` or
    /// `bos_token`, else `<s>` or `[CLS]`.
    pub fn bos_token_id(&self) -> Option<u32> {
        self.named(&["cls_token", "bos_token"], ["<s>", "[CLS]"])
    }

    /// The token at a text's end: the folder's `sep_token` or `eos_token`, else `</s>` or `[SEP]`.
    pub fn eos_token_id(&self) -> Option<u32> {
        self.named(&["sep_token", "eos_token"], ["</s>", "[SEP]"])
    }

    /// The padding token: the folder's `pad_token`, else `<pad>` or `[PAD]`.
    pub fn pad_token_id(&self) -> Option<u32> {
        self.named(&["pad_token"], ["<pad>", "[PAD]"])
    }

    /// All special tokens, sorted: those that masked-language-model training neither hides nor draws.
    pub fn special_token_ids(&self) -> &[u32] {
        &self.special
    }

    /// The tokenizer itself.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// The token that the folder names for one of these purposes, else one of the usual names.
    fn named(&self, purposes: &[&str], usual: [&str; 2]) -> Option<u32> {
        let named = purposes.iter().find_map(|purpose| self.names.get(purpose));
        let names = named.into_iter().chain(usual);
        let mut ids = names.map(|name| self.tokenizer.token_to_id(name));
        ids.find_map(|id| id)
    }
}

/// One text or a pair, if not too long.
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

/// Whether a model of `config` rows can be meant for a tokenizer of `size` tokens: as many, or so many more as
/// rounding the embedding up for the hardware's sake gives. Any other number belongs to another tokenizer, whose ids
/// would be valid and mean nothing.
pub(crate) fn is_padded(size: usize, config: usize) -> bool {
    let rounded = config.is_multiple_of(8) || config.is_multiple_of(100);
    config == size || (rounded && config.saturating_sub(size) < 128)
}

#[cfg(test)]
mod tests;
