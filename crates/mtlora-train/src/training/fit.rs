//! The training loop.
//!
//! Burn's own `Learner` is not used, because it counts in epochs, while the schedules of adapter methods, early
//! stopping and checkpoints count in steps. The optimizer, the gradients and the dashboard are Burn's.

use std::cell::OnceCell;
use std::time::{Duration, Instant};

use burn::module::Module;
use burn::tensor::Device;
use mtlora_core::{TrainingHooks, load_state, random_state, seed, set_random_state, state};

use crate::data::fingerprint::Fingerprint;
use crate::metrics::labels::{MetricError, MetricName, Scores};
use crate::training::error::FitError;
use crate::training::hooks::StepHooks;
use crate::training::late_loss::{LossQueue, LossReading};
use crate::training::learner::Learner;
use crate::training::observer::{Observer, Pause, StepReport, Wish};
use crate::training::optimizer::adamw::adamw_for;
use crate::training::optimizer::state::OptimizerState;
use crate::training::options::TrainOptions;
use crate::training::plan::{Plan, PlannedStep};
use crate::training::ranks::group::ProcessGroup;
use crate::training::ranks::lead::{compare, done, evaluate_on};
use crate::training::snapshot::{Best, Fingerprints, Snapshot};
use crate::training::step::Stepper;

/// The result of a training.
pub struct Trained<M> {
    /// The model with the best score, without gradients.
    pub model: M,
    /// The scores before the first step.
    pub before: Scores,
    /// The scores of the best state.
    pub best: Scores,
    /// The number of steps after which the best state was reached.
    pub best_step: usize,
    /// The scores of the last state.
    pub last: Scores,
    /// The number of steps.
    pub steps: usize,
    /// The number of steps that were planned: more than `steps` if the training ended early
    /// ([`TrainOptions::patience`](crate::TrainOptions::patience)).
    pub planned_steps: usize,
    /// The number of tokens that the model read in these steps.
    pub tokens: usize,
    /// The time that the steps took, without evaluations.
    pub time: Duration,
}

/// Trains `model` on an autodiff `device` and returns the state with the best score. Only parameters that require
/// gradients are trained; see [`Method::prepare`](crate::Method::prepare).
///
/// If `from` is a [`Snapshot`] of a training with the same model, learner and options, that training is resumed. On a
/// CPU the result is then bit-identical to that of a training that was never stopped.
///
/// # Errors
/// When an option is out of range, the loss stops being finite, the snapshot belongs to another training, or the
/// learner or the observer fails. [`FitError::Interrupted`] when the observer stopped the training.
pub fn fit<L: Learner>(
    model: L::Model,
    learner: &L,
    options: &TrainOptions,
    from: Option<Snapshot>,
    device: &Device,
    observer: &mut dyn Observer,
) -> Result<Trained<L::Model>, FitError> {
    fit_with_hooks(model, learner, options, from, device, observer, None)
}

/// Like [`fit`], with the training hooks of the model's adapter method. They are for methods such as AdaLoRA, which
/// change the adapters during training. Snapshots contain the hooks' state. Only states in which the method has settled
/// can be the best.
///
/// # Errors
/// As [`fit`], and when the hooks do not match the model or the number of steps.
///
/// ```no_run
/// use burn::module::Module;
/// use burn::tensor::Device;
/// use mtlora_core::{AdaLora, AdaLoraHooks, AdaLoraSchedule, MtLoraConfig};
/// use mtlora_train::{Learner, Observer, FitError, TrainOptions, fit_with_hooks};
///
/// fn adalora<L: Learner>(
///     model: L::Model,
///     learner: &L,
///     device: &Device,
///     observer: &mut dyn Observer,
/// ) -> Result<L::Model, FitError> {
///     let model = MtLoraConfig::new(AdaLora).with_rank(12).attach(model)?;
///     let mut hooks = AdaLoraHooks::new(AdaLoraSchedule {
///         initial_steps: 600,
///         final_steps: 1800,
///         ..AdaLoraSchedule::default()
///     });
///     let options = TrainOptions::default();
///     let trained = fit_with_hooks(
///         model, learner, &options, None, device, observer, Some(&mut hooks),
///     )?;
///     Ok(trained.model)
/// }
/// ```
pub fn fit_with_hooks<'a, L: Learner>(
    model: L::Model,
    learner: &'a L,
    options: &'a TrainOptions,
    from: Option<Snapshot>,
    device: &'a Device,
    observer: &mut dyn Observer,
    hooks: Option<&'a mut dyn TrainingHooks>,
) -> Result<Trained<L::Model>, FitError> {
    let extras = Extras { hooks, group: None };
    fit_with(model, learner, options, from, device, observer, extras)
}

/// What a training may have beside its model, learner and options.
#[derive(Default)]
pub struct Extras<'a> {
    /// The training hooks of the model's adapter method, as in [`fit_with_hooks`].
    pub hooks: Option<&'a mut dyn TrainingHooks>,
    /// The ranks that train together, of which this process is rank 0; [`serve`](crate::serve) is for the others.
    pub group: Option<&'a ProcessGroup<'a>>,
}

/// Like [`fit`], with the hooks of an adapter method, or on several ranks. The ranks share the micro-batches of each step
/// ([`gradient_accumulation`](TrainOptions::gradient_accumulation), which must be a multiple of the number of ranks) and the
/// evaluations. On CPUs with the same instructions and numbers of threads, the result is bit-identical for any number of ranks.
///
/// # Errors
/// As [`fit_with_hooks`], and when the ranks cannot share the steps, do not have the same model and examples, or one of them
/// fails or is gone.
pub fn fit_with<'a, L: Learner>(
    model: L::Model,
    learner: &'a L,
    options: &'a TrainOptions,
    from: Option<Snapshot>,
    device: &'a Device,
    observer: &mut dyn Observer,
    extras: Extras<'a>,
) -> Result<Trained<L::Model>, FitError> {
    let Extras { hooks, group } = extras;
    // Alone, rank 0 needs no messages.
    let group = group.filter(|group| group.size() > 1);
    let stepper = Stepper::new(options, LossReading::of(device), device)
        .with_hooks(StepHooks::new(hooks))
        .with_group(group);
    let fitted = match group {
        Some(group) => group.check(options).map_err(FitError::from),
        None => Ok(()),
    };
    let fitted = fitted
        .and_then(|()| fit_in_steps(model, learner, options, from, device, observer, stepper));
    if let Some(group) = group {
        done(group);
    }
    fitted
}

fn fit_in_steps<'a, L: Learner>(
    model: L::Model,
    learner: &'a L,
    options: &'a TrainOptions,
    from: Option<Snapshot>,
    device: &'a Device,
    observer: &mut dyn Observer,
    mut stepper: Stepper<'a>,
) -> Result<Trained<L::Model>, FitError> {
    options.validate()?;
    if learner.lengths().is_empty() {
        return Err(FitError::NoExamples);
    }
    let mut plan = Plan::new(learner.lengths(), options);
    stepper.hooks.begin(&model, plan.steps())?;
    if let Some(group) = stepper.group {
        compare(group, &model, fingerprints(&model, learner))?;
    }
    let begins = from.is_none();
    let mut fit = match from {
        None => Fit::begin(model, learner, options, stepper, device)?,
        Some(snapshot) => Fit::resume(model, learner, options, stepper, snapshot, device)?,
    };
    if begins {
        observer.evaluated(0, &fit.before, None)?;
        fit.pause(
            observer,
            Pause {
                step: 0,
                epoch_ended: false,
                best: false,
                ended: fit.ended(&plan),
            },
        )?;
    }
    while !fit.ended(&plan) {
        fit = fit.advance(&mut plan, observer)?;
    }
    fit.finish(plan.steps())
}

/// The state of a training between two steps.
struct Fit<'a, L: Learner> {
    model: L::Model,
    stepper: Stepper<'a>,
    learner: &'a L,
    options: &'a TrainOptions,
    device: &'a Device,
    step: usize,
    tokens: usize,
    time: Duration,
    evals_since_best: usize,
    before: Scores,
    last: Scores,
    best: Option<Best>,
    /// The reports of steps whose losses have not been read yet. They are complete except for the loss.
    losses: LossQueue<StepReport>,
    /// Computed when first needed.
    fingerprints: OnceCell<Fingerprints>,
}

impl<'a, L: Learner> Fit<'a, L> {
    fn begin(
        model: L::Model,
        learner: &'a L,
        options: &'a TrainOptions,
        stepper: Stepper<'a>,
        device: &'a Device,
    ) -> Result<Self, FitError> {
        seed(device, options.seed);
        let before = scores(stepper.group, learner, &model, device)?;
        let computed: Vec<_> = before.iter().map(|(name, _)| name).collect();
        options.check_metric(&computed)?;
        Ok(Self {
            model,
            losses: LossQueue::new(stepper.reading),
            stepper,
            learner,
            options,
            device,
            step: 0,
            tokens: 0,
            time: Duration::ZERO,
            evals_since_best: 0,
            last: before.clone(),
            before,
            best: None,
            fingerprints: OnceCell::new(),
        })
    }

    fn resume(
        model: L::Model,
        learner: &'a L,
        options: &'a TrainOptions,
        mut stepper: Stepper<'a>,
        snapshot: Snapshot,
        device: &'a Device,
    ) -> Result<Self, FitError> {
        let fingerprints = fingerprints(&model, learner);
        let trains = state(&model, |_, trains| trains);
        snapshot.check(options, &fingerprints, &trains)?;
        let model = load_state(model, snapshot.model)?;
        let optimizer = snapshot
            .optimizer
            .restore(adamw_for(options, Some(device), &stepper.factor), &model)?;
        stepper.hooks.load_state(snapshot.hooks, &model)?;
        set_random_state(device, snapshot.random);
        Ok(Self {
            model,
            losses: LossQueue::new(stepper.reading),
            stepper: stepper.resumed(optimizer, snapshot.step),
            learner,
            options,
            device,
            step: snapshot.step,
            tokens: snapshot.tokens,
            time: Duration::try_from_secs_f64(snapshot.seconds).unwrap_or_default(),
            evals_since_best: snapshot.evals_since_best,
            before: snapshot.before,
            last: snapshot.last,
            best: snapshot.best,
            fingerprints: OnceCell::from(fingerprints),
        })
    }

    /// Whether all steps have been made, or the score has not improved for `patience` evaluations.
    fn ended(&self, plan: &Plan<'_>) -> bool {
        let patience = self.options.patience;
        self.step >= plan.steps() || patience.is_some_and(|most| self.evals_since_best >= most)
    }

    /// Makes one step, then evaluates if an evaluation is due, and calls the observer.
    fn advance(self, plan: &mut Plan<'_>, observer: &mut dyn Observer) -> Result<Self, FitError> {
        let steps = plan.steps();
        let planned = plan.step(self.step);
        let ends_epoch = planned.ends_epoch;
        let mut fit = self.descend(&planned, steps, observer)?;
        let evaluates = match fit.options.eval_steps {
            Some(every) => fit.step.is_multiple_of(every) || fit.step == steps,
            None => ends_epoch,
        };
        let ends = fit.step == steps;
        if evaluates || ends || fit.losses.is_due() {
            fit.report(observer)?;
        }
        let best = evaluates && fit.evaluate(observer)?;
        let pause = Pause {
            step: fit.step,
            epoch_ended: ends_epoch,
            best,
            ended: fit.ended(plan),
        };
        fit.pause(observer, pause)?;
        Ok(fit)
    }

    /// Makes one step of the optimizer, and queues its report until its loss is read.
    ///
    /// # Errors
    /// When the step fails; the steps before it are reported first.
    fn descend(
        mut self,
        planned: &PlannedStep<'_>,
        steps: usize,
        observer: &mut dyn Observer,
    ) -> Result<Self, FitError> {
        let start = Instant::now();
        let divisor = |examples: &[usize]| self.learner.divisor(examples);
        let loss = |model: &L::Model, batch: &[usize]| self.learner.loss(model, batch, self.device);
        let (batches, learning_rate) = (planned.batches, planned.learning_rate);
        let made = self
            .stepper
            .step(self.model, batches, learning_rate, divisor, loss);
        let (model, made) = match made {
            Ok(made) => made,
            Err(error) => {
                report_all(&mut self.losses, &mut self.time, observer)?;
                return Err(error);
            }
        };
        self.model = model;
        self.tokens += made.tokens;
        self.step += 1;
        let report = StepReport {
            step: self.step,
            steps,
            epoch: planned.epoch,
            loss: f64::NAN,
            learning_rate,
            rank_budget: self.stepper.hooks.rank_budget(self.step),
        };
        self.losses.push(report, made.loss);
        self.time += start.elapsed();
        Ok(self)
    }

    /// Reads the losses of all steps so far and reports them to the observer.
    ///
    /// # Errors
    /// As [`report_all`].
    fn report(&mut self, observer: &mut dyn Observer) -> Result<(), FitError> {
        report_all(&mut self.losses, &mut self.time, observer)
    }

    /// The metric that decides which state is the best.
    fn main_metric(&self) -> MetricName {
        let asked = self.options.metric_for_best_model;
        asked.unwrap_or_else(|| self.learner.main_metric())
    }

    /// Evaluates the model. Returns true if its score is the best so far.
    fn evaluate(&mut self, observer: &mut dyn Observer) -> Result<bool, FitError> {
        self.last = match scores(self.stepper.group, self.learner, &self.model, self.device) {
            // Before the first step, the model itself is damaged, and training has not diverged.
            Err(FitError::Metric(MetricError::NotFinite { .. })) if self.step > 0 => {
                return Err(FitError::NotFinite {
                    step: self.step,
                    loss: f32::NAN,
                });
            }
            found => found?,
        };
        // A score that is not finite cannot be compared with others.
        let loss = self.last.get(MetricName::Loss);
        if let Some(loss) = loss.filter(|loss| !loss.is_finite()) {
            return Err(FitError::NotFinite {
                step: self.step,
                loss: loss as f32,
            });
        }
        let worth = |scores: &Scores| {
            let main = self.main_metric();
            let value = scores.get(main).unwrap_or(f64::NEG_INFINITY);
            if main.higher_is_better() {
                value
            } else {
                -value
            }
        };
        if !self.stepper.hooks.is_settled(self.step) {
            observer.evaluated(self.step, &self.last, None)?;
            return Ok(false);
        }
        let better = self
            .best
            .as_ref()
            .is_none_or(|best| worth(&self.last) > worth(&best.scores));
        if better {
            let values = state(&self.model, |_, trains| trains);
            observer.evaluated(self.step, &self.last, Some(&values))?;
            self.best = Some(Best {
                scores: self.last.clone(),
                step: self.step,
                values,
            });
            self.evals_since_best = 0;
        } else {
            observer.evaluated(self.step, &self.last, None)?;
            self.evals_since_best += 1;
        }
        Ok(better)
    }

    /// Asks the observer whether to save a snapshot or to stop, and does so.
    fn pause(&mut self, observer: &mut dyn Observer, pause: Pause) -> Result<(), FitError> {
        let wish = observer.between(&pause);
        if wish.as_ref().map_or(true, |wish| wish.save || wish.stop) {
            self.report(observer)?;
        }
        let Wish { save, stop } = wish?;
        if save {
            observer.save(self.snapshot()?)?;
        }
        // After the last step there is nothing left to stop.
        if stop && !pause.ended {
            Err(FitError::Interrupted { step: self.step })
        } else {
            Ok(())
        }
    }

    fn snapshot(&self) -> Result<Snapshot, FitError> {
        let fingerprints = self
            .fingerprints
            .get_or_init(|| fingerprints(&self.model, self.learner));
        Ok(Snapshot {
            options: self.options.clone(),
            step: self.step,
            tokens: self.tokens,
            seconds: self.time.as_secs_f64(),
            evals_since_best: self.evals_since_best,
            random: random_state(),
            before: self.before.clone(),
            last: self.last.clone(),
            best: self.best.clone(),
            model: state(&self.model, |_, trains| trains),
            optimizer: OptimizerState::of(&self.stepper.optimizer)?,
            hooks: self.stepper.hooks.state(),
            fingerprints: fingerprints.clone(),
        })
    }

    fn finish(self, planned_steps: usize) -> Result<Trained<L::Model>, FitError> {
        let best = self.best.ok_or(FitError::NoExamples)?;
        Ok(Trained {
            model: load_state(self.model, best.values)?.valid(),
            before: self.before,
            best: best.scores,
            best_step: best.step,
            last: self.last,
            steps: self.step,
            planned_steps,
            tokens: self.tokens,
            time: self.time,
        })
    }
}

/// Reads the losses of all steps that have not been reported yet, and reports them to the observer. The time that
/// reading takes is added to `time`.
///
/// # Errors
/// When a loss is not finite; the steps before it are reported first.
fn report_all(
    losses: &mut LossQueue<StepReport>,
    time: &mut Duration,
    observer: &mut dyn Observer,
) -> Result<(), FitError> {
    let start = Instant::now();
    let mut waited = None;
    let read = losses.read(|report, loss| {
        // Waiting for the losses means waiting for the steps, so it counts as training time. The observer's own time
        // does not.
        waited.get_or_insert_with(|| start.elapsed());
        observer.step(&StepReport { loss, ..report })
    });
    *time += waited.unwrap_or_default();
    read
}

/// The scores of a model on an autodiff device, computed by all ranks of a group.
fn scores<L: Learner>(
    group: Option<&ProcessGroup<'_>>,
    learner: &L,
    model: &L::Model,
    device: &Device,
) -> Result<Scores, FitError> {
    let plain = device.clone().inner();
    match group {
        Some(group) => evaluate_on(group, learner, model, &plain),
        None => learner.evaluate(&model.valid(), &plain),
    }
}

pub(crate) fn fingerprints<L: Learner>(model: &L::Model, learner: &L) -> Fingerprints {
    let mut data = Fingerprint::default();
    learner.fingerprint(&mut data);
    Fingerprints {
        data: data.digest(),
        base: Fingerprint::of_frozen(model).digest(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::cell::Cell;

    use burn::nn::{Linear, LinearConfig};
    use burn::tensor::{Tensor, TensorData};

    use mtlora_core::State;

    use super::*;
    use crate::training::batches::BatchSize;
    use crate::training::learner::BatchLoss;
    use crate::training::normalization::LossNormalization;

    /// Learns `y = 2 x`. With `worsens`, it reports a loss that grows.
    struct Double {
        lengths: Vec<usize>,
        worsens: Option<Cell<f64>>,
    }

    impl Double {
        fn new(worsens: bool) -> Self {
            Self {
                lengths: vec![1; 8],
                worsens: worsens.then(|| Cell::new(0.0)),
            }
        }

        /// The sum of the squared errors.
        fn errors(model: &Linear, numbers: &[usize], device: &Device) -> Tensor<1> {
            let x: Vec<f32> = numbers.iter().map(|number| *number as f32).collect();
            let x = Tensor::<1>::from_floats(x.as_slice(), device).reshape([numbers.len(), 1]);
            (model.forward(x.clone()) - x.mul_scalar(2.0))
                .square()
                .sum()
        }
    }

    impl Learner for Double {
        type Model = Linear;

        fn lengths(&self) -> &[usize] {
            &self.lengths
        }

        fn divisor(&self, examples: &[usize]) -> f64 {
            examples.len() as f64
        }

        fn loss(
            &self,
            model: &Linear,
            batch: &[usize],
            device: &Device,
        ) -> Result<BatchLoss, FitError> {
            Ok(BatchLoss::new(
                Self::errors(model, batch, device),
                batch.len(),
            ))
        }

        fn evaluate(&self, model: &Linear, device: &Device) -> Result<Scores, FitError> {
            let mut scores = Scores::default();
            let loss = match &self.worsens {
                Some(last) => {
                    last.set(last.get() + 1.0);
                    last.get()
                }
                None => {
                    let sum = Self::errors(model, &[1, 2, 3], device).into_scalar::<f32>();
                    f64::from(sum) / 3.0
                }
            };
            scores.set(MetricName::Loss, loss);
            Ok(scores)
        }

        fn main_metric(&self) -> MetricName {
            MetricName::Loss
        }
    }

    /// The learning rates and losses, and the steps that led to a new best score.
    #[derive(Default)]
    struct Heard {
        rates: Vec<f64>,
        losses: Vec<f64>,
        best: Vec<usize>,
    }

    impl Observer for Heard {
        fn step(&mut self, report: &StepReport) -> Result<(), FitError> {
            self.rates.push(report.learning_rate);
            self.losses.push(report.loss);
            Ok(())
        }

        fn evaluated(
            &mut self,
            step: usize,
            _: &Scores,
            best: Option<&State>,
        ) -> Result<(), FitError> {
            self.best.extend(best.map(|_| step));
            Ok(())
        }
    }

    fn learned(learner: &Double, options: &TrainOptions) -> (Trained<Linear>, Heard) {
        let device = mtlora_core::devices()[0].device.clone().autodiff();
        let model = LinearConfig::new(1, 1).init(&device);
        let mut heard = Heard::default();
        let trained = fit(model, learner, options, None, &device, &mut heard).unwrap();
        (trained, heard)
    }

    fn options() -> TrainOptions {
        TrainOptions {
            batch: BatchSize::Sequences(4),
            learning_rate: 0.1,
            epochs: 20,
            weight_decay: 0.0,
            warmup_steps: Some(4),
            ..TrainOptions::default()
        }
    }

    #[test]
    fn the_state_with_the_least_loss_is_kept() {
        let learner = Double::new(false);
        let (trained, heard) = learned(&learner, &options());
        let loss = |scores: &Scores| scores.get(MetricName::Loss).unwrap();
        assert!(loss(&trained.best) < loss(&trained.before));
        assert!(loss(&trained.best) <= loss(&trained.last));
        assert_eq!(heard.best.last(), Some(&trained.best_step));
        let device = mtlora_core::devices()[0].device.clone();
        let again = learner.evaluate(&trained.model, &device).unwrap();
        assert_eq!(again, trained.best);
        assert_eq!((trained.steps, trained.tokens), (40, 160));
        assert_eq!(heard.rates[..5], [0.0, 0.025, 0.05, 0.1 * 3.0 / 4.0, 0.1]);
    }

    /// Returns the losses of the steps. A model that predicts 0 has the squared error 4 n² for each number n. The
    /// model hardly changes, so the losses follow from the numbers in each step.
    fn losses(options: &TrainOptions) -> Vec<f64> {
        let device = mtlora_core::devices()[0].device.clone().autodiff();
        let model = LinearConfig::new(1, 1).init(&device);
        let zeros = state(&model, |_, _| true).into_iter();
        let zeros =
            zeros.map(|(path, data)| (path, TensorData::zeros::<f32, _>(data.shape().clone())));
        let model = load_state(model, zeros.collect()).unwrap();
        let mut heard = Heard::default();
        let options = TrainOptions {
            learning_rate: 1e-12,
            epochs: 1,
            ..options.clone()
        };
        let learner = Double::new(false);
        fit(model, &learner, &options, None, &device, &mut heard).unwrap();
        heard.losses
    }

    fn mean(values: impl ExactSizeIterator<Item = f64>) -> f64 {
        let count = values.len() as f64;
        values.sum::<f64>() / count
    }

    /// There are eight examples. The last step of an epoch has the one or two batches that are left, the last of
    /// which may be short, and its loss is divided by its own number of examples.
    #[test]
    fn the_loss_of_each_step_is_its_own_mean() {
        let error = |number: &usize| 4.0 * (*number as f64).powi(2);
        for (size, accumulation) in [
            (4, 2),
            (3, 2),
            (3, 3),
            (2, 3),
            (1, 5),
            (5, 2),
            (8, 4),
            (9, 1),
        ] {
            let of = |loss_normalization| {
                losses(&TrainOptions {
                    batch: BatchSize::Sequences(size),
                    gradient_accumulation: accumulation,
                    loss_normalization,
                    ..options()
                })
            };
            let batches = crate::shuffled(&[1; 8], BatchSize::Sequences(size), options().seed, 0);
            let steps = batches.chunks(accumulation);
            let step = steps
                .clone()
                .map(|step| mean(step.concat().iter().map(error)));
            let batch =
                steps.map(|step| mean(step.iter().map(|batch| mean(batch.iter().map(error)))));
            let near = |found: Vec<f64>, wanted: Vec<f64>| {
                assert_eq!(found.len(), wanted.len());
                for (found, wanted) in found.into_iter().zip(wanted) {
                    let what = format!("{size} x {accumulation}: {found} {wanted}");
                    assert!((found - wanted).abs() < 1e-4 * wanted.max(1.0), "{what}");
                }
            };
            near(of(LossNormalization::Step), step.collect());
            near(of(LossNormalization::Batch), batch.collect());
        }
    }

    /// Returns a divisor that is zero or not a number.
    struct Weightless(Double, f64);

    impl Learner for Weightless {
        type Model = Linear;

        fn lengths(&self) -> &[usize] {
            self.0.lengths()
        }

        fn divisor(&self, _: &[usize]) -> f64 {
            self.1
        }

        fn loss(
            &self,
            model: &Linear,
            batch: &[usize],
            device: &Device,
        ) -> Result<BatchLoss, FitError> {
            self.0.loss(model, batch, device)
        }

        fn evaluate(&self, model: &Linear, device: &Device) -> Result<Scores, FitError> {
            self.0.evaluate(model, device)
        }

        fn main_metric(&self) -> MetricName {
            self.0.main_metric()
        }
    }

    #[test]
    fn a_step_without_a_positive_divisor_is_an_error() {
        let device = mtlora_core::devices()[0].device.clone().autodiff();
        for divisor in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            for loss_normalization in LossNormalization::ALL {
                let options = TrainOptions {
                    loss_normalization,
                    ..options()
                };
                let model = LinearConfig::new(1, 1).init(&device);
                let learner = Weightless(Double::new(false), divisor);
                let mut heard = Heard::default();
                let ended = fit(model, &learner, &options, None, &device, &mut heard);
                assert!(matches!(ended, Err(FitError::NothingToLearn { step: 1 })));
            }
        }
    }

    #[test]
    fn training_stops_when_the_score_does_not_improve() {
        let options = TrainOptions {
            patience: Some(3),
            ..options()
        };
        let (trained, heard) = learned(&Double::new(true), &options);
        // The first evaluation is the best. Training stops after three more without improvement, each of which
        // follows two steps.
        assert_eq!((heard.best, trained.best_step), (vec![2], 2));
        assert_eq!(trained.steps, 8);
        assert!(trained.planned_steps > 8);
        let (trained, _) = learned(
            &Double::new(true),
            &TrainOptions {
                patience: None,
                ..options
            },
        );
        assert_eq!(trained.steps, trained.planned_steps);
    }

    /// If NaN were accepted as the best score, no later score could be better.
    #[test]
    fn a_score_that_is_no_number_ends_the_training() {
        let learner = Double {
            worsens: Some(Cell::new(f64::NAN)),
            ..Double::new(true)
        };
        let device = mtlora_core::devices()[0].device.clone().autodiff();
        let model = LinearConfig::new(1, 1).init(&device);
        let mut heard = Heard::default();
        let ended = fit(model, &learner, &options(), None, &device, &mut heard);
        assert!(matches!(ended, Err(FitError::NotFinite { step: 2, .. })));
        assert!(heard.best.is_empty());
    }

    /// Keeps a snapshot at each pause, and stops the training after `stop` steps.
    #[derive(Default)]
    struct Keep {
        snapshots: Vec<Snapshot>,
        stop: Option<usize>,
    }

    impl Observer for Keep {
        fn step(&mut self, _: &StepReport) -> Result<(), FitError> {
            Ok(())
        }

        fn evaluated(&mut self, _: usize, _: &Scores, _: Option<&State>) -> Result<(), FitError> {
            Ok(())
        }

        fn between(&mut self, pause: &Pause) -> Result<Wish, FitError> {
            Ok(Wish {
                save: true,
                stop: self.stop == Some(pause.step),
            })
        }

        fn save(&mut self, snapshot: Snapshot) -> Result<(), FitError> {
            self.snapshots.push(snapshot);
            Ok(())
        }
    }

    fn kept(
        learner: &Double,
        options: &TrainOptions,
        from: Option<Snapshot>,
        keep: &mut Keep,
    ) -> Result<Trained<Linear>, FitError> {
        let device = mtlora_core::devices()[0].device.clone().autodiff();
        // Each model starts from different values.
        let model = LinearConfig::new(1, 1).init(&device);
        fit(model, learner, options, from, &device, keep)
    }

    #[test]
    fn resuming_from_any_snapshot_gives_the_same_result() {
        // Steps that use all features: two accumulated batches, clipped gradients, and evaluations within the epoch.
        let options = TrainOptions {
            batch: BatchSize::Sequences(2),
            gradient_accumulation: 3,
            max_grad_norm: Some(0.5),
            eval_steps: Some(3),
            patience: Some(4),
            weight_decay: 0.1,
            ..options()
        };
        let learner = Double::new(false);
        let mut all = Keep::default();
        let expected = kept(&learner, &options, None, &mut all).unwrap();
        assert_eq!(all.snapshots.len(), expected.steps + 1);
        let values = |trained: &Trained<Linear>| state(&trained.model, |_, _| true);
        // The last snapshot belongs to a completed training.
        for (step, snapshot) in all.snapshots.iter().enumerate() {
            assert_eq!(snapshot.step, step);
            let mut again = Keep::default();
            let found = kept(&learner, &options, Some(snapshot.clone()), &mut again).unwrap();
            assert_eq!(values(&found), values(&expected), "{step}");
            assert_eq!(
                (&found.before, &found.best, &found.last),
                (&expected.before, &expected.best, &expected.last)
            );
            assert_eq!(
                (found.best_step, found.steps, found.tokens),
                (expected.best_step, expected.steps, expected.tokens)
            );
            let timeless = |snapshot: &Snapshot| Snapshot {
                seconds: 0.0,
                random: 0,
                ..snapshot.clone()
            };
            let rest = all.snapshots[step + 1..].iter().map(timeless);
            assert_eq!(
                again.snapshots.iter().map(timeless).collect::<Vec<_>>(),
                rest.collect::<Vec<_>>()
            );
        }
    }

    #[test]
    fn a_snapshot_of_an_interrupted_training_cannot_resume_another_one() {
        let learner = Double::new(false);
        let mut keep = Keep {
            stop: Some(3),
            ..Keep::default()
        };
        let ended = kept(&learner, &options(), None, &mut keep);
        assert!(matches!(ended, Err(FitError::Interrupted { step: 3 })));
        let snapshot = || keep.snapshots.last().cloned();
        let refused = |learner: &Double, options: &TrainOptions| {
            let error = kept(learner, options, snapshot(), &mut Keep::default());
            error.err().unwrap().to_string()
        };
        let others = TrainOptions {
            epochs: 21,
            ..options()
        };
        assert!(refused(&learner, &others).starts_with("`epochs` was 20"));
        let others = TrainOptions {
            loss_normalization: LossNormalization::Batch,
            ..options()
        };
        let text = refused(&learner, &others);
        assert!(
            text.starts_with("`loss_normalization` was \"step\""),
            "{text}"
        );
        let mut more = Double::new(false);
        more.lengths.push(2);
        assert!(refused(&more, &options()).starts_with("the examples are not those"));
        assert!(kept(&learner, &options(), snapshot(), &mut Keep::default()).is_ok());
    }

    /// The calls that an observer received, in order, and the steps of the snapshots that it was passed.
    #[derive(Default)]
    struct Sequence {
        events: Vec<String>,
        losses: Vec<f64>,
        snapshots: Vec<usize>,
        /// Asks for a snapshot after this many steps.
        every: usize,
        /// Fails after this step.
        fails_after: Option<usize>,
    }

    impl Observer for Sequence {
        fn step(&mut self, report: &StepReport) -> Result<(), FitError> {
            self.events.push(format!("step {}", report.step));
            self.losses.push(report.loss);
            Ok(())
        }

        fn evaluated(&mut self, at: usize, _: &Scores, _: Option<&State>) -> Result<(), FitError> {
            self.events.push(format!("evaluated {at}"));
            Ok(())
        }

        fn between(&mut self, pause: &Pause) -> Result<Wish, FitError> {
            if self.fails_after == Some(pause.step) {
                return Err(FitError::observer("it failed"));
            }
            Ok(Wish {
                save: pause.step > 0 && pause.step.is_multiple_of(self.every),
                stop: false,
            })
        }

        fn save(&mut self, snapshot: Snapshot) -> Result<(), FitError> {
            self.events.push(format!("saved {}", snapshot.step));
            self.snapshots.push(snapshot.step);
            Ok(())
        }
    }

    fn read<L: Learner<Model = Linear>>(
        learner: &L,
        options: &TrainOptions,
        reading: LossReading,
        mut heard: Sequence,
    ) -> (Result<Trained<Linear>, FitError>, Sequence) {
        let device = mtlora_core::devices()[0].device.clone().autodiff();
        let model = LinearConfig::new(1, 1).init(&device);
        let fixed = state(&model, |_, _| true).into_iter();
        let fixed =
            fixed.map(|(path, data)| (path, TensorData::zeros::<f32, _>(data.shape().clone())));
        let model = load_state(model, fixed.collect()).unwrap();
        let stepper = Stepper::new(options, reading, &device);
        let trained = fit_in_steps(model, learner, options, None, &device, &mut heard, stepper);
        (trained, heard)
    }

    /// Evaluations are every 5 steps and snapshots every 13, so that 5, 3, 2, 5, ... losses are read together.
    #[test]
    fn losses_that_are_read_late_are_reported_before_evaluations_and_snapshots() {
        let options = TrainOptions {
            eval_steps: Some(5),
            max_grad_norm: Some(1.0),
            ..options()
        };
        let learner = Double::new(false);
        let both = [LossReading::AtOnce, LossReading::Late].map(|reading| {
            let heard = Sequence {
                every: 13,
                ..Sequence::default()
            };
            read(&learner, &options, reading, heard)
        });
        let [(at_once, expected), (late, heard)] = both;
        let (at_once, late) = (at_once.unwrap(), late.unwrap());
        assert_eq!(heard.losses.len(), 40);
        assert_eq!(heard.events, expected.events);
        for (found, wanted) in heard.losses.iter().zip(&expected.losses) {
            assert!(
                (found - wanted).abs() < 1e-4 * wanted.max(1e-2),
                "{found} {wanted}"
            );
        }
        assert_eq!(
            (late.best_step, late.steps),
            (at_once.best_step, at_once.steps)
        );
    }

    /// How a step fails.
    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Failure {
        /// The loss is not finite.
        Loss,
        /// The learner cannot compute the loss.
        Learner,
        /// The step has no targets.
        Divisor,
        /// The observer fails after the step before.
        Observer,
    }

    /// One step fails.
    struct Fails {
        double: Double,
        how: Failure,
        at: usize,
        seen: Cell<usize>,
    }

    impl Learner for Fails {
        type Model = Linear;

        fn lengths(&self) -> &[usize] {
            self.double.lengths()
        }

        fn divisor(&self, examples: &[usize]) -> f64 {
            if self.how == Failure::Divisor && self.seen.get() + 1 == self.at {
                return 0.0;
            }
            self.double.divisor(examples)
        }

        fn loss(
            &self,
            model: &Linear,
            batch: &[usize],
            device: &Device,
        ) -> Result<BatchLoss, FitError> {
            self.seen.set(self.seen.get() + 1);
            let mut loss = self.double.loss(model, batch, device)?;
            if self.seen.get() == self.at {
                match self.how {
                    Failure::Loss => loss.sum = loss.sum.mul_scalar(f32::NAN),
                    Failure::Learner => return Err(FitError::NoTargets),
                    Failure::Divisor | Failure::Observer => {}
                }
            }
            Ok(loss)
        }

        fn evaluate(&self, model: &Linear, device: &Device) -> Result<Scores, FitError> {
            self.double.evaluate(model, device)
        }

        fn main_metric(&self) -> MetricName {
            MetricName::Loss
        }
    }

    #[test]
    fn the_steps_before_a_failure_are_reported_and_nothing_after_it_is_kept() {
        let failures = [
            Failure::Loss,
            Failure::Learner,
            Failure::Divisor,
            Failure::Observer,
        ];
        for how in failures {
            for reading in [LossReading::AtOnce, LossReading::Late] {
                for at in 1..=12 {
                    a_failure_ends_the_training(how, reading, at);
                }
            }
        }
    }

    fn a_failure_ends_the_training(how: Failure, reading: LossReading, at: usize) {
        let learner = Fails {
            double: Double::new(false),
            how,
            at,
            seen: Cell::new(0),
        };
        let options = TrainOptions {
            eval_steps: Some(6),
            ..options()
        };
        let heard = Sequence {
            every: 4,
            fails_after: (how == Failure::Observer).then_some(at - 1),
            ..Sequence::default()
        };
        let (ended, heard) = read(&learner, &options, reading, heard);
        let ended = ended.err().unwrap();
        let what = format!("{how:?} {reading:?} {at}: {ended:?}");
        let expected = match how {
            Failure::Loss => matches!(ended, FitError::NotFinite { step, .. } if step == at),
            Failure::Learner => matches!(ended, FitError::NoTargets),
            Failure::Divisor => matches!(ended, FitError::NothingToLearn { step } if step == at),
            Failure::Observer => matches!(ended, FitError::Observer(_)),
        };
        assert!(expected, "{what}");
        let steps = heard
            .events
            .iter()
            .filter(|event| event.starts_with("step "));
        let before: Vec<String> = (1..at).map(|step| format!("step {step}")).collect();
        assert!(steps.eq(&before), "{what}: {:?}", heard.events);
        assert!(heard.losses.iter().all(|loss| loss.is_finite()), "{what}");
        // The observer fails where it would have asked for a snapshot.
        let saved = if how == Failure::Observer { at - 1 } else { at };
        let expected: Vec<usize> = (1..saved).filter(|step| step.is_multiple_of(4)).collect();
        assert_eq!(heard.snapshots, expected, "{what}");
        let evaluated = |step: usize| heard.events.contains(&format!("evaluated {step}"));
        assert_eq!(evaluated(6), at > 6, "{what}");
        assert!(!evaluated(12), "{what}");
    }
}
