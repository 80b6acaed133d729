//! Trains a causal language model to continue inputs with their target texts.

use burn::tensor::Device;
use mtlora_core::{TrainingHooks, read};
use mtlora_models::{CausalBatch, CausalLm, CausalText, ModelError};

use crate::data::fingerprint::Fingerprint;
use crate::metrics::labels::{MetricName, Scores};
use crate::tasks::chat::ChatSequence;
use crate::tasks::data_to_text::{Record, Sequence, target_text};
use crate::training::batches::{BatchSize, by_length};
use crate::training::error::FitError;
use crate::training::fit::{Extras, Trained, fit_with};
use crate::training::learner::{BatchLoss, EvaluationParts, Learner};
use crate::training::observer::Observer;
use crate::training::options::{OptionError, TrainOptions};
use crate::training::ranks::group::ProcessGroup;
use crate::training::ranks::serve::serve;
use crate::training::snapshot::Snapshot;

/// Added to the number of target tokens by which the losses of a step are divided. The published code adds it to
/// avoid a division by zero for a batch without targets. It is added once per step, as if the step were a single
/// batch.
const NO_TARGETS: f64 = 1e-4;
/// The most tokens that a batch has when a causal model is evaluated. A longer text is a batch of its own.
pub const CAUSAL_EVALUATION_TOKENS: usize = 4096;

/// The numbers of texts that were shortened or left out when records were encoded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Encoded {
    /// The number of inputs that were truncated on the left.
    pub cut: usize,
    /// The number of targets that were left out because they are longer than `max_length`.
    pub left_out: usize,
}

/// Encodes one sequence for each input and each of its references, with at most `max_length` tokens. A long text is
/// tokenised only as far as needed, provided that it has spaces between words.
///
/// # Errors
/// [`ModelError::OneOf`] with the number of the record (counted from 1) whose text the tokenizer rejects.
pub fn encode_records(
    text: &CausalText,
    end_of_text: u32,
    records: &[Record],
    max_length: usize,
) -> Result<(Vec<Sequence>, Encoded), ModelError> {
    let (mut sequences, mut count) = (Vec::new(), Encoded::default());
    for (record, number) in records.iter().zip(1..) {
        let failed = |source| ModelError::OneOf {
            number,
            source: Box::new(source),
        };
        let input = text.encode_last(&record.input, max_length);
        let input = input.map_err(failed)?;
        for reference in &record.references {
            let target = text.encode_first(&target_text(reference), max_length);
            let target = target.map_err(failed)?;
            let mut one = Sequence::of(input.clone(), &target, end_of_text);
            match one.cut_input(max_length) {
                Ok(cut) => {
                    count.cut += usize::from(cut > 0);
                    sequences.push(one);
                }
                Err(_) => count.left_out += 1,
            }
        }
    }
    Ok((sequences, count))
}

/// A sequence of tokens, some of which a causal model learns to predict.
pub trait CausalExample {
    /// The tokens.
    fn ids(&self) -> &[u32];

    /// The indices of the tokens that are learned, in order. The first token, which nothing precedes, is not among them.
    fn learned(&self) -> impl Iterator<Item = usize>;

    /// How many tokens are learned.
    fn learned_count(&self) -> usize {
        self.learned().count()
    }

    /// Adds what identifies the sequence to the fingerprint of a training.
    fn fingerprint(&self, fingerprint: &mut Fingerprint);
}

impl CausalExample for Sequence {
    fn ids(&self) -> &[u32] {
        &self.ids
    }

    fn learned(&self) -> impl Iterator<Item = usize> {
        self.targets()
    }

    fn fingerprint(&self, fingerprint: &mut Fingerprint) {
        let Self { ids, loss_from } = self;
        fingerprint.numbers(ids.iter().map(|id| u64::from(*id)));
        fingerprint.number(*loss_from as u64);
    }
}

impl CausalExample for ChatSequence {
    fn ids(&self) -> &[u32] {
        &self.ids
    }

    fn learned(&self) -> impl Iterator<Item = usize> {
        self.learned.iter().cloned().flatten()
    }

    fn fingerprint(&self, fingerprint: &mut Fingerprint) {
        let Self { ids, learned } = self;
        fingerprint.numbers(ids.iter().map(|id| u64::from(*id)));
        for part in learned {
            fingerprint.number(part.start as u64);
            fingerprint.number(part.end as u64);
        }
    }
}

fn batch<S: CausalExample>(
    sequences: &[S],
    which: &[usize],
    device: &Device,
) -> Result<CausalBatch, FitError> {
    let chosen = which.iter().map(|index| &sequences[*index]);
    let chosen = chosen.map(|one| (one.ids(), one.learned()));
    Ok(CausalBatch::new(chosen, device)?)
}

/// How sequences are scored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scoring {
    /// By their loss.
    Loss,
    /// By their loss and their token accuracy.
    Accuracy,
}

/// The sum of the losses of a batch's target tokens, how many of these the model finds the likeliest (0 if that is not scored),
/// and their number.
type Counted = [f64; 3];

impl Scoring {
    fn count<S: CausalExample>(
        self,
        model: &CausalLm,
        sequences: &[S],
        which: &[usize],
        device: &Device,
    ) -> Result<Counted, FitError> {
        let batch = batch(sequences, which, device)?;
        let count = batch.count as f64;
        match self {
            Scoring::Loss => {
                let loss = read(model.loss(&batch, 0.0));
                let loss = loss.map_err(|error| FitError::Device(error.to_string()))?;
                Ok([f64::from(loss.into_iter().sum::<f32>()), 0.0, count])
            }
            Scoring::Accuracy => {
                let predicted = model.predicted(&batch);
                let predicted = predicted.map_err(|error| FitError::Device(error.to_string()))?;
                Ok([predicted.loss, predicted.correct as f64, count])
            }
        }
    }

    /// The scores of batches.
    fn scores(
        self,
        batches: impl IntoIterator<Item = Result<Counted, FitError>>,
    ) -> Result<Scores, FitError> {
        let mut sums = [0.0; 3];
        for batch in batches {
            for (sum, value) in sums.iter_mut().zip(batch?) {
                *sum += value;
            }
        }
        let [sum, correct, count] = sums;
        if count == 0.0 {
            return Err(FitError::NoTargets);
        }
        let loss = sum / count;
        let mut scores = Scores::default();
        scores.set(MetricName::Loss, loss);
        scores.set(MetricName::Perplexity, loss.exp());
        if self == Scoring::Accuracy {
            scores.set(MetricName::TokenAccuracy, correct / count);
        }
        Ok(scores)
    }

    fn evaluate<S: CausalExample>(
        self,
        model: &CausalLm,
        sequences: &[S],
        device: &Device,
    ) -> Result<Scores, FitError> {
        let batches = evaluation_batches(sequences);
        let counted = batches
            .iter()
            .map(|which| self.count(model, sequences, which, device));
        self.scores(counted)
    }
}

fn evaluation_batches<S: CausalExample>(sequences: &[S]) -> Vec<Vec<usize>> {
    by_length(
        &lengths(sequences),
        BatchSize::Tokens(CAUSAL_EVALUATION_TOKENS),
    )
}

/// The mean cross-entropy of the target tokens in nats, and the perplexity, which is its exponential.
///
/// # Errors
/// When no sequence has a target token, or the device fails.
pub fn causal_scores<S: CausalExample>(
    model: &CausalLm,
    sequences: &[S],
    device: &Device,
) -> Result<Scores, FitError> {
    Scoring::Loss.evaluate(model, sequences, device)
}

/// As [`causal_scores`], with the token accuracy: the share of the target tokens that the model finds the likeliest.
///
/// # Errors
/// As [`causal_scores`].
pub fn chat_scores<S: CausalExample>(
    model: &CausalLm,
    sequences: &[S],
    device: &Device,
) -> Result<Scores, FitError> {
    Scoring::Accuracy.evaluate(model, sequences, device)
}

/// The divisor of the summed loss of the sequences with these indices: the number of their target tokens, plus
/// [`NO_TARGETS`].
pub(crate) fn causal_divisor<S: CausalExample>(sequences: &[S], which: &[usize]) -> f64 {
    let targets = which.iter().map(|index| sequences[*index].learned_count());
    targets.sum::<usize>() as f64 + NO_TARGETS
}

/// The summed loss of the sequences with these indices. With `checkpointing`, each layer is computed again in the backward
/// pass.
pub(crate) fn causal_loss<S: CausalExample>(
    model: &CausalLm,
    sequences: &[S],
    LossOptions {
        label_smoothing,
        checkpointing,
    }: LossOptions,
    which: &[usize],
    device: &Device,
) -> Result<BatchLoss, FitError> {
    let batch = batch(sequences, which, device)?;
    let tokens = batch.packed.tokens;
    if !checkpointing {
        return Ok(BatchLoss::new(model.loss(&batch, label_smoothing), tokens));
    }
    let (sum, layers) = model.checkpointed_loss(&batch, label_smoothing);
    Ok(BatchLoss {
        recompute: Some(Box::new(|gradients| layers.gradients(gradients))),
        ..BatchLoss::new(sum, tokens)
    })
}

/// How a training loss is computed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LossOptions {
    pub(crate) label_smoothing: f64,
    /// Whether the backward pass computes each layer again.
    pub(crate) checkpointing: bool,
}

fn lengths<S: CausalExample>(sequences: &[S]) -> Vec<usize> {
    sequences.iter().map(|one| one.ids().len()).collect()
}

struct Causal<'a, S> {
    data: CausalData<'a, S>,
    lengths: Vec<usize>,
    scoring: Scoring,
    /// The batches of the evaluation.
    dev: Vec<Vec<usize>>,
    checkpointing: bool,
}

impl<'a, S: CausalExample> Causal<'a, S> {
    /// # Errors
    /// When the label smoothing is out of range.
    fn new(
        data: CausalData<'a, S>,
        scoring: Scoring,
        options: &TrainOptions,
    ) -> Result<Self, FitError> {
        if !(0.0..1.0).contains(&data.label_smoothing) {
            return Err(OptionError {
                option: "label_smoothing",
                requirement: "be at least 0 and below 1",
            }
            .into());
        }
        Ok(Self {
            lengths: lengths(data.items),
            dev: evaluation_batches(data.dev),
            data,
            scoring,
            checkpointing: options.gradient_checkpointing,
        })
    }
}

/// Each part is what was counted in a batch.
impl<S: CausalExample> EvaluationParts<CausalLm> for Causal<'_, S> {
    fn parts(&self) -> usize {
        self.dev.len()
    }

    fn part(&self, model: &CausalLm, part: usize, device: &Device) -> Result<Vec<f64>, FitError> {
        let which = self.dev.get(part).map_or(&[] as &[usize], Vec::as_slice);
        let counted = self.scoring.count(model, self.data.dev, which, device)?;
        Ok(counted.to_vec())
    }

    fn scores(&self, parts: Vec<Vec<f64>>) -> Result<Scores, FitError> {
        let counted = parts.into_iter().map(|part| match part.as_slice() {
            [sum, correct, count] => Ok([*sum, *correct, *count]),
            _ => Err(FitError::NoTargets),
        });
        self.scoring.scores(counted)
    }
}

impl<S: CausalExample> Learner for Causal<'_, S> {
    type Model = CausalLm;

    fn lengths(&self) -> &[usize] {
        &self.lengths
    }

    fn divisor(&self, which: &[usize]) -> f64 {
        causal_divisor(self.data.items, which)
    }

    fn loss(
        &self,
        model: &CausalLm,
        which: &[usize],
        device: &Device,
    ) -> Result<BatchLoss, FitError> {
        causal_loss(
            model,
            self.data.items,
            LossOptions {
                label_smoothing: self.data.label_smoothing,
                checkpointing: self.checkpointing,
            },
            which,
            device,
        )
    }

    fn evaluate(&self, model: &CausalLm, device: &Device) -> Result<Scores, FitError> {
        self.scoring.evaluate(model, self.data.dev, device)
    }

    fn evaluation_parts(&self) -> Option<&dyn EvaluationParts<CausalLm>> {
        Some(self)
    }

    fn main_metric(&self) -> MetricName {
        MetricName::Loss
    }

    fn fingerprint(&self, fingerprint: &mut Fingerprint) {
        for sequences in [self.data.items, self.data.dev] {
            fingerprint.number(sequences.len() as u64);
            for sequence in sequences {
                sequence.fingerprint(fingerprint);
            }
        }
    }
}

/// The sequences on which [`train_causal`] or [`train_chat`] trains and evaluates.
#[derive(Clone, Copy)]
pub struct CausalData<'a, S = Sequence> {
    /// The training sequences.
    pub items: &'a [S],
    /// The sequences of the dev split.
    pub dev: &'a [S],
    /// The share of each token's training loss that is spread over the whole vocabulary, in `0.0..1.0`.
    pub label_smoothing: f64,
}

/// Trains `model` on an autodiff `device` and returns the state with the lowest loss on the dev sequences.
/// [`Method::prepare`](crate::Method::prepare) must have prepared the model. Label smoothing applies to the training
/// loss only. If `from` is a [`Snapshot`], that training is resumed.
///
/// # Errors
/// When an option is out of range, the loss stops being finite, the snapshot belongs to another training, or the
/// observer fails.
pub fn train_causal(
    model: CausalLm,
    data: CausalData<'_>,
    options: &TrainOptions,
    from: Option<Snapshot>,
    device: &Device,
    observer: &mut dyn Observer,
) -> Result<Trained<CausalLm>, FitError> {
    train_causal_with_hooks(model, data, options, from, device, observer, None)
}

/// Like [`train_causal`], with the training hooks of the model's adapter method, as
/// [`fit_with_hooks`](crate::fit_with_hooks).
///
/// # Errors
/// As [`train_causal`], and when the hooks do not match the model or the number of steps.
pub fn train_causal_with_hooks(
    model: CausalLm,
    data: CausalData<'_>,
    options: &TrainOptions,
    from: Option<Snapshot>,
    device: &Device,
    observer: &mut dyn Observer,
    hooks: Option<&mut dyn TrainingHooks>,
) -> Result<Trained<CausalLm>, FitError> {
    let extras = Extras { hooks, group: None };
    train_causal_with(model, data, options, from, device, observer, extras)
}

/// Like [`train_causal`], with the hooks of an adapter method, or on several ranks, as [`fit_with`].
///
/// # Errors
/// As [`train_causal`] and [`fit_with`].
pub fn train_causal_with(
    model: CausalLm,
    data: CausalData<'_>,
    options: &TrainOptions,
    from: Option<Snapshot>,
    device: &Device,
    observer: &mut dyn Observer,
    extras: Extras<'_>,
) -> Result<Trained<CausalLm>, FitError> {
    let learner = Causal::new(data, Scoring::Loss, options)?;
    train_learner(model, &learner, options, from, device, observer, extras)
}

/// Trains `model` on conversations, as [`train_causal_with`] does on other sequences. The dev sequences are scored by
/// [`chat_scores`].
///
/// # Errors
/// As [`train_causal_with`].
pub fn train_chat(
    model: CausalLm,
    data: CausalData<'_, ChatSequence>,
    options: &TrainOptions,
    from: Option<Snapshot>,
    device: &Device,
    observer: &mut dyn Observer,
    extras: Extras<'_>,
) -> Result<Trained<CausalLm>, FitError> {
    let learner = Causal::new(data, Scoring::Accuracy, options)?;
    train_learner(model, &learner, options, from, device, observer, extras)
}

fn train_learner<S: CausalExample>(
    model: CausalLm,
    learner: &Causal<'_, S>,
    options: &TrainOptions,
    from: Option<Snapshot>,
    device: &Device,
    observer: &mut dyn Observer,
    extras: Extras<'_>,
) -> Result<Trained<CausalLm>, FitError> {
    // The extras may outlive the learner.
    let Extras { hooks, group } = extras;
    let hooks = hooks.map(|hooks| hooks as &mut dyn TrainingHooks);
    let extras = Extras { hooks, group };
    fit_with(model, learner, options, from, device, observer, extras)
}

/// On the ranks after rank 0: computes what its [`train_causal_with`] asks for, as [`serve`].
///
/// # Errors
/// As [`serve`].
pub fn serve_causal(
    model: CausalLm,
    data: CausalData<'_>,
    options: &TrainOptions,
    device: &Device,
    group: &ProcessGroup<'_>,
) -> Result<(), FitError> {
    let learner = Causal::new(data, Scoring::Loss, options)?;
    serve(model, &learner, device, group)
}

/// On the ranks after rank 0: computes what its [`train_chat`] asks for, as [`serve`].
///
/// # Errors
/// As [`serve`].
pub fn serve_chat(
    model: CausalLm,
    data: CausalData<'_, ChatSequence>,
    options: &TrainOptions,
    device: &Device,
    group: &ProcessGroup<'_>,
) -> Result<(), FitError> {
    let learner = Causal::new(data, Scoring::Accuracy, options)?;
    serve(model, &learner, device, group)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::path::PathBuf;

    use burn::module::Module;
    use mtlora_core::{Init, MtLoraConfig, Structure, Targets, devices};
    use mtlora_models::{Gpt2Config, Gpt2Sizes, ModelFamilies, ModelSizes, train_causal_tokenizer};
    use proptest::prelude::*;

    use super::*;
    use crate::tasks::data_to_text::sequence;
    use crate::training::batches::shuffled;
    use crate::training::normalization::LossNormalization;
    use crate::training::step::testing::{MadeFrom, made_by};

    fn model(device: &Device) -> CausalLm {
        let mut config = Gpt2Config::new(Gpt2Sizes {
            vocab_size: 50,
            n_embd: 16,
            n_layer: 1,
            n_head: 2,
            n_positions: 64,
            end_of_text: 0,
        })
        .unwrap();
        (config.embd_pdrop, config.attn_pdrop, config.resid_pdrop) = (0.0, 0.0, 0.0);
        CausalLm::fresh(&config, 3, device).unwrap()
    }

    /// The losses and gradients of a step on the examples in these batches, for each normalization.
    fn made(
        items: &[Sequence],
        label_smoothing: f64,
        batches: &[Vec<usize>],
        normalization: LossNormalization,
    ) -> MadeFrom {
        made_with(
            &model,
            items,
            label_smoothing,
            batches,
            normalization,
            false,
        )
    }

    /// The same for any model, with or without gradient checkpointing.
    fn made_with(
        model: &dyn Fn(&Device) -> CausalLm,
        items: &[Sequence],
        label_smoothing: f64,
        batches: &[Vec<usize>],
        normalization: LossNormalization,
        checkpointing: bool,
    ) -> MadeFrom {
        let device = devices().remove(0).device.autodiff();
        mtlora_core::seed(&device, 5);
        let learner = Causal {
            checkpointing,
            lengths: lengths(items),
            dev: evaluation_batches(items),
            data: CausalData {
                items,
                dev: items,
                label_smoothing,
            },
            scoring: Scoring::Loss,
        };
        made_by(&learner, &model(&device), batches, normalization, &device)
    }

    fn of_lengths(lengths: &[(usize, usize)]) -> Vec<Sequence> {
        let sequence = |(at, (input, target)): (usize, &(usize, usize))| Sequence {
            ids: (0..input + target)
                .map(|one| (7 * at + 3 * one + 1) as u32 % 50)
                .collect(),
            loss_from: *input,
        };
        lengths.iter().enumerate().map(sequence).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        /// Some of the sequences have no target, and the loss of others begins with the first token.
        #[test]
        fn how_a_step_is_split_makes_no_difference(
            sizes in prop::collection::vec((0usize..10, 0usize..25), 1..12),
            amount in 1usize..60, tokens: bool, smooth: bool, seed: u64,
        ) {
            let sizes: Vec<_> = sizes.into_iter().filter(|(input, target)| input + target > 0).collect();
            prop_assume!(!sizes.is_empty());
            let items = of_lengths(&sizes);
            let size = if tokens { BatchSize::Tokens(amount) } else { BatchSize::Sequences(amount) };
            let lengths = lengths(&items);
            let one = by_length(&lengths, BatchSize::Sequences(lengths.len()));
            let several = shuffled(&lengths, size, seed, 0);
            let smoothing = if smooth { 0.1 } else { 0.0 };
            let [whole, split] = [one, several]
                .map(|step| made(&items, smoothing, &step, LossNormalization::Step));
            prop_assert!(whole.apart(&split) < 1e-5, "{}", whole.apart(&split));
            prop_assert_eq!(whole.tokens, split.tokens);
        }
    }

    /// A GPT-2 and a Llama with an adapter, with dropout everywhere: each layer is computed again with its own masks.
    #[test]
    fn checkpointing_gives_the_same_bytes() {
        let gpt2 = |device: &Device| {
            let config = Gpt2Config::new(Gpt2Sizes {
                vocab_size: 50,
                n_embd: 16,
                n_layer: 3,
                n_head: 2,
                n_positions: 64,
                end_of_text: 0,
            })
            .unwrap();
            assert!(config.embd_pdrop > 0.0 && config.attn_pdrop > 0.0);
            (
                CausalLm::fresh(&config, 3, device).unwrap(),
                ["c_attn", "wte"],
            )
        };
        let llama = |device: &Device| {
            let sizes = ModelSizes {
                vocab_size: 50,
                hidden_size: 16,
                layers: 3,
                heads: 4,
                key_value_heads: Some(2),
                head_width: Some(8),
                intermediate_size: Some(24),
                max_tokens: 64,
                end_of_text: Some(0),
            };
            let config = ModelFamilies::builtin()
                .new_causal("llama", &sizes)
                .unwrap();
            (
                CausalLm::fresh(&config, 3, device).unwrap(),
                ["q_proj", "down_proj"],
            )
        };
        let items = of_lengths(&[(3, 2), (5, 20), (4, 9)]);
        let batches = [vec![0, 1], vec![2]];
        for model in [
            &gpt2 as &dyn Fn(&Device) -> (CausalLm, [&'static str; 2]),
            &llama,
        ] {
            for full in [false, true] {
                let model = |device: &Device| {
                    let (model, targets) = model(device);
                    // Every weight trains, the tied embeddings too.
                    if full { model } else { adapted(model, targets) }
                };
                let [without, with] = [false, true].map(|checkpointing| {
                    made_with(
                        &model,
                        &items,
                        0.1,
                        &batches,
                        LossNormalization::Step,
                        checkpointing,
                    )
                });
                assert!(without.loss > 0.0 && without == with, "full: {full}");
            }
        }
    }

    fn adapted(model: CausalLm, targets: [&str; 2]) -> CausalLm {
        MtLoraConfig::new(Structure::Shim)
            .with_rank(2)
            .with_dropout(0.2)
            .with_init(Init::Kaiming)
            .with_target_modules(Targets::names(targets))
            .attach(model)
            .unwrap()
    }

    /// The batches have 2, 20 and no targets. The mean of means gives each batch a third of the weight. The constant
    /// of the published code is added once per step, or once per batch.
    #[test]
    fn both_ways_are_what_arithmetic_says() {
        let items = of_lengths(&[(3, 2), (5, 20), (4, 0)]);
        let each: Vec<f64> = (0..3)
            .map(|at| {
                let alone = made(&items, 0.0, &[vec![at]], LossNormalization::Step);
                alone.loss
            })
            .collect();
        assert_eq!(each[2], 0.0);
        let split = [vec![0], vec![1], vec![2]];
        let near = |found: f64, wanted: f64| {
            assert!((found - wanted).abs() < 1e-5, "{found} {wanted}");
        };
        let step = made(&items, 0.0, &split, LossNormalization::Step);
        let sum = each[0] * 2.0001 + each[1] * 20.0001;
        near(step.loss, sum / 22.0001);
        let batch = made(&items, 0.0, &split, LossNormalization::Batch);
        near(batch.loss, (each[0] + each[1]) / 3.0);
        assert!((step.loss - batch.loss).abs() > 0.1);
        assert!(step.apart(&batch) > 0.05);
    }

    #[test]
    fn a_step_without_any_target_is_divided_by_the_guard() {
        let items = of_lengths(&[(3, 0), (5, 0)]);
        let made = made(&items, 0.1, &[vec![0], vec![1]], LossNormalization::Step);
        assert_eq!((made.loss, made.tokens), (0.0, 8));
    }

    #[test]
    fn the_divisor_counts_what_the_batch_does() {
        let items = of_lengths(&[(3, 2), (0, 4), (4, 0), (1, 1), (0, 1)]);
        let device = devices().remove(0).device;
        // The numbers of targets: 2, 4 without the first token, 0, 1, and a sequence that is only a first token.
        for (which, count) in [
            (vec![0], 2),
            (vec![1], 3),
            (vec![2], 0),
            (vec![3], 1),
            (vec![4], 0),
            (vec![4, 0, 1, 3], 6),
        ] {
            assert_eq!(causal_divisor(&items, &which), count as f64 + 1e-4);
            assert_eq!(batch(&items, &which, &device).unwrap().count, count);
        }
    }

    /// There are more tokens than are evaluated together.
    #[test]
    fn the_loss_of_an_evaluation_is_the_mean_over_all_tokens() {
        let sizes: Vec<_> = (0..240).map(|at| (at % 7, at % 31 + 1)).collect();
        let items = of_lengths(&sizes);
        assert!(lengths(&items).into_iter().sum::<usize>() > CAUSAL_EVALUATION_TOKENS);
        let device = devices().remove(0).device;
        let model = model(&device.clone().autodiff()).valid();
        let loss = |items: &[Sequence]| {
            let scores = causal_scores(&model, items, &device);
            scores.map(|scores| {
                let loss = scores.get(MetricName::Loss).unwrap();
                assert_eq!(scores.get(MetricName::Perplexity), Some(loss.exp()));
                loss
            })
        };
        let (mut sum, mut count) = (0.0, 0);
        for item in &items {
            let targets = item.targets().len();
            // A sequence of one token has no loss.
            if targets > 0 {
                sum += loss(std::slice::from_ref(item)).unwrap() * targets as f64;
                count += targets;
            }
        }
        let (found, mean) = (loss(&items).unwrap(), sum / count as f64);
        assert!((found - mean).abs() < 1e-5, "{found} {mean}");
    }

    fn text() -> CausalText {
        let lines = (0..200).map(|n| format!("the cat number {n} sat on the other mat"));
        let tokenizer = train_causal_tokenizer(lines, 300).unwrap();
        let size = tokenizer.get_vocab_size(true);
        CausalText::new(PathBuf::from("tokenizer.json"), tokenizer, size).unwrap()
    }

    fn record(input: String, references: &[String]) -> Record {
        Record {
            input,
            references: references.to_vec(),
            ..Record::default()
        }
    }

    #[test]
    fn long_records_are_those_of_their_whole_texts() {
        let text = text();
        let input: String = (0..5000).map(|n| format!("cat {n} | ")).collect();
        let long: String = (0..5000).map(|n| format!("the mat {n} ")).collect();
        let records = [
            record(input.clone(), &["the cat sat".into(), long]),
            record("a cat".into(), &["the mat".into()]),
        ];
        let (found, count) = encode_records(&text, 0, &records, 32).unwrap();
        let encode = |part: &str| text.encode(part);
        let mut whole = sequence(encode, 0, &input, "the cat sat").unwrap();
        whole.cut_input(32).unwrap();
        let short = sequence(encode, 0, "a cat", "the mat").unwrap();
        assert_eq!(found, [whole, short]);
        assert_eq!(
            count,
            Encoded {
                cut: 1,
                left_out: 1
            }
        );
    }

    #[test]
    fn a_text_that_cannot_be_encoded_is_named_by_its_record() {
        let whole = "x".repeat((16 << 20) + 1);
        let records = [
            record("a".into(), &["b".into()]),
            record("a".into(), &[whole]),
        ];
        let error = encode_records(&text(), 0, &records, 32).unwrap_err();
        assert!(
            matches!(error, ModelError::OneOf { number: 2, .. }),
            "{error}"
        );
    }
}
