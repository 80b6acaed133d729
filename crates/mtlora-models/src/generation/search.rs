//! The decoding loop: every prompt has its own search, and one call of the model advances the rows of all searches.

use super::beam::Beams;
use super::chain::Chains;
use super::config::GenerationConfig;
use super::decoder::CausalDecoder;
use super::error::GenerationError;
use super::strategy::{Generated, Search};

/// What [`generate`] reports while it runs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Progress<'a> {
    /// A prompt's sequences are ready.
    Finished {
        /// The prompt, counted from 0.
        prompt: usize,
        /// Its sequences, as [`generate`] returns them.
        sequences: &'a [Generated],
    },
    /// Every unfinished prompt has advanced by one token.
    Step {
        /// The step, from 1 to `max_new_tokens`.
        step: usize,
        /// The number of prompts that are not finished.
        running: usize,
    },
}

/// Continues every prompt as `config` says, and reports each step and each finished prompt to `observe`. Returns
/// `num_return_sequences` sequences for each prompt. Beam search returns the best first, and fewer sequences if the
/// settings forbid the rest. With one beam this is greedy decoding, or sampling if `do_sample` is set. The result for a
/// prompt does not depend on the rest of the batch, as long as the model's logits do not. Decoding ends after at most
/// `max_new_tokens` steps.
///
/// # Errors
/// When a setting is out of range or forbids every token; when there is no prompt, or a prompt is empty, too long or
/// has an unknown token; when the model fails or returns logits that are not finite.
pub fn generate<D: CausalDecoder>(
    decoder: &mut D,
    prompts: &[Vec<u32>],
    config: &GenerationConfig,
    observe: &mut dyn FnMut(Progress<'_>),
) -> Result<Vec<Vec<Generated>>, GenerationError<D::Error>> {
    config.validate()?;
    config.validate_for(decoder.vocab_size())?;
    check_prompts(decoder, prompts, config)?;
    if config.num_beams > 1 {
        run::<D, Beams<'_>>(decoder, prompts, config, observe)
    } else {
        run::<D, Chains<'_>>(decoder, prompts, config, observe)
    }
}

/// The search for a prompt that is not finished.
struct Running<S> {
    prompt: usize,
    rows: usize,
    search: S,
}

pub(super) fn run<'a, D: CausalDecoder, S: Search<'a>>(
    decoder: &mut D,
    prompts: &[Vec<u32>],
    config: &'a GenerationConfig,
    observe: &mut dyn FnMut(Progress<'_>),
) -> Result<Vec<Vec<Generated>>, GenerationError<D::Error>> {
    let vocab_size = decoder.vocab_size();
    let failed = |step| move |source| GenerationError::Decoder { step, source };
    let mut results = vec![Vec::new(); prompts.len()];
    let mut all_running: Vec<Running<S>> = prompts
        .iter()
        .enumerate()
        .map(|(prompt, tokens)| Running {
            prompt,
            rows: 1,
            search: S::new(tokens, config),
        })
        .collect();
    let mut scratch = Vec::with_capacity(vocab_size);
    let (mut parents, mut tokens, mut next) = (Vec::new(), Vec::new(), Vec::new());
    let mut logits = decoder.start(prompts).map_err(failed(1))?;

    for step in 1.. {
        let expected = all_running
            .iter()
            .map(|running| running.rows)
            .sum::<usize>()
            * vocab_size;
        if logits.len() != expected {
            return Err(GenerationError::LogitsLength {
                step,
                expected,
                found: logits.len(),
            });
        }
        parents.clear();
        tokens.clear();
        let mut first_row = 0;
        let mut still_running = Vec::with_capacity(all_running.len());
        for mut running in all_running {
            next.clear();
            let rows = &logits[first_row * vocab_size..][..running.rows * vocab_size];
            running
                .search
                .advance(rows, vocab_size, &mut scratch, &mut next)
                .map_err(|stuck| stuck.at(running.prompt, step))?;
            parents.extend(next.iter().map(|(row, _)| first_row + row));
            tokens.extend(next.iter().map(|(_, token)| *token));
            first_row += running.rows;
            running.rows = next.len();
            if next.is_empty() {
                let sequences = running.search.finish();
                observe(Progress::Finished {
                    prompt: running.prompt,
                    sequences: &sequences,
                });
                results[running.prompt] = sequences;
            } else {
                still_running.push(running);
            }
        }
        all_running = still_running;
        observe(Progress::Step {
            step,
            running: all_running.len(),
        });
        if all_running.is_empty() {
            break;
        }
        logits = decoder.step(&parents, &tokens).map_err(failed(step + 1))?;
    }
    Ok(results)
}

pub(super) fn check_prompts<D: CausalDecoder>(
    decoder: &D,
    prompts: &[Vec<u32>],
    config: &GenerationConfig,
) -> Result<(), GenerationError<D::Error>> {
    if prompts.is_empty() {
        return Err(GenerationError::NoPrompts);
    }
    let (vocab_size, max_positions) = (decoder.vocab_size(), decoder.max_positions());
    for (prompt, tokens) in prompts.iter().enumerate() {
        if tokens.is_empty() {
            return Err(GenerationError::EmptyPrompt { prompt });
        }
        if let Some(&token) = tokens.iter().find(|token| **token as usize >= vocab_size) {
            return Err(GenerationError::UnknownToken {
                prompt,
                token,
                vocab_size,
            });
        }
        // The model never reads the last new token.
        if tokens.len().saturating_add(config.max_new_tokens - 1) > max_positions {
            return Err(GenerationError::PromptTooLong {
                prompt,
                tokens: tokens.len(),
                max_new_tokens: config.max_new_tokens,
                max_positions,
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::EarlyStopping;
    use super::super::toy::{Broken, Toy};
    use super::*;
    use proptest::prelude::*;

    const VOCAB: usize = 23;

    fn continued(prompts: &[Vec<u32>], config: &GenerationConfig) -> Vec<Vec<Generated>> {
        generate(&mut Toy::new(VOCAB), prompts, config, &mut |_| ()).unwrap()
    }

    fn failure(
        toy: &mut Toy,
        prompts: &[Vec<u32>],
        config: &GenerationConfig,
    ) -> GenerationError<Broken> {
        generate(toy, prompts, config, &mut |_| ()).unwrap_err()
    }

    prop_compose! {
        fn configs()(
            (max_new_tokens, least) in (1usize..12, 0usize..12),
            (num_beams, do_sample, returned) in (1usize..6, any::<bool>(), 1usize..4),
            length_penalty in -1.0..2.0,
            early_stopping in prop::sample::select(
                vec![EarlyStopping::No, EarlyStopping::Yes, EarlyStopping::Never]
            ),
            no_repeat_ngram_size in 0usize..5,
            repetition_penalty in prop::sample::select(vec![1.0, 0.7, 1.3]),
            (temperature, top_k, top_p, min_p) in (0.2..2.0, 0usize..8, 0.3..1.0, 0.0..0.3),
            seed in any::<u64>(),
            eos_token_ids in prop::collection::vec(0..VOCAB as u32, 0..4),
        ) -> GenerationConfig {
            let do_sample = do_sample && num_beams == 1;
            GenerationConfig {
                max_new_tokens,
                min_new_tokens: least.min(max_new_tokens),
                num_beams,
                length_penalty,
                early_stopping,
                // Without any repetition, the 23 tokens are soon used up.
                no_repeat_ngram_size: if no_repeat_ngram_size == 1 { 2 } else { no_repeat_ngram_size },
                repetition_penalty,
                do_sample,
                temperature,
                top_k,
                top_p,
                min_p,
                seed,
                eos_token_ids,
                num_return_sequences: if do_sample { returned } else { returned.min(num_beams) },
            }
        }
    }

    fn prompts() -> impl Strategy<Value = Vec<Vec<u32>>> {
        prop::collection::vec(prop::collection::vec(0..VOCAB as u32, 1..9), 1..6)
    }

    proptest! {
        #[test]
        fn a_batch_is_its_prompts_one_by_one(prompts in prompts(), config in configs()) {
            let together = continued(&prompts, &config);
            prop_assert_eq!(together.len(), prompts.len());
            for (prompt, sequences) in prompts.iter().zip(&together) {
                prop_assert_eq!(sequences, &continued(std::slice::from_ref(prompt), &config)[0]);
            }
        }

        #[test]
        fn results_keep_to_the_settings(prompts in prompts(), config in configs()) {
            for (prompt, sequences) in prompts.iter().zip(continued(&prompts, &config)) {
                prop_assert_eq!(sequences.len(), config.num_return_sequences);
                for sequence in sequences {
                    prop_assert!(sequence.score.is_finite());
                    prop_assert!(!sequence.tokens.iter().any(|token| config.is_end(*token)));
                    let length = sequence.tokens.len() + usize::from(sequence.end_token.is_some());
                    prop_assert!(length >= config.min_new_tokens);
                    match sequence.end_token {
                        Some(token) => {
                            prop_assert!(config.is_end(token));
                            prop_assert!(sequence.tokens.len() >= config.min_new_tokens);
                            prop_assert!(length <= config.max_new_tokens);
                        }
                        None => prop_assert_eq!(length, config.max_new_tokens),
                    }
                    if config.no_repeat_ngram_size > 0 {
                        let new = sequence.tokens.iter().chain(&sequence.end_token);
                        let whole: Vec<u32> = prompt.iter().chain(new).copied().collect();
                        let ngrams: Vec<&[u32]> = whole.windows(config.no_repeat_ngram_size).collect();
                        // N-grams within the prompt may repeat; an n-gram that ends after the prompt must be new.
                        for (at, ngram) in ngrams.iter().enumerate() {
                            if at + config.no_repeat_ngram_size > prompt.len() {
                                prop_assert!(!ngrams[..at].contains(ngram));
                            }
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn greedy_takes_the_likeliest_and_adds_up_log_probabilities() {
        let config = GenerationConfig {
            max_new_tokens: 5,
            ..GenerationConfig::default()
        };
        let sequence = continued(&[vec![1, 2]], &config).remove(0).remove(0);
        let toy = Toy::new(VOCAB);
        let mut tokens = vec![1, 2];
        let mut score = 0.0;
        for token in &sequence.tokens {
            let logits = toy.logits(&tokens);
            let (best, logit) = (0u32..)
                .zip(&logits)
                .max_by(|a, b| a.1.total_cmp(b.1))
                .unwrap();
            assert_eq!(*token, best);
            score += logit - logits.iter().map(|x| x.exp()).sum::<f32>().ln();
            tokens.push(best);
        }
        assert_eq!(sequence.tokens.len(), 5);
        assert!((sequence.score - score).abs() < 1e-4);
    }

    #[test]
    fn samples_depend_on_the_seed_and_differ_among_themselves() {
        let config = |seed| GenerationConfig {
            do_sample: true,
            max_new_tokens: 12,
            num_return_sequences: 3,
            seed,
            ..GenerationConfig::default()
        };
        let one = continued(&[vec![3]], &config(1)).remove(0);
        assert_eq!(one, continued(&[vec![3]], &config(1)).remove(0));
        assert_ne!(one, continued(&[vec![3]], &config(2)).remove(0));
        assert_ne!(one[0], one[1]);
        assert_ne!(one[1], one[2]);
    }

    #[test]
    fn the_model_reads_a_prompt_once_and_no_finished_rows() {
        let config = GenerationConfig {
            num_beams: 4,
            max_new_tokens: 3,
            ..GenerationConfig::default()
        };
        let mut toy = Toy::new(VOCAB);
        generate(&mut toy, &[vec![1], vec![2, 3]], &config, &mut |_| ()).unwrap();
        assert_eq!(toy.calls, [2, 8, 8]);
        // If every token ends a sequence, one step is enough.
        let config = GenerationConfig {
            eos_token_ids: (0..VOCAB as u32).collect(),
            ..config
        };
        generate(&mut toy, &[vec![1], vec![2, 3]], &config, &mut |_| ()).unwrap();
        assert_eq!(toy.calls, [2]);
    }

    #[test]
    fn progress_reports_every_step_and_prompt() {
        let config = GenerationConfig {
            num_beams: 2,
            max_new_tokens: 9,
            eos_token_ids: vec![0, 5, 9, 14, 20],
            ..GenerationConfig::default()
        };
        let prompts: Vec<Vec<u32>> = (0..7).map(|n| vec![n; n as usize + 1]).collect();
        let (mut finished, mut steps) = (vec![None; prompts.len()], Vec::new());
        let results =
            generate(
                &mut Toy::new(VOCAB),
                &prompts,
                &config,
                &mut |progress| match progress {
                    Progress::Finished { prompt, sequences } => {
                        assert_eq!(finished[prompt].replace(sequences.to_vec()), None);
                    }
                    Progress::Step { step, running } => steps.push((step, running)),
                },
            )
            .unwrap();
        assert_eq!(
            finished.into_iter().map(Option::unwrap).collect::<Vec<_>>(),
            results
        );
        assert!(steps.iter().map(|(step, _)| *step).eq(1..=steps.len()));
        assert!(steps.is_sorted_by(|a, b| a.1 >= b.1));
        assert_eq!(steps.last().unwrap().1, 0);
    }

    #[test]
    fn invalid_logits_are_an_error_that_names_the_step() {
        for (num_beams, do_sample) in [(1, false), (1, true), (3, false)] {
            let config = GenerationConfig {
                num_beams,
                do_sample,
                max_new_tokens: 4,
                ..GenerationConfig::default()
            };
            for bad in [f32::NAN, f32::INFINITY] {
                for at in [1, 3] {
                    let mut toy = Toy::new(VOCAB);
                    toy.spoiled = Some((at, bad));
                    let error = failure(&mut toy, &[vec![1], vec![2]], &config);
                    assert!(
                        matches!(error, GenerationError::NotADistribution { step, prompt: 0 } if step == at),
                        "{error}"
                    );
                }
            }
            let mut toy = Toy::new(VOCAB);
            toy.spoiled = Some((2, f32::NEG_INFINITY));
            generate(&mut toy, &[vec![1]], &config, &mut |_| ()).unwrap();
        }
    }

    #[test]
    fn settings_that_leave_no_token_are_an_error() {
        for (num_beams, do_sample) in [(1, false), (1, true), (3, false)] {
            let config = GenerationConfig {
                num_beams,
                do_sample,
                no_repeat_ngram_size: 1,
                ..GenerationConfig::default()
            };
            let error = failure(&mut Toy::new(4), &[vec![2], vec![1, 3]], &config);
            assert!(
                matches!(
                    error,
                    GenerationError::NoTokenAllowed { step: 3, prompt: 1 }
                ),
                "{error}"
            );
        }
    }

    #[test]
    fn the_models_failures_name_the_step() {
        let config = GenerationConfig::default();
        for at in [1, 2] {
            let mut toy = Toy::new(VOCAB);
            toy.failing = Some(at);
            let error = failure(&mut toy, &[vec![1]], &config);
            assert_eq!(
                error.to_string(),
                format!("the model failed at step {at}: the toy broke")
            );
            let mut toy = Toy::new(VOCAB);
            toy.overlong = Some(at);
            let error = failure(&mut toy, &[vec![1]], &config);
            assert!(
                matches!(error, GenerationError::LogitsLength { step, expected: 23, found: 24 } if step == at)
            );
        }
    }

    #[test]
    fn bad_prompts_and_settings_do_not_reach_the_model() {
        let config = GenerationConfig::default();
        let mut toy = Toy::new(VOCAB);
        toy.max_positions = 64;
        let mut message = |prompts: &[Vec<u32>], config: &GenerationConfig| {
            let text = failure(&mut toy, prompts, config).to_string();
            assert!(toy.calls.is_empty());
            text
        };
        assert!(message(&[], &config).starts_with("there is no prompt"));
        assert!(
            message(&[vec![1], vec![]], &config)
                .starts_with("prompt 1 (counted from 0) has no tokens")
        );
        assert!(message(&[vec![1, 23]], &config).starts_with(
            "prompt 0 (counted from 0) has the token 23, but the model's vocabulary ends at 22"
        ));
        assert!(
            message(&[vec![1, 2]], &config).starts_with(
                "prompt 0 (counted from 0) has 2 tokens, which together with max_new_tokens 64 exceed the model's 64 \
                 positions"
            )
        );
        let beams = |num_beams| GenerationConfig {
            num_beams,
            ..GenerationConfig::default()
        };
        assert!(message(&[vec![1]], &beams(0)).contains("`num_beams` is 0"));
        assert!(message(&[vec![1]], &beams(24)).contains("`num_beams` is 24"));
        // The toy itself asserts that no row grows longer than its positions.
        generate(&mut toy, &[vec![1]], &config, &mut |_| ()).unwrap();
    }
}
