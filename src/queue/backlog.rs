//! Output that sockets did not take: moved out of the pass's buffers, and sent once they take bytes again.

use super::{CHUNK_BYTES, COMMON, NONE, OutQueue, Span};
use std::collections::VecDeque;

/// The storage of a chunk's bytes.
pub(super) enum Bytes {
    Own(Vec<u8>),
    /// The name of a buffer kept for several lanes.
    Common(u32),
}

/// Output that a lane still has to send: `bytes[start..end]`.
pub(super) struct Chunk {
    pub bytes: Bytes,
    pub start: usize,
    pub end: usize,
}

impl Chunk {
    /// Its memory, excluding shared bytes.
    fn memory(&self) -> usize {
        let own = if let Bytes::Own(bytes) = &self.bytes { bytes.capacity() } else { 0 };
        size_of::<Chunk>() + own
    }
}

/// Chunks, oldest first.
#[derive(Default)]
pub(super) struct Backlog(pub VecDeque<Chunk>);

impl OutQueue {
    /// Releases a chunk that was sent, or is no longer wanted.
    pub(super) fn give_back(&mut self, chunk: Chunk) {
        self.backlog_bytes -= chunk.memory();
        match chunk.bytes {
            Bytes::Own(buffer) => self.pool.give(buffer),
            Bytes::Common(name) => self.common.give_back(name),
        }
    }

    pub(super) fn sent_in_part(&mut self, key: u32, bytes: usize) {
        let lane = &mut self.lanes[key as usize];
        lane.queued -= bytes;
        let left = self.forget_backlog(key, bytes);
        self.forget_spans(key, left);
        let lane = &self.lanes[key as usize];
        if lane.queued == 0 {
            return;
        }
        // What the socket would take is written in the same flush, without a copy.
        if lane.is_blocked() {
            self.retain(key);
        } else {
            self.mark_dirty(key);
        }
    }

    /// Removes the first `bytes` bytes of a lane's backlog, which were sent. Returns how many of them lie beyond it.
    fn forget_backlog(&mut self, key: u32, bytes: usize) -> usize {
        let Some(mut backlog) = self.lanes[key as usize].backlog.take() else { return bytes };
        let mut left = bytes;
        while let Some(chunk) = backlog.0.front_mut() {
            let taken = left.min(chunk.end - chunk.start);
            chunk.start += taken;
            left -= taken;
            if chunk.start < chunk.end {
                self.lanes[key as usize].backlog = Some(backlog);
                break;
            }
            if let Some(chunk) = backlog.0.pop_front() {
                self.give_back(chunk);
            }
        }
        left
    }

    /// Removes the first `bytes` bytes of a lane's spans, which were sent.
    fn forget_spans(&mut self, key: u32, bytes: usize) {
        let lane = &mut self.lanes[key as usize];
        let mut left = bytes;
        while let Some(span) = self.spans.get_mut(lane.first as usize) {
            let taken = left.min(span.end - span.start);
            span.start += taken;
            left -= taken;
            if span.start < span.end {
                return;
            }
            lane.first = span.next;
        }
        lane.last = NONE;
    }

    /// Moves this pass's spans of a lane into its backlog.
    pub(super) fn retain(&mut self, key: u32) {
        let keeps_common = self.keeps_common(key);
        let lane = &mut self.lanes[key as usize];
        let mut next = std::mem::replace(&mut lane.first, NONE);
        lane.last = NONE;
        let mut backlog = lane.backlog.take().unwrap_or_default();
        let chunks = &mut backlog.0;
        while let Some(&span) = self.spans.get(next as usize) {
            next = span.next;
            let Span { source, start, end, .. } = span;
            // A buffer from the pool may be far longer than the bytes in it.
            let is_snug = |owned: &Vec<u8>| owned.capacity() <= 2 * (end - start);
            let bytes = if let Some(owned) = self.owned.get_mut(source as usize).filter(|owned| is_snug(owned)) {
                Bytes::Own(std::mem::take(owned))
            } else if source == COMMON && keeps_common {
                Bytes::Common(self.common.keep())
            } else {
                let bytes = self.source(&span);
                match chunks.back_mut() {
                    Some(Chunk { bytes: Bytes::Own(last), end, .. })
                        if *end == last.len() && last.len() + bytes.len() <= CHUNK_BYTES =>
                    {
                        let before = last.capacity();
                        last.extend_from_slice(bytes);
                        *end = last.len();
                        self.backlog_bytes += last.capacity() - before;
                    }
                    _ => {
                        let chunk = Chunk { bytes: Bytes::Own(bytes.to_vec()), start: 0, end: bytes.len() };
                        self.backlog_bytes += chunk.memory();
                        chunks.push_back(chunk);
                    }
                }
                continue;
            };
            let chunk = Chunk { bytes, start, end };
            self.backlog_bytes += chunk.memory();
            chunks.push_back(chunk);
        }
        self.lanes[key as usize].backlog = Some(backlog);
    }

    /// Whether a lane's common spans keep the common bytes for it, or are copied: because they are too small a part to
    /// keep all, or so short that a chunk for each costs more than the copy.
    fn keeps_common(&self, key: u32) -> bool {
        let (mut spans, mut bytes) = (0, 0);
        let mut next = self.lanes[key as usize].first;
        while let Some(span) = self.spans.get(next as usize) {
            if span.source == COMMON {
                spans += 1;
                bytes += span.end - span.start;
            }
            next = span.next;
        }
        self.common.is_worth_keeping(bytes) && bytes >= spans * 4 * size_of::<Chunk>()
    }
}
