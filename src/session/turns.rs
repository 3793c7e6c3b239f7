//! A connection's turn, in steps. Each step bounds everything that input can multiply: messages, requests, bytes
//! inflated, bytes queued. The driver decides after each step whether to write, to continue, or to keep the rest for a
//! later turn.

use super::{Head, Phase, Sessions, milliseconds};
use crate::app::App;
use crate::net::rate::{Bucket, RateRules};
use crate::protocol::frame;
use crate::protocol::receiver::Receiver;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::time::Duration;
use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Data, OpCode};

/// Messages per step.
const STEP_MESSAGES: u32 = 256;
/// Frames per brief step, ...
const BRIEF_FRAMES: usize = 16;
/// ... and the longest payload of one.
const BRIEF_PAYLOAD_BYTES: u64 = 1024;

/// Bytes that were read, for a later turn.
struct Rest {
    bytes: Vec<u8>,
    start: usize,
}

/// Unprocessed input, by connection.
#[derive(Default)]
pub(super) struct Rests {
    by_key: HashMap<u32, Rest>,
    bytes: usize,
}

impl Rests {
    pub fn memory(&self) -> usize {
        self.bytes
    }

    /// Memory of a connection's rest.
    pub fn memory_of(&self, key: u32) -> usize {
        self.by_key.get(&key).map_or(0, |rest| rest.bytes.capacity())
    }

    fn put(&mut self, key: u32, rest: Rest) {
        self.bytes += rest.bytes.capacity();
        self.by_key.insert(key, rest);
    }

    /// Adds to the kept bytes. Returns how many were added.
    fn append(&mut self, key: u32, bytes: &[u8]) -> usize {
        let mut rest = self.remove(key).unwrap_or(Rest { bytes: Vec::new(), start: 0 });
        rest.bytes.extend_from_slice(bytes);
        self.put(key, rest);
        bytes.len()
    }

    fn remove(&mut self, key: u32) -> Option<Rest> {
        if self.by_key.is_empty() {
            return None;
        }
        let rest = self.by_key.remove(&key)?;
        self.bytes -= rest.bytes.capacity();
        Some(rest)
    }
}

/// How much each connection has sent, and which connections wait because they sent too much.
pub(super) struct Rates {
    rules: RateRules,
    is_limited: bool,
    /// Indexed by key.
    buckets: Vec<Bucket>,
    /// When a connection may continue, its key and generation.
    waiting: BinaryHeap<Reverse<(Duration, u32, u32)>>,
}

impl Rates {
    pub fn new(rules: RateRules) -> Rates {
        Rates { rules, is_limited: rules.is_limited(), buckets: Vec::new(), waiting: BinaryHeap::new() }
    }

    pub fn memory(&self) -> usize {
        self.buckets.capacity() * size_of::<Bucket>()
    }

    /// Starts a new connection's bucket.
    pub fn begin(&mut self, key: u32) {
        if self.is_limited {
            if self.buckets.len() <= key as usize {
                self.buckets.resize(key as usize + 1, Bucket::default());
            }
            self.buckets[key as usize] = Bucket::default();
        }
    }

    pub fn next_deadline(&self) -> Option<Duration> {
        self.waiting.peek().map(|Reverse((at, ..))| *at)
    }
}

impl<A: App> Sessions<A> {
    /// Handles bytes from a connection's socket for one step. Returns how many are used up: at least one, unless the
    /// step is brief. The rest is for the next step, or for [`Sessions::keep`]; nothing is read from the socket before
    /// it.
    pub fn step(&mut self, key: u32, input: &mut [u8]) -> usize {
        // An app's demand on this connection, made when another ended, comes before its peer's input.
        if !self.outbox.demands.is_empty() {
            self.settle();
        }
        let now = milliseconds(self.now);
        let Some(session) = self.slab.get_mut(key as usize) else { return input.len() };
        session.heard = now;
        let is_charged = self.rates.is_limited && !session.is_service;
        let before = is_charged.then(|| self.outbox.stats.taken());
        if is_charged && self.outbox.pacing.is_limited() {
            self.outbox.publisher = Some((key, session.generation));
        }
        let used = match session.phase {
            Phase::Open | Phase::Closing if self.is_brief => match brief_part(&session.receiver, input) {
                0 => 0,
                part => self.receive_frames(key, &mut input[..part]),
            },
            Phase::Open | Phase::Closing => self.receive_frames(key, input),
            Phase::Http => self.receive_requests(key, input),
            // Kept for later, wherever it came from.
            Phase::Awaiting => self.rests.append(key, input),
            Phase::Preface => self.receive_preface(key, input),
            Phase::Connecting => self.receive_answer(key, input),
            Phase::Lingering | Phase::Finishing | Phase::Ended => input.len(),
        };
        if let Some(before) = before {
            self.outbox.publisher = None;
            self.charge(key, before);
        }
        used
    }

    /// Sets whether steps are brief: they then take only requests and small messages that are complete, and few of
    /// them. A step that finds none uses up nothing.
    #[inline]
    pub fn set_brief(&mut self, is_brief: bool) {
        self.is_brief = is_brief;
    }

    /// Handles all bytes, step by step: for a driver that keeps no other connection waiting.
    pub fn receive(&mut self, key: u32, mut input: &mut [u8]) {
        while !input.is_empty() {
            let used = self.step(key, input);
            input = &mut input[used..];
        }
    }

    /// Keeps bytes that were read but not used up, for [`Sessions::resume`].
    pub fn keep(&mut self, key: u32, rest: &[u8]) {
        let takes = |phase| !matches!(phase, Phase::Lingering | Phase::Finishing | Phase::Ended);
        if !rest.is_empty() && self.slab.get(key as usize).is_some_and(|session| takes(session.phase)) {
            debug_assert_eq!(self.rests.memory_of(key), 0, "what was kept comes first");
            self.rests.put(key, Rest { bytes: rest.to_vec(), start: 0 });
        }
    }

    /// Whether bytes are kept for a connection.
    #[inline]
    pub fn has_rest(&self, key: u32) -> bool {
        !self.rests.by_key.is_empty() && self.rests.by_key.contains_key(&key)
    }

    /// Runs one step on the kept bytes.
    pub fn resume(&mut self, key: u32) {
        let Some(mut rest) = self.rests.remove(key) else { return };
        rest.start += self.step(key, &mut rest.bytes[rest.start..]);
        let is_open = self.generation(key).is_some();
        if is_open && rest.start < rest.bytes.len() {
            self.rests.put(key, rest);
        }
    }

    /// Whether to read from this connection: not while its peer leaves our output unread, while its app has paused it
    /// or owes it an answer, or while it is over its rate ([`Sessions::take_resumed`]).
    pub fn wants_read(&mut self, key: u32) -> bool {
        self.outbox.wants_read(key) && !self.is_over_rate(key)
    }

    /// How many messages a step may take from a connection.
    #[inline]
    pub(super) fn messages_allowed(&self, key: u32) -> u32 {
        if !self.rates.is_limited {
            return STEP_MESSAGES;
        }
        let bucket = self.rates.buckets.get(key as usize).copied().unwrap_or_default();
        self.rates.rules.allowance(&bucket, self.now).min(STEP_MESSAGES.into()) as u32
    }

    /// Charges a connection for what was taken since `before`.
    #[cold]
    fn charge(&mut self, key: u32, before: (u64, u64)) {
        let (messages, bytes) = self.outbox.stats.taken();
        let Rates { rules, buckets, waiting, .. } = &mut self.rates;
        let (Some(bucket), Some(session)) = (buckets.get_mut(key as usize), self.slab.get(key as usize)) else {
            return;
        };
        rules.take(bucket, messages - before.0, bytes - before.1, self.now);
        if let Some(until) = rules.wait_until(bucket, self.now) {
            self.outbox.stats.rate_pauses += 1;
            waiting.push(Reverse((until, key, session.generation)));
        }
    }

    #[inline]
    fn is_over_rate(&self, key: u32) -> bool {
        let Rates { rules, is_limited, buckets, .. } = &self.rates;
        *is_limited
            && (buckets.get(key as usize).is_some_and(|bucket| rules.wait_until(bucket, self.now).is_some())
                || self.waits_for_channel(key))
    }

    /// Whether a publication of this connection waits for its turn.
    pub(super) fn waits_for_channel(&self, key: u32) -> bool {
        self.generation(key).is_some_and(|generation| self.outbox.pacing.has_waiting((key, generation)))
    }

    /// Whether a connection's silence is due to us: we are not reading from it.
    pub(super) fn waits_for_its_turn(&mut self, key: u32) -> bool {
        self.has_rest(key) || self.is_over_rate(key) || self.outbox.is_held(key)
    }

    /// Connections that may continue, with their generations: they were over their rate or paused, or got their answer.
    pub fn take_resumed(&mut self, resumed: &mut Vec<(u32, u32)>) {
        self.outbox.pacing.take_freed(resumed);
        for id in self.outbox.resumed.drain(..) {
            if let Some(session) = self.slab.get_mut(id.index as usize)
                && session.generation == id.generation
                && session.phase != Phase::Ended
            {
                // The silence until now was ours.
                session.heard = milliseconds(self.now);
                resumed.push((id.index, id.generation));
            }
        }
        while let Some(&Reverse((at, key, generation))) = self.rates.waiting.peek() {
            if at > self.now {
                return;
            }
            self.rates.waiting.pop();
            if self.generation(key) == Some(generation) {
                resumed.push((key, generation));
            }
        }
    }

    /// This pass is so late that the process was held up: stopped, or by a slow handler. Input that peers sent
    /// meanwhile may not have been read yet, so their silence counts from now, and other deadlines get one more second.
    pub fn held_up(&mut self) {
        self.awake_since = Some(self.now);
    }

    /// Takes out the partly received request.
    pub(super) fn take_head(&mut self, key: u32) -> Option<Box<Head>> {
        let head = self.slab[key as usize].head.take()?;
        *self.bytes_of(&head) -= head.bytes.capacity();
        Some(head)
    }

    /// Keeps a partly received request.
    pub(super) fn put_head(&mut self, key: u32, head: Box<Head>) {
        *self.bytes_of(&head) += head.bytes.capacity();
        self.slab[key as usize].head = Some(head);
    }

    /// The total that such a head's memory counts towards.
    fn bytes_of(&mut self, head: &Head) -> &mut usize {
        if head.awaited.is_some() { &mut self.content_bytes } else { &mut self.head_bytes }
    }

    /// Frees all input kept for a connection.
    pub(super) fn forget_input(&mut self, key: u32) {
        self.take_head(key);
        self.rests.remove(key);
        let receiver = std::mem::take(&mut self.slab[key as usize].receiver);
        self.inflaters -= usize::from(receiver.keeps_window());
        receiver.discard(&mut self.scratch);
    }
}

/// How many bytes a brief step takes: uncompressed messages and control frames that are short, complete, and few.
fn brief_part(receiver: &Receiver, input: &[u8]) -> usize {
    let mut end = 0;
    for _ in 0..BRIEF_FRAMES {
        match frame::decode(&input[end..]) {
            // A violation is reported at once as well.
            Err(_) => return input.len(),
            Ok(Some(head))
                if head.payload_bytes <= BRIEF_PAYLOAD_BYTES && receiver.is_idle() && is_simple(&head.header) =>
            {
                let next = end + head.header_bytes + head.payload_bytes as usize;
                if next > input.len() {
                    break;
                }
                end = next;
            }
            Ok(_) => break,
        }
    }
    end
}

fn is_simple(header: &FrameHeader) -> bool {
    header.is_final && !header.rsv1 && header.opcode != OpCode::Data(Data::Continue)
}
