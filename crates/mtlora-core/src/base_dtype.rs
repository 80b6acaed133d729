use std::fmt;
use std::str::FromStr;

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::quantization::{QuantScheme, QuantStore, QuantValue, ScaleDtype};
use burn::tensor::{DType, Device, FloatDType, Tensor, TensorData, f16};
use serde::{Deserialize, Serialize};

use crate::ops::capabilities;
use crate::packed::words::{self, WordFormat};
use crate::packed::{GROUP, PackedFormat, PackedMatrix, to_tensor};
use crate::visit::Container;

/// The precision that frozen matrices are kept in. Trained parameters, and all sums, stay 32-bit floats.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BaseDtype {
    /// 32-bit floats.
    #[default]
    F32,
    /// bfloat16: half the memory. What is multiplied with them is rounded to bfloat16 too, as PyTorch's autocast does it, except
    /// where the device unpacks words ([`Capabilities::unpacks_words`](crate::Capabilities::unpacks_words)).
    Bf16,
    /// 16-bit floats of IEEE 754, where rows are a multiple of 32 values and none is beyond their range; other weights stay 32-bit
    /// floats. Half the memory. What is multiplied with the weights keeps its precision.
    F16,
    /// Linear weights as 8-bit integers, with a scale for each output and at most 255 inputs;
    /// embeddings as bfloat16. A quarter of the memory. What is multiplied with the integers keeps
    /// its precision.
    Int8,
    /// Linear weights in bitsandbytes' NF4 with double quantization and blocks of 64 (QLoRA, arXiv 2305.14314), where their
    /// inputs are a multiple of 32; embeddings, and other weights, as bfloat16. An eighth of the memory of what is in NF4.
    /// What is multiplied with the weights keeps its precision.
    Nf4,
    /// As a GGUF file has them: its linear weights and embeddings stay packed in their own types. All weights of other files
    /// are 32-bit floats.
    Packed,
}

/// The device cannot keep frozen matrices in that precision.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the device cannot keep a base in {dtype}: use --device flex, or another precision (`mtlora devices` lists them)"
)]
pub struct BaseDtypeError {
    dtype: BaseDtype,
}

impl BaseDtype {
    /// All of them, in the order in which flags list them.
    pub const ALL: [BaseDtype; 6] = [
        BaseDtype::F32,
        BaseDtype::Bf16,
        BaseDtype::F16,
        BaseDtype::Int8,
        BaseDtype::Nf4,
        BaseDtype::Packed,
    ];

    /// Whether `device` can keep a base in it.
    ///
    /// # Errors
    /// When it cannot.
    pub fn check(self, device: &Device) -> Result<(), BaseDtypeError> {
        let can = capabilities(device);
        let stores = match self {
            BaseDtype::F32 => true,
            BaseDtype::Bf16 => can.stores_bf16 || can.unpacks_words,
            BaseDtype::F16 => can.stores_packed,
            // The embeddings beside the integers are kept in bfloat16.
            BaseDtype::Int8 => can.stores_int8 && can.stores_bf16 || can.unpacks_words,
            BaseDtype::Nf4 => can.stores_packed && can.stores_bf16,
            // A device that keeps nothing packed has 32-bit floats.
            BaseDtype::Packed => true,
        };
        if stores {
            Ok(())
        } else {
            Err(BaseDtypeError { dtype: self })
        }
    }

    /// `module` with its frozen linear weights and embeddings kept in this precision; each is
    /// converted on its own, so that no second copy of the module is made. Adapters on them stay.
    ///
    /// # Errors
    /// When the device of `module` does not have the precision.
    pub fn keep<M: Module>(self, module: M) -> Result<M, BaseDtypeError> {
        if matches!(self, BaseDtype::F32 | BaseDtype::Packed) {
            return Ok(module);
        }
        module
            .devices()
            .iter()
            .try_for_each(|device| self.check(device))?;
        Ok(module.map(&mut Keep {
            dtype: self,
            containers: Vec::new(),
        }))
    }
}

struct Keep {
    dtype: BaseDtype,
    containers: Vec<Container>,
}

impl Container {
    /// Whether its parameters of `dimensions` are kept in the base's precision.
    pub(crate) fn is_kept(self, dimensions: usize) -> bool {
        dimensions == 2 && self != Container::Other
    }
}

impl BaseDtype {
    /// A weight that [`is_kept`](Container::is_kept), in this precision. One that is in it stays so.
    pub(crate) fn convert<const D: usize>(
        self,
        weight: Tensor<D>,
        container: Container,
    ) -> Tensor<D> {
        match (self, weight.dtype()) {
            (BaseDtype::F32 | BaseDtype::Packed, _) | (_, DType::QFloat(_)) => weight,
            _ if self.is_in_words(&weight.device()) => {
                let matrix = Matrix::of(&weight.clone().into_data(), container);
                let words = matrix.and_then(|one| self.in_words(&one, container, &weight.device()));
                words.unwrap_or(weight)
            }
            (BaseDtype::F16, _) => packed(&weight, container, half).unwrap_or(weight),
            (BaseDtype::Nf4, _) if container == Container::Linear => {
                let nf4 = |values: &[f32], sides| PackedMatrix::nf4(values, sides).ok();
                packed(&weight, container, nf4).unwrap_or_else(|| weight.cast(FloatDType::BF16))
            }
            (BaseDtype::Int8, _) if container == Container::Linear => {
                let scheme = int8(weight.dims()[0]);
                weight.quantize_dynamic(&scheme)
            }
            _ => weight.cast(FloatDType::BF16),
        }
    }
}

impl BaseDtype {
    /// A weight of these values that [`is_kept`](Container::is_kept), in this precision. Where it is kept in words, no more than these
    /// are ever on the device: one in 32-bit floats may be larger than the device's buffers can be.
    pub(crate) fn put<const D: usize>(
        self,
        data: TensorData,
        container: Container,
        device: &Device,
    ) -> Tensor<D> {
        if self.is_in_words(device) {
            let matrix = Matrix::of(&data, container);
            let words = matrix.and_then(|matrix| self.in_words(&matrix, container, device));
            return words.unwrap_or_else(|| Tensor::from_data(data, device));
        }
        self.convert(Tensor::from_data(data, device), container)
    }

    /// Whether the device keeps a base in this precision in words.
    fn is_in_words(self, device: &Device) -> bool {
        matches!(self, BaseDtype::Bf16 | BaseDtype::Int8) && capabilities(device).unpacks_words
    }

    /// The weight in words, if its rows are whole groups. Embeddings, and linear weights unless these are 8-bit integers, are in
    /// bfloat16.
    fn in_words<const D: usize>(
        self,
        matrix: &Matrix,
        container: Container,
        device: &Device,
    ) -> Option<Tensor<D>> {
        let [_, columns] = matrix.sides;
        let format = match self {
            BaseDtype::Int8 if container == Container::Linear => WordFormat::int8(columns)?,
            _ => WordFormat::Bf16,
        };
        let tensor = words::to_tensor(&matrix.values, matrix.sides, format, container, device)?;
        Some(Tensor::from_dispatch(tensor.into_dispatch()))
    }
}

impl ModuleMapper for Keep {
    fn enter_module(&mut self, _name: &str, container_type: &str) {
        self.containers.push(Container::of(container_type));
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.containers.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        match self.containers.last().copied() {
            Some(container) if container.is_kept(D) && !param.base().is_require_grad() => {
                param.map(|weight| self.dtype.convert(weight, container))
            }
            _ => param,
        }
    }
}

/// The weight as `pack` packs it, if that can be done, and if rows of the packed matrix are whole groups.
fn packed<const D: usize>(
    weight: &Tensor<D>,
    container: Container,
    pack: impl FnOnce(&[f32], [usize; 2]) -> Option<PackedMatrix>,
) -> Option<Tensor<D>> {
    let matrix = Matrix::of(&weight.clone().into_data(), container)?;
    let [rows, columns] = matrix.sides;
    if rows * columns == 0 || !columns.is_multiple_of(GROUP) {
        return None;
    }
    let packed = pack(&matrix.values, matrix.sides)?;
    let tensor = to_tensor(packed, container, &weight.device());
    Some(Tensor::from_dispatch(tensor.into_dispatch()))
}

/// A weight as it is packed: a linear one as PyTorch has it, `[out, in]`.
struct Matrix {
    values: Vec<f32>,
    sides: [usize; 2],
}

impl Matrix {
    fn of(data: &TensorData, container: Container) -> Option<Self> {
        let [rows, columns] = data.shape()[..] else {
            return None;
        };
        let values: Vec<f32> = data.iter::<f32>().collect();
        Some(match container {
            Container::Linear => {
                let column = |at: usize| values.iter().skip(at).step_by(columns);
                Self {
                    values: (0..columns).flat_map(column).copied().collect(),
                    sides: [columns, rows],
                }
            }
            Container::Embedding | Container::Other => Self {
                values,
                sides: [rows, columns],
            },
        })
    }
}

/// The values as 16-bit floats, if none is beyond their range.
fn half(values: &[f32], sides: [usize; 2]) -> Option<PackedMatrix> {
    let halves: Vec<f16> = values.iter().map(|value| f16::from_f32(*value)).collect();
    if halves.iter().any(|value| !value.is_finite()) {
        return None;
    }
    let bytes = halves.iter().flat_map(|value| value.to_le_bytes());
    PackedMatrix::new(PackedFormat::F16, sides, bytes.collect()).ok()
}

/// 8-bit integers with a scale for each column and `block` rows, the largest divisor of `rows` that
/// a block may have.
fn int8(rows: usize) -> QuantScheme {
    let block = (1..=u8::MAX)
        .rev()
        .find(|block| rows.is_multiple_of(usize::from(*block)));
    QuantScheme::default()
        .with_value(QuantValue::Q8S)
        .with_store(QuantStore::Native)
        .per_block([block.unwrap_or(1), 1], ScaleDtype::F32)
}

impl fmt::Display for BaseDtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            BaseDtype::F32 => "f32",
            BaseDtype::Bf16 => "bf16",
            BaseDtype::F16 => "f16",
            BaseDtype::Int8 => "int8",
            BaseDtype::Nf4 => "nf4",
            BaseDtype::Packed => "packed",
        })
    }
}

impl FromStr for BaseDtype {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        BaseDtype::ALL
            .into_iter()
            .find(|dtype| dtype.to_string() == s)
            .ok_or_else(|| {
                let names = BaseDtype::ALL.map(|dtype| dtype.to_string()).join(", ");
                format!("unknown precision `{s}`: one of {names}")
            })
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use burn::nn::{Embedding, EmbeddingConfig, Linear, LinearConfig};
    use burn::tensor::{Distribution, Int};

    use crate::{MtLoraConfig, Structure, Targets, adapted_embedding, adapted_linear};

    #[derive(Module, Debug)]
    struct Model {
        embedding: Embedding,
        adapted: Linear,
        plain: Linear,
        head: Linear,
    }

    fn model(device: &Device) -> Model {
        let model = Model {
            embedding: EmbeddingConfig::new(20, 32).init(device),
            adapted: LinearConfig::new(32, 64).init(device),
            plain: LinearConfig::new(64, 32).init(device),
            head: LinearConfig::new(32, 3).init(device),
        };
        MtLoraConfig::new(Structure::Shim)
            .with_rank(2)
            .with_init(crate::Init::Identity)
            .with_target_modules(Targets::names(["adapted"]))
            .with_modules_to_save(vec!["head".to_string()])
            .attach(model)
            .unwrap()
    }

    fn forward(model: &Model, ids: Tensor<1, Int>) -> Tensor<2> {
        let x = adapted_embedding(&model.embedding, ids);
        let x = adapted_linear(&model.plain, adapted_linear(&model.adapted, x));
        adapted_linear(&model.head, x)
    }

    /// Far in 8 bits, nearer in bfloat16, and with gradients of the same things.
    #[test]
    fn less_precision_is_near_and_trains_the_same_parameters() {
        for named in crate::devices() {
            trains_near(&named.device.autodiff());
        }
    }

    fn trains_near(device: &Device) {
        device.seed(1);
        let full = model(device);
        let ids = Tensor::<1, Int>::from_ints([3, 1, 19, 0, 7], device);
        let in_words = capabilities(device).unpacks_words;
        let expected = forward(&full, ids.clone());
        let size = expected.clone().abs().max().into_scalar::<f32>();
        for (dtype, bound) in [
            (BaseDtype::Bf16, 0.02),
            (BaseDtype::F16, 0.002),
            (BaseDtype::Int8, 0.03),
            (BaseDtype::Nf4, 0.3),
        ] {
            if dtype.check(device).is_err() {
                continue;
            }
            let kept = dtype.keep(full.clone()).unwrap();
            let of_embedding = kept.embedding.weight.base().dtype();
            match dtype {
                BaseDtype::F16 => assert!(matches!(of_embedding, DType::QFloat(_))),
                _ if in_words => assert!(matches!(of_embedding, DType::QFloat(_))),
                _ => assert_eq!(of_embedding, DType::BF16),
            }
            assert_eq!(kept.head.weight.base().dtype(), DType::F32);
            let weights = [&kept.adapted, &kept.plain].map(|layer| layer.weight.base().dtype());
            assert!(weights.iter().all(|found| match dtype {
                BaseDtype::F16 | BaseDtype::Int8 | BaseDtype::Nf4 =>
                    matches!(found, DType::QFloat(_)),
                _ if in_words => matches!(found, DType::QFloat(_)),
                _ => *found == DType::BF16,
            }));
            let found = forward(&kept, ids.clone());
            let apart = (found.clone() - expected.clone())
                .abs()
                .max()
                .into_scalar::<f32>();
            assert!(
                apart > 0.0 && apart <= bound * size,
                "{dtype}: {apart} of {size}"
            );

            let weight = Tensor::<2>::random([5, 3], Distribution::Default, device);
            let mut gradients = (found * weight.clone()).sum().backward();
            let mut wanted = (forward(&full, ids.clone()) * weight).sum().backward();
            let adapter = |model: &Model| {
                model
                    .adapted
                    .weight
                    .reparameterization::<crate::Adapter>()
                    .unwrap()
                    .clone()
            };
            let (ours, theirs) = (adapter(&kept), adapter(&full));
            let found = ours.b.val().grad_remove(&mut gradients).unwrap();
            let wanted = theirs.b.val().grad_remove(&mut wanted).unwrap();
            let size = wanted.clone().abs().max().into_scalar::<f32>();
            let apart = (found - wanted).abs().max().into_scalar::<f32>();
            assert!(apart <= bound * size, "{dtype}: {apart} of {size}");
        }
    }

    /// Beyond the range of 16-bit floats, and in rows that are no whole groups, weights stay as they are.
    #[test]
    fn what_does_not_fit_in_16_bits_stays_as_it_is() {
        let device = Device::flex();
        let large = Tensor::<2>::full([32, 2], 70_000.0, &device);
        let odd = Tensor::<2>::full([31, 2], 0.5, &device);
        for weight in [large, odd] {
            let kept = BaseDtype::F16.convert(weight.clone(), Container::Linear);
            assert_eq!(kept.dtype(), DType::F32);
            assert_eq!(kept.into_data(), weight.into_data());
        }
    }

    #[test]
    fn the_largest_block_that_divides() {
        for (rows, block) in [(768, 192), (3072, 192), (1024, 128), (251, 251), (257, 1)] {
            let size = int8(rows).block_size().unwrap();
            assert_eq!(size.as_dim::<2>(), [block, 1]);
        }
    }

    #[test]
    fn names_round_trip() {
        for dtype in BaseDtype::ALL {
            assert_eq!(dtype.to_string().parse(), Ok(dtype));
        }
        assert!("f8".parse::<BaseDtype>().unwrap_err().contains("bf16"));
    }
}
