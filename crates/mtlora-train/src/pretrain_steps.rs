//! The optimizer's steps of pre-training, whatever the model has to name.

use std::time::Instant;

use burn::module::Module;
use burn::optim::{GradientsParams, ModuleOptimizer};
use burn::tensor::Tensor;

use crate::optimizer::pretraining_adamw;
use crate::pretrain::{PretrainError, PretrainProgress};
use crate::schedule::WarmupLinear;

/// AdamW and its learning rate, step by step.
pub(crate) struct PretrainSteps<'a> {
    optimizer: ModuleOptimizer,
    schedule: WarmupLinear,
    done: usize,
    steps: usize,
    progress: &'a mut dyn FnMut(PretrainProgress),
}

impl<'a> PretrainSteps<'a> {
    /// Before the first of `steps`. `progress` hears of each.
    pub(crate) fn new(
        lr: f64,
        warmup_ratio: f64,
        weight_decay: f64,
        steps: usize,
        progress: &'a mut dyn FnMut(PretrainProgress),
    ) -> Self {
        Self {
            optimizer: pretraining_adamw(weight_decay),
            schedule: WarmupLinear::with_ratio(lr, warmup_ratio, steps),
            done: 0,
            steps,
            progress,
        }
    }

    /// The next step: down the gradient of `loss`, `[1]`, a batch's mean, of so many `tokens` and begun at `start`.
    ///
    /// # Errors
    /// When the device fails or the loss is not finite.
    pub(crate) fn take<M: Module>(
        &mut self,
        model: M,
        loss: Tensor<1>,
        tokens: usize,
        start: Instant,
    ) -> Result<M, PretrainError> {
        let rate = self.schedule.rate(self.done);
        self.done += 1;
        let value = loss
            .clone()
            .try_into_scalar::<f32>()
            .map_err(|error| PretrainError::Device(error.to_string()))?;
        if !value.is_finite() {
            return Err(PretrainError::NotFinite { step: self.done });
        }
        let gradients = GradientsParams::from_grads(loss.backward(), &model);
        let model = self.optimizer.step(rate, model, gradients);
        (self.progress)(PretrainProgress {
            step: self.done,
            steps: self.steps,
            loss: f64::from(value),
            tokens_per_second: tokens as f64 / start.elapsed().as_secs_f64(),
        });
        Ok(model)
    }
}
