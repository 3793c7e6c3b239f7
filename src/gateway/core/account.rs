//! What there is: calls, events that wait, and the memory that they take.

use super::*;

impl Core {
    /// Calls to origins under way.
    pub fn in_flight(&self) -> usize {
        self.origins.calls()
    }

    /// Origins that are left out because they fail.
    pub fn origins_out(&self) -> usize {
        self.origins.out()
    }

    /// Events that the origin has not taken, and the bytes that they hold.
    pub fn waiting(&self) -> (usize, usize) {
        (self.waiting_events, self.waiting_bytes)
    }

    /// What all events that wait take.
    pub(super) fn held_bytes(&self) -> usize {
        self.waiting_bytes + self.waiting_events * EVENT_BYTES
    }

    /// Whether so much waits for the origin that no connection is to be let in.
    pub fn is_full(&self) -> bool {
        self.held_bytes() >= self.rules.total_bytes
    }

    /// Closed connections of which the origin does not know yet.
    pub fn closed_pending(&self) -> usize {
        self.closed_lines
    }

    /// About what is held: tables, what connections have besides, events that wait, and requests under way.
    pub fn memory(&self) -> usize {
        let tables = self.connections.capacity() * size_of::<Connection>()
            + self.places.capacity() * size_of::<(u64, usize)>()
            + self.lines.capacity() * size_of::<(u64, usize)>();
        tables + self.kept_bytes + self.labels.memory() + self.held_bytes() + self.bytes_under_way
    }
}
