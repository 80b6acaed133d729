//! Every operation against its definition, on random shapes, on every device of the build: what a kernel has to pass. A
//! backend takes part when [`devices`] lists its devices.
//!
//! The definition runs on the build's first device, which is a CPU, so that a device without kernels is checked too.

use std::process::Command;

use burn::backend::ops::FloatTensorOps;
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Dispatch, TensorMetadata};
use burn::nn::DropoutConfig;
use burn::tensor::{DType, Device, FloatDType, Int, Shape, Tensor, TensorData};
use proptest::prelude::*;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use super::cpu::{CpuChoice, CpuPath};
use super::definitions::activation_dtype::restored;
use super::definitions::{
    attention, cached, cross_entropy, dropout, embedding, gelu, linear, norm, optimizer, rms_norm,
    rotary, scaled_columns, swiglu,
};
use super::{
    ActivationDtype, AdamWStep, AttentionConstants, AttentionForward, AttentionLayout, Gelu,
    IGNORE_INDEX, MtLoraBackend, Optional, OptionalInt, RelativeTables, SeededDropout, Weight,
    capabilities,
};
use crate::packed;
use crate::visit::Container;
use crate::{AttentionForm, BaseDtype, Contexts, NamedDevice, SequenceOffsets, SquaredNorm};

type Floats = FloatTensor<Dispatch>;

/// The devices to test: all of this build, or where the environment names a path, those whose kernels it chooses.
fn devices() -> Vec<NamedDevice> {
    let mut all = crate::devices();
    if CpuChoice::read().unwrap().is_requested {
        all.retain(|named| named.name == "flex");
    }
    all
}

/// Where definitions are computed.
fn reference() -> Device {
    devices().remove(0).device
}

/// Whether activations can be kept in bfloat16 there.
fn keeps_bf16(device: &Device) -> bool {
    let can = capabilities(device);
    can.stores_bf16 || can.unpacks_words
}

/// The devices that take a case. One that compiles kernels for each shape takes few.
fn devices_for(seed: u64) -> Vec<Device> {
    const SHARE: u64 = 32;
    let all = devices().into_iter().map(|named| named.device);
    all.filter(|device| !capabilities(device).compiles_per_shape || seed.is_multiple_of(SHARE))
        .collect()
}

/// Uniform from `-size` to `size`.
fn random<const D: usize>(shape: [usize; D], size: f32, seed: u64) -> TensorData {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let count = shape.iter().product();
    let values: Vec<f32> = (0..count)
        .map(|_| (2.0 * rng.random::<f32>() - 1.0) * size)
        .collect();
    TensorData::new(values, shape)
}

fn put<const D: usize>(data: &TensorData, device: &Device) -> Floats {
    let tensor = Tensor::<D>::from_data(data.clone(), device).into_dispatch();
    poison(data.num_elements(), device);
    tensor
}

/// Leaves NaN in memory that the device will give to the tensors that come next, so that an element which a kernel forgets to
/// write is found.
fn poison(elements: usize, device: &Device) {
    let data = TensorData::new(vec![f32::NAN; elements], [elements]);
    drop(Tensor::<1>::from_data(data, device));
}

/// A matrix as a view of a wider one where `gaps`: its rows do not follow each other in memory. One of a single column stays
/// whole, because CubeCL does not multiply with a view none of whose strides is 1.
fn put_rows(data: &TensorData, gaps: bool, device: &Device) -> Floats {
    /// Values before and after each row: devices make no view of what begins at an odd place.
    const GAP: usize = 64;
    let matrix = Tensor::<2>::from_data(data.clone(), device);
    poison(data.num_elements(), device);
    let [rows, width] = matrix.dims();
    if !gaps || width == 1 {
        return matrix.into_dispatch();
    }
    let gap = Tensor::<2>::full([rows, GAP], f32::NAN, device);
    let wide = Tensor::cat(vec![gap.clone(), matrix, gap], 1);
    // Without a value of its own in a queue, it is in memory when it is sliced.
    let wide = Tensor::<2>::from_data(wide.into_data(), device);
    wide.narrow(1, GAP, width).into_dispatch()
}

/// An operation's outputs are the same bits each time.
fn repeated<T: IntoIterator<Item = Floats>>(
    operation: impl Fn() -> T,
) -> Result<(), TestCaseError> {
    let bits = || -> Vec<u32> {
        let outputs = operation().into_iter();
        outputs.flat_map(read).map(f32::to_bits).collect()
    };
    prop_assert_eq!(bits(), bits());
    Ok(())
}

fn put_ints(data: &TensorData, device: &Device) -> IntTensor<Dispatch> {
    Tensor::<1, Int>::from_data(data.clone(), device).into_dispatch()
}

/// A matrix as a view of its transpose.
fn turned(data: &TensorData, device: &Device) -> Floats {
    let matrix = Tensor::<2>::from_data(data.clone(), device);
    // A copy of the transpose, seen as the matrix.
    let copy = Tensor::<2>::from_data(matrix.transpose().into_data(), device);
    copy.transpose().into_dispatch()
}

fn read(tensor: Floats) -> Vec<f32> {
    let count = tensor.shape().num_elements();
    let flat = Dispatch::float_reshape(tensor, Shape::from([count]));
    let data = Tensor::<1>::from_dispatch(flat)
        .into_data()
        .convert::<f32>();
    data.try_to_vec().unwrap_or_default()
}

/// A weight that is kept packed with all its values: the definition knows Burn's own types alone.
fn unpacked(weight: Weight<Dispatch>) -> Weight<Dispatch> {
    match weight {
        Weight::Quantized(weight) => {
            let weight = Tensor::<2>::from_dispatch(weight);
            Weight::from(packed::dense(&weight).unwrap_or(weight))
        }
        weight => weight,
    }
}

/// Tokens of a vocabulary, some of them ignored: `[rows]`.
fn targets(rows: usize, vocabulary: usize, seed: u64) -> TensorData {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let ids: Vec<i32> = (0..rows)
        .map(|_| match rng.random_range(0..5) {
            0 => IGNORE_INDEX,
            _ => rng.random_range(0..vocabulary as i32),
        })
        .collect();
    TensorData::new(ids, [rows])
}

/// Whether the device's kernels multiply tiles of bfloat16.
fn uses_tiles(device: &Device) -> bool {
    let cpu = capabilities(device).cpu;
    cpu.is_some_and(|choice| choice.path == CpuPath::Amx)
}

/// `found` is within `bound` of the largest element of `expected`, which counts as `least` at least.
fn within(found: Floats, expected: Floats, bound: f32, least: f32) -> Result<(), TestCaseError> {
    prop_assert_eq!(found.shape(), expected.shape());
    let (found, expected) = (read(found), read(expected));
    prop_assert_eq!(found.len(), expected.len());
    let size = expected.iter().fold(least, |a, b| a.max(b.abs()));
    for (found, expected) in found.iter().zip(&expected) {
        prop_assert!(
            (found - expected).abs() <= bound * size,
            "{} and {}",
            found,
            expected
        );
    }
    Ok(())
}

/// Equal but for the order of sums: within 1e-5 of the largest element on the host, 1e-4 on another device.
fn close(found: Floats, expected: Floats) -> Result<(), TestCaseError> {
    close_to(found, expected, 1e-3)
}

/// As [`close`], where the largest element counts as `least` at least. The losses of a cross-entropy are differences of
/// logits, so that their error does not shrink with the losses.
fn close_to(found: Floats, expected: Floats, least: f32) -> Result<(), TestCaseError> {
    let device = Device::new(found.device());
    let bound = if capabilities(&device).on_host {
        1e-5
    } else {
        1e-4
    };
    within(found, expected, bound, least)
}

/// As [`close`], for functions that each backend approximates by itself, such as erf and tanh. On a backend other than the
/// reference's, they agree within 1e-3 (ndarray's GELU differs from flex's by 1.1e-4). The approximation's error does not shrink
/// with the values, so that it is compared with 1 where all of these are smaller.
fn close_function(found: Floats, expected: Floats) -> Result<(), TestCaseError> {
    if found.device() == expected.device() {
        close(found, expected)
    } else {
        within(found, expected, 1e-3, 1.0)
    }
}

/// A weight on a device, in a precision.
fn weight(data: &TensorData, dtype: BaseDtype, device: &Device) -> Weight<Dispatch> {
    let weight = Tensor::<2>::from_data(data.clone(), device);
    dtype.convert(weight, Container::Linear).into()
}

/// What a weight on a device is compared with, on the reference: the same weight, or the values of one that the device keeps in
/// words, whose other factor is not rounded.
fn weight_here(
    data: &TensorData,
    dtype: BaseDtype,
    container: Container,
    there: &Device,
) -> Weight<Dispatch> {
    let cpu = reference();
    if capabilities(there).unpacks_words {
        let kept = dtype.convert(Tensor::<2>::from_data(data.clone(), there), container);
        let values = packed::unquantized(kept).into_data();
        return Tensor::<2>::from_data(values, &cpu).into();
    }
    let weight = Tensor::<2>::from_data(data.clone(), &cpu);
    unpacked(dtype.convert(weight, container).into())
}

/// What attention is given in a test.
struct AttentionCase {
    query: TensorData,
    key: TensorData,
    value: TensorData,
    dy: TensorData,
    keep: Option<TensorData>,
    layout: AttentionLayout,
}

impl AttentionCase {
    fn inputs(&self, device: &Device) -> attention::Inputs<Floats> {
        attention::Inputs::new(
            put::<2>(&self.query, device),
            put::<2>(&self.key, device),
            put::<2>(&self.value, device),
            self.keep.as_ref().map(|keep| put::<1>(keep, device)),
        )
    }

    fn constants(&self, device: &Device) -> AttentionConstants<Dispatch> {
        let offsets = self.layout.offsets.on_device(device).into_dispatch();
        AttentionConstants {
            keep: Optional::from(self.inputs(device).keep),
            offsets: OptionalInt::Given(offsets),
        }
    }

    /// Both passes of both forms on `device`; `check` compares with the definition.
    fn check(
        &self,
        device: &Device,
        check: impl Fn(Floats, Floats) -> Result<(), TestCaseError>,
    ) -> Result<(), TestCaseError> {
        let cpu = reference();
        let output = attention::forward::<Dispatch>(self.inputs(&cpu), &self.layout);
        let dy = put::<2>(&self.dy, &cpu);
        let gradients = attention::backward::<Dispatch>(&self.inputs(&cpu), dy, &self.layout);
        let expected: Vec<Floats> = [output].into_iter().chain(gradients).collect();
        repeated(|| self.separate(device))?;
        // The gradients with and without what the forward pass has left.
        for (index, found) in self.separate(device).into_iter().enumerate() {
            check(
                found,
                expected[if index > 3 { index - 3 } else { index }].clone(),
            )?;
        }
        if self.key.shape() != self.query.shape() {
            return Ok(());
        }
        let gradients = expected[1..].to_vec();
        let fused = Dispatch::float_cat(gradients, 1);
        repeated(|| self.side_by_side(device))?;
        for (index, found) in self.side_by_side(device).into_iter().enumerate() {
            let expected = if index == 0 { &expected[0] } else { &fused };
            check(found, expected.clone())?;
        }
        Ok(())
    }

    /// The output; the gradients that are computed with what the forward pass has left; and those without.
    fn separate(&self, device: &Device) -> Vec<Floats> {
        let layout = || self.layout.clone();
        let constants = || self.constants(device);
        let inputs = || {
            let inputs = self.inputs(device);
            (inputs.query, inputs.key, inputs.value)
        };
        let (query, key, value) = inputs();
        let (output, log_sum_exp) =
            Dispatch::segment_attention_and_log_sum_exp(query, key, value, constants(), layout());
        let mut found = vec![output.clone()];
        for forward in [left(&output, log_sum_exp), AttentionForward::Absent] {
            let (query, key, value) = inputs();
            let dy = put::<2>(&self.dy, device);
            let (dq, dk, dv) = Dispatch::segment_attention_backward(
                query,
                key,
                value,
                constants(),
                forward,
                dy,
                layout(),
            );
            found.extend([dq, dk, dv]);
        }
        found
    }

    /// The same for inputs that lie side by side.
    fn side_by_side(&self, device: &Device) -> Vec<Floats> {
        let layout = || self.layout.clone();
        let constants = || self.constants(device);
        let inputs = self.inputs(device);
        let fused = Dispatch::float_cat(vec![inputs.query, inputs.key, inputs.value], 1);
        let (output, log_sum_exp) =
            Dispatch::fused_segment_attention_and_log_sum_exp(fused.clone(), constants(), layout());
        let mut found = vec![output.clone()];
        for forward in [left(&output, log_sum_exp), AttentionForward::Absent] {
            let dy = put::<2>(&self.dy, device);
            found.push(Dispatch::fused_segment_attention_backward(
                fused.clone(),
                constants(),
                forward,
                dy,
                layout(),
            ));
        }
        found
    }
}

/// What the forward pass leaves for the backward pass, as the autodiff backend keeps it.
fn left(output: &Floats, log_sum_exp: Optional<Dispatch>) -> AttentionForward<Dispatch> {
    match log_sum_exp {
        Optional::Given(log_sum_exp) => AttentionForward::Kept {
            output: output.clone(),
            log_sum_exp,
        },
        Optional::Absent => AttentionForward::Absent,
    }
}

/// Attention with relative positions: both passes on `device`, with the gradients of the tables that are `wanted`.
fn relative_attention(
    case: &AttentionCase,
    tables: &[Option<TensorData>; 2],
    wanted: [bool; 2],
    device: &Device,
) -> Vec<Option<Floats>> {
    let inputs = || {
        let inputs = case.inputs(device);
        (inputs.query, inputs.key, inputs.value)
    };
    let there = || {
        let put =
            |table: &Option<TensorData>| table.as_ref().map(|table| put_rows(table, true, device));
        RelativeTables::from(tables.each_ref().map(put))
    };
    let (constants, layout) = (|| case.constants(device), || case.layout.clone());
    let (query, key, value) = inputs();
    let output =
        Dispatch::relative_segment_attention(query, key, value, there(), constants(), layout());
    let (query, key, value) = inputs();
    let dy = put::<2>(&case.dy, device);
    let (dq, dk, dv, d_tables) = Dispatch::relative_segment_attention_backward(
        query,
        key,
        value,
        there(),
        constants(),
        dy,
        layout(),
        wanted,
    );
    let gradients = d_tables.into_options().into_iter().zip(wanted);
    let gradients = gradients.map(|(gradient, wanted)| gradient.filter(|_| wanted));
    [output, dq, dk, dv]
        .into_iter()
        .map(Some)
        .chain(gradients)
        .collect()
}

/// The definition's, from scores that are added up one by one on the host: `[tokens, heads * head_dim]`.
fn relative_attention_by_hand(case: &AttentionCase, tables: &[Option<TensorData>; 2]) -> Vec<f32> {
    let values = |data: &TensorData| data.try_to_vec::<f32>().unwrap();
    let (query, key, value) = (values(&case.query), values(&case.key), values(&case.value));
    let tables = tables.each_ref().map(|table| table.as_ref().map(values));
    let AttentionLayout {
        heads,
        scale,
        ref offsets,
        ..
    } = case.layout;
    let width = query.len() / offsets.tokens();
    let head_dim = width / heads;
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        a.iter()
            .zip(b)
            .map(|(a, b)| f64::from(*a) * f64::from(*b))
            .sum()
    };
    let mut output = vec![0.0; query.len()];
    for (start, length) in offsets.starts().iter().zip(offsets.lengths()) {
        for head in 0..heads {
            let at = |matrix: &'_ [f32], row: usize| -> Vec<f32> {
                matrix[row * width + head * head_dim..][..head_dim].to_vec()
            };
            for row in 0..length {
                let own = at(&query, start + row);
                let scores: Vec<f64> = (0..length)
                    .map(|column| {
                        let other = at(&key, start + column);
                        let mut sum = dot(&own, &other);
                        for (table, with) in tables.iter().zip([&own, &other]) {
                            if let Some(table) = table {
                                let longest = (table.len() / width).div_ceil(2);
                                sum += dot(with, &at(table, longest - 1 + column - row));
                            }
                        }
                        scale * sum
                    })
                    .collect();
                let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let weights: Vec<f64> = scores.iter().map(|score| (score - most).exp()).collect();
                let total: f64 = weights.iter().sum();
                for (column, weight) in weights.iter().enumerate() {
                    let value = at(&value, start + column);
                    let out = &mut output[(start + row) * width + head * head_dim..][..head_dim];
                    for (out, value) in out.iter_mut().zip(value) {
                        *out += (weight / total) as f32 * value;
                    }
                }
            }
        }
    }
    output
}

/// What the definition is compared with itself.
#[test]
fn relative_attention_is_defined_as_its_formula() -> Result<(), TestCaseError> {
    for (seed, which) in (3000..).zip([[true, true], [true, false], [false, true], [false, false]])
    {
        let lengths = [3, 3, 1, 7, 2, 2];
        let mut case = attention_case(&lengths, [2, 1, 5], false, ActivationDtype::F32, seed)?;
        case.layout.scale = 0.2;
        let table = |seed| random([2 * 9 - 1, 10], 2.0, seed);
        let tables = [
            which[0].then(|| table(seed ^ 8)),
            which[1].then(|| table(seed ^ 9)),
        ];
        let cpu = reference();
        let inputs = attention::Inputs {
            tables: tables
                .each_ref()
                .map(|table| table.as_ref().map(|table| put::<2>(table, &cpu))),
            ..case.inputs(&cpu)
        };
        let found = attention::forward::<Dispatch>(inputs, &case.layout);
        let expected = relative_attention_by_hand(&case, &tables);
        let expected = TensorData::new(expected, found.shape());
        close(found, put::<2>(&expected, &cpu))?;
    }
    Ok(())
}

/// Random inputs for sequences of these lengths, without dropout. The three numbers are those of the key-value heads, of the
/// query heads that share one of them, and of a head's elements.
fn attention_case(
    lengths: &[usize],
    [shared, sharing, head_dim]: [usize; 3],
    causal: bool,
    saved: ActivationDtype,
    seed: u64,
) -> Result<AttentionCase, TestCaseError> {
    let offsets =
        SequenceOffsets::from_lengths(lengths).map_err(|e| TestCaseError::fail(e.to_string()))?;
    let heads = shared * sharing;
    let packed =
        |heads, offset: u64| random([offsets.tokens(), heads * head_dim], 2.0, seed ^ offset);
    Ok(AttentionCase {
        query: packed(heads, 1),
        key: packed(shared, 2),
        value: packed(shared, 3),
        dy: packed(heads, 5),
        keep: None,
        layout: AttentionLayout {
            offsets,
            heads,
            scale: 0.3,
            causal,
            window: None,
            dropout: None,
            saved,
        },
    })
}

/// Lengths, heads and widths at which a kernel with tiles can go wrong, on every device.
#[test]
fn attention_agrees_at_the_edges_of_tiles() -> Result<(), TestCaseError> {
    let cases: [(&[usize], [usize; 2]); 8] = [
        (&[1], [1, 1]),
        (&[1, 1, 1], [2, 3]),
        (&[32], [1, 16]),
        (&[33], [2, 5]),
        (&[7, 70, 1, 1, 40, 2], [3, 12]),
        (&[64, 64, 31, 1], [2, 16]),
        (&[3; 50], [2, 4]),
        (&[20, 45], [1, 77]),
    ];
    for (seed, (lengths, [heads, head_dim])) in (1000..).zip(cases) {
        for (causal, drops) in [(false, false), (false, true), (true, false), (true, true)] {
            let mut case = attention_case(
                lengths,
                [heads, 1, head_dim],
                causal,
                ActivationDtype::F32,
                seed,
            )?;
            // A seed whose halves are both in use.
            let seed = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            case.layout.dropout = drops.then_some(SeededDropout { prob: 0.2, seed });
            for named in devices() {
                case.check(&named.device, close)?;
            }
        }
    }
    Ok(())
}

/// Sequences so long that a CPU makes their scores a block of rows at a time, with heads that are shared and with windows
/// that end before a block's first row and after it.
#[test]
fn attention_of_long_sequences_agrees() -> Result<(), TestCaseError> {
    let long: &[usize] = &[700, 3];
    // Around the length from which on the scores are made in blocks, and whole blocks.
    let edges: &[usize] = &[257, 256, 384, 1];
    let cases = [
        (long, false, None, true),
        (long, true, None, true),
        (long, true, Some(100), false),
        (long, true, Some(600), true),
        (edges, false, None, false),
        (edges, true, None, true),
        (edges, true, Some(1), true),
    ];
    for (seed, (lengths, causal, window, drops)) in (3000..).zip(cases) {
        let mut case = attention_case(lengths, [1, 2, 5], causal, ActivationDtype::F32, seed)?;
        case.layout.window = window;
        if drops {
            case.layout.dropout = Some(SeededDropout { prob: 0.2, seed });
        } else {
            let entries = case.layout.heads * case.layout.offsets.score_entries();
            case.keep = Some(random([entries], 1.0, seed));
        }
        for named in devices() {
            case.check(&named.device, close)?;
        }
        case.layout.saved = ActivationDtype::Bf16;
        for named in devices() {
            case.check(&named.device, |found, expected| {
                within(found, expected, 0.02, 1.0)
            })?;
        }
    }
    Ok(())
}

/// What training sees: the gradients of tensors on an autodiff device.
#[test]
fn gradients_of_attention_agree() -> Result<(), TestCaseError> {
    let dropout = DropoutConfig::new(0.0).init();
    for form in [AttentionForm::full(2), AttentionForm::causal(2)] {
        let causal = form.causal;
        let mut case = attention_case(&[9, 40, 1], [2, 1, 8], causal, ActivationDtype::F32, 77)?;
        case.layout.scale = 1.0 / 8f64.sqrt();
        let cpu = reference();
        let dy = put::<2>(&case.dy, &cpu);
        let expected = attention::backward::<Dispatch>(&case.inputs(&cpu), dy, &case.layout);
        for named in devices() {
            let device = named.device.autodiff();
            let on = |data: &TensorData| Tensor::<2>::from_data(data.clone(), &device);
            let dy = on(&case.dy);
            let inputs = [&case.query, &case.key, &case.value].map(|data| on(data).require_grad());
            let offsets = &case.layout.offsets;
            let saved = ActivationDtype::F32;
            let y = crate::segment_attention(inputs.clone(), offsets, form, &dropout, saved);
            let gradients = (y * dy.clone()).sum().backward();
            for (input, expected) in inputs.iter().zip(&expected) {
                let Some(found) = input.grad(&gradients) else {
                    return Err(TestCaseError::fail("no gradient"));
                };
                close(found.into_dispatch(), expected.clone())?;
            }
            let inputs = inputs.map(|x| x.inner());
            let fused = on(&Tensor::cat(inputs.to_vec(), 1).into_data()).require_grad();
            let y = fused.clone();
            let y = crate::fused_segment_attention(y, offsets, 2, causal, &dropout, saved);
            let gradients = (y * dy).sum().backward();
            let Some(found) = fused.grad(&gradients) else {
                return Err(TestCaseError::fail("no gradient"));
            };
            close(
                found.into_dispatch(),
                Dispatch::float_cat(expected.to_vec(), 1),
            )?;
        }
    }
    Ok(())
}

/// Contexts that are longer than what a cube scores at a time, shorter, and shared.
#[test]
fn cached_attention_agrees_at_the_edges_of_tiles() -> Result<(), TestCaseError> {
    const SLOTS: usize = 150;
    for (seed, [heads, head_dim]) in
        (2000..).zip([[1, 1], [2, 3], [3, 16], [1, 77], [2, 64], [1, 300]])
    {
        let width = heads * head_dim;
        let rows: Vec<Vec<u32>> = [1u32, 63, 64, 65, 150]
            .map(|length| {
                (0..length)
                    .map(|place| (place * 7) % SLOTS as u32)
                    .collect()
            })
            .into();
        let contexts = Contexts::new(rows.iter().map(Vec::as_slice));
        let query = random([rows.len(), width], 2.0, seed);
        let keys = random([SLOTS, width], 2.0, seed ^ 1);
        let values = random([SLOTS, width], 1.0, seed ^ 2);
        let on = |device: &Device| [&query, &keys, &values].map(|data| put::<2>(data, device));
        let [q, k, v] = on(&reference());
        let expected = cached::forward::<Dispatch>(q, k, v, &contexts, heads, 0.3);
        for named in devices() {
            let found = || {
                let [q, k, v] = on(&named.device);
                let places = contexts.on_device(&named.device).into_dispatch();
                let places = OptionalInt::Given(places);
                Dispatch::cached_attention(q, k, v, places, contexts.on_host(), heads, 0.3)
            };
            repeated(|| [found()])?;
            close(found(), expected.clone())?;
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn attention_agrees(
        lengths in prop::collection::vec(1usize..40, 1..5),
        shared in 1usize..4, sharing in 1usize..4, head_dim in 1usize..20, causal: bool,
        window in prop::option::of(1usize..50), dropout: bool, seeded: bool, seed: u64,
    ) {
        let heads = [shared, sharing, head_dim];
        let mut case = attention_case(&lengths, heads, causal, ActivationDtype::F32, seed)?;
        case.layout.window = window.filter(|_| causal);
        let entries = case.layout.heads * case.layout.offsets.score_entries();
        case.keep = dropout.then(|| random([entries], 1.0, seed ^ 4));
        case.layout.dropout = seeded.then_some(SeededDropout { prob: 0.2, seed });
        for device in devices_for(seed) {
            case.check(&device, close)?;
        }
    }

    #[test]
    fn relative_attention_agrees(
        lengths in prop::collection::vec(1usize..80, 1..12),
        shared in 1usize..3, sharing in 1usize..3, head_dim in 1usize..20, causal: bool, seeded: bool,
        given in prop::sample::select(vec![[true, true], [true, false], [false, true]]),
        wanted: [bool; 2], longer in 0usize..5, rounds: bool, seed: u64,
    ) {
        let saved = if rounds { ActivationDtype::Bf16 } else { ActivationDtype::F32 };
        let mut case = attention_case(&lengths, [shared, sharing, head_dim], causal, saved, seed)?;
        case.layout.dropout = seeded.then_some(SeededDropout { prob: 0.2, seed });
        let longest = lengths.iter().max().unwrap() + longer;
        let table = |seed| random([2 * longest - 1, shared * sharing * head_dim], 2.0, seed);
        let tables = [given[0].then(|| table(seed ^ 8)), given[1].then(|| table(seed ^ 9))];
        let cpu = reference();
        let inputs = || attention::Inputs {
            tables: tables.each_ref().map(|table| table.as_ref().map(|table| put::<2>(table, &cpu))),
            ..case.inputs(&cpu)
        };
        let output = attention::forward::<Dispatch>(inputs(), &case.layout);
        let dy = put::<2>(&case.dy, &cpu);
        let (gradients, d_tables) = attention::gradients::<Dispatch>(&inputs(), dy, &case.layout);
        let expected: Vec<_> = [output].into_iter().chain(gradients).map(Some).chain(d_tables).collect();
        for device in devices_for(seed) {
            let found = || relative_attention(&case, &tables, wanted, &device);
            repeated(|| found().into_iter().flatten())?;
            let tables_wanted = wanted.iter().zip(given).map(|(wanted, given)| *wanted && given);
            let given = [true; 4].into_iter().chain(tables_wanted);
            for ((found, expected), given) in found().into_iter().zip(&expected).zip(given) {
                prop_assert_eq!(found.is_some(), given);
                if let (Some(found), Some(expected)) = (found, expected.clone()) {
                    if rounds {
                        within(found, expected, 0.02, 1.0)?;
                    } else {
                        close(found, expected)?;
                    }
                }
            }
        }
    }

    /// Factors of eight bits, and sums of the rounding errors of many. Gradients are differences: where all of them
    /// nearly cancel, their errors are still those of the terms, which are of size 1 at least.
    #[test]
    fn attention_rounds_to_bfloat16_and_no_further(
        lengths in prop::collection::vec(1usize..40, 1..4),
        heads in 1usize..3, sharing in 1usize..3, head_dim in 1usize..20, causal: bool, seeded: bool,
        seed: u64,
    ) {
        let heads = [heads, sharing, head_dim];
        let mut case = attention_case(&lengths, heads, causal, ActivationDtype::Bf16, seed)?;
        case.layout.dropout = seeded.then_some(SeededDropout { prob: 0.2, seed });
        for device in devices_for(seed) {
            case.check(&device, |found, expected| within(found, expected, 0.02, 1.0))?;
        }
    }

    /// Outputs are means of values: where these cancel, the errors are still those of the values.
    #[test]
    fn cached_attention_agrees(
        lengths in prop::collection::vec(1usize..30, 1..6),
        shared in 1usize..4, sharing in 1usize..4, head_dim in 1usize..20, seed: u64,
    ) {
        const SLOTS: usize = 40;
        let heads = shared * sharing;
        let rows: Vec<Vec<u32>> = lengths
            .iter()
            .enumerate()
            .map(|(row, length)| {
                let slot = |place| ((row * 7 + place) % SLOTS) as u32;
                (0..*length).map(slot).collect()
            })
            .collect();
        let contexts = Contexts::new(rows.iter().map(Vec::as_slice));
        let query = random([rows.len(), heads * head_dim], 2.0, seed);
        let cache = [SLOTS, shared * head_dim];
        let (keys, values) = (random(cache, 2.0, seed ^ 1), random(cache, 1.0, seed ^ 2));
        let on = |device: &Device| [&query, &keys, &values].map(|data| put::<2>(data, device));
        let largest = read(put::<2>(&values, &reference())).into_iter().fold(0.0, |a: f32, b| a.max(b.abs()));
        for device in devices_for(seed) {
            let [query, keys, values] = on(&device);
            let places = OptionalInt::Given(contexts.on_device(&device).into_dispatch());
            let found =
                Dispatch::cached_attention(query, keys, values, places, contexts.on_host(), heads, 0.3);
            let [query, keys, values] = on(&reference());
            let expected = cached::forward::<Dispatch>(query, keys, values, &contexts, heads, 0.3);
            close_to(found, expected, largest)?;
        }
    }

    #[test]
    fn gelu_agrees(rows in 1usize..40, width in 1usize..700, seed: u64) {
        let (x, dy) = (random([rows, width], 4.0, seed), random([rows, width], 1.0, seed ^ 1));
        let cpu = reference();
        for device in devices_for(seed) {
            for form in [Gelu::Erf, Gelu::Tanh] {
                let expected = || gelu::forward::<Dispatch>(put::<2>(&x, &cpu), form);
                let forward = |x| Dispatch::activate_gelu(x, form, ActivationDtype::F32);
                // Once with the input shared, once not.
                let shared = put::<2>(&x, &device);
                close_function(forward(shared.clone()), expected())?;
                close_function(forward(put::<2>(&x, &device)), expected())?;
                close_function(forward(shared), expected())?;

                let expected = || {
                    gelu::backward::<Dispatch>(put::<2>(&x, &cpu), put::<2>(&dy, &cpu), form)
                };
                let backward = |dy| Dispatch::activate_gelu_backward(put::<2>(&x, &device), dy, form);
                // Once with the gradient shared, once not.
                let shared = put::<2>(&dy, &device);
                close_function(backward(shared.clone()), expected())?;
                close_function(backward(put::<2>(&dy, &device)), expected())?;
                close_function(backward(shared), expected())?;

                // And with the input kept in bfloat16.
                if keeps_bf16(&device) && capabilities(&cpu).stores_bf16 {
                    let there = put::<2>(&x, &device);
                    let (found, kept) = Dispatch::activate_gelu_and_rounded(there, form);
                    close_function(found, gelu::forward::<Dispatch>(put::<2>(&x, &cpu), form))?;
                    let dy_there = put::<2>(&dy, &device);
                    let found = Dispatch::activate_gelu_backward(kept, dy_there, form);
                    let dy_here = put::<2>(&dy, &cpu);
                    let kept = Dispatch::float_cast(put::<2>(&x, &cpu), DType::BF16.into());
                    let x = restored::<Dispatch>(kept, &dy_here);
                    close_function(found, gelu::backward::<Dispatch>(x, dy_here, form))?;
                }
            }
        }
    }

    // Rows are not narrower, because the gradient of two or three values is little more than rounding error.
    #[test]
    fn normalisation_agrees(rows in 1usize..40, width in 8usize..700, gaps: bool, seed: u64) {
        let (x, dy) = (random([rows, width], 3.0, seed), random([rows, width], 1.0, seed ^ 1));
        let (gamma, beta) = (random([width], 1.0, seed ^ 2), random([width], 1.0, seed ^ 3));
        let epsilon = 1e-5;
        let cpu = reference();
        let vectors = |device: &Device| (put::<1>(&gamma, device), put::<1>(&beta, device));
        let expected = || {
            let (g, b) = vectors(&cpu);
            norm::forward::<Dispatch>(put::<2>(&x, &cpu), g, b, epsilon)
        };
        let expected_dx = || {
            let (gamma, _) = vectors(&cpu);
            norm::backward::<Dispatch>(put::<2>(&x, &cpu), gamma, put::<2>(&dy, &cpu), epsilon)
        };
        for device in devices_for(seed) {
            let forward = |x| {
                let (g, b) = vectors(&device);
                Dispatch::normalize_rows(x, g, b, epsilon)
            };
            // Once with the input shared, once not.
            let shared = put_rows(&x, gaps, &device);
            close(forward(shared.clone()), expected())?;
            close(forward(put_rows(&x, gaps, &device)), expected())?;
            close(forward(shared), expected())?;
            repeated(|| [forward(put_rows(&x, gaps, &device))])?;

            let backward = |dy| {
                let (gamma, _) = vectors(&device);
                Dispatch::normalize_rows_backward(put_rows(&x, gaps, &device), gamma, dy, epsilon)
            };
            // Once with the gradient shared, once not.
            let shared = put_rows(&dy, gaps, &device);
            close(backward(shared.clone()), expected_dx())?;
            close(backward(put_rows(&dy, gaps, &device)), expected_dx())?;
            close(backward(shared), expected_dx())?;
            repeated(|| [backward(put_rows(&dy, gaps, &device))])?;

            let d_gamma = || {
                let [x, dy] = [&x, &dy].map(|data| put_rows(data, gaps, &device));
                Dispatch::normalize_rows_gamma_backward(x, dy, epsilon)
            };
            let [x, dy] = [&x, &dy].map(|data| put::<2>(data, &cpu));
            close(d_gamma(), norm::gamma_backward::<Dispatch>(x, dy, epsilon))?;
            repeated(|| [d_gamma()])?;
        }
    }

    // Rows are not narrower, because the gradient of two or three values is little more than rounding error.
    #[test]
    fn rms_normalisation_agrees(rows in 1usize..40, width in 8usize..700, gaps: bool, seed: u64) {
        let (x, dy) = (random([rows, width], 3.0, seed), random([rows, width], 1.0, seed ^ 1));
        let gamma = random([width], 1.0, seed ^ 2);
        let epsilon = 1e-5;
        let cpu = reference();
        let on = |device: &Device| (put_rows(&x, gaps, device), put::<1>(&gamma, device));
        for device in devices_for(seed) {
            let forward = || {
                let (x, gamma) = on(&device);
                Dispatch::rms_normalize_rows(x, gamma, epsilon)
            };
            let (x, gamma) = on(&cpu);
            close(forward(), rms_norm::forward::<Dispatch>(x, gamma, epsilon))?;
            repeated(|| [forward()])?;

            let backward = |dy| {
                let (x, gamma) = on(&device);
                Dispatch::rms_normalize_rows_backward(x, gamma, dy, epsilon)
            };
            let expected = || {
                let (x, gamma) = on(&cpu);
                rms_norm::backward::<Dispatch>(x, gamma, put::<2>(&dy, &cpu), epsilon)
            };
            // Once with the gradient shared, once not.
            let shared = put_rows(&dy, gaps, &device);
            close(backward(shared.clone()), expected())?;
            close(backward(put_rows(&dy, gaps, &device)), expected())?;
            close(backward(shared), expected())?;

            let d_gamma = || {
                let (x, _) = on(&device);
                Dispatch::rms_normalize_rows_gamma_backward(x, put_rows(&dy, gaps, &device), epsilon)
            };
            let (x, _) = on(&cpu);
            let expected = rms_norm::gamma_backward::<Dispatch>(x, put::<2>(&dy, &cpu), epsilon);
            close(d_gamma(), expected)?;
            repeated(|| [d_gamma()])?;
        }
    }

    /// What full fine-tuning asks of a linear map.
    #[test]
    fn gradients_of_weights_and_biases_agree(
        tokens in 1usize..100, inner in 1usize..80, columns in 1usize..80, long: bool,
        gaps: bool, seed: u64,
    ) {
        // More than the CPU's kernels sum in one pass.
        let tokens = if long { tokens + 1600 } else { tokens };
        let x = random([tokens, inner], 1.0, seed);
        let dy = random([tokens, columns], 1.0, seed ^ 1);
        let cpu = reference();
        let [there_x, there_dy] = [&x, &dy].map(|data| put::<2>(data, &cpu));
        let dw = linear::weight_backward::<Dispatch>(there_x, there_dy.clone());
        let sums = linear::sum_rows::<Dispatch>(there_dy);
        for device in devices_for(seed) {
            let weights = || {
                let [x, dy] = [&x, &dy].map(|data| put_rows(data, gaps, &device));
                Dispatch::mixed_linear_weight_backward(x, dy)
            };
            close(weights(), dw.clone())?;
            repeated(|| [weights()])?;
            let biases = || Dispatch::sum_rows(put_rows(&dy, gaps, &device));
            close(biases(), sums.clone())?;
            repeated(|| [biases()])?;
        }
    }

    #[test]
    fn gradients_of_embeddings_agree(
        tokens in 1usize..150, rows in 1usize..100, width in 1usize..70, gaps: bool, seed: u64,
    ) {
        let dy = random([tokens, width], 1.0, seed);
        let mut rng = ChaCha8Rng::seed_from_u64(seed ^ 1);
        let ids: Vec<i32> = (0..tokens).map(|_| rng.random_range(0..rows as i32)).collect();
        let ids = TensorData::new(ids, [tokens]);
        let table = random([rows, width], 1.0, seed ^ 2);
        let cpu = reference();
        let there = put::<2>(&dy, &cpu);
        let expected = embedding::backward::<Dispatch>(there, put_ints(&ids, &cpu), rows);
        for device in devices_for(seed) {
            let there = put_rows(&dy, gaps, &device);
            let found = Dispatch::select_rows_backward(there, put_ints(&ids, &device), rows);
            close(found, expected.clone())?;
            // What training sees.
            let device = device.autodiff();
            let table = Tensor::<2>::from_data(table.clone(), &device).require_grad();
            let on_device = Tensor::<1, Int>::from_data(ids.clone(), &device).into_dispatch();
            let y = Dispatch::select_rows(table.clone().into(), on_device);
            let dy = Tensor::<2>::from_data(dy.clone(), &device);
            let gradients = (Tensor::<2>::from_dispatch(y) * dy).sum().backward();
            let Some(found) = table.grad(&gradients) else {
                return Err(TestCaseError::fail("no gradient"));
            };
            close(found.into_dispatch(), expected.clone())?;
        }
    }

    #[test]
    fn steps_of_the_optimizer_agree(
        rows in 1usize..60, width in 1usize..400, gaps: bool, number in 2usize..2000, seed: u64,
    ) {
        let parameter = random([rows, width], 1.0, seed);
        let gradient = random([rows, width], 1e-2, seed ^ 1);
        let first = random([rows, width], 1e-2, seed ^ 2);
        let mut rng = ChaCha8Rng::seed_from_u64(seed ^ 3);
        let second: Vec<f32> = (0..rows * width).map(|_| 1e-4 * rng.random::<f32>()).collect();
        let second = TensorData::new(second, [rows, width]);
        let step = AdamWStep {
            learning_rate: 1e-3,
            weight_decay: 0.1,
            beta_1: 0.9,
            beta_2: 0.98,
            epsilon: 1e-6,
            number,
        };
        let cpu = reference();
        let [p, g, m, v] = [&parameter, &gradient, &first, &second].map(|data| put::<2>(data, &cpu));
        let expected = optimizer::adamw::<Dispatch>(p, g.clone(), [m, v], step);
        let half = Dispatch::float_mul_scalar(g, 0.3.into());
        for device in devices_for(seed) {
            let on = || {
                [&parameter, &gradient, &first, &second].map(|data| put_rows(data, gaps, &device))
            };
            let found = || {
                let [p, g, m, v] = on();
                let (p, m, v) = Dispatch::adamw(p, g, m, v, step);
                [p, m, v]
            };
            for (found, expected) in found().into_iter().zip(&expected) {
                within(found, expected.clone(), 1e-5, 0.0)?;
            }
            repeated(found)?;
            let [_, gradient, ..] = on();
            // Once with the tensor shared, once not.
            close(Dispatch::scaled(gradient.clone(), 0.3), half.clone())?;
            close(Dispatch::scaled(gradient, 0.3), half.clone())?;
        }
    }

    #[test]
    fn rotation_agrees(
        tokens in 1usize..60, heads in 1usize..5, half in 1usize..40, gaps: bool, seed: u64,
    ) {
        let x = random([tokens, heads * 2 * half], 2.0, seed);
        let (cos, sin) = (random([tokens, half], 1.0, seed ^ 1), random([tokens, half], 1.0, seed ^ 2));
        let angles = |device: &Device| (put::<2>(&cos, device), put::<2>(&sin, device));
        let expected = || {
            let (cos, sin) = angles(&reference());
            rotary::forward::<Dispatch>(put::<2>(&x, &reference()), cos, sin)
        };
        for device in devices_for(seed) {
            let forward = |x| {
                let (cos, sin) = angles(&device);
                Dispatch::rotate_heads(x, cos, sin)
            };
            // Once with the input shared, once not.
            let shared = put_rows(&x, gaps, &device);
            close(forward(shared.clone()), expected())?;
            close(forward(put_rows(&x, gaps, &device)), expected())?;
            close(forward(shared), expected())?;
        }
    }

    #[test]
    fn swiglu_agrees(rows in 1usize..40, width in 1usize..700, gaps: bool, seed: u64) {
        let data = |size, offset| random([rows, width], size, seed ^ offset);
        let (gate, up, dy) = (data(6.0, 1), data(2.0, 2), data(1.0, 3));
        let cpu = reference();
        let on = |device: &Device| [&gate, &up].map(|data| put_rows(data, gaps, device));
        for device in devices_for(seed) {
            let [gate, up] = on(&device);
            let found = Dispatch::swiglu(gate, up, ActivationDtype::F32);
            let [gate, up] = on(&cpu);
            close_function(found, swiglu::forward::<Dispatch>(gate, up))?;

            // Once with the gradient shared, once not.
            let shared = put_rows(&dy, gaps, &device);
            for dy_there in [shared.clone(), put_rows(&dy, gaps, &device), shared] {
                let [gate, up] = on(&device);
                let (d_gate, d_up) = Dispatch::swiglu_backward(gate, up, dy_there);
                let [gate, up] = on(&cpu);
                let expected = swiglu::backward::<Dispatch>(gate, up, put::<2>(&dy, &cpu));
                for (found, expected) in [d_gate, d_up].into_iter().zip(expected) {
                    close_function(found, expected)?;
                }
            }
            // And with the inputs kept in bfloat16.
            if keeps_bf16(&device) && capabilities(&cpu).stores_bf16 {
                let [gate, up] = on(&device);
                let (found, gate, up) = Dispatch::swiglu_and_rounded(gate, up);
                let [exact_gate, exact_up] = on(&cpu);
                close_function(found, swiglu::forward::<Dispatch>(exact_gate, exact_up))?;
                let (d_gate, d_up) = Dispatch::swiglu_backward(gate, up, put::<2>(&dy, &device));
                let dy = put::<2>(&dy, &cpu);
                let [gate, up] = on(&cpu).map(|kept| {
                    let kept = Dispatch::float_cast(kept, DType::BF16.into());
                    restored::<Dispatch>(kept, &dy)
                });
                let expected = swiglu::backward::<Dispatch>(gate, up, dy);
                for (found, expected) in [d_gate, d_up].into_iter().zip(expected) {
                    close_function(found, expected)?;
                }
            }
        }
    }

    /// The same elements are dropped, and the others are the same numbers.
    #[test]
    fn dropout_is_equal(rows in 1usize..200, width in 1usize..200, seed: u64) {
        let seeded = SeededDropout { prob: 0.3, seed };
        let x = random([rows, width], 1.0, seed);
        let expected = read(dropout::forward::<Dispatch>(put::<2>(&x, &reference()), seeded));
        for device in devices_for(seed) {
            // Once with the input shared, once not.
            let shared = put::<2>(&x, &device);
            prop_assert_eq!(&read(Dispatch::seeded_dropout(shared.clone(), seeded)), &expected);
            prop_assert_eq!(&read(Dispatch::seeded_dropout(put::<2>(&x, &device), seeded)), &expected);
            prop_assert_eq!(&read(Dispatch::seeded_dropout(shared, seeded)), &expected);
            repeated(|| [Dispatch::seeded_dropout(put::<2>(&x, &device), seeded)])?;
        }
    }

    #[test]
    fn rounding_is_equal(count in 1usize..20_000, seed: u64) {
        prop_assume!(capabilities(&reference()).stores_bf16);
        let x = random([count], 1e3, seed);
        let first = x.as_slice::<f32>().unwrap()[..count.div_ceil(2)].to_vec();
        let half = TensorData::new(first, [count.div_ceil(2)]);
        let expected = Dispatch::float_cast(put::<1>(&x, &reference()), DType::BF16.into());
        let expected = read(expected);
        for device in devices_for(seed).iter().filter(|device| keeps_bf16(device)) {
            let found = Dispatch::rounded(put::<1>(&x, device));
            prop_assert_eq!(found.dtype(), DType::BF16);
            prop_assert_eq!(&read(Dispatch::widened(found)), &expected);
            // Once with the input shared, once not.
            let shared = put::<1>(&x, device);
            for x in [shared.clone(), put::<1>(&x, device)] {
                let (found, kept) = Dispatch::rounded_values(x);
                prop_assert_eq!(&read(found), &expected);
                prop_assert_eq!(&read(Dispatch::widened(kept)), &expected);
            }
            prop_assert_eq!(&read(shared.clone()), &read(put::<1>(&x, device)));
            // And beside others, of other lengths.
            for query in [shared, put::<1>(&x, device)] {
                let [key, value] = [&half, &half].map(|x| put::<1>(x, device));
                let (values, kept) = Dispatch::rounded_projections(query, key, value);
                let kept: [_; 3] = kept.into();
                let values: [_; 3] = values.into();
                for found in values.into_iter().chain(kept.map(Dispatch::widened)) {
                    let found = read(found);
                    prop_assert_eq!(found.as_slice(), &expected[..found.len()]);
                }
            }
        }
    }

    #[test]
    fn cross_entropy_agrees(
        rows in 1usize..20, vocabulary in 1usize..600, gaps: bool, seed: u64,
        smoothing in prop::sample::select(vec![0.0, 0.1]),
    ) {
        let logits = random([rows, vocabulary], 10.0, seed);
        let targets = targets(rows, vocabulary, seed);
        let cpu = reference();
        let here = || (put::<2>(&logits, &cpu), put_ints(&targets, &cpu));
        for device in devices_for(seed) {
            let there = || (put_rows(&logits, gaps, &device), put_ints(&targets, &device));
            let losses = |(x, targets)| Dispatch::cross_entropy_rows(x, targets, smoothing);
            let (x, targets) = here();
            let expected = cross_entropy::row_losses::<Dispatch>(x, targets, smoothing);
            close_to(losses(there()), expected, 1.0)?;
            repeated(|| [losses(there())])?;

            let gradients = |(x, targets)| {
                let found = Dispatch::cross_entropy_rows_and_gradients(x, targets, smoothing);
                [found.0, found.1]
            };
            let (x, targets) = here();
            let expected = cross_entropy::row_losses_and_gradients::<Dispatch>(x, targets, smoothing);
            // Once with the logits shared, once not.
            let (shared, targets) = there();
            for input in [(shared.clone(), targets.clone()), there(), (shared, targets)] {
                let [losses, found] = gradients(input);
                close_to(losses, expected.0.clone(), 1.0)?;
                close(found, expected.1.clone())?;
            }
            repeated(|| gradients(there()))?;
        }
    }

    /// The loss over a vocabulary, whose logits the definition makes whole.
    #[test]
    fn tied_cross_entropy_agrees(
        rows in 1usize..20, hidden in 1usize..30, vocabulary in 1usize..300, seed: u64,
        smoothing in prop::sample::select(vec![0.0, 0.1]),
    ) {
        let (h, e) = (random([rows, hidden], 1.0, seed), random([vocabulary, hidden], 2.0, seed ^ 1));
        let targets = targets(rows, vocabulary, seed);
        let cpu = reference();
        let logits = linear::backward::<Dispatch>(put::<2>(&h, &cpu), Weight::Float(put::<2>(&e, &cpu)));
        let losses = cross_entropy::row_losses::<Dispatch>(logits, put_ints(&targets, &cpu), smoothing);
        let expected = Dispatch::float_sum(losses);
        for device in devices_for(seed) {
            let (h, e) = (put::<2>(&h, &device), put::<2>(&e, &device));
            let found = Dispatch::tied_cross_entropy(h, Weight::Float(e), put_ints(&targets, &device), smoothing);
            close_to(found, expected.clone(), 1.0)?;
        }
    }

    /// In every precision that a device keeps weights in: the factors are rounded alike, so that only the order of the
    /// sums differs.
    #[test]
    fn linear_maps_agree(
        rows in 1usize..120, inner in 1usize..80, columns in 1usize..80, biased: bool,
        dtype in prop::sample::select(&BaseDtype::ALL[..]), seed: u64,
    ) {
        let (x, dy) = (random([rows, inner], 1.0, seed ^ 1), random([rows, columns], 1.0, seed ^ 2));
        let (w, b) = (random([inner, columns], 1.0, seed), random([columns], 1.0, seed ^ 3));
        let bias = |device: &Device| biased.then(|| put::<1>(&b, device));
        let cpu = reference();
        // Without the precision there is no definition to compare with.
        prop_assume!(dtype.check(&cpu).is_ok());
        for device in devices_for(seed).iter().filter(|device| dtype.check(device).is_ok()) {
            // With AMX, integers and what they are multiplied with are rounded to bfloat16, by a 512th at most each.
            let rounds = dtype == BaseDtype::Int8 && uses_tiles(device);
            let close = |found, expected| match rounds {
                true => within(found, expected, 1e-2, 1.0),
                false => close(found, expected),
            };
            let found = Dispatch::mixed_linear(
                put::<2>(&x, device), weight(&w, dtype, device), bias(device).into(),
            );
            let here = weight_here(&w, dtype, Container::Linear, device);
            let expected = linear::forward::<Dispatch>(put::<2>(&x, &cpu), here.clone(), bias(&cpu));
            close(found, expected)?;
            let backward = || Dispatch::mixed_linear_backward(put::<2>(&dy, device), weight(&w, dtype, device));
            close(backward(), linear::backward::<Dispatch>(put::<2>(&dy, &cpu), here))?;
            repeated(|| [backward()])?;
        }
    }

    /// On devices that keep words: products with larger ones, whose sides are whole groups, in both directions of both kinds of
    /// parameters, and the rows of a table.
    #[test]
    fn products_with_words_agree(
        rows in 1usize..150, width in 1usize..60, count in 1usize..60, gaps: bool, biased: bool, is_int8: bool, seed: u64,
    ) {
        let cpu = reference();
        let dtype = if is_int8 { BaseDtype::Int8 } else { BaseDtype::Bf16 };
        // The packed side and the other one.
        let [inner, columns] = [4 * width, 4 * count];
        let devices = devices_for(seed);
        for device in devices.iter().filter(|device| capabilities(device).unpacks_words) {
            for container in [Container::Linear, Container::Embedding] {
                let sides = match container {
                    Container::Linear => [inner, columns],
                    _ => [columns, inner],
                };
                let w = random(sides, 1.0, seed);
                let kept = dtype.convert(Tensor::<2>::from_data(w.clone(), device), container);
                prop_assert!(matches!(kept.dtype(), DType::QFloat(_)));
                let there = || Weight::from(kept.clone());
                let here = || weight_here(&w, dtype, container, device);
                let data = |width, offset| random([rows, width], 1.0, seed ^ offset);
                let (x, dy) = (data(sides[0], 1), data(sides[1], 2));
                let b = random([sides[1]], 1.0, seed ^ 3);
                let bias = |device: &Device| biased.then(|| put::<1>(&b, device));
                let forward = || {
                    Dispatch::mixed_linear(put_rows(&x, gaps, device), there(), bias(device).into())
                };
                close(forward(), linear::forward::<Dispatch>(put::<2>(&x, &cpu), here(), bias(&cpu)))?;
                repeated(|| [forward()])?;
                let backward = || Dispatch::mixed_linear_backward(put_rows(&dy, gaps, device), there());
                close(backward(), linear::backward::<Dispatch>(put::<2>(&dy, &cpu), here()))?;
                repeated(|| [backward()])?;

                if container != Container::Embedding {
                    continue;
                }
                let mut rng = ChaCha8Rng::seed_from_u64(seed);
                let ids: Vec<i32> = (0..rows).map(|_| rng.random_range(0..sides[0] as i32)).collect();
                let ids = TensorData::new(ids, [rows]);
                let found = Dispatch::select_rows(there(), put_ints(&ids, device));
                let expected = embedding::forward::<Dispatch>(here(), put_ints(&ids, &cpu));
                prop_assert_eq!(read(found), read(expected));
            }
        }
    }

    /// The values of words are those that other devices keep: rounded to bfloat16, or integers times a scale.
    #[test]
    fn words_have_the_values_of_other_devices(
        width in 1usize..60, count in 1usize..30, is_int8: bool, is_linear: bool, seed: u64,
    ) {
        let cpu = reference();
        let dtype = if is_int8 { BaseDtype::Int8 } else { BaseDtype::Bf16 };
        prop_assume!(dtype.check(&cpu).is_ok());
        let container = if is_linear { Container::Linear } else { Container::Embedding };
        // Of up to 60 groups, a block is the whole row.
        let sides = if is_linear { [4 * width, count] } else { [count, 4 * width] };
        let w = random(sides, 1.0, seed);
        let devices = devices_for(seed);
        for device in devices.iter().filter(|device| capabilities(device).unpacks_words) {
            let values = |device: &Device| {
                let kept = dtype.convert(Tensor::<2>::from_data(w.clone(), device), container);
                read(packed::unquantized(kept).into_dispatch())
            };
            prop_assert_eq!(values(device), values(&cpu));
        }
    }

    /// In every precision that a device keeps weights in, against the sum of the matrices.
    #[test]
    fn norms_of_adapted_weights_agree(
        rank in 1usize..20, inner in 1usize..200, columns in 1usize..150, turns: bool, scale in -2.0f64..2.0,
        dtype in prop::sample::select(&BaseDtype::ALL[..]), seed: u64,
    ) {
        let (a, b) = (random([rank, inner], 0.2, seed ^ 1), random([columns, rank], 1.0, seed ^ 2));
        let w = random([inner, columns], 1.0, seed);
        let cpu = reference();
        prop_assume!(dtype.check(&cpu).is_ok());
        let expected = |device: &Device| {
            let w = match weight_here(&w, dtype, Container::Linear, device) {
                Weight::Quantized(w) => Tensor::<2>::from_dispatch(w).dequantize(),
                Weight::Float(w) => Tensor::<2>::from_dispatch(w).cast(FloatDType::F32),
            };
            let [a, b] = [&a, &b].map(|data| Tensor::<2>::from_dispatch(put::<2>(data, &cpu)));
            let sum = w.transpose() + b.matmul(a).mul_scalar(scale);
            sum.square().sum_dim(1).flatten::<1>(0, 1).into_dispatch()
        };
        for device in devices_for(seed).iter().filter(|device| dtype.check(device).is_ok()) {
            let norms = || {
                let w = match dtype {
                    BaseDtype::F32 if turns => Weight::Float(turned(&w, device)),
                    _ => weight(&w, dtype, device),
                };
                let (a, b) = (put::<2>(&a, device), put::<2>(&b, device));
                Dispatch::adapted_squared_norms(w, a, b, scale)
            };
            repeated(|| [norms()])?;
            // Where the weight is kept in fewer bits, A is rounded to bfloat16, by at most a 512th.
            match dtype {
                BaseDtype::F32 | BaseDtype::F16 | BaseDtype::Packed => close(norms(), expected(device))?,
                _ => within(norms(), expected(device), 1e-2, 1.0)?,
            }
        }
    }

    #[test]
    fn scaled_columns_agree(
        rows in 1usize..200, columns in 1usize..150, biased: bool, gaps: bool, seed: u64,
    ) {
        let (x, dy) = (random([rows, columns], 1.0, seed ^ 1), random([rows, columns], 1.0, seed ^ 2));
        let [f, b] = [3, 4].map(|offset| random([columns], 2.0, seed ^ offset));
        let bias = |device: &Device| Optional::from(biased.then(|| put::<1>(&b, device)));
        let cpu = reference();
        let [x_cpu, dy_cpu] = [&x, &dy].map(|data| put::<2>(data, &cpu));
        let f_cpu = put::<1>(&f, &cpu);
        let y = scaled_columns::forward::<Dispatch>(
            x_cpu.clone(), f_cpu.clone(), bias(&cpu).into_option(),
        );
        let (dx, df) = scaled_columns::backward::<Dispatch>(x_cpu, f_cpu, dy_cpu);
        for device in devices_for(seed) {
            let f = || put::<1>(&f, &device);
            let x = || put_rows(&x, gaps, &device);
            let forward = || Dispatch::scale_columns(x(), f(), bias(&device));
            close(forward(), y.clone())?;
            repeated(|| [forward()])?;
            let shared = put_rows(&dy, gaps, &device);
            // Once with the gradient shared, once not.
            let first = Dispatch::scale_columns_backward(x(), f(), shared.clone());
            let second = Dispatch::scale_columns_backward(x(), f(), shared);
            for (found_dx, found_df) in [first, second] {
                close(found_dx, dx.clone())?;
                close(found_df, df.clone())?;
            }
        }
    }

    #[test]
    fn products_agree(
        rows in 1usize..80, inner in 1usize..80, columns in 1usize..80,
        turn_a: bool, turn_b: bool, seed: u64,
    ) {
        let (a, b) = (random([rows, inner], 1.0, seed ^ 1), random([inner, columns], 1.0, seed ^ 2));
        let sum = random([rows, columns], 1.0, seed ^ 3);
        let matrix = |data: &TensorData, turn: bool, device: &Device| {
            if turn { turned(data, device) } else { put::<2>(data, device) }
        };
        let on = |device: &Device| (matrix(&a, turn_a, device), matrix(&b, turn_b, device));
        let cpu = reference();
        for device in devices_for(seed) {
            let shared = put::<2>(&sum, &device);
            let ((a, b), (a_cpu, b_cpu)) = (on(&device), on(&cpu));
            let found = Dispatch::add_matmul(shared.clone(), a, b, 0.5);
            close(found, linear::add_matmul::<Dispatch>(put::<2>(&sum, &cpu), a_cpu, b_cpu, 0.5))?;
            // A tensor that shares its memory is not written to.
            prop_assert_eq!(read(shared), read(put::<2>(&sum, &cpu)));

            let ((a, b), (a_cpu, b_cpu)) = (on(&device), on(&cpu));
            close(Dispatch::rank_matmul(a, b), Dispatch::float_matmul(a_cpu, b_cpu))?;
        }
    }

    /// The residual connection, its dropout and the norm, which may be one kernel, and the gradients of both inputs.
    #[test]
    fn residual_norms_agree(
        rows in 1usize..12, width in 8usize..150, gaps: bool, drops: bool, seed: u64,
    ) {
        let data = |shape: [usize; 2], offset| random(shape, 1.0, seed ^ offset);
        let [x, residual, dy] = [1, 2, 3].map(|offset| data([rows, width], offset));
        let [gamma, beta] = [4, 5].map(|offset| random([width], 1.0, seed ^ offset));
        let dropout = drops.then_some(SeededDropout { prob: 0.3, seed });
        let epsilon = 1e-5;
        let cpu = reference();
        let on = |device: &Device, gaps: bool| {
            let matrix = |data: &TensorData| put_rows(data, gaps, device);
            let vector = |data: &TensorData| put::<1>(data, device);
            let (y, sum) = Dispatch::add_and_normalize_rows(
                matrix(&x), matrix(&residual), vector(&gamma), vector(&beta), dropout, epsilon,
            );
            let (dx, dr) = Dispatch::add_and_normalize_rows_backward(
                sum.clone(), vector(&gamma), matrix(&dy), dropout, epsilon,
            );
            [y, sum, dx, dr]
        };
        let expected = on(&cpu, false);
        for device in devices_for(seed) {
            repeated(|| on(&device, gaps))?;
            for (found, expected) in on(&device, gaps).into_iter().zip(expected.clone()) {
                close(found, expected)?;
            }
        }
    }

    #[test]
    fn sums_of_squares_agree(
        shapes in prop::collection::vec((1usize..40, 1usize..90, any::<bool>()), 1..13), seed: u64,
    ) {
        let matrices: Vec<_> = (seed >> 1..)
            .zip(&shapes)
            .map(|(seed, (rows, width, turn))| (random([*rows, *width], 2.0, seed), *turn))
            .collect();
        let values = matrices.iter().flat_map(|(data, _)| data.iter::<f32>());
        let expected: f64 = values.map(|value| f64::from(value).powi(2)).sum();
        for device in devices_for(seed) {
            let sum = || {
                let mut norm = SquaredNorm::default();
                for (data, turn) in &matrices {
                    let x = if *turn { turned(data, &device) } else { put::<2>(data, &device) };
                    norm.add(Tensor::<2>::from_dispatch(x));
                }
                norm.finish().map(Tensor::into_dispatch)
            };
            repeated(sum)?;
            let found: Vec<f32> = sum().map(read).unwrap_or_default();
            prop_assert_eq!(found.len(), 1);
            prop_assert!((f64::from(found[0]) / expected - 1.0).abs() < 1e-5, "{found:?} {expected}");
        }
    }

    /// One kernel for all shapes: every device takes all cases.
    #[test]
    fn fixed_products_agree(
        rows in 1usize..40, inner in 1usize..40, columns in 1usize..40,
        turn: [bool; 2], gaps: [bool; 2], sum in 0usize..3, scale in -2.0f64..2.0, seed: u64,
    ) {
        let (a, b) = (random([rows, inner], 1.0, seed ^ 1), random([inner, columns], 1.0, seed ^ 2));
        // Nothing, a row that is added to each, or a whole matrix.
        let (adds, summed) = [(false, 1), (true, 1), (true, rows)][sum];
        let added = random([summed, columns], 1.0, seed ^ 3);
        let matrix = |data: &TensorData, index: usize, device: &Device| {
            if turn[index] { turned(data, device) } else { put_rows(data, gaps[index], device) }
        };
        let factor = |data: &TensorData, index: usize| data.iter::<f32>().nth(index).map_or(0.0, f64::from);
        let entry = |row: usize, column: usize| {
            let terms = (0..inner).map(|at| factor(&a, row * inner + at) * factor(&b, at * columns + column));
            let sum = if adds { factor(&added, row % summed * columns + column) } else { 0.0 };
            (sum + scale * terms.sum::<f64>()) as f32
        };
        let expected: Vec<f32> = (0..rows * columns).map(|at| entry(at / columns, at % columns)).collect();
        for named in devices() {
            let device = named.device;
            let shared = put::<2>(&added, &device);
            let found = || {
                let (a, b) = (matrix(&a, 0, &device), matrix(&b, 1, &device));
                let sum = adds.then(|| shared.clone());
                [Dispatch::fixed_product(a, b, sum.into(), scale)]
            };
            repeated(found)?;
            for (found, expected) in found().into_iter().flat_map(read).zip(&expected) {
                prop_assert!((found - expected).abs() < 1e-4, "{}: {found} {expected}", named.name);
            }
            // A tensor that shares its memory is not written to.
            let kept: Vec<f32> = added.iter().collect();
            prop_assert_eq!(read(shared), kept);
        }
    }

    #[test]
    fn adapted_linear_agrees(
        rows in 1usize..40, inner in 1usize..40, columns in 1usize..40, rank in 1usize..9,
        drops: bool, transforms: bool, biased: bool, seed: u64,
    ) {
        let data = |shape: [usize; 2], offset| random(shape, 1.0, seed ^ offset);
        let (x, z) = (data([rows, inner], 1), data([rows, inner], 2));
        let (w, a) = (data([inner, columns], 3), data([rank, inner], 4));
        let (t, b) = (data([rank, rank], 5), data([columns, rank], 6));
        let bias = random([columns], 1.0, seed ^ 7);
        let scale = 0.5;
        let cpu = reference();
        let expected = {
            let here = |data| put::<2>(data, &cpu);
            let product = Dispatch::float_matmul;
            let mut u = product(here(if drops { &z } else { &x }), Dispatch::float_transpose(here(&a)));
            if transforms {
                u = product(u, Dispatch::float_transpose(here(&t)));
            }
            let bias = biased.then(|| put::<1>(&bias, &cpu));
            let y = linear::forward::<Dispatch>(here(&x), Weight::Float(here(&w)), bias);
            linear::add_matmul::<Dispatch>(y, u, Dispatch::float_transpose(here(&b)), scale)
        };
        for device in devices_for(seed) {
            let there = |data| put::<2>(data, &device);
            let found = Dispatch::adapted_linear(
                there(&x),
                drops.then(|| there(&z)).into(),
                Weight::Float(there(&w)),
                biased.then(|| put::<1>(&bias, &device)).into(),
                there(&a),
                transforms.then(|| there(&t)).into(),
                there(&b),
                scale,
            );
            close(found, expected.clone())?;
        }
    }
}

/// What is tested here and beside the kernels, on the paths that the processor has and that this process does not take. If
/// the environment names a path, the tests are for that path alone.
#[test]
fn operations_agree_on_every_path() {
    let choice = CpuChoice::read().unwrap();
    if choice.is_requested || !cfg!(feature = "flex") {
        return;
    }
    let program = std::env::current_exe().unwrap();
    for path in CpuPath::available().filter(|path| *path != choice.path) {
        let output = Command::new(&program)
            .args(["ops::", "--skip", "operations_agree_on_every_path"])
            .env(CpuChoice::VARIABLE, path.name())
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "on the path {path}:\n{text}");
        assert!(!text.contains("running 0 tests"), "{text}");
    }
}

/// The same on the path `amx` of a processor that lacks it, where the instructions are emulated, for the operations that use
/// them. Fewer random cases, because an emulated instruction takes some thousand times as long.
#[test]
#[cfg(all(
    feature = "flex",
    target_os = "linux",
    target_arch = "x86_64",
    not(miri)
))]
fn operations_agree_with_emulated_tiles() {
    let has_the_rest = CpuPath::Avx512Bf16.is_available();
    let is_requested = CpuChoice::read().unwrap().is_requested;
    if is_requested || !has_the_rest || CpuPath::Amx.is_available() {
        return;
    }
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["ops::agreement", "flex::linear", "flex::attention"])
        .args(["--skip", "on_every_path", "--skip", "with_emulated_tiles"])
        .env(CpuChoice::VARIABLE, CpuPath::Amx.name())
        .env("PROPTEST_CASES", "16")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}");
    assert!(!text.contains("running 0 tests"), "{text}");
}
