//! Floor 6, the supervisor: one worker process per slot, each with its own listeners.
//!
//! It holds no connection. It binds every listener and keeps it open, so that the death or replacement of a worker
//! loses no connection that waits to be accepted. A worker is the same program, started with [`WORKER_COMMAND`]; it
//! notices the end of its supervisor, whatever the cause, by the end of its standard input, and then drains.
//!
//! When the worker of a slot died, does not start or hangs, a serving worker borrows its listeners, so that no
//! connection waits for a restart. A serving worker is never ended for the sake of others.
//!
//! Invariant: a slot has at most one serving worker; replaced ones are among the retiring ones.

pub mod admin;
mod backoff;
mod bus;
mod keeper;
mod lending;
mod listeners;
mod orphan;
mod ready;
mod worker;

pub use keeper::KEEPER_COMMAND;
pub use listeners::{ListenPattern, SlotListeners, listen_all};
pub use orphan::watch_for_orphans;
pub use ready::Ready;
pub use worker::{Assignment, Program, WORKER_COMMAND};

use crate::os::bus::BusKeeper;
use crate::os::clock::Clock;
use crate::os::log_writer::{self, LogFormat};
use crate::os::signals::{self, SIGCHLD, SIGHUP, Signals};
use crate::reactor::Order;
use crate::telemetry::log::{Field, Level, Log, counted, in_words};
use crate::telemetry::pulse::pass_every;
use crate::telemetry::stats::Stats;
use admin::{SharedBoard, SlotView};
use backoff::{Backoff, MOST_AT_ONCE};
use mio::{Events, Poll, Token};
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use worker::Worker;

const ENDING: Token = Token(0);
const HANG_UP: Token = Token(1);
const CHILD: Token = Token(2);
/// A new worker that does not serve by then has failed to start.
const START_TIMEOUT: Duration = Duration::from_secs(10);
/// How long beyond the drain timeout a worker may take to end.
const KILL_AFTER: Duration = Duration::from_secs(2);

/// The settings of a supervisor.
pub struct Plan {
    /// The program of workers.
    pub program: Program,
    /// The program of the keeper of their history, if they have one.
    pub keeper: Option<Program>,
    /// By slot.
    pub listeners: Vec<SlotListeners>,
    /// By slot: the processor to run on; `None` for any.
    pub cpus: Vec<Option<usize>>,
    /// How long workers have to drain, which they know themselves.
    pub drain_timeout: Duration,
    /// A worker without a pass for this long is replaced; zero for never.
    pub hang_timeout: Duration,
    /// The bus of the workers.
    pub bus: Option<BusKeeper>,
    /// The content of the admin listener.
    pub board: SharedBoard,
    /// The service manager that waits for readiness.
    pub ready: Ready,
    /// Log records to write once all workers serve.
    pub log: Log,
    /// The format of log lines.
    pub log_format: LogFormat,
}

#[derive(Default)]
struct Slot {
    worker: Option<Worker>,
    backoff: Backoff,
    /// When to start the next worker.
    due: Option<Duration>,
    past: Stats,
    restarts: u64,
    /// The slot and the process of the worker that accepts for this one.
    lent_to: Option<(usize, u32)>,
}

/// New workers; all must serve before any takes over.
struct Reload {
    fresh: Vec<Worker>,
    deadline: Duration,
}

/// Runs workers until the service ends.
pub struct Supervisor {
    plan: Plan,
    poll: Poll,
    clock: Clock,
    now: Duration,
    slots: Vec<Slot>,
    retiring: Vec<Worker>,
    /// The keeper, in its own slot without listeners.
    keeper: Slot,
    reload: Option<Reload>,
    reloads: [u64; 2],
    /// When to replace all workers so that they move to another bus; and whether creating that bus failed.
    moves: Option<Duration>,
    bus_failed: bool,
    /// Whether any worker has served, whether all did at once, and whether that was announced.
    served: bool,
    ready: bool,
    announced: bool,
    stopping: bool,
    signals: usize,
    /// Why the service ends, unless it was told to.
    failure: Option<String>,
    log: Log,
}

impl Supervisor {
    /// A supervisor without workers.
    ///
    /// # Errors
    /// As `epoll_create(2)`.
    pub fn new(plan: Plan) -> io::Result<Supervisor> {
        let (slots, log) = (plan.listeners.iter().map(|_| Slot::default()).collect(), plan.log.like());
        Ok(Supervisor {
            plan,
            poll: Poll::new()?,
            clock: Clock::start(),
            now: Duration::ZERO,
            slots,
            retiring: Vec::new(),
            keeper: Slot::default(),
            reload: None,
            reloads: [0; 2],
            moves: None,
            bus_failed: false,
            served: false,
            ready: false,
            announced: false,
            stopping: false,
            signals: 0,
            failure: None,
            log,
        })
    }

    /// Runs until SIGTERM or SIGINT and the end of all workers.
    ///
    /// # Errors
    /// When no worker ever served, and all die at once again and again; after a second signal; and when supervising is
    /// impossible: no epoll, no signal handler.
    pub fn run(mut self) -> io::Result<()> {
        let mut kinds = [
            (ENDING, Signals::new(&signals::ENDING)?),
            (HANG_UP, Signals::new(&[SIGHUP])?),
            (CHILD, Signals::new(&[SIGCHLD])?),
        ];
        for (token, signals) in &mut kinds {
            signals.register(self.poll.registry(), *token)?;
        }
        self.slots.iter_mut().for_each(|slot| slot.due = Some(Duration::ZERO));
        self.keeper.due = self.plan.keeper.is_some().then_some(Duration::ZERO);
        let mut events = Events::with_capacity(64);
        loop {
            self.now = self.clock.now();
            self.pass();
            self.show();
            self.announce();
            log_writer::write_log(self.plan.log_format, &mut self.log);
            if self.stopping && self.workers().next().is_none() && self.keeper_is_gone() {
                return self.failure.map_or(Ok(()), |failure| Err(io::Error::other(failure)));
            }
            let sleep = self.next_deadline().map(|at| at.saturating_sub(self.now));
            match self.poll.poll(&mut events, sleep) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
                _ => {}
            }
            self.now = self.clock.now();
            let [ending, hang_up, _] = kinds.each_mut().map(|(_, signals)| signals.take());
            if ending > 0 {
                self.told_to_end(ending);
            }
            if hang_up > 0 {
                self.reload();
            }
        }
    }

    /// Looks after every worker. There are few, so events do not identify them.
    fn pass(&mut self) {
        for worker in self.slots.iter_mut().filter_map(|slot| slot.worker.as_mut()) {
            worker.listen();
        }
        // First, as the workers wait for it.
        self.look_after_keeper();
        self.bury();
        self.go_on_reloading();
        self.keep_bus();
        self.kill_late();
        self.look();
        self.start_due();
        self.lend();
        self.served |= self.slots.iter().any(|slot| slot.worker.as_ref().is_some_and(|worker| worker.ready));
        self.ready |= self.slots.iter().all(|slot| slot.worker.as_ref().is_some_and(|worker| worker.ready));
    }

    /// Announces once that the service serves, when the board shows it.
    fn announce(&mut self) {
        if self.ready && !std::mem::replace(&mut self.announced, true) {
            log_writer::write_log(self.plan.log_format, &mut self.plan.log);
            self.plan.ready.serving();
        }
    }

    fn workers(&mut self) -> impl Iterator<Item = &mut Worker> {
        let fresh = self.reload.iter_mut().flat_map(|reload| &mut reload.fresh);
        self.slots.iter_mut().filter_map(|slot| slot.worker.as_mut()).chain(&mut self.retiring).chain(fresh)
    }

    fn next_deadline(&mut self) -> Option<Duration> {
        let due = self.slots.iter().filter_map(|slot| slot.due).min();
        let reload = self.reload.as_ref().map(|reload| reload.deadline);
        let late = self.workers().filter_map(|worker| worker.deadline).min();
        let look = self.now + pass_every(self.plan.hang_timeout);
        let keeper = [self.keeper.due, self.keeper.worker.as_ref().and_then(|keeper| keeper.deadline)];
        [due, reload, late, Some(look)].into_iter().chain(keeper).flatten().min()
    }

    fn start(&mut self, slot: usize) -> io::Result<Worker> {
        let place = (slot, self.plan.cpus[slot]);
        Worker::start(&self.plan.program, place, &self.plan.listeners[slot], self.poll.registry(), self.now)
    }

    fn start_due(&mut self) {
        for number in 0..self.slots.len() {
            if self.stopping || self.slots[number].due.is_none_or(|due| due > self.now) {
                continue;
            }
            self.slots[number].due = None;
            match self.start(number) {
                Ok(worker) => {
                    let (pid, text) = (worker.pid(), format!("worker {number} is process {}", worker.pid()));
                    self.log.push(Level::Debug, "worker", &[("worker", &number), ("pid", &pid)], text);
                    self.slots[number].worker = Some(worker);
                }
                Err(error) => self.died(number, Duration::ZERO, false, &in_words(&error)),
            }
        }
    }

    /// Reaps workers that have ended.
    fn bury(&mut self) {
        for number in 0..self.slots.len() {
            let slot = &mut self.slots[number];
            let Some((worker, status)) =
                slot.worker.as_mut().and_then(|worker| worker.ended().map(|end| (worker, end)))
            else {
                continue;
            };
            slot.past.add(&worker.stats());
            let (lived, served, pid) = (self.now.saturating_sub(worker.started), worker.ready, worker.pid());
            slot.worker = None;
            if !self.stopping {
                self.died(number, lived, served, &format!("process {pid} {}", cause(status)));
            }
        }
        let mut retiring = std::mem::take(&mut self.retiring);
        retiring.retain_mut(|worker| {
            let ended = worker.ended();
            if ended.is_some() {
                self.slots[worker.slot].past.add(&worker.stats());
            }
            if let Some(status) = ended.filter(|status| !status.success()) {
                let text = format!("worker {}, which was retiring, {}", worker.slot, cause(status));
                self.log.push(Level::Warn, "worker", &[("worker", &worker.slot)], text);
            }
            ended.is_none()
        });
        self.retiring = retiring;
    }

    /// A worker died, or did not start: another replaces it. The service ends only if no worker ever served, since
    /// then the cause is not momentary, and retrying helps no one.
    fn died(&mut self, number: usize, lived: Duration, served: bool, how: &str) {
        let slot = &mut self.slots[number];
        let fields: [(_, &dyn Field); 2] = [("worker", &number), ("cause", &how)];
        let wait = slot.backoff.died(lived, served);
        if !self.served && self.slots.iter().all(|slot| slot.backoff.is_hopeless()) {
            let text = format!("worker {number} died at once {MOST_AT_ONCE} times, at last: {how}; the service stops");
            self.log.push(Level::Error, "worker", &fields, text.clone());
            self.failure = Some(text);
            return self.stop();
        }
        let slot = &mut self.slots[number];
        slot.restarts += 1;
        slot.due = Some(self.now + wait);
        let when = if wait.is_zero() { "now".to_owned() } else { format!("in {wait:?}") };
        let text = format!("worker {number} died: {how}; another starts {when}");
        self.log.push(Level::Error, "worker", &fields, text);
    }

    /// Ends workers that make no progress, so that others take their place.
    fn look(&mut self) {
        let (now, hang_timeout) = (self.now, self.plan.hang_timeout);
        for (number, slot) in self.slots.iter_mut().enumerate() {
            let Some(worker) = &mut slot.worker else { continue };
            let stalled = worker.pulse.stalls(hang_timeout);
            worker.look(now, hang_timeout);
            let pid = worker.pid();
            let fields: [(_, &dyn Field); 2] = [("worker", &number), ("pid", &pid)];
            let stood = worker.pulse.stood();
            let why = match worker.ready {
                _ if worker.killed => continue,
                true if worker.pulse.hangs(hang_timeout) => format!("hangs: its loop has not gone on for {stood:.1?}"),
                false if stood >= START_TIMEOUT => format!("does not serve {START_TIMEOUT:?} after its start"),
                _ => {
                    if !stalled && worker.pulse.stalls(hang_timeout) {
                        let text =
                            format!("worker {number}, process {pid}, stalls: its loop has not gone on for {stood:.1?}");
                        self.log.push(Level::Warn, "stall", &fields, text);
                    }
                    continue;
                }
            };
            worker.kill();
            let text = format!("worker {number}, process {pid}, {why}; it is killed");
            self.log.push(Level::Error, "hang", &fields, text);
        }
    }

    fn told_to_end(&mut self, times: usize) {
        self.signals += times;
        if self.signals > 1 {
            self.failure = Some("stopped at once by a second signal".into());
            self.workers().for_each(Worker::kill);
            self.keeper.worker.iter_mut().for_each(Worker::kill);
        }
        self.stop();
    }

    /// Drains every worker. New connections are refused from now on, so that clients turn elsewhere.
    fn stop(&mut self) {
        if std::mem::replace(&mut self.stopping, true) {
            return;
        }
        self.plan.ready.stopping();
        self.plan.listeners.fill(SlotListeners::default());
        let deadline = self.now + self.plan.drain_timeout + KILL_AFTER;
        self.workers().for_each(|worker| worker.order(Order::Drain, deadline));
        if let Some(reload) = self.reload.take() {
            self.retiring.extend(reload.fresh);
        }
        self.slots.iter_mut().for_each(|slot| slot.due = None);
        self.log.push(Level::Info, "drain", &[], format!("stopping {}", counted(self.slots.len(), "worker*")));
    }

    /// Starts new workers of the program now on disk; they take over once all of them serve.
    fn reload(&mut self) {
        if self.stopping || self.reload.is_some() {
            self.log.push(Level::Warn, "reload", &[], "not reloading: a reload, or the end, is under way".into());
            return;
        }
        self.plan.ready.reloading();
        self.log.push(
            Level::Info,
            "reload",
            &[],
            format!("reloading: starting {}", counted(self.slots.len(), "new worker*")),
        );
        let mut reload = Reload { fresh: Vec::new(), deadline: self.now + START_TIMEOUT };
        let failed = (0..self.slots.len()).find_map(|number| match self.start(number) {
            Ok(worker) => {
                reload.fresh.push(worker);
                None
            }
            Err(error) => Some(in_words(&error)),
        });
        self.reload = Some(reload);
        if let Some(error) = failed {
            self.reload_failed(&error);
        }
    }

    fn go_on_reloading(&mut self) {
        let Some(reload) = &mut self.reload else { return };
        reload.fresh.iter_mut().for_each(|worker| {
            worker.listen();
        });
        let ended = reload.fresh.iter_mut().find_map(|worker| worker.ended().map(|status| (worker.slot, status)));
        if let Some((slot, status)) = ended {
            return self.reload_failed(&format!("new worker {slot} {}", cause(status)));
        }
        if reload.deadline <= self.now {
            let text = format!("not all new workers serve after {START_TIMEOUT:?}");
            return self.reload_failed(&text);
        }
        if reload.fresh.iter().all(|worker| worker.ready) {
            self.take_over();
        }
    }

    /// The new workers serve: retires the old ones.
    fn take_over(&mut self) {
        let Some(reload) = self.reload.take() else { return };
        let deadline = self.now + self.plan.drain_timeout + KILL_AFTER;
        for worker in reload.fresh {
            let slot = &mut self.slots[worker.slot];
            slot.due = None;
            slot.backoff = Backoff::default();
            if let Some(mut old) = slot.worker.replace(worker) {
                old.order(Order::Retire, deadline);
                self.retiring.push(old);
            }
        }
        self.reloads[0] += 1;
        self.moves = None;
        // It restarts as the program now on disk, and on the current bus.
        self.end_keeper();
        let text = format!("reloaded: {} took over, the old ones retire", counted(self.slots.len(), "new worker*"));
        self.log.push(Level::Info, "reload", &[], text);
        self.plan.ready.serving();
    }

    /// The old workers continue. New ones that serve already may hold connections, so they drain.
    fn reload_failed(&mut self, why: &str) {
        let Some(reload) = self.reload.take() else { return };
        let deadline = self.now + self.plan.drain_timeout + KILL_AFTER;
        for mut worker in reload.fresh {
            if worker.ready {
                worker.order(Order::Drain, deadline);
            } else {
                worker.kill();
            }
            self.retiring.push(worker);
        }
        self.reloads[1] += 1;
        let text = format!("reload failed: {why}; the old workers go on");
        self.log.push(Level::Error, "reload", &[("cause", &why)], text);
        self.plan.ready.serving();
    }

    fn kill_late(&mut self) {
        let now = self.now;
        let mut late = Vec::new();
        for worker in self.workers().filter(|worker| worker.deadline.is_some_and(|deadline| deadline <= now)) {
            worker.kill();
            worker.deadline = None;
            late.push(worker.slot);
        }
        for slot in late {
            let text = format!("worker {slot} did not end within --drain-timeout: killed");
            self.log.push(Level::Error, "worker", &[("worker", &slot)], text);
        }
    }

    /// Updates the board.
    fn show(&mut self) {
        let hang_timeout = self.plan.hang_timeout;
        let mut board = self.plan.board.lock().unwrap_or_else(PoisonError::into_inner);
        board.slots.resize_with(self.slots.len(), SlotView::default);
        for (slot, view) in self.slots.iter().zip(&mut board.slots) {
            view.past = slot.past;
            view.restarts = slot.restarts;
            view.up = slot.worker.as_ref().is_some_and(|worker| worker.serves(hang_timeout));
            view.process = slot.worker.as_ref().map(Worker::pid);
            view.hangs = slot.worker.as_ref().is_some_and(|worker| worker.ready && !worker.serves(hang_timeout));
            view.live = slot.worker.iter().map(|worker| worker.counters.clone()).collect();
        }
        let fresh = self.reload.iter().flat_map(|reload| &reload.fresh);
        for worker in self.retiring.iter().chain(fresh) {
            board.slots[worker.slot].live.push(worker.counters.clone());
        }
        board.keeper = self.plan.keeper.is_some().then(|| SlotView {
            past: self.keeper.past,
            live: self.keeper.worker.iter().map(|keeper| Arc::clone(&keeper.counters)).collect(),
            ..SlotView::default()
        });
        board.supervisor = Some(std::process::id());
        board.passes += 1;
        (board.ready, board.draining, board.reloads) = (self.ready, self.stopping, self.reloads);
    }
}

/// Why a process ended, in words.
fn cause(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("ended with exit code {code}"),
        (None, Some(signal)) if status.core_dumped() => format!("was ended by signal {signal}, with a core dump"),
        (None, Some(signal)) => format!("was ended by signal {signal}"),
        (None, None) => format!("ended: {status}"),
    }
}
