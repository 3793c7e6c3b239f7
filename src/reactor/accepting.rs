//! Accepting connections: in each pass, also when no descriptor is left; for workers that do not serve; and one last
//! time before the listeners close.

use super::event_loop::EventLoop;
use super::sockets::{Accepted, Purpose, Shortage, is_out_of_descriptors, token};
use crate::app::App;
use crate::net::id::Peer;
use crate::os::listener::Listener;
use crate::os::stream::Stream;
use crate::telemetry::log::{Level, counted, in_words};
use std::io;

/// Connections accepted per pass and listener.
const ACCEPT_BURST: usize = 64;
/// Bursts when a listener is about to close: more than any backlog, but bounded.
const LAST_BURSTS: usize = 2048;

impl<A: App> EventLoop<A> {
    /// Accepts the waiting connections.
    pub(super) fn accept(&mut self) {
        let mut from = 0;
        while let Some(index) = self.sockets.next_waiting(from) {
            from = index + 1;
            for _ in 0..ACCEPT_BURST {
                match self.sockets.accept(index) {
                    Ok(Accepted::Stream(stream, peer)) => self.admit(index, stream, peer),
                    Ok(Accepted::Again) => {}
                    Ok(Accepted::None) => break,
                    Err(error) => {
                        self.sessions.stats_mut().accept_errors += 1;
                        if !is_out_of_descriptors(&error) || !self.accept_by_spare(index, &error) {
                            break;
                        }
                    }
                }
            }
        }
    }

    /// Adopts a connection that the listener at `index` accepted.
    fn admit(&mut self, index: usize, mut stream: Stream, peer: Peer) {
        let key = match self.sockets.purpose(index) {
            Purpose::Public => self.sessions.accept(peer),
            Purpose::Service => self.sessions.accept_service(peer),
        };
        let Some(key) = key else { return };
        let generation = self.sessions.generation(key).unwrap_or_default();
        let registered = stream.register(self.poll.registry(), token(key, generation));
        self.sockets.insert(key, stream, false);
        if let Err(error) = registered {
            self.sessions.socket_error(key, &error);
        }
    }

    /// Accepts one connection with the spare descriptor. The connection that has waited longest is closed to make room;
    /// if there is none, the new one is closed. Returns whether to keep accepting.
    #[cold]
    fn accept_by_spare(&mut self, index: usize, error: &io::Error) -> bool {
        let tally = self.sessions.tally();
        if tally.waiting() > 0 && tally.oldest(self.now, |_| true).is_none() {
            // All waiting connections arrived in this pass, and get their turn first.
            return false;
        }
        let newcomer = self.sockets.accept_by_spare(index);
        // The kernel also fails for lack of descriptors when no connection is waiting.
        let shed = newcomer.as_ref().and_then(|_| self.sessions.shed());
        match (newcomer, shed) {
            (Some((stream, peer)), Some(key)) => {
                self.sockets.shed(key);
                self.admit(index, stream, peer);
            }
            (Some(_), None) => {
                self.sockets.shortage.refused += 1;
                self.sessions.stats_mut().refused += 1;
            }
            (None, _) => {}
        }
        self.sockets.take_spare(index);
        if let Some(Shortage { refused, shed }) = self.sockets.shortage_to_log(self.now) {
            let text = format!(
                "accept failed: {}; {}, {} for newer ones \
                 (raise the limit of open files)",
                in_words(&error),
                counted(refused, "connection* refused"),
                counted(shed, "idle HTTP connection* closed")
            );
            self.sessions.log.push(Level::Error, "accept", &[("refused", &refused), ("shed", &shed)], text);
        }
        shed.is_some()
    }

    /// Serves the connections in the backlog, which closing a listener would reset, and the requests that have arrived.
    pub(super) fn accept_last(&mut self) {
        self.sockets.all_are_ready();
        for _ in 0..LAST_BURSTS {
            if !self.sockets.has_waiting() {
                break;
            }
            self.accept();
        }
        self.sockets.stop_listening(self.poll.registry());
        let awaiting: Vec<(u32, u32)> = self.sessions.awaiting_requests().collect();
        for (key, generation) in awaiting {
            self.read_ready(key, generation);
        }
        self.write_dirty();
    }

    /// Accepts for the worker of another slot, which does not serve. The last `service` of the listeners are service
    /// listeners.
    pub(super) fn accept_for(&mut self, slot: usize, listeners: Vec<Listener>, service: usize) {
        let public = listeners.len().saturating_sub(service);
        for (number, listener) in listeners.into_iter().enumerate() {
            if self.drain_deadline.is_some() {
                return;
            }
            let purpose = if number < public { Purpose::Public } else { Purpose::Service };
            if let Err(error) = self.sockets.listen(listener, purpose, Some(slot), self.poll.registry()) {
                let text = format!("cannot accept for worker {slot}: {}", in_words(&error));
                self.sessions.log.push(Level::Error, "lend", &[("worker", &slot)], text);
            }
        }
    }
}
