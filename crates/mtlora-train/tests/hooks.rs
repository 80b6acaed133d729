//! Training with AdaLoRA, an adapter method that needs training hooks.
#![allow(clippy::unwrap_used)]

use burn::nn::{Linear, LinearConfig};
use burn::tensor::{Device, Tensor, TensorData};
use mtlora_core::{
    AdaLora, AdaLoraHooks, AdaLoraSchedule, MtLoraConfig, State, Structure, TrainingHooks,
    adapted_linear, adapters, attached, devices, load_state, state,
};
use mtlora_train::{
    BatchLoss, BatchSize, CheckpointContents, Checkpoints, FitError, Learner, MetricName, Observer,
    Pause, Scores, Snapshot, StepReport, TrainOptions, Trained, Wish, fit, fit_with_hooks,
};

/// Learns a fixed linear map of numbers.
struct Map(Vec<usize>);

impl Map {
    fn errors(model: &Linear, numbers: &[usize], device: &Device) -> Tensor<1> {
        let rows = numbers
            .iter()
            .map(|number| [1.0, 0.5, -1.0, 2.0].map(|by| (*number as f32 * by).sin()));
        let rows: Vec<f32> = rows.flatten().collect();
        let x = Tensor::<2>::from_data(TensorData::new(rows, [numbers.len(), 4]), device);
        let wanted = x.clone().mul_scalar(2.0).flip([1]);
        (adapted_linear(model, x) - wanted).square().sum()
    }
}

impl Learner for Map {
    type Model = Linear;

    fn lengths(&self) -> &[usize] {
        &self.0
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
        let sum = Self::errors(model, &[1, 2, 3], device).into_scalar::<f32>();
        scores.set(MetricName::Loss, f64::from(sum) / 3.0);
        Ok(scores)
    }

    fn main_metric(&self) -> MetricName {
        MetricName::Loss
    }
}

#[derive(Default)]
struct Keep {
    snapshots: Vec<Snapshot>,
    losses: Vec<f64>,
}

impl Observer for Keep {
    fn step(&mut self, report: &StepReport) -> Result<(), FitError> {
        self.losses.push(report.loss);
        Ok(())
    }

    fn evaluated(&mut self, _: usize, _: &Scores, _: Option<&State>) -> Result<(), FitError> {
        Ok(())
    }

    fn between(&mut self, _: &Pause) -> Result<Wish, FitError> {
        Ok(Wish {
            save: true,
            stop: false,
        })
    }

    fn save(&mut self, snapshot: Snapshot) -> Result<(), FitError> {
        self.snapshots.push(snapshot);
        Ok(())
    }
}

fn device() -> Device {
    devices().remove(0).device.autodiff()
}

fn options() -> TrainOptions {
    TrainOptions {
        batch: BatchSize::Sequences(2),
        gradient_accumulation: 2,
        epochs: 6,
        learning_rate: 0.05,
        ..TrainOptions::default()
    }
}

/// Hooks for a training of twelve steps: the mask is chosen after the steps 3 to 9, counted from 0, and fixed after that.
fn hooks() -> AdaLoraHooks {
    AdaLoraHooks::new(AdaLoraSchedule {
        target_rank: 1,
        initial_steps: 2,
        final_steps: 3,
        interval: 2,
        ..AdaLoraSchedule::default()
    })
}

/// A layer with the weights in `base` and an adapter: AdaLoRA, or `shim` if `method` is `None`.
fn model(method: Option<AdaLora>, base: &State) -> Linear {
    let layer: Linear = LinearConfig::new(4, 4).init(&device());
    let layer = load_state(layer, base.clone()).unwrap();
    let config = match method {
        Some(method) => MtLoraConfig::new(method),
        None => MtLoraConfig::new(Structure::Shim),
    };
    config.with_rank(3).attach(layer).unwrap()
}

fn base() -> State {
    let layer: Linear = LinearConfig::new(4, 4).init(&device());
    state(&layer, |_, _| true)
}

fn trained(base: &State, from: Option<Snapshot>, keep: &mut Keep) -> Trained<Linear> {
    let (learner, mut hooks) = (Map(vec![1; 8]), hooks());
    let model = model(Some(AdaLora), base);
    let hooks: Option<&mut dyn TrainingHooks> = Some(&mut hooks);
    fit_with_hooks(model, &learner, &options(), from, &device(), keep, hooks).unwrap()
}

#[test]
fn training_resumed_from_every_checkpoint_ends_with_the_same_ranks() {
    let base = base();
    let mut all = Keep::default();
    let whole = trained(&base, None, &mut all);
    assert_eq!((whole.steps, all.snapshots.len()), (12, 13));
    let last = &all.snapshots[12];
    let ranks: Vec<f32> = last.model["weight.mtlora.e"].iter::<f32>().collect();
    assert_eq!(ranks.iter().filter(|e| **e != 0.0).count(), 1, "{ranks:?}");
    // Averages of three factors until the mask is fixed after step 9, which is the tenth.
    let kept = all.snapshots.iter().map(|snapshot| snapshot.hooks.len());
    let expected = (0..=12).map(|step| match step {
        0 => 0,
        1..10 => 6,
        _ => 1,
    });
    assert!(kept.eq(expected));

    let folder = tempfile::tempdir().unwrap();
    let checkpoints = Checkpoints::new(folder.path().join("checkpoints"));
    for snapshot in &all.snapshots {
        let contents = CheckpointContents {
            snapshot: snapshot.clone(),
            config: String::new(),
            log_bytes: 0,
        };
        checkpoints.save(&contents).unwrap();
        let loaded = checkpoints.load(snapshot.step).unwrap();
        assert_eq!(loaded, contents);
        let mut rest = Keep::default();
        let found = trained(&base, Some(loaded.snapshot), &mut rest);
        assert_eq!(adapters(&found.model), adapters(&whole.model));
        let values = |keep: &Keep| keep.snapshots.last().map(|last| last.model.clone());
        if snapshot.step < 12 {
            assert_eq!(values(&rest), values(&all), "from step {}", snapshot.step);
            assert_eq!(rest.losses, all.losses[snapshot.step..]);
        }
    }
}

#[test]
fn the_penalty_is_in_the_loss_once() {
    let base = base();
    let mut keep = Keep::default();
    trained(&base, None, &mut keep);
    // The update is zero before the first step, which has two batches of two examples.
    let (model, mut hooks) = (model(Some(AdaLora), &base), hooks());
    let found = attached(&model);
    hooks.begin(&found, 12).unwrap();
    let penalty = f64::from(hooks.penalty(&found).unwrap().into_scalar::<f32>());
    let examples = mtlora_train::shuffled(&[1; 8], BatchSize::Sequences(2), options().seed, 0);
    let errors = Map::errors(&model, &examples[..2].concat(), &device()).into_scalar::<f32>();
    let wanted = f64::from(errors) / 4.0 + penalty;
    assert!((keep.losses[0] - wanted).abs() < 1e-5 * wanted);
}

#[test]
fn adalora_is_refused_without_its_hooks_and_other_methods_save_no_hooks() {
    let (base, learner) = (base(), Map(vec![1; 8]));
    let run = |model: Linear, from: Option<Snapshot>, keep: &mut Keep| {
        fit(model, &learner, &options(), from, &device(), keep)
    };
    let refused = run(model(Some(AdaLora), &base), None, &mut Keep::default());
    let text = refused.err().unwrap().to_string();
    assert!(text.contains("adalora") && text.contains("hooks"), "{text}");

    let mut keep = Keep::default();
    run(model(None, &base), None, &mut keep).unwrap();
    assert!(keep.snapshots.iter().all(|one| one.hooks.is_empty()));
    let mut foreign = keep.snapshots[3].clone();
    let mask = TensorData::zeros::<f32, _>([3, 1]);
    foreign.hooks.insert("weight.mtlora.e/kept".into(), mask);
    let refused = run(model(None, &base), Some(foreign), &mut Keep::default());
    assert!(refused.err().unwrap().to_string().contains("without them"));

    let mut late = AdaLoraHooks::new(AdaLoraSchedule {
        final_steps: 11,
        ..AdaLoraSchedule::default()
    });
    let hooks: Option<&mut dyn TrainingHooks> = Some(&mut late);
    let (model, mut keep) = (model(Some(AdaLora), &base), Keep::default());
    let refused = fit_with_hooks(
        model,
        &learner,
        &options(),
        None,
        &device(),
        &mut keep,
        hooks,
    );
    assert!(refused.err().unwrap().to_string().contains("tfinal"));
}
