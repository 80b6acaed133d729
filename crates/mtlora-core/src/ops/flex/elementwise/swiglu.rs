use burn::backend::TensorMetadata;
use burn::backend::flex::FlexTensor;
use rayon::prelude::*;

use crate::ops::flex::instructions::vectorized;
use crate::ops::flex::{CHUNK, contiguous, exclusive, made, tensor, values};
use crate::ops::vecmath::sigmoid;

vectorized! {
    /// `y`, of which `gate` and `up` are as long.
    fn forward(y: &mut [f32], gate: &[f32], up: &[f32]) {
        for ((y, gate), up) in y.iter_mut().zip(gate).zip(up) {
            *y = gate * sigmoid(*gate) * up;
        }
    }
}

vectorized! {
    /// `dy` becomes `dup`, and `dgate` is written.
    fn backward(d_gate: &mut [f32], dy: &mut [f32], gate: &[f32], up: &[f32]) {
        let outputs = d_gate.iter_mut().zip(dy);
        for ((d_gate, dy), (gate, up)) in outputs.zip(gate.iter().zip(up)) {
            let open = sigmoid(*gate);
            *d_gate = *dy * up * open * (1.0 + gate * (1.0 - open));
            *dy *= gate * open;
        }
    }
}

/// [`crate::ops::MtLoraBackend::swiglu`].
pub(crate) fn swiglu(gate: FlexTensor, up: FlexTensor) -> FlexTensor {
    assert_eq!(gate.shape(), up.shape(), "the shape of gate and up");
    let (gate, up) = (contiguous(gate), contiguous(up));
    let (gates, ups) = (values(&gate), values(&up));
    let y = made(gates.len(), CHUNK, |index, y: &mut [f32]| {
        let part = index * CHUNK..index * CHUNK + y.len();
        forward(y, &gates[part.clone()], &ups[part]);
    });
    tensor(y, gate.shape())
}

/// [`crate::ops::MtLoraBackend::swiglu_backward`]; the gradient of `up` lies in `dy`'s own memory if no other tensor
/// shares it.
pub(crate) fn swiglu_backward(
    gate: FlexTensor,
    up: FlexTensor,
    dy: FlexTensor,
) -> (FlexTensor, FlexTensor) {
    assert_eq!(gate.shape(), up.shape(), "the shape of gate and up");
    assert_eq!(gate.shape(), dy.shape(), "the shape of gate and gradient");
    let (gate, up, mut d_up) = (contiguous(gate), contiguous(up), exclusive(dy));
    let shape = gate.shape();
    let mut d_gate = vec![0.0; shape.num_elements()];
    d_gate
        .par_chunks_mut(CHUNK)
        .zip(d_up.storage_mut::<f32>().par_chunks_mut(CHUNK))
        .zip(
            values(&gate)
                .par_chunks(CHUNK)
                .zip(values(&up).par_chunks(CHUNK)),
        )
        .for_each(|((d_gate, dy), (gate, up))| backward(d_gate, dy, gate, up));
    (tensor(d_gate, shape), d_up)
}
