use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicU8, Ordering};

/// How exactly the products of linear layers' 32-bit floats are computed in this process, with PyTorch's names
/// (`torch.set_float32_matmul_precision`).
///
/// It matters where the processor multiplies tiles of bfloat16 ([`CpuPath::Amx`](crate::CpuPath::Amx)), for products of 32 rows or more: a
/// float is split into a sum of bfloat16 there. Everywhere else, products have the digits of 32-bit floats.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum MatmulPrecision {
    /// As exact as with multiplications of 32-bit floats: three parts, six products.
    #[default]
    Highest,
    /// 16 of the 24 bits of each factor: two parts, three products.
    High,
    /// 8 bits of each factor, which is bfloat16: one product.
    Medium,
}

/// What the products of this process follow: an index of [`MatmulPrecision::ALL`].
static CHOSEN: AtomicU8 = AtomicU8::new(0);

impl MatmulPrecision {
    /// All of them, from the most exact to the fastest.
    pub const ALL: [Self; 3] = [Self::Highest, Self::High, Self::Medium];

    /// The name that flags use.
    pub fn name(self) -> &'static str {
        match self {
            Self::Highest => "highest",
            Self::High => "high",
            Self::Medium => "medium",
        }
    }

    /// Has products computed so from now on, in the whole process.
    pub fn choose(self) {
        CHOSEN.store(self as u8, Ordering::Relaxed);
    }

    /// How products are computed now.
    pub fn chosen() -> Self {
        let index = usize::from(CHOSEN.load(Ordering::Relaxed));
        Self::ALL.get(index).copied().unwrap_or_default()
    }
}

impl fmt::Display for MatmulPrecision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The name is not that of a precision.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{value}` is no precision of products: use highest, high or medium")]
pub struct MatmulPrecisionError {
    value: String,
}

impl FromStr for MatmulPrecision {
    type Err = MatmulPrecisionError;

    fn from_str(name: &str) -> Result<Self, MatmulPrecisionError> {
        let found = Self::ALL.into_iter().find(|known| known.name() == name);
        found.ok_or_else(|| MatmulPrecisionError {
            value: name.to_string(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_read_and_others_are_refused() {
        for precision in MatmulPrecision::ALL {
            assert_eq!(precision.to_string().parse(), Ok(precision));
        }
        let error = "low".parse::<MatmulPrecision>().unwrap_err();
        assert!(error.to_string().contains("`low`"));
        // Other tests of this process multiply, so that nothing but the default is chosen here.
        MatmulPrecision::default().choose();
        assert_eq!(MatmulPrecision::chosen(), MatmulPrecision::Highest);
    }
}
