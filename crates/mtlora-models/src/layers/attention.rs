//! Attention that a family describes by data, over the sequences of a batch or over a key-value cache.

use burn::nn::Dropout;
use burn::tensor::Tensor;
use mtlora_core::{
    ActivationDtype, Contexts, SequenceOffsets, cached_attention, fused_segment_attention,
    segment_attention,
};

/// How attention knows where a token stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PositionScheme {
    /// It does not: the positions are part of the hidden states, as learned position embeddings are.
    InHiddenStates,
}

/// What is added to the scores before the softmax.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ScoreBias {
    /// Nothing.
    None,
}

/// The attention of one layer, as a model's configuration describes it. [`Self::build`] makes an [`Attention`] of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttentionSpec {
    /// Heads of the query.
    pub heads: usize,
    /// Heads of key and value. Fewer than `heads` are grouped-query attention, which is not computed yet.
    pub key_value_heads: usize,
    /// Width of one head.
    pub head_width: usize,
    /// Whether a token sees no later one.
    pub causal: bool,
    /// How many tokens back a token sees, where that is limited. A window is not computed yet.
    pub window: Option<usize>,
    /// How attention knows where a token stands.
    pub positions: PositionScheme,
    /// What is added to the scores.
    pub score_bias: ScoreBias,
}

/// An unsupported or invalid kind of attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AttentionError {
    /// The number of heads or their width is 0.
    #[error("attention with {heads} heads of width {head_width}: both must be at least 1")]
    Empty {
        /// Heads of the query.
        heads: usize,
        /// Width of one head.
        head_width: usize,
    },
    /// Several heads of the query would share one head of key and value.
    #[error(
        "attention with {heads} heads and {key_value_heads} key-value heads is not supported: the two numbers must be \
         equal; use a model without grouped-query attention"
    )]
    Grouped {
        /// Heads of the query.
        heads: usize,
        /// Heads of key and value.
        key_value_heads: usize,
    },
    /// Attention that sees only the last tokens.
    #[error(
        "attention within a window of {window} tokens is not supported; use a model whose attention covers the whole \
         sequence"
    )]
    Window {
        /// The tokens that are seen.
        window: usize,
    },
}

impl AttentionSpec {
    /// Attention over the whole sequence, in which query, key and value have the same heads, and whose positions are
    /// part of the hidden states.
    pub fn new(heads: usize, head_width: usize) -> Self {
        Self {
            heads,
            key_value_heads: heads,
            head_width,
            causal: false,
            window: None,
            positions: PositionScheme::InHiddenStates,
            score_bias: ScoreBias::None,
        }
    }

    /// The same, in which no token sees a later one.
    pub fn causal(self) -> Self {
        Self {
            causal: true,
            ..self
        }
    }

    /// The attention, if it can be computed.
    ///
    /// # Errors
    /// [`AttentionError`] names what is not computed.
    pub fn build(self) -> Result<Attention, AttentionError> {
        let Self {
            heads,
            key_value_heads,
            head_width,
            window,
            ..
        } = self;
        if heads == 0 || head_width == 0 {
            return Err(AttentionError::Empty { heads, head_width });
        }
        if key_value_heads != heads {
            return Err(AttentionError::Grouped {
                heads,
                key_value_heads,
            });
        }
        if let Some(window) = window {
            return Err(AttentionError::Window { window });
        }
        Ok(Attention { spec: self })
    }
}

/// Query, key and value of some tokens: each `[tokens, heads * head_width]`.
#[derive(Clone, Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "made once a layer and matched at once, so a box would only add an allocation"
)]
pub enum Projections {
    /// Query, key and value, from a linear map each.
    Separate([Tensor<2>; 3]),
    /// Side by side, as one linear map makes them: `[tokens, 3 * heads * head_width]`.
    Fused(Tensor<2>),
}

impl Projections {
    /// Query, key and value, each by itself.
    pub fn separate(self) -> [Tensor<2>; 3] {
        match self {
            Self::Separate(parts) => parts,
            Self::Fused(fused) => {
                let width = fused.dims()[1] / 3;
                [0, 1, 2].map(|part| fused.clone().narrow(1, part * width, width))
            }
        }
    }
}

/// Attention that can be computed; made by [`AttentionSpec::build`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attention {
    spec: AttentionSpec,
}

impl Attention {
    /// Its description.
    pub fn spec(&self) -> &AttentionSpec {
        &self.spec
    }

    /// Within each sequence of a batch: `[tokens, heads * head_width]`. `dropout` acts on the probabilities while
    /// training, and `saved` says how query, key and value are kept for the backward pass.
    pub fn over_batch(
        &self,
        projections: Projections,
        sequences: &SequenceOffsets,
        dropout: &Dropout,
        saved: ActivationDtype,
    ) -> Tensor<2> {
        let AttentionSpec { heads, causal, .. } = self.spec;
        match projections {
            Projections::Separate(parts) => {
                segment_attention(parts, sequences, heads, causal, dropout, saved)
            }
            Projections::Fused(fused) => {
                fused_segment_attention(fused, sequences, heads, causal, dropout, saved)
            }
        }
    }

    /// The attention of one new token per row over a key-value cache. Each row attends to the positions of its
    /// context.
    ///
    /// # Shapes
    /// - `query`, output: `[rows, heads * head_width]`
    /// - keys and values: `[places, heads * head_width]`
    pub fn over_cache(
        &self,
        query: Tensor<2>,
        keys_and_values: [Tensor<2>; 2],
        contexts: &Contexts,
    ) -> Tensor<2> {
        cached_attention(query, keys_and_values, contexts, self.spec.heads)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_computed_is_refused() {
        let spec = AttentionSpec::new(4, 8).causal();
        assert_eq!(spec.build(), Ok(Attention { spec }));
        let grouped = AttentionSpec {
            key_value_heads: 2,
            ..spec
        };
        let error = AttentionError::Grouped {
            heads: 4,
            key_value_heads: 2,
        };
        assert_eq!(grouped.build(), Err(error));
        let window = AttentionSpec {
            window: Some(128),
            ..spec
        };
        assert_eq!(window.build(), Err(AttentionError::Window { window: 128 }));
        let empty = AttentionError::Empty {
            heads: 0,
            head_width: 8,
        };
        assert_eq!(AttentionSpec::new(0, 8).build(), Err(empty));
    }
}
