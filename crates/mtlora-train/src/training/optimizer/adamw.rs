use burn::grad_clipping::GradientClipping;
use burn::module::{Module, ModuleVisitor, Param, ParamGroup};
use burn::optim::{
    AdamWConfig, DynOptimizer, DynState, GradientsParams, LearningRate, ModuleOptimizer, StateSink,
    StateSource,
};
use burn::tensor::kind::BridgeTensor;
use burn::tensor::{Device, Tensor};
use mtlora_core::{SquaredNorm, scaled};
use serde::{Deserialize, Serialize};

use crate::training::optimizer::gradient_factor::{GradientFactor, ScaledAdamW};
use crate::training::optimizer::in_place::{AdamWInPlace, AdamWRule};
use crate::training::optimizer::lora_plus::{LoraPlus, factors};
use crate::training::options::TrainOptions;

/// The vectors that are trained and have no weight decay, by parts of their paths: biases, and the weights of layer norms.
fn vectors() -> ParamGroup {
    ParamGroup::from_any_predicates(vec!["bias", "gamma", "beta"])
}

/// The constant that PyTorch adds to the norm of the gradients before dividing by it.
const NORM_EPSILON: f64 = 1e-6;

/// The numbers of AdamW beside its learning rate and its weight decay, with PyTorch's defaults.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AdamSettings {
    /// How much of the mean of the gradients a step keeps.
    pub beta1: f64,
    /// How much of the mean of their squares a step keeps.
    pub beta2: f64,
    /// Added to the root of that mean before dividing by it.
    pub epsilon: f64,
}

impl Default for AdamSettings {
    fn default() -> Self {
        Self {
            beta1: 0.9,
            beta2: 0.999,
            epsilon: 1e-8,
        }
    }
}

impl AdamSettings {
    /// Whether they are the defaults, which settings files leave out.
    pub(crate) fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// AdamW (arXiv 1711.05101) with PyTorch's default betas and epsilon, and with the decay rule of the paper's code:
/// biases and the parameters of layer norms have no weight decay.
pub fn adamw(weight_decay: f64) -> ModuleOptimizer {
    let rule = rule(AdamSettings::default(), weight_decay);
    grouped(rule, None, None, &GradientFactor::default())
}

/// [`adamw`] with the learning rates of LoRA+.
pub fn lora_plus_adamw(weight_decay: f64, lora_plus: LoraPlus) -> ModuleOptimizer {
    let rule = rule(AdamSettings::default(), weight_decay);
    grouped(rule, Some(lora_plus), None, &GradientFactor::default())
}

/// AdamW with the betas and the epsilon of RoBERTa's pre-training (arXiv 1907.11692, section 2.4), and with the same
/// decay rule.
pub(crate) fn pretraining_adamw(weight_decay: f64) -> ModuleOptimizer {
    let settings = AdamSettings {
        beta2: 0.98,
        epsilon: 1e-6,
        ..AdamSettings::default()
    };
    let factor = GradientFactor::default();
    grouped(rule(settings, weight_decay), None, None, &factor)
}

/// The optimizer of a training with these options. With a `device`, a stored state is read directly onto it. Burn would
/// read it onto its default device first, which may be a GPU that this run does not use or that is not available. The
/// optimizer multiplies gradients with `factor`.
pub(crate) fn adamw_for(
    options: &TrainOptions,
    device: Option<&Device>,
    factor: &GradientFactor,
) -> ModuleOptimizer {
    let rule = rule(options.adam, options.weight_decay);
    grouped(rule, options.lora_plus, device, factor)
}

/// The optimizer with its groups: the later ones count where several match.
fn grouped(
    rule: AdamWRule,
    lora_plus: Option<LoraPlus>,
    device: Option<&Device>,
    factor: &GradientFactor,
) -> ModuleOptimizer {
    let group = |decays: bool, ratio: f64| GroupOptimizer {
        adamw: ScaledAdamW {
            adamw: AdamWInPlace::new(AdamWRule {
                weight_decay: if decays { rule.weight_decay } else { 0.0 },
                ..rule
            }),
            ratio,
            factor: factor.clone(),
        },
        device: device.map(|device| device.clone().inner()),
    };
    let no_clipping = None::<GradientClipping>;
    let of_vectors = lora_plus.map_or(1.0, LoraPlus::of_vectors);
    // The groups have all parameters, so that the optimizer they are added to has none.
    let mut optimizer = AdamWConfig::new()
        .init()
        .with_group(ParamGroup::all(), group(true, 1.0), no_clipping.clone())
        .with_group(vectors(), group(false, of_vectors), no_clipping.clone());
    if let Some(undecayed) = factors(|factor| !factor.decays) {
        optimizer = optimizer.with_group(undecayed, group(false, 1.0), no_clipping.clone());
    }
    for (factors, ratio, decays) in lora_plus.map_or_else(Vec::new, LoraPlus::groups) {
        optimizer = optimizer.with_group(factors, group(decays, ratio), no_clipping.clone());
    }
    optimizer
}

/// The optimizer of a group of parameters.
struct GroupOptimizer {
    adamw: ScaledAdamW,
    /// Where a stored state is read to; `None` for Burn's choice.
    device: Option<Device>,
}

impl DynOptimizer for GroupOptimizer {
    fn step_dyn(
        &self,
        rank: usize,
        lr: LearningRate,
        tensor: BridgeTensor,
        grad: BridgeTensor,
        state: Option<DynState>,
    ) -> (BridgeTensor, Option<DynState>) {
        self.adamw.step_dyn(rank, lr, tensor, grad, state)
    }

    fn to_device_dyn(&self, state: DynState, device: &Device) -> DynState {
        self.adamw.to_device_dyn(state, device)
    }

    fn state_flatten(&self, prefix: &str, state: &DynState, out: &mut StateSink) {
        self.adamw.state_flatten(prefix, state, out);
    }

    fn state_unflatten(
        &self,
        rank: usize,
        prefix: &str,
        src: &mut StateSource,
        default: &Device,
    ) -> Option<DynState> {
        let device = self.device.as_ref().unwrap_or(default);
        self.adamw.state_unflatten(rank, prefix, src, device)
    }
}

fn rule(settings: AdamSettings, weight_decay: f64) -> AdamWRule {
    AdamWRule {
        beta_1: settings.beta1 as f32,
        beta_2: settings.beta2 as f32,
        epsilon: settings.epsilon as f32,
        weight_decay: weight_decay as f32,
    }
}

/// Scales the gradients so that their total norm is at most `most`, as PyTorch's `clip_grad_norm_` does, and returns
/// the norm before scaling. Reading the norm waits for the device.
pub fn clip_gradient_norm<M: Module>(model: &M, gradients: &mut GradientsParams, most: f64) -> f64 {
    let norm = match gradient_squares(model, gradients) {
        Some(sum) => f64::from(sum.into_scalar::<f32>()).sqrt(),
        None => 0.0,
    };
    let factor = most / (norm + NORM_EPSILON);
    if factor < 1.0 {
        model.visit(&mut Scale { gradients, factor });
    }
    norm
}

/// What [`clip_gradient_norm`] multiplies the gradients with, of shape `[1]`; `None` if there are no gradients. The norm is not
/// read: the factor stays on the device, in single precision.
pub(crate) fn clipping_factor<M: Module>(
    model: &M,
    gradients: &GradientsParams,
    most: f64,
) -> Option<Tensor<1>> {
    let squares = gradient_squares(model, gradients)?;
    let norm = squares.sqrt().add_scalar(NORM_EPSILON);
    Some(norm.recip().mul_scalar(most).clamp_max(1.0))
}

/// Multiplies all gradients with `factor`, of shape `[1]`.
pub(crate) fn scale_gradients<M: Module>(
    model: &M,
    gradients: &mut GradientsParams,
    factor: Tensor<1>,
) {
    model.visit(&mut ScaleOnDevice { gradients, factor });
}

/// The sum of the squares of all gradients, of shape `[1]`; `None` if there are no gradients.
fn gradient_squares<M: Module>(model: &M, gradients: &GradientsParams) -> Option<Tensor<1>> {
    let mut squares = Squares {
        gradients,
        norm: SquaredNorm::default(),
    };
    model.visit(&mut squares);
    squares.norm.finish()
}

struct Squares<'a> {
    gradients: &'a GradientsParams,
    norm: SquaredNorm,
}

impl ModuleVisitor for Squares<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(gradient) = self.gradients.get::<D>(param.id) {
            self.norm.add(gradient);
        }
    }
}

struct ScaleOnDevice<'a> {
    gradients: &'a mut GradientsParams,
    /// The shape is `[1]`.
    factor: Tensor<1>,
}

impl ModuleVisitor for ScaleOnDevice<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(gradient) = self.gradients.remove::<D>(param.id) {
            let factor = self.factor.clone().cast(gradient.dtype());
            let scaled = gradient * factor.reshape([1; D]);
            self.gradients.register::<D>(param.id, scaled);
        }
    }
}

struct Scale<'a> {
    gradients: &'a mut GradientsParams,
    factor: f64,
}

impl ModuleVisitor for Scale<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(gradient) = self.gradients.remove::<D>(param.id) {
            let scaled = scaled(gradient, self.factor);
            self.gradients.register::<D>(param.id, scaled);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use burn::nn::{Linear, LinearConfig};
    use burn::tensor::{Device, TensorData};

    use super::*;

    fn gradients(model: &Linear, factor: f32, device: &Device) -> GradientsParams {
        let x = Tensor::<2>::from_data([[1.0, -2.0, 3.0]], device).mul_scalar(factor);
        GradientsParams::from_grads(model.forward(x).sum().backward(), model)
    }

    fn of_weight(model: &Linear, mut gradients: GradientsParams) -> TensorData {
        let gradient = gradients.remove::<2>(model.weight.id).unwrap();
        gradient.into_data()
    }

    /// With several threads, Burn's own sum gave two results within some hundred tries. The error is that of sums of a few
    /// thousand values.
    #[test]
    fn the_norm_of_many_values_is_the_same_each_time() {
        let device = mtlora_core::devices()[0].device.clone();
        let count = (4 << 20) + 12_345;
        let value = |at: usize| ((at * 7919) % 10_007) as f32 * 1e-3;
        let values: Vec<f32> = (0..count).map(value).collect();
        let exact: f64 = values.iter().map(|value| f64::from(*value).powi(2)).sum();
        let values = Tensor::<1>::from_data(TensorData::new(values, [count]), &device);
        let sum = || {
            let mut norm = SquaredNorm::default();
            norm.add(values.clone());
            norm.finish().unwrap().into_scalar::<f32>()
        };
        let first = sum();
        assert!(
            (f64::from(first) / exact - 1.0).abs() < 1e-5,
            "{first} {exact}"
        );
        assert!((0..100).all(|_| sum().to_bits() == first.to_bits()));
    }

    /// The total norm is sqrt(2 (1 + 4 + 9)) = 5.29 times the factor, combined with that of the biases, sqrt(2).
    #[test]
    fn clipping_on_the_device_agrees_with_clipping_on_the_host() {
        let device = mtlora_core::devices()[0].device.clone().autodiff();
        let model = LinearConfig::new(3, 2).init(&device);
        for factor in [1.0, 0.01] {
            for most in [1.0, 100.0] {
                let mut host = gradients(&model, factor, &device);
                let mut on_device = gradients(&model, factor, &device);
                let norm = clip_gradient_norm(&model, &mut host, most);
                let scaling = clipping_factor(&model, &on_device, most).unwrap();
                scale_gradients(&model, &mut on_device, scaling);
                let expected = (28.0 * f64::from(factor).powi(2) + 2.0).sqrt();
                assert!((norm - expected).abs() < 1e-5, "{norm} {expected}");
                let host = of_weight(&model, host);
                let on_device = of_weight(&model, on_device);
                for (a, b) in host.iter::<f32>().zip(on_device.iter::<f32>()) {
                    assert!((a - b).abs() <= 1e-6 * a.abs(), "{a} {b}");
                }
            }
        }
    }

    /// An optimizer that multiplies gradients makes the step that it makes of multiplied gradients.
    #[test]
    fn a_factor_acts_as_scaled_gradients_do() {
        let device = mtlora_core::devices()[0].device.clone().autodiff();
        let model = LinearConfig::new(3, 2).init(&device);
        let factor = || Tensor::<1>::from_data([0.25], &device.clone().inner());
        let options = TrainOptions::default();
        let after_two_steps = |in_update: bool| {
            let shared = GradientFactor::default();
            let mut optimizer = adamw_for(&options, None, &shared);
            let mut model = model.clone();
            for size in [1.0, -3.0] {
                let mut gradients = gradients(&model, size, &device);
                if in_update {
                    shared.set(Some(factor()));
                } else {
                    scale_gradients(&model, &mut gradients, factor());
                }
                model = optimizer.step(1e-2, model, gradients);
            }
            model.weight.val().into_data()
        };
        assert_eq!(after_two_steps(true), after_two_steps(false));
        assert_ne!(after_two_steps(true), model.weight.val().into_data());
    }
}
