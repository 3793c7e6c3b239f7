//! The folder of a bus: the file with the shared region, its locks, and the files of participants.
//!
//! The folder is opened once, and everything in it through its descriptor, without following links. Nothing here waits
//! for a lock: a region is created whole under a temporary name, and renamed if there is none yet; a slot is claimed if
//! it is free.

use super::trust::{Trust, shares_folder};
use crate::bus::region::{BadRegion, Geometry, HEADER_BYTES, Region};
use crate::bus::ring::{Corrupt, Writer};
use crate::channel::record::Records;
use crate::net::id::Participant;
use crate::os::locks;
use crate::os::shared_words::SharedWords;
use rand::TryRng;
use rand::rngs::SysRng;
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::fs::{
    AtFlags, CWD, Dir, FallocateFlags, Mode, OFlags, RenameFlags, fallocate, fchmod, openat, renameat_with, statfs,
    unlinkat,
};
use rustix::io::Errno;
use std::fs::{self, DirBuilder, File, Metadata};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The file with the region.
const REGION: &str = "bus";
/// Suffix of the name of an unfinished region.
const UNFINISHED: &str = ".new";
/// File system types of tmpfs and ramfs in `statfs(2)`.
const MEMORY: [u64; 2] = [0x0102_1994, 0x8584_58f6];
/// Attempts to find or create a bus, before others that do the same count as a fault.
const ATTEMPTS: usize = 100;

/// How to create a bus, if there is none yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BusOptions {
    /// Maximum number of participants. Default 64.
    pub slots: usize,
    /// The length of each participant's ring in bytes, a power of two. A message may take up to a quarter of it. A
    /// reader that falls a whole ring behind loses messages. Default 4 MiB.
    pub ring_bytes: usize,
    /// Permissions of the bus's files, which decide who may join. Default `0o600`: the user only. If the bus exists,
    /// the permissions of its region apply instead. The folder and the region must belong to the user or to root; if
    /// these permissions include a group or everyone, they may belong to one of the user's groups, or to anyone.
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
    directory: Directory,
    file: File,
    words: SharedWords,
    geometry: Geometry,
    mode: u32,
}

/// A folder whose files are opened by name, without following links.
#[derive(Clone, Debug)]
pub(super) struct Directory(Arc<OwnedFd>);

impl Directory {
    fn open(path: &Path) -> io::Result<Directory> {
        // A trailing slash would make the kernel follow a link.
        let path: PathBuf = path.components().collect();
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match openat(CWD, &path, flags, Mode::empty()) {
            Err(Errno::NOTDIR | Errno::LOOP) => {
                Err(io::Error::new(io::ErrorKind::NotADirectory, "it is not a folder, or a link to one"))
            }
            opened => Ok(Directory(Arc::new(opened?))),
        }
    }

    /// Opens an existing file. Does not block on something else that others may have put in its place, such as a pipe.
    pub fn file(&self, name: &str, write: bool) -> io::Result<File> {
        let access = if write { OFlags::RDWR } else { OFlags::RDONLY };
        self.open_file(name, access, 0)
    }

    /// Creates a file with these permissions, whatever the umask.
    pub fn new_file(&self, name: &str, mode: u32) -> io::Result<File> {
        let file = self.open_file(name, OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::APPEND, mode)?;
        fchmod(&file, Mode::from_raw_mode(mode))?;
        Ok(file)
    }

    fn open_file(&self, name: &str, flags: OFlags, mode: u32) -> io::Result<File> {
        let flags = flags | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = File::from(openat(&*self.0, name, flags, Mode::from_raw_mode(mode))?);
        if file.metadata()?.is_file() {
            return Ok(file);
        }
        Err(io::Error::new(io::ErrorKind::InvalidData, format!("{name} is not a file")))
    }

    /// Renames a file, replacing any file with the new name.
    pub fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        Ok(rustix::fs::renameat(&*self.0, from, &*self.0, to)?)
    }

    /// Removes a file, or an empty folder in its place, if it exists.
    pub fn remove(&self, name: &str) -> io::Result<()> {
        let removed = match unlinkat(&*self.0, name, AtFlags::empty()) {
            Err(Errno::ISDIR) => unlinkat(&*self.0, name, AtFlags::REMOVEDIR),
            removed => removed,
        };
        match removed {
            Err(Errno::NOENT) => Ok(()),
            removed => Ok(removed?),
        }
    }

    fn names(&self) -> io::Result<Vec<String>> {
        let entries = Dir::read_from(&*self.0)?.filter_map(Result::ok);
        Ok(entries.filter_map(|entry| entry.file_name().to_str().ok().map(str::to_owned)).collect())
    }
}

impl AsFd for Directory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Folder {
    /// Opens a bus, or creates one.
    ///
    /// # Errors
    /// As [`Bus::join`](super::Bus::join).
    pub fn open(path: &Path, options: BusOptions) -> io::Result<Folder> {
        let opened = make_folder(path, options.mode).and_then(|()| {
            let directory = Directory::open(path)?;
            for _ in 0..ATTEMPTS {
                match directory.file(REGION, true) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => make(&directory, options)?,
                    file => return Folder::with(path, directory, file?, options.mode),
                }
            }
            Err(io::Error::other("it keeps being removed"))
        });
        opened.map_err(|error| told(path, error))
    }

    /// Opens an existing bus, and creates nothing. `mode` are the permissions expected, as for [`BusOptions::mode`].
    ///
    /// # Errors
    /// As [`Bus::join`](super::Bus::join), and when there is no bus.
    pub fn existing(path: &Path, mode: u32) -> io::Result<Folder> {
        let opened = Directory::open(path).and_then(|directory| {
            let file = directory.file(REGION, true)?;
            Folder::with(path, directory, file, mode)
        });
        opened.map_err(|error| told(path, error))
    }

    fn with(path: &Path, directory: Directory, file: File, mode: u32) -> io::Result<Folder> {
        let trust = Trust::new(mode)?;
        let region = file.metadata()?;
        trust.check_owner("its region", &region)?;
        trust.check_folder(&File::from(directory.as_fd().try_clone_to_owned()?).metadata()?, region.mode())?;
        let (words, geometry) = map(&file)?;
        // Also for a bus that others created, or the files that this participant adds would be closed to them.
        Ok(Folder { path: path.to_owned(), directory, file, words, geometry, mode: region.mode() & 0o777 })
    }

    /// The region.
    pub fn region(&self) -> Region<'_> {
        Region::new(&self.words, self.geometry)
    }

    /// The number of slots.
    pub fn slots(&self) -> usize {
        self.geometry.slots
    }

    /// The length of each ring.
    pub fn ring_bytes(&self) -> usize {
        self.geometry.ring_bytes
    }

    /// Whether a slot has a living owner.
    ///
    /// # Errors
    /// As `fcntl(2)`.
    pub fn is_held(&self, slot: usize) -> io::Result<bool> {
        locks::is_locked(&self.file, slot_byte(slot))
    }

    /// Claims a slot for as long as this folder is open. Returns false if another process has it.
    pub(super) fn claim(&self, slot: usize) -> io::Result<bool> {
        locks::try_lock(&self.file, slot_byte(slot))
    }

    /// Releases a slot that we claimed.
    pub(super) fn give_up(&self, slot: usize) -> io::Result<()> {
        locks::unlock(&self.file, slot_byte(slot))
    }

    /// The writer of our slot's ring.
    pub(super) fn writer(&self, slot: usize) -> io::Result<Writer> {
        let damaged = |why: &str| {
            let text = format!("slot {slot} of the bus in {} is damaged: {why}", self.path.display());
            io::Error::new(io::ErrorKind::InvalidData, text)
        };
        if self.region().entry(slot).is_none() {
            return Err(damaged("it does not name its owner"));
        }
        let writer = Writer::resume(self.region().ring(slot)).map_err(|Corrupt(why)| damaged(why))?;
        let (start, bytes) = (self.geometry.ring_offset(slot), self.geometry.ring_bytes);
        allocate(&self.file, start, bytes).map_err(|error| told(&self.path, error))?;
        Ok(writer)
    }

    /// The list of a participant's channel members, as Counts and Enters: empty if it is gone, or has no list.
    ///
    /// # Errors
    /// When its list cannot be read.
    pub fn list(&self, of: Participant) -> io::Result<Records> {
        super::own_list::read(&self.directory, of)
    }

    /// Takes a lock that only one participant of the bus can hold, in a file of its own. `None` if another holds it.
    pub(super) fn lock(&self, name: &str) -> io::Result<Option<File>> {
        let file = match self.directory.new_file(name, self.mode) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => self.directory.file(name, true),
            made => made,
        };
        let file = file.map_err(|error| told(&self.path, error))?;
        Ok(locks::try_lock(&file, 0).map_err(|error| told(&self.path, error))?.then_some(file))
    }

    pub(super) fn directory(&self) -> &Directory {
        &self.directory
    }

    /// A descriptor that becomes readable if the region's file may have been removed or renamed.
    pub(super) fn watch(&self) -> io::Result<OwnedFd> {
        let watch = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        let file = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        inotify::add_watch(&watch, file, WatchFlags::ATTRIB | WatchFlags::MOVE_SELF)?;
        Ok(watch)
    }

    /// Whether new participants would find another region at the folder's path, or none.
    pub(super) fn is_replaced(&self) -> bool {
        let identity = |data: Metadata| (data.dev(), data.ino());
        let found = fs::symlink_metadata(self.path.join(REGION)).map(identity);
        match (found, self.file.metadata().map(identity)) {
            (Ok(found), Ok(ours)) => found != ours,
            (Err(error), _) => error.kind() == io::ErrorKind::NotFound,
            _ => false,
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// A path by which a socket in the folder can be reached, since a descriptor alone does not suffice.
    pub(super) fn socket_path(&self, name: &str) -> PathBuf {
        let by_descriptor = PathBuf::from(format!("/proc/self/fd/{}", self.directory.as_fd().as_raw_fd()));
        if by_descriptor.exists() { by_descriptor.join(name) } else { self.path.join(name) }
    }

    /// Permissions of the files in the folder.
    pub(super) fn mode(&self) -> u32 {
        self.mode
    }
}

/// Whether a folder is in memory, not on a disk, to which everything published would be written sooner or later. If
/// that is unknown, returns true.
pub fn is_in_memory(path: &Path) -> bool {
    statfs(path).map_or(true, |kind| MEMORY.contains(&(kind.f_type as u64 & 0xffff_ffff)))
}

/// Creates the folder if there is none. Users of the files may list the folder, and put files of their own there.
fn make_folder(path: &Path, mode: u32) -> io::Result<()> {
    let made = DirBuilder::new().mode(0o700).create(path);
    match made {
        Ok(()) => fchmod(&Directory::open(path)?, Mode::from_raw_mode(shares_folder(mode))).map_err(io::Error::from),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            // A mistyped name would leave folders and megabytes somewhere on a disk.
            let text = match path.parent() {
                Some(parent) => {
                    format!("{} does not exist, and only the last folder of a bus's path is created", parent.display())
                }
                None => error.to_string(),
            };
            Err(io::Error::new(error.kind(), text))
        }
        Err(error) => Err(error),
    }
}

/// Creates a region, visible only once complete; the next creator removes one whose creator was killed.
fn make(directory: &Directory, options: BusOptions) -> io::Result<()> {
    let geometry = Geometry::new(options.slots, options.ring_bytes).map_err(invalid)?;
    let is_unfinished = |name: &str| name.starts_with(REGION) && name.ends_with(UNFINISHED);
    for name in directory.names()?.iter().filter(|name| is_unfinished(name)) {
        directory.remove(name)?;
    }
    let random = SysRng.try_next_u64().map_err(io::Error::other)?;
    let name = format!("{REGION}-{random:016x}{UNFINISHED}");
    let made = directory.new_file(&name, options.mode).and_then(|file| {
        allocate(&file, 0, geometry.head_bytes())?;
        file.set_len((geometry.words() * size_of::<u64>()) as u64)?;
        geometry.write(&SharedWords::map_file(&file, geometry.words())?);
        match renameat_with(directory, &name, directory, REGION, RenameFlags::NOREPLACE) {
            // Another was created meanwhile; or another creator took ours for an abandoned one.
            Err(Errno::EXIST | Errno::NOENT) => Ok(()),
            named => Ok(named?),
        }
    });
    directory.remove(&name).and(made)
}

fn map(file: &File) -> io::Result<(SharedWords, Geometry)> {
    let mut bytes = [0; HEADER_BYTES];
    file.read_exact_at(&mut bytes, 0)?;
    let (words, _) = bytes.as_chunks();
    let header: Vec<u64> = words.iter().map(|word| u64::from_ne_bytes(*word)).collect();
    let geometry = Geometry::read(&header).map_err(invalid)?;
    Ok((SharedWords::map_file(file, geometry.words())?, geometry))
}

fn invalid(BadRegion(why): BadRegion) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

pub(super) fn told(path: &Path, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("bus in {}: {error}", path.display()))
}

fn slot_byte(slot: usize) -> u64 {
    1 + slot as u64
}

/// Allocates room in the file system, so that a full disk shows now and not as a fault at some later write.
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
