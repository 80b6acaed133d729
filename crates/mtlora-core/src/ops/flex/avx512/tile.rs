//! The innermost loops: a tile of sums in registers.

use std::arch::x86_64::{
    __m512, __m512bh, __m512i, __mmask16, _MM_HINT_T0, _mm_prefetch, _mm512_add_ps,
    _mm512_dpbf16_ps, _mm512_fmadd_ps, _mm512_mask_storeu_ps, _mm512_maskz_loadu_ps,
    _mm512_set1_epi32, _mm512_setzero_ps,
};
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::ops::Range;

use super::{COLUMNS, Kernel, LANES, Line, ROWS, Rows, Unit};

/// The output, which tasks share: each has rows and columns of its own.
pub(super) struct Place<'a> {
    first: *mut f32,
    rows: usize,
    columns: usize,
    borrowed: PhantomData<&'a mut [MaybeUninit<f32>]>,
}

// SAFETY: it is a pointer into floats that it has borrowed alone; who writes through a `Tile` promises
// that nobody else has its elements.
unsafe impl Send for Place<'_> {}
// SAFETY: the same.
unsafe impl Sync for Place<'_> {}

impl<'a> Place<'a> {
    /// Rows of `columns` elements.
    pub(super) fn new(out: &'a mut [MaybeUninit<f32>], columns: usize) -> Self {
        Self {
            first: out.as_mut_ptr().cast(),
            rows: out.len() / columns,
            columns,
            borrowed: PhantomData,
        }
    }

    /// At most [`ROWS`] rows and [`COLUMNS`] columns of it.
    pub(super) fn tile(&self, rows: Range<usize>, columns: Range<usize>) -> Tile {
        assert!(rows.len() <= ROWS && rows.end <= self.rows);
        assert!(columns.len() <= COLUMNS && columns.end <= self.columns);
        // SAFETY: the first element of the tile lies in the output.
        let first = unsafe { self.first.add(rows.start * self.columns + columns.start) };
        Tile {
            first,
            stride: self.columns,
            rows: rows.len(),
            columns,
        }
    }
}

/// A tile's place in the output.
pub(super) struct Tile {
    first: *mut f32,
    /// From a row to the next.
    stride: usize,
    rows: usize,
    columns: Range<usize>,
}

impl Tile {
    /// Which lanes of the two registers there are.
    fn masks(&self) -> [__mmask16; 2] {
        let all = u32::MAX >> (COLUMNS - self.columns.len());
        [all as __mmask16, (all >> LANES) as __mmask16]
    }
}

/// What sums begin with.
#[derive(Clone, Copy)]
pub(super) enum Begin<'a> {
    Zero,
    /// Each row with this, of which a tile takes its columns.
    Bias(&'a [f32]),
    /// What is in the tile.
    Sum,
}

/// Writes the start and the products of `rows` with a panel's `lines` to the tile.
///
/// # Safety
/// The processor has the kernel's instructions. Nobody else reads or writes the tile's elements
/// meanwhile. With [`Begin::Sum`], they have been written.
#[inline]
pub(super) unsafe fn add(
    kernel: Kernel,
    tile: Tile,
    begin: Begin<'_>,
    rows: &[Rows],
    lines: &[Line],
) {
    // Few rows in fewer registers; what is beyond them would be thrown away.
    // SAFETY: as the caller promises.
    unsafe {
        match (kernel, tile.rows) {
            (Kernel::F32, 0..=4) => f32_tile::<4>(tile, begin, rows, lines),
            (Kernel::F32, 5..=8) => f32_tile::<8>(tile, begin, rows, lines),
            (Kernel::F32, _) => f32_tile::<ROWS>(tile, begin, rows, lines),
            (Kernel::Bf16, 0..=4) => bf16_tile::<4>(tile, begin, rows, lines),
            (Kernel::Bf16, 5..=8) => bf16_tile::<8>(tile, begin, rows, lines),
            (Kernel::Bf16, _) => bf16_tile::<ROWS>(tile, begin, rows, lines),
        }
    }
}

/// Defines a tile's function, which differs in its instructions only.
macro_rules! tile {
    ($name:ident, $features:literal, $multiply_add:ident) => {
        /// # Safety
        /// As [`add`]'s; the tile has at most `R` rows.
        #[target_feature(enable = $features)]
        unsafe fn $name<const R: usize>(
            tile: Tile,
            begin: Begin<'_>,
            rows: &[Rows],
            lines: &[Line],
        ) {
            let masks = tile.masks();
            // They come while the sums are made.
            for row in 0..R {
                for line in [0, LANES] {
                    let place = tile.first.wrapping_add(row * tile.stride + line);
                    _mm_prefetch::<_MM_HINT_T0>(place.cast());
                }
            }
            let mut sums = [[_mm512_setzero_ps(); 2]; R];
            for (factors, line) in rows.iter().zip(lines) {
                let (lanes, _) = line.as_chunks::<LANES>();
                let right = [lanes[0], lanes[1]];
                for (factor, sums) in factors.iter().zip(&mut sums) {
                    sums[0] = $multiply_add(sums[0], *factor, right[0]);
                    sums[1] = $multiply_add(sums[1], *factor, right[1]);
                }
            }
            let mut start = match begin {
                // SAFETY: the masks have the tile's columns, of so many floats the pointer's slice is.
                Begin::Bias(bias) => unsafe { load(bias[tile.columns.clone()].as_ptr(), masks) },
                Begin::Zero | Begin::Sum => [_mm512_setzero_ps(); 2],
            };
            // Not `take(tile.rows)`: the sums would leave their registers.
            for (row, sums) in sums.iter().enumerate() {
                if row < tile.rows {
                    let place = tile.first.wrapping_add(row * tile.stride);
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
fn multiply_add(sum: __m512, left: Unit, right: [Unit; LANES]) -> __m512 {
    let left: __m512 = pulp::cast(_mm512_set1_epi32(left.cast_signed()));
    _mm512_fmadd_ps(left, pulp::cast(right), sum)
}

#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
fn multiply_add_pairs(sum: __m512, left: Unit, right: [Unit; LANES]) -> __m512 {
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
