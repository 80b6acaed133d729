//! Training makes neither a dense update nor a gradient of the frozen weight. The test counts bytes on one big layer;
//! Burn's own `apply_lora` makes both, which shows that the count works.
#![cfg(feature = "flex")]
#![allow(clippy::unwrap_used)]

#[path = "common/allocations.rs"]
mod allocations;

use allocations::process_peak_of;
use burn::module::{Lora, Module};
use burn::nn::{Linear, LinearConfig};
use burn::tensor::{Device, Distribution, Tensor};
use mtlora_core::{MtLoraConfig, Structure, adapted_linear};

const WIDTH: usize = 2048;
const WEIGHT_BYTES: usize = WIDTH * WIDTH * 4;

/// The most bytes that one training step holds beyond what was held before.
fn step_bytes(layer: &Linear, forward: impl Fn(&Linear, Tensor<2>) -> Tensor<2>) -> usize {
    let device = Device::flex().autodiff();
    let x = Tensor::<2>::random([8, WIDTH], Distribution::Default, &device).require_grad();
    let step = || {
        let grads = forward(layer, x.clone()).sum().backward();
        assert!(x.grad(&grads).is_some());
    };
    process_peak_of(step).1
}

// One test, so that nothing else allocates meanwhile.
#[test]
fn training_makes_no_dense_update_and_no_weight_gradient() {
    let device = Device::flex().autodiff();
    let base = LinearConfig::new(WIDTH, WIDTH).init(&device);
    // Burn makes the weight when it is first read.
    let _ = base.weight.base();
    for structure in Structure::ALL {
        let layer = MtLoraConfig::new(structure).attach(base.clone()).unwrap();
        let factored = step_bytes(&layer, adapted_linear);
        assert!(
            factored < WEIGHT_BYTES / 2,
            "{structure}: a step held {factored} bytes, the weight has {WEIGHT_BYTES}"
        );
    }
    let layer = base.apply_lora(Lora::new(8, 16.0));
    let dense = step_bytes(&layer, |layer, x| layer.forward(x));
    assert!(
        dense > 2 * WEIGHT_BYTES,
        "apply_lora held {dense} bytes only"
    );
}
