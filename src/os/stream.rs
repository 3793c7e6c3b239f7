//! A connected socket, TCP or unix.

use mio::net::{TcpStream, UnixStream};
use mio::{Interest, Registry, Token, event::Source};
use std::io::{self, IoSlice, Read, Write};
use std::net::Shutdown;

/// A non-blocking stream.
#[derive(Debug)]
pub enum Stream {
    /// Over IPv4 or IPv6.
    Tcp(TcpStream),
    /// Over a unix socket.
    Unix(UnixStream),
}

impl Stream {
    /// Registers for both directions, edge-triggered, once and for all.
    ///
    /// # Errors
    /// As `epoll_ctl(2)`.
    pub fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        let interest = Interest::READABLE | Interest::WRITABLE;
        match self {
            Stream::Tcp(stream) => stream.register(registry, token, interest),
            Stream::Unix(stream) => stream.register(registry, token, interest),
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
        }
    }

    /// Shuts down the sending side. A peer that is gone already makes this fail, which changes nothing.
    pub fn shutdown_write(&self) {
        let _ = match self {
            Stream::Tcp(stream) => stream.shutdown(Shutdown::Write),
            Stream::Unix(stream) => stream.shutdown(Shutdown::Write),
        };
    }
}
