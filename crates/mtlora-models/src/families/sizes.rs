//! The sizes that a new model is made from.

/// The sizes that a new model of any family is made from, for pre-training and for measuring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModelSizes {
    /// Tokens in the vocabulary.
    pub vocab_size: usize,
    /// Width of the hidden states.
    pub hidden_size: usize,
    /// Layers.
    pub layers: usize,
    /// Attention heads of a layer; must divide `hidden_size` unless `head_width` is given.
    pub heads: usize,
    /// Heads of key and value, in families where heads of the query can share them; as many as `heads` where it is not
    /// given.
    pub key_value_heads: Option<usize>,
    /// Width of a head, in families that can choose it; `hidden_size / heads` where it is not given.
    pub head_width: Option<usize>,
    /// Width between the two feed-forward maps; four times `hidden_size` where it is not given.
    pub intermediate_size: Option<usize>,
    /// The longest sequence, in tokens with the special ones.
    pub max_tokens: usize,
    /// The token that ends a text; the last of the vocabulary where it is not given. Encoders have no such token.
    pub end_of_text: Option<u32>,
}

impl ModelSizes {
    /// Width between the two feed-forward maps.
    pub fn inner(&self) -> usize {
        self.intermediate_size
            .unwrap_or(self.hidden_size.saturating_mul(4))
    }
}

/// A model whose sizes are published, by the name that it is known by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PublishedModel {
    /// Its name, such as `roberta-base`.
    pub name: &'static str,
    /// The `model_type` of its config.json.
    pub model_type: &'static str,
    /// Its sizes.
    pub sizes: ModelSizes,
}
