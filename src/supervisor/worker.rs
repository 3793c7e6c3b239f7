//! One worker process: how it is started and told things, and the other end of that in the worker itself.

use super::listeners::SlotListeners;
use crate::os::control::{Control, ControlMessage};
use crate::os::listener::Listener;
use crate::os::shared_words::SharedWords;
use crate::os::{cpus, signals};
use crate::reactor::{Order, READY};
use crate::telemetry::histogram::Histogram;
use crate::telemetry::pulse::Pulse;
use crate::telemetry::stats::Stats;
use mio::{Registry, Token};
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// The command that a supervisor runs.
pub const WORKER_COMMAND: &str = "worker";
/// What its supervisor registers a worker's line with: every worker is looked at when there is an event.
pub(super) const EVENT: Token = Token(3);
/// What a service manager says to the process it started, and to no other.
const FOR_THE_SUPERVISOR: [&str; 5] = ["NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "WATCHDOG_USEC"];

/// The program that workers run, and its arguments.
#[derive(Clone, Debug)]
pub struct Program {
    /// The executable, as it is on disk when a worker starts.
    pub path: PathBuf,
    /// [`WORKER_COMMAND`], or another.
    pub command: &'static str,
    /// What follows the command.
    pub arguments: Vec<OsString>,
}

/// A worker, as its supervisor sees it.
pub(super) struct Worker {
    child: Child,
    control: Control,
    pub counters: Arc<SharedWords>,
    pub slot: usize,
    /// Whether it said that it serves.
    pub ready: bool,
    pub started: Duration,
    /// Whether its loop goes on.
    pub pulse: Pulse,
    /// Whether it was told to end at once, and cannot be told again.
    pub killed: bool,
    /// When it is killed, if it is still there.
    pub deadline: Option<Duration>,
}

impl Worker {
    /// Starts a worker of a slot, with its listeners.
    pub fn start(
        program: &Program,
        (slot, cpu): (usize, Option<usize>),
        listeners: &SlotListeners,
        registry: &Registry,
        now: Duration,
    ) -> io::Result<Worker> {
        let counters = Arc::new(SharedWords::create("percore-counters", Stats::WORDS)?);
        let (control, theirs) = Control::pair()?;
        let mut command = Command::new(&program.path);
        command.arg(program.command).args(&program.arguments).stdin(Stdio::from(theirs));
        FOR_THE_SUPERVISOR.iter().for_each(|name| {
            command.env_remove(name);
        });
        // The order is sent first, so that a worker never waits for it.
        let descriptors: Vec<BorrowedFd<'_>> =
            std::iter::once(counters.as_fd()).chain(listeners.all().map(|listener| listener.as_fd())).collect();
        let start = Start { slot, cpu, layout: Stats::layout(), service: listeners.service.len() };
        control.send(&start.to_text(), &descriptors)?;
        control.set_nonblocking()?;
        control.register(registry, EVENT)?;
        let child = command
            .spawn()
            .map_err(|error| io::Error::new(error.kind(), format!("cannot run {}: {error}", program.path.display())))?;
        let pulse = Pulse::new(now);
        Ok(Worker { child, control, counters, slot, ready: false, started: now, pulse, killed: false, deadline: None })
    }

    /// Reads what it says: whether it has just become ready.
    pub fn listen(&mut self) -> bool {
        let was_ready = self.ready;
        while let Ok(Some(message)) = self.control.receive() {
            self.ready |= message.text == READY;
        }
        self.ready && !was_ready
    }

    /// Gives an order, to be carried out until `deadline`. One that is ending already takes none.
    pub fn order(&mut self, order: Order, deadline: Duration) {
        let _ = self.control.send(&order.to_text(), &[]);
        self.deadline = Some(self.deadline.map_or(deadline, |earlier| earlier.min(deadline)));
    }

    /// Has it accept for the worker of another slot as well, by all these listeners.
    ///
    /// # Errors
    /// When the order does not reach it.
    pub fn lend(&self, slot: usize, listeners: &SlotListeners) -> io::Result<()> {
        let descriptors: Vec<BorrowedFd<'_>> = listeners.all().map(|listener| listener.as_fd()).collect();
        let order = Order::Lend { slot, service: listeners.service.len() };
        self.control.send(&order.to_text(), &descriptors)
    }

    /// Ends [`Worker::lend`]. One that does not hear of it shares the listeners of that slot, which harms nobody.
    pub fn take_back(&self, slot: usize) {
        let _ = self.control.send(&Order::TakeBack(slot).to_text(), &[]);
    }

    /// Looks at whether its loop goes on.
    pub fn look(&mut self, now: Duration, hang_timeout: Duration) {
        self.pulse.look(passes(&self.counters), now, hang_timeout);
    }

    /// Whether it takes its part of the connections.
    pub fn serves(&self, hang_timeout: Duration) -> bool {
        self.ready && !self.killed && !self.pulse.stalls(hang_timeout)
    }

    /// How it ended, if it did.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Ends it at once.
    pub fn kill(&mut self) {
        self.killed = true;
        let _ = self.child.kill();
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has counted.
    pub fn stats(&self) -> Stats {
        counted(&self.counters)
    }
}

/// The counters that a process shows.
pub(super) fn counted(words: &SharedWords) -> Stats {
    Stats::from_words(&words.iter().map(|word| word.load(Relaxed)).collect::<Vec<_>>())
}

/// How many passes of its loop a process shows.
pub(super) fn passes(words: &SharedWords) -> u64 {
    Histogram::count(&counted(words).passes.0)
}

/// The first message: who a worker is. With it come the descriptors of the counters and of the listeners.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Start {
    slot: usize,
    cpu: Option<usize>,
    /// How the supervisor reads the counters: its version need not be the worker's.
    layout: u64,
    /// How many of the listeners, the last ones, are service listeners.
    service: usize,
}

impl Start {
    fn to_text(self) -> String {
        let cpu = self.cpu.map_or_else(|| "-".to_owned(), |cpu| cpu.to_string());
        format!("start {} {cpu} {} {}", self.slot, self.layout, self.service)
    }

    fn from_text(text: &str) -> Option<Start> {
        let mut words = text.strip_prefix("start ")?.split(' ');
        let slot = words.next()?.parse().ok()?;
        let cpu = match words.next()? {
            "-" => None,
            cpu => Some(cpu.parse().ok()?),
        };
        let layout = words.next()?.parse().ok()?;
        // A supervisor of before service listeners says nothing of them.
        let service = words.next().unwrap_or("0").parse().ok()?;
        Some(Start { slot, cpu, layout, service })
    }
}

/// What a worker was given.
pub struct Assignment {
    /// The number of its slot.
    pub slot: usize,
    /// Its end of the line.
    pub control: Control,
    /// Where it shows its counters; `None` when its supervisor is of a version that would not understand them.
    pub counters: Option<Arc<SharedWords>>,
    /// Where it listens.
    pub listeners: Vec<Listener>,
    /// Where it listens for the application behind it.
    pub service_listeners: Vec<Listener>,
}

impl Assignment {
    /// Receives it, and has this process run where it is to.
    ///
    /// # Errors
    /// When standard input is no line to a supervisor, or what comes over it makes no sense.
    pub fn receive() -> io::Result<Assignment> {
        let control = Control::of_standard_input()?;
        let no_supervisor = || io::Error::other("'percore worker' is for 'percore serve --workers N' to run");
        let ControlMessage { text, descriptors } = control.receive().ok().flatten().ok_or_else(no_supervisor)?;
        let start = Start::from_text(&text).ok_or_else(no_supervisor)?;
        let mut descriptors = descriptors.into_iter();
        let counters = descriptors.next().ok_or_else(no_supervisor)?;
        let mut listeners = descriptors.map(Listener::adopt).collect::<io::Result<Vec<_>>>()?;
        let service_listeners = listeners.split_off(listeners.len().saturating_sub(start.service));
        // A terminal that goes away tells all its processes; the supervisor reloads then, and its workers go on.
        signals::ignore(signals::SIGHUP)?;
        if let Some(cpu) = start.cpu {
            cpus::pin(cpu)?;
        }
        let counters = open_counters(counters, start.layout)?;
        Ok(Assignment { slot: start.slot, control, counters, listeners, service_listeners })
    }
}

fn open_counters(file: OwnedFd, layout: u64) -> io::Result<Option<Arc<SharedWords>>> {
    if layout != Stats::layout() {
        return Ok(None);
    }
    SharedWords::open(file, Stats::WORDS).map(|words| Some(Arc::new(words)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_as_text() {
        let first = Start { slot: 0, cpu: None, layout: 7, service: 0 };
        for start in [first, Start { slot: 12, cpu: Some(3), layout: u64::MAX, service: 2 }] {
            assert_eq!(Start::from_text(&start.to_text()), Some(start));
        }
        assert_eq!(Start::from_text("start 0 - 7"), Some(first));
        for bad in ["", "start", "start 1", "start x - 1", "start 1 x 1", "start 1 -", "begin 1 - 1"] {
            assert_eq!(Start::from_text(bad), None, "{bad}");
        }
    }
}
