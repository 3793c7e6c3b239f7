//! Faults of connections and messages, by kind.

use super::load::Load;
use super::report::short;
use crate::app::{ConnectError, Error};
use crate::protocol::client::HandshakeError;
use std::io::ErrorKind;
use std::time::Duration;

/// In an interrupted run, a message without an answer for this long, and for twice the longest latency, is missing.
const LATE: Duration = Duration::from_secs(1);

impl Load {
    /// Counts the messages without an answer, those of ended connections included. An interrupt does not wait for
    /// answers: after it, only messages older than any answer count as missing.
    pub(super) fn count_unanswered(&mut self, now: Duration) {
        let least = if self.interrupted { LATE.max(2 * self.record.latency.max()) } else { Duration::ZERO };
        let ages = self.flights.iter().flat_map(|flight| &flight.sent_at);
        let ages = ages.map(|at| now.saturating_sub(Duration::from_nanos(*at))).filter(|age| *age >= least);
        let (count, oldest, youngest) = ages
            .fold((0, Duration::ZERO, Duration::MAX), |(count, oldest, youngest), age| {
                (count + 1, oldest.max(age), youngest.min(age))
            });
        self.record.errors("no answer", count, || format!("none came within {}", span(youngest, oldest)));
    }

    /// The number of connected subscribers that miss the last published messages, and the sum of what they miss; none
    /// after an interrupt, which does not wait for them.
    pub(super) fn undelivered(&self) -> (u64, u64) {
        if self.interrupted {
            return (0, 0);
        }
        let there = self.subscriptions().filter(|flight| flight.id.is_some());
        let missing = there.map(|flight| self.published.wrapping_sub(flight.answered)).filter(|missing| *missing > 0);
        missing.fold((0, 0), |(number, sum), missing| (number + 1, sum + u64::from(missing)))
    }
}

/// Two times for people, the shorter one first.
fn span(from: Duration, to: Duration) -> String {
    if to - from.min(to) < Duration::from_millis(1) { short(to) } else { format!("{} to {}", short(from), short(to)) }
}

pub(super) fn kind_of_failure(error: &ConnectError) -> &'static str {
    match error {
        ConnectError::Io(kind, _) => kind_of_io(*kind),
        ConnectError::UnexpectedEof => "ended by the server",
        ConnectError::Timeout => "handshake timeout",
        ConnectError::Handshake(HandshakeError::Refused(_)) => "upgrade refused",
        ConnectError::Handshake(HandshakeError::Invalid(_)) => "wrong handshake",
    }
}

pub(super) fn kind_of_error(error: &Error) -> &'static str {
    match error {
        Error::Io(kind, _) => kind_of_io(*kind),
        Error::UnexpectedEof => "ended by the server",
        Error::Violation(_) => "protocol error",
        Error::HeartbeatTimeout(_) | Error::CloseTimeout => "close timeout",
        Error::SlowConsumer { .. } => "backlog full",
        Error::OutOfMemory => "out of memory",
    }
}

fn kind_of_io(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::ConnectionRefused => "refused",
        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::ConnectionAborted => "reset",
        ErrorKind::TimedOut => "timed out",
        ErrorKind::AddrInUse | ErrorKind::AddrNotAvailable => "no port left",
        ErrorKind::NotFound => "no such socket",
        _ => "failed",
    }
}
