//! Finds the process at the other end of a connection within this host.

use super::sock_diag;
use rustix::net::sockopt::socket_peercred;
use socket2::Socket;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;

/// The other end of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OtherEnd {
    /// For a unix socket: the process that listens on it.
    Process(i32),
    /// For a TCP connection: the inode number of its socket.
    Socket(u64),
}

impl OtherEnd {
    /// Returns the other end of this connection.
    ///
    /// # Errors
    /// `NotFound` for a connection that is not on this host, or is closed; as `getsockopt(2)`.
    pub fn of(stream: &Socket) -> io::Result<OtherEnd> {
        let (Some(ours), Some(theirs)) = (stream.local_addr()?.as_socket(), stream.peer_addr()?.as_socket()) else {
            return Ok(OtherEnd::Process(socket_peercred(stream.as_fd())?.pid.as_raw_nonzero().get()));
        };
        if let Ok(Some(number)) = sock_diag::socket_number(theirs, ours) {
            return Ok(OtherEnd::Socket(number));
        }
        // A sandbox may have no sock_diag; and a connection it does not find may belong to a dual-stack socket.
        let [plain, mapped] = [line_of(theirs, ours), line_of(mapped(theirs), mapped(ours))];
        for (table, wanted) in [("/proc/net/tcp", &plain), ("/proc/net/tcp6", &plain), ("/proc/net/tcp6", &mapped)] {
            let Ok(connections) = File::open(table).map(BufReader::new) else { continue };
            let mut lines = connections.lines().map_while(Result::ok);
            if let Some(number) = lines.find_map(|line| socket_number(&line, wanted)) {
                return Ok(OtherEnd::Socket(number));
            }
        }
        Err(io::Error::new(io::ErrorKind::NotFound, "the other end of the connection is not on this host"))
    }

    /// Whether this process has the socket.
    ///
    /// # Errors
    /// When there is no such process, or we may not inspect it.
    pub fn belongs_to(self, pid: i32) -> io::Result<bool> {
        match self {
            OtherEnd::Process(listens) => Ok(listens == pid),
            OtherEnd::Socket(number) => {
                let name = format!("socket:[{number}]");
                let mut open = std::fs::read_dir(format!("/proc/{pid}/fd"))?.flatten();
                Ok(open.any(|entry| std::fs::read_link(entry.path()).is_ok_and(|to| to.as_os_str() == name.as_str())))
            }
        }
    }
}

/// A connection in the format of the kernel's tables: local and remote address.
fn line_of(local: SocketAddr, remote: SocketAddr) -> String {
    format!("{} {}", text_of(local), text_of(remote))
}

/// An address in the format of the kernel's tables: in native byte order.
pub(super) fn text_of(addr: SocketAddr) -> String {
    let words: String = match addr.ip() {
        IpAddr::V4(ip) => format!("{:08X}", u32::from_ne_bytes(ip.octets())),
        IpAddr::V6(ip) => {
            let octets = ip.octets();
            let words = octets.chunks_exact(4).filter_map(|word| word.try_into().ok());
            words.map(|word| format!("{:08X}", u32::from_ne_bytes(word))).collect()
        }
    };
    format!("{words}:{:04X}", addr.port())
}

/// An IPv4 address as a dual-stack socket sees it.
pub(super) fn mapped(addr: SocketAddr) -> SocketAddr {
    match addr.ip() {
        IpAddr::V4(ip) => (ip.to_ipv6_mapped(), addr.port()).into(),
        IpAddr::V6(_) => addr,
    }
}

/// The socket in a line of the kernel's table, if the line matches the wanted connection.
fn socket_number(line: &str, wanted: &str) -> Option<u64> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let is_wanted = format!("{} {}", words.get(1)?, words.get(2)?) == wanted;
    words.get(9)?.parse().ok().filter(|number| is_wanted && *number > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn the_process_with_the_other_end() {
        for addr in ["127.0.0.1:0", "[::1]:0"] {
            // Not every machine has IPv6.
            let Ok(listener) = TcpListener::bind(addr) else { continue };
            let ours = Socket::from(TcpStream::connect(listener.local_addr().expect("bound")).expect("connected"));
            let (theirs, _) = listener.accept().expect("a connection");
            let end = OtherEnd::of(&ours).expect("on this host");
            assert!(end.belongs_to(std::process::id() as i32).expect("we are there"));
            assert!(!end.belongs_to(std::os::unix::process::parent_id() as i32).unwrap_or(false));
            drop((ours, theirs));
        }
    }

    #[test]
    fn the_process_that_listens() {
        let path = std::env::temp_dir().join(format!("percore-end-{}", std::process::id()));
        let listener = std::os::unix::net::UnixListener::bind(&path).expect("a socket");
        let ours = Socket::from(std::os::unix::net::UnixStream::connect(&path).expect("connected"));
        let end = OtherEnd::of(&ours).expect("on this host");
        assert!(end.belongs_to(std::process::id() as i32).expect("known") && !end.belongs_to(1).expect("known"));
        drop(listener);
        std::fs::remove_file(path).expect("it is there");
    }
}
