//! Which connection has its turn, and how long a turn lasts.
//!
//! A connection whose last turns were costly waits on a list, and all others are served before it. So a client that
//! sends one small message waits for the turns of similar clients and for one slice of the list, however many floods
//! there are; and the floods take turns among themselves.

use super::event_loop::EventLoop;
use crate::app::App;
use std::io::ErrorKind;
use std::time::Duration;

/// Length of a turn while other connections wait, ...
const TURN: Duration = Duration::from_micros(200);
/// ... and while none does.
const TURN_ALONE: Duration = Duration::from_millis(1);
/// Turns that take longer than this ...
const COSTLY: Duration = Duration::from_micros(50);
/// ... this many times in a row put the next one on the list.
const COSTLY_TURNS: u8 = 2;
/// How long the list is served before connections that are not on it.
const SLICE: Duration = Duration::from_millis(1);
/// Once a pass has lasted this long, connections that are not on the list get brief turns. If a hundred turn costly in
/// one pass, doing little for each tells them apart from those that send little.
const CALM: Duration = Duration::from_millis(2);
/// Length of a brief turn, ...
const BRIEF_TURN: Duration = Duration::from_micros(50);
/// ... and how much it reads.
const BRIEF_READ_BYTES: usize = 16 * 1024;

/// How a turn ended.
enum End {
    /// Nothing more can be read now, or may be.
    Drained,
    /// There may be more.
    More,
}

impl<A: App> EventLoop<A> {
    /// Reads from a readable connection: at once, or after the connections whose turns cost less.
    #[inline]
    pub(super) fn read_ready(&mut self, key: u32, generation: u32) {
        let Some(socket) = self.sockets.get(key) else { return };
        if socket.waits {
            return;
        }
        if socket.costly == COSTLY_TURNS {
            socket.waits = true;
            self.turns.push_back((key, generation));
            return;
        }
        let is_brief = self.clock_read >= self.now + CALM;
        self.sessions.set_brief(is_brief);
        self.take_turn(key, generation, is_brief);
        self.sessions.set_brief(false);
    }

    /// Gives turns to the connections on the list, for a slice of time.
    pub(super) fn give_turns(&mut self) {
        if self.turns.is_empty() {
            return;
        }
        // Connections with less to do get their answers first.
        self.write_dirty();
        let end = self.clock_read + SLICE;
        for _ in 0..self.turns.len() {
            let Some((key, generation)) = self.turns.pop_front() else { return };
            if self.sessions.generation(key) != Some(generation) {
                continue;
            }
            if let Some(socket) = self.sockets.get(key) {
                socket.waits = false;
            }
            self.take_turn(key, generation, false);
            if self.clock_read >= end {
                return;
            }
        }
    }

    /// Resumes connections that had sent more than their share.
    pub(super) fn resume(&mut self) {
        let mut resumed = std::mem::take(&mut self.resumed);
        self.sessions.take_resumed(&mut resumed);
        for (key, generation) in resumed.drain(..) {
            if let Some(socket) = self.sockets.get(key)
                && std::mem::take(&mut socket.paused)
                && !std::mem::replace(&mut socket.waits, true)
            {
                self.turns.push_back((key, generation));
            }
        }
        self.resumed = resumed;
    }

    /// Handles a connection's input until it is drained, its time is up, or the peer leaves our output unread.
    #[inline]
    fn take_turn(&mut self, key: u32, generation: u32, is_brief: bool) {
        let turn = match is_brief {
            true => BRIEF_TURN,
            false if self.turns.is_empty() => TURN_ALONE,
            false => TURN,
        };
        let most = if is_brief { BRIEF_READ_BYTES } else { usize::MAX };
        let mut busy = Duration::ZERO;
        let end = loop {
            // Checked before each step, so that bytes in small pieces cannot bypass it.
            if !self.sessions.wants_read(key) {
                // The writable event that ends the pause is still to come.
                if let Some(socket) = self.sockets.get(key) {
                    socket.paused = true;
                    // No event announces an end of stream that came before.
                    if socket.reads_on {
                        self.sessions.peer_shut(key, false);
                    }
                }
                break End::Drained;
            }
            let began = self.clock_read;
            let end = if self.sessions.has_rest(key) {
                self.sessions.resume(key);
                self.clock_read = self.clock.now();
                End::More
            } else {
                self.read(key, generation, began + turn.saturating_sub(busy), most)
            };
            if self.sessions.outbox.is_full() || self.sessions.outbox.queue.keeps_input() {
                self.write_dirty();
                self.clock_read = self.clock.now();
            }
            busy += self.clock_read - began;
            if self.sessions.bound_memory() {
                // This time counts for no connection.
                self.clock_read = self.clock.now();
            }
            if self.sessions.generation(key) != Some(generation) {
                return;
            }
            // Input that a brief turn leaves is too much for one.
            if matches!(end, End::Drained) || busy >= turn || is_brief {
                break end;
            }
        };
        if let Some(socket) = self.sockets.get(key) {
            // The kernel may have run other processes: once is chance.
            socket.costly = match busy > COSTLY {
                true => (socket.costly + 1).min(COSTLY_TURNS),
                false => 0,
            };
            if is_brief && matches!(end, End::More) {
                socket.costly = COSTLY_TURNS;
            }
            if matches!(end, End::More) {
                socket.waits = true;
                self.turns.push_back((key, generation));
            }
        }
    }

    /// Reads once, at most `most` bytes, and handles them step by step; keeps what is left at `end`.
    #[inline]
    fn read(&mut self, key: u32, generation: u32, end: Duration, most: usize) -> End {
        let Some(socket) = self.sockets.get(key) else { return End::Drained };
        let mut input = self.sessions.outbox.queue.lend_input();
        let space = input.space();
        let room = space.len().min(most);
        let space = &mut space[..room];
        let result = socket.stream.read(space);
        let reads_on = socket.reads_on;
        let bytes = match result {
            Ok(bytes @ 1..) => bytes,
            other => {
                self.sessions.outbox.queue.take_back_input(input, 0);
                match other {
                    Ok(_) => self.sessions.end_of_stream(key),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    Err(error) if error.kind() == ErrorKind::Interrupted => return End::More,
                    Err(error) => self.sessions.socket_error(key, &error),
                }
                return End::Drained;
            }
        };
        if self.setup.time_each_read {
            self.sessions.outbox.now = self.clock.now();
        }
        let (mut start, limit) = (input.start(), input.start() + bytes);
        loop {
            let used = self.sessions.step(key, input.unread(start..limit));
            start += used;
            self.clock_read = self.clock.now();
            let is_stuck = used == 0;
            if start == limit || self.sessions.generation(key) != Some(generation) {
                break;
            }
            if is_stuck || self.clock_read >= end || !self.sessions.wants_read(key) {
                self.sessions.keep(key, input.unread(start..limit));
                break;
            }
            if self.sessions.outbox.is_full() {
                let used = start - input.start();
                self.sessions.outbox.queue.take_back_input(input, used);
                self.write_dirty();
                self.sessions.bound_memory();
                input = self.sessions.outbox.queue.lend_input();
                if self.sessions.generation(key) != Some(generation) {
                    break;
                }
            }
        }
        let used = start.saturating_sub(input.start());
        self.sessions.outbox.queue.take_back_input(input, used);
        // A short read means that the socket is drained.
        if bytes < room && !reads_on && !self.sessions.has_rest(key) { End::Drained } else { End::More }
    }
}
