//! TCP_DEFER_ACCEPT (`tcp(7)`): a connection is accepted once its first bytes have arrived, so that an upgrade wakes us
//! once instead of twice, and a silent connection holds no descriptor.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// A connection that stays silent this long is accepted anyway; the handshake deadline starts then.
const SECONDS: libc::c_int = 1;

/// Sets the option for a listening socket, or one that will listen.
///
/// # Errors
/// As `setsockopt(2)`.
pub fn defer_accept(socket: BorrowedFd<'_>) -> io::Result<()> {
    let seconds = SECONDS;
    let (value, length) = ((&raw const seconds).cast(), size_of_val(&seconds) as libc::socklen_t);
    // SAFETY: `value` points to the `length` bytes of `seconds`, which live beyond the call, and it only reads them.
    match unsafe { libc::setsockopt(socket.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, value, length) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
