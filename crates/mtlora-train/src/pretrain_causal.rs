//! Causal pre-training: the model learns to name each next token.

use std::time::Instant;

use burn::module::Module;
use burn::tensor::Device;
use mtlora_models::{CausalBatch, CausalLm, CausalText, Gpt2Config};

use crate::batches::{BatchSize, shuffled};
use crate::pretrain::{PretrainError, PretrainProgress};
use crate::pretrain_steps::PretrainSteps;

/// How to pre-train.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CausalPretrainOptions {
    /// Optimizer steps; the lines are gone through as often as it takes.
    pub steps: usize,
    /// Sequences in a batch. An epoch's last batch has what is left.
    pub batch: usize,
    /// The highest learning rate.
    pub lr: f64,
    /// The part of all steps over which the learning rate climbs.
    pub warmup_ratio: f64,
    /// AdamW's decoupled weight decay; biases and layer norms have none.
    pub weight_decay: f64,
    /// Seed of the data's order and of dropout.
    pub seed: u64,
}

/// Trains `model`, which is on an autodiff `device`, to name each next token of `lines`, each a
/// sequence of its own between two end-of-text tokens, cut to the model's length. Returns it
/// without gradients.
///
/// The learning rate is that of [`WarmupLinear`](crate::WarmupLinear). On a CPU, the same arguments
/// give the same model.
///
/// # Errors
/// When there is no text, a line cannot be encoded, or the loss stops being finite.
pub fn pretrain_causal(
    mut model: CausalLm,
    config: &Gpt2Config,
    text: &CausalText,
    lines: &[String],
    options: &CausalPretrainOptions,
    device: &Device,
    progress: &mut dyn FnMut(PretrainProgress),
) -> Result<CausalLm, PretrainError> {
    mtlora_core::seed(device, options.seed);
    let end = config.eos_token_id;
    let mut sequences = Vec::with_capacity(lines.len());
    for line in lines {
        let mut ids = vec![end];
        ids.extend(text.encode_first(line, config.n_positions)?);
        ids.push(end);
        ids.truncate(config.n_positions);
        // Two end marks with nothing between teach nothing.
        if ids.len() > 2 {
            sequences.push(ids);
        }
    }
    if sequences.is_empty() {
        return Err(PretrainError::NoText);
    }
    let lengths: Vec<usize> = sequences.iter().map(Vec::len).collect();
    let size = BatchSize::Sequences(options.batch);
    let batches = (0..).flat_map(|epoch| shuffled(&lengths, size, options.seed, epoch));
    let mut steps = PretrainSteps::new(
        options.lr,
        options.warmup_ratio,
        options.weight_decay,
        options.steps,
        progress,
    );

    for batch in batches.take(options.steps) {
        let start = Instant::now();
        let chosen = batch.iter().map(|at| sequences[*at].as_slice());
        let batch = CausalBatch::new(chosen.map(|ids| (ids, 1..ids.len())), device)?;
        let loss = model.loss(&batch, 0.0).div_scalar(batch.count as f64);
        model = steps.take(model, loss, batch.strip.segments.tokens(), start)?;
    }
    Ok(model.valid())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::path::PathBuf;

    use mtlora_core::{State, devices, state};
    use mtlora_models::{Gpt2Sizes, train_causal_tokenizer};

    use crate::facts::corpus;

    fn run(options: &CausalPretrainOptions) -> Result<(f64, Vec<f64>, State), PretrainError> {
        let lines = corpus(1, 300);
        let tokenizer = train_causal_tokenizer(lines.iter(), 400).unwrap();
        let vocab_size = tokenizer.get_vocab_size(true);
        let mut config = Gpt2Config::new(Gpt2Sizes {
            vocab_size,
            n_embd: 32,
            n_layer: 1,
            n_head: 2,
            n_positions: 64,
            end_of_text: 0,
        })
        .unwrap();
        // The CPU's generator is one for the process, and other tests draw from it meanwhile.
        (config.embd_pdrop, config.attn_pdrop, config.resid_pdrop) = (0.0, 0.0, 0.0);
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
        // More steps than an epoch has.
        let [one, again, other] = [3, 3, 4].map(|seed| run(&options(21, seed)).unwrap());
        assert_eq!(one.1, again.1);
        assert!(one.2 == again.2);
        assert!(one.2 != other.2);
    }

    #[test]
    fn divergence_names_the_step() {
        let mut options = options(9, 0);
        options.lr = f64::INFINITY;
        options.warmup_ratio = 0.0;
        let error = run(&options).unwrap_err();
        assert!(matches!(error, PretrainError::NotFinite { step: 2 }));
    }
}
