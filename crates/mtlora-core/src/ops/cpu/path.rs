//! The ways to compute on a processor, and the choice between them.

use std::fmt;
use std::str::FromStr;
use std::sync::OnceLock;

#[cfg(target_arch = "x86_64")]
use super::{amx::Amx, avx2::Avx2, avx512::Avx512, avx512bf16::Avx512Bf16};
#[cfg(target_arch = "aarch64")]
use super::{neon::Neon, neonbf16::NeonBf16};

/// A way to compute on the processor. The first is for every processor, `Neon` and `NeonBf16` are for 64-bit ARM, and the others
/// for x86-64. Each also uses the instructions of those before it for the same kind of processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CpuPath {
    /// What every processor has. Matrix products are those of the `gemm` crate, which chooses instructions for itself.
    Portable,
    /// AVX2 and FMA.
    Avx2,
    /// AVX-512 (F, BW, DQ and VL).
    Avx512,
    /// AVX-512 with products of pairs of bfloat16.
    Avx512Bf16,
    /// The same with AMX's products of tiles of bfloat16. 32-bit floats are split into parts of it.
    Amx,
    /// 64-bit ARM's NEON.
    Neon,
    /// NEON with products of small matrices of bfloat16 (`FEAT_BF16`).
    NeonBf16,
}

impl CpuPath {
    /// All of them, each kind of processor's from the slowest to the fastest.
    pub const ALL: [Self; 7] = [
        Self::Portable,
        Self::Avx2,
        Self::Avx512,
        Self::Avx512Bf16,
        Self::Amx,
        Self::Neon,
        Self::NeonBf16,
    ];

    /// The name that the environment variable and listings use.
    pub fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
            Self::Avx512Bf16 => "avx512bf16",
            Self::Amx => "amx",
            Self::Neon => "neon",
            Self::NeonBf16 => "neonbf16",
        }
    }

    /// Whether the processor has the instructions, and the operating system lets the program use them.
    pub fn is_available(self) -> bool {
        #[cfg(target_arch = "x86_64")]
        match self {
            Self::Portable => true,
            Self::Avx2 => Avx2::detect().is_some(),
            Self::Avx512 => Avx512::detect().is_some(),
            Self::Avx512Bf16 => Avx512Bf16::detect().is_some(),
            Self::Amx => Amx::detect().is_some(),
            Self::Neon | Self::NeonBf16 => false,
        }
        #[cfg(target_arch = "aarch64")]
        match self {
            Self::Portable => true,
            Self::Neon => Neon::detect().is_some(),
            Self::NeonBf16 => NeonBf16::detect().is_some(),
            Self::Avx2 | Self::Avx512 | Self::Avx512Bf16 | Self::Amx => false,
        }
        #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
        {
            self == Self::Portable
        }
    }

    /// Why a path that is not available is not: the end of a sentence.
    fn obstacle(self) -> String {
        #[cfg(target_arch = "x86_64")]
        if let (Self::Amx, Err(error)) = (self, Amx::proven()) {
            return error.to_string();
        }
        "this processor lacks the instructions for it".to_string()
    }

    /// What keeps the program from instructions that the processor has, if anything does: a sentence without its full stop.
    pub fn unused() -> Option<String> {
        #[cfg(target_arch = "x86_64")]
        if let Some(error) = Amx::proven().err().filter(|error| error.has_instructions()) {
            return Some(format!("{} is not used, because {error}", Self::Amx));
        }
        None
    }

    /// Those that the processor has the instructions for, from the slowest to the fastest. The first is
    /// [`Portable`](Self::Portable).
    pub fn available() -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(|path| path.is_available())
    }

    /// Whether the path's own instructions make it faster than the one before it.
    fn is_faster(self) -> bool {
        #[cfg(target_arch = "x86_64")]
        if self == Self::Avx512Bf16 {
            return Avx512Bf16::detect().is_some_and(Avx512Bf16::is_fast);
        }
        true
    }

    /// The fastest of this processor.
    fn fastest() -> Self {
        let faster = Self::available().filter(|path| path.is_faster());
        faster.last().unwrap_or(Self::Portable)
    }
}

impl fmt::Display for CpuPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for CpuPath {
    type Err = CpuPathError;

    fn from_str(name: &str) -> Result<Self, CpuPathError> {
        let found = Self::ALL.into_iter().find(|path| path.name() == name);
        found.ok_or_else(|| CpuPathError::Unknown {
            value: name.to_string(),
        })
    }
}

/// The value of the environment variable [`CpuChoice::VARIABLE`] cannot be followed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CpuPathError {
    /// It is not the name of a path.
    #[error(
        "{} is `{value}`, but must be one of {}",
        CpuChoice::VARIABLE,
        names(CpuPath::ALL)
    )]
    Unknown {
        /// The value.
        value: String,
    },
    /// It names a path that cannot be taken here.
    #[error(
        "{} is `{path}`, but {obstacle}; there is {}",
        CpuChoice::VARIABLE,
        names(CpuPath::available())
    )]
    Unavailable {
        /// The path that was named.
        path: CpuPath,
        /// What is in the way, as the end of a sentence.
        obstacle: String,
    },
}

fn names(paths: impl IntoIterator<Item = CpuPath>) -> String {
    let names: Vec<&str> = paths.into_iter().map(CpuPath::name).collect();
    names.join(", ")
}

/// The path that the kernels for the CPU take in this process, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CpuChoice {
    /// The path.
    pub path: CpuPath,
    /// Whether the environment variable named it. Otherwise it is the fastest of this processor.
    pub is_requested: bool,
}

impl CpuChoice {
    /// The environment variable that restricts the path to the one that it names. It is read once in a process.
    pub const VARIABLE: &str = "MTLORA_CPU";

    /// Reads the choice. A program should do so before it computes anything, because the kernels take the fastest path if
    /// this is an error.
    ///
    /// # Errors
    /// When the environment variable [`VARIABLE`](Self::VARIABLE) names no path, or one that cannot be taken here: the
    /// processor lacks the instructions, or the operating system does not permit them.
    pub fn read() -> Result<Self, CpuPathError> {
        static CHOICE: OnceLock<Result<CpuChoice, CpuPathError>> = OnceLock::new();
        CHOICE
            .get_or_init(|| {
                let value = std::env::var_os(Self::VARIABLE).unwrap_or_default();
                Self::of(&value.to_string_lossy())
            })
            .clone()
    }

    /// Why the path is this one, and which slower ones can be asked for: the rest of a sentence that names the path.
    pub fn reason(self) -> String {
        if self.is_requested {
            return format!("which {} names", Self::VARIABLE);
        }
        let slower: Vec<CpuPath> = CpuPath::available()
            .filter(|path| *path != self.path)
            .collect();
        if slower.is_empty() {
            return "which every processor can use".to_string();
        }
        let unused = CpuPath::unused().map_or_else(String::new, |unused| format!("; {unused}"));
        format!(
            "the fastest path that can be used here ({} can name {} instead{unused})",
            Self::VARIABLE,
            names(slower)
        )
    }

    /// The choice that the kernels follow.
    #[cfg(feature = "flex")]
    pub(in crate::ops) fn followed() -> Self {
        static FOLLOWED: OnceLock<CpuChoice> = OnceLock::new();
        *FOLLOWED.get_or_init(|| Self::read().unwrap_or(Self::fastest()))
    }

    fn fastest() -> Self {
        Self {
            path: CpuPath::fastest(),
            is_requested: false,
        }
    }

    /// The choice for a value of the variable. An empty one is the same as none.
    fn of(value: &str) -> Result<Self, CpuPathError> {
        if value.is_empty() {
            return Ok(Self::fastest());
        }
        let path: CpuPath = value.parse()?;
        if !path.is_available() {
            let obstacle = path.obstacle();
            return Err(CpuPathError::Unavailable { path, obstacle });
        }
        Ok(Self {
            path,
            is_requested: true,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_read_or_refused() {
        for path in CpuPath::ALL {
            assert_eq!(path.name().parse(), Ok(path));
            let expected = if path.is_available() {
                Ok(CpuChoice {
                    path,
                    is_requested: true,
                })
            } else {
                let obstacle = path.obstacle();
                Err(CpuPathError::Unavailable { path, obstacle })
            };
            assert_eq!(CpuChoice::of(path.name()), expected);
        }
        let error = CpuChoice::of("AVX2").unwrap_err().to_string();
        assert_eq!(
            error,
            "MTLORA_CPU is `AVX2`, but must be one of portable, avx2, avx512, avx512bf16, amx, neon, neonbf16"
        );
    }

    #[test]
    fn without_a_name_it_is_the_fastest() {
        let choice = CpuChoice::of("").unwrap();
        assert!(!choice.is_requested);
        assert!(CpuPath::available().all(|path| path <= choice.path || !path.is_faster()));
        assert!(choice.path.is_available());
        assert_eq!(CpuPath::available().next(), Some(CpuPath::Portable));
    }
}
