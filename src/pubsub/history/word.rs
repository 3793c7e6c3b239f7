//! Messages that the keeper sends to workers over the bus.

use super::entry::{self, By};
use super::fields::{Reader, Writer};
use crate::pubsub::streams::Position;

/// The bus channel for these messages. No bridge forwards it.
pub const WORDS: &str = "percore.history";

/// A message of the keeper.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Word<'a> {
    /// An entry of the log.
    Entry {
        /// The log.
        log: u64,
        /// Where it begins.
        begin: u64,
        /// Its payload.
        payload: &'a [u8],
    },
    /// A stretch of the log without news.
    Skip {
        /// The log.
        log: u64,
        /// Where it begins.
        begin: u64,
        /// Where it ends.
        end: u64,
    },
    /// The keeper is up, and may have missed questions.
    Hello {
        /// The log it writes.
        log: u64,
        /// Where it ends.
        end: u64,
    },
    /// The question was refused for good.
    Refused(By),
    /// A publication with that key exists already.
    Known(By, Position),
}

const ENTRY: u8 = 1;
const SKIP: u8 = 2;
const HELLO: u8 = 3;
const REFUSED: u8 = 4;
const KNOWN: u8 = 5;

impl Word<'_> {
    /// Encodes the message.
    pub fn bytes(&self) -> Vec<u8> {
        match self {
            Word::Entry { log, begin, payload } => {
                let mut writer = Writer::of_kind(ENTRY).number(*log).number(*begin);
                writer.0.extend_from_slice(payload);
                writer.0
            }
            Word::Skip { log, begin, end } => Writer::of_kind(SKIP).number(*log).number(*begin).number(*end).0,
            Word::Hello { log, end } => Writer::of_kind(HELLO).number(*log).number(*end).0,
            Word::Refused(by) => Writer::of_kind(REFUSED).number(by.origin).number(by.sequence).0,
            Word::Known(by, position) => {
                Writer::of_kind(KNOWN).number(by.origin).number(by.sequence).position(*position).0
            }
        }
    }

    /// Decodes a message; `None` for invalid bytes.
    pub fn read(bytes: &[u8]) -> Option<Word<'_>> {
        let mut from = Reader(bytes);
        let by = |from: &mut Reader<'_>| Some(By { origin: from.number()?, sequence: from.count()? });
        let word = match from.kind()? {
            ENTRY => {
                let (log, begin) = (from.number()?, from.number()?);
                return Some(Word::Entry { log, begin, payload: from.0 });
            }
            SKIP => Word::Skip { log: from.number()?, begin: from.number()?, end: from.number()? },
            HELLO => Word::Hello { log: from.number()?, end: from.number()? },
            REFUSED => Word::Refused(by(&mut from)?),
            KNOWN => Word::Known(by(&mut from)?, from.position()?),
            _ => return None,
        };
        from.end()?;
        Some(word)
    }

    /// The log and the end of it, as far as this message tells.
    pub fn end(&self) -> Option<(u64, u64)> {
        match *self {
            Word::Entry { log, begin, payload } => Some((log, begin.saturating_add(entry::length(payload)))),
            Word::Skip { log, end, .. } | Word::Hello { log, end } => Some((log, end)),
            Word::Refused(_) | Word::Known(..) => None,
        }
    }
}
