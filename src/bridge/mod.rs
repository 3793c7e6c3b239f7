//! Floor 6, the bridge: one more participant of a bus, which passes on to other hosts what is published, by Redis pub/sub.
//!
//! ```text
//!  bus ──► exchange ──► publisher  ──► socket ──► Redis      local.rs: who is here, and so which channels are subscribed
//!  bus ◄── exchange ◄── subscriber ◄── socket ◄── Redis      hosts.rs: who is elsewhere, published here as our own members
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
