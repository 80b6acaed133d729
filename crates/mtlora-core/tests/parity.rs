//! The layers agree with the published ones, forward and backward, on every device of this build.
#![allow(clippy::unwrap_used)]

mod common;

use burn::module::{Module, Param};
use burn::nn::{Embedding, Linear};
use burn::tensor::{Device, Tensor, TensorData};
use common::every_path::{devices, run_on_other_paths};
use common::{Reference, fixtures, relative_error, tolerance};
use mtlora_core::{
    Adapter, FusedProjections, MtLoraConfig, NamedDevice, Structure, Targets, adapted_embedding,
    adapted_linear, load_state,
};

#[test]
fn every_path_of_the_processor_agrees() {
    run_on_other_paths("every_path_of_the_processor_agrees");
}

fn reference(structure: Structure, layer: &str) -> Option<Reference> {
    let path = fixtures().join(format!("layers/{structure}_{layer}.safetensors"));
    std::fs::read(path).ok().map(Reference)
}

fn config(structure: Structure, reference: &Reference) -> MtLoraConfig {
    MtLoraConfig::new(structure)
        .with_rank(reference.setting("rank"))
        .with_alpha(reference.setting("alpha"))
        .with_target_modules(Targets::Pattern(".*".into()))
}

fn param<const D: usize>(data: TensorData, device: &Device) -> Param<Tensor<D>> {
    Param::from_data(data, device)
}

/// Puts the reference's factors in place of those of the adapter on `weight`.
fn load<M: Module>(layer: M, reference: &Reference) -> M {
    let factors = [("a", "A"), ("b", "B"), ("c", "C"), ("d", "D")];
    let state = factors
        .into_iter()
        .filter(|(_, name)| reference.has(name))
        .map(|(factor, name)| (format!("weight.mtlora.{factor}"), reference.rows(name)))
        .collect();
    load_state(layer, state).unwrap()
}

fn gradients(
    adapter: &Adapter,
    grads: &burn::tensor::Gradients,
) -> Vec<(&'static str, TensorData)> {
    let named = [
        ("grad_A", Some(&adapter.a)),
        ("grad_B", Some(&adapter.b)),
        ("grad_C", adapter.factor("c")),
        ("grad_D", adapter.factor("d")),
    ];
    named
        .into_iter()
        .filter_map(|(name, factor)| Some((name, factor?.val().grad(grads).unwrap().into_data())))
        .collect()
}

/// A published linear map: the file's name, whether it keeps the weight as Burn does, `[in, out]`,
/// and which of the projections fused in it are adapted.
struct Kind {
    name: &'static str,
    burns_layout: bool,
    fused: &'static [bool],
}

const KINDS: [Kind; 5] = [
    Kind {
        name: "linear",
        burns_layout: false,
        fused: &[],
    },
    Kind {
        name: "conv1d_gpt2",
        burns_layout: true,
        fused: &[],
    },
    Kind {
        name: "merged_qkv",
        burns_layout: false,
        fused: &[true, true, true],
    },
    Kind {
        name: "merged_qv",
        burns_layout: false,
        fused: &[true, false, true],
    },
    Kind {
        name: "merged_v",
        burns_layout: false,
        fused: &[false, false, true],
    },
];

fn oriented(weight: Tensor<2>, kind: &Kind) -> Tensor<2> {
    if kind.burns_layout {
        weight
    } else {
        weight.transpose()
    }
}

/// Compares the layer of a file, on its factors and on the dense weight, with the file's numbers.
fn check_linear(kind: &Kind, structure: Structure, reference: &Reference, named: &NamedDevice) {
    let device = named.device.clone().autodiff();
    let weight: Tensor<2> = Tensor::from_data(reference.rows("weight"), &device);
    let bias: Tensor<2> = Tensor::from_data(reference.rows("bias"), &device);
    let layer = Linear {
        weight: Param::from_tensor(oriented(weight, kind)),
        bias: Some(Param::from_tensor(bias.squeeze_dim(0))),
    };
    let mut config = config(structure, reference);
    if !kind.fused.is_empty() {
        config.fused_projections = vec![FusedProjections {
            module: String::new(),
            adapted: kind.fused.to_vec(),
        }];
    }
    let layer = load(config.attach(layer).unwrap(), reference);
    let adapter = layer.weight.reparameterization::<Adapter>().unwrap();

    let tolerance = tolerance(named);
    let check = |name: &str, found: TensorData| {
        let error = relative_error(&found, &reference.rows(name));
        assert!(
            error <= tolerance,
            "{} {structure} {} {name}: {error}",
            named.name,
            kind.name
        );
    };
    let grad_y: Tensor<2> = Tensor::from_data(reference.rows("grad_y"), &device);
    for dense in [false, true] {
        let x = Tensor::<2>::from_data(reference.rows("x"), &device).require_grad();
        let y = if dense {
            layer.forward(x.clone())
        } else {
            adapted_linear(&layer, x.clone())
        };
        check("y", y.clone().into_data());
        let grads = (y * grad_y.clone()).sum().backward();
        check("grad_x", x.grad(&grads).unwrap().into_data());
        for (name, gradient) in gradients(adapter, &grads) {
            check(name, gradient);
        }
        assert!(layer.weight.base().grad(&grads).is_none());
    }
    let merged = layer.valid().materialize();
    let x = Tensor::<2>::from_data(reference.rows("x"), &named.device);
    check("y", merged.forward(x).into_data());
    if reference.has("merged_weight") {
        let weight = oriented(merged.weight.val(), kind);
        check("merged_weight", weight.into_data());
    }
}

#[test]
fn linear_layers_agree_with_the_published_ones() {
    for kind in &KINDS {
        let mut checked = 0;
        for named in devices() {
            for structure in Structure::ALL {
                if let Some(reference) = reference(structure, kind.name) {
                    check_linear(kind, structure, &reference, &named);
                    checked += 1;
                }
            }
        }
        assert!(checked >= 4, "only {checked} files of {}", kind.name);
    }
}

#[test]
fn embedding_layers_agree_with_the_published_ones() {
    let mut checked = 0;
    for named in devices() {
        let device = named.device.clone().autodiff();
        for structure in Structure::ALL {
            let Some(reference) = reference(structure, "embedding") else {
                continue;
            };
            let layer = Embedding {
                weight: param(reference.rows("weight"), &device),
            };
            let layer = load(
                config(structure, &reference).attach(layer).unwrap(),
                &reference,
            );
            let adapter = layer.weight.reparameterization::<Adapter>().unwrap();

            let tolerance = tolerance(&named);
            let check = |name: &str, found: TensorData| {
                let error = relative_error(&found, &reference.rows(name));
                assert!(
                    error <= tolerance,
                    "{} {structure} {name}: {error}",
                    named.name
                );
            };
            let ids = reference.ids("x", &device);
            let y = adapted_embedding(&layer, ids);
            check("y", y.clone().into_data());
            let grad_y: Tensor<2> = Tensor::from_data(reference.rows("grad_y"), &device);
            let grads = (y * grad_y).sum().backward();
            for (name, gradient) in gradients(adapter, &grads) {
                check(name, gradient);
            }
            let merged = layer.valid().materialize();
            check("merged_weight", merged.weight.val().into_data());
            checked += 1;
        }
    }
    assert!(checked >= 3, "only {checked} layer files found");
}
