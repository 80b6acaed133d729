//! Trains a classifier or a regression.

use burn::tensor::Device;
use mtlora_core::TrainingHooks;
use mtlora_models::{ClassifierModelConfig, PackedBatch, SequenceClassifier, Tokens};

use crate::data::example::{Objective, Target};
use crate::data::fingerprint::Fingerprint;
use crate::inference::evaluation::{
    Item, evaluate, logits_of, predict_batch, prediction_batches, score_logits,
};
use crate::metrics::labels::{MetricError, MetricName, Scores};
use crate::tasks::task::Task;
use crate::training::error::FitError;
use crate::training::fit::{Extras, Trained, fit_with};
use crate::training::learner::{BatchLoss, EvaluationParts, Learner};
use crate::training::loss::loss_sum;
use crate::training::observer::Observer;
use crate::training::options::TrainOptions;
use crate::training::ranks::group::ProcessGroup;
use crate::training::ranks::serve::serve;
use crate::training::snapshot::Snapshot;

/// The examples of a classification or a regression, as [`fit_with`] trains on them.
struct Classification<'a> {
    data: ClassificationData<'a>,
    lengths: Vec<usize>,
    /// The batches of the evaluation.
    dev: Vec<Vec<usize>>,
}

impl<'a> Classification<'a> {
    fn new(data: ClassificationData<'a>) -> Self {
        Self {
            lengths: data.items.iter().map(|item| item.tokens.len()).collect(),
            dev: prediction_batches(data.dev),
            data,
        }
    }
}

impl Learner for Classification<'_> {
    type Model = SequenceClassifier;

    fn lengths(&self) -> &[usize] {
        &self.lengths
    }

    fn divisor(&self, examples: &[usize]) -> f64 {
        classifier_divisor(examples)
    }

    fn loss(
        &self,
        model: &SequenceClassifier,
        batch: &[usize],
        device: &Device,
    ) -> Result<BatchLoss, FitError> {
        let objective = self.data.task.objective();
        classifier_loss(
            model,
            self.data.config,
            objective,
            self.data.items,
            batch,
            device,
        )
    }

    fn evaluate(&self, model: &SequenceClassifier, device: &Device) -> Result<Scores, FitError> {
        evaluate(
            model,
            self.data.config,
            self.data.dev,
            self.data.task,
            device,
        )
    }

    fn evaluation_parts(&self) -> Option<&dyn EvaluationParts<SequenceClassifier>> {
        Some(self)
    }

    fn main_metric(&self) -> MetricName {
        self.data.task.main_metric()
    }

    fn fingerprint(&self, fingerprint: &mut Fingerprint) {
        for items in [self.data.items, self.data.dev] {
            fingerprint.number(items.len() as u64);
            for Item { tokens, target } in items {
                for ids in [&tokens.ids, &tokens.type_ids] {
                    fingerprint.numbers(ids.iter().map(|id| u64::from(*id)));
                }
                fingerprint.numbers(target.iter().map(|target| match target {
                    Target::Class(class) => *class as u64,
                    Target::Value(value) => u64::from(value.to_bits()),
                }));
            }
        }
    }
}

/// Each part is the logits of a batch.
impl EvaluationParts<SequenceClassifier> for Classification<'_> {
    fn parts(&self) -> usize {
        self.dev.len()
    }

    fn part(
        &self,
        model: &SequenceClassifier,
        part: usize,
        device: &Device,
    ) -> Result<Vec<f64>, FitError> {
        let ClassificationData { config, dev, .. } = self.data;
        let which = self.dev.get(part).map_or(&[] as &[usize], Vec::as_slice);
        let logits = predict_batch(model, config, dev, which, device)?;
        Ok(logits.into_iter().map(f64::from).collect())
    }

    fn scores(&self, parts: Vec<Vec<f64>>) -> Result<Scores, FitError> {
        let ClassificationData {
            config, task, dev, ..
        } = self.data;
        let narrow = |part: Vec<f64>| part.into_iter().map(|logit| logit as f32).collect();
        let parts = parts.into_iter().map(narrow);
        let logits = logits_of(dev.len(), config.num_labels(), &self.dev, parts)?;
        score_logits(logits, dev, task)
    }
}

/// The divisor of the summed loss of these examples, each of which has one loss.
pub(crate) fn classifier_divisor(examples: &[usize]) -> f64 {
    examples.len() as f64
}

/// The summed loss of the items with these indices.
pub(crate) fn classifier_loss(
    model: &SequenceClassifier,
    config: &dyn ClassifierModelConfig,
    objective: &Objective,
    items: &[Item],
    batch: &[usize],
    device: &Device,
) -> Result<BatchLoss, FitError> {
    let items = || batch.iter().map(|index| &items[*index]);
    let sequences: Vec<&Tokens> = items().map(|item| &item.tokens).collect();
    let targets: Option<Vec<Target>> = items().map(|item| item.target).collect();
    let targets = targets.ok_or(FitError::NoTargets)?;
    let packed = PackedBatch::bucketed(&sequences, config, device)?;
    let sum = loss_sum(model.forward(&packed), &targets, objective);
    let sum = sum.map_err(|error| of_item(error, batch))?;
    Ok(BatchLoss::new(sum, packed.tokens))
}

/// Replaces the example's index in the batch by its index among all items.
fn of_item(error: MetricError, batch: &[usize]) -> MetricError {
    match error {
        MetricError::Example { example, message } => MetricError::Example {
            example: batch.get(example).copied().unwrap_or(example),
            message,
        },
        other => other,
    }
}

/// The examples on which [`train()`] trains and evaluates.
#[derive(Clone, Copy)]
pub struct ClassificationData<'a> {
    /// The configuration of the model with the task's head.
    pub config: &'a dyn ClassifierModelConfig,
    /// The task, which defines the kind of targets and the metrics.
    pub task: &'a dyn Task,
    /// The training examples.
    pub items: &'a [Item],
    /// The examples of the dev split.
    pub dev: &'a [Item],
}

/// Trains `model` on an autodiff `device` and returns the state with the best score on the dev examples.
/// [`Method::prepare`](crate::Method::prepare) must have prepared the model. If `from` is a [`Snapshot`], that
/// training is resumed.
///
/// # Errors
/// When an option is out of range, a target is missing, the loss stops being finite, the snapshot belongs to another
/// training, or the observer fails.
pub fn train(
    model: SequenceClassifier,
    data: ClassificationData<'_>,
    options: &TrainOptions,
    from: Option<Snapshot>,
    device: &Device,
    observer: &mut dyn Observer,
) -> Result<Trained<SequenceClassifier>, FitError> {
    train_with_hooks(model, data, options, from, device, observer, None)
}

/// Like [`train()`], with the training hooks of the model's adapter method, as [`fit_with_hooks`](crate::fit_with_hooks).
///
/// # Errors
/// As [`train()`], and when the hooks do not match the model or the number of steps.
pub fn train_with_hooks(
    model: SequenceClassifier,
    data: ClassificationData<'_>,
    options: &TrainOptions,
    from: Option<Snapshot>,
    device: &Device,
    observer: &mut dyn Observer,
    hooks: Option<&mut dyn TrainingHooks>,
) -> Result<Trained<SequenceClassifier>, FitError> {
    let extras = Extras { hooks, group: None };
    train_with(model, data, options, from, device, observer, extras)
}

/// Like [`train()`], with the hooks of an adapter method, or on several ranks, as [`fit_with`].
///
/// # Errors
/// As [`train()`] and [`fit_with`].
pub fn train_with(
    model: SequenceClassifier,
    data: ClassificationData<'_>,
    options: &TrainOptions,
    from: Option<Snapshot>,
    device: &Device,
    observer: &mut dyn Observer,
    extras: Extras<'_>,
) -> Result<Trained<SequenceClassifier>, FitError> {
    let learner = Classification::new(data);
    // The extras may outlive the learner.
    let Extras { hooks, group } = extras;
    let hooks = hooks.map(|hooks| hooks as &mut dyn TrainingHooks);
    let extras = Extras { hooks, group };
    fit_with(model, &learner, options, from, device, observer, extras)
}

/// On the ranks after rank 0: computes what its [`train_with`] asks for, as [`serve`].
///
/// # Errors
/// As [`serve`].
pub fn serve_classification(
    model: SequenceClassifier,
    data: ClassificationData<'_>,
    device: &Device,
    group: &ProcessGroup<'_>,
) -> Result<(), FitError> {
    serve(model, &Classification::new(data), device, group)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use mtlora_core::devices;
    use mtlora_models::{Architecture, ClassifierConfig, EncoderConfig, EncoderSizes};
    use proptest::prelude::*;

    use super::*;
    use crate::TaskData;
    use crate::data::error::DataError;
    use crate::run::model::classifier::task_config;
    use crate::training::batches::{BatchSize, by_length, shuffled};
    use crate::training::normalization::LossNormalization;
    use crate::training::step::testing::made_by;
    use crate::{EVALUATION_TOKENS, Example, Predictions, predict, score};
    use burn::module::Module;

    struct Any(Objective);

    impl TaskData for Any {
        type Item = Example;

        fn name(&self) -> &str {
            "any"
        }

        fn read(&self, _: &std::path::Path, _: &str) -> Result<Vec<Example>, DataError> {
            Ok(Vec::new())
        }
    }

    impl Task for Any {
        fn objective(&self) -> &Objective {
            &self.0
        }
    }

    fn three_classes() -> Objective {
        Objective::Classification {
            labels: ["a", "b", "c"].map(String::from).to_vec(),
        }
    }

    fn config(objective: &Objective) -> ClassifierConfig {
        let sizes = EncoderSizes {
            vocab_size: 50,
            hidden_size: 16,
            num_hidden_layers: 1,
            num_attention_heads: 2,
            intermediate_size: 32,
            max_tokens: 40,
        };
        let mut config = EncoderConfig::new(Architecture::Roberta, sizes).unwrap();
        config.hidden_dropout_prob = 0.0;
        config.attention_probs_dropout_prob = 0.0;
        task_config(&config, objective).unwrap()
    }

    fn items(texts: &[Vec<u32>], target: impl Fn(u32) -> Target) -> Vec<Item> {
        let item = |ids: &Vec<u32>| Item {
            tokens: Tokens {
                ids: ids.clone(),
                type_ids: vec![0; ids.len()],
            },
            // The targets differ between the texts.
            target: Some(target(ids.iter().sum())),
        };
        texts.iter().map(item).collect()
    }

    fn with_items<R>(
        objective: Objective,
        items: &[Item],
        then: impl FnOnce(&Classification<'_>, &SequenceClassifier, &Device) -> R,
    ) -> R {
        let (config, task) = (config(&objective), Any(objective));
        let device = devices().remove(0).device.autodiff();
        let model = SequenceClassifier::fresh(&config, 3, &device).unwrap();
        let learner = Classification::new(ClassificationData {
            config: &config,
            task: &task,
            items,
            dev: items,
        });
        then(&learner, &model, &device)
    }

    fn value(sum: u32) -> Target {
        Target::Value((sum % 13) as f32 / 4.0 - 1.0)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn how_a_step_is_split_makes_no_difference(
            texts in prop::collection::vec(prop::collection::vec(0u32..50, 1..30), 1..12),
            amount in 1usize..40, tokens: bool, regression: bool, seed: u64,
        ) {
            let (objective, items) = if regression {
                (Objective::Regression, items(&texts, value))
            } else {
                let class = |sum: u32| Target::Class(sum as usize % 3);
                (three_classes(), items(&texts, class))
            };
            let size = if tokens { BatchSize::Tokens(amount) } else { BatchSize::Sequences(amount) };
            let (whole, split) = with_items(objective, &items, |learner, model, device| {
                let lengths = learner.lengths();
                let one = by_length(lengths, BatchSize::Sequences(lengths.len()));
                let several = shuffled(lengths, size, seed, 0);
                [one, several].map(|step| made_by(learner, model, &step, LossNormalization::Step, device))
            }).into();
            prop_assert!(whole.apart(&split) < 1e-5, "{}", whole.apart(&split));
            prop_assert_eq!(whole.tokens, split.tokens);
        }
    }

    /// Eight examples in batches as a token budget may form them. With the mean of means, the example that is alone
    /// in its batch has as much weight as the other seven together.
    #[test]
    fn a_mean_of_means_is_another_loss_where_batches_differ_in_size() {
        let texts: Vec<Vec<u32>> = (0..8u32).map(|at| (at..2 * at + 2).collect()).collect();
        let class = |sum: u32| Target::Class(sum as usize % 3);
        with_items(
            three_classes(),
            &items(&texts, class),
            |learner, model, device| {
                let of = |batches: &[Vec<usize>], normalization| {
                    made_by(learner, model, batches, normalization, device)
                };
                let all = (0..8).collect::<Vec<usize>>();
                let whole = of(std::slice::from_ref(&all), LossNormalization::Step);
                let split = [all[..7].to_vec(), vec![7]];
                let [step, batch] = LossNormalization::ALL.map(|one| of(&split, one));
                assert!(whole.apart(&step) < 1e-5);
                assert!(whole.apart(&batch) > 1e-3);
                let [seven, last] = [&split[..1], &split[1..]]
                    .map(|batches| of(batches, LossNormalization::Step).loss);
                assert!((batch.loss - (seven + last) / 2.0).abs() < 1e-6);
                assert!((step.loss - (7.0 * seven + last) / 8.0).abs() < 1e-6);
            },
        );
    }

    /// There are more tokens than are evaluated together, and the batches differ in size.
    #[test]
    fn the_loss_of_an_evaluation_is_the_mean_over_all_examples() {
        let long: Vec<Vec<u32>> = (0..260u32)
            .map(|at| (0..at % 37 + 1).map(|one| (at * one) % 50).collect())
            .collect();
        let texts = [long.clone(), long].concat();
        assert!(texts.iter().map(Vec::len).sum::<usize>() > EVALUATION_TOKENS);
        with_items(
            Objective::Regression,
            &items(&texts, value),
            |learner, model, device| {
                let plain = device.clone().inner();
                let model = model.valid();
                let found = learner.evaluate(&model, &plain).unwrap();
                let each = learner.data.items.iter().map(|item| {
                    let one = std::slice::from_ref(item);
                    let predictions = Predictions {
                        logits: predict(&model, learner.data.config, one, &plain).unwrap(),
                        targets: vec![item.target.unwrap()],
                        ..Predictions::default()
                    };
                    let scores = score(&[MetricName::Loss], &predictions).unwrap();
                    scores.get(MetricName::Loss).unwrap()
                });
                let mean = each.sum::<f64>() / texts.len() as f64;
                let loss = found.get(MetricName::Loss).unwrap();
                assert!((loss - mean).abs() < 1e-5 * mean, "{loss} {mean}");
            },
        );
    }

    /// The wrong target is that of the third example overall, which is the second of its batch.
    #[test]
    fn a_target_of_the_wrong_kind_is_named_by_its_example() {
        let mut some = items(&[vec![1], vec![2], vec![3]], |_| Target::Class(0));
        let refused = |items: &[Item], objective: Objective, batch: &[usize]| {
            with_items(objective, items, |learner, model, device| {
                let error = learner.loss(model, batch, device).err().unwrap();
                error.to_string()
            })
        };
        some[2].target = Some(Target::Value(0.5));
        assert_eq!(
            refused(&some, three_classes(), &[0, 2]),
            "example 2 (from 0): the value 0.5 where the task asks for a class"
        );
        some[2].target = Some(Target::Class(3));
        assert_eq!(
            refused(&some, three_classes(), &[1, 2]),
            "example 2 (from 0): class 3 of 3 logits"
        );
        assert_eq!(
            refused(&some, Objective::Regression, &[1, 2]),
            "example 1 (from 0): class 0 where the task asks for a value"
        );
    }
}
