//! The atomics of the ring, by one name, so that its model under loom can have others.

pub use std::sync::atomic::{AtomicU64, Ordering, fence};
