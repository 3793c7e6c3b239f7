//! TLS for the loop: a socket that reports bytes as written only once they are.

use super::stream::Stream;
use super::tls::{TlsClient, TlsStream};
use mio::{Registry, Token};
use std::io::{self, ErrorKind, IoSlice};

impl TlsClient {
    /// As [`TlsClient::connect`], for the loop.
    ///
    /// # Errors
    /// When `host` is not a valid host name.
    pub fn secure(&self, stream: Stream, host: &str) -> io::Result<Stream> {
        let tls = self.connect(stream, host)?;
        Ok(Stream::Tls(Box::new(TlsSocket { tls, held: 0, ended: false })))
    }
}

/// A [`TlsStream`] that reports bytes as written only once they are, encrypted, in the socket. Bytes that TLS holds
/// until then count as not taken, and are offered again: so a backlog of 0 means that everything was written, and a
/// writable event that is waited for does come.
#[derive(Debug)]
pub struct TlsSocket {
    tls: TlsStream,
    /// How many of the bytes offered next TLS has taken already.
    held: usize,
    /// The sending side was shut down.
    ended: bool,
}

impl TlsSocket {
    /// As [`Stream::connect_result`].
    ///
    /// # Errors
    /// As `connect(2)`.
    pub fn connect_result(&self) -> io::Result<()> {
        self.tls.connect_result()
    }

    /// As [`Stream::register`].
    ///
    /// # Errors
    /// As `epoll_ctl(2)`.
    pub fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        self.tls.register(registry, token)
    }

    /// Reads data from the peer; 0 bytes at its end. Only `WouldBlock` means that the socket is drained.
    ///
    /// # Errors
    /// As [`TlsStream::read`].
    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let result = self.tls.read(buffer);
        // The input may be part of the handshake that must be answered; the next write reports an error of that.
        let _ = self.tls.flush();
        match result {
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
                Err(io::Error::new(error.kind(), "the stream ended within TLS"))
            }
            Err(error) if error.kind() == ErrorKind::InvalidData => {
                Err(io::Error::new(error.kind(), format!("TLS: {error}")))
            }
            result => result,
        }
    }

    /// Writes; takes fewer bytes than offered only when the socket is full, or the handshake in progress. Bytes that
    /// were not written must be offered again before others.
    ///
    /// # Errors
    /// As `write(2)`.
    pub fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let (mut offered, mut written) = (0, 0);
        for slice in slices {
            offered += slice.len();
            while written + self.held < offered {
                let rest = &slice[slice.len() - (offered - written - self.held)..];
                match self.tls.write(rest) {
                    Ok(bytes) => self.held += bytes,
                    Err(error) if error.kind() != ErrorKind::WouldBlock => return Err(error),
                    Err(_) => {
                        if !self.flush()? {
                            return if written > 0 { Ok(written) } else { Err(ErrorKind::WouldBlock.into()) };
                        }
                        written += std::mem::take(&mut self.held);
                    }
                }
            }
        }
        if self.flush()? {
            // The earlier offer may have been larger than the current one.
            let bytes = self.held.min(offered - written);
            self.held -= bytes;
            written += bytes;
        }
        if written > 0 || offered == 0 { Ok(written) } else { Err(ErrorKind::WouldBlock.into()) }
    }

    /// Writes what TLS holds. Returns whether nothing is left.
    fn flush(&mut self) -> io::Result<bool> {
        match self.tls.flush() {
            Ok(()) => Ok(!self.tls.is_handshaking()),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Sends TLS's close notification, and shuts down the sending side.
    pub fn shutdown_write(&mut self) {
        if !std::mem::replace(&mut self.ended, true) {
            self.tls.close();
        }
    }
}

impl Drop for TlsSocket {
    fn drop(&mut self) {
        self.shutdown_write();
    }
}
