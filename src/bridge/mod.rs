//! Floor 6, the bridge: a participant of a bus that forwards published messages to other hosts by Redis pub/sub.
//!
//! ```text
//!  bus ──► exchange ──► publisher  ──► socket ──► Redis      local.rs: members here, and so the channels to subscribe
//!  bus ◄── exchange ◄── subscriber ◄── socket ◄── Redis      hosts.rs: members elsewhere, published here as our own
//! ```
//!
//! [`exchange`] decides everything, without a socket and without a clock; [`event_loop`] owns what touches the system.

mod asking;
mod connection;
pub mod dialect;
pub mod event_loop;
pub mod exchange;
mod hosts;
mod line;
mod local;
mod losses;
mod names;
pub mod resp;
pub mod url;
pub mod wire;

#[cfg(test)]
mod tests;
