use std::fmt;
use std::str::FromStr;

use burn::tensor::Tensor;
use nalgebra::DMatrix;
use serde::{Deserialize, Serialize};

/// How the transformation matrix `T` (`[rank, rank]`) is made from the learnable matrices `C` and
/// `D` (`[rank, rank]` each). Source: arXiv 2403.07440, section 3.
///
/// How the factors start is in [`Init`](crate::Init); both are what a further structure changes in this crate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Structure {
    /// `T = I`: plain LoRA (arXiv 2106.09685), the baseline. No further parameters.
    Lora,
    /// `T = C`: any linear map. `rank²` parameters.
    Shim,
    /// `T = C Cᵀ`: positive semi-definite, like a covariance. `rank²` parameters.
    Icfm,
    /// `T = C D`: two transformations one after the other. `2 rank²` parameters.
    Ctcm,
    /// `T = C + D`: two transformations superposed. `2 rank²` parameters.
    Dtsm,
}

impl Structure {
    /// Every structure, in the paper's order, the baseline first.
    pub const ALL: [Structure; 5] = [
        Structure::Lora,
        Structure::Shim,
        Structure::Icfm,
        Structure::Ctcm,
        Structure::Dtsm,
    ];

    /// Whether the structure has a matrix `C`.
    pub fn has_c(self) -> bool {
        self != Structure::Lora
    }

    /// Whether the structure has a matrix `D`.
    pub fn has_d(self) -> bool {
        matches!(self, Structure::Ctcm | Structure::Dtsm)
    }

    /// `T` (`[rank, rank]`) from `C` and `D`, or `None` where it is the identity.
    ///
    /// A matrix that the structure has but that is not given counts as the identity.
    pub fn transform(self, c: Option<Tensor<2>>, d: Option<Tensor<2>>) -> Option<Tensor<2>> {
        self.transform_of(c, d)
    }

    /// [`Self::transform`] of tensors or of matrices on the host.
    pub(crate) fn transform_of<M: Square>(self, c: Option<M>, d: Option<M>) -> Option<M> {
        match (self, c, d) {
            (Structure::Lora, _, _) | (_, None, None) => None,
            (Structure::Icfm, Some(c), _) => Some(c.clone().times(c.transposed())),
            (Structure::Ctcm, Some(c), Some(d)) => Some(c.times(d)),
            (Structure::Dtsm, Some(c), Some(d)) => Some(c.plus(d)),
            (_, Some(only), None) | (_, None, Some(only)) => Some(only),
            (Structure::Shim, Some(c), Some(_)) => Some(c),
        }
    }

    /// The lower-case name, as files and flags have it.
    pub fn name(self) -> &'static str {
        match self {
            Structure::Lora => "lora",
            Structure::Shim => "shim",
            Structure::Icfm => "icfm",
            Structure::Ctcm => "ctcm",
            Structure::Dtsm => "dtsm",
        }
    }
}

/// What making `T` takes.
pub(crate) trait Square: Clone {
    /// The matrix product.
    fn times(self, other: Self) -> Self;
    /// The sum.
    fn plus(self, other: Self) -> Self;
    /// The transpose.
    fn transposed(self) -> Self;
}

impl Square for Tensor<2> {
    fn times(self, other: Self) -> Self {
        self.matmul(other)
    }

    fn plus(self, other: Self) -> Self {
        self + other
    }

    fn transposed(self) -> Self {
        self.transpose()
    }
}

impl Square for DMatrix<f64> {
    fn times(self, other: Self) -> Self {
        self * other
    }

    fn plus(self, other: Self) -> Self {
        self + other
    }

    fn transposed(self) -> Self {
        self.transpose()
    }
}

impl fmt::Display for Structure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Structure {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        Structure::ALL
            .into_iter()
            .find(|structure| structure.name() == s)
            .ok_or_else(|| format!("unknown structure `{s}`: one of lora, shim, icfm, ctcm, dtsm"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::TensorData;

    fn matrices() -> (Tensor<2>, Tensor<2>) {
        let device = crate::devices()[0].device.clone();
        (
            Tensor::from_data([[1.0, 2.0], [3.0, 4.0]], &device),
            Tensor::from_data([[0.0, 1.0], [-1.0, 2.0]], &device),
        )
    }

    fn transform(structure: Structure) -> Option<TensorData> {
        let (c, d) = matrices();
        structure
            .transform(Some(c), structure.has_d().then_some(d))
            .map(Tensor::into_data)
    }

    #[test]
    fn transforms_are_the_papers() {
        assert!(transform(Structure::Lora).is_none());
        let expected = [
            (Structure::Shim, [[1.0f32, 2.0], [3.0, 4.0]]),
            (Structure::Icfm, [[5.0, 11.0], [11.0, 25.0]]),
            (Structure::Ctcm, [[-2.0, 5.0], [-4.0, 11.0]]),
            (Structure::Dtsm, [[1.0, 3.0], [2.0, 6.0]]),
        ];
        for (structure, matrix) in expected {
            let data = transform(structure).unwrap();
            data.assert_eq(&TensorData::from(matrix), true);
        }
    }

    #[test]
    fn names_round_trip() {
        for structure in Structure::ALL {
            assert_eq!(structure.to_string().parse(), Ok(structure));
        }
        assert!("loraa".parse::<Structure>().unwrap_err().contains("shim"));
    }
}
