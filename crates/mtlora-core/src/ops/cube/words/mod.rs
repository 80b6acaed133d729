//! Products with matrices that are kept in words, `packed/words.rs`, and their values.
//!
//! A group is unpacked where it is multiplied: no matrix is unpacked as a whole. On cards, a cube shares the values that it has
//! unpacked; drivers that compute on the processor have a form without shared memory, as for [other products](super::product).
//!
//! Bound: each word and each element of the other factor is read once, and each element of the product is written once.

mod blocks;
mod tiles;
mod unpack;

use burn::backend::TensorMetadata;
use burn::tensor::{DType, Shape};
use burn_cubecl::cubecl::{self, prelude::*};
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;

use super::memory::uninitialised;
use super::product::{SizesLaunch, StepsLaunch, view, with_strides};
use crate::autotune::is_software;
use crate::packed::words::{GROUP, WordFormat};
pub(super) use unpack::{rows, values};

/// Where the words of a matrix' rows begin.
#[derive(CubeLaunch, CubeType)]
struct WordSteps {
    /// From a row's first group to the next row's, in groups.
    first: usize,
    /// The same for second words.
    second: usize,
}

/// What a kernel is compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Words {
    /// bfloat16, where a group's two words have two values each. Otherwise 8-bit integers, four to a word, and the second word
    /// is their scale.
    is_bf16: bool,
    /// Groups that have the same second word.
    groups: usize,
}

/// The value at a `place` of a group.
#[cube]
fn unpacked(first: u32, second: u32, place: u32, #[comptime] words: Words) -> f32 {
    if comptime!(words.is_bf16) {
        let word = select(place < 2u32, first, second);
        let bits = select((place & 1u32) == 0u32, word << 16u32, word & 0xffff_0000u32);
        f32::from_bits(bits)
    } else {
        let byte = (first >> (8u32 * place)) & 0xffu32;
        // Two's complement.
        let integer = f32::cast_from(byte ^ 0x80u32) - 128.0f32;
        integer * f32::from_bits(second)
    }
}

/// A matrix of rows that are packed in groups, as a kernel reads it.
struct Packed {
    first: CubeTensor,
    second: CubeTensor,
    rows: usize,
    /// Values of a row.
    width: usize,
    /// Whether the tensor is the matrix' transpose.
    is_turned: bool,
    words: Words,
}

impl Packed {
    /// The matrix of a parameter that is kept in words.
    ///
    /// # Panics
    /// When it is not.
    fn of(parameter: &CubeTensor) -> Self {
        let DType::QFloat(scheme) = parameter.dtype() else {
            panic!("a tensor of {:?} is not in words", parameter.dtype());
        };
        let format = WordFormat::of(&scheme);
        let parts = parameter.quantized_handles();
        let (Some(format), Some((first, second))) = (format, parts) else {
            panic!("a tensor in {scheme:?} is not in words");
        };
        let shape = parameter.shape();
        // Of neighbours along the axis of packing, the groups are neighbours in memory.
        let is_turned = matches!(
            scheme.store,
            burn::tensor::quantization::QuantStore::PackedU32(1)
        );
        let (rows, width) = match is_turned {
            true => (shape[1], shape[0]),
            false => (shape[0], shape[1]),
        };
        let words = match format {
            WordFormat::Bf16 => Words {
                is_bf16: true,
                groups: 1,
            },
            WordFormat::Int8 { groups } => Words {
                is_bf16: false,
                groups,
            },
        };
        Self {
            first,
            second,
            rows,
            width,
            is_turned,
            words,
        }
    }

    fn steps(&self) -> [usize; 2] {
        let axis = usize::from(self.is_turned);
        [&self.first, &self.second].map(|part| part.meta.strides()[axis])
    }

    /// The kernel's arguments: the words, and where each row's begin.
    fn arguments(&self) -> (BufferArg, BufferArg, WordStepsLaunch) {
        let [first, second] = self.steps();
        let groups = self.width / GROUP;
        let last = self.rows.saturating_sub(1);
        let of = |part: &CubeTensor, step: usize, count: usize| {
            // SAFETY: the last row's last word is the tensor's last, so that all of them lie in its memory.
            unsafe { BufferArg::from_raw_parts(part.handle.clone(), last * step + count) }
        };
        (
            of(&self.first, first, groups),
            of(&self.second, second, groups / self.words.groups),
            WordStepsLaunch::new(first, second),
        )
    }
}

/// What a product is computed from.
struct Factors {
    x: CubeTensor,
    packed: Packed,
    bias: Option<CubeTensor>,
    /// Whether the sums go along the packed rows.
    is_along: bool,
    y: CubeTensor,
}

impl Factors {
    /// Rows, columns and the length of the sums.
    fn sizes(&self) -> SizesLaunch {
        let [rows, inner] = [self.x.shape()[0], self.x.shape()[1]];
        SizesLaunch::new(rows, inner, self.y.shape()[1])
    }

    /// The left factor and where its elements lie.
    fn left(&self) -> (StepsLaunch, BufferArg) {
        view(&self.x)
    }

    fn bias(&self) -> Option<BufferArg> {
        self.bias.clone().map(CubeTensor::into_buffer_arg)
    }
}

/// [`crate::ops::MtLoraBackend::packed_product`].
pub(super) fn product(
    x: CubeTensor,
    weight: &CubeTensor,
    bias: Option<CubeTensor>,
    turned: bool,
) -> CubeTensor {
    let packed = Packed::of(weight);
    let is_along = packed.is_turned != turned;
    let (inner, columns) = match is_along {
        true => (packed.width, packed.rows),
        false => (packed.rows, packed.width),
    };
    let rows = x.shape()[0];
    assert_eq!(
        x.shape()[1],
        inner,
        "the columns of x and the weight's side"
    );
    let y = uninitialised(&x, Shape::from([rows, columns]), DType::F32);
    if rows * columns == 0 {
        return y;
    }
    let bias = bias.map(into_contiguous);
    let fits = bias
        .as_ref()
        .is_none_or(|bias| bias.shape()[..] == [columns]);
    assert!(fits, "the bias has a value for each column");
    let factors = Factors {
        x: with_strides(x),
        packed,
        bias,
        is_along,
        y,
    };
    // In tests, products of odd numbers of rows are computed as on a card, so that both forms are tested.
    let as_on_card = cfg!(test) && rows % 2 == 1;
    let has_blocks = is_software(&factors.y.device) && !as_on_card;
    if has_blocks || !tiles::fits(&factors.y.client) {
        blocks::launch(&factors);
    } else {
        tiles::launch(&factors);
    }
    factors.y
}
