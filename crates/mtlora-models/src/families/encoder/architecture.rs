//! The encoders that share these layers.

/// The encoders that can be run. They share their layers and differ in positions, token types and heads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Architecture {
    /// RoBERTa (Liu et al., 2019): `model_type` "roberta".
    Roberta,
    /// BERT (Devlin et al., 2019): `model_type` "bert".
    Bert,
}

impl Architecture {
    /// Every architecture there is.
    pub const ALL: [Self; 2] = [Self::Roberta, Self::Bert];

    /// Its `model_type` in config.json, which is also the prefix of the encoder's tensor names in a model with a head.
    pub fn model_type(self) -> &'static str {
        match self {
            Self::Roberta => "roberta",
            Self::Bert => "bert",
        }
    }

    /// The Hugging Face class of this encoder with a classification head.
    pub(crate) fn classification_class(self) -> &'static str {
        match self {
            Self::Roberta => "RobertaForSequenceClassification",
            Self::Bert => "BertForSequenceClassification",
        }
    }

    /// The Hugging Face class of this encoder with a masked-language-model head.
    pub(crate) fn masked_lm_class(self) -> &'static str {
        match self {
            Self::Roberta => "RobertaForMaskedLM",
            Self::Bert => "BertForMaskedLM",
        }
    }
}
