//! The innermost loops: a tile of sums in registers.

use super::super::blocked::Begin;
use super::super::view::ViewMut;
use super::kernel::{COLUMNS, Kernel, LANES, Line, PANELS, ROWS, Rows, Unit};
use std::arch::x86_64::{
    __m512, __m512bh, __m512i, __mmask16, _MM_HINT_T0, _mm_prefetch, _mm512_add_ps,
    _mm512_dpbf16_ps, _mm512_fmadd_ps, _mm512_mask_storeu_ps, _mm512_maskz_loadu_ps,
    _mm512_set1_epi32, _mm512_setzero_ps,
};

/// The lane masks of two registers for the first `columns` columns, of which there are at most [`COLUMNS`].
pub(super) fn masks(columns: usize) -> [__mmask16; 2] {
    let beyond = COLUMNS - columns;
    // In a release build, a shift by 32 would not shift at all.
    let all = u32::MAX.checked_shr(beyond as u32).unwrap_or(0);
    [all as __mmask16, (all >> LANES) as __mmask16]
}

/// Writes the start and the products of `rows` with a panel's `lines` to the tile, and has the share of a
/// panel of what begins at `next` fetched: rows that come later.
///
/// # Safety
/// With [`Begin::Sum`], the tile's elements have been written. It has at most [`ROWS`] rows and [`COLUMNS`] columns.
#[inline]
pub(super) unsafe fn add(
    kernel: Kernel,
    tile: ViewMut<'_>,
    begin: Begin<'_>,
    rows: &[Rows],
    lines: &[Line],
    next: *const Rows,
) {
    // Few rows in fewer registers; what is beyond them would be thrown away.
    // SAFETY: as the caller promises; `kernel` proves that the processor has the instructions.
    unsafe {
        match (kernel, tile.sides()[0]) {
            (Kernel::F32(_), 0..=4) => f32_tile::<4>(tile, begin, rows, lines, next),
            (Kernel::F32(_), 5..=8) => f32_tile::<8>(tile, begin, rows, lines, next),
            (Kernel::F32(_), _) => f32_tile::<ROWS>(tile, begin, rows, lines, next),
            (Kernel::Bf16(_), 0..=4) => bf16_tile::<4>(tile, begin, rows, lines, next),
            (Kernel::Bf16(_), 5..=8) => bf16_tile::<8>(tile, begin, rows, lines, next),
            (Kernel::Bf16(_), _) => bf16_tile::<ROWS>(tile, begin, rows, lines, next),
        }
    }
}

/// Defines a tile's function, which differs in its instructions only.
macro_rules! tile {
    ($name:ident, $features:literal, $multiply_add:ident) => {
        /// # Safety
        /// As [`add`]'s, and the processor has the instructions; the tile has at most `R` rows.
        #[target_feature(enable = $features)]
        unsafe fn $name<const R: usize>(
            mut tile: ViewMut<'_>,
            begin: Begin<'_>,
            rows: &[Rows],
            lines: &[Line],
            next: *const Rows,
        ) {
            let (first, stride, [tile_rows, columns]) = (tile.first(), tile.stride(), tile.sides());
            let masks = masks(columns);
            // They come while the sums are made.
            for row in 0..R {
                for line in [0, LANES] {
                    let place = first.wrapping_add(row * stride + line);
                    _mm_prefetch::<_MM_HINT_T0>(place.cast());
                }
            }
            let mut sums = [[_mm512_setzero_ps(); 2]; R];
            for (unit, (factors, line)) in rows.iter().zip(lines).enumerate() {
                let next = next
                    .cast::<i8>()
                    .wrapping_add(unit * (size_of::<Rows>() / PANELS));
                _mm_prefetch::<_MM_HINT_T0>(next);
                let (lanes, _) = line.as_chunks::<LANES>();
                let right = [lanes[0], lanes[1]];
                for (factor, sums) in factors.iter().zip(&mut sums) {
                    sums[0] = $multiply_add(sums[0], *factor, right[0]);
                    sums[1] = $multiply_add(sums[1], *factor, right[1]);
                }
            }
            let mut start = match begin {
                // SAFETY: the masks cover as many columns as the slice has floats.
                Begin::Bias(bias) => unsafe { load(bias[..columns].as_ptr(), masks) },
                Begin::Zero | Begin::Sum => [_mm512_setzero_ps(); 2],
            };
            // Not `take(tile_rows)`: the sums would leave their registers.
            for (row, sums) in sums.iter().enumerate() {
                if row < tile_rows {
                    let place = first.wrapping_add(row * stride);
                    if let Begin::Sum = begin {
                        // SAFETY: the row is one of the tile's, the masks have its columns, and the
                        // caller promises that they have been written.
                        start = unsafe { load(place, masks) };
                    }
                    let sums = [
                        _mm512_add_ps(start[0], sums[0]),
                        _mm512_add_ps(start[1], sums[1]),
                    ];
                    // SAFETY: as above; and they are this tile's alone.
                    unsafe { store(place, masks, sums) };
                }
            }
        }
    };
}

tile!(f32_tile, "avx512f", multiply_add);
tile!(bf16_tile, "avx512f,avx512bf16", multiply_add_pairs);

#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn multiply_add(sum: __m512, left: Unit, right: [Unit; LANES]) -> __m512 {
    let left: __m512 = pulp::cast(_mm512_set1_epi32(left.cast_signed()));
    _mm512_fmadd_ps(left, pulp::cast(right), sum)
}

#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
pub(super) fn multiply_add_pairs(sum: __m512, left: Unit, right: [Unit; LANES]) -> __m512 {
    let left = _mm512_set1_epi32(left.cast_signed());
    // SAFETY: both are 512 bits wide, and every pattern of them is a value.
    let left = unsafe { std::mem::transmute::<__m512i, __m512bh>(left) };
    // SAFETY: the same.
    let right = unsafe { std::mem::transmute::<[Unit; LANES], __m512bh>(right) };
    _mm512_dpbf16_ps(sum, left, right)
}

/// # Safety
/// The floats from `first` on that the masks have can be read.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn load(first: *const f32, masks: [__mmask16; 2]) -> [__m512; 2] {
    // SAFETY: as the caller promises; what is masked out is not read.
    unsafe {
        [
            _mm512_maskz_loadu_ps(masks[0], first),
            _mm512_maskz_loadu_ps(masks[1], first.wrapping_add(LANES)),
        ]
    }
}

/// # Safety
/// The floats from `first` on that the masks have can be written.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn store(first: *mut f32, masks: [__mmask16; 2], values: [__m512; 2]) {
    // SAFETY: as the caller promises; what is masked out is not written.
    unsafe {
        _mm512_mask_storeu_ps(first, masks[0], values[0]);
        _mm512_mask_storeu_ps(first.wrapping_add(LANES), masks[1], values[1]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mask_has_a_bit_for_each_column() {
        for columns in 0..=COLUMNS {
            let [first, second] = masks(columns).map(u32::from);
            let bits = (first | second << LANES).count_ones() as usize;
            assert_eq!(bits, columns);
            assert_eq!((first | second << LANES).trailing_ones() as usize, columns);
        }
    }
}
