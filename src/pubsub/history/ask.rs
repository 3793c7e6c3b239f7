//! Questions that workers send to the keeper over the bus.

use super::entry::By;
use super::fields::{Reader, Writer};
use crate::pubsub::streams::{Keep, Position};
use std::time::Duration;

/// The bus channel for questions. A bridge forwards it: each host has its own keeper, which numbers the publications
/// for itself.
pub const ASKS: &str = "percore-history";

/// The sender of a question and its time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Head {
    /// The host: its clock means nothing to other hosts.
    pub host: u64,
    /// When the question was first asked, by the monotonic clock.
    pub at: Duration,
    /// The worker and the number of its question.
    pub by: By,
    /// The worker no longer asks anything before this number.
    pub base: u64,
}

/// A question.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ask<'a> {
    /// Publish on a channel.
    Publish {
        /// The sender.
        head: Head,
        /// The channel.
        channel: &'a str,
        /// How much history to keep.
        keep: Keep,
        /// The idempotency key, empty for none.
        key: &'a str,
        /// A JSON object without its last brace.
        body: &'a str,
    },
    /// Drop the publications of a channel.
    Empty {
        /// The sender.
        head: Head,
        /// The channel.
        channel: &'a str,
    },
    /// Create a stream for a channel that a client is on, or extend its life.
    Open {
        /// The channel.
        channel: &'a str,
        /// Where the stream begins, as the worker announced it.
        position: Position,
        /// The number of streams dropped by then.
        removals: u64,
        /// The log that the position and the count refer to.
        log: u64,
        /// How much history to keep.
        keep: Keep,
    },
    /// Report where the log ends.
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

/// Sets the base of an encoded question.
pub fn rebase(bytes: &mut [u8], base: u64) {
    if let Some(place) = bytes.get_mut(1..9) {
        place.copy_from_slice(&base.to_le_bytes());
    }
}

impl Ask<'_> {
    /// Encodes the question.
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

    /// Decodes a question; `None` for invalid bytes.
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
