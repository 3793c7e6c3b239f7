//! The loop of a bridge: the bus, two sockets to Redis, signals and the clock around an [`Exchange`], which decides.

use super::asking::Found;
use super::connection::{Connection, Lookup};
use super::exchange::{Exchange, Side};
use super::url::RedisUrl;
use crate::os::bus::Bus;
use crate::os::clock::Clock;
use crate::os::listener::ListenAddr;
use crate::os::log_writer::{self, LogFormat};
use crate::os::signals::{self, Signals};
use crate::os::tls::TlsClient;
use crate::supervisor::Ready;
use crate::telemetry::log::{Level, in_words};
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token, Waker};
use rand::RngExt;
use rand::rngs::StdRng;
use std::fs::File;
use std::io;
use std::sync::Arc;
use std::time::Duration;

const BUS: Token = Token(0);
const SIGNALS: Token = Token(1);
const WAKER: Token = Token(2);
const PUBLISHER: Token = Token(3);
const SUBSCRIBER: Token = Token(4);
const HANG_UP: Token = Token(5);
const READ_BYTES: usize = 64 << 10;
/// Reads per connection and pass; the rest waits for the next pass.
const READS_PER_PASS: usize = 16;

/// The parts of a bridge.
pub struct Setup {
    /// The bus, joined.
    pub bus: Bus,
    /// The lock that makes it the only bridge of that bus.
    pub lock: File,
    /// Redis.
    pub redis: RedisUrl,
    /// The TLS client, with the certificates to trust, if the URL uses TLS.
    pub tls: Option<TlsClient>,
    /// Makes the decisions.
    pub exchange: Exchange,
    /// Source of jitter for reconnects.
    pub dice: StdRng,
    /// Format of log lines.
    pub log_format: LogFormat,
    /// Notified of the first connection.
    pub ready: Ready,
}

struct Loop {
    setup: Setup,
    poll: Poll,
    waker: Arc<Waker>,
    clock: Clock,
    lookup: Option<Lookup>,
    /// The publishing and the subscribed connection.
    connections: Option<[Connection; 2]>,
    /// Number of attempts, which selects the next address.
    attempts: usize,
    buffer: Vec<u8>,
}

/// Runs a bridge until SIGTERM or SIGINT.
///
/// # Errors
/// After a second signal, and when epoll or the signal handlers cannot be set up.
pub fn run(setup: Setup) -> io::Result<()> {
    let poll = Poll::new()?;
    let waker = Arc::new(Waker::new(poll.registry(), WAKER)?);
    let mut signals = Signals::new(&signals::ENDING)?;
    signals.register(poll.registry(), SIGNALS)?;
    let mut hang_up = Signals::new(&[signals::SIGHUP])?;
    hang_up.register(poll.registry(), HANG_UP)?;
    poll.registry().register(&mut SourceFd(&setup.bus.descriptor()), BUS, Interest::READABLE)?;
    let (clock, buffer) = (Clock::start(), vec![0; READ_BYTES]);
    let mut this = Loop { setup, poll, waker, clock, lookup: None, connections: None, attempts: 0, buffer };
    let (mut events, mut more, mut came, mut announced) = (Events::with_capacity(64), false, 0, false);
    loop {
        this.sleep(&mut events, more)?;
        let now = this.clock.now();
        for event in &events {
            match event.token() {
                SIGNALS => came += signals.take(),
                HANG_UP if hang_up.take() > 0 => {
                    let text = "SIGHUP is ignored; SIGTERM ends this bridge".to_owned();
                    this.setup.exchange.log.push(Level::Info, "hang_up", &[], text);
                }
                token => this.note(token, event),
            }
        }
        more = this.pass(now)?;
        if came > 0 && !this.setup.exchange.stops() {
            this.setup.ready.stopping();
            this.setup.exchange.stop(now);
            this.write(now);
        }
        if this.setup.exchange.is_ready() && !std::mem::replace(&mut announced, true) {
            this.setup.ready.serving();
        }
        let is_over = this.setup.exchange.is_stopped(now) || came > 1;
        if is_over {
            this.setup.exchange.end();
        }
        log_writer::write_log(this.setup.log_format, &mut this.setup.exchange.log);
        match is_over {
            true if came > 1 => return Err(io::Error::other("stopped at once by a second signal")),
            true => return Ok(()),
            false => {}
        }
    }
}

impl Loop {
    fn sleep(&mut self, events: &mut Events, more: bool) -> io::Result<()> {
        let deadline = self.setup.exchange.next_deadline();
        let timeout = deadline.map(|deadline| deadline.saturating_sub(self.clock.now()));
        let sleeps = !more && timeout != Some(Duration::ZERO) && self.setup.bus.park();
        let polled = self.poll.poll(events, if sleeps { timeout } else { Some(Duration::ZERO) });
        if sleeps {
            self.setup.bus.unpark();
        }
        match polled {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                events.clear();
                Ok(())
            }
            polled => polled,
        }
    }

    fn note(&mut self, token: Token, event: &mio::event::Event) {
        let index = match token {
            PUBLISHER => 0,
            SUBSCRIBER => 1,
            // Events of the bus and the waker only wake the loop.
            _ => return,
        };
        if let Some(connections) = &mut self.connections {
            connections[index].note(event);
        }
    }

    /// Reads from the bus and the sockets, does what is due, and writes. Returns whether there is more to do.
    fn pass(&mut self, now: Duration) -> io::Result<bool> {
        let Setup { bus, exchange, .. } = &mut self.setup;
        bus.take_news()?;
        let mut more = bus.drain(|event| exchange.bus_event(event));
        self.take_lookup(now);
        match self.read(now) {
            Ok(unread) => more |= unread,
            Err(why) => self.lose(&why, now),
        }
        if let Err(why) = self.setup.exchange.pass(now) {
            self.lose(&why, now);
        }
        if self.setup.exchange.wants_connection(now) {
            self.setup.exchange.open(now);
            match Lookup::begin(&self.setup.redis, self.setup.tls.as_ref(), Arc::clone(&self.waker)) {
                Ok(lookup) => self.lookup = Some(lookup),
                Err(error) => self.lose(&error.to_string(), now),
            }
        }
        self.write(now);
        let Setup { bus, exchange, .. } = &mut self.setup;
        let records = std::mem::take(exchange.to_bus());
        for record in records.iter() {
            if bus.publish(record).is_err() {
                exchange.too_long();
            }
        }
        bus.flush();
        if let Some(error) = bus.presence_error() {
            let text =
                format!("processes that join later will not know the members of other hosts: {}", in_words(&error));
            exchange.log.push(Level::Warn, "bus", &[("error", &in_words(&error))], text);
        }
        while let Some(text) = bus.warning() {
            exchange.log.push(Level::Warn, "bus", &[], text);
        }
        Ok(more)
    }

    fn take_lookup(&mut self, now: Duration) {
        let Some(found) = self.lookup.as_ref().and_then(Lookup::result) else { return };
        self.lookup = None;
        let opened = found.and_then(|Found { addrs, name }| {
            let addr = addrs.get(self.attempts % addrs.len().max(1)).ok_or("no address found")?;
            self.connect(addr, &name).map_err(|error| format!("{addr}: {error}"))
        });
        match opened {
            Ok(connections) => self.connections = Some(connections),
            Err(why) => self.lose(&why, now),
        }
    }

    fn connect(&self, addr: &ListenAddr, name: &str) -> io::Result<[Connection; 2]> {
        let tls = self.setup.tls.as_ref().map(|tls| (tls, name));
        let open = |token| Connection::open(addr, tls, self.poll.registry(), token);
        Ok([open(PUBLISHER)?, open(SUBSCRIBER)?])
    }

    fn lose(&mut self, why: &str, now: Duration) {
        (self.connections, self.lookup) = (None, None);
        self.attempts = self.attempts.wrapping_add(1);
        self.setup.exchange.lost(&in_words(&why), now, self.setup.dice.random());
    }

    fn read(&mut self, now: Duration) -> Result<bool, String> {
        let mut unread = false;
        let connections = self.connections.iter_mut().flatten();
        for (connection, side) in connections.zip([Side::Publisher, Side::Subscriber]) {
            for _ in 0..READS_PER_PASS {
                if !connection.is_readable() {
                    break;
                }
                let length = connection.read(&mut self.buffer).map_err(|error| error.to_string())?;
                if length > 0 {
                    self.setup.exchange.receive(side, &self.buffer[..length], now)?;
                }
            }
            unread |= connection.is_readable();
        }
        Ok(unread)
    }

    fn write(&mut self, now: Duration) {
        let exchange = &mut self.setup.exchange;
        let connections = self.connections.iter_mut().flatten();
        for (connection, side) in connections.zip([Side::Publisher, Side::Subscriber]) {
            match connection.write(exchange.pending(side)) {
                Ok(written) => exchange.wrote(side, written),
                Err(error) => return self.lose(&error.to_string(), now),
            }
        }
    }
}
