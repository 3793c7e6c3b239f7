//! What workers hand the keeper over the bus.

use super::entry::By;
use super::fields::{Reader, Writer};
use crate::pubsub::streams::{Keep, Position};
use std::time::Duration;

/// The channel of the bus for it. A bridge passes it on: other hosts have keepers of their own, which number what is published here
/// for themselves.
pub const ASKS: &str = "percore-history";

/// Whose and of when it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Head {
    /// The host, as its own times are of no use to others.
    pub host: u64,
    /// When it was asked first, by the monotonic clock.
    pub at: Duration,
    /// The worker, and the number of what it asks.
    pub by: By,
    /// Nothing before this number is asked for any more.
    pub base: u64,
}

/// A question.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ask<'a> {
    /// To publish something on a channel.
    Publish {
        /// Whose it is.
        head: Head,
        /// Which.
        channel: &'a str,
        /// How much of it is kept.
        keep: Keep,
        /// The idempotency key, empty for none.
        key: &'a str,
        /// A JSON object without its last brace.
        body: &'a str,
    },
    /// To give up the publications of a channel.
    Empty {
        /// Whose it is.
        head: Head,
        /// Which.
        channel: &'a str,
    },
    /// To have a stream for a channel that a client is on, or to have it longer.
    Open {
        /// Which.
        channel: &'a str,
        /// Its beginning, as the worker has told it.
        position: Position,
        /// Streams that were given up by then.
        removals: u64,
        /// The log that these are of.
        log: u64,
        /// How much of it is kept.
        keep: Keep,
    },
    /// To tell where the log ends.
    Greet,
}

const PUBLISH: u8 = 1;
const EMPTY: u8 = 2;
const OPEN: u8 = 3;
const GREET: u8 = 4;

fn head(kind: u8, head: &Head) -> Writer {
    let at = u64::try_from(head.at.as_nanos()).unwrap_or(u64::MAX);
    let writer = Writer::of_kind(kind).number(head.base).number(head.host).number(at);
    writer.number(head.by.origin).number(head.by.sequence)
}

fn read_head(from: &mut Reader<'_>) -> Option<Head> {
    let (base, host, at) = (from.number()?, from.number()?, Duration::from_nanos(from.number()?));
    Some(Head { host, at, by: By { origin: from.number()?, sequence: from.count()? }, base })
}

/// Sets the base of a question that was written.
pub fn rebase(bytes: &mut [u8], base: u64) {
    if let Some(place) = bytes.get_mut(1..9) {
        place.copy_from_slice(&base.to_le_bytes());
    }
}

impl Ask<'_> {
    /// As bytes.
    pub fn bytes(&self) -> Vec<u8> {
        match self {
            Ask::Publish { head: of, channel, keep, key, body } => {
                head(PUBLISH, of).keep(*keep).text(channel).text(key).text(body).0
            }
            Ask::Empty { head: of, channel } => head(EMPTY, of).text(channel).0,
            Ask::Open { channel, position, removals, log, keep } => {
                Writer::of_kind(OPEN).position(*position).number(*removals).number(*log).keep(*keep).text(channel).0
            }
            Ask::Greet => Writer::of_kind(GREET).0,
        }
    }

    /// Reads one; `None` for what is not one.
    pub fn read(bytes: &[u8]) -> Option<Ask<'_>> {
        let mut from = Reader(bytes);
        let ask = match from.kind()? {
            PUBLISH => {
                let (head, keep) = (read_head(&mut from)?, from.keep()?);
                Ask::Publish { head, channel: from.text()?, keep, key: from.text()?, body: from.text()? }
            }
            EMPTY => Ask::Empty { head: read_head(&mut from)?, channel: from.text()? },
            OPEN => {
                let (position, removals, log) = (from.position()?, from.count()?, from.number()?);
                Ask::Open { position, removals, log, keep: from.keep()?, channel: from.text()? }
            }
            GREET => Ask::Greet,
            _ => return None,
        };
        from.end()?;
        Some(ask)
    }
}
