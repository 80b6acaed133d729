//! AMX's instructions on a processor that lacks them, for tests: such a processor raises a signal, whose handler executes the
//! instruction that it has met and goes on after it. So the very code that a processor with tiles will run is tested here.
//!
//! What each instruction does, and when it is invalid, is written down as in Intel's manual (Software Developer's Manual,
//! volume 2, and the Instruction Set Extensions Programming Reference): an instruction that would be invalid there ends the
//! program here as well.

use std::cell::UnsafeCell;
use std::sync::Once;

use super::tiles::SIDE;

/// Registers of the processor by their numbers in an instruction, as the signal's context has them.
const REGISTERS: [libc::c_int; 16] = [
    libc::REG_RAX,
    libc::REG_RCX,
    libc::REG_RDX,
    libc::REG_RBX,
    libc::REG_RSP,
    libc::REG_RBP,
    libc::REG_RSI,
    libc::REG_RDI,
    libc::REG_R8,
    libc::REG_R9,
    libc::REG_R10,
    libc::REG_R11,
    libc::REG_R12,
    libc::REG_R13,
    libc::REG_R14,
    libc::REG_R15,
];

/// The number of tiles.
const TILES: usize = 8;

type Row = [u32; SIDE];

/// What a thread's tiles are configured to, and what they hold.
struct State {
    configured: bool,
    rows: [usize; TILES],
    bytes_per_row: [usize; TILES],
    tiles: [[Row; SIDE]; TILES],
}

impl State {
    const RELEASED: Self = Self {
        configured: false,
        rows: [0; TILES],
        bytes_per_row: [0; TILES],
        tiles: [[[0; SIDE]; SIDE]; TILES],
    };
}

thread_local! {
    /// This thread's. Only the handler uses it, which the instructions of one thread call one after the other.
    static STATE: UnsafeCell<State> = const { UnsafeCell::new(State::RELEASED) };
}

/// Has the instructions emulated in this process from now on.
pub(super) fn start() {
    static STARTED: Once = Once::new();
    STARTED.call_once(|| {
        let handler: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) = handle;
        // SAFETY: all zeros are a value of the structure; the handler has the signature that `SA_SIGINFO` asks for, and does
        // nothing that a handler must not do.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = handler as usize;
            action.sa_flags = libc::SA_SIGINFO;
            assert_eq!(
                libc::sigaction(libc::SIGILL, &raw const action, std::ptr::null_mut()),
                0
            );
        }
    });
}

/// Executes the tile instruction that raised the signal. If it is another instruction, or an invalid one, the signal is raised
/// again and ends the program.
extern "C" fn handle(_: libc::c_int, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel gives the context of this thread, which nothing else uses now.
    let registers = unsafe { &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs };
    let next = registers[libc::REG_RIP as usize];
    // SAFETY: the instruction lies there, and what is executed are this thread's own instructions, one after the other.
    let length =
        STATE.with(|state| unsafe { execute(&mut *state.get(), next as *const u8, registers) });
    match length {
        Some(length) => registers[libc::REG_RIP as usize] += length as i64,
        // SAFETY: without a handler, the signal ends the program when the instruction raises it again.
        None => unsafe {
            libc::signal(libc::SIGILL, libc::SIG_DFL);
        },
    }
}

/// Executes the instruction at `code` and returns how long it is, if it is one of AMX's and valid.
///
/// # Safety
/// An instruction lies at `code`; what it reads and writes may be read and written.
unsafe fn execute(state: &mut State, code: *const u8, registers: &[i64; 23]) -> Option<usize> {
    // SAFETY: the prefix and the two bytes after it are part of the instruction, as all bytes that are read below.
    let byte = |at: usize| unsafe { code.add(at).read() };
    // A prefix of three bytes, whose bits R, X, B and vvvv are inverted; map 0F38, W = 0, L = 0.
    if byte(0) != 0xc4 || byte(1) & 0x1f != 2 || byte(2) & 0b1000_0100 != 0 {
        return None;
    }
    let extended = |bit: u8| usize::from(byte(1) >> bit & 1 == 0) << 3;
    let second = usize::from(!byte(2) >> 3 & 0xf);
    let (prefix, opcode, modrm) = (byte(2) & 3, byte(3), byte(4));
    let (mode, reg, rm) = (
        modrm >> 6,
        usize::from(modrm >> 3 & 7),
        usize::from(modrm & 7),
    );
    let reg = reg | extended(7);
    match (prefix, opcode, mode) {
        // TDPBF16PS
        (2, 0x5c, 3) => {
            let (left, right) = (rm | extended(5), second);
            multiply(state, reg, left, right)?;
            return Some(5);
        }
        // TILEZERO
        (3, 0x49, 3) if rm == 0 && second == 0 => {
            state.row_count(reg)?;
            state.tiles[reg] = [[0; SIDE]; SIDE];
            return Some(5);
        }
        // TILERELEASE
        (0, 0x49, 3) if modrm == 0xc0 && second == 0 => {
            *state = State::RELEASED;
            return Some(5);
        }
        (_, _, 3) => return None,
        _ => {}
    }
    if second != 0 {
        return None;
    }
    // An address in memory: base, index times a power of two, displacement.
    let value = |register: usize| registers[REGISTERS[register] as usize];
    let (mut length, base, index, scale) = if rm == 4 {
        let sib = byte(5);
        let index = usize::from(sib >> 3 & 7) | extended(6);
        // The number of the stack pointer says that there is no index.
        let index = (index != 4).then(|| value(index));
        (6, usize::from(sib & 7), index, sib >> 6)
    } else {
        (5, rm, None, 0)
    };
    if mode == 0 && base == 5 {
        // Relative to the instruction, or without a base: the kernels use neither.
        return None;
    }
    let displacement = match mode {
        1 => {
            length += 1;
            i64::from(byte(length - 1).cast_signed())
        }
        2 => {
            length += 4;
            // SAFETY: the four bytes are the instruction's.
            i64::from(unsafe { code.add(length - 4).cast::<i32>().read_unaligned() })
        }
        _ => 0,
    };
    let address = (value(base | extended(5)) + displacement) as *mut u8;
    match (prefix, opcode) {
        // LDTILECFG
        (0, 0x49) if reg == 0 => {
            // SAFETY: the instruction reads 64 bytes.
            let bytes = unsafe { address.cast::<[u8; 64]>().read_unaligned() };
            configure(state, &bytes)?;
        }
        // TILELOADD
        (3, 0x4b) => {
            let (rows, bytes) = (state.row_count(reg)?, state.bytes_per_row[reg]);
            let stride = (index? << scale) as isize;
            let mut tile = [[0; SIDE]; SIDE];
            for (row, out) in tile.iter_mut().enumerate().take(rows) {
                // SAFETY: the instruction reads `bytes` bytes of each row, and a row has room for 64.
                unsafe {
                    let from = address.offset(row as isize * stride);
                    std::ptr::copy_nonoverlapping(from, out.as_mut_ptr().cast::<u8>(), bytes);
                }
            }
            state.tiles[reg] = tile;
        }
        // TILESTORED
        (2, 0x4b) => {
            let (rows, bytes) = (state.row_count(reg)?, state.bytes_per_row[reg]);
            let stride = (index? << scale) as isize;
            for (row, from) in state.tiles[reg].iter().enumerate().take(rows) {
                // SAFETY: the instruction writes `bytes` bytes of each row, and a row of the tile has 64.
                unsafe {
                    let to = address.offset(row as isize * stride);
                    std::ptr::copy_nonoverlapping(from.as_ptr().cast::<u8>(), to, bytes);
                }
            }
        }
        _ => return None,
    }
    Some(length)
}

impl State {
    /// The rows of a tile that can be used.
    fn row_count(&self, tile: usize) -> Option<usize> {
        let usable = self.configured
            && tile < TILES
            && self.rows[tile] > 0
            && self.bytes_per_row[tile].is_multiple_of(4);
        usable.then(|| self.rows[tile])
    }
}

/// LDTILECFG.
fn configure(state: &mut State, bytes: &[u8; 64]) -> Option<()> {
    let mut new = State::RELEASED;
    match bytes[0] {
        0 => {}
        1 => {
            let reserved = [&bytes[2..16], &bytes[32..48], &bytes[56..64]];
            if reserved.concat_is_zero() {
                new.configured = true;
            } else {
                return None;
            }
            for tile in 0..TILES {
                let at = 16 + 2 * tile;
                new.bytes_per_row[tile] =
                    usize::from(u16::from_le_bytes([bytes[at], bytes[at + 1]]));
                new.rows[tile] = usize::from(bytes[48 + tile]);
                let empty = [new.bytes_per_row[tile] == 0, new.rows[tile] == 0];
                if new.bytes_per_row[tile] > 64 || new.rows[tile] > 16 || empty[0] != empty[1] {
                    return None;
                }
            }
        }
        _ => return None,
    }
    *state = new;
    Some(())
}

/// Whether all bytes of several parts are zero: a handler must not allocate.
trait AllZero {
    fn concat_is_zero(&self) -> bool;
}

impl AllZero for [&[u8]; 3] {
    fn concat_is_zero(&self) -> bool {
        self.iter().all(|part| part.iter().all(|byte| *byte == 0))
    }
}

/// TDPBF16PS.
fn multiply(state: &mut State, sums: usize, left: usize, right: usize) -> Option<()> {
    let rows = [sums, left, right].map(|tile| state.row_count(tile));
    let [sum_rows, left_rows, right_rows] = [rows[0]?, rows[1]?, rows[2]?];
    let [width, depth, right_width] = [sums, left, right].map(|tile| state.bytes_per_row[tile] / 4);
    let fits = sum_rows == left_rows && depth == right_rows && width == right_width;
    if !fits || sums == left || left == right || sums == right {
        return None;
    }
    let (a, b) = (state.tiles[left], state.tiles[right]);
    let out = &mut state.tiles[sums];
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("fma") {
        // SAFETY: the processor has the instructions.
        unsafe { multiply_with_fma(out, &a, &b, [sum_rows, depth, width]) };
        return Some(());
    }
    multiply_tiles(out, &a, &b, [sum_rows, depth, width]);
    Some(())
}

#[target_feature(enable = "avx2,fma")]
fn multiply_with_fma(out: &mut [Row; SIDE], a: &[Row; SIDE], b: &[Row; SIDE], sides: [usize; 3]) {
    multiply_tiles(out, a, b, sides);
}

/// For each element, the products of the even elements of the pairs and those of the odd ones are summed apart from each other,
/// by multiply-adds that round once, to the nearest, ties to even. Then both sums are added, and their sum to the tile. What
/// is below the normal range counts as zero before and after each step.
#[inline(always)]
fn multiply_tiles(
    out: &mut [Row; SIDE],
    a: &[Row; SIDE],
    b: &[Row; SIDE],
    [rows, depth, width]: [usize; 3],
) {
    for row in 0..SIDE {
        let mut sums = [[0.0f32; 2]; SIDE];
        for (left, right) in a[row].iter().zip(b).take(depth) {
            let left = halves(*left);
            for (sums, right) in sums.iter_mut().zip(right) {
                let right = halves(*right);
                for half in 0..2 {
                    sums[half] = flushed(left[half].mul_add(right[half], sums[half]));
                }
            }
        }
        for (column, out) in out[row].iter_mut().enumerate() {
            *out = if row < rows && column < width {
                let both = flushed(sums[column][0] + sums[column][1]);
                flushed(flushed(f32::from_bits(*out)) + both).to_bits()
            } else {
                0
            };
        }
    }
}

/// The two bfloat16 of a pair as 32-bit floats.
#[inline(always)]
fn halves(pair: u32) -> [f32; 2] {
    [pair << 16, pair & 0xffff_0000].map(|bits| flushed(f32::from_bits(bits)))
}

/// Zero, with its sign, for what is below the normal range.
#[inline(always)]
fn flushed(x: f32) -> f32 {
    if x.abs() < f32::MIN_POSITIVE {
        0f32.copysign(x)
    } else {
        x
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::arch::asm;

    /// Each operand where the encoding has it: every tile as a sum, as a left and as a right factor, and addresses with every
    /// form of displacement, with registers of both halves of the register file.
    #[test]
    fn operands_are_where_the_assembler_puts_them() {
        if super::super::Avx512Bf16::detect().is_none() || super::super::has_instructions() {
            return;
        }
        start();
        // SAFETY: the instructions are emulated; the memory that they use is that of the arrays.
        unsafe {
            let mut configuration = [0u8; 64];
            configuration[0] = 1;
            for tile in 0..TILES {
                configuration[16 + 2 * tile] = 8;
                configuration[48 + tile] = 2;
            }
            let ones = [[0x3f80_3f80u32; 2]; 2];
            let twos = [[0x4000_4000u32; 2]; 2];
            let mut found = [[0f32; 40]; 4];
            asm!(
                "ldtilecfg [{configuration}]",
                "tileloadd tmm3, [{ones} + {stride}*4]",
                "tileloadd tmm6, [{twos} + {stride}*4]",
                "tilezero tmm5",
                "tdpbf16ps tmm5, tmm3, tmm6",
                "tdpbf16ps tmm5, tmm3, tmm6",
                "tilestored [r13 + {wide}*1], tmm5",
                "tilestored [r13 + {wide}*1 + 16], tmm3",
                "tilestored [r13 + {wide}*2 + 128], tmm6",
                "tilerelease",
                configuration = in(reg) configuration.as_ptr(),
                ones = in(reg) ones.as_ptr(),
                twos = in(reg) twos.as_ptr(),
                stride = in(reg) 2usize,
                wide = in(reg) size_of::<[f32; 40]>(),
                in("r13") found.as_mut_ptr(),
                out("tmm3") _, out("tmm5") _, out("tmm6") _,
                options(nostack),
            );
            // Four products of 1 and 2 in each sum, twice; the factors as they were; nothing else.
            let mut expected = [[0f32; 40]; 4];
            for row in 0..2 {
                expected[row][..2].fill(16.0);
                expected[row][4..6].fill(f32::from_bits(0x3f80_3f80));
                expected[2 * row][32..34].fill(f32::from_bits(0x4000_4000));
            }
            assert_eq!(found, expected);
        }
    }

    /// The order of the sums, which rounding shows, and numbers below the normal range.
    #[test]
    fn sums_are_made_in_the_documented_order() {
        let pair = |low: f32, high: f32| low.to_bits() >> 16 | high.to_bits() & 0xffff_0000;
        let product = |start: f32, pairs: &[[f32; 2]]| {
            let (mut a, mut b, mut out) = ([[0; SIDE]; SIDE], [[0; SIDE]; SIDE], [[0; SIDE]; SIDE]);
            out[0][0] = start.to_bits();
            for (at, [low, high]) in pairs.iter().enumerate() {
                a[0][at] = pair(*low, *high);
                b[at][0] = pair(1.0, 1.0);
            }
            multiply_tiles(&mut out, &a, &b, [1, pairs.len(), 1]);
            f32::from_bits(out[0][0])
        };
        let large = 2f32.powi(24);
        // Each 1 is lost beside the large number, but not if they are summed first, or apart from it.
        assert_eq!(product(large, &[[1.0, 1.0]]), large + 2.0);
        assert_eq!(product(0.0, &[[large, 1.0], [1.0, 1.0]]), large + 2.0);
        assert_eq!(product(0.0, &[[large, 1.0], [1.0, 0.0], [1.0, 0.0]]), large);
        assert_eq!(product(0.0, &[[1.0, 2.0], [-3.0, 0.5]]), 0.5);
        let tiny = f32::MIN_POSITIVE / 2.0;
        assert_eq!(product(0.0, &[[tiny, 0.0]]), 0.0);
        assert_eq!(product(tiny, &[[0.0, 0.0]]), 0.0);
        assert!(product(0.0, &[[f32::INFINITY, f32::NEG_INFINITY]]).is_nan());
    }
}
