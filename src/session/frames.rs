//! An open connection: frames in, heartbeats, and the closing handshake (RFC 6455, sections 5 and 7).

use super::{Phase, Sessions, milliseconds};
use crate::app::{App, Error};
use crate::net::id::{ConnectionId, Peer};
use crate::protocol::close::CloseReason;
use crate::protocol::message::Message;
use crate::protocol::receiver::{Event, short_message};
use crate::protocol::{Role, Violation};
use crate::telemetry::log::{Level, Log, counted, printable};
use crate::telemetry::stats;
use std::time::Duration;
use tungstenite::protocol::frame::coding::CloseCode;

/// Characters of a message in its log line.
const LOGGED_CHARACTERS: usize = 1024;
/// A step ends once messages inflated to this many bytes, ...
const STEP_INFLATED_BYTES: u64 = 64 * 1024;
/// ... or took up this much input: an app may do a lot for each message.
const STEP_INPUT_BYTES: usize = 16 * 1024;

/// How a step ended.
enum Step {
    /// After this many bytes: all of them, or the most that one step may take.
    Done(usize),
    /// The peer sent a Close frame.
    Closed(Option<(CloseCode, String)>),
    /// The peer broke the protocol.
    Violated(Violation),
}

impl<A: App> Sessions<A> {
    /// One step: frames from an open or closing connection. Returns how many bytes are used up.
    pub(super) fn receive_frames(&mut self, key: u32, input: &mut [u8]) -> usize {
        self.outbox.yields = false;
        let all = input.len();
        let messages = self.messages_allowed(key);
        let step = match (self.rules.role, self.log.messages) {
            (Role::Server, false) => self.take_frames::<true, false>(key, input, messages),
            (Role::Server, true) => self.take_frames::<true, true>(key, input, messages),
            (Role::Client, false) => self.take_frames::<false, false>(key, input, messages),
            (Role::Client, true) => self.take_frames::<false, true>(key, input, messages),
        };
        match step {
            Step::Done(used) => {
                if !self.outbox.demands.is_empty() {
                    self.settle();
                }
                return used;
            }
            Step::Closed(payload) => self.peer_closed(key, payload),
            Step::Violated(violation) => self.violated(key, violation),
        }
        // Everything after it is ignored.
        all
    }

    /// The hot path of every message. `MASKED` as a server receives them. With `LOG` each gets a log line; without,
    /// logging costs nothing.
    #[inline(always)]
    fn take_frames<const MASKED: bool, const LOG: bool>(&mut self, key: u32, input: &mut [u8], messages: u32) -> Step {
        let Sessions { slab, outbox, app, scratch, rules, log, settings, .. } = self;
        let Some(session) = slab.get_mut(key as usize) else { return Step::Done(input.len()) };
        let id = ConnectionId { node: settings.node, generation: session.generation, index: key };
        let (mut position, mut left) = (0, messages);
        let inflated_before = scratch.inflated_total;
        while position < input.len() {
            if let (Phase::Open, Some(state), true) = (session.phase, &mut session.state, session.receiver.is_idle()) {
                let mut rest = &mut input[position..];
                while let Some((used, mut message)) = short_message::<MASKED>(rest, rules) {
                    outbox.stats.receive(message.kind.index(), message.len());
                    if LOG {
                        session.received = session.received.wrapping_add(1);
                        log_message(log, session.peer, id, &mut message);
                    }
                    app.on_message(id, state, message, outbox);
                    position += used;
                    left -= 1;
                    if outbox.yields || left == 0 || position >= STEP_INPUT_BYTES {
                        return Step::Done(position);
                    }
                    rest = &mut input[position..];
                }
                if position == input.len() {
                    break;
                }
            }
            let (used, event) =
                match session.receiver.next(&mut input[position..], rules, scratch, &mut outbox.queue.pool) {
                    Ok(step) => step,
                    Err(violation) => return Step::Violated(violation),
                };
            position += used;
            match event {
                Some(Event::Message(mut message)) => {
                    let listens = session.phase == Phase::Open || settings.hears_out;
                    if let (true, Some(state)) = (listens, &mut session.state) {
                        outbox.stats.receive(message.kind.index(), message.len());
                        if LOG {
                            session.received = session.received.wrapping_add(1);
                            log_message(log, session.peer, id, &mut message);
                        }
                        app.on_message(id, state, message, outbox);
                    }
                }
                Some(Event::Piece(piece)) => {
                    if let Some(payload_bytes) = piece.begins {
                        outbox.begin_echo(id, payload_bytes);
                    }
                    let ends = piece.ends;
                    outbox.stats.received_bytes[stats::BINARY] += piece.payload.len() as u64;
                    outbox.echo_piece(key, piece);
                    if ends {
                        outbox.end_echo(key);
                        outbox.stats.received[stats::BINARY] += 1;
                    }
                }
                Some(Event::Ping(payload)) => {
                    outbox.stats.receive(stats::PING, payload.len());
                    outbox.pong(id, payload);
                }
                Some(Event::Pong(payload)) => outbox.stats.receive(stats::PONG, payload.len()),
                None => {}
                Some(Event::Close(payload)) => {
                    let bytes = payload.as_ref().map_or(0, |(_, reason)| 2 + reason.len());
                    outbox.stats.receive(stats::CLOSE, bytes);
                    return Step::Closed(payload.map(|(code, reason)| (code, reason.to_owned())));
                }
            }
            left -= 1;
            let inflated = scratch.inflated_total - inflated_before;
            if outbox.yields || left == 0 || position >= STEP_INPUT_BYTES || inflated >= STEP_INFLATED_BYTES {
                break;
            }
        }
        Step::Done(position)
    }

    /// Handles the peer's Close frame: the answer to ours, or one to answer.
    fn peer_closed(&mut self, key: u32, payload: Option<(CloseCode, String)>) {
        // Not if our own Close frame is queued, as an app may just have done.
        if self.outbox.takes_frames(key) {
            // The answer repeats the code, but need not repeat the reason (section 5.5.1).
            self.outbox.push_close(key, payload.as_ref().map(|(code, _)| (*code, "")));
        }
        let (code, reason) = payload.unwrap_or((CloseCode::Status, String::new()));
        self.closed(key, CloseReason { code, reason, clean: true });
        // The server must close first (section 7.1.1); a client waits for that.
        self.enter(key, if self.rules.role == Role::Server { Phase::Finishing } else { Phase::Lingering });
    }

    /// The peer broke the protocol: sends it the reason, and reads nothing more (section 7.1.7).
    fn violated(&mut self, key: u32, violation: Violation) {
        self.outbox.stats.protocol_errors += 1;
        self.report(key, &Error::Violation(violation));
        if self.outbox.takes_frames(key) {
            self.outbox.push_close(key, Some((violation.code(), &violation.to_string())));
        }
        let reason = CloseReason { code: violation.code(), reason: violation.to_string(), clean: false };
        self.closed(key, reason);
        self.enter(key, Phase::Lingering);
    }

    /// How long a peer, last `heard` at this time in milliseconds, has been silent: at most as long as the process
    /// could have heard it, and zero if the connection waits for its turn.
    fn silence(&self, heard: u32) -> Duration {
        let silent = Duration::from_millis(u64::from(milliseconds(self.now).wrapping_sub(heard)));
        self.awake_since.map_or(silent, |since| silent.min(self.now - since))
    }

    /// Arms the next deadline of an open connection: its Ping, or the peer's heartbeat timeout.
    pub(super) fn arm_heartbeat(&mut self, key: u32) {
        let now = milliseconds(self.now);
        let session = &self.slab[key as usize];
        let silent = self.silence(session.heard);
        let until_ping = Duration::from_millis(u64::from(session.next_ping.wrapping_sub(now)));
        let ping = (!self.settings.heartbeat.is_zero()).then_some(until_ping);
        let timeout = self.settings.heartbeat_timeout;
        let end = (!timeout.is_zero()).then(|| timeout.saturating_sub(silent));
        let next = match (ping, end) {
            (Some(ping), Some(end)) => Some(ping.min(end)),
            (ping, end) => ping.or(end),
        };
        match next {
            Some(next) => self.wheel.arm(key, self.now + next),
            None => self.wheel.cancel(key),
        }
    }

    /// An open connection's deadline has expired.
    pub(super) fn heartbeat(&mut self, key: u32) {
        let (now, id) = (milliseconds(self.now), self.id(key));
        if self.waits_for_its_turn(key) {
            self.slab[key as usize].heard = now;
        }
        let silent = self.silence(self.slab[key as usize].heard);
        let session = &mut self.slab[key as usize];
        let timeout = self.settings.heartbeat_timeout;
        if !timeout.is_zero() && silent >= timeout {
            self.outbox.stats.heartbeat_timeouts += 1;
            let error = Error::HeartbeatTimeout(silent);
            self.report(key, &error);
            if self.outbox.takes_frames(key) {
                self.outbox.push_close(key, Some((CloseCode::Error, "heartbeat timeout")));
            }
            self.closed(key, CloseReason::abnormal(error.to_string()));
            self.enter(key, Phase::Finishing);
            return;
        }
        // Due unless it lies ahead: half of the range is past.
        if !self.settings.heartbeat.is_zero() && now.wrapping_sub(session.next_ping) < u32::MAX / 2 {
            session.next_ping = now.wrapping_add(milliseconds(self.settings.heartbeat));
            self.outbox.ping(id, b"");
            self.settle();
        }
        if self.slab[key as usize].phase == Phase::Open {
            self.arm_heartbeat(key);
        }
    }
}

fn log_message(log: &mut Log, peer: Peer, id: ConnectionId, message: &mut Message<'_>) {
    let bytes = message.len();
    let shown = match message.text() {
        Some(text) => printable(text, LOGGED_CHARACTERS),
        None => format!("{}, binary", counted(bytes, "byte*")),
    };
    let text = format!("Received message from {peer}: {shown} id={id}");
    log.push(Level::Info, "message", &[("peer", &peer), ("id", &id), ("bytes", &bytes)], text);
}
