//! Whose turn it is, and how long a turn is.
//!
//! A connection that had much to do the last time waits on a list, and everybody else is served before it. So a client
//! that sends one small message waits for the turns of others like it and for one slice of the list, however many floods
//! there are; and the floods take turns among themselves.

use super::event_loop::EventLoop;
use crate::app::App;
use std::io::ErrorKind;
use std::time::Duration;

/// How long a turn may be while others wait, ...
const TURN: Duration = Duration::from_micros(200);
/// ... and while nobody does.
const TURN_ALONE: Duration = Duration::from_millis(1);
/// A turn in which reading and handling took longer than this makes the next one wait for everybody else.
const COSTLY: Duration = Duration::from_micros(50);
/// How long turns are given from the list before those are served who were not on it.
const SLICE: Duration = Duration::from_millis(1);

/// How a turn ended.
enum End {
    /// There is nothing more to read now, or it must not be read.
    Drained,
    /// There may be more.
    More,
}

impl<A: App> EventLoop<A> {
    /// A connection can be read from: at once, or when those had their turn who cost less.
    #[inline]
    pub(super) fn read_ready(&mut self, key: u32, generation: u32) {
        let Some(socket) = self.sockets.get(key) else { return };
        if socket.waits {
            return;
        }
        if socket.costly {
            socket.waits = true;
            self.turns.push_back((key, generation));
            return;
        }
        self.take_turn(key, generation);
    }

    /// Gives turns to those who wait for one, for a slice of time.
    pub(super) fn give_turns(&mut self) {
        if self.turns.is_empty() {
            return;
        }
        // Whoever had less to do has its answer first.
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
            self.take_turn(key, generation);
            if self.clock_read >= end {
                return;
            }
        }
    }

    /// Those who had sent more than they may go on.
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

    /// Works on what a connection sent until it is drained, its time is up, or it leaves unread what we send.
    #[inline]
    fn take_turn(&mut self, key: u32, generation: u32) {
        let turn = if self.turns.is_empty() { TURN_ALONE } else { TURN };
        let mut busy = Duration::ZERO;
        let end = loop {
            // Asked before each step: bytes that come in small pieces must not pass it by.
            if !self.sessions.wants_read(key) {
                // The writable event that ends the pause is still to come.
                if let Some(socket) = self.sockets.get(key) {
                    socket.paused = true;
                    // No event tells of an end that came before.
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
                self.read(key, generation, began + turn.saturating_sub(busy))
            };
            busy += self.clock_read - began;
            self.sessions.bound_memory();
            if self.sessions.outbox.is_full() || self.sessions.outbox.queue.keeps_input() {
                self.write_dirty();
                self.clock_read = self.clock.now();
            }
            if self.sessions.generation(key) != Some(generation) {
                return;
            }
            if matches!(end, End::Drained) || busy >= turn {
                break end;
            }
        };
        if let Some(socket) = self.sockets.get(key) {
            socket.costly = busy > COSTLY;
            if matches!(end, End::More) {
                socket.waits = true;
                self.turns.push_back((key, generation));
            }
        }
    }

    /// Reads once, and works on what came, step by step; what is left at `end` is kept.
    #[inline]
    fn read(&mut self, key: u32, generation: u32, end: Duration) -> End {
        let Some(socket) = self.sockets.get(key) else { return End::Drained };
        let mut input = self.sessions.outbox.queue.lend_input();
        let space = input.space();
        let room = space.len();
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
            if start == limit || self.sessions.generation(key) != Some(generation) {
                break;
            }
            if self.clock_read >= end || !self.sessions.wants_read(key) {
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
