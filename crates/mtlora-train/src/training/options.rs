use serde::{Deserialize, Serialize};

use crate::metrics::labels::{MetricError, MetricName};
use crate::training::batches::BatchSize;
use crate::training::normalization::LossNormalization;
use crate::training::optimizer::adamw::AdamSettings;
use crate::training::optimizer::lora_plus::LoraPlus;
use crate::training::optimizer::schedule::{LrSchedule, LrScheduler, steps_of_ratio};
use crate::training::plan::Plan;

/// The share of the decay steps of [`LrScheduler::WarmupStableDecay`] if none is set; the paper of that schedule
/// (arXiv 2404.06395, section 4.2) finds a tenth of all steps enough.
pub const DECAY_RATIO: f64 = 0.1;

/// The options of a training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrainOptions {
    /// The size of a batch.
    pub batch: BatchSize,
    /// The number of batches whose gradients are accumulated for one step. The last step of an epoch may have fewer.
    pub gradient_accumulation: usize,
    /// How the losses of a step with several batches are averaged.
    pub loss_normalization: LossNormalization,
    /// The highest learning rate of the schedule.
    pub learning_rate: f64,
    /// How the learning rate changes from step to step.
    #[serde(skip_serializing_if = "LrScheduler::is_default")]
    pub lr_scheduler_type: LrScheduler,
    /// The share of all steps in which [`LrScheduler::WarmupStableDecay`] lets the learning rate fall, rounded up to
    /// whole steps; `None` means [`DECAY_RATIO`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decay_ratio: Option<f64>,
    /// The number of passes over the training data.
    pub epochs: usize,
    /// The number of steps, which overrides `epochs`: the data are passed over as often as needed, and the last pass may end
    /// early.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_steps: Option<usize>,
    /// The share of all steps that are warm-up steps, rounded up to whole steps.
    pub warmup_ratio: f64,
    /// The number of warm-up steps, which overrides `warmup_ratio`. If it is larger than the number of all steps, the
    /// learning rate rises until the end and does not reach its highest value.
    pub warmup_steps: Option<usize>,
    /// AdamW's decoupled weight decay.
    pub weight_decay: f64,
    /// AdamW's other numbers.
    #[serde(skip_serializing_if = "AdamSettings::is_default")]
    pub adam: AdamSettings,
    /// Learning rates of their own for an adapter's factors; `None` means one learning rate for all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lora_plus: Option<LoraPlus>,
    /// The largest total norm of the gradients, to which they are clipped; `None` means no clipping.
    pub max_grad_norm: Option<f64>,
    /// The number of steps between evaluations; `None` means after each epoch.
    pub eval_steps: Option<usize>,
    /// The metric that decides which state is the best; `None` means the task's first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metric_for_best_model: Option<MetricName>,
    /// Training stops after this many evaluations in a row without a better score; `None` means never.
    pub patience: Option<usize>,
    /// Whether the backward pass computes each layer of a causal model again from its input, so that no layer's
    /// intermediate values are kept. The results are the same.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub gradient_checkpointing: bool,
    /// The seed of the data's order and of dropout.
    pub seed: u64,
}

impl Default for TrainOptions {
    fn default() -> Self {
        Self {
            batch: BatchSize::Sequences(32),
            gradient_accumulation: 1,
            loss_normalization: LossNormalization::Step,
            learning_rate: 4e-4,
            lr_scheduler_type: LrScheduler::Linear,
            decay_ratio: None,
            epochs: 3,
            max_steps: None,
            warmup_ratio: 0.06,
            warmup_steps: None,
            weight_decay: 0.1,
            adam: AdamSettings::default(),
            lora_plus: None,
            max_grad_norm: None,
            eval_steps: None,
            metric_for_best_model: None,
            patience: None,
            gradient_checkpointing: false,
            seed: 0,
        }
    }
}

/// An option is out of range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{option} must {requirement}")]
pub struct OptionError {
    /// The name of the option, as in `run.toml`.
    pub option: &'static str,
    /// The condition that its value must meet.
    pub requirement: &'static str,
}

impl TrainOptions {
    /// Checks the range of each number.
    ///
    /// # Errors
    /// When a number is out of range; the error names the first.
    pub fn validate(&self) -> Result<(), OptionError> {
        let positive = |value: f64| value.is_finite() && value > 0.0;
        let (batch, of_batch) = match self.batch {
            BatchSize::Sequences(count) => (count, "batch.sequences"),
            BatchSize::Tokens(count) => (count, "batch.tokens"),
        };
        let checks = [
            (batch > 0, of_batch, "be at least 1"),
            (
                self.gradient_accumulation > 0,
                "gradient_accumulation",
                "be at least 1",
            ),
            (
                positive(self.learning_rate),
                "learning_rate",
                "be a positive number",
            ),
            (self.epochs > 0, "epochs", "be at least 1"),
            (self.max_steps != Some(0), "max_steps", "be at least 1"),
            (
                (0.0..=1.0).contains(&self.warmup_ratio),
                "warmup_ratio",
                "be from 0 to 1",
            ),
            (
                self.decay_ratio
                    .is_none_or(|ratio| (0.0..=1.0).contains(&ratio)),
                "decay_ratio",
                "be from 0 to 1",
            ),
            (
                self.decay_ratio.is_none()
                    || self.lr_scheduler_type == LrScheduler::WarmupStableDecay,
                "decay_ratio",
                "be left out unless lr_scheduler_type is warmup_stable_decay",
            ),
            (
                (0.0..1.0).contains(&self.adam.beta1),
                "adam.beta1",
                "be at least 0 and less than 1",
            ),
            (
                (0.0..1.0).contains(&self.adam.beta2),
                "adam.beta2",
                "be at least 0 and less than 1",
            ),
            (
                positive(self.adam.epsilon),
                "adam.epsilon",
                "be a positive number",
            ),
            (
                self.weight_decay.is_finite() && self.weight_decay >= 0.0,
                "weight_decay",
                "not be negative",
            ),
            (
                self.lora_plus.is_none_or(|one| positive(one.lr_ratio)),
                "lora_plus.lr_ratio",
                "be a positive number",
            ),
            (
                self.lora_plus.is_none_or(|one| positive(one.lr_ratio_t)),
                "lora_plus.lr_ratio_t",
                "be a positive number",
            ),
            (
                self.max_grad_norm.is_none_or(positive),
                "max_grad_norm",
                "be a positive number",
            ),
            (self.eval_steps != Some(0), "eval_steps", "be at least 1"),
            (self.patience != Some(0), "patience", "be at least 1"),
        ];
        match checks.into_iter().find(|(holds, ..)| !holds) {
            Some((_, option, requirement)) => Err(OptionError {
                option,
                requirement,
            }),
            None => Ok(()),
        }
    }

    /// Checks that the metric that decides which state is the best is one of those that are `computed`.
    ///
    /// # Errors
    /// If it is not.
    pub fn check_metric(&self, computed: &[MetricName]) -> Result<(), MetricError> {
        match self.metric_for_best_model {
            Some(name) if !computed.contains(&name) => Err(MetricError::NotComputed {
                name,
                computed: computed.to_vec(),
            }),
            _ => Ok(()),
        }
    }

    /// The number of steps of a training on examples with these lengths in tokens.
    pub fn steps(&self, lengths: &[usize]) -> usize {
        Plan::new(lengths, self).steps()
    }

    /// The schedule of the learning rate over this many steps.
    pub fn schedule(&self, steps: usize) -> LrSchedule {
        let warmup = self
            .warmup_steps
            .unwrap_or_else(|| steps_of_ratio(self.warmup_ratio, steps));
        let decay = steps_of_ratio(self.decay_ratio.unwrap_or(DECAY_RATIO), steps);
        LrSchedule::new(self.lr_scheduler_type, self.learning_rate, warmup, steps)
            .with_decay_steps(decay)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn warm_up_is_a_part_or_a_number_of_steps() {
        let part = TrainOptions {
            warmup_ratio: 0.06,
            learning_rate: 1.0,
            ..TrainOptions::default()
        };
        let linear =
            |warmup| LrSchedule::new(LrScheduler::Linear, 1.0, warmup, 150).with_decay_steps(15);
        assert_eq!(part.schedule(150), linear(9));
        let number = TrainOptions {
            warmup_steps: Some(500),
            ..part
        };
        assert_eq!(number.schedule(150), linear(500));
    }

    #[test]
    fn the_decay_is_a_tenth_of_the_steps_or_the_given_share() {
        let first_of_decay = |decay_ratio| {
            let options = TrainOptions {
                lr_scheduler_type: LrScheduler::WarmupStableDecay,
                decay_ratio,
                ..TrainOptions::default()
            };
            options.validate().unwrap();
            let schedule = options.schedule(100);
            let falls = |step: &usize| schedule.rate(step + 1) < schedule.rate(*step);
            (0..100).find(falls).unwrap()
        };
        assert_eq!(first_of_decay(None), 90);
        assert_eq!(first_of_decay(Some(0.5)), 50);
    }

    #[test]
    fn options_that_do_not_fit_are_named() {
        let refused = |change: fn(&mut TrainOptions)| {
            let mut options = TrainOptions::default();
            change(&mut options);
            options.validate().unwrap_err().option
        };
        assert_eq!(refused(|one| one.decay_ratio = Some(0.1)), "decay_ratio");
        assert_eq!(refused(|one| one.adam.beta1 = 1.0), "adam.beta1");
        assert_eq!(refused(|one| one.adam.beta2 = f64::NAN), "adam.beta2");
        assert_eq!(refused(|one| one.adam.epsilon = 0.0), "adam.epsilon");
    }

    /// Files of earlier builds lack the newer options, and a file with the defaults is as theirs.
    #[test]
    fn defaults_are_left_out_of_files() {
        let text = toml::to_string(&TrainOptions::default()).unwrap();
        for name in [
            "lr_scheduler_type",
            "decay_ratio",
            "adam",
            "metric_for_best_model",
        ] {
            assert!(!text.contains(name), "{name}: {text}");
        }
        assert_eq!(
            toml::from_str::<TrainOptions>(&text).unwrap(),
            TrainOptions::default()
        );
    }
}
