//! The atomics of the ring under one name, so that loom can replace them in its model.

pub use std::sync::atomic::{AtomicU64, Ordering, fence};
