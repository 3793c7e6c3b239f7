//! A loop's place on a bus: it listens once a pass, publishes once a pass, and sleeps only when nothing came.

use crate::app::App;
use crate::data::log::Level;
use crate::os::bus::Bus;
use crate::session::Sessions;
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use std::io;
use std::time::{Duration, Instant};

/// So much is shown at once, so that who publishes a lot in a pass does not lap those who read meanwhile.
const FLUSH_BYTES: usize = 128 * 1024;

/// What became of going to sleep.
pub(super) enum Rest {
    /// Whoever publishes wakes us, until [`Seat::unpark`].
    Parked,
    /// More is there on the bus.
    More,
    /// Something else came: the events are there.
    Events,
}

pub(super) struct Seat {
    bus: Bus,
    /// How long to wait for more without sleeping.
    busy_poll: Duration,
    /// Whether more is there than was taken in this pass.
    more: bool,
    /// Whether something came or went since we were about to sleep last, so that more may follow soon.
    active: bool,
}

impl Seat {
    pub fn new(bus: Bus, busy_poll: Duration) -> Seat {
        Seat { bus, busy_poll, more: true, active: true }
    }

    pub fn register(&self, registry: &Registry, token: Token) -> io::Result<()> {
        registry.register(&mut SourceFd(&self.bus.descriptor()), token, Interest::READABLE)
    }

    /// Takes what came over the connections to the other participants.
    pub fn take_news(&mut self) -> io::Result<()> {
        self.bus.take_news()
    }

    /// Hands over what came, a batch of each participant at most. Says whether there is more.
    pub fn drain<A: App>(&mut self, sessions: &mut Sessions<A>) -> bool {
        let mut came = false;
        self.more = self.bus.drain(|event| {
            came = true;
            sessions.receive_bus(event);
        });
        self.active |= came;
        self.more
    }

    /// Publishes what is to go out.
    pub fn publish<A: App>(&mut self, sessions: &mut Sessions<A>) {
        let records = std::mem::take(sessions.outgoing());
        let (mut published, mut unshown) = (0, 0);
        for record in records.iter() {
            match self.bus.publish(record) {
                Ok(()) => published += 1,
                // The outbox knows the limit; this is for channels and names that are too long by themselves.
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
            sessions.log.push(Level::Error, "bus", &[], error.to_string());
        }
        // The memory is for the next pass.
        let outgoing = sessions.outgoing();
        if outgoing.is_empty() && records.bytes().len() <= FLUSH_BYTES {
            *outgoing = records;
            outgoing.clear();
        }
    }

    /// Whether not to sleep, because more is there already.
    pub fn has_more(&self) -> bool {
        self.more
    }

    /// About to sleep, after looking out for more by `poll`, which says whether other events came.
    pub fn park(&mut self, mut poll: impl FnMut() -> io::Result<bool>) -> io::Result<Rest> {
        // Between two records that follow each other nobody needs to be woken.
        if std::mem::take(&mut self.active) || !self.busy_poll.is_zero() {
            let start = Instant::now();
            loop {
                if poll()? {
                    return Ok(Rest::Events);
                }
                if self.bus.is_behind() {
                    return Ok(Rest::More);
                }
                if start.elapsed() >= self.busy_poll {
                    break;
                }
            }
        }
        if self.bus.park() {
            return Ok(Rest::Parked);
        }
        self.bus.take_news()?;
        Ok(Rest::More)
    }

    pub fn unpark(&mut self) {
        self.bus.unpark();
    }
}
