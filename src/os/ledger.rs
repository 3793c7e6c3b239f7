//! The gateway's ledger as a file in the bus's folder: written at once, with a lock that its worker's end releases. The
//! first process to find it unlocked takes it over.

use crate::gateway::ledger::{ENTRY_BYTES, Entry, Ledger};
use rand::TryRng;
use rand::rngs::SysRng;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Prefixes of the names of ledgers, and of unfinished ones.
const PREFIX: &str = "gateway-ledger-";
const NEW_PREFIX: &str = "gateway-new-ledger-";
/// Bytes before the entries: the service's address in connection names, padded with zeros.
const HEAD_BYTES: usize = 512;

/// A ledger.
pub struct FileLedger {
    folder: PathBuf,
    path: PathBuf,
    file: File,
    address: String,
    /// The place of each entry, and unused places before the end.
    places: HashMap<u64, u32>,
    free: Vec<u32>,
}

impl FileLedger {
    /// Creates a ledger in the folder of a bus, for connections whose names contain `address`.
    ///
    /// # Errors
    /// When it cannot be created.
    pub fn create(folder: &Path, address: &str) -> io::Result<FileLedger> {
        if address.len() >= HEAD_BYTES {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the address of the service is too long"));
        }
        let mode = fs::metadata(folder)?.mode() & 0o666;
        let random = SysRng.try_next_u64().map_err(io::Error::other)?;
        let name = |prefix| folder.join(format!("{prefix}{random:016x}"));
        let (new, path) = (name(NEW_PREFIX), name(PREFIX));
        let file = File::options().read(true).write(true).create_new(true).mode(mode).open(&new)?;
        let mut head = [0; HEAD_BYTES];
        head[..address.len()].copy_from_slice(address.as_bytes());
        file.write_all_at(&head, 0)?;
        // A process that finds it by its name finds it locked.
        flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        fs::rename(&new, &path)?;
        let (folder, address) = (folder.to_owned(), address.to_owned());
        Ok(FileLedger { folder, path, file, address, places: HashMap::new(), free: Vec::new() })
    }

    fn write(&self, place: u32, bytes: &[u8; ENTRY_BYTES]) {
        // Without memory for the file the process is about to end anyway; its clients are then not reported.
        let _ = self.file.write_all_at(bytes, offset(place));
    }
}

fn offset(place: u32) -> u64 {
    HEAD_BYTES as u64 + u64::from(place) * ENTRY_BYTES as u64
}

impl Ledger for FileLedger {
    fn enter(&mut self, entry: Entry) {
        let place = self.free.pop().unwrap_or(self.places.len() as u32);
        self.places.insert(entry.serial, place);
        self.write(place, &entry.bytes());
    }

    fn strike(&mut self, serial: u64) {
        if let Some(place) = self.places.remove(&serial) {
            self.write(place, &[0; ENTRY_BYTES]);
            self.free.push(place);
        }
    }

    fn adopt(&mut self) -> Vec<Entry> {
        let mut adopted = Vec::new();
        for found in fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            let path = found.path();
            if path == self.path || !found.file_name().to_str().is_some_and(|name| name.starts_with(PREFIX)) {
                continue;
            }
            let Ok(Some((_lock, entries))) = take_over(&path, &self.address) else { continue };
            entries.iter().for_each(|entry| self.enter(*entry));
            // Ours from now on; if it cannot be removed, its entries are reported again, with the same numbers.
            let _ = fs::remove_file(&path);
            adopted.extend(entries);
        }
        adopted
    }
}

impl Drop for FileLedger {
    /// Leaves a ledger that is not empty for another process.
    fn drop(&mut self) {
        if self.places.is_empty() {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// The entries of a ledger without an owner, and its file, locked; `None` if it has an owner, or is for another
/// address.
fn take_over(path: &Path, address: &str) -> io::Result<Option<(File, Vec<Entry>)>> {
    let mut file = File::options().read(true).custom_flags(libc::O_NOFOLLOW).open(path)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Err(Errno::WOULDBLOCK) => return Ok(None),
        locked => locked?,
    }
    // Another process may have taken it over just before.
    if file.metadata()?.nlink() == 0 {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    let Some((head, entries)) = bytes.split_at_checked(HEAD_BYTES) else { return Ok(None) };
    let (told, zeros) = head.split_at_checked(address.len()).unwrap_or_default();
    if told != address.as_bytes() || zeros.iter().any(|byte| *byte != 0) {
        return Ok(None);
    }
    let entries = entries.chunks_exact(ENTRY_BYTES).filter_map(|entry| Entry::from_bytes(entry.try_into().ok()?));
    let entries = entries.collect();
    Ok(Some((file, entries)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::id::Peer;
    use std::time::Duration;

    fn entry(serial: u64) -> Entry {
        Entry { serial, opened: Duration::from_secs(serial), peer: Peer::UNIX }
    }

    #[test]
    fn what_a_worker_leaves_is_taken_over_once() -> io::Result<()> {
        let folder = std::env::temp_dir().join(format!("percore-ledger-{}", std::process::id()));
        fs::create_dir(&folder)?;
        let mut left = FileLedger::create(&folder, "a/sr")?;
        (1..=3).for_each(|serial| left.enter(entry(serial)));
        left.strike(2);
        left.enter(entry(4));
        let mut ours = FileLedger::create(&folder, "a/sr")?;
        assert_eq!(ours.adopt(), [], "its worker lives");
        drop(left);
        let mut other = FileLedger::create(&folder, "b/sr")?;
        assert_eq!(other.adopt(), [], "of another service");
        let mut adopted = ours.adopt();
        adopted.sort_by_key(|entry| entry.serial);
        assert_eq!(adopted, [1, 3, 4].map(entry));
        assert_eq!((ours.adopt(), ours.places.len()), (Vec::new(), 3));
        [1, 3, 4].into_iter().for_each(|serial| ours.strike(serial));
        drop((ours, other));
        assert_eq!(fs::read_dir(&folder)?.count(), 0, "what is empty goes with its worker");
        fs::remove_dir_all(&folder)
    }
}
