//! The training loop with AdaLoRA takes the same masks as the two published codes, on every device of this build.
#![allow(clippy::unwrap_used)]

use std::cell::Cell;
use std::collections::HashMap;
use std::path::PathBuf;

use burn::tensor::{Device, TensorData};
use mtlora_core::{
    AdaLora, AdaLoraHooks, AdaLoraSchedule, FinalPhase, MtLoraConfig, State, Targets,
    TrainingHooks, devices, load_state, state,
};
use mtlora_models::{EncoderConfig, PackedBatch, SequenceClassifier, Tokens};
use mtlora_train::{
    BatchLoss, BatchSize, FitError, Learner, Method, MetricName, Objective, Observer, Pause,
    Scores, Snapshot, StepReport, Target, TrainOptions, Wish, fit_with_hooks, loss_sum,
};
use safetensors::SafeTensors;

fn folder() -> PathBuf {
    let fixtures = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures");
    PathBuf::from(fixtures).join("models/roberta")
}

struct Recording {
    bytes: Vec<u8>,
    metadata: HashMap<String, String>,
}

impl Recording {
    fn open(case: &str) -> Self {
        let bytes = std::fs::read(folder().join(format!("train_{case}.safetensors"))).unwrap();
        let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
        let metadata = header.metadata().clone().unwrap();
        Self { bytes, metadata }
    }

    fn setting<T: std::str::FromStr>(&self, name: &str) -> T {
        let value = self.metadata[name].parse();
        value.unwrap_or_else(|_| panic!("{name}"))
    }

    fn floats(&self, name: &str) -> TensorData {
        let file = SafeTensors::deserialize(&self.bytes).unwrap();
        let tensor = file.tensor(name).unwrap();
        let values = tensor.data().chunks_exact(4);
        let values: Vec<f32> = values
            .map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap()))
            .collect();
        TensorData::new(values, tensor.shape().to_vec())
    }

    fn ints(&self, name: &str) -> Vec<i64> {
        let file = SafeTensors::deserialize(&self.bytes).unwrap();
        let values = file.tensor(name).unwrap().data().to_vec();
        let values = values.chunks_exact(8);
        values
            .map(|bytes| i64::from_le_bytes(bytes.try_into().unwrap()))
            .collect()
    }
}

/// The recorded name of a parameter, and whether it is transposed there.
fn recorded(path: &str) -> (String, bool) {
    let transposed = path.ends_with(".weight");
    let name = path
        .replace("base.", "roberta.")
        .replace(".self_.", ".self.")
        .replace("weight.mtlora.a", "lora_A")
        .replace("weight.mtlora.b", "lora_B")
        .replace("weight.mtlora.e", "lora_E");
    (name, transposed)
}

fn transpose(data: &TensorData) -> TensorData {
    let values: Vec<f32> = data.iter::<f32>().collect();
    let (rows, columns) = (data.shape()[0], data.shape()[1]);
    let turned = (0..rows * columns).map(|at| values[at % rows * columns + at / rows]);
    TensorData::new(turned.collect::<Vec<f32>>(), [columns, rows])
}

/// Gives the loop the recorded batches in their order, whatever order it asks for.
struct Recorded<'a> {
    recording: &'a Recording,
    config: EncoderConfig,
    objective: Objective,
    lengths: Vec<usize>,
    step: Cell<usize>,
}

impl Learner for Recorded<'_> {
    type Model = SequenceClassifier;

    fn lengths(&self) -> &[usize] {
        &self.lengths
    }

    fn divisor(&self, _: &[usize]) -> f64 {
        1.0
    }

    fn loss(
        &self,
        model: &SequenceClassifier,
        _: &[usize],
        device: &Device,
    ) -> Result<BatchLoss, FitError> {
        let step = self.step.replace(self.step.get() + 1);
        let (ids, mask) = (
            self.recording.ints("input_ids"),
            self.recording.ints("attention_mask"),
        );
        let labels = self.recording.ints("labels");
        let batch = labels.len() / self.lengths.len();
        let length = ids.len() / labels.len();
        let rows = step * batch..(step + 1) * batch;
        let sequences = rows.clone().map(|row| {
            let row = row * length..(row + 1) * length;
            let real = mask[row.clone()].iter().filter(|one| **one == 1).count();
            Tokens {
                ids: ids[row][..real].iter().map(|id| *id as u32).collect(),
                type_ids: vec![0; real],
            }
        });
        let sequences: Vec<Tokens> = sequences.collect();
        let sequences: Vec<&Tokens> = sequences.iter().collect();
        let targets = labels[rows].iter();
        let targets: Vec<Target> = targets
            .map(|label| Target::Class(*label as usize))
            .collect();
        let packed = PackedBatch::new(&sequences, &self.config, device)?;
        let sum = loss_sum(model.forward(&packed), &targets, &self.objective)?;
        Ok(BatchLoss::new(sum.div_scalar(batch as f64), packed.tokens))
    }

    fn evaluate(&self, _: &SequenceClassifier, _: &Device) -> Result<Scores, FitError> {
        // Later evaluations are worse, so that the first one that may be kept is.
        let mut scores = Scores::default();
        scores.set(MetricName::Loss, self.step.get() as f64);
        Ok(scores)
    }

    fn main_metric(&self) -> MetricName {
        MetricName::Loss
    }
}

#[derive(Default)]
struct Keep {
    reports: Vec<StepReport>,
    snapshots: Vec<Snapshot>,
}

impl Observer for Keep {
    fn step(&mut self, report: &StepReport) -> Result<(), FitError> {
        self.reports.push(*report);
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

fn norm(values: impl Iterator<Item = f32>) -> f64 {
    values.map(|one| f64::from(one).powi(2)).sum::<f64>().sqrt()
}

fn follow(case: &str, final_phase: FinalPhase, settled: usize) {
    let recording = Recording::open(case);
    let config = EncoderConfig::from_folder(&folder()).unwrap();
    let objective = Objective::Classification {
        labels: config.labels.clone(),
    };
    let steps: usize = recording.setting("steps");
    let options = TrainOptions {
        batch: BatchSize::Sequences(1),
        epochs: 1,
        learning_rate: recording.setting("lr"),
        warmup_steps: Some(recording.setting("warmup_steps")),
        weight_decay: recording.setting("weight_decay"),
        eval_steps: Some(1),
        ..TrainOptions::default()
    };
    let schedule = AdaLoraSchedule {
        target_rank: recording.setting("target_r"),
        initial_steps: recording.setting("tinit"),
        final_steps: recording.setting("tfinal"),
        interval: recording.setting("deltaT"),
        sensitivity_decay: recording.setting("beta1"),
        uncertainty_decay: recording.setting("beta2"),
        penalty: recording.setting("orth_reg_weight"),
        final_phase,
    };
    for named in devices() {
        let device = named.device.clone().autodiff();
        let (model, _) = SequenceClassifier::from_folder(&folder(), &config, 0, &device).unwrap();
        let adapter = MtLoraConfig::new(AdaLora)
            .with_rank(recording.setting("init_r"))
            .with_alpha(recording.setting("alpha"))
            .with_target_modules(Targets::names(["query", "value"]))
            .with_modules_to_save(vec!["classifier".into()]);
        let model = Method::MtLora(adapter).prepare(model).unwrap();
        let start = state(&model, |_, trains| trains).into_keys().map(|path| {
            let (name, transposed) = recorded(&path);
            let data = recording.floats(&format!("init.{name}"));
            (path, if transposed { transpose(&data) } else { data })
        });
        let model = load_state(model, start.collect()).unwrap();
        let learner = Recorded {
            recording: &recording,
            config: config.clone(),
            objective: objective.clone(),
            lengths: vec![1; steps],
            step: Cell::new(0),
        };
        let mut hooks = AdaLoraHooks::new(schedule);
        let mut keep = Keep::default();
        let trained = fit_with_hooks(
            model,
            &learner,
            &options,
            None,
            &device,
            &mut keep,
            Some(&mut hooks as &mut dyn TrainingHooks),
        )
        .unwrap();
        // States with more ranks than the target are never kept.
        assert_eq!(trained.best_step, settled);

        let what = format!("{} {case}", named.name);
        let budget = recording.ints("budget");
        let found = keep.reports.iter().map(|report| report.rank_budget);
        let wanted = budget.iter().map(|budget| Some(*budget as usize));
        assert!(found.eq(wanted), "{what}");
        let losses: Vec<f32> = recording.floats("loss_total").iter::<f32>().collect();
        for (report, wanted) in keep.reports.iter().zip(losses) {
            let error = (report.loss - f64::from(wanted)).abs();
            assert!(error < 1e-3, "{what} step {}: {error}", report.step);
        }
        let initial = &keep.snapshots[0].model;
        let modules: Vec<&String> = initial.keys().filter(|path| path.ends_with(".e")).collect();
        assert_eq!(modules.len(), 4);
        for path in modules {
            let (name, _) = recorded(path);
            let module = name.trim_end_matches(".lora_E");
            let masks = recording.ints(&format!("mask.{module}"));
            let rank = masks.len() / steps;
            for (snapshot, masks) in keep.snapshots[1..].iter().zip(masks.chunks(rank)) {
                let e = snapshot.model[path].iter::<f32>();
                let found: Vec<bool> = e.map(|e| e == 0.0).collect();
                // Nothing but a mask makes a value zero, except for the first step, whose learning rate is zero.
                let wanted: Vec<bool> = masks.iter().map(|mask| *mask == 1).collect();
                let step = snapshot.step;
                assert!(step == 1 || found == wanted, "{what} {module} step {step}");
            }
        }
        for (path, found) in &keep.snapshots[steps].model {
            let (name, transposed) = recorded(path);
            let wanted = recording.floats(&format!("final.{name}"));
            let found = if transposed {
                transpose(found)
            } else {
                found.clone()
            };
            let pairs = found.iter::<f32>().zip(wanted.iter::<f32>());
            let apart = norm(pairs.map(|(one, other)| one - other));
            let size = norm(wanted.iter::<f32>());
            assert!(apart <= 1e-2 * size, "{what} {path}: {apart} of {size}");
        }
    }
}

#[test]
fn the_fixed_pattern_takes_the_masks_of_peft() {
    // Step 30, counted from 0, masks for good.
    follow("adalora", FinalPhase::FixedPattern, 31);
}

#[test]
fn frozen_scores_take_the_masks_of_the_authors_code() {
    // Step 30 is no multiple of the interval, so that the next one masks for good.
    follow("adalora_official", FinalPhase::FrozenScores, 32);
}
