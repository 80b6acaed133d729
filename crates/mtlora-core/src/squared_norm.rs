use burn::backend::Dispatch;
use burn::backend::tensor::FloatTensor;
use burn::tensor::{FloatDType, Tensor};

use crate::ops::{MtLoraBackend, Optional, capabilities};

/// Tensors whose squares are added up together.
const TOGETHER: usize = 5;
/// Elements from which on a tensor is added up on its own, by more of the device than one cube of a kernel.
const LARGE: usize = 1 << 18;

/// Adds up the squares of all elements of tensors on one device, without reading them: of gradients, the square of their norm. On
/// a GPU it takes one launch for every five tensors.
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use mtlora_core::SquaredNorm;
///
/// let device = Device::flex();
/// let mut norm = SquaredNorm::default();
/// norm.add(Tensor::<1>::from_floats([1.0, 2.0], &device));
/// norm.add(Tensor::<2>::from_floats([[3.0], [4.0]], &device));
/// assert_eq!(norm.finish().map(|sum| sum.into_scalar::<f32>()), Some(30.0));
/// ```
#[derive(Debug, Default)]
pub struct SquaredNorm {
    waiting: Vec<FloatTensor<Dispatch>>,
    sum: Option<FloatTensor<Dispatch>>,
}

impl SquaredNorm {
    /// Adds the squares of a tensor of any shape and precision. They are added up in 32-bit floats.
    pub fn add<const D: usize>(&mut self, tensor: Tensor<D>) {
        let tensor = tensor.cast(FloatDType::F32);
        // On the host there is a kernel for tensors of all sizes.
        let on_host = capabilities(&tensor.device()).on_host;
        if on_host || tensor.shape().num_elements() < LARGE {
            self.waiting.push(tensor.into_dispatch());
            if self.waiting.len() == TOGETHER {
                self.add_waiting();
            }
        } else {
            let squares = tensor.square().sum();
            let before = self.sum.take().map(Tensor::<1>::from_dispatch);
            let sum = match before {
                Some(before) => before + squares,
                None => squares,
            };
            self.sum = Some(sum.into_dispatch());
        }
    }

    /// The sum: `[1]`; `None` without tensors.
    pub fn finish(mut self) -> Option<Tensor<1>> {
        self.add_waiting();
        self.sum.map(Tensor::from_dispatch)
    }

    fn add_waiting(&mut self) {
        let mut waiting = self.waiting.drain(..);
        let Some(first) = waiting.next() else {
            return;
        };
        let mut next = || Optional::<Dispatch>::from(waiting.next());
        self.sum = Some(<Dispatch as MtLoraBackend>::sum_of_squares(
            first,
            next(),
            next(),
            next(),
            next(),
            self.sum.take().into(),
        ));
    }
}
