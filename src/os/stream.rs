//! A connected socket, TCP or unix, optionally with TLS.

use super::late_port::choose_port_late;
use super::listener::ListenAddr;
use super::tls::TlsSocket;
use crate::net::id::Peer;
use mio::net::{TcpStream, UnixStream};
use mio::{Interest, Registry, Token, event::Source};
use socket2::{Domain, Protocol, Socket, Type};
use std::io::{self, IoSlice, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr};
use std::os::fd::AsFd;

/// EINPROGRESS.
const IN_PROGRESS: i32 = 115;

/// A non-blocking stream.
#[derive(Debug)]
pub enum Stream {
    /// Over IPv4 or IPv6.
    Tcp(TcpStream),
    /// Over a unix socket.
    Unix(UnixStream),
    /// Either of them, with TLS. A short read does not mean that it is drained.
    Tls(Box<TlsSocket>),
}

impl Stream {
    /// Begins to connect. Once the stream is writable, [`Stream::connect_result`] returns the outcome.
    ///
    /// # Errors
    /// As `socket(2)`, `bind(2)` and `connect(2)`.
    pub fn connect(addr: &ListenAddr, source: Option<IpAddr>) -> io::Result<(Stream, Peer)> {
        match addr {
            ListenAddr::Tcp(addr) => Ok((connect_tcp(*addr, source)?, Peer::from(*addr))),
            ListenAddr::Unix(path) => Ok((Stream::Unix(UnixStream::connect(path)?), Peer::UNIX)),
        }
    }

    /// The outcome of connecting, once the stream is writable or has failed.
    ///
    /// # Errors
    /// As `connect(2)`.
    pub fn connect_result(&self) -> io::Result<()> {
        let error = match self {
            Stream::Tcp(stream) => stream.take_error()?,
            Stream::Unix(stream) => stream.take_error()?,
            Stream::Tls(stream) => return stream.connect_result(),
        };
        error.map_or(Ok(()), Err)
    }

    /// Registers once for both directions, edge-triggered.
    ///
    /// # Errors
    /// As `epoll_ctl(2)`.
    pub fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        let interest = Interest::READABLE | Interest::WRITABLE;
        match self {
            Stream::Tcp(stream) => stream.register(registry, token, interest),
            Stream::Unix(stream) => stream.register(registry, token, interest),
            Stream::Tls(stream) => stream.register(registry, token),
        }
    }

    /// As `read(2)`.
    ///
    /// # Errors
    /// As `read(2)`.
    #[inline]
    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => stream.read(buffer),
            Stream::Unix(stream) => stream.read(buffer),
            Stream::Tls(stream) => stream.read(buffer),
        }
    }

    /// As `write(2)`.
    ///
    /// # Errors
    /// As `write(2)`.
    #[inline]
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => stream.write(bytes),
            Stream::Unix(stream) => stream.write(bytes),
            Stream::Tls(stream) => stream.write_vectored(&[IoSlice::new(bytes)]),
        }
    }

    /// As `writev(2)`.
    ///
    /// # Errors
    /// As `writev(2)`.
    pub fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => stream.write_vectored(slices),
            Stream::Unix(stream) => stream.write_vectored(slices),
            Stream::Tls(stream) => stream.write_vectored(slices),
        }
    }

    /// Shuts down the sending side. This fails if the peer is already gone, which does not matter.
    pub fn shutdown_write(&mut self) {
        let _ = match self {
            Stream::Tcp(stream) => stream.shutdown(Shutdown::Write),
            Stream::Unix(stream) => stream.shutdown(Shutdown::Write),
            Stream::Tls(stream) => return stream.shutdown_write(),
        };
    }
}

/// Checks that connections can use this source address: that it belongs to an interface of this machine.
///
/// # Errors
/// As `socket(2)` and `bind(2)`.
pub fn check_source(source: IpAddr) -> io::Result<()> {
    let addr = SocketAddr::new(source, 0);
    Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?.bind(&addr.into())
}

fn connect_tcp(addr: SocketAddr, source: Option<IpAddr>) -> io::Result<Stream> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    socket.set_tcp_nodelay(true)?;
    if let Some(source) = source {
        // Without it `bind` chooses the port, which also works as long as there are enough.
        let _ = choose_port_late(socket.as_fd());
        socket.bind(&SocketAddr::new(source, 0).into())?;
    }
    match socket.connect(&addr.into()) {
        Err(error) if error.raw_os_error() != Some(IN_PROGRESS) => Err(error),
        _ => Ok(Stream::Tcp(TcpStream::from_std(socket.into()))),
    }
}
