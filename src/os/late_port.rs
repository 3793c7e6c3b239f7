//! IP_BIND_ADDRESS_NO_PORT (`ip(7)`): a socket bound to an address before it connects gets its port only then, when the
//! destination is known. So a port can serve each destination once, and `bind` need not search for an unused one.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Sets the option for a socket that is not bound yet.
///
/// # Errors
/// As `setsockopt(2)`.
pub fn choose_port_late(socket: BorrowedFd<'_>) -> io::Result<()> {
    let on: libc::c_int = 1;
    let (value, length) = ((&raw const on).cast(), size_of_val(&on) as libc::socklen_t);
    // SAFETY: `value` points to the `length` bytes of `on`, which live beyond the call, and it only reads them.
    match unsafe {
        libc::setsockopt(socket.as_raw_fd(), libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT, value, length)
    } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
