//! `percore healthcheck [URL]`: asks a server how it is, for images in which there is neither a shell nor curl.

use super::Failure;
use super::flags::listen_addrs;
use super::units::duration;
use crate::os::listener::ListenAddr;
use clap::Args;
use socket2::{Domain, SockAddr, Socket, Type};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::time::{Duration, Instant};

/// What is asked for when the URL names no path.
const ROUTE: &str = "/healthz";

/// Longest status line that is waited for.
const STATUS_LINE_BYTES: usize = 1024;

#[derive(Args, Debug)]
pub(super) struct HealthcheckFlags {
    // As in `flags`: the line is read in a terminal.
    #[allow(rustdoc::bare_urls)]
    /// http://HOST:PORT/PATH or unix:SOCKET:/PATH [default: /healthz of the first address in PERCORE_LISTEN, else of
    /// 127.0.0.1:$PORT, else of 127.0.0.1:8080]
    #[arg(value_name = "URL")]
    url: Option<String>,
    /// How long the answer may take
    #[arg(long, env = "PERCORE_HEALTHCHECK_TIMEOUT", value_name = "TIME", default_value = "3s", value_parser = duration)]
    timeout: Duration,
}

/// Whom to ask, and for what.
#[derive(PartialEq, Eq, Debug)]
struct Target {
    addr: ListenAddr,
    /// Value of the Host header.
    host: String,
    path: String,
}

/// Fails unless the server answers 200 in time.
pub(super) fn run(flags: HealthcheckFlags) -> Result<(), Failure> {
    if flags.timeout.is_zero() {
        return Err(Failure::Usage("--timeout must be longer than 0".into()));
    }
    let target = match &flags.url {
        Some(url) => Target::parse(url).map_err(Failure::Usage)?,
        None => Target::listening()?,
    };
    let deadline = Instant::now() + flags.timeout;
    let failed = |what: String| Failure::Run(format!("{target}: {what}"));
    match target.ask(deadline) {
        Ok(line) if line.split(' ').nth(1) == Some("200") => Ok(()),
        Ok(line) => Err(failed(format!("answered '{}'", line.escape_default()))),
        Err(error) if matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock) => {
            Err(failed(format!("no answer within {:?}", flags.timeout)))
        }
        Err(error) => Err(failed(error.to_string())),
    }
}

impl Target {
    fn parse(url: &str) -> Result<Target, String> {
        let (addr, host, path) = if let Some(rest) = url.strip_prefix("unix:") {
            let (socket, path) = rest.find(":/").map_or((rest, ""), |at| (&rest[..at], &rest[at + 1..]));
            (format!("unix:{socket}").parse()?, "localhost", path)
        } else {
            let rest = url.strip_prefix("http://");
            let rest = rest.ok_or_else(|| format!("'{url}': give http://HOST:PORT/PATH or unix:SOCKET:/PATH"))?;
            let (host, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
            (ListenAddr::Tcp(resolve(host)?), host, path)
        };
        if url.contains(|c: char| c.is_ascii_control() || c == ' ') {
            return Err(format!("'{}' has a space or a control character in it", url.escape_default()));
        }
        let path = if path.is_empty() { ROUTE } else { path };
        Ok(Target { addr, host: host.to_owned(), path: path.to_owned() })
    }

    /// The server that the environment describes: `percore serve` with the same one listens there.
    fn listening() -> Result<Target, Failure> {
        let given = std::env::var("PERCORE_LISTEN").unwrap_or_default();
        // Of one address for each worker it is the first worker's.
        let first: Vec<String> = given.split(',').take(1).filter(|addr| !addr.is_empty()).map(str::to_owned).collect();
        let first =
            listen_addrs(&first)?.swap_remove(0).for_slot(0).map_err(|error| Failure::Usage(error.to_string()))?;
        let addr = match first {
            ListenAddr::Tcp(addr) => ListenAddr::Tcp(SocketAddr::new(reachable(addr.ip()), addr.port())),
            unix => unix,
        };
        let host = match &addr {
            ListenAddr::Tcp(addr) => addr.to_string(),
            ListenAddr::Unix(_) => "localhost".to_owned(),
        };
        Ok(Target { addr, host, path: ROUTE.to_owned() })
    }

    /// The status line of the answer.
    fn ask(&self, deadline: Instant) -> io::Result<String> {
        let mut stream = self.connect(deadline)?;
        let request = format!("GET {} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.path, self.host);
        stream.write_all(request.as_bytes())?;
        let mut answer = Vec::new();
        let mut buffer = [0; STATUS_LINE_BYTES];
        loop {
            if let Some(end) = answer.iter().position(|byte| *byte == b'\n') {
                return Ok(String::from_utf8_lossy(&answer[..end]).trim_end().to_owned());
            }
            if answer.len() >= STATUS_LINE_BYTES {
                return Err(io::Error::other("what came is no answer of HTTP"));
            }
            stream.set_read_timeout(Some(remaining(deadline)?))?;
            match stream.read(&mut buffer) {
                Ok(0) => return Err(io::Error::other("the connection was closed without an answer")),
                Ok(bytes) => answer.extend_from_slice(&buffer[..bytes]),
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
                // Bounds the wait for room in the backlog too.
                socket.set_write_timeout(Some(left))?;
                socket.connect(&SockAddr::unix(path)?)?;
                socket
            }
        };
        socket.set_write_timeout(Some(remaining(deadline)?))?;
        Ok(socket)
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

fn resolve(host: &str) -> Result<SocketAddr, String> {
    let has_port = host.rsplit_once(':').is_some_and(|(_, port)| !port.contains(']'));
    let named = if has_port { host.to_owned() } else { format!("{host}:80") };
    let mut addrs = named.to_socket_addrs().map_err(|error| format!("cannot find '{host}': {error}"))?;
    addrs.next().ok_or_else(|| format!("'{host}' has no address"))
}

/// The address under which the own host reaches who listens on all of them.
fn reachable(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    }
}

/// What is left up to `deadline`, an error when that is nothing.
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
