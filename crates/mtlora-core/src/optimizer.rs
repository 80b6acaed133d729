//! What an optimizer does with parameters and gradients, as functions on Burn's tensors.

use burn::backend::Dispatch;
use burn::tensor::Tensor;

use crate::ops::{AdamWStep, MtLoraBackend};

/// One step of AdamW (arXiv 1711.05101) after the first, from the parameter, its gradient and the two moments: the parameter
/// and the moments after it. All have the same shape. The first step needs no moments: [`burn::optim::AdamW`] makes it, and
/// this function computes what it would compute in the later ones, to the same bits on the processor.
///
/// On the processor it reads and writes each tensor once, on all threads, in the tensors' own memory where nothing else shares
/// it. The tensors are on a device without gradients.
pub fn adamw_step<const D: usize>(
    parameter: Tensor<D>,
    gradient: Tensor<D>,
    [moment_1, moment_2]: [Tensor<D>; 2],
    step: AdamWStep,
) -> (Tensor<D>, [Tensor<D>; 2]) {
    let (parameter, moment_1, moment_2) = <Dispatch as MtLoraBackend>::adamw(
        parameter.into_dispatch(),
        gradient.into_dispatch(),
        moment_1.into_dispatch(),
        moment_2.into_dispatch(),
        step,
    );
    let [moment_1, moment_2] = [moment_1, moment_2].map(Tensor::from_dispatch);
    (Tensor::from_dispatch(parameter), [moment_1, moment_2])
}

/// Each element times `factor`, in the tensor's own memory where nothing else shares it.
pub fn scaled<const D: usize>(x: Tensor<D>, factor: f64) -> Tensor<D> {
    Tensor::from_dispatch(<Dispatch as MtLoraBackend>::scaled(
        x.into_dispatch(),
        factor,
    ))
}
