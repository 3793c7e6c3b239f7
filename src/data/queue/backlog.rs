//! What sockets did not take: moved out of the pass's buffers, and sent when they take bytes again.

use super::{CHUNK_BYTES, COMMON, NONE, OutQueue, Span};
use std::collections::VecDeque;

/// Where bytes lie that a lane still has to send.
pub(super) enum Bytes {
    Own(Vec<u8>),
    /// The name under which they are kept for several.
    Common(u32),
}

/// What a lane still has to send: `bytes[start..end]`.
pub(super) struct Chunk {
    pub bytes: Bytes,
    pub start: usize,
    pub end: usize,
}

/// Chunks, oldest first.
#[derive(Default)]
pub(super) struct Backlog(pub VecDeque<Chunk>);

impl OutQueue {
    pub(super) fn give_back(&mut self, bytes: Bytes) {
        match bytes {
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
        // What the socket would take is written in the same flush, from where it lies.
        if lane.blocked {
            self.retain(key);
        } else {
            self.mark_dirty(key);
        }
    }

    /// Forgets the first `bytes` bytes of a lane's backlog, which were sent. Says how many of them are beyond it.
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
                self.give_back(chunk.bytes);
            }
        }
        left
    }

    /// Forgets the first `bytes` bytes of a lane's spans, which were sent.
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
        let lane = &mut self.lanes[key as usize];
        let mut next = std::mem::replace(&mut lane.first, NONE);
        lane.last = NONE;
        let mut backlog = lane.backlog.take().unwrap_or_default();
        let chunks = &mut backlog.0;
        while let Some(&span) = self.spans.get(next as usize) {
            next = span.next;
            let Span { source, start, end, .. } = span;
            if source < COMMON {
                let bytes = Bytes::Own(std::mem::take(&mut self.owned[source as usize]));
                chunks.push_back(Chunk { bytes, start, end });
                continue;
            }
            if source == COMMON && self.common.is_worth_keeping(end - start) {
                chunks.push_back(Chunk { bytes: Bytes::Common(self.common.keep()), start, end });
                continue;
            }
            let bytes = self.source(&span);
            match chunks.back_mut() {
                Some(Chunk { bytes: Bytes::Own(last), end, .. })
                    if *end == last.len() && last.len() + bytes.len() <= CHUNK_BYTES =>
                {
                    last.extend_from_slice(bytes);
                    *end = last.len();
                }
                _ => chunks.push_back(Chunk { bytes: Bytes::Own(bytes.to_vec()), start: 0, end: bytes.len() }),
            }
        }
        self.lanes[key as usize].backlog = Some(backlog);
    }
}
