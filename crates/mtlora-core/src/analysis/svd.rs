//! Singular values and vectors of small matrices by the one-sided Jacobi method, whose error is a few rounding errors
//! of the largest value (Demmel and Veselić 1992). nalgebra's iteration is off by more than a thousandth for some
//! matrices that are close to rank one.

use nalgebra::DMatrix;

use crate::analysis::linalg::{MatrixError, finite};

/// The limit on sweeps over all pairs of columns; ten are enough for most matrices.
const MOST_SWEEPS: usize = 100;

/// A singular value decomposition, the largest value first. The vectors that belong to a zero singular value may be
/// zero.
pub(crate) struct Svd {
    pub u: DMatrix<f64>,
    pub values: Vec<f64>,
    pub v_t: DMatrix<f64>,
}

/// The singular values of a matrix with at least one value, the largest first.
pub(crate) fn singular_values(matrix: DMatrix<f64>) -> Result<Vec<f64>, MatrixError> {
    Ok(svd(matrix)?.values)
}

/// Decomposes a matrix with at least one value.
pub(crate) fn svd(matrix: DMatrix<f64>) -> Result<Svd, MatrixError> {
    let matrix = finite(matrix)?;
    let size = matrix.amax();
    if size == 0.0 {
        let [rows, columns] = [matrix.nrows(), matrix.ncols()];
        let side = rows.min(columns);
        return Ok(Svd {
            u: DMatrix::zeros(rows, side),
            values: vec![0.0; side],
            v_t: DMatrix::zeros(side, columns),
        });
    }
    // After this scaling, squares neither overflow nor underflow to zero.
    let matrix = matrix / size;
    let wide = matrix.ncols() > matrix.nrows();
    let mut columns = if wide { matrix.transpose() } else { matrix };
    let mut turns = DMatrix::identity(columns.ncols(), columns.ncols());
    make_orthogonal(&mut columns, &mut turns)?;

    let norms: Vec<f64> = columns.column_iter().map(|column| column.norm()).collect();
    let mut order: Vec<usize> = (0..norms.len()).collect();
    order.sort_by(|one, other| norms[*other].total_cmp(&norms[*one]));
    let left = DMatrix::from_fn(columns.nrows(), order.len(), |row, at| {
        let norm = norms[order[at]];
        if norm > 0.0 {
            columns[(row, order[at])] / norm
        } else {
            0.0
        }
    });
    let right = turns.select_columns(&order);
    let (u, v) = if wide { (right, left) } else { (left, right) };
    Ok(Svd {
        u,
        values: order.iter().map(|at| norms[*at] * size).collect(),
        v_t: v.transpose(),
    })
}

/// Rotates the columns pair by pair until all are orthogonal to each other, and applies the same rotations to `turns`.
fn make_orthogonal(
    columns: &mut DMatrix<f64>,
    turns: &mut DMatrix<f64>,
) -> Result<(), MatrixError> {
    let [rows, count] = [columns.nrows(), columns.ncols()];
    let tolerance = f64::EPSILON * rows as f64;
    for _ in 0..MOST_SWEEPS {
        let mut turned = false;
        for first in 0..count {
            for second in first + 1..count {
                let (one, other) = (columns.column(first), columns.column(second));
                let product = one.dot(&other);
                if product.abs() <= tolerance * one.norm() * other.norm() {
                    continue;
                }
                turned = true;
                // The smaller of the two angles that make the columns orthogonal: Golub and Van Loan, Matrix
                // Computations, 8.5.2.
                let cotangent = (other.norm_squared() - one.norm_squared()) / (2.0 * product);
                let tangent = cotangent.signum() / (cotangent.abs() + cotangent.hypot(1.0));
                let cosine = tangent.hypot(1.0).recip();
                for matrix in [&mut *columns, &mut *turns] {
                    turn(matrix, [first, second], cosine, cosine * tangent);
                }
            }
        }
        if !turned {
            return Ok(());
        }
    }
    Err(MatrixError::NoConvergence { side: rows })
}

fn turn(matrix: &mut DMatrix<f64>, [first, second]: [usize; 2], cosine: f64, sine: f64) {
    for row in 0..matrix.nrows() {
        let (one, other) = (matrix[(row, first)], matrix[(row, second)]);
        matrix[(row, first)] = cosine * one - sine * other;
        matrix[(row, second)] = sine * one + cosine * other;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use nalgebra::DVector;
    use proptest::prelude::*;

    use super::*;
    use crate::analysis::linalg::tests::{close, random};

    /// The product of the parts, and the deviation of the vectors from orthonormality.
    fn check(matrix: &DMatrix<f64>) -> Result<Svd, TestCaseError> {
        let svd = svd(matrix.clone()).unwrap();
        let size = matrix.norm();
        prop_assert!(
            svd.values
                .is_sorted_by(|one, other| one >= other && *other >= 0.0)
        );
        let values = DMatrix::from_diagonal(&DVector::from_vec(svd.values.clone()));
        let error = (matrix - &svd.u * values * &svd.v_t).norm();
        prop_assert!(error <= 1e-14 * size, "{error} of {size}");
        if svd.values.iter().all(|value| *value > 0.0) {
            let identity = DMatrix::identity(svd.values.len(), svd.values.len());
            let [u, v] = [svd.u.tr_mul(&svd.u), &svd.v_t * svd.v_t.transpose()];
            prop_assert!((u - &identity).norm() < 1e-13);
            prop_assert!((v - identity).norm() < 1e-13);
        }
        Ok(svd)
    }

    proptest! {
        #[test]
        fn any_matrix_is_the_product_of_its_parts(
            rows in 1usize..12, columns in 1usize..12, seed: u64, exponent in -300i32..150,
        ) {
            check(&(random([rows, columns], seed) * 10f64.powi(exponent)))?;
        }

        /// Matrices close to a lower rank or to equal singular values, and with columns of very different sizes.
        #[test]
        fn hard_matrices_are_the_product_of_their_parts(side in 2usize..7, seed in 0..u64::MAX, exponent in 1i32..16) {
            let little = 10f64.powi(-exponent);
            let (plain, noise) = (random([side, side], seed), random([side, side], seed + 1) * little);
            check(&(plain.columns(0, 1) * plain.rows(0, 1) + &noise))?;
            check(&(plain.clone().qr().q() + noise))?;
            let mut graded = plain;
            for (at, mut column) in graded.column_iter_mut().enumerate() {
                column *= little.powi(at as i32);
            }
            check(&graded)?;
        }

        #[test]
        fn values_are_those_that_it_was_made_of(
            mut values in prop::collection::vec(0f64..10.0, 1..8), more in 0usize..4, seed in 0..u64::MAX, wide: bool,
        ) {
            let side = values.len();
            let left = random([side + more, side], seed).qr().q();
            let right = random([side, side], seed + 1).qr().q();
            let diagonal = DMatrix::from_diagonal(&DVector::from_vec(values.clone()));
            let matrix = left * diagonal * right;
            values.sort_by(|one, other| other.total_cmp(one));
            let matrix = if wide { matrix.transpose() } else { matrix };
            close(&check(&matrix)?.values, &values, 1e-13);
        }
    }

    #[test]
    fn zero_matrices_and_nan_are_handled() {
        let zero = svd(DMatrix::zeros(2, 3)).unwrap();
        assert_eq!(zero.values, [0.0, 0.0]);
        assert_eq!((zero.u.shape(), zero.v_t.shape()), ((2, 2), (2, 3)));
        let one = check(&DMatrix::from_element(3, 3, 2.0)).unwrap();
        close(&one.values, &[6.0, 0.0, 0.0], 1e-15);
        let bad = DMatrix::from_element(2, 2, f64::NAN);
        assert_eq!(singular_values(bad), Err(MatrixError::NotFinite));
    }
}
