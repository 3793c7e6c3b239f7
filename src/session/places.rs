//! Places for connections: how many there may be, which client they count for, and which is closed when there is no
//! room.
//!
//! Beyond [`Settings::max_connections`](super::Settings) and [`Settings::max_connections_per_ip`](super::Settings),
//! which bound open WebSocket connections, a few more may send a request, to be told that there is no place. These
//! *wait*: for a request, or for their end. The one that has waited longest makes room for a new one, so that silent
//! connections cannot keep others out.

use super::{Phase, Sessions};
use crate::app::App;
use crate::net::id::Peer;
use crate::net::per_client::{NOWHERE, Tally};
use crate::telemetry::log::Level;

/// Connections beyond `max_connections` that may wait.
const EXTRA_CONNECTIONS: usize = 256;
/// Connections of one client beyond `max_connections_per_ip` that may wait: a browser opens six at a time.
const EXTRA_OF_CLIENT: u32 = 8;

impl<A: App> Sessions<A> {
    /// The number of connections of each client, if [`Settings::max_connections_per_ip`](super::Settings) bounds it,
    /// and the number that wait.
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// Registers an accepted socket. `None` if it must be closed: far too many arrived in this pass, or it is not from
    /// a trusted proxy and only those may connect.
    pub fn accept(&mut self, peer: Peer) -> Option<u32> {
        let phase = self.first_phase(peer)?;
        let client = if phase == Phase::Preface { Peer::UNKNOWN } else { self.counted(peer) };
        self.take_in(peer, phase, client)
    }

    /// Finds a place for a connection that begins in this phase and counts for that client.
    pub(super) fn take_in(&mut self, peer: Peer, phase: Phase, client: Peer) -> Option<u32> {
        let most = self.settings.max_connections.saturating_add(EXTRA_CONNECTIONS).min(self.settings.max_sockets);
        if self.slab.len() - self.ended.len() >= most && self.shed().is_none() {
            self.outbox.stats.refused += 1;
            self.turned_away();
            return None;
        }
        self.outbox.stats.accepted += 1;
        self.make_room_for(client, NOWHERE);
        let key = self.insert(peer, phase);
        self.slab[key as usize].place = self.tally.enter(key, client, self.now);
        Some(key)
    }

    /// Ends the connection that has waited longest, to make room for another: never one that arrived in this pass,
    /// which has not had its turn, and clients before the service. Its socket may be closed at once.
    pub fn shed(&mut self) -> Option<u32> {
        let (queue, slab) = (&mut self.outbox.queue, &self.slab);
        let may_go = |key: u32| queue.lane_at(key).queued_bytes() == 0 && !slab[key as usize].is_service;
        let key = self.tally.oldest(self.now, may_go)?;
        self.give_up(key);
        Some(key)
    }

    /// The client that a connection of `peer` counts for: none yet if a proxy is still to name it.
    pub(super) fn counted(&self, peer: Peer) -> Peer {
        if self.settings.proxies.trusts(peer) { Peer::UNKNOWN } else { peer }
    }

    /// The client of a waiting connection is now known.
    pub(super) fn count_for(&mut self, key: u32, client: Peer) {
        let place = self.slab[key as usize].place;
        if place == NOWHERE || self.tally.is_of(place, client) {
            return;
        }
        self.make_room_for(client, key);
        self.tally.resolve(place, client);
    }

    /// If a client has as many connections as it may, one that waits makes room for another.
    fn make_room_for(&mut self, client: Peer, newcomer: u32) {
        if self.tally.count(client) < self.settings.max_connections_per_ip.saturating_add(EXTRA_OF_CLIENT) {
            return;
        }
        let queue = &mut self.outbox.queue;
        let is_idle = |key| queue.lane_at(key).queued_bytes() == 0;
        if let Some(key) = self.tally.oldest_of(client, newcomer, is_idle) {
            self.give_up(key);
        }
    }

    fn give_up(&mut self, key: u32) {
        self.outbox.stats.shed += 1;
        if self.log.keeps(Level::Debug) {
            let peer = self.slab[key as usize].peer;
            let text = format!("connection from {peer} closed: it waited longest when another came");
            self.log.push(Level::Debug, "shed", &[("peer", &peer)], text);
        }
        self.end(key);
    }
}
