//! AMX: eight registers that hold a tile each, 16 rows of 64 bytes, and an instruction that multiplies two tiles.
//!
//! Four things must hold before a program may use them: the processor has the instructions, the operating system saves their
//! registers, it has permitted this process to use them, and each thread has configured its tiles. [`Amx`] proves the first
//! three, and that a product came out right; [`Tiles`] is the fourth.
//!
//! Rust has no stable intrinsics for these instructions, so they are written in assembly (`tiles.rs`). On a processor without
//! them, `emulated.rs` executes them in tests.

#[cfg(all(test, target_os = "linux", not(miri)))]
mod emulated;
mod self_test;
mod tiles;

use std::arch::x86_64::{__cpuid, __cpuid_count, _xgetbv};
use std::sync::OnceLock;

use super::avx512bf16::Avx512Bf16;
#[cfg(feature = "flex")]
pub(in crate::ops) use tiles::{
    Block, FETCHED, Lines, PAIRS, Rows, SIDE, Start, Tiles, WIDTH, multiply_repeatedly,
};

/// The processor multiplies tiles of bfloat16, the operating system permits it, a product came out right, and the processor
/// has all that [`Avx512Bf16`] proves.
#[derive(Clone, Copy, Debug)]
pub(in crate::ops) struct Amx(Avx512Bf16);

/// Why tiles cannot be used: the end of a sentence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(in crate::ops) enum AmxError {
    /// The processor, or the virtual machine, does not have all of the instructions.
    #[error("this processor lacks the instructions for it")]
    NoInstructions,
    /// The registers are not enabled, so the operating system would not save them.
    #[error("the operating system does not enable the registers of the processor's tiles")]
    NotEnabled,
    /// A tile is not 16 rows of 64 bytes, or there are not eight of them.
    #[error(
        "the processor's tiles have another size than the one that the kernels are written for"
    )]
    OtherTiles,
    /// The kernel's answer to the request for permission.
    #[error("the operating system did not permit the use of the processor's tiles (error {errno})")]
    NotPermitted {
        /// The error's number, as in `errno.h`.
        errno: i64,
    },
    /// The product of the self-test differs from the right one.
    #[error("the processor's tiles computed a wrong product in the self-test")]
    WrongProduct,
}

impl AmxError {
    /// Whether the processor has the instructions, and something else prevents their use.
    pub(super) fn has_instructions(self) -> bool {
        self != Self::NoInstructions
    }
}

impl Amx {
    /// The proof, if tiles can be used. The first call in a process asks the operating system for permission.
    pub(in crate::ops) fn detect() -> Option<Self> {
        Self::proven().ok()
    }

    /// The proof that tiles can be used, or the reason why they cannot.
    pub(super) fn proven() -> Result<Self, AmxError> {
        static PROOF: OnceLock<Result<Amx, AmxError>> = OnceLock::new();
        *PROOF.get_or_init(|| {
            let proof = Self::prove();
            // Processors without tiles have this path only in the tests that ask for it by name.
            #[cfg(all(test, target_os = "linux", not(miri)))]
            if proof.is_err() && std::env::var("MTLORA_CPU").as_deref() == Ok("amx") {
                return Self::emulated().ok_or(AmxError::NoInstructions);
            }
            proof
        })
    }

    fn prove() -> Result<Self, AmxError> {
        let avx512 = Avx512Bf16::detect().ok_or(AmxError::NoInstructions)?;
        if !has_instructions() {
            return Err(AmxError::NoInstructions);
        }
        if !registers_are_enabled() {
            return Err(AmxError::NotEnabled);
        }
        if !tiles_are_as_expected() {
            return Err(AmxError::OtherTiles);
        }
        request_permission()?;
        let amx = Self(avx512);
        if self_test::passes(amx) {
            Ok(amx)
        } else {
            Err(AmxError::WrongProduct)
        }
    }

    /// The proof for tests: that of the processor, or else one with instructions that are emulated.
    #[cfg(all(test, target_os = "linux", not(miri)))]
    pub(in crate::ops) fn for_tests() -> Option<Self> {
        Self::detect().or_else(Self::emulated)
    }

    /// A proof whose instructions are emulated in this process from now on, on a processor with all others.
    #[cfg(all(test, target_os = "linux", not(miri)))]
    fn emulated() -> Option<Self> {
        let avx512 = Avx512Bf16::detect()?;
        emulated::start();
        Some(Self(avx512))
    }

    /// The part of the proof that is about AVX-512.
    #[cfg(feature = "flex")]
    pub(in crate::ops) fn avx512_bf16(self) -> Avx512Bf16 {
        self.0
    }
}

/// Whether the processor has `AMX-TILE` and `AMX-BF16`: Intel's manual, CPUID leaf 7.
fn has_instructions() -> bool {
    const AMX_BF16: u32 = 1 << 22;
    const AMX_TILE: u32 = 1 << 24;
    if __cpuid(0).eax < 7 {
        return false;
    }
    let features = __cpuid_count(7, 0).edx;
    features & (AMX_TILE | AMX_BF16) == AMX_TILE | AMX_BF16
}

/// Whether the operating system has enabled the configuration and the data of tiles (XCR0's bits 17 and 18).
fn registers_are_enabled() -> bool {
    const OSXSAVE: u32 = 1 << 27;
    const TILES: u64 = 0b11 << 17;
    if __cpuid(1).ecx & OSXSAVE == 0 {
        return false;
    }
    // SAFETY: the bit that was just tested says that the instruction may be used.
    unsafe { _xgetbv(0) & TILES == TILES }
}

/// Whether there are eight tiles of 16 rows of 64 bytes, which are multiplied whole: CPUID leaves 0x1D and 0x1E.
fn tiles_are_as_expected() -> bool {
    if __cpuid(0).eax < 0x1e || __cpuid_count(0x1d, 0).eax < 1 {
        return false;
    }
    let palette = __cpuid_count(0x1d, 1);
    let (bytes_per_row, names) = (palette.ebx & 0xffff, palette.ebx >> 16);
    let rows = palette.ecx & 0xffff;
    let multiplier = __cpuid_count(0x1e, 0).ebx;
    let (most_rows, most_bytes) = (multiplier & 0xff, (multiplier >> 8) & 0xffff);
    [bytes_per_row, names, rows] == [64, 8, 16] && most_rows >= 16 && most_bytes >= 64
}

/// Asks Linux to let this process, with all of its threads, use the data of tiles. (Documentation/arch/x86/xstate.rst in
/// the kernel's source describes the request.)
#[cfg(target_os = "linux")]
fn request_permission() -> Result<(), AmxError> {
    const ARCH_PRCTL: i64 = 158;
    const ARCH_REQ_XCOMP_PERM: i64 = 0x1023;
    const XFEATURE_XTILEDATA: i64 = 18;
    let result: i64;
    // SAFETY: the system call reads and writes no memory of the process. It uses the registers that are named here.
    unsafe {
        std::arch::asm!(
            "syscall",
            inlateout("rax") ARCH_PRCTL => result,
            in("rdi") ARCH_REQ_XCOMP_PERM,
            in("rsi") XFEATURE_XTILEDATA,
            out("rcx") _,
            out("r11") _,
            options(nostack),
        );
    }
    match result {
        0 => Ok(()),
        error => Err(AmxError::NotPermitted { errno: -error }),
    }
}

/// Nobody has tried the path on another operating system.
#[cfg(not(target_os = "linux"))]
fn request_permission() -> Result<(), AmxError> {
    Err(AmxError::NotEnabled)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whatever the processor is, the answer is the same each time, and a proof comes with that of AVX-512.
    #[test]
    fn the_answer_does_not_change() {
        let first = Amx::proven().map(|_| ());
        assert_eq!(Amx::proven().map(|_| ()), first);
        if first.is_ok() {
            assert!(Avx512Bf16::detect().is_some());
        }
    }
}
