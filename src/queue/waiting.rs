//! Lanes that are not written although they have bytes: their socket is full, or it is not their turn.

use super::{COMMON, OutQueue};

/// A lane that was postponed waits no longer once it has this many bytes to send.
const LATE_BYTES: usize = 64 * 1024;

/// What a lane's next write waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Waits {
    /// Nothing: what is queued is written in this flush.
    No,
    /// Its socket is full.
    ForSocket,
    /// Others are written first ([`OutQueue::postpone`]).
    ForTurn,
}

impl OutQueue {
    /// Whether a lane that waits is to be written in this flush, as it has waited long enough.
    #[cold]
    pub(super) fn is_due(&self, key: u32) -> bool {
        let lane = &self.lanes[key as usize];
        lane.waits == Waits::ForTurn && (lane.queued >= LATE_BYTES || !self.is_shared(key))
    }

    /// The socket takes bytes again. Returns whether there are some that waited for that.
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

    /// Whether all that was queued for a lane in this pass is sent to others as well.
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

    /// Leaves a lane that [`OutQueue::next_dirty`] gave unwritten until [`OutQueue::take_turn`], or until something is
    /// queued for it alone, or much.
    pub fn postpone(&mut self, key: u32) {
        self.lanes[key as usize].waits = Waits::ForTurn;
        self.retain(key);
    }

    /// Ends the wait of a lane that was postponed. Returns whether it still has bytes to write: it may have been written
    /// meanwhile, or belong to another connection.
    pub fn take_turn(&mut self, key: u32, generation: u32) -> bool {
        let waits = self.lane(key, generation).is_some_and(|lane| lane.waits == Waits::ForTurn);
        waits && self.unblock(key)
    }
}
