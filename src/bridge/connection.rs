//! A socket to Redis, with or without TLS. Edge-triggered: once reported readable or writable, it stays so until an
//! operation would block.

use super::asking::{Asking, Found};
use super::url::{Place, RedisUrl};
use crate::os::listener::ListenAddr;
use crate::os::resolve::resolve_all;
use crate::os::stream::Stream;
use crate::os::tls::{TlsClient, TlsStream};
use mio::event::Event;
use mio::{Registry, Token, Waker};
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError, channel};

/// A lookup of Redis's addresses, on a thread of its own because the system's resolver may be slow.
pub struct Lookup(Receiver<Result<Found, String>>);

impl Lookup {
    /// Starts a lookup. `tls` is for the Sentinels or nodes to ask; `waker` wakes the loop when it is done.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn begin(redis: &RedisUrl, tls: Option<&TlsClient>, waker: Arc<Waker>) -> io::Result<Lookup> {
        let (sender, receiver) = channel();
        let (redis, tls) = (redis.clone(), tls.cloned());
        std::thread::Builder::new().name("lookup".into()).spawn(move || {
            let asking = Asking { login: redis.login.as_ref(), tls: tls.as_ref() };
            let found = match &redis.place {
                Place::Unix(path) => Ok(Found { addrs: vec![ListenAddr::Unix(path.clone())], name: String::new() }),
                Place::Tcp { host, .. } => resolve_all(host, 0).map(|addrs| Found {
                    addrs: addrs.into_iter().map(ListenAddr::Tcp).collect(),
                    name: host.rsplit_once(':').map_or(host.as_str(), |(name, _)| name).to_owned(),
                }),
                Place::Sentinel { hosts, master, .. } => asking.master_of(hosts, master),
                Place::Cluster { hosts, tag, .. } => asking.node_of(hosts, tag.as_bytes()),
            };
            // The receiver may be gone.
            let _ = sender.send(found);
            let _ = waker.wake();
        })?;
        Ok(Lookup(receiver))
    }

    /// Returns the result, once.
    pub fn result(&self) -> Option<Result<Found, String>> {
        match self.0.try_recv() {
            Ok(found) => Some(found),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => Some(Err("address lookup failed".into())),
        }
    }
}

enum Wire {
    Plain(Stream),
    Tls(Box<TlsStream>),
}

/// A connection.
pub struct Connection {
    wire: Wire,
    connected: bool,
    readable: bool,
    writable: bool,
}

impl Connection {
    /// Starts to connect. With TLS the certificate must be for `host`.
    ///
    /// # Errors
    /// As `connect(2)`.
    pub fn open(
        addr: &ListenAddr,
        tls: Option<(&TlsClient, &str)>,
        registry: &Registry,
        token: Token,
    ) -> io::Result<Connection> {
        let (stream, _) = Stream::connect(addr, None)?;
        let mut wire = match tls {
            None => Wire::Plain(stream),
            Some((client, host)) => Wire::Tls(Box::new(client.connect(stream, host)?)),
        };
        match &mut wire {
            Wire::Plain(stream) => stream.register(registry, token)?,
            Wire::Tls(stream) => stream.register(registry, token)?,
        }
        Ok(Connection { wire, connected: false, readable: false, writable: false })
    }

    /// Notes an event of the socket.
    pub fn note(&mut self, event: &Event) {
        self.readable |= event.is_readable() || event.is_read_closed() || event.is_error();
        self.writable |= event.is_writable() || event.is_write_closed() || event.is_error();
    }

    /// Returns whether there may be data to read.
    pub fn is_readable(&self) -> bool {
        self.connected && self.readable
    }

    /// Reads data; 0 bytes when there is no more for now.
    ///
    /// # Errors
    /// As `read(2)`, and at the end of the connection.
    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = match &mut self.wire {
            Wire::Plain(stream) => stream.read(buffer),
            Wire::Tls(stream) => stream.read(buffer),
        };
        match read {
            Ok(0) => Err(closed()),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(closed()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.readable = false;
                Ok(0)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(0),
            read => read,
        }
    }

    /// Writes as much as the socket takes, and returns how many bytes that was.
    ///
    /// # Errors
    /// As `connect(2)` and `write(2)`.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !self.writable {
            return Ok(0);
        }
        if !self.connected {
            match &self.wire {
                Wire::Plain(stream) => stream.connect_result()?,
                Wire::Tls(stream) => stream.connect_result()?,
            }
            self.connected = true;
        }
        let mut written = 0;
        while self.writable {
            let result = match &mut self.wire {
                Wire::Plain(_) if written == bytes.len() => break,
                Wire::Plain(stream) => stream.write(&bytes[written..]),
                Wire::Tls(stream) => write_tls(stream, &bytes[written..]),
            };
            match result {
                // Nothing left to write, that of the handshake included.
                Ok(0) => break,
                Ok(more) => written += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.writable = false,
                Err(error) => return Err(error),
            }
        }
        Ok(written)
    }
}

/// Writes what TLS still buffers first.
fn write_tls(stream: &mut TlsStream, bytes: &[u8]) -> io::Result<usize> {
    stream.flush()?;
    match stream.write(bytes) {
        // Full, yet with nothing to write: the handshake continues when data arrives.
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
        taken => taken,
    }
}

fn closed() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "connection closed")
}
