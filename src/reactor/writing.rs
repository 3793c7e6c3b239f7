//! Writing: what was queued for each connection, once a pass, and what many are sent in shares.
//!
//! One message for two thousand connections is two thousand writes, which take ten milliseconds and more. So only a share of
//! them is written in a pass; the others wait in line, and everybody else is read and answered between two shares.

use super::event_loop::EventLoop;
use crate::app::App;
use crate::data::queue::MAX_SLICES;
use std::io::{ErrorKind, IoSlice};
use std::time::Duration;

/// How long a pass writes what is sent to many connections.
pub(super) const FAN_OUT_SHARE: Duration = Duration::from_millis(4);
/// How long it writes to those who wait in line, whatever else was written before.
const LEAST_SHARE: Duration = Duration::from_millis(1);
/// The clock is read after this many writes.
const WRITES: usize = 16;

impl<A: App> EventLoop<A> {
    /// Tells other processes, before anything is written: whoever has its answer may rely on that they know.
    pub(super) fn publish(&mut self) {
        if let Some(seat) = &mut self.setup.seat {
            seat.publish(&mut self.sessions);
        }
    }

    /// Writes to every connection that something was queued for, once each, except those that wait in line: as soon as the
    /// share is used up, or somebody waits already, those are put there to whom nothing is sent but what others are sent, too.
    pub(super) fn write_dirty(&mut self) {
        self.publish();
        let (mut last_look, mut writes) = (None, 0);
        while let Some(key) = self.sessions.queue().next_dirty() {
            let is_over = self.fan_out_left.is_zero() || !self.postponed.is_empty();
            if is_over && self.sessions.queue().is_shared(key) && self.postpone(key) {
                continue;
            }
            self.write_ready(key);
            writes += 1;
            if writes % WRITES == 0 {
                let now = self.clock.now();
                let since = last_look.replace(now).unwrap_or(now);
                self.fan_out_left = self.fan_out_left.saturating_sub(now - since);
            }
        }
        self.sessions.queue().end_flush();
    }

    /// Puts a connection in line. Returns false if there is none.
    fn postpone(&mut self, key: u32) -> bool {
        let Some(generation) = self.sessions.generation(key) else { return false };
        self.sessions.queue().postpone(key);
        self.sessions.stats_mut().writes_postponed += 1;
        self.postponed.push_back((key, generation));
        true
    }

    /// Writes to those who wait in line, for a share of time.
    pub(super) fn write_postponed(&mut self) {
        if self.postponed.is_empty() {
            return;
        }
        let (end, mut count) = (self.clock.now() + self.fan_out_left.max(LEAST_SHARE), 0);
        while let Some((key, generation)) = self.postponed.pop_front() {
            count += 1;
            if self.sessions.queue().take_turn(key, generation) {
                self.write_ready(key);
            }
            if count % WRITES == 0 && self.clock.now() >= end {
                break;
            }
        }
    }

    /// Writes once to a connection.
    #[inline(always)]
    pub(super) fn write_ready(&mut self, key: u32) {
        let Some(socket) = self.sockets.get(key) else { return };
        let queue = &mut self.sessions.outbox.queue;
        let (offered, result) = match queue.single(key) {
            Some(bytes) => (bytes.len(), socket.stream.write(bytes)),
            None => {
                let mut slices = [IoSlice::new(&[]); MAX_SLICES];
                let count = queue.gather(key, &mut slices);
                match &slices[..count] {
                    // A message for many, as a rule: `send` costs less than `writev`.
                    [only] => (only.len(), socket.stream.write(only)),
                    several => {
                        let offered = several.iter().map(|slice| slice.len()).sum();
                        (offered, socket.stream.write_vectored(several))
                    }
                }
            }
        };
        match result {
            Ok(bytes) => queue.sent(key, bytes, bytes < offered),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock) => queue.sent(key, 0, true),
            Err(error) if error.kind() == ErrorKind::Interrupted => queue.sent(key, 0, false),
            Err(error) => self.sessions.socket_error(key, &error),
        }
    }
}
