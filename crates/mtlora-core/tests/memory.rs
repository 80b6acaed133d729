//! In training, neither a dense update nor a gradient of the frozen weight is made: counted in
//! bytes, on one big layer. Burn's own `apply_lora` makes both, which shows that the count works.
#![cfg(feature = "flex")]
#![allow(clippy::unwrap_used)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use burn::module::{Lora, Module};
use burn::nn::{Linear, LinearConfig};
use burn::tensor::{Device, Distribution, Tensor};
use mtlora_core::{MtLoraConfig, Structure, adapted_linear};

/// Counts the bytes in use and their high-water mark.
struct Counting;

static USED: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system's allocator unchanged; only counters are added.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let used = USED.fetch_add(layout.size(), Ordering::SeqCst) + layout.size();
        PEAK.fetch_max(used, Ordering::SeqCst);
        // SAFETY: the caller's promise about `layout` is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        USED.fetch_sub(layout.size(), Ordering::SeqCst);
        // SAFETY: the caller's promise about `pointer` and `layout` is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const WIDTH: usize = 2048;
const WEIGHT_BYTES: usize = WIDTH * WIDTH * 4;

/// The most bytes that one training step holds beyond what was held before.
fn step_bytes(layer: &Linear, forward: impl Fn(&Linear, Tensor<2>) -> Tensor<2>) -> usize {
    let device = Device::flex().autodiff();
    let x = Tensor::<2>::random([8, WIDTH], Distribution::Default, &device).require_grad();
    let before = USED.load(Ordering::SeqCst);
    PEAK.store(before, Ordering::SeqCst);
    let grads = forward(layer, x.clone()).sum().backward();
    assert!(x.grad(&grads).is_some());
    PEAK.load(Ordering::SeqCst) - before
}

// One test, so that nothing else allocates meanwhile.
#[test]
fn no_dense_update_and_no_weight_gradient() {
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
