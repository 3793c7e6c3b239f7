//! Floor 1, the protocol: proxy headers, HTTP upgrade, frames, messages, permessage-deflate, for servers and clients.
//!
//! Sans-IO: bytes in, events and bytes out. Nothing here uses a socket or a clock, so byte strings suffice to test all
//! of it. A message that arrives whole and uncompressed causes no allocation.

pub mod bearer;
pub mod client;
pub mod close;
pub mod content;
pub mod deflate;
pub mod extension;
pub mod forwarded;
pub mod frame;
pub mod http;
pub mod mask;
pub mod message;
pub mod own_name;
pub mod percent;
pub mod proxy_header;
pub mod receiver;
mod response;
mod target;
pub mod upgrade;
pub mod utf8;

pub use close::Violation;
pub use message::{Kind, Message};

/// This process's side of a connection. A client masks what it sends (RFC 6455, section 5.3).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// Accepts upgrades; receives masked frames, sends unmasked ones.
    Server,
    /// Requests an upgrade; sends masked frames, receives unmasked ones.
    Client,
}
