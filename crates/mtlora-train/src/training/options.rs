use serde::{Deserialize, Serialize};

use crate::training::batches::BatchSize;
use crate::training::normalization::LossNormalization;
use crate::training::optimizer::lora_plus::LoraPlus;
use crate::training::optimizer::schedule::WarmupLinear;
use crate::training::plan::Plan;

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
    /// The number of passes over the training data.
    pub epochs: usize,
    /// The share of all steps that are warm-up steps, rounded up to whole steps.
    pub warmup_ratio: f64,
    /// The number of warm-up steps, which overrides `warmup_ratio`. If it is larger than the number of all steps, the
    /// learning rate rises until the end and does not reach its highest value.
    pub warmup_steps: Option<usize>,
    /// AdamW's decoupled weight decay.
    pub weight_decay: f64,
    /// Learning rates of their own for an adapter's factors; `None` means one learning rate for all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lora_plus: Option<LoraPlus>,
    /// The largest total norm of the gradients, to which they are clipped; `None` means no clipping.
    pub max_grad_norm: Option<f64>,
    /// The number of steps between evaluations; `None` means after each epoch.
    pub eval_steps: Option<usize>,
    /// Training stops after this many evaluations in a row without a better score; `None` means never.
    pub patience: Option<usize>,
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
            epochs: 3,
            warmup_ratio: 0.06,
            warmup_steps: None,
            weight_decay: 0.1,
            lora_plus: None,
            max_grad_norm: None,
            eval_steps: None,
            patience: None,
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
        let batch = match self.batch {
            BatchSize::Sequences(count) | BatchSize::Tokens(count) => count,
        };
        let checks = [
            (batch > 0, "batch", "be at least 1"),
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
            (
                (0.0..=1.0).contains(&self.warmup_ratio),
                "warmup_ratio",
                "be from 0 to 1",
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

    /// The number of steps of a training on examples with these lengths in tokens.
    pub fn steps(&self, lengths: &[usize]) -> usize {
        Plan::new(lengths, self).steps()
    }

    /// The schedule of the learning rate over this many steps.
    pub fn schedule(&self, steps: usize) -> WarmupLinear {
        match self.warmup_steps {
            Some(warmup) => WarmupLinear::new(self.learning_rate, warmup, steps),
            None => WarmupLinear::with_ratio(self.learning_rate, self.warmup_ratio, steps),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warm_up_is_a_part_or_a_number_of_steps() {
        let part = TrainOptions {
            warmup_ratio: 0.06,
            learning_rate: 1.0,
            ..TrainOptions::default()
        };
        assert_eq!(part.schedule(150), WarmupLinear::new(1.0, 9, 150));
        let number = TrainOptions {
            warmup_steps: Some(500),
            ..part
        };
        assert_eq!(number.schedule(150), WarmupLinear::new(1.0, 500, 150));
    }
}
