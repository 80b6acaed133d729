//! Finds the tokenizer class that transformers would use for a folder.

use super::files::TokenizerFiles;
use crate::error::ModelError;

/// The settings of a model's config.json that affect its tokenizer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TokenizerOf<'a> {
    /// Its `model_type`, which determines the tokenizer's class if nothing else names it.
    pub model_type: &'a str,
    /// Its `tokenizer_class`.
    pub tokenizer_class: Option<&'a str>,
    /// The number of rows of the token embedding.
    pub vocab_size: usize,
}

/// The tokenizer classes of transformers, by what they take from `tokenizer.json`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TokenizerClass {
    /// `TokenizersBackend`, called `PreTrainedTokenizerFast` in older versions: uses the file as it is.
    Backend,
    /// `BertTokenizer`: takes only the vocabulary from the file, and splits texts into BERT's word pieces.
    Bert,
    /// `DistilBertTokenizer`: like `BertTokenizer`, without token types.
    DistilBert,
    /// `RobertaTokenizer`: takes vocabulary and merges from the file, for RoBERTa's byte-pair encoding.
    Roberta,
    /// `GPT2Tokenizer`: takes vocabulary, merges and post-processor from the file, for GPT-2's byte-pair encoding.
    Gpt2,
    /// `DebertaV2Tokenizer`: takes the vocabulary from the file, for SentencePiece's Unigram model.
    DebertaV2,
    /// `XLMRobertaTokenizer`: takes vocabulary and SentencePiece's character map from the file.
    XlmRoberta,
    /// `CamembertTokenizer`: like `XLMRobertaTokenizer`, with tokens that stand for nothing.
    Camembert,
}

/// The names of each class in transformers 5.24, without the suffix `Fast`, which makes no difference.
const NAMES: [(TokenizerClass, &[&str]); 8] = [
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
    (TokenizerClass::DebertaV2, &["DebertaV2Tokenizer"]),
    (TokenizerClass::XlmRoberta, &["XLMRobertaTokenizer"]),
    (TokenizerClass::Camembert, &["CamembertTokenizer"]),
];

impl TokenizerClass {
    /// The class of a folder: the one that tokenizer_config.json names, else the one that config.json names, else the
    /// default for the model's type. As in transformers, an unknown class is read as `TokenizersBackend`.
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
                "bert" | "distilbert" => Self::Bert,
                "gpt2" => Self::Gpt2,
                "deberta-v2" => Self::DebertaV2,
                "xlm-roberta" => Self::XlmRoberta,
                "camembert" => Self::Camembert,
                _ => Self::Backend,
            },
        })
    }

    /// The class of that name, if it is supported here.
    pub(super) fn named(name: &str) -> Option<Self> {
        let name = name.strip_suffix("Fast").unwrap_or(name);
        NAMES
            .into_iter()
            .find(|(_, names)| names.contains(&name))
            .map(|(class, _)| class)
    }

    /// The class's default special tokens, for those that no file names.
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
            Self::DebertaV2 => &[
                ("bos_token", "[CLS]"),
                ("eos_token", "[SEP]"),
                ("unk_token", "[UNK]"),
                ("sep_token", "[SEP]"),
                ("pad_token", "[PAD]"),
                ("cls_token", "[CLS]"),
                ("mask_token", "[MASK]"),
            ],
            Self::Roberta | Self::XlmRoberta | Self::Camembert => &[
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

    /// The class's default special tokens without a purpose, where no file names any.
    pub(super) fn default_extra(self) -> &'static [&'static str] {
        match self {
            Self::Camembert => &["<s>NOTUSED", "</s>NOTUSED", "<unk>NOTUSED"],
            _ => &[],
        }
    }

    /// Whether the class's default is to give the model token type ids.
    pub(super) fn has_token_types(self) -> bool {
        [Self::Bert, Self::DebertaV2].contains(&self)
    }

    /// Whether the class's default is to lower-case a text.
    pub(super) fn lowers_case(self) -> bool {
        self != Self::DebertaV2
    }

    /// Whether the class's default is to put a space in front of a text.
    pub(super) fn adds_prefix_space(self) -> bool {
        [Self::DebertaV2, Self::XlmRoberta, Self::Camembert].contains(&self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_suffix_fast_makes_no_difference() {
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
