//! Decompositions in double precision on the host. The matrices come from files, so that no values may cause a hang or
//! a panic.

use burn::tensor::TensorData;
use nalgebra::{DMatrix, DVector, Schur, SymmetricEigen};
use serde::Serialize;

/// Why a computation on factors failed.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum MatrixError {
    /// A factor's shape does not match the other factors.
    #[error("{what} has shape {found:?}, but the other factors need {expected:?}")]
    Shape {
        /// The name of the factor.
        what: &'static str,
        /// The shape that would match.
        expected: Vec<usize>,
        /// The shape that it has.
        found: Vec<usize>,
    },
    /// Two updates have different shapes.
    #[error("cannot add updates of different shapes: {one:?} and {other:?}")]
    Sum {
        /// Output and input width of the first update.
        one: [usize; 2],
        /// Output and input width of the other update.
        other: [usize; 2],
    },
    /// The update does not follow from the factors alone.
    #[error(
        "an update of method {method} depends on the frozen weight: merge the adapter into the model instead; PEFT reads the adapter's folder as it is"
    )]
    NotLowRank {
        /// The adapter's method.
        method: &'static str,
    },
    /// There is nothing to compute with.
    #[error("the rank is zero, or there is no update")]
    Empty,
    /// A value is infinite or NaN.
    #[error("a value is infinite or not a number")]
    NotFinite,
    /// An iteration did not converge.
    #[error("the decomposition of a {side} x {side} matrix does not converge")]
    NoConvergence {
        /// The matrix's larger side.
        side: usize,
    },
}

/// An eigenvalue.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Eigenvalue {
    /// The real part.
    pub re: f64,
    /// The imaginary part; exactly 0 if the eigenvalue is real.
    pub im: f64,
}

impl Eigenvalue {
    /// The absolute value.
    pub fn abs(self) -> f64 {
        self.re.hypot(self.im)
    }
}

/// A factor as a matrix.
pub(crate) fn matrix(data: &TensorData) -> Result<DMatrix<f64>, MatrixError> {
    let shape = data.shape().to_vec();
    let [rows, columns] = shape[..] else {
        return Err(MatrixError::Shape {
            what: "a factor",
            expected: vec![0, 0],
            found: shape,
        });
    };
    if rows == 0 || columns == 0 {
        return Err(MatrixError::Empty);
    }
    let values = data.clone().convert::<f64>();
    finite(DMatrix::from_row_iterator(
        rows,
        columns,
        values.iter::<f64>(),
    ))
}

/// Returns the matrix if every value is finite.
pub(crate) fn finite(matrix: DMatrix<f64>) -> Result<DMatrix<f64>, MatrixError> {
    if matrix.iter().all(|value| value.is_finite()) {
        Ok(matrix)
    } else {
        Err(MatrixError::NotFinite)
    }
}

/// The triangular factor of a QR decomposition.
pub(crate) fn r_of(matrix: &DMatrix<f64>) -> DMatrix<f64> {
    matrix.clone().qr().unpack_r()
}

/// The square root of the sum of squares.
pub(crate) fn norm(values: &[f64]) -> f64 {
    values.iter().fold(0.0, |sum: f64, value| sum.hypot(*value))
}

/// The eigenvalues of a square matrix, the largest absolute value first. Conjugate pairs are adjacent, the one with the
/// positive imaginary part first.
pub(crate) fn eigenvalues(matrix: &DMatrix<f64>) -> Result<Vec<Eigenvalue>, MatrixError> {
    let matrix = finite(matrix.clone())?;
    let side = matrix.nrows();
    let no_convergence = MatrixError::NoConvergence { side };
    let mut values = if is_symmetric(&matrix) {
        let halves = (&matrix + matrix.transpose()) * 0.5;
        let eigen = SymmetricEigen::try_new(halves, f64::EPSILON, iterations(side))
            .ok_or(no_convergence)?;
        let real = eigen.eigenvalues.iter();
        real.map(|re| Eigenvalue { re: *re, im: 0.0 }).collect()
    } else {
        // The shifted QR iteration stalls on some orthogonal matrices, such as cyclic permutations. In a reflected
        // basis the eigenvalues are the same, but the iteration is different.
        let schur = |matrix| Schur::try_new(matrix, f64::EPSILON, iterations(side));
        let (_, triangular) = schur(matrix.clone())
            .or_else(|| schur(reflected(&matrix)))
            .ok_or(no_convergence)?
            .unpack();
        of_blocks(&triangular)
    };
    values.sort_by(|one, other| other.abs().total_cmp(&one.abs()));
    Ok(values)
}

/// The limit on the steps of an iteration: LAPACK allows 30 for each eigenvalue, and most take 2.
fn iterations(side: usize) -> usize {
    100 * side.max(10)
}

/// Whether a matrix is symmetric up to rounding.
fn is_symmetric(matrix: &DMatrix<f64>) -> bool {
    let odd = matrix - matrix.transpose();
    odd.norm() <= 1e-14 * matrix.nrows() as f64 * matrix.norm()
}

/// `H M H` with a Householder reflection `H` that mixes all basis vectors.
fn reflected(matrix: &DMatrix<f64>) -> DMatrix<f64> {
    let side = matrix.nrows();
    let axis = DVector::from_fn(side, |at, _| 1.0 + ((at * 7 + 3) % 11) as f64 / 11.0);
    let h = DMatrix::identity(side, side) - &axis * axis.transpose() * (2.0 / axis.norm_squared());
    &h * matrix * &h
}

/// The eigenvalues of a real Schur form, which are those of the 1 x 1 and 2 x 2 blocks on its diagonal.
fn of_blocks(schur: &DMatrix<f64>) -> Vec<Eigenvalue> {
    let side = schur.nrows();
    let mut values = Vec::with_capacity(side);
    let mut at = 0;
    while at < side {
        if at + 1 == side || schur[(at + 1, at)] == 0.0 {
            values.push(Eigenvalue {
                re: schur[(at, at)],
                im: 0.0,
            });
            at += 1;
            continue;
        }
        let (a, b) = (schur[(at, at)], schur[(at, at + 1)]);
        let (c, d) = (schur[(at + 1, at)], schur[(at + 1, at + 1)]);
        let (middle, half) = ((a + d) / 2.0, (a - d) / 2.0);
        let discriminant = half * half + b * c;
        let root = discriminant.abs().sqrt();
        for sign in [1.0, -1.0] {
            values.push(if discriminant < 0.0 {
                Eigenvalue {
                    re: middle,
                    im: sign * root,
                }
            } else {
                Eigenvalue {
                    re: middle + sign * root,
                    im: 0.0,
                }
            });
        }
        at += 2;
    }
    values
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;
    use rand::RngExt;
    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::SeedableRng;

    use super::*;
    use crate::analysis::svd::singular_values;

    /// Random values from -1 to 1, in single precision.
    pub(crate) fn random([rows, columns]: [usize; 2], seed: u64) -> DMatrix<f64> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        DMatrix::from_fn(rows, columns, |_, _| {
            f64::from(rng.random::<f32>() * 2.0 - 1.0)
        })
    }

    /// Whether values agree, relative to the largest value.
    pub(crate) fn close(found: &[f64], expected: &[f64], tolerance: f64) {
        assert_eq!(found.len(), expected.len());
        let size = expected
            .iter()
            .fold(1.0, |size: f64, value| size.max(value.abs()));
        for (one, other) in found.iter().zip(expected) {
            assert!(
                (one - other).abs() <= tolerance * size,
                "{found:?} {expected:?}"
            );
        }
    }

    fn pairs(matrix: &DMatrix<f64>) -> Vec<(f64, f64)> {
        let values = eigenvalues(matrix).unwrap();
        values.iter().map(|value| (value.re, value.im)).collect()
    }

    #[test]
    fn known_eigenvalues() {
        let identity = DMatrix::<f64>::identity(3, 3);
        assert_eq!(pairs(&identity), [(1.0, 0.0); 3]);
        assert_eq!(pairs(&DMatrix::zeros(2, 2)), [(0.0, 0.0); 2]);
        // A rotation by 90 degrees, and one by 30 that stretches by 2.
        let quarter = DMatrix::from_row_slice(2, 2, &[0.0, -1.0, 1.0, 0.0]);
        assert_eq!(pairs(&quarter), [(0.0, 1.0), (0.0, -1.0)]);
        let (cos, sin) = (3f64.sqrt(), 1.0);
        let turn = DMatrix::from_row_slice(2, 2, &[cos, -sin, sin, cos]);
        let found = pairs(&turn);
        close(&[found[0].0, found[0].1], &[cos, sin], 1e-14);
        close(&[found[1].0, found[1].1], &[cos, -sin], 1e-14);
        // A shear has one eigenvalue twice, though it is not the identity.
        let shear = DMatrix::from_row_slice(2, 2, &[1.0, 5.0, 0.0, 1.0]);
        assert_eq!(pairs(&shear), [(1.0, 0.0); 2]);
        assert_eq!(pairs(&DMatrix::from_element(1, 1, -3.0)), [(-3.0, 0.0)]);
    }

    #[test]
    fn a_stalled_iteration_starts_again_in_another_basis() {
        // The eigenvalues of a cyclic permutation are the roots of unity.
        for side in [3, 4, 5, 8, 17, 64] {
            let cycle = DMatrix::from_fn(side, side, |row, column| {
                f64::from(u8::from(row == (column + 1) % side))
            });
            let values = eigenvalues(&cycle).unwrap();
            let mut angles: Vec<f64> = values.iter().map(|v| v.im.atan2(v.re)).collect();
            angles.sort_by(f64::total_cmp);
            let step = std::f64::consts::TAU / side as f64;
            for (pair, value) in angles.windows(2).zip(&values) {
                assert!((pair[1] - pair[0] - step).abs() < 1e-9, "{side} {angles:?}");
                assert!((value.abs() - 1.0).abs() < 1e-12);
            }
        }
    }

    #[test]
    fn values_that_are_not_finite_are_refused() {
        let bad = DMatrix::from_element(3, 3, f64::INFINITY);
        assert_eq!(eigenvalues(&bad), Err(MatrixError::NotFinite));
        assert_eq!(singular_values(bad), Err(MatrixError::NotFinite));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(96))]

        #[test]
        fn eigenvalues_are_roots_of_the_characteristic_polynomial(side in 1usize..12, seed in 0u64..10_000) {
            let matrix = random([side, side], seed);
            let values = eigenvalues(&matrix).unwrap();
            prop_assert_eq!(values.len(), side);
            // |det(M - z I)| is the product of the distances; it vanishes where the smallest
            // singular value does.
            for value in &values {
                let complex = matrix.map(|x| nalgebra::Complex::new(x, 0.0));
                let z = nalgebra::Complex::new(value.re, value.im);
                let shifted = complex - DMatrix::identity(side, side) * z;
                let smallest = shifted.singular_values().min();
                prop_assert!(smallest < 1e-9, "{} at {:?}", smallest, value);
            }
            let trace: f64 = values.iter().map(|value| value.re).sum();
            prop_assert!((trace - matrix.trace()).abs() < 1e-10);
            let odd: f64 = values.iter().map(|value| value.im).sum();
            prop_assert!(odd.abs() < 1e-12);
            let det: f64 = values.iter().map(|value| value.abs()).product();
            prop_assert!((det - matrix.determinant().abs()).abs() < 1e-9);
        }

        #[test]
        fn a_covariance_has_real_eigenvalues_that_are_not_negative(side in 1usize..10, seed in 0u64..1000) {
            let c = random([side, side], seed);
            let values = eigenvalues(&(&c * c.transpose())).unwrap();
            let squares: Vec<f64> = singular_values(c).unwrap().iter().map(|s| s * s).collect();
            prop_assert!(values.iter().all(|value| value.im == 0.0 && value.re > -1e-12));
            close(&values.iter().map(|value| value.re).collect::<Vec<_>>(), &squares, 1e-12);
        }
    }
}
