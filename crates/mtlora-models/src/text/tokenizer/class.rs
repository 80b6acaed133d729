//! Which tokenizer class transformers makes of a folder.

use super::files::TokenizerFiles;
use crate::error::ModelError;

/// The settings of a model's config.json that affect its tokenizer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TokenizerOf<'a> {
    /// Its `model_type`, which names the tokenizer's class where nothing else does.
    pub model_type: &'a str,
    /// Its `tokenizer_class`.
    pub tokenizer_class: Option<&'a str>,
    /// Rows of the token embedding.
    pub vocab_size: usize,
}

/// The classes of transformers that differ in what they take from `tokenizer.json`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TokenizerClass {
    /// `TokenizersBackend`, which older versions call `PreTrainedTokenizerFast`: the file as it is.
    Backend,
    /// `BertTokenizer`: the vocabulary of the file, in BERT's own word pieces.
    Bert,
    /// `DistilBertTokenizer`: the same, without token types.
    DistilBert,
    /// `RobertaTokenizer`: vocabulary and merges of the file, in RoBERTa's own byte pairs.
    Roberta,
    /// `GPT2Tokenizer`: vocabulary, merges and post-processor of the file, in GPT-2's own byte pairs.
    Gpt2,
}

/// The names of each class in transformers 5.24, without a `Fast` at their end, which changes nothing.
const NAMES: [(TokenizerClass, &[&str]); 5] = [
    (
        TokenizerClass::Backend,
        &[
            "TokenizersBackend",
            "PreTrainedTokenizer",
            "PythonBackend",
            "BloomTokenizer",
        ],
    ),
    (
        TokenizerClass::Bert,
        &[
            "BertTokenizer",
            "ElectraTokenizer",
            "MobileBertTokenizer",
            "SqueezeBertTokenizer",
            "LayoutLMTokenizer",
            "LxmertTokenizer",
            "ConvBertTokenizer",
            "DPRContextEncoderTokenizer",
            "DPRQuestionEncoderTokenizer",
        ],
    ),
    (TokenizerClass::DistilBert, &["DistilBertTokenizer"]),
    (
        TokenizerClass::Roberta,
        &[
            "RobertaTokenizer",
            "BartTokenizer",
            "LongformerTokenizer",
            "LEDTokenizer",
            "MvpTokenizer",
        ],
    ),
    (TokenizerClass::Gpt2, &["GPT2Tokenizer"]),
];

impl TokenizerClass {
    /// The class of a folder: what tokenizer_config.json names, else what config.json names, else that of the
    /// model's type. A class that transformers does not have either is read as `TokenizersBackend`.
    ///
    /// # Errors
    /// When `tokenizer_class` is not a string.
    pub(super) fn of(files: &TokenizerFiles, of: TokenizerOf<'_>) -> Result<Self, ModelError> {
        let named = files.config.string("tokenizer_class")?;
        let named = named.filter(|name| !name.is_empty());
        Ok(match named.or(of.tokenizer_class) {
            Some(name) => Self::named(name).unwrap_or(Self::Backend),
            None => match of.model_type {
                "roberta" => Self::Roberta,
                "bert" => Self::Bert,
                "gpt2" => Self::Gpt2,
                _ => Self::Backend,
            },
        })
    }

    /// The class of that name, if it is one that is read here as transformers reads it.
    pub(super) fn named(name: &str) -> Option<Self> {
        let name = name.strip_suffix("Fast").unwrap_or(name);
        NAMES
            .into_iter()
            .find(|(_, names)| names.contains(&name))
            .map(|(class, _)| class)
    }

    /// The names of special tokens that the class has where no file says them.
    pub(super) fn default_tokens(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Backend => &[],
            Self::Bert | Self::DistilBert => &[
                ("unk_token", "[UNK]"),
                ("sep_token", "[SEP]"),
                ("pad_token", "[PAD]"),
                ("cls_token", "[CLS]"),
                ("mask_token", "[MASK]"),
            ],
            Self::Roberta => &[
                ("bos_token", "<s>"),
                ("eos_token", "</s>"),
                ("unk_token", "<unk>"),
                ("sep_token", "</s>"),
                ("pad_token", "<pad>"),
                ("cls_token", "<s>"),
                ("mask_token", "<mask>"),
            ],
            Self::Gpt2 => &[
                ("bos_token", "<|endoftext|>"),
                ("eos_token", "<|endoftext|>"),
                ("unk_token", "<|endoftext|>"),
            ],
        }
    }

    /// Whether the class gives a model token types where no file says what it gives.
    pub(super) fn has_token_types(self) -> bool {
        self == Self::Bert
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_fast_at_its_end_is_the_same_class() {
        for (class, names) in NAMES {
            for name in names {
                assert_eq!(TokenizerClass::named(name), Some(class));
                assert_eq!(TokenizerClass::named(&format!("{name}Fast")), Some(class));
            }
        }
        assert_eq!(TokenizerClass::named("MyTokenizer"), None);
        assert_eq!(TokenizerClass::named(""), None);
        assert_eq!(TokenizerClass::named("Fast"), None);
    }
}
