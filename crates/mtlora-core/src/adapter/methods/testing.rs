//! A method whose update depends on the frozen weight, to test that a method can: DoRA's formula (arXiv 2402.09353)
//! without its refinements.

use burn::tensor::Tensor;
use nalgebra::DMatrix;

use super::definition::{AdapterMethod, Factor, MethodDefinition, RateGroup};
use super::structures::Structure;
use crate::adapter::action::{self, LinearInput, Update};
use crate::adapter::factors::Factors;
use crate::adapter::init::Start;

/// `W + delta = m (W + s B A) / ||W + s B A||`, by output rows. `m` starts as the norms of the rows of `W`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Magnitude;

static FACTORS: [Factor; 3] = {
    let [a, b] = super::structures::LORA;
    let m = Factor {
        name: "m",
        key: "lora_magnitude_vector.weight",
        embedding_key: "lora_magnitude_vector",
        shape: |sizes| [sizes.output, 1],
        vector: false,
        start: |_| Start::OutputNorms,
        neutral: None,
        decays: true,
        rate: RateGroup::B,
    };
    [a, b, m]
};

impl Magnitude {
    /// `m / ||W + s B A||`: `[out, 1]`, and `W + s B A`.
    fn parts(update: &Update, base: Tensor<2>) -> Option<[Tensor<2>; 2]> {
        let sum = base + action::delta(update);
        let norm = sum.clone().square().sum_dim(1).sqrt();
        Some([update.further.get("m")?.clone() / norm, sum])
    }
}

impl MethodDefinition for Magnitude {
    fn name(&self) -> &'static str {
        "magnitude"
    }

    fn factors(&self) -> &'static [Factor] {
        &FACTORS
    }

    fn transform(&self, _: &Factors<Tensor<2>>) -> Option<Tensor<2>> {
        None
    }

    fn transform_on_host(&self, _: &Factors<DMatrix<f64>>) -> Option<DMatrix<f64>> {
        None
    }

    fn delta(&self, update: &Update, base: &dyn Fn() -> Tensor<2>) -> Tensor<2> {
        let base = base();
        match Self::parts(update, base.clone()) {
            Some([factor, sum]) => factor * sum - base,
            None => base.zeros_like(),
        }
    }

    fn linear(&self, update: Update, input: LinearInput) -> Tensor<2> {
        let weight = action::matrix(input.weight.clone());
        let bias = input.bias.clone();
        let parts = Self::parts(&update, weight);
        let sum = action::linear(
            update,
            LinearInput {
                bias: None,
                ..input
            },
        );
        let scaled = match parts {
            Some([factor, _]) => sum * factor.transpose(),
            None => sum,
        };
        match bias {
            Some(bias) => scaled + bias.unsqueeze(),
            None => scaled,
        }
    }

    fn is_low_rank(&self) -> bool {
        false
    }
}

impl From<Magnitude> for AdapterMethod {
    fn from(_: Magnitude) -> Self {
        AdapterMethod::new(&Magnitude)
    }
}

mod tests {
    #![allow(clippy::unwrap_used)]
    use burn::nn::{Linear, LinearConfig};
    use burn::tensor::{Distribution, TensorData, Tolerance};

    use super::*;
    use crate::{
        Adapter, FusedProjections, MatrixError, MtLoraConfig, adapted_linear, adapters, load_state,
        state,
    };

    fn adapted(method: impl Into<AdapterMethod>) -> Linear {
        let device = crate::devices()[0].device.clone().autodiff();
        let config = MtLoraConfig::new(method).with_rank(2);
        config
            .attach(LinearConfig::new(4, 6).init(&device))
            .unwrap()
    }

    /// The layer with random factors, whose base stays.
    fn shaken(layer: Linear) -> Linear {
        let device = crate::devices()[0].device.clone();
        let values = state(&layer, |_, trains| trains).into_iter();
        let values = values.map(|(path, data)| {
            let random = Distribution::Uniform(0.2, 1.0);
            let value = Tensor::<2>::random(data.shape().clone(), random, &device);
            (path, value.into_data())
        });
        load_state(layer, values.collect()).unwrap()
    }

    #[test]
    fn an_update_may_depend_on_the_frozen_weight() {
        let layer = adapted(Magnitude);
        let near = |found: &TensorData, expected: &TensorData| {
            found.assert_approx_eq::<f32>(expected, Tolerance::absolute(1e-5));
        };
        near(
            &layer.weight.val().into_data(),
            &layer.weight.base().into_data(),
        );
        let layer = shaken(layer);
        let device = layer.weight.base().device();
        let x = Tensor::<2>::random([3, 4], Distribution::Default, &device);
        let outcomes = [false, true].map(|dense| {
            let y = if dense {
                layer.forward(x.clone())
            } else {
                adapted_linear(&layer, x.clone())
            };
            let gradients = y.clone().square().sum().backward();
            let adapter = layer.weight.reparameterization::<Adapter>().unwrap();
            let of = |(_, factor): (_, &burn::module::Param<Tensor<2>>)| {
                factor.val().grad(&gradients).unwrap().into_data()
            };
            let mut all: Vec<TensorData> = adapter.factors().map(of).collect();
            all.push(y.into_data());
            all
        });
        for (found, expected) in outcomes[0].iter().zip(&outcomes[1]) {
            found.assert_approx_eq::<f32>(expected, Tolerance::relative(1e-3).set_absolute(1e-3));
        }
        let values = &adapters(&layer)[""];
        let folded = values.fold(crate::Fold::A);
        assert_eq!(
            folded,
            Err(MatrixError::NotLowRank {
                method: "magnitude"
            })
        );
        assert!(
            adapters(&adapted(Structure::Lora))[""]
                .clone()
                .in_method(Magnitude)
                .is_none()
        );
    }

    #[test]
    fn a_magnitude_has_a_value_for_each_adapted_output() {
        let device = crate::devices()[0].device.clone().autodiff();
        let plain: Linear = LinearConfig::new(4, 6).init(&device);
        let norms = plain.weight.val().square().sum_dim(0).sqrt().into_data();
        let norms: Vec<f32> = norms.iter::<f32>().collect();
        let layer = MtLoraConfig::new(Magnitude)
            .with_rank(2)
            .with_fused_projections(vec![FusedProjections {
                module: String::new(),
                adapted: vec![true, false, true],
            }])
            .attach(plain)
            .unwrap();
        let values = &adapters(&layer)[""];
        let m: Vec<f32> = values.factor("m").unwrap().iter::<f32>().collect();
        assert_eq!(m, [norms[0], norms[1], norms[4], norms[5]]);
    }
}
