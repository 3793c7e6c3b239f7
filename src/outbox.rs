//! The [`Outbox`], through which apps send. It encodes frames into the out queue and bounds the backlog.

pub(crate) mod answers;
pub(crate) mod channels;
mod echo;
mod limits;
mod pacing;
mod reading;
#[cfg(feature = "cli")]
pub(crate) mod shared;

use crate::net::id::ConnectionId;
use crate::protocol::Role;
use crate::protocol::close::payload as close_payload;
use crate::protocol::deflate::{Deflater, Output};
use crate::protocol::extension::{Agreement, Deflate};
use crate::protocol::frame::{self, MAX_CONTROL_BYTES, MAX_HEADER_BYTES};
use crate::protocol::mask::{self, Mask};
use crate::protocol::message::Kind;
use crate::queue::OutQueue;
use crate::telemetry::log::{AppLog, Level, Log};
use crate::telemetry::stats::{self, Stats};
use answers::Debts;
use channels::Broadcast;
pub(crate) use pacing::{Pacing, Publisher};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::collections::HashMap;
use std::fmt;
use std::time::Duration;
use tungstenite::protocol::frame::coding::{CloseCode, Control, OpCode};

/// What to do with a connection whose backlog is full.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SlowConsumer {
    /// Close it.
    Close,
    /// Drop messages until it has caught up.
    Drop,
}

/// Limits on what is sent.
#[derive(Clone, Copy, Debug)]
pub struct SendRules {
    /// Bytes that may wait for one connection's socket. A message is queued while fewer are waiting, so one message may
    /// exceed the limit. Default 4 MiB.
    pub max_backlog: usize,
    /// What happens beyond the limit.
    pub slow_consumer: SlowConsumer,
}

impl Default for SendRules {
    fn default() -> SendRules {
        SendRules { max_backlog: 4 << 20, slow_consumer: SlowConsumer::Close }
    }
}

/// The outcome of sending a message through the [`Outbox`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Delivery {
    /// The message is queued. Only the peer can confirm that it arrived.
    Queued,
    /// The message was dropped, because the backlog is full; counted.
    Dropped,
    /// The connection is closed or closing.
    Closed,
}

/// What the outbox asks of the sessions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Demand {
    /// A Close frame was queued.
    Closing(CloseCode),
    /// The backlog is full.
    Overflow,
    /// A deferred request has its answer.
    Answered,
    /// Members joined or left channels; not tied to a connection.
    News,
}

/// An echo of a partly received message.
#[derive(Default)]
struct UnderWay {
    /// Other frames for the connection, which must wait.
    held: Vec<u8>,
    /// The connection already had a lot of unread output when the echo began.
    behind: bool,
}

/// A connection to open: the index of the client's target, and the app's tag.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Order {
    pub target: usize,
    pub tag: u64,
}

/// Bits of `Lane::mode`; the upper four are the window bits for compression, 0 for none.
const FRAMES: u8 = 1;
const MASKED: u8 = 2;
const TAKEOVER: u8 = 4;
const WINDOW_SHIFT: u32 = 4;
/// A frame is being sent in pieces, so no other frame may begin.
const MID_FRAME: u8 = 8;

/// With this many bytes waiting, reading pauses: a client that sends without reading fills its own buffers, not ours.
const READ_PAUSE_BYTES: usize = 256 * 1024;
/// Payloads of at least this size get, or keep, a buffer of their own instead of a place in the arena.
const OWN_BUFFER_BYTES: usize = 64 * 1024;
/// Frames of at least this size are echoed in place, if they lie in the read buffer.
const IN_PLACE_BYTES: usize = 8192;
/// Once the bus records exceed this, they are published before more are made.
const OUTGOING_BYTES: usize = 64 * 1024;
/// Approximate size of a compressor that keeps its window.
const DEFLATER_BYTES: usize = 288 * 1024;
/// A buffer for compressed messages that grew beyond this is freed.
const DEFLATED_KEEP_BYTES: usize = 256 * 1024;
/// For windows of fewer bits, abandoning a window costs more than compressing what is in it.
const SMALL_WINDOW_BITS: u8 = 12;

/// Sends to the connections of this process.
pub struct Outbox {
    pub(crate) queue: OutQueue,
    pub(crate) stats: Stats,
    pub(crate) demands: Vec<(u32, Demand)>,
    /// Whether the message loop must pause: there are demands, or the queue is full and must be written first.
    pub(crate) yields: bool,
    pub(crate) orders: Vec<Order>,
    /// Connections whose app waits for their output to be written.
    pub(crate) awaited: Vec<ConnectionId>,
    pub(crate) stops: bool,
    /// Answers that the app owes.
    pub(crate) debts: Debts,
    /// Connections that may be read from again.
    pub(crate) resumed: Vec<ConnectionId>,
    /// The latest time for the app's next tick.
    pub(crate) tick_by: Option<Duration>,
    pub(crate) now: Duration,
    /// Unix time at the start, according to the current wall clock.
    pub(crate) epoch: Duration,
    pub(crate) broadcast: Broadcast,
    /// Limits on what clients publish on channels.
    pub(crate) pacing: Pacing,
    /// The client whose input is being handled, if its publications are limited.
    pub(crate) publisher: Option<Publisher>,
    /// Lines that the app logs.
    pub(crate) log: AppLog,
    rules: SendRules,
    deflate: Deflate,
    node: u32,
    /// One compressor for each window size, for all connections without context takeover.
    shared: [Option<Deflater>; 16],
    /// Compressors of connections with context takeover, by key.
    own: HashMap<u32, Deflater>,
    deflated: Output,
    /// Frames that wait for the end of an echo in pieces, by connection.
    under_way: HashMap<u32, UnderWay>,
    /// Memory of the waiting frames.
    held_bytes: usize,
    /// For masking keys; if `None`, they are zero.
    pub(crate) random: Option<StdRng>,
}

impl fmt::Debug for Outbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outbox").field("now", &self.now).field("stats", &self.stats).finish_non_exhaustive()
    }
}

impl Outbox {
    /// An outbox of process `node`. `seed` seeds the masking keys of client connections.
    pub(crate) fn new(rules: SendRules, deflate: Deflate, node: u32, seed: [u8; 32]) -> Outbox {
        Outbox {
            queue: OutQueue::new(),
            stats: Stats::default(),
            demands: Vec::new(),
            yields: false,
            orders: Vec::new(),
            awaited: Vec::new(),
            stops: false,
            debts: Debts::default(),
            resumed: Vec::new(),
            tick_by: None,
            now: Duration::ZERO,
            epoch: Duration::ZERO,
            broadcast: Broadcast::default(),
            pacing: Pacing::default(),
            publisher: None,
            log: AppLog::like(&Log::new(None)),
            rules,
            deflate,
            node,
            shared: [const { None }; 16],
            own: HashMap::new(),
            deflated: Output::new(),
            under_way: HashMap::new(),
            held_bytes: 0,
            random: Some(StdRng::from_seed(seed)),
        }
    }

    /// Sends a text message.
    pub fn send_text(&mut self, to: ConnectionId, text: &str) -> Delivery {
        self.send(to, Kind::Text, &[text.as_bytes()])
    }

    /// Sends a binary message.
    pub fn send_binary(&mut self, to: ConnectionId, payload: &[u8]) -> Delivery {
        self.send(to, Kind::Binary, &[payload])
    }

    /// Sends one message made of `parts`, joined in the queue. The parts of a text message must together be valid
    /// UTF-8.
    pub fn send(&mut self, to: ConnectionId, kind: Kind, parts: &[&[u8]]) -> Delivery {
        match self.admit(to) {
            Ok(mode) => {
                self.push_message(to.index, mode, kind, parts);
                Delivery::Queued
            }
            Err(delivery) => delivery,
        }
    }

    /// Sends a Ping with up to 125 bytes of payload; a longer payload is truncated.
    pub fn ping(&mut self, to: ConnectionId, payload: &[u8]) -> Delivery {
        self.control(to, Control::Ping, payload)
    }

    pub(crate) fn pong(&mut self, to: ConnectionId, payload: &[u8]) -> Delivery {
        self.control(to, Control::Pong, payload)
    }

    fn control(&mut self, to: ConnectionId, opcode: Control, payload: &[u8]) -> Delivery {
        let payload = &payload[..payload.len().min(MAX_CONTROL_BYTES)];
        match self.admit(to) {
            Ok(mode) => {
                self.stats.send(if opcode == Control::Ping { stats::PING } else { stats::PONG }, payload.len());
                self.push_frame(to.index, mode, OpCode::Control(opcode), false, &[payload]);
                Delivery::Queued
            }
            Err(delivery) => delivery,
        }
    }

    /// Begins the closing handshake: queued messages still go out, then a Close frame with `code` and `reason`
    /// (truncated to 123 bytes). Nothing can be sent afterwards.
    pub fn close(&mut self, to: ConnectionId, code: CloseCode, reason: &str) -> Delivery {
        if to.node != self.node || self.queue.lane(to.index, to.generation).is_none_or(|lane| lane.mode & FRAMES == 0) {
            return Delivery::Closed;
        }
        self.push_close(to.index, Some((code, reason)));
        self.demand(to.index, Demand::Closing(code));
        Delivery::Queued
    }

    pub(crate) fn demand(&mut self, key: u32, demand: Demand) {
        self.demands.push((key, demand));
        self.yields = true;
    }

    /// Opens a connection to a target of [`Client`](crate::Client), counted from 0 in the order in which they were
    /// added. [`App::on_open`](crate::App::on_open) or [`App::on_connect_failed`](crate::App::on_connect_failed)
    /// follows, with the app's own `tag`. A server has no targets, and ignores the call.
    pub fn connect(&mut self, target: usize, tag: u64) {
        self.orders.push(Order { target, tag });
    }

    /// Stops the process's loop as a first signal would: it drains, then ends.
    pub fn stop(&mut self) {
        self.stops = true;
    }

    /// Makes sure that [`App::on_tick`](crate::App::on_tick) is called no later than `at`, whatever it returned last.
    pub fn tick_by(&mut self, at: Duration) {
        self.tick_by = Some(self.tick_by.map_or(at, |before| before.min(at)));
    }

    /// Time since the start, read when the pass of the loop began.
    pub fn now(&self) -> Duration {
        self.now
    }

    /// Time since 1970-01-01 00:00 UTC by the system clock, read when the pass of the loop began. It follows changes of
    /// that clock, so it may go back.
    pub fn unix_time(&self) -> Duration {
        self.epoch + self.now
    }

    /// Bytes that wait for a connection's socket; 0 if it is closed.
    pub fn backlog_bytes(&mut self, to: ConnectionId) -> usize {
        self.end_fanout();
        self.queue.lane(to.index, to.generation).map_or(0, |lane| lane.queued_bytes())
    }

    /// Requests one call of [`App::on_written`](crate::App::on_written), once a connection's socket has taken
    /// everything queued for it: the way to send a lot while little is queued.
    pub fn when_written(&mut self, to: ConnectionId) {
        self.awaited.push(to);
    }

    /// Logs a line, optionally about a connection, whose id is appended. `event` is a word for machines. The text may
    /// come from a client: it is made printable, and truncated to 1,024 characters.
    ///
    /// Since clients decide how often that happens, these lines are limited: to a burst of 256 KiB, then 4 KiB a
    /// second. Further lines are dropped, counted, and reported once a second.
    ///
    /// ```
    /// # use percore::{App, ConnectionId, Level, Message, Outbox, Request};
    /// # struct Diary;
    /// # impl App for Diary {
    /// #     type State = ();
    /// #     fn on_open(&mut self, _: ConnectionId, _: &Request<'_>, _: &mut Outbox) {}
    /// fn on_message(&mut self, id: ConnectionId, _: &mut (), mut message: Message<'_>, out: &mut Outbox) {
    ///     if let Some(text) = message.text() {
    ///         out.log(Level::Info, "entry", id, format_args!("dear diary: {text}"));
    ///     }
    /// }
    /// # }
    /// ```
    pub fn log(
        &mut self,
        level: Level,
        event: &'static str,
        about: impl Into<Option<ConnectionId>>,
        text: impl fmt::Display,
    ) {
        self.log.push(self.now, level, event, about.into(), &text);
    }

    /// The process's counters.
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// Opens the lane for frames, once the handshake's answer is queued.
    pub(crate) fn begin_frames(&mut self, id: ConnectionId, role: Role, deflate: Option<Agreement>) {
        let Some(lane) = self.queue.lane(id.index, id.generation) else { return };
        lane.mode = FRAMES | if role == Role::Client { MASKED } else { 0 };
        let Some(agreed) = deflate else { return };
        let (takeover, bits) = match role {
            Role::Server => (agreed.server_takeover, agreed.server_bits),
            Role::Client => (agreed.client_takeover, agreed.client_bits),
        };
        lane.mode |= bits << WINDOW_SHIFT;
        if takeover {
            lane.mode |= TAKEOVER;
            self.own.insert(id.index, Deflater::new(self.deflate.level, bits, true));
        }
    }

    /// Whether frames may still be queued: no Close frame was queued, and the backlog did not overflow.
    pub(crate) fn takes_frames(&mut self, key: u32) -> bool {
        self.queue.lane_at(key).mode & FRAMES != 0
    }

    /// Queues a Close frame, after which the lane takes no more frames.
    pub(crate) fn push_close(&mut self, key: u32, payload: Option<(CloseCode, &str)>) {
        self.end_fanout();
        let lane = self.queue.lane_at(key);
        let mode = lane.mode;
        lane.mode &= MID_FRAME;
        let payload = payload.map_or_else(Vec::new, |(code, reason)| close_payload(code, reason));
        self.stats.send(stats::CLOSE, payload.len());
        self.push_frame(key, mode, OpCode::Control(Control::Close), false, &[&payload]);
    }

    /// Forgets a connection. Returns how many bytes were left unsent.
    pub(crate) fn release(&mut self, key: u32) -> usize {
        self.own.remove(&key);
        if let Some(UnderWay { held, .. }) = self.under_way.remove(&key) {
            self.held_bytes -= held.capacity();
        }
        self.queue.close(key)
    }

    fn compresses(&self, mode: u8, payload_bytes: usize) -> bool {
        self.window_bits(mode, payload_bytes) != 0
    }

    /// Window bits for compressing a message of this length; 0 to send it uncompressed. That is always allowed, and
    /// leaves the windows of both ends unchanged (RFC 7692, section 6).
    fn window_bits(&self, mode: u8, payload_bytes: usize) -> usize {
        let bits = mode >> WINDOW_SHIFT;
        // The compressor clears its tables, 128 KiB, for each window that it abandons.
        let most = self.deflate.max_bytes >> SMALL_WINDOW_BITS.saturating_sub(bits);
        let is_within = (self.deflate.min_bytes.max(1)..=most).contains(&payload_bytes);
        if is_within { bits.into() } else { 0 }
    }

    fn push_message(&mut self, key: u32, mode: u8, kind: Kind, parts: &[&[u8]]) {
        let payload_bytes = parts.iter().map(|part| part.len()).sum();
        self.stats.send(kind.index(), payload_bytes);
        if !self.compresses(mode, payload_bytes) {
            return self.push_frame(key, mode, kind.opcode(), false, parts);
        }
        let mut deflated = std::mem::take(&mut self.deflated);
        match self.own.get_mut(&key).filter(|_| mode & TAKEOVER != 0) {
            Some(own) => own.deflate(parts, &mut deflated),
            None => self.shared_deflater((mode >> WINDOW_SHIFT).into()).deflate(parts, &mut deflated),
        }
        // A message that does not shrink goes uncompressed, unless the peer's window must follow ours.
        if deflated.len() < payload_bytes || mode & TAKEOVER != 0 {
            self.push_frame(key, mode, kind.opcode(), true, &[&deflated]);
        } else {
            self.push_frame(key, mode, kind.opcode(), false, parts);
        }
        self.give_deflated(deflated);
    }

    /// The compressor for connections that agreed on this window size, each message on its own.
    fn shared_deflater(&mut self, bits: usize) -> &mut Deflater {
        let level = self.deflate.level;
        self.shared[bits].get_or_insert_with(|| Deflater::new(level, bits as u8, false))
    }

    fn give_deflated(&mut self, deflated: Output) {
        if deflated.held_bytes() <= DEFLATED_KEEP_BYTES {
            self.deflated = deflated;
        }
    }

    fn push_frame(&mut self, key: u32, mode: u8, opcode: OpCode, compressed: bool, parts: &[&[u8]]) {
        let payload_bytes = parts.iter().map(|part| part.len()).sum::<usize>();
        let mask =
            (mode & MASKED != 0).then(|| self.random.as_mut().map_or([0; 4], |random| random.next_u32().to_ne_bytes()));
        if mode & MID_FRAME != 0 {
            return self.hold(key, |held, _| {
                let start = held.len();
                held.resize(start + MAX_HEADER_BYTES + payload_bytes, 0);
                let end = start + fill(&mut held[start..], opcode, compressed, payload_bytes, mask, parts);
                held.truncate(end);
            });
        }
        if payload_bytes < OWN_BUFFER_BYTES {
            let space = self.queue.reserve(MAX_HEADER_BYTES + payload_bytes);
            let end = fill(space, opcode, compressed, payload_bytes, mask, parts);
            self.queue.commit(key, end);
        } else {
            let mut buffer = self.queue.pool.take();
            if buffer.len() < MAX_HEADER_BYTES + payload_bytes {
                buffer.resize(MAX_HEADER_BYTES + payload_bytes, 0);
            }
            let end = fill(&mut buffer, opcode, compressed, payload_bytes, mask, parts);
            self.queue.push_owned(key, buffer, 0, end);
        }
        self.note_queued();
    }
}

/// Writes a frame and returns its length.
fn fill(
    space: &mut [u8],
    opcode: OpCode,
    compressed: bool,
    payload_bytes: usize,
    mask: Option<Mask>,
    parts: &[&[u8]],
) -> usize {
    let start = frame::encode(space, opcode, compressed, payload_bytes, mask);
    let mut end = start;
    for part in parts {
        let target = &mut space[end..end + part.len()];
        match mask {
            Some(key) => mask::copy(part, target, mask::rotate(key, end - start)),
            None => target.copy_from_slice(part),
        }
        end += part.len();
    }
    end
}

#[cfg(test)]
mod tests;
