//! A step of the optimizer over one or several batches.

use burn::module::Module;
use burn::optim::{GradientsAccumulator, GradientsParams, ModuleOptimizer};
use burn::tensor::Tensor;

use crate::training::error::FitError;
use crate::training::hooks::StepHooks;
use crate::training::late_loss::{LossReading, StepLoss};
use crate::training::learner::BatchLoss;
use crate::training::normalization::Divisors;
use crate::training::optimizer::adamw::{adamw, clip_gradient_norm, clip_gradient_norm_on_device};
use crate::training::options::TrainOptions;

/// What a step was made from.
pub(crate) struct Made {
    /// The loss that it descended.
    pub(crate) loss: StepLoss,
    /// Tokens read for it.
    pub(crate) tokens: usize,
}

/// The gradients of the losses of the batches of a step (from 1), each over its divisors, added up. A `penalty` is added
/// to the loss once.
///
/// # Errors
/// Those of `loss_of`; if the losses are read at once, when one is not finite or the device fails.
pub(crate) fn accumulate<M: Module, B, E: From<FitError>>(
    step: usize,
    model: &M,
    batches: impl IntoIterator<Item = (B, Divisors)>,
    mut penalty: Option<Tensor<1>>,
    reading: LossReading,
    loss_of: impl Fn(&M, B) -> Result<BatchLoss, E>,
) -> Result<(GradientsParams, Made), E> {
    let mut accumulator = GradientsAccumulator::new();
    let mut made = Made {
        loss: StepLoss::new(step, reading),
        tokens: 0,
    };
    for (batch, divisors) in batches {
        let BatchLoss { sum, tokens } = loss_of(model, batch)?;
        let loss = sum.div_scalar(divisors.terms);
        made.tokens += tokens;
        made.loss.add(&loss, divisors.batches)?;
        let mut loss = loss.div_scalar(divisors.batches);
        if let Some(penalty) = penalty.take() {
            made.loss.add(&penalty, 1.0)?;
            loss = loss + penalty;
        }
        let gradients = loss.backward();
        accumulator.accumulate(model, GradientsParams::from_grads(gradients, model));
    }
    Ok((accumulator.grads(), made))
}

/// Makes optimizer steps.
pub(crate) struct Stepper<'a> {
    pub(crate) optimizer: ModuleOptimizer,
    pub(crate) hooks: StepHooks<'a>,
    options: TrainOptions,
    pub(crate) reading: LossReading,
    made: usize,
}

impl<'a> Stepper<'a> {
    /// Before the first step, for losses that are read as `reading` says.
    pub(crate) fn new(options: &TrainOptions, reading: LossReading) -> Self {
        Self {
            optimizer: adamw(options.weight_decay),
            hooks: StepHooks::default(),
            options: options.clone(),
            reading,
            made: 0,
        }
    }

    /// After `made` steps, which have left the optimizer as it is.
    pub(crate) fn resumed(self, optimizer: ModuleOptimizer, made: usize) -> Self {
        Self {
            optimizer,
            made,
            ..self
        }
    }

    /// The same with the hooks of an adapter method.
    pub(crate) fn with_hooks(self, hooks: StepHooks<'a>) -> Self {
        Self { hooks, ..self }
    }

    /// One step down the losses of the batches, and the model after it. `loss_of` sums the losses of a batch;
    /// `divisor_of` says what the sum over some examples is divided by.
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
        let (mut gradients, made) = accumulate(
            step,
            &model,
            parts,
            self.hooks.penalty(&model),
            self.reading,
            loss_of,
        )?;
        if let Some(most) = self.options.max_grad_norm {
            match self.reading {
                LossReading::AtOnce => {
                    clip_gradient_norm(&model, &mut gradients, most);
                }
                LossReading::Late => clip_gradient_norm_on_device(&model, &mut gradients, most),
            }
        }
        self.hooks.after_backward(step, &model, &gradients);
        let model = self.optimizer.step(learning_rate, model, gradients);
        Ok((self.hooks.after_step(step, model), made))
    }
}

#[cfg(test)]
pub(crate) mod testing {
    //! Comparing the gradients of steps.
    #![allow(clippy::unwrap_used)]
    use burn::module::{ModuleVisitor, Param};
    use burn::tensor::Device;

    use super::*;
    use crate::training::late_loss::LossQueue;
    use crate::training::learner::Learner;
    use crate::training::normalization::LossNormalization;

    /// What a step would be made from.
    pub(crate) struct MadeFrom {
        pub(crate) loss: f64,
        pub(crate) tokens: usize,
        /// Of each parameter that has some.
        gradients: Vec<Vec<f32>>,
    }

    impl MadeFrom {
        /// How far the loss and the gradients of another are away, as parts of their size.
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
        let (params, Made { loss, tokens }) =
            accumulate(1, model, batches, None, reading, loss_of).unwrap();
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

    /// A step of these batches of a learner's examples.
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
