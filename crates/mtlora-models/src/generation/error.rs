//! Why nothing was generated.

use super::config::InvalidConfig;

/// Why [`generate`](super::generate) stopped. Prompts are counted from 0; step `n` chooses a prompt's `n`th new token,
/// from 1.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GenerationError<E: std::error::Error + 'static> {
    /// A setting out of range.
    #[error(transparent)]
    Config(#[from] InvalidConfig),
    /// An empty batch.
    #[error("there is no prompt to continue; give at least one")]
    NoPrompts,
    /// A prompt without tokens.
    #[error(
        "prompt {prompt} (from 0) has no tokens; begin it with at least one, such as the end-of-text token"
    )]
    EmptyPrompt {
        /// Which prompt.
        prompt: usize,
    },
    /// A prompt with a token that the model does not have.
    #[error(
        "prompt {prompt} (from 0) has the token {token}, but the model's vocabulary ends at {}; were the tokenizer and \
         the model made for each other?", .vocab_size.saturating_sub(1)
    )]
    UnknownToken {
        /// Which prompt.
        prompt: usize,
        /// The token.
        token: u32,
        /// Tokens in the vocabulary.
        vocab_size: usize,
    },
    /// A prompt that leaves too little room for what is to be generated.
    #[error(
        "prompt {prompt} (from 0) has {tokens} tokens, which with max_new_tokens {max_new_tokens} are more than the \
         model's {max_positions} positions; shorten the prompt or ask for fewer new tokens"
    )]
    PromptTooLong {
        /// Which prompt.
        prompt: usize,
        /// Its length, in tokens.
        tokens: usize,
        /// The configuration's `max_new_tokens`.
        max_new_tokens: usize,
        /// The most tokens that the model reads.
        max_positions: usize,
    },
    /// The model could not run.
    #[error("the model failed at step {step}: {source}")]
    Decoder {
        /// The step.
        step: usize,
        /// The model's reason.
        source: E,
    },
    /// The model returned fewer or more logits than there are rows times vocabulary.
    #[error(
        "the model returned {found} logits at step {step} instead of {expected}; this is a mistake in the model's code"
    )]
    LogitsLength {
        /// The step.
        step: usize,
        /// How many were due.
        expected: usize,
        /// How many came.
        found: usize,
    },
    /// Logits that are no distribution: not a number, infinite, or minus infinity everywhere.
    #[error(
        "the logits for prompt {prompt} (from 0) at step {step} are no distribution (NaN or infinite); the model's \
         weights are damaged, or its computation overflowed"
    )]
    NotADistribution {
        /// The step.
        step: usize,
        /// Which prompt.
        prompt: usize,
    },
    /// Settings that forbid every token.
    #[error(
        "no token is allowed for prompt {prompt} (from 0) at step {step}; loosen no_repeat_ngram_size or min_new_tokens"
    )]
    NoTokenAllowed {
        /// The step.
        step: usize,
        /// Which prompt.
        prompt: usize,
    },
}

/// Why a search cannot go on; which prompt it is and which step, the caller knows.
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
