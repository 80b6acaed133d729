//! Gradients against finite differences and against Burn's own differentiation, on random shapes.
#![allow(clippy::unwrap_used)]

mod common;

use std::cell::RefCell;

use burn::module::Param;
use burn::nn::{DropoutConfig, EmbeddingConfig, Linear, LinearConfig};
use burn::tensor::activation::{log_softmax, softmax};
use burn::tensor::{Device, Int, Tensor, TensorData};
use common::every_path::{devices, run_on_other_paths};
use common::relative_error;
use mtlora_core::{
    ActivationDtype, Adapter, AttentionForm, Gelu, Init, LoadedValue, MtLoraConfig, PackedFormat,
    PackedMatrix, RelativePositions, SequenceOffsets, State, StateError, Structure,
    adapted_embedding, adapted_linear, capabilities, fused_segment_attention, gelu, load_each,
    load_state, relative_segment_attention, rms_norm, rotate_heads, segment_attention, state,
    swiglu, tied_cross_entropy, tied_logits,
};
use proptest::prelude::*;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use rand_distr::StandardNormal;

#[test]
fn every_path_of_the_processor_agrees() {
    run_on_other_paths("every_path_of_the_processor_agrees");
}

thread_local! {
    /// The generator of a test's random values. Each thread has its own, so that a seed gives the same values again.
    static VALUES: RefCell<ChaCha8Rng> = RefCell::new(ChaCha8Rng::seed_from_u64(0));
}

fn seed_values(seed: u64) {
    VALUES.set(ChaCha8Rng::seed_from_u64(seed));
}

fn random<const D: usize>(shape: [usize; D], device: &Device) -> Tensor<D> {
    let count = shape.iter().product();
    let values: Vec<f32> = VALUES.with_borrow_mut(|rng| {
        let normal = (0..count).map(|_| rng.sample::<f32, _>(StandardNormal));
        normal.collect()
    });
    Tensor::from_data(TensorData::new(values, shape), device)
}

/// The first device of this build, a CPU: `Device::default()` may be a GPU, which is not exact enough for these tests.
fn cpu() -> Device {
    devices().remove(0).device
}

fn structure() -> impl Strategy<Value = Structure> {
    prop::sample::select(Structure::ALL.to_vec())
}

/// A layer whose factors are all random, none zero; where `positive`, the absolute values of the same numbers.
fn layer(structure: Structure, input: usize, output: usize, rank: usize, positive: bool) -> Linear {
    let device = cpu().autodiff();
    let weight = random::<2>([input, output], &device).mul_scalar(0.3);
    let bias = random::<1>([output], &device);
    let layer = Linear {
        weight: Param::from_tensor(if positive { weight.abs() } else { weight }),
        bias: Some(Param::from_tensor(if positive { bias.abs() } else { bias })),
    };
    let layer = MtLoraConfig::new(structure)
        .with_rank(rank)
        .with_init(Init::Identity)
        .attach(layer)
        .unwrap();
    let values = state(&layer, |_, trains| trains)
        .into_iter()
        .map(|(path, old)| {
            let shape = [old.shape()[0], old.shape()[1]];
            let values = random::<2>(shape, &device);
            let values = if positive { values.abs() } else { values };
            (path, values.into_data())
        })
        .collect();
    load_state(layer, values).unwrap()
}

/// The loss `sum(y * g)`, added up in f64.
fn loss(y: Tensor<2>, g: &TensorData) -> f64 {
    let y: Vec<f32> = y.into_data().try_to_vec().unwrap();
    let g: Vec<f32> = g.try_to_vec().unwrap();
    y.iter()
        .zip(g)
        .map(|(y, g)| f64::from(*y) * f64::from(g))
        .sum()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn computing_on_the_factors_equals_computing_on_the_dense_weight(
        structure in structure(),
        tokens in 1usize..9, input in 1usize..17, output in 1usize..17, rank in 1usize..9, seed: u64,
    ) {
        let rank = rank.min(input).min(output);
        let device = cpu().autodiff();
        // The third time, all values are positive: the results are then the sums of the absolute values of the terms,
        // which is what rounding errors grow with. The sum itself can be arbitrarily close to zero.
        let mut results = Vec::new();
        for (dense, positive) in [(true, false), (false, false), (true, true)] {
            seed_values(seed);
            let layer = layer(structure, input, output, rank, positive);
            let adapter = layer.weight.reparameterization::<Adapter>().unwrap();
            let signed = |values: Tensor<2>| if positive { values.abs() } else { values };
            let x = signed(random([tokens, input], &device)).detach().require_grad();
            let g = signed(random([tokens, output], &device));
            let y = if dense {
                layer.forward(x.clone())
            } else {
                adapted_linear(&layer, x.clone())
            };
            let grads = (y.clone() * g.clone()).sum().backward();
            let mut all = vec![y.into_data(), x.grad(&grads).unwrap().into_data()];
            for (_, factor) in adapter.factors() {
                all.push(factor.val().grad(&grads).unwrap().into_data());
            }
            results.push(all);
        }
        let largest = |data: &TensorData| data.iter::<f32>().fold(0.0, |a, b| f32::max(a, b.abs()));
        for ((dense, factored), sizes) in results[0].iter().zip(&results[1]).zip(&results[2]) {
            let error = relative_error(factored, dense) * f64::from(largest(dense));
            prop_assert!(error <= 2e-6 * f64::from(largest(sizes)), "{error} of {}", largest(sizes));
        }
    }

    #[test]
    fn adapter_gradients_are_finite_differences(
        structure in structure(),
        tokens in 1usize..5, input in 1usize..7, output in 1usize..7, rank in 1usize..4, seed: u64,
    ) {
        seed_values(seed);
        let rank = rank.min(input).min(output);
        let device = cpu().autodiff();
        let layer = layer(structure, input, output, rank, false);
        let adapter = layer.weight.reparameterization::<Adapter>().unwrap().clone();
        let x = random::<2>([tokens, input], &device);
        let g = random::<2>([tokens, output], &device).into_data();
        let y = adapted_linear(&layer, x.clone());
        let weights = Tensor::from_data(g.clone(), &device);
        let grads = (y * weights).sum().backward();

        // The loss is a polynomial of degree at most 2 in each factor, so central differences are
        // exact but for rounding.
        let step = 0.25;
        let with = |name: &str, value: Tensor<2>| {
            let path = format!("weight.mtlora.{name}");
            load_state(layer.clone(), State::from([(path, value.into_data())])).unwrap()
        };
        for (name, factor) in adapter.factors() {
            let direction = random::<2>(factor.val().dims(), &device);
            let at = |t: f32| {
                let value = factor.val() + direction.clone().mul_scalar(t);
                loss(adapted_linear(&with(name, value), x.clone()), &g)
            };
            let difference = (at(step) - at(-step)) / f64::from(2.0 * step);
            let gradient = factor.val().grad(&grads).unwrap().into_data();
            let analytic = loss(
                Tensor::from_data(gradient, &cpu()),
                &direction.into_data(),
            );
            let size = difference.abs().max(analytic.abs()).max(1.0);
            prop_assert!(
                (difference - analytic).abs() / size < 2e-3,
                "{structure} {name}: {difference} and {analytic}"
            );
        }
    }

    /// Also with heads of key and value that heads of the query share, and within a window.
    #[test]
    fn segment_attention_equals_each_sequence_alone(
        lengths in prop::collection::vec(1usize..6, 1..5),
        shared in 1usize..4, sharing in 1usize..4, head_dim in 1usize..5, causal: bool,
        window in prop::option::of(1usize..5), seed: u64,
    ) {
        seed_values(seed);
        let offsets = SequenceOffsets::from_lengths(&lengths).unwrap();
        let device = cpu().autodiff();
        let heads = shared * sharing;
        let rows = |heads: usize| random::<2>([offsets.tokens(), heads * head_dim], &device);
        let inputs = [rows(heads), rows(shared), rows(shared)];
        let g = rows(heads);
        let none = DropoutConfig::new(0.0).init();
        let window = window.filter(|_| causal);
        let form = AttentionForm { heads, causal, window };

        let leaves = |inputs: &[Tensor<2>; 3]| inputs.clone().map(|t| t.detach().require_grad());
        let tracked = leaves(&inputs);
        let y = segment_attention(tracked.clone(), &offsets, form, &none, ActivationDtype::F32);
        let grads = (y.clone() * g.clone()).sum().backward();

        let alone = leaves(&inputs);
        let mut outputs = Vec::new();
        for (start, length) in offsets.starts().iter().zip(&lengths) {
            let rows = alone.clone().map(|t| {
                let width = t.dims()[1];
                t.slice([*start..start + length, 0..width])
                    .reshape([*length, width / head_dim, head_dim])
                    .swap_dims(0, 1)
            });
            // Heads that share a key and a value follow each other.
            let repeated = |t: Tensor<3>| {
                let apart = t.unsqueeze_dim::<4>(1).expand([shared, sharing, *length, head_dim]);
                apart.reshape([heads, *length, head_dim])
            };
            let [q, k, v] = rows;
            let (k, v) = (repeated(k), repeated(v));
            let mut scores = q.matmul(k.transpose()).div_scalar((head_dim as f32).sqrt());
            if causal {
                let ones = Tensor::<2>::ones([*length, *length], &device);
                let mut hidden = ones.clone().triu(1);
                if let Some(window) = window {
                    hidden = hidden + ones.tril(-(window as i64));
                }
                let hidden = hidden.bool().unsqueeze::<3>().expand([heads, *length, *length]);
                scores = scores.mask_fill(hidden, f32::NEG_INFINITY);
            }
            let out = softmax(scores, 2).matmul(v);
            outputs.push(out.swap_dims(0, 1).reshape([*length, heads * head_dim]));
        }
        let expected = Tensor::cat(outputs, 0);
        let expected_grads = (expected.clone() * g).sum().backward();

        prop_assert!(relative_error(&y.into_data(), &expected.into_data()) < 1e-5);
        for (found, wanted) in tracked.iter().zip(&alone) {
            let found = found.grad(&grads).unwrap().into_data();
            let wanted = wanted.grad(&expected_grads).unwrap().into_data();
            let largest: Vec<f32> = wanted.try_to_vec().unwrap();
            // A sequence of one token has no gradient in query and key, only rounding errors.
            if largest.iter().any(|v| v.abs() > 1e-3) {
                prop_assert!(relative_error(&found, &wanted) < 1e-4);
            }
        }
    }
}

/// The directional derivative of `f` at `inputs` along random directions, by autodiff and by a central difference of
/// fourth order in steps of 1e-2. One of second order is off by more than the bound for rows that are small beside the
/// norm's epsilon.
fn derivatives<const N: usize>(
    inputs: &[Tensor<2>; N],
    f: impl Fn([Tensor<2>; N]) -> Tensor<2>,
) -> (f32, f32) {
    const STEP: f32 = 1e-2;
    let device = cpu().autodiff();
    let leaves = inputs.clone().map(|x| x.detach().require_grad());
    let y = f(leaves.clone());
    let weights = random::<2>(y.dims(), &device);
    let along = inputs.each_ref().map(|x| random::<2>(x.dims(), &device));
    let total = |y: Tensor<2>| (y * weights.clone()).sum();
    let gradients = total(y).backward();
    let mut analytic = 0.0;
    for (leaf, along) in leaves.iter().zip(&along) {
        let gradient = leaf.grad(&gradients).unwrap();
        analytic += (gradient * along.clone().inner())
            .sum()
            .into_scalar::<f32>();
    }
    let at = |step: f32| {
        let moved = std::array::from_fn(|i| inputs[i].clone() + along[i].clone().mul_scalar(step));
        total(f(moved)).into_scalar::<f32>()
    };
    let near = at(STEP) - at(-STEP);
    let far = at(2.0 * STEP) - at(-2.0 * STEP);
    (analytic, (8.0 * near - far) / (12.0 * STEP))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn operations_of_decoders_match_finite_differences(
        tokens in 1usize..5, heads in 1usize..3, half in 2usize..5, seed: u64,
    ) {
        seed_values(seed);
        let device = cpu().autodiff();
        let width = heads * 2 * half;
        let rows = || random::<2>([tokens, width], &device);
        let check = |what: &str, (analytic, difference): (f32, f32)| {
            let size = analytic.abs().max(difference.abs()).max(1.0);
            prop_assert!((analytic - difference).abs() < 2e-3 * size, "{what}: {analytic} and {difference}");
            Ok(())
        };
        let gamma = random::<2>([1, width], &device);
        let normed = derivatives(&[rows(), gamma], |[x, gamma]| rms_norm(x, gamma.flatten(0, 1), 0.1));
        check("rms_norm", normed)?;
        let gated = derivatives(&[rows(), rows()], |[gate, up]| swiglu(gate, up, ActivationDtype::F32));
        check("swiglu", gated)?;
        let angles = || random::<2>([tokens, half], &device);
        let (cos, sin) = (angles(), angles());
        let turned = derivatives(&[rows()], |[x]| rotate_heads(x, cos.clone(), sin.clone()));
        check("rotate_heads", turned)?;
    }

    /// In sequences of different lengths, shorter than the table.
    #[test]
    fn relative_attention_matches_finite_differences(
        lengths in prop::collection::vec(1usize..6, 1..5), heads in 1usize..3, head_dim in 2usize..5, seed: u64,
    ) {
        seed_values(seed);
        let device = cpu().autodiff();
        let offsets = SequenceOffsets::from_lengths(&lengths).unwrap();
        let rows = |rows: usize| random::<2>([rows, heads * head_dim], &device).mul_scalar(0.5);
        let tokens = offsets.tokens();
        let none = DropoutConfig::new(0.0).init();
        let inputs = [rows(tokens), rows(tokens), rows(tokens), rows(11), rows(11)];
        let (analytic, difference) = derivatives(&inputs, |[query, key, value, keys, queries]| {
            let positions = RelativePositions {
                keys: Some(keys),
                queries: Some(queries),
                scale: 0.4,
            };
            let form = AttentionForm::full(heads);
            let saved = ActivationDtype::F32;
            relative_segment_attention([query, key, value], positions, &offsets, form, &none, saved)
        });
        let size = analytic.abs().max(difference.abs()).max(1.0);
        prop_assert!((analytic - difference).abs() < 2e-3 * size, "{analytic} and {difference}");
    }
}

/// Angles of zero change nothing, a quarter turn swaps the halves of each head, and turning back gives what was turned.
#[test]
fn rotation_turns_the_halves_of_each_head() {
    for named in devices() {
        let device = named.device;
        let x = Tensor::<2>::from_data([[1., 2., 3., 4., 5., 6., 7., 8.]], &device);
        let (ones, zeros) = (
            Tensor::<2>::ones([1, 2], &device),
            Tensor::zeros([1, 2], &device),
        );
        let same = rotate_heads(x.clone(), ones.clone(), zeros.clone());
        same.into_data().assert_eq(&x.clone().into_data(), true);
        let quarter = rotate_heads(x.clone(), zeros.clone(), ones.clone());
        let expected = TensorData::from([[-3f32, -4., 1., 2., -7., -8., 5., 6.]]);
        quarter.clone().into_data().assert_eq(&expected, true);
        let back = rotate_heads(quarter, zeros, ones.neg());
        back.into_data().assert_eq(&x.into_data(), true);
    }
}

/// Enough rows that the vocabulary's logits do not fit one chunk.
const ROWS: usize = 300;
const VOCABULARY: usize = 60_000;

/// Compares the chunked loss and its gradients with the loss of all logits at once, which Burn differentiates.
#[test]
fn tied_cross_entropy_in_chunks_equals_the_loss_of_all_logits() {
    let device = cpu().autodiff();
    let targets: Vec<i32> = (0..ROWS)
        .map(|row| (row * 7919 % VOCABULARY) as i32)
        .collect();
    let targets = Tensor::<1, Int>::from_data(TensorData::new(targets, [ROWS]), &device);
    let (hidden, embedding) = (random([ROWS, 8], &device), random([VOCABULARY, 8], &device));
    for smoothing in [0.0, 0.1] {
        let leaves = || {
            (
                hidden.clone().require_grad(),
                embedding.clone().require_grad(),
            )
        };
        let (h, e) = leaves();
        let log_p = log_softmax(h.clone().matmul(e.clone().transpose()), 1);
        let nll = log_p
            .clone()
            .gather(1, targets.clone().unsqueeze_dim(1))
            .neg();
        let even = log_p.mean_dim(1).neg();
        let whole = (nll.mul_scalar(1.0 - smoothing) + even.mul_scalar(smoothing)).sum();
        let expected = whole.clone().div_scalar(3.0).backward();

        let (x, w) = leaves();
        let chunked = tied_cross_entropy(x.clone(), w.clone(), targets.clone(), smoothing);
        let grads = chunked.clone().div_scalar(3.0).backward();
        assert!(relative_error(&chunked.into_data(), &whole.into_data()) < 1e-5);
        for (found, wanted) in [(&x, &h), (&w, &e)] {
            let found = found.grad(&grads).unwrap().into_data();
            let wanted = wanted.grad(&expected).unwrap().into_data();
            assert!(relative_error(&found, &wanted) < 2e-5);
        }
    }
    // A frozen embedding gets no gradient.
    let (x, w) = (hidden.clone().require_grad(), embedding.clone());
    let grads = tied_cross_entropy(x.clone(), w.clone(), targets, 0.1).backward();
    assert!(x.grad(&grads).is_some() && w.grad(&grads).is_none());

    // Without a token to predict the loss and the gradients are zero.
    let (x, w) = (
        Tensor::<2>::zeros([0, 8], &device).require_grad(),
        embedding.require_grad(),
    );
    let none = Tensor::<1, Int>::from_data(TensorData::new(Vec::<i32>::new(), [0]), &device);
    let loss = tied_cross_entropy(x.clone(), w.clone(), none, 0.1);
    let grads = loss.clone().backward();
    assert_eq!(loss.into_scalar::<f32>(), 0.0);
    assert_eq!(x.grad(&grads).unwrap().dims(), [0, 8]);
    assert_eq!(
        w.grad(&grads).unwrap().abs().max().into_scalar::<f32>(),
        0.0
    );
}

/// Training starts each step from [`mtlora_core::random_state`], and the masks must still differ between steps.
#[test]
fn masks_differ_from_step_to_step() {
    for named in devices() {
        let device = named.device.autodiff();
        mtlora_core::seed(&device, 3);
        let dropout = DropoutConfig::new(0.5).init();
        let [one, other] = [0, 1].map(|_| {
            mtlora_core::set_random_state(&device, mtlora_core::random_state());
            let ones = Tensor::<2>::ones([16, 16], &device);
            mtlora_core::dropout(&dropout, ones).into_data()
        });
        assert_ne!(one, other, "{}", named.name);
    }
}

#[test]
#[should_panic(expected = "the weight's inputs")]
fn inputs_of_another_width_are_refused() {
    let layer = LinearConfig::new(3, 5).init(&cpu());
    // Eight rows of three would have as many numbers.
    adapted_linear(&layer, Tensor::<2>::ones([4, 6], &cpu()));
}

/// Inputs kept in bfloat16 change the gradients by their rounding. Of the outputs, only those of attention may change,
/// since its products may round in both passes.
#[test]
fn inputs_kept_in_bfloat16_change_results_by_their_rounding() {
    let devices = devices().into_iter().map(|named| named.device.autodiff());
    let keeps_bf16 = |device: &Device| {
        let can = capabilities(device);
        can.stores_bf16 || can.unpacks_words
    };
    for device in devices.filter(keeps_bf16) {
        let offsets = SequenceOffsets::from_lengths(&[5, 3]).unwrap();
        let none = DropoutConfig::new(0.0).init();
        let (input, weight) = (random::<2>([8, 18], &device), random::<2>([8, 6], &device));
        let wide = random::<2>([8, 18], &device);
        let run = |operation: &str, saved| {
            let x = input.clone().require_grad();
            let part = |part: usize| x.clone().slice([0..8, 6 * part..6 * (part + 1)]);
            let y = match operation {
                "gelu" => gelu(x.clone(), Gelu::Erf, saved) * wide.clone(),
                "gelu_new" => gelu(x.clone(), Gelu::Tanh, saved) * wide.clone(),
                "fused" => {
                    let y = fused_segment_attention(x.clone(), &offsets, 2, true, &none, saved);
                    y * weight.clone()
                }
                _ => {
                    let inputs = [part(0), part(1), part(2)];
                    let y =
                        segment_attention(inputs, &offsets, AttentionForm::causal(2), &none, saved);
                    y * weight.clone()
                }
            };
            let gradient = x.grad(&y.clone().sum().backward()).unwrap();
            (y.into_data(), gradient.into_data())
        };
        for operation in ["gelu", "gelu_new", "fused", "attention"] {
            let (exact, kept) = (
                run(operation, ActivationDtype::F32),
                run(operation, ActivationDtype::Bf16),
            );
            match operation {
                "gelu" | "gelu_new" if capabilities(&device).on_host => {
                    kept.0.assert_eq(&exact.0, true);
                }
                // Another kernel computes the same function.
                "gelu" | "gelu_new" => {
                    assert!(relative_error(&kept.0, &exact.0) < 1e-6, "{operation}")
                }
                _ => assert!(relative_error(&kept.0, &exact.0) < 5e-3, "{operation}"),
            }
            let apart = relative_error(&kept.1, &exact.1);
            assert!(0.0 < apart && apart < 2e-2, "{operation}: {apart}");
        }
    }
}

/// Dropout keeps the expectation: the mean over many draws is near the output without dropout.
#[test]
fn attention_dropout_keeps_the_expectation() {
    let device = cpu().autodiff();
    mtlora_core::seed(&device, 7);
    let offsets = SequenceOffsets::from_lengths(&[5, 3]).unwrap();
    let inputs: [Tensor<2>; 3] = std::array::from_fn(|_| random([8, 6], &device));
    let run = |p| {
        let dropout = DropoutConfig::new(p).init();
        segment_attention(
            inputs.clone(),
            &offsets,
            AttentionForm::full(2),
            &dropout,
            ActivationDtype::F32,
        )
    };
    let draws = 2000;
    let mean = (0..draws)
        .map(|_| run(0.3).detach())
        .reduce(|sum, y| sum + y)
        .unwrap()
        .div_scalar(draws as f32);
    assert!(relative_error(&mean.into_data(), &run(0.0).into_data()) < 0.08);
}

/// The base is zero here, so the whole output went through the mask.
#[test]
fn dropout_acts_on_the_adapters_input_only() {
    let device = cpu().autodiff();
    mtlora_core::seed(&device, 1);
    let layer = LinearConfig::new(6, 5).with_bias(false).init(&device);
    let layer = MtLoraConfig::new(Structure::Lora)
        .with_rank(2)
        .with_dropout(0.5)
        .attach(layer)
        .unwrap();
    let ones = |shape: [usize; 2]| Tensor::<2>::ones(shape, &device).into_data();
    let values = State::from([
        (
            "weight".into(),
            Tensor::<2>::zeros([6, 5], &device).into_data(),
        ),
        ("weight.mtlora.a".into(), ones([2, 6])),
        ("weight.mtlora.b".into(), ones([5, 2])),
    ]);
    let layer = load_state(layer, values).unwrap();
    let x = Tensor::<2>::ones([1, 6], &device).require_grad();
    let y = adapted_linear(&layer, x.clone());
    // The scale is 16 / 2, the rank is 2, and each kept input counts twice.
    let kept = f64::from(y.clone().into_data().try_to_vec::<f32>().unwrap()[0]) / (8.0 * 2.0 * 2.0);
    assert!((kept - kept.round()).abs() < 1e-5 && (0.0..=6.0).contains(&kept));
    let grads = y.sum().backward();
    let dx: Vec<f32> = x.grad(&grads).unwrap().into_data().try_to_vec().unwrap();
    let reached = dx.iter().filter(|v| **v != 0.0).count();
    assert_eq!(reached as f64, kept.round());
}

/// An embedding that its file has packed looks up, multiplies and trains what it does with all its values.
#[test]
fn a_packed_embedding_computes_what_it_is_unpacked() {
    const SIDES: [usize; 2] = [130, 256];
    let [vocabulary, width] = SIDES;
    for named in devices() {
        let device = named.device.autodiff();
        for (at, format) in PackedFormat::ALL.iter().enumerate() {
            let what = format!("{} {}", named.name, format.name());
            // 16-bit scales of up to 0.5, whatever their place is.
            let count = format.bytes(vocabulary * width).unwrap();
            let bytes = (0..count).map(|at| (at * 89 % 251) as u8 & 0x37).collect();
            let matrix = PackedMatrix::new(*format, SIDES, bytes).unwrap();
            let values = TensorData::new(matrix.values(), SIDES);
            let dense = Tensor::<2>::from_data(values, &device);
            let empty = EmbeddingConfig::new(vocabulary, width).init(&device);
            let packed = load_each(empty, |_| {
                Ok::<_, StateError>(Some(LoadedValue::Packed(matrix.clone())))
            });
            let packed = packed.unwrap();
            assert!(!packed.weight.val().is_require_grad());

            let ids = |ids: &[i32]| {
                Tensor::<1, Int>::from_data(TensorData::new(ids.to_vec(), [ids.len()]), &device)
            };
            let tokens = ids(&[3, 129, 0, 3]);
            let found = adapted_embedding(&packed, tokens.clone()).into_data();
            let wanted = dense.clone().select(0, tokens).into_data();
            found.assert_eq(&wanted, true);

            // With few rows as with many, products have kernels of their own.
            for rows in [1, 2, 40] {
                seed_values(at as u64);
                let hidden = random([rows, width], &device).mul_scalar(0.1);
                let targets: Vec<i32> = (0..rows as i32).map(|row| row * 37 % 130 - 1).collect();
                let targets = ids(&targets);
                let weight = random([rows, vocabulary], &device);
                let pass = |embedding: Tensor<2>| {
                    let x = hidden.clone().require_grad();
                    let targets = targets.clone();
                    let loss = tied_cross_entropy(x.clone(), embedding.clone(), targets, 0.1);
                    let gradient = x.grad(&loss.clone().backward()).unwrap();
                    let y = hidden.clone().require_grad();
                    let logits = tied_logits(y.clone(), embedding);
                    let outer = (logits.clone() * weight.clone()).sum().backward();
                    let of_logits = Tensor::from_inner(y.grad(&outer).unwrap());
                    let loss = loss.reshape([1, 1]);
                    [loss, Tensor::from_inner(gradient), logits, of_logits]
                };
                let found = pass(packed.weight.val());
                for (found, wanted) in found.into_iter().zip(pass(dense.clone())) {
                    let error = relative_error(&found.into_data(), &wanted.into_data());
                    assert!(error < 2e-5, "{what}, {rows} rows: {error}");
                }
            }
        }
    }
}
