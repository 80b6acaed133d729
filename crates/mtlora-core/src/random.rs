//! The random generator of dropout masks.

use std::sync::atomic::{AtomicU64, Ordering};

use burn::tensor::Device;

/// The state starts at a number made from the seed and increases by a constant with each mask.
static STATE: AtomicU64 = AtomicU64::new(0);

/// Seeds everything random on `device`, and the dropout masks on all devices. The process has one state for the
/// masks.
pub fn seed(device: &Device, seed: u64) {
    device.seed(seed);
    STATE.store(mixed(seed), Ordering::Relaxed);
}

/// The state that the next masks of dropout follow from; [`set_random_state`] continues from it.
pub fn random_state() -> u64 {
    STATE.load(Ordering::Relaxed)
}

/// Continues from a [`random_state`]: the masks that follow on `device` are those that followed there.
///
/// A device that draws masks with its own generator
/// ([`Capabilities::seeded_dropout`](crate::Capabilities::seeded_dropout) is false) starts the generator again from the
/// state. A program that wants to continue later calls this before each step, with the state as it is then.
pub fn set_random_state(device: &Device, state: u64) {
    device.seed(mixed(state));
    STATE.store(state, Ordering::Relaxed);
}

/// The state that the masks of one part of a step follow from, such as a micro-batch, in a step that begins with `state`.
/// Parts are counted from 0, and the first begins with `state` itself. The masks of a part depend on neither the other parts
/// nor the process that computes them.
pub fn random_state_of_part(state: u64, part: u64) -> u64 {
    match part {
        0 => state,
        part => mixed(state ^ mixed(part)),
    }
}

/// The seed of the next mask.
pub(crate) fn next() -> u64 {
    mixed(STATE.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed))
}

/// The output function of SplitMix64 (Steele, Lea and Flood, 2014).
fn mixed(x: u64) -> u64 {
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_parts_of_steps_begin_with_different_states() {
        let states = |step: u64| (0..64).map(move |part| random_state_of_part(step, part));
        assert_eq!(random_state_of_part(7, 0), 7);
        let all: BTreeSet<u64> = (0..64).flat_map(states).collect();
        assert_eq!(all.len(), 64 * 64);
    }
}
