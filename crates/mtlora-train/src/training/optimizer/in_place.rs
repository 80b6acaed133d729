//! AdamW in one pass over memory.

use burn::optim::{AdamW, AdamWConfig, AdamWState, AdaptiveMomentumState, LearningRate, Optimizer};
use burn::tensor::{Device, Tensor};
use mtlora_core::{AdamWStep, adamw_step};

/// The numbers of AdamW that stay the same from step to step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct AdamWRule {
    pub(super) beta_1: f32,
    pub(super) beta_2: f32,
    pub(super) epsilon: f32,
    pub(super) weight_decay: f32,
}

/// Burn's [`AdamW`] with Burn's state, and with steps that read and write each value once where the device has a kernel for
/// that ([`adamw_step`]). Burn itself makes a parameter's first step, which begins the moments. All steps have the same bits as
/// Burn's on the processor.
#[derive(Clone)]
pub(super) struct AdamWInPlace {
    rule: AdamWRule,
    burns: AdamW,
}

impl AdamWInPlace {
    pub(super) fn new(rule: AdamWRule) -> Self {
        let config = AdamWConfig::new()
            .with_beta_1(rule.beta_1)
            .with_beta_2(rule.beta_2)
            .with_epsilon(rule.epsilon)
            .with_weight_decay(rule.weight_decay);
        Self {
            rule,
            burns: config.build(),
        }
    }
}

impl Optimizer for AdamWInPlace {
    type State<const D: usize> = AdamWState<D>;

    fn step<const D: usize>(
        &self,
        learning_rate: LearningRate,
        parameter: Tensor<D>,
        gradient: Tensor<D>,
        state: Option<Self::State<D>>,
    ) -> (Tensor<D>, Option<Self::State<D>>) {
        let Some(AdamWState { momentum }) = state else {
            return self.burns.step(learning_rate, parameter, gradient, None);
        };
        let number = momentum.time + 1;
        let step = AdamWStep {
            learning_rate,
            weight_decay: f64::from(self.rule.weight_decay),
            beta_1: self.rule.beta_1,
            beta_2: self.rule.beta_2,
            epsilon: self.rule.epsilon,
            number,
        };
        let moments = [momentum.moment_1, momentum.moment_2];
        let (parameter, [moment_1, moment_2]) = adamw_step(parameter, gradient, moments, step);
        let momentum = AdaptiveMomentumState::new(number, moment_1, moment_2);
        (parameter, Some(AdamWState::new(momentum)))
    }

    fn to_device<const D: usize>(state: Self::State<D>, device: &Device) -> Self::State<D> {
        AdamW::to_device(state, device)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn bits<const D: usize>(tensor: &Tensor<D>) -> Vec<u32> {
        let values: Vec<f32> = tensor.to_data().try_to_vec().unwrap();
        values.into_iter().map(f32::to_bits).collect()
    }

    /// Several steps against Burn's own, on each device: to the bit where the host computes, and else within a rounding.
    #[test]
    fn steps_are_those_of_burn() {
        for named in mtlora_core::devices() {
            let device = named.device;
            for weight_decay in [0.0, 0.1] {
                let ours = AdamWInPlace::new(AdamWRule {
                    beta_1: 0.9,
                    beta_2: 0.98,
                    epsilon: 1e-6,
                    weight_decay,
                });
                let start = Tensor::<2>::random(
                    [37, 451],
                    burn::tensor::Distribution::Uniform(-1.0, 1.0),
                    &device,
                );
                let (mut found, mut expected) = (start.clone(), start);
                let (mut state, mut burns) = (None, None);
                for number in 1..=4 {
                    let gradient = Tensor::random(
                        [37, 451],
                        burn::tensor::Distribution::Normal(0.0, 1e-2),
                        &device,
                    );
                    let rate = 1e-3 / f64::from(number);
                    (found, state) = ours.step(rate, found, gradient.clone(), state);
                    (expected, burns) = ours.burns.step(rate, expected, gradient, burns);
                    let (a, b) = (state.clone().unwrap(), burns.clone().unwrap());
                    let (a, b) = (a.momentum, b.momentum);
                    assert_eq!((a.time, b.time), (number as usize, number as usize));
                    let pairs = [
                        (&found, &expected),
                        (&a.moment_1, &b.moment_1),
                        (&a.moment_2, &b.moment_2),
                    ];
                    for (found, expected) in pairs {
                        if mtlora_core::capabilities(&device).on_host {
                            assert!(
                                bits(found) == bits(expected),
                                "{} step {number}",
                                named.name
                            );
                        } else {
                            let apart = (found.clone() - expected.clone()).abs().max();
                            assert!(apart.into_scalar::<f32>() < 1e-6, "{}", named.name);
                        }
                    }
                }
            }
        }
    }
}
