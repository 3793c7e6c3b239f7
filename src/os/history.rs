//! The files of a history's log: written by one keeper, read by any worker.
//!
//! A file is named after the position in the log at which it begins, and the next begins where it ends. A file gets its name once its
//! first entry is in it. Entries are written at their places, so that what a full disk has cut off is overwritten by the next. Beside
//! them lie a lock, which the keeper holds, and a mark: up to where the log was told to others, by which a log that was cut is known
//! from one that ends where its keeper was killed.

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
/// Bytes in which the first entry of a file is looked for.
const LONGEST_HEAD: usize = 1 << 20;
/// Digits of a position in a name.
const DIGITS: usize = 16;

/// A number for this start of the machine, by which processes know that they are on the same one. 0 where it is not to be known.
pub fn boot() -> u64 {
    let id = fs::read("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    id.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// The files of a folder that begin with a whole entry or not, by position.
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

/// A file of the writer's, which is made if there is none.
fn own(folder: &Path, name: &str, mode: u32) -> io::Result<File> {
    options(mode).write(true).create(true).truncate(false).open(folder.join(name))
}

/// Takes the lock of a folder, for as long as the file is open. `None` when another has it.
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

/// How the files end that were read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Tail {
    /// With a whole entry.
    Clean,
    /// With a part of an entry.
    Torn,
    /// There is something else, or something is missing.
    Damaged,
}

/// Up to where a log was told to others, when its keeper last wrote that down.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mark {
    /// Which log.
    pub log: u64,
    /// In which start of the machine.
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

/// The files, for their one writer.
pub struct HistoryFiles {
    folder: PathBuf,
    mode: u32,
    log: u64,
    segments: VecDeque<Segment>,
    /// The last of them.
    file: Option<File>,
    mark: File,
    /// Files that are of no use once the last one has its name.
    outdated: Option<Vec<u64>>,
    _lock: File,
}

impl HistoryFiles {
    /// Takes over the files of a folder, which is made if there is none. `None` when another keeper has it.
    ///
    /// # Errors
    /// A folder or files that cannot be made or read.
    pub fn open(folder: &Path, mode: u32) -> io::Result<Option<HistoryFiles>> {
        let told = |error: io::Error| io::Error::new(error.kind(), format!("history in {}: {error}", folder.display()));
        HistoryFiles::take(folder, mode).map_err(told)
    }

    fn take(folder: &Path, mode: u32) -> io::Result<Option<HistoryFiles>> {
        // Whoever may read the files may enter the folder.
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

    /// Reads the log that is there: its number, how its files end, and each entry's payload and position by `each`. `None` when there is
    /// none.
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
                    // Where the machine went down, a file may have room that nothing was written to.
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

    /// Up to where the log was told.
    pub fn mark(&self) -> Option<Mark> {
        let mut bytes = [0; MARK_BYTES];
        self.mark.read_exact_at(&mut bytes, 0).ok()?;
        let word = |at: usize| bytes[at..].first_chunk().map(|bytes| u64::from_le_bytes(*bytes));
        Some(Mark { log: word(0)?, boot: word(8)?, end: word(16)? })
    }

    /// Writes down that the log is told up to its end.
    ///
    /// # Errors
    /// As `write(2)`.
    pub fn set_mark(&self, boot: u64) -> io::Result<()> {
        let bytes = [self.log, boot, self.end()].map(u64::to_le_bytes).concat();
        self.mark.write_all_at(&bytes, 0)
    }

    /// Goes on with the log that was read.
    ///
    /// # Errors
    /// As `open(2)` and `ftruncate(2)`.
    pub fn go_on(&mut self) -> io::Result<()> {
        let Some(last) = self.segments.back() else { return Ok(()) };
        let file = options(self.mode).write(true).open(path(&self.folder, last.start))?;
        file.set_len(last.bytes)?;
        // Of a log before this one, which a keeper that was killed could not remove.
        let first = self.segments[0].start;
        for position in positions(&self.folder)?.into_iter().filter(|position| *position < first) {
            fs::remove_file(path(&self.folder, position))?;
        }
        self.file = Some(file);
        Ok(())
    }

    /// Begins another log, which takes the place of what is there by [`HistoryFiles::replace`].
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

    /// The log that was begun is whole. With `syncs` it is on the disk before what was there is removed.
    ///
    /// # Errors
    /// As `fsync(2)`, `rename(2)` and `unlink(2)`.
    pub fn replace(&mut self, syncs: bool) -> io::Result<()> {
        if syncs {
            self.sync()?;
        }
        self.name_last(syncs)?;
        // One that was empty had the same name.
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

    /// Adds an entry. Returns its position. When it cannot be written there is nothing of it.
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
            // Should it stay, it is overwritten by the next.
            let _ = file.set_len(segment.bytes);
            return Err(error);
        }
        segment.bytes += bytes.len() as u64;
        Ok(begin)
    }

    /// Begins another file with an entry. Returns its position.
    ///
    /// # Errors
    /// As [`HistoryFiles::append`] and `rename(2)`; then the file before goes on.
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

    /// Has all that was written on the disk.
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

    /// How many files there are.
    pub fn count(&self) -> usize {
        self.segments.len()
    }

    /// Bytes of all files, and of the last one.
    pub fn bytes(&self) -> (u64, u64) {
        let all = self.segments.iter().map(|segment| segment.bytes).sum();
        (all, self.segments.back().map_or(0, |segment| segment.bytes))
    }
}

/// The files, for those who read them while they are written.
pub struct HistoryReader {
    folder: PathBuf,
    /// The file that was read from last, and where it begins.
    file: Option<(u64, File)>,
}

impl HistoryReader {
    /// Of a folder, in which there may be none yet.
    pub fn new(folder: &Path) -> HistoryReader {
        HistoryReader { folder: folder.to_owned(), file: None }
    }

    /// Reads what stands at a position, or at the beginning of what there is: where that is, and up to `most` bytes, none at the end.
    /// `None` when it is not there any more, or there is nothing at all.
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
            // It was removed just now: it was the first.
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
