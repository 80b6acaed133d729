//! The instructions: configuring a thread's tiles, and products of tiles.
//!
//! A product of tiles is one block of assembly from its first load to its last store. The compiler does not know what tile
//! registers hold, so nothing may depend on what they held before such a block.

use std::arch::asm;
use std::cell::Cell;
use std::marker::PhantomData;
use std::mem::MaybeUninit;

use super::Amx;

/// Rows of a tile, and its columns of 32 bits.
pub(in crate::ops) const SIDE: usize = 16;
/// Rows and columns of a block: two tiles.
pub(in crate::ops) const WIDTH: usize = 2 * SIDE;
/// Pairs of bfloat16 in a row of a tile. One instruction adds the products of this many pairs to each sum.
pub(in crate::ops) const PAIRS: usize = 16;

/// 32 rows of 16 pairs of a left matrix: two tiles, one below the other. The element of the even index is in a pair's low half.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(in crate::ops) struct Rows(pub(in crate::ops) [[u32; PAIRS]; WIDTH]);

/// 16 pairs of rows of 32 columns of a right matrix: two tiles, side by side. The element of the even row is in a pair's low
/// half.
#[derive(Clone, Copy, Default)]
#[repr(C, align(64))]
pub(in crate::ops) struct Lines(pub(in crate::ops) [[u32; WIDTH]; PAIRS]);

/// Four tiles of sums: 32 rows of 32.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(in crate::ops) struct Block(pub(in crate::ops) [[f32; WIDTH]; WIDTH]);

/// What sums begin with: 32 floats in each row, which lie `stride` floats apart. A stride of 0 begins every row with the
/// same.
#[derive(Clone, Copy)]
pub(in crate::ops) struct Start {
    pub(in crate::ops) first: *const f32,
    pub(in crate::ops) stride: usize,
}

impl Start {
    /// Zeros.
    pub(in crate::ops) fn zero() -> Self {
        #[repr(align(64))]
        struct Zeros([f32; WIDTH]);
        static ZEROS: Zeros = Zeros([0.0; WIDTH]);
        Self {
            first: ZEROS.0.as_ptr(),
            stride: 0,
        }
    }
}

/// What `ldtilecfg` reads: Intel's manual, "Tile and tile configuration".
#[repr(C, align(64))]
struct Configuration {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    bytes_per_row: [u16; 16],
    rows: [u8; 16],
}

const _: () = assert!(size_of::<Configuration>() == 64);

/// All eight tiles are as large as they can be.
static CONFIGURATION: Configuration = Configuration {
    palette: 1,
    start_row: 0,
    reserved: [0; 14],
    bytes_per_row: [64, 64, 64, 64, 64, 64, 64, 64, 0, 0, 0, 0, 0, 0, 0, 0],
    rows: [16, 16, 16, 16, 16, 16, 16, 16, 0, 0, 0, 0, 0, 0, 0, 0],
};

thread_local! {
    /// Whether this thread has a [`Tiles`].
    static CONFIGURED: Cell<bool> = const { Cell::new(false) };
}

/// The tiles of this thread, configured for as long as this lives. While they are, the operating system saves 8 KiB more
/// whenever it takes the processor from the thread, so a kernel keeps them for one task.
pub(in crate::ops) struct Tiles(PhantomData<*const ()>);

impl Tiles {
    /// Configures this thread's tiles.
    ///
    /// # Panics
    /// When the thread has them configured already: whoever is done first would release them for both.
    pub(in crate::ops) fn configure(_amx: Amx) -> Self {
        assert!(
            !CONFIGURED.replace(true),
            "a thread configures its tiles once"
        );
        // SAFETY: `_amx` proves that the instruction may be used. It reads the 64 bytes of the static, whose fields are valid
        // for the tiles that the proof has found.
        unsafe {
            asm!(
                "ldtilecfg [{configuration}]",
                configuration = in(reg) &raw const CONFIGURATION,
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                options(nostack, readonly, preserves_flags),
            );
        }
        Self(PhantomData)
    }

    /// Writes `start + left right` to the 32 rows of 32 floats (16 rows if not `LOWER`) from `out` on, which lie `stride`
    /// floats apart. Meanwhile, of what begins at `next`, as many bytes as [`FETCHED`] says come into the second cache for
    /// each of the [`Rows`].
    ///
    /// Factors are sums of `P` parts, from the largest to the smallest. Of the products of parts, those are summed whose indices
    /// add up to less than `P`: 1, 3 or 6 for 1, 2 or 3 parts. The small ones come first.
    ///
    /// Each instruction sums, for an element, the products of the even and of the odd elements of 16 pairs apart from each
    /// other, and then adds both to the sum. Values below the normal range count as zeros.
    ///
    /// # Safety
    /// `start` has as many rows of 32 floats, which can be read; those of `out` can be written to. They may be the same.
    ///
    /// # Panics
    /// When there are not as many of `right` as of `left`, or none.
    #[inline]
    pub(in crate::ops) unsafe fn multiply<const LOWER: bool, const P: usize>(
        &self,
        left: &[[Rows; P]],
        right: &[[Lines; P]],
        start: Start,
        out: *mut f32,
        stride: usize,
        next: *const [Rows; P],
    ) {
        assert!(!left.is_empty() && left.len() == right.len());
        const FLOAT: usize = size_of::<f32>();
        let [start_stride, stride] = [start.stride, stride].map(|stride| stride * FLOAT);
        let start_lower = start.first.wrapping_byte_add(SIDE * start_stride);
        let out_lower = out.wrapping_byte_add(SIDE * stride);
        // A row of `Rows` is 64 bytes long and one of `Lines` twice that, so one register serves both as the stride. Both take
        // 2048 bytes, which the steps below count with.
        const ROW: usize = PAIRS * size_of::<u32>();
        const { assert!(ROW == 64 && size_of::<Lines>() == 2048 && size_of::<Rows>() == 2048) };
        const { assert!(FETCHED == 8 * 64) };
        const { assert!(1 <= P && P <= 3) };

        /// Two tiles of the left factor, at a distance of bytes.
        macro_rules! load_left {
            ($at:literal) => {
                concat!(
                    "tileloadd tmm4, [{left} + {row}*1 + ",
                    $at,
                    "]\n",
                    "tileloadd tmm5, [{left} + {row}*1 + ",
                    $at,
                    " + 1024]",
                )
            };
        }
        /// Two tiles of the right factor.
        macro_rules! load_right {
            ($at:literal) => {
                concat!(
                    "tileloadd tmm6, [{right} + {row}*2 + ",
                    $at,
                    "]\n",
                    "tileloadd tmm7, [{right} + {row}*2 + ",
                    $at,
                    " + 64]",
                )
            };
        }
        /// Has some lines of 64 bytes come into the first cache.
        macro_rules! fetch {
            ($factor:literal, $at:literal, $($line:literal),*) => {
                concat!($("prefetcht0 [{", $factor, "} + ", $at, " + ", $line, "]\n"),*)
            };
        }
        /// The products of the tiles, without two of them if there is no lower tile. Meanwhile, 2048 bytes of a factor come
        /// into the first cache.
        macro_rules! multiply {
            ($lower:tt, $factor:literal, $at:literal) => {
                concat!(
                    "tdpbf16ps tmm0, tmm4, tmm6\n",
                    fetch!($factor, $at, "0", "64", "128", "192", "256", "320", "384", "448"),
                    "tdpbf16ps tmm1, tmm4, tmm7\n",
                    fetch!($factor, $at, "512", "576", "640", "704", "768", "832", "896", "960"),
                    multiply!(@lower $lower, "tdpbf16ps tmm2, tmm5, tmm6\n"),
                    fetch!($factor, $at, "1024", "1088", "1152", "1216", "1280", "1344", "1408", "1472"),
                    multiply!(@lower $lower, "tdpbf16ps tmm3, tmm5, tmm7\n"),
                    fetch!($factor, $at, "1536", "1600", "1664", "1728", "1792", "1856", "1920", "1984"),
                )
            };
            (@lower true, $product:literal) => { $product };
            (@lower false, $product:literal) => { "" };
        }
        /// Has a share of the rows that come later come into the second cache.
        macro_rules! fetch_next {
            () => {
                "prefetcht1 [{next}]\nprefetcht1 [{next} + 64]\n\
                 prefetcht1 [{next} + 128]\nprefetcht1 [{next} + 192]\n\
                 prefetcht1 [{next} + 256]\nprefetcht1 [{next} + 320]\n\
                 prefetcht1 [{next} + 384]\nprefetcht1 [{next} + 448]\nadd {next}, 512"
            };
        }
        /// The sums' first values, a loop over the units, and the sums' way out.
        macro_rules! sum {
            ($lower:tt, $unit:literal, $($step:expr),*) => {
                asm!(
                    "tileloadd tmm0, [{start} + {start_stride}*1]",
                    "tileloadd tmm1, [{start} + {start_stride}*1 + 64]",
                    sum!(@load $lower),
                    "2:",
                    $($step,)*
                    concat!("add {left}, ", $unit),
                    concat!("add {right}, ", $unit),
                    "dec {count}",
                    "jnz 2b",
                    "tilestored [{out} + {stride}*1], tmm0",
                    "tilestored [{out} + {stride}*1 + 64], tmm1",
                    sum!(@store $lower),
                    left = inout(reg) left.as_ptr() => _,
                    right = inout(reg) right.as_ptr() => _,
                    next = inout(reg) next => _,
                    count = inout(reg) left.len() => _,
                    row = in(reg) ROW,
                    start = in(reg) start.first,
                    start_lower = in(reg) start_lower,
                    start_stride = in(reg) start_stride,
                    out = in(reg) out,
                    out_lower = in(reg) out_lower,
                    stride = in(reg) stride,
                    out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                    out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                    options(nostack),
                )
            };
            (@load true) => {
                "tileloadd tmm2, [{start_lower} + {start_stride}*1]\n\
                 tileloadd tmm3, [{start_lower} + {start_stride}*1 + 64]"
            };
            (@store true) => {
                "tilestored [{out_lower} + {stride}*1], tmm2\n\
                 tilestored [{out_lower} + {stride}*1 + 64], tmm3"
            };
            // The operands have to be named.
            (@load false) => { "/* {start_lower} */" };
            (@store false) => { "/* {out_lower} */" };
        }
        /// The same for each number of parts. From one product to the next, only one of the factors is loaded again. Tiles come
        /// from the first cache twice as fast as from the second, so those of the next unit are fetched.
        macro_rules! sum_parts {
            ($lower:tt) => {
                match P {
                    1 => sum!(
                        $lower,
                        "2048",
                        load_left!("0"),
                        load_right!("0"),
                        multiply!($lower, "left", "2048"),
                        fetch!(
                            "right", "2048", "0", "64", "128", "192", "256", "320", "384", "448",
                            "512", "576", "640", "704", "768", "832", "896", "960", "1024", "1088",
                            "1152", "1216", "1280", "1344", "1408", "1472", "1536", "1600", "1664",
                            "1728", "1792", "1856", "1920", "1984"
                        ),
                        fetch_next!()
                    ),
                    2 => sum!(
                        $lower,
                        "4096",
                        load_left!("2048"),
                        load_right!("0"),
                        multiply!($lower, "left", "4096"),
                        load_left!("0"),
                        multiply!($lower, "left", "4096 + 2048"),
                        load_right!("2048"),
                        multiply!($lower, "right", "4096"),
                        fetch!(
                            "right",
                            "4096 + 2048",
                            "0",
                            "64",
                            "128",
                            "192",
                            "256",
                            "320",
                            "384",
                            "448",
                            "512",
                            "576",
                            "640",
                            "704",
                            "768",
                            "832",
                            "896",
                            "960",
                            "1024",
                            "1088",
                            "1152",
                            "1216",
                            "1280",
                            "1344",
                            "1408",
                            "1472",
                            "1536",
                            "1600",
                            "1664",
                            "1728",
                            "1792",
                            "1856",
                            "1920",
                            "1984"
                        ),
                        fetch_next!(),
                        fetch_next!()
                    ),
                    _ => sum!(
                        $lower,
                        "6144",
                        load_left!("4096"),
                        load_right!("0"),
                        multiply!($lower, "left", "6144"),
                        load_left!("2048"),
                        multiply!($lower, "left", "6144 + 2048"),
                        load_right!("2048"),
                        multiply!($lower, "left", "6144 + 4096"),
                        load_left!("0"),
                        multiply!($lower, "right", "6144"),
                        load_right!("4096"),
                        multiply!($lower, "right", "6144 + 2048"),
                        load_right!("0"),
                        multiply!($lower, "right", "6144 + 4096"),
                        fetch_next!(),
                        fetch_next!(),
                        fetch_next!()
                    ),
                }
            };
        }
        // SAFETY: a `Tiles` exists only while the thread's tiles are configured, each with 16 rows of 64 bytes, on a processor
        // that has the instructions. `tileloadd` reads such a tile from both factors' parts, which are read once or twice for
        // each of `left.len()` iterations in steps of their own size, and from `start`, as the caller promises; `tilestored`
        // writes two or four to `out`, as the caller promises. A prefetch reads nothing that counts.
        unsafe {
            if LOWER {
                sum_parts!(true)
            } else {
                sum_parts!(false)
            }
        }
    }

    /// Writes the product to a block of its own: 32 rows, or 16 if not `LOWER`.
    ///
    /// # Panics
    /// As [`multiply`](Self::multiply).
    #[inline]
    pub(in crate::ops) fn product<const LOWER: bool, const P: usize>(
        &self,
        block: &mut MaybeUninit<Block>,
        left: &[[Rows; P]],
        right: &[[Lines; P]],
        next: *const [Rows; P],
    ) {
        let first = block.as_mut_ptr().cast::<f32>();
        // SAFETY: the block is 32 rows of 32 floats, and borrowed alone.
        unsafe { self.multiply::<LOWER, P>(left, right, Start::zero(), first, WIDTH, next) }
    }
}

impl Drop for Tiles {
    fn drop(&mut self) {
        // SAFETY: the tiles were configured by the same instructions' kind on this thread, which the value cannot leave.
        unsafe {
            asm!(
                "tilerelease",
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                options(nostack, nomem, preserves_flags),
            );
        }
        CONFIGURED.set(false);
    }
}

/// How many bytes of the rows that come later [`Tiles::multiply`] has fetched for each of its own, and for each of their parts.
pub(in crate::ops) const FETCHED: usize = 512;

/// Multiplies tiles on this thread, over and over, with operands that stay in their registers: as fast as it can. Returns
/// the number of multiply-adds.
///
/// # Panics
/// When it is to happen no time at all.
pub(in crate::ops) fn multiply_repeatedly(amx: Amx, times: usize) -> usize {
    assert!(times > 0);
    /// The sums, which are as many as there are registers for: the processor works on several at once.
    const SUMS: usize = 6;
    let tiles = Tiles::configure(amx);
    // SAFETY: `tiles` is the configuration, of eight tiles of 16 rows of 64 bytes, on a processor with the instructions.
    // Nothing but registers is read or written.
    unsafe {
        asm!(
            "tilezero tmm0", "tilezero tmm1", "tilezero tmm2", "tilezero tmm3",
            "tilezero tmm4", "tilezero tmm5", "tilezero tmm6", "tilezero tmm7",
            "2:",
            "tdpbf16ps tmm0, tmm6, tmm7",
            "tdpbf16ps tmm1, tmm6, tmm7",
            "tdpbf16ps tmm2, tmm6, tmm7",
            "tdpbf16ps tmm3, tmm6, tmm7",
            "tdpbf16ps tmm4, tmm6, tmm7",
            "tdpbf16ps tmm5, tmm6, tmm7",
            "dec {times}",
            "jnz 2b",
            times = inout(reg) times => _,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack, nomem),
        );
    }
    drop(tiles);
    times * SUMS * SIDE * SIDE * 2 * PAIRS
}

#[cfg(test)]
#[cfg(all(target_os = "linux", not(miri)))]
mod tests {
    use super::*;

    /// A panic while tiles are configured releases them, and the thread can configure them again. Twice at once is refused.
    #[test]
    fn a_panic_releases_the_tiles() {
        let Some(amx) = Amx::for_tests() else {
            return;
        };
        let caught = std::panic::catch_unwind(|| {
            let _tiles = Tiles::configure(amx);
            assert!(CONFIGURED.get());
            panic!("on purpose");
        });
        assert!(caught.is_err() && !CONFIGURED.get());
        let tiles = Tiles::configure(amx);
        assert!(std::panic::catch_unwind(|| Tiles::configure(amx)).is_err());
        let mut block = MaybeUninit::new(Block([[1.0; WIDTH]; WIDTH]));
        let (left, right) = ([[Rows([[0; PAIRS]; WIDTH])]], [[Lines::default()]]);
        tiles.product::<true, 1>(&mut block, &left, &right, left.as_ptr());
        // SAFETY: it has been written, with ones and then with zeros.
        assert_eq!(unsafe { block.assume_init() }.0, [[0.0; WIDTH]; WIDTH]);
        drop(tiles);
        assert_eq!(multiply_repeatedly(amx, 3), 3 * 6 * 16 * 16 * 32);
    }
}
