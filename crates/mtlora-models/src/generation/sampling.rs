//! Drawing a token from a distribution.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use super::config::GenerationConfig;
use super::error::Stuck;
use super::softmax::maximum;
use super::top::TopCandidates;

/// The number of likeliest tokens that are sorted first when looking for the set that makes up `top_p`.
const FIRST_LOOK: usize = 64;

/// The random numbers of a prompt's `index`th sequence. They depend on the prompt's tokens, not on its position, so
/// that neither the batch nor the order of the prompts changes what is drawn.
pub(super) fn random_numbers(seed: u64, prompt: &[u32], index: usize) -> ChaCha8Rng {
    // FNV-1a gives the same hash in every build and on every machine, which the standard library does not promise.
    let stream = prompt
        .iter()
        .flat_map(|token| token.to_le_bytes())
        .chain((index as u64).to_le_bytes())
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    random.set_stream(stream);
    random
}

/// Draws a token from the softmax of `scores`, `[vocab]`, after temperature, top-k, top-p and min-p have been applied in this
/// order, as in Hugging Face's code. Overwrites the scores.
pub(super) fn draw(
    scores: &mut [f32],
    config: &GenerationConfig,
    random: &mut ChaCha8Rng,
) -> Result<u32, Stuck> {
    let max = maximum(scores);
    if max == f32::NEG_INFINITY {
        return Err(Stuck::NoTokenAllowed);
    }
    if max == f32::INFINITY {
        return Err(Stuck::NotADistribution);
    }
    // Subtracting the maximum first does not change the probabilities, and keeps every temperature from overflowing.
    for score in scores.iter_mut() {
        *score = (f64::from(*score - max) / config.temperature) as f32;
    }
    if (1..scores.len()).contains(&config.top_k) {
        keep_top_k(scores, config.top_k);
    }
    // The likeliest token is never banned, and its weight is 1.
    let is_likely = |(_, weight): &(u32, f64)| *weight >= config.min_p;
    if config.top_p < 1.0 {
        let nucleus = top_p(scores, config.top_p).into_iter().filter(is_likely);
        return Ok(pick(nucleus, random));
    }
    let weights = (0u32..).zip(scores.iter().map(|score| weight(*score)));
    Ok(pick(weights.filter(is_likely), random))
}

/// An unnormalized probability.
fn weight(score: f32) -> f64 {
    f64::from(score.exp())
}

/// Bans the tokens with scores below the `k`th best. Ties with it stay, as in Hugging Face's code.
fn keep_top_k(scores: &mut [f32], k: usize) {
    let mut top = TopCandidates::new(k);
    top.offer(0, 0.0, scores);
    let Some(worst) = top.take().nth(k - 1) else {
        return;
    };
    for score in scores {
        if *score < worst.score {
            *score = f32::NEG_INFINITY;
        }
    }
}

/// The smallest set of likeliest tokens, at least one, whose probabilities sum to at least `p`, with their weights.
fn top_p(scores: &[f32], p: f64) -> Vec<(u32, f64)> {
    let enough = p * scores.iter().map(|score| weight(*score)).sum::<f64>();
    let mut look = FIRST_LOOK;
    loop {
        let mut top = TopCandidates::new(look);
        top.offer(0, 0.0, scores);
        let mut mass = 0.0;
        let mut nucleus = Vec::new();
        for candidate in top.take() {
            let weight = weight(candidate.score);
            nucleus.push((candidate.token, weight));
            mass += weight;
            if mass >= enough {
                return nucleus;
            }
        }
        if look >= scores.len() {
            return nucleus;
        }
        look *= 8;
    }
}

/// Draws one of the tokens with a probability proportional to its weight.
fn pick(
    weights: impl IntoIterator<Item = (u32, f64), IntoIter: Clone>,
    random: &mut ChaCha8Rng,
) -> u32 {
    let weights = weights.into_iter();
    let total: f64 = weights.clone().map(|(_, weight)| weight).sum();
    let mut left = random.random::<f64>() * total;
    let mut picked = 0;
    for (token, weight) in weights.filter(|(_, weight)| *weight > 0.0) {
        // Rounding can leave a remainder after the last token; the last token is drawn then.
        picked = token;
        if left < weight {
            break;
        }
        left -= weight;
    }
    picked
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    const OUT: f32 = f32::NEG_INFINITY;

    fn sampling() -> GenerationConfig {
        GenerationConfig {
            do_sample: true,
            ..GenerationConfig::default()
        }
    }

    /// Draws many times and compares the frequency of each token with its probability by Pearson's statistic. With this
    /// many degrees of freedom, a correct sampler exceeds the bound less than once in a million runs.
    fn follows(scores: &[f32], config: &GenerationConfig, probabilities: &[f64]) {
        const DRAWS: usize = 40_000;
        let mut random = random_numbers(config.seed, &[1, 2, 3], 0);
        let mut counts = vec![0usize; scores.len()];
        let mut scratch = Vec::new();
        for _ in 0..DRAWS {
            scratch.clear();
            scratch.extend_from_slice(scores);
            counts[draw(&mut scratch, config, &mut random).unwrap() as usize] += 1;
        }
        let mut statistic = 0.0;
        let mut freedom = -1.0;
        for (count, probability) in counts.iter().zip(probabilities) {
            if *probability == 0.0 {
                assert_eq!(*count, 0);
            } else {
                let expected = probability * DRAWS as f64;
                statistic += (*count as f64 - expected).powi(2) / expected;
                freedom += 1.0;
            }
        }
        // Laurent & Massart (2000), lemma 1, at a probability of exp(-14).
        let bound = freedom + 2.0 * f64::sqrt(freedom * 14.0) + 28.0;
        assert!(statistic < bound, "{statistic} >= {bound}");
    }

    fn softmax(scores: &[f32], temperature: f64) -> Vec<f64> {
        let weights: Vec<f64> = scores
            .iter()
            .map(|score| (f64::from(*score) / temperature).exp())
            .collect();
        let total: f64 = weights.iter().sum();
        weights.iter().map(|weight| weight / total).collect()
    }

    #[test]
    fn frequencies_follow_the_softmax() {
        let scores: Vec<f32> = (0..50).map(|n| (n * n % 23) as f32 / 8.0).collect();
        for temperature in [0.7, 1.0, 2.0] {
            let config = GenerationConfig {
                temperature,
                ..sampling()
            };
            follows(&scores, &config, &softmax(&scores, temperature));
        }
    }

    #[test]
    fn warpers_cut_where_hugging_face_cuts() {
        // Probabilities in proportion to 1, 2, 2, 5, 10; the fifth token is banned.
        let scores = [1.0f32, 2.0, 2.0, 5.0, 0.0, 10.0].map(f32::ln);
        for (min_p, weights) in [
            (0.0, [1.0, 2.0, 2.0, 5.0, 0.0, 10.0]),
            (0.15, [0.0, 2.0, 2.0, 5.0, 0.0, 10.0]),
            (0.3, [0.0, 0.0, 0.0, 5.0, 0.0, 10.0]),
            (1.0, [0.0, 0.0, 0.0, 0.0, 0.0, 10.0]),
        ] {
            for top_p in [1.0, 0.999] {
                let config = GenerationConfig {
                    min_p,
                    top_p,
                    ..sampling()
                };
                let total: f64 = weights.iter().sum();
                follows(&scores, &config, &weights.map(|weight| weight / total));
            }
        }
        for (top_k, top_p, weights) in [
            (1, 1.0, [0.0, 0.0, 0.0, 0.0, 0.0, 10.0]),
            (2, 1.0, [0.0, 0.0, 0.0, 5.0, 0.0, 10.0]),
            // The third place is a tie, so both tokens stay.
            (3, 1.0, [0.0, 2.0, 2.0, 5.0, 0.0, 10.0]),
            (100, 1.0, [1.0, 2.0, 2.0, 5.0, 0.0, 10.0]),
            (0, 0.0, [0.0, 0.0, 0.0, 0.0, 0.0, 10.0]),
            (0, 0.49, [0.0, 0.0, 0.0, 0.0, 0.0, 10.0]),
            (0, 0.51, [0.0, 0.0, 0.0, 5.0, 0.0, 10.0]),
            (0, 0.94, [0.0, 2.0, 2.0, 5.0, 0.0, 10.0]),
            (0, 0.99, [1.0, 2.0, 2.0, 5.0, 0.0, 10.0]),
            // Top-p applies to the tokens that top-k left: 0.6 of 15.
            (2, 0.6, [0.0, 0.0, 0.0, 0.0, 0.0, 10.0]),
            (2, 0.7, [0.0, 0.0, 0.0, 5.0, 0.0, 10.0]),
        ] {
            let config = GenerationConfig {
                top_k,
                top_p,
                ..sampling()
            };
            let total: f64 = weights.iter().sum();
            follows(&scores, &config, &weights.map(|weight| weight / total));
        }
    }

    proptest! {
        #[test]
        fn a_nucleus_is_the_fewest_that_suffice(
            scores in prop::collection::vec(-6f32..0.0, 1..400),
            p in 0f64..1.0,
        ) {
            let nucleus = top_p(&scores, p);
            let mut sorted: Vec<f64> = scores.iter().map(|s| weight(*s)).collect();
            sorted.sort_by(|a, b| b.total_cmp(a));
            let enough = p * scores.iter().map(|s| weight(*s)).sum::<f64>();
            let mut above = 0.0;
            let fewest = sorted.iter().take_while(|weight| {
                let needed = above < enough;
                above += **weight;
                needed
            }).count();
            prop_assert_eq!(nucleus.len(), fewest.max(1));
        }
    }

    #[test]
    fn extreme_scores_neither_panic_nor_draw_banned_tokens() {
        let mut random = random_numbers(0, &[1], 0);
        for temperature in [1e-300, 1e-10, 1e10, 1e300] {
            let config = GenerationConfig {
                temperature,
                ..sampling()
            };
            for _ in 0..100 {
                let token = draw(&mut [OUT, 3.0, 2.0, OUT], &config, &mut random).unwrap();
                assert!(token == 1 || (token == 2 && temperature > 1.0));
            }
        }
        let config = sampling();
        assert_eq!(
            draw(&mut [OUT; 3], &config, &mut random),
            Err(Stuck::NoTokenAllowed)
        );
        assert_eq!(
            draw(&mut [0.0, f32::INFINITY], &config, &mut random),
            Err(Stuck::NotADistribution)
        );
    }

    #[test]
    fn random_numbers_differ_by_seed_prompt_and_sequence() {
        let first =
            |seed, prompt: &[u32], index| random_numbers(seed, prompt, index).random::<u64>();
        let one = first(1, &[5, 6], 0);
        assert_eq!(one, first(1, &[5, 6], 0));
        for other in [
            first(2, &[5, 6], 0),
            first(1, &[6, 5], 0),
            first(1, &[5, 6], 1),
        ] {
            assert_ne!(one, other);
        }
    }
}
