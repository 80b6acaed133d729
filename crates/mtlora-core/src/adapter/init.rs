use std::fmt;
use std::str::FromStr;

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use rand_distr::StandardNormal;
use serde::{Deserialize, Serialize};

use crate::Structure;

/// Standard deviation of the Gaussian initialisations, from the authors' code.
const GAUSSIAN_STD: f64 = 0.02;

/// How `A`, `B`, `C` and `D` start. In each the update `B T A` is exactly zero at the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Init {
    /// `B = 0`; `A`, `C`, `D` Kaiming uniform with `a = sqrt(5)`, that is `U(-1/sqrt(fan_in),
    /// 1/sqrt(fan_in))`. The paper's runs on GLUE and on generation.
    Kaiming,
    /// `B = 0`, `A` Gaussian with standard deviation 0.02, `C` and `D` such that `T = I`. The
    /// authors' later advice.
    Identity,
    /// `C = 0` (and `D = 0`, but Gaussian in `ctcm`); `A` and `B` Gaussian with standard deviation
    /// 0.02. The authors' multimodal runs. Not for `lora`, which has no `C`, nor for `icfm`, where
    /// the gradient of `C Cᵀ` vanishes at `C = 0` so that nothing would ever train.
    Zero,
}

impl Init {
    /// Every initialisation, the default first.
    pub const ALL: [Init; 3] = [Init::Kaiming, Init::Identity, Init::Zero];

    /// The lower-case name, as files and flags have it.
    pub fn name(self) -> &'static str {
        match self {
            Init::Kaiming => "kaiming",
            Init::Identity => "identity",
            Init::Zero => "zero",
        }
    }

    /// Whether training can leave this start with that structure.
    pub fn suits(self, structure: Structure) -> bool {
        self != Init::Zero || !matches!(structure, Structure::Lora | Structure::Icfm)
    }
}

impl fmt::Display for Init {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Init {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        Init::ALL
            .into_iter()
            .find(|init| init.name() == s)
            .ok_or_else(|| format!("unknown initialisation `{s}`: one of kaiming, identity, zero"))
    }
}

/// The starting values of one adapter, row-major.
pub(crate) struct Factors {
    pub a: Vec<f32>,
    pub b: Vec<f32>,
    pub c: Option<Vec<f32>>,
    pub d: Option<Vec<f32>>,
}

/// Their shapes.
#[derive(Clone, Copy)]
pub(crate) struct Shapes {
    pub a: [usize; 2],
    pub b: [usize; 2],
    /// The side of `C` and `D`.
    pub square: usize,
}

/// Draws starting values on the host, so that they depend on `seed` and `index` (which adapter of
/// the model it is) and on nothing of the device.
pub(crate) fn draw(
    init: Init,
    structure: Structure,
    shapes: Shapes,
    seed: u64,
    index: u64,
) -> Factors {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(index);

    let size = |[rows, columns]: [usize; 2]| rows * columns;
    let a = match init {
        Init::Kaiming => kaiming_uniform(&mut rng, size(shapes.a), shapes.a[1]),
        Init::Identity | Init::Zero => gaussian(&mut rng, size(shapes.a)),
    };
    let b = match init {
        Init::Kaiming | Init::Identity => vec![0.0; size(shapes.b)],
        Init::Zero => gaussian(&mut rng, size(shapes.b)),
    };
    let rank = shapes.square;
    let square = rank * rank;
    let c = structure.has_c().then(|| match init {
        Init::Kaiming => kaiming_uniform(&mut rng, square, rank),
        Init::Identity if structure == Structure::Dtsm => diagonal(rank, 0.5),
        Init::Identity => diagonal(rank, 1.0),
        Init::Zero => vec![0.0; square],
    });
    let d = structure.has_d().then(|| match init {
        Init::Kaiming => kaiming_uniform(&mut rng, square, rank),
        Init::Identity if structure == Structure::Dtsm => diagonal(rank, 0.5),
        Init::Identity => diagonal(rank, 1.0),
        Init::Zero if structure == Structure::Ctcm => gaussian(&mut rng, square),
        Init::Zero => vec![0.0; square],
    });
    Factors { a, b, c, d }
}

/// PyTorch's `kaiming_uniform_(a=sqrt(5))`: bound `sqrt(6 / ((1 + 5) fan_in)) = 1 / sqrt(fan_in)`.
fn kaiming_uniform(rng: &mut ChaCha8Rng, len: usize, fan_in: usize) -> Vec<f32> {
    let bound = 1.0 / (fan_in as f64).sqrt();
    (0..len)
        .map(|_| ((2.0 * rng.random::<f64>() - 1.0) * bound) as f32)
        .collect()
}

fn gaussian(rng: &mut ChaCha8Rng, len: usize) -> Vec<f32> {
    (0..len)
        .map(|_| (GAUSSIAN_STD * rng.sample::<f64, _>(StandardNormal)) as f32)
        .collect()
}

pub(crate) fn diagonal(rank: usize, value: f32) -> Vec<f32> {
    let mut matrix = vec![0.0; rank * rank];
    matrix.iter_mut().step_by(rank + 1).for_each(|x| *x = value);
    matrix
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPES: Shapes = Shapes {
        a: [8, 300],
        b: [200, 8],
        square: 8,
    };

    fn std(values: &[f32]) -> f64 {
        (values.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>() / values.len() as f64).sqrt()
    }

    #[test]
    fn kaiming_is_uniform_within_its_bound() {
        let factors = draw(Init::Kaiming, Structure::Shim, SHAPES, 1, 0);
        let bound = 1.0 / 300f64.sqrt();
        assert!(factors.a.iter().all(|v| f64::from(v.abs()) <= bound));
        assert!((std(&factors.a) / (bound / 3f64.sqrt()) - 1.0).abs() < 0.05);
        assert!(factors.b.iter().all(|v| *v == 0.0));
        assert!((std(&factors.c.unwrap()) / (1.0 / 24f64.sqrt()) - 1.0).abs() < 0.3);
    }

    #[test]
    fn gaussians_have_the_authors_deviation() {
        let factors = draw(Init::Zero, Structure::Ctcm, SHAPES, 1, 0);
        for values in [&factors.a, &factors.b] {
            assert!((std(values) / GAUSSIAN_STD - 1.0).abs() < 0.05);
        }
        assert!(factors.c.unwrap().iter().all(|v| *v == 0.0));
        assert!(factors.d.unwrap().iter().any(|v| *v != 0.0));
    }

    #[test]
    fn draws_depend_on_seed_and_index_only() {
        let a = |seed, index| draw(Init::Kaiming, Structure::Lora, SHAPES, seed, index).a;
        assert_eq!(a(3, 4), a(3, 4));
        assert_ne!(a(3, 4), a(3, 5));
        assert_ne!(a(3, 4), a(4, 4));
    }
}
