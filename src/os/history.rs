//! The files of a history's log: one keeper writes them, any worker reads them.
//!
//! The name of a file is the position in the log at which it begins; the next begins where it ends. A file gets its
//! name once its first entry is in it. Entries are written at fixed positions, so that the next one overwrites what a
//! full disk has cut off. Beside the files lie a lock, which the keeper holds, and a mark: up to where the log was
//! announced, which tells a truncated log from one whose keeper was killed at its end.

use crate::pubsub::history::entry::{self, Entry, Found};
use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

const PREFIX: &str = "history.";
const UNFINISHED: &str = "history.new";
const LOCK: &str = "history.lock";
const MARK: &str = "history.mark";
const MARK_BYTES: usize = 24;
/// The bytes in which to look for the first entry of a file.
const LONGEST_HEAD: usize = 1 << 20;
/// The digits of a position in a name.
const DIGITS: usize = 16;

/// A number for this boot of the machine, by which processes know that they share it. 0 if it is unknown.
pub fn boot() -> u64 {
    let id = fs::read("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    id.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// The positions of the log files in a folder, with or without a whole first entry.
fn positions(folder: &Path) -> io::Result<Vec<u64>> {
    let mut found = Vec::new();
    for file in fs::read_dir(folder)? {
        let name = file?.file_name();
        let digits = name.to_str().and_then(|name| name.strip_prefix(PREFIX)).filter(|rest| rest.len() == DIGITS);
        found.extend(digits.and_then(|digits| u64::from_str_radix(digits, 16).ok()));
    }
    found.sort_unstable();
    Ok(found)
}

fn path(folder: &Path, position: u64) -> PathBuf {
    folder.join(format!("{PREFIX}{position:0DIGITS$x}"))
}

fn options(mode: u32) -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).mode(mode).custom_flags(libc::O_NOFOLLOW);
    options
}

/// Opens a file of the writer, and creates it if necessary.
fn own(folder: &Path, name: &str, mode: u32) -> io::Result<File> {
    options(mode).write(true).create(true).truncate(false).open(folder.join(name))
}

/// Locks a folder, for as long as the file stays open. `None` when another process holds the lock.
///
/// # Errors
/// As `open(2)` and `flock(2)`.
pub fn lock(folder: &Path, mode: u32) -> io::Result<Option<File>> {
    let lock = own(folder, LOCK, mode)?;
    match lock.try_lock() {
        Ok(()) => Ok(Some(lock)),
        Err(fs::TryLockError::WouldBlock) => Ok(None),
        Err(fs::TryLockError::Error(error)) => Err(error),
    }
}

/// How the files that were read end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Tail {
    /// With a whole entry.
    Clean,
    /// With a part of an entry.
    Torn,
    /// With something else, or with a gap.
    Damaged,
}

/// Up to where a log was announced, as its keeper last recorded it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mark {
    /// The log.
    pub log: u64,
    /// The boot of the machine.
    pub boot: u64,
    /// The position.
    pub end: u64,
}

/// A file of the log.
#[derive(Clone, Copy, Debug)]
struct Segment {
    start: u64,
    bytes: u64,
}

impl Segment {
    fn end(&self) -> u64 {
        self.start + self.bytes
    }
}

/// The files, for their single writer.
pub struct HistoryFiles {
    folder: PathBuf,
    mode: u32,
    log: u64,
    segments: VecDeque<Segment>,
    /// The last file.
    file: Option<File>,
    mark: File,
    /// Files that become obsolete once the last one has its name.
    outdated: Option<Vec<u64>>,
    _lock: File,
}

impl HistoryFiles {
    /// Takes over the files of a folder, and creates it if necessary. `None` when another keeper holds it.
    ///
    /// # Errors
    /// When the folder or its files cannot be created or read.
    pub fn open(folder: &Path, mode: u32) -> io::Result<Option<HistoryFiles>> {
        let told = |error: io::Error| io::Error::new(error.kind(), format!("history in {}: {error}", folder.display()));
        HistoryFiles::take(folder, mode).map_err(told)
    }

    fn take(folder: &Path, mode: u32) -> io::Result<Option<HistoryFiles>> {
        // Every reader of the files may enter the folder.
        let folder_mode = mode | (mode & 0o444) >> 2;
        match fs::DirBuilder::new().mode(folder_mode).create(folder) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        let Some(lock) = lock(folder, mode)? else { return Ok(None) };
        let mark = own(folder, MARK, mode)?;
        Ok(Some(HistoryFiles {
            folder: folder.to_owned(),
            mode,
            log: 0,
            segments: VecDeque::new(),
            file: None,
            mark,
            outdated: None,
            _lock: lock,
        }))
    }

    /// Reads the existing log: returns its number and how its files end, and passes each entry's payload and position
    /// to `each`. `None` when there is none.
    ///
    /// # Errors
    /// As `read(2)`.
    pub fn load(&mut self, mut each: impl FnMut(u64, &[u8], u64)) -> io::Result<Option<Tail>> {
        let all = positions(&self.folder)?;
        let log_of = |position: &u64| -> io::Result<Option<u64>> {
            let bytes = read_at(&File::open(path(&self.folder, *position))?, 0, LONGEST_HEAD)?;
            Ok(match entry::find(&bytes, *position) {
                Found::Whole { log, payload } if matches!(Entry::read(payload), Some(Entry::Head { .. })) => Some(log),
                _ => None,
            })
        };
        let logs: Vec<Option<u64>> = all.iter().map(log_of).collect::<io::Result<_>>()?;
        let Some(last) = logs.iter().rposition(Option::is_some) else {
            return Ok((!all.is_empty()).then_some(Tail::Damaged));
        };
        let mut first = last;
        while first > 0 && logs[first - 1] == logs[last] {
            first -= 1;
        }
        self.log = logs[last].unwrap_or_default();
        let mut tail = if last + 1 < all.len() { Tail::Damaged } else { Tail::Clean };
        for (number, &start) in all.iter().enumerate().take(last + 1).skip(first) {
            if self.segments.back().is_some_and(|before| before.end() != start) {
                tail = Tail::Damaged;
                break;
            }
            let bytes = fs::read(path(&self.folder, start))?;
            let mut at = 0;
            let found = loop {
                match entry::find(&bytes[at..], start + at as u64) {
                    Found::Whole { log, payload } if log == self.log => {
                        each(log, payload, start + at as u64);
                        at += entry::HEAD_BYTES + payload.len();
                    }
                    Found::Part(0) if at == bytes.len() => break Tail::Clean,
                    Found::Part(_) => break Tail::Torn,
                    // After a crash of the machine, a file may have space that was never written.
                    _ if bytes[at..].iter().all(|byte| *byte == 0) => break Tail::Torn,
                    _ => break Tail::Damaged,
                }
            };
            self.segments.push_back(Segment { start, bytes: at as u64 });
            match found {
                Tail::Clean => {}
                Tail::Torn if number + 1 == all.len() => tail = Tail::Torn,
                _ => {
                    tail = Tail::Damaged;
                    break;
                }
            }
        }
        Ok(Some(tail))
    }

    /// Up to where the log was announced.
    pub fn mark(&self) -> Option<Mark> {
        let mut bytes = [0; MARK_BYTES];
        self.mark.read_exact_at(&mut bytes, 0).ok()?;
        let word = |at: usize| bytes[at..].first_chunk().map(|bytes| u64::from_le_bytes(*bytes));
        Some(Mark { log: word(0)?, boot: word(8)?, end: word(16)? })
    }

    /// Records that the log is announced up to its end.
    ///
    /// # Errors
    /// As `write(2)`.
    pub fn set_mark(&self, boot: u64) -> io::Result<()> {
        let bytes = [self.log, boot, self.end()].map(u64::to_le_bytes).concat();
        self.mark.write_all_at(&bytes, 0)
    }

    /// Continues the log that was read.
    ///
    /// # Errors
    /// As `open(2)` and `ftruncate(2)`.
    pub fn go_on(&mut self) -> io::Result<()> {
        let Some(last) = self.segments.back() else { return Ok(()) };
        let file = options(self.mode).write(true).open(path(&self.folder, last.start))?;
        file.set_len(last.bytes)?;
        // From an earlier log, which a killed keeper could not remove.
        let first = self.segments[0].start;
        for position in positions(&self.folder)?.into_iter().filter(|position| *position < first) {
            fs::remove_file(path(&self.folder, position))?;
        }
        self.file = Some(file);
        Ok(())
    }

    /// Begins another log, which replaces the old one in [`HistoryFiles::replace`].
    ///
    /// # Errors
    /// As `open(2)`.
    pub fn begin(&mut self, log: u64) -> io::Result<()> {
        let outdated = positions(&self.folder)?;
        let lengths = outdated.iter().map(|position| Ok(position + fs::metadata(path(&self.folder, *position))?.len()));
        let start = lengths.collect::<io::Result<Vec<u64>>>()?.into_iter().max().unwrap_or(0);
        self.file = Some(self.unfinished()?);
        self.segments = [Segment { start, bytes: 0 }].into();
        (self.log, self.outdated) = (log, Some(outdated));
        Ok(())
    }

    fn unfinished(&self) -> io::Result<File> {
        options(self.mode).write(true).create(true).truncate(true).open(self.folder.join(UNFINISHED))
    }

    /// Completes the log that was begun. With `syncs` it is on the disk before the old one is removed.
    ///
    /// # Errors
    /// As `fsync(2)`, `rename(2)` and `unlink(2)`.
    pub fn replace(&mut self, syncs: bool) -> io::Result<()> {
        if syncs {
            self.sync()?;
        }
        self.name_last(syncs)?;
        // An empty one had the same name.
        let own = self.segments.front().map(|first| first.start);
        for position in self.outdated.take().unwrap_or_default().into_iter().filter(|position| Some(*position) != own) {
            fs::remove_file(path(&self.folder, position))?;
        }
        Ok(())
    }

    fn name_last(&self, syncs: bool) -> io::Result<()> {
        let start = self.segments.back().map_or(0, |segment| segment.start);
        fs::rename(self.folder.join(UNFINISHED), path(&self.folder, start))?;
        if syncs { File::open(&self.folder)?.sync_all() } else { Ok(()) }
    }

    /// Adds an entry. Returns its position. On failure nothing of it remains.
    ///
    /// # Errors
    /// As `write(2)`.
    pub fn append(&mut self, payload: &[u8]) -> io::Result<u64> {
        let (Some(segment), Some(file)) = (self.segments.back_mut(), &self.file) else {
            return Err(io::Error::other("no log was begun"));
        };
        let begin = segment.end();
        let bytes = entry::frame(self.log, begin, payload);
        if let Err(error) = file.write_all_at(&bytes, segment.bytes) {
            // If it stays, the next entry overwrites it.
            let _ = file.set_len(segment.bytes);
            return Err(error);
        }
        segment.bytes += bytes.len() as u64;
        Ok(begin)
    }

    /// Begins another file with an entry. Returns its position.
    ///
    /// # Errors
    /// As [`HistoryFiles::append`] and `rename(2)`; then the previous file stays in use.
    pub fn rotate(&mut self, payload: &[u8], syncs: bool) -> io::Result<u64> {
        if syncs {
            self.sync()?;
        }
        let start = self.end();
        let file = self.unfinished()?;
        let bytes = entry::frame(self.log, start, payload);
        file.write_all_at(&bytes, 0)?;
        self.segments.push_back(Segment { start, bytes: bytes.len() as u64 });
        if let Err(error) = self.name_last(syncs) {
            self.segments.pop_back();
            return Err(error);
        }
        self.file = Some(file);
        Ok(start)
    }

    /// Removes the first file.
    ///
    /// # Errors
    /// As `unlink(2)`.
    pub fn remove_first(&mut self) -> io::Result<()> {
        if self.segments.len() > 1
            && let Some(first) = self.segments.pop_front()
        {
            fs::remove_file(path(&self.folder, first.start))?;
        }
        Ok(())
    }

    /// Syncs all that was written to the disk.
    ///
    /// # Errors
    /// As `fdatasync(2)`.
    pub fn sync(&self) -> io::Result<()> {
        self.file.as_ref().map_or(Ok(()), File::sync_data)
    }

    /// The last file, for another thread to sync.
    pub fn last_file(&self) -> Option<File> {
        self.file.as_ref().and_then(|file| file.try_clone().ok())
    }

    /// The log's number.
    pub fn log(&self) -> u64 {
        self.log
    }

    /// Where the log ends.
    pub fn end(&self) -> u64 {
        self.segments.back().map_or(0, Segment::end)
    }

    /// Where the first file ends, if there is another.
    pub fn first_end(&self) -> Option<u64> {
        self.segments.front().filter(|_| self.segments.len() > 1).map(Segment::end)
    }

    /// The number of files.
    pub fn count(&self) -> usize {
        self.segments.len()
    }

    /// The bytes of all files, and of the last one.
    pub fn bytes(&self) -> (u64, u64) {
        let all = self.segments.iter().map(|segment| segment.bytes).sum();
        (all, self.segments.back().map_or(0, |segment| segment.bytes))
    }
}

/// The files, for readers while they are written.
pub struct HistoryReader {
    folder: PathBuf,
    /// The last file read, and where it begins.
    file: Option<(u64, File)>,
}

impl HistoryReader {
    /// A reader for a folder, which may not exist yet.
    pub fn new(folder: &Path) -> HistoryReader {
        HistoryReader { folder: folder.to_owned(), file: None }
    }

    /// Reads at a position, or at the beginning of the log: returns that position and up to `most` bytes, none at the
    /// end. `None` when the position is gone, or there are no files.
    ///
    /// # Errors
    /// As `open(2)` and `read(2)`.
    pub fn read(&mut self, from: Option<u64>, most: usize) -> io::Result<Option<(u64, Vec<u8>)>> {
        if let (Some(from), Some((start, file))) = (from, &self.file)
            && *start <= from
        {
            let bytes = read_at(file, from - start, most)?;
            if !bytes.is_empty() {
                return Ok(Some((from, bytes)));
            }
        }
        let all = match positions(&self.folder) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            all => all?,
        };
        let Some(from) = from.or(all.first().copied()) else { return Ok(None) };
        let Some(start) = all.into_iter().rfind(|start| *start <= from) else { return Ok(None) };
        let file = match options(0).open(path(&self.folder, start)) {
            // It was just removed, being the first.
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            file => file?,
        };
        let bytes = read_at(&file, from - start, most)?;
        self.file = Some((start, file));
        Ok(Some((from, bytes)))
    }
}

fn read_at(file: &File, at: u64, most: usize) -> io::Result<Vec<u8>> {
    let there = file.metadata()?.len().saturating_sub(at);
    let mut bytes = vec![0; most.min(usize::try_from(there).unwrap_or(most))];
    let mut length = 0;
    while length < bytes.len() {
        match file.read_at(&mut bytes[length..], at + length as u64) {
            Ok(0) => break,
            Ok(more) => length += more,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(length);
    Ok(bytes)
}

#[cfg(test)]
mod tests;
