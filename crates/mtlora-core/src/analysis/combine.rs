use std::collections::BTreeMap;

use crate::analysis::inspection::LayerError;
use crate::{AdapterValues, LowRank, MatrixError, Truncation};

/// A weighted sum of adapters, as plain LoRA.
#[derive(Clone, Debug, PartialEq)]
pub struct Combined {
    /// The adapter of the sum for each module that at least one of the adapters adapts.
    pub adapters: BTreeMap<String, AdapterValues>,
    /// The approximation error of each module; zero if its rank was not reduced.
    pub truncations: BTreeMap<String, Truncation>,
}

impl Combined {
    /// The approximation error over all modules.
    pub fn truncation(&self) -> Truncation {
        Truncation::of_all(self.truncations.values().copied())
    }
}

/// The weighted sum of adapters on one base model: for each adapted weight the sum of `coefficient * update`, where an
/// adapter that does not adapt the weight counts as a zero update. Without a `rank` the result is exact, and the ranks
/// of a layer add up. With a `rank`, each layer's sum is replaced by the nearest matrix of that rank (if its own rank
/// is higher).
///
/// # Errors
/// When there is no adapter, a coefficient is not finite, the rank is 0, or a layer's adapters differ in shape or are
/// not finite; the error names the layer.
pub fn combine(
    parts: &[(f64, BTreeMap<String, AdapterValues>)],
    rank: Option<usize>,
) -> Result<Combined, LayerError> {
    let mut layers: BTreeMap<&str, Vec<(f64, LowRank)>> = BTreeMap::new();
    for (weight, adapters) in parts {
        for (path, values) in adapters {
            let at = |source| LayerError {
                path: path.clone(),
                source,
            };
            if !weight.is_finite() {
                return Err(at(MatrixError::NotFinite));
            }
            let update = LowRank::of(values).map_err(at)?;
            layers.entry(path).or_default().push((*weight, update));
        }
    }
    let mut combined = Combined {
        adapters: BTreeMap::new(),
        truncations: BTreeMap::new(),
    };
    for (path, updates) in layers {
        let one = summed(&updates, rank).map_err(|source| LayerError {
            path: path.to_string(),
            source,
        });
        let (sum, truncation) = one?;
        combined.adapters.insert(path.to_string(), sum.to_lora());
        combined.truncations.insert(path.to_string(), truncation);
    }
    Ok(combined)
}

fn summed(
    updates: &[(f64, LowRank)],
    rank: Option<usize>,
) -> Result<(LowRank, Truncation), MatrixError> {
    let sum = LowRank::sum(updates)?;
    match rank {
        Some(rank) if rank < sum.rank() => sum.truncate(rank),
        _ => {
            let truncation = Truncation {
                error: 0.0,
                norm: sum.norm()?,
            };
            Ok((sum, truncation))
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use burn::tensor::{TensorData, Tolerance};

    use super::*;
    use crate::adapter::fold::data;
    use crate::analysis::linalg::tests::random;
    use crate::{AdapterForm, AdapterMethod, Structure};

    fn adapter(structure: Structure, rank: usize, seed: u64) -> AdapterValues {
        let factor = |shape, at| data(&random(shape, seed + at));
        AdapterValues {
            a: factor([rank, 6], 1),
            b: factor([5, rank], 2),
            further: AdapterMethod::from(structure)
                .further(|one| factor([rank, rank], if one.name == "c" { 3 } else { 4 })),
            form: AdapterForm::new(structure, 0.5),
        }
    }

    fn update(values: &AdapterValues) -> TensorData {
        let device = crate::devices()[0].device.clone();
        values.to_device(&device).delta().into_data()
    }

    fn parts() -> [(f64, BTreeMap<String, AdapterValues>); 2] {
        let one = BTreeMap::from([
            ("q".to_string(), adapter(Structure::Ctcm, 2, 10)),
            ("v".to_string(), adapter(Structure::Lora, 2, 20)),
        ]);
        let other = BTreeMap::from([("q".to_string(), adapter(Structure::Icfm, 3, 30))]);
        [(2.0, one), (-0.5, other)]
    }

    #[test]
    fn exact_sums_are_the_sums_of_the_updates() {
        let parts = parts();
        let combined = combine(&parts, None).unwrap();
        assert_eq!(combined.adapters["q"].rank(), 5);
        assert_eq!(combined.adapters["v"].rank(), 2);
        assert_eq!(combined.truncation().error, 0.0);
        let sum: Vec<f32> = update(&parts[0].1["q"])
            .iter::<f32>()
            .zip(update(&parts[1].1["q"]).iter::<f32>())
            .map(|(one, other)| 2.0 * one - 0.5 * other)
            .collect();
        let expected = TensorData::new(sum, [5, 6]);
        update(&combined.adapters["q"])
            .assert_approx_eq::<f32>(&expected, Tolerance::absolute(1e-5));
    }

    #[test]
    fn a_given_rank_is_not_exceeded_and_its_error_is_reported() {
        let parts = parts();
        let exact = combine(&parts, None).unwrap();
        let small = combine(&parts, Some(2)).unwrap();
        assert_eq!(small.adapters["q"].rank(), 2);
        // An adapter that has this rank already stays the same.
        assert_eq!(small.adapters["v"], exact.adapters["v"]);
        assert_eq!(small.truncations["v"].error, 0.0);
        let made: f64 = update(&small.adapters["q"])
            .iter::<f32>()
            .zip(update(&exact.adapters["q"]).iter::<f32>())
            .map(|(one, other)| f64::from(one - other).powi(2))
            .sum();
        let said = small.truncations["q"];
        assert!(said.error > 0.1 && (made.sqrt() - said.error).abs() < 1e-5);
        assert!(small.truncation().relative() < said.relative());
    }

    #[test]
    fn an_error_names_the_layer_that_has_no_sum() {
        let mut parts = parts();
        let error = combine(&parts, Some(0)).unwrap_err();
        assert_eq!(
            (error.path.as_str(), error.source),
            ("q", MatrixError::Empty)
        );
        let wide = AdapterValues {
            a: TensorData::zeros::<f32, _>([3, 7]),
            ..adapter(Structure::Lora, 3, 1)
        };
        parts[1].1.insert("q".into(), wide);
        let error = combine(&parts, None).unwrap_err();
        assert!(matches!(error.source, MatrixError::Sum { .. }), "{error}");
        let error = combine(&[(f64::NAN, parts[0].1.clone())], None).unwrap_err();
        assert_eq!(error.source, MatrixError::NotFinite);
    }
}
