//! The memory that kernels read and write.

use burn::backend::TensorMetadata;
use burn::tensor::{DType, Shape};
use burn_cubecl::cubecl::device::Device;
use burn_cubecl::cubecl::prelude::BufferArg;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::ops::numeric::empty_device_contiguous_dtype;
use burn_cubecl::tensor::CubeTensor;

/// A tensor of `shape` beside `like`, with its values one after the other. Whatever the memory held before is still there.
pub(super) fn uninitialised(like: &CubeTensor, shape: Shape, dtype: DType) -> CubeTensor {
    empty_device_contiguous_dtype(like.client.clone(), like.device.clone(), shape, dtype)
}

/// Whether a kernel may write over `x`: no other tensor shares its memory, and no element lies in it twice.
fn may_overwrite(x: &CubeTensor) -> bool {
    x.can_mut() && x.is_nonoverlapping()
}

/// A tensor that a kernel writes, and where.
pub(super) struct Output {
    /// The tensor.
    pub tensor: CubeTensor,
    /// The input that it takes the memory of, if it does.
    input: Option<Input>,
}

/// One of a kernel's buffers.
struct Input {
    /// Its place among the buffers, from 0.
    position: usize,
    /// Values in it.
    elements: usize,
}

impl Output {
    /// An output in memory of its own.
    pub(super) fn new(tensor: CubeTensor) -> Self {
        Self {
            tensor,
            input: None,
        }
    }

    /// An output of the shape and dtype of `x`, which is contiguous and the kernel's buffer number `position`: in the memory of `x` if
    /// no other tensor shares it.
    pub(super) fn over(x: &CubeTensor, position: usize) -> Self {
        if may_overwrite(x) {
            let elements = x.shape().num_elements();
            Self {
                tensor: x.clone(),
                input: Some(Input { position, elements }),
            }
        } else {
            Self {
                tensor: uninitialised(x, x.shape(), x.dtype()),
                input: None,
            }
        }
    }

    /// Whether it takes the memory of an input.
    pub(super) fn is_over_input(&self) -> bool {
        self.input.is_some()
    }

    /// The kernel's argument for it.
    pub(super) fn argument(&self) -> BufferArg {
        match &self.input {
            Some(input) => BufferArg::alias(input.position, input.elements),
            None => self.tensor.clone().into_buffer_arg(),
        }
    }
}

/// A matrix as a kernel reads it: rows of adjacent values. Some devices begin each row at an aligned place, so that there are gaps
/// between rows.
pub(super) struct Rows {
    tensor: CubeTensor,
    /// How many there are.
    pub count: usize,
    /// Values in a row.
    pub width: usize,
    /// Values from the beginning of a row to that of the next.
    pub stride: usize,
}

impl Rows {
    /// The rows of `[count, width]`: a copy only where the values of a row are not adjacent.
    pub(super) fn of(tensor: CubeTensor) -> Self {
        let strides = tensor.meta.strides();
        let is_rows = !tensor.meta.is_tiled() && strides[1] == 1 && strides[0] > 0;
        let tensor = if is_rows {
            tensor
        } else {
            into_contiguous(tensor)
        };
        let shape = tensor.shape();
        Self {
            count: shape[0],
            width: shape[1],
            stride: tensor.meta.strides()[0],
            tensor,
        }
    }

    /// The rows, which are the kernel's buffer number `position`, and an output of the same shape and stride: in these rows' memory if
    /// no other tensor shares it.
    pub(super) fn with_output(self, position: usize) -> (Self, Output) {
        if may_overwrite(&self.tensor) {
            let output = Output {
                tensor: self.tensor.clone(),
                input: Some(Input {
                    position,
                    elements: self.elements(),
                }),
            };
            return (self, output);
        }
        let rows = Self::of(into_contiguous(self.tensor));
        let output = Output {
            tensor: uninitialised(&rows.tensor, rows.tensor.shape(), rows.tensor.dtype()),
            input: None,
        };
        (rows, output)
    }

    /// Where they are.
    pub(super) fn device(&self) -> &Device {
        &self.tensor.device
    }

    /// Values from the first to the last, with those in gaps.
    fn elements(&self) -> usize {
        self.count.saturating_sub(1) * self.stride + self.width
    }

    /// The kernel's argument for them.
    pub(super) fn argument(&self) -> BufferArg {
        // SAFETY: the last row's last value is the tensor's last, so that all of them lie in its memory.
        unsafe { BufferArg::from_raw_parts(self.tensor.handle.clone(), self.elements()) }
    }
}
