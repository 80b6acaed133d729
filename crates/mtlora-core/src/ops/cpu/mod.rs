//! Which instructions the processor has, and which of them the kernels use: the one place that asks.
//!
//! Each instruction set has a type of its own in a file of its own, and only a processor that has the instructions can make
//! a value of it. A [`CpuPath`] is one of the ways to compute that these sets allow, and [`CpuChoice`] is the one that the
//! kernels take.

#[cfg(target_arch = "x86_64")]
mod amx;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
mod avx512bf16;
#[cfg(target_arch = "aarch64")]
mod neon;
#[cfg(target_arch = "aarch64")]
mod neonbf16;
mod path;

#[cfg(all(feature = "flex", target_arch = "x86_64"))]
pub(super) use amx::multiply_repeatedly;
#[cfg(all(feature = "flex", target_arch = "x86_64"))]
pub(super) use amx::{Amx, Block, FETCHED, Lines, PAIRS, Rows, SIDE, Start, Tiles, WIDTH};
#[cfg(all(feature = "flex", target_arch = "x86_64"))]
pub(super) use avx2::Avx2;
#[cfg(all(feature = "flex", target_arch = "x86_64"))]
pub(super) use avx512::Avx512;
#[cfg(all(feature = "flex", target_arch = "x86_64"))]
pub(super) use avx512bf16::Avx512Bf16;
#[cfg(all(feature = "flex", target_arch = "aarch64"))]
pub(super) use neon::Neon;
#[cfg(all(feature = "flex", target_arch = "aarch64"))]
pub(super) use neonbf16::NeonBf16;
pub use path::{CpuChoice, CpuPath, CpuPathError};
