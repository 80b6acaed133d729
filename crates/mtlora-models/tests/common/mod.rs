//! Helpers shared by the tests in this folder.
#![allow(dead_code)] // No test file uses all of them.

use std::path::PathBuf;

use burn::tensor::Tensor;
use mtlora_models::Tokens;
use safetensors::SafeTensors;

/// A model's folder under `MTLORA_FIXTURES`, or in the project's own copy.
pub fn folder(model: &str) -> PathBuf {
    let fixtures = std::env::var_os("MTLORA_FIXTURES").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures")),
        PathBuf::from,
    );
    fixtures.join("models").join(model)
}

/// A file of expected tensors.
pub struct Expected(pub Vec<u8>);

impl Expected {
    pub fn floats(&self, name: &str) -> Vec<f32> {
        let file = SafeTensors::deserialize(&self.0).unwrap();
        let tensor = file.tensor(name).unwrap();
        let bytes = tensor.data().chunks_exact(4);
        bytes
            .map(|b| f32::from_le_bytes(b.try_into().unwrap()))
            .collect()
    }

    pub fn ints(&self, name: &str) -> Vec<i64> {
        let file = SafeTensors::deserialize(&self.0).unwrap();
        let tensor = file.tensor(name).unwrap();
        let bytes = tensor.data().chunks_exact(8);
        bytes
            .map(|b| i64::from_le_bytes(b.try_into().unwrap()))
            .collect()
    }

    /// The sequences without their padding.
    pub fn sequences(&self) -> Vec<Tokens> {
        let (ids, mask) = (self.ints("input_ids"), self.ints("attention_mask"));
        let count = self.ints("labels").len();
        let length = ids.len() / count;
        let rows = ids.chunks(length).zip(mask.chunks(length));
        rows.map(|(ids, mask)| {
            let real = mask.iter().filter(|m| **m == 1).count();
            Tokens {
                ids: ids[..real].iter().map(|id| *id as u32).collect(),
                type_ids: vec![0; real],
            }
        })
        .collect()
    }
}

pub fn floats(tensor: Tensor<2>) -> Vec<f32> {
    tensor.into_data().try_to_vec().unwrap()
}

/// The largest difference.
pub fn difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter()
        .zip(b)
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, f32::max)
}
