//! Attention that a family describes by data, over the sequences of a batch or over a key-value cache.

use burn::nn::Dropout;
use burn::tensor::Tensor;
use mtlora_core::{
    ActivationDtype, AttentionForm, Contexts, RelativePositions, SequenceOffsets, cached_attention,
    fused_segment_attention, relative_segment_attention, segment_attention,
};

use super::rotary::Rotary;

/// How attention knows where a token stands.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum PositionScheme {
    /// It does not: the positions are part of the hidden states, as learned position embeddings are.
    InHiddenStates,
    /// Query and key are turned by angles that grow with their tokens' positions.
    Rotary(Rotary),
}

/// What is added to the scores before the softmax.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ScoreBias {
    /// Nothing.
    None,
    /// Products with relative positions (DeBERTa's disentangled attention, arXiv 2006.03654). The scores are divided by the
    /// root of `head_width` times the number of their terms, and [`Projections::WithPositions`] has the tensors. Not with
    /// `causal`: a key-value cache keeps no relative positions.
    RelativePositions {
        /// Queries are multiplied with the keys of relative positions (content to position).
        keys: bool,
        /// Keys are multiplied with the queries of relative positions (position to content).
        queries: bool,
    },
}

/// The attention of one layer, as a model's configuration describes it. [`Self::build`] makes an [`Attention`] of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AttentionSpec {
    /// Heads of the query.
    pub heads: usize,
    /// Heads of key and value. With fewer than `heads`, by whose number they divide, as many heads of the query as follow
    /// each other share one (grouped-query attention, arXiv 2305.13245).
    pub key_value_heads: usize,
    /// Width of one head.
    pub head_width: usize,
    /// Whether a token sees no later one.
    pub causal: bool,
    /// How many of the last tokens a token sees, itself among them, where that is limited. Only with `causal`.
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
    /// The heads of the query cannot share those of key and value evenly.
    #[error(
        "attention with {heads} heads and {key_value_heads} key-value heads: the second number must divide the first"
    )]
    Uneven {
        /// Heads of the query.
        heads: usize,
        /// Heads of key and value.
        key_value_heads: usize,
    },
    /// A window that no token fits in, or one of attention in which a token sees those after it.
    #[error(
        "attention within a window of {window} tokens is not supported: a window must have one token at least, and \
         belongs to attention in which no token sees a later one"
    )]
    Window {
        /// The tokens that are seen.
        window: usize,
    },
    /// Decoding would need the relative positions of what is in the cache.
    #[error(
        "relative positions in the scores are not supported in attention in which no token sees a later one"
    )]
    CausalRelative,
    /// Rotary positions turn pairs of a head's coordinates.
    #[error("rotary positions with heads of width {head_width}, which must be even")]
    OddHead {
        /// Width of one head.
        head_width: usize,
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
            causal,
            window,
            positions,
            score_bias,
        } = self;
        if heads == 0 || head_width == 0 {
            return Err(AttentionError::Empty { heads, head_width });
        }
        if key_value_heads == 0 || !heads.is_multiple_of(key_value_heads) {
            return Err(AttentionError::Uneven {
                heads,
                key_value_heads,
            });
        }
        if let Some(window) = window.filter(|window| *window == 0 || !causal) {
            return Err(AttentionError::Window { window });
        }
        if causal && score_bias != ScoreBias::None {
            return Err(AttentionError::CausalRelative);
        }
        let is_rotary = matches!(positions, PositionScheme::Rotary(_));
        if is_rotary && !head_width.is_multiple_of(2) {
            return Err(AttentionError::OddHead { head_width });
        }
        Ok(Attention { spec: self })
    }
}

/// Query, key and value of some tokens: the query is `[tokens, heads * head_width]`, key and value are
/// `[tokens, key_value_heads * head_width]`.
#[derive(Clone, Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "made once a layer and matched at once, so a box would only add an allocation"
)]
pub enum Projections {
    /// Query, key and value, from a linear map each.
    Separate([Tensor<2>; 3]),
    /// Side by side, as one linear map makes them, with as many heads of each: `[tokens, 3 * heads * head_width]`.
    Fused(Tensor<2>),
    /// As `Separate`, with what [`ScoreBias::RelativePositions`] reads.
    WithPositions {
        /// Query, key and value.
        content: [Tensor<2>; 3],
        /// The keys and the queries of relative positions, those that there are: each
        /// `[2 * longest - 1, heads * head_width]`, with a row for each distance, as
        /// [`RelativePositions`] has them.
        positions: [Option<Tensor<2>>; 2],
    },
}

impl Projections {
    /// Query, key and value, each by itself.
    pub fn separate(self) -> [Tensor<2>; 3] {
        match self {
            Self::Separate(parts) => parts,
            Self::WithPositions { content, .. } => content,
            Self::Fused(fused) => {
                let width = fused.dims()[1] / 3;
                [0, 1, 2].map(|part| fused.clone().narrow(1, part * width, width))
            }
        }
    }
}

/// Attention that can be computed; made by [`AttentionSpec::build`].
#[derive(Clone, Copy, Debug, PartialEq)]
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
        let AttentionSpec {
            heads,
            causal,
            window,
            ..
        } = self.spec;
        let form = AttentionForm {
            heads,
            causal,
            window,
        };
        match projections {
            Projections::Fused(fused) if window.is_none() => {
                fused_segment_attention(fused, sequences, heads, causal, dropout, saved)
            }
            Projections::WithPositions {
                content,
                positions: [keys, queries],
            } => {
                let positions = RelativePositions {
                    keys,
                    queries,
                    scale: self.scale(),
                };
                relative_segment_attention(content, positions, sequences, form, dropout, saved)
            }
            projections => {
                segment_attention(projections.separate(), sequences, form, dropout, saved)
            }
        }
    }

    /// The factor of the scores.
    fn scale(&self) -> f64 {
        let terms = match self.spec.score_bias {
            ScoreBias::None => 1,
            ScoreBias::RelativePositions { keys, queries } => {
                1 + usize::from(keys) + usize::from(queries)
            }
        };
        1.0 / ((terms * self.spec.head_width) as f64).sqrt()
    }

    /// The attention of one new token per row over a key-value cache. Each row attends to the positions of its
    /// context, or to the last of them that its window has.
    ///
    /// # Shapes
    /// - `query`, output: `[rows, heads * head_width]`
    /// - keys and values: `[places, key_value_heads * head_width]`
    pub fn over_cache(
        &self,
        query: Tensor<2>,
        keys_and_values: [Tensor<2>; 2],
        contexts: &Contexts,
    ) -> Tensor<2> {
        let AttentionSpec { heads, window, .. } = self.spec;
        match window {
            Some(window) => cached_attention(query, keys_and_values, &contexts.last(window), heads),
            None => cached_attention(query, keys_and_values, contexts, heads),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_computed_is_refused() {
        let spec = AttentionSpec::new(4, 8).causal();
        assert_eq!(spec.build(), Ok(Attention { spec }));
        let grouped = |key_value_heads| AttentionSpec {
            key_value_heads,
            ..spec
        };
        assert!(grouped(2).build().is_ok());
        for key_value_heads in [0, 3, 8] {
            let error = AttentionError::Uneven {
                heads: 4,
                key_value_heads,
            };
            assert_eq!(grouped(key_value_heads).build(), Err(error));
        }
        let within = |window, causal| AttentionSpec {
            window: Some(window),
            causal,
            ..spec
        };
        assert!(within(128, true).build().is_ok());
        let rotary = |head_width| AttentionSpec {
            positions: PositionScheme::Rotary(Rotary::new(1e4)),
            ..AttentionSpec::new(4, head_width)
        };
        assert!(rotary(8).build().is_ok());
        let error = AttentionError::OddHead { head_width: 7 };
        assert_eq!(rotary(7).build(), Err(error));
        for (window, causal) in [(0, true), (128, false)] {
            let error = AttentionError::Window { window };
            assert_eq!(within(window, causal).build(), Err(error));
        }
        let relative = |causal| AttentionSpec {
            causal,
            score_bias: ScoreBias::RelativePositions {
                keys: true,
                queries: false,
            },
            ..AttentionSpec::new(4, 8)
        };
        assert_eq!(relative(false).build().map(|built| built.scale()), Ok(0.25));
        assert_eq!(relative(true).build(), Err(AttentionError::CausalRelative));
        let empty = AttentionError::Empty {
            heads: 0,
            head_width: 8,
        };
        assert_eq!(AttentionSpec::new(0, 8).build(), Err(empty));
    }
}
