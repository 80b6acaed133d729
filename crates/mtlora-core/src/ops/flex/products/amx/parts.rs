//! 32-bit floats as sums of bfloat16: three have all 24 bits of a float, two have 16 of them.
//!
//! The first part is the float rounded to bfloat16, and each later part is what is left, rounded. The subtractions are exact, and so is
//! the sum of three parts, except that what is below the normal range of a float becomes zero. An infinite float has parts that
//! are infinite and NaN, so that products with it are not finite either.

use std::arch::x86_64::{
    __m512, __m512i, _mm512_and_si512, _mm512_castsi512_si256, _mm512_cvtepu16_epi32,
    _mm512_extracti64x4_epi64, _mm512_set1_epi32, _mm512_setzero_si512, _mm512_slli_epi32,
    _mm512_sub_ps,
};

use super::super::avx512::{interleaved, rounded};

/// Parts of 32 neighbours in 16 pairs: the first 16 of them, and the second.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
pub(super) fn of_neighbours<const P: usize>(mut low: __m512, mut high: __m512) -> [__m512i; P] {
    let mut parts = [_mm512_setzero_si512(); P];
    for (index, part) in parts.iter_mut().enumerate() {
        *part = pulp::cast(rounded(&pulp::cast([low, high])));
        if index + 1 < P {
            let halves = [
                _mm512_castsi512_si256(*part),
                _mm512_extracti64x4_epi64::<1>(*part),
            ];
            let [of_low, of_high] = [halves[0], halves[1]]
                .map(|half| _mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(half)));
            low = _mm512_sub_ps(low, pulp::cast(of_low));
            high = _mm512_sub_ps(high, pulp::cast(of_high));
        }
    }
    parts
}

/// Parts of 16 pairs, each of one of `low` and one of `high`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
pub(super) fn of_pairs<const P: usize>(mut low: __m512, mut high: __m512) -> [__m512i; P] {
    let upper = _mm512_set1_epi32(0xffff_0000_u32.cast_signed());
    let mut parts = [_mm512_setzero_si512(); P];
    for (index, part) in parts.iter_mut().enumerate() {
        *part = pulp::cast(interleaved(low, high));
        if index + 1 < P {
            low = _mm512_sub_ps(low, pulp::cast(_mm512_slli_epi32::<16>(*part)));
            high = _mm512_sub_ps(high, pulp::cast(_mm512_and_si512(*part, upper)));
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::flex::instructions::Avx512Bf16;
    use proptest::prelude::*;

    /// The float that a bfloat16 in the low or the high half of a pair is.
    fn value(pair: u32, high: bool) -> f32 {
        f32::from_bits(if high { pair & 0xffff_0000 } else { pair << 16 })
    }

    proptest! {
        /// Three parts are the float, two are close to it, and both functions agree.
        #[test]
        fn parts_add_up(floats: [f32; 32]) {
            if Avx512Bf16::detect().is_none() {
                return Ok(());
            }
            // Not below the normal range even in the last part, and not beyond it when rounded.
            let floats = floats.map(|x| {
                let fits = x.is_finite() && (1e-30..1e38).contains(&x.abs());
                if fits { x } else { 0.75 }
            });
            let [low, high]: [[f32; 16]; 2] = pulp::cast(floats);
            // SAFETY: the processor has the instructions.
            let (neighbours, two, pairs) = unsafe {
                let (low, high) = (pulp::cast(low), pulp::cast(high));
                (of_neighbours::<3>(low, high), of_neighbours::<2>(low, high), of_pairs::<3>(low, high))
            };
            let [neighbours, pairs]: [[[u32; 16]; 3]; 2] = [pulp::cast(neighbours), pulp::cast(pairs)];
            let two: [[u32; 16]; 2] = pulp::cast(two);
            for (at, x) in floats.into_iter().enumerate() {
                let of = |part: &[u32; 16]| value(part[at / 2], at % 2 == 1);
                prop_assert_eq!(neighbours.iter().rev().map(of).sum::<f32>(), x);
                let close: f32 = two.iter().map(of).sum();
                prop_assert!((close - x).abs() <= x.abs() * 2f32.powi(-17), "{} {}", close, x);
                let of = |part: &[u32; 16]| value(part[at % 16], at >= 16);
                prop_assert_eq!(pairs.iter().rev().map(of).sum::<f32>(), x);
            }
        }
    }
}
