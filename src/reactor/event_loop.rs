//! The loop: poll, drain the bus, read what is ready, accept, expire deadlines, write what is dirty, sleep. The time is
//! read once per pass.
//!
//! Sockets are edge-triggered and registered once. A short read means that a socket is drained (except with TLS), so no
//! read only sees `WouldBlock`: an echoed message costs one read, one write and its share of one `epoll_wait`.

use super::dialing::Dialing;
use super::seat::Seat;
use super::sockets::{BUS, CONTROL, HANG_UP, Purpose, SIGNALS, Sockets, WAKER, Wake, wake};
use super::supervised::{Order as Command, Published, READY, next_order};
use super::target::Target;
use super::waker::Waker;
use super::writing::FAN_OUT_SHARE;
use crate::app::App;
use crate::os::allocator;
use crate::os::clock::{Clock, unix_time};
use crate::os::control::Control;
use crate::os::listener::Listener;
use crate::os::log_writer::{self, LogFormat};
use crate::os::signals::Signals;
use crate::session::{Fate, Sessions};
use crate::telemetry::log::{Level, counted};
use crate::telemetry::stats::Stats;
use mio::{Events, Poll};
use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::time::Duration;

/// Events taken from the kernel at a time.
const EVENTS: usize = 1024;
/// Upper bound on draining the bus in one pass, so that a participant that never stops publishing cannot starve the
/// rest.
const BUS_SHARE: Duration = Duration::from_millis(5);
/// A pass that begins this long after its deadline was held up.
const HELD_UP: Duration = Duration::from_secs(1);

/// How a run ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Outcome {
    /// After a signal or at the app's request, every connection was sent 1001 and has closed.
    Drained(Stats),
    /// The drain timeout cut off this many connections.
    Abandoned(usize, Stats),
    /// A second signal ended the run.
    Interrupted(Stats),
}

/// What a loop has besides its sessions: the parts of a server, of a client, and those of both.
#[derive(Default)]
pub(super) struct Setup {
    pub listeners: Vec<Listener>,
    pub service_listeners: Vec<Listener>,
    pub targets: Vec<Target>,
    /// Whether connections to targets begin with a handshake.
    pub handshake: bool,
    pub signals: Option<Signals>,
    /// SIGHUP, which is only logged.
    pub hang_up: Option<Signals>,
    /// The control line to a supervisor.
    pub control: Option<Control>,
    /// Lets other threads wake the loop.
    pub waker: Option<Waker>,
    /// The loop's seat on a bus.
    pub seat: Option<Seat>,
    /// Where the counters are published.
    pub published: Option<Published>,
    pub drain_timeout: Duration,
    pub log_format: LogFormat,
    /// A deadline nearer than this is busy-polled.
    pub busy_poll: Duration,
    /// How long the loop busy-polls before it sleeps.
    pub spin: Duration,
    /// Whether the clock is read for each read.
    pub time_each_read: bool,
}

pub(super) struct EventLoop<A: App> {
    pub(super) poll: Poll,
    pub(super) sessions: Sessions<A>,
    pub(super) sockets: Sockets,
    pub(super) setup: Setup,
    pub(super) dialing: Dialing,
    pub(super) clock: Clock,
    pub(super) drain_deadline: Option<Duration>,
    /// Signals so far.
    signals: usize,
    /// Connections that wait for a turn, with their generations.
    pub(super) turns: VecDeque<(u32, u32)>,
    /// When the pass began.
    pub(super) now: Duration,
    /// Connections that may continue in this pass; empty between passes.
    pub(super) resumed: Vec<(u32, u32)>,
    /// The clock as it was read last.
    pub(super) clock_read: Duration,
    /// Connections whose only unwritten data is fan-out messages, oldest first, with their generations.
    pub(super) postponed: VecDeque<(u32, u32)>,
    /// Memory of the backlog when the line was empty last.
    pub(super) backlog_before_line: usize,
    /// The rest of the pass's time share for such writes.
    pub(super) fan_out_left: Duration,
}

impl<A: App> EventLoop<A> {
    pub fn new(sessions: Sessions<A>, mut setup: Setup, clock: Clock) -> io::Result<EventLoop<A>> {
        let (poll, mut sockets) = (Poll::new()?, Sockets::new());
        for listener in std::mem::take(&mut setup.listeners) {
            sockets.listen(listener, Purpose::Public, None, poll.registry())?;
        }
        for listener in std::mem::take(&mut setup.service_listeners) {
            sockets.listen(listener, Purpose::Service, None, poll.registry())?;
        }
        if let Some(signals) = &mut setup.signals {
            signals.register(poll.registry(), SIGNALS)?;
        }
        if let Some(hang_up) = &mut setup.hang_up {
            hang_up.register(poll.registry(), HANG_UP)?;
        }
        if let Some(control) = &setup.control {
            control.set_nonblocking()?;
            control.register(poll.registry(), CONTROL)?;
            control.send(READY, &[])?;
        }
        if let Some(waker) = &setup.waker {
            waker.register(poll.registry(), WAKER)?;
        }
        if let Some(seat) = &setup.seat {
            seat.register(poll.registry(), BUS)?;
        }
        Ok(EventLoop {
            poll,
            sessions,
            sockets,
            setup,
            dialing: Dialing::default(),
            clock,
            drain_deadline: None,
            signals: 0,
            turns: VecDeque::new(),
            resumed: Vec::new(),
            now: Duration::ZERO,
            clock_read: Duration::ZERO,
            postponed: VecDeque::new(),
            backlog_before_line: 0,
            fan_out_left: Duration::ZERO,
        })
    }

    /// Runs until a signal or the app ends it.
    pub fn run(&mut self) -> io::Result<Outcome> {
        let mut events = Events::with_capacity(EVENTS);
        self.begin_pass(None);
        if self.setup.waker.is_some() {
            // Threads may have left work before there was a loop to wake.
            self.sessions.wake();
        }
        loop {
            let due = self.sleep(&mut events)?;
            self.begin_pass(due);
            self.drain_bus();
            let signals = self.read_events(&events)?;
            self.give_turns();
            self.accept();
            self.sessions.expire();
            self.resume();
            self.connect();
            self.signals += signals;
            if self.sessions.take_stop() || signals > 0 {
                self.drain();
            }
            self.write_dirty();
            self.write_postponed();
            self.end_pass();
            self.write_log();
            if let Some(published) = &mut self.setup.published {
                let took = self.clock.now().saturating_sub(self.now);
                self.sessions.show_memory();
                published.pass(took, self.sessions.stats_mut());
            }
            let outcome =
                if self.signals > 1 { Some(Outcome::Interrupted(*self.sessions.stats())) } else { self.drained() };
            self.write_log();
            if let Some(outcome) = outcome {
                return Ok(outcome);
            }
        }
    }

    /// Sleeps until something happens. Returns the deadline of the next pass.
    fn sleep(&mut self, events: &mut Events) -> io::Result<Option<Duration>> {
        let timeout = self.timeout();
        let due = timeout.map(|timeout| self.now + timeout);
        if timeout == Some(Duration::ZERO) {
            poll_events(&mut self.poll, events, timeout)?;
            return Ok(due);
        }
        let spin = timeout.map_or(self.setup.spin, |timeout| timeout.min(self.setup.spin));
        if self.looks_out(events, spin)? {
            return Ok(due);
        }
        let timeout = timeout.map(|timeout| timeout - spin);
        let Some(seat) = &mut self.setup.seat else {
            poll_events(&mut self.poll, events, timeout)?;
            return Ok(due);
        };
        if !seat.park()? {
            poll_events(&mut self.poll, events, Some(Duration::ZERO))?;
            return Ok(due);
        }
        let polled = poll_events(&mut self.poll, events, timeout);
        seat.unpark();
        polled.map(|()| due)
    }

    /// Reads the clocks. The wall clock may be set while we run, and advances while the machine sleeps.
    fn begin_pass(&mut self, due: Option<Duration>) {
        self.now = self.clock.now();
        self.clock_read = self.now;
        self.fan_out_left = FAN_OUT_SHARE;
        self.sessions.begin_pass(self.now);
        self.sessions.outbox.epoch = unix_time().saturating_sub(self.now);
        if due.is_some_and(|due| self.now > due + HELD_UP) {
            self.sessions.held_up();
        }
    }

    /// Busy-polls before sleeping: waking a parked loop costs the waker a system call. Returns whether anything
    /// arrived.
    fn looks_out(&mut self, events: &mut Events, spin: Duration) -> io::Result<bool> {
        // Poll once at least: two bus records in quick succession then need no wake-up between them.
        let was_active = self.setup.seat.as_mut().is_some_and(Seat::take_active);
        if spin.is_zero() && !was_active {
            return Ok(false);
        }
        let end = self.clock.now() + spin;
        loop {
            poll_events(&mut self.poll, events, Some(Duration::ZERO))?;
            if !events.is_empty() || self.setup.seat.as_ref().is_some_and(Seat::is_behind) {
                return Ok(true);
            }
            if self.clock.now() >= end {
                return Ok(false);
            }
        }
    }

    /// How long to sleep: not at all while a connection has more to read, or waits in line for a write or to be
    /// accepted.
    fn timeout(&self) -> Option<Duration> {
        let bus_has_more = self.setup.seat.as_ref().is_some_and(Seat::has_more);
        if !self.turns.is_empty() || !self.postponed.is_empty() || self.sockets.has_waiting() || bus_has_more {
            return Some(Duration::ZERO);
        }
        let longest = self.setup.published.as_ref().and_then(|published| published.longest_sleep);
        let deadlines = [self.sessions.next_deadline(), self.drain_deadline, longest.map(|sleep| self.now + sleep)];
        let sleep = deadlines.into_iter().flatten().min()?.saturating_sub(self.now);
        // The kernel sleeps whole milliseconds, rounded up.
        Some(if sleep < self.setup.busy_poll { Duration::ZERO } else { sleep - self.setup.busy_poll })
    }

    /// Acts on each event. Returns how many signals arrived.
    fn read_events(&mut self, events: &Events) -> io::Result<usize> {
        let mut signals = 0;
        for event in events {
            match wake(event.token()) {
                Wake::Connection { key, generation } => {
                    // A stale event: the key has been reused since.
                    if self.sessions.generation(key) != Some(generation) {
                        continue;
                    }
                    if self.sockets.get(key).is_some_and(|socket| socket.connecting)
                        && !self.is_connected(key, event.is_writable())
                    {
                        continue;
                    }
                    let Some(socket) = self.sockets.get(key) else { continue };
                    socket.reads_on |= event.is_read_closed();
                    let mut readable = event.is_readable();
                    if event.is_read_closed() {
                        self.sessions.peer_shut(key, event.is_write_closed());
                    }
                    if event.is_writable() {
                        readable |= std::mem::take(&mut socket.paused);
                        if self.sessions.writable(key) {
                            self.publish();
                            self.write_ready(key);
                        }
                    }
                    if readable {
                        self.read_ready(key, generation);
                    }
                }
                Wake::Listener(index) => self.sockets.listener_is_ready(index),
                Wake::Control => self.obey(),
                Wake::Waker => {
                    self.take_lookups();
                    self.sessions.wake();
                }
                Wake::Bus => self.setup.seat.as_mut().map_or(Ok(()), Seat::take_news)?,
                Wake::HangUp => self.note_hang_up(),
                Wake::Signals => signals += self.setup.signals.as_mut().map_or(0, Signals::take),
            }
        }
        Ok(signals)
    }

    /// The app, after [`EventLoop::run`].
    pub fn into_app(self) -> A {
        self.sessions.app
    }

    /// Drains the bus before reading from clients, who may already know of those records. Writes each batch while it is
    /// in the cache.
    fn drain_bus(&mut self) {
        let end = self.now + BUS_SHARE;
        while self.setup.seat.as_mut().is_some_and(|seat| seat.drain(&mut self.sessions)) && self.clock.now() < end {
            self.write_dirty();
        }
    }

    fn end_pass(&mut self) {
        let sockets = &mut self.sockets;
        self.sessions.end_pass(|key, fate| match fate {
            Fate::ShutdownWrite => {
                if let Some(socket) = sockets.get(key) {
                    socket.stream.shutdown_write();
                }
            }
            Fate::Close => sockets.remove(key),
        });
        if self.turns.is_empty() && self.postponed.is_empty() && self.sessions.is_relieved() {
            allocator::trim();
        }
    }

    /// Obeys the supervisor. Without one no process would restart or end this one, so it drains.
    fn obey(&mut self) {
        while let Some(control) = &self.setup.control {
            match next_order(control) {
                Some(Some((Command::Drain, _))) => self.drain(),
                Some(Some((Command::Retire, _))) => self.retire(),
                Some(Some((Command::Lend { slot, service }, listeners))) => self.accept_for(slot, listeners, service),
                Some(Some((Command::TakeBack(slot), _))) => self.sockets.take_back(slot, self.poll.registry()),
                Some(None) => return,
                None => {
                    self.setup.control = None;
                    let text = "the supervisor is gone: this worker goes too".to_owned();
                    self.sessions.log.push(Level::Warn, "orphan", &[], text);
                    self.drain();
                }
            }
        }
    }

    /// A terminal that closes must not end the connections.
    fn note_hang_up(&mut self) {
        if self.setup.hang_up.as_mut().is_some_and(|hang_up| hang_up.take() > 0) {
            let text = "SIGHUP is ignored: only a supervisor (--workers) reloads; SIGTERM ends this process".to_owned();
            self.sessions.log.push(Level::Info, "hang_up", &[], text);
        }
    }

    /// Starts the drain: every connection is closed. The first signal, an order or the app begins it.
    fn drain(&mut self) {
        if self.sessions.is_draining() {
            return;
        }
        let text = format!("stopping: telling {} to go", counted(self.sessions.stats().open, "connection*"));
        self.sessions.log.push(Level::Info, "drain", &[], text);
        self.accept_last();
        self.sessions.drain();
        self.drain_deadline.get_or_insert(self.now + self.setup.drain_timeout);
    }

    /// A successor serves: closes the connections one after another, leaving the last of the time for their answers.
    fn retire(&mut self) {
        if self.drain_deadline.is_some() {
            return;
        }
        let (all, answers) = (self.setup.drain_timeout, self.setup.drain_timeout / 4);
        let text =
            format!("retiring: telling {} to go, over {all:?}", counted(self.sessions.stats().open, "connection*"));
        self.sessions.log.push(Level::Info, "retire", &[], text);
        self.sockets.stop_listening(self.poll.registry());
        self.sessions.retire(all - answers);
        self.drain_deadline = Some(self.now + all);
    }

    /// Returns the outcome once the drain is over.
    fn drained(&mut self) -> Option<Outcome> {
        let deadline = self.drain_deadline?;
        if self.sessions.is_empty() && self.sessions.app.is_finished() {
            return Some(Outcome::Drained(*self.sessions.stats()));
        }
        if self.now < deadline {
            return None;
        }
        let cut_off = self.sessions.abandon();
        self.sessions.app.on_abandon(&mut self.sessions.outbox);
        self.end_pass();
        match cut_off {
            // Only the app was unfinished.
            0 => Some(Outcome::Drained(*self.sessions.stats())),
            cut_off => Some(Outcome::Abandoned(cut_off, *self.sessions.stats())),
        }
    }

    fn write_log(&mut self) {
        log_writer::write_log(self.setup.log_format, self.sessions.gather_log());
        self.sessions.stats_mut().log_lines_dropped = log_writer::lines_dropped();
    }
}

/// Polls, replacing the previous events; an interrupting signal leaves none.
fn poll_events(poll: &mut Poll, events: &mut Events, timeout: Option<Duration>) -> io::Result<()> {
    match poll.poll(events, timeout) {
        Err(error) if error.kind() != ErrorKind::Interrupted => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apps::echo::Echo;
    use crate::session::Settings;
    use crate::telemetry::log::Log;

    #[test]
    fn the_time_of_the_calendar_follows_the_clock_that_is_set() -> io::Result<()> {
        let sessions = Sessions::new(Echo, Settings::default(), Log::new(None), 0, [1; 32]);
        let mut event_loop = EventLoop::new(sessions, Setup::default(), Clock::start())?;
        // As if the machine had slept, or started with a wrong clock, since the last pass.
        event_loop.sessions.outbox.epoch = Duration::from_secs(1);
        let before = unix_time();
        event_loop.begin_pass(None);
        let told = event_loop.sessions.outbox.unix_time();
        assert!(before <= told && told <= unix_time(), "{told:?}");
        Ok(())
    }
}
