//! Squares of a small matrix as tiles have them: 16 lanes (rows of a left matrix, columns of a right one) of 16 pairs.

use std::arch::x86_64::{__m512, __m512i, _mm512_setzero_si512};

use super::super::avx512::{interleaved, rounded, transposed};
use super::super::padded::padded;
use super::super::view::View;
use super::{DEPTH, PAIRS, SIDE};

/// A matrix whose rows are lanes and whose columns are summed over.
#[derive(Clone, Copy)]
pub(super) struct Lanes<'a>(pub(super) View<'a>);

impl Lanes<'_> {
    /// The pairs of 16 lanes from `lane` on and of 32 elements from `element` on, rounded to bfloat16, with zeros where the
    /// matrix ends: for each lane, its pairs.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    pub(super) fn by_lane(self, lane: usize, element: usize) -> [__m512i; SIDE] {
        match self.0.strides() {
            [_, 1] => self.along(lane, element),
            _ => transposed(&self.across(lane, element)),
        }
    }

    /// The same: for each pair, that of each lane.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    pub(super) fn by_pair(self, lane: usize, element: usize) -> [__m512i; PAIRS] {
        match self.0.strides() {
            [_, 1] => transposed(&self.along(lane, element)),
            _ => self.across(lane, element),
        }
    }

    /// By lane, of a matrix that has a lane's elements side by side.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    fn along(self, lane: usize, element: usize) -> [__m512i; SIDE] {
        let ([lanes, elements], [stride, _]) = (self.0.sides(), self.0.strides());
        let mut square = [_mm512_setzero_si512(); SIDE];
        for (row, lane) in square.iter_mut().zip(lane..lanes) {
            let values = &self.0.values()[lane * stride..][element..elements.min(element + DEPTH)];
            *row = pulp::cast(rounded(&padded(values)));
        }
        square
    }

    /// By pair, of a matrix that has the lanes of an element side by side.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    fn across(self, lane: usize, element: usize) -> [__m512i; PAIRS] {
        let ([lanes, elements], [_, stride]) = (self.0.sides(), self.0.strides());
        let mut square = [_mm512_setzero_si512(); PAIRS];
        for (row, element) in square.iter_mut().zip((element..elements).step_by(2)) {
            let of = |element: usize| -> __m512 {
                if element >= elements {
                    return pulp::cast([0f32; SIDE]);
                }
                let lanes = lane.min(lanes)..lanes.min(lane + SIDE);
                let values = &self.0.values()[element * stride..][lanes];
                pulp::cast(padded::<_, SIDE>(values))
            };
            *row = pulp::cast(interleaved(of(element), of(element + 1)));
        }
        square
    }
}
