//! Which instructions a kernel may use.
//!
//! A kernel reaches more than the oldest x86-64 has in one of two ways:
//!
//! - **A loop in plain Rust** is written within [`vectorized!`], which compiles it several times and picks one while
//!   the program runs. The compiler makes its loops as wide as the registers. A loop outside of it is compiled for the
//!   oldest x86-64, four floats wide.
//! - **A kernel of intrinsics** (`products/avx2`, `products/avx512`, `products/amx`, `products/neon`, `products/thin`) is a function
//!   with `#[target_feature]`, which is unsafe to call. Its callers have an `Avx2`, an `Avx512`, an `Avx512Bf16`, an `Amx` or a
//!   `NeonBf16`, values that only a processor with the instructions can make: so the safety of the call is that there is such a
//!   value, and nothing has to be asserted. (NEON itself is part of 64-bit ARM, and so of every function.)
//!
//! The functions here give these values where the path that was chosen ([`CpuChoice`]) has the instructions. Another
//! instruction set needs a type in `ops/cpu`, a function here, and an arm in the macro or a module beside
//! `products/avx512`. The `pulp` crate is used for casts between registers and arrays alone.

#[cfg(target_arch = "x86_64")]
pub(super) use crate::ops::cpu::{Amx, Avx2, Avx512, Avx512Bf16};
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
use crate::ops::cpu::{CpuChoice, CpuPath};
#[cfg(target_arch = "aarch64")]
pub(super) use crate::ops::cpu::{Neon, NeonBf16};

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
fn allows(path: CpuPath) -> bool {
    CpuChoice::followed().path >= path
}

/// The proof that kernels may use AVX2 and FMA.
#[cfg(target_arch = "x86_64")]
#[inline]
pub(super) fn avx2() -> Option<Avx2> {
    allows(CpuPath::Avx2).then(Avx2::detect).flatten()
}

/// The proof that kernels may use AVX-512.
#[cfg(target_arch = "x86_64")]
#[inline]
pub(super) fn avx512() -> Option<Avx512> {
    allows(CpuPath::Avx512).then(Avx512::detect).flatten()
}

/// The proof that kernels may use AVX-512's products of bfloat16: where they are faster than products of 32-bit floats, or where
/// the path was asked for by its name.
#[cfg(target_arch = "x86_64")]
#[inline]
pub(super) fn avx512_bf16() -> Option<Avx512Bf16> {
    let named = CpuChoice::followed().path == CpuPath::Avx512Bf16;
    allows(CpuPath::Avx512Bf16)
        .then(Avx512Bf16::detect)
        .flatten()
        .filter(|bf16| named || bf16.is_fast())
}

/// The proof that kernels may use AMX.
#[cfg(target_arch = "x86_64")]
#[inline]
pub(in crate::ops) fn amx() -> Option<Amx> {
    allows(CpuPath::Amx).then(Amx::detect).flatten()
}

/// The proof that kernels may use NEON.
#[cfg(target_arch = "aarch64")]
#[inline]
pub(super) fn neon() -> Option<Neon> {
    allows(CpuPath::Neon).then(Neon::detect).flatten()
}

/// The proof that kernels may use NEON's products of bfloat16.
#[cfg(target_arch = "aarch64")]
#[inline]
pub(in crate::ops) fn neon_bf16() -> Option<NeonBf16> {
    allows(CpuPath::NeonBf16).then(NeonBf16::detect).flatten()
}

/// Whether products of bfloat16 have instructions of their own here, which are faster than those of 32-bit floats.
pub(in crate::ops) fn multiplies_bf16() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        avx512_bf16().is_some() || amx().is_some()
    }
    #[cfg(target_arch = "aarch64")]
    {
        neon_bf16().is_some()
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    {
        false
    }
}

/// Defines a function that is compiled for several instruction sets; the best that the chosen path has is taken when it
/// is called. Type parameters stand in square brackets: `fn each[F: Fn(f32) -> f32](x: &mut [f32], f: F)`.
macro_rules! vectorized {
    (
        $(#[$attribute:meta])*
        $visible:vis fn $name:ident $([$($generics:tt)*])? ($($argument:ident: $type:ty),* $(,)?) $(-> $result:ty)? $body:block
    ) => {
        $(#[$attribute])*
        $visible fn $name $(<$($generics)*>)? ($($argument: $type),*) $(-> $result)? {
            #[inline(always)]
            fn portable $(<$($generics)*>)? ($($argument: $type),*) $(-> $result)? $body

            #[cfg(target_arch = "x86_64")]
            {
                use crate::ops::flex::instructions;

                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,bmi1,bmi2")]
                fn avx512 $(<$($generics)*>)? ($($argument: $type),*) $(-> $result)? {
                    portable($($argument),*)
                }

                #[target_feature(enable = "avx2,fma,bmi1,bmi2")]
                fn avx2 $(<$($generics)*>)? ($($argument: $type),*) $(-> $result)? {
                    portable($($argument),*)
                }

                if instructions::avx512().is_some() {
                    // SAFETY: the value proves that the processor has the instructions.
                    return unsafe { avx512($($argument),*) };
                }
                if instructions::avx2().is_some() {
                    // SAFETY: as above.
                    return unsafe { avx2($($argument),*) };
                }
            }
            portable($($argument),*)
        }
    };
}

pub(super) use vectorized;
