//! An allocator that counts: what each byte of input makes a parser allocate.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    /// Bytes that this thread allocated, in all. Without a destructor, and so usable here, like the others.
    static ALLOCATED: Cell<usize> = const { Cell::new(0) };
    /// Bytes that it allocated and did not give back.
    static HELD: Cell<isize> = const { Cell::new(0) };
    /// The most of these at a time.
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

struct Counting;

fn count(allocated: usize, freed: usize) {
    ALLOCATED.set(ALLOCATED.get().wrapping_add(allocated));
    HELD.set(HELD.get().wrapping_add_unsigned(allocated).wrapping_sub_unsigned(freed));
    PEAK.set(PEAK.get().max(HELD.get()));
}

// SAFETY: every call goes to the system's allocator as it came; counting touches cells and allocates nothing.
unsafe impl GlobalAlloc for Counting {
    // SAFETY: what the trait asks of the caller is what the system's allocator asks.
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 0);
        // SAFETY: as above.
        unsafe { System.alloc(layout) }
    }

    // SAFETY: as above.
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 0);
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    // SAFETY: as above.
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(0, layout.size());
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }

    // SAFETY: as above.
    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        count(new_size, layout.size());
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, new_size) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// What some work took.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    /// Bytes allocated, in all; a buffer that grows counts again with each new length.
    pub allocated: usize,
    /// Bytes held at the worst moment, beyond those held before.
    pub peak: usize,
}

/// What `work` costs, and what comes of it.
pub fn cost_of<T>(work: impl FnOnce() -> T) -> (Cost, T) {
    let (allocated, held) = (ALLOCATED.get(), HELD.get());
    PEAK.set(held);
    let result = work();
    let peak = PEAK.get().wrapping_sub(held).max(0).unsigned_abs();
    (Cost { allocated: ALLOCATED.get().wrapping_sub(allocated), peak }, result)
}
