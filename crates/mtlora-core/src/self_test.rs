//! Whether a device computes what it should.

use burn::backend::Dispatch;
use burn::nn::DropoutConfig;
use burn::tensor::activation::softmax;
use burn::tensor::{Device, Distribution, Int, Tensor, TensorData};

use crate::ops::{ActivationDtype, Gelu, MtLoraBackend, Optional, SeededDropout, capabilities};
use crate::visit::Container;
use crate::{
    AttentionForm, BaseDtype, IGNORE_INDEX, SequenceOffsets, gelu, layer_norm, segment_attention,
    tied_cross_entropy,
};

/// What a device does wrongly.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum SelfTestError {
    /// A result is not what it should be.
    #[error("{operation} gave {found} where {expected} is right")]
    Wrong {
        /// The operation.
        operation: &'static str,
        /// What the device computed.
        found: f32,
        /// What it should be.
        expected: f32,
    },
    /// The result could not be read.
    #[error("{operation} failed: {message}")]
    Failed {
        /// The operation.
        operation: &'static str,
        /// What the device said.
        message: String,
    },
}

/// Products may be made with less precision than the sums: TF32 on some GPUs, with 10 bits.
const PRODUCT: f64 = 2e-2;
/// What functions are approximated within, and sums within.
const VALUE: f64 = 1e-3;

/// Compares products, also with weights that are kept in words, sums, softmax, the layer norm, GELU, attention, cross-entropy, dropout and a lookup on `device`,
/// on small matrices, and the gradients of those that have a kernel, with loops on the host.
///
/// It finds drivers that accept a kernel and compute something else, before a training runs on their results. Most of
/// its time goes into compiling small kernels.
///
/// # Errors
/// The first operation whose result is wrong or cannot be read.
pub fn self_test(device: &Device) -> Result<(), SelfTestError> {
    let device = &device.clone().inner().autodiff();
    product(device)?;
    words(device)?;
    reductions(device)?;
    norm(device)?;
    gelu_function(device)?;
    attention(device, false)?;
    attention(device, true)?;
    cross_entropy(device)?;
    lookup(device)?;
    masks(device)
}

/// A matrix of numbers between -1 and 1 that follow no simple pattern.
struct Matrix {
    rows: usize,
    width: usize,
    values: Vec<f32>,
}

impl Matrix {
    fn new(rows: usize, width: usize, stream: u32) -> Self {
        let value = |at: u32| {
            let mixed = (at ^ stream.wrapping_mul(0x9e37_79b9)).wrapping_mul(0x85eb_ca6b);
            let mixed = (mixed ^ (mixed >> 13)).wrapping_mul(0xc2b2_ae35);
            (mixed >> 8) as f32 / (1 << 23) as f32 - 1.0
        };
        let values = (0..(rows * width) as u32).map(value).collect();
        Self {
            rows,
            width,
            values,
        }
    }

    fn at(&self, row: usize, column: usize) -> f64 {
        f64::from(self.values[row * self.width + column])
    }

    fn row(&self, row: usize) -> impl Iterator<Item = f64> + '_ {
        (0..self.width).map(move |column| self.at(row, column))
    }

    fn on(&self, device: &Device) -> Tensor<2> {
        let data = TensorData::new(self.values.clone(), [self.rows, self.width]);
        Tensor::from_data(data, device)
    }

    /// Its values as a vector.
    fn vector_on(&self, device: &Device) -> Tensor<1> {
        let data = TensorData::new(self.values.clone(), [self.values.len()]);
        Tensor::from_data(data, device)
    }
}

/// Compares entries; the bound is a share of the largest expected one, which counts as 1 at least.
fn compare<const D: usize>(
    operation: &'static str,
    found: Tensor<D>,
    expected: &[f64],
    bound: f64,
) -> Result<(), SelfTestError> {
    let failed = |message: String| SelfTestError::Failed { operation, message };
    let data = found.try_into_data();
    let data = data.map_err(|error| failed(error.to_string()))?;
    let found = data.try_to_vec::<f32>();
    let found = found.map_err(|error| failed(error.to_string()))?;
    if found.len() != expected.len() {
        let message = format!("{} values in place of {}", found.len(), expected.len());
        return Err(failed(message));
    }
    let size = expected.iter().fold(1.0, |a: f64, b| a.max(b.abs()));
    let wrong = found.iter().zip(expected).find(|(found, expected)| {
        let error = (f64::from(**found) - **expected).abs();
        // A NaN is wrong, too.
        !matches!(error.partial_cmp(&(bound * size)), Some(order) if order.is_le())
    });
    match wrong {
        Some((found, expected)) => Err(SelfTestError::Wrong {
            operation,
            found: *found,
            expected: *expected as f32,
        }),
        None => Ok(()),
    }
}

fn gradient(of: &Tensor<2>, sum: Tensor<1>) -> Tensor<2> {
    let gradients = sum.backward();
    of.grad(&gradients)
        .unwrap_or_else(|| Tensor::zeros(of.dims(), &of.device().inner()))
}

fn product(device: &Device) -> Result<(), SelfTestError> {
    let (a, b) = (Matrix::new(37, 48, 1), Matrix::new(48, 40, 2));
    let bias = Matrix::new(1, 40, 3);
    let mut expected = Vec::new();
    for row in 0..a.rows {
        for column in 0..b.width {
            let terms = (0..a.width).map(|inner| a.at(row, inner) * b.at(inner, column));
            expected.push(terms.sum::<f64>() + bias.at(0, column));
        }
    }
    // As layers without an adapter compute it.
    let found = <Dispatch as MtLoraBackend>::mixed_linear(
        a.on(device).into_dispatch(),
        b.on(device).into(),
        Optional::Given(bias.vector_on(device).into_dispatch()),
    );
    compare(
        "a matrix product",
        Tensor::<2>::from_dispatch(found),
        &expected,
        PRODUCT,
    )
}

/// Products with weights that are kept in words, in both directions, where the device unpacks them.
fn words(device: &Device) -> Result<(), SelfTestError> {
    if !capabilities(device).unpacks_words {
        return Ok(());
    }
    let (x, dy, weight) = (
        Matrix::new(5, 24, 17),
        Matrix::new(5, 20, 18),
        Matrix::new(24, 20, 19),
    );
    let (mut forward, mut backward) = (Vec::new(), Vec::new());
    for row in 0..x.rows {
        for column in 0..weight.width {
            let terms = (0..x.width).map(|inner| x.at(row, inner) * weight.at(inner, column));
            forward.push(terms.sum());
        }
        for column in 0..weight.rows {
            let terms = dy.row(row).zip(weight.row(column)).map(|(dy, w)| dy * w);
            backward.push(terms.sum());
        }
    }
    for (dtype, names) in [
        (
            BaseDtype::Bf16,
            ["a product with bfloat16", "a gradient with bfloat16"],
        ),
        (
            BaseDtype::Int8,
            ["a product with integers", "a gradient with integers"],
        ),
    ] {
        let kept = dtype.convert(weight.on(device), Container::Linear);
        let found = <Dispatch as MtLoraBackend>::mixed_linear(
            x.on(device).into_dispatch(),
            kept.clone().into(),
            Optional::Absent,
        );
        let found = Tensor::<2>::from_dispatch(found);
        compare(names[0], found, &forward, PRODUCT)?;
        let found = <Dispatch as MtLoraBackend>::mixed_linear_backward(
            dy.on(device).into_dispatch(),
            kept.into(),
        );
        let found = Tensor::<2>::from_dispatch(found);
        compare(names[1], found, &backward, PRODUCT)?;
    }
    Ok(())
}

fn exponentials(row: impl Iterator<Item = f64> + Clone) -> (Vec<f64>, f64) {
    let largest = row.clone().fold(f64::MIN, f64::max);
    let powers: Vec<f64> = row.map(|x| (x - largest).exp()).collect();
    let sum = powers.iter().sum();
    (powers, sum)
}

fn reductions(device: &Device) -> Result<(), SelfTestError> {
    let x = Matrix::new(9, 131, 4);
    let mut probabilities = Vec::new();
    for row in 0..x.rows {
        let (powers, sum) = exponentials(x.row(row).collect::<Vec<_>>().into_iter());
        probabilities.extend(powers.into_iter().map(|power| power / sum));
    }
    compare("a softmax", softmax(x.on(device), 1), &probabilities, VALUE)?;
    let rows: Vec<f64> = (0..x.rows).map(|row| x.row(row).sum()).collect();
    compare("a sum over columns", x.on(device).sum_dim(1), &rows, VALUE)?;
    let column = |column| (0..x.rows).map(|row| x.at(row, column)).sum();
    let columns: Vec<f64> = (0..x.width).map(column).collect();
    compare("a sum over rows", x.on(device).sum_dim(0), &columns, VALUE)?;
    let all: f64 = rows.iter().sum();
    compare("a sum", x.on(device).sum(), &[all], VALUE)
}

fn norm(device: &Device) -> Result<(), SelfTestError> {
    const EPSILON: f64 = 1e-5;
    let (x, dy) = (Matrix::new(11, 67, 5), Matrix::new(11, 67, 6));
    let (gamma, beta) = (Matrix::new(1, 67, 7), Matrix::new(1, 67, 8));
    let width = x.width as f64;
    let (mut outputs, mut gradients) = (Vec::new(), Vec::new());
    for row in 0..x.rows {
        let mean = x.row(row).sum::<f64>() / width;
        let variance = x.row(row).map(|x| (x - mean).powi(2)).sum::<f64>() / width;
        let inverse = 1.0 / (variance + EPSILON).sqrt();
        let normed: Vec<f64> = x.row(row).map(|x| (x - mean) * inverse).collect();
        let g: Vec<f64> = dy
            .row(row)
            .zip(gamma.row(0))
            .map(|(dy, gamma)| dy * gamma)
            .collect();
        let mean_g = g.iter().sum::<f64>() / width;
        let mean_gn = g.iter().zip(&normed).map(|(g, n)| g * n).sum::<f64>() / width;
        for (column, n) in normed.iter().enumerate() {
            outputs.push(n * gamma.at(0, column) + beta.at(0, column));
            gradients.push((g[column] - mean_g - n * mean_gn) * inverse);
        }
    }
    let input = x.on(device).require_grad();
    let (gamma, beta) = (gamma.vector_on(device), beta.vector_on(device));
    let found = layer_norm(input.clone(), gamma, beta, EPSILON);
    let gradient = gradient(&input, (found.clone() * dy.on(device)).sum());
    compare("a layer norm", found.inner(), &outputs, VALUE)?;
    compare("a layer norm's gradient", gradient, &gradients, VALUE)
}

fn gelu_function(device: &Device) -> Result<(), SelfTestError> {
    let x = Matrix::new(5, 33, 9);
    // The form with tanh, which needs no error function here.
    let slope = (2.0 / std::f64::consts::PI).sqrt();
    let (mut outputs, mut gradients) = (Vec::new(), Vec::new());
    for x in x.values.iter().map(|x| f64::from(*x)) {
        let tanh = (slope * (x + 0.044715 * x.powi(3))).tanh();
        outputs.push(0.5 * x * (1.0 + tanh));
        let inner = slope * (1.0 + 3.0 * 0.044715 * x * x);
        gradients.push(0.5 * (1.0 + tanh) + 0.5 * x * (1.0 - tanh * tanh) * inner);
    }
    let input = x.on(device).require_grad();
    let found = gelu(input.clone(), Gelu::Tanh, ActivationDtype::F32);
    let gradient = gradient(&input, found.clone().sum());
    compare("GELU", found.inner(), &outputs, VALUE)?;
    compare("GELU's gradient", gradient, &gradients, VALUE)
}

fn attention(device: &Device, causal: bool) -> Result<(), SelfTestError> {
    const LENGTHS: [usize; 3] = [5, 1, 9];
    const HEADS: usize = 2;
    // Attention's kernels are compiled for a head's width; small models have this one.
    const WIDTH: usize = 32;
    let tokens = LENGTHS.iter().sum();
    let matrix = |stream| Matrix::new(tokens, HEADS * WIDTH, stream);
    let [query, key, value, dy] = [10, 11, 12, 13].map(matrix);
    let scale = 1.0 / (WIDTH as f64).sqrt();
    let mut outputs = vec![0.0; tokens * HEADS * WIDTH];
    let [mut dq, mut dk, mut dv] = [(); 3].map(|()| outputs.clone());
    let mut start = 0;
    for length in LENGTHS {
        for head in 0..HEADS {
            let columns = || head * WIDTH..(head + 1) * WIDTH;
            for row in start..start + length {
                let end = if causal { row + 1 } else { start + length };
                let dot = |a: &Matrix, b: &Matrix, other: usize| -> f64 {
                    columns().map(|c| a.at(row, c) * b.at(other, c)).sum()
                };
                let scores: Vec<f64> = (start..end)
                    .map(|other| scale * dot(&query, &key, other))
                    .collect();
                let (powers, sum) = exponentials(scores.into_iter());
                let p: Vec<f64> = powers.into_iter().map(|power| power / sum).collect();
                let dp: Vec<f64> = (start..end).map(|other| dot(&dy, &value, other)).collect();
                let mean: f64 = p.iter().zip(&dp).map(|(p, dp)| p * dp).sum();
                for (other, (p, dp)) in (start..end).zip(p.iter().zip(&dp)) {
                    let ds = scale * p * (dp - mean);
                    for c in columns() {
                        let (own, theirs) = (row * query.width + c, other * query.width + c);
                        outputs[own] += p * value.at(other, c);
                        dq[own] += ds * key.at(other, c);
                        dk[theirs] += ds * query.at(row, c);
                        dv[theirs] += p * dy.at(row, c);
                    }
                }
            }
        }
        start += length;
    }
    let offsets = SequenceOffsets::from_lengths(&LENGTHS);
    let offsets = offsets.map_err(|error| SelfTestError::Failed {
        operation: "attention",
        message: error.to_string(),
    })?;
    let inputs = [&query, &key, &value].map(|matrix| matrix.on(device).require_grad());
    let none = DropoutConfig::new(0.0).init();
    let saved = ActivationDtype::F32;
    let form = AttentionForm {
        causal,
        ..AttentionForm::full(HEADS)
    };
    let found = segment_attention(inputs.clone(), &offsets, form, &none, saved);
    let gradients = (found.clone() * dy.on(device)).sum().backward();
    compare("attention", found.inner(), &outputs, PRODUCT)?;
    for (input, expected) in inputs.iter().zip([dq, dk, dv]) {
        let zeros = || Tensor::zeros(input.dims(), &device.clone().inner());
        let gradient = input.grad(&gradients).unwrap_or_else(zeros);
        compare("attention's gradient", gradient, &expected, PRODUCT)?;
    }
    Ok(())
}

fn cross_entropy(device: &Device) -> Result<(), SelfTestError> {
    let (hidden, embedding) = (Matrix::new(6, 16, 14), Matrix::new(90, 16, 15));
    let targets = [3, 89, 0, IGNORE_INDEX, 41, 7];
    let mut sum = 0.0;
    let mut gradients = vec![0.0; hidden.values.len()];
    for (row, target) in targets.iter().enumerate() {
        let Ok(target) = usize::try_from(*target) else {
            continue;
        };
        let logit = |token| {
            hidden
                .row(row)
                .zip(embedding.row(token))
                .map(|(h, e)| h * e)
        };
        let logits: Vec<f64> = (0..embedding.rows)
            .map(|token| logit(token).sum())
            .collect();
        let (powers, total) = exponentials(logits.into_iter());
        sum -= (powers[target] / total).ln();
        for (token, power) in powers.iter().enumerate() {
            let slope = power / total - f64::from(u8::from(token == target));
            for column in 0..hidden.width {
                gradients[row * hidden.width + column] += slope * embedding.at(token, column);
            }
        }
    }
    let input = hidden.on(device).require_grad();
    let ids = Tensor::<1, Int>::from_data(TensorData::new(targets.to_vec(), [6]), device);
    let found = tied_cross_entropy(input.clone(), embedding.on(device), ids, 0.0);
    let gradient = gradient(&input, found.clone());
    compare("a cross-entropy", found.inner(), &[sum], PRODUCT)?;
    compare("a cross-entropy's gradient", gradient, &gradients, PRODUCT)
}

fn lookup(device: &Device) -> Result<(), SelfTestError> {
    let table = Matrix::new(23, 12, 16);
    let ids = [22_i32, 0, 5, 5, 13];
    let rows = ids.iter().flat_map(|id| table.row(*id as usize));
    let expected: Vec<f64> = rows.collect();
    let ids = Tensor::<1, Int>::from_data(TensorData::new(ids.to_vec(), [5]), device);
    let found = table.on(device).select(0, ids);
    compare("a lookup of rows", found, &expected, VALUE)
}

fn masks(device: &Device) -> Result<(), SelfTestError> {
    const OPERATION: &str = "dropout";
    const SHAPE: [usize; 2] = [64, 65];
    const DROPOUT: SeededDropout = SeededDropout {
        prob: 0.25,
        seed: 0x0123_4567_89ab_cdef,
    };
    let inverse = 1.0 / (1.0 - DROPOUT.prob);
    if capabilities(device).seeded_dropout {
        let ones = Tensor::<2>::ones(SHAPE, device).into_dispatch();
        let found = <Dispatch as MtLoraBackend>::seeded_dropout(ones, DROPOUT);
        let mut mask = vec![0.0; SHAPE[0] * SHAPE[1]];
        DROPOUT.fill(&mut mask, 0);
        let expected: Vec<f64> = mask.into_iter().map(f64::from).collect();
        return compare(
            OPERATION,
            Tensor::<2>::from_dispatch(found),
            &expected,
            VALUE,
        );
    }
    let kept = Distribution::Bernoulli(1.0 - DROPOUT.prob);
    let found = Tensor::<2>::random(SHAPE, kept, device).mul_scalar(inverse);
    compare(OPERATION, found.clone().max(), &[inverse], VALUE)?;
    compare(OPERATION, found.clone().min(), &[0.0], VALUE)?;
    // More than six standard deviations of the mean.
    compare(OPERATION, found.mean(), &[1.0], 0.06)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn every_device_of_the_build_passes() {
        for named in crate::devices() {
            self_test(&named.device).unwrap_or_else(|error| panic!("{}: {error}", named.name));
        }
    }

    #[test]
    fn wrong_results_are_found() {
        let device = crate::devices().remove(0).device;
        let wrong = |values: [f32; 3]| {
            let found = Tensor::<1>::from_data(values, &device);
            compare("a sum", found, &[0.5, -2.0, 3.0], VALUE)
        };
        wrong([0.5, -2.001, 3.0]).unwrap();
        for values in [
            [0.0, 0.0, 0.0],
            [0.5, 2.0, 3.0],
            [0.5, -2.0, 3.01],
            [f32::NAN, -2.0, 3.0],
            [0.5, f32::INFINITY, 3.0],
        ] {
            let error = wrong(values).unwrap_err();
            assert!(matches!(error, SelfTestError::Wrong { .. }), "{error}");
        }
        let short = Tensor::<1>::from_data([1.0], &device);
        let error = compare("a sum", short, &[1.0, 1.0], VALUE).unwrap_err();
        assert_eq!(error.to_string(), "a sum failed: 1 values in place of 2");
    }
}
