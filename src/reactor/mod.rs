//! Floor 5, the reactor: one epoll loop that owns the sockets and drives the [sessions](crate::session).

mod accepting;
mod client;
mod dialing;
mod event_loop;
mod seat;
mod server;
mod sockets;
mod supervised;
mod target;
mod turns;
mod waker;
mod writing;

pub use client::Client;
pub use event_loop::Outcome;
#[cfg(feature = "cli")]
pub(crate) use server::check_open_to_all;
pub use server::{Server, ServerOptions};
pub use supervised::{Order, READY};
pub use target::{InvalidTarget, Target};
pub use waker::Waker;

use rand::TryRng;
use std::io;

/// Random bytes from the operating system.
///
/// # Errors
/// When the operating system fails to provide them.
pub(crate) fn seed() -> io::Result<[u8; 32]> {
    let mut seed = [0; 32];
    rand::rngs::SysRng.try_fill_bytes(&mut seed).map_err(io::Error::other)?;
    Ok(seed)
}
