//! Masked-language-model pre-training: the model learns to predict masked tokens.

use std::collections::BTreeMap;
use std::time::Instant;

use burn::module::Module;
use burn::tensor::activation::log_softmax;
use burn::tensor::{Device, Int, Tensor, TensorData};
use mtlora_core::SequenceOffsetsError;
use mtlora_models::{
    MaskedLm, ModelError, PackedBatch, TextConfig, TextEncoder, Tokens, bucket_size,
};
use rand::RngExt;
use rand::seq::{IndexedRandom, SliceRandom};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use crate::pretrain::steps::{PretrainSteps, check_optimization, endless};
use crate::training::learner::BatchLoss;
use crate::training::options::OptionError;

/// The stream of random numbers for the masks. The shuffles of the epochs use the same seed with the streams from 0.
const MASK_STREAM: u64 = u64::MAX;

/// The options of masked-language-model pre-training.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PretrainOptions {
    /// The number of optimizer steps. The lines are repeated as often as needed.
    pub steps: usize,
    /// The number of sequences in a batch. The last batch of an epoch may have fewer.
    pub batch: usize,
    /// The number of batches in a step; 0 counts as 1. The loss of a step is the mean over the chosen tokens of all
    /// its batches, so it does not depend on how the step is split. The last step of an epoch may have fewer batches.
    pub gradient_accumulation: usize,
    /// The highest learning rate of the schedule.
    pub lr: f64,
    /// The share of all steps over which the learning rate rises.
    pub warmup_ratio: f64,
    /// AdamW's decoupled weight decay. Biases and layer norms have none.
    pub weight_decay: f64,
    /// The share of a step's tokens, not counting special tokens, that the model has to predict. At least one token
    /// is chosen, whatever the share.
    pub mask_probability: f64,
    /// The seed of the data's order, of the masks and of dropout.
    pub seed: u64,
}

impl PretrainOptions {
    /// Checks the range of each number.
    ///
    /// # Errors
    /// If a number is out of range; the error names the first.
    pub fn validate(&self) -> Result<(), OptionError> {
        check_optimization(self.lr, self.warmup_ratio, self.weight_decay)?;
        if (0.0..=1.0).contains(&self.mask_probability) {
            Ok(())
        } else {
            Err(OptionError {
                option: "mask_probability",
                requirement: "be from 0 to 1",
            })
        }
    }
}

/// A report on one optimizer step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PretrainProgress {
    /// The number of the step, counted from 1.
    pub step: usize,
    /// The total number of steps.
    pub steps: usize,
    /// The loss of the step before the update: the mean cross-entropy of the predicted tokens, in nats.
    pub loss: f64,
    /// The speed of the step in tokens per second, counting every token that the model read.
    pub tokens_per_second: f64,
}

/// The reason why pre-training failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PretrainError {
    /// An option is out of range.
    #[error(transparent)]
    Option(#[from] OptionError),
    /// No line has a token that can be masked.
    #[error("there is no text to pre-train on: every line is empty")]
    NoText,
    /// The tokenizer has no mask token.
    #[error(
        "the tokenizer has no mask token (`<mask>` or `[MASK]`), which masked-language-model pre-training needs; \
         use a tokenizer that has one"
    )]
    NoMaskToken,
    /// A line cannot be encoded.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// A sequence has no tokens.
    #[error(transparent)]
    SequenceOffsets(#[from] SequenceOffsetsError),
    /// The loss is not finite.
    #[error(
        "the loss is not finite at step {step}: training has diverged; try a lower learning rate \
         or a longer warm-up"
    )]
    NotFinite {
        /// The number of the step, counted from 1.
        step: usize,
    },
    /// The device failed.
    #[error("the device failed: {0}")]
    Device(String),
}

/// Trains `model` on an autodiff `device` to predict masked tokens of `lines`, and returns it without gradients. Each
/// line is a sequence of its own.
///
/// As in BERT (arXiv 1810.04805, section 3.1), the share `mask_probability` of the tokens is chosen. 80 % of the
/// chosen tokens are replaced by the mask token, 10 % by a random token, and 10 % stay as they are. The loss is the
/// mean cross-entropy of the chosen tokens. As in RoBERTa (arXiv 1907.11692, sections 2.4 and 4.1), the tokens are
/// chosen again each time that a line is read, there is no other objective, and AdamW has the betas 0.9 and 0.98 and
/// the epsilon 1e-6.
///
/// The learning rate is that of [`LrScheduler::Linear`](crate::LrScheduler::Linear). On a CPU, the same arguments
/// give the same model.
///
/// # Errors
/// When an option is out of range, there is no text or no mask token, a line cannot be encoded, or the loss stops being
/// finite.
pub fn pretrain(
    mut model: MaskedLm,
    config: &dyn TextConfig,
    text: &TextEncoder,
    lines: &[String],
    options: &PretrainOptions,
    device: &Device,
    progress: &mut dyn FnMut(PretrainProgress),
) -> Result<MaskedLm, PretrainError> {
    options.validate()?;
    mtlora_core::seed(device, options.seed);
    let masking = Masking::new(text, options.mask_probability)?;
    let lines: Vec<(&str, Option<&str>)> = lines.iter().map(|line| (line.as_str(), None)).collect();
    let mut sequences = text.encode_batch(&lines)?;
    sequences.retain(|tokens| tokens.ids.iter().any(|id| masking.may_hide(*id)));
    if sequences.is_empty() {
        return Err(PretrainError::NoText);
    }

    let lengths: Vec<usize> = sequences.iter().map(Tokens::len).collect();
    let batches = endless(
        &lengths,
        options.batch,
        options.gradient_accumulation,
        options.seed,
    );
    let mut rng = ChaCha8Rng::seed_from_u64(options.seed);
    rng.set_stream(MASK_STREAM);

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
        let mut order = step.concat();
        // The order is that of a single batch, so that the masks do not depend on how the step is split.
        order.sort_by_key(|at| lengths[*at]);
        let mut chosen: Vec<Tokens> = order.iter().map(|at| sequences[*at].clone()).collect();
        let hidden = masking.hide(&mut chosen, &mut rng);
        let terms = hidden.places.len();
        let masked: BTreeMap<usize, Masked> =
            order.into_iter().zip(apart(chosen, hidden)).collect();
        let batches = step.iter().map(|batch| batch.iter().map(|at| &masked[at]));
        // Batches without a chosen token have no loss.
        let batches = batches
            .map(Iterator::collect::<Vec<_>>)
            .filter(|batch| batch.iter().any(|one| !one.hidden.places.is_empty()));
        model = steps.take(model, batches.collect(), terms, start, |model, batch| {
            loss(model, config, &batch, device)
        })?;
    }
    Ok(model.valid())
}

/// A sequence with its chosen tokens.
struct Masked {
    tokens: Tokens,
    /// The places are counted from the beginning of the sequence.
    hidden: Hidden,
}

/// Splits the chosen tokens of a packed batch by sequence.
fn apart(sequences: Vec<Tokens>, mut hidden: Hidden) -> Vec<Masked> {
    let one = |tokens: Tokens| {
        let rest = hidden.split_off(tokens.len());
        let hidden = std::mem::replace(&mut hidden, rest);
        Masked { tokens, hidden }
    };
    sequences.into_iter().map(one).collect()
}

/// The summed cross-entropy of the chosen tokens.
fn loss(
    model: &MaskedLm,
    config: &dyn TextConfig,
    batch: &[&Masked],
    device: &Device,
) -> Result<BatchLoss, PretrainError> {
    let sequences: Vec<&Tokens> = batch.iter().map(|one| &one.tokens).collect();
    let packed = PackedBatch::bucketed(&sequences, config, device)?;
    let (mut places, mut ids, mut start) = (Vec::new(), Vec::new(), 0);
    for Masked { tokens, hidden } in batch {
        places.extend(hidden.places.iter().map(|place| start + place));
        ids.extend(hidden.ids.iter().copied());
        start += tokens.len() as i32;
    }
    let count = places.len();
    let rows = bucket_size(count, device);
    places.resize(rows, 0);
    ids.resize(rows, 0);
    let places = Tensor::<1, Int>::from_data(TensorData::new(places, [rows]), device);
    let ids = Tensor::<2, Int>::from_data(TensorData::new(ids, [rows, 1]), device);
    let logits = model.forward(&packed, places);
    let chosen = log_softmax(logits, 1).gather(1, ids);
    Ok(BatchLoss::new(
        chosen.narrow(0, 0, count).sum().neg(),
        packed.tokens,
    ))
}

/// The tokens that the model has to predict.
#[derive(Debug, PartialEq)]
struct Hidden {
    /// The rows of these tokens in the packed batch, ascending.
    places: Vec<i32>,
    /// The original token ids.
    ids: Vec<i32>,
}

impl Hidden {
    /// Keeps the tokens in the first `rows` rows and returns the others, whose rows are then counted from the end of
    /// these.
    fn split_off(&mut self, rows: usize) -> Self {
        let kept = self
            .places
            .partition_point(|place| (*place as usize) < rows);
        let mut places = self.places.split_off(kept);
        for place in &mut places {
            *place -= rows as i32;
        }
        Self {
            places,
            ids: self.ids.split_off(kept),
        }
    }
}

/// Chooses and replaces the tokens that the model has to predict.
struct Masking {
    mask: u32,
    /// The tokens that are never masked and never used as random replacements, sorted.
    special: Vec<u32>,
    /// All other tokens.
    ordinary: Vec<u32>,
    probability: f64,
}

impl Masking {
    fn new(text: &TextEncoder, probability: f64) -> Result<Self, PretrainError> {
        let mask = text.mask_token_id().ok_or(PretrainError::NoMaskToken)?;
        let mut special = text.special_token_ids().to_vec();
        // A tokenizer file may not list the mask token as special.
        special.push(mask);
        special.sort_unstable();
        let vocabulary = u32::try_from(text.vocab_size()).unwrap_or(u32::MAX);
        let ordinary = (0..vocabulary).filter(|id| special.binary_search(id).is_err());
        Ok(Self {
            mask,
            ordinary: ordinary.collect(),
            special,
            probability,
        })
    }

    fn may_hide(&self, id: u32) -> bool {
        self.special.binary_search(&id).is_err()
    }

    /// Masks tokens of `batch`, which has all sequences of a step, and returns the original ids. The number of chosen
    /// tokens is rounded, so that batches of the same size have logits of the same size.
    fn hide(&self, batch: &mut [Tokens], rng: &mut ChaCha8Rng) -> Hidden {
        let ids = batch.iter_mut().flat_map(|tokens| &mut tokens.ids);
        let mut candidates: Vec<(usize, &mut u32)> = ids
            .enumerate()
            .filter(|(_, id)| self.may_hide(**id))
            .collect();
        let part = (candidates.len() as f64 * self.probability).round() as usize;
        let count = part.max(1).min(candidates.len());
        let (chosen, _) = candidates.partial_shuffle(rng, count);
        chosen.sort_unstable_by_key(|(place, _)| *place);
        let mut hidden = Hidden {
            places: Vec::with_capacity(count),
            ids: Vec::with_capacity(count),
        };
        for (place, id) in chosen {
            hidden.places.push(*place as i32);
            hidden.ids.push(**id as i32);
            match rng.random_range(0..10) {
                0..8 => **id = self.mask,
                8 => **id = self.ordinary.choose(rng).copied().unwrap_or(**id),
                _ => {}
            }
        }
        hidden
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::path::PathBuf;

    use mtlora_core::{State, devices, state};
    use mtlora_models::{Architecture, EncoderConfig, EncoderSizes, train_tokenizer};
    use proptest::prelude::*;

    use crate::tasks::acceptability::corpus;
    use crate::training::normalization::Divisors;
    use crate::training::step::testing::made;

    const MAX_TOKENS: usize = 48;

    struct Setup {
        lines: Vec<String>,
        config: EncoderConfig,
        text: TextEncoder,
        device: Device,
    }

    impl Setup {
        fn new() -> Self {
            let lines = corpus(1, 300);
            let tokenizer = train_tokenizer(lines.iter(), 400).unwrap();
            let sizes = EncoderSizes {
                vocab_size: tokenizer.get_vocab_size(true),
                hidden_size: 32,
                num_hidden_layers: 1,
                num_attention_heads: 2,
                intermediate_size: 64,
                max_tokens: MAX_TOKENS,
            };
            let mut config = EncoderConfig::new(Architecture::Roberta, sizes).unwrap();
            // The CPU's random generator is shared by the whole process, and other tests use it at the same time.
            config.hidden_dropout_prob = 0.0;
            config.attention_probs_dropout_prob = 0.0;
            let path = PathBuf::from("tokenizer.json");
            Self {
                text: TextEncoder::new(path, tokenizer, &config, MAX_TOKENS).unwrap(),
                lines,
                config,
                device: devices().remove(0).device.autodiff(),
            }
        }

        fn run(&self, options: &PretrainOptions) -> Result<(Vec<f64>, State), PretrainError> {
            let model = MaskedLm::fresh(&self.config, 5, &self.device).unwrap();
            let mut losses = Vec::new();
            let model = pretrain(
                model,
                &self.config,
                &self.text,
                &self.lines,
                options,
                &self.device,
                &mut |progress| {
                    assert_eq!(
                        (progress.step, progress.steps),
                        (losses.len() + 1, options.steps)
                    );
                    assert!(progress.tokens_per_second > 0.0);
                    losses.push(progress.loss);
                },
            )?;
            Ok((losses, state(&model, |_, _| true)))
        }
    }

    fn options(steps: usize, seed: u64) -> PretrainOptions {
        PretrainOptions {
            steps,
            batch: 16,
            gradient_accumulation: 1,
            lr: 1e-2,
            warmup_ratio: 0.1,
            weight_decay: 0.01,
            mask_probability: 0.15,
            seed,
        }
    }

    #[test]
    fn the_loss_falls_from_that_of_guessing() {
        let setup = Setup::new();
        let (losses, _) = setup.run(&options(60, 0)).unwrap();
        assert_eq!(losses.len(), 60);
        let guessing = (setup.config.vocab_size as f64).ln();
        assert!(
            (losses[0] - guessing).abs() < 0.2,
            "{} {guessing}",
            losses[0]
        );
        let end = losses[50..].iter().sum::<f64>() / 10.0;
        assert!(end < 0.9 * losses[0], "{losses:?}");
    }

    #[test]
    fn the_model_learns_more_than_how_frequent_tokens_are() {
        let setup = Setup::new();
        let masking = Masking::new(&setup.text, 0.15).unwrap();
        let mut counts = vec![0.0; setup.config.vocab_size];
        for line in &setup.lines {
            for id in setup.text.encode(line, None).unwrap().ids {
                counts[id as usize] += f64::from(u8::from(masking.may_hide(id)));
            }
        }
        let all: f64 = counts.iter().sum();
        let parts = counts.iter().map(|count| count / all);
        let entropy: f64 = parts.filter(|p| *p > 0.0).map(|p| -p * p.ln()).sum();
        let (losses, _) = setup.run(&options(400, 0)).unwrap();
        let end = losses[350..].iter().sum::<f64>() / 50.0;
        assert!(end < entropy - 0.2, "{end} {entropy}");
    }

    #[test]
    fn a_seed_gives_one_model() {
        let setup = Setup::new();
        // The number of steps is larger than that of an epoch.
        let [one, again, other] = [3, 3, 4].map(|seed| setup.run(&options(21, seed)).unwrap());
        assert_eq!(one.0, again.0);
        assert!(one.1 == again.1);
        assert!(one.1 != other.1);
    }

    #[test]
    fn tokens_are_hidden_in_the_published_proportions() {
        let setup = Setup::new();
        let masking = Masking::new(&setup.text, 0.15).unwrap();
        let rows: Vec<_> = setup
            .lines
            .iter()
            .map(|line| (line.as_str(), None))
            .collect();
        let original = setup.text.encode_batch(&rows).unwrap();
        let flat = |batch: &[Tokens]| -> Vec<u32> {
            batch.iter().flat_map(|tokens| tokens.ids.clone()).collect()
        };
        let before = flat(&original);
        let may = before.iter().filter(|id| masking.may_hide(**id)).count();
        assert_eq!(may, before.len() - 2 * original.len());

        let mut rng = ChaCha8Rng::seed_from_u64(0);
        let (mut masked, mut random, mut kept) = (0, 0, 0);
        let mut ever = vec![false; before.len()];
        for _ in 0..40 {
            let mut batch = original.clone();
            let hidden = masking.hide(&mut batch, &mut rng);
            let after = flat(&batch);
            assert_eq!(hidden.places.len(), (may as f64 * 0.15).round() as usize);
            assert!(hidden.places.is_sorted_by(|a, b| a < b));
            let mut restored = after.clone();
            for (place, id) in hidden.places.iter().zip(&hidden.ids) {
                let place = *place as usize;
                assert!(masking.may_hide(*id as u32));
                ever[place] = true;
                restored[place] = *id as u32;
                match after[place] {
                    id if id == masking.mask => masked += 1,
                    id if id == before[place] => kept += 1,
                    id => {
                        assert!(masking.may_hide(id) && (id as usize) < setup.config.vocab_size);
                        random += 1;
                    }
                }
            }
            assert_eq!(restored, before);
        }
        let all = f64::from(masked + random + kept);
        for (count, part) in [(masked, 0.8), (random, 0.1), (kept, 0.1)] {
            assert!(
                (f64::from(count) / all - part).abs() < 0.02,
                "{count} of {all}"
            );
        }
        // The masks are dynamic: 1 - 0.85^40 is 99.8 %.
        let reached = ever.iter().filter(|ever| **ever).count();
        assert!(reached as f64 > 0.99 * may as f64, "{reached} of {may}");
    }

    /// The [`Masked`] sequences of one step on the lines with these indices, sorted by length.
    fn masked(setup: &Setup, which: &[usize], probability: f64, seed: u64) -> Vec<Masked> {
        let masking = Masking::new(&setup.text, probability).unwrap();
        let rows: Vec<_> = which
            .iter()
            .map(|at| (setup.lines[*at].as_str(), None))
            .collect();
        let mut sequences = setup.text.encode_batch(&rows).unwrap();
        sequences.sort_by_key(Tokens::len);
        let hidden = masking.hide(&mut sequences, &mut ChaCha8Rng::seed_from_u64(seed));
        apart(sequences, hidden)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn how_a_step_is_split_makes_no_difference(
            which in prop::collection::vec(0usize..300, 1..10),
            probability in 0.0..0.6f64, size in 1usize..8, seed: u64,
        ) {
            let setup = Setup::new();
            let model = MaskedLm::fresh(&setup.config, 5, &setup.device).unwrap();
            let masked = masked(&setup, &which, probability, seed);
            let terms: usize = masked.iter().map(|one| one.hidden.places.len()).sum();
            let step = |size: usize| {
                let batches = masked.chunks(size).map(|batch| batch.iter().collect::<Vec<_>>());
                let batches = batches.filter(|batch| batch.iter().any(|one| !one.hidden.places.is_empty()));
                let batches = batches.map(|batch| (batch, Divisors::step(terms as f64)));
                let loss = |model: &MaskedLm, batch: Vec<&Masked>| {
                    loss(model, &setup.config, &batch, &setup.device)
                };
                made(&model, batches, loss)
            };
            let (whole, split) = (step(masked.len()), step(size));
            prop_assert!(whole.apart(&split) < 1e-5, "{}", whole.apart(&split));
        }
    }

    /// 300 lines make 25 steps of 12 sequences, however the steps are split.
    #[test]
    fn a_step_of_several_batches_is_the_step_of_one() {
        let setup = Setup::new();
        let run = |batch, gradient_accumulation| {
            let options = PretrainOptions {
                batch,
                gradient_accumulation,
                // With this probability short lines have no chosen token, and neither have batches of a single short
                // line.
                mask_probability: 0.05,
                lr: 1e-3,
                ..options(27, 0)
            };
            setup.run(&options).unwrap().0
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
    fn hidden_places_are_those_of_their_sequence() {
        let hidden = Hidden {
            places: vec![1, 2, 7, 9],
            ids: vec![10, 20, 70, 90],
        };
        let tokens = |length: usize| Tokens {
            ids: vec![0; length],
            type_ids: vec![0; length],
        };
        // The sequences begin at the rows 0, 3, 6 and 9.
        let found = apart([3, 3, 3, 1].map(tokens).to_vec(), hidden);
        let found: Vec<_> = found
            .into_iter()
            .map(|one| (one.hidden.places, one.hidden.ids))
            .collect();
        let expected = [
            (vec![1, 2], vec![10, 20]),
            (vec![], vec![]),
            (vec![1], vec![70]),
            (vec![0], vec![90]),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn a_batch_has_a_place_whatever_the_probability() {
        let setup = Setup::new();
        let tokens = setup.text.encode("Dogs bark.", None).unwrap();
        let count = tokens.len() - 2;
        for (probability, expected) in [
            (0.0, 1),
            (1e-9, 1),
            (f64::NAN, 1),
            (-1.0, 1),
            (1.0, count),
            (7.0, count),
        ] {
            let masking = Masking::new(&setup.text, probability).unwrap();
            let mut rng = ChaCha8Rng::seed_from_u64(0);
            let hidden = masking.hide(&mut [tokens.clone()], &mut rng);
            assert_eq!(hidden.places.len(), expected, "{probability}");
        }
    }

    #[test]
    fn blank_lines_are_no_text() {
        let mut setup = Setup::new();
        setup.lines.insert(7, String::new());
        setup.run(&options(20, 0)).unwrap();
        setup.lines = vec![String::new(); 3];
        let error = setup.run(&options(2, 0)).unwrap_err();
        assert!(matches!(error, PretrainError::NoText), "{error}");
    }

    #[test]
    fn a_tokenizer_without_a_mask_is_refused() {
        let mut setup = Setup::new();
        let json = setup.text.tokenizer().to_string(false).unwrap();
        let json = json.replace("<mask>", "<none>");
        let path = PathBuf::from("tokenizer.json");
        setup.text =
            TextEncoder::from_bytes(&path, json.as_bytes(), &setup.config, MAX_TOKENS).unwrap();
        let error = setup.run(&options(2, 0)).unwrap_err();
        assert!(matches!(error, PretrainError::NoMaskToken), "{error}");
    }

    #[test]
    fn divergence_names_the_step() {
        let mut options = options(9, 0);
        // This is infinite in the 32 bits of the weights; an infinite rate itself is refused.
        options.lr = f64::MAX;
        options.warmup_ratio = 0.0;
        let error = Setup::new().run(&options).unwrap_err();
        assert!(
            matches!(error, PretrainError::NotFinite { step: 2 }),
            "{error}"
        );
    }
}
