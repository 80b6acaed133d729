use std::time::Instant;

use burn::module::Module;
use burn::tensor::Device;
use mtlora_core::seed;
use mtlora_models::{CausalLm, ClassifierModelConfig, SequenceClassifier};

use crate::data::example::{Objective, Target};
use crate::inference::evaluation::Item;
use crate::training::error::FitError;
use crate::training::late_loss::{LossQueue, LossReading};
use crate::training::learner::BatchLoss;
use crate::training::learners::causal::{self, CausalExample, causal_divisor, causal_loss};
use crate::training::learners::classification::{classifier_divisor, classifier_loss};
use crate::training::options::TrainOptions;
use crate::training::ranks::group::ProcessGroup;
use crate::training::step::Stepper;

type Divisor<'a> = Box<dyn Fn(&[usize]) -> f64 + 'a>;
type Loss<'a, M> = Box<dyn Fn(&M, &[usize]) -> Result<BatchLoss, FitError> + 'a>;

/// A model whose training steps are timed. The steps are those of [`fit`](crate::fit) at a constant learning rate.
pub struct Subject<'a, M> {
    model: M,
    stepper: Stepper<'a>,
    losses: LossQueue<()>,
    learning_rate: f64,
    divisor: Divisor<'a>,
    loss: Loss<'a, M>,
    device: Device,
}

impl<'a> Subject<'a, SequenceClassifier> {
    /// A classifier (or, with one label, a regression) that learns `items`, all of which have targets. The model must
    /// come from [`Method::prepare`](crate::Method::prepare), on an autodiff device.
    pub fn classifier(
        model: SequenceClassifier,
        config: &'a dyn ClassifierModelConfig,
        items: &'a [Item],
        options: &TrainOptions,
        device: &Device,
    ) -> Self {
        let objective = match items.first().and_then(|item| item.target) {
            Some(Target::Value(_)) => Objective::Regression,
            _ => Objective::Classification {
                labels: config.labels().to_vec(),
            },
        };
        let on = device.clone();
        let loss = move |model: &SequenceClassifier, batch: &[usize]| {
            classifier_loss(model, config, &objective, items, batch, &on)
        };
        Self::new(model, classifier_divisor, loss, options, device)
    }
}

impl<'a> Subject<'a, CausalLm> {
    /// A causal model that learns `sequences`.
    pub fn causal<S: CausalExample>(
        model: CausalLm,
        sequences: &'a [S],
        label_smoothing: f64,
        options: &TrainOptions,
        device: &Device,
    ) -> Self {
        let on = device.clone();
        let how = causal::LossOptions {
            label_smoothing,
            checkpointing: options.gradient_checkpointing,
        };
        let loss =
            move |model: &CausalLm, batch: &[usize]| causal_loss(model, sequences, how, batch, &on);
        let divisor = |batch: &[usize]| causal_divisor(sequences, batch);
        Self::new(model, divisor, loss, options, device)
    }
}

impl<'a, M: Module> Subject<'a, M> {
    /// A model with custom losses. As in a [`Learner`](crate::Learner), the functions return the divisor of a step's
    /// loss and the sum of the losses for the examples with the given indices.
    pub fn new(
        model: M,
        divisor: impl Fn(&[usize]) -> f64 + 'a,
        loss: impl Fn(&M, &[usize]) -> Result<BatchLoss, FitError> + 'a,
        options: &TrainOptions,
        device: &Device,
    ) -> Self {
        seed(device, options.seed);
        let reading = LossReading::of(device);
        Self {
            model,
            stepper: Stepper::new(options, reading, device),
            losses: LossQueue::new(reading),
            learning_rate: options.learning_rate,
            divisor: Box::new(divisor),
            loss: Box::new(loss),
            device: device.clone(),
        }
    }

    /// The same with steps that all ranks of a group make, each on a micro-batch of its own. This process is rank 0, and the
    /// others are in [`serve`](crate::serve).
    pub fn on(mut self, group: &'a ProcessGroup<'a>) -> Self {
        if group.size() > 1 {
            self.stepper.group = Some(group);
        }
        self
    }

    /// Runs one training step on the examples with these indices (on several ranks, each computes them), from tokens on the host to updated parameters.
    /// Returns the model after the step and the time in seconds.
    ///
    /// # Errors
    /// When the loss is not finite, or the device fails.
    pub fn step(mut self, batch: &[usize]) -> Result<(Self, f64), FitError> {
        let start = Instant::now();
        let ranks = self.stepper.group.map_or(1, ProcessGroup::size);
        let batches = vec![batch.to_vec(); ranks];
        let rate = self.learning_rate;
        let (divisor, loss) = (&self.divisor, &self.loss);
        let (model, made) = self
            .stepper
            .step(self.model, &batches, rate, divisor, loss)?;
        self.losses.push((), made.loss);
        if self.losses.is_due() {
            self.losses.read(|(), _| Ok(()))?;
        }
        let synced = self.device.sync();
        synced.map_err(|error| FitError::Device(format!("{error:?}")))?;
        let seconds = start.elapsed().as_secs_f64();
        Ok((Self { model, ..self }, seconds))
    }

    /// Reads the losses of steps that have not been read yet, after the last step: a device that queues its work reports there
    /// what failed.
    ///
    /// # Errors
    /// As [`step`](Self::step).
    pub fn finish(mut self) -> Result<(), FitError> {
        self.losses.read(|(), _| Ok(()))
    }
}
