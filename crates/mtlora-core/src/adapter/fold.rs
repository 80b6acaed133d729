use std::fmt;
use std::str::FromStr;

use burn::tensor::TensorData;
use nalgebra::{DMatrix, DVector};

use crate::analysis::linalg::{self, MatrixError};
use crate::analysis::low_rank::{laid_out, transform};
use crate::analysis::svd::svd;
use crate::{AdapterForm, AdapterValues, Factors, Structure};

/// The factor that takes up `T` when an adapter is folded into plain LoRA. The update is the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fold {
    /// `A' = T A`.
    A,
    /// `B' = B T`.
    B,
    /// With `T = U S Vᵀ` its singular value decomposition: `A' = S^½ Vᵀ A` and `B' = B U S^½`, so
    /// that both factors share `T`'s stretch. This is best for an adapter that is trained further or kept in half
    /// precision.
    Balanced,
}

impl Fold {
    /// Every way, the default first.
    pub const ALL: [Fold; 3] = [Fold::Balanced, Fold::A, Fold::B];

    /// The lower-case name, as flags have it.
    pub fn name(self) -> &'static str {
        match self {
            Fold::A => "a",
            Fold::B => "b",
            Fold::Balanced => "balanced",
        }
    }
}

impl fmt::Display for Fold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Fold {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let mut all = Fold::ALL.into_iter();
        all.find(|fold| fold.name() == s)
            .ok_or_else(|| format!("unknown fold `{s}`: one of a, b, balanced"))
    }
}

impl AdapterValues {
    /// The same update as plain LoRA, `T` folded into the factors. Where `g` projections of rank `r`
    /// are fused it is a LoRA of rank `g r`, with the same scale: `g` times the alpha. The products are made on the
    /// host, in double precision.
    ///
    /// # Errors
    /// When the factors' shapes do not multiply, or a value is not finite.
    pub fn fold(&self, fold: Fold) -> Result<AdapterValues, MatrixError> {
        let a = linalg::matrix(&self.a)?;
        let b = laid_out(linalg::matrix(&self.b)?, &self.form, a.nrows())?;
        let (a, b) = match transform(self)? {
            None => (a, b),
            Some(t) => match fold {
                Fold::A => (t * a, b),
                Fold::B => (a, b * t),
                Fold::Balanced => {
                    let [left, right] = halves(t)?;
                    (right * a, b * left)
                }
            },
        };
        Ok(AdapterValues {
            a: data(&a),
            b: data(&b),
            further: Factors::none(),
            form: AdapterForm {
                dropout: self.form.dropout,
                ..AdapterForm::new(Structure::Lora, self.form.scale)
            },
        })
    }
}

/// `U S^½` and `S^½ Vᵀ` of `T = U S Vᵀ`.
fn halves(t: DMatrix<f64>) -> Result<[DMatrix<f64>; 2], MatrixError> {
    let svd = svd(t)?;
    let roots = svd.values.iter().map(|value| value.sqrt());
    let root = DMatrix::from_diagonal(&DVector::from_iterator(svd.values.len(), roots));
    Ok([svd.u * &root, root * svd.v_t])
}

/// Row by row, in single precision.
pub(crate) fn data(matrix: &DMatrix<f64>) -> TensorData {
    let [rows, columns] = [matrix.nrows(), matrix.ncols()];
    // Row by row; the matrix keeps its columns.
    let transposed = matrix.transpose();
    let values: Vec<f32> = transposed.iter().map(|value| *value as f32).collect();
    TensorData::new(values, [rows, columns])
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::AdapterMethod;
    use crate::analysis::linalg::tests::random;
    use burn::tensor::Tolerance;
    use proptest::prelude::*;

    fn pattern(rows: usize, columns: usize, seed: usize) -> TensorData {
        let values: Vec<f32> = (0..rows * columns)
            .map(|at| ((at * 37 + seed * 11) % 23) as f32 / 11.5 - 1.0)
            .collect();
        TensorData::new(values, [rows, columns])
    }

    fn only_c(c: TensorData) -> Factors<TensorData> {
        Factors::from_iter([("c", c)])
    }

    fn adapter(structure: Structure, fused: Vec<bool>) -> AdapterValues {
        let (rank, input, width) = (3, 7, 5);
        let groups = fused.iter().filter(|adapted| **adapted).count().max(1);
        let side = groups * rank;
        AdapterValues {
            a: pattern(side, input, 1),
            b: pattern(groups * width, rank, 2),
            further: AdapterMethod::from(structure)
                .further(|factor| pattern(side, side, if factor.name == "c" { 3 } else { 4 })),
            form: AdapterForm {
                fused,
                ..AdapterForm::new(structure, 4.0)
            },
        }
    }

    #[test]
    fn folded_adapters_have_the_same_update() {
        let device = crate::devices()[0].device.clone();
        for structure in Structure::ALL {
            for fused in [vec![], vec![true, false, true]] {
                let adapter = adapter(structure, fused);
                let update = adapter.to_device(&device).delta().into_data();
                for fold in Fold::ALL {
                    let plain = adapter.fold(fold).unwrap();
                    assert_eq!(plain.form.method, Structure::Lora);
                    assert_eq!(plain.rank(), plain.a.shape()[0]);
                    let found = plain.to_device(&device).delta().into_data();
                    found.assert_approx_eq::<f32>(&update, Tolerance::absolute(2e-4));
                }
            }
        }
    }

    #[test]
    fn balanced_factors_share_the_stretch() {
        // With A and B orthogonal, both folded factors have the roots of T's singular values.
        let identity = TensorData::from([[1.0f32, 0.0], [0.0, 1.0]]);
        let values = AdapterValues {
            a: identity.clone(),
            b: identity,
            further: only_c(TensorData::from([[100.0f32, 0.0], [0.0, 4.0]])),
            form: AdapterForm::new(Structure::Shim, 1.0),
        };
        let folded = values.fold(Fold::Balanced).unwrap();
        for factor in [folded.a, folded.b] {
            let mut sizes: Vec<f32> = factor.iter::<f32>().map(f32::abs).collect();
            sizes.sort_by(f32::total_cmp);
            for (found, wanted) in sizes.iter().zip([0.0, 0.0, 2.0, 10.0]) {
                assert!((found - wanted).abs() < 1e-5, "{sizes:?}");
            }
        }
    }

    proptest! {
        /// A `T` near to rank one, on which nalgebra's decomposition is off by up to a thousandth. With identities for
        /// A and B the update is T.
        #[test]
        fn a_transform_near_to_rank_one_is_folded_exactly(
            side in 2usize..7, seed in 0..u64::MAX, exponent in 1i32..16,
        ) {
            let noise = random([side, side], seed + 1) * 10f64.powi(-exponent);
            let plain = random([side, side], seed);
            let t = data(&(plain.columns(0, 1) * plain.rows(0, 1) + noise));
            let values = AdapterValues {
                a: data(&DMatrix::identity(side, side)),
                b: data(&DMatrix::identity(side, side)),
                further: only_c(t.clone()),
                form: AdapterForm::new(Structure::Shim, 1.0),
            };
            let folded = values.fold(Fold::Balanced).unwrap();
            let [a, b, t] = [&folded.a, &folded.b, &t].map(|one| linalg::matrix(one).unwrap());
            // Single precision rounds the factors.
            let error = (b * a - &t).norm();
            prop_assert!(error <= 1e-6 * t.norm(), "{error} of {}", t.norm());
        }
    }

    #[test]
    fn values_that_are_no_numbers_are_an_error() {
        let mut values = adapter(Structure::Shim, vec![]);
        values.further = only_c(TensorData::new(vec![f32::NAN; 9], [3, 3]));
        for fold in Fold::ALL {
            assert_eq!(values.fold(fold), Err(MatrixError::NotFinite));
        }
    }

    #[test]
    fn names_round_trip() {
        for fold in Fold::ALL {
            assert_eq!(fold.to_string().parse(), Ok(fold));
        }
        assert!("c".parse::<Fold>().unwrap_err().contains("balanced"));
    }
}
