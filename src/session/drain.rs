//! The end of a process: closes every connection, at once or one after another, until the drain deadline.

use super::{Phase, Sessions};
use crate::app::{App, ConnectError, Error};
use std::time::Duration;
use tungstenite::protocol::frame::coding::CloseCode;

/// The retirement of a process while a successor serves: connections are closed one after another, so that they do not
/// all reconnect at once.
pub(super) struct Retirement {
    /// The connections that were open at the start, with their generations, and how many of them have been closed.
    order: Vec<(u32, u32)>,
    told: usize,
    begin: Duration,
    over: Duration,
}

impl Retirement {
    /// When to close the next connection; at the end, all later ones.
    pub fn next_deadline(&self) -> Duration {
        let share = if self.order.is_empty() { 1.0 } else { self.told as f64 / self.order.len() as f64 };
        self.begin + self.over.mul_f64(share)
    }
}

impl<A: App> Sessions<A> {
    /// Whether the app asked to stop since the last call.
    pub fn take_stop(&mut self) -> bool {
        std::mem::take(&mut self.outbox.stops)
    }

    /// Whether [`Sessions::drain`] was called.
    pub fn is_draining(&self) -> bool {
        self.draining
    }

    /// The connections, with their generations, without a whole request in what was read so far.
    pub fn awaiting_requests(&self) -> impl Iterator<Item = (u32, u32)> {
        let awaiting = self.slab.iter().filter(|(_, session)| matches!(session.phase, Phase::Preface | Phase::Http));
        awaiting.map(|(key, session)| (key as u32, session.generation))
    }

    /// Retires: closes the open connections with 1001 one after another, the last after `over`. Until then, connections
    /// that were accepted before are served and upgraded as usual; then [`Sessions::drain`] follows.
    pub fn retire(&mut self, over: Duration) {
        if self.draining || self.retirement.is_some() {
            return;
        }
        self.outbox.stats.draining = 1;
        self.outbox.carry_all();
        self.app.on_drain(&mut self.outbox);
        self.settle();
        let open = self.slab.iter().filter(|(_, session)| session.phase == Phase::Open);
        let order = open.map(|(key, session)| (key as u32, session.generation)).collect();
        self.retirement = Some(Retirement { order, told: 0, begin: self.now, over });
    }

    /// Closes the connections whose turn has come.
    #[cold]
    pub(super) fn retire_due(&mut self) {
        while let Some(retirement) = self.retirement.as_mut().filter(|due| due.next_deadline() <= self.now) {
            let Some(&(key, generation)) = retirement.order.get(retirement.told) else { return self.drain() };
            retirement.told += 1;
            if self.slab.get(key as usize).is_some_and(|now| now.generation == generation && now.phase == Phase::Open) {
                self.send_away(key);
                self.settle();
            }
        }
    }

    /// Closes an open connection because the server is going away.
    pub(super) fn send_away(&mut self, key: u32) {
        let id = self.id(key);
        self.outbox.close(id, CloseCode::Away, "server is going away");
    }

    /// Drains: closes every open connection with 1001, ends idle HTTP connections, and refuses upgrades except those
    /// that the app is about to accept, which are then closed too. Waits for answers that the app owes.
    pub fn drain(&mut self) {
        self.draining = true;
        self.outbox.stats.draining = 1;
        self.outbox.carry_all();
        if self.retirement.take().is_none() {
            self.app.on_drain(&mut self.outbox);
        }
        let keys: Vec<u32> = self.slab.iter().map(|(key, _)| key as u32).collect();
        for key in keys {
            let session = &self.slab[key as usize];
            match session.phase {
                Phase::Open => self.send_away(key),
                Phase::Connecting => self.connect_failed(key, ConnectError::Timeout),
                Phase::Preface | Phase::Http
                    if session.head.is_none() && self.outbox.queue.lane_at(key).queued_bytes() == 0 =>
                {
                    self.end(key);
                }
                _ => {}
            }
        }
        self.settle();
    }

    /// Ends every connection at once, at the drain deadline. Returns how many there were.
    pub fn abandon(&mut self) -> usize {
        let keys: Vec<u32> = self.slab.iter().map(|(key, _)| key as u32).collect();
        for &key in &keys {
            self.break_off(key, Error::CloseTimeout);
        }
        keys.len()
    }
}
