//! The encoders that share these layers.

/// The encoders that can be run. They share their layers and differ in positions, token types, heads and names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Architecture {
    /// RoBERTa (Liu et al., 2019): `model_type` "roberta".
    Roberta,
    /// BERT (Devlin et al., 2019): `model_type` "bert".
    Bert,
    /// XLM-RoBERTa (Conneau et al., 2020), RoBERTa for a hundred languages: `model_type` "xlm-roberta".
    XlmRoberta,
    /// CamemBERT (Martin et al., 2020), RoBERTa for French: `model_type` "camembert".
    Camembert,
}

impl Architecture {
    /// Every architecture there is.
    pub const ALL: [Self; 4] = [Self::Roberta, Self::Bert, Self::XlmRoberta, Self::Camembert];

    /// The `model_type` of each.
    pub(crate) const MODEL_TYPES: [&'static str; 4] =
        ["roberta", "bert", "xlm-roberta", "camembert"];

    /// Its `model_type` in config.json.
    pub fn model_type(self) -> &'static str {
        Self::MODEL_TYPES[self as usize]
    }

    /// Whether it is built like RoBERTa: positions count from the padding token's id, and the head has a hidden layer of its
    /// own.
    pub fn is_roberta(self) -> bool {
        self != Self::Bert
    }

    /// What the encoder's tensors are called in a model with a head, before the first dot.
    pub(crate) fn prefix(self) -> &'static str {
        if self.is_roberta() { "roberta" } else { "bert" }
    }

    /// What the names of its classes in Hugging Face's code begin with.
    fn class(self) -> &'static str {
        match self {
            Self::Roberta => "Roberta",
            Self::Bert => "Bert",
            Self::XlmRoberta => "XLMRoberta",
            Self::Camembert => "Camembert",
        }
    }

    /// The Hugging Face class of this encoder with a classification head.
    pub(crate) fn classification_class(self) -> String {
        format!("{}ForSequenceClassification", self.class())
    }

    /// The Hugging Face class of this encoder with a masked-language-model head.
    pub(crate) fn masked_lm_class(self) -> String {
        format!("{}ForMaskedLM", self.class())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_its_own_model_type() {
        let types = Architecture::ALL.map(Architecture::model_type);
        assert_eq!(types, Architecture::MODEL_TYPES);
        let class = Architecture::XlmRoberta.classification_class();
        assert_eq!(class, "XLMRobertaForSequenceClassification");
    }
}
