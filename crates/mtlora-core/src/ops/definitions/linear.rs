//! The linear map, whose weight may be kept in less precision than what passes through it:
//!
//! ```text
//! y = x W + bias     dx = dy Wᵀ     dW = xᵀ dy     dbias = sum over tokens of dy
//! ```

use burn::backend::tensor::{Device, FloatTensor, QuantizedTensor};
use burn::backend::{Backend, Dispatch, ExtensionType, Scalar, TensorMetadata};
use burn::tensor::{DType, FloatDType, Shape, Tensor};

use crate::ops::{MtLoraBackend, Optional};

/// A matrix in the precision that it is kept in.
#[derive(ExtensionType)]
#[extension_type(fusion: cfg(feature = "cube"))]
pub enum Weight<B: Backend> {
    /// Floats. Where their precision is not that of the other factor, that factor is rounded to
    /// it first; sums are in the other factor's precision.
    Float(FloatTensor<B>),
    /// Integers with scales; the other factor keeps its precision. (The kernels for [`CpuPath::Amx`](crate::CpuPath::Amx)
    /// multiply tiles of bfloat16, so there both factors are rounded to it.) Where the backend unpacks words, bfloat16 is kept as
    /// such, too.
    Quantized(QuantizedTensor<B>),
}

impl<B: Backend> Clone for Weight<B> {
    fn clone(&self) -> Self {
        match self {
            Weight::Float(tensor) => Weight::Float(tensor.clone()),
            Weight::Quantized(tensor) => Weight::Quantized(tensor.clone()),
        }
    }
}

impl<B: Backend> std::fmt::Debug for Weight<B> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Weight::Float(tensor) => tensor.fmt(formatter),
            Weight::Quantized(tensor) => tensor.fmt(formatter),
        }
    }
}

impl From<Tensor<2>> for Weight<Dispatch> {
    fn from(tensor: Tensor<2>) -> Self {
        match tensor.dtype() {
            DType::QFloat(_) => Weight::Quantized(tensor.into_dispatch()),
            _ => Weight::Float(tensor.into_dispatch()),
        }
    }
}

impl<B: MtLoraBackend> Weight<B> {
    /// Rows and columns.
    pub(in crate::ops) fn sides(&self) -> [usize; 2] {
        let shape = match self {
            Weight::Float(weight) => weight.shape(),
            Weight::Quantized(weight) => weight.shape(),
        };
        [shape[0], shape[1]]
    }

    /// `x`, rounded to the weight's precision where that is less, and the weight in `x`'s.
    pub(in crate::ops) fn matched(self, x: FloatTensor<B>) -> (FloatTensor<B>, FloatTensor<B>) {
        let own = x.dtype();
        match self {
            Weight::Quantized(weight) => {
                let weight = values::<B>(weight, own.into());
                (x, weight)
            }
            Weight::Float(weight) if weight.dtype() == own => (x, weight),
            Weight::Float(weight) => {
                let x = B::float_cast(x, weight.dtype().into());
                (
                    B::float_cast(x, own.into()),
                    B::float_cast(weight, own.into()),
                )
            }
        }
    }
}

/// All values of a quantized matrix.
pub(in crate::ops) fn values<B: MtLoraBackend>(
    weight: QuantizedTensor<B>,
    dtype: FloatDType,
) -> FloatTensor<B> {
    if unpacks_words::<B>(&weight.device()) {
        return B::float_cast(B::unpack_words(weight), dtype);
    }
    B::dequantize(weight, dtype)
}

fn unpacks_words<B: MtLoraBackend>(device: &Device<B>) -> bool {
    B::capabilities(device).unpacks_words
}

/// `x W + bias`.
pub(in crate::ops) fn forward<B: MtLoraBackend>(
    x: FloatTensor<B>,
    weight: Weight<B>,
    bias: Option<FloatTensor<B>>,
) -> FloatTensor<B> {
    let weight = match weight {
        Weight::Quantized(weight) if unpacks_words::<B>(&x.device()) => {
            return B::packed_product(x, weight, bias.into(), false);
        }
        weight => weight,
    };
    let (x, weight) = weight.matched(x);
    let bias = bias.map(|bias| {
        let width = bias.shape()[0];
        B::float_reshape(bias, Shape::from([1, width]))
    });
    if fixes_products::<B>(&x) {
        return B::fixed_product(x, weight, bias.into(), 1.0);
    }
    let y = B::float_matmul(x, weight);
    match bias {
        Some(bias) => B::float_add(y, bias),
        None => y,
    }
}

/// `dy Wᵀ`.
pub(in crate::ops) fn backward<B: MtLoraBackend>(
    dy: FloatTensor<B>,
    weight: Weight<B>,
) -> FloatTensor<B> {
    let weight = match weight {
        Weight::Quantized(weight) if unpacks_words::<B>(&dy.device()) => {
            return B::packed_product(dy, weight, Optional::Absent, true);
        }
        weight => weight,
    };
    let (dy, weight) = weight.matched(dy);
    product::<B>(dy, B::float_transpose(weight))
}

/// `sum + scale a b`.
pub(in crate::ops) fn add_matmul<B: MtLoraBackend>(
    sum: FloatTensor<B>,
    a: FloatTensor<B>,
    b: FloatTensor<B>,
    scale: f64,
) -> FloatTensor<B> {
    if fixes_products::<B>(&a) {
        return B::fixed_product(a, b, Optional::Given(sum), scale);
    }
    add::<B>(Some(sum), B::float_matmul(a, b), scale)
}

/// `a b`.
pub(in crate::ops) fn product<B: MtLoraBackend>(
    a: FloatTensor<B>,
    b: FloatTensor<B>,
) -> FloatTensor<B> {
    if fixes_products::<B>(&a) {
        return B::fixed_product(a, b, Optional::Absent, 1.0);
    }
    B::float_matmul(a, b)
}

/// `scale a b`, where one of the sides is an adapter's rank.
pub(in crate::ops) fn scaled_product<B: MtLoraBackend>(
    a: FloatTensor<B>,
    b: FloatTensor<B>,
    scale: f64,
) -> FloatTensor<B> {
    if fixes_products::<B>(&a) {
        return B::fixed_product(a, b, Optional::Absent, scale);
    }
    B::float_mul_scalar(B::rank_matmul(a, b), Scalar::from(scale))
}

/// `sum + scale product`, where the sum may be a row that is added to each row.
pub(in crate::ops) fn add<B: Backend>(
    sum: Option<FloatTensor<B>>,
    product: FloatTensor<B>,
    scale: f64,
) -> FloatTensor<B> {
    let product = match scale {
        1.0 => product,
        _ => B::float_mul_scalar(product, Scalar::from(scale)),
    };
    match sum {
        Some(sum) => B::float_add(sum, product),
        None => product,
    }
}

fn fixes_products<B: MtLoraBackend>(x: &FloatTensor<B>) -> bool {
    B::capabilities(&x.device()).fixes_products
}

/// The weight's gradient, `xᵀ dy`.
pub(in crate::ops) fn weight_backward<B: MtLoraBackend>(
    x: FloatTensor<B>,
    dy: FloatTensor<B>,
) -> FloatTensor<B> {
    product::<B>(B::float_transpose(x), dy)
}

/// The sum over rows: `[columns]`.
pub(in crate::ops) fn sum_rows<B: Backend>(x: FloatTensor<B>) -> FloatTensor<B> {
    let width = x.shape()[1];
    B::float_reshape(B::float_sum_dim(x, 0), Shape::from([width]))
}
