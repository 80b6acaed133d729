//! Detects whether the inputs of a run have changed.

use burn::module::Module;
use mtlora_core::each_parameter;
use xxhash_rust::xxh3::Xxh3;

/// A running XXH3 hash (128 bits) of the inputs of a run. It detects accidental changes, but gives no protection
/// against deliberate ones.
#[derive(Clone, Default)]
pub struct Fingerprint(Xxh3);

impl Fingerprint {
    /// Adds a number.
    pub fn number(&mut self, number: u64) {
        self.0.update(&number.to_le_bytes());
    }

    /// Adds bytes and their count.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.0.update(bytes);
    }

    /// Adds numbers and their count.
    pub fn numbers(&mut self, numbers: impl ExactSizeIterator<Item = u64>) {
        self.number(numbers.len() as u64);
        for number in numbers {
            self.number(number);
        }
    }

    /// The fingerprint of everything that was added, as 32 hexadecimal digits.
    pub fn digest(&self) -> String {
        format!("{:032x}", self.0.digest128())
    }

    /// The fingerprint of the frozen parameters of `module`: their paths, shapes and values.
    pub(crate) fn of_frozen<M: Module>(module: &M) -> Self {
        let mut fingerprint = Self::default();
        each_parameter(module, |parameter| {
            if parameter.trains() {
                return;
            }
            fingerprint.bytes(parameter.path.as_bytes());
            let shape = parameter.shape().to_vec();
            fingerprint.numbers(shape.iter().map(|size| *size as u64));
            let mut is_first = true;
            parameter.each_part(&mut |all, part| {
                if is_first {
                    fingerprint.number(all as u64);
                }
                is_first = false;
                fingerprint.0.update(part);
            });
        });
        fingerprint
    }
}

#[cfg(test)]
mod tests {
    use burn::nn::{EmbeddingConfig, Linear, LinearConfig};
    use burn::tensor::TensorData;
    use mtlora_core::{
        BaseDtype, LoadedValue, MtLoraConfig, PackedMatrix, StateError, Structure, load_each,
        load_state, state,
    };

    use super::*;

    #[test]
    fn lists_of_numbers_do_not_run_into_each_other() {
        let of = |lists: [&[u64]; 2]| {
            let mut fingerprint = Fingerprint::default();
            for list in lists {
                fingerprint.numbers(list.iter().copied());
            }
            fingerprint.digest()
        };
        assert_eq!(of([&[1], &[2, 3]]), of([&[1], &[2, 3]]));
        assert_ne!(of([&[1], &[2, 3]]), of([&[1, 2], &[3]]));
        assert_eq!(of([&[], &[]]).len(), 32);
    }

    /// More rows than are unpacked at a time.
    #[test]
    fn a_packed_embedding_counts_as_its_values() {
        const SIDES: [usize; 2] = [3000, 32];
        let device = mtlora_core::devices()[0].device.clone();
        let values: Vec<f32> = (0..SIDES[0] * SIDES[1])
            .map(|at| (at % 13) as f32)
            .collect();
        let matrix = PackedMatrix::nf4(&values, SIDES).unwrap();
        let dense = TensorData::new(matrix.values(), SIDES);
        let of = |value: LoadedValue| {
            let empty = EmbeddingConfig::new(SIDES[0], SIDES[1]).init(&device);
            let model = load_each(empty, |_| Ok::<_, StateError>(Some(value.clone())));
            Fingerprint::of_frozen(&model.unwrap().no_grad()).digest()
        };
        let packed = of(LoadedValue::Packed(matrix));
        assert_eq!(packed, of(LoadedValue::Dense(dense, BaseDtype::F32)));
        let other = TensorData::new(values, SIDES);
        assert_ne!(packed, of(LoadedValue::Dense(other, BaseDtype::F32)));
    }

    #[test]
    fn a_frozen_weight_counts_and_an_adapter_does_not() {
        let device = mtlora_core::devices()[0].device.clone().autodiff();
        let base: Linear = LinearConfig::new(4, 6).init(&device);
        let adapted = |base: &Linear, seed| {
            MtLoraConfig::new(Structure::Shim)
                .with_rank(2)
                .with_seed(seed)
                .attach(base.clone())
                .unwrap()
        };
        let of = |model: &Linear| Fingerprint::of_frozen(model).digest();
        let (one, two) = (adapted(&base, 1), adapted(&base, 2));
        assert_eq!(of(&one), of(&two));
        let mut values = state(&one, |path, _| path == "weight");
        for value in values.values_mut() {
            value.as_mut_slice::<f32>().unwrap()[0] += 1.0;
        }
        let other = load_state(one, values).unwrap();
        assert_ne!(of(&other), of(&two));
    }
}
