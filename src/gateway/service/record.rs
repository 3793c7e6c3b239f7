//! What the workers of a host tell each other over the bus: messages for connections of another worker, and what became of
//! them. Whatever comes is validated.

use super::Delivered;
use crate::protocol::message::Kind;

const COMMAND: u8 = b'c';
const RESULTS: u8 = b'r';
const DESCRIBED: u8 = b'd';
const LIST: u8 = b'l';
const LISTED: u8 = b'n';

/// Deeds by number, besides messages, which have the number of their kind, and closing, which has the close code.
const JOIN: u16 = 2;
const LEAVE: u16 = 3;
const DESCRIBE: u16 = 4;
const LABEL: u16 = 5;
const UNLABEL: u16 = 6;

/// What to do with connections.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Deed<'a> {
    /// Send them a message.
    Send(Kind, &'a [u8]),
    /// Close them.
    Close(u16, &'a [u8]),
    /// Put them on a channel.
    Join(&'a str),
    /// Take them off a channel.
    Leave(&'a str),
    /// Give them a label.
    Label(&'a str),
    /// Take it away from them.
    Unlabel(&'a str),
    /// Tell what is known of it: [`Record::Described`] is the answer.
    Describe,
}

/// A record.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Record<'a> {
    /// Do this to these connections: each with the place of its result.
    Command {
        /// The slot of the worker that wants to know the results, and its number for them; `None` if nobody does.
        asker: Option<(u32, u64)>,
        /// What to do.
        deed: Deed<'a>,
        /// Place and serial number of each connection.
        connections: Vec<(u32, u64)>,
    },
    /// What is known of a connection, as a codec of [`Facts`](super::describe::Facts) has it.
    Described {
        /// Number of the worker that asked.
        job: u64,
        /// Empty when there is no such connection.
        facts: &'a [u8],
    },
    /// Which connections have a label? [`Record::Listed`] is the answer.
    List {
        /// The slot of the worker that wants to know, and its number for the answer.
        asker: (u32, u64),
        /// Those behind this number.
        after: u64,
        /// At most this many.
        most: u32,
        /// The label.
        label: &'a str,
    },
    /// These.
    Listed {
        /// Number of the worker that asked.
        job: u64,
        /// Numbers of connections, in order.
        serials: Vec<u64>,
    },
    /// What became of them.
    Results {
        /// Number of the worker that asked.
        job: u64,
        /// Place and result of each.
        results: Vec<(u32, Delivered)>,
    },
}

/// The channel of the worker in a slot.
pub fn channel(slot: u32) -> String {
    format!("percore.gateway/{slot}")
}

impl Record<'_> {
    /// As bytes.
    pub fn write(&self) -> Vec<u8> {
        let mut out = Vec::new();
        match self {
            Record::Command { asker, deed, connections } => {
                out.push(COMMAND);
                let (slot, job) = asker.unwrap_or((u32::MAX, 0));
                out.extend_from_slice(&slot.to_le_bytes());
                out.extend_from_slice(&job.to_le_bytes());
                let (number, rest): (u16, &[u8]) = match deed {
                    Deed::Send(kind, payload) => (kind.index() as u16, payload),
                    Deed::Join(channel) => (JOIN, channel.as_bytes()),
                    Deed::Leave(channel) => (LEAVE, channel.as_bytes()),
                    Deed::Label(label) => (LABEL, label.as_bytes()),
                    Deed::Unlabel(label) => (UNLABEL, label.as_bytes()),
                    Deed::Describe => (DESCRIBE, &[]),
                    Deed::Close(code, reason) => (*code, reason),
                };
                out.extend_from_slice(&number.to_le_bytes());
                out.extend_from_slice(&(connections.len() as u32).to_le_bytes());
                for (place, serial) in connections {
                    out.extend_from_slice(&place.to_le_bytes());
                    out.extend_from_slice(&serial.to_le_bytes());
                }
                out.extend_from_slice(rest);
            }
            Record::Described { job, facts } => {
                out.push(DESCRIBED);
                out.extend_from_slice(&job.to_le_bytes());
                out.extend_from_slice(facts);
            }
            Record::List { asker: (slot, job), after, most, label } => {
                out.push(LIST);
                out.extend_from_slice(&slot.to_le_bytes());
                out.extend_from_slice(&job.to_le_bytes());
                out.extend_from_slice(&after.to_le_bytes());
                out.extend_from_slice(&most.to_le_bytes());
                out.extend_from_slice(label.as_bytes());
            }
            Record::Listed { job, serials } => {
                out.push(LISTED);
                out.extend_from_slice(&job.to_le_bytes());
                out.extend(serials.iter().flat_map(|serial| serial.to_le_bytes()));
            }
            Record::Results { job, results } => {
                out.push(RESULTS);
                out.extend_from_slice(&job.to_le_bytes());
                for (place, result) in results {
                    out.extend_from_slice(&place.to_le_bytes());
                    out.push(*result as u8);
                }
            }
        }
        out
    }

    /// From bytes; `None` for what is not a record.
    pub fn read(bytes: &[u8]) -> Option<Record<'_>> {
        let (kind, bytes) = bytes.split_first()?;
        match *kind {
            COMMAND => {
                let (slot, bytes) = bytes.split_first_chunk()?;
                let (job, bytes) = bytes.split_first_chunk()?;
                let (number, bytes) = bytes.split_first_chunk()?;
                let (count, bytes) = bytes.split_first_chunk()?;
                let (slot, job) = (u32::from_le_bytes(*slot), u64::from_le_bytes(*job));
                let (list, rest) = bytes.split_at_checked((u32::from_le_bytes(*count) as usize).checked_mul(12)?)?;
                let deed = match u16::from_le_bytes(*number) {
                    0 => Deed::Send(Kind::Text, std::str::from_utf8(rest).ok()?.as_bytes()),
                    1 => Deed::Send(Kind::Binary, rest),
                    JOIN => Deed::Join(std::str::from_utf8(rest).ok()?),
                    LEAVE => Deed::Leave(std::str::from_utf8(rest).ok()?),
                    LABEL => Deed::Label(std::str::from_utf8(rest).ok()?),
                    UNLABEL => Deed::Unlabel(std::str::from_utf8(rest).ok()?),
                    DESCRIBE => Deed::Describe,
                    code => Deed::Close(code, rest),
                };
                let connections = list.chunks_exact(12).filter_map(|item| {
                    let (place, serial) = item.split_first_chunk()?;
                    Some((u32::from_le_bytes(*place), u64::from_le_bytes(serial.try_into().ok()?)))
                });
                let asker = (slot != u32::MAX).then_some((slot, job));
                Some(Record::Command { asker, deed, connections: connections.collect() })
            }
            DESCRIBED => {
                let (job, facts) = bytes.split_first_chunk()?;
                Some(Record::Described { job: u64::from_le_bytes(*job), facts })
            }
            LIST => {
                let (slot, bytes) = bytes.split_first_chunk()?;
                let (job, bytes) = bytes.split_first_chunk()?;
                let (after, bytes) = bytes.split_first_chunk()?;
                let (most, label) = bytes.split_first_chunk()?;
                Some(Record::List {
                    asker: (u32::from_le_bytes(*slot), u64::from_le_bytes(*job)),
                    after: u64::from_le_bytes(*after),
                    most: u32::from_le_bytes(*most),
                    label: std::str::from_utf8(label).ok()?,
                })
            }
            LISTED => {
                let (job, list) = bytes.split_first_chunk()?;
                let serials = list.chunks_exact(8).filter_map(|item| Some(u64::from_le_bytes(item.try_into().ok()?)));
                Some(Record::Listed { job: u64::from_le_bytes(*job), serials: serials.collect() })
            }
            RESULTS => {
                let (job, list) = bytes.split_first_chunk()?;
                let results = list.chunks_exact(5).filter_map(|item| {
                    let (place, result) = item.split_first_chunk()?;
                    Some((u32::from_le_bytes(*place), Delivered::from_byte(*result.first()?)?))
                });
                Some(Record::Results { job: u64::from_le_bytes(*job), results: results.collect() })
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn records_come_back() {
        let connections = vec![(0, 7), (1, u64::MAX)];
        let sends = [Deed::Send(Kind::Text, b"hi"), Deed::Send(Kind::Binary, b"\xff")];
        let others = [Deed::Close(4000, b"bye"), Deed::Join("a"), Deed::Leave("b"), Deed::Describe];
        let others = others.into_iter().chain([Deed::Label("c"), Deed::Unlabel("d")]);
        for deed in sends.into_iter().chain(others) {
            for asker in [None, Some((3, 9))] {
                let record = Record::Command { asker, deed: deed.clone(), connections: connections.clone() };
                assert_eq!(Record::read(&record.write()), Some(record));
            }
        }
        let record = Record::Described { job: 6, facts: b"{}" };
        assert_eq!(Record::read(&record.write()), Some(record));
        let record = Record::List { asker: (2, 9), after: 7, most: 100, label: "l" };
        assert_eq!(Record::read(&record.write()), Some(record));
        let record = Record::Listed { job: 9, serials: vec![7, u64::MAX] };
        assert_eq!(Record::read(&record.write()), Some(record));
        let results = vec![(1, Delivered::Queued), (0, Delivered::Gone)];
        let record = Record::Results { job: 5, results };
        assert_eq!(Record::read(&record.write()), Some(record));
        let not_text = Record::Command { asker: None, deed: Deed::Send(Kind::Text, b"\xff"), connections: Vec::new() };
        assert_eq!(Record::read(&not_text.write()), None, "text of others need not be text");
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = Record::read(&bytes);
        }
    }
}
