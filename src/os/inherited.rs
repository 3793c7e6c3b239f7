//! Descriptors that the parent process left open for this one, by number.
#![allow(unsafe_code)]

use rustix::io::{FdFlags, fcntl_setfd};
use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::path::Path;

/// Takes ownership of the descriptor with that number, which nothing else in this process may own.
///
/// # Errors
/// `InvalidInput` for standard input, output and error, which have owners, and for a number that is not open.
pub(crate) fn take(number: RawFd) -> io::Result<OwnedFd> {
    if number <= 2 || !Path::new(&format!("/proc/self/fd/{number}")).exists() {
        let text = format!("descriptor {number} was not passed to this process");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    // SAFETY: it is open. This process opens descriptors of its own only after this call, at its start; passing a
    // number in `--ready-fd` or LISTEN_FDS promises that.
    let descriptor = unsafe { OwnedFd::from_raw_fd(number) };
    // Processes that we start must not inherit it.
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
