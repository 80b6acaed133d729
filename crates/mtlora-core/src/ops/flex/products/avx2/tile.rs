//! The innermost loop: a tile of sums in registers.

use std::arch::x86_64::{
    __m256, _MM_HINT_T0, _mm_prefetch, _mm256_add_ps, _mm256_broadcast_ss, _mm256_fmadd_ps,
    _mm256_loadu_ps, _mm256_setzero_ps, _mm256_storeu_ps,
};

use super::super::blocked::Begin;
use super::super::padded::padded;
use super::super::view::ViewMut;
use super::kernel::{COLUMNS, LANES, Line, PANELS, ROWS, Rows};
use crate::ops::flex::instructions::Avx2;

/// Lines for which one cache line of the rows to come is fetched.
const STRIDE: usize = 64 * PANELS / size_of::<Rows>();

/// As [`Blocks::add`](super::super::blocked::Blocks::add).
///
/// # Safety
/// As there.
#[inline]
pub(super) unsafe fn add(
    _avx2: Avx2,
    tile: ViewMut<'_>,
    begin: Begin<'_>,
    rows: &[Rows],
    lines: &[Line],
    next: *const Rows,
) {
    // Few rows in fewer registers; what is beyond them would be thrown away.
    // SAFETY: as the caller promises; `_avx2` proves that the processor has the instructions.
    unsafe {
        match tile.sides()[0] {
            0..=2 => add_rows::<2>(tile, begin, rows, lines, next),
            3..=4 => add_rows::<4>(tile, begin, rows, lines, next),
            _ => add_rows::<ROWS>(tile, begin, rows, lines, next),
        }
    }
}

/// # Safety
/// As [`add`]'s, and the processor has the instructions; the tile has at most `R` rows.
// Loops over indices: closures would not be compiled for AVX2.
#[allow(clippy::needless_range_loop)]
#[target_feature(enable = "avx2,fma")]
unsafe fn add_rows<const R: usize>(
    mut tile: ViewMut<'_>,
    begin: Begin<'_>,
    rows: &[Rows],
    lines: &[Line],
    next: *const Rows,
) {
    let (first, stride, [tile_rows, columns]) = (tile.first(), tile.stride(), tile.sides());
    // They come while the sums are made.
    for row in 0..R {
        let place = first.wrapping_add(row * stride);
        _mm_prefetch::<_MM_HINT_T0>(place.cast());
        _mm_prefetch::<_MM_HINT_T0>(place.wrapping_add(COLUMNS - 1).cast());
    }
    let mut sums = [[_mm256_setzero_ps(); 2]; R];
    let parts = rows.chunks(STRIDE).zip(lines.chunks(STRIDE));
    for (part, (rows, lines)) in parts.enumerate() {
        _mm_prefetch::<_MM_HINT_T0>(next.cast::<i8>().wrapping_add(64 * part));
        for (factors, line) in rows.iter().zip(lines) {
            let (lanes, _) = line.as_chunks::<LANES>();
            let right: [__m256; 2] = [pulp::cast(lanes[0]), pulp::cast(lanes[1])];
            for row in 0..R {
                let factor = _mm256_broadcast_ss(&factors[row]);
                sums[row][0] = _mm256_fmadd_ps(factor, right[0], sums[row][0]);
                sums[row][1] = _mm256_fmadd_ps(factor, right[1], sums[row][1]);
            }
        }
    }
    let bias: [__m256; 2] = match begin {
        Begin::Bias(bias) => pulp::cast(padded::<_, COLUMNS>(&bias[..columns])),
        Begin::Zero | Begin::Sum => [_mm256_setzero_ps(); 2],
    };
    let adds = matches!(begin, Begin::Sum);
    // Not `take(tile_rows)`: the sums would leave their registers.
    for row in 0..R {
        if row < tile_rows {
            let place = first.wrapping_add(row * stride);
            // SAFETY: the row is one of the tile's, which has its elements alone; the caller promises that they have been
            // written where they are read.
            unsafe {
                if columns == COLUMNS {
                    let second = place.wrapping_add(LANES);
                    let start = if adds {
                        [_mm256_loadu_ps(place), _mm256_loadu_ps(second)]
                    } else {
                        bias
                    };
                    _mm256_storeu_ps(place, _mm256_add_ps(start[0], sums[row][0]));
                    _mm256_storeu_ps(second, _mm256_add_ps(start[1], sums[row][1]));
                } else {
                    let sums: [f32; COLUMNS] = pulp::cast([
                        _mm256_add_ps(bias[0], sums[row][0]),
                        _mm256_add_ps(bias[1], sums[row][1]),
                    ]);
                    for column in 0..columns {
                        let place = place.wrapping_add(column);
                        let start = if adds { place.read() } else { 0.0 };
                        place.write(start + sums[column]);
                    }
                }
            }
        }
    }
}
