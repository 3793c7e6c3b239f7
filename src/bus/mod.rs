//! Floor 3, the bus: what processes say to each other, in memory that they share. No sockets, no files, no clock.
//!
//! Each participant has a slot, and in it a ring that it alone writes and all others read. Nobody waits for anybody: who
//! reads too slowly is lapped, and knows by how much. There is no lock that a killed process could hold.

pub mod atomic;
pub mod envelope;
pub mod event;
pub mod list;
pub mod parking;
pub mod peers;
pub mod region;
pub mod ring;
