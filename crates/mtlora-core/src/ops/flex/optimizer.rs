use burn::backend::TensorMetadata;
use burn::backend::flex::FlexTensor;
use burn::tensor::Shape;
use rayon::prelude::*;

use super::instructions::vectorized;
use super::reduce::sum_of;
use super::{CHUNK, contiguous, exclusive, tensor, values};
use crate::ops::AdamWStep;

/// The numbers of a step, in the precision of the parameters.
struct Factors {
    beta_1: f32,
    beta_2: f32,
    corrections: [f32; 2],
    epsilon: f32,
    learning_rate: f32,
    kept: f32,
}

vectorized! {
    /// A step of some elements, which are read and written once.
    ///
    /// Each operation is rounded, in the order of the definition, so that a step's bits are the same: a fused multiply-add
    /// or a reciprocal would change the last of them.
    fn step_chunk(
        parameter: &mut [f32],
        moments: [&mut [f32]; 2],
        gradient: &[f32],
        factors: &Factors,
    ) {
        let Factors { beta_1, beta_2, corrections, epsilon, learning_rate, kept } = *factors;
        let [moment_1, moment_2] = moments;
        let moments = moment_1.iter_mut().zip(moment_2);
        for ((parameter, gradient), (m, v)) in parameter.iter_mut().zip(gradient).zip(moments) {
            *m = *m * beta_1 + gradient * (1.0 - beta_1);
            *v = *v * beta_2 + gradient * gradient * (1.0 - beta_2);
            let direction = *m / corrections[0] / ((*v / corrections[1]).sqrt() + epsilon);
            *parameter = *parameter * kept - direction * learning_rate;
        }
    }
}

/// [`crate::ops::MtLoraBackend::adamw`], in the memory of the parameter and the moments if no other tensors share it.
pub(crate) fn adamw(
    parameter: FlexTensor,
    gradient: FlexTensor,
    moments: [FlexTensor; 2],
    step: AdamWStep,
) -> [FlexTensor; 3] {
    let shape = parameter.shape();
    let shapes = [&gradient, &moments[0], &moments[1]].map(|tensor| tensor.shape());
    assert!(shapes.iter().all(|other| *other == shape), "one shape");
    let gradient = contiguous(gradient);
    let (mut parameter, [mut moment_1, mut moment_2]) =
        (exclusive(parameter), moments.map(exclusive));
    let factors = Factors {
        beta_1: step.beta_1,
        beta_2: step.beta_2,
        corrections: step.corrections(),
        epsilon: step.epsilon,
        learning_rate: step.learning_rate as f32,
        kept: step.kept() as f32,
    };
    parameter
        .storage_mut::<f32>()
        .par_chunks_mut(CHUNK)
        .zip(values(&gradient).par_chunks(CHUNK))
        .zip(
            moment_1
                .storage_mut::<f32>()
                .par_chunks_mut(CHUNK)
                .zip(moment_2.storage_mut::<f32>().par_chunks_mut(CHUNK)),
        )
        .for_each(|((parameter, gradient), (m, v))| {
            step_chunk(parameter, [m, v], gradient, &factors);
        });
    [parameter, moment_1, moment_2]
}

vectorized! {
    fn chunk_squares(x: &[f32]) -> f32 {
        sum_of(x, x, |x, _| x * x)
    }
}

/// [`crate::ops::MtLoraBackend::sum_of_squares`]: the squares of a chunk in single precision, and the chunks in double
/// precision, in the same order for every number of threads.
pub(crate) fn sum_of_squares(tensors: Vec<FlexTensor>, before: Option<FlexTensor>) -> FlexTensor {
    let before = before.map(contiguous);
    let mut sum = before.map_or(0.0, |before| {
        values(&before).iter().copied().map(f64::from).sum()
    });
    for tensor in tensors.into_iter().map(contiguous) {
        let chunks = values(&tensor).par_chunks(CHUNK);
        let chunks: Vec<f32> = chunks.map(chunk_squares).collect();
        sum += chunks.into_iter().map(f64::from).sum::<f64>();
    }
    tensor(vec![sum as f32], Shape::from([1]))
}

vectorized! {
    fn scale_chunk(x: &mut [f32], factor: f32) {
        for x in x {
            *x *= factor;
        }
    }
}

/// [`crate::ops::MtLoraBackend::scaled`], in the tensor's own memory if no other tensor shares it.
pub(crate) fn scaled(x: FlexTensor, factor: f32) -> FlexTensor {
    let mut x = exclusive(x);
    x.storage_mut::<f32>()
        .par_chunks_mut(CHUNK)
        .for_each(|x| scale_chunk(x, factor));
    x
}

#[cfg(test)]
mod tests {
    use burn::backend::Flex;
    use burn::backend::ops::FloatTensorOps;
    use burn::tensor::Scalar;

    use super::*;
    use crate::ops::definitions::optimizer;
    use crate::ops::flex::testing::random;

    fn bits(tensor: &FlexTensor) -> Vec<u32> {
        values(tensor).iter().map(|x| x.to_bits()).collect()
    }

    /// The bits of the definition, whose operations are Burn's AdamW's, with and without decay, in the tensors' own memory
    /// and with memory that others share.
    #[test]
    fn a_step_has_the_bits_of_the_definition() {
        for (length, weight_decay, shared) in
            [(0, 0.1, false), (1, 0.0, true), (3 * CHUNK + 5, 0.1, false)]
        {
            let step = AdamWStep {
                learning_rate: 3e-3,
                weight_decay,
                beta_1: 0.9,
                beta_2: 0.999,
                epsilon: 1e-8,
                number: 7,
            };
            let parameter = || random([length], 1.0, 1);
            let gradient = random([length], 1e-3, 2);
            let moments = || {
                let square = Flex::float_powi_scalar(random([length], 1e-3, 4), Scalar::from(2));
                [random([length], 1e-3, 3), square]
            };
            let expected = optimizer::adamw::<Flex>(parameter(), gradient.clone(), moments(), step);
            let before = parameter();
            let (p, [m, v]) = (parameter(), moments());
            let others = shared.then(|| (p.clone(), m.clone(), v.clone()));
            let found = adamw(p, gradient, [m, v], step);
            for (found, expected) in found.iter().zip(&expected) {
                assert_eq!(bits(found), bits(expected), "{length} elements");
            }
            if let Some((p, m, v)) = others {
                let [first, second] = moments();
                assert_eq!(
                    [bits(&p), bits(&m), bits(&v)],
                    [bits(&before), bits(&first), bits(&second)]
                );
            }
        }
    }
}
