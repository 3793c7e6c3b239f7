//! Floor 6, the keeper of a history: the one process of a bus, or thread, that numbers what is published on channels with a history,
//! and writes it to files.
//!
//! [`KeeperApp`] is an app without connections: questions of workers come over the bus, are written in the order in which they came,
//! and what was written is told all. [`log`] is its log; `pubsub/history` decides. A keeper that does not get the files, because
//! another has them, stands by until it does.
//!
//! Invariant: nothing is told before it is written, and with [`Sync::Always`] before it is on the disk.

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

/// How often a keeper that stands by tries to get the files, and one that could not write does again.
const STAND_BY: Duration = Duration::from_millis(20);
/// How often what is too old is looked for, and files of which little is of use are replaced.
const TIDY_EVERY: Duration = Duration::from_millis(250);
/// How often what was written is brought to the disk, where that is done at intervals.
const SYNC_EVERY: Duration = Duration::from_secs(1);
/// Lines about a disk that is full are logged no more often.
const LOG_EVERY: Duration = Duration::from_secs(10);

/// When what is written is brought to the disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sync {
    /// Before anybody is told.
    Always,
    /// Every second.
    Interval,
    /// When the system does it by itself.
    Never,
}

/// What a keeper goes by.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Setup {
    /// The folder of the bus, which has one keeper at a time.
    pub bus: PathBuf,
    /// Where the files are.
    pub folder: PathBuf,
    /// Their permissions.
    pub mode: u32,
    /// When they are brought to the disk.
    pub sync: Sync,
    /// The bound on all histories, in bytes.
    pub max_bytes: usize,
}

/// The keeper, as an app.
pub struct KeeperApp {
    setup: Setup,
    host: u64,
    /// None as long as another keeper has the files.
    log: Option<Log>,
    listens: bool,
    /// What was asked and not considered yet.
    asks: Vec<Vec<u8>>,
    /// Somebody may have asked what did not come.
    greets: bool,
    /// When it is tidied next, and the disk is written to.
    tidy_at: Duration,
    sync_at: Duration,
    logged: Option<Duration>,
    /// Where it runs on a thread: whether it is to end.
    stop: Arc<AtomicBool>,
}

impl KeeperApp {
    /// One that takes the files once they are there to be taken, and ends when it is woken and finds `stop`.
    ///
    /// # Errors
    /// As `sigaction(2)`.
    pub fn new(setup: Setup, stop: Arc<AtomicBool>) -> io::Result<KeeperApp> {
        // A file that may not grow is to be an error like a disk that is full.
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

    /// Takes the files, unless another keeper has them.
    ///
    /// # Errors
    /// Files that cannot be read or written.
    fn take_files(&mut self, out: &mut Outbox) -> io::Result<()> {
        let offset = unix_time().saturating_sub(monotonic());
        let Some((log, notes)) = Log::open(&self.setup, self.host, offset)? else { return Ok(()) };
        for (level, text) in notes {
            out.log(level, "history", None, text);
        }
        out.stats.history_keeper = 1;
        (self.log, self.greets) = (Some(log), true);
        // What was asked before is asked again.
        self.asks.clear();
        Ok(())
    }

    /// Does what was asked.
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
                    // What was given up is told before what comes after it.
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

    /// Tells what was written.
    fn tell(&mut self, words: Vec<Vec<u8>>, out: &mut Outbox) -> io::Result<()> {
        let Some(log) = &mut self.log else { return Ok(()) };
        if !words.is_empty() {
            log.settle(self.setup.sync)?;
        }
        for word in words {
            // One that is longer than the bus takes is found in the files.
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

    /// What is done now and then. Returns when it is to be done again.
    fn tidy(&mut self, now: Duration, out: &mut Outbox) -> io::Result<Duration> {
        let Some(log) = &mut self.log else { return Ok(now + STAND_BY) };
        if self.tidy_at <= now {
            let mut words = Vec::new();
            log.keeper.expire(log.now());
            let tidied = log
                .write_dropped(&mut words)
                .and_then(|()| log.tidy(self.setup.max_bytes, self.setup.sync, &mut words));
            self.tidy_at = match &tidied {
                // There is more of it.
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
            // What is in memory and what is in the files may not be the same any more: the next one reads the files.
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
