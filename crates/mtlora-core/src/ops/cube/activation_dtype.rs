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

/// Rounds the values of a word, if it is one.
#[cube]
fn round_word(x: &[f32], words: &mut [u32], y: &mut [f32], at: usize) {
    if at < words.len() {
        let word = word_at(x, at * VALUES);
        words[at] = word;
        write_two(y, at * VALUES, first_of(word), second_of(word));
    }
}

/// Widens a word, if it is one.
#[cube]
fn widen_word(words: &[u32], y: &mut [f32], at: usize) {
    if at < words.len() {
        let word = words[at];
        write_two(y, at * VALUES, first_of(word), second_of(word));
    }
}

#[cube(launch, create_dummy_kernel)]
fn round_values_kernel(x: &[f32], words: &mut [u32], y: &mut [f32]) {
    round_word(x, words, y, ABSOLUTE_POS);
}

#[cube(launch, create_dummy_kernel)]
fn widen_kernel(words: &[u32], y: &mut [f32]) {
    widen_word(words, y, ABSOLUTE_POS);
}

/// Units with the same place serve a word of each of the three.
#[cube(launch, create_dummy_kernel)]
fn round_projections_kernel(
    query: &[f32],
    key: &[f32],
    value: &[f32],
    query_words: &mut [u32],
    key_words: &mut [u32],
    value_words: &mut [u32],
    query_values: &mut [f32],
    key_values: &mut [f32],
    value_values: &mut [f32],
) {
    round_word(query, query_words, query_values, ABSOLUTE_POS);
    round_word(key, key_words, key_values, ABSOLUTE_POS);
    round_word(value, value_words, value_values, ABSOLUTE_POS);
}

#[cube(launch, create_dummy_kernel)]
fn widen_projections_kernel(
    query_words: &[u32],
    key_words: &[u32],
    value_words: &[u32],
    query: &mut [f32],
    key: &mut [f32],
    value: &mut [f32],
) {
    widen_word(query_words, query, ABSOLUTE_POS);
    widen_word(key_words, key, ABSOLUTE_POS);
    widen_word(value_words, value, ABSOLUTE_POS);
}

/// A tensor of the shape of `like` in bfloat16, with memory of whole words.
pub(super) fn empty_bf16(like: &CubeTensor) -> CubeTensor {
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

/// Whether a tensor is one that [`empty_bf16`] made, or lies in memory as these do.
pub(super) fn is_bf16_in_words(x: &CubeTensor) -> bool {
    let words = x.shape().num_elements().div_ceil(VALUES);
    let bytes = (words * size_of::<u32>()) as u64;
    x.dtype() == DType::BF16 && x.is_contiguous() && x.handle.size_in_used() >= bytes
}

/// The words of a tensor for which [`is_bf16_in_words`] holds.
pub(super) fn words(kept: &CubeTensor) -> BufferArg {
    let words = kept.shape().num_elements().div_ceil(VALUES);
    debug_assert!(is_bf16_in_words(kept));
    // SAFETY: `is_bf16_in_words` says that as many words lie in the tensor's memory.
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
    let kept = empty_bf16(&x);
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
    let kept = empty_bf16(&x);
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

/// [`crate::ops::MtLoraBackend::widened`] of a tensor for which [`is_bf16_in_words`] holds.
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

/// [`crate::ops::MtLoraBackend::rounded_projections`]: one launch where no other tensor shares their memory, so that they can be
/// overwritten and the kernel binds no more than eight buffers.
pub(super) fn rounded_projections(inputs: [CubeTensor; 3]) -> [(CubeTensor, CubeTensor); 3] {
    let inputs = inputs.map(into_contiguous);
    let outputs = [0, 1, 2].map(|part| Output::over(&inputs[part], part));
    let one_launch = inputs
        .iter()
        .zip(&outputs)
        .all(|(input, output)| output.is_over_input() && input.shape().num_elements() > 0);
    if !one_launch {
        // They would share the inputs' memory.
        drop(outputs);
        return inputs.map(rounded_values);
    }
    let kept = inputs.each_ref().map(empty_bf16);
    let client = inputs[0].client.clone();
    let longest = longest(&inputs);
    let (count, dim) = unit_for_each_word(&client, longest);
    let [query, key, value] = inputs;
    let arguments = outputs.each_ref().map(Output::argument);
    let [query_values, key_values, value_values] = arguments;
    let [query_words, key_words, value_words] = kept.each_ref().map(words);
    round_projections_kernel::launch(
        &client,
        count,
        dim,
        query.into_buffer_arg(),
        key.into_buffer_arg(),
        value.into_buffer_arg(),
        query_words,
        key_words,
        value_words,
        query_values,
        key_values,
        value_values,
    );
    let [q, k, v] = kept;
    let [query, key, value] = outputs.map(|output| output.tensor);
    [(query, q), (key, k), (value, v)]
}

/// [`widened`] of three in one launch.
pub(super) fn widened_projections(kept: &[CubeTensor; 3]) -> [CubeTensor; 3] {
    let y = kept
        .each_ref()
        .map(|kept| uninitialised(kept, kept.shape(), DType::F32));
    let longest = longest(kept);
    if longest > 0 {
        let client = kept[0].client.clone();
        let (count, dim) = unit_for_each_word(&client, longest);
        let [query_words, key_words, value_words] = kept.each_ref().map(words);
        let [query, key, value] = y.each_ref().map(|y| y.clone().into_buffer_arg());
        widen_projections_kernel::launch(
            &client,
            count,
            dim,
            query_words,
            key_words,
            value_words,
            query,
            key,
            value,
        );
    }
    y
}

/// The most elements of a tensor.
fn longest(tensors: &[CubeTensor; 3]) -> usize {
    let elements = tensors.iter().map(|x| x.shape().num_elements());
    elements.max().unwrap_or(0)
}
