use std::fmt;
use std::str::FromStr;

use burn::tensor::{Tensor, TensorData};
use nalgebra::DMatrix;

use crate::{Adapter, AdapterForm, AdapterValues, Structure};

/// Into which factor `T` goes when an adapter is folded to plain LoRA. The update is the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fold {
    /// `A' = T A`.
    A,
    /// `B' = B T`.
    B,
    /// With `T = U S Vᵀ` its singular value decomposition: `A' = S^½ Vᵀ A` and `B' = B U S^½`, so
    /// that neither factor bears all of `T`'s stretch. What goes on training, or is kept in half
    /// precision, is best folded so.
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

impl Adapter {
    /// The same update as plain LoRA, `T` folded into the factors. Where `g` projections of rank `r`
    /// are fused it is a LoRA of rank `g r`, with the same scale: `g` times the alpha.
    pub fn fold(&self, fold: Fold) -> AdapterValues {
        let a = matrix(self.a.val());
        let b = matrix(self.up());
        let (a, b) = match self.transform().map(matrix) {
            None => (a, b),
            Some(t) => match fold {
                Fold::A => (t * a, b),
                Fold::B => (a, b * t),
                Fold::Balanced => {
                    let [left, right] = halves(t);
                    (right * a, b * left)
                }
            },
        };
        AdapterValues {
            a: data(&a),
            b: data(&b),
            c: None,
            d: None,
            form: AdapterForm {
                dropout: self.form.dropout,
                ..AdapterForm::new(Structure::Lora, self.form.scale)
            },
        }
    }
}

/// `U S^½` and `S^½ Vᵀ` of `T = U S Vᵀ`.
fn halves(t: DMatrix<f64>) -> [DMatrix<f64>; 2] {
    let svd = t.svd(true, true);
    let root = DMatrix::from_diagonal(&svd.singular_values.map(f64::sqrt));
    // Both were asked for.
    let side = root.nrows();
    let identity = || DMatrix::identity(side, side);
    let u = svd.u.unwrap_or_else(identity);
    let v_t = svd.v_t.unwrap_or_else(identity);
    [u * &root, root * v_t]
}

fn matrix(tensor: Tensor<2>) -> DMatrix<f64> {
    let [rows, columns] = tensor.dims();
    let data = tensor.into_data().convert::<f64>();
    DMatrix::from_row_iterator(rows, columns, data.iter::<f64>())
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
    use burn::tensor::Tolerance;

    fn pattern(rows: usize, columns: usize, seed: usize) -> TensorData {
        let values: Vec<f32> = (0..rows * columns)
            .map(|at| ((at * 37 + seed * 11) % 23) as f32 / 11.5 - 1.0)
            .collect();
        TensorData::new(values, [rows, columns])
    }

    fn adapter(structure: Structure, fused: Vec<bool>) -> Adapter {
        let (rank, input, width) = (3, 7, 5);
        let groups = fused.iter().filter(|adapted| **adapted).count().max(1);
        let side = groups * rank;
        let values = AdapterValues {
            a: pattern(side, input, 1),
            b: pattern(groups * width, rank, 2),
            c: structure.has_c().then(|| pattern(side, side, 3)),
            d: structure.has_d().then(|| pattern(side, side, 4)),
            form: AdapterForm {
                fused,
                ..AdapterForm::new(structure, 4.0)
            },
        };
        values.to_device(&crate::devices()[0].device)
    }

    #[test]
    fn folded_adapters_have_the_same_update() {
        let device = crate::devices()[0].device.clone();
        for structure in Structure::ALL {
            for fused in [vec![], vec![true, false, true]] {
                let adapter = adapter(structure, fused);
                let update = adapter.delta().into_data();
                for fold in Fold::ALL {
                    let plain = adapter.fold(fold);
                    assert_eq!(plain.form.structure, Structure::Lora);
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
            c: Some(TensorData::from([[100.0f32, 0.0], [0.0, 4.0]])),
            d: None,
            form: AdapterForm::new(Structure::Shim, 1.0),
        };
        let folded = values
            .to_device(&crate::devices()[0].device)
            .fold(Fold::Balanced);
        for factor in [folded.a, folded.b] {
            let mut sizes: Vec<f32> = factor.iter::<f32>().map(f32::abs).collect();
            sizes.sort_by(f32::total_cmp);
            for (found, wanted) in sizes.iter().zip([0.0, 0.0, 2.0, 10.0]) {
                assert!((found - wanted).abs() < 1e-5, "{sizes:?}");
            }
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
