//! Floor 4, the edge of the operating system: listeners, streams, signals, the clock, the log's file descriptor.

pub mod allocator;
pub mod bus;
pub mod clock;
pub mod control;
pub mod cpus;
mod defer_accept;
pub mod descriptors;
pub mod holder;
pub mod hostname;
pub mod inherited;
mod late_port;
pub mod ledger;
pub mod listener;
pub mod locks;
pub mod log_writer;
pub mod memory;
pub mod other_end;
pub mod patient;
pub mod resolve;
pub mod shared_words;
pub mod signals;
pub mod stream;
pub mod tls;
pub mod tls_socket;
mod tls_unverified;
pub mod url;
pub mod usage;
