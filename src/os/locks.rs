//! Locks on bytes of a file, owned by the open file (OFD locks): the kernel releases them when its last descriptor is
//! closed, however the process ended, and they work across containers.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// Locks a byte, if no other open file has. Returns whether we have it.
///
/// # Errors
/// As `fcntl(2)`.
pub fn try_lock(file: &File, byte: u64) -> io::Result<bool> {
    match control(file, libc::F_OFD_SETLK, libc::F_WRLCK, byte) {
        Ok(_) => Ok(true),
        Err(error) if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EACCES)) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Releases a byte's lock.
///
/// # Errors
/// As `fcntl(2)`.
pub fn unlock(file: &File, byte: u64) -> io::Result<()> {
    control(file, libc::F_OFD_SETLK, libc::F_UNLCK, byte).map(|_| ())
}

/// Whether another open file holds a byte's lock.
///
/// # Errors
/// As `fcntl(2)`.
pub fn is_locked(file: &File, byte: u64) -> io::Result<bool> {
    control(file, libc::F_OFD_GETLK, libc::F_WRLCK, byte).map(|kind| kind != libc::F_UNLCK)
}

/// Calls `fcntl(2)`, and returns the kind of lock in its answer.
fn control(file: &File, command: i32, kind: i32, byte: u64) -> io::Result<i32> {
    let start = libc::off_t::try_from(byte).map_err(|_| io::ErrorKind::InvalidInput)?;
    let mut lock = libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: start,
        l_len: 1,
        // These commands require 0.
        l_pid: 0,
    };
    // SAFETY: the descriptor is open as long as `file`, and the command takes a pointer to a lock that lives and is
    // ours.
    match unsafe { libc::fcntl(file.as_raw_fd(), command, &raw mut lock) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(lock.l_type.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_goes_with_its_open_file() {
        let path = std::env::temp_dir().join(format!("percore-locks-{}", std::process::id()));
        let open = || File::options().create(true).truncate(false).read(true).write(true).open(&path).expect("a file");
        let (ours, theirs) = (open(), open());
        assert!(try_lock(&ours, 7).expect("a lock"));
        assert!(!try_lock(&theirs, 7).expect("no lock"));
        assert!(try_lock(&theirs, 8).expect("another byte"));
        assert!(
            is_locked(&theirs, 7).expect("asked") && !is_locked(&ours, 7).expect("asked"),
            "one's own does not count"
        );
        unlock(&ours, 7).expect("given up");
        assert!(!is_locked(&theirs, 7).expect("asked"));
        assert!(try_lock(&ours, 7).expect("free"));
        drop(ours);
        assert!(try_lock(&theirs, 7).expect("a lock"), "it went with the file");
        std::fs::remove_file(path).expect("it is there");
    }
}
