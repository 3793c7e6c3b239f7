//! The out queue: the bytes waiting to be written, of all connections of a process.
//!
//! Everything queued in a pass of the loop goes into one arena; a connection's lane is a list of spans of it, and
//! adjacent spans are merged. So an idle connection holds no buffer, a message is copied once, bytes for many
//! connections can be stored once, and a connection costs one write per pass. Only bytes that the socket did not take
//! move to the lane's own backlog. A large message in a buffer of its own is queued with that buffer, uncopied, and one
//! in the read buffer is queued in place ([`Input`]). Fan-out messages are stored once (`common`), also for connections
//! that must wait for them.
//!
//! Invariant: between passes (after [`OutQueue::end_flush`]) every unsent byte is in a backlog; the arena and the read
//! buffer are empty.

mod backlog;
mod common;
pub mod input;
pub mod pool;
mod waiting;

use crate::telemetry::memory::{Memory, MemoryKind};
use backlog::{Backlog, Bytes};
use common::Common;
use input::{Input, Lent};
use pool::Pool;
use std::io::IoSlice;
use waiting::Waits;

/// The most pieces in one vectored write; the rest waits for the next.
pub const MAX_SLICES: usize = 64;

/// Initial size of the arena, and approximate size of the chunks that collect leftovers.
const CHUNK_BYTES: usize = 64 * 1024;
/// An arena that grew beyond this is freed after the pass.
const ARENA_KEEP_BYTES: usize = 2 * 1024 * 1024;
/// Spans beyond this number are freed after the pass.
const SPANS_KEEP: usize = 64 * 1024;
/// With this many bytes the queue is full, ...
const FULL_BYTES: usize = 64 * 1024;
/// ... and with this many spans, since a short message for many connections is mostly spans.
const FULL_SPANS: usize = 32 * 1024;
const NONE: u32 = u32::MAX;
/// The generation of no connection.
pub const NOBODY: u32 = u32::MAX;
const ARENA: u32 = u32::MAX;
const INPUT: u32 = u32::MAX - 1;
const COMMON: u32 = u32::MAX - 2;

#[derive(Clone, Copy)]
struct Span {
    next: u32,
    /// `ARENA`, `INPUT`, `COMMON`, or an index into `owned`.
    source: u32,
    start: usize,
    end: usize,
}

/// The sending side of one connection. `mode` belongs to the code that queues; it is kept beside the lane only because
/// both are needed at once.
pub struct Lane {
    first: u32,
    last: u32,
    generation: u32,
    /// The owner defines its meaning.
    pub mode: u8,
    dirty: bool,
    waits: Waits,
    /// Whether the owner has paused reading from the connection.
    pub held: bool,
    queued: usize,
    /// Boxed, because nearly all lanes have none.
    backlog: Option<Box<Backlog>>,
}

impl Lane {
    const CLOSED: Lane = Lane {
        first: NONE,
        last: NONE,
        generation: NOBODY,
        mode: 0,
        dirty: false,
        waits: Waits::No,
        held: false,
        queued: 0,
        backlog: None,
    };

    /// Bytes queued that the socket has not taken yet.
    pub fn queued_bytes(&self) -> usize {
        self.queued
    }

    /// Whether the socket is full, so that the next write waits for its writable event.
    pub fn is_blocked(&self) -> bool {
        self.waits == Waits::ForSocket
    }
}

/// The end of the arena that is being filled for one connection, and is not yet a span of its lane. So consecutive
/// output to one connection, the usual case, touches neither lane nor span.
#[derive(Clone, Copy)]
struct Run {
    key: u32,
    generation: u32,
    start: usize,
}

impl Default for Run {
    /// No run.
    fn default() -> Run {
        Run { key: NONE, generation: NOBODY, start: 0 }
    }
}

/// See the module comment.
#[derive(Default)]
pub struct OutQueue {
    /// Initialised to its full length; `filled` bytes are in use.
    arena: Vec<u8>,
    filled: usize,
    run: Run,
    spans: Vec<Span>,
    owned: Vec<Vec<u8>>,
    owned_bytes: usize,
    input: Input,
    common: Common,
    lanes: Vec<Lane>,
    dirty: Vec<u32>,
    next_dirty: usize,
    /// Memory of all backlogs, excluding common bytes.
    backlog_bytes: usize,
    /// The source of owned buffers, which return to it.
    pub pool: Pool,
}

impl OutQueue {
    /// An empty queue without lanes.
    pub fn new() -> OutQueue {
        OutQueue::default()
    }

    /// Opens the lane of a new connection.
    pub fn open(&mut self, key: u32, generation: u32) {
        if self.lanes.len() <= key as usize {
            self.lanes.resize_with(key as usize + 1, || Lane::CLOSED);
        }
        debug_assert!(generation != NOBODY && self.lanes[key as usize].generation == NOBODY);
        self.lanes[key as usize] = Lane { generation, ..Lane::CLOSED };
    }

    /// Closes a lane and drops what it had not sent. Returns how many bytes that were.
    pub fn close(&mut self, key: u32) -> usize {
        self.end_run();
        let lane = std::mem::replace(&mut self.lanes[key as usize], Lane::CLOSED);
        for chunk in lane.backlog.into_iter().flat_map(|backlog| backlog.0) {
            self.give_back(chunk);
        }
        lane.queued
    }

    /// The lane of a connection; `None` if the connection is closed.
    #[inline]
    pub fn lane(&mut self, key: u32, generation: u32) -> Option<&mut Lane> {
        self.end_run();
        self.lanes.get_mut(key as usize).filter(|lane| lane.generation == generation)
    }

    /// The lane of a connection that is known to exist.
    #[inline]
    pub fn lane_at(&mut self, key: u32) -> &mut Lane {
        self.end_run();
        &mut self.lanes[key as usize]
    }

    /// Whether the last bytes were queued for this connection, and its lane has not been accessed since: what was found
    /// there then still holds.
    #[inline(always)]
    pub fn is_in_run(&self, key: u32, generation: u32) -> bool {
        self.run.key == key && self.run.generation == generation
    }

    /// Begins a run for a connection that is known to exist.
    pub fn begin_run(&mut self, key: u32, generation: u32) {
        self.end_run();
        self.run = Run { key, generation, start: self.filled };
    }

    /// Queues the first `bytes` bytes of the space last reserved for the run's connection.
    #[inline(always)]
    pub fn commit_to_run(&mut self, bytes: usize) {
        debug_assert!(self.run.key != NONE);
        self.filled += bytes;
    }

    /// Makes the run a span of its lane.
    #[inline]
    fn end_run(&mut self) {
        if self.run.key != NONE {
            self.link_run();
        }
    }

    fn link_run(&mut self) {
        let Run { key, start, .. } = std::mem::take(&mut self.run);
        self.append(key, ARENA, start, self.filled);
    }

    /// Reserves `bytes` bytes at the end of the arena; [`OutQueue::commit`] adds them to a lane once filled.
    #[inline(always)]
    pub fn reserve(&mut self, bytes: usize) -> &mut [u8] {
        let end = self.filled + bytes;
        if end > self.arena.len() {
            self.grow(end);
        }
        &mut self.arena[self.filled..end]
    }

    #[cold]
    fn grow(&mut self, end: usize) {
        let target = end.max(self.arena.len() * 2).max(CHUNK_BYTES);
        self.arena.resize(target, 0);
    }

    /// Queues the first `bytes` bytes of the last reserved space for `key`.
    #[inline]
    pub fn commit(&mut self, key: u32, bytes: usize) {
        self.end_run();
        let start = self.filled;
        self.filled += bytes;
        self.append(key, ARENA, start, self.filled);
    }

    /// Queues a copy of `bytes`.
    pub fn push(&mut self, key: u32, bytes: &[u8]) {
        self.reserve(bytes.len()).copy_from_slice(bytes);
        self.commit(key, bytes.len());
    }

    /// Queues `buffer[start..end]` without copying it. The buffer goes to the pool once it is sent.
    pub fn push_owned(&mut self, key: u32, buffer: Vec<u8>, start: usize, end: usize) {
        debug_assert!(start <= end && end <= buffer.len());
        if start == end {
            return self.pool.give(buffer);
        }
        self.end_run();
        self.lanes[key as usize].queued += end - start;
        self.owned_bytes += end - start;
        let source = self.owned.len() as u32;
        self.owned.push(buffer);
        self.link(key, Span { next: NONE, source, start, end });
    }

    /// Stores bytes for several connections; [`OutQueue::push_common`] queues them for each.
    pub fn extend_common(&mut self, bytes: &[u8]) {
        self.common.extend(bytes);
    }

    /// The number of common bytes.
    #[inline]
    pub fn common_bytes(&self) -> usize {
        self.common.len()
    }

    /// Memory of what sockets have not taken, without bytes shared by several lanes.
    pub fn backlog_memory(&self) -> usize {
        self.backlog_bytes
    }

    /// Identifies a pass, for code that remembers offsets of common bytes.
    pub fn common_pass(&self) -> u64 {
        self.common.passes()
    }

    /// Returns common bytes.
    pub fn common(&self, start: usize, end: usize) -> &[u8] {
        self.common.slice(start, end)
    }

    /// Queues common bytes, without a copy, for one connection.
    #[inline]
    pub fn push_common(&mut self, key: u32, start: usize, end: usize) {
        self.end_run();
        self.append(key, COMMON, start, end);
    }

    /// Common bytes of former passes that some connection has not taken yet.
    pub fn kept_common_bytes(&self) -> usize {
        self.common.kept_bytes()
    }

    /// Lends the process's read buffer, to read into; [`OutQueue::take_back_input`] must be called before writing.
    #[inline]
    pub fn lend_input(&mut self) -> Lent {
        self.input.lend()
    }

    /// Takes the read buffer back; the first `used` bytes of its space were processed.
    #[inline]
    pub fn take_back_input(&mut self, lent: Lent, used: usize) {
        self.input.take_back(lent, used);
    }

    /// Queues `bytes` in place, if they lie in the lent read buffer; they must not change afterwards. Returns false if
    /// they lie elsewhere, and queues nothing.
    pub fn push_in_place(&mut self, key: u32, bytes: &[u8]) -> bool {
        if bytes.is_empty() {
            return true;
        }
        let Some(start) = self.input.keep(bytes) else { return false };
        self.end_run();
        self.append(key, INPUT, start, start + bytes.len());
        true
    }

    /// Appends bytes of the arena or the read buffer to a lane; extends its last span if they are adjacent to it.
    fn append(&mut self, key: u32, source: u32, start: usize, end: usize) {
        // An empty span would outlive the pass: a lane with nothing queued is not written.
        if start == end {
            return;
        }
        let lane = &mut self.lanes[key as usize];
        lane.queued += end - start;
        match self.spans.get_mut(lane.last as usize) {
            Some(last) if last.source == source && last.end == start => last.end = end,
            _ => self.link(key, Span { next: NONE, source, start, end }),
        }
    }

    #[inline]
    fn link(&mut self, key: u32, span: Span) {
        let index = self.spans.len() as u32;
        self.spans.push(span);
        let lane = &mut self.lanes[key as usize];
        match lane.last {
            NONE => lane.first = index,
            last => self.spans[last as usize].next = index,
        }
        lane.last = index;
        self.mark_dirty(key);
    }

    fn mark_dirty(&mut self, key: u32) {
        let lane = &mut self.lanes[key as usize];
        if !lane.dirty {
            lane.dirty = true;
            self.dirty.push(key);
        }
    }

    /// Bytes queued since the last flush, of all lanes.
    pub fn pass_bytes(&self) -> usize {
        self.filled + self.owned_bytes + self.common.len() + self.input.kept_bytes()
    }

    /// Whether the queue is so full that it must be written before more is queued.
    #[inline]
    pub fn is_full(&self) -> bool {
        self.filled + self.owned_bytes + self.common.len() >= FULL_BYTES || self.spans.len() >= FULL_SPANS
    }

    /// Adds the queue's memory to the process's account.
    pub fn account(&self, memory: &mut Memory) {
        memory.add(MemoryKind::Connections, self.lanes.capacity() * size_of::<Lane>());
        memory.add(MemoryKind::Backlog, self.backlog_bytes);
        memory.add(MemoryKind::Shared, self.common.kept_bytes() + self.common.capacity());
        memory.add(MemoryKind::Spans, self.spans.capacity() * size_of::<Span>());
        memory.add(
            MemoryKind::Scratch,
            self.arena.capacity() + self.owned_bytes + self.input.capacity() + self.pool.bytes(),
        );
    }

    /// Whether some queued bytes lie in the read buffer.
    pub fn keeps_input(&self) -> bool {
        self.input.kept_bytes() > 0
    }

    /// The next lane with bytes to write, in the order in which lanes became dirty. The caller must write each lane
    /// ([`OutQueue::gather`], then [`OutQueue::sent`]) before it asks for the next.
    #[inline]
    pub fn next_dirty(&mut self) -> Option<u32> {
        self.end_run();
        loop {
            let key = *self.dirty.get(self.next_dirty)?;
            self.next_dirty += 1;
            let lane = &mut self.lanes[key as usize];
            // A lane that has closed since may be marked; a new owner of the key marks it again.
            if !std::mem::take(&mut lane.dirty) || lane.queued == 0 {
                continue;
            }
            if lane.waits == Waits::No || self.is_due(key) {
                return Some(key);
            }
            self.retain(key);
        }
    }

    /// The output of `key` if it is one piece, the usual case.
    #[inline]
    pub fn single(&self, key: u32) -> Option<&[u8]> {
        let lane = &self.lanes[key as usize];
        if lane.first != lane.last || lane.backlog.is_some() {
            return None;
        }
        self.spans.get(lane.first as usize).map(|span| self.source(span))
    }

    /// Fills `slices` with the output of `key`, oldest first, and returns their number. Output that does not fit stays
    /// dirty.
    pub fn gather<'a>(&'a self, key: u32, slices: &mut [IoSlice<'a>; MAX_SLICES]) -> usize {
        let lane = &self.lanes[key as usize];
        let mut count = 0;
        for chunk in lane.backlog.iter().flat_map(|backlog| &backlog.0) {
            if count == MAX_SLICES {
                return count;
            }
            slices[count] = IoSlice::new(match &chunk.bytes {
                Bytes::Own(bytes) => &bytes[chunk.start..chunk.end],
                Bytes::Common(name) => self.common.kept(*name, chunk.start, chunk.end),
            });
            count += 1;
        }
        let mut next = lane.first;
        while let Some(span) = self.spans.get(next as usize) {
            if count == MAX_SLICES {
                return count;
            }
            slices[count] = IoSlice::new(self.source(span));
            count += 1;
            next = span.next;
        }
        count
    }

    fn source(&self, span: &Span) -> &[u8] {
        match span.source {
            ARENA => &self.arena[span.start..span.end],
            INPUT => self.input.kept(span.start, span.end),
            COMMON => self.common.slice(span.start, span.end),
            owned => &self.owned[owned as usize][span.start..span.end],
        }
    }

    /// The socket took `bytes` of the gathered output. The rest becomes the lane's backlog; `blocked` means that the
    /// socket is full.
    #[inline]
    pub fn sent(&mut self, key: u32, bytes: usize, blocked: bool) {
        let lane = &mut self.lanes[key as usize];
        debug_assert!(bytes <= lane.queued);
        lane.waits = if blocked { Waits::ForSocket } else { Waits::No };
        if bytes == lane.queued && lane.backlog.is_none() {
            // The usual case: the spans go with the pass.
            lane.queued = 0;
            lane.first = NONE;
            lane.last = NONE;
            return;
        }
        self.sent_in_part(key, bytes);
    }

    /// Ends a flush: all dirty lanes were written, so the arena starts again.
    #[inline]
    pub fn end_flush(&mut self) {
        debug_assert_eq!(self.next_dirty, self.dirty.len(), "a dirty lane was not written");
        self.dirty.clear();
        self.next_dirty = 0;
        self.spans.clear();
        if self.spans.capacity() > SPANS_KEEP {
            self.spans = Vec::new();
        }
        self.filled = 0;
        self.owned_bytes = 0;
        self.input.clear();
        self.common.end_flush();
        if self.arena.len() > ARENA_KEEP_BYTES {
            self.arena = Vec::new();
        }
        while let Some(buffer) = self.owned.pop() {
            self.pool.give(buffer);
        }
    }
}

#[cfg(test)]
mod tests;
