//! A connection's turn, in steps. What one step does is bounded in everything that an input can multiply: messages,
//! requests, bytes inflated, bytes queued. Whoever drives the sessions decides after each step whether to write, to go on,
//! or to keep the rest for a later turn.

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

/// Messages of a step.
const STEP_MESSAGES: u32 = 256;
/// Frames of a brief step, ...
const BRIEF_FRAMES: usize = 16;
/// ... and the longest payload of one.
const BRIEF_PAYLOAD_BYTES: u64 = 1024;

/// Bytes that were read and are worked on in a later turn.
struct Rest {
    bytes: Vec<u8>,
    start: usize,
}

/// What was read and is not worked on yet, by connection.
#[derive(Default)]
pub(super) struct Rests {
    by_key: HashMap<u32, Rest>,
    bytes: usize,
}

impl Rests {
    pub fn memory(&self) -> usize {
        self.bytes
    }

    /// What a connection's rest takes.
    pub fn memory_of(&self, key: u32) -> usize {
        self.by_key.get(&key).map_or(0, |rest| rest.bytes.capacity())
    }

    fn put(&mut self, key: u32, rest: Rest) {
        self.bytes += rest.bytes.capacity();
        self.by_key.insert(key, rest);
    }

    /// Adds to what is kept. Returns how many bytes that are.
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

/// How much each connection has sent, and which of them wait because that was too much.
pub(super) struct Rates {
    rules: RateRules,
    is_limited: bool,
    /// By key.
    buckets: Vec<Bucket>,
    /// When a connection may go on, its key and generation.
    waiting: BinaryHeap<Reverse<(Duration, u32, u32)>>,
}

impl Rates {
    pub fn new(rules: RateRules) -> Rates {
        Rates { rules, is_limited: rules.is_limited(), buckets: Vec::new(), waiting: BinaryHeap::new() }
    }

    pub fn memory(&self) -> usize {
        self.buckets.capacity() * size_of::<Bucket>()
    }

    /// A new connection has this key.
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
    /// Bytes came from a connection's socket. Works on them for one step, and returns how many are used up: at least one,
    /// unless the step is brief. The others are for the next step, or for [`Sessions::keep`]; nothing is read from the socket
    /// before them.
    pub fn step(&mut self, key: u32, input: &mut [u8]) -> usize {
        // What an app demanded of this connection, when another ended, comes before what its peer sends.
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
            // For later, whoever gave it.
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

    /// Whether steps are brief from now on: only requests and small messages that are all there, and few of them. A step that
    /// finds none uses up nothing.
    #[inline]
    pub fn set_brief(&mut self, is_brief: bool) {
        self.is_brief = is_brief;
    }

    /// Takes all of the bytes, step by step: for a driver that has nobody waiting.
    pub fn receive(&mut self, key: u32, mut input: &mut [u8]) {
        while !input.is_empty() {
            let used = self.step(key, input);
            input = &mut input[used..];
        }
    }

    /// Keeps bytes that were read and not used up, for [`Sessions::resume`].
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

    /// A step on what was kept.
    pub fn resume(&mut self, key: u32) {
        let Some(mut rest) = self.rests.remove(key) else { return };
        rest.start += self.step(key, &mut rest.bytes[rest.start..]);
        let is_open = self.generation(key).is_some();
        if is_open && rest.start < rest.bytes.len() {
            self.rests.put(key, rest);
        }
    }

    /// Whether to read from this connection: not while it leaves unread what we send, while its app has paused it or owes it
    /// an answer, or while it has sent more than it may ([`Sessions::take_resumed`]).
    pub fn wants_read(&mut self, key: u32) -> bool {
        self.outbox.wants_read(key) && !self.is_over_rate(key)
    }

    /// How many messages a step may take of a connection.
    #[inline]
    pub(super) fn messages_allowed(&self, key: u32) -> u32 {
        if !self.rates.is_limited {
            return STEP_MESSAGES;
        }
        let bucket = self.rates.buckets.get(key as usize).copied().unwrap_or_default();
        self.rates.rules.allowance(&bucket, self.now).min(STEP_MESSAGES.into()) as u32
    }

    /// Charges a connection with what was taken since `before`.
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

    /// Whether what a connection published waits for its turn.
    pub(super) fn waits_for_channel(&self, key: u32) -> bool {
        self.generation(key).is_some_and(|generation| self.outbox.pacing.has_waiting((key, generation)))
    }

    /// Whether it is up to us that nothing of a connection was heard.
    pub(super) fn waits_for_its_turn(&mut self, key: u32) -> bool {
        self.has_rest(key) || self.is_over_rate(key) || self.outbox.is_held(key)
    }

    /// Connections that may go on, with their generations: they had sent too much, were paused, or have their answer.
    pub fn take_resumed(&mut self, resumed: &mut Vec<(u32, u32)>) {
        self.outbox.pacing.take_freed(resumed);
        for id in self.outbox.resumed.drain(..) {
            if let Some(session) = self.slab.get_mut(id.index as usize)
                && session.generation == id.generation
                && session.phase != Phase::Ended
            {
                // Until now its silence was ours.
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

    /// The pass that begins is late by so much that the process was held up: stopped, or by a handler that took long. What
    /// peers sent meanwhile may not have been read yet, so their silence counts from now, and other deadlines have a second more.
    pub fn held_up(&mut self) {
        self.awake_since = Some(self.now);
    }

    /// Takes out the part of a request that has come.
    pub(super) fn take_head(&mut self, key: u32) -> Option<Box<Head>> {
        let head = self.slab[key as usize].head.take()?;
        *self.bytes_of(&head) -= head.bytes.capacity();
        Some(head)
    }

    /// Keeps the part of a request that has come.
    pub(super) fn put_head(&mut self, key: u32, head: Box<Head>) {
        *self.bytes_of(&head) += head.bytes.capacity();
        self.slab[key as usize].head = Some(head);
    }

    /// The sum in which the memory of such a head counts.
    fn bytes_of(&mut self, head: &Head) -> &mut usize {
        if head.awaited.is_some() { &mut self.content_bytes } else { &mut self.head_bytes }
    }

    /// Gives back all that was kept of what a connection sent.
    pub(super) fn forget_input(&mut self, key: u32) {
        self.take_head(key);
        self.rests.remove(key);
        let receiver = std::mem::take(&mut self.slab[key as usize].receiver);
        self.inflaters -= usize::from(receiver.keeps_window());
        receiver.discard(&mut self.scratch);
    }
}

/// How many bytes a brief step takes: uncompressed messages and control frames that are short and all there, and few of them.
fn brief_part(receiver: &Receiver, input: &[u8]) -> usize {
    let mut end = 0;
    for _ in 0..BRIEF_FRAMES {
        match frame::decode(&input[end..]) {
            // A violation is told at once as well.
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
