//! Floor 2, the trait [`App`]: what a server does with its connections.

use crate::channel::presence::Change;
use crate::channel::record::Record;
use crate::net::id::{ConnectionId, Participant};
use crate::outbox::Outbox;
use crate::protocol::Violation;
use crate::protocol::client::HandshakeError;
use crate::protocol::close::CloseReason;
use crate::protocol::http::{Request, Response};
use crate::protocol::message::Message;
use std::fmt;
use std::io;
use std::time::Duration;

/// An application: the reactor calls it, one call at a time, from one thread.
///
/// It answers through the [`Outbox`], to the connection it was called for or to any other. The loop writes what it
/// queues after the handler has returned, in queue order for each connection. A slow handler holds up every connection
/// of the process; a handler that panics ends the server.
///
/// For each connection the calls are: [`App::on_open`], [`App::on_message`] any number of times, [`App::on_error`] if
/// it ends abnormally, and [`App::on_close`].
///
/// # State
///
/// State of one connection goes into [`App::State`], state shared by all into the app's own fields. A handler gets the
/// state of its own connection only. An app that sends to other connections keeps their ids:
///
/// ```
/// use percore::{App, CloseReason, ConnectionId, Delivery, Message, Outbox, Request};
/// use std::collections::HashSet;
///
/// /// Sends each message to every member.
/// #[derive(Default)]
/// struct Room(HashSet<ConnectionId>);
///
/// impl App for Room {
///     /// The member's name.
///     type State = String;
///
///     fn on_open(&mut self, id: ConnectionId, request: &Request<'_>, _: &mut Outbox) -> String {
///         self.0.insert(id);
///         request.query_value("name").unwrap_or("someone".into()).into_owned()
///     }
///
///     fn on_message(&mut self, _: ConnectionId, name: &mut String, mut message: Message<'_>, out: &mut Outbox) {
///         let Some(text) = message.text() else { return };
///         let line = format!("{name}: {text}");
///         for &member in &self.0 {
///             if out.send_text(member, &line) == Delivery::Dropped {
///                 println!("{member} reads too slowly");
///             }
///         }
///     }
///
///     fn on_close(&mut self, id: ConnectionId, _: String, _: &CloseReason, _: &mut Outbox) {
///         self.0.remove(&id);
///     }
/// }
/// ```
///
/// # Sending
///
/// Every method of the [`Outbox`] that sends returns the outcome at once as a [`Delivery`](crate::Delivery): `Queued`,
/// `Dropped` under [`SlowConsumer::Drop`](crate::SlowConsumer::Drop), or `Closed` if the connection is closed or
/// closing. None of these is an error, and an app may ignore them. [`Outbox::close`] begins the closing handshake (RFC
/// 6455, section 7.1.2); [`App::on_close`] reports its end.
pub trait App {
    /// What the app keeps for each open connection; `()` costs nothing. [`App::on_open`] creates it, each handler of
    /// the connection borrows it, and [`App::on_close`] gets it back.
    type State;

    /// Handles an HTTP request before the server upgrades or answers it. `Some` is the answer: to serve a route of the
    /// app's own, or to refuse an upgrade. `None`, the default, leaves the request to the server: an upgrade on the
    /// paths of [`UpgradeRules`](crate::UpgradeRules), 404 elsewhere.
    ///
    /// Called for each request, with or without an upgrade, except those that the server answers itself: `/healthz`,
    /// `/healthcheck`, and a GET or HEAD with content that the app does not take (413). [`Outbox::defer`] puts the
    /// answer off until later. A request of a [service listener](crate::Server::listen_service), recognised by
    /// [`Request::is_service`], is never upgraded; `None` answers it with 404.
    ///
    /// ```
    /// # use percore::{App, ConnectionId, Message, Outbox, Request, Response};
    /// # struct Private;
    /// # impl App for Private {
    /// #     type State = ();
    /// #     fn on_open(&mut self, _: ConnectionId, _: &Request<'_>, _: &mut Outbox) {}
    /// #     fn on_message(&mut self, _: ConnectionId, _: &mut (), _: Message<'_>, _: &mut Outbox) {}
    /// fn on_request(&mut self, request: &Request<'_>, _: &mut Outbox) -> Option<Response> {
    ///     match request.path() {
    ///         "/about" => Some(Response::text(200, "A private server.")),
    ///         _ if request.query_value("token").as_deref() == Some("secret") => None,
    ///         _ => Some(Response::text(403, "Give a token.")),
    ///     }
    /// }
    /// # }
    /// ```
    fn on_request(&mut self, request: &Request<'_>, out: &mut Outbox) -> Option<Response> {
        let _ = (request, out);
        None
    }

    /// Returns how many bytes of content the app takes with this request, given its head only; 0, the default, takes
    /// none. Called for each request with content, except on the server's own paths.
    ///
    /// Content within this limit and [`Settings::max_content`](crate::Settings::max_content) is read before the server
    /// calls [`App::on_request`], which finds it in [`Request::content`]; longer content is refused with 413 unread.
    /// With 0, a GET or HEAD is refused with 413, and any other request reaches `on_request` without its content. The
    /// content then stays unread, so the answer is the last on its connection.
    ///
    /// ```
    /// # use percore::{App, ConnectionId, Message, Outbox, Request, Response};
    /// # struct Mailbox(Vec<Vec<u8>>);
    /// # impl App for Mailbox {
    /// #     type State = ();
    /// #     fn on_open(&mut self, _: ConnectionId, _: &Request<'_>, _: &mut Outbox) {}
    /// #     fn on_message(&mut self, _: ConnectionId, _: &mut (), _: Message<'_>, _: &mut Outbox) {}
    /// fn takes_content(&self, request: &Request<'_>) -> usize {
    ///     if (request.method(), request.path()) == ("POST", "/mail") { 64 << 10 } else { 0 }
    /// }
    ///
    /// fn on_request(&mut self, request: &Request<'_>, _: &mut Outbox) -> Option<Response> {
    ///     match (request.method(), request.path()) {
    ///         ("POST", "/mail") => self.0.push(request.content().to_vec()),
    ///         (_, "/mail") => return Some(Response::text(405, "Post something.").header("Allow", "POST")),
    ///         _ => return None,
    ///     }
    ///     Some(Response::new(204))
    /// }
    /// # }
    /// ```
    fn takes_content(&self, request: &Request<'_>) -> usize {
        let _ = request;
        0
    }

    /// Decides on an upgrade that could be accepted now: it is valid (RFC 6455, section 4.2.1), its path, origin and
    /// client are allowed, and [`App::on_request`] left it to the server. [`Request::subprotocol`] is the one that
    /// would be agreed on. `None`, the default, accepts; `Some` refuses. After [`Outbox::defer`] the upgrade waits for
    /// [`Outbox::accept_upgrade`], or for [`Outbox::answer`], which refuses it.
    fn on_upgrade(&mut self, request: &Request<'_>, out: &mut Outbox) -> Option<Response> {
        let _ = (request, out);
        None
    }

    /// Returns whether a request to a service listener reaches the app without the listener's token; the app then
    /// authenticates the sender itself. Default: never.
    fn authenticates(&self, request: &Request<'_>) -> bool {
        let _ = request;
        false
    }

    /// Returns whether `/healthz` answers 200 rather than 503 while the server is not draining. Default true: a server
    /// that answers at all is healthy.
    fn is_healthy(&self) -> bool {
        true
    }

    /// Returns the bytes of client data that the app holds, which count towards
    /// [`Settings::max_memory`](crate::Settings). Called in each pass. Default 0.
    fn memory(&self) -> usize {
        0
    }

    /// A connection is open: its upgrade was accepted. Messages sent now directly follow the handshake's answer.
    ///
    /// The request is the upgraded one, with [`Request::subprotocol`] as agreed. The request and the peer's address are
    /// gone after this call: keep what you need later in the connection's state.
    fn on_open(&mut self, id: ConnectionId, request: &Request<'_>, out: &mut Outbox) -> Self::State;

    /// A whole message has arrived: fragments joined, unmasked, decompressed, and text checked to be UTF-8 (RFC 6455,
    /// sections 5.4, 5.6 and 8.1). It has at most [`Settings::max_message`](crate::Settings::max_message) bytes.
    ///
    /// The message's buffer is reused after this call, so copy what must outlive it. The first access unmasks it, which
    /// is why access takes `mut message`. The server answers pings without a call.
    fn on_message(&mut self, id: ConnectionId, state: &mut Self::State, message: Message<'_>, out: &mut Outbox);

    /// A connection's socket has taken everything queued for it. Called once for each
    /// [`Outbox::when_written`](crate::Outbox::when_written), at the end of the pass of the loop.
    ///
    /// ```
    /// # use percore::{App, ConnectionId, Message, Outbox, Request};
    /// /// Sends a long series, with at most one part of it queued.
    /// struct Series;
    ///
    /// impl App for Series {
    ///     /// The next part.
    ///     type State = u32;
    ///
    ///     fn on_open(&mut self, id: ConnectionId, _: &Request<'_>, out: &mut Outbox) -> u32 {
    ///         out.when_written(id);
    ///         0
    ///     }
    ///
    ///     fn on_written(&mut self, id: ConnectionId, next: &mut u32, out: &mut Outbox) {
    ///         out.send_text(id, &format!("part {next}"));
    ///         *next += 1;
    ///         if *next < 1_000_000 {
    ///             out.when_written(id);
    ///         }
    ///     }
    /// #   fn on_message(&mut self, _: ConnectionId, _: &mut u32, _: Message<'_>, _: &mut Outbox) {}
    /// }
    /// ```
    fn on_written(&mut self, id: ConnectionId, state: &mut Self::State, out: &mut Outbox) {
        let _ = (id, state, out);
    }

    /// Returns whether large binary messages only go back to their sender. If so, messages of 64 KiB and more are
    /// echoed piece by piece as they arrive, without buffering the whole, and `on_message` is not called for them.
    /// Called once, at the start; default `false`.
    fn echoes_large(&self) -> bool {
        false
    }

    /// A connection failed; [`App::on_close`] follows in the same pass. A closing handshake is not an error, whatever
    /// its code and whichever side began it. Messages sent to `id` now may not arrive.
    fn on_error(&mut self, id: ConnectionId, state: &mut Self::State, error: &Error, out: &mut Outbox) {
        let _ = (id, state, error, out);
    }

    /// A connection that [`Outbox::connect`] ordered with `tag` did not open. No other method is called for it; the app
    /// decides whether to try again.
    fn on_connect_failed(&mut self, tag: u64, error: &ConnectError, out: &mut Outbox) {
        let _ = (tag, error, out);
    }

    /// The drain begins, after a signal or [`Outbox::stop`]: every connection is about to be closed with 1001 (RFC
    /// 6455, section 7.4.1). Messages sent now still go out before the close.
    fn on_drain(&mut self, out: &mut Outbox) {
        let _ = out;
    }

    /// Returns whether the app has finished its work, so that a drain may end. Called after each pass once every
    /// connection has closed, until the drain deadline.
    fn is_finished(&self) -> bool {
        true
    }

    /// The drain deadline has passed ([`ServerOptions::drain_timeout`](crate::ServerOptions)): the server gives up what
    /// [`App::is_finished`] waited for, and makes no further calls.
    fn on_abandon(&mut self, out: &mut Outbox) {
        let _ = out;
    }

    /// A connection is over. Called once for each [`App::on_open`], with its state. Nothing can be sent to `id` any
    /// more, and ids are never reused.
    ///
    /// Not called when a second SIGTERM or SIGINT ends [`Server::run`](crate::Server::run) at once.
    fn on_close(&mut self, id: ConnectionId, state: Self::State, reason: &CloseReason, out: &mut Outbox) {
        let _ = (id, state, reason, out);
    }

    /// Another process published a text or binary record on a channel that the app listens to ([`Outbox::listen`]).
    /// Subscribers among our own connections get the record without this call. Text is valid UTF-8; the app must check
    /// everything else, as any program on the bus may have written it.
    fn on_bus(&mut self, from: Participant, record: Record<'_>, out: &mut Outbox) {
        let _ = (from, record, out);
    }

    /// `lost` records of another process were overwritten before this process could read them: it was too busy, or the
    /// ring is too small (`--bus-size`). Channel membership is corrected soon after.
    fn on_gap(&mut self, from: Participant, lost: u64, out: &mut Outbox) {
        let _ = (from, lost, out);
    }

    /// Another participant has left the bus, for whatever reason.
    fn on_left(&mut self, who: Participant, out: &mut Outbox) {
        let _ = (who, out);
    }

    /// A name joined a channel ([`Outbox::subscribe_as`]) or left it, in this process or another, also because a
    /// connection broke or a process was killed. Every process gets this call, so each tells its own connections, by
    /// [`Outbox::publish_here`].
    fn on_presence(&mut self, change: Change<'_>, out: &mut Outbox) {
        let _ = (change, out);
    }

    /// Another thread called [`Waker::wake`](crate::Waker::wake), once or several times. If there is a waker, also
    /// called at the start.
    fn on_wake(&mut self, out: &mut Outbox) {
        let _ = out;
    }

    /// A timer has expired. Called once at the start and then at the time it returns, a `Duration` since the start;
    /// `None` means no further call. The call is never early; it is late by a pass of the loop and the kernel's
    /// millisecond. A time in the past means the next pass.
    ///
    /// ```
    /// # use percore::{App, ConnectionId, Message, Outbox, Request};
    /// # use std::time::Duration;
    /// # struct Clock(Vec<ConnectionId>);
    /// # impl App for Clock {
    /// #     type State = ();
    /// #     fn on_open(&mut self, _: ConnectionId, _: &Request<'_>, _: &mut Outbox) {}
    /// #     fn on_message(&mut self, _: ConnectionId, _: &mut (), _: Message<'_>, _: &mut Outbox) {}
    /// fn on_tick(&mut self, now: Duration, out: &mut Outbox) -> Option<Duration> {
    ///     for &id in &self.0 {
    ///         out.send_text(id, &format!("up for {} s", now.as_secs()));
    ///     }
    ///     Some(now + Duration::from_secs(5))
    /// }
    /// # }
    /// ```
    fn on_tick(&mut self, now: Duration, out: &mut Outbox) -> Option<Duration> {
        let _ = (now, out);
        None
    }
}

/// Why a connection ended other than by a closing handshake; given to [`App::on_error`].
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Error {
    /// The peer broke the protocol. It was sent a Close frame with [`Violation::code`].
    Violation(Violation),
    /// Nothing at all, not even a Pong, arrived for [`Settings::heartbeat_timeout`](crate::Settings::heartbeat_timeout)
    /// (`--heartbeat-timeout`); the `Duration` is the length of the silence. The peer was sent 1011.
    HeartbeatTimeout(Duration),
    /// The peer read too slowly: [`SendRules::max_backlog`](crate::SendRules::max_backlog) was reached under
    /// [`SlowConsumer::Close`](crate::SlowConsumer::Close) (`--max-backlog` with `--slow-consumer close`).
    SlowConsumer {
        /// Bytes waiting to be sent.
        backlog_bytes: usize,
    },
    /// The process exceeded [`Settings::max_memory`](crate::Settings::max_memory) (`--max-memory`), and this connection
    /// was among the largest holders, with a large part of a message received. It was sent 1013.
    OutOfMemory,
    /// The peer did not answer our Close frame within [`Settings::close_timeout`](crate::Settings::close_timeout), or
    /// the drain deadline cut it off.
    CloseTimeout,
    /// The peer ended the stream without a Close frame (RFC 6455, section 7.1.5, close code 1006).
    UnexpectedEof,
    /// The socket failed: the error's kind, and the operating system's text, such as `Connection reset by peer`.
    Io(io::ErrorKind, String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Violation(violation) => violation.fmt(f),
            Error::HeartbeatTimeout(after) => write!(f, "nothing came for {:.1} s", after.as_secs_f64()),
            Error::SlowConsumer { backlog_bytes } => write!(f, "reads too slowly: {backlog_bytes} bytes waiting"),
            Error::OutOfMemory => f.write_str("closed to free memory: it held a large part of a message"),
            Error::CloseTimeout => f.write_str("Close frame not answered in time"),
            Error::UnexpectedEof => f.write_str("stream ended without a Close frame"),
            Error::Io(_, error) => f.write_str(error),
        }
    }
}

impl std::error::Error for Error {}

/// Why an ordered connection did not open; given to [`App::on_connect_failed`].
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum ConnectError {
    /// Connecting failed, or the connection broke: the error's kind, and the operating system's text, such as
    /// `Connection refused`.
    Io(io::ErrorKind, String),
    /// The server ended the stream before it answered.
    UnexpectedEof,
    /// The connection did not open within [`Settings::handshake_timeout`](crate::Settings::handshake_timeout).
    Timeout,
    /// The server answered without an upgrade (RFC 6455, section 4.1).
    Handshake(HandshakeError),
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConnectError::Io(_, error) => f.write_str(error),
            ConnectError::UnexpectedEof => f.write_str("stream ended before the handshake's answer"),
            ConnectError::Timeout => f.write_str("handshake not answered in time"),
            ConnectError::Handshake(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for ConnectError {}
