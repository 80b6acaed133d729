use std::fmt;
use std::str::FromStr;

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use rand_distr::StandardNormal;
use serde::{Deserialize, Serialize};

/// Standard deviation of the Gaussian initialisations, from the authors' code.
const GAUSSIAN_STD: f64 = 0.02;

/// How an adapter's factors start. In each the update `B T A` is exactly zero at the start. Methods with a start of their
/// own, as AdaLoRA, have that whatever is chosen here.
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

/// The values with which one factor starts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Start {
    /// The same value everywhere.
    Constant(f32),
    /// This value on the diagonal, zero elsewhere.
    Diagonal(f32),
    /// A normal distribution around zero with the authors' standard deviation, 0.02.
    Gaussian,
    /// PyTorch's `kaiming_uniform_(a=sqrt(5))`, where the fan-in is the number of columns.
    KaimingUniform,
    /// For a factor `[output, 1]`: the Euclidean norms of the adapted rows of the frozen weight, `[out, in]`. This is
    /// how the magnitude of DoRA starts (arXiv 2402.09353). It cannot be a [neutral](crate::Factor::neutral) start, because the weight is not known there.
    OutputNorms,
}

impl Start {
    /// The values of a matrix of this shape, row by row. `norms` gives the norms of the weight's adapted rows.
    pub(crate) fn values(
        self,
        rng: &mut ChaCha8Rng,
        [rows, columns]: [usize; 2],
        norms: &dyn Fn() -> Vec<f32>,
    ) -> Vec<f32> {
        let len = rows.saturating_mul(columns);
        match self {
            Start::Constant(value) => vec![value; len],
            Start::Diagonal(value) => {
                let mut matrix = vec![0.0; len];
                matrix
                    .iter_mut()
                    .step_by(columns + 1)
                    .for_each(|x| *x = value);
                matrix
            }
            Start::Gaussian => gaussian(rng, len),
            Start::KaimingUniform => kaiming_uniform(rng, len, columns),
            Start::OutputNorms => norms(),
        }
    }
}

/// The generator of an adapter's starting values. They are drawn on the host, so that they depend on `seed` and
/// `index` (which adapter of the model it is) and on nothing of the device.
pub(crate) fn generator(seed: u64, index: u64) -> ChaCha8Rng {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(index);
    rng
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::adapter::methods::definition::Sizes;
    use crate::{AdapterMethod, Structure};

    fn std(values: &[f32]) -> f64 {
        (values.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>() / values.len() as f64).sqrt()
    }

    /// The starting values of a factor of an adapter of rank 8 on a weight of 300 x 200.
    fn start(init: Init, structure: Structure, name: &str) -> Vec<f32> {
        let sizes = Sizes {
            rank: 8,
            total_rank: 8,
            input: 300,
            output: 200,
        };
        let mut rng = generator(1, 0);
        let method = AdapterMethod::from(structure);
        let mut drawn = method.factors().iter().map(|factor| {
            let values = (factor.start)(init).values(&mut rng, (factor.shape)(&sizes), &Vec::new);
            (factor.name, values)
        });
        drawn.find(|(known, _)| *known == name).unwrap().1
    }

    #[test]
    fn kaiming_is_uniform_within_its_bound() {
        let factor = |name| start(Init::Kaiming, Structure::Shim, name);
        let bound = 1.0 / 300f64.sqrt();
        let a = factor("a");
        assert!(a.iter().all(|v| f64::from(v.abs()) <= bound));
        assert!((std(&a) / (bound / 3f64.sqrt()) - 1.0).abs() < 0.05);
        assert!(factor("b").iter().all(|v| *v == 0.0));
        assert!((std(&factor("c")) / (1.0 / 24f64.sqrt()) - 1.0).abs() < 0.3);
    }

    #[test]
    fn gaussians_have_the_authors_deviation() {
        let factor = |name| start(Init::Zero, Structure::Ctcm, name);
        for values in [factor("a"), factor("b")] {
            assert!((std(&values) / GAUSSIAN_STD - 1.0).abs() < 0.05);
        }
        assert!(factor("c").iter().all(|v| *v == 0.0));
        assert!(factor("d").iter().any(|v| *v != 0.0));
    }

    #[test]
    fn draws_depend_on_seed_and_index_only() {
        let a = |seed, index| {
            let mut rng = generator(seed, index);
            Start::KaimingUniform.values(&mut rng, [8, 300], &Vec::new)
        };
        assert_eq!(a(3, 4), a(3, 4));
        assert_ne!(a(3, 4), a(3, 5));
        assert_ne!(a(3, 4), a(4, 4));
    }
}
