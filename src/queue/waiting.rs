//! Lanes that are not written although they have bytes: their socket is full, or it is not their turn.

use super::{COMMON, OutQueue};

/// A postponed lane stops waiting once it has this many bytes to send.
const LATE_BYTES: usize = 64 * 1024;

/// What a lane's next write waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Waits {
    /// Nothing: queued bytes are written in this flush.
    No,
    /// Its socket is full.
    ForSocket,
    /// Other lanes are written first ([`OutQueue::postpone`]).
    ForTurn,
}

impl OutQueue {
    /// Whether a waiting lane must be written in this flush, because it has waited long enough.
    #[cold]
    pub(super) fn is_due(&self, key: u32) -> bool {
        let lane = &self.lanes[key as usize];
        lane.waits == Waits::ForTurn && (lane.queued >= LATE_BYTES || !self.is_shared(key))
    }

    /// The socket takes bytes again. Returns whether any were waiting.
    pub fn unblock(&mut self, key: u32) -> bool {
        self.end_run();
        let lane = &mut self.lanes[key as usize];
        let waited = lane.waits != Waits::No && lane.queued > 0;
        lane.waits = Waits::No;
        if waited {
            self.mark_dirty(key);
        }
        waited
    }

    /// Whether everything queued for a lane in this pass goes to other lanes as well.
    pub fn is_shared(&self, key: u32) -> bool {
        let mut next = self.lanes[key as usize].first;
        while let Some(span) = self.spans.get(next as usize) {
            if span.source != COMMON {
                return false;
            }
            next = span.next;
        }
        true
    }

    /// Leaves a lane from [`OutQueue::next_dirty`] unwritten until [`OutQueue::take_turn`], or until something is
    /// queued for it alone, or a lot.
    pub fn postpone(&mut self, key: u32) {
        self.lanes[key as usize].waits = Waits::ForTurn;
        self.retain(key);
    }

    /// Ends the wait of a postponed lane. Returns whether it still has bytes to write: it may have been written
    /// meanwhile, or belong to another connection.
    pub fn take_turn(&mut self, key: u32, generation: u32) -> bool {
        let waits = self.lane(key, generation).is_some_and(|lane| lane.waits == Waits::ForTurn);
        waits && self.unblock(key)
    }
}
