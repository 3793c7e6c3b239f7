//! Floor 3, the bus: what processes exchange through shared memory. No sockets, no files, no clock.
//!
//! Each participant has a slot, and in it a ring that it alone writes and all others read. No process waits for
//! another: a reader that is too slow is lapped, and knows by how much. There is no lock that a killed process could
//! hold.

pub mod atomic;
pub mod envelope;
pub mod event;
pub mod list;
pub mod parking;
pub mod peers;
pub mod region;
pub mod ring;
