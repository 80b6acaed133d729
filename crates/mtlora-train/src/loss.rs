use burn::tensor::activation::log_softmax;
use burn::tensor::{Int, Tensor, TensorData};

use crate::example::{Objective, Target};

/// The mean loss of a batch: cross-entropy over the classes, or the squared error.
///
/// # Shapes
/// - `logits`: `[sequences, labels]`
/// - output: `[1]`
pub fn loss(logits: Tensor<2>, targets: &[Target], objective: &Objective) -> Tensor<1> {
    let device = logits.device();
    let count = targets.len();
    match objective {
        Objective::Classification { .. } => {
            let classes = targets.iter().map(|target| class(*target) as i32);
            let data = TensorData::new(classes.collect::<Vec<_>>(), [count, 1]);
            let classes = Tensor::<2, Int>::from_data(data, &device);
            log_softmax(logits, 1).gather(1, classes).mean().neg()
        }
        Objective::Regression => {
            let values = targets.iter().map(|target| value(*target));
            let data = TensorData::new(values.collect::<Vec<_>>(), [count, 1]);
            (logits - Tensor::from_data(data, &device)).square().mean()
        }
    }
}

fn class(target: Target) -> usize {
    match target {
        Target::Class(class) => class,
        Target::Value(value) => value as usize,
    }
}

fn value(target: Target) -> f32 {
    match target {
        Target::Class(class) => class as f32,
        Target::Value(value) => value,
    }
}
