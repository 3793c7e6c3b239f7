//! Our own list of who is on our channels, as a file that the others read: they need it when they join late or were lapped.
//!
//! It is a log: what is told is appended, and once most of it no longer holds, a new file takes its place. Its form is that of
//! [`crate::bus::list`].
//!
//! Invariant: what a record tells is in the file before the record is shown, or else there is no file. One that could not be
//! written, as on a full disk, is removed, and everything is told again as soon as there is a new one.

use crate::bus::list::{self, HEADER_BYTES, MAX_LIST_BYTES};
use crate::data::id::Participant;
use crate::data::presence::Presence;
use crate::data::record::{Record, Records};
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// A log shorter than this is not worth the work of writing it anew.
const SHORT_BYTES: usize = 64 << 10;
/// After so long a file that could not be written is tried again.
const RETRY: Duration = Duration::from_millis(100);

/// Our list.
pub(super) struct OwnList {
    path: PathBuf,
    mode: u32,
    me: Participant,
    /// None when it could not be written.
    file: Option<File>,
    /// How long the file is, and how long it may become before it is written anew.
    length: usize,
    limit: usize,
    /// What the file does not hold yet; empty while there is none.
    pending: Records,
    /// All that still holds.
    now: Presence,
    tried: Instant,
    error: Option<io::Error>,
}

impl OwnList {
    /// An empty list, in place of what a former owner of the slot left.
    pub fn create(path: PathBuf, mode: u32, me: Participant) -> io::Result<OwnList> {
        let mut list = OwnList {
            path,
            mode,
            me,
            file: None,
            length: 0,
            limit: 0,
            pending: Records::new(),
            now: Presence::default(),
            tried: Instant::now(),
            error: None,
        };
        list.write_anew().map_err(|error| list.named(error))?;
        Ok(list)
    }

    /// Takes what a record tells. It is in the file after [`OwnList::write`].
    pub fn add(&mut self, record: Record<'_>) {
        self.now.apply(self.me, record, |_| {});
        if self.file.is_some() {
            self.pending.push(record.kind, record.channel, &[record.payload]);
        }
    }

    /// Brings the file up to date. When there was none for a while, gives everything that is in it now, for those to hear who
    /// looked for it in vain.
    pub fn write(&mut self) -> Option<Records> {
        let was_there = self.file.is_some();
        if was_there && self.pending.is_empty() || !was_there && self.tried.elapsed() < RETRY {
            return None;
        }
        match self.try_write() {
            Ok(()) => (!was_there).then(|| self.now.list(self.me)),
            Err(error) => {
                // What stands there is not the truth any more; and its room may be what the next try needs.
                self.file = None;
                self.pending.clear();
                let _ = fs::remove_file(&self.path);
                self.tried = Instant::now();
                if was_there {
                    self.error = Some(self.named(error));
                }
                None
            }
        }
    }

    /// Why the file cannot be written; once each time that this begins.
    pub fn take_error(&mut self) -> Option<io::Error> {
        self.error.take()
    }

    fn try_write(&mut self) -> io::Result<()> {
        let added = self.pending.bytes();
        match &mut self.file {
            Some(file) if self.length + added.len() <= self.limit => {
                file.write_all(added)?;
                self.length += added.len();
            }
            _ => self.write_anew()?,
        }
        self.pending.clear();
        Ok(())
    }

    /// Writes what still holds to a new file. Others see the former one or this, and each of them whole.
    fn write_anew(&mut self) -> io::Result<()> {
        let path = self.path.with_extension("presence.new");
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let list = self.now.list(self.me);
        let written = write_new(&path, self.mode, self.me, &list).and_then(|file| {
            fs::rename(&path, &self.path)?;
            Ok(file)
        });
        match written {
            Ok(file) => {
                self.file = Some(file);
                self.length = HEADER_BYTES + list.bytes().len();
                self.limit = (2 * self.length + SHORT_BYTES).min(MAX_LIST_BYTES.max(self.length));
                Ok(())
            }
            Err(error) => {
                let _ = fs::remove_file(&path);
                Err(error)
            }
        }
    }

    fn named(&self, error: io::Error) -> io::Error {
        let text = format!("cannot write who is on which channel to {}: {error}", self.path.display());
        io::Error::new(error.kind(), text)
    }
}

fn write_new(path: &Path, mode: u32, me: Participant, list: &Records) -> io::Result<File> {
    let mut file = OpenOptions::new().append(true).create_new(true).mode(mode).open(path)?;
    file.set_permissions(Permissions::from_mode(mode))?;
    file.write_all(&[&list::header(me.generation), list.bytes()].concat())?;
    Ok(file)
}

impl Drop for OwnList {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// The list that a participant wrote; an empty one if there is none.
pub(super) fn read(path: &Path, owner: Participant) -> Records {
    let mut bytes = Vec::new();
    // Whatever lies there in place of a file is not to hold us up.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path);
    let read = file.and_then(|file| file.take(MAX_LIST_BYTES as u64 + 1).read_to_end(&mut bytes));
    if read.is_ok() { list::read(bytes, owner) } else { Records::new() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::record::RecordKind;

    #[test]
    fn what_cannot_be_written_does_not_pile_up() {
        let folder = std::env::temp_dir().join(format!("percore-own-list-{}", std::process::id()));
        fs::create_dir(&folder).expect("a folder");
        let me = Participant { slot: 0, generation: 1 };
        let mut list = OwnList::create(folder.join("0.presence"), 0o600, me).expect("a list");
        fs::remove_dir_all(&folder).expect("it is there");
        let enter = Record { kind: RecordKind::Enter, channel: b"c", payload: b"a member" };
        let leave = Record { kind: RecordKind::Leave, ..enter };
        // More than the file may take before it is written anew, which fails.
        while list.pending.bytes().len() <= SHORT_BYTES + HEADER_BYTES {
            list.add(enter);
            list.add(leave);
        }
        assert!(list.write().is_none());
        assert!(list.take_error().is_some());
        assert_eq!(list.pending.bytes().len(), 0);
        list.add(enter);
        assert_eq!(list.pending.bytes().len(), 0);
        fs::create_dir(&folder).expect("a folder");
        let again = loop {
            if let Some(again) = list.write() {
                break again;
            }
            std::thread::sleep(RETRY);
        };
        assert_eq!(again.bytes(), read(&folder.join("0.presence"), me).bytes());
        assert!(!again.is_empty());
        fs::remove_dir_all(folder).expect("it is there");
    }
}
