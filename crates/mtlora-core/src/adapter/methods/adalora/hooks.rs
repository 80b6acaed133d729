//! AdaLoRA's penalty, scores and mask.

use std::collections::BTreeMap;

use burn::optim::GradientsParams;
use burn::tensor::{Bool, Tensor};

use super::AdaLora;
use super::schedule::{AdaLoraSchedule, Budget, Triplets};
use crate::adapter::hooks::{
    Adapters, FactorChanges, HookError, TrainingHooks, check_hooks, factor_path, restored,
};
use crate::adapter::methods::definition::AdapterMethod;
use crate::adapter::module::Adapter;
use crate::state::State;

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
    triplets: Triplets,
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
            triplets: Triplets::default(),
            averages: BTreeMap::new(),
            gradients: BTreeMap::new(),
            kept: BTreeMap::new(),
        }
    }

    /// The step from which the mask stays as it is, counted from 0.
    fn settles(&self) -> usize {
        self.schedule.settles(self.steps)
    }

    /// Whether a step, counted from 0, changes the scores.
    fn is_scored(&self, step: usize) -> bool {
        step < self.steps.saturating_sub(self.schedule.final_steps)
    }

    /// The budget after a step, counted from 0.
    fn budget(&self, step: usize) -> Budget {
        self.schedule.budget(step, self.steps, self.triplets)
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
        // An adapter that no gradient has reached has no scores, and keeps its triplets.
        let scored: usize = scores.iter().map(|(_, scores)| scores.dims()[0]).sum();
        let count = triplets(adapters).saturating_sub(budget).min(scored);
        if count == 0 {
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
        self.triplets = Triplets {
            all: triplets(adapters),
            target: self.schedule.target_rank.saturating_mul(adapters.len()),
        };
        let average = self.triplets.all / adapters.len().max(1);
        self.schedule.check_rank(average, steps)?;
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
        if !self.is_scored(step.saturating_sub(1)) {
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
        let step = step.saturating_sub(1);
        let settles = self.settles();
        let values = || {
            adapters.iter().filter_map(|(module, adapter)| {
                let e = adapter.factor("e")?.val().inner();
                Some((factor_path(module, "e"), e))
            })
        };
        if step > settles {
            return values()
                .filter_map(|(path, e)| {
                    let kept = self.kept.get(&path)?.clone();
                    Some((path, e.mask_fill(kept.equal_elem(0.0), 0.0)))
                })
                .collect();
        }
        if self.is_scored(step) {
            self.measure(adapters);
        }
        let budget = self.budget(step);
        if !budget.masks && step != settles {
            return FactorChanges::new();
        }
        let masked = self.masked(adapters, budget.left);
        if step == settles {
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
        if !budget.masks {
            return FactorChanges::new();
        }
        values()
            .filter_map(|(path, e)| {
                let masked = masked.get(&path)?.clone();
                Some((path, e.mask_fill(masked, 0.0)))
            })
            .collect()
    }

    fn rank_budget(&self, step: usize) -> Option<usize> {
        Some(self.budget(step.saturating_sub(1)).left)
    }

    fn is_settled(&self, step: usize) -> bool {
        let step = step.saturating_sub(1);
        let settles = self.settles();
        step > settles || (step == settles && self.budget(step).masks)
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
                let missing = |name: &str| HookError::Missing {
                    method,
                    name: format!("{path}/{name}"),
                };
                match (take(SENSITIVITY)?, take(UNCERTAINTY)?) {
                    (Some(sensitivity), Some(uncertainty)) => {
                        let both = Averages {
                            sensitivity,
                            uncertainty,
                        };
                        averages.insert(path, both);
                    }
                    (None, None) => (),
                    (None, Some(_)) => return Err(missing(SENSITIVITY)),
                    (Some(_), None) => return Err(missing(UNCERTAINTY)),
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
        // All but the budget are masked, and what scores better is kept with every smaller budget too.
        for budget in 1..4 {
            let count = masked(budget).map(|masked| masked.into_iter().filter(|one| *one).count());
            assert_eq!(count, Some(4 - budget));
        }
        // An adapter without scores keeps its triplets, whatever the budget.
        let mut two = attached(&layer);
        two.extend(
            attached(&layer)
                .into_values()
                .map(|other| ("other".to_string(), other)),
        );
        let masked: Vec<Vec<bool>> = hooks
            .masked(&two, 1)
            .into_values()
            .map(|masked| masked.into_data().iter::<bool>().collect())
            .collect();
        assert_eq!(masked, [[true; 4]]);
    }

    #[test]
    fn half_of_an_average_is_refused() {
        let layer = fused();
        let half = format!("{}/{SENSITIVITY}", factor_path("", "e"));
        let state = State::from([(half, TensorData::zeros::<f32, _>([4, 1]))]);
        let mut hooks = AdaLoraHooks::new(AdaLoraSchedule::default());
        let error = hooks.load_state(state, &attached(&layer)).unwrap_err();
        assert!(error.to_string().contains(UNCERTAINTY), "{error}");
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
