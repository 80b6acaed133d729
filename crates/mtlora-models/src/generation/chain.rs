//! Greedy decoding and sampling: each sequence grows by one token at a time, and no choice is revised.

use rand_chacha::ChaCha8Rng;

use super::config::GenerationConfig;
use super::error::Stuck;
use super::processors::process;
use super::sampling::{draw, random_numbers};
use super::softmax::{log_sum_exp, maximum};
use super::strategy::{Generated, Search};

/// The `num_return_sequences` sequences that continue one prompt.
#[derive(Debug)]
pub(super) struct Chains<'a> {
    config: &'a GenerationConfig,
    prompt_length: usize,
    chains: Vec<Chain>,
}

#[derive(Debug)]
struct Chain {
    /// The prompt and the new tokens.
    tokens: Vec<u32>,
    /// Its row among the prompt's rows; `None` once it has ended.
    row: Option<usize>,
    /// The random numbers that sampling draws with; `None` for greedy decoding.
    random: Option<ChaCha8Rng>,
    end_token: Option<u32>,
    /// The sum of the model's log-probabilities.
    score: f64,
}

impl<'a> Search<'a> for Chains<'a> {
    fn new(prompt: &[u32], config: &'a GenerationConfig) -> Self {
        let chain = |index| Chain {
            tokens: prompt.to_vec(),
            row: Some(0),
            random: config
                .do_sample
                .then(|| random_numbers(config.seed, prompt, index)),
            end_token: None,
            score: 0.0,
        };
        Self {
            config,
            prompt_length: prompt.len(),
            chains: (0..config.num_return_sequences).map(chain).collect(),
        }
    }

    fn advance(
        &mut self,
        logits: &[f32],
        vocab_size: usize,
        scratch: &mut Vec<f32>,
        next: &mut Vec<(usize, u32)>,
    ) -> Result<(), Stuck> {
        for chain in &mut self.chains {
            let Some(row) = chain.row.take() else {
                continue;
            };
            let logits = &logits[row * vocab_size..][..vocab_size];
            let random = &mut chain.random;
            let (token, log_probability) = choose(
                logits,
                &chain.tokens,
                self.prompt_length,
                self.config,
                random,
                scratch,
            )?;
            chain.score += log_probability;
            if self.config.is_end(token) {
                chain.end_token = Some(token);
                continue;
            }
            chain.tokens.push(token);
            if chain.tokens.len() - self.prompt_length < self.config.max_new_tokens {
                chain.row = Some(next.len());
                next.push((row, token));
            }
        }
        Ok(())
    }

    fn finish(self) -> Vec<Generated> {
        let generated = |mut chain: Chain| Generated {
            tokens: chain.tokens.split_off(self.prompt_length),
            end_token: chain.end_token,
            score: chain.score as f32,
        };
        self.chains.into_iter().map(generated).collect()
    }
}

/// Chooses the token that follows `tokens`, whose first `prompt_length` are the prompt, by its `logits`, `[vocab]`: it draws
/// one with the random numbers, if there are any, and takes the likeliest otherwise. Returns it with the model's own
/// log-probability of it. `scratch` is a reusable buffer.
pub(super) fn choose(
    logits: &[f32],
    tokens: &[u32],
    prompt_length: usize,
    config: &GenerationConfig,
    random: &mut Option<ChaCha8Rng>,
    scratch: &mut Vec<f32>,
) -> Result<(u32, f64), Stuck> {
    let total = log_sum_exp(logits)?;
    scratch.clear();
    scratch.extend_from_slice(logits);
    process(scratch, tokens, prompt_length, config);
    let token = match random {
        Some(random) => draw(scratch, config, random)?,
        None => likeliest(scratch)?,
    };
    Ok((token, f64::from(logits[token as usize]) - total))
}

/// The token with the best score; among equals, the lowest token id.
fn likeliest(scores: &[f32]) -> Result<u32, Stuck> {
    let max = maximum(scores);
    (0u32..)
        .zip(scores)
        .find(|(_, score)| **score == max && max > f32::NEG_INFINITY)
        .map(|(token, _)| token)
        .ok_or(Stuck::NoTokenAllowed)
}
