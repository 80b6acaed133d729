//! Activations that are kept in bfloat16 for the backward pass, `ops/definitions/activation_dtype.rs`. Two neighbours lie in a word,
//! the earlier one in the lower half, as values in bfloat16 lie in memory: so devices keep them that have no bfloat16, such as those
//! of WGSL.
//!
//! Bound: an element has 4 bytes in 32-bit floats and 2 in bfloat16, each read or written once.

use burn::backend::TensorMetadata;
use burn::tensor::{DType, Shape};
use burn_cubecl::cubecl::{self, calculate_cube_count_elemwise, prelude::*};
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;

use super::memory::{Output, uninitialised};
use super::row_launches::{UNITS, flat};

/// Values in a word.
const VALUES: usize = 2;

/// The nearest bfloat16, ties to even: the upper half of a 32-bit float.
#[cube]
fn upper_half(x: f32) -> u32 {
    let bits = x.to_bits();
    let nearest = (bits + 0x7fffu32 + ((bits >> 16u32) & 1u32)) >> 16u32;
    // A NaN must not become infinite.
    let is_nan = (bits & 0x7fff_ffffu32) > 0x7f80_0000u32;
    select(is_nan, (bits >> 16u32) | 0x40u32, nearest)
}

/// A word of the values at `place` and after it. Where there is no more value, it is zero.
#[cube]
pub(super) fn word_at(x: &[f32], place: usize) -> u32 {
    let mut word = upper_half(x[place]);
    if place + 1 < x.len() {
        word |= upper_half(x[place + 1]) << 16u32;
    }
    word
}

/// The earlier of a word's values.
#[cube]
pub(super) fn first_of(word: u32) -> f32 {
    f32::from_bits(word << 16u32)
}

/// The later of a word's values.
#[cube]
pub(super) fn second_of(word: u32) -> f32 {
    f32::from_bits(word & 0xffff_0000u32)
}

/// Writes two values, or one where there is no more.
#[cube]
pub(super) fn write_two(y: &mut [f32], place: usize, first: f32, second: f32) {
    y[place] = first;
    if place + 1 < y.len() {
        y[place + 1] = second;
    }
}

#[cube(launch, create_dummy_kernel)]
fn round_kernel(x: &[f32], words: &mut [u32]) {
    let at = ABSOLUTE_POS;
    if at < words.len() {
        words[at] = word_at(x, at * VALUES);
    }
}

#[cube(launch, create_dummy_kernel)]
fn round_values_kernel(x: &[f32], words: &mut [u32], y: &mut [f32]) {
    let at = ABSOLUTE_POS;
    if at < words.len() {
        let word = word_at(x, at * VALUES);
        words[at] = word;
        write_two(y, at * VALUES, first_of(word), second_of(word));
    }
}

#[cube(launch, create_dummy_kernel)]
fn widen_kernel(words: &[u32], y: &mut [f32]) {
    let at = ABSOLUTE_POS;
    if at < words.len() {
        let word = words[at];
        write_two(y, at * VALUES, first_of(word), second_of(word));
    }
}

/// A tensor of the shape of `like` in bfloat16, with memory of whole words.
pub(super) fn empty_kept(like: &CubeTensor) -> CubeTensor {
    let words = like.shape().num_elements().div_ceil(VALUES);
    let memory = uninitialised(like, Shape::from([words]), DType::U32);
    CubeTensor::new_contiguous(
        like.client.clone(),
        like.device.clone(),
        like.shape(),
        memory.handle,
        DType::BF16,
    )
}

/// Whether a tensor is one that [`empty_kept`] made, or lies in memory as these do.
pub(super) fn is_kept(x: &CubeTensor) -> bool {
    let words = x.shape().num_elements().div_ceil(VALUES);
    let bytes = (words * size_of::<u32>()) as u64;
    x.dtype() == DType::BF16 && x.is_contiguous() && x.handle.size_in_used() >= bytes
}

/// The words of a tensor for which [`is_kept`] holds.
pub(super) fn words(kept: &CubeTensor) -> BufferArg {
    let words = kept.shape().num_elements().div_ceil(VALUES);
    debug_assert!(is_kept(kept));
    // SAFETY: `is_kept` says that as many words lie in the tensor's memory.
    unsafe { BufferArg::from_raw_parts(kept.handle.clone(), words) }
}

/// The size of a launch with a unit for each word of a tensor of `elements`.
pub(super) fn unit_for_each_word(client: &Client, elements: usize) -> (CubeCount, CubeDim) {
    let dim = flat(client, UNITS);
    let words = elements.div_ceil(VALUES);
    (calculate_cube_count_elemwise(client, words, dim), dim)
}

/// [`crate::ops::MtLoraBackend::rounded`].
pub(super) fn rounded(x: CubeTensor) -> CubeTensor {
    let x = into_contiguous(x);
    let kept = empty_kept(&x);
    let elements = x.shape().num_elements();
    if elements > 0 {
        let client = x.client.clone();
        let (count, dim) = unit_for_each_word(&client, elements);
        round_kernel::launch(&client, count, dim, x.into_buffer_arg(), words(&kept));
    }
    kept
}

/// [`crate::ops::MtLoraBackend::rounded_values`], the values in the input's own memory if no other tensor shares it.
pub(super) fn rounded_values(x: CubeTensor) -> (CubeTensor, CubeTensor) {
    let x = into_contiguous(x);
    let kept = empty_kept(&x);
    let elements = x.shape().num_elements();
    if elements == 0 {
        return (x, kept);
    }
    let y = Output::over(&x, 0);
    let client = x.client.clone();
    let (count, dim) = unit_for_each_word(&client, elements);
    round_values_kernel::launch(
        &client,
        count,
        dim,
        x.into_buffer_arg(),
        words(&kept),
        y.argument(),
    );
    (y.tensor, kept)
}

/// [`crate::ops::MtLoraBackend::widened`] of a tensor for which [`is_kept`] holds.
pub(super) fn widened(kept: &CubeTensor) -> CubeTensor {
    let y = uninitialised(kept, kept.shape(), DType::F32);
    let elements = kept.shape().num_elements();
    if elements > 0 {
        let client = kept.client.clone();
        let (count, dim) = unit_for_each_word(&client, elements);
        widen_kernel::launch(
            &client,
            count,
            dim,
            words(kept),
            y.clone().into_buffer_arg(),
        );
    }
    y
}
