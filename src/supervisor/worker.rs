//! One worker process: its start, the orders to it, and the other end of the line in the worker itself.

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

/// The command that starts a worker.
pub const WORKER_COMMAND: &str = "worker";
/// The token of a worker's line: an event makes the supervisor look at every worker.
pub(super) const EVENT: Token = Token(3);
/// Variables of a service manager that are meant only for the process it started.
const FOR_THE_SUPERVISOR: [&str; 5] = ["NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "WATCHDOG_USEC"];

/// The program of workers, and its arguments.
#[derive(Clone, Debug)]
pub struct Program {
    /// The executable, read from disk when a worker starts.
    pub path: PathBuf,
    /// [`WORKER_COMMAND`], or another.
    pub command: &'static str,
    /// The arguments after the command.
    pub arguments: Vec<OsString>,
}

/// A worker, as its supervisor sees it.
pub(super) struct Worker {
    child: Child,
    control: Control,
    pub counters: Arc<SharedWords>,
    pub slot: usize,
    /// Whether it has reported that it serves.
    pub ready: bool,
    pub started: Duration,
    /// Whether its loop makes progress.
    pub pulse: Pulse,
    /// Whether it was killed, and takes no further order.
    pub killed: bool,
    /// When to kill it, if it is still alive.
    pub deadline: Option<Duration>,
}

impl Worker {
    /// Starts a worker for a slot, with its listeners.
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

    /// Reads its messages. Returns whether it has just become ready.
    pub fn listen(&mut self) -> bool {
        let was_ready = self.ready;
        while let Ok(Some(message)) = self.control.receive() {
            self.ready |= message.text == READY;
        }
        self.ready && !was_ready
    }

    /// Gives an order to carry out by `deadline`. A worker that is ending already takes none.
    pub fn order(&mut self, order: Order, deadline: Duration) {
        let _ = self.control.send(&order.to_text(), &[]);
        self.deadline = Some(self.deadline.map_or(deadline, |earlier| earlier.min(deadline)));
    }

    /// Makes it accept for the worker of another slot as well, on all these listeners.
    ///
    /// # Errors
    /// When the order does not reach it.
    pub fn lend(&self, slot: usize, listeners: &SlotListeners) -> io::Result<()> {
        let descriptors: Vec<BorrowedFd<'_>> = listeners.all().map(|listener| listener.as_fd()).collect();
        let order = Order::Lend { slot, service: listeners.service.len() };
        self.control.send(&order.to_text(), &descriptors)
    }

    /// Ends [`Worker::lend`]. A worker that misses this shares the listeners of that slot, which is harmless.
    pub fn take_back(&self, slot: usize) {
        let _ = self.control.send(&Order::TakeBack(slot).to_text(), &[]);
    }

    /// Checks whether its loop makes progress.
    pub fn look(&mut self, now: Duration, hang_timeout: Duration) {
        self.pulse.look(passes(&self.counters), now, hang_timeout);
    }

    /// Whether it takes its share of the connections.
    pub fn serves(&self, hang_timeout: Duration) -> bool {
        self.ready && !self.killed && !self.pulse.stalls(hang_timeout)
    }

    /// Its exit status, if it has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Kills it at once.
    pub fn kill(&mut self) {
        self.killed = true;
        let _ = self.child.kill();
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its counters.
    pub fn stats(&self) -> Stats {
        counted(&self.counters)
    }
}

/// The counters of a process.
pub(super) fn counted(words: &SharedWords) -> Stats {
    Stats::from_words(&words.iter().map(|word| word.load(Relaxed)).collect::<Vec<_>>())
}

/// The passes of a process's loop.
pub(super) fn passes(words: &SharedWords) -> u64 {
    Histogram::count(&counted(words).passes.0)
}

/// The first message: the identity of a worker. The descriptors of the counters and the listeners come with it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Start {
    slot: usize,
    cpu: Option<usize>,
    /// The layout of the counters that the supervisor reads: its version may differ from the worker's.
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
        // A supervisor without service listeners omits the number.
        let service = words.next().unwrap_or("0").parse().ok()?;
        Some(Start { slot, cpu, layout, service })
    }
}

/// What a worker receives at its start.
pub struct Assignment {
    /// The number of its slot.
    pub slot: usize,
    /// Its end of the line.
    pub control: Control,
    /// Its counters; `None` when the supervisor's version would not understand them.
    pub counters: Option<Arc<SharedWords>>,
    /// The listeners.
    pub listeners: Vec<Listener>,
    /// The listeners for the application behind it.
    pub service_listeners: Vec<Listener>,
}

impl Assignment {
    /// Receives the assignment, and pins this process to its processor.
    ///
    /// # Errors
    /// When standard input is not a line to a supervisor, or its message is invalid.
    pub fn receive() -> io::Result<Assignment> {
        let control = Control::of_standard_input()?;
        let no_supervisor = || io::Error::other("'percore worker' is for 'percore serve --workers N' to run");
        let ControlMessage { text, descriptors } = control.receive().ok().flatten().ok_or_else(no_supervisor)?;
        let start = Start::from_text(&text).ok_or_else(no_supervisor)?;
        let mut descriptors = descriptors.into_iter();
        let counters = descriptors.next().ok_or_else(no_supervisor)?;
        let mut listeners = descriptors.map(Listener::adopt).collect::<io::Result<Vec<_>>>()?;
        let service_listeners = listeners.split_off(listeners.len().saturating_sub(start.service));
        // A terminal that closes signals all its processes; the supervisor reloads then, and its workers continue.
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
