//! Limits on waiting output: each connection's backlog, when the loop must write first, and how much memory all of it
//! takes.

use super::{DEFLATER_BYTES, Delivery, Demand, FRAMES, MID_FRAME, OUTGOING_BYTES, Outbox, SlowConsumer};
use crate::net::id::ConnectionId;
use crate::queue::OutQueue;
use crate::telemetry::memory::{Memory, MemoryKind};

impl Outbox {
    /// Checks that a frame may be queued for `to`. Returns its lane's mode, or why not.
    pub(super) fn admit(&mut self, to: ConnectionId) -> Result<u8, Delivery> {
        self.end_fanout();
        let node = self.node;
        match self.queue.lane(to.index, to.generation) {
            Some(lane) if lane.mode & FRAMES != 0 && to.node == node => {
                let (mode, queued) = (lane.mode, lane.queued_bytes());
                if self.has_full_backlog(to.index, mode, queued) {
                    return Err(self.overflow(to.index, 1));
                }
                Ok(mode)
            }
            _ => Err(Delivery::Closed),
        }
    }

    /// Whether a lane with `queued` bytes takes no more messages. The limit holds at any moment: bytes that have not
    /// been offered to the socket yet count too.
    #[inline]
    fn has_full_backlog(&self, key: u32, mode: u8, queued: usize) -> bool {
        let held = if mode & MID_FRAME != 0 { self.under_way.get(&key).map_or(0, |echo| echo.held.len()) } else { 0 };
        queued + held >= self.rules.max_backlog
    }

    /// The same for `messages` in one piece, to a connection that is known to exist.
    pub(super) fn admit_at(&mut self, key: u32, messages: u64) -> Option<u8> {
        let lane = self.queue.lane_at(key);
        let (mode, queued) = (lane.mode, lane.queued_bytes());
        if mode & FRAMES == 0 {
            return None;
        }
        if self.has_full_backlog(key, mode, queued) {
            self.overflow(key, messages);
            return None;
        }
        Some(mode)
    }

    #[cold]
    fn overflow(&mut self, key: u32, messages: u64) -> Delivery {
        match self.rules.slow_consumer {
            SlowConsumer::Drop => {
                self.stats.messages_dropped += messages;
                Delivery::Dropped
            }
            SlowConsumer::Close => {
                self.queue.lane_at(key).mode = 0;
                self.demand(key, Demand::Overflow);
                Delivery::Closed
            }
        }
    }

    /// Makes a message loop pause if the queue is full and must be written first.
    #[inline]
    pub(super) fn note_queued(&mut self) {
        self.yields |= self.is_full();
    }

    /// Whether the queue, for connections or for the bus, is so full that it must be written before more is queued.
    #[inline]
    pub(crate) fn is_full(&self) -> bool {
        self.queue.is_full() || self.broadcast.outgoing.bytes().len() >= OUTGOING_BYTES
    }

    /// Appends to the frames that wait for the end of an echo.
    pub(super) fn hold(&mut self, key: u32, append: impl FnOnce(&mut Vec<u8>, &OutQueue)) {
        let held = &mut self.under_way.entry(key).or_default().held;
        let before = held.capacity();
        append(held, &self.queue);
        self.held_bytes += held.capacity() - before;
    }

    /// Bytes that wait for a connection's socket or for the end of an echo to it, to find the connections that hold
    /// most.
    pub(crate) fn waiting_bytes(&mut self, key: u32) -> usize {
        let held = self.under_way.get(&key).map_or(0, |echo| echo.held.capacity());
        self.queue.lane_at(key).queued_bytes() + held
    }

    /// Adds what the outbox holds to the process's account.
    pub(crate) fn account(&self, memory: &mut Memory) {
        self.queue.account(memory);
        memory.add(MemoryKind::Held, self.held_bytes + self.pacing.memory());
        memory.add(MemoryKind::Windows, self.own.len() * DEFLATER_BYTES);
        memory.add(MemoryKind::Scratch, self.deflated.held_bytes());
        memory.add(MemoryKind::Connections, self.broadcast.channels.memory());
    }
}
