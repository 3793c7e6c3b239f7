//! [`Client`]: an app on connections that this process opens.

use super::event_loop::{EventLoop, Outcome, Setup};
use super::seed;
use super::target::Target;
use super::waker::Waker;
use crate::app::App;
use crate::os::clock::Clock;
use crate::os::log_writer;
use crate::os::resolve::Endpoint;
use crate::os::signals::{self, Signals};
use crate::protocol::Role;
use crate::session::{Sessions, Settings};
use crate::telemetry::log::Log;
use std::fmt;
use std::io;
use std::time::Duration;

/// A client of one app: the same loop and [`App`] as a server's, on connections that the app orders with
/// [`Outbox::connect`](crate::Outbox::connect). [`App::on_tick`], which is called at the start, is the place to order
/// the first.
///
/// ```no_run
/// use percore::{App, Client, ConnectionId, Message, Outbox, Request, Target};
/// use std::time::Duration;
///
/// /// Sends one message, prints the echo, and stops.
/// struct Once;
///
/// impl App for Once {
///     type State = ();
///     fn on_tick(&mut self, _: Duration, out: &mut Outbox) -> Option<Duration> {
///         out.connect(0, 1);
///         None
///     }
///     fn on_open(&mut self, id: ConnectionId, _: &Request<'_>, out: &mut Outbox) {
///         out.send_text(id, "hello");
///     }
///     fn on_message(&mut self, _: ConnectionId, _: &mut (), mut message: Message<'_>, out: &mut Outbox) {
///         println!("{:?}", message.text());
///         out.stop();
///     }
/// }
///
/// Client::new(Once).target(Target::parse("ws://localhost:8080/")?).run()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Client<A: App> {
    app: A,
    settings: Settings,
    log: Log,
    targets: Vec<Target>,
    handshake: bool,
    time_each_read: bool,
    drain_timeout: Duration,
    busy_poll: Duration,
    waker: Option<Waker>,
    clock: Option<Clock>,
}

impl<A: App> fmt::Debug for Client<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}

impl<A: App> Client<A> {
    /// A client with default settings, without targets.
    pub fn new(app: A) -> Client<A> {
        Client {
            app,
            settings: Settings::default(),
            log: Log::new(None),
            targets: Vec::new(),
            handshake: true,
            time_each_read: false,
            drain_timeout: Duration::from_secs(10),
            busy_poll: Duration::ZERO,
            waker: None,
            clock: None,
        }
    }

    /// Replaces the default settings of connections.
    pub fn settings(self, settings: Settings) -> Client<A> {
        Client { settings, ..self }
    }

    /// Sets what is logged to standard error; by default nothing.
    pub fn log(self, log: Log) -> Client<A> {
        Client { log, ..self }
    }

    /// Adds a target.
    pub fn target(mut self, target: Target) -> Client<A> {
        self.targets.push(target);
        self
    }

    /// Leaves out the handshake: frames begin as soon as a socket is connected, and are expected back masked as sent
    /// (with a key of zero), as by a server that echoes bytes and knows nothing of WebSocket.
    pub fn without_handshake(self) -> Client<A> {
        Client { handshake: false, ..self }
    }

    /// Makes [`Outbox::now`](crate::Outbox::now) return when the current bytes were read, rather than when the pass of
    /// the loop began: for an app that measures.
    pub fn time_each_read(self) -> Client<A> {
        Client { time_each_read: true, ..self }
    }

    /// Sets how long connections may take to close once the app or a signal has stopped the loop. Default 10 s.
    pub fn drain_timeout(self, drain_timeout: Duration) -> Client<A> {
        Client { drain_timeout, ..self }
    }

    /// Busy-polls when the next deadline is nearer than this, so that it is met to the microsecond. Costs a core.
    /// Default zero: the kernel's millisecond.
    pub fn busy_poll(self, busy_poll: Duration) -> Client<A> {
        Client { busy_poll, ..self }
    }

    /// Lets other threads wake the loop.
    pub fn waker(self, waker: &Waker) -> Client<A> {
        Client { waker: Some(waker.clone()), ..self }
    }

    /// Counts times from the start of this clock, which other processes share.
    #[cfg(feature = "cli")]
    pub(crate) fn clock(self, clock: Clock) -> Client<A> {
        Client { clock: Some(clock), ..self }
    }

    /// Runs until [`Outbox::stop`](crate::Outbox::stop), SIGTERM or SIGINT, then closes every connection with 1001 and
    /// returns the app.
    ///
    /// # Errors
    /// When the loop cannot run: no epoll, no random numbers, no signal handler. Errors of connections go to the app
    /// instead.
    pub fn run(self) -> io::Result<(Outcome, A)> {
        // A server that echoes bytes sends our frames back masked, as if we were the server.
        let role = if self.handshake { Role::Client } else { Role::Server };
        let mut sessions = Sessions::with_role(self.app, self.settings, role, self.log, 0, seed()?);
        if !self.handshake {
            // Such a server is compared with others, whose frames need no unmasking.
            sessions.outbox.random = None;
        }
        let has_names = self.targets.iter().any(|target| matches!(target.addr, Endpoint::Name { .. }));
        let setup = Setup {
            signals: cfg!(feature = "signals").then(|| Signals::new(&signals::ENDING)).transpose()?,
            targets: self.targets,
            handshake: self.handshake,
            drain_timeout: self.drain_timeout,
            busy_poll: self.busy_poll,
            // Other threads look up names.
            waker: self.waker.or_else(|| has_names.then(Waker::default)),
            time_each_read: self.time_each_read,
            ..Setup::default()
        };
        let mut event_loop = EventLoop::new(sessions, setup, self.clock.unwrap_or_else(Clock::start))?;
        let outcome = event_loop.run();
        log_writer::finish();
        Ok((outcome?, event_loop.into_app()))
    }
}
