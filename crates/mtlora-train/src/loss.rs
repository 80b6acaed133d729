use burn::tensor::activation::log_softmax;
use burn::tensor::{Int, Tensor, TensorData};

use crate::example::{Objective, Target};
use crate::metrics::MetricError;

/// The sum of the losses of a batch: cross-entropy over the classes, or the squared error. The mean is this divided by
/// the number of targets.
///
/// # Shapes
/// - `logits`: `[sequences, labels]`
/// - output: `[1]`
///
/// # Errors
/// When there are no targets, not as many as logits, or one that the objective or the logits do not fit.
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
