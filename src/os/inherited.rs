//! Descriptors that whoever started this process left open for it, by number.
#![allow(unsafe_code)]

use rustix::io::{FdFlags, fcntl_setfd};
use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::path::Path;

/// Takes over the descriptor of that number, which nothing else in this process may own.
///
/// # Errors
/// `InvalidInput` for standard input, output and error, which have owners, and for a number that is not open.
pub(crate) fn take(number: RawFd) -> io::Result<OwnedFd> {
    if number <= 2 || !Path::new(&format!("/proc/self/fd/{number}")).exists() {
        let text = format!("descriptor {number} was not passed to this process");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    // SAFETY: it is open. Descriptors of this process's own are opened later than this is called, at its start, by the
    // contract of whoever names a number: `--ready-fd` or LISTEN_FDS.
    let descriptor = unsafe { OwnedFd::from_raw_fd(number) };
    // The processes that we start are not to inherit it in turn.
    fcntl_setfd(&descriptor, FdFlags::CLOEXEC)?;
    Ok(descriptor)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::fd::IntoRawFd;

    #[test]
    fn only_what_is_open() {
        let (mut reader, writer) = std::io::pipe().expect("a pipe");
        let number = std::os::fd::OwnedFd::from(writer).into_raw_fd();
        let taken = super::take(number).expect("it is open");
        std::fs::File::from(taken).write_all(b"ready").expect("a reader");
        let mut read = String::new();
        reader.read_to_string(&mut read).expect("the writer is closed");
        assert_eq!(read, "ready");
        assert!(super::take(2).is_err());
        assert!(super::take(1_000_000).is_err());
    }
}
