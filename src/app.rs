//! Floor 2, the trait [`App`]: what a server does with its connections.

use crate::data::id::ConnectionId;
use crate::outbox::Outbox;
use crate::protocol::Violation;
use crate::protocol::close::CloseReason;
use crate::protocol::http::{Request, Response};
use crate::protocol::message::Message;
use std::fmt;
use std::time::Duration;

/// An application: called by the reactor, one call at a time, from one thread.
///
/// It answers through the [`Outbox`], to the connection it was called for or to any other. What it queues is written
/// at the end of the pass. A handler that takes long holds up every connection of the process.
pub trait App {
    /// What the app keeps for each open connection; `()` costs nothing.
    type Connection;

    /// An HTTP request, before it is upgraded or answered. `Some` is the answer: to serve a route of the app's own, or
    /// to refuse an upgrade. `None`, the default, leaves it to the server: upgrade on its paths, 404 elsewhere.
    fn on_request(&mut self, request: &Request<'_>, out: &mut Outbox) -> Option<Response> {
        let _ = (request, out);
        None
    }

    /// A connection is open. What is sent now follows the handshake's answer at once.
    fn on_open(&mut self, id: ConnectionId, request: &Request<'_>, out: &mut Outbox) -> Self::Connection;

    /// A message has come, whole.
    fn on_message(
        &mut self,
        id: ConnectionId,
        connection: &mut Self::Connection,
        message: Message<'_>,
        out: &mut Outbox,
    );

    /// Whether large binary messages only go back to their sender. Those of 64 KiB and more then do so piece by piece as
    /// they come, without waiting for the end and without memory for the whole, and `on_message` is not called for
    /// them. Asked once, at the start; `false` unless implemented.
    fn echoes_large(&self) -> bool {
        false
    }

    /// Something went wrong with a connection; [`App::on_close`] follows. A normal close is not an error.
    fn on_error(&mut self, id: ConnectionId, connection: &mut Self::Connection, error: &Error, out: &mut Outbox) {
        let _ = (id, connection, error, out);
    }

    /// A connection is over. Called once for each [`App::on_open`]; nothing can be sent to `id` any more.
    fn on_close(&mut self, id: ConnectionId, connection: Self::Connection, reason: &CloseReason, out: &mut Outbox) {
        let _ = (id, connection, reason, out);
    }

    /// Time has come. Called once at the start and then at the time it returns, as the `Duration` since the start;
    /// `None` for never again.
    fn on_tick(&mut self, now: Duration, out: &mut Outbox) -> Option<Duration> {
        let _ = (now, out);
        None
    }
}

/// Why a connection ended otherwise than by a closing handshake.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Error {
    /// The peer broke the protocol. It was told by a Close frame with [`Violation::code`].
    Violation(Violation),
    /// Nothing at all came for `--heartbeat-timeout`.
    HeartbeatTimeout(Duration),
    /// Its backlog was full (`--max-backlog` with `--slow-consumer close`).
    SlowConsumer {
        /// Bytes that were waiting.
        backlog_bytes: usize,
    },
    /// It did not answer our Close frame in time.
    CloseTimeout,
    /// The peer ended the stream without a Close frame.
    UnexpectedEof,
    /// The operating system's word.
    Io(String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Violation(violation) => violation.fmt(f),
            Error::HeartbeatTimeout(after) => write!(f, "nothing came for {:.1} s", after.as_secs_f64()),
            Error::SlowConsumer { backlog_bytes } => write!(f, "reads too slowly: {backlog_bytes} bytes waiting"),
            Error::CloseTimeout => f.write_str("Close frame not answered in time"),
            Error::UnexpectedEof => f.write_str("stream ended without a Close frame"),
            Error::Io(error) => f.write_str(error),
        }
    }
}

impl std::error::Error for Error {}
