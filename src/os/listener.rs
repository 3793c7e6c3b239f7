//! Listening sockets: TCP and unix.
//!
//! A port belongs to one service: it is bound without SO_REUSEPORT, so that a second service is refused rather than
//! given half of the clients. Only once a listener has the port, [`Listener::open_group`] lets others join it.

use super::defer_accept::defer_accept;
use super::holder::Holder;
use super::stream::Stream;
use crate::net::id::Peer;
use crate::telemetry::log::in_words;
use mio::net::{TcpListener, UnixListener};
use mio::{Interest, Registry, Token, event::Source};
use rustix::net::sockopt::socket_peercred;
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use std::fmt;
use std::fs::Permissions;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

/// Idle time before keep-alive probes; the heartbeat is faster, but does not cover HTTP connections.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// Lower ports need a privilege.
const FIRST_FREE_PORT: u16 = 1024;

/// An address to listen on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ListenAddr {
    /// `IP:PORT` or `[v6]:PORT`. `PORT` and `localhost:PORT` are `127.0.0.1:PORT`, and `:PORT` is `0.0.0.0:PORT`.
    Tcp(SocketAddr),
    /// `unix:PATH`.
    Unix(PathBuf),
}

impl FromStr for ListenAddr {
    type Err = String;

    fn from_str(text: &str) -> Result<ListenAddr, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            return match path {
                "" => Err("unix: needs a path, as in unix:/run/percore.sock".into()),
                path => Ok(ListenAddr::Unix(path.into())),
            };
        }
        let port =
            |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse::<u16>().ok()).flatten();
        let addr = match text.rsplit_once(':') {
            Some(("", all)) => port(all).map(|port| (Ipv4Addr::UNSPECIFIED, port).into()),
            Some(("localhost", own)) => port(own).map(|port| (Ipv4Addr::LOCALHOST, port).into()),
            Some(_) => text.parse().ok(),
            None => port(text).map(|port| (Ipv4Addr::LOCALHOST, port).into()),
        };
        addr.map(ListenAddr::Tcp).ok_or_else(|| {
            format!(
                "'{text}' is not an address: give IP:PORT (127.0.0.1:8080), [v6]:PORT ([::1]:8080), PORT for 127.0.0.1, \
                :PORT for all addresses, or unix:PATH"
            )
        })
    }
}

impl fmt::Display for ListenAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ListenAddr::Tcp(addr) => addr.fmt(f),
            ListenAddr::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Options for listening.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BindOptions {
    /// Connections that may wait to be accepted.
    pub backlog: i32,
    /// Permissions of a unix socket's file; `None` leaves them to the umask.
    pub unix_mode: Option<u32>,
    /// Whether other listeners of the same user may share the port, if they set this too (SO_REUSEPORT).
    pub reuse_port: bool,
}

/// A listening socket. Dropping a unix socket that was bound here removes its file.
#[derive(Debug)]
pub enum Listener {
    /// Over IPv4 or IPv6.
    Tcp(TcpListener),
    /// A unix socket, and its path if we must remove it.
    Unix(UnixListener, Option<PathBuf>),
}

impl Listener {
    /// Binds and listens. A unix socket's file gets the permissions of `options` before any client can connect.
    ///
    /// # Errors
    /// As `bind(2)` and `listen(2)`, with a sentence that names the address.
    pub fn bind(addr: &ListenAddr, options: BindOptions) -> io::Result<Listener> {
        let bound = match addr {
            ListenAddr::Tcp(addr) => bind_tcp(*addr, options),
            ListenAddr::Unix(path) => bind_unix(path, options),
        };
        bound.map_err(|error| {
            let why = match (error.kind(), addr) {
                (io::ErrorKind::AddrInUse, addr) => in_use(holder(addr)),
                (io::ErrorKind::AddrNotAvailable, _) => "this machine has no such address".to_owned(),
                (io::ErrorKind::PermissionDenied, ListenAddr::Tcp(addr)) if addr.port() < FIRST_FREE_PORT => {
                    format!("not permitted; ports below {FIRST_FREE_PORT} need a privilege")
                }
                _ => in_words(&error),
            };
            io::Error::new(error.kind(), format!("cannot listen on {addr}: {why}"))
        })
    }

    /// Lets more listeners of this service share this port: those bound with [`BindOptions::reuse_port`] from now on.
    ///
    /// # Errors
    /// As `setsockopt(2)`.
    pub fn open_group(&self) -> io::Result<()> {
        match self {
            Listener::Tcp(listener) => SockRef::from(listener).set_reuse_port(true),
            Listener::Unix(..) => Ok(()),
        }
    }

    /// The address, with the port that the kernel chose for port 0.
    ///
    /// # Errors
    /// As `getsockname(2)`.
    pub fn local_addr(&self) -> io::Result<ListenAddr> {
        match self {
            Listener::Tcp(listener) => listener.local_addr().map(ListenAddr::Tcp),
            Listener::Unix(listener, _) => {
                let addr = listener.local_addr()?;
                Ok(ListenAddr::Unix(addr.as_pathname().unwrap_or(Path::new("(unnamed)")).to_owned()))
            }
        }
    }

    /// Takes over a listening socket from the process that started this one.
    ///
    /// # Errors
    /// `InvalidInput` for a descriptor that is not a listening stream socket.
    pub fn adopt(descriptor: OwnedFd) -> io::Result<Listener> {
        let socket = Socket::from(descriptor);
        if !socket.is_listener().unwrap_or(false) || socket.r#type()? != Type::STREAM {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the descriptor is not a listening stream socket"));
        }
        socket.set_nonblocking(true)?;
        if socket.domain()? == Domain::UNIX {
            return Ok(Listener::Unix(UnixListener::from_std(socket.into()), None));
        }
        set_options(&socket)?;
        Ok(Listener::Tcp(TcpListener::from_std(socket.into())))
    }

    /// Registers for waiting connections.
    ///
    /// # Errors
    /// As `epoll_ctl(2)`.
    pub fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        match self {
            Listener::Tcp(listener) => listener.register(registry, token, Interest::READABLE),
            Listener::Unix(listener, _) => listener.register(registry, token, Interest::READABLE),
        }
    }

    /// Ends [`Listener::register`].
    ///
    /// # Errors
    /// As `epoll_ctl(2)`.
    pub fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        match self {
            Listener::Tcp(listener) => listener.deregister(registry),
            Listener::Unix(listener, _) => listener.deregister(registry),
        }
    }

    /// As `accept4(2)`. Options of the listener (no delay, keep-alive) apply to the stream too.
    ///
    /// # Errors
    /// As `accept4(2)`.
    pub fn accept(&self) -> io::Result<(Stream, Peer)> {
        match self {
            Listener::Tcp(listener) => listener.accept().map(|(stream, addr)| (Stream::Tcp(stream), Peer::from(addr))),
            Listener::Unix(listener, _) => listener.accept().map(|(stream, _)| (Stream::Unix(stream), Peer::UNIX)),
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Listener::Tcp(listener) => listener.as_fd(),
            Listener::Unix(listener, _) => listener.as_fd(),
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Listener::Unix(_, Some(path)) = self {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// The process that listens there, if it is visible.
pub fn holder(addr: &ListenAddr) -> Option<Holder> {
    match addr {
        ListenAddr::Tcp(addr) => Holder::of(*addr),
        ListenAddr::Unix(path) => {
            let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None).ok()?;
            socket.connect(&socket2::SockAddr::unix(path).ok()?).ok()?;
            let pid = socket_peercred(&socket).ok()?.pid;
            Holder::process(pid.as_raw_nonzero().get().try_into().ok()?)
        }
    }
}

fn in_use(holder: Option<Holder>) -> String {
    match holder {
        Some(holder) if holder.is_us() => "this process listens there already".to_owned(),
        Some(holder) => format!("{holder} listens there"),
        None => "another process listens there".to_owned(),
    }
}

fn bind_tcp(addr: SocketAddr, options: BindOptions) -> io::Result<Listener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(options.reuse_port)?;
    set_options(&socket)?;
    socket.bind(&addr.into())?;
    socket.listen(options.backlog)?;
    Ok(Listener::Tcp(TcpListener::from_std(socket.into())))
}

/// Sets the options that accepted streams inherit, and when to wake us.
fn set_options(socket: &Socket) -> io::Result<()> {
    defer_accept(socket.as_fd())?;
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE))
}

fn bind_unix(path: &Path, options: BindOptions) -> io::Result<Listener> {
    let addr = socket2::SockAddr::unix(path)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)?;
    match socket.bind(&addr) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            remove_stale(path, &addr)?;
            socket.bind(&addr)?;
        }
        bound => bound?,
    }
    if let Some(mode) = options.unix_mode {
        std::fs::set_permissions(path, Permissions::from_mode(mode))?;
    }
    socket.listen(options.backlog)?;
    Ok(Listener::Unix(UnixListener::from_std(socket.into()), Some(path.to_owned())))
}

/// Removes a unix socket without a listener; a live one, or another kind of file, stays.
fn remove_stale(path: &Path, addr: &socket2::SockAddr) -> io::Result<()> {
    if !std::fs::symlink_metadata(path)?.file_type().is_socket() {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "a file of that name exists and is not a socket"));
    }
    match Socket::new(Domain::UNIX, Type::STREAM, None)?.connect(addr) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => std::fs::remove_file(path),
        Ok(()) => Err(io::ErrorKind::AddrInUse.into()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::net::TcpStream;
    use std::time::Instant;

    #[test]
    fn a_connection_is_shown_with_its_first_bytes() -> io::Result<()> {
        let addr = ListenAddr::Tcp(([127, 0, 0, 1], 0).into());
        let listener = Listener::bind(&addr, BindOptions { backlog: 8, unix_mode: None, reuse_port: false })?;
        let Listener::Tcp(tcp) = &listener else { panic!("a TCP listener") };
        let addr = tcp.local_addr()?;
        let mut client = loop {
            let (began, client) = (Instant::now(), TcpStream::connect(addr)?);
            let accepted = listener.accept();
            // After that the connection is accepted without any bytes.
            if began.elapsed() < Duration::from_millis(900) {
                assert!(accepted.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock));
                break client;
            }
        };
        client.write_all(b"G")?;
        while listener.accept().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock) {}
        Ok(())
    }

    #[test]
    fn addresses() {
        for good in ["127.0.0.1:8080", "[::1]:0", "unix:/run/x.sock"] {
            assert_eq!(good.parse::<ListenAddr>().map(|addr| addr.to_string()), Ok(good.to_owned()));
        }
        for (text, addr) in
            [("8080", "127.0.0.1:8080"), ("localhost:80", "127.0.0.1:80"), (":80", "0.0.0.0:80"), ("0", "127.0.0.1:0")]
        {
            assert_eq!(text.parse::<ListenAddr>().map(|addr| addr.to_string()), Ok(addr.to_owned()));
        }
        for bad in
            ["unix:", "::1:80", "1.2.3.4:99999", "", ":", "99999", "+80", "example.org:80", "localhost", "localhost:"]
        {
            assert!(bad.parse::<ListenAddr>().is_err(), "{bad}");
        }
    }
}
