//! Trainings on several ranks, which are threads of this process: any number of them gives the same bytes.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use burn::module::Module;
use burn::nn::{Linear, LinearConfig};
use burn::tensor::{Device, Tensor, TensorData};
use mtlora_core::{
    AdaLora, AdaLoraHooks, AdaLoraSchedule, MtLoraConfig, State, Structure, Targets, TrainingHooks,
    adapted_linear, devices, load_state, state,
};
use mtlora_models::{
    Architecture, CausalLm, ClassifierConfig, EncoderConfig, EncoderSizes, Gpt2Config, Gpt2Sizes,
    SequenceClassifier,
};
use mtlora_train::bench::{Subject, random_items, random_sequences};
use mtlora_train::data_to_text::Sequence;
use mtlora_train::{
    BatchLoss, BatchSize, CausalData, ClassificationData, DataError, Example, Extras, FitError,
    Item, Learner, LoraPlus, LossNormalization, Method, MetricName, Objective, Observer, Pause,
    ProcessGroup, RanksError, Scores, Snapshot, StepReport, Task, TaskData, TrainOptions, Trained,
    Wish, fit_with, on_threads, serve, serve_causal, serve_classification, task_config,
    train_causal_with, train_with,
};

fn device() -> Device {
    devices().remove(0).device.autodiff()
}

/// Steps of 12 micro-batches, which 1, 2, 3 and 4 ranks share. The last step of an epoch has fewer, and its last batch is short.
fn options() -> TrainOptions {
    TrainOptions {
        batch: BatchSize::Sequences(2),
        gradient_accumulation: 12,
        epochs: 2,
        learning_rate: 0.02,
        max_grad_norm: Some(0.5),
        eval_steps: Some(2),
        warmup_ratio: 0.0,
        ..TrainOptions::default()
    }
}

/// The events that rank 0 observes, and all snapshots without their times.
#[derive(Default, Debug, PartialEq)]
struct Keep {
    losses: Vec<f64>,
    scores: Vec<Scores>,
    snapshots: Vec<Snapshot>,
}

impl Observer for Keep {
    fn step(&mut self, report: &StepReport) -> Result<(), FitError> {
        self.losses.push(report.loss);
        Ok(())
    }

    fn evaluated(&mut self, _: usize, scores: &Scores, _: Option<&State>) -> Result<(), FitError> {
        self.scores.push(scores.clone());
        Ok(())
    }

    fn between(&mut self, _: &Pause) -> Result<Wish, FitError> {
        Ok(Wish {
            save: true,
            stop: false,
        })
    }

    fn save(&mut self, snapshot: Snapshot) -> Result<(), FitError> {
        self.snapshots.push(Snapshot {
            seconds: 0.0,
            ..snapshot
        });
        Ok(())
    }
}

/// What a training ended with.
#[derive(Debug, PartialEq)]
struct Ended {
    kept: Keep,
    values: State,
    best: Scores,
    steps: [usize; 3],
}

fn ended<M: Module>(trained: Result<Trained<M>, FitError>, kept: Keep) -> Result<Ended, FitError> {
    let trained = trained?;
    Ok(Ended {
        kept,
        values: state(&trained.model, |path, _| {
            path.contains("mtlora") || path.contains("classifier")
        }),
        best: trained.best,
        steps: [trained.best_step, trained.steps, trained.tokens],
    })
}

/// Calls `train` on `size` ranks and returns what it returns on rank 0. On the other ranks it returns `None`, or an error of its
/// own.
fn on_ranks<T: Send>(
    size: usize,
    train: impl Fn(&ProcessGroup<'_>) -> Result<Option<T>, FitError> + Sync,
) -> Result<T, String> {
    let mut all = on_threads(size, |ranks| {
        let group = ProcessGroup::new(ranks);
        let done = match group.rank() {
            0 => group
                .begin()
                .map_err(FitError::from)
                .and_then(|()| train(&group)),
            _ if group.wait().unwrap() => train(&group),
            _ => Ok(None),
        };
        let done = done.map_err(|error| error.to_string());
        group.leave(done.as_ref().err().map(String::as_str));
        done
    });
    all.remove(0).map(Option::unwrap)
}

/// The same training on 1, 2, 3 and 4 ranks.
fn is_the_same_on_all(
    train: impl Fn(&ProcessGroup<'_>) -> Result<Option<Ended>, FitError> + Sync,
) -> Ended {
    let alone = on_ranks(1, &train).unwrap();
    assert!(alone.kept.losses.len() > 2);
    for size in [2, 3, 4] {
        let together = on_ranks(size, &train).unwrap();
        assert!(together == alone, "{size} ranks");
    }
    alone
}

fn generator(config: &Gpt2Config, device: &Device) -> CausalLm {
    let adapter = MtLoraConfig::new(Structure::Ctcm)
        .with_rank(2)
        .with_dropout(0.1)
        .with_target_modules(Targets::names(["c_attn"]));
    let model = CausalLm::fresh(config, 3, device).unwrap();
    Method::MtLora(adapter).prepare(model).unwrap()
}

fn gpt2() -> Gpt2Config {
    Gpt2Config::new(Gpt2Sizes {
        vocab_size: 50,
        n_embd: 16,
        n_layer: 2,
        n_head: 2,
        n_positions: 64,
        end_of_text: 0,
    })
    .unwrap()
}

/// Sequences of different lengths.
fn sequences(config: &Gpt2Config, count: usize, seed: u64) -> Vec<Sequence> {
    let all = random_sequences(config, [count, 40], seed).into_iter();
    let cut = |(at, mut one): (usize, Sequence)| {
        one.ids.truncate(8 + at * 7 % 32);
        one
    };
    all.enumerate().map(cut).collect()
}

fn causal(
    options: &TrainOptions,
    from: Option<Snapshot>,
    group: &ProcessGroup<'_>,
) -> Result<Option<Ended>, FitError> {
    let (config, device) = (gpt2(), device());
    // The evaluation has several batches.
    let (items, dev) = (sequences(&config, 61, 1), sequences(&config, 400, 2));
    let data = CausalData {
        items: &items,
        dev: &dev,
        label_smoothing: 0.1,
    };
    let model = generator(&config, &device);
    if group.rank() > 0 {
        return serve_causal(model, data, options, &device, group).map(|()| None);
    }
    let mut keep = Keep::default();
    let extras = Extras {
        group: Some(group),
        ..Extras::default()
    };
    let trained = train_causal_with(model, data, options, from, &device, &mut keep, extras);
    ended(trained, keep).map(Some)
}

#[test]
fn a_causal_model_with_dropout_is_the_same_on_any_number_of_ranks() {
    let checkpointed = [false, true].map(|gradient_checkpointing| {
        let options = TrainOptions {
            gradient_checkpointing,
            ..options()
        };
        is_the_same_on_all(|group| causal(&options, None, group)).values
    });
    assert_eq!(checkpointed[0], checkpointed[1]);
    let options = TrainOptions {
        loss_normalization: LossNormalization::Batch,
        lora_plus: Some(LoraPlus {
            lr_ratio: 16.0,
            lr_ratio_t: 2.0,
        }),
        ..options()
    };
    let other = is_the_same_on_all(|group| causal(&options, None, group));
    assert_ne!(other.values, checkpointed[0]);
}

#[test]
fn a_training_is_resumed_on_another_number_of_ranks() {
    let options = options();
    let whole = on_ranks(3, |group| causal(&options, None, group)).unwrap();
    let last = whole.kept.snapshots.len() - 1;
    assert!(last > 4);
    for (at, size) in [(0, 4), (1, 1), (2, 2), (last - 1, 3)] {
        let from = &whole.kept.snapshots[at];
        let resumed = on_ranks(size, |group| causal(&options, Some(from.clone()), group)).unwrap();
        assert_eq!(resumed.values, whole.values, "{at} {size}");
        assert_eq!((&resumed.best, resumed.steps), (&whole.best, whole.steps));
        let rest = &whole.kept.snapshots[at + 1..];
        let found = &resumed.kept.snapshots[resumed.kept.snapshots.len() - rest.len()..];
        assert!(found == rest, "{at} {size}");
    }
}

struct ThreeClasses(Objective);

impl TaskData for ThreeClasses {
    type Item = Example;

    fn name(&self) -> &str {
        "three"
    }

    fn read(&self, _: &Path, _: &str) -> Result<Vec<Example>, DataError> {
        Ok(Vec::new())
    }
}

impl Task for ThreeClasses {
    fn objective(&self) -> &Objective {
        &self.0
    }
}

fn encoder(objective: &Objective) -> ClassifierConfig {
    let sizes = EncoderSizes {
        vocab_size: 50,
        hidden_size: 16,
        num_hidden_layers: 1,
        num_attention_heads: 2,
        intermediate_size: 32,
        max_tokens: 40,
    };
    let config = EncoderConfig::new(Architecture::Roberta, sizes).unwrap();
    task_config(&config, objective).unwrap()
}

#[test]
fn a_classifier_is_the_same_on_any_number_of_ranks() {
    let options = options();
    let labels = ["a", "b", "c"].map(String::from).to_vec();
    let task = ThreeClasses(Objective::Classification { labels });
    let config = encoder(&task.0);
    let cut = |(at, mut item): (usize, Item)| {
        let length = 4 + at % 33;
        item.tokens.ids.truncate(length);
        item.tokens.type_ids.truncate(length);
        item
    };
    let items = |count, seed| -> Vec<Item> {
        let all = random_items(&config, [count, 36], seed).into_iter();
        all.enumerate().map(cut).collect()
    };
    // The evaluation has several batches.
    let (train, dev) = (items(50, 1), items(900, 2));
    is_the_same_on_all(|group| {
        let device = device();
        let adapter = MtLoraConfig::new(Structure::Shim)
            .with_rank(2)
            .with_target_modules(Targets::names(["query", "value"]))
            .with_modules_to_save(vec!["classifier".to_string()]);
        let model = SequenceClassifier::fresh(&config, 3, &device).unwrap();
        let model = Method::MtLora(adapter).prepare(model)?;
        let data = ClassificationData {
            config: &config,
            task: &task,
            items: &train,
            dev: &dev,
        };
        if group.rank() > 0 {
            return serve_classification(model, data, &device, group).map(|()| None);
        }
        let mut keep = Keep::default();
        let extras = Extras {
            group: Some(group),
            ..Extras::default()
        };
        let trained = train_with(model, data, &options, None, &device, &mut keep, extras);
        ended(trained, keep).map(Some)
    });
}

/// Learns a fixed linear map of numbers. It has no parts of an evaluation, and may fail.
#[derive(Clone)]
struct Map {
    lengths: Vec<usize>,
    fails: Option<Fails>,
}

/// What goes wrong with the loss of one example.
#[derive(Clone, Copy, PartialEq)]
enum Fails {
    /// There is none.
    Learner,
    /// It is not finite.
    Loss,
}

/// The example that fails.
const BAD: usize = 5;

impl Map {
    fn new() -> Self {
        Self {
            lengths: vec![1; 20],
            fails: None,
        }
    }

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
        let sum = Self::errors(model, batch, device);
        let sum = match self.fails.filter(|_| batch.contains(&BAD)) {
            Some(Fails::Learner) => return Err(FitError::NoTargets),
            Some(Fails::Loss) => sum.mul_scalar(f32::NAN),
            None => sum,
        };
        Ok(BatchLoss::new(sum, batch.len()))
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

fn base() -> State {
    let layer: Linear = LinearConfig::new(4, 4).init(&device());
    state(&layer, |_, _| true)
}

fn linear(base: &State, adapter: MtLoraConfig) -> Linear {
    let layer: Linear = LinearConfig::new(4, 4).init(&device());
    let layer = load_state(layer, base.clone()).unwrap();
    adapter.with_rank(3).attach(layer).unwrap()
}

fn map(
    learner: &Map,
    model: Linear,
    hooks: Option<&mut dyn TrainingHooks>,
    group: &ProcessGroup<'_>,
) -> Result<Option<Ended>, FitError> {
    let device = device();
    if group.rank() > 0 {
        return serve(model, learner, &device, group).map(|()| None);
    }
    let mut keep = Keep::default();
    let options = TrainOptions {
        batch: BatchSize::Sequences(1),
        epochs: 6,
        ..options()
    };
    let extras = Extras {
        // The hooks may outlive the learner.
        hooks: hooks.map(|hooks| hooks as &mut dyn TrainingHooks),
        group: Some(group),
    };
    let trained = fit_with(model, learner, &options, None, &device, &mut keep, extras);
    ended(trained, keep).map(Some)
}

/// The penalty of AdaLoRA is in the loss of rank 0's first micro-batch alone, and its hooks change the ranks' parameters.
#[test]
fn adalora_is_the_same_on_any_number_of_ranks() {
    let base = base();
    let ended = is_the_same_on_all(|group| {
        let mut hooks = AdaLoraHooks::new(AdaLoraSchedule {
            target_rank: 1,
            initial_steps: 2,
            final_steps: 3,
            interval: 2,
            ..AdaLoraSchedule::default()
        });
        let model = linear(&base, MtLoraConfig::new(AdaLora));
        map(&Map::new(), model, Some(&mut hooks), group)
    });
    let kept: Vec<f32> = ended.values["weight.mtlora.e"].iter::<f32>().collect();
    assert_eq!(kept.iter().filter(|one| **one != 0.0).count(), 1);
}

#[test]
fn an_error_of_any_rank_ends_the_training_on_all() {
    let base = base();
    let shim = || MtLoraConfig::new(Structure::Shim);
    let failing = |fails, size| {
        let learner = Map {
            fails: Some(fails),
            ..Map::new()
        };
        let ended = on_ranks(size, |group| {
            map(&learner, linear(&base, shim()), None, group)
        });
        ended.unwrap_err()
    };
    let diverged = failing(Fails::Loss, 1);
    assert!(
        diverged.starts_with("the loss is NaN at step 1"),
        "{diverged}"
    );
    let unlearned = failing(Fails::Learner, 1);
    for size in [2, 3, 4] {
        assert_eq!(failing(Fails::Loss, size), diverged);
        // The rank that computes the example's micro-batch is named, unless it is rank 0.
        let found = failing(Fails::Learner, size);
        let (first, message) = found.split_once(": ").unwrap_or(("", &found));
        assert_eq!(message, unlearned);
        assert!(first.is_empty() || first.starts_with("rank "), "{found}");
    }
}

#[test]
fn ranks_that_cannot_train_together_are_refused() {
    let base = base();
    let shim = || MtLoraConfig::new(Structure::Shim);
    let refused = |size, train: &(dyn Fn(&ProcessGroup<'_>) -> _ + Sync)| {
        on_ranks::<Ended>(size, train).unwrap_err()
    };
    // 12 micro-batches.
    let text = refused(5, &|group| {
        map(&Map::new(), linear(&base, shim()), None, group)
    });
    assert!(
        text.starts_with("a step has 12 micro-batches (--gradient-accumulation), which 5 ranks"),
        "{text}"
    );
    let text = refused(3, &|group| {
        let mut learner = Map::new();
        if group.rank() == 2 {
            learner.lengths.push(1);
        }
        map(&learner, linear(&base, shim()), None, group)
    });
    assert!(
        text.starts_with("rank 2 has other examples than rank 0"),
        "{text}"
    );
    let text = refused(2, &|group| {
        let other = self::base();
        let base = if group.rank() == 0 { &base } else { &other };
        map(&Map::new(), linear(base, shim()), None, group)
    });
    assert!(text.contains("other weights of the base model"), "{text}");
    let text = refused(2, &|group| {
        let structure = if group.rank() == 0 {
            Structure::Shim
        } else {
            Structure::Ctcm
        };
        map(
            &Map::new(),
            linear(&base, MtLoraConfig::new(structure)),
            None,
            group,
        )
    });
    assert!(text.contains("other trained parameters"), "{text}");

    // A rank whose data cannot be read, and one whose rank 0 fails.
    let text = refused(2, &|group| match group.rank() {
        0 => map(&Map::new(), linear(&base, shim()), None, group),
        _ => Err(FitError::NoExamples),
    });
    assert_eq!(text, "rank 1: there are no examples to train on");
    let text = refused(2, &|group| match group.rank() {
        0 => Err(FitError::NoExamples),
        _ => map(&Map::new(), linear(&base, shim()), None, group),
    });
    assert_eq!(text, "there are no examples to train on");
}

#[test]
fn a_rank_that_is_gone_ends_the_training() {
    let base = base();
    let found = on_threads(3, |ranks| {
        let group = ProcessGroup::new(ranks);
        if group.rank() == 2 {
            return None;
        }
        let model = linear(&base, MtLoraConfig::new(Structure::Shim));
        let ended = map(&Map::new(), model, None, &group);
        Some(ended.map(|ended| ended.is_some()))
    });
    let error = found[0].as_ref().unwrap().as_ref().unwrap_err();
    assert!(
        matches!(error, FitError::Ranks(RanksError::Gone { rank: 2 })),
        "{error}"
    );
    assert!(matches!(found[1], Some(Ok(false))));
}

#[test]
fn a_measured_step_is_made_by_all_ranks() {
    let (config, on) = (gpt2(), device());
    let items = sequences(&config, 8, 1);
    let options = options();
    let made = on_ranks(2, |group| {
        let model = generator(&config, &on);
        let data = CausalData {
            items: &items,
            dev: &items,
            label_smoothing: 0.0,
        };
        if group.rank() > 0 {
            return serve_causal(model, data, &options, &on, group).map(|()| None);
        }
        let subject = Subject::causal(model, &items, 0.0, &options, &on).on(group);
        let (_, seconds) = subject.step(&[0, 1, 2])?;
        Ok(Some(seconds > 0.0))
    });
    assert_eq!(made, Ok(true));
}
