//! Floor 6, the keeper of a history: the one process or thread of a bus that numbers publications on channels with
//! history, and writes them to files.
//!
//! [`KeeperApp`] is an app without connections: workers' questions arrive over the bus, are written in order of
//! arrival, and the result is announced to all. [`log`] is its log; `pubsub/history` decides. A keeper whose files are
//! held by another stands by until it gets them.
//!
//! Invariant: nothing is announced before it is written, and with [`Sync::Always`] before it is on the disk.

mod log;

use crate::app::App;
use crate::channel::record::Record;
use crate::net::id::{ConnectionId, Participant};
use crate::os::clock::{monotonic, unix_time};
use crate::os::history::boot;
use crate::os::signals;
use crate::outbox::Outbox;
use crate::protocol::http::Request;
use crate::protocol::message::Message;
use crate::pubsub::history::ask::{ASKS, Ask};
use crate::pubsub::history::keeper::{Moment, Verdict};
use crate::pubsub::history::word::{WORDS, Word};
use crate::telemetry::log::{Level, in_words};
use log::Log;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

/// How often a standby keeper tries to get the files, and a keeper retries a failed write.
const STAND_BY: Duration = Duration::from_millis(20);
/// How often to look for expired history, and for files with little of use to replace.
const TIDY_EVERY: Duration = Duration::from_millis(250);
/// How often to sync to the disk with [`Sync::Interval`].
const SYNC_EVERY: Duration = Duration::from_secs(1);
/// The least time between log lines about a full disk.
const LOG_EVERY: Duration = Duration::from_secs(10);

/// When writes are synced to the disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sync {
    /// Before they are announced.
    Always,
    /// Every second.
    Interval,
    /// Whenever the system does so.
    Never,
}

/// The settings of a keeper.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Setup {
    /// The folder of the bus, which has one keeper at a time.
    pub bus: PathBuf,
    /// The folder of the files.
    pub folder: PathBuf,
    /// Their permissions.
    pub mode: u32,
    /// When they are synced to the disk.
    pub sync: Sync,
    /// The bound on all histories, in bytes.
    pub max_bytes: usize,
}

/// The keeper as an app.
pub struct KeeperApp {
    setup: Setup,
    host: u64,
    /// `None` while another keeper holds the files.
    log: Option<Log>,
    listens: bool,
    /// Questions not considered yet.
    asks: Vec<Vec<u8>>,
    /// Questions may have been lost.
    greets: bool,
    /// When to tidy next, and write to the disk.
    tidy_at: Duration,
    sync_at: Duration,
    logged: Option<Duration>,
    /// On a thread: whether to end.
    stop: Arc<AtomicBool>,
}

impl KeeperApp {
    /// A keeper that takes the files once they are free, and ends when woken with `stop` set.
    ///
    /// # Errors
    /// As `sigaction(2)`.
    pub fn new(setup: Setup, stop: Arc<AtomicBool>) -> io::Result<KeeperApp> {
        // A file over its size limit becomes an error like a full disk.
        signals::ignore(signals::SIGXFSZ)?;
        Ok(KeeperApp {
            setup,
            host: boot(),
            log: None,
            listens: false,
            asks: Vec::new(),
            greets: false,
            tidy_at: Duration::ZERO,
            sync_at: Duration::ZERO,
            logged: None,
            stop,
        })
    }

    /// Takes the files, unless another keeper holds them.
    ///
    /// # Errors
    /// When the files cannot be read or written.
    fn take_files(&mut self, out: &mut Outbox) -> io::Result<()> {
        let offset = unix_time().saturating_sub(monotonic());
        let Some((log, notes)) = Log::open(&self.setup, self.host, offset)? else { return Ok(()) };
        for (level, text) in notes {
            out.log(level, "history", None, text);
        }
        out.stats.history_keeper = 1;
        (self.log, self.greets) = (Some(log), true);
        // The workers repeat earlier questions.
        self.asks.clear();
        Ok(())
    }

    /// Answers the questions.
    fn answer(&mut self, out: &mut Outbox) -> io::Result<()> {
        let Some(log) = &mut self.log else {
            self.asks.clear();
            return Ok(());
        };
        let (mut words, mut failed) = (Vec::new(), None);
        for ask in std::mem::take(&mut self.asks) {
            let Some(ask) = Ask::read(&ask) else {
                out.stats.bus_invalid += 1;
                continue;
            };
            if let Err(error) = log.write_dropped(&mut words) {
                failed = Some(error);
            }
            let now = Moment { monotonic: monotonic(), kept: log.now() };
            match log.keeper.consider(&ask, now) {
                Verdict::Pass => {}
                Verdict::Greet => self.greets = true,
                Verdict::Refuse(by) => {
                    out.stats.history_refused += 1;
                    words.push(Word::Refused(by).bytes());
                }
                Verdict::Known(by, position) => words.push(Word::Known(by, position).bytes()),
                Verdict::Write(payload, by) => {
                    // Dropped streams are announced before what follows.
                    let written = match log.keeper.unwritten() {
                        None => log.write(&payload, &mut words),
                        Some(_) => Err(io::ErrorKind::StorageFull.into()),
                    };
                    if let Err(error) = written {
                        out.stats.history_refused += 1;
                        log.keeper.refused(by, now.kept);
                        words.push(Word::Refused(by).bytes());
                        failed.get_or_insert(error);
                    }
                }
            }
        }
        if let Err(error) = log.write_dropped(&mut words) {
            failed = Some(error);
        }
        if let Some(error) = failed {
            self.note_failure(&error, out);
        }
        self.tell(words, out)
    }

    /// Announces what was written.
    fn tell(&mut self, words: Vec<Vec<u8>>, out: &mut Outbox) -> io::Result<()> {
        let Some(log) = &mut self.log else { return Ok(()) };
        if !words.is_empty() {
            log.settle(self.setup.sync)?;
        }
        for word in words {
            // A message too long for the bus is found in the files.
            if out.publish_away(WORDS, &word).is_err() {
                self.greets = true;
            }
        }
        if std::mem::take(&mut self.greets) {
            let hello = Word::Hello { log: log.log(), end: log.end() }.bytes();
            let _ = out.publish_away(WORDS, &hello);
        }
        Ok(())
    }

    fn note_failure(&mut self, error: &io::Error, out: &mut Outbox) {
        out.stats.history_write_errors += 1;
        if self.logged.is_none_or(|at| at + LOG_EVERY <= out.now()) {
            self.logged = Some(out.now());
            let text = format!(
                "cannot write the history in {}, and refuses what is published until it can: {}",
                self.setup.folder.display(),
                in_words(error)
            );
            out.log(Level::Error, "history", None, text);
        }
    }

    /// Does the periodic work. Returns the time of the next round.
    fn tidy(&mut self, now: Duration, out: &mut Outbox) -> io::Result<Duration> {
        let Some(log) = &mut self.log else { return Ok(now + STAND_BY) };
        if self.tidy_at <= now {
            let mut words = Vec::new();
            log.keeper.expire(log.now());
            let tidied = log
                .write_dropped(&mut words)
                .and_then(|()| log.tidy(self.setup.max_bytes, self.setup.sync, &mut words));
            self.tidy_at = match &tidied {
                // There is more to do.
                Ok(true) => now,
                Ok(false) | Err(_) => now + TIDY_EVERY,
            };
            self.tell(words, out)?;
            if let Err(error) = tidied {
                self.note_failure(&error, out);
            }
        }
        let Some(log) = &mut self.log else { return Ok(now + STAND_BY) };
        if self.setup.sync == Sync::Interval && self.sync_at <= now {
            log.sync_aside();
            self.sync_at = now + SYNC_EVERY;
        }
        let ((streams, bytes), stats) = (log.keeper.ledger().streams.held(), &mut out.stats);
        (stats.channels_streams, stats.channels_history_bytes) = (streams as u64, bytes as u64);
        stats.channels_evicted = log.keeper.ledger().streams.counts().evicted;
        stats.history_file_bytes = log.file_bytes();
        Ok(self.tidy_at)
    }

    fn pass(&mut self, now: Duration, out: &mut Outbox) -> io::Result<Duration> {
        if self.log.is_none() {
            self.take_files(out)?;
        }
        self.answer(out)?;
        if self.greets {
            self.tell(Vec::new(), out)?;
        }
        self.tidy(now, out)
    }
}

impl App for KeeperApp {
    type State = ();

    fn on_open(&mut self, _: ConnectionId, _: &Request<'_>, _: &mut Outbox) {}

    fn on_message(&mut self, _: ConnectionId, _: &mut (), _: Message<'_>, _: &mut Outbox) {}

    fn on_bus(&mut self, _: Participant, record: Record<'_>, out: &mut Outbox) {
        if record.channel == ASKS.as_bytes() {
            self.asks.push(record.payload.to_vec());
            out.tick_by(out.now());
        }
    }

    fn on_gap(&mut self, _: Participant, _: u64, out: &mut Outbox) {
        self.greets = true;
        out.tick_by(out.now());
    }

    fn on_tick(&mut self, now: Duration, out: &mut Outbox) -> Option<Duration> {
        if !std::mem::replace(&mut self.listens, true) {
            out.listen(ASKS, true);
        }
        match self.pass(now, out) {
            Ok(next) => Some(next),
            // Memory and files may differ now: the next keeper reads the files.
            Err(error) => {
                out.log(Level::Error, "history", None, format!("the keeper ends: {}", in_words(&error)));
                self.log = None;
                out.stats.history_keeper = 0;
                out.stop();
                None
            }
        }
    }

    fn on_wake(&mut self, out: &mut Outbox) {
        if self.stop.load(Relaxed) {
            out.stop();
        }
    }

    fn on_drain(&mut self, out: &mut Outbox) {
        let done = self.answer(out).and_then(|()| self.log.take().map_or(Ok(()), |log| log.close()));
        out.stats.history_keeper = 0;
        if let Err(error) = done {
            out.log(Level::Error, "history", None, in_words(&error));
        }
    }
}
