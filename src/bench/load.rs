//! The app that makes the load: opens connections, sends, checks what comes back, and moves from stage to stage.

use super::faults::{kind_of_error, kind_of_failure};
use super::pace::Pace;
use super::payload::Payload;
use super::plan::{Plan, Workload};
use super::progress::PROGRESS_EVERY;
use super::record::Record;
use super::report::{Report, Server};
use super::stage::Stage;
use super::usage::Usage;
use crate::app::{App, ConnectError, Error};
use crate::data::id::ConnectionId;
use crate::outbox::{Delivery, Outbox};
use crate::protocol::close::CloseReason;
use crate::protocol::http::Request;
use crate::protocol::message::Message;
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tungstenite::protocol::frame::coding::CloseCode;

/// Connections under way at a time, below what servers let wait to be accepted.
const MOST_CONNECTING: usize = 256;
/// While connections are opened, or opened again after a failure, this is looked at so often.
const LOOK_AGAIN: Duration = Duration::from_millis(10);
/// So much is queued for a connection at a time: what is beyond waits as a number, not as bytes.
const MOST_QUEUED_BYTES: usize = 256 * 1024;
/// What is out at the end is waited for this long, or for twice as long as any answer took, within a bound.
const SHORTEST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// What is under way on a connection.
pub(super) struct Flight {
    /// None once it has ended.
    pub(super) id: Option<ConnectionId>,
    /// When each message that has no answer yet was sent, or meant to be: nanoseconds since the start.
    pub(super) sent_at: VecDeque<u64>,
    sent: u32,
    /// Answers; of a subscriber, the number of the message that is to come next.
    pub(super) answered: u32,
    /// Messages that are to go once what is queued has been written.
    owed: usize,
}

/// See the module.
pub struct Load {
    pub(super) plan: Arc<Plan>,
    /// How many addresses connections come from in turn.
    sources: usize,
    payload: Payload,
    pub(super) stage: Stage,
    pub(super) record: Record,
    pub(super) flights: Vec<Flight>,
    /// Connections ordered so far, and those of them that are neither open nor failed.
    ordered: usize,
    connecting: usize,
    /// Connections open now.
    pub(super) open: usize,
    connect_pace: Option<Pace>,
    send_pace: Option<Pace>,
    /// The connection that sends next in an open loop.
    next_sender: usize,
    /// Messages published, and whether any was delivered.
    pub(super) published: u32,
    pub(super) delivered: bool,
    /// Answers, or deliveries, that are to come on connections that are open.
    out: u64,
    /// Messages sent, or published.
    sent: u64,
    pub(super) next_progress: Duration,
    before: Usage,
    at_begin: Usage,
    at_end: Usage,
    pub(super) interrupted: bool,
}

impl Load {
    /// Nothing is done yet.
    ///
    /// # Errors
    /// A process of the plan that is not there.
    pub fn new(plan: Arc<Plan>) -> io::Result<Load> {
        let before = Usage::read(&plan.pids)?;
        Ok(Load {
            payload: Payload::new(plan.size),
            stage: Stage::Connecting,
            record: Record::new(),
            flights: Vec::with_capacity(plan.connections),
            ordered: 0,
            connecting: 0,
            open: 0,
            connect_pace: plan.connect_rate.map(|rate| Pace::new(Duration::ZERO, rate)),
            send_pace: None,
            next_sender: 0,
            published: 0,
            delivered: false,
            out: 0,
            sent: 0,
            next_progress: PROGRESS_EVERY,
            before,
            at_begin: before,
            at_end: before,
            interrupted: false,
            sources: plan.sources().len(),
            plan,
        })
    }

    /// What came of it.
    pub fn into_report(self) -> Report {
        let server = (!self.plan.pids.is_empty()).then(|| Server {
            cpu: self.at_end.cpu.saturating_sub(self.at_begin.cpu),
            memory_before: self.before.memory,
            memory_after: self.at_end.memory,
        });
        Report {
            plan: self.plan,
            connected: self.flights.len(),
            measured: self.record.measured(),
            record: self.record,
            server,
            interrupted: self.interrupted,
        }
    }

    /// Orders the connections that are due.
    fn connect(&mut self, now: Duration, out: &mut Outbox) {
        let again = self.plan.workload == Workload::Connect && self.stage.is_loaded();
        // The first that is open is the one that publishes.
        let publisher_first = self.plan.publish_to.is_some() && self.flights.is_empty();
        let most_connecting = if publisher_first { 1 } else { MOST_CONNECTING };
        while self.connecting < most_connecting
            && (self.ordered < self.plan.connections || (again && self.connecting + self.open < self.plan.connections))
        {
            if self.connect_pace.as_mut().is_some_and(|pace| pace.take(now).is_none()) {
                return;
            }
            // Its target stands behind those of all others.
            let target = if publisher_first { self.sources } else { self.ordered % self.sources };
            out.connect(target, nanoseconds(out));
            self.ordered += 1;
            self.connecting += 1;
        }
    }

    /// Begins the load once every connection is open or has failed.
    fn begin_load(&mut self, out: &mut Outbox) {
        let now = out.now();
        if self.open == 0 {
            return self.end(now, out);
        }
        self.stage = Stage::Warmup(now + self.plan.warmup);
        if self.plan.warmup.is_zero() {
            self.next_stage(now, out);
        }
        self.send_pace = self.plan.rate.map(|rate| Pace::new(now, rate));
        let all = 0..self.flights.len();
        match self.plan.workload {
            Workload::Echo if self.send_pace.is_none() => {
                all.for_each(|flight| {
                    (0..self.plan.in_flight).for_each(|_| self.send_or_owe(flight, nanoseconds(out), out))
                });
            }
            Workload::Idle { echo: true } => all.for_each(|flight| self.send(flight, nanoseconds(out), out)),
            Workload::Fanout if self.send_pace.is_none() => self.publish_closed(out),
            _ => {}
        }
    }

    /// Sends one more of the messages of a closed loop, or owes it while much is queued.
    fn send_or_owe(&mut self, flight: usize, now: u64, out: &mut Outbox) {
        if self.plan.size.saturating_mul(self.plan.in_flight) > MOST_QUEUED_BYTES {
            let Flight { id: Some(id), owed, .. } = &mut self.flights[flight] else { return };
            if out.backlog_bytes(*id) >= MOST_QUEUED_BYTES {
                if *owed == 0 {
                    out.when_written(*id);
                }
                *owed += 1;
                return;
            }
        }
        self.send(flight, now, out);
    }

    /// Sends a message that was due at `at`.
    fn send(&mut self, flight: usize, at: u64, out: &mut Outbox) {
        if self.is_all_sent() {
            return;
        }
        let Flight { id: Some(id), sent_at, sent, .. } = &mut self.flights[flight] else { return };
        match out.send(*id, self.plan.kind, &[self.payload.numbered(*sent)]) {
            Delivery::Queued => {
                sent_at.push_back(at);
                *sent = sent.wrapping_add(1);
                self.out += 1;
                self.count_sent(out.now());
            }
            Delivery::Dropped | Delivery::Closed => {
                self.record
                    .error("not sent", || "a connection takes no more: the server reads too slowly, or closes".into());
            }
        }
    }

    /// Whether as many messages have been sent as there are to be.
    fn is_all_sent(&self) -> bool {
        self.plan.count.is_some_and(|count| self.sent >= count)
    }

    /// Counts a message. After the last one, answers are waited for, but not for ever.
    fn count_sent(&mut self, now: Duration) {
        self.sent += 1;
        if let (true, Stage::Measuring(end)) = (self.is_all_sent(), &mut self.stage) {
            *end = (*end).min(now + LONGEST_WAIT);
        }
    }

    fn answered(&mut self, flight: usize, message: &mut Message<'_>, out: &mut Outbox) {
        let now = nanoseconds(out);
        let Flight { sent_at, answered, .. } = &mut self.flights[flight];
        let Some(at) = sent_at.pop_front() else {
            return self.record.error("unasked message", || format!("{} bytes", message.len()));
        };
        if message.kind() != self.plan.kind || !self.payload.is(*answered, message.payload()) {
            let (bytes, number) = (message.len(), *answered);
            self.record.error("wrong answer", || format!("{bytes} bytes that are not those of message {number}"));
        }
        *answered = answered.wrapping_add(1);
        self.came(now.saturating_sub(at), 1, out);
        if self.plan.workload == Workload::Echo && self.send_pace.is_none() && self.stage.is_loaded() {
            self.send_or_owe(flight, now, out);
        }
    }

    /// Publishes as long as fewer messages than allowed are under way to some subscriber.
    fn publish_closed(&mut self, out: &mut Outbox) {
        let allowed = self.subscribers() * self.plan.in_flight as u64;
        while self.out < allowed && self.publish(nanoseconds(out), out) {}
    }

    fn subscribers(&self) -> u64 {
        self.open.saturating_sub(1) as u64
    }

    fn publish(&mut self, at: u64, out: &mut Outbox) -> bool {
        if self.is_all_sent() {
            return false;
        }
        let Some(Flight { id: Some(id), .. }) = self.flights.first() else { return false };
        let message = self.payload.published(self.published, at);
        if out.send(*id, self.plan.kind, &[message]) != Delivery::Queued {
            self.record
                .error("not sent", || "the publisher takes no more: the server reads too slowly, or closes".into());
            return false;
        }
        self.published = self.published.wrapping_add(1);
        self.out += self.subscribers();
        self.count_sent(out.now());
        self.record.published += u64::from(self.stage.is_measured());
        true
    }

    /// A published message, or something else, came to a subscriber.
    fn delivered(&mut self, flight: usize, message: &mut Message<'_>, out: &mut Outbox) {
        let now = nanoseconds(out);
        let Some((number, at)) = self.payload.read_published(message.payload()) else {
            // Rooms greet, and tell who came.
            return;
        };
        if flight == 0 {
            return;
        }
        let expected = self.flights[flight].answered;
        if number.wrapping_sub(expected) >= self.published.wrapping_sub(expected) {
            // Of what was not published there is nothing to come either.
            let kind = if number < self.published { "delivered twice" } else { "unasked message" };
            return self.record.error(kind, || format!("message {number} came when {expected} was to come"));
        }
        self.flights[flight].answered = number.wrapping_add(1);
        self.delivered = true;
        // What was left out will not come any more, and must not be waited for.
        let missing = u64::from(number.wrapping_sub(expected));
        self.record
            .errors("missing delivery", missing, || format!("message {number} came after {expected} was to come"));
        self.came(now.saturating_sub(at), 1 + missing, out);
        if self.send_pace.is_none() && self.stage.is_loaded() {
            self.publish_closed(out);
        }
    }

    /// An answer or a delivery came after so long, and with it so many are no longer to come.
    fn came(&mut self, nanoseconds: u64, count: u64, out: &mut Outbox) {
        self.out = self.out.saturating_sub(count);
        match self.stage {
            Stage::Waiting(_) => self.record.late.add(nanoseconds),
            _ => self.record.answer(nanoseconds),
        }
        self.end_if_all_came(out);
    }

    fn end_if_all_came(&mut self, out: &mut Outbox) {
        let is_done = matches!(self.stage, Stage::Waiting(_)) || (self.stage.is_measured() && self.is_all_sent());
        if is_done && self.out == 0 {
            self.end(out.now(), out);
        }
    }

    /// Sends what is due in an open loop.
    fn send_due(&mut self, now: Duration, out: &mut Outbox) {
        while let Some(due) = self.send_pace.as_mut().and_then(|pace| pace.take(now)) {
            let at = due.as_nanos() as u64;
            if self.plan.workload == Workload::Fanout {
                self.publish(at, out);
            } else {
                self.send(self.next_sender, at, out);
                self.next_sender = (self.next_sender + 1) % self.flights.len().max(1);
            }
        }
    }

    fn next_stage(&mut self, now: Duration, out: &mut Outbox) {
        match self.stage {
            Stage::Warmup(end) if end <= now => {
                self.stage = Stage::Measuring(now + self.plan.duration);
                self.record.begin(now);
                self.next_progress = now + PROGRESS_EVERY;
                self.at_begin = self.usage();
            }
            Stage::Measuring(end) if end <= now => self.wait(now, out),
            Stage::Waiting(end) if end <= now => self.end(now, out),
            _ => {}
        }
    }

    /// The measuring is over; what is out may still come.
    fn wait(&mut self, now: Duration, out: &mut Outbox) {
        self.at_end = self.usage();
        self.end_interval(now);
        let longest = 2 * self.record.latency.max();
        self.stage = Stage::Waiting(now + longest.clamp(SHORTEST_WAIT, LONGEST_WAIT));
        self.end_if_all_came(out);
    }

    fn end(&mut self, now: Duration, out: &mut Outbox) {
        if self.stage.is_loaded() {
            self.at_end = self.usage();
        }
        if self.stage.is_measured() {
            self.end_interval(now);
        }
        match self.plan.workload {
            Workload::Fanout => self.count_undelivered(),
            Workload::Echo | Workload::Idle { .. } => self.count_unanswered(now),
            Workload::Connect => {}
        }
        self.stage = Stage::Over;
        out.stop();
    }

    fn usage(&mut self) -> Usage {
        Usage::read(&self.plan.pids).unwrap_or_else(|error| {
            self.record.error("server gone", || error.to_string());
            self.at_begin
        })
    }

    fn connection_over(&mut self, out: &mut Outbox) {
        if self.stage == Stage::Connecting && self.ordered == self.plan.connections && self.connecting == 0 {
            self.begin_load(out);
        } else if self.open == 0 && self.plan.workload != Workload::Connect {
            match self.stage {
                Stage::Warmup(_) | Stage::Measuring(_) | Stage::Waiting(_) => self.end(out.now(), out),
                Stage::Connecting | Stage::Over => {}
            }
        } else {
            self.end_if_all_came(out);
        }
    }
}

impl App for Load {
    /// Its place in `flights`.
    type Connection = usize;

    fn on_tick(&mut self, now: Duration, out: &mut Outbox) -> Option<Duration> {
        if self.stage == Stage::Over {
            return None;
        }
        if self.stage == Stage::Connecting && self.plan.workload == Workload::Connect {
            self.stage = Stage::Warmup(now + self.plan.warmup);
        }
        self.next_stage(now, out);
        self.connect(now, out);
        if self.stage.is_loaded() {
            self.send_due(now, out);
        }
        self.progress(now);
        let connects = self.stage == Stage::Connecting || self.plan.workload == Workload::Connect;
        let times = [
            Some(self.next_progress),
            self.stage.end(),
            self.send_pace.map(|pace| pace.next()),
            connects.then(|| now + LOOK_AGAIN),
        ];
        times.into_iter().flatten().min()
    }

    fn on_open(&mut self, id: ConnectionId, request: &Request<'_>, out: &mut Outbox) -> usize {
        self.connecting -= 1;
        self.open += 1;
        let took = nanoseconds(out).saturating_sub(request.tag());
        self.record.handshake.add(took);
        if self.plan.workload == Workload::Connect {
            self.record.answer(took);
            out.close(id, CloseCode::Normal, "");
            return 0;
        }
        self.flights.push(Flight { id: Some(id), sent_at: VecDeque::new(), sent: 0, answered: 0, owed: 0 });
        self.connect(out.now(), out);
        self.connection_over(out);
        self.flights.len() - 1
    }

    fn on_connect_failed(&mut self, _: u64, error: &ConnectError, out: &mut Outbox) {
        self.connecting -= 1;
        if self.stage != Stage::Over {
            self.record.error(kind_of_failure(error), || error.to_string());
            self.connection_over(out);
        }
    }

    fn on_message(&mut self, _: ConnectionId, flight: &mut usize, mut message: Message<'_>, out: &mut Outbox) {
        if self.stage == Stage::Over {
            return;
        }
        match self.plan.workload {
            Workload::Echo | Workload::Idle { .. } => self.answered(*flight, &mut message, out),
            Workload::Fanout => self.delivered(*flight, &mut message, out),
            Workload::Connect => {}
        }
    }

    fn on_written(&mut self, _: ConnectionId, flight: &mut usize, out: &mut Outbox) {
        let owed = std::mem::take(&mut self.flights[*flight].owed);
        if self.stage.is_loaded() {
            (0..owed).for_each(|_| self.send_or_owe(*flight, nanoseconds(out), out));
        }
    }

    fn on_close(&mut self, _: ConnectionId, flight: usize, reason: &CloseReason, out: &mut Outbox) {
        self.open -= 1;
        if self.plan.workload == Workload::Connect {
            return self.connect(out.now(), out);
        }
        let Flight { id, sent_at, answered, .. } = &mut self.flights[flight];
        *id = None;
        let lost = match self.plan.workload {
            Workload::Fanout if flight > 0 => u64::from(self.published.wrapping_sub(*answered)),
            _ => sent_at.len() as u64,
        };
        self.out = self.out.saturating_sub(lost);
        if self.stage != Stage::Over {
            if reason.clean {
                self.record.error("closed by the server", || format!("{} {}", u16::from(reason.code), reason.reason));
            }
            self.connection_over(out);
        }
    }

    fn on_error(&mut self, _: ConnectionId, _: &mut usize, error: &Error, _: &mut Outbox) {
        if self.stage != Stage::Over {
            self.record.error(kind_of_error(error), || error.to_string());
        }
    }

    fn on_drain(&mut self, out: &mut Outbox) {
        if self.stage != Stage::Over {
            self.interrupted = true;
            self.end(out.now(), out);
        }
    }
}

/// When the bytes at hand were read, or the pass began.
fn nanoseconds(out: &Outbox) -> u64 {
    out.now().as_nanos() as u64
}
