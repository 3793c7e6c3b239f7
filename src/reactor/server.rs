//! [`Server`]: an app, its settings and where it listens.

use super::event_loop::{EventLoop, Outcome};
use crate::app::App;
use crate::data::log::Log;
use crate::os::clock::{Clock, unix_time};
use crate::os::listener::{ListenAddr, Listener};
use crate::os::log_writer::LogFormat;
use crate::os::signals::Signals;
use crate::session::{Sessions, Settings};
use rand::TryRng;
use std::io;
use std::time::Duration;

/// What a server needs beyond its sessions' [`Settings`].
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// Connections that may wait to be accepted, as `listen(2)` has it; the kernel's `somaxconn` bounds it.
    pub backlog: i32,
    /// How long connections have to go after SIGTERM or SIGINT.
    pub drain_timeout: Duration,
    /// How log lines look.
    pub log_format: LogFormat,
    /// Whether SIGTERM and SIGINT are taken over, to drain.
    pub signals: bool,
}

impl Default for ServerOptions {
    fn default() -> ServerOptions {
        ServerOptions {
            backlog: 4096,
            drain_timeout: Duration::from_secs(10),
            log_format: LogFormat::Text,
            signals: true,
        }
    }
}

/// A server of one app, in one process, on one thread.
///
/// ```no_run
/// use percore::{App, ConnectionId, Message, Outbox, Request, Server};
///
/// struct Echo;
///
/// impl App for Echo {
///     type Connection = ();
///     fn on_open(&mut self, _: ConnectionId, _: &Request<'_>, _: &mut Outbox) {}
///     fn on_message(&mut self, id: ConnectionId, _: &mut (), message: Message<'_>, out: &mut Outbox) {
///         out.echo(id, message);
///     }
/// }
///
/// Server::new(Echo).listen("127.0.0.1:8080")?.run()?;
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct Server<A: App> {
    app: A,
    settings: Settings,
    options: ServerOptions,
    log: Log,
    listeners: Vec<Listener>,
}

impl<A: App> Server<A> {
    /// A server with default settings that does not listen yet and logs nothing.
    pub fn new(app: A) -> Server<A> {
        let (settings, options) = (Settings::default(), ServerOptions::default());
        Server { app, settings, options, log: Log::new(None), listeners: Vec::new() }
    }

    /// Sets what connections go by.
    pub fn settings(self, settings: Settings) -> Server<A> {
        Server { settings, ..self }
    }

    /// Sets what the process goes by. Call it before [`Server::listen`].
    pub fn options(self, options: ServerOptions) -> Server<A> {
        Server { options, ..self }
    }

    /// Sets what is logged to standard error.
    pub fn log(self, log: Log) -> Server<A> {
        Server { log, ..self }
    }

    /// Listens on `addr`: `IP:PORT`, `[v6]:PORT` or `unix:PATH`. May be called more than once. Connections wait in the
    /// backlog until [`Server::run`].
    ///
    /// # Errors
    /// A bad address, or one that cannot be listened on; the error names it.
    pub fn listen(mut self, addr: &str) -> io::Result<Server<A>> {
        let addr: ListenAddr = addr.parse().map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        self.listeners.push(Listener::bind(&addr, self.options.backlog)?);
        Ok(self)
    }

    /// Where it listens, with the ports that the kernel chose for port 0.
    ///
    /// # Errors
    /// As `getsockname(2)`.
    pub fn local_addrs(&self) -> io::Result<Vec<ListenAddr>> {
        self.listeners.iter().map(Listener::local_addr).collect()
    }

    /// Serves until SIGTERM or SIGINT, then drains.
    ///
    /// # Errors
    /// What makes the loop impossible: no epoll, no random numbers, no signal handler.
    pub fn run(self) -> io::Result<Outcome> {
        let Server { app, settings, options, log, listeners } = self;
        let signals = if options.signals { Some(Signals::new()?) } else { None };
        let mut seed = [0; 32];
        rand::rngs::SysRng.try_fill_bytes(&mut seed).map_err(io::Error::other)?;
        let sessions = Sessions::new(app, settings, log, unix_time().as_secs(), seed);
        let clock = Clock::start();
        EventLoop::new(sessions, listeners, signals, clock, options.drain_timeout, options.log_format)?.run()
    }
}
