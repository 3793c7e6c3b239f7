//! The log of a keeper: its files, and the state read from them.

use super::{Setup, Sync};
use crate::os::clock::monotonic;
use crate::os::history::{HistoryFiles, Mark, Tail, lock};
use crate::pubsub::history::entry::Entry;
use crate::pubsub::history::keeper::{Keeper, RECENT};
use crate::pubsub::history::word::Word;
use crate::telemetry::log::Level;
use rand::TryRng;
use rand::rngs::SysRng;
use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::Duration;

/// The files take at most this many times the bytes of the kept history, ...
const SPARE: u64 = 4;
/// ... or one and a half times the bound if the history is large; this much is always allowed.
const LEAST_BYTES: u64 = 1 << 20;
/// A file takes at most this fraction of the total.
const FILES: u64 = 8;
/// The most bytes rewritten at a time, so that publications do not wait for long.
const TIDY_BYTES: u64 = 1 << 20;

/// See the module.
pub(super) struct Log {
    pub keeper: Keeper,
    files: HistoryFiles,
    boot: u64,
    /// The difference between the monotonic clock and the clock for history.
    offset: Duration,
    /// When each file but the last was full, oldest first.
    closed: VecDeque<Duration>,
    /// Whether anything was written since the last sync.
    dirty: bool,
    syncs: Option<SyncSender<File>>,
    /// The lock of the bus, if the files are elsewhere.
    _bus: Option<File>,
}

/// A line for the log.
type Note = (Level, String);

impl Log {
    /// Takes over the files and reads them. `None` when another keeper holds them.
    ///
    /// # Errors
    /// When the files cannot be read or written.
    pub fn open(setup: &Setup, boot: u64, offset: Duration) -> io::Result<Option<(Log, Vec<Note>)>> {
        let is_elsewhere = setup.folder != setup.bus;
        let bus = if is_elsewhere { lock(&setup.bus, setup.mode)? } else { None };
        if is_elsewhere && bus.is_none() {
            return Ok(None);
        }
        let Some(mut files) = HistoryFiles::open(&setup.folder, setup.mode)? else { return Ok(None) };
        let now = monotonic() + offset;
        let (mut keeper, mut notes) = (Keeper::new(boot), Vec::new());
        let (mut is_closed, mut was_synced, mut entries) = (false, false, 0u64);
        let tail = files.load(|_, payload, begin| {
            entries += 1;
            match Entry::read(payload) {
                Some(Entry::Started { syncs, .. }) => was_synced = syncs,
                Some(Entry::Closed) => is_closed = true,
                _ => {}
            }
            if !matches!(Entry::read(payload), Some(Entry::Closed)) {
                is_closed = false;
            }
            keeper.apply(payload, begin, now);
        })?;
        let mark = files.mark().filter(|mark| mark.boot == boot && mark.log == files.log());
        let why = tail.and_then(|tail| why_not_whole(tail, mark, files.end(), is_closed || was_synced));
        let syncs = setup.sync != Sync::Never;
        if tail.is_some() && why.is_none() {
            keeper.follow(files.log());
            files.go_on()?;
        } else {
            let log = SysRng.try_next_u64().map_err(io::Error::other)?;
            files.begin(log)?;
            keeper.begin_log(log);
            files.append(&keeper.head())?;
            for name in keeper.names() {
                let begin = files.end();
                keeper.payloads_of(&name).iter().try_for_each(|payload| files.append(payload).map(|_| ()))?;
                keeper.moved(&name, begin);
            }
            files.replace(syncs)?;
        }
        keeper.lead(setup.max_bytes, now);
        let (streams, folder) = (keeper.ledger().streams.held().0, setup.folder.display());
        if let Some(why) = why {
            let text = format!(
                "the history in {folder} {why}: what is whole is kept, {streams} channels, all of them with new epochs, so that \
                 clients that come back are told that they may have missed something"
            );
            notes.push((Level::Warn, text));
        } else {
            notes.push((Level::Info, format!("keeper of the history in {folder}: {streams} channels")));
        }
        // The age of existing files is unknown: counts from now.
        let closed = vec![monotonic(); files.count().saturating_sub(1)].into();
        let mut log = Log { keeper, files, boot, offset, closed, dirty: true, syncs: None, _bus: bus };
        log.files.append(&Entry::Started { boot, syncs: setup.sync == Sync::Always }.payload())?;
        log.settle(setup.sync)?;
        Ok(Some((log, notes)))
    }

    /// The time on the clock for history.
    pub fn now(&self) -> Duration {
        monotonic() + self.offset
    }

    /// The log's number.
    pub fn log(&self) -> u64 {
        self.files.log()
    }

    /// The end of the log.
    pub fn end(&self) -> u64 {
        self.files.end()
    }

    /// The bytes of its files.
    pub fn file_bytes(&self) -> u64 {
        self.files.bytes().0
    }

    /// Writes an entry, and adds the message that announces it.
    ///
    /// # Errors
    /// As `write(2)`; then nothing of it remains.
    pub fn write(&mut self, payload: &[u8], words: &mut Vec<Vec<u8>>) -> io::Result<()> {
        let begin = self.files.append(payload)?;
        let now = self.now();
        self.keeper.apply(payload, begin, now);
        self.dirty = true;
        words.push(Word::Entry { log: self.files.log(), begin, payload }.bytes());
        Ok(())
    }

    /// Writes which streams were dropped.
    ///
    /// # Errors
    /// As `write(2)`; then they remain to be written.
    pub fn write_dropped(&mut self, words: &mut Vec<Vec<u8>>) -> io::Result<()> {
        while let Some(payload) = self.keeper.unwritten() {
            let begin = self.files.append(payload)?;
            words.push(Word::Entry { log: self.files.log(), begin, payload }.bytes());
            let now = self.now();
            self.keeper.wrote(begin, now);
            self.dirty = true;
        }
        Ok(())
    }

    /// Makes what was written safe to announce.
    ///
    /// # Errors
    /// As `fdatasync(2)` and `write(2)`.
    pub fn settle(&mut self, sync: Sync) -> io::Result<()> {
        if sync == Sync::Always && std::mem::take(&mut self.dirty) {
            self.files.sync()?;
        }
        // If even that write fails, the log may look truncated, which is safe.
        let _ = self.files.set_mark(self.boot);
        Ok(())
    }

    /// Syncs to the disk without waiting.
    pub fn sync_aside(&mut self) {
        let Some(file) = self.files.last_file().filter(|_| self.dirty) else { return };
        let syncs = self.syncs.get_or_insert_with(|| {
            let (sender, files) = sync_channel::<File>(1);
            let _ = std::thread::Builder::new().name("history".into()).spawn(move || {
                for file in files {
                    let _ = file.sync_data();
                }
            });
            sender
        });
        // If the last sync is still running, the next call tries again.
        self.dirty = syncs.try_send(file).is_err();
    }

    /// Starts a new file when the last one is long enough. When the files take too many bytes, rewrites what only the
    /// first still holds and removes it. Returns whether there is more to do.
    ///
    /// # Errors
    /// As `write(2)`, `rename(2)` and `unlink(2)`: a retry is possible.
    pub fn tidy(&mut self, max_bytes: usize, sync: Sync, words: &mut Vec<Vec<u8>>) -> io::Result<bool> {
        let (kept, bound) = (self.keeper.ledger().streams.held().1 as u64, max_bytes as u64);
        let most = (SPARE * kept).min(bound + bound / 2).max(LEAST_BYTES);
        let (all, last) = self.files.bytes();
        let begin = self.files.end();
        if last >= most / FILES {
            self.files.rotate(&self.keeper.head(), sync != Sync::Never)?;
            self.closed.push_back(monotonic());
            self.dirty = true;
        }
        let mut more = false;
        // A recent question may be repeated, and its answer is in that file.
        let is_recent = self.closed.front().is_some_and(|at| *at + RECENT > monotonic()) && all < most + 2 * bound;
        if let Some(first_end) = self.files.first_end().filter(|_| all > most && !is_recent) {
            more = true;
            while self.files.end() - begin < TIDY_BYTES {
                let Some((name, payloads)) = self.keeper.stream_before(first_end) else {
                    // The replacement is on the disk before the original is gone.
                    if sync != Sync::Never {
                        self.files.sync()?;
                    }
                    self.files.remove_first()?;
                    self.closed.pop_front();
                    break;
                };
                let begin = self.files.end();
                payloads.iter().try_for_each(|payload| self.files.append(payload).map(|_| ()))?;
                self.keeper.moved(&name, begin);
                self.dirty = true;
            }
        }
        let end = self.files.end();
        if end > begin {
            words.push(Word::Skip { log: self.files.log(), begin, end }.bytes());
        }
        Ok(more)
    }

    /// Closes the log, with all of it on the disk.
    ///
    /// # Errors
    /// As `write(2)` and `fdatasync(2)`.
    pub fn close(mut self) -> io::Result<()> {
        self.files.append(&Entry::Closed.payload())?;
        self.files.sync()?;
        self.files.set_mark(self.boot)
    }
}

/// Why some announced entries may be missing from the files read. `is_synced`: they were on the disk when announced.
fn why_not_whole(tail: Tail, mark: Option<Mark>, end: u64, is_synced: bool) -> Option<&'static str> {
    match (tail, mark) {
        (_, Some(mark)) if mark.end > end => Some("is damaged, or was cut"),
        // The rest was not announced: the keeper was killed while writing it.
        (_, Some(_)) => None,
        (Tail::Damaged, None) => Some("is damaged"),
        (Tail::Clean | Tail::Torn, None) if is_synced => None,
        (_, None) => Some("was not brought to the disk when the machine went down"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pubsub::history::entry::length;

    #[test]
    fn entries_are_as_long_as_their_words_say() {
        let payload = Entry::Closed.payload();
        let word = Word::Entry { log: 1, begin: 7, payload: &payload };
        assert_eq!(word.end(), Some((1, 7 + length(&payload))));
    }

    #[test]
    fn what_was_told_has_to_be_there() {
        let mark = |end| Some(Mark { log: 1, boot: 1, end });
        assert_eq!(why_not_whole(Tail::Torn, mark(100), 100, false), None, "killed as it wrote more");
        assert!(why_not_whole(Tail::Clean, mark(101), 100, true).is_some(), "cut between entries");
        assert!(why_not_whole(Tail::Clean, None, 100, false).is_some(), "the machine went down");
        assert_eq!(why_not_whole(Tail::Torn, None, 100, true), None);
        assert!(why_not_whole(Tail::Damaged, None, 100, true).is_some());
    }
}
