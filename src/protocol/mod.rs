//! Floor 1, the protocol: what proxies tell, HTTP upgrade, frames, messages, permessage-deflate, for a server and for a client.
//!
//! Sans-IO: bytes in, events and bytes out. Nothing here knows a socket or a clock, so all of it is tested with byte
//! strings. Nothing here allocates for a message that arrives whole and uncompressed.

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

/// Which end of a connection this process is. A client masks what it sends (RFC 6455, section 5.3).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// Accepts upgrades; receives masked frames, sends unmasked ones.
    Server,
    /// Asks for an upgrade; sends masked frames, receives unmasked ones.
    Client,
}
