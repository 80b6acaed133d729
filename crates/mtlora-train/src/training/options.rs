use serde::{Deserialize, Serialize};

use crate::training::batches::BatchSize;
use crate::training::normalization::LossNormalization;
use crate::training::optimizer::schedule::WarmupLinear;

/// How to train.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrainOptions {
    /// What goes into a batch.
    pub batch: BatchSize,
    /// Batches whose gradients make up one step. An epoch's last step has what is left.
    pub gradient_accumulation: usize,
    /// What a step's losses are divided by, where it has several batches.
    pub loss_normalization: LossNormalization,
    /// The highest learning rate.
    pub learning_rate: f64,
    /// Passes over the training data.
    pub epochs: usize,
    /// The part of all steps over which the learning rate climbs, rounded up to whole steps.
    pub warmup_ratio: f64,
    /// Steps over which it climbs, in place of `warmup_ratio`. May be more than there are: then it
    /// climbs to the end, and not to its highest.
    pub warmup_steps: Option<usize>,
    /// AdamW's decoupled weight decay.
    pub weight_decay: f64,
    /// The most that the norm of all gradients may be.
    pub max_grad_norm: Option<f64>,
    /// Steps between evaluations; none: after each epoch.
    pub eval_steps: Option<usize>,
    /// Evaluations without a better score after which training stops.
    pub patience: Option<usize>,
    /// Seed of the data's order and of dropout.
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
            max_grad_norm: None,
            eval_steps: None,
            patience: None,
            seed: 0,
        }
    }
}

/// An option is out of its range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{option} must {requirement}")]
pub struct OptionError {
    /// The option's name, as in `run.toml`.
    pub option: &'static str,
    /// What holds for its values.
    pub requirement: &'static str,
}

impl TrainOptions {
    /// Checks each number's range.
    ///
    /// # Errors
    /// With the name of the first that is out of it.
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
                "lie from 0 to 1",
            ),
            (
                self.weight_decay.is_finite() && self.weight_decay >= 0.0,
                "weight_decay",
                "not be negative",
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
    /// The learning rate of each of so many steps.
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
