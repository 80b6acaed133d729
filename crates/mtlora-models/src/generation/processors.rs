//! Changes to the scores of single tokens that apply before every way of choosing one.

use super::config::GenerationConfig;

/// Applies the configuration's processors to `scores`, `[vocab]`, of the token that follows `tokens`, whose first
/// `prompt_length` tokens are the prompt. The order is Hugging Face's: repetition penalty, repeated n-grams, minimum
/// length. As in Hugging Face's code, the scores are log-probabilities in beam search and logits otherwise, which makes
/// a difference to the repetition penalty.
pub(super) fn process(
    scores: &mut [f32],
    tokens: &[u32],
    prompt_length: usize,
    config: &GenerationConfig,
) {
    if config.repetition_penalty != 1.0 {
        penalize_repetition(scores, tokens, config.repetition_penalty as f32);
    }
    if config.no_repeat_ngram_size > 0 {
        ban_repeated_ngrams(scores, tokens, config.no_repeat_ngram_size);
    }
    if tokens.len() - prompt_length < config.min_new_tokens {
        for token in &config.eos_token_ids {
            ban(scores, *token);
        }
    }
}

/// Penalizes each token once, however often it occurs.
fn penalize_repetition(scores: &mut [f32], tokens: &[u32], penalty: f32) {
    for (index, token) in tokens.iter().enumerate() {
        if tokens[..index].contains(token) {
            continue;
        }
        if let Some(score) = scores.get_mut(*token as usize) {
            *score = if *score < 0.0 {
                *score * penalty
            } else {
                *score / penalty
            };
        }
    }
}

/// Bans every token that would complete an n-gram of `size` tokens that already occurs in `tokens`.
fn ban_repeated_ngrams(scores: &mut [f32], tokens: &[u32], size: usize) {
    let Some(start) = (tokens.len() + 1).checked_sub(size) else {
        return;
    };
    let prefix = &tokens[start..];
    for ngram in tokens.windows(size) {
        if let Some((last, before)) = ngram.split_last()
            && before == prefix
        {
            ban(scores, *last);
        }
    }
}

fn ban(scores: &mut [f32], token: u32) {
    if let Some(score) = scores.get_mut(token as usize) {
        *score = f32::NEG_INFINITY;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUT: f32 = f32::NEG_INFINITY;

    fn processed(scores: &[f32], tokens: &[u32], config: GenerationConfig) -> Vec<f32> {
        let mut scores = scores.to_vec();
        process(&mut scores, tokens, 1, &config);
        scores
    }

    #[test]
    fn a_repeated_token_is_penalized_once_and_always_downwards() {
        let config = GenerationConfig {
            repetition_penalty: 2.0,
            ..GenerationConfig::default()
        };
        assert_eq!(
            processed(&[4.0, -4.0, 0.0, 1.0], &[0, 1, 0, 2, 1], config),
            [2.0, -8.0, 0.0, 1.0]
        );
    }

    #[test]
    fn ngrams_of_the_prompt_are_banned_too() {
        let config = |no_repeat_ngram_size| GenerationConfig {
            no_repeat_ngram_size,
            ..GenerationConfig::default()
        };
        let tokens = [0, 1, 2, 0, 1, 3, 0, 1];
        assert_eq!(
            processed(&[0.0; 5], &tokens, config(1)),
            [OUT, OUT, OUT, OUT, 0.0]
        );
        assert_eq!(
            processed(&[0.0; 5], &tokens, config(2)),
            [0.0, 0.0, OUT, OUT, 0.0]
        );
        assert_eq!(processed(&[0.0; 5], &tokens, config(4)), [0.0; 5]);
        assert_eq!(
            processed(&[0.0; 5], &[1, 1], config(2)),
            [0.0, OUT, 0.0, 0.0, 0.0]
        );
        // Sequences shorter than the n-gram, or exactly one token short of it, ban nothing.
        for size in [3, 4, 100] {
            assert_eq!(processed(&[0.0; 5], &[1, 1], config(size)), [0.0; 5]);
        }
    }

    #[test]
    fn no_end_token_comes_before_the_minimum_length() {
        let config = || GenerationConfig {
            min_new_tokens: 2,
            eos_token_ids: vec![0, 2],
            ..GenerationConfig::default()
        };
        assert_eq!(processed(&[0.0; 3], &[1, 1], config()), [OUT, 0.0, OUT]);
        assert_eq!(processed(&[0.0; 3], &[1, 1, 1], config()), [0.0; 3]);
    }
}
