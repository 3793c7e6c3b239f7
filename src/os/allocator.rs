//! Makes the allocator return memory to the system.
//!
//! glibc's thresholds grow with the largest allocations, and it then keeps freed memory, so that a process would hold
//! on to the memory of a flood. With fixed thresholds large buffers are pages of their own, and are returned at once.

/// Allocations of at least this size are pages of their own, and free memory beyond it at the end of the heap is
/// returned.
#[cfg(target_env = "gnu")]
const THRESHOLD_BYTES: libc::c_int = 256 * 1024;

/// Makes the allocator return free memory between blocks in use: the many small buffers of a flood leave holes. Call it
/// after a lot was freed.
pub fn trim() {
    #[cfg(target_env = "gnu")]
    #[allow(unsafe_code)]
    // SAFETY: `malloc_trim` takes a number, and returns only memory that is not allocated.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Makes the allocator return freed memory to the system. Call it once, at the start.
pub fn give_memory_back() {
    #[cfg(target_env = "gnu")]
    #[allow(unsafe_code)]
    // SAFETY: `mallopt` takes two numbers and touches no memory of ours; no other thread that could allocate runs yet.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, THRESHOLD_BYTES);
        libc::mallopt(libc::M_TRIM_THRESHOLD, THRESHOLD_BYTES);
    }
}
