//! Products of matrices: [`matmul`] of small and strided ones, in a folder for each instruction set linear layers'
//! products and what attention multiplies, and in `thin` an adapter's.

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod aligned;
#[cfg(target_arch = "x86_64")]
pub(super) mod amx;
#[cfg(target_arch = "x86_64")]
pub(super) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(super) mod avx512;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod blocked;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod columns;
pub(super) mod matmul;
#[cfg(target_arch = "aarch64")]
pub(super) mod neon;
pub(super) mod packed;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
pub(super) mod packed_panels;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod padded;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod pieces;
#[cfg(all(test, any(target_arch = "x86_64", target_arch = "aarch64")))]
mod testing;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod thin;
pub(super) mod triangle;
pub(super) mod view;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
pub(super) mod weights;

/// Below this many products, threads cost more than they bring. Under Miri, which is too slow for as many, threads
/// share even small products, so that it checks them.
const WORTH_THREADS: usize = if cfg!(miri) { 1 } else { 1 << 18 };
