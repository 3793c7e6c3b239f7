//! A bus for the workers of one supervisor: its folder is created for them, and removed when the last of them is gone.

use super::folder::{BusOptions, Folder};
use rand::TryRng;
use rand::rngs::SysRng;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use rustix::process::geteuid;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Prefix of such folders' names.
const PREFIX: &str = "percore-private-";
/// The number of names tried.
const ATTEMPTS: usize = 10;

/// A folder that is removed when this is dropped.
pub struct PrivateBus {
    path: PathBuf,
    /// The folder itself, locked as long as the supervisor lives.
    _owner: File,
}

impl PrivateBus {
    /// Creates a bus in a folder of its own in shared memory, and removes those that killed supervisors left behind.
    ///
    /// # Errors
    /// As [`Bus::join`](super::Bus::join).
    pub fn create(options: BusOptions) -> io::Result<PrivateBus> {
        let memory = Path::new("/dev/shm");
        let place = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        remove_abandoned(&place);
        for _ in 0..ATTEMPTS {
            let random = SysRng.try_next_u64().map_err(io::Error::other)?;
            let path = place.join(format!("{PREFIX}{}-{random:016x}", std::process::id()));
            fs::DirBuilder::new().mode(0o700).create(&path)?;
            // Another supervisor may take it for abandoned before it is locked.
            let owner = match lock(&path) {
                Ok(Some(owner)) if owner.metadata()?.nlink() > 0 => owner,
                Ok(_) => continue,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            let private = PrivateBus { path, _owner: owner };
            Folder::open(&private.path, options)?;
            return Ok(private);
        }
        Err(io::Error::other(format!("folders in {} are removed again and again", place.display())))
    }

    /// Locks the folder that replaced the removed one. If it is still the same, it is locked already.
    pub(super) fn own_again(&mut self) -> io::Result<()> {
        if let Some(owner) = lock(&self.path)? {
            self._owner = owner;
        }
        Ok(())
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for PrivateBus {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// Locks a folder, if no process has. Does not follow links.
fn lock(path: &Path) -> io::Result<Option<File>> {
    let mut options = File::options();
    let folder = options.read(true).custom_flags(libc::O_DIRECTORY | libc::O_NOFOLLOW).open(path)?;
    match flock(&folder, FlockOperation::NonBlockingLockExclusive) {
        Err(Errno::WOULDBLOCK) => Ok(None),
        locked => locked.map(|()| Some(folder)).map_err(io::Error::from),
    }
}

/// Removes folders of this user that no supervisor and no worker uses any more. Any user can create something with such
/// a name, so nothing else is touched, and no links in them are followed.
fn remove_abandoned(place: &Path) {
    for entry in fs::read_dir(place).into_iter().flatten().flatten() {
        let path = entry.path();
        let is_named = entry.file_name().to_str().is_some_and(|name| name.starts_with(PREFIX));
        // For a link this describes the link itself.
        let is_ours = || entry.metadata().is_ok_and(|data| data.is_dir() && data.uid() == geteuid().as_raw());
        if is_named && is_ours() {
            let _ = remove_if_abandoned(&path);
        }
    }
}

/// Removes a folder that no process uses. Returns whether it did.
fn remove_if_abandoned(path: &Path) -> io::Result<bool> {
    let Some(_lock) = lock(path)? else { return Ok(false) };
    match Folder::existing(path, BusOptions::default().mode) {
        Ok(folder) => {
            for slot in 0..folder.slots() {
                if folder.is_held(slot)? {
                    return Ok(false);
                }
            }
        }
        // The supervisor was killed before it had created a bus.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    fs::remove_dir_all(path).map(|()| true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os::bus::Bus;

    const SMALL: BusOptions = BusOptions { slots: 4, ring_bytes: 4096, mode: 0o600 };

    #[test]
    fn it_goes_with_its_owner() {
        let private = PrivateBus::create(SMALL).expect("a bus");
        let path = private.path().to_owned();
        drop(Bus::join(&path, SMALL).expect("a place"));
        assert!(!remove_if_abandoned(&path).expect("looked at"));
        drop(private);
        assert!(!path.exists());
    }

    #[test]
    fn what_a_killed_owner_left_is_removed_once_nobody_is_there() {
        let private = PrivateBus::create(SMALL).expect("a bus");
        let path = private.path().to_owned();
        let bus = Bus::join(&path, SMALL).expect("a place");
        // As when it is killed: the lock is released, the folder stays.
        flock(&private._owner, FlockOperation::Unlock).expect("given up");
        let place = path.parent().expect("a folder");
        remove_abandoned(place);
        assert!(path.exists(), "a worker is there still");
        drop(bus);
        remove_abandoned(place);
        assert!(!path.exists());
    }

    #[test]
    fn what_others_put_there_is_let_alone() {
        use rustix::fs::{CWD, FileType, Mode, chown, mknodat};
        use std::os::unix::fs::symlink;
        let place = std::env::temp_dir().join(format!("percore-abandoned-{}", std::process::id()));
        let named = |name: &str| place.join(format!("{PREFIX}{name}"));
        fs::create_dir(&place).expect("a folder");
        let abandoned = |path: &Path| {
            drop(Folder::open(path, SMALL).expect("a bus"));
        };
        abandoned(&place.join("aim"));
        symlink(place.join("aim"), named("link")).expect("a link");
        abandoned(&named("elsewhere"));
        fs::remove_file(named("elsewhere").join("bus")).expect("it is there");
        symlink(place.join("made"), named("elsewhere").join("bus")).expect("a link");
        abandoned(&named("pipe"));
        fs::remove_file(named("pipe").join("bus")).expect("it is there");
        mknodat(CWD, named("pipe").join("bus"), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("a pipe");
        abandoned(&named("other"));
        // Only root can give it away.
        let is_given = chown(named("other"), Some(rustix::fs::Uid::from_raw(65534)), None).is_ok();
        abandoned(&named("own"));
        // As when its creator is killed at once.
        fs::create_dir(named("empty")).expect("a folder");
        remove_abandoned(&place);
        let stays = |name: &str| named(name).symlink_metadata().is_ok();
        assert!(stays("link") && stays("elsewhere") && stays("pipe"));
        assert_eq!((stays("other"), stays("own"), stays("empty")), (is_given, false, false));
        assert!(place.join("aim").exists() && !place.join("made").exists());
        fs::remove_dir_all(place).expect("it is there");
    }
}
