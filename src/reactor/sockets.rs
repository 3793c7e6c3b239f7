//! The sockets of a process: listeners, and the streams under the same keys as the sessions.

use crate::net::id::Peer;
use crate::os::listener::Listener;
use crate::os::stream::Stream;
use mio::{Registry, Token};
use slab::Slab;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::time::Duration;

/// The token of the signals that end the process.
pub(super) const SIGNALS: Token = Token(usize::MAX);
/// The token of the line to a supervisor.
pub(super) const CONTROL: Token = Token(usize::MAX - 1);
/// The token of the bus.
pub(super) const BUS: Token = Token(usize::MAX - 2);
/// The token of wake-ups by other threads.
pub(super) const WAKER: Token = Token(usize::MAX - 3);
/// The token of SIGHUP.
pub(super) const HANG_UP: Token = Token(usize::MAX - 4);
/// Upper half of a listener's token; no connection has this generation.
const LISTENERS: u32 = u32::MAX;
/// EMFILE and ENFILE.
const OUT_OF_DESCRIPTORS: [i32; 2] = [24, 23];
/// A lack of descriptors is logged at most this often.
const LOG_EVERY: Duration = Duration::from_secs(1);

/// The target of an event.
pub(super) enum Wake {
    Signals,
    HangUp,
    Control,
    Bus,
    Waker,
    Listener(usize),
    Connection { key: u32, generation: u32 },
}

/// A token holds the generation, which identifies stale events for a former owner of the key.
pub(super) fn token(key: u32, generation: u32) -> Token {
    Token((generation as usize) << 32 | key as usize)
}

pub(super) fn wake(token: Token) -> Wake {
    let (high, low) = ((token.0 >> 32) as u32, token.0 as u32);
    match (token, high) {
        (SIGNALS, _) => Wake::Signals,
        (HANG_UP, _) => Wake::HangUp,
        (CONTROL, _) => Wake::Control,
        (BUS, _) => Wake::Bus,
        (WAKER, _) => Wake::Waker,
        (_, LISTENERS) => Wake::Listener(low as usize),
        _ => Wake::Connection { key: low, generation: high },
    }
}

/// A connection's socket.
pub(super) struct Socket {
    pub stream: Stream,
    /// We are connecting, and the result is not known yet.
    pub connecting: bool,
    /// A short read does not mean that the socket is drained: the peer sends no more, so no further event will announce
    /// the end of the stream; or it is TLS, which reads one record at a time.
    pub reads_on: bool,
    /// Nothing is read until the peer takes what we sent.
    pub paused: bool,
    /// It is on the list of sockets that wait for a turn; it must be there only once.
    pub waits: bool,
    /// How many of its last turns took long.
    pub costly: u8,
}

/// What a listener is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Purpose {
    /// Clients.
    Public,
    /// The application behind us.
    Service,
}

struct Waiting {
    listener: Listener,
    purpose: Purpose,
    /// Whether connections may be waiting to be accepted: their event has come, and comes only once.
    ready: bool,
    /// The slot of the worker that it is lent for.
    lent_for: Option<usize>,
}

/// The outcome of an accept.
pub(super) enum Accepted {
    Stream(Stream, Peer),
    /// No connection is waiting.
    None,
    /// A waiting connection went away; others may wait.
    Again,
}

#[derive(Default)]
pub(super) struct Sockets {
    slots: Vec<Option<Socket>>,
    listeners: Slab<Waiting>,
    /// Closed briefly when no descriptors are left, so that a connection can be accepted and closed rather than wait in
    /// the backlog indefinitely.
    spare: Option<File>,
    last_logged: Option<Duration>,
    /// Since it was logged last.
    pub shortage: Shortage,
}

/// How many connections were closed for lack of descriptors.
#[derive(Clone, Copy, Default)]
pub(super) struct Shortage {
    /// New connections, closed at once.
    pub refused: u64,
    /// Others, closed to make room for new ones.
    pub shed: u64,
}

impl Sockets {
    pub fn new() -> Sockets {
        Sockets { spare: spare(), ..Sockets::default() }
    }

    pub fn listen(
        &mut self,
        listener: Listener,
        purpose: Purpose,
        lent_for: Option<usize>,
        registry: &Registry,
    ) -> io::Result<()> {
        let entry = self.listeners.vacant_entry();
        let (key, mut waiting) = (entry.key(), Waiting { listener, purpose, ready: true, lent_for });
        waiting.listener.register(registry, token(key as u32, LISTENERS))?;
        entry.insert(waiting);
        Ok(())
    }

    /// Closes every listener.
    pub fn stop_listening(&mut self, registry: &Registry) {
        self.close_listeners(registry, |_| true);
    }

    /// Closes the listeners lent to us for the worker of a slot.
    pub fn take_back(&mut self, slot: usize, registry: &Registry) {
        self.close_listeners(registry, |waiting| waiting.lent_for == Some(slot));
    }

    fn close_listeners(&mut self, registry: &Registry, is_over: impl Fn(&Waiting) -> bool) {
        self.listeners.retain(|_, waiting| {
            let is_over = is_over(waiting);
            if is_over {
                // Other processes hold it open too, so closing alone would leave it registered.
                let _ = waiting.listener.deregister(registry);
            }
            !is_over
        });
    }

    pub fn listener_is_ready(&mut self, index: usize) {
        if let Some(waiting) = self.listeners.get_mut(index) {
            waiting.ready = true;
        }
    }

    /// Assumes that connections wait on every listener, including those whose event is still to come.
    pub fn all_are_ready(&mut self) {
        self.listeners.iter_mut().for_each(|(_, waiting)| waiting.ready = true);
    }

    /// Whether any listener may have waiting connections.
    pub fn has_waiting(&self) -> bool {
        self.listeners.iter().any(|(_, waiting)| waiting.ready)
    }

    /// Index of the next listener, starting at `from`, that may have waiting connections.
    pub fn next_waiting(&self, from: usize) -> Option<usize> {
        self.listeners.iter().find(|(index, waiting)| *index >= from && waiting.ready).map(|(index, _)| index)
    }

    /// What a listener is for.
    pub fn purpose(&self, index: usize) -> Purpose {
        self.listeners[index].purpose
    }

    /// Accepts from one listener.
    pub fn accept(&mut self, index: usize) -> io::Result<Accepted> {
        let waiting = &mut self.listeners[index];
        let error = match waiting.listener.accept() {
            Ok((stream, peer)) => return Ok(Accepted::Stream(stream, peer)),
            Err(error) => error,
        };
        match error.kind() {
            ErrorKind::WouldBlock => {
                waiting.ready = false;
                Ok(Accepted::None)
            }
            ErrorKind::Interrupted | ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset => Ok(Accepted::Again),
            _ if is_out_of_descriptors(&error) => Err(error),
            _ => {
                waiting.ready = false;
                Err(error)
            }
        }
    }

    /// Uses the spare descriptor to accept a connection.
    pub fn accept_by_spare(&mut self, index: usize) -> Option<(Stream, Peer)> {
        self.spare = None;
        let waiting = &mut self.listeners[index];
        let accepted = waiting.listener.accept();
        waiting.ready &= !accepted.as_ref().is_err_and(|error| error.kind() == ErrorKind::WouldBlock);
        accepted.ok()
    }

    /// Opens a spare descriptor again.
    pub fn take_spare(&mut self, index: usize) {
        self.spare = spare();
        // Without a spare this would spin; the next connection's event wakes us instead.
        self.listeners[index].ready &= self.spare.is_some();
    }

    /// Closes a connection's socket to free its descriptor for another.
    pub fn shed(&mut self, key: u32) {
        self.remove(key);
        self.shortage.shed += 1;
    }

    /// Returns what to log now.
    pub fn shortage_to_log(&mut self, now: Duration) -> Option<Shortage> {
        let Shortage { refused, shed } = self.shortage;
        if refused + shed == 0 || self.last_logged.is_some_and(|last| now < last + LOG_EVERY) {
            return None;
        }
        self.last_logged = Some(now);
        Some(std::mem::take(&mut self.shortage))
    }

    pub fn insert(&mut self, key: u32, stream: Stream, connecting: bool) {
        if self.slots.len() <= key as usize {
            self.slots.resize_with(key as usize + 1, || None);
        }
        let reads_on = matches!(stream, Stream::Tls(_));
        self.slots[key as usize] =
            Some(Socket { stream, connecting, reads_on, paused: false, waits: false, costly: 0 });
    }

    #[inline]
    pub fn get(&mut self, key: u32) -> Option<&mut Socket> {
        self.slots.get_mut(key as usize).and_then(Option::as_mut)
    }

    /// Closes a connection's socket.
    pub fn remove(&mut self, key: u32) {
        self.slots[key as usize] = None;
    }
}

pub(super) fn is_out_of_descriptors(error: &io::Error) -> bool {
    error.raw_os_error().is_some_and(|code| OUT_OF_DESCRIPTORS.contains(&code))
}

fn spare() -> Option<File> {
    File::open("/dev/null").ok()
}
