//! One step of the optimizer on one or several batches.

use burn::module::Module;
use burn::optim::{GradientsAccumulator, GradientsParams, ModuleOptimizer};
use burn::tensor::{Device, Tensor};
use mtlora_core::{random_state, random_state_of_part, set_random_state};

use crate::training::error::FitError;
use crate::training::hooks::StepHooks;
use crate::training::late_loss::{LossReading, StepLoss};
use crate::training::learner::BatchLoss;
use crate::training::normalization::Divisors;
use crate::training::optimizer::adamw::{
    adamw_for, clip_gradient_norm, clipping_factor, scale_gradients,
};
use crate::training::optimizer::gradient_factor::GradientFactor;
use crate::training::options::TrainOptions;
use crate::training::ranks::group::ProcessGroup;
use crate::training::ranks::lead::accumulate_on;

/// The loss and the size of a step.
pub(crate) struct Made {
    /// The loss before the update.
    pub(crate) loss: StepLoss,
    /// The number of tokens that the model read.
    pub(crate) tokens: usize,
}

impl Made {
    /// Nothing yet of step number `step`.
    pub(crate) fn new(step: usize, reading: LossReading) -> Self {
        Self {
            loss: StepLoss::new(step, reading),
            tokens: 0,
        }
    }
}

/// The gradients of one micro-batch, the sum of whose losses is divided by `divisors`. `penalty` is added to the loss. The
/// terms of the loss are added to `made`.
///
/// # Errors
/// When losses are read at once and one is not finite, or the device fails.
pub(crate) fn batch_gradients<M: Module>(
    model: &M,
    batch: BatchLoss,
    divisors: Divisors,
    penalty: Option<Tensor<1>>,
    made: &mut Made,
) -> Result<GradientsParams, FitError> {
    let BatchLoss {
        sum,
        tokens,
        recompute,
    } = batch;
    let loss = sum.div_scalar(divisors.terms);
    made.tokens += tokens;
    made.loss.add(&loss, divisors.batches)?;
    let mut loss = loss.div_scalar(divisors.batches);
    if let Some(penalty) = penalty {
        made.loss.add(&penalty, 1.0)?;
        loss = loss + penalty;
    }
    let mut gradients = loss.backward();
    let parts = recompute.map(|recompute| recompute(&mut gradients));
    let gradients = GradientsParams::from_grads(gradients, model);
    let Some(parts) = parts else {
        return Ok(gradients);
    };
    // A batch's own sum first, as in one backward pass.
    let mut sum = GradientsAccumulator::new();
    sum.accumulate(model, gradients);
    for part in parts {
        sum.accumulate(model, GradientsParams::from_grads(part, model));
    }
    Ok(sum.grads())
}

/// The random states of a step, whose micro-batches draw masks of dropout that do not depend on each other. The next step
/// begins with the state after the first micro-batch, so a step of one micro-batch draws masks as if there were no parts.
pub(crate) struct StepMasks<'a> {
    device: &'a Device,
    /// The state before the step.
    pub(crate) start: u64,
    /// The state after its first micro-batch.
    after: u64,
}

impl<'a> StepMasks<'a> {
    /// Begins a step with the current random state.
    pub(crate) fn begin(device: &'a Device) -> Self {
        let start = random_state();
        Self {
            device,
            start,
            after: start,
        }
    }

    /// Computes micro-batch number `index` of the step, counted from 0.
    pub(crate) fn of<T>(&mut self, index: usize, compute: impl FnOnce() -> T) -> T {
        seed_part(self.device, self.start, index);
        let computed = compute();
        if index == 0 {
            self.after = random_state();
        }
        computed
    }

    /// Ends the step.
    pub(crate) fn end(self) {
        set_random_state(self.device, self.after);
    }
}

/// Sets the random state of micro-batch number `index` of a step that begins with the state `start`. The state of a device's
/// own random generator cannot be read, so each micro-batch seeds it from a state that can.
pub(crate) fn seed_part(device: &Device, start: u64, index: usize) {
    set_random_state(device, random_state_of_part(start, index as u64));
}

/// Accumulates the gradients of the batches of step number `step` (counted from 1), each batch's loss divided by its
/// divisors. A `penalty` is added to the loss once.
///
/// # Errors
/// When `loss_of` fails. When losses are read at once, also when one is not finite or the device fails.
pub(crate) fn accumulate<M: Module, B, E: From<FitError>>(
    step: usize,
    model: &M,
    batches: impl IntoIterator<Item = (B, Divisors)>,
    mut penalty: Option<Tensor<1>>,
    reading: LossReading,
    device: &Device,
    loss_of: impl Fn(&M, B) -> Result<BatchLoss, E>,
) -> Result<(GradientsParams, Made), E> {
    let mut accumulator = GradientsAccumulator::new();
    let mut made = Made::new(step, reading);
    let mut masks = StepMasks::begin(device);
    for (index, (batch, divisors)) in batches.into_iter().enumerate() {
        let gradients = masks.of(index, || {
            let batch = loss_of(model, batch)?;
            let penalty = penalty.take();
            Ok::<_, E>(batch_gradients(model, batch, divisors, penalty, &mut made)?)
        })?;
        accumulator.accumulate(model, gradients);
    }
    masks.end();
    Ok((accumulator.grads(), made))
}

/// Makes steps of the optimizer.
pub(crate) struct Stepper<'a> {
    pub(crate) optimizer: ModuleOptimizer,
    /// What the optimizer multiplies the gradients of a step with.
    pub(crate) factor: GradientFactor,
    pub(crate) hooks: StepHooks<'a>,
    options: TrainOptions,
    pub(crate) reading: LossReading,
    device: Device,
    /// The ranks that share the micro-batches.
    pub(crate) group: Option<&'a ProcessGroup<'a>>,
    made: usize,
}

impl<'a> Stepper<'a> {
    /// The state before the first step. `reading` determines when losses are read.
    pub(crate) fn new(options: &TrainOptions, reading: LossReading, device: &Device) -> Self {
        let factor = GradientFactor::default();
        Self {
            optimizer: adamw_for(options, None, &factor),
            factor,
            hooks: StepHooks::default(),
            options: options.clone(),
            reading,
            device: device.clone(),
            group: None,
            made: 0,
        }
    }

    /// The state after `made` steps, which left the optimizer in the given state.
    pub(crate) fn resumed(self, optimizer: ModuleOptimizer, made: usize) -> Self {
        Self {
            optimizer,
            made,
            ..self
        }
    }

    /// The same stepper with the hooks of an adapter method.
    pub(crate) fn with_hooks(self, hooks: StepHooks<'a>) -> Self {
        Self { hooks, ..self }
    }

    /// The same stepper with micro-batches that are shared by ranks.
    pub(crate) fn with_group(self, group: Option<&'a ProcessGroup<'a>>) -> Self {
        Self { group, ..self }
    }

    /// Makes one step on the batches, and returns the model after it. `loss_of` returns the summed loss of a batch,
    /// and `divisor_of` the divisor of the summed loss of some examples.
    pub(crate) fn step<M: Module>(
        &mut self,
        model: M,
        batches: &[Vec<usize>],
        learning_rate: f64,
        divisor_of: impl Fn(&[usize]) -> f64,
        loss_of: impl Fn(&M, &[usize]) -> Result<BatchLoss, FitError>,
    ) -> Result<(M, Made), FitError> {
        self.made += 1;
        let step = self.made;
        let normalization = self.options.loss_normalization;
        let divisors = normalization.divisors(batches, divisor_of);
        if divisors.iter().any(|divisors| !divisors.divide()) {
            return Err(FitError::NothingToLearn { step });
        }
        let parts = batches.iter().map(Vec::as_slice).zip(divisors);
        let (penalty, reading, device) = (self.hooks.penalty(&model), self.reading, &self.device);
        let (mut gradients, made) = match self.group {
            None => accumulate(step, &model, parts, penalty, reading, device, loss_of)?,
            Some(group) => {
                let parts: Vec<_> = parts.collect();
                let made = Made::new(step, reading);
                accumulate_on(group, made, &model, &parts, penalty, device, loss_of)?
            }
        };
        if let Some(most) = self.options.max_grad_norm {
            match self.reading {
                LossReading::AtOnce => {
                    clip_gradient_norm(&model, &mut gradients, most);
                }
                LossReading::Late => {
                    let factor = clipping_factor(&model, &gradients, most);
                    match factor {
                        // The hooks read clipped gradients.
                        Some(factor) if self.hooks.are_set() => {
                            scale_gradients(&model, &mut gradients, factor);
                        }
                        factor => self.factor.set(factor),
                    }
                }
            }
        }
        self.hooks.after_backward(step, &model, &gradients);
        let model = self.optimizer.step(learning_rate, model, gradients);
        self.factor.set(None);
        Ok((self.hooks.after_step(step, model), made))
    }
}

#[cfg(test)]
pub(crate) mod testing {
    //! Compares the gradients of steps.
    #![allow(clippy::unwrap_used)]
    use burn::module::{ModuleVisitor, Param};
    use burn::tensor::Device;

    use super::*;
    use crate::training::late_loss::LossQueue;
    use crate::training::learner::Learner;
    use crate::training::normalization::LossNormalization;

    /// The loss and the gradients of a step.
    #[derive(Debug, PartialEq)]
    pub(crate) struct MadeFrom {
        pub(crate) loss: f64,
        pub(crate) tokens: usize,
        /// The gradient of each parameter that has one.
        gradients: Vec<Vec<f32>>,
    }

    impl MadeFrom {
        /// The relative difference between the losses and gradients of two steps.
        pub(crate) fn apart(&self, other: &Self) -> f64 {
            assert_eq!(self.gradients.len(), other.gradients.len());
            let norm = |values: &mut dyn Iterator<Item = f32>| {
                values.map(|one| f64::from(one).powi(2)).sum::<f64>().sqrt()
            };
            let size = norm(&mut self.gradients.iter().flatten().copied());
            let pairs = self.gradients.iter().zip(&other.gradients);
            let apart = pairs.map(|(one, other)| {
                assert_eq!(one.len(), other.len());
                norm(&mut one.iter().zip(other).map(|(one, other)| one - other))
            });
            let gradients = apart.fold(0.0, f64::max) / size.max(1e-12);
            let loss = (self.loss - other.loss).abs() / self.loss.abs().max(1e-12);
            gradients.max(loss)
        }
    }

    pub(crate) fn made<M: Module, B, E: From<FitError> + std::fmt::Debug>(
        model: &M,
        batches: impl IntoIterator<Item = (B, Divisors)>,
        loss_of: impl Fn(&M, B) -> Result<BatchLoss, E>,
    ) -> MadeFrom {
        let reading = LossReading::AtOnce;
        let device = mtlora_core::devices().remove(0).device.autodiff();
        let (params, Made { loss, tokens }) =
            accumulate(1, model, batches, None, reading, &device, loss_of).unwrap();
        let mut queue = LossQueue::new(reading);
        queue.push((), loss);
        let mut loss = f64::NAN;
        let read = queue.read(|(), value| {
            loss = value;
            Ok(())
        });
        read.unwrap();
        let mut found = Found {
            params,
            gradients: Vec::new(),
        };
        model.visit(&mut found);
        MadeFrom {
            loss,
            tokens,
            gradients: found.gradients,
        }
    }

    /// A step on these batches of a learner's examples.
    pub(crate) fn made_by<L: Learner>(
        learner: &L,
        model: &L::Model,
        batches: &[Vec<usize>],
        normalization: LossNormalization,
        device: &Device,
    ) -> MadeFrom {
        let divisors = normalization.divisors(batches, |examples| learner.divisor(examples));
        let batches = batches.iter().zip(divisors);
        made(model, batches, |model: &L::Model, batch: &Vec<usize>| {
            learner.loss(model, batch, device)
        })
    }

    struct Found {
        params: GradientsParams,
        gradients: Vec<Vec<f32>>,
    }

    impl ModuleVisitor for Found {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            if let Some(gradient) = self.params.get::<D>(param.id) {
                self.gradients
                    .push(gradient.into_data().try_to_vec().unwrap());
            }
        }
    }
}
