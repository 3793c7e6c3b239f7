//! What the keeper tells workers over the bus.

use super::entry::{self, By};
use super::fields::{Reader, Writer};
use crate::pubsub::streams::Position;

/// The channel of the bus for it, which no bridge passes on.
pub const WORDS: &str = "percore.history";

/// Something that the keeper tells.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Word<'a> {
    /// An entry of the log.
    Entry {
        /// Of which.
        log: u64,
        /// Where it begins.
        begin: u64,
        /// What it holds.
        payload: &'a [u8],
    },
    /// A stretch of the log that says nothing new.
    Skip {
        /// Of which.
        log: u64,
        /// Where it begins.
        begin: u64,
        /// Where it ends.
        end: u64,
    },
    /// The keeper is there, and may have missed what was asked.
    Hello {
        /// Which log it writes.
        log: u64,
        /// Where it ends.
        end: u64,
    },
    /// Something is not done, and will not be.
    Refused(By),
    /// A publication with that key is there already.
    Known(By, Position),
}

const ENTRY: u8 = 1;
const SKIP: u8 = 2;
const HELLO: u8 = 3;
const REFUSED: u8 = 4;
const KNOWN: u8 = 5;

impl Word<'_> {
    /// As bytes.
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

    /// Reads one; `None` for what is not one.
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

    /// Where the log ends as far as this tells, and of which it tells.
    pub fn end(&self) -> Option<(u64, u64)> {
        match *self {
            Word::Entry { log, begin, payload } => Some((log, begin.saturating_add(entry::length(payload)))),
            Word::Skip { log, end, .. } | Word::Hello { log, end } => Some((log, end)),
            Word::Refused(_) | Word::Known(..) => None,
        }
    }
}
