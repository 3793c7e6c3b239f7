//! The app that makes the load: opens connections, sends, checks what comes back, and moves from stage to stage.

use super::fanout::Elsewhere;
use super::faults::{kind_of_error, kind_of_failure};
use super::line::Word;
use super::pace::Pace;
use super::payload::Payload;
use super::plan::{Plan, Workload};
use super::progress::PROGRESS_EVERY;
use super::record::Record;
use super::stage::Stage;
use super::usage::Usage;
use super::worker::Line;
use crate::app::{App, ConnectError, Error};
use crate::net::id::ConnectionId;
use crate::outbox::{Delivery, Outbox};
use crate::protocol::close::CloseReason;
use crate::protocol::http::Request;
use crate::protocol::message::Message;
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tungstenite::protocol::frame::coding::CloseCode;

/// Connections being opened at a time, fewer than fit into a server's accept queue.
const MOST_CONNECTING: usize = 256;
/// The least for each process where several share that number.
const LEAST_CONNECTING: usize = 4;
/// Interval of checks while connections are opened, or reopened after a failure.
const LOOK_AGAIN: Duration = Duration::from_millis(10);
/// Most bytes to queue for a connection; messages beyond that wait as a number, not as bytes.
const MOST_QUEUED_BYTES: usize = 256 * 1024;
/// Least wait for outstanding answers at the end: it is twice the longest latency, within bounds.
const SHORTEST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// The wait goes on as long as something has come within this time.
const STILL_COMING: Duration = Duration::from_secs(5);

/// Messages in flight on a connection.
pub(super) struct Flight {
    /// `None` once it has ended.
    pub(super) id: Option<ConnectionId>,
    /// When each unanswered message was sent, or due to be sent: nanoseconds since the start.
    pub(super) sent_at: VecDeque<u64>,
    sent: u32,
    /// Answers so far; of a subscriber, the number of the next message.
    pub(super) answered: u32,
    /// Messages to send once the queue has been written.
    owed: usize,
}

/// See the module.
pub struct Load {
    pub(super) plan: Arc<Plan>,
    /// The number of source addresses, used in turn.
    sources: usize,
    pub(super) payload: Payload,
    pub(super) stage: Stage,
    pub(super) record: Record,
    pub(super) flights: Vec<Flight>,
    /// Connections ordered so far, and those of them that are neither open nor failed.
    ordered: usize,
    connecting: usize,
    /// Connections open now.
    pub(super) open: usize,
    connect_pace: Option<Pace>,
    pub(super) send_pace: Option<Pace>,
    /// The connection that sends next in an open loop.
    next_sender: usize,
    /// Messages published, and whether any was delivered.
    pub(super) published: u32,
    pub(super) delivered: bool,
    /// Answers, or deliveries, outstanding on open connections.
    pub(super) out: u64,
    /// Messages sent or published.
    sent: u64,
    pub(super) next_progress: Duration,
    pub(super) before: Usage,
    pub(super) at_begin: Usage,
    pub(super) at_end: Usage,
    pub(super) interrupted: bool,
    /// The line to the process that started this one, if several share the load.
    pub(super) line: Option<Line>,
    /// What the publisher knows of other processes' subscribers, by process number.
    pub(super) elsewhere: Vec<Elsewhere>,
    /// Deliveries not reported to the publisher yet.
    pub(super) untold: u64,
    /// Whether the number of published messages was reported: by the publisher, or to this process.
    pub(super) told_published: bool,
}

impl Load {
    /// Makes a load that has not begun.
    ///
    /// # Errors
    /// When a process of the plan does not exist.
    pub fn new(plan: Arc<Plan>, line: Option<Line>) -> io::Result<Load> {
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
            line,
            elsewhere: Vec::new(),
            untold: 0,
            told_published: false,
            sources: plan.sources().len(),
            plan,
        })
    }

    /// Orders the connections that are due.
    fn connect(&mut self, now: Duration, out: &mut Outbox) {
        if matches!(self.stage, Stage::Ready(_)) {
            return;
        }
        let again = self.plan.workload == Workload::Connect && self.stage.is_loaded();
        // The first connection to open publishes.
        let publisher_first = self.plan.publish_to.is_some() && self.is_first() && self.flights.is_empty();
        let most_connecting =
            if publisher_first { 1 } else { (MOST_CONNECTING / self.plan.share.workers).max(LEAST_CONNECTING) };
        while self.connecting < most_connecting
            && (self.ordered < self.plan.connections || (again && self.connecting + self.open < self.plan.connections))
        {
            if self.connect_pace.as_mut().is_some_and(|pace| pace.take(now).is_none()) {
                return;
            }
            // The publisher's target comes after those of all others.
            let target =
                if publisher_first { self.sources } else { (self.plan.share.first + self.ordered) % self.sources };
            out.connect(target, nanoseconds(out));
            self.ordered += 1;
            self.connecting += 1;
        }
    }

    /// All connections are open or have failed: begins the load, at once or in step with other processes.
    fn ready(&mut self, out: &mut Outbox) {
        let now = out.now();
        match &self.line {
            None => self.begin(now, out),
            Some(line) => {
                self.stage = Stage::Ready(None);
                let there = self.subscriptions().filter(|flight| flight.id.is_some());
                line.say(&Word::Ready(there.count() as u64));
            }
        }
    }

    /// Begins the load at `start`, which is now or has just passed.
    fn begin(&mut self, start: Duration, out: &mut Outbox) {
        let now = out.now();
        self.stage = Stage::Warmup(start + self.plan.warmup);
        if self.plan.warmup.is_zero() {
            self.next_stage(now, out);
        }
        let from = start + self.plan.share.phase(self.plan.rate);
        self.send_pace = self
            .plan
            .rate
            .filter(|_| self.plan.workload != Workload::Fanout || self.is_first())
            .map(|rate| Pace::new(from, rate));
        if self.plan.workload == Workload::Connect {
            self.connect_pace = self.plan.connect_rate.map(|rate| Pace::new(start, rate));
        }
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

    /// Sends one more message of a closed loop, or owes it while much is queued.
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
                    .error("not sent", || "a connection cannot send: the server reads too slowly or is closing".into());
            }
        }
    }

    /// Returns whether all messages of a counted run have been sent.
    pub(super) fn is_all_sent(&self) -> bool {
        self.plan.count.is_some_and(|count| self.sent >= count)
    }

    /// Counts a message. After the last one, waits for answers, up to a limit.
    pub(super) fn count_sent(&mut self, now: Duration) {
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
            self.record.error("wrong answer", || format!("{bytes} bytes that differ from message {number}"));
        }
        *answered = answered.wrapping_add(1);
        self.came(now.saturating_sub(at), 1, out);
        if self.plan.workload == Workload::Echo && self.send_pace.is_none() && self.stage.is_loaded() {
            self.send_or_owe(flight, now, out);
        }
    }

    /// An answer or a delivery arrived after `nanoseconds`; `count` fewer are outstanding.
    pub(super) fn came(&mut self, nanoseconds: u64, count: u64, out: &mut Outbox) {
        self.out = self.out.saturating_sub(count);
        match self.stage {
            Stage::Waiting(end) => {
                self.record.late.add(nanoseconds);
                self.stage = Stage::Waiting(end.max(out.now() + STILL_COMING));
            }
            _ => self.record.answer(nanoseconds),
        }
        self.end_if_all_came(out);
    }

    pub(super) fn end_if_all_came(&mut self, out: &mut Outbox) {
        let is_done = matches!(self.stage, Stage::Waiting(_)) || (self.stage.is_measured() && self.is_all_sent());
        if is_done && self.out == 0 && self.knows_published() {
            self.end(out.now(), out);
        }
    }

    /// Sends the messages due in an open loop.
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
                self.record.begin(now, !self.plan.warmup.is_zero());
                self.next_progress = now + PROGRESS_EVERY;
                self.at_begin = self.usage();
                // Its share of the messages may be none, or all may have come before it began.
                if self.plan.count.is_some_and(|count| count == 0) || (self.told_published && !self.is_first()) {
                    self.wait(now, out);
                }
            }
            Stage::Ready(Some(start)) if start <= now => self.begin(start, out),
            Stage::Measuring(end) if end <= now => self.wait(now, out),
            Stage::Waiting(end) if end <= now => self.end(now, out),
            _ => {}
        }
    }

    /// Measuring is over; outstanding answers may still come.
    pub(super) fn wait(&mut self, now: Duration, out: &mut Outbox) {
        self.at_end = self.usage();
        self.end_interval(now);
        self.next_progress = now + PROGRESS_EVERY;
        self.tell_published();
        let longest = if self.knows_published() { 2 * self.record.latency.max() } else { LONGEST_WAIT };
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
            Workload::Fanout if self.line.is_none() => {
                self.record.compare(self.published, self.delivered, self.undelivered());
            }
            Workload::Echo | Workload::Idle { .. } => self.count_unanswered(now),
            Workload::Connect | Workload::Fanout => {}
        }
        self.tell_published();
        self.stage = Stage::Over;
        if self.line.is_none() {
            return out.stop();
        }
        // Connections stay open: closing them would disturb processes that still measure.
        self.say_report();
    }

    pub(super) fn interrupt(&mut self, out: &mut Outbox) {
        if self.stage != Stage::Over {
            self.interrupted = true;
            self.end(out.now(), out);
        }
    }

    fn connection_over(&mut self, out: &mut Outbox) {
        if self.stage == Stage::Connecting && self.ordered == self.plan.connections && self.connecting == 0 {
            if self.open == 0 { self.end(out.now(), out) } else { self.ready(out) }
        } else if self.open == 0 && self.plan.workload != Workload::Connect {
            match self.stage {
                Stage::Ready(_) | Stage::Warmup(_) | Stage::Measuring(_) | Stage::Waiting(_) => {
                    self.end(out.now(), out);
                }
                Stage::Connecting | Stage::Over => {}
            }
        } else {
            self.end_if_all_came(out);
        }
    }
}

impl App for Load {
    /// Its place in `flights`.
    type State = usize;

    fn on_tick(&mut self, now: Duration, out: &mut Outbox) -> Option<Duration> {
        if self.stage == Stage::Over {
            return None;
        }
        if self.stage == Stage::Connecting && self.plan.workload == Workload::Connect {
            self.ready(out);
        }
        self.next_stage(now, out);
        self.connect(now, out);
        if self.stage.is_loaded() {
            self.send_due(now, out);
        }
        self.progress(now);
        let waits = matches!(self.stage, Stage::Connecting | Stage::Ready(_));
        let looks_again = waits || self.plan.workload == Workload::Connect || self.tells_publisher();
        self.tell_untold();
        let times = [
            Some(self.next_progress),
            self.stage.end(),
            self.send_pace.map(|pace| pace.next()),
            looks_again.then(|| now + LOOK_AGAIN),
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
            Workload::Fanout if flight > 0 || self.plan.share.index > 0 => {
                u64::from(self.published.wrapping_sub(*answered))
            }
            _ => sent_at.len() as u64,
        };
        let answered = *answered;
        if self.knows_published() {
            self.out = self.out.saturating_sub(lost);
        }
        if self.stage != Stage::Over {
            self.tell_gone(answered);
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
        self.interrupt(out);
    }

    fn on_wake(&mut self, out: &mut Outbox) {
        self.take_orders(out);
    }
}

/// The time when the bytes at hand were read, or the pass began.
pub(super) fn nanoseconds(out: &Outbox) -> u64 {
    out.now().as_nanos() as u64
}
