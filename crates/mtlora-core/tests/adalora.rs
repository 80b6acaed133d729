//! AdaLoRA against PEFT: twenty steps on two linear layers, which `tests/interop/adalora_case.py` recorded.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;

use burn::module::{Module, Param};
use burn::nn::{Linear, LinearConfig};
use burn::optim::{AdamWConfig, GradientsParams, ModuleOptimizer};
use burn::tensor::{Device, Tensor, TensorData};
use common::{Reference, fixtures, relative_error};
use mtlora_core::{
    AdaLora, AdaLoraHooks, AdaLoraSchedule, Adapter, HookError, MtLoraConfig, State, Structure,
    Targets, TrainingHooks, adapted_linear, adapters, attached, change_factors, check_hooks,
    devices, load_state, state,
};

const LAYERS: [&str; 2] = ["one", "two"];

#[derive(Module, Debug)]
struct Net {
    one: Linear,
    two: Linear,
}

impl Net {
    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        adapted_linear(&self.two, adapted_linear(&self.one, x).tanh())
    }
}

fn reference() -> Reference {
    Reference(fs::read(fixtures().join("adalora/two_layers.safetensors")).unwrap())
}

fn schedule(reference: &Reference) -> AdaLoraSchedule {
    AdaLoraSchedule {
        target_rank: reference.setting("target_r"),
        initial_steps: reference.setting("tinit"),
        final_steps: reference.setting("tfinal"),
        interval: reference.setting("deltaT"),
        sensitivity_decay: reference.setting("beta1"),
        uncertainty_decay: reference.setting("beta2"),
        penalty: reference.setting("orth_reg_weight"),
        ..AdaLoraSchedule::default()
    }
}

/// The network with PEFT's adapters as they start, or as they end.
fn net(reference: &Reference, when: &str, device: &Device) -> Net {
    let layer = |name: &str| {
        let weight = reference.rows(&format!("{name}.weight"));
        let [out, input] = weight.shape().dims();
        let mut layer = LinearConfig::new(input, out).init(device);
        layer.weight = Param::from_tensor(Tensor::<2>::from_data(weight, device).transpose());
        let bias = reference.rows(&format!("{name}.bias"));
        layer.bias = Some(Param::from_tensor(
            Tensor::<2>::from_data(bias, device).reshape([out]),
        ));
        layer
    };
    let net = Net {
        one: layer("one"),
        two: layer("two"),
    };
    let net = MtLoraConfig::new(AdaLora)
        .with_rank(reference.setting("init_r"))
        .with_alpha(reference.setting("alpha"))
        .with_target_modules(Targets::AllLinear)
        .attach(net)
        .unwrap();
    let values = LAYERS.iter().flat_map(|layer| {
        ["a", "b", "e"].map(|factor| {
            let path = format!("{layer}.weight.mtlora.{factor}");
            (path, reference.rows(&format!("{when}.{layer}.{factor}")))
        })
    });
    load_state(net, values.collect()).unwrap()
}

fn optimizer(reference: &Reference) -> ModuleOptimizer {
    AdamWConfig::new()
        .with_beta_1(0.9)
        .with_beta_2(0.999)
        .with_epsilon(1e-8)
        .with_weight_decay(reference.setting("weight_decay"))
        .init()
}

/// Makes one step, counted from 1; also returns its loss. The recording counted its steps from 1 where the hooks, like
/// PEFT's own examples, count from 0: what it did after its step 1 is what the hooks do after their second step.
fn step(
    net: Net,
    step: usize,
    reference: &Reference,
    optimizer: &mut ModuleOptimizer,
    hooks: &mut AdaLoraHooks,
    device: &Device,
) -> (Net, f64) {
    let [x, y] = ["x", "y"].map(|name| Tensor::<2>::from_data(reference.rows(name), device));
    let found = attached(&net);
    let loss = (net.forward(x) - y).square().mean() + hooks.penalty(&found).unwrap();
    let value = f64::from(loss.clone().into_scalar::<f32>());
    let gradients = GradientsParams::from_grads(loss.backward(), &net);
    hooks.after_backward(step + 1, &found, &gradients);
    let net = optimizer.step(reference.setting::<f64>("learning_rate"), net, gradients);
    let changes = hooks.after_step(step + 1, &attached(&net));
    (change_factors(net, changes), value)
}

fn begun(net: &Net, reference: &Reference) -> AdaLoraHooks {
    let mut hooks = AdaLoraHooks::new(schedule(reference));
    hooks
        .begin(&attached(net), reference.setting("steps"))
        .unwrap();
    hooks
}

fn trained(net: &Net) -> State {
    state(net, |_, trains| trains)
}

fn assert_near(found: &TensorData, expected: &TensorData, what: &str) {
    let pairs = found.iter::<f32>().zip(expected.iter::<f32>());
    for (found, expected) in pairs {
        let zero = (found == 0.0) == (expected == 0.0);
        let near = (found - expected).abs() < 1e-4;
        assert!(zero && near, "{what}: {found}, and PEFT has {expected}");
    }
}

#[test]
fn twenty_steps_agree_with_peft() {
    let reference = reference();
    for named in devices() {
        let device = named.device.clone().autodiff();
        let mut net = net(&reference, "start", &device);
        let mut hooks = begun(&net, &reference);
        let mut optimizer = optimizer(&reference);
        let losses: Vec<f32> = reference.rows("losses").iter::<f32>().collect();
        let ranks = LAYERS.map(|layer| reference.rows(&format!("{layer}.e")));
        for (at, expected) in losses.iter().enumerate() {
            let loss;
            (net, loss) = step(net, at + 1, &reference, &mut optimizer, &mut hooks, &device);
            let what = format!("{}, step {}", named.name, at + 1);
            assert!(
                (loss - f64::from(*expected)).abs() < 1e-4,
                "{what}: loss {loss}, and PEFT has {expected}"
            );
            let found = adapters(&net);
            for (layer, ranks) in LAYERS.iter().zip(&ranks) {
                let e = found[*layer].factor("e").unwrap();
                let rank = e.num_elements();
                let rows: Vec<f32> = ranks.iter::<f32>().skip(at * rank).take(rank).collect();
                let expected = TensorData::new(rows, e.shape().clone());
                assert_near(e, &expected, &format!("{what}, {layer}"));
            }
        }
        let found = adapters(&net);
        for layer in LAYERS {
            for factor in ["a", "b", "e"] {
                let expected = reference.rows(&format!("end.{layer}.{factor}"));
                let value = found[layer].factor(factor).unwrap();
                assert_near(value, &expected, &format!("{layer}.{factor}"));
            }
        }
    }
}

#[test]
fn training_resumed_after_any_step_ends_with_the_same_values() {
    let reference = reference();
    let device = devices().remove(0).device.autodiff();
    let steps: usize = reference.setting("steps");
    // Plain gradient descent has no state, so that only the hooks' state has to be restored.
    let descend = |mut net: Net, mut hooks: AdaLoraHooks, from: usize, to: usize| {
        for at in from + 1..=to {
            let mut optimizer = burn::optim::SgdConfig::new().init();
            (net, _) = step(net, at, &reference, &mut optimizer, &mut hooks, &device);
        }
        (net, hooks)
    };
    let start = net(&reference, "start", &device);
    let hooks = begun(&start, &reference);
    let (whole, _) = descend(start.clone(), hooks.clone(), 0, steps);
    for stop in 0..steps {
        let (half, stopped) = descend(start.clone(), hooks.clone(), 0, stop);
        let kept = stopped.state();
        // Averages of six factors until step 15, then the mask of two layers.
        let expected = match stop {
            0 => 0,
            1..15 => 12,
            _ => 2,
        };
        assert_eq!(kept.len(), expected, "after step {stop}");
        let other = load_state(net(&reference, "end", &device), trained(&half)).unwrap();
        let mut resumed = begun(&other, &reference);
        resumed.load_state(kept, &attached(&other)).unwrap();
        let (found, _) = descend(other, resumed, stop, steps);
        assert_eq!(trained(&found), trained(&whole), "from step {stop}");
    }
}

#[test]
fn the_update_on_activations_equals_the_update_on_the_dense_weight() {
    let reference = reference();
    for named in devices() {
        let device = named.device.clone().autodiff();
        let net = net(&reference, "end", &device);
        let adapter = net.one.weight.reparameterization::<Adapter>().unwrap();
        let x = Tensor::<2>::from_data(reference.rows("x"), &device);
        let outcomes = [false, true].map(|dense| {
            let x = x.clone().require_grad();
            let y = if dense {
                net.one.forward(x.clone())
            } else {
                adapted_linear(&net.one, x.clone())
            };
            let grads = y.clone().square().sum().backward();
            let mut values = vec![y.into_data(), x.grad(&grads).unwrap().into_data()];
            values.extend(
                adapter
                    .factors()
                    .map(|(_, factor)| factor.val().grad(&grads).unwrap().into_data()),
            );
            values
        });
        for (found, expected) in outcomes[0].iter().zip(&outcomes[1]) {
            assert!(relative_error(found, expected) < 2e-5, "{}", named.name);
        }
    }
}

/// The update is linear in each factor, so that central differences of a sum are exact but for rounding.
#[test]
fn gradients_are_finite_differences() {
    let reference = reference();
    let device = devices().remove(0).device.autodiff();
    let net = net(&reference, "end", &device);
    let x = Tensor::<2>::from_data(reference.rows("x"), &device);
    let loss = |net: &Net| adapted_linear(&net.one, x.clone()).sum();
    let grads = loss(&net).backward();
    let adapter = net.one.weight.reparameterization::<Adapter>().unwrap();
    for (name, factor) in adapter.factors() {
        let path = format!("one.weight.mtlora.{name}");
        let gradient: Vec<f32> = factor
            .val()
            .grad(&grads)
            .unwrap()
            .into_data()
            .iter::<f32>()
            .collect();
        let value = factor.val().into_data();
        for (at, gradient) in gradient.into_iter().enumerate() {
            let moved = |by: f32| {
                let mut values: Vec<f32> = value.iter::<f32>().collect();
                values[at] += by;
                let values = TensorData::new(values, value.shape().clone());
                let moved = load_state(net.clone(), State::from([(path.clone(), values)]));
                f64::from(loss(&moved.unwrap()).into_scalar::<f32>())
            };
            let difference = (moved(0.5) - moved(-0.5)) as f32;
            assert!(
                (difference - gradient).abs() < 1e-3 * gradient.abs().max(1.0),
                "{path} {at}: {difference} and {gradient}"
            );
        }
    }
}

#[test]
fn schedules_and_states_that_do_not_fit_are_refused() {
    let reference = reference();
    let device = devices().remove(0).device.autodiff();
    let net = net(&reference, "start", &device);
    let found = attached(&net);
    let good = schedule(&reference);
    let refused = |schedule: AdaLoraSchedule, steps| {
        let error = AdaLoraHooks::new(schedule).begin(&found, steps);
        error.unwrap_err().to_string()
    };
    let text = refused(good, 7);
    assert!(text.contains("tinit = 2"), "{text}");
    assert!(refused(good, 6).contains("tfinal = 5"));
    for (schedule, name) in [
        (
            AdaLoraSchedule {
                target_rank: 0,
                ..good
            },
            "target_r",
        ),
        (
            AdaLoraSchedule {
                interval: 0,
                ..good
            },
            "deltaT",
        ),
        (
            AdaLoraSchedule {
                penalty: f64::NAN,
                ..good
            },
            "orth_reg_weight",
        ),
        (
            AdaLoraSchedule {
                sensitivity_decay: 1.0,
                ..good
            },
            "beta1",
        ),
        (
            AdaLoraSchedule {
                uncertainty_decay: 0.0,
                ..good
            },
            "beta2",
        ),
    ] {
        assert!(refused(schedule, 20).contains(name), "{name}");
    }
    let needed = check_hooks(&found, None);
    assert!(matches!(needed, Err(HookError::Needed { .. })));
    let other = MtLoraConfig::new(Structure::Shim).with_rank(2);
    let layer: Linear = other.attach(LinearConfig::new(4, 4).init(&device)).unwrap();
    let other = attached(&layer);
    assert!(check_hooks(&other, None).is_ok());
    let hooks = AdaLoraHooks::new(good);
    let wrong = check_hooks(&other, Some(&hooks));
    assert!(matches!(wrong, Err(HookError::Method { .. })));

    let mut hooks = begun(&net, &reference);
    let state = |name: &str| State::from([(name.to_string(), TensorData::zeros::<f32, _>([3, 2]))]);
    let error = hooks.load_state(state("three.weight.mtlora.e/kept"), &found);
    assert!(matches!(error, Err(HookError::Unknown { .. })));
    let error = hooks.load_state(state("one.weight.mtlora.e/kept"), &found);
    assert!(matches!(error, Err(HookError::Shape { .. })));
    let scaled = MtLoraConfig::new(AdaLora).with_use_rslora(true);
    let error = scaled.attach(LinearConfig::new(9, 9).init(&device));
    assert!(error.unwrap_err().to_string().contains("use_rslora"));
}
