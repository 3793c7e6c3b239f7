//! The out queue: the bytes that wait to be written, of all connections of a process.
//!
//! What is queued in a pass of the loop goes into one arena; a connection's lane is a list of spans of it, and spans
//! that touch are one. So an idle connection holds no buffer, a message is copied once, bytes queued for many
//! connections can be stored once, and a connection costs one write a pass. Only what the socket did not take is
//! moved to the lane's own backlog. A large message that already has a buffer of its own is queued with it, uncopied.
//!
//! Invariant: between passes (after [`OutQueue::end_flush`]) every unsent byte is in a backlog, and the arena is empty.

use super::pool::Pool;
use std::collections::VecDeque;
use std::io::IoSlice;

/// Up to so many pieces go into one vectored write; what is beyond waits for the next.
pub const MAX_SLICES: usize = 64;

/// Leftovers are gathered in chunks of about this size.
const CHUNK_BYTES: usize = 64 * 1024;
/// An arena that grew beyond this is given back after the pass.
const ARENA_KEEP_BYTES: usize = 2 * 1024 * 1024;
const NONE: u32 = u32::MAX;
/// The generation of no connection.
pub const NOBODY: u32 = u32::MAX;
const ARENA: u32 = u32::MAX;

#[derive(Clone, Copy)]
struct Span {
    next: u32,
    /// `ARENA`, or an index into `owned`.
    source: u32,
    start: usize,
    end: usize,
}

/// Bytes of its own that a lane still has to send: `bytes[start..end]`.
struct Chunk {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

/// Chunks, oldest first.
#[derive(Default)]
struct Backlog(VecDeque<Chunk>);

/// The sending side of one connection. `mode` belongs to whoever queues; the queue keeps it beside the lane only
/// because both are wanted at once.
pub struct Lane {
    first: u32,
    last: u32,
    generation: u32,
    /// Meaning is the owner's.
    pub mode: u8,
    dirty: bool,
    blocked: bool,
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
        blocked: false,
        queued: 0,
        backlog: None,
    };

    /// Bytes queued and not yet taken by the socket.
    pub fn queued_bytes(&self) -> usize {
        self.queued
    }

    /// Whether the socket is full, so that the next write waits for its writable event.
    pub fn is_blocked(&self) -> bool {
        self.blocked
    }
}

/// See the module.
#[derive(Default)]
pub struct OutQueue {
    /// Initialised as far as it is long; `filled` bytes are in use.
    arena: Vec<u8>,
    filled: usize,
    spans: Vec<Span>,
    owned: Vec<Vec<u8>>,
    owned_bytes: usize,
    lanes: Vec<Lane>,
    dirty: Vec<u32>,
    next_dirty: usize,
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

    /// Closes a lane and throws away what it had not sent. Says how many bytes that were.
    pub fn close(&mut self, key: u32) -> usize {
        let lane = std::mem::replace(&mut self.lanes[key as usize], Lane::CLOSED);
        for chunk in lane.backlog.into_iter().flat_map(|backlog| backlog.0) {
            self.pool.give(chunk.bytes);
        }
        lane.queued
    }

    /// The lane of a connection, `None` when that connection is gone.
    #[inline(always)]
    pub fn lane(&mut self, key: u32, generation: u32) -> Option<&mut Lane> {
        self.lanes.get_mut(key as usize).filter(|lane| lane.generation == generation)
    }

    /// The lane of a connection that is known to be there.
    pub fn lane_mut(&mut self, key: u32) -> &mut Lane {
        &mut self.lanes[key as usize]
    }

    /// The lane of a connection that is known to be there, to look at.
    #[inline]
    pub fn lane_at(&self, key: u32) -> &Lane {
        &self.lanes[key as usize]
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

    /// Queues the first `bytes` bytes, at least one, of the space reserved last for `key`.
    #[inline(always)]
    pub fn commit(&mut self, key: u32, bytes: usize) {
        debug_assert!(bytes > 0, "a span of nothing would outlive the pass: a lane with nothing queued is not written");
        let (start, end) = (self.filled, self.filled + bytes);
        self.filled = end;
        let lane = &mut self.lanes[key as usize];
        lane.queued += bytes;
        if let Some(last) = self.spans.get_mut(lane.last as usize)
            && last.source == ARENA
            && last.end == start
        {
            last.end = end;
            return;
        }
        self.link(key, Span { next: NONE, source: ARENA, start, end });
    }

    /// Queues a copy of `bytes`.
    pub fn push(&mut self, key: u32, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        self.reserve(bytes.len()).copy_from_slice(bytes);
        self.commit(key, bytes.len());
    }

    /// Queues `buffer[start..end]` without copying it. The buffer goes to the pool when it has been sent.
    pub fn push_owned(&mut self, key: u32, buffer: Vec<u8>, start: usize, end: usize) {
        debug_assert!(start <= end && end <= buffer.len());
        if start == end {
            return self.pool.give(buffer);
        }
        self.lanes[key as usize].queued += end - start;
        self.owned_bytes += end - start;
        let source = self.owned.len() as u32;
        self.owned.push(buffer);
        self.link(key, Span { next: NONE, source, start, end });
    }

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

    /// The socket takes bytes again.
    pub fn unblock(&mut self, key: u32) {
        let lane = &mut self.lanes[key as usize];
        if lane.blocked {
            lane.blocked = false;
            if lane.queued > 0 {
                self.mark_dirty(key);
            }
        }
    }

    /// Bytes queued since the last flush, of all lanes.
    pub fn pass_bytes(&self) -> usize {
        self.filled + self.owned_bytes
    }

    /// The next lane that has bytes to write, in the order in which they became so. Every lane that this gives is
    /// written ([`OutQueue::gather`], then [`OutQueue::sent`]) before the next is asked for.
    pub fn next_dirty(&mut self) -> Option<u32> {
        loop {
            let key = *self.dirty.get(self.next_dirty)?;
            self.next_dirty += 1;
            let lane = &mut self.lanes[key as usize];
            // A lane closed since may have been marked; a new owner of the same key marks anew.
            if !std::mem::take(&mut lane.dirty) || lane.queued == 0 {
                continue;
            }
            if lane.blocked {
                self.retain(key);
                continue;
            }
            return Some(key);
        }
    }

    /// What `key` has to send, when it is one piece: the way of nearly all.
    #[inline]
    pub fn single(&self, key: u32) -> Option<&[u8]> {
        let lane = &self.lanes[key as usize];
        if lane.first != lane.last || lane.backlog.is_some() {
            return None;
        }
        self.spans.get(lane.first as usize).map(|span| &self.source(span)[span.start..span.end])
    }

    /// What `key` has to send, oldest first: the number of slices. What does not fit stays dirty.
    pub fn gather<'a>(&'a self, key: u32, slices: &mut [IoSlice<'a>; MAX_SLICES]) -> usize {
        let lane = &self.lanes[key as usize];
        let mut count = 0;
        for chunk in lane.backlog.iter().flat_map(|backlog| &backlog.0) {
            if count == MAX_SLICES {
                return count;
            }
            slices[count] = IoSlice::new(&chunk.bytes[chunk.start..chunk.end]);
            count += 1;
        }
        let mut next = lane.first;
        while let Some(span) = self.spans.get(next as usize) {
            if count == MAX_SLICES {
                return count;
            }
            slices[count] = IoSlice::new(&self.source(span)[span.start..span.end]);
            count += 1;
            next = span.next;
        }
        count
    }

    fn source(&self, span: &Span) -> &[u8] {
        match span.source {
            ARENA => &self.arena,
            owned => &self.owned[owned as usize],
        }
    }

    /// The socket took `bytes` of what was gathered. With less than all of it, the rest becomes the lane's backlog;
    /// `blocked` says that the socket is full.
    #[inline]
    pub fn sent(&mut self, key: u32, bytes: usize, blocked: bool) {
        let lane = &mut self.lanes[key as usize];
        debug_assert!(bytes <= lane.queued);
        lane.blocked = blocked;
        if bytes == lane.queued && lane.backlog.is_none() {
            // The way of nearly all: the spans go with the pass.
            lane.queued = 0;
            lane.first = NONE;
            lane.last = NONE;
            return;
        }
        self.sent_in_part(key, bytes);
    }

    fn sent_in_part(&mut self, key: u32, bytes: usize) {
        self.retain(key);
        let lane = &mut self.lanes[key as usize];
        lane.queued -= bytes;
        let mut left = bytes;
        let mut done = Vec::new();
        while let Some(Backlog(chunks)) = lane.backlog.as_deref_mut() {
            let Some(chunk) = chunks.front_mut() else { break };
            let taken = left.min(chunk.end - chunk.start);
            chunk.start += taken;
            left -= taken;
            if chunk.start < chunk.end {
                break;
            }
            done.extend(chunks.pop_front().map(|chunk| chunk.bytes));
        }
        if lane.queued == 0 {
            lane.backlog = None;
        } else if !lane.blocked {
            self.mark_dirty(key);
        }
        for buffer in done {
            self.pool.give(buffer);
        }
    }

    /// Moves this pass's spans of a lane into its backlog.
    fn retain(&mut self, key: u32) {
        let lane = &mut self.lanes[key as usize];
        let mut next = std::mem::replace(&mut lane.first, NONE);
        lane.last = NONE;
        let chunks = &mut lane.backlog.get_or_insert_default().0;
        while let Some(&span) = self.spans.get(next as usize) {
            next = span.next;
            if span.source != ARENA {
                let bytes = std::mem::take(&mut self.owned[span.source as usize]);
                chunks.push_back(Chunk { bytes, start: span.start, end: span.end });
                continue;
            }
            let bytes = &self.arena[span.start..span.end];
            match chunks.back_mut() {
                Some(last) if last.end == last.bytes.len() && last.bytes.len() + bytes.len() <= CHUNK_BYTES => {
                    last.bytes.extend_from_slice(bytes);
                    last.end = last.bytes.len();
                }
                _ => chunks.push_back(Chunk { bytes: bytes.to_vec(), start: 0, end: bytes.len() }),
            }
        }
    }

    /// Ends a flush: all dirty lanes were written, so the arena begins anew.
    pub fn end_flush(&mut self) {
        debug_assert_eq!(self.next_dirty, self.dirty.len(), "a dirty lane was not written");
        self.dirty.clear();
        self.next_dirty = 0;
        self.spans.clear();
        self.filled = 0;
        self.owned_bytes = 0;
        if self.arena.len() > ARENA_KEEP_BYTES {
            self.arena = Vec::new();
        }
        while let Some(buffer) = self.owned.pop() {
            self.pool.give(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn write(queue: &mut OutQueue, key: u32, room: usize) -> Vec<u8> {
        let mut slices = [IoSlice::new(&[]); MAX_SLICES];
        let count = match queue.single(key) {
            Some(bytes) => {
                slices[0] = IoSlice::new(bytes);
                1
            }
            None => queue.gather(key, &mut slices),
        };
        let bytes: Vec<u8> = slices[..count].iter().flat_map(|slice| slice.to_vec()).take(room).collect();
        let offered: usize = slices[..count].iter().map(|slice| slice.len()).sum();
        assert!(count == MAX_SLICES || offered == queue.lane_at(key).queued_bytes());
        queue.sent(key, bytes.len(), bytes.len() < offered);
        bytes
    }

    proptest! {
        /// Whatever is queued for whom, in whatever pieces the sockets take it: each lane's bytes come out in order.
        #[test]
        fn every_lane_gets_its_bytes_in_order(
            passes in prop::collection::vec(
                (prop::collection::vec((0u32..4, 0usize..3000, any::<bool>()), 0..90), prop::collection::vec(0usize..9000, 4)),
                1..12,
            )
        ) {
            let mut queue = OutQueue::new();
            let (mut want, mut got) = (vec![Vec::new(); 4], vec![Vec::new(); 4]);
            let mut stamp = 0u8;
            for key in 0..4 {
                queue.open(key, 1);
            }
            for (pushes, rooms) in passes {
                for (key, len, owned) in pushes {
                    stamp = stamp.wrapping_add(1);
                    let bytes = vec![stamp; len];
                    want[key as usize].extend(&bytes);
                    if owned {
                        queue.push_owned(key, [vec![0; 3], bytes].concat(), 3, len + 3);
                    } else {
                        queue.push(key, &bytes);
                    }
                }
                while let Some(key) = queue.next_dirty() {
                    let room = rooms[key as usize];
                    got[key as usize].extend(write(&mut queue, key, room));
                }
                queue.end_flush();
                for key in 0..4 {
                    prop_assert_eq!(
                        queue.lane_at(key).queued_bytes(),
                        want[key as usize].len() - got[key as usize].len()
                    );
                    queue.unblock(key);
                }
            }
            while let Some(key) = queue.next_dirty() {
                got[key as usize].extend(write(&mut queue, key, usize::MAX));
            }
            prop_assert!(got == want);
            for lane in &queue.lanes {
                prop_assert!(lane.backlog.is_none());
            }
        }
    }

    /// A lane that had been given nothing kept its place in an arena that was no longer its own.
    #[test]
    fn nothing_queued_leaves_nothing_behind() {
        let mut queue = OutQueue::new();
        queue.open(0, 1);
        queue.open(1, 1);
        queue.push(0, b"");
        assert_eq!(queue.next_dirty(), None);
        queue.end_flush();
        queue.push(1, b"");
        queue.push(0, b"x");
        assert_eq!(queue.next_dirty(), Some(0));
        assert_eq!(write(&mut queue, 0, 9), b"x");
    }

    #[test]
    fn spans_that_touch_are_one_and_a_closed_lane_is_passed_over() {
        let mut queue = OutQueue::new();
        queue.open(0, 1);
        queue.open(1, 2);
        queue.push(0, b"ab");
        queue.push(0, b"cd");
        queue.push(1, b"x");
        assert_eq!(queue.spans.len(), 2);
        assert_eq!(queue.close(0), 4);
        assert!(queue.lane(0, 1).is_none());
        assert_eq!(queue.next_dirty(), Some(1));
        assert_eq!(write(&mut queue, 1, 9), b"x");
        assert_eq!(queue.next_dirty(), None);
        queue.end_flush();
    }
}
