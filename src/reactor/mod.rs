//! Floor 5, the reactor: one epoll loop that owns the sockets and drives the [sessions](crate::session).

mod event_loop;
mod server;
mod sockets;

pub use event_loop::Outcome;
pub use server::{Server, ServerOptions};
