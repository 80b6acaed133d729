//! AdaLoRA (arXiv 2303.10512): a low-rank update whose ranks are shared out among the layers while they train.
//!
//! `T = diag(e)`, so that the update is a sum of triplets: a column of `B`, a value of `e` and a row of `A`. While the
//! model trains, triplets are scored by how much the loss depends on them, and the `e` of those with the lowest scores
//! over all layers is set to zero, until a budget is reached. Numbers and order are those of PEFT's `tuners/adalora`.

use std::collections::BTreeMap;

use burn::optim::GradientsParams;
use burn::tensor::{Bool, Tensor};
use nalgebra::{DMatrix, DVector};
use serde::{Deserialize, Serialize};

use super::definition::{AdapterMethod, Factor, MethodDefinition, RateGroup};
use crate::adapter::factors::Factors;
use crate::adapter::hooks::{
    Adapters, FactorChanges, HookError, TrainingHooks, check_hooks, factor_path, restored,
};
use crate::adapter::init::Start;
use crate::adapter::module::Adapter;
use crate::state::State;

/// The method AdaLoRA: `A` and `B` start as normal distributions with the standard deviation 0.02, and `e`
/// (`[total_rank, 1]`) as zero, whatever [`Init`](crate::Init) says. The scale is `alpha / (rank + 1e-5)`, and stays so
/// when triplets are masked.
///
/// It trains with [`AdaLoraHooks`].
///
/// ```
/// use burn::nn::{Linear, LinearConfig};
/// use burn::tensor::Device;
/// use mtlora_core::{AdaLora, AdaLoraHooks, AdaLoraSchedule, MtLoraConfig};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let layer: Linear = LinearConfig::new(16, 8).init(&Device::flex().autodiff());
/// let layer = MtLoraConfig::new(AdaLora).with_rank(4).attach(layer)?;
/// // 1000 steps; from step 100 to step 800 the average rank goes from 4 to 2.
/// let schedule = AdaLoraSchedule {
///     target_rank: 2,
///     initial_steps: 100,
///     final_steps: 200,
///     interval: 10,
///     ..AdaLoraSchedule::default()
/// };
/// let hooks = AdaLoraHooks::new(schedule);
/// # let _ = (layer, hooks);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AdaLora;

static FACTORS: [Factor; 3] = [
    Factor {
        name: "a",
        key: "lora_A",
        embedding_key: "lora_embedding_A",
        shape: |sizes| [sizes.total_rank, sizes.input],
        start: |_| Start::Gaussian,
        neutral: None,
        decays: true,
        rate: RateGroup::A,
    },
    Factor {
        name: "b",
        key: "lora_B",
        embedding_key: "lora_embedding_B",
        shape: |sizes| [sizes.output, sizes.rank],
        start: |_| Start::Gaussian,
        neutral: None,
        decays: true,
        rate: RateGroup::B,
    },
    Factor {
        name: "e",
        key: "lora_E",
        embedding_key: "lora_embedding_E",
        shape: |sizes| [sizes.total_rank, 1],
        start: |_| Start::Constant(0.0),
        neutral: Some(Start::Constant(1.0)),
        decays: true,
        rate: RateGroup::T,
    },
];

impl MethodDefinition for AdaLora {
    fn name(&self) -> &'static str {
        "adalora"
    }

    fn factors(&self) -> &'static [Factor] {
        &FACTORS
    }

    fn alpha_divisor(&self, rank: usize, _use_rslora: bool) -> f64 {
        rank as f64 + 1e-5
    }

    fn scales_by_root(&self) -> bool {
        false
    }

    fn transform(&self, factors: &Factors<Tensor<2>>) -> Option<Tensor<2>> {
        let e = factors.get("e")?.clone();
        let identity = Tensor::eye(e.dims()[0], &e.device());
        Some(identity * e)
    }

    fn transform_on_host(&self, factors: &Factors<DMatrix<f64>>) -> Option<DMatrix<f64>> {
        let e = factors.get("e")?.iter().copied();
        Some(DMatrix::from_diagonal(&DVector::from_vec(e.collect())))
    }

    fn needs_hooks(&self) -> bool {
        true
    }
}

impl From<AdaLora> for AdapterMethod {
    fn from(_: AdaLora) -> Self {
        AdapterMethod::new(&AdaLora)
    }
}

/// When AdaLoRA prunes, and how much. Steps are counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AdaLoraSchedule {
    /// The average rank of an adapter at the end; PEFT's `target_r`.
    pub target_rank: usize,
    /// Steps at the start in which nothing is masked; PEFT's `tinit`.
    pub initial_steps: usize,
    /// Steps at the end in which the mask stays as it is; PEFT's `tfinal`.
    pub final_steps: usize,
    /// Steps from one masking to the next in between; PEFT's `deltaT`.
    pub interval: usize,
    /// How much of the average sensitivity a step keeps, in `(0, 1)`; PEFT's `beta1`.
    pub sensitivity_decay: f64,
    /// How much of the average uncertainty a step keeps, in `(0, 1)`; PEFT's `beta2`.
    pub uncertainty_decay: f64,
    /// The weight of the penalty that keeps `A` and `B` orthogonal; PEFT's `orth_reg_weight`.
    pub penalty: f64,
}

impl Default for AdaLoraSchedule {
    /// PEFT's defaults.
    fn default() -> Self {
        Self {
            target_rank: 8,
            initial_steps: 0,
            final_steps: 0,
            interval: 1,
            sensitivity_decay: 0.85,
            uncertainty_decay: 0.85,
            penalty: 0.5,
        }
    }
}

impl AdaLoraSchedule {
    /// Checks the range of each number, for a training of `steps` steps.
    ///
    /// # Errors
    /// When a number is out of range; the error names the first.
    pub fn check(&self, steps: usize) -> Result<(), HookError> {
        let fraction = |value: f64| value > 0.0 && value < 1.0;
        let pruned = steps.saturating_sub(self.final_steps);
        let count = |value: usize| value as f64;
        let checks = [
            (
                self.target_rank > 0,
                "target_rank",
                count(self.target_rank),
                "at least 1",
            ),
            (
                pruned > 1,
                "final_steps",
                count(self.final_steps),
                "two steps at least must come before them",
            ),
            (
                self.initial_steps < pruned,
                "initial_steps",
                count(self.initial_steps),
                "initial and final steps together must be fewer than all",
            ),
            (
                self.interval > 0,
                "interval",
                count(self.interval),
                "at least 1",
            ),
            (
                fraction(self.sensitivity_decay),
                "sensitivity_decay",
                self.sensitivity_decay,
                "between 0 and 1",
            ),
            (
                fraction(self.uncertainty_decay),
                "uncertainty_decay",
                self.uncertainty_decay,
                "between 0 and 1",
            ),
            (
                self.penalty.is_finite() && self.penalty >= 0.0,
                "penalty",
                self.penalty,
                "not negative",
            ),
        ];
        match checks.into_iter().find(|(holds, ..)| !holds) {
            None => Ok(()),
            Some((_, setting, value, wanted)) => Err(HookError::Setting {
                method: AdaLora.into(),
                setting,
                value,
                steps,
                wanted,
            }),
        }
    }

    /// The budget after step number `step` of `steps`.
    fn budget(&self, step: usize, steps: usize, Triplets { all, target }: Triplets) -> Budget {
        let end = steps.saturating_sub(self.final_steps);
        if step <= self.initial_steps {
            return Budget {
                left: all,
                masks: false,
            };
        }
        if step >= end {
            return Budget {
                left: target,
                masks: true,
            };
        }
        let past = (step - self.initial_steps) as f64 / (end - self.initial_steps) as f64;
        let pruned = all as f64 - target as f64;
        Budget {
            left: (pruned * (1.0 - past).powi(3) + target as f64) as usize,
            masks: step.is_multiple_of(self.interval),
        }
    }
}

/// The numbers of triplets of all adapters together.
#[derive(Clone, Copy)]
struct Triplets {
    /// At the start.
    all: usize,
    /// At the end.
    target: usize,
}

/// What is pruned after a step.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Budget {
    /// The number of triplets that may be left.
    left: usize,
    /// Whether the others are masked after this step.
    masks: bool,
}

/// The averages from which the elements of one factor are scored.
#[derive(Clone, Debug)]
struct Averages {
    /// The average of `|value * gradient|`.
    sensitivity: Tensor<2>,
    /// The average of the difference between `|value * gradient|` and its average.
    uncertainty: Tensor<2>,
}

/// The names of both averages and of the mask in a state.
const SENSITIVITY: &str = "sensitivity";
const UNCERTAINTY: &str = "uncertainty";
const KEPT: &str = "kept";

/// The training hooks of [`AdaLora`]: penalty, scores, budget and mask. All but the counting is computed on the device.
#[derive(Clone, Debug)]
pub struct AdaLoraHooks {
    schedule: AdaLoraSchedule,
    steps: usize,
    /// The averages of each factor, by its path; empty again when the mask no longer changes.
    averages: BTreeMap<String, Averages>,
    /// The gradients of the step that is being made, by the factor's path.
    gradients: BTreeMap<String, Tensor<2>>,
    /// The final mask, by the path of each `e`: 1 for what is kept, 0 for what is not.
    kept: BTreeMap<String, Tensor<2>>,
}

impl AdaLoraHooks {
    /// Hooks for a training that has not begun.
    pub fn new(schedule: AdaLoraSchedule) -> Self {
        Self {
            schedule,
            steps: 0,
            averages: BTreeMap::new(),
            gradients: BTreeMap::new(),
            kept: BTreeMap::new(),
        }
    }

    /// The step after which the mask stays as it is.
    fn end(&self) -> usize {
        self.steps.saturating_sub(self.schedule.final_steps)
    }

    /// Updates the averages with the gradients of the step that was made.
    fn measure(&mut self, adapters: &Adapters) {
        let [beta1, beta2] = [
            self.schedule.sensitivity_decay,
            self.schedule.uncertainty_decay,
        ];
        for (path, value) in factors(adapters) {
            let Some(gradient) = self.gradients.remove(&path) else {
                continue;
            };
            let now = (value * gradient).abs();
            let old = self.averages.remove(&path).unwrap_or_else(|| Averages {
                sensitivity: now.zeros_like(),
                uncertainty: now.zeros_like(),
            });
            let sensitivity =
                old.sensitivity.mul_scalar(beta1) + now.clone().mul_scalar(1.0 - beta1);
            let apart = (now - sensitivity.clone()).abs();
            let uncertainty = old.uncertainty.mul_scalar(beta2) + apart.mul_scalar(1.0 - beta2);
            self.averages.insert(
                path,
                Averages {
                    sensitivity,
                    uncertainty,
                },
            );
        }
    }

    /// The score of each triplet of an adapter: `[total_rank]`, or `None` where nothing was measured.
    fn scores(&self, module: &str, adapter: &Adapter) -> Option<Tensor<1>> {
        let score = |name| {
            let averages = self.averages.get(&factor_path(module, name))?;
            Some(averages.sensitivity.clone() * averages.uncertainty.clone())
        };
        let (a, b, e) = (score("a")?, score("b")?, score("e")?);
        let total_rank = e.dims()[0];
        // Each projection's rows of `B` score its own triplets.
        let groups = adapter.form.groups();
        let [rows, rank] = b.dims();
        let b = b.reshape([groups, rows / groups.max(1), rank]).mean_dim(1);
        let vectors: Tensor<1> = a.mean_dim(1).reshape([total_rank]) + b.reshape([total_rank]);
        Some(e.reshape([total_rank]) + vectors)
    }

    /// The mask of each `e`, by its path, when `budget` triplets are kept: the values with the lowest scores over all
    /// adapters are masked. Empty if none is masked.
    fn masked(&self, adapters: &Adapters, budget: usize) -> BTreeMap<String, Tensor<2, Bool>> {
        let scores: Vec<(String, Tensor<1>)> = adapters
            .iter()
            .filter_map(|(path, adapter)| {
                Some((factor_path(path, "e"), self.scores(path, adapter)?))
            })
            .collect();
        let count = triplets(adapters).saturating_sub(budget);
        if count == 0 || scores.is_empty() {
            return BTreeMap::new();
        }
        let all: Vec<Tensor<1>> = scores.iter().map(|(_, scores)| scores.clone()).collect();
        let sorted = Tensor::cat(all, 0).sort(0);
        let threshold = sorted.slice(count - 1..count);
        scores
            .into_iter()
            .map(|(path, scores)| {
                let rank = scores.dims()[0];
                let low = scores.lower_equal(threshold.clone().expand([rank]));
                (path, low.reshape([rank, 1]))
            })
            .collect()
    }
}

/// The number of triplets of all adapters.
fn triplets(adapters: &Adapters) -> usize {
    adapters
        .values()
        .map(|adapter| adapter.a.lazy_shape()[0])
        .sum()
}

/// The value of each factor, without autodiff, by its path.
fn factors(adapters: &Adapters) -> impl Iterator<Item = (String, Tensor<2>)> {
    adapters.iter().flat_map(|(module, adapter)| {
        let factors = adapter.factors();
        factors.map(|(name, factor)| (factor_path(module, name), factor.val().inner()))
    })
}

/// `||M Mᵀ - I||_F` of a matrix `M` with few rows: `[1]`.
fn distance_from_orthogonal(rows: Tensor<2>) -> Tensor<1> {
    let identity = Tensor::eye(rows.dims()[0], &rows.device());
    let difference = rows.clone().matmul(rows.transpose()) - identity;
    // The root has no derivative at zero; this much more has no effect elsewhere.
    difference.square().sum().add_scalar(1e-30).sqrt()
}

impl TrainingHooks for AdaLoraHooks {
    fn method(&self) -> AdapterMethod {
        AdaLora.into()
    }

    fn begin(&mut self, adapters: &Adapters, steps: usize) -> Result<(), HookError> {
        self.schedule.check(steps)?;
        check_hooks(adapters, Some(self))?;
        self.steps = steps;
        Ok(())
    }

    fn penalty(&self, adapters: &Adapters) -> Option<Tensor<1>> {
        if self.schedule.penalty == 0.0 {
            return None;
        }
        let mut distances = Vec::new();
        for adapter in adapters.values() {
            distances.push(distance_from_orthogonal(adapter.a.val()));
            let (b, groups) = (adapter.b.val(), adapter.form.groups());
            let [rows, rank] = b.dims();
            let width = rows / groups.max(1);
            for group in 0..groups {
                let own = b
                    .clone()
                    .slice([group * width..(group + 1) * width, 0..rank]);
                distances.push(distance_from_orthogonal(own.transpose()));
            }
        }
        let count = distances.len();
        let sum = distances.into_iter().reduce(|sum, one| sum + one)?;
        Some(sum.mul_scalar(self.schedule.penalty / count as f64))
    }

    fn after_backward(&mut self, step: usize, adapters: &Adapters, gradients: &GradientsParams) {
        self.gradients.clear();
        if step >= self.end() {
            return;
        }
        for (module, adapter) in adapters {
            for (name, factor) in adapter.factors() {
                if let Some(gradient) = gradients.get::<2>(factor.id) {
                    self.gradients.insert(factor_path(module, name), gradient);
                }
            }
        }
    }

    fn after_step(&mut self, step: usize, adapters: &Adapters) -> FactorChanges {
        let end = self.end();
        let values = || {
            adapters.iter().filter_map(|(module, adapter)| {
                let e = adapter.factor("e")?.val().inner();
                Some((factor_path(module, "e"), e))
            })
        };
        if step > end {
            return values()
                .filter_map(|(path, e)| {
                    let kept = self.kept.get(&path)?.clone();
                    Some((path, e.mask_fill(kept.equal_elem(0.0), 0.0)))
                })
                .collect();
        }
        if step < end {
            self.measure(adapters);
        }
        let triplets = Triplets {
            all: triplets(adapters),
            target: self.schedule.target_rank * adapters.len(),
        };
        let budget = self.schedule.budget(step, self.steps, triplets);
        if !budget.masks {
            return FactorChanges::new();
        }
        let masked = self.masked(adapters, budget.left);
        if step == end {
            self.averages.clear();
            self.kept = values()
                .map(|(path, e)| {
                    let all = e.ones_like();
                    let kept = match masked.get(&path) {
                        Some(masked) => all.mask_fill(masked.clone(), 0.0),
                        None => all,
                    };
                    (path, kept)
                })
                .collect();
        }
        values()
            .filter_map(|(path, e)| {
                let masked = masked.get(&path)?.clone();
                Some((path, e.mask_fill(masked, 0.0)))
            })
            .collect()
    }

    fn state(&self) -> State {
        let averages = self.averages.iter().flat_map(|(path, averages)| {
            [
                (SENSITIVITY, &averages.sensitivity),
                (UNCERTAINTY, &averages.uncertainty),
            ]
            .map(|(name, value)| (format!("{path}/{name}"), value.to_data()))
        });
        let kept = self.kept.iter();
        averages
            .chain(kept.map(|(path, kept)| (format!("{path}/{KEPT}"), kept.to_data())))
            .collect()
    }

    fn load_state(&mut self, mut state: State, adapters: &Adapters) -> Result<(), HookError> {
        let method = self.method();
        let (mut averages, mut kept) = (BTreeMap::new(), BTreeMap::new());
        for (module, adapter) in adapters {
            for (factor_name, factor) in adapter.factors() {
                let path = factor_path(module, factor_name);
                let mut take = |name: &str| {
                    let name = format!("{path}/{name}");
                    let data = state.remove(&name);
                    data.map(|data| restored(method, &name, data, factor))
                        .transpose()
                };
                if let Some(mask) = take(KEPT)? {
                    kept.insert(path.clone(), mask);
                }
                if let (Some(sensitivity), Some(uncertainty)) =
                    (take(SENSITIVITY)?, take(UNCERTAINTY)?)
                {
                    averages.insert(
                        path,
                        Averages {
                            sensitivity,
                            uncertainty,
                        },
                    );
                }
            }
        }
        if let Some(name) = state.into_keys().next() {
            return Err(HookError::Unknown { method, name });
        }
        (self.averages, self.kept) = (averages, kept);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use burn::nn::{Linear, LinearConfig};
    use burn::tensor::TensorData;

    use super::*;
    use crate::{
        FusedProjections, MtLoraConfig, Structure, Targets, adapters, attach_adapters, attached,
        trainable_parameters,
    };

    /// Three fused projections of width 2, of which two are adapted.
    fn fused() -> Linear {
        let device = crate::devices()[0].device.clone().autodiff();
        MtLoraConfig::new(AdaLora)
            .with_rank(2)
            .with_target_modules(Targets::AllLinear)
            .with_fused_projections(vec![FusedProjections {
                module: String::new(),
                adapted: vec![true, false, true],
            }])
            .attach(LinearConfig::new(4, 6).init(&device))
            .unwrap()
    }

    fn with(layer: Linear, factors: &[(&'static str, TensorData)]) -> Linear {
        let device = crate::devices()[0].device.clone().autodiff();
        let mut values = adapters(&layer);
        let values_of = values.get_mut("").unwrap();
        for (name, data) in factors {
            match *name {
                "a" => values_of.a = data.clone(),
                "b" => values_of.b = data.clone(),
                name => {
                    values_of.further.insert(name, data.clone());
                }
            }
        }
        attach_adapters(LinearConfig::new(4, 6).init(&device), values, &[]).unwrap()
    }

    #[test]
    fn it_starts_with_a_zero_update_that_can_grow() {
        let layer = fused();
        let values = &adapters(&layer)[""];
        assert_eq!(values.factor("e").unwrap().shape().to_vec(), [4, 1]);
        assert!(values.factor("e").unwrap().iter::<f32>().all(|e| e == 0.0));
        assert!(values.a.iter::<f32>().all(|a| a != 0.0));
        assert!(values.b.iter::<f32>().all(|b| b != 0.0));
        assert_eq!(values.form.scale, 16.0 / (2.0 + 1e-5));
        assert_eq!(trainable_parameters(&layer), 16 + 8 + 4);
    }

    #[test]
    fn the_penalty_is_the_mean_distance_from_orthogonality() {
        let layer = with(
            fused(),
            &[
                // A A^T is the identity but for its last element, which is 4.
                (
                    "a",
                    TensorData::from([
                        [1.0f32, 0.0, 0.0, 0.0],
                        [0.0, 1.0, 0.0, 0.0],
                        [0.0, 0.0, 1.0, 0.0],
                        [0.0, 0.0, 0.0, 2.0],
                    ]),
                ),
                // The first projection's B is orthogonal, the second's is zero.
                (
                    "b",
                    TensorData::from([[0.0f32, 1.0], [-1.0, 0.0], [0.0, 0.0], [0.0, 0.0]]),
                ),
            ],
        );
        let hooks = AdaLoraHooks::new(AdaLoraSchedule {
            penalty: 0.3,
            ..AdaLoraSchedule::default()
        });
        let penalty = hooks.penalty(&attached(&layer)).unwrap();
        let gradients = penalty.backward();
        let value = penalty.into_scalar::<f32>();
        let wanted = 0.3 * (3.0 + 0.0 + 2f32.sqrt()) / 3.0;
        assert!((value - wanted).abs() < 1e-6, "{value} and {wanted}");
        // At no distance there is no direction, and no NaN either.
        let b = attached(&layer)[""].b.val().grad(&gradients).unwrap();
        assert!(b.into_data().iter::<f32>().all(f32::is_finite));
        let none = AdaLoraHooks::new(AdaLoraSchedule {
            penalty: 0.0,
            ..AdaLoraSchedule::default()
        });
        assert!(none.penalty(&attached(&layer)).is_none());
    }

    #[test]
    fn each_projections_rows_of_b_score_its_own_triplets() {
        let layer = fused();
        let adapters = attached(&layer);
        let device = crate::devices()[0].device.clone();
        let averages = |data: TensorData| Averages {
            sensitivity: Tensor::from_data(data.clone(), &device),
            uncertainty: Tensor::from_data(data, &device).ones_like(),
        };
        let mut hooks = AdaLoraHooks::new(AdaLoraSchedule::default());
        for (name, data) in [
            ("a", TensorData::zeros::<f32, _>([4, 4])),
            ("e", TensorData::from([[0.5f32], [0.0], [0.0], [0.0]])),
            (
                "b",
                TensorData::from([[1.0f32, 2.0], [3.0, 4.0], [5.0, 6.0], [7.0, 8.0]]),
            ),
        ] {
            hooks.averages.insert(factor_path("", name), averages(data));
        }
        let scores = hooks.scores("", &adapters[""]).unwrap().into_data();
        let scores: Vec<f32> = scores.iter::<f32>().collect();
        assert_eq!(scores, [2.5, 3.0, 6.0, 7.0]);
        let masked = |budget| {
            let masked = hooks.masked(&adapters, budget);
            masked.into_values().next().map(|masked| {
                let values: Vec<bool> = masked.into_data().iter::<bool>().collect();
                values
            })
        };
        assert_eq!(masked(4), None);
        assert_eq!(masked(3), Some(vec![true, false, false, false]));
        assert_eq!(masked(1), Some(vec![true, true, true, false]));
    }

    #[test]
    fn the_budget_falls_with_the_cube() {
        let schedule = AdaLoraSchedule {
            initial_steps: 2,
            final_steps: 5,
            interval: 2,
            ..AdaLoraSchedule::default()
        };
        // By hand: from 6 to 2 between the steps 2 and 15, as int(4 (1 - (t - 2) / 13)^3 + 2).
        let triplets = Triplets { all: 6, target: 2 };
        let budget = |step| {
            let Budget { left, masks } = schedule.budget(step, 20, triplets);
            (left, masks)
        };
        assert_eq!(budget(1), (6, false));
        assert_eq!(budget(2), (6, false));
        assert_eq!(budget(3), (5, false));
        assert_eq!(budget(4), (4, true));
        assert_eq!(budget(8), (2, true));
        assert_eq!(budget(15), (2, true));
        assert_eq!(budget(16), (2, true));
    }

    #[test]
    fn a_plain_lora_can_be_continued() {
        let device = crate::devices()[0].device.clone();
        let layer: Linear = MtLoraConfig::new(Structure::Lora)
            .with_rank(2)
            .attach(LinearConfig::new(4, 6).init(&device))
            .unwrap();
        let mut lora = adapters(&layer)[""].clone();
        lora.b = TensorData::ones::<f32, _>([6, 2]);
        let update = lora.to_device(&device).delta().into_data();
        let other = lora.in_method(AdaLora).unwrap();
        let found = other.to_device(&device).delta().into_data();
        found.assert_approx_eq::<f32>(&update, burn::tensor::Tolerance::absolute(1e-7));
        let folded = other.fold(crate::Fold::Balanced).unwrap();
        let folded = folded.to_device(&device).delta().into_data();
        folded.assert_approx_eq::<f32>(&update, burn::tensor::Tolerance::absolute(1e-6));
    }
}
