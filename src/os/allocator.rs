//! How the allocator gives memory back.
//!
//! glibc's keeps what was freed once its thresholds have grown with the largest allocations, so that a process would keep
//! the memory of a flood for ever. With fixed thresholds large buffers are pages of their own, and go back at once.

/// Allocations from this size on are pages of their own, and more than this at the end of the heap is given back.
#[cfg(target_env = "gnu")]
const THRESHOLD_BYTES: libc::c_int = 256 * 1024;

/// Has the allocator give back what lies free between what is in use: many small buffers of a flood leave holes. For when much
/// was freed.
pub fn trim() {
    #[cfg(target_env = "gnu")]
    #[allow(unsafe_code)]
    // SAFETY: `malloc_trim` takes a number, and gives back only memory that is allocated to nobody.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Has the allocator give freed memory back to the system. To be called once, at the start.
pub fn give_memory_back() {
    #[cfg(target_env = "gnu")]
    #[allow(unsafe_code)]
    // SAFETY: `mallopt` takes two numbers and touches no memory of ours; no other thread runs yet that could allocate meanwhile.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, THRESHOLD_BYTES);
        libc::mallopt(libc::M_TRIM_THRESHOLD, THRESHOLD_BYTES);
    }
}
