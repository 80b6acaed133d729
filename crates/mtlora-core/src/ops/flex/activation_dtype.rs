use burn::backend::TensorMetadata;
use burn::backend::flex::{FlexTensor, Layout};
use burn::backend::{DType, Flex, ops::FloatTensorOps};
use burn::tensor::{Bytes, bf16};

use super::{contiguous, mapped, tensor, values};

/// [`crate::ops::MtLoraBackend::rounded`].
pub(crate) fn rounded(x: FlexTensor) -> FlexTensor {
    let x = contiguous(x);
    let out = mapped(values(&x), nearest);
    FlexTensor::new(
        Bytes::from_elems(out),
        Layout::contiguous(x.shape()),
        DType::BF16,
    )
}

/// To the nearest, ties to even, as `bf16::from_f32`, without a branch.
#[inline(always)]
fn nearest(x: f32) -> bf16 {
    let bits = x.to_bits();
    let even = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16;
    // A NaN must not become infinite.
    let nan = bits >> 16 | 0x40;
    bf16::from_bits(if x.is_nan() { nan } else { even } as u16)
}

/// As `bf16::to_f32`, without a branch: it is the upper half of a 32-bit float.
#[inline(always)]
pub(super) fn dense(x: bf16) -> f32 {
    f32::from_bits(u32::from(x.to_bits()) << 16)
}

/// [`crate::ops::MtLoraBackend::widened`].
pub(crate) fn widened(kept: FlexTensor) -> FlexTensor {
    match (kept.dtype(), kept.as_slice::<bf16>()) {
        (DType::BF16, Some(values)) => tensor(mapped(values, dense), kept.shape()),
        _ => Flex::float_cast(kept, DType::F32.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn rounds_as_half_does(bits: u32) {
            let x = f32::from_bits(bits);
            let (found, expected) = (nearest(x), bf16::from_f32(x));
            prop_assert!(found == expected || found.is_nan() && expected.is_nan(), "{} became {}", x, found);
        }

        #[test]
        fn comes_back_rounded(values in prop::collection::vec(-1e3f32..1e3, 1..20_000)) {
            let expected: Vec<f32> = values.iter().map(|x| bf16::from_f32(*x).to_f32()).collect();
            let count = values.len();
            let x = tensor(values, [count].into());
            let back = widened(rounded(x));
            prop_assert_eq!(super::values(&back), expected.as_slice());
        }
    }
}
