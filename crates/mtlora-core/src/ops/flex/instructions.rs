//! Which instructions the processor has: the one file that asks.
//!
//! A kernel reaches more than the oldest x86-64 has in one of two ways:
//!
//! - **A loop in plain Rust** is written within [`vectorized!`], which compiles it several times and picks one while
//!   the program runs. The compiler makes its loops as wide as the registers. A loop outside of it is compiled for the
//!   oldest x86-64, four floats wide.
//! - **A kernel of intrinsics** (`avx512/`) is a function with `#[target_feature]`, which is unsafe to call. Its callers
//!   have an [`Avx512`] or [`Avx512Bf16`], values that only a processor with the instructions can make: so the safety of
//!   the call is that there is such a value, and nothing has to be asserted.
//!
//! Another instruction set needs a type here, and an arm in the macro or a module beside `avx512/`. The `pulp` crate is
//! used for casts between registers and arrays alone.

/// The processor has AVX2, FMA and the bit manipulation that comes with them.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy, Debug)]
pub(super) struct Avx2(());

#[cfg(target_arch = "x86_64")]
impl Avx2 {
    /// The proof, if the processor has the instructions.
    #[inline]
    pub(super) fn new() -> Option<Self> {
        let has = is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("bmi1")
            && is_x86_feature_detected!("bmi2");
        has.then_some(Self(()))
    }
}

/// The processor has AVX-512 with the instructions for bytes, words and double words, also on shorter registers, and
/// all that [`Avx2`] proves.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy, Debug)]
pub(super) struct Avx512(());

#[cfg(target_arch = "x86_64")]
impl Avx512 {
    /// The proof, if the processor has the instructions.
    #[inline]
    pub(super) fn new() -> Option<Self> {
        let has = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl");
        (has && Avx2::new().is_some()).then_some(Self(()))
    }
}

/// The processor multiplies pairs of bfloat16, beside all that [`Avx512`] proves.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy, Debug)]
pub(super) struct Avx512Bf16(());

#[cfg(target_arch = "x86_64")]
impl Avx512Bf16 {
    /// The proof, if the processor has the instructions.
    #[inline]
    pub(super) fn new() -> Option<Self> {
        let has = Avx512::new().is_some() && is_x86_feature_detected!("avx512bf16");
        has.then_some(Self(()))
    }
}

/// Whether products of bfloat16 have instructions of their own here.
pub(in crate::ops) fn multiplies_bf16() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        Avx512Bf16::new().is_some()
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        false
    }
}

/// Defines a function that is compiled for several instruction sets; the best that the processor has is chosen when it
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
                use crate::ops::flex::instructions::{Avx2, Avx512};

                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,bmi1,bmi2")]
                fn avx512 $(<$($generics)*>)? ($($argument: $type),*) $(-> $result)? {
                    portable($($argument),*)
                }

                #[target_feature(enable = "avx2,fma,bmi1,bmi2")]
                fn avx2 $(<$($generics)*>)? ($($argument: $type),*) $(-> $result)? {
                    portable($($argument),*)
                }

                if Avx512::new().is_some() {
                    // SAFETY: the value proves that the processor has the instructions.
                    return unsafe { avx512($($argument),*) };
                }
                if Avx2::new().is_some() {
                    // SAFETY: as above.
                    return unsafe { avx2($($argument),*) };
                }
            }
            portable($($argument),*)
        }
    };
}

pub(super) use vectorized;
