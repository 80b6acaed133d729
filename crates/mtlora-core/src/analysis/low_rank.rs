use nalgebra::DMatrix;

use crate::adapter::fold::data;
use crate::analysis::linalg::{self, MatrixError};
use crate::analysis::svd;
use crate::{AdapterForm, AdapterValues, Factor, Factors, Sizes, Structure};

/// A matrix `[out, in]` given by its factors, `up [out, rank] * down [rank, in]`, in double precision. The update of an
/// adapter has this form, and so have weighted sums of updates. The dense matrix is never computed: norms, singular
/// values and approximations come from QR decompositions of the factors and the singular value decomposition of a core
/// of `[rank, rank]`.
///
/// ```
/// use burn::tensor::TensorData;
/// use mtlora_core::{AdapterForm, AdapterValues, Factors, LowRank, Structure};
/// # fn main() -> Result<(), mtlora_core::MatrixError> {
/// let adapter = |b: [[f32; 1]; 2]| AdapterValues {
///     a: TensorData::from([[0.0f32, 1.0, 0.0]]),
///     b: TensorData::from(b),
///     further: Factors::none(),
///     form: AdapterForm::new(Structure::Lora, 2.0),
/// };
/// let (first, second) = (adapter([[2.0], [0.0]]), adapter([[0.0], [1.0]]));
/// let sum = LowRank::sum(&[(0.5, LowRank::of(&first)?), (3.0, LowRank::of(&second)?)])?;
/// assert_eq!(sum.rank(), 2);
/// // Both update the same column, so rank 1 is enough.
/// let (small, error) = sum.truncate(1)?;
/// assert!((small.norm()? - 40f64.sqrt()).abs() < 1e-12);
/// assert!(error.relative() < 1e-12);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct LowRank {
    /// `[out, rank]`
    up: DMatrix<f64>,
    /// `[rank, in]`
    down: DMatrix<f64>,
}

/// The error of an approximation, in Frobenius norms.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Truncation {
    /// The norm of the part that the approximation leaves out.
    pub error: f64,
    /// The norm of the approximated matrix.
    pub norm: f64,
}

impl Truncation {
    /// The error divided by the norm of the approximated matrix; 0 if that norm is 0.
    pub fn relative(self) -> f64 {
        if self.norm > 0.0 {
            self.error / self.norm
        } else {
            0.0
        }
    }

    /// The error of several matrices, taken as the blocks of one matrix.
    pub fn of_all(parts: impl IntoIterator<Item = Truncation>) -> Self {
        let none = Self {
            error: 0.0,
            norm: 0.0,
        };
        parts.into_iter().fold(none, |all, one| Self {
            error: all.error.hypot(one.error),
            norm: all.norm.hypot(one.norm),
        })
    }
}

impl LowRank {
    /// The update of an adapter, `scale * B T A`. If `g` projections are fused, its rank is `g * rank`.
    ///
    /// # Errors
    /// When the factors' shapes do not multiply, or a value is not finite.
    pub fn of(values: &AdapterValues) -> Result<Self, MatrixError> {
        let down = linalg::matrix(&values.a)?;
        let b = linalg::matrix(&values.b)?;
        let up = laid_out(b, &values.form, down.nrows())?;
        let up = match transform(values)? {
            Some(t) => up * t,
            None => up,
        };
        Ok(Self {
            up: up * values.form.scale,
            down,
        })
    }

    /// The exact weighted sum of matrices of the same shape; the ranks add up.
    ///
    /// # Errors
    /// When there is no matrix, or two have different shapes.
    pub fn sum(parts: &[(f64, LowRank)]) -> Result<Self, MatrixError> {
        let (_, first) = parts.first().ok_or(MatrixError::Empty)?;
        let [out, input] = first.shape();
        let rank = parts.iter().map(|(_, part)| part.rank()).sum();
        let mut up = DMatrix::zeros(out, rank);
        let mut down = DMatrix::zeros(rank, input);
        let mut at = 0;
        for (weight, part) in parts {
            if part.shape() != [out, input] {
                return Err(MatrixError::Sum {
                    one: [out, input],
                    other: part.shape(),
                });
            }
            up.columns_mut(at, part.rank())
                .copy_from(&(&part.up * *weight));
            down.rows_mut(at, part.rank()).copy_from(&part.down);
            at += part.rank();
        }
        Ok(Self { up, down })
    }

    /// Output and input width.
    pub fn shape(&self) -> [usize; 2] {
        [self.up.nrows(), self.down.ncols()]
    }

    /// The rank of the factors; the rank of the matrix itself may be lower.
    pub fn rank(&self) -> usize {
        self.up.ncols()
    }

    /// The Frobenius norm.
    ///
    /// # Errors
    /// When a value is not finite.
    pub fn norm(&self) -> Result<f64, MatrixError> {
        let core = linalg::finite(linalg::r_of(&self.up) * self.down_r().transpose())?;
        Ok(core.norm())
    }

    /// The singular values that can differ from zero, the largest first: as many as the rank of the factors or the
    /// smaller side of the matrix, whichever is less.
    ///
    /// # Errors
    /// When a value is not finite, or the decomposition does not converge.
    pub fn singular_values(&self) -> Result<Vec<f64>, MatrixError> {
        svd::singular_values(linalg::r_of(&self.up) * self.down_r().transpose())
    }

    /// The nearest matrix of that rank in the Frobenius norm (Eckart and Young 1936), and the error. Both factors are
    /// scaled by the square roots of the singular values. A rank above that of the factors is reduced to it.
    ///
    /// # Errors
    /// When `rank` is 0, a value is not finite, or the decomposition does not converge.
    pub fn truncate(&self, rank: usize) -> Result<(Self, Truncation), MatrixError> {
        if rank == 0 {
            return Err(MatrixError::Empty);
        }
        let [up, down] = [self.up.clone(), self.down.transpose()].map(|tall| tall.qr());
        let svd = svd::svd(up.r() * down.r().transpose())?;
        let kept = rank.min(svd.values.len());
        let (largest, rest) = svd.values.split_at(kept);
        let root = DMatrix::from_diagonal(&nalgebra::DVector::from_iterator(
            kept,
            largest.iter().map(|value| value.sqrt()),
        ));
        let truncation = Truncation {
            error: linalg::norm(rest),
            norm: linalg::norm(&svd.values),
        };
        let kept = Self {
            up: up.q() * (svd.u.columns(0, kept) * &root),
            down: (root * svd.v_t.rows(0, kept)) * down.q().transpose(),
        };
        Ok((kept, truncation))
    }

    /// The matrix as a plain LoRA of scale 1 (alpha equal to the rank), in single precision.
    pub fn to_lora(&self) -> AdapterValues {
        AdapterValues {
            a: data(&self.down),
            b: data(&self.up),
            further: Factors::none(),
            form: AdapterForm::new(Structure::Lora, 1.0),
        }
    }

    /// The triangular factor of `down`'s transpose.
    fn down_r(&self) -> DMatrix<f64> {
        linalg::r_of(&self.down.transpose())
    }
}

/// `T` in double precision, or `None` if it is the identity.
pub(crate) fn transform(values: &AdapterValues) -> Result<Option<DMatrix<f64>>, MatrixError> {
    let sizes = Sizes {
        rank: values.rank(),
        total_rank: values.a.shape().first().copied().unwrap_or(0),
        input: values.a.shape().get(1).copied().unwrap_or(0),
        output: values.b.shape().first().copied().unwrap_or(0),
    };
    let method = values.form.method;
    if !method.is_low_rank() {
        let method = method.name();
        return Err(MatrixError::NotLowRank { method });
    }
    let mut factors = Factors::none();
    for (name, data) in values.further.iter() {
        let expected = method.factor(name).map(|factor| (factor.shape)(&sizes));
        let matrix = linalg::matrix(data)?;
        if expected.is_some_and(|[rows, columns]| matrix.shape() != (rows, columns)) {
            return Err(MatrixError::Shape {
                what: method.factor(name).map_or("a factor", Factor::file_name),
                expected: expected.map_or_else(Vec::new, Vec::from),
                found: data.shape().to_vec(),
            });
        }
        factors.insert(name, matrix);
    }
    Ok(method.transform_on_host(&factors))
}

/// `B` as it acts on all of `T A x`; this is [`Adapter::up`](crate::Adapter::up) on the host.
pub(crate) fn laid_out(
    b: DMatrix<f64>,
    form: &AdapterForm,
    side: usize,
) -> Result<DMatrix<f64>, MatrixError> {
    let groups = form.groups();
    let (rows, rank) = b.shape();
    if groups == 0 || !rows.is_multiple_of(groups) || groups.checked_mul(rank) != Some(side) {
        return Err(MatrixError::Shape {
            what: "B",
            expected: vec![rows, side / groups.max(1)],
            found: vec![rows, rank],
        });
    }
    if form.fused.is_empty() {
        return Ok(b);
    }
    let width = rows / groups;
    let mut up = DMatrix::zeros(width * form.fused.len(), side);
    let adapted = form.fused.iter().enumerate().filter(|(_, is)| **is);
    for (own, (projection, _)) in adapted.enumerate() {
        up.view_mut((projection * width, own * rank), (width, rank))
            .copy_from(&b.rows(own * width, width));
    }
    Ok(up)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use burn::tensor::TensorData;
    use proptest::prelude::*;

    use super::*;
    use crate::AdapterMethod;
    use crate::analysis::linalg::tests::{close, random};

    fn values(
        [out, input, rank]: [usize; 3],
        structure: Structure,
        fused: Vec<bool>,
        seed: u64,
    ) -> AdapterValues {
        let form = AdapterForm {
            fused,
            ..AdapterForm::new(structure, 1.7)
        };
        let side = form.groups() * rank;
        let factor = |shape: [usize; 2], at| data(&random(shape, seed + at));
        AdapterValues {
            a: factor([side, input], 1),
            b: factor([form.groups() * out, rank], 2),
            further: AdapterMethod::from(structure)
                .further(|one| factor([side, side], if one.name == "c" { 3 } else { 4 })),
            form,
        }
    }

    fn dense(low: &LowRank) -> DMatrix<f64> {
        &low.up * &low.down
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn factors_and_the_dense_matrix_agree(
            out in 1usize..12, input in 1usize..12, rank in 1usize..6, kept in 1usize..8, seed in 0u64..1000,
        ) {
            let low = LowRank::of(&values([out, input, rank], Structure::Ctcm, vec![], seed)).unwrap();
            let whole = dense(&low);
            close(&[low.norm().unwrap()], &[whole.norm()], 1e-12);
            let expected = svd::singular_values(whole.clone()).unwrap();
            let found = low.singular_values().unwrap();
            prop_assert_eq!(found.len(), rank.min(out).min(input));
            close(&found, &expected[..found.len()], 1e-12);

            // The reported error is the actual one, and no matrix of that rank is nearer.
            let (small, truncation) = low.truncate(kept).unwrap();
            prop_assert!(small.rank() <= kept);
            let made = (whole - dense(&small)).norm();
            close(&[truncation.error], &[made], 1e-12);
            let rest = found.get(kept..).unwrap_or(&[]);
            close(&[made], &[linalg::norm(rest)], 1e-12);
        }

        #[test]
        fn a_sum_is_the_sum_of_the_dense_matrices(
            out in 1usize..9, input in 1usize..9, ranks in prop::collection::vec(1usize..5, 1..4), seed in 0u64..1000,
        ) {
            let parts: Vec<(f64, LowRank)> = ranks
                .iter()
                .enumerate()
                .map(|(at, rank)| {
                    let structure = Structure::ALL[at % Structure::ALL.len()];
                    let seed = seed + 100 * at as u64;
                    let low = LowRank::of(&values([out, input, *rank], structure, vec![], seed));
                    (1.5 - at as f64, low.unwrap())
                })
                .collect();
            let expected = parts.iter().fold(DMatrix::zeros(out, input), |sum, (weight, part)| {
                sum + dense(part) * *weight
            });
            let sum = LowRank::sum(&parts).unwrap();
            prop_assert_eq!(sum.rank(), ranks.iter().sum::<usize>());
            close(dense(&sum).as_slice(), expected.as_slice(), 1e-12);
            // At full rank nothing is lost, even if the ranks exceed the sides of the matrix.
            let (all, truncation) = sum.truncate(sum.rank()).unwrap();
            close(dense(&all).as_slice(), expected.as_slice(), 1e-11);
            prop_assert!(truncation.relative() < 1e-12);
        }
    }

    #[test]
    fn updates_equal_those_of_the_adapter_on_a_device() {
        let device = crate::devices()[0].device.clone();
        for structure in Structure::ALL {
            for fused in [vec![], vec![true, false, true], vec![false, true]] {
                let values = values([3, 5, 2], structure, fused, 7);
                let low = LowRank::of(&values).unwrap();
                let delta = values.to_device(&device).delta().into_data();
                assert_eq!(delta.shape().to_vec(), low.shape());
                close(
                    dense(&low).transpose().as_slice(),
                    &delta.iter::<f32>().map(f64::from).collect::<Vec<_>>(),
                    1e-5,
                );
                // As plain LoRA it is the same update.
                let lora = low.to_lora().to_device(&device).delta().into_data();
                lora.assert_approx_eq::<f32>(&delta, burn::tensor::Tolerance::absolute(1e-5));
            }
        }
    }

    #[test]
    fn an_untrained_update_is_zero_and_truncates_to_zero() {
        let mut values = values([4, 6, 3], Structure::Shim, vec![], 1);
        values.b = TensorData::zeros::<f32, _>([4, 3]);
        let low = LowRank::of(&values).unwrap();
        assert_eq!(low.norm().unwrap(), 0.0);
        assert_eq!(low.singular_values().unwrap(), [0.0; 3]);
        let (small, truncation) = low.truncate(1).unwrap();
        assert_eq!(dense(&small), DMatrix::zeros(4, 6));
        assert_eq!(truncation.relative(), 0.0);
    }

    #[test]
    fn a_rank_deficient_update_is_approximated_exactly() {
        // B's columns are equal: the update has rank 1.
        let mut values = values([4, 6, 3], Structure::Lora, vec![], 2);
        values.b = TensorData::new([1f32, -2.0, 0.5, 3.0].map(|x| [x; 3]).concat(), [4, 3]);
        let low = LowRank::of(&values).unwrap();
        let (small, truncation) = low.truncate(1).unwrap();
        assert!(truncation.relative() < 1e-12);
        close(dense(&small).as_slice(), dense(&low).as_slice(), 1e-12);
    }

    #[test]
    fn mismatched_shapes_are_refused() {
        let good = || values([4, 6, 3], Structure::Dtsm, vec![], 3);
        let refused = |change: fn(&mut AdapterValues)| {
            let mut values = good();
            change(&mut values);
            LowRank::of(&values).unwrap_err()
        };
        let error = refused(|values| values.b = TensorData::zeros::<f32, _>([4, 2]));
        assert!(error.to_string().contains('B'), "{error}");
        let error = refused(|values| {
            values
                .further
                .insert("d", TensorData::zeros::<f32, _>([3, 2]));
        });
        assert!(error.to_string().contains("[3, 2]"), "{error}");
        let error = refused(|values| values.a = TensorData::new(vec![f32::NAN; 18], [3, 6]));
        assert_eq!(error, MatrixError::NotFinite);
        let error = refused(|values| values.form.fused = vec![false]);
        assert!(matches!(error, MatrixError::Shape { .. }));
        let low = LowRank::of(&good()).unwrap();
        let other = LowRank::of(&values([5, 6, 3], Structure::Lora, vec![], 3)).unwrap();
        assert!(matches!(
            LowRank::sum(&[(1.0, low.clone()), (1.0, other)]),
            Err(MatrixError::Sum { .. })
        ));
        assert_eq!(LowRank::sum(&[]).unwrap_err(), MatrixError::Empty);
        assert_eq!(low.truncate(0).unwrap_err(), MatrixError::Empty);
    }
}
