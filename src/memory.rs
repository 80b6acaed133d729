//! Memory for tensors.

/// Tells glibc's allocator to keep what is freed, up to 2 GiB, rather than hand it back to the
/// system: a training step frees and takes the same tensors again and again, and pages that come
/// back from the system have to be zeroed and mapped first.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub(crate) fn keep_freed_memory() {
    // The most that glibc accepts.
    const MMAP_THRESHOLD: libc::c_int = 32 << 20;
    // SAFETY: `mallopt` takes plain numbers and only sets parameters of the allocator; no other
    // thread runs yet.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, MMAP_THRESHOLD);
        libc::mallopt(libc::M_TRIM_THRESHOLD, libc::c_int::MAX);
    }
}

/// Other allocators are left as they are.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub(crate) fn keep_freed_memory() {}

/// Hands back what [`keep_freed_memory`] has kept, so that the next training in this process starts with as little as the
/// first.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub(crate) fn give_back() {
    // SAFETY: `malloc_trim` takes a plain number and may be called from any thread.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Other allocators are left as they are.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub(crate) fn give_back() {}
