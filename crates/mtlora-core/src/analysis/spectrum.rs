use std::collections::BTreeMap;

use burn::module::Module;
use serde::Serialize;

use crate::analysis::linalg::{self, Eigenvalue, MatrixError};
use crate::analysis::low_rank::transform;
use crate::analysis::svd;
use crate::visit::each_parameter;
use crate::{AdapterMethod, AdapterValues, LowRank};

/// Measures of what an adapter has learned: of its update and of its `T`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Spectrum {
    /// The structure of `T`.
    pub structure: AdapterMethod,
    /// The rank of the update of each projection; where the method prunes, what it has left of all projections together.
    pub rank: usize,
    /// Output and input width of the weight.
    pub shape: [usize; 2],
    /// The measures of the update `scale * B T A`.
    pub update: UpdateSpectrum,
    /// The measures of `T`; `None` if it is always the identity, as in `lora`.
    pub transform: Option<TransformSpectrum>,
}

/// The measures of an update `scale * B T A`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct UpdateSpectrum {
    /// Its Frobenius norm.
    pub norm: f64,
    /// The singular values that can differ from zero, the largest first: as many as the rank, or `g * rank` if `g`
    /// projections are fused.
    pub singular_values: Vec<f64>,
    /// The number of directions along which it acts: the exponential of the entropy of the singular values divided by
    /// their sum (Roy and Vetterli 2007, "The effective rank"). It is `r` if `r` of them are equal and the others zero.
    pub effective_rank: f64,
}

/// The measures of the matrix `T`, which is `[rank, rank]`, or `[g * rank, g * rank]` if `g` projections are fused.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TransformSpectrum {
    /// Its eigenvalues, the largest absolute value first; conjugates are adjacent.
    pub eigenvalues: Vec<Eigenvalue>,
    /// Its singular values, the largest first.
    pub singular_values: Vec<f64>,
    /// The largest singular value divided by the smallest; infinite if `T` is singular (`null` in JSON).
    pub condition: f64,
    /// The distance from the identity, which plain LoRA has in its place: `||T - I||_F`.
    pub distance: f64,
    /// The distance divided by `||I||_F`, which is the square root of `T`'s side.
    pub relative_distance: f64,
}

impl Spectrum {
    /// Measures an adapter.
    ///
    /// # Errors
    /// When the shapes of the factors do not match, a value is not finite, or an iteration does not converge (no such
    /// matrix is known).
    ///
    /// ```
    /// use burn::tensor::TensorData;
    /// use mtlora_core::{AdapterForm, AdapterValues, Factors, Spectrum, Structure};
    /// # fn main() -> Result<(), mtlora_core::MatrixError> {
    /// let spectrum = Spectrum::of(&AdapterValues {
    ///     a: TensorData::from([[1.0f32, 0.0, 0.0], [0.0, 1.0, 0.0]]),
    ///     b: TensorData::from([[1.0f32, 0.0], [0.0, 1.0]]),
    ///     // T rotates by 90 degrees and scales by 3.
    ///     further: Factors::from_iter([("c", TensorData::from([[0.0f32, -3.0], [3.0, 0.0]]))]),
    ///     form: AdapterForm::new(Structure::Shim, 2.0),
    /// })?;
    /// let near = |found: f64, wanted: f64| (found - wanted).abs() < 1e-12;
    /// assert!(spectrum.update.singular_values.iter().all(|value| near(*value, 6.0)));
    /// assert!(near(spectrum.update.effective_rank, 2.0));
    /// let t = spectrum.transform.unwrap();
    /// assert!(near(t.eigenvalues[0].re, 0.0) && near(t.eigenvalues[0].im, 3.0));
    /// assert!(near(t.condition, 1.0));
    /// # Ok(())
    /// # }
    /// ```
    pub fn of(values: &AdapterValues) -> Result<Self, MatrixError> {
        let update = LowRank::of(values)?;
        let singular_values = update.singular_values()?;
        let transform = match transform(values)? {
            None => None,
            Some(t) => {
                let side = t.nrows();
                let mut from_identity = t.clone();
                for at in 0..side {
                    from_identity[(at, at)] -= 1.0;
                }
                let distance = from_identity.norm();
                let singular_values = svd::singular_values(t.clone())?;
                Some(TransformSpectrum {
                    eigenvalues: linalg::eigenvalues(&t)?,
                    condition: condition(&singular_values),
                    singular_values,
                    distance,
                    relative_distance: distance / (side as f64).sqrt(),
                })
            }
        };
        Ok(Self {
            structure: values.form.method,
            rank: values.rank_in_use(),
            shape: update.shape(),
            update: UpdateSpectrum {
                norm: linalg::norm(&singular_values),
                effective_rank: effective_rank(&singular_values),
                singular_values,
            },
            transform,
        })
    }
}

/// The exponential of the entropy of the singular values divided by their sum (Roy and Vetterli 2007, "The effective
/// rank"). It is `r` if `r` values are equal and the others zero, less the more the values differ, and 0 if all are
/// zero.
fn effective_rank(singular_values: &[f64]) -> f64 {
    let sum: f64 = singular_values.iter().sum();
    if sum <= 0.0 {
        return 0.0;
    }
    let shares = singular_values.iter().map(|value| value / sum);
    let entropy: f64 = shares
        .filter(|share| *share > 0.0)
        .map(|share| -share * share.ln())
        .sum();
    entropy.exp()
}

/// The Frobenius norm of each weight of two or more dimensions, without its update, for the modules that `paths`
/// accepts. The keys are the paths of the modules, as in [`adapters`](crate::adapters).
pub fn weight_norms<M: Module>(module: &M, wanted: impl Fn(&str) -> bool) -> BTreeMap<String, f64> {
    let mut norms = BTreeMap::new();
    each_parameter(module, |parameter| {
        let (path, name) = parameter.split_path();
        if parameter.shape().num_dims() >= 2 && name == "weight" && wanted(path) {
            let values = parameter.data();
            let squares: f64 = values.iter::<f32>().map(|x| f64::from(x).powi(2)).sum();
            norms.insert(path.to_string(), squares.sqrt());
        }
    });
    norms
}

/// Infinite if the smallest singular value is not distinguishable from rounding.
fn condition(singular_values: &[f64]) -> f64 {
    let largest = singular_values.first().copied().unwrap_or(0.0);
    let smallest = singular_values.last().copied().unwrap_or(0.0);
    let rounding = singular_values.len() as f64 * f64::EPSILON * largest;
    if smallest > rounding {
        largest / smallest
    } else {
        f64::INFINITY
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use burn::module::Param;
    use burn::nn::{Linear, LinearConfig};
    use burn::tensor::TensorData;
    use nalgebra::DMatrix;

    use super::*;
    use crate::adapter::fold::data;
    use crate::analysis::linalg::tests::{close, random};
    use crate::{AdapterForm, Init, MtLoraConfig, Structure, adapters};

    fn square(side: usize, c: Option<DMatrix<f64>>, d: Option<DMatrix<f64>>) -> AdapterValues {
        let structure = match (&c, &d) {
            (None, _) => Structure::Lora,
            (Some(_), None) => Structure::Shim,
            (Some(_), Some(_)) => Structure::Dtsm,
        };
        AdapterValues {
            a: data(&random([side, 9], 1)),
            b: data(&random([7, side], 2)),
            further: [("c", c), ("d", d)]
                .into_iter()
                .filter_map(|(name, matrix)| Some((name, data(&matrix?))))
                .collect(),
            form: AdapterForm::new(structure, 2.0),
        }
    }

    #[test]
    fn effective_ranks_count_directions() {
        assert_eq!(effective_rank(&[]), 0.0);
        assert_eq!(effective_rank(&[0.0, 0.0]), 0.0);
        close(&[effective_rank(&[3.0, 0.0, 0.0])], &[1.0], 1e-15);
        close(&[effective_rank(&[2.0; 5])], &[5.0], 1e-15);
        // Computed by hand: the shares 1/2, 1/4, 1/4 have the entropy 3/2 ln 2.
        close(
            &[effective_rank(&[2.0, 1.0, 1.0])],
            &[2f64.powf(1.5)],
            1e-15,
        );
    }

    #[test]
    fn lora_has_no_transform_and_its_update_is_the_product_of_the_factors() {
        let spectrum = Spectrum::of(&square(3, None, None)).unwrap();
        assert_eq!(spectrum.transform, None);
        assert_eq!((spectrum.rank, spectrum.shape), (3, [7, 9]));
        let dense = random([7, 3], 2) * random([3, 9], 1) * 2.0;
        close(&[spectrum.update.norm], &[dense.norm()], 1e-6);
    }

    #[test]
    fn the_identity_has_distance_zero_and_dtsm_adds_up() {
        let half = DMatrix::identity(4, 4) * 0.5;
        let spectrum = Spectrum::of(&square(4, Some(half.clone()), Some(half))).unwrap();
        let t = spectrum.transform.unwrap();
        assert_eq!(
            (t.distance, t.relative_distance, t.condition),
            (0.0, 0.0, 1.0)
        );
        assert!(
            t.eigenvalues
                .iter()
                .all(|value| (value.re, value.im) == (1.0, 0.0))
        );
    }

    #[test]
    fn measures_of_known_transforms_are_exact() {
        // T = diag(3, 1, -1): distances 2, 0 and 2 from the identity.
        let diagonal = DMatrix::from_diagonal(&nalgebra::DVector::from_vec(vec![3.0, 1.0, -1.0]));
        let t = Spectrum::of(&square(3, Some(diagonal), None)).unwrap();
        let t = t.transform.unwrap();
        close(&[t.condition, t.distance], &[3.0, 8f64.sqrt()], 1e-14);
        close(&[t.relative_distance], &[(8f64 / 3.0).sqrt()], 1e-14);
        close(&t.singular_values, &[3.0, 1.0, 1.0], 1e-14);
        assert_eq!(t.eigenvalues[0].re, 3.0);

        let singular = DMatrix::from_element(3, 3, 1.0);
        let spectrum = Spectrum::of(&square(3, Some(singular), None)).unwrap();
        assert_eq!(spectrum.transform.unwrap().condition, f64::INFINITY);
        close(&[spectrum.update.effective_rank], &[1.0], 1e-9);
    }

    #[test]
    fn norms_are_those_of_the_frozen_weights_of_each_module() {
        let device = crate::devices()[0].device.clone().autodiff();
        let mut layer: Linear = LinearConfig::new(2, 3).init(&device);
        let weight = TensorData::from([[1.0f32, 2.0, 2.0], [0.0, 4.0, 0.0]]);
        layer.weight = Param::from_data(weight, &device);
        let layer = MtLoraConfig::new(Structure::Shim)
            .with_rank(2)
            .with_init(Init::Identity)
            .attach(layer)
            .unwrap();
        let adapted = adapters(&layer);
        let norms = weight_norms(&layer, |path| adapted.contains_key(path));
        assert_eq!(norms, BTreeMap::from([(String::new(), 5.0)]));
    }
}
