//! Looks up one TCP connection of this host by its addresses (sock_diag(7)). That takes microseconds, while the tables
//! in /proc/net take seconds once there are hundreds of thousands of connections.

use rustix::net::netlink::{SOCK_DIAG, SocketAddrNetlink};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, sendto, socket_with};
use std::io;
use std::net::{IpAddr, SocketAddr};

/// The request, and the type of its answer.
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const REQUEST: u16 = 1;
const ERROR: u16 = 2;
const TCP: u8 = 6;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const HEADER_BYTES: usize = 16;
const REQUEST_BYTES: usize = HEADER_BYTES + 56;
/// Offset of the inode number in an answer: after the header, in the last word of `inet_diag_msg`.
const INODE_AT: usize = HEADER_BYTES + 68;

/// The inode number of the socket with these addresses; `None` if there is none.
///
/// # Errors
/// When the kernel, or a sandbox, has no sock_diag.
pub fn socket_number(local: SocketAddr, remote: SocketAddr) -> io::Result<Option<u64>> {
    let netlink = socket_with(AddressFamily::NETLINK, SocketType::DGRAM, SocketFlags::CLOEXEC, Some(SOCK_DIAG))?;
    sendto(&netlink, &request(local, remote), SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
    let mut buffer = [0; 1024];
    // The kernel has answered by the time `sendto` returns.
    let (bytes, _) = recv(&netlink, &mut buffer[..], RecvFlags::DONTWAIT)?;
    read(&buffer[..bytes])
}

/// `nlmsghdr` and `inet_diag_req_v2` (linux/inet_diag.h).
fn request(local: SocketAddr, remote: SocketAddr) -> [u8; REQUEST_BYTES] {
    let mut out = [0; REQUEST_BYTES];
    let mut at = 0;
    let mut put = |bytes: &[u8]| {
        out[at..at + bytes.len()].copy_from_slice(bytes);
        at += bytes.len();
    };
    put(&(REQUEST_BYTES as u32).to_ne_bytes());
    put(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    put(&REQUEST.to_ne_bytes());
    // Sequence and port.
    put(&[0; 8]);
    put(&[if local.is_ipv4() { AF_INET } else { AF_INET6 }, TCP, 0, 0]);
    // Any state.
    put(&u32::MAX.to_ne_bytes());
    put(&local.port().to_be_bytes());
    put(&remote.port().to_be_bytes());
    put(&octets(local.ip()));
    put(&octets(remote.ip()));
    // Any interface, any cookie.
    put(&0u32.to_ne_bytes());
    put(&[0xff; 8]);
    out
}

/// As sixteen bytes; an IPv4 address takes the first four.
fn octets(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(ip) => {
            let mut out = [0; 16];
            out[..4].copy_from_slice(&ip.octets());
            out
        }
        IpAddr::V6(ip) => ip.octets(),
    }
}

fn read(answer: &[u8]) -> io::Result<Option<u64>> {
    let cut_short = || io::Error::new(io::ErrorKind::InvalidData, "sock_diag: the answer is cut short");
    let kind =
        answer.get(4..6).and_then(|bytes| bytes.try_into().ok()).map(u16::from_ne_bytes).ok_or_else(cut_short)?;
    let word = |at: usize| answer.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map(u32::from_ne_bytes);
    if kind == ERROR {
        let error = io::Error::from_raw_os_error((word(HEADER_BYTES).ok_or_else(cut_short)? as i32).wrapping_neg());
        return if error.kind() == io::ErrorKind::NotFound { Ok(None) } else { Err(error) };
    }
    let number = word(INODE_AT).ok_or_else(cut_short)?;
    // A connection whose socket was closed has no number.
    Ok(Some(u64::from(number)).filter(|number| *number > 0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn both_ends_of_a_connection() {
        for addr in ["127.0.0.1:0", "[::1]:0"] {
            // Not every machine has IPv6.
            let Ok(listener) = TcpListener::bind(addr) else { continue };
            let ours = TcpStream::connect(listener.local_addr().expect("bound")).expect("connected");
            let (theirs, _) = listener.accept().expect("a connection");
            let [near, far] = [ours.local_addr(), ours.peer_addr()].map(|addr| addr.expect("connected"));
            let [a, b] = [socket_number(near, far), socket_number(far, near)].map(|number| number.expect("sock_diag"));
            assert!(a.is_some() && b.is_some() && a != b, "{a:?} {b:?}");
            drop((ours, theirs));
            assert_eq!(socket_number(([127, 0, 0, 9], 1).into(), ([127, 0, 0, 9], 2).into()).expect("sock_diag"), None);
        }
    }

    #[test]
    fn what_is_cut_short_is_an_error() {
        for bytes in 0..INODE_AT + 4 {
            assert!(read(&vec![1; bytes]).is_err(), "{bytes}");
        }
        let mut answer = [0; INODE_AT + 4];
        answer[4..6].copy_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
        assert_eq!(read(&answer).expect("whole"), None);
        answer[INODE_AT..].copy_from_slice(&7u32.to_ne_bytes());
        assert_eq!(read(&answer).expect("whole"), Some(7));
    }
}
