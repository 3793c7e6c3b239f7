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

/// An application: called by the reactor, one call at a time, from one thread.
///
/// It answers through the [`Outbox`], to the connection it was called for or to any other. What it queues is written
/// after the handler has returned, for each connection in the order in which it was queued. A handler that takes long
/// holds up every connection of the process; one that panics ends the server.
///
/// For each connection the calls are: [`App::on_open`], [`App::on_message`] any number of times, [`App::on_error`] if
/// it does not end well, and [`App::on_close`].
///
/// # State
///
/// What belongs to one connection goes into [`App::State`]; what belongs to all goes into the app's own fields. A
/// handler is given the state of its own connection only. An app that sends to others keeps their ids:
///
/// ```
/// use percore::{App, CloseReason, ConnectionId, Delivery, Message, Outbox, Request};
/// use std::collections::HashSet;
///
/// /// Everyone hears what anyone says.
/// #[derive(Default)]
/// struct Room(HashSet<ConnectionId>);
///
/// impl App for Room {
///     /// The name of who is connected.
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
/// Every method of the [`Outbox`] that sends says at once what became of it, as a [`Delivery`](crate::Delivery):
/// `Queued`, `Dropped` under [`SlowConsumer::Drop`](crate::SlowConsumer::Drop), or `Closed` when the connection is gone
/// or going. None of them is an error to handle: an app that does not care need not look. [`Outbox::close`] begins the
/// closing handshake (RFC 6455, section 7.1.2); [`App::on_close`] tells when it is over.
pub trait App {
    /// What the app keeps for each open connection; `()` costs nothing. Made by [`App::on_open`], lent to each handler
    /// that is called for the connection, and given back to [`App::on_close`].
    type State;

    /// An HTTP request, before it is upgraded or answered. `Some` is the answer: to serve a route of the app's own, or
    /// to refuse an upgrade. `None`, the default, leaves it to the server: upgrade on the paths of
    /// [`UpgradeRules`](crate::UpgradeRules), 404 elsewhere.
    ///
    /// Called for each request, whether or not it asks for an upgrade, but for those that the server answers by
    /// itself: `/healthz`, `/healthcheck`, and a GET or HEAD with content that the app does not take (413). By
    /// [`Outbox::defer`] the answer is put off until later. A request of a [service listener](crate::Server::listen_service)
    /// is known by [`Request::is_service`], is never upgraded, and is 404 for `None`.
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

    /// How many bytes of content the app takes with this request, of which only the head has come; 0, the default, for none.
    /// Asked for each request that has content, but for the server's own paths.
    ///
    /// Content within that, and within [`Settings::max_content`](crate::Settings::max_content), is read before
    /// [`App::on_request`] is called, which finds it in [`Request::content`]; longer content is 413 before it is read. With 0
    /// a GET or HEAD is 413, and any other request goes to `on_request` without its content: that stays unread, and so the
    /// answer is the last on its connection.
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

    /// An upgrade that could be accepted now: it is valid (RFC 6455, section 4.2.1), of a path, an origin and a client that
    /// may, and [`App::on_request`] left it to the server. [`Request::subprotocol`] is what would be agreed on. `None`, the
    /// default, accepts it; `Some` refuses. After [`Outbox::defer`] it waits for [`Outbox::accept_upgrade`], or for
    /// [`Outbox::answer`], which refuses it.
    fn on_upgrade(&mut self, request: &Request<'_>, out: &mut Outbox) -> Option<Response> {
        let _ = (request, out);
        None
    }

    /// Whether a request to a service listener that lacks the listener's token is for the app all the same, which then finds out
    /// by itself who asks. Default never.
    fn authenticates(&self, request: &Request<'_>) -> bool {
        let _ = request;
        false
    }

    /// Whether `/healthz` answers 200, and not 503, as long as the server does not drain. Default true: who answers at all is
    /// well.
    fn is_healthy(&self) -> bool {
        true
    }

    /// Bytes that the app keeps of what clients sent, for the account that [`Settings::max_memory`](crate::Settings) bounds. Asked for in
    /// each pass. Default 0.
    fn memory(&self) -> usize {
        0
    }

    /// A connection is open: its upgrade was accepted. What is sent now follows the handshake's answer at once.
    ///
    /// The request is the one that was upgraded, with [`Request::subprotocol`] as agreed. It is gone after this call, as
    /// is the peer's address: keep in the connection's state what is wanted later.
    fn on_open(&mut self, id: ConnectionId, request: &Request<'_>, out: &mut Outbox) -> Self::State;

    /// A message has come, whole: fragments joined, unmasked, decompressed, and text checked to be UTF-8 (RFC 6455,
    /// sections 5.4, 5.6 and 8.1). It has at most [`Settings::max_message`](crate::Settings::max_message) bytes.
    ///
    /// It lies in a buffer that is used again after this call, so what is to stay is copied. It is unmasked when it is
    /// first looked at, which is why looking takes `mut message`. Pings are answered without a call.
    fn on_message(&mut self, id: ConnectionId, state: &mut Self::State, message: Message<'_>, out: &mut Outbox);

    /// A connection's socket has taken all that waited for it. Called once for each
    /// [`Outbox::when_written`](crate::Outbox::when_written), at the end of the pass of the loop.
    ///
    /// ```
    /// # use percore::{App, ConnectionId, Message, Outbox, Request};
    /// /// Sends a long series, and never lets more than one part of it wait.
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

    /// Whether large binary messages only go back to their sender. Those of 64 KiB and more then do so piece by piece as
    /// they come, without waiting for the end and without memory for the whole, and `on_message` is not called for
    /// them. Asked once, at the start; `false` unless implemented.
    fn echoes_large(&self) -> bool {
        false
    }

    /// Something went wrong with a connection; [`App::on_close`] follows in the same pass. A closing handshake, whatever
    /// its code and whoever began it, is no error. Nothing that is sent to `id` now is certain to arrive.
    fn on_error(&mut self, id: ConnectionId, state: &mut Self::State, error: &Error, out: &mut Outbox) {
        let _ = (id, state, error, out);
    }

    /// A connection that [`Outbox::connect`] ordered with `tag` did not open. Nothing else is called for it; to try again
    /// is up to the app.
    fn on_connect_failed(&mut self, tag: u64, error: &ConnectError, out: &mut Outbox) {
        let _ = (tag, error, out);
    }

    /// The drain begins, after a signal or [`Outbox::stop`]: every connection is about to be told 1001 (RFC 6455, section
    /// 7.4.1). What is sent now still goes before that.
    fn on_drain(&mut self, out: &mut Outbox) {
        let _ = out;
    }

    /// Whether nothing is left to do once every connection has gone, so that a drain may end. Asked after each pass then, until
    /// the drain deadline.
    fn is_finished(&self) -> bool {
        true
    }

    /// The drain's time is up ([`ServerOptions::drain_timeout`](crate::ServerOptions)), and what [`App::is_finished`] waited for
    /// is given up; nothing is called any more.
    fn on_abandon(&mut self, out: &mut Outbox) {
        let _ = out;
    }

    /// A connection is over. Called once for each [`App::on_open`], and with its state; nothing can be sent to `id` any
    /// more, and no other connection is ever called so.
    ///
    /// A second SIGTERM or SIGINT, which ends [`Server::run`](crate::Server::run) at once, leaves it out.
    fn on_close(&mut self, id: ConnectionId, state: Self::State, reason: &CloseReason, out: &mut Outbox) {
        let _ = (id, state, reason, out);
    }

    /// Something was published by another process on a channel that the app listens to ([`Outbox::listen`]), as text or
    /// binary. Its subscribers among our connections get it without this call. Text is UTF-8; else anything may stand in
    /// it, whatever other programs on the bus make of it.
    fn on_bus(&mut self, from: Participant, record: Record<'_>, out: &mut Outbox) {
        let _ = (from, record, out);
    }

    /// So much that another process published was overwritten before it could be read here: this one was too busy, or the
    /// ring is too small (`--bus-size`). Who is on which channel is right again soon.
    fn on_gap(&mut self, from: Participant, lost: u64, out: &mut Outbox) {
        let _ = (from, lost, out);
    }

    /// Another participant of the bus has gone, whatever ended it.
    fn on_left(&mut self, who: Participant, out: &mut Outbox) {
        let _ = (who, out);
    }

    /// A name came to a channel ([`Outbox::subscribe_as`]) or left it, in this process or another, also because a
    /// connection broke or a process was killed. Every process is told, so what follows from it each tells its own
    /// connections, by [`Outbox::publish_here`].
    fn on_presence(&mut self, change: Change<'_>, out: &mut Outbox) {
        let _ = (change, out);
    }

    /// Another thread called [`Waker::wake`](crate::Waker::wake), once or several times. Called at the start as well, if
    /// there is a waker.
    fn on_wake(&mut self, out: &mut Outbox) {
        let _ = out;
    }

    /// Time has come. Called once at the start and then at the time it returns, as the `Duration` since the start;
    /// `None` for never again. It is never early; it is late by a pass of the loop and the kernel's millisecond. A time
    /// that is past already means the next pass.
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

/// Why a connection ended otherwise than by a closing handshake; given to [`App::on_error`].
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Error {
    /// The peer broke the protocol. It was told by a Close frame with [`Violation::code`].
    Violation(Violation),
    /// Nothing at all, not even a Pong, came for [`Settings::heartbeat_timeout`](crate::Settings::heartbeat_timeout)
    /// (`--heartbeat-timeout`); the `Duration` is how long it was. The peer was told 1011.
    HeartbeatTimeout(Duration),
    /// It took too slowly what was sent: [`SendRules::max_backlog`](crate::SendRules::max_backlog) was reached under
    /// [`SlowConsumer::Close`](crate::SlowConsumer::Close) (`--max-backlog` with `--slow-consumer close`).
    SlowConsumer {
        /// Bytes that were waiting.
        backlog_bytes: usize,
    },
    /// The process held more than [`Settings::max_memory`](crate::Settings::max_memory) (`--max-memory`), and this
    /// connection was among those that held most: it had sent a large part of a message. It was told 1013.
    OutOfMemory,
    /// It did not answer our Close frame within [`Settings::close_timeout`](crate::Settings::close_timeout), or was cut
    /// off at the drain deadline.
    CloseTimeout,
    /// The peer ended the stream without a Close frame (RFC 6455, section 7.1.5, close code 1006).
    UnexpectedEof,
    /// The socket failed: the kind, and the operating system's text, such as `Connection reset by peer`.
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

/// Why a connection that was ordered did not open; given to [`App::on_connect_failed`].
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum ConnectError {
    /// No connection came about, or it broke: the kind, and the operating system's text, such as `Connection refused`.
    Io(io::ErrorKind, String),
    /// The server ended the stream before it had answered.
    UnexpectedEof,
    /// It was not open within [`Settings::handshake_timeout`](crate::Settings::handshake_timeout).
    Timeout,
    /// The server answered, but not by an upgrade (RFC 6455, section 4.1).
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
