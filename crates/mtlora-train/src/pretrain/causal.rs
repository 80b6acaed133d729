//! Causal pre-training: the model learns to predict each next token.

use std::time::Instant;

use burn::module::Module;
use burn::tensor::Device;
use mtlora_models::{CausalBatch, CausalLm, CausalModelConfig, CausalText};

use crate::pretrain::masked_lm::{PretrainError, PretrainProgress};
use crate::pretrain::steps::{PretrainSteps, check_optimization, endless};
use crate::training::learner::BatchLoss;
use crate::training::options::OptionError;

/// The smallest number of tokens of a sequence that has text: one between two end-of-text tokens.
const SHORTEST: usize = 3;

/// The options of causal pre-training.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CausalPretrainOptions {
    /// The number of optimizer steps. The lines are repeated as often as needed.
    pub steps: usize,
    /// The number of sequences in a batch. The last batch of an epoch may have fewer.
    pub batch: usize,
    /// The number of batches in a step; 0 counts as 1. The loss of a step is the mean over the tokens of all its
    /// batches, so it does not depend on how the step is split. The last step of an epoch may have fewer batches.
    pub gradient_accumulation: usize,
    /// The highest learning rate of the schedule.
    pub lr: f64,
    /// The share of all steps over which the learning rate rises.
    pub warmup_ratio: f64,
    /// AdamW's decoupled weight decay. Biases and layer norms have none.
    pub weight_decay: f64,
    /// The seed of the data's order and of dropout.
    pub seed: u64,
}

impl CausalPretrainOptions {
    /// Checks the range of each number.
    ///
    /// # Errors
    /// If a number is out of range; the error names the first.
    pub fn validate(&self) -> Result<(), OptionError> {
        check_optimization(self.lr, self.warmup_ratio, self.weight_decay)
    }
}

/// Trains `model` on an autodiff `device` to predict each next token of `lines`, and returns it without gradients.
/// Each line is a sequence of its own between two end-of-text tokens, truncated to the model's maximum length.
///
/// The learning rate is that of [`LrScheduler::Linear`](crate::LrScheduler::Linear). On a CPU, the same arguments
/// give the same model.
///
/// # Errors
/// When an option is out of range, there is no text, a line cannot be encoded, or the loss stops being finite.
pub fn pretrain_causal(
    mut model: CausalLm,
    config: &dyn CausalModelConfig,
    text: &CausalText,
    lines: &[String],
    options: &CausalPretrainOptions,
    device: &Device,
    progress: &mut dyn FnMut(PretrainProgress),
) -> Result<CausalLm, PretrainError> {
    options.validate()?;
    if config.max_tokens() < SHORTEST {
        return Err(PretrainError::Option(OptionError {
            option: "max_length",
            requirement: "be at least 3: a text is between two end-of-text tokens",
        }));
    }
    mtlora_core::seed(device, options.seed);
    let end = config.end_of_text();
    let mut sequences = Vec::with_capacity(lines.len());
    for line in lines {
        let mut ids = vec![end];
        ids.extend(text.encode_first(line, config.max_tokens())?);
        ids.push(end);
        ids.truncate(config.max_tokens());
        // Two end-of-text tokens without text between them teach nothing.
        if ids.len() >= SHORTEST {
            sequences.push(ids);
        }
    }
    if sequences.is_empty() {
        return Err(PretrainError::NoText);
    }
    let lengths: Vec<usize> = sequences.iter().map(Vec::len).collect();
    let batches = endless(
        &lengths,
        options.batch,
        options.gradient_accumulation,
        options.seed,
    );
    let mut steps = PretrainSteps::new(
        options.lr,
        options.warmup_ratio,
        options.weight_decay,
        options.steps,
        device,
        progress,
    );

    for step in batches.take(options.steps) {
        let start = Instant::now();
        // The model predicts every token of a sequence except the first.
        let terms = step.iter().flatten().map(|at| sequences[*at].len() - 1);
        let terms = terms.sum();
        model = steps.take(model, step, terms, start, |model, batch| {
            let chosen = batch.iter().map(|at| sequences[*at].as_slice());
            loss(model, chosen, device)
        })?;
    }
    Ok(model.valid())
}

/// The summed loss on each next token of these sequences.
fn loss<'a>(
    model: &CausalLm,
    sequences: impl Iterator<Item = &'a [u32]>,
    device: &Device,
) -> Result<BatchLoss, PretrainError> {
    let batch = CausalBatch::new(sequences.map(|ids| (ids, 1..ids.len())), device)?;
    Ok(BatchLoss::new(model.loss(&batch, 0.0), batch.packed.tokens))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::path::PathBuf;

    use mtlora_core::{State, devices, state};
    use mtlora_models::{Gpt2Config, Gpt2Sizes, train_causal_tokenizer};
    use proptest::prelude::*;

    use crate::tasks::facts::corpus;
    use crate::training::normalization::Divisors;
    use crate::training::step::testing::made;

    fn config(vocab_size: usize) -> Gpt2Config {
        let mut config = Gpt2Config::new(Gpt2Sizes {
            vocab_size,
            n_embd: 32,
            n_layer: 1,
            n_head: 2,
            n_positions: 64,
            end_of_text: 0,
        })
        .unwrap();
        // The CPU's random generator is shared by the whole process, and other tests use it at the same time.
        (config.embd_pdrop, config.attn_pdrop, config.resid_pdrop) = (0.0, 0.0, 0.0);
        config
    }

    fn run(options: &CausalPretrainOptions) -> Result<(f64, Vec<f64>, State), PretrainError> {
        let lines = corpus(1, 300);
        let tokenizer = train_causal_tokenizer(lines.iter(), 400).unwrap();
        let vocab_size = tokenizer.get_vocab_size(true);
        let config = config(vocab_size);
        let text = CausalText::new(PathBuf::from("tokenizer.json"), tokenizer, vocab_size).unwrap();
        let device = devices().remove(0).device.autodiff();
        let model = CausalLm::fresh(&config, 5, &device).unwrap();
        let mut losses = Vec::new();
        let model = pretrain_causal(
            model,
            &config,
            &text,
            &lines,
            options,
            &device,
            &mut |progress| losses.push(progress.loss),
        )?;
        let guessing = (vocab_size as f64).ln();
        Ok((guessing, losses, state(&model, |_, _| true)))
    }

    fn options(steps: usize, seed: u64) -> CausalPretrainOptions {
        CausalPretrainOptions {
            steps,
            batch: 16,
            gradient_accumulation: 1,
            lr: 1e-2,
            warmup_ratio: 0.1,
            weight_decay: 0.01,
            seed,
        }
    }

    #[test]
    fn the_loss_falls_from_that_of_guessing() {
        let (guessing, losses, _) = run(&options(60, 0)).unwrap();
        assert!((losses[0] - guessing).abs() < 0.2, "{}", losses[0]);
        let end = losses[50..].iter().sum::<f64>() / 10.0;
        assert!(end < 0.7 * guessing, "{losses:?}");
    }

    #[test]
    fn a_seed_gives_one_model() {
        // The number of steps is larger than that of an epoch.
        let [one, again, other] = [3, 3, 4].map(|seed| run(&options(21, seed)).unwrap());
        assert_eq!(one.1, again.1);
        assert!(one.2 == again.2);
        assert!(one.2 != other.2);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn how_a_step_is_split_makes_no_difference(
            mut sequences in prop::collection::vec(prop::collection::vec(0u32..50, 2..40), 1..10),
            size in 1usize..8,
        ) {
            let device = devices().remove(0).device.autodiff();
            let model = CausalLm::fresh(&config(50), 5, &device).unwrap();
            sequences.sort_by_key(Vec::len);
            let terms: usize = sequences.iter().map(|ids| ids.len() - 1).sum();
            let step = |size: usize| {
                let batches = sequences.chunks(size);
                let batches = batches.map(|batch| (batch, Divisors::step(terms as f64)));
                made(&model, batches, |model: &CausalLm, batch: &[Vec<u32>]| {
                    loss(model, batch.iter().map(Vec::as_slice), &device)
                })
            };
            let (whole, split) = (step(sequences.len()), step(size));
            prop_assert!(whole.apart(&split) < 1e-5, "{}", whole.apart(&split));
        }
    }

    /// 300 lines make 25 steps of 12 sequences, however the steps are split.
    #[test]
    fn a_step_of_several_batches_is_the_step_of_one() {
        let run = |batch, gradient_accumulation| {
            let options = CausalPretrainOptions {
                batch,
                gradient_accumulation,
                lr: 1e-3,
                ..options(27, 0)
            };
            run(&options).unwrap().1
        };
        let whole = run(12, 1);
        for (batch, accumulation) in [(4, 3), (6, 2), (5, 3), (1, 12)] {
            let split = run(batch, accumulation);
            // Steps of 5, 5 and 5 sequences give another result.
            let same = batch * accumulation == 12;
            let apart = whole.iter().zip(&split).map(|(a, b)| (a - b).abs());
            let most = apart.fold(0.0, f64::max);
            assert_eq!(most < 1e-4, same, "{batch} x {accumulation}: {most}");
        }
    }

    #[test]
    fn divergence_names_the_step() {
        let mut options = options(9, 0);
        // This is infinite in the 32 bits of the weights; an infinite rate itself is refused.
        options.lr = f64::MAX;
        options.warmup_ratio = 0.0;
        let error = run(&options).unwrap_err();
        assert!(matches!(error, PretrainError::NotFinite { step: 2 }));
    }
}
