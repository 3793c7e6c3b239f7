//! The end of a process: every connection is told, and has until the drain deadline to go.

use super::{Phase, Sessions};
use crate::app::{App, ConnectError, Error};
use tungstenite::protocol::frame::coding::CloseCode;

impl<A: App> Sessions<A> {
    /// Whether the app asked for an end since this was called last.
    pub fn take_stop(&mut self) -> bool {
        std::mem::take(&mut self.outbox.stops)
    }

    /// Stops: every open connection is told 1001, idle HTTP connections end, and nothing is upgraded any more.
    pub fn drain(&mut self) {
        self.draining = true;
        self.app.on_drain(&mut self.outbox);
        let keys: Vec<u32> = self.slab.iter().map(|(key, _)| key as u32).collect();
        for key in keys {
            let session = &self.slab[key as usize];
            match session.phase {
                Phase::Open => {
                    let id = self.id(key);
                    self.outbox.close(id, CloseCode::Away, "server is going away");
                }
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

    /// Ends every connection at once, as the drain deadline demands. Says how many there were.
    pub fn abandon(&mut self) -> usize {
        let keys: Vec<u32> = self.slab.iter().map(|(key, _)| key as u32).collect();
        for &key in &keys {
            self.break_off(key, Error::CloseTimeout);
        }
        keys.len()
    }
}
