//! The errors of text generation.

use super::config::InvalidConfig;

/// Why [`generate`](super::generate) failed. Prompts are counted from 0 and steps from 1: step `n` chooses the `n`th
/// new token of each prompt.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GenerationError<E: std::error::Error + 'static> {
    /// A setting out of range.
    #[error(transparent)]
    Config(#[from] InvalidConfig),
    /// An empty batch.
    #[error("there is no prompt to continue; pass at least one")]
    NoPrompts,
    /// A prompt without tokens.
    #[error(
        "prompt {prompt} (counted from 0) has no tokens; it needs at least one, such as the end-of-text token"
    )]
    EmptyPrompt {
        /// The prompt, counted from 0.
        prompt: usize,
    },
    /// A prompt with a token that is not in the model's vocabulary.
    #[error(
        "prompt {prompt} (counted from 0) has the token {token}, but the model's vocabulary ends at {}; do the \
         tokenizer and the model belong together?", .vocab_size.saturating_sub(1)
    )]
    UnknownToken {
        /// The prompt, counted from 0.
        prompt: usize,
        /// The token.
        token: u32,
        /// The number of tokens in the vocabulary.
        vocab_size: usize,
    },
    /// A prompt that leaves too few positions for the new tokens.
    #[error(
        "prompt {prompt} (counted from 0) has {tokens} tokens, which together with max_new_tokens {max_new_tokens} \
         exceed the model's {max_positions} positions; shorten the prompt or ask for fewer new tokens"
    )]
    PromptTooLong {
        /// The prompt, counted from 0.
        prompt: usize,
        /// Its length, in tokens.
        tokens: usize,
        /// The configuration's `max_new_tokens`.
        max_new_tokens: usize,
        /// The number of positions that the model has.
        max_positions: usize,
    },
    /// The model failed.
    #[error("the model failed at step {step}: {source}")]
    Decoder {
        /// The step, counted from 1.
        step: usize,
        /// The model's error.
        source: E,
    },
    /// The model did not return rows times vocabulary logits.
    #[error(
        "the model returned {found} logits at step {step} instead of {expected}; this is a bug in the model's code"
    )]
    LogitsLength {
        /// The step, counted from 1.
        step: usize,
        /// The expected number of logits.
        expected: usize,
        /// The number of logits that the model returned.
        found: usize,
    },
    /// Logits that do not define a distribution: NaN, plus infinity, or minus infinity for every token.
    #[error(
        "the logits for prompt {prompt} (counted from 0) at step {step} are NaN or infinite; the model's weights are \
         damaged, or its computation overflowed"
    )]
    NotADistribution {
        /// The step, counted from 1.
        step: usize,
        /// The prompt, counted from 0.
        prompt: usize,
    },
    /// Settings that forbid every token.
    #[error(
        "no token is allowed for prompt {prompt} (counted from 0) at step {step}; relax no_repeat_ngram_size or \
         min_new_tokens"
    )]
    NoTokenAllowed {
        /// The step, counted from 1.
        step: usize,
        /// The prompt, counted from 0.
        prompt: usize,
    },
}

/// Why a search cannot continue; the caller knows the prompt and the step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stuck {
    NotADistribution,
    NoTokenAllowed,
}

impl Stuck {
    pub(super) fn at<E: std::error::Error + 'static>(
        self,
        prompt: usize,
        step: usize,
    ) -> GenerationError<E> {
        match self {
            Self::NotADistribution => GenerationError::NotADistribution { step, prompt },
            Self::NoTokenAllowed => GenerationError::NoTokenAllowed { step, prompt },
        }
    }
}
