//! Floor 4, the edge of the operating system: listeners, streams, signals, the clock, the log's file descriptor.

pub mod allocator;
pub mod bus;
pub mod clock;
pub mod control;
pub mod cpus;
mod defer_accept;
pub mod descriptors;
#[cfg(feature = "cli")]
pub mod history;
pub mod holder;
pub mod hostname;
#[cfg(feature = "cli")]
pub mod inherited;
#[cfg(feature = "cli")]
pub mod key_files;
mod late_port;
#[cfg(feature = "cli")]
pub mod ledger;
pub mod listener;
pub mod locks;
#[cfg(feature = "log")]
mod log_facade;
pub mod log_writer;
pub mod memory;
pub mod other_end;
pub mod patient;
pub mod resolve;
pub mod shared_words;
#[cfg(feature = "signals")]
pub mod signals;
#[cfg(not(feature = "signals"))]
#[path = "signals_absent.rs"]
pub mod signals;
mod sock_diag;
pub mod stream;
#[cfg(feature = "tls")]
pub mod tls;
#[cfg(not(feature = "tls"))]
#[path = "tls_absent.rs"]
pub mod tls;
#[cfg(feature = "tls")]
mod tls_socket;
#[cfg(feature = "tls")]
mod tls_unverified;
pub mod url;
pub mod usage;
