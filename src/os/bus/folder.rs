//! The folder of a bus: the file with the shared region, its locks, and where the sockets lie.

use super::own_list;
use crate::bus::region::{BadRegion, Geometry, HEADER_BYTES, Region};
use crate::bus::ring::{Corrupt, Writer};
use crate::data::id::Participant;
use crate::data::record::Records;
use crate::os::locks;
use crate::os::shared_words::SharedWords;
use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;
use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// The file with the region.
const REGION: &str = "bus";
/// The byte whose lock is held while the region is made and while someone joins; a slot's byte follows it.
const JOINING: u64 = 0;

/// How a bus is made, if there is none yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BusOptions {
    /// How many can take part. Default 64.
    pub slots: usize,
    /// The length of each participant's ring in bytes, a power of two. A message can be up to a quarter of it, and who
    /// reads slower than all of it is written loses messages. Default 4 MiB.
    pub ring_bytes: usize,
    /// Permissions of its files, which decide who may take part. Default `0o600`: the user. Of a bus that is there already
    /// those of its region hold, whoever joins.
    pub mode: u32,
}

impl Default for BusOptions {
    fn default() -> BusOptions {
        BusOptions { slots: 64, ring_bytes: 4 << 20, mode: 0o600 }
    }
}

/// An open folder.
pub struct Folder {
    path: PathBuf,
    file: File,
    words: SharedWords,
    geometry: Geometry,
    mode: u32,
}

/// Nobody else joins as long as this lives.
pub(super) struct Joining(File);

impl Drop for Joining {
    fn drop(&mut self) {
        let _ = locks::unlock(&self.0, JOINING);
    }
}

impl Folder {
    /// Opens a bus, or makes one.
    ///
    /// # Errors
    /// As [`Bus::join`](super::Bus::join).
    pub fn open(path: &Path, options: BusOptions) -> io::Result<Folder> {
        let told = |error| told(path, error);
        // Who may use the files may look into the folder.
        let folder_mode = options.mode | (options.mode & 0o444) >> 2;
        DirBuilder::new().recursive(true).mode(folder_mode).create(path).map_err(told)?;
        let file = File::options().read(true).write(true).create(true).truncate(false).open(path.join(REGION));
        file.and_then(|file| Folder::with(path, file, Some(options))).map_err(told)
    }

    /// Opens a bus that is there. Nothing is made, and neither a link nor a pipe in place of its file is followed or waited for.
    ///
    /// # Errors
    /// As [`Bus::join`](super::Bus::join), and when there is none.
    pub fn existing(path: &Path) -> io::Result<Folder> {
        let file = unfollowed().read(true).open(path.join(REGION));
        file.and_then(|file| Folder::with(path, file, None)).map_err(|error| told(path, error))
    }

    fn with(path: &Path, file: File, new: Option<BusOptions>) -> io::Result<Folder> {
        locks::lock(&file, JOINING)?;
        let opened = Folder::map(&file, new);
        let unlocked = locks::unlock(&file, JOINING);
        let (words, geometry) = opened.and_then(|opened| unlocked.map(|()| opened))?;
        // Also of one that others made, or all that this participant puts beside it would be closed to them.
        let mode = file.metadata()?.permissions().mode() & 0o777;
        Ok(Folder { path: path.to_owned(), file, words, geometry, mode })
    }

    /// Maps the region, after making it if the file is empty and that is meant.
    fn map(file: &File, new: Option<BusOptions>) -> io::Result<(SharedWords, Geometry)> {
        let invalid = |BadRegion(why): BadRegion| io::Error::new(io::ErrorKind::InvalidData, why);
        let new = new.filter(|_| file.metadata().is_ok_and(|data| data.len() == 0));
        let geometry = if let Some(options) = new {
            let geometry = Geometry::new(options.slots, options.ring_bytes).map_err(invalid)?;
            file.set_permissions(Permissions::from_mode(options.mode))?;
            allocate(file, 0, geometry.head_bytes())?;
            file.set_len((geometry.words() * size_of::<u64>()) as u64)?;
            geometry
        } else {
            let mut bytes = [0; HEADER_BYTES];
            file.read_exact_at(&mut bytes, 0)?;
            let header: Vec<u64> = bytes
                .chunks_exact(8)
                .map(|word| word.iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte)))
                .collect();
            Geometry::read(&header).map_err(invalid)?
        };
        let words = SharedWords::map_file(file, geometry.words())?;
        if new.is_some() {
            geometry.write(&words);
        }
        Ok((words, geometry))
    }

    /// The region.
    pub fn region(&self) -> Region<'_> {
        Region::new(&self.words, self.geometry)
    }

    /// How many can take part.
    pub fn slots(&self) -> usize {
        self.geometry.slots
    }

    /// The length of each ring.
    pub fn ring_bytes(&self) -> usize {
        self.geometry.ring_bytes
    }

    /// Whether a slot has an owner that lives.
    ///
    /// # Errors
    /// As `fcntl(2)`.
    pub fn is_held(&self, slot: usize) -> io::Result<bool> {
        locks::is_locked(&self.file, slot_byte(slot))
    }

    pub(super) fn lock_joining(&self) -> io::Result<Joining> {
        let file = self.file.try_clone()?;
        locks::lock(&file, JOINING)?;
        Ok(Joining(file))
    }

    /// Claims a slot that nobody has, for as long as this folder is open, with the writer of its ring. One whose ring is
    /// damaged is left alone.
    pub(super) fn claim(&mut self) -> io::Result<(usize, Writer)> {
        let (slots, path) = (self.geometry.slots, self.path.display());
        let mut damage = None;
        for slot in 0..slots {
            if !locks::try_lock(&self.file, slot_byte(slot))? {
                continue;
            }
            match Writer::resume(self.region().ring(slot)) {
                Ok(writer) => {
                    let (start, bytes) = (self.geometry.ring_offset(slot), self.geometry.ring_bytes);
                    return allocate(&self.file, start, bytes)
                        .map_err(|error| told(&self.path, error))
                        .map(|()| (slot, writer));
                }
                Err(Corrupt(why)) => {
                    locks::unlock(&self.file, slot_byte(slot))?;
                    damage = Some((slot, why));
                }
            }
        }
        Err(match damage {
            Some((slot, why)) => {
                let text =
                    format!("slot {slot} of the bus in {path} is damaged: {why}; and no other of {slots} is free");
                io::Error::new(io::ErrorKind::InvalidData, text)
            }
            None => {
                let text = format!("all {slots} slots of the bus in {path} are taken");
                io::Error::new(io::ErrorKind::StorageFull, text)
            }
        })
    }

    /// Whom a participant has on its channels, as Counts and Enters: none if it is gone.
    pub fn list(&self, of: Participant) -> Records {
        own_list::read(&self.list_path(of.slot as usize), of)
    }

    /// Where a slot's owner writes that.
    pub(super) fn list_path(&self, slot: usize) -> PathBuf {
        self.path.join(format!("{slot}.presence"))
    }

    /// Where a slot's owner listens.
    pub(super) fn socket(&self, slot: usize) -> PathBuf {
        self.path.join(format!("{slot}.sock"))
    }

    /// Permissions of what lies in the folder.
    pub(super) fn mode(&self) -> u32 {
        self.mode
    }
}

/// For files that are there, in a folder where others may have put a link or a pipe in their place.
pub(super) fn unfollowed() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
    options
}

fn told(path: &Path, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("bus in {}: {error}", path.display()))
}

fn slot_byte(slot: usize) -> u64 {
    1 + slot as u64
}

/// Has the file system keep room, so that a full disk shows now and not as a fault at some later write.
fn allocate(file: &File, start: usize, bytes: usize) -> io::Result<()> {
    loop {
        return match fallocate(file, FallocateFlags::empty(), start as u64, bytes as u64) {
            Err(Errno::INTR) => continue,
            Err(Errno::NOSPC) => {
                let text =
                    format!("no room for {bytes} bytes of shared memory (a larger tmpfs, or a smaller --bus-size)");
                Err(io::Error::new(io::ErrorKind::StorageFull, text))
            }
            Err(Errno::OPNOTSUPP) => {
                let text = "its file system cannot hold shared memory: choose a folder on tmpfs, such as in /dev/shm";
                Err(io::Error::new(io::ErrorKind::Unsupported, text))
            }
            done => Ok(done?),
        };
    }
}
