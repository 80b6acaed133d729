//! A factor of all gradients that the optimizer applies as a part of its update.

use std::sync::{Arc, Mutex, PoisonError};

use burn::optim::{AdamWState, LearningRate, Optimizer};
use burn::tensor::{Device, Tensor};

use crate::training::optimizer::in_place::AdamWInPlace;

/// What an optimizer multiplies all gradients of its next step with, such as the factor of clipping, which may still be
/// on the device. Clones are the same factor. As a part of the update it needs no launch of its own.
#[derive(Clone, Debug, Default)]
pub(crate) struct GradientFactor(Arc<Mutex<Option<Tensor<1>>>>);

impl GradientFactor {
    /// Sets the factor, of shape `[1]`; with `None`, gradients stay as they are.
    pub(crate) fn set(&self, factor: Option<Tensor<1>>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = factor;
    }

    fn scaled<const D: usize>(&self, gradient: Tensor<D>) -> Tensor<D> {
        match &*self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(factor) => {
                let factor = factor.clone().cast(gradient.dtype());
                gradient * factor.reshape([1; D])
            }
            None => gradient,
        }
    }
}

/// AdamW with a learning rate of its own, on gradients that are multiplied with a factor.
#[derive(Clone)]
pub(crate) struct ScaledAdamW {
    pub(super) adamw: AdamWInPlace,
    /// The learning rate divided by that of the training.
    pub(crate) ratio: f64,
    pub(crate) factor: GradientFactor,
}

impl Optimizer for ScaledAdamW {
    type State<const D: usize> = AdamWState<D>;

    fn step<const D: usize>(
        &self,
        lr: LearningRate,
        tensor: Tensor<D>,
        gradient: Tensor<D>,
        state: Option<AdamWState<D>>,
    ) -> (Tensor<D>, Option<AdamWState<D>>) {
        let gradient = self.factor.scaled(gradient);
        self.adamw.step(lr * self.ratio, tensor, gradient, state)
    }

    fn to_device<const D: usize>(state: AdamWState<D>, device: &Device) -> AdamWState<D> {
        AdamWInPlace::to_device(state, device)
    }
}
