//! Helpers shared by the tests in this folder.
#![allow(dead_code)] // No test file uses all of them.

pub mod every_path;

use std::path::PathBuf;

use burn::tensor::{Int, Tensor, TensorData};
use mtlora_core::{NamedDevice, capabilities};
use safetensors::SafeTensors;

/// The folder with the reference numbers: `MTLORA_FIXTURES`, or the project's own copy.
pub fn fixtures() -> PathBuf {
    std::env::var_os("MTLORA_FIXTURES").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures")),
        PathBuf::from,
    )
}

/// The largest difference, relative to the reference's largest element.
pub fn relative_error(found: &TensorData, reference: &TensorData) -> f64 {
    assert_eq!(found.shape(), reference.shape());
    let values =
        |data: &TensorData| -> Vec<f32> { data.clone().convert::<f32>().try_to_vec().unwrap() };
    let (found, reference) = (values(found), values(reference));
    let largest = reference.iter().fold(0f32, |m, v| m.max(v.abs()));
    let error = found
        .iter()
        .zip(&reference)
        .map(|(a, b)| (a - b).abs())
        .fold(
            0f32,
            |m, v| if v.is_nan() { f32::INFINITY } else { m.max(v) },
        );
    f64::from(error) / f64::from(largest.max(f32::MIN_POSITIVE))
}

/// The relative error that a device may have: 1e-5 on the host's processor, 1e-4 on a GPU.
pub fn tolerance(device: &NamedDevice) -> f64 {
    if capabilities(&device.device).on_host {
        1e-5
    } else {
        1e-4
    }
}

/// One reference file.
pub struct Reference(pub Vec<u8>);

impl Reference {
    fn tensors(&self) -> SafeTensors<'_> {
        SafeTensors::deserialize(&self.0).unwrap()
    }

    /// A setting in the file's metadata, such as `rank` or `alpha`.
    pub fn setting<T: std::str::FromStr>(&self, name: &str) -> T {
        let (_, metadata) = SafeTensors::read_metadata(&self.0).unwrap();
        let text = metadata.metadata().as_ref().and_then(|map| map.get(name));
        let value = text.and_then(|text| text.parse().ok());
        value.unwrap_or_else(|| panic!("the metadata has no usable `{name}`"))
    }

    pub fn has(&self, name: &str) -> bool {
        self.tensors().tensor(name).is_ok()
    }

    /// The tensor's values as rows: all axes but the last become one.
    pub fn rows(&self, name: &str) -> TensorData {
        let tensors = self.tensors();
        let tensor = tensors.tensor(name).unwrap();
        let values: Vec<f32> = tensor
            .data()
            .chunks_exact(4)
            .map(|b| f32::from_le_bytes(b.try_into().unwrap()))
            .collect();
        let width = *tensor.shape().last().unwrap();
        TensorData::new(values.clone(), [values.len() / width, width])
    }

    pub fn ids(&self, name: &str, device: &burn::tensor::Device) -> Tensor<1, Int> {
        let tensors = self.tensors();
        let values: Vec<i64> = tensors
            .tensor(name)
            .unwrap()
            .data()
            .chunks_exact(8)
            .map(|b| i64::from_le_bytes(b.try_into().unwrap()))
            .collect();
        let length = values.len();
        Tensor::from_data(TensorData::new(values, [length]), device)
    }
}
