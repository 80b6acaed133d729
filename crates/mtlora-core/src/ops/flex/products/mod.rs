//! Products of matrices: [`matmul`] of small and strided ones, in a folder for each instruction set linear layers'
//! products and what attention multiplies, and in `thin` an adapter's.

#[cfg(target_arch = "x86_64")]
mod aligned;
#[cfg(target_arch = "x86_64")]
pub(super) mod amx;
#[cfg(target_arch = "x86_64")]
pub(super) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(super) mod avx512;
#[cfg(target_arch = "x86_64")]
mod blocked;
#[cfg(target_arch = "x86_64")]
mod columns;
pub(super) mod matmul;
pub(super) mod packed;
#[cfg(target_arch = "x86_64")]
pub(super) mod packed_panels;
#[cfg(target_arch = "x86_64")]
mod padded;
#[cfg(target_arch = "x86_64")]
mod pieces;
#[cfg(target_arch = "x86_64")]
mod thin;
pub(super) mod triangle;
pub(super) mod view;

/// Below this many products, threads cost more than they bring. Under Miri, which is too slow for as many, threads
/// share even small products, so that it checks them.
const WORTH_THREADS: usize = if cfg!(miri) { 1 } else { 1 << 18 };
