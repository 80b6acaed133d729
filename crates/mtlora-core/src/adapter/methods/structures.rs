//! The paper's four structures of `T`, and plain LoRA.

use std::fmt;
use std::str::FromStr;

use burn::tensor::Tensor;
use nalgebra::DMatrix;
use serde::{Deserialize, Serialize};

use super::definition::{AdapterMethod, Factor, MethodDefinition, RateGroup};
use crate::adapter::factors::Factors;
use crate::adapter::init::{Init, Start};

/// How the transformation matrix `T` (`[rank, rank]`) is made from the learnable matrices `C` and
/// `D` (`[rank, rank]` each). Source: arXiv 2403.07440, section 3.
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

/// `A`, the down projection: `[total_rank, in]`.
const A: Factor = Factor {
    name: "a",
    key: "lora_A.weight",
    embedding_key: "lora_embedding_A",
    shape: |sizes| [sizes.total_rank, sizes.input],
    vector: false,
    start: |init| match init {
        Init::Kaiming => Start::KaimingUniform,
        Init::Identity | Init::Zero => Start::Gaussian,
    },
    neutral: None,
    decays: true,
    rate: RateGroup::A,
};

/// `B`, the up projection: `[out, rank]`.
const B: Factor = Factor {
    name: "b",
    key: "lora_B.weight",
    embedding_key: "lora_embedding_B",
    shape: |sizes| [sizes.output, sizes.rank],
    vector: false,
    start: |init| match init {
        Init::Kaiming | Init::Identity => Start::Constant(0.0),
        Init::Zero => Start::Gaussian,
    },
    neutral: None,
    decays: true,
    rate: RateGroup::B,
};

/// `C` with `T = C`, `T = C Cᵀ` or `T = C D`: the identity makes `T` the identity.
const C: Factor = Factor {
    name: "c",
    key: "lora_C.weight",
    embedding_key: "lora_embedding_C",
    shape: |sizes| [sizes.total_rank, sizes.total_rank],
    vector: false,
    start: |init| match init {
        Init::Kaiming => Start::KaimingUniform,
        Init::Identity => Start::Diagonal(1.0),
        Init::Zero => Start::Constant(0.0),
    },
    neutral: Some(Start::Diagonal(1.0)),
    decays: true,
    rate: RateGroup::T,
};

/// `D` with `T = C D`. With `C = 0` it may not be zero too, or nothing would train.
const D: Factor = Factor {
    name: "d",
    key: "lora_D.weight",
    embedding_key: "lora_embedding_D",
    start: |init| match init {
        Init::Kaiming => Start::KaimingUniform,
        Init::Identity => Start::Diagonal(1.0),
        Init::Zero => Start::Gaussian,
    },
    ..C
};

/// `C` with `T = C + D`: half of the identity.
const HALF_C: Factor = Factor {
    start: |init| match init {
        Init::Kaiming => Start::KaimingUniform,
        Init::Identity => Start::Diagonal(0.5),
        Init::Zero => Start::Constant(0.0),
    },
    neutral: Some(Start::Diagonal(0.5)),
    ..C
};

/// `D` with `T = C + D`.
const HALF_D: Factor = Factor {
    name: D.name,
    key: D.key,
    embedding_key: D.embedding_key,
    ..HALF_C
};

pub(super) const LORA: [Factor; 2] = [A, B];
static WITH_C: [Factor; 3] = [A, B, C];
static CTCM: [Factor; 4] = [A, B, C, D];
static DTSM: [Factor; 4] = [A, B, HALF_C, HALF_D];

impl Structure {
    /// Every structure, in the paper's order, the baseline first.
    pub const ALL: [Structure; 5] = [
        Structure::Lora,
        Structure::Shim,
        Structure::Icfm,
        Structure::Ctcm,
        Structure::Dtsm,
    ];

    /// `T` (`[rank, rank]`) from `C` and `D`, or `None` where it is the identity.
    ///
    /// A matrix that the structure has but that is not given counts as the identity.
    pub fn transform(self, c: Option<Tensor<2>>, d: Option<Tensor<2>>) -> Option<Tensor<2>> {
        self.transform_of(c, d)
    }

    /// [`Self::transform`] of tensors or of matrices on the host.
    fn transform_of<M: Matrix>(self, c: Option<M>, d: Option<M>) -> Option<M> {
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

    fn definition(self) -> &'static dyn MethodDefinition {
        match self {
            Structure::Lora => &Structure::Lora,
            Structure::Shim => &Structure::Shim,
            Structure::Icfm => &Structure::Icfm,
            Structure::Ctcm => &Structure::Ctcm,
            Structure::Dtsm => &Structure::Dtsm,
        }
    }
}

impl From<Structure> for AdapterMethod {
    fn from(structure: Structure) -> Self {
        AdapterMethod::new(structure.definition())
    }
}

impl PartialEq<Structure> for AdapterMethod {
    fn eq(&self, other: &Structure) -> bool {
        *self == AdapterMethod::from(*other)
    }
}

impl MethodDefinition for Structure {
    fn name(&self) -> &'static str {
        Structure::name(*self)
    }

    fn factors(&self) -> &'static [Factor] {
        match self {
            Structure::Lora => const { &LORA },
            Structure::Shim | Structure::Icfm => &WITH_C,
            Structure::Ctcm => &CTCM,
            Structure::Dtsm => &DTSM,
        }
    }

    fn refuses(&self, init: Init) -> Option<&'static str> {
        match (init, self) {
            (Init::Zero, Structure::Lora) => Some("which has no C that could be zero"),
            (Init::Zero, Structure::Icfm) => {
                Some("where the gradient of C Cᵀ vanishes at C = 0, so that nothing would train")
            }
            _ => None,
        }
    }

    fn transform(&self, factors: &Factors<Tensor<2>>) -> Option<Tensor<2>> {
        self.transform_of(factors.get("c").cloned(), factors.get("d").cloned())
    }

    fn transform_on_host(&self, factors: &Factors<DMatrix<f64>>) -> Option<DMatrix<f64>> {
        self.transform_of(factors.get("c").cloned(), factors.get("d").cloned())
    }
}

/// The operations that make `T`.
trait Matrix: Clone {
    /// The matrix product.
    fn times(self, other: Self) -> Self;
    /// The sum.
    fn plus(self, other: Self) -> Self;
    /// The transpose.
    fn transposed(self) -> Self;
}

impl Matrix for Tensor<2> {
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

impl Matrix for DMatrix<f64> {
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
        let has_d = structure.factors().iter().any(|factor| factor.name == "d");
        structure
            .transform(Some(c), has_d.then_some(d))
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
