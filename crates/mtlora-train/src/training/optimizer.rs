use burn::grad_clipping::GradientClipping;
use burn::module::{Module, ModuleVisitor, Param, ParamGroup};
use burn::optim::{
    AdamW, AdamWConfig, DynOptimizer, DynState, GradientsParams, LearningRate, ModuleOptimizer,
    StateSink, StateSource,
};
use burn::tensor::kind::BridgeTensor;
use burn::tensor::{Device, FloatDType, Tensor};
use mtlora_core::{AdapterMethod, factor_path};

/// The parameters that weight decay leaves alone, by parts of their paths: biases, a layer norm's two, and the factors
/// of which an adapter method declares it.
fn undecayed() -> ParamGroup {
    let factors = AdapterMethod::all().flat_map(|method| method.factors());
    let factors = factors.filter(|factor| !factor.decays);
    let factors = factors.map(|factor| factor_path("", factor.name));
    let names = ["bias", "gamma", "beta"].map(String::from);
    ParamGroup::from_any_predicates(names.into_iter().chain(factors).collect())
}

/// AdamW (arXiv 1711.05101) as PyTorch's defaults have it, with the authors' decay rule: no weight
/// decay on a parameter with `bias` in its name, nor on those of a layer norm.
pub fn adamw(weight_decay: f64) -> ModuleOptimizer {
    adamw_of(0.999, 1e-8, weight_decay)
}

/// AdamW as RoBERTa's pre-training has it (arXiv 1907.11692, section 2.4), with the same decay rule.
pub(crate) fn pretraining_adamw(weight_decay: f64) -> ModuleOptimizer {
    adamw_of(0.98, 1e-6, weight_decay)
}

/// [`adamw`], reading what it remembered back onto `device`. Burn reads it onto its default device first, and
/// that may be a GPU that a run on another device has no use for, or that is not there.
pub(crate) fn adamw_on(weight_decay: f64, device: &Device) -> ModuleOptimizer {
    let config = config(0.999, 1e-8, weight_decay);
    let on = |adamw: AdamW| OnDevice {
        adamw,
        device: device.clone().inner(),
    };
    config
        .init()
        .with_group(
            ParamGroup::all(),
            on(config.build()),
            None::<GradientClipping>,
        )
        .with_group(
            undecayed(),
            on(config.with_weight_decay(0.0).build()),
            None::<GradientClipping>,
        )
}

struct OnDevice {
    adamw: AdamW,
    device: Device,
}

impl DynOptimizer for OnDevice {
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
        _default: &Device,
    ) -> Option<DynState> {
        self.adamw.state_unflatten(rank, prefix, src, &self.device)
    }
}

fn config(beta_2: f32, epsilon: f32, weight_decay: f64) -> AdamWConfig {
    AdamWConfig::new()
        .with_beta_1(0.9)
        .with_beta_2(beta_2)
        .with_epsilon(epsilon)
        .with_weight_decay(weight_decay as f32)
}

fn adamw_of(beta_2: f32, epsilon: f32, weight_decay: f64) -> ModuleOptimizer {
    let config = config(beta_2, epsilon, weight_decay);
    let without_decay = config.clone().with_weight_decay(0.0);
    config
        .init()
        .with_group(undecayed(), without_decay.build(), None::<GradientClipping>)
}

/// Scales the gradients so that their norm over all parameters is at most `most`, as PyTorch's
/// `clip_grad_norm_` does, and returns the norm before.
pub fn clip_gradient_norm<M: Module>(model: &M, gradients: &mut GradientsParams, most: f64) -> f64 {
    let mut squares = Squares {
        gradients,
        sum: None,
    };
    model.visit(&mut squares);
    let norm = match squares.sum {
        Some(sum) => f64::from(sum.into_scalar::<f32>()).sqrt(),
        None => 0.0,
    };
    let factor = most / (norm + 1e-6);
    if factor < 1.0 {
        model.visit(&mut Scale { gradients, factor });
    }
    norm
}

struct Squares<'a> {
    gradients: &'a GradientsParams,
    sum: Option<Tensor<1>>,
}

impl ModuleVisitor for Squares<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(gradient) = self.gradients.get::<D>(param.id) {
            let square = gradient.cast(FloatDType::F32).square().sum();
            self.sum = Some(match self.sum.take() {
                Some(sum) => sum + square,
                None => square,
            });
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
            let scaled = gradient.mul_scalar(self.factor);
            self.gradients.register::<D>(param.id, scaled);
        }
    }
}
