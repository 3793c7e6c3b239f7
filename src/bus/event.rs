//! What a participant hears of a bus.

use crate::channel::record::{Record, Records};
use crate::net::id::Participant;

/// What a bus tells. For each participant: first `Joined`, then records in the order in which they were published, and
/// `Gap`s between them, at last `Left`. `Present` follows soon upon `Joined` and upon each `Gap`, unless `Left` does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum BusEvent<'a> {
    /// Another participant is there: it came, or was there before us.
    Joined(Participant),
    /// Everything that a participant has told of who is on its channels, as far as it still holds: in place of what was
    /// heard of it before. Records that follow may tell parts of it again.
    Present {
        /// Whose.
        from: Participant,
        /// [`Count`](crate::channel::record::RecordKind::Count)s and
        /// [`Enter`](crate::channel::record::RecordKind::Enter)s.
        list: &'a Records,
    },
    /// A record.
    Record {
        /// Who published it.
        from: Participant,
        /// What was published.
        record: Record<'a>,
    },
    /// So many records of a participant were overwritten before they could be read here.
    Gap {
        /// Whose.
        from: Participant,
        /// How many.
        lost: u64,
    },
    /// A participant is gone, by itself or killed; what it had published came before this.
    Left(Participant),
}
