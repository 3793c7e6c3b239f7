//! Replaces TLS if the library is built without it: types without values.

use super::stream::Stream;
use mio::{Registry, Token};
use std::io::{self, IoSlice};
use std::path::Path;

/// Which certificates to trust. There is no value without the feature `tls`.
#[derive(Clone, Debug)]
pub enum TlsClient {}

impl TlsClient {
    /// Trusts no certificate.
    ///
    /// # Errors
    /// Always: the library was built without the feature `tls`.
    pub fn new(_: Option<&Path>) -> io::Result<TlsClient> {
        Err(io::Error::new(io::ErrorKind::Unsupported, "percore was built without the feature `tls`"))
    }

    /// Starts TLS on a stream.
    ///
    /// # Errors
    /// None: there is no such client.
    pub fn secure(&self, _: Stream, _: &str) -> io::Result<Stream> {
        match *self {}
    }
}

/// A socket with TLS. There is none without the feature `tls`.
#[derive(Debug)]
pub enum TlsSocket {}

impl TlsSocket {
    /// As `Stream::connect_result`.
    pub fn connect_result(&self) -> io::Result<()> {
        match *self {}
    }

    /// As `Stream::register`.
    pub fn register(&mut self, _: &Registry, _: Token) -> io::Result<()> {
        match *self {}
    }

    /// As `Stream::read`.
    pub fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        match *self {}
    }

    /// As `Stream::write_vectored`.
    pub fn write_vectored(&mut self, _: &[IoSlice<'_>]) -> io::Result<usize> {
        match *self {}
    }

    /// As `Stream::shutdown_write`.
    pub fn shutdown_write(&mut self) {
        match *self {}
    }
}
