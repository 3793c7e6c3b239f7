//! A load shared by several processes: starts them, lets them begin together, and adds up their reports.
//!
//! Each is this program, run anew with [`WORKER_COMMAND`]. It opens its share of the connections, reports that and
//! waits; once all are ready, all are told when to begin. No connection is closed before every process has reported
//! its result, so as not to disturb those that still measure. A process that dies is an error; the others go on.

use super::line::{Order, Second, Word};
use super::merge::Merged;
use super::plan::{Plan, Workload};
use super::report::{Progress, Report};
use super::stage::Stage;
use super::usage::Usage;
use super::{DRAIN, PROGRESS_EVERY};
use crate::os::clock::{Clock, monotonic};
use crate::os::signals::{self, Signals};
use crate::telemetry::log::counted;
use mio::unix::pipe;
use mio::{Events, Interest, Poll, Token};
use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

/// The command that runs one of them.
pub const WORKER_COMMAND: &str = "bench-worker";
/// Time from the order to begin until the beginning.
const AHEAD: Duration = Duration::from_millis(100);
/// Each worker reports every second. One that is silent this long hangs, and is killed.
const SILENCE: Duration = Duration::from_secs(60);
/// How much longer than planned a process may take to close its connections before it is killed.
const GRACE: Duration = Duration::from_secs(10);
/// The token of signals; those of workers are their numbers.
const SIGNAL: Token = Token(usize::MAX - 1);
const READ_BYTES: usize = 64 * 1024;

/// What a worker runs.
pub struct Program {
    /// The executable.
    pub path: PathBuf,
    /// Arguments after the command.
    pub arguments: Vec<OsString>,
}

/// A worker, as its parent sees it.
struct Member {
    child: Child,
    /// `None` once it gets no more orders.
    orders: Option<pipe::Sender>,
    words: pipe::Receiver,
    /// The beginning of an incomplete line.
    begun: Vec<u8>,
    /// Whether its connections are open, it has reported its result, and it is gone.
    ready: bool,
    reported: bool,
    gone: bool,
    subscribers: u64,
    /// When it last sent something.
    heard: Duration,
    /// Its last progress, and whether that was shown.
    last: Second,
    shown: bool,
    /// The last second that it measured.
    second: u64,
}

impl Member {
    fn is_done(&self) -> bool {
        self.reported || self.gone
    }

    /// Sends it an order. A worker that does not take it, because it hangs or is gone, is killed; then its output ends.
    fn tell(&mut self, order: &Order) {
        let Some(orders) = &mut self.orders else { return };
        if orders.write_all(format!("{order}\n").as_bytes()).is_err() {
            self.orders = None;
            let _ = self.child.kill();
        }
    }
}

/// Runs a plan in several processes, to its end or to the first SIGINT or SIGTERM.
///
/// # Errors
/// When a process cannot be started, or a `--pid` is not a process.
pub fn run(plan: Plan, program: &Program) -> io::Result<Report> {
    let before = Usage::read(&plan.pids)?;
    let mut workers = Workers::start(plan, program)?;
    workers.go_on()?;
    workers.end()?;
    let Workers { plan, mut merged, .. } = workers;
    merged.end(plan.workload == Workload::Fanout);
    if let Some(server) = &mut merged.server {
        // Usage before any of them began.
        server.memory_before = before.memory;
    }
    Ok(Report {
        connected: merged.connected as usize,
        measured: merged.record.measured(),
        record: merged.record,
        server: merged.server,
        interrupted: merged.interrupted,
        plan,
    })
}

struct Workers {
    plan: Arc<Plan>,
    members: Vec<Member>,
    poll: Poll,
    signals: Signals,
    clock: Clock,
    /// When they were told to begin.
    begun: Option<Duration>,
    /// How many signals to end have come.
    stops: usize,
    merged: Merged,
}

impl Workers {
    fn start(plan: Plan, program: &Program) -> io::Result<Workers> {
        let poll = Poll::new()?;
        let mut signals = Signals::new(&signals::ENDING)?;
        signals.register(poll.registry(), SIGNAL)?;
        let (plan, beginning) = (Arc::new(plan), monotonic());
        let (members, merged) = (Vec::new(), Merged::new());
        let clock = Clock::since(beginning);
        let mut all = Workers { plan, members, poll, signals, clock, begun: None, stops: 0, merged };
        for index in 0..all.plan.share.workers {
            match all.start_one(program, index, beginning) {
                Ok(member) => all.members.push(member),
                Err(error) => {
                    all.kill(|_| true);
                    let path = program.path.display();
                    return Err(io::Error::new(error.kind(), format!("cannot run {path}: {error}")));
                }
            }
        }
        Ok(all)
    }

    fn start_one(&self, program: &Program, index: usize, beginning: Duration) -> io::Result<Member> {
        let mut command = Command::new(&program.path);
        command.arg(WORKER_COMMAND).args(&program.arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn()?;
        let missing = || io::Error::other("no pipe");
        let orders = pipe::Sender::from(child.stdin.take().ok_or_else(missing)?);
        let mut words = pipe::Receiver::from(child.stdout.take().ok_or_else(missing)?);
        orders.set_nonblocking(true)?;
        words.set_nonblocking(true)?;
        self.poll.registry().register(&mut words, Token(index), Interest::READABLE)?;
        let mut member = Member {
            child,
            orders: Some(orders),
            words,
            begun: Vec::new(),
            ready: false,
            reported: false,
            gone: false,
            subscribers: 0,
            heard: self.clock.now(),
            last: Second::default(),
            shown: true,
            second: 0,
        };
        member.tell(&Order::Start(index, self.plan.share.workers, beginning.as_nanos() as u64));
        Ok(member)
    }

    /// Runs until each worker has reported its result or is gone.
    fn go_on(&mut self) -> io::Result<()> {
        while !self.members.iter().all(Member::is_done) {
            if self.begun.is_none() && self.members.iter().all(|member| member.ready || member.is_done()) {
                self.begin();
            }
            let silent = self.members.iter().filter(|member| !member.is_done()).map(|member| member.heard).min();
            self.look(silent.unwrap_or_default() + SILENCE)?;
            self.end_silent();
        }
        Ok(())
    }

    /// Kills workers that have been silent for too long; then their output ends.
    fn end_silent(&mut self) {
        let now = self.clock.now();
        for member in self.members.iter_mut().filter(|member| !member.is_done() && member.heard + SILENCE <= now) {
            let pid = member.child.id();
            self.merged.record.error("worker hung", || format!("process {pid} was silent for {} s", SILENCE.as_secs()));
            member.heard = now;
            let _ = member.child.kill();
        }
    }

    fn begin(&mut self) {
        let at = self.clock.now() + AHEAD;
        let subscribers = self.members.iter().map(|member| if member.is_done() { 0 } else { member.subscribers });
        let order = Order::Go(at.as_nanos() as u64, subscribers.collect());
        self.tell_all(&order);
        self.begun = Some(at);
    }

    /// Waits for events up to a time and handles them, once.
    fn look(&mut self, until: Duration) -> io::Result<()> {
        let mut events = Events::with_capacity(256);
        match self.poll.poll(&mut events, Some(until.saturating_sub(self.clock.now()))) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            other => other?,
        }
        for event in &events {
            match event.token() {
                SIGNAL => self.interrupt(),
                Token(index) => self.listen(index),
            }
        }
        Ok(())
    }

    /// The first time, orders all to end and report their results; the second time, kills them.
    fn interrupt(&mut self) {
        self.stops += self.signals.take();
        self.merged.interrupted = true;
        self.tell_all(&Order::Stop);
        if self.stops > 1 {
            self.kill(|_| true);
        }
    }

    fn tell_all(&mut self, order: &Order) {
        self.members.iter_mut().for_each(|member| member.tell(order));
    }

    /// Reads what a worker sends, up to the end of its last line.
    fn listen(&mut self, index: usize) {
        let mut buffer = [0; READ_BYTES];
        self.members[index].heard = self.clock.now();
        loop {
            let member = &mut self.members[index];
            match member.words.read(&mut buffer) {
                Ok(0) => return self.gone(index),
                Ok(bytes) => member.begun.extend_from_slice(&buffer[..bytes]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return self.gone(index),
            }
            let Some(end) = member.begun.iter().rposition(|byte| *byte == b'\n') else { continue };
            let rest = member.begun.split_off(end + 1);
            let lines = std::mem::replace(&mut member.begun, rest);
            for line in String::from_utf8_lossy(&lines).lines() {
                if let Some(word) = Word::parse(line) {
                    self.hear(index, word);
                }
            }
        }
    }

    fn hear(&mut self, index: usize, word: Word) {
        let begun = self.begun.is_some();
        let [publisher, ..] = &mut self.members[..] else { return };
        match word {
            Word::Ready(subscribers) => {
                (self.members[index].ready, self.members[index].subscribers) = (true, subscribers);
            }
            Word::Came(count) => publisher.tell(&Order::Came(index, count)),
            // Until `Order::Go` tells the publisher the number of subscribers, only that number changes.
            Word::Gone(answered) if begun => publisher.tell(&Order::Gone(index, answered)),
            Word::Gone(_) => self.members[index].subscribers = self.members[index].subscribers.saturating_sub(1),
            Word::Published(count) => {
                self.merged.published = count;
                self.members.iter_mut().skip(1).for_each(|member| member.tell(&Order::Published(count)));
            }
            Word::Progress(second) => {
                let number = self.merged.add_second(&second);
                let member = &mut self.members[index];
                member.second = number.unwrap_or(member.second);
                (member.last, member.shown) = (second, false);
                self.show();
            }
            Word::Report(report) => {
                self.members[index].reported = self.merged.add_report(&report).is_some();
                self.show();
            }
        }
    }

    /// Shows progress, once all running workers have reported since the last time.
    fn show(&mut self) {
        if self.members.iter().any(|member| member.shown && !member.is_done()) {
            return;
        }
        let going = || self.members.iter().filter(|member| !member.is_done());
        let last = going().map(|member| member.second).min().unwrap_or(u64::MAX);
        let interval = self.merged.end_seconds(last);
        let stage = match going().map(|member| member.last.stage).min() {
            Some(2) => Stage::Warmup(Duration::ZERO),
            Some(4..) => Stage::Waiting(Duration::ZERO),
            _ => Stage::Connecting,
        };
        let too_short = interval.is_some_and(|interval| interval.length < PROGRESS_EVERY / 10);
        let is_over = going().next().is_none() && interval.is_none();
        if !self.plan.quiet && !too_short && !is_over {
            let (open, errors) = self
                .members
                .iter()
                .filter(|member| !member.gone)
                .fold((0, 0), |(open, errors), member| (open + member.last.open, errors + member.last.errors));
            Progress { stage, connected: open as usize, plan: &self.plan, interval, errors }.print();
        }
        self.members.iter_mut().for_each(|member| member.shown = true);
    }

    /// A worker is gone. That is an error, unless it had reported its result.
    fn gone(&mut self, index: usize) {
        let member = &mut self.members[index];
        let was_gone = std::mem::replace(&mut member.gone, true);
        if was_gone || member.reported {
            return;
        }
        member.orders = None;
        let (pid, open) = (member.child.id(), member.last.open);
        // It has closed its standard output, so it is of no more use, whatever it does.
        let _ = member.child.kill();
        let how = member.child.wait().map_or_else(|error| error.to_string(), how_it_ended);
        let with = counted(open as usize, "connection*");
        let said = || format!("process {pid}, number {index}, {how}, with {with}");
        self.merged.record.error("worker died", said);
        if index == 0 && self.plan.workload == Workload::Fanout {
            // No process publishes any more.
            self.tell_all(&Order::Stop);
        } else if self.begun.is_some() {
            self.members[0].tell(&Order::Died(index));
        }
        self.show();
    }

    /// Lets them close their connections, and waits until all are gone, up to a limit.
    fn end(&mut self) -> io::Result<()> {
        self.tell_all(&Order::Stop);
        let deadline = self.clock.now() + DRAIN + GRACE;
        while !self.members.iter().all(|member| member.gone) && self.clock.now() < deadline {
            self.look(deadline)?;
        }
        self.kill(|member| !member.gone);
        for member in &mut self.members {
            member.child.wait()?;
        }
        Ok(())
    }

    /// Kills some of them, and returns how many.
    fn kill(&mut self, which: impl Fn(&Member) -> bool) -> usize {
        let some = self.members.iter_mut().filter(|member| which(member));
        some.map(|member| member.child.kill()).count()
    }
}

fn how_it_ended(status: ExitStatus) -> String {
    match (status.signal(), status.code()) {
        (Some(signal), _) => format!("was killed by signal {signal}"),
        (None, code) => format!("exited with code {}", code.unwrap_or_default()),
    }
}
