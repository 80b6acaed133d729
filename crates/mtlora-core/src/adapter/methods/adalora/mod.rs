//! AdaLoRA (arXiv 2303.10512): a low-rank update whose ranks are shared out among the layers while they train.
//!
//! `T = diag(e)`, so that the update is a sum of triplets: a column of `B`, a value of `e` and a row of `A`. While the
//! model trains, triplets are scored by how much the loss depends on them, and the `e` of those with the lowest scores
//! over all layers is set to zero, until a budget is reached. Numbers and order are those of PEFT's `tuners/adalora`.

pub(crate) mod hooks;
pub(crate) mod schedule;

use burn::tensor::{Tensor, TensorData};
use nalgebra::{DMatrix, DVector};

use super::definition::{AdapterMethod, Factor, MethodDefinition, RateGroup};
use crate::adapter::factors::Factors;
use crate::adapter::init::Start;

/// The method AdaLoRA: `A` and `B` start as normal distributions with the standard deviation 0.02, and `e`
/// (`[total_rank, 1]`) as zero, whatever [`Init`](crate::Init) says. The scale is `alpha / (rank + 1e-5)`, and stays so
/// when triplets are masked.
///
/// It trains with [`AdaLoraHooks`](crate::AdaLoraHooks).
///
/// ```
/// use burn::nn::{Linear, LinearConfig};
/// use burn::tensor::Device;
/// use mtlora_core::{AdaLora, AdaLoraHooks, AdaLoraSchedule, MtLoraConfig};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let layer: Linear = LinearConfig::new(16, 8).init(&Device::flex().autodiff());
/// let layer = MtLoraConfig::new(AdaLora).with_rank(4).attach(layer)?;
/// // 1000 steps; from step 100 to step 800 the average rank goes from 4 to 2.
/// let schedule = AdaLoraSchedule {
///     target_rank: 2,
///     initial_steps: 100,
///     final_steps: 200,
///     interval: 10,
///     ..AdaLoraSchedule::default()
/// };
/// let hooks = AdaLoraHooks::new(schedule);
/// # let _ = (layer, hooks);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AdaLora;

static FACTORS: [Factor; 3] = [
    Factor {
        name: "a",
        key: "lora_A",
        embedding_key: "lora_embedding_A",
        shape: |sizes| [sizes.total_rank, sizes.input],
        vector: false,
        start: |_| Start::Gaussian,
        neutral: None,
        decays: true,
        rate: RateGroup::A,
    },
    Factor {
        name: "b",
        key: "lora_B",
        embedding_key: "lora_embedding_B",
        shape: |sizes| [sizes.output, sizes.rank],
        vector: false,
        start: |_| Start::Gaussian,
        neutral: None,
        decays: true,
        rate: RateGroup::B,
    },
    Factor {
        name: "e",
        key: "lora_E",
        embedding_key: "lora_embedding_E",
        shape: |sizes| [sizes.total_rank, 1],
        vector: false,
        start: |_| Start::Constant(0.0),
        neutral: Some(Start::Constant(1.0)),
        decays: true,
        rate: RateGroup::T,
    },
];

impl MethodDefinition for AdaLora {
    fn name(&self) -> &'static str {
        "adalora"
    }

    fn factors(&self) -> &'static [Factor] {
        &FACTORS
    }

    fn alpha_divisor(&self, rank: usize, _use_rslora: bool) -> f64 {
        rank as f64 + 1e-5
    }

    fn scales_by_root(&self) -> bool {
        false
    }

    fn transform(&self, factors: &Factors<Tensor<2>>) -> Option<Tensor<2>> {
        let e = factors.get("e")?.clone();
        let identity = Tensor::eye(e.dims()[0], &e.device());
        Some(identity * e)
    }

    fn transform_on_host(&self, factors: &Factors<DMatrix<f64>>) -> Option<DMatrix<f64>> {
        let e = factors.get("e")?.iter().copied();
        Some(DMatrix::from_diagonal(&DVector::from_vec(e.collect())))
    }

    fn kept(&self, further: &Factors<TensorData>) -> Option<Vec<bool>> {
        let e = further.get("e")?.iter::<f32>();
        Some(e.map(|e| e != 0.0).collect())
    }

    fn needs_hooks(&self) -> bool {
        true
    }
}

impl From<AdaLora> for AdapterMethod {
    fn from(_: AdaLora) -> Self {
        AdapterMethod::new(&AdaLora)
    }
}
