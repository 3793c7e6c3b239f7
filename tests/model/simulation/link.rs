//! A connection of a simulation, as the kernel has it.

use super::address::Counted;
use super::client::Client;
use super::probe::Probe;
use percore::{ConnectionId, Peer};
use std::time::Duration;

/// A connection as the kernel has it.
pub struct Link {
    pub client: Client,
    pub key: u32,
    pub id: ConnectionId,
    /// When bytes of it were last given to the sessions, or its socket took some again.
    pub heard: Duration,
    /// When a request of it was last whole.
    pub requested: Duration,
    pub upgraded: Option<Duration>,
    /// Bytes the socket still takes.
    pub room: usize,
    pub blocked: bool,
    pub was_blocked: bool,
    /// When it was so last.
    pub unblocked: Duration,
    /// Not read from, until its socket takes bytes again.
    pub paused: bool,
    pub broken: bool,
    pub gone: bool,
}

impl Link {
    /// Whose it is to the server, and whether it is open. While an upgrade waits for its answer, or the connection for its end
    /// after that, it may be known whose it is.
    pub fn counts_as(&self, app: &Probe) -> Counted {
        let is_open = app.open.contains(&self.id);
        let was_open = is_open || app.endings.contains_key(&self.id);
        let peer = if was_open { self.client.who.address } else { self.client.counts_as() };
        let is_known = self.client.awaits_upgrade() || self.client.heard_last;
        let peer = if self.client.is_service { Peer::UNKNOWN } else { peer };
        let perhaps = (!was_open && is_known && !self.client.is_service).then_some(self.client.who.address);
        Counted { peer, is_open, perhaps }
    }
}
