//! Accepting connections: as they come, for workers that do not serve, and those who wait when no more is accepted.

use super::event_loop::EventLoop;
use super::sockets::{Accepted, token};
use crate::app::App;
use crate::data::log::Level;
use crate::os::listener::Listener;
use std::io;

/// Connections accepted in a pass, of each listener.
const ACCEPT_BURST: usize = 128;
/// Such bursts when no more is accepted afterwards: more than any backlog, and yet an end.
const LAST_BURSTS: usize = 1024;

impl<A: App> EventLoop<A> {
    /// Accepts those who wait.
    pub(super) fn accept(&mut self) {
        let mut from = 0;
        while let Some(index) = self.sockets.next_waiting(from) {
            from = index + 1;
            for _ in 0..ACCEPT_BURST {
                match self.sockets.accept(index) {
                    Ok(Accepted::Stream(mut stream, peer)) => {
                        let Some(key) = self.sessions.accept(peer) else { continue };
                        let generation = self.sessions.generation(key).unwrap_or_default();
                        let registered = stream.register(self.poll.registry(), token(key, generation));
                        self.sockets.insert(key, stream, false);
                        if let Err(error) = registered {
                            self.sessions.socket_error(key, &error);
                        }
                    }
                    Ok(Accepted::Again) => {}
                    Ok(Accepted::None) => break,
                    Err(error) => {
                        self.sessions.stats_mut().accept_errors += 1;
                        self.log_accept_error(&error);
                        break;
                    }
                }
            }
        }
    }

    /// Serves those who wait to be accepted, which closing a listener would reset, and the requests that have come.
    pub(super) fn accept_last(&mut self) {
        self.sockets.all_are_ready();
        for _ in 0..LAST_BURSTS {
            if !self.sockets.has_waiting() {
                break;
            }
            self.accept();
        }
        self.sockets.stop_listening(self.poll.registry());
        self.still_ready.extend(self.sessions.awaiting_requests());
        self.read_still_ready();
        self.write_dirty();
    }

    /// Accepts for the worker of another slot, which does not serve.
    pub(super) fn accept_for(&mut self, slot: usize, listeners: Vec<Listener>) {
        for listener in listeners {
            if self.drain_deadline.is_some() {
                return;
            }
            if let Err(error) = self.sockets.listen(listener, Some(slot), self.poll.registry()) {
                let text = format!("cannot accept for worker {slot}: {error}");
                self.sessions.log.push(Level::Error, "lend", &[("worker", &slot)], text);
            }
        }
    }

    fn log_accept_error(&mut self, error: &io::Error) {
        let refused = self.sockets.refusals_to_log(self.now);
        if refused > 0 {
            self.sessions.stats_mut().refused += refused;
            let text = format!("accept failed: {error}; {refused} connections refused (raise the limit of open files)");
            self.sessions.log.push(Level::Error, "accept", &[("refused", &refused)], text);
        }
    }
}
