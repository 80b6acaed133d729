//! Kernels for burn-flex: plain loops that the compiler vectorises for the processor at hand
//! ([`pulp`] chooses while running), over rows or chunks that rayon's threads share.
//!
//! A chunk's result depends on nothing but the chunk, so results are the same for every number of
//! threads.

mod attention;
mod cached;
mod cross_entropy;
mod gelu;
mod keep;
mod matmul;
mod norm;
mod reduce;
mod vecmath;

use burn::backend::flex::{FlexTensor, Layout};
use burn::backend::tensor::FloatTensor;
use burn::backend::{DType, Flex, TensorMetadata};
use burn::tensor::{Bytes, Shape};

pub(super) use attention::{segment_attention, segment_attention_backward};
pub(super) use cached::cached_attention;
pub(super) use cross_entropy::{cross_entropy_rows, cross_entropy_rows_and_gradients};
pub(super) use gelu::{gelu, gelu_backward};
pub(super) use keep::keep_mask;
pub(super) use norm::{normalize_rows, normalize_rows_backward};

/// Elements that one task works on: large enough to hide what a task costs, small enough to stay
/// in the first caches.
const CHUNK: usize = 8 * 1024;

/// Whether the kernels, which are for 32-bit floats, can do it.
pub(super) fn suits(tensors: &[&FloatTensor<Flex>]) -> bool {
    tensors.iter().all(|tensor| tensor.dtype() == DType::F32)
}

/// The tensor's values one after the other: itself, but where it is a view that skips.
fn contiguous(tensor: FlexTensor) -> FlexTensor {
    match tensor.as_slice::<f32>() {
        Some(_) => tensor,
        None => tensor.to_contiguous(),
    }
}

/// The values of a tensor from [`contiguous`].
fn values(tensor: &FlexTensor) -> &[f32] {
    tensor.as_slice().unwrap_or_default()
}

/// The same with memory of exactly its size, which `storage_mut` may write to: it copies what
/// somebody else holds.
fn exclusive(tensor: FlexTensor) -> FlexTensor {
    let tensor = contiguous(tensor);
    match tensor.storage::<f32>().len() == values(&tensor).len() {
        true => tensor,
        false => self::tensor(values(&tensor).to_vec(), tensor.shape()),
    }
}

fn tensor(values: Vec<f32>, shape: Shape) -> FlexTensor {
    FlexTensor::new(
        Bytes::from_elems(values),
        Layout::contiguous(shape),
        DType::F32,
    )
}

#[cfg(test)]
mod testing {
    use proptest::prelude::*;
    use rand::RngExt;
    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::SeedableRng;

    use super::*;

    /// Uniform from `-size` to `size`.
    pub(super) fn random<const D: usize>(shape: [usize; D], size: f32, seed: u64) -> FlexTensor {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let count = shape.iter().product();
        let value = |_| (2.0 * rng.random::<f32>() - 1.0) * size;
        tensor((0..count).map(value).collect(), Shape::from(shape))
    }

    /// Within 1e-5 of the largest element.
    pub(super) fn close(found: &FlexTensor, expected: &FlexTensor) -> Result<(), TestCaseError> {
        prop_assert_eq!(found.shape(), expected.shape());
        let expected = contiguous(expected.clone());
        let (found, expected) = (values(found), values(&expected));
        let size = expected.iter().fold(1e-3f32, |a, b| a.max(b.abs()));
        for (found, expected) in found.iter().zip(expected) {
            prop_assert!(
                (found - expected).abs() <= 1e-5 * size,
                "{} and {}",
                found,
                expected
            );
        }
        Ok(())
    }
}
