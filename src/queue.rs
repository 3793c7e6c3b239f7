//! The out queue: the bytes that wait to be written, of all connections of a process.
//!
//! What is queued in a pass of the loop goes into one arena; a connection's lane is a list of spans of it, and spans
//! that touch are one. So an idle connection holds no buffer, a message is copied once, bytes queued for many
//! connections can be stored once, and a connection costs one write a pass. Only what the socket did not take is
//! moved to the lane's own backlog. A large message that already has a buffer of its own is queued with it, uncopied, and
//! one that lies in the read buffer is queued where it lies ([`Input`]). What many connections are sent is stored once
//! (`common`), also for those who have to wait for it.
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

/// Up to so many pieces go into one vectored write; what is beyond waits for the next.
pub const MAX_SLICES: usize = 64;

/// The arena begins with this size, and leftovers are gathered in chunks of about as much.
const CHUNK_BYTES: usize = 64 * 1024;
/// An arena that grew beyond this is given back after the pass.
const ARENA_KEEP_BYTES: usize = 2 * 1024 * 1024;
/// Spans beyond this number are given back after the pass.
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

/// The sending side of one connection. `mode` belongs to whoever queues; the queue keeps it beside the lane only
/// because both are wanted at once.
pub struct Lane {
    first: u32,
    last: u32,
    generation: u32,
    /// Meaning is the owner's.
    pub mode: u8,
    dirty: bool,
    waits: Waits,
    /// Nothing is to be read from the connection for now, as its owner says.
    pub held: bool,
    queued: usize,
    /// Boxed, because nearly every lane has none.
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

    /// Bytes queued and not yet taken by the socket.
    pub fn queued_bytes(&self) -> usize {
        self.queued
    }

    /// Whether the socket is full, so that the next write waits for its writable event.
    pub fn is_blocked(&self) -> bool {
        self.waits == Waits::ForSocket
    }
}

/// The end of the arena that is being filled for one connection, and is not yet a span of its lane. So what goes to
/// the same connection as what came before, which is the way of nearly all, touches neither lane nor span.
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

/// See the module.
#[derive(Default)]
pub struct OutQueue {
    /// Initialised as far as it is long; `filled` bytes are in use.
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
    /// Memory of all backlogs, without what lies in common bytes.
    backlog_bytes: usize,
    /// Where owned buffers come from and go to.
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

    /// Closes a lane and throws away what it had not sent. Returns how many bytes that were.
    pub fn close(&mut self, key: u32) -> usize {
        self.end_run();
        let lane = std::mem::replace(&mut self.lanes[key as usize], Lane::CLOSED);
        for chunk in lane.backlog.into_iter().flat_map(|backlog| backlog.0) {
            self.give_back(chunk);
        }
        lane.queued
    }

    /// The lane of a connection, `None` when that connection is gone.
    #[inline]
    pub fn lane(&mut self, key: u32, generation: u32) -> Option<&mut Lane> {
        self.end_run();
        self.lanes.get_mut(key as usize).filter(|lane| lane.generation == generation)
    }

    /// The lane of a connection that is known to be there.
    #[inline]
    pub fn lane_at(&mut self, key: u32) -> &mut Lane {
        self.end_run();
        &mut self.lanes[key as usize]
    }

    /// Whether the last bytes were queued for this connection, and its lane has not been looked at since: whatever was
    /// found there then holds still.
    #[inline(always)]
    pub fn is_in_run(&self, key: u32, generation: u32) -> bool {
        self.run.key == key && self.run.generation == generation
    }

    /// Begins a run for a connection that is known to be there.
    pub fn begin_run(&mut self, key: u32, generation: u32) {
        self.end_run();
        self.run = Run { key, generation, start: self.filled };
    }

    /// Queues the first `bytes` bytes of the space reserved last for the connection of the run.
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

    /// Space for `bytes` bytes at the end of the arena, to be filled and then given to a lane with [`OutQueue::commit`].
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

    /// Queues the first `bytes` bytes of the space reserved last for `key`.
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

    /// Queues `buffer[start..end]` without copying it. The buffer goes to the pool when it has been sent.
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

    /// Stores bytes that several connections are sent; [`OutQueue::push_common`] queues them for each.
    pub fn extend_common(&mut self, bytes: &[u8]) {
        self.common.extend(bytes);
    }

    /// How many such bytes there are.
    #[inline]
    pub fn common_bytes(&self) -> usize {
        self.common.len()
    }

    /// How many such bytes there have been since the beginning.
    pub fn common_total(&self) -> u64 {
        self.common.total_bytes()
    }

    /// Tells one pass from another, for whoever remembers where such bytes lie.
    pub fn common_pass(&self) -> u64 {
        self.common.passes()
    }

    /// Such bytes.
    pub fn common(&self, start: usize, end: usize) -> &[u8] {
        self.common.slice(start, end)
    }

    /// Queues such bytes, where they lie, for one connection.
    #[inline]
    pub fn push_common(&mut self, key: u32, start: usize, end: usize) {
        self.end_run();
        self.append(key, COMMON, start, end);
    }

    /// Such bytes of former passes that some connection has not taken yet.
    pub fn kept_common_bytes(&self) -> usize {
        self.common.kept_bytes()
    }

    /// The process's read buffer, to read into; [`OutQueue::take_back_input`] comes before anything is written.
    #[inline]
    pub fn lend_input(&mut self) -> Lent {
        self.input.lend()
    }

    /// The read buffer comes back, of whose space the first `used` bytes were worked on.
    #[inline]
    pub fn take_back_input(&mut self, lent: Lent, used: usize) {
        self.input.take_back(lent, used);
    }

    /// Queues `bytes` where they lie, if that is in the read buffer that is lent; they are not changed afterwards.
    /// False when they lie elsewhere, and nothing was queued.
    pub fn push_in_place(&mut self, key: u32, bytes: &[u8]) -> bool {
        if bytes.is_empty() {
            return true;
        }
        let Some(start) = self.input.keep(bytes) else { return false };
        self.end_run();
        self.append(key, INPUT, start, start + bytes.len());
        true
    }

    /// Gives bytes of the arena or the read buffer to a lane; to its last span, if they go on where that ends.
    fn append(&mut self, key: u32, source: u32, start: usize, end: usize) {
        // A span of nothing would outlive the pass: a lane with nothing queued is not written.
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

    /// Whether so much is queued that it is to be written before more is.
    #[inline]
    pub fn is_full(&self) -> bool {
        self.filled + self.owned_bytes + self.common.len() >= FULL_BYTES || self.spans.len() >= FULL_SPANS
    }

    /// Adds what the queue holds to the process's account.
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

    /// Whether part of what is queued lies in the read buffer.
    pub fn keeps_input(&self) -> bool {
        self.input.kept_bytes() > 0
    }

    /// The next lane that has bytes to write, in the order in which they became so. Every lane that this gives is
    /// written ([`OutQueue::gather`], then [`OutQueue::sent`]) before the next is asked for.
    #[inline]
    pub fn next_dirty(&mut self) -> Option<u32> {
        self.end_run();
        loop {
            let key = *self.dirty.get(self.next_dirty)?;
            self.next_dirty += 1;
            let lane = &mut self.lanes[key as usize];
            // A lane closed since may have been marked; a new owner of the same key marks anew.
            if !std::mem::take(&mut lane.dirty) || lane.queued == 0 {
                continue;
            }
            if lane.waits == Waits::No || self.is_due(key) {
                return Some(key);
            }
            self.retain(key);
        }
    }

    /// What `key` has to send, when it is one piece: the way of nearly all.
    #[inline]
    pub fn single(&self, key: u32) -> Option<&[u8]> {
        let lane = &self.lanes[key as usize];
        if lane.first != lane.last || lane.backlog.is_some() {
            return None;
        }
        self.spans.get(lane.first as usize).map(|span| self.source(span))
    }

    /// What `key` has to send, oldest first: the number of slices. What does not fit stays dirty.
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

    /// The socket took `bytes` of what was gathered. With less than all of it, the rest becomes the lane's backlog;
    /// `blocked` says that the socket is full.
    #[inline]
    pub fn sent(&mut self, key: u32, bytes: usize, blocked: bool) {
        let lane = &mut self.lanes[key as usize];
        debug_assert!(bytes <= lane.queued);
        lane.waits = if blocked { Waits::ForSocket } else { Waits::No };
        if bytes == lane.queued && lane.backlog.is_none() {
            // The way of nearly all: the spans go with the pass.
            lane.queued = 0;
            lane.first = NONE;
            lane.last = NONE;
            return;
        }
        self.sent_in_part(key, bytes);
    }

    /// Ends a flush: all dirty lanes were written, so the arena begins anew.
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
