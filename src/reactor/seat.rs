//! A loop's seat on a bus: it listens once a pass, publishes once a pass, and sleeps only when nothing arrived.

use crate::app::App;
use crate::os::bus::Bus;
use crate::session::Sessions;
use crate::telemetry::log::{Level, in_words};
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use std::io;

/// Records are shown after this many bytes, so that a burst within a pass does not lap the readers.
const FLUSH_BYTES: usize = 128 * 1024;

pub(super) struct Seat {
    bus: Bus,
    /// Whether more records are waiting than this pass took.
    more: bool,
    /// Whether records arrived or left since the loop last tried to sleep, so that more may follow soon.
    active: bool,
}

impl Seat {
    pub fn new(bus: Bus) -> Seat {
        Seat { bus, more: true, active: true }
    }

    pub fn register(&self, registry: &Registry, token: Token) -> io::Result<()> {
        registry.register(&mut SourceFd(&self.bus.descriptor()), token, Interest::READABLE)
    }

    /// Handles what arrived over the connections to the other participants.
    pub fn take_news(&mut self) -> io::Result<()> {
        self.bus.take_news()
    }

    /// Hands over records, at most one batch per participant. Returns whether there are more.
    pub fn drain<A: App>(&mut self, sessions: &mut Sessions<A>) -> bool {
        let mut came = false;
        self.more = self.bus.drain(|event| {
            came = true;
            sessions.receive_bus(event);
        });
        self.active |= came;
        self.more
    }

    /// Publishes the outgoing records.
    pub fn publish<A: App>(&mut self, sessions: &mut Sessions<A>) {
        let records = std::mem::take(sessions.outgoing());
        let (mut published, mut unshown) = (0, 0);
        for record in records.iter() {
            match self.bus.publish(record) {
                Ok(()) => published += 1,
                // The outbox checks the limit; this error is for channels and names that are too long by themselves.
                Err(error) => sessions.log.push(Level::Error, "bus", &[], format!("not published: {error}")),
            }
            unshown += record.payload.len();
            if unshown > FLUSH_BYTES {
                unshown = 0;
                self.bus.flush();
            }
        }
        if published > 0 {
            self.active = true;
            sessions.stats_mut().bus_published += published;
        }
        self.bus.flush();
        if let Some(error) = self.bus.presence_error() {
            sessions.log.push(Level::Error, "bus", &[], in_words(&error));
        }
        while let Some(text) = self.bus.warning() {
            sessions.log.push(Level::Warn, "bus", &[], text);
        }
        // Keeps the memory for the next pass.
        let outgoing = sessions.outgoing();
        if outgoing.is_empty() && records.bytes().len() <= FLUSH_BYTES {
            *outgoing = records;
            outgoing.clear();
        }
    }

    /// Whether more records are waiting, so that the loop must not sleep.
    pub fn has_more(&self) -> bool {
        self.more
    }

    /// Returns whether records arrived or left since the last call.
    pub fn take_active(&mut self) -> bool {
        std::mem::take(&mut self.active)
    }

    /// Whether some participant's records have not been taken yet.
    pub fn is_behind(&self) -> bool {
        self.bus.is_behind()
    }

    /// Prepares to sleep: a participant that publishes wakes us, until [`Seat::unpark`]. Returns false if records are
    /// waiting.
    pub fn park(&mut self) -> io::Result<bool> {
        let parked = self.bus.park();
        if !parked {
            self.bus.take_news()?;
        }
        Ok(parked)
    }

    pub fn unpark(&mut self) {
        self.bus.unpark();
    }
}
