use burn::tensor::activation::log_softmax;
use burn::tensor::{Int, Tensor, TensorData};

use crate::data::example::{Objective, Target};
use crate::metrics::labels::MetricError;

/// The summed loss of a batch: the cross-entropy over the classes, or the squared error. Divided by the number of
/// targets it is the mean loss.
///
/// # Shapes
/// - `logits`: `[sequences, labels]`
/// - output: `[1]`
///
/// # Errors
/// When there are no targets, their number differs from that of the logits, or a target does not match the objective
/// or the number of logits.
pub fn loss_sum(
    logits: Tensor<2>,
    targets: &[Target],
    objective: &Objective,
) -> Result<Tensor<1>, MetricError> {
    let [rows, width] = logits.dims();
    let count = targets.len();
    if rows != count {
        return Err(MetricError::Length {
            logits: rows,
            targets: count,
        });
    }
    if count == 0 {
        return Err(MetricError::Empty);
    }
    let device = logits.device();
    let targets = targets.iter().enumerate();
    match objective {
        Objective::Classification { .. } => {
            let classes = targets.map(|(example, target)| class(example, *target, width));
            let data = TensorData::new(classes.collect::<Result<Vec<_>, _>>()?, [count, 1]);
            let classes = Tensor::<2, Int>::from_data(data, &device);
            Ok(log_softmax(logits, 1).gather(1, classes).sum().neg())
        }
        Objective::Regression => {
            if width != 1 {
                return misfit(0, format!("{width} logits where one value is needed"));
            }
            let values = targets.map(|(example, target)| value(example, *target));
            let data = TensorData::new(values.collect::<Result<Vec<_>, _>>()?, [count, 1]);
            Ok((logits - Tensor::from_data(data, &device)).square().sum())
        }
    }
}

fn misfit<T>(example: usize, message: String) -> Result<T, MetricError> {
    Err(MetricError::Example { example, message })
}

fn class(example: usize, target: Target, width: usize) -> Result<i32, MetricError> {
    match target {
        Target::Class(class) if class < width => Ok(class as i32),
        Target::Class(class) => misfit(example, format!("class {class} of {width} logits")),
        Target::Value(value) => misfit(
            example,
            format!("the value {value} where the task asks for a class"),
        ),
    }
}

fn value(example: usize, target: Target) -> Result<f32, MetricError> {
    match target {
        Target::Value(value) if value.is_finite() => Ok(value),
        Target::Value(value) => misfit(example, format!("the target {value} is not finite")),
        Target::Class(class) => misfit(
            example,
            format!("class {class} where the task asks for a value"),
        ),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use mtlora_core::devices;

    use super::*;

    fn sum(rows: &[&[f32]], targets: &[Target], objective: &Objective) -> Result<f32, String> {
        let width = rows.first().map_or(1, |row| row.len());
        let data = TensorData::new(rows.concat(), [rows.len(), width]);
        let logits = Tensor::<2>::from_data(data, &devices()[0].device);
        let sum = loss_sum(logits, targets, objective).map_err(|error| error.to_string())?;
        assert_eq!(sum.dims(), [1]);
        Ok(sum.into_scalar())
    }

    fn classes(count: usize) -> Objective {
        Objective::Classification {
            labels: (0..count).map(|class| class.to_string()).collect(),
        }
    }

    /// With equal logits each class has the probability 1 / classes; with the logits 0 and ln 3 the probabilities are
    /// 1/4 and 3/4.
    #[test]
    fn losses_are_summed_and_not_divided() {
        let near = |found: Result<f32, String>, wanted: f32| {
            let found = found.unwrap();
            assert!((found - wanted).abs() < 1e-5, "{found} {wanted}");
        };
        use Target::{Class, Value};
        let even: &[f32] = &[0.0, 0.0];
        let odds: &[f32] = &[0.0, 3.0_f32.ln()];
        near(sum(&[even], &[Class(1)], &classes(2)), 2.0_f32.ln());
        near(sum(&[even; 3], &[Class(1); 3], &classes(2)), 8.0_f32.ln());
        near(sum(&[odds], &[Class(0)], &classes(2)), 4.0_f32.ln());
        let both = [Class(1), Class(0)];
        near(
            sum(&[odds, odds], &both, &classes(2)),
            (16.0_f32 / 3.0).ln(),
        );
        let three: &[f32] = &[5.0; 3];
        near(sum(&[three], &[Class(2)], &classes(3)), 3.0_f32.ln());
        // The squared errors are 1 and 4, and 0.25.
        let (one, two): (&[f32], &[f32]) = (&[1.0], &[2.0]);
        let values = [Value(2.0), Value(0.0)];
        near(sum(&[one, two], &values, &Objective::Regression), 5.0);
        near(sum(&[two], &[Value(1.5)], &Objective::Regression), 0.25);
    }

    #[test]
    fn what_does_not_fit_is_an_error() {
        use Target::{Class, Value};
        let two: &[f32] = &[0.0, 1.0];
        let one: &[f32] = &[0.0];
        let of_two = |targets: &[Target]| sum(&[two, two], targets, &classes(2)).unwrap_err();
        assert!(
            of_two(&[Class(1), Value(1.0)]).starts_with("example 1 (from 0): the value 1 where")
        );
        assert!(of_two(&[Class(2), Class(0)]).ends_with("class 2 of 2 logits"));
        assert!(of_two(&[Class(usize::MAX), Class(0)]).ends_with("of 2 logits"));
        assert!(of_two(&[Class(0)]).starts_with("there are 2 predictions for 1 targets"));
        assert!(of_two(&[Class(0); 3]).starts_with("there are 2 predictions for 3 targets"));
        let value = |rows: &[&[f32]], targets: &[Target]| {
            sum(rows, targets, &Objective::Regression).unwrap_err()
        };
        assert!(value(&[one], &[Class(0)]).contains("class 0 where the task asks for a value"));
        assert!(value(&[one], &[Value(f32::NAN)]).contains("NaN is not finite"));
        assert!(value(&[one], &[Value(f32::INFINITY)]).contains("inf is not finite"));
        assert!(value(&[two], &[Value(1.0)]).contains("2 logits where one value is needed"));
        assert!(value(&[], &[]).contains("no predictions"));
    }
}
