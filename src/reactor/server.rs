//! [`Server`]: an app, its settings and where it listens.

use super::event_loop::{EventLoop, Outcome, Setup};
use super::seat::Seat;
use super::seed;
use super::supervised::Published;
use super::waker::Waker;
use crate::app::App;
use crate::os::bus::Bus;
use crate::os::clock::Clock;
use crate::os::control::Control;
use crate::os::listener::{BindOptions, ListenAddr, Listener};
use crate::os::log_writer::{self, LogFormat};
use crate::os::shared_words::SharedWords;
use crate::os::signals::{self, Signals};
use crate::session::{Sessions, Settings};
use crate::telemetry::log::Log;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// A server's options beyond its connections' [`Settings`].
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// Connections that may wait to be accepted, as in `listen(2)`; the kernel's `somaxconn` bounds it. Default 4096.
    pub backlog: i32,
    /// Permissions of a unix socket's file, such as `0o660`: a process that may write to it may connect. Default
    /// `None`: as the umask leaves them.
    pub unix_mode: Option<u32>,
    /// Whether other processes of the same user may listen on the same port, if they set this too: the kernel
    /// distributes the connections (SO_REUSEPORT). Default false: a port in use is an error.
    pub reuse_port: bool,
    /// How long connections may take to close after SIGTERM or SIGINT; the rest are cut off. Default 10 s.
    pub drain_timeout: Duration,
    /// Format of log lines; [`Server::log`] sets what is logged. Default text.
    pub log_format: LogFormat,
    /// How long the loop polls before it sleeps. Waking a sleeping process takes time, for clients and for other
    /// processes on a [bus](Server::bus). Polling costs CPU time. Default zero.
    pub busy_poll: Duration,
    /// A loop without a pass for this long counts as hung for a process that watches its [counters](Server::counters),
    /// so an idle loop makes passes often enough. Zero if no process watches. Default 10 s.
    pub hang_timeout: Duration,
    /// Whether the server handles SIGTERM and SIGINT, by draining, and SIGHUP, by ignoring it. Otherwise only an error
    /// or the end of the process ends [`Server::run`]. Default true with the feature `signals`; without the feature,
    /// true is an error.
    pub signals: bool,
}

impl Default for ServerOptions {
    fn default() -> ServerOptions {
        ServerOptions {
            backlog: 4096,
            unix_mode: None,
            reuse_port: false,
            drain_timeout: Duration::from_secs(10),
            log_format: LogFormat::Text,
            busy_poll: Duration::ZERO,
            hang_timeout: Duration::from_secs(10),
            signals: cfg!(feature = "signals"),
        }
    }
}

impl ServerOptions {
    pub(crate) fn bind(&self) -> BindOptions {
        BindOptions { backlog: self.backlog, unix_mode: self.unix_mode, reuse_port: self.reuse_port }
    }
}

/// A server of one app, in one process, on one thread. For more cores, run more processes on the same port, each with
/// [`ServerOptions::reuse_port`]: the kernel distributes the connections.
///
/// ```no_run
/// use percore::{App, ConnectionId, Message, Outbox, Request, Server};
///
/// struct Echo;
///
/// impl App for Echo {
///     type State = ();
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
    service_listeners: Vec<Listener>,
    control: Option<Control>,
    counters: Option<Arc<SharedWords>>,
    bus: Option<Bus>,
    waker: Option<Waker>,
}

impl<A: App> fmt::Debug for Server<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let addrs = self.local_addrs();
        f.debug_struct("Server").field("listens", &addrs).finish_non_exhaustive()
    }
}

impl<A: App> Server<A> {
    /// A server with default settings that does not listen yet and logs nothing.
    ///
    /// ```no_run
    /// # use percore::{App, ConnectionId, Message, Outbox, Request};
    /// use percore::{Level, Log, Server, ServerOptions, Settings};
    /// use std::time::Duration;
    /// # struct Echo;
    /// # impl App for Echo {
    /// #     type State = ();
    /// #     fn on_open(&mut self, _: ConnectionId, _: &Request<'_>, _: &mut Outbox) {}
    /// #     fn on_message(&mut self, id: ConnectionId, _: &mut (), message: Message<'_>, out: &mut Outbox) {
    /// #         out.echo(id, message);
    /// #     }
    /// # }
    ///
    /// let server = Server::new(Echo)
    ///     .settings(Settings { max_connections: 5_000, ..Settings::default() })
    ///     .options(ServerOptions { drain_timeout: Duration::from_secs(3), ..ServerOptions::default() })
    ///     .log(Log::new(Some(Level::Info)))
    ///     .listen("127.0.0.1:0")?
    ///     .listen("unix:/run/echo.sock")?;
    /// println!("listening on {}", server.local_addrs()?[0]);
    /// let outcome = server.run()?;
    /// println!("{outcome:?}");
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn new(app: A) -> Server<A> {
        let (settings, options) = (Settings::default(), ServerOptions::default());
        Server {
            app,
            settings,
            options,
            log: Log::new(None),
            listeners: Vec::new(),
            service_listeners: Vec::new(),
            control: None,
            counters: None,
            bus: None,
            waker: None,
        }
    }

    /// Replaces the default settings of connections.
    pub fn settings(self, settings: Settings) -> Server<A> {
        Server { settings, ..self }
    }

    /// Replaces the default options of the process. Call it before [`Server::listen`], which uses them.
    pub fn options(self, options: ServerOptions) -> Server<A> {
        Server { options, ..self }
    }

    /// Sets what is logged to standard error: connections opening and closing at [`Level::Info`](crate::Level::Info),
    /// and each message if [`Log::messages`] is set.
    pub fn log(self, log: Log) -> Server<A> {
        Server { log, ..self }
    }

    /// Listens on `addr`: `IP:PORT`, `[v6]:PORT`, `PORT` of 127.0.0.1, `:PORT` of all addresses, or `unix:PATH`. May be
    /// called more than once. Connections wait in the backlog until [`Server::run`].
    ///
    /// # Errors
    /// An invalid address (`InvalidInput`), or one that cannot be listened on, with the error kind of `bind(2)`; the
    /// error names the address.
    pub fn listen(mut self, addr: &str) -> io::Result<Server<A>> {
        self.listeners.push(self.bind(addr)?);
        Ok(self)
    }

    fn bind(&self, addr: &str) -> io::Result<Listener> {
        let addr: ListenAddr = addr.parse().map_err(invalid)?;
        Listener::bind(&addr, self.options.bind())
    }

    /// Listens on `addr` for the application behind the server, rather than for clients: requests that arrive there
    /// have [`Request::is_service`](crate::Request::is_service), and are never upgraded. If [`Settings::service_token`]
    /// is set, they must present it. May be called more than once.
    ///
    /// # Errors
    /// As [`Server::listen`].
    pub fn listen_service(mut self, addr: &str) -> io::Result<Server<A>> {
        self.service_listeners.push(self.bind(addr)?);
        Ok(self)
    }

    /// Adds a socket that already listens, such as an inherited one.
    #[doc(hidden)]
    pub fn listener(mut self, listener: Listener) -> Server<A> {
        self.listeners.push(listener);
        self
    }

    /// Adds a listening socket for the service, as [`Server::listen_service`].
    #[doc(hidden)]
    pub fn service_listener(mut self, listener: Listener) -> Server<A> {
        self.service_listeners.push(listener);
        self
    }

    /// Takes [orders](super::Order) over this line, and drains when it closes. Sends [`READY`](super::READY) over it at
    /// the start of [`Server::run`].
    #[doc(hidden)]
    pub fn control(self, control: Control) -> Server<A> {
        Server { control: Some(control), ..self }
    }

    /// Publishes the counters there, as [`Stats::words`](crate::Stats::words), after each pass of the loop.
    #[doc(hidden)]
    pub fn counters(self, counters: Arc<SharedWords>) -> Server<A> {
        Server { counters: Some(counters), ..self }
    }

    /// Joins a bus: what the app publishes reaches its subscribers in all processes there. The seat on the bus
    /// identifies this process in each [`ConnectionId`](crate::ConnectionId), instead of [`Settings::node`].
    pub fn bus(self, bus: Bus) -> Server<A> {
        Server { bus: Some(bus), ..self }
    }

    /// Lets other threads wake the loop.
    pub fn waker(self, waker: &Waker) -> Server<A> {
        Server { waker: Some(waker.clone()), ..self }
    }

    /// The app, for settings that are known only now.
    #[cfg(feature = "cli")]
    pub(crate) fn app_mut(&mut self) -> &mut A {
        &mut self.app
    }

    /// Returns the addresses listened on, in the order of the [`Server::listen`] calls, with the ports that the kernel
    /// chose for port 0.
    ///
    /// # Errors
    /// As `getsockname(2)`.
    pub fn local_addrs(&self) -> io::Result<Vec<ListenAddr>> {
        self.listeners.iter().map(Listener::local_addr).collect()
    }

    /// Returns the addresses listened on for the application behind the server.
    ///
    /// # Errors
    /// As `getsockname(2)`.
    pub fn service_addrs(&self) -> io::Result<Vec<ListenAddr>> {
        self.service_listeners.iter().map(Listener::local_addr).collect()
    }

    /// Serves until SIGTERM or SIGINT, then drains: stops listening, closes every connection with 1001 (RFC 6455,
    /// section 7.4.1) and waits until all have closed, at most [`ServerOptions::drain_timeout`]. A second signal ends
    /// it at once.
    ///
    /// Without a listener the server only calls [`App::on_tick`].
    ///
    /// # Errors
    /// When the loop cannot run: no epoll, no random numbers, no signal handler; or a service listener without a token
    /// that other machines can reach (`InvalidInput`). Errors of connections go to [`App::on_error`] instead.
    pub fn run(self) -> io::Result<Outcome> {
        if self.settings.service_token.is_none() {
            self.service_addrs()?.iter().try_for_each(check_open_to_all).map_err(invalid)?;
        }
        let Server { app, mut settings, options, log, listeners, service_listeners, control, counters, bus, waker } =
            self;
        let takes_signals = options.signals;
        let signals = takes_signals.then(|| Signals::new(&signals::ENDING)).transpose()?;
        // A worker already ignores it.
        let hang_up = (takes_signals && control.is_none()).then(|| Signals::new(&[signals::SIGHUP])).transpose()?;
        if let Some(bus) = &bus {
            settings.node = bus.me().slot;
        }
        let mut sessions = Sessions::new(app, settings, log, 0, seed()?);
        let ServerOptions { drain_timeout, log_format, busy_poll, hang_timeout, .. } = options;
        let seat = bus.map(|bus| {
            sessions.join_bus(bus.me(), bus.limit());
            Seat::new(bus)
        });
        let published = counters.map(|words| Published::new(words, hang_timeout));
        let setup = Setup {
            listeners,
            service_listeners,
            signals,
            hang_up,
            control,
            waker,
            seat,
            published,
            drain_timeout,
            log_format,
            spin: busy_poll,
            ..Setup::default()
        };
        let outcome = EventLoop::new(sessions, setup, Clock::start())?.run();
        log_writer::finish();
        outcome
    }
}

fn invalid(error: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, error)
}

/// Checks that a service listener needs no token: only this machine, or users who may open the socket's file, can reach
/// it.
///
/// # Errors
/// When it needs one: what to do.
pub(crate) fn check_open_to_all(addr: &ListenAddr) -> Result<(), String> {
    match addr {
        ListenAddr::Tcp(addr) if !addr.ip().to_canonical().is_loopback() => Err(format!(
            "service listener on {addr}: other machines could send to every connection; give --service-token-file FILE, or \
             listen on 127.0.0.1 or a unix socket"
        )),
        ListenAddr::Tcp(_) | ListenAddr::Unix(_) => Ok(()),
    }
}
