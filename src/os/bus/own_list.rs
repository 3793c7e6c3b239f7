//! Our own list of channel members, in a file that the others read if they join late or were lapped.
//!
//! It is a log: changes are appended, and once most of it is obsolete, a new file replaces it. Its format is that of
//! [`crate::bus::list`].
//!
//! Invariant: a record's change is in the file before the record is shown, or there is no file. A file that could not
//! be written, as on a full disk, is removed, and everything is published again once there is a new one.

use super::folder::Directory;
use crate::bus::list::{self, HEADER_BYTES, MAX_LIST_BYTES};
use crate::channel::presence::Presence;
use crate::channel::record::{Record, Records};
use crate::net::id::Participant;
use std::fs::File;
use std::io::{self, Read, Write};
use std::time::{Duration, Instant};

/// A log shorter than this is not worth rewriting.
const SHORT_BYTES: usize = 64 << 10;
/// Retry interval for a file that could not be written.
const RETRY: Duration = Duration::from_millis(100);

/// Our list.
pub(super) struct OwnList {
    directory: Directory,
    mode: u32,
    me: Participant,
    /// `None` if it could not be written.
    file: Option<File>,
    /// The length of the file, and the length at which it is rewritten.
    length: usize,
    limit: usize,
    /// Changes not in the file yet; empty while there is none.
    pending: Records,
    /// The valid entries.
    now: Presence,
    tried: Instant,
    error: Option<io::Error>,
}

impl OwnList {
    /// An empty list, replacing what a former owner of the slot left.
    pub fn create(directory: Directory, mode: u32, me: Participant) -> io::Result<OwnList> {
        let mut list = OwnList {
            directory,
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
        // A folder with this name cannot be replaced by a file.
        list.directory.remove(&name(me)).and_then(|()| list.write_anew()).map_err(|error| list.named(error))?;
        Ok(list)
    }

    /// Adds a record's change. It is in the file after [`OwnList::write`].
    pub fn add(&mut self, record: Record<'_>) {
        self.now.apply(self.me, record, |_| {});
        if self.file.is_some() {
            self.pending.push(record.kind, record.channel, &[record.payload]);
        }
    }

    /// Updates the file. If there was none for a while, returns its whole content, for participants that looked for it
    /// in vain.
    pub fn write(&mut self) -> Option<Records> {
        let was_there = self.file.is_some();
        if was_there && self.pending.is_empty() || !was_there && self.tried.elapsed() < RETRY {
            return None;
        }
        match self.try_write() {
            Ok(()) => (!was_there).then(|| self.now.list(self.me)),
            Err(error) => {
                // The file is no longer correct; and the next try may need its space.
                self.file = None;
                self.pending.clear();
                let _ = self.directory.remove(&name(self.me));
                self.tried = Instant::now();
                if was_there {
                    self.error = Some(self.named(error));
                }
                None
            }
        }
    }

    /// Returns why the file cannot be written, once per failure.
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

    /// Writes the valid entries to a new file. Others see the former file or this one, and each of them whole.
    fn write_anew(&mut self) -> io::Result<()> {
        let new = format!("{}.new", name(self.me));
        self.directory.remove(&new)?;
        let list = self.now.list(self.me);
        let written = self.directory.new_file(&new, self.mode).and_then(|mut file| {
            file.write_all(&[&list::header(self.me.generation), list.bytes()].concat())?;
            self.directory.rename(&new, &name(self.me))?;
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
                let _ = self.directory.remove(&new);
                Err(error)
            }
        }
    }

    fn named(&self, error: io::Error) -> io::Error {
        let text = format!("cannot write who is on which channel to {}: {error}", name(self.me));
        io::Error::new(error.kind(), text)
    }
}

impl Drop for OwnList {
    fn drop(&mut self) {
        let _ = self.directory.remove(&name(self.me));
    }
}

fn name(of: Participant) -> String {
    format!("{}.presence", of.slot)
}

/// Reads a participant's list; empty if there is none, or if the slot has a later owner.
///
/// # Errors
/// When the list cannot be read, or is damaged.
pub(super) fn read(directory: &Directory, owner: Participant) -> io::Result<Records> {
    let file = match directory.file(&name(owner), false) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Records::new()),
        file => file?,
    };
    let mut bytes = Vec::new();
    file.take(MAX_LIST_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    list::read(bytes, owner).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "it is damaged"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel::record::RecordKind;
    use crate::os::bus::folder::{BusOptions, Folder};
    use std::fs;

    #[test]
    fn what_cannot_be_written_does_not_pile_up() {
        let folder = std::env::temp_dir().join(format!("percore-own-list-{}", std::process::id()));
        let me = Participant { slot: 0, generation: 1 };
        let bus = Folder::open(&folder, BusOptions::default()).expect("a bus");
        let mut list = OwnList::create(bus.directory().clone(), 0o600, me).expect("a list");
        // A folder that is not empty cannot be replaced.
        let obstacle = folder.join("0.presence.new/x");
        fs::create_dir_all(&obstacle).expect("a folder");
        let enter = Record { kind: RecordKind::Enter, channel: b"c", payload: b"a member" };
        let leave = Record { kind: RecordKind::Leave, ..enter };
        // More than the file may take before it is rewritten, which fails.
        while list.pending.bytes().len() <= SHORT_BYTES + HEADER_BYTES {
            list.add(enter);
            list.add(leave);
        }
        assert!(list.write().is_none());
        assert!(list.take_error().is_some());
        assert_eq!(list.pending.bytes().len(), 0);
        list.add(enter);
        assert_eq!(list.pending.bytes().len(), 0);
        fs::remove_dir_all(folder.join("0.presence.new")).expect("it is there");
        let again = loop {
            if let Some(again) = list.write() {
                break again;
            }
            std::thread::sleep(RETRY);
        };
        assert_eq!(again.bytes(), read(bus.directory(), me).expect("a list").bytes());
        assert!(!again.is_empty());
        fs::remove_dir_all(folder).expect("it is there");
    }
}
