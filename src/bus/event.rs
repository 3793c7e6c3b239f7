//! Events that a participant receives from a bus.

use crate::channel::record::{Record, Records};
use crate::net::id::Participant;

/// An event of a bus. For each participant: first `Joined`, then records in the order of publication, with `Gap`s
/// between them, and finally `Left`. `Present` soon follows `Joined` and each `Gap`, unless `Left` comes first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum BusEvent<'a> {
    /// Another participant is present: it joined, or was there before us.
    Joined(Participant),
    /// The complete membership of a participant's channels, as far as it is still valid: it replaces everything
    /// received before. Later records may repeat parts of it.
    Present {
        /// The participant.
        from: Participant,
        /// [`Count`](crate::channel::record::RecordKind::Count)s and
        /// [`Enter`](crate::channel::record::RecordKind::Enter)s.
        list: &'a Records,
    },
    /// A record.
    Record {
        /// The publisher.
        from: Participant,
        /// The published record.
        record: Record<'a>,
    },
    /// Records of a participant were overwritten before this process could read them.
    Gap {
        /// The participant.
        from: Participant,
        /// The number of lost records.
        lost: u64,
    },
    /// A participant has left, by itself or killed; everything it published came before this event.
    Left(Participant),
}
