//! Beam search.

use super::config::{EarlyStopping, GenerationConfig};
use super::error::Stuck;
use super::processors::process;
use super::softmax::log_softmax;
use super::strategy::{Generated, Search};
use super::top::TopCandidates;

/// Beam search over the continuations of one prompt, as in Hugging Face transformers 5. In each step the continuations
/// of the running sequences compete by log-probability. A continuation that ends becomes a finished sequence if it is
/// among the best `num_beams` of the step. The best `num_beams` continuations that do not end keep running. Finished
/// sequences compete by log-probability divided by the generated length (the end token included) to the power of
/// `length_penalty`.
#[derive(Debug)]
pub(super) struct Beams<'a> {
    config: &'a GenerationConfig,
    prompt_length: usize,
    /// Best first; `running[i]` is the prompt's row `i`.
    running: Vec<Beam>,
    /// At most `num_beams`, best first.
    finished: Vec<Generated>,
    top: TopCandidates,
}

#[derive(Debug)]
struct Beam {
    /// The prompt and the new tokens.
    tokens: Vec<u32>,
    /// The sum of the processed log-probabilities.
    score: f32,
}

impl Beams<'_> {
    /// The score of a sequence with this log-probability and this number of generated tokens. It is computed in 32
    /// bits, as in Hugging Face's code, so that ties are decided in the same way.
    fn penalized(&self, score: f32, length: usize) -> f32 {
        score / (length as f64).powf(self.config.length_penalty) as f32
    }

    /// Whether none of the running sequences, of `length` generated tokens each, can still change the result.
    fn is_settled(&self, length: usize) -> bool {
        let Some(best) = self.running.first() else {
            return true;
        };
        if self.finished.len() < self.config.num_beams {
            return false;
        }
        let length = match self.config.early_stopping {
            EarlyStopping::Yes => return true,
            EarlyStopping::Never if self.config.length_penalty > 0.0 => self.config.max_new_tokens,
            EarlyStopping::No | EarlyStopping::Never => length,
        };
        let best = self.penalized(best.score, length);
        self.finished
            .last()
            .is_none_or(|worst| best.total_cmp(&worst.score).is_le())
    }
}

impl<'a> Search<'a> for Beams<'a> {
    fn new(prompt: &[u32], config: &'a GenerationConfig) -> Self {
        // Enough that `num_beams` candidates continue even if all others end.
        let candidates = (1 + config.eos_token_ids.len()).saturating_mul(config.num_beams);
        Self {
            config,
            prompt_length: prompt.len(),
            running: vec![Beam {
                tokens: prompt.to_vec(),
                score: 0.0,
            }],
            finished: Vec::new(),
            top: TopCandidates::new(candidates),
        }
    }

    fn advance(
        &mut self,
        logits: &[f32],
        vocab_size: usize,
        scratch: &mut Vec<f32>,
        next: &mut Vec<(usize, u32)>,
    ) -> Result<(), Stuck> {
        let config = self.config;
        let mut length = 0;
        for (row, (logits, beam)) in logits
            .chunks_exact(vocab_size)
            .zip(&self.running)
            .enumerate()
        {
            log_softmax(logits, scratch)?;
            process(scratch, &beam.tokens, self.prompt_length, config);
            self.top.offer(row, beam.score, scratch);
            length = beam.tokens.len() + 1 - self.prompt_length;
        }

        let candidates: Vec<_> = self.top.take().collect();
        let mut running = Vec::with_capacity(config.num_beams);
        for (rank, candidate) in candidates.into_iter().enumerate() {
            let tokens = &self.running[candidate.row].tokens;
            let is_end = config.is_end(candidate.token);
            if is_end || length == config.max_new_tokens {
                if rank < config.num_beams {
                    let mut tokens = tokens[self.prompt_length..].to_vec();
                    if !is_end {
                        tokens.push(candidate.token);
                    }
                    self.finished.push(Generated {
                        tokens,
                        end_token: is_end.then_some(candidate.token),
                        score: self.penalized(candidate.score, length),
                    });
                }
            } else if running.len() < config.num_beams {
                let mut tokens = tokens.clone();
                tokens.push(candidate.token);
                running.push(Beam {
                    tokens,
                    score: candidate.score,
                });
                next.push((candidate.row, candidate.token));
            }
        }
        // The sort is stable: among equal scores, the sequence that finished first stays first.
        self.finished.sort_by(|a, b| b.score.total_cmp(&a.score));
        self.finished.truncate(config.num_beams);
        self.running = running;
        if self.is_settled(length) {
            next.clear();
            if self.finished.is_empty() {
                return Err(Stuck::NoTokenAllowed);
            }
        }
        Ok(())
    }

    fn finish(mut self) -> Vec<Generated> {
        self.finished.truncate(self.config.num_return_sequences);
        self.finished
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::chain::Chains;
    use super::super::search::{generate, run};
    use super::super::toy::Toy;
    use super::*;
    use proptest::prelude::*;

    /// Every continuation of up to `left` tokens, with its log-probability.
    fn all(toy: &Toy, prompt: &[u32], eos: u32, left: usize) -> Vec<(Vec<u32>, f32)> {
        let mut scores = Vec::new();
        log_softmax(&toy.logits(prompt), &mut scores).unwrap();
        let mut found = Vec::new();
        for (token, score) in (0u32..).zip(scores) {
            if token == eos || left == 1 {
                found.push((vec![token], score));
                continue;
            }
            let longer = [prompt, &[token]].concat();
            for (rest, more) in all(toy, &longer, eos, left - 1) {
                found.push(([&[token], rest.as_slice()].concat(), score + more));
            }
        }
        found
    }

    proptest! {
        #[test]
        fn beams_enough_for_every_sequence_find_the_best(
            prompt in prop::collection::vec(0u32..9, 1..5),
            length_penalty in 0.0..2.0,
            eos in 0u32..9,
        ) {
            let config = GenerationConfig {
                max_new_tokens: 2,
                num_beams: 9,
                num_return_sequences: 9,
                length_penalty,
                early_stopping: EarlyStopping::Never,
                eos_token_ids: vec![eos],
                ..GenerationConfig::default()
            };
            let mut toy = Toy::new(9);
            let found = generate(&mut toy, std::slice::from_ref(&prompt), &config, &mut |_| ())
                .unwrap()
                .remove(0);
            let mut expected: Vec<(Vec<u32>, f32)> = all(&toy, &prompt, eos, 2)
                .into_iter()
                .map(|(tokens, score)| {
                    let length = tokens.len() as f64;
                    (tokens, score / length.powf(length_penalty) as f32)
                })
                .collect();
            expected.sort_by(|a, b| b.1.total_cmp(&a.1));
            // Only the best sequence is compared: others may have been dropped when they were not among the best nine
            // of their step.
            let best = &found[0];
            let tokens: Vec<u32> = best.tokens.iter().chain(&best.end_token).copied().collect();
            prop_assert_eq!(&tokens, &expected[0].0);
            prop_assert!((best.score - expected[0].1).abs() < 1e-5);
            prop_assert!(found.is_sorted_by(|a, b| a.score >= b.score));
        }

        #[test]
        fn one_beam_is_greedy(
            prompts in prop::collection::vec(prop::collection::vec(0u32..20, 1..6), 1..4),
            no_repeat_ngram_size in 0usize..4,
            min_new_tokens in 0usize..4,
            eos_token_ids in prop::collection::vec(0u32..20, 0..6),
        ) {
            let config = GenerationConfig {
                max_new_tokens: 10,
                min_new_tokens,
                no_repeat_ngram_size,
                eos_token_ids,
                // Otherwise a single beam continues after its first end token, in search of a better sequence.
                early_stopping: EarlyStopping::Yes,
                length_penalty: 0.0,
                ..GenerationConfig::default()
            };
            let mut toy = Toy::new(20);
            let beams = run::<_, Beams<'_>>(&mut toy, &prompts, &config, &mut |_| ()).unwrap();
            let greedy = run::<_, Chains<'_>>(&mut toy, &prompts, &config, &mut |_| ()).unwrap();
            for (beam, greedy) in beams.iter().flatten().zip(greedy.iter().flatten()) {
                prop_assert_eq!(&beam.tokens, &greedy.tokens);
                prop_assert_eq!(beam.end_token, greedy.end_token);
                prop_assert!((beam.score - greedy.score).abs() < 1e-4);
            }
        }
    }

    #[test]
    fn early_stopping_settings_are_ordered_by_how_soon_they_end() {
        let steps = |early_stopping| {
            let config = GenerationConfig {
                max_new_tokens: 40,
                num_beams: 3,
                early_stopping,
                eos_token_ids: vec![0, 1, 2],
                ..GenerationConfig::default()
            };
            let mut toy = Toy::new(12);
            let mut steps = 0;
            for prompt in 3..12 {
                generate(&mut toy, &[vec![prompt]], &config, &mut |_| ()).unwrap();
                steps += toy.calls.len();
            }
            steps
        };
        let [yes, no, never] =
            [EarlyStopping::Yes, EarlyStopping::No, EarlyStopping::Never].map(steps);
        assert!(
            yes < no && no < never && never <= 9 * 40,
            "{yes} {no} {never}"
        );
    }

    #[test]
    fn a_small_vocabulary_gives_fewer_sequences_than_requested() {
        let config = GenerationConfig {
            max_new_tokens: 1,
            num_beams: 3,
            num_return_sequences: 3,
            min_new_tokens: 1,
            eos_token_ids: vec![0],
            ..GenerationConfig::default()
        };
        let found = generate(&mut Toy::new(3), &[vec![1]], &config, &mut |_| ()).unwrap();
        assert_eq!(found[0].len(), 2);
    }
}
