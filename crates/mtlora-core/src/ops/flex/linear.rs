use burn::backend::Flex;
use burn::backend::flex::{FlexQTensor, FlexTensor};
use burn::backend::tensor::FloatTensor;
use burn::backend::{DType, TensorMetadata};
use burn::tensor::{Element, Shape, bf16};
use rayon::prelude::*;

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
use super::instructions;
use super::instructions::vectorized;
use super::products::matmul;
#[cfg(target_arch = "aarch64")]
use super::products::neon;
use super::products::packed::{FEW, add_portably, few_rows};
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
use super::products::packed_panels;
use super::products::view::View;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
use super::products::weights::{AnyWeights, Bf16, Floats, Int8, Stored};
#[cfg(target_arch = "x86_64")]
use super::products::{amx, avx2, avx512};
use super::{CHUNK, contiguous, exclusive, suits, tensor, values};
use crate::ops::Weight;
use crate::ops::definitions::linear;
use crate::packed;

/// [`crate::ops::MtLoraBackend::mixed_linear`].
pub(crate) fn mixed_linear(
    x: FlexTensor,
    weight: Weight<Flex>,
    bias: Option<FlexTensor>,
) -> FlexTensor {
    let suits_bias = bias.as_ref().is_none_or(|bias| suits(&[bias]));
    let (true, Some(matrix)) = (suits(&[&x]) && suits_bias, Matrix::of(&weight)) else {
        return linear::forward::<Flex>(x, weight, bias);
    };
    assert_eq!(x.shape()[1], matrix.sides()[0], "the weight's inputs");
    let (x, bias) = (contiguous(x), bias.map(contiguous));
    let sides = [x.shape()[0], matrix.sides()[1]];
    let out = matrix.product(values(&x), false, bias.as_ref().map(values));
    tensor(out, Shape::from(sides))
}

/// [`crate::ops::MtLoraBackend::mixed_linear_backward`].
pub(crate) fn mixed_linear_backward(dy: FlexTensor, weight: Weight<Flex>) -> FlexTensor {
    let (true, Some(matrix)) = (suits(&[&dy]), Matrix::of(&weight)) else {
        return linear::backward::<Flex>(dy, weight);
    };
    assert_eq!(dy.shape()[1], matrix.sides()[1], "the weight's outputs");
    let dy = contiguous(dy);
    let sides = [dy.shape()[0], matrix.sides()[0]];
    let out = matrix.product(values(&dy), true, None);
    tensor(out, Shape::from(sides))
}

/// [`crate::ops::MtLoraBackend::mixed_linear_weight_backward`].
pub(crate) fn mixed_linear_weight_backward(x: FlexTensor, dy: FlexTensor) -> FlexTensor {
    let sides = [x.shape()[1], dy.shape()[1]];
    let tokens = x.shape()[0];
    assert_eq!(tokens, dy.shape()[0], "the tokens of x and its gradient");
    if suits(&[&x, &dy]) && tokens * sides[0] * sides[1] > 0 {
        let (x, dy) = (contiguous(x), contiguous(dy));
        return match turned_product(values(&x), values(&dy), sides) {
            Some(dw) => tensor(dw, Shape::from(sides)),
            None => linear::weight_backward::<Flex>(x, dy),
        };
    }
    linear::weight_backward::<Flex>(x, dy)
}

/// `leftᵀ right`, where there are kernels for it. `left`: `[inner, rows]`, `right`: `[inner, columns]`.
fn turned_product(left: &[f32], right: &[f32], sides: [usize; 2]) -> Option<Vec<f32>> {
    #[cfg(target_arch = "x86_64")]
    {
        if let Some(amx) = instructions::amx().filter(|_| sides[0] >= amx::LEAST_FLOAT_ROWS) {
            let stored = [left.len() / sides[0], sides[1]];
            let right = amx::FloatRight::new(amx, right, stored);
            return Some(amx::turned_float_product(left, sides[0], right));
        }
        if let Some(avx512) = instructions::avx512() {
            return Some(avx512::turned_product(avx512, left, right, sides));
        }
        if let Some(avx2) = instructions::avx2() {
            return Some(avx2::turned_product(avx2, left, right, sides));
        }
    }
    #[cfg(target_arch = "aarch64")]
    if let Some(neon) = instructions::neon() {
        return Some(neon::turned_product(neon, left, right, sides));
    }
    let _ = (left, right, sides);
    None
}

/// [`crate::ops::MtLoraBackend::add_matmul`].
pub(crate) fn add_matmul(
    sum: FloatTensor<Flex>,
    a: FloatTensor<Flex>,
    b: FloatTensor<Flex>,
    scale: f64,
) -> FloatTensor<Flex> {
    if !suits(&[&sum, &a, &b]) {
        return linear::add_matmul::<Flex>(sum, a, b, scale);
    }
    let (a, b) = (Strided::of(a), Strided::of(b));
    let mut sum = exclusive(sum);
    matmul::add_matmul(sum.storage_mut::<f32>(), a.view(), b.view(), scale as f32);
    sum
}

/// [`crate::ops::MtLoraBackend::rank_matmul`], on all threads: burn-flex leaves products as small as
/// these are to one.
pub(crate) fn rank_matmul(a: FlexTensor, b: FlexTensor) -> FlexTensor {
    let sides = [a.shape()[0], b.shape()[1]];
    let (a, b) = (Strided::of(a), Strided::of(b));
    tensor(matmul::in_parts(a.view(), b.view()), Shape::from(sides))
}

/// A matrix whose rows, or whose columns, lie one after the other.
pub(super) struct Strided {
    pub(super) tensor: FlexTensor,
    pub(super) transposed: bool,
}

impl Strided {
    fn of(tensor: FlexTensor) -> Self {
        let turned = tensor.transpose(0, 1);
        if tensor.as_slice::<f32>().is_none() && turned.as_slice::<f32>().is_some() {
            Self {
                tensor: turned,
                transposed: true,
            }
        } else {
            Self {
                tensor: contiguous(tensor),
                transposed: false,
            }
        }
    }

    fn view(&self) -> View<'_> {
        let shape = self.tensor.shape();
        let view = View::new(values(&self.tensor), [shape[0], shape[1]], shape[1]);
        if self.transposed { view.t() } else { view }
    }
}

/// A weight, `[in, out]`, in one of the precisions that there are kernels for, with at least one value.
pub(super) enum Matrix {
    F32(Strided),
    Bf16(FlexTensor),
    /// 8-bit integers, and a scale for each `block` rows of a column.
    Int8 {
        weight: FlexQTensor,
        block: usize,
    },
    /// Packed as files have it: a linear layer's `[out, in]`, or an embedding's, whose weight it is.
    Packed(FlexQTensor),
}

impl Matrix {
    pub(super) fn of(weight: &Weight<Flex>) -> Option<Self> {
        let shape = match weight {
            Weight::Float(weight) => weight.shape(),
            Weight::Quantized(weight) => weight.tensor().shape(),
        };
        if shape.num_elements() == 0 {
            return None;
        }
        match weight {
            Weight::Float(weight) => match weight.dtype() {
                DType::F32 => Some(Matrix::F32(Strided::of(weight.clone()))),
                DType::BF16 => Some(Matrix::Bf16(match weight.as_slice::<bf16>() {
                    Some(_) => weight.clone(),
                    None => weight.to_contiguous(),
                })),
                _ => None,
            },
            Weight::Quantized(weight) => {
                if packed::view(weight).is_some() {
                    return Some(Matrix::Packed(weight.clone()));
                }
                let DType::QFloat(scheme) = weight.dtype() else {
                    return None;
                };
                let block = match scheme.block_size()?.as_dim::<2>() {
                    [block, 1] if scheme.tensor_scale().is_none() => usize::from(block),
                    _ => return None,
                };
                weight.tensor().as_slice::<i8>()?;
                Some(Matrix::Int8 {
                    weight: weight.clone(),
                    block,
                })
            }
        }
    }

    /// Inputs and outputs.
    pub(super) fn sides(&self) -> [usize; 2] {
        let shape = match self {
            Matrix::F32(weight) if weight.transposed => {
                let shape = weight.tensor.shape();
                return [shape[1], shape[0]];
            }
            Matrix::F32(weight) => weight.tensor.shape(),
            Matrix::Bf16(weight) => weight.shape(),
            Matrix::Int8 { weight, .. } | Matrix::Packed(weight) => weight.tensor().shape(),
        };
        [shape[0], shape[1]]
    }

    /// `left W + bias`, or `left Wᵀ + bias`.
    pub(super) fn product(&self, left: &[f32], transposed: bool, bias: Option<&[f32]>) -> Vec<f32> {
        if let Matrix::Packed(weight) = self
            && let Some(matrix) = packed::view(weight)
        {
            let turned = matrix.is_turned() != transposed;
            if turned && left.len() <= FEW * matrix.sides()[1] {
                return few_rows(left, matrix, bias);
            }
            #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
            if let Some(out) = packed_panels::product(left, matrix, turned, bias) {
                return out;
            }
        }
        #[cfg(target_arch = "x86_64")]
        if let Some(right) = self.tiles(left, transposed) {
            let right = if transposed { right.t() } else { right };
            return amx::product(left, right, bias);
        }
        #[cfg(target_arch = "x86_64")]
        if let Some(out) = self.float_tiles(left, transposed, bias) {
            return out;
        }
        #[cfg(target_arch = "x86_64")]
        if let Some(right) = self.right() {
            let right = if transposed { right.t() } else { right };
            return avx512::product(left, right, bias);
        }
        #[cfg(target_arch = "x86_64")]
        if let (Some(avx2), Some(right)) = (instructions::avx2(), self.stored(transposed)) {
            return avx2::product(avx2, left, right, bias);
        }
        #[cfg(target_arch = "aarch64")]
        if let (Some(neon), Some(right)) = (instructions::neon(), self.stored(transposed)) {
            return neon::product(neon, instructions::neon_bf16(), left, right, bias);
        }
        self.portable_product(left, transposed, bias)
    }

    /// The matrix as the kernels for AMX read it, if it is in a precision that they have, and there are enough rows for them.
    #[cfg(target_arch = "x86_64")]
    fn tiles(&self, left: &[f32], transposed: bool) -> Option<amx::Right<'_>> {
        let amx = instructions::amx()?;
        let sides = self.sides();
        let inner = if transposed { sides[1] } else { sides[0] };
        let values = match self {
            _ if left.len() / inner < amx::LEAST_ROWS => return None,
            Matrix::F32(_) | Matrix::Packed(_) => return None,
            Matrix::Bf16(weight) => amx::Values::Bf16(slice(weight)),
            Matrix::Int8 { weight, block } => amx::Values::Int8 {
                integers: slice(weight.tensor()),
                scales: weight.scales(),
                block: *block,
            },
        };
        Some(amx::Right::new(amx, values, sides))
    }

    /// The product of 32-bit floats on tiles, where there are enough rows for them.
    #[cfg(target_arch = "x86_64")]
    fn float_tiles(
        &self,
        left: &[f32],
        transposed: bool,
        bias: Option<&[f32]>,
    ) -> Option<Vec<f32>> {
        let amx = instructions::amx()?;
        let Matrix::F32(weight) = self else {
            return None;
        };
        let sides = self.sides();
        let inner = if transposed { sides[1] } else { sides[0] };
        if left.len() / inner < amx::LEAST_FLOAT_ROWS {
            return None;
        }
        let shape = weight.tensor.shape();
        let right = amx::FloatRight::new(amx, values(&weight.tensor), [shape[0], shape[1]]);
        let right = if weight.transposed != transposed {
            right.t()
        } else {
            right
        };
        Some(amx::float_product(left, right, bias))
    }

    /// The matrix as the kernels for AVX-512 read it, where the processor has what they need.
    #[cfg(target_arch = "x86_64")]
    fn right(&self) -> Option<avx512::Right<'_>> {
        let avx512 = instructions::avx512()?;
        let [rows, columns] = self.sides();
        match self {
            Matrix::F32(weight) => {
                let shape = weight.tensor.shape();
                let values = avx512::Values::F32(values(&weight.tensor));
                let right = avx512::Right::new(avx512, values, [shape[0], shape[1]]);
                Some(if weight.transposed { right.t() } else { right })
            }
            Matrix::Bf16(weight) => {
                let values = match instructions::avx512_bf16() {
                    Some(pairs) => avx512::Values::Bf16(pairs, slice(weight)),
                    None => avx512::Values::Widened(slice(weight)),
                };
                Some(avx512::Right::new(avx512, values, [rows, columns]))
            }
            Matrix::Int8 { weight, block } => {
                let values = avx512::Values::Int8 {
                    integers: slice(weight.tensor()),
                    scales: weight.scales(),
                    block: *block,
                };
                Some(avx512::Right::new(avx512, values, [rows, columns]))
            }
            Matrix::Packed(_) => None,
        }
    }

    /// The matrix, or its transpose, as the kernels for AVX2 and NEON read it; none if it is packed.
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    fn stored(&self, transposed: bool) -> Option<Stored<'_>> {
        let sides = self.sides();
        let (weights, sides, turned) = match self {
            Matrix::F32(weight) => {
                let shape = weight.tensor.shape();
                let weights = AnyWeights::Floats(Floats(values(&weight.tensor)));
                (weights, [shape[0], shape[1]], weight.transposed)
            }
            Matrix::Bf16(weight) => (AnyWeights::Bf16(Bf16(slice(weight))), sides, false),
            Matrix::Int8 { weight, block } => {
                let weights = AnyWeights::Int8(Int8 {
                    integers: slice(weight.tensor()),
                    scales: weight.scales(),
                    block: *block,
                });
                (weights, sides, false)
            }
            Matrix::Packed(_) => return None,
        };
        Some(Stored {
            weights,
            sides,
            turned: turned != transposed,
        })
    }

    /// The same on any processor: rounded as a reduced precision says, then by 32-bit products.
    fn portable_product(&self, left: &[f32], transposed: bool, bias: Option<&[f32]>) -> Vec<f32> {
        let [rows, columns] = self.sides();
        let [inner, width] = if transposed {
            [columns, rows]
        } else {
            [rows, columns]
        };
        let tokens = left.len() / inner;
        let mut out = match bias {
            Some(bias) => bias.repeat(tokens),
            None => vec![0.0; tokens * width],
        };
        let mut add = |left: &[f32], weight: View<'_>| {
            let weight = if transposed { weight.t() } else { weight };
            matmul::add_matmul(
                &mut out,
                View::new(left, [tokens, inner], inner),
                weight,
                1.0,
            );
        };
        match self {
            Matrix::Packed(weight) => {
                if let Some(matrix) = packed::view(weight) {
                    add_portably(&mut out, left, matrix, matrix.is_turned() != transposed);
                }
            }
            Matrix::F32(weight) => add(left, weight.view()),
            Matrix::Bf16(weight) => {
                let rounded = |value: &f32| bf16::from_f32(*value).to_f32();
                let left: Vec<f32> = left.par_iter().map(rounded).collect();
                let dense = slice::<bf16>(weight).par_iter().map(|value| value.to_f32());
                let dense: Vec<f32> = dense.collect();
                add(&left, View::new(&dense, [rows, columns], columns));
            }
            Matrix::Int8 { weight, block } => {
                let dense = dequantized(weight, columns, *block);
                add(left, View::new(&dense, [rows, columns], columns));
            }
        }
        out
    }
}

/// The weight in 32-bit floats. It is made again for each product, which takes a few percent of the product's time.
pub(super) fn dequantized(weight: &FlexQTensor, columns: usize, block: usize) -> Vec<f32> {
    let integers = slice::<i8>(weight.tensor());
    let rows = (CHUNK / columns).max(1);
    let mut dense = vec![0.0; integers.len()];
    dense
        .par_chunks_mut(rows * columns)
        .zip(integers.par_chunks(rows * columns))
        .enumerate()
        .for_each(|(chunk, (dense, integers))| {
            let both = dense
                .chunks_exact_mut(columns)
                .zip(integers.chunks_exact(columns));
            for (row, (dense, integers)) in (chunk * rows..).zip(both) {
                let scales = &weight.scales()[row / block * columns..][..columns];
                scale_row(dense, integers, scales);
            }
        });
    dense
}

vectorized! {
    /// A row of integers times their scales.
    fn scale_row(dense: &mut [f32], integers: &[i8], scales: &[f32]) {
        for ((dense, integer), scale) in dense.iter_mut().zip(integers).zip(scales) {
            *dense = f32::from(*integer) * scale;
        }
    }
}

/// The values of a contiguous tensor.
pub(super) fn slice<E: Element + pulp::bytemuck::Pod>(tensor: &FlexTensor) -> &[E] {
    tensor.as_slice().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::cpu::{CpuChoice, CpuPath};
    use crate::ops::flex::testing::{close, random};
    use burn::backend::flex::Layout;
    use burn::backend::ops::{FloatTensorOps, QTensorOps};
    use burn::backend::{BackendTensor, DispatchKindConversion, DispatchTensor};
    use burn::tensor::quantization::{QuantScheme, QuantStore, QuantValue, ScaleDtype};
    use burn::tensor::{Bytes, FloatDType};
    use proptest::prelude::*;

    use crate::{Container, PackedFormat, PackedMatrix};

    fn bias(columns: usize, given: bool) -> Option<FlexTensor> {
        given.then(|| random([columns], 1.0, 3))
    }

    /// The weight as the path's kernels multiply with it: with AMX, integers become bfloat16.
    fn as_multiplied(weight: &Weight<Flex>) -> Weight<Flex> {
        let rounds = CpuChoice::followed().path == CpuPath::Amx;
        match (weight, Matrix::of(weight)) {
            (Weight::Quantized(integers), Some(_)) if rounds => {
                let dense = Flex::dequantize(integers.clone(), FloatDType::F32);
                Weight::Float(Flex::float_cast(dense, FloatDType::BF16))
            }
            _ => weight.clone(),
        }
    }

    /// Both passes against the definition, and the way that every processor can go.
    fn check(
        rows: usize,
        sides: [usize; 2],
        weight: Weight<Flex>,
        with_bias: bool,
    ) -> Result<(), TestCaseError> {
        let [inner, columns] = sides;
        let x = random([rows, inner], 1.0, 1);
        let bias = bias(columns, with_bias);
        let multiplied = as_multiplied(&weight);
        let expected = linear::forward::<Flex>(x.clone(), weight.clone(), bias.clone());
        let matrix = Matrix::of(&weight);
        let portable = |left: &FlexTensor, transposed: bool, expected: &FlexTensor| {
            let bias = bias.as_ref().filter(|_| !transposed).map(values);
            let out = matrix
                .as_ref()
                .map(|matrix| matrix.portable_product(values(left), transposed, bias));
            out.map_or(Ok(()), |out| {
                close(&tensor(out, expected.shape()), expected)
            })
        };
        portable(&x, false, &expected)?;
        let expected = linear::forward::<Flex>(x.clone(), multiplied.clone(), bias.clone());
        close(&mixed_linear(x, weight.clone(), bias.clone()), &expected)?;
        let dy = random([rows, columns], 1.0, 2);
        let expected = linear::backward::<Flex>(dy.clone(), weight.clone());
        portable(&dy, true, &expected)?;
        let expected = linear::backward::<Flex>(dy.clone(), multiplied);
        close(&mixed_linear_backward(dy, weight), &expected)
    }

    /// The weight's gradient against the definition, with one more than fills a block, a panel and a pass.
    #[test]
    fn a_weights_gradient_is_as_defined() -> Result<(), TestCaseError> {
        for [tokens, inner, columns] in [
            [1, 1, 1],
            [3, 7, 33],
            [17, 97, 5],
            [70, 25, 65],
            [1537, 13, 34],
            [0, 3, 2],
            [2, 0, 3],
            [2, 3, 0],
        ] {
            let x = random([tokens, inner], 1.0, 1);
            let dy = random([tokens, columns], 1.0, 2);
            let expected = linear::weight_backward::<Flex>(x.clone(), dy.clone());
            // The memory that the output is likely to get.
            drop(vec![f32::NAN; inner * columns]);
            let found = [1, 2, 3].map(|threads| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
                let work = || mixed_linear_weight_backward(x.clone(), dy.clone());
                pool.build().unwrap().install(work)
            });
            close(&found[0], &expected)?;
            // To the same bits for every number of threads.
            assert!(found.iter().all(|one| values(one) == values(&found[0])));
        }
        Ok(())
    }

    #[test]
    fn a_side_may_be_empty() {
        for sides in [[0, 3], [3, 0], [0, 0]] {
            for rows in [0, 1, 20] {
                let weight = || random(sides, 1.0, 0);
                check(rows, sides, Weight::Float(weight()), true).unwrap();
                let weight = Flex::float_cast(weight(), DType::BF16.into());
                check(rows, sides, Weight::Float(weight), true).unwrap();
            }
        }
    }

    /// Few rows, as in decoding, with an odd number of inputs: nothing is multiplied by nought to fill a pair up.
    #[test]
    fn an_infinite_weight_is_infinite() {
        let matrix = |shape, values: Vec<f32>| tensor(values, Shape::from(shape));
        for rows in [1, 2, 20] {
            let x = matrix([rows, 3], vec![1.0; 3 * rows]);
            let weight = matrix([3, 1], vec![1.0, 1.0, f32::INFINITY]);
            let out = mixed_linear(x, Weight::Float(weight), None);
            assert_eq!(values(&out), vec![f32::INFINITY; rows]);
        }
    }

    proptest! {
        #[test]
        fn floats_are_as_defined(
            rows in 1usize..60, inner in 1usize..40, columns in 1usize..40, turned: bool, biased: bool,
        ) {
            let weight = if turned {
                random([columns, inner], 1.0, 0).transpose(0, 1)
            } else {
                random([inner, columns], 1.0, 0)
            };
            check(rows, [inner, columns], Weight::Float(weight), biased)?;
        }

        /// The products are of rounded factors in both, so that only the order of the sums differs.
        #[test]
        fn bfloat16_is_as_defined(
            rows in 1usize..120, inner in 1usize..80, columns in 1usize..80, biased: bool,
        ) {
            let weight = random([inner, columns], 1.0, 0);
            let weight = Flex::float_cast(weight, DType::BF16.into());
            check(rows, [inner, columns], Weight::Float(weight), biased)?;
        }

        #[test]
        fn integers_are_as_defined(
            rows in 1usize..20, blocks in 1usize..4, block in 1u8..20, columns in 1usize..40,
            biased: bool,
        ) {
            let inner = blocks * usize::from(block);
            let scheme = QuantScheme::default()
                .with_value(QuantValue::Q8S)
                .with_store(QuantStore::Native)
                .per_block([block, 1], ScaleDtype::F32);
            let integers: Vec<i8> = (0..inner * columns).map(|at| (at * 89 % 255) as u8 as i8).collect();
            let integers = FlexTensor::new(
                Bytes::from_elems(integers),
                Layout::contiguous(Shape::from([inner, columns])),
                DType::I8,
            );
            let scales = values(&random([blocks * columns], 0.01, 5)).to_vec();
            let weight = FlexQTensor::new(integers, scheme, scales, None);
            prop_assert!(block == 1 || Matrix::of(&Weight::Quantized(weight.clone())).is_some());
            check(rows, [inner, columns], Weight::Quantized(weight), biased)?;
        }

        /// In every format, with the values that the matrix has when it is unpacked as a whole, as a linear layer's weight and as
        /// an embedding's.
        #[test]
        fn packed_weights_are_as_unpacked(
            tokens in 1usize..40, blocks in 1usize..4, long: bool, rows in 1usize..80, biased: bool,
            format in prop::sample::select(PackedFormat::ALL), is_embedding: bool, seed: u8,
        ) {
            // Whole blocks of any format; with more than one pass of the kernels.
            let columns = 256 * (blocks + if long { 6 } else { 0 });
            let count = format.bytes(columns * rows).unwrap();
            // 16-bit scales of up to 0.5, whatever their place is.
            let bytes = (0..count).map(|at| (at * 89 + usize::from(seed)) as u8 & 0x37).collect();
            let matrix = PackedMatrix::new(format, [rows, columns], bytes).unwrap();
            let dense = tensor(matrix.values(), Shape::from([rows, columns]));
            let (container, dense) = match is_embedding {
                true => (Container::Embedding, dense),
                false => (Container::Linear, dense.transpose(0, 1)),
            };
            let weight = packed::to_tensor(matrix, container, &burn::tensor::Device::flex());
            let backend = <DispatchTensor as DispatchKindConversion<Flex>>::try_into_backend(weight.into_dispatch());
            let weight = backend.map(BackendTensor::quantized).unwrap();
            let [inputs, outputs] = [dense.shape()[0], dense.shape()[1]];
            let bias = bias(outputs, biased);
            let x = random([tokens, inputs], 1.0, 1);
            let expected = linear::forward::<Flex>(x.clone(), Weight::Float(dense.clone()), bias.clone());
            let own = Matrix::of(&Weight::Quantized(weight.clone())).unwrap();
            let portable = own.portable_product(values(&x), false, bias.as_ref().map(values));
            close(&tensor(portable, expected.shape()), &expected)?;
            close(&mixed_linear(x, Weight::Quantized(weight.clone()), bias), &expected)?;
            let dy = random([tokens, outputs], 1.0, 2);
            let expected = linear::backward::<Flex>(dy.clone(), Weight::Float(dense));
            let portable = own.portable_product(values(&dy), true, None);
            close(&tensor(portable, expected.shape()), &expected)?;
            close(&mixed_linear_backward(dy, Weight::Quantized(weight)), &expected)?;
        }
    }
}
