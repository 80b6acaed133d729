//! A counting allocator for tests and benchmarks, which measures how much memory a piece of code holds at most. Other
//! crates' tests include this file by its path.
#![allow(dead_code)] // Not every test uses all of it.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicIsize, Ordering};

struct Counting;

#[global_allocator]
static COUNTING: Counting = Counting;

/// Bytes that all threads hold.
static HELD: AtomicIsize = AtomicIsize::new(0);
/// The most that they held since a measurement began.
static PEAK: AtomicIsize = AtomicIsize::new(0);

thread_local! {
    static HELD_HERE: Cell<isize> = const { Cell::new(0) };
    static PEAK_HERE: Cell<isize> = const { Cell::new(0) };
}

fn count(bytes: isize) {
    let held = HELD.fetch_add(bytes, Ordering::Relaxed) + bytes;
    PEAK.fetch_max(held, Ordering::Relaxed);
    // A thread that is ending has no cells any more; what it allocates then is in no thread's measurement.
    let _ = HELD_HERE.try_with(|held| {
        held.set(held.get() + bytes);
        let _ = PEAK_HERE.try_with(|peak| peak.set(peak.get().max(held.get())));
    });
}

fn signed(bytes: usize) -> isize {
    isize::try_from(bytes).unwrap_or(isize::MAX)
}

// SAFETY: every call is passed on to the system's allocator unchanged; the counters are atomics and plain cells, which
// neither allocate nor have destructors.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(signed(layout.size()));
        // SAFETY: the caller's promise about `layout` is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(signed(layout.size()));
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-signed(layout.size()));
        // SAFETY: the pointer came from the system's allocator, with this layout.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(signed(size) - signed(layout.size()));
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

/// Bytes that the process holds.
pub fn held() -> usize {
    usize::try_from(HELD.load(Ordering::SeqCst)).unwrap_or(0)
}

/// The result of `run`, and the most bytes that this thread held at once beyond what it held before.
pub fn thread_peak_of<T>(run: impl FnOnce() -> T) -> (T, usize) {
    let before = HELD_HERE.get();
    PEAK_HERE.set(before);
    let result = run();
    let peak = PEAK_HERE.get() - before;
    (result, usize::try_from(peak).unwrap_or(0))
}

/// The same for all threads of the process.
pub fn process_peak_of<T>(run: impl FnOnce() -> T) -> (T, usize) {
    let before = HELD.load(Ordering::SeqCst);
    PEAK.store(before, Ordering::SeqCst);
    let result = run();
    let peak = PEAK.load(Ordering::SeqCst) - before;
    (result, usize::try_from(peak).unwrap_or(0))
}
