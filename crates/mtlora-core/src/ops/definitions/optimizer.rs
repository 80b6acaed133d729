//! What an optimizer does with a parameter: AdamW (arXiv 1711.05101).
//!
//! With the gradient `g`, the moments `m` and `v` and the learning rate `l`, step number `t`:
//!
//! ```text
//! m = beta_1 m + (1 - beta_1) g     v = beta_2 v + (1 - beta_2) g²
//! p = p (1 - l decay) - l (m / (1 - beta_1^t)) / (sqrt(v / (1 - beta_2^t)) + epsilon)
//! ```

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Scalar};

/// The numbers of one step of AdamW.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamWStep {
    /// The learning rate.
    pub learning_rate: f64,
    /// What the parameter loses in a step, divided by the learning rate and by the parameter.
    pub weight_decay: f64,
    /// How much of the first moment is kept.
    pub beta_1: f32,
    /// How much of the second moment is kept.
    pub beta_2: f32,
    /// What is added to the root of the second moment.
    pub epsilon: f32,
    /// The number of this step, counted from 1.
    pub number: usize,
}

impl AdamWStep {
    /// What the moments are divided by, because they began at zero.
    pub(in crate::ops) fn corrections(self) -> [f32; 2] {
        let number = i32::try_from(self.number).unwrap_or(i32::MAX);
        [self.beta_1, self.beta_2].map(|beta| 1.0 - beta.powi(number))
    }

    /// What the parameter is multiplied with before the update is subtracted.
    pub(in crate::ops) fn kept(self) -> f64 {
        1.0 - self.learning_rate * self.weight_decay
    }
}

/// The parameter and the two moments after a step. Each operation, and their order, is that of [`burn::optim::AdamW`].
pub(in crate::ops) fn adamw<B: Backend>(
    parameter: FloatTensor<B>,
    gradient: FloatTensor<B>,
    [moment_1, moment_2]: [FloatTensor<B>; 2],
    step: AdamWStep,
) -> [FloatTensor<B>; 3] {
    let times = |tensor, factor: f32| B::float_mul_scalar(tensor, Scalar::from(factor));
    let square = B::float_mul(gradient.clone(), gradient.clone());
    let moment_1 = B::float_add(
        times(moment_1, step.beta_1),
        times(gradient, 1.0 - step.beta_1),
    );
    let moment_2 = B::float_add(
        times(moment_2, step.beta_2),
        times(square, 1.0 - step.beta_2),
    );
    let [of_1, of_2] = step.corrections().map(Scalar::from);
    let root = B::float_sqrt(B::float_div_scalar(moment_2.clone(), of_2));
    let below = B::float_add_scalar(root, Scalar::from(step.epsilon));
    let direction = B::float_div(B::float_div_scalar(moment_1.clone(), of_1), below);
    let update = B::float_mul_scalar(direction, Scalar::from(step.learning_rate));
    let kept = match step.kept() {
        1.0 => parameter,
        kept => B::float_mul_scalar(parameter, Scalar::from(kept)),
    };
    [B::float_sub(kept, update), moment_1, moment_2]
}
