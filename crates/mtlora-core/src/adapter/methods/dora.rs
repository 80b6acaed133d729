//! DoRA (arXiv 2402.09353): the directions of a weight's rows are trained as in LoRA, and their lengths separately.

use burn::backend::Dispatch;
use burn::tensor::Tensor;
use nalgebra::DMatrix;

use super::definition::{AdapterMethod, Factor, MethodDefinition, RateGroup, WeightKind};
use super::structures::Structure;
use crate::adapter::action::{self, LinearInput, Update};
use crate::adapter::factors::Factors;
use crate::adapter::init::{Init, Start};
use crate::ops::MtLoraBackend;

/// The method DoRA: `W' = m (W + s B A) / ||W + s B A||`, where the norm is that of each row (each output) and `m`
/// (`[out, 1]`) starts as the norms of the rows of `W`. The norm counts as a constant in the backward pass, as in the paper
/// (section 4.3) and in PEFT (`use_dora`).
///
/// Dropout acts on the input of all but the frozen output: `y = x W' + b` becomes `x W + b + drop(x) (W' - W)`, as in PEFT.
///
/// ```
/// use burn::nn::{Linear, LinearConfig};
/// use burn::tensor::Device;
/// use mtlora_core::{Dora, MtLoraConfig};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let layer: Linear = LinearConfig::new(16, 8).init(&Device::flex().autodiff());
/// let layer = MtLoraConfig::new(Dora).with_rank(4).attach(layer)?;
/// # let _ = layer;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dora;

static FACTORS: [Factor; 3] = {
    let [a, b] = super::structures::LORA;
    let m = Factor {
        name: "m",
        key: "lora_magnitude_vector",
        embedding_key: "lora_magnitude_vector",
        shape: |sizes| [sizes.output, 1],
        vector: true,
        start: |_| Start::OutputNorms,
        neutral: None,
        decays: true,
        rate: RateGroup::B,
    };
    [a, b, m]
};

/// The norms to divide by. A row of zeros, such as a padded vocabulary has, stays one: its magnitude is 0, too.
fn divisors<const D: usize>(squares: Tensor<D>) -> Tensor<D> {
    // Rounding may leave a very small square below zero.
    squares.clamp_min(0.0).sqrt().clamp_min(1e-30)
}

/// `m / ||W + s B A||`, `[out, 1]`, through which gradients reach `m` only; `base` is `W`, `[out, in]`.
fn dense_factor(update: &Update, base: Tensor<2>) -> Option<Tensor<2>> {
    let fixed = Update {
        a: update.a.clone().detach(),
        up: update.up.clone().detach(),
        transform: None,
        further: Factors::none(),
        scale: update.scale,
    };
    let sum = base.detach() + action::delta(&fixed);
    let norm = divisors(sum.square().sum_dim(1));
    Some(update.further.get("m")?.clone() / norm)
}

/// The same, `[out]`, without the sum of the matrices. `weight`: `[in, out]`, in any precision.
fn factors(update: &Update, weight: Tensor<2>) -> Option<Tensor<1>> {
    let m = update.further.get("m")?.clone();
    let squares = <Dispatch as MtLoraBackend>::adapted_squared_norms(
        weight.into(),
        update.a.clone().into_dispatch(),
        update.up.clone().into_dispatch(),
        update.scale,
    );
    Some(m.flatten(0, 1) / divisors(Tensor::<1>::from_dispatch(squares)))
}

impl MethodDefinition for Dora {
    fn name(&self) -> &'static str {
        "dora"
    }

    fn factors(&self) -> &'static [Factor] {
        &FACTORS
    }

    fn refuses(&self, init: Init) -> Option<&'static str> {
        Structure::Lora.refuses(init)
    }

    fn refuses_weight(&self, kind: WeightKind) -> Option<&'static str> {
        match kind {
            WeightKind::Single => None,
            WeightKind::Embedding => Some("it adapts linear layers, not embeddings"),
            WeightKind::Fused => {
                Some("it adapts a weight as a whole, not single fused projections")
            }
        }
    }

    fn transform(&self, _: &Factors<Tensor<2>>) -> Option<Tensor<2>> {
        None
    }

    fn transform_on_host(&self, _: &Factors<DMatrix<f64>>) -> Option<DMatrix<f64>> {
        None
    }

    fn delta(&self, update: &Update, base: &dyn Fn() -> Tensor<2>) -> Tensor<2> {
        let base = base();
        match dense_factor(update, base.clone()) {
            Some(factor) => factor * (base.clone() + action::delta(update)) - base,
            None => base.zeros_like(),
        }
    }

    fn linear(&self, update: Update, input: LinearInput) -> Tensor<2> {
        let LinearInput {
            x,
            dropped,
            weight,
            bias,
        } = input;
        let factors = factors(&update, weight.clone());
        // Dropout must not change the frozen output, so what it took away from that is added back.
        let undropped = dropped.as_ref().map(|dropped| {
            let lost = (x.clone() - dropped.clone()).into_dispatch();
            let none = action::optional::<1>(None);
            let y = <Dispatch as MtLoraBackend>::mixed_linear(lost, weight.clone().into(), none);
            Tensor::<2>::from_dispatch(y)
        });
        let y = action::linear(
            update,
            LinearInput {
                x: dropped.unwrap_or(x),
                dropped: None,
                weight,
                bias: None,
            },
        );
        let y = match (factors, bias) {
            (Some(factors), bias) => {
                let (y, factors) = (y.into_dispatch(), factors.into_dispatch());
                let bias = action::optional(bias);
                let y = <Dispatch as MtLoraBackend>::scale_columns(y, factors, bias);
                Tensor::<2>::from_dispatch(y)
            }
            (None, Some(bias)) => y + bias.unsqueeze(),
            (None, None) => y,
        };
        match undropped {
            Some(undropped) => y + undropped,
            None => y,
        }
    }

    fn is_low_rank(&self) -> bool {
        false
    }
}

impl From<Dora> for AdapterMethod {
    fn from(_: Dora) -> Self {
        AdapterMethod::new(&Dora)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use burn::nn::{Embedding, EmbeddingConfig, Linear, LinearConfig};
    use burn::tensor::{Device, Distribution, TensorData, Tolerance};

    use super::*;
    use crate::{
        Adapter, FusedProjections, MatrixError, MtLoraConfig, Structure, adapted_linear, adapters,
        load_state, state,
    };

    fn device() -> Device {
        crate::devices()[0].device.clone().autodiff()
    }

    fn adapted() -> Linear {
        let config = MtLoraConfig::new(Dora).with_rank(2).with_use_rslora(true);
        let layer = LinearConfig::new(4, 6).init(&device());
        config.attach(layer).unwrap()
    }

    /// The layer with random factors, whose base stays.
    fn shaken(layer: Linear) -> Linear {
        let values = state(&layer, |_, trains| trains).into_iter();
        let values = values.map(|(path, data)| {
            let random = Distribution::Uniform(0.2, 1.0);
            let value = Tensor::<2>::random(data.shape().clone(), random, &device().inner());
            (path, value.into_data())
        });
        load_state(layer, values.collect()).unwrap()
    }

    fn near(found: &TensorData, expected: &TensorData) {
        let tolerance = Tolerance::relative(1e-3).set_absolute(1e-4);
        found.assert_approx_eq::<f32>(expected, tolerance);
    }

    /// `m (W + s B A) / ||W + s B A||`: `[out, in]`.
    fn expected(layer: &Linear) -> Tensor<2> {
        let adapter = layer.weight.reparameterization::<Adapter>().unwrap();
        let sum = layer.weight.base().transpose() + adapter.delta();
        let norm = sum.clone().square().sum_dim(1).sqrt();
        sum * (adapter.factor("m").unwrap().val() / norm)
    }

    #[test]
    fn it_starts_with_the_frozen_weight_and_then_has_rows_of_length_m() {
        let layer = adapted();
        let base = layer.weight.base().into_data();
        near(&layer.weight.val().into_data(), &base);
        let layer = shaken(layer);
        let merged = layer.weight.val();
        near(
            &merged.clone().transpose().into_data(),
            &expected(&layer).into_data(),
        );
        let lengths = merged.square().sum_dim(0).sqrt().transpose().into_data();
        let m = adapters(&layer)[""].factor("m").unwrap().clone();
        near(&lengths, &m);
    }

    #[test]
    fn the_update_on_activations_has_the_values_and_gradients_of_the_dense_one() {
        let layer = shaken(adapted());
        let x = Tensor::<2>::random([3, 4], Distribution::Default, &device());
        let outcomes = [false, true].map(|dense| {
            let x = x.clone().require_grad();
            let y = if dense {
                layer.forward(x.clone())
            } else {
                adapted_linear(&layer, x.clone())
            };
            let gradients = y.clone().square().sum().backward();
            let adapter = layer.weight.reparameterization::<Adapter>().unwrap();
            let factors = adapter.factors();
            let mut all: Vec<TensorData> = factors
                .map(|(_, factor)| factor.val().grad(&gradients).unwrap().into_data())
                .collect();
            all.push(x.grad(&gradients).unwrap().into_data());
            all.push(y.into_data());
            all
        });
        for (found, expected) in outcomes[0].iter().zip(&outcomes[1]) {
            near(found, expected);
        }
    }

    #[test]
    fn a_row_of_zeros_in_the_frozen_weight_gives_finite_numbers() {
        let config = MtLoraConfig::new(Dora).with_rank(2);
        let mut layer = LinearConfig::new(4, 6).init(&device());
        let kept = Tensor::<2>::from_floats([[1.0, 1.0, 0.0, 1.0, 1.0, 1.0]], &device());
        layer.weight = layer.weight.map(|weight| weight * kept);
        let layer: Linear = config.attach(layer).unwrap();
        let x = Tensor::<2>::random([3, 4], Distribution::Default, &device());
        let y = adapted_linear(&layer, x);
        let gradients = y.clone().square().sum().backward();
        let adapter = layer.weight.reparameterization::<Adapter>().unwrap();
        let mut all = vec![y.into_data(), layer.weight.val().into_data()];
        let of_factors = adapter
            .factors()
            .map(|(_, factor)| factor.val().grad(&gradients));
        all.extend(of_factors.map(|gradient| gradient.unwrap().into_data()));
        for data in all {
            assert!(data.iter::<f32>().all(f32::is_finite), "{data}");
        }
    }

    #[test]
    fn dropout_leaves_the_frozen_output_alone() {
        let layer = shaken(adapted());
        let adapter = layer.weight.reparameterization::<Adapter>().unwrap();
        let x = Tensor::<2>::random([3, 4], Distribution::Default, &device());
        let dropped = x.clone() * Tensor::<2>::from_floats([[0.0, 2.0, 2.0, 0.0]], &device());
        let weight = layer.weight.base();
        let y = Dora.linear(
            adapter.update(),
            LinearInput {
                x: x.clone(),
                dropped: Some(dropped.clone()),
                weight: weight.clone(),
                bias: None,
            },
        );
        let update = expected(&layer).transpose() - weight.clone();
        let wanted = x.matmul(weight) + dropped.matmul(update);
        near(&y.into_data(), &wanted.into_data());
    }

    #[test]
    fn what_it_cannot_adapt_and_what_cannot_be_folded_is_refused_by_name() {
        let layer = LinearConfig::new(4, 6).init(&device());
        let fused = MtLoraConfig::new(Dora)
            .with_rank(2)
            .with_fused_projections(vec![FusedProjections {
                module: String::new(),
                adapted: vec![true, false, true],
            }]);
        let error = fused.attach::<Linear>(layer).unwrap_err().to_string();
        assert!(error.contains("dora") && error.contains("fused"), "{error}");
        let embedding: Embedding = EmbeddingConfig::new(9, 6).init(&device());
        let config = MtLoraConfig::new(Dora)
            .with_rank(2)
            .with_target_modules(crate::Targets::Pattern(".*".into()));
        let error = config.attach(embedding).unwrap_err().to_string();
        assert!(error.contains("embeddings"), "{error}");
        let values = &adapters(&adapted())[""];
        let folded = values.fold(crate::Fold::A);
        assert_eq!(folded, Err(MatrixError::NotLowRank { method: "dora" }));
        let mut lora = values.clone();
        (lora.further, lora.form.method) = (Factors::none(), Structure::Lora.into());
        assert!(lora.in_method(Dora).is_none());
    }
}
