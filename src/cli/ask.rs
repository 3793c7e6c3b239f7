//! One HTTP request to a server, for commands such as `healthcheck`. It blocks, so it is not for load.

use crate::os::listener::ListenAddr;
use crate::os::other_end::OtherEnd;
use crate::os::url::Url;
use crate::protocol::proxy_header::LOCAL;
use socket2::{Domain, SockAddr, Socket, Type};
use std::io::{self, ErrorKind, Read, Write};
use std::time::{Duration, Instant};

/// The path to request when the URL has none.
pub(super) const ROUTE: &str = "/healthz";
/// Longest status line to wait for.
const STATUS_LINE_BYTES: usize = 1024;
/// Longest response to read.
const ANSWER_BYTES: u64 = 16 * 1024 * 1024;

/// A server, and the path to request.
#[derive(PartialEq, Eq, Debug)]
pub(super) struct Target {
    pub addr: ListenAddr,
    /// Value of the Host header.
    pub host: String,
    pub path: String,
    /// Whether to begin with a PROXY protocol header.
    pub proxy_protocol: bool,
}

/// A response whose first line has been read.
pub(super) struct Answer {
    /// The status line.
    pub line: String,
    begun: Vec<u8>,
    stream: Socket,
}

impl Target {
    pub fn parse(url: &str) -> Result<Target, String> {
        let url = Url::parse(url, &[("http", Some(80))])?;
        let addr = url.place.first_addr()?;
        let path = if url.target.is_empty() { ROUTE.to_owned() } else { url.target };
        Ok(Target { addr, host: url.host, path, proxy_protocol: false })
    }

    /// Sends the request and reads up to the end of the status line.
    pub fn ask(&self, deadline: Instant) -> io::Result<Answer> {
        let mut stream = self.connect(deadline)?;
        let request = format!("GET {} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.path, self.host);
        let header = if self.proxy_protocol { LOCAL.as_slice() } else { &[] };
        stream.write_all(&[header, request.as_bytes()].concat())?;
        let mut begun = Vec::new();
        let mut buffer = [0; STATUS_LINE_BYTES];
        loop {
            if let Some(end) = begun.iter().position(|byte| *byte == b'\n') {
                let line = String::from_utf8_lossy(&begun[..end]).trim_end().to_owned();
                return Ok(Answer { line, begun, stream });
            }
            if begun.len() >= STATUS_LINE_BYTES {
                return Err(io::Error::other("not an HTTP response"));
            }
            stream.set_read_timeout(Some(remaining(deadline)?))?;
            match stream.read(&mut buffer) {
                Ok(0) => return Err(io::Error::other("the connection was closed without a response")),
                Ok(bytes) => begun.extend_from_slice(&buffer[..bytes]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn connect(&self, deadline: Instant) -> io::Result<Socket> {
        let left = remaining(deadline)?;
        let socket = match &self.addr {
            ListenAddr::Tcp(addr) => {
                let socket = Socket::new(Domain::for_address(*addr), Type::STREAM, None)?;
                socket.connect_timeout(&(*addr).into(), left)?;
                socket
            }
            ListenAddr::Unix(path) => {
                let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
                // Also bounds the wait for room in the accept queue.
                socket.set_write_timeout(Some(left))?;
                socket.connect(&SockAddr::unix(path)?)?;
                socket
            }
        };
        socket.set_write_timeout(Some(remaining(deadline)?))?;
        Ok(socket)
    }
}

impl Answer {
    /// Whether the status is 200.
    pub fn is_ok(&self) -> bool {
        self.line.split(' ').nth(1) == Some("200")
    }

    /// The server's end of the connection, open as long as ours.
    pub fn other_end(&self) -> io::Result<OtherEnd> {
        OtherEnd::of(&self.stream)
    }

    /// Reads the content up to the end of the stream.
    pub fn content(&mut self) -> io::Result<String> {
        (&self.stream).take(ANSWER_BYTES).read_to_end(&mut self.begun)?;
        let text = String::from_utf8_lossy(&self.begun);
        Ok(text.split_once("\r\n\r\n").map_or(String::new(), |(_, content)| content.to_owned()))
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.addr {
            ListenAddr::Tcp(_) => write!(f, "http://{}{}", self.host, self.path),
            ListenAddr::Unix(path) => write!(f, "unix:{}:{}", path.display(), self.path),
        }
    }
}

/// Time left until `deadline`; an error when there is none.
fn remaining(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(ErrorKind::TimedOut.into()) } else { Ok(left) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_type() {
        for (url, addr, host, path) in [
            ("http://127.0.0.1:8080/healthz", "127.0.0.1:8080", "127.0.0.1:8080", "/healthz"),
            ("http://127.0.0.1:9464/readyz?x", "127.0.0.1:9464", "127.0.0.1:9464", "/readyz?x"),
            ("http://127.0.0.1", "127.0.0.1:80", "127.0.0.1", "/healthz"),
            ("http://[::1]:9/", "[::1]:9", "[::1]:9", "/"),
            ("unix:/run/x.sock", "unix:/run/x.sock", "localhost", "/healthz"),
            ("unix:/run/x.sock:/readyz", "unix:/run/x.sock", "localhost", "/readyz"),
        ] {
            let target = Target::parse(url).expect(url);
            assert_eq!(
                (target.addr.to_string(), &target.host[..], &target.path[..]),
                (addr.to_owned(), host, path),
                "{url}"
            );
        }
        for bad in
            ["", "127.0.0.1:8080", "https://127.0.0.1/", "http://", "unix:", "http://127.0.0.1/a b", "http://:1:2"]
        {
            assert!(Target::parse(bad).is_err(), "{bad}");
        }
    }
}
