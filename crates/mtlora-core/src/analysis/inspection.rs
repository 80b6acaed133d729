use std::collections::BTreeMap;

use serde::Serialize;

use crate::analysis::linalg::{MatrixError, norm};
use crate::{AdapterValues, Spectrum};

/// Measures of what the adapters of a model have learned, layer by layer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Inspection {
    /// Every adapted layer, in the order of the model: numbers in paths are compared as numbers.
    pub layers: Vec<InspectedLayer>,
    /// The Frobenius norm over all updates.
    pub norm: f64,
    /// `norm` divided by the Frobenius norm over all adapted weights; `None` if a weight's norm is unknown.
    pub relative_norm: Option<f64>,
}

/// Measures of what one adapter has learned.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct InspectedLayer {
    /// The path of the module whose weight is adapted.
    pub path: String,
    /// The measures of its update and of `T`.
    #[serde(flatten)]
    pub spectrum: Spectrum,
    /// The Frobenius norm of the frozen weight, if the base model is available.
    pub weight_norm: Option<f64>,
    /// The norm of the update divided by the norm of the weight.
    pub relative_norm: Option<f64>,
}

/// Which adapter cannot be inspected or combined, and why.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("the adapter of {path}: {source}")]
pub struct LayerError {
    /// The path of the module whose weight is adapted.
    pub path: String,
    /// What is wrong.
    pub source: MatrixError,
}

/// Measures what adapters (as returned by [`adapters`](crate::adapters)) have learned. `weight_norms` has the norms of
/// the frozen weights by the same paths, as returned by [`weight_norms`](crate::weight_norms); it may be empty.
///
/// # Errors
/// As [`Spectrum::of`]; the error names the layer.
///
/// ```
/// use burn::nn::{Linear, LinearConfig};
/// use burn::tensor::Device;
/// use mtlora_core::{Init, MtLoraConfig, Structure, adapters, inspect, weight_norms};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let device = Device::flex().autodiff();
/// let layer: Linear = MtLoraConfig::new(Structure::Shim)
///     .with_init(Init::Identity)
///     .attach(LinearConfig::new(16, 12).init(&device))?;
/// let found = inspect(&adapters(&layer), &weight_norms(&layer, |_| true))?;
/// // Nothing is trained yet.
/// assert_eq!(found.relative_norm, Some(0.0));
/// let t = found.layers[0].spectrum.transform.as_ref().unwrap();
/// assert_eq!((t.distance, t.condition), (0.0, 1.0));
/// # Ok(())
/// # }
/// ```
pub fn inspect(
    adapters: &BTreeMap<String, AdapterValues>,
    weight_norms: &BTreeMap<String, f64>,
) -> Result<Inspection, LayerError> {
    let mut layers = Vec::with_capacity(adapters.len());
    for (path, values) in adapters {
        let spectrum = Spectrum::of(values).map_err(|source| LayerError {
            path: path.clone(),
            source,
        })?;
        let weight_norm = weight_norms.get(path).copied();
        layers.push(InspectedLayer {
            path: path.clone(),
            relative_norm: weight_norm.map(|weight| spectrum.update.norm / weight),
            weight_norm,
            spectrum,
        });
    }
    layers.sort_by_cached_key(|layer| parts(&layer.path));
    let norms: Vec<f64> = layers
        .iter()
        .map(|layer| layer.spectrum.update.norm)
        .collect();
    let weights: Option<Vec<f64>> = layers.iter().map(|layer| layer.weight_norm).collect();
    let norm_of_all = norm(&norms);
    Ok(Inspection {
        layers,
        norm: norm_of_all,
        relative_norm: weights.map(|weights| norm_of_all / norm(&weights)),
    })
}

/// A path's components as a sort key: numbers come before names and are compared as numbers.
fn parts(path: &str) -> Vec<(u64, String)> {
    path.split('.')
        .map(|part| match part.parse() {
            Ok(number) => (number, String::new()),
            Err(_) => (u64::MAX, part.to_string()),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use burn::tensor::TensorData;

    use super::*;
    use crate::{AdapterForm, Factors, Structure};

    fn adapter(size: f32) -> AdapterValues {
        AdapterValues {
            a: TensorData::from([[0.0f32, 1.0]]),
            b: TensorData::from([[size], [0.0]]),
            further: Factors::none(),
            form: AdapterForm::new(Structure::Lora, 1.0),
        }
    }

    #[test]
    fn layers_are_in_the_order_of_the_model_and_norms_add_up() {
        let adapters: BTreeMap<String, AdapterValues> = [("layer.10.q", 4.0), ("layer.9.q", 3.0)]
            .into_iter()
            .map(|(path, size)| (path.to_string(), adapter(size)))
            .collect();
        let mut norms = BTreeMap::from([("layer.9.q".to_string(), 6.0)]);
        let found = inspect(&adapters, &norms).unwrap();
        let paths: Vec<&str> = found
            .layers
            .iter()
            .map(|layer| layer.path.as_str())
            .collect();
        assert_eq!(paths, ["layer.9.q", "layer.10.q"]);
        assert_eq!(found.layers[0].relative_norm, Some(0.5));
        assert_eq!(found.layers[1].relative_norm, None);
        assert!((found.norm - 5.0).abs() < 1e-12);
        assert_eq!(found.relative_norm, None);
        norms.insert("layer.10.q".into(), 8.0);
        let found = inspect(&adapters, &norms).unwrap();
        assert!((found.relative_norm.unwrap() - 0.5).abs() < 1e-12);
    }

    #[test]
    fn a_layer_that_cannot_be_inspected_is_named() {
        let adapters = BTreeMap::from([("layer.0.q".to_string(), adapter(f32::NAN))]);
        let error = inspect(&adapters, &BTreeMap::new()).unwrap_err();
        assert!(error.to_string().starts_with("the adapter of layer.0.q: "));
    }
}
