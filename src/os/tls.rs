//! TLS on the connecting side, over a non-blocking stream.

use super::stream::Stream;
pub use super::tls_socket::TlsSocket;
use super::tls_unverified::Anyone;
use mio::{Registry, Token};
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{CertificateError, ClientConfig, ClientConnection, Error, RootCertStore, StreamOwned};
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;

/// Which certificates to trust.
#[derive(Clone, Debug)]
pub struct TlsClient(Arc<ClientConfig>);

impl TlsClient {
    /// Trusts the certificates in a PEM file, or else those that the system trusts.
    ///
    /// # Errors
    /// When there are none.
    pub fn new(authorities: Option<&Path>) -> io::Result<TlsClient> {
        let mut roots = RootCertStore::empty();
        match authorities {
            Some(path) => {
                let unreadable = |error: &dyn std::fmt::Display| {
                    let text = format!("cannot read certificates from {}: {error}", path.display());
                    io::Error::new(io::ErrorKind::InvalidInput, text)
                };
                for certificate in CertificateDer::pem_file_iter(path).map_err(|error| unreadable(&error))? {
                    let certificate = certificate.map_err(|error| unreadable(&error))?;
                    roots.add(certificate).map_err(|error| unreadable(&error))?;
                }
                if roots.is_empty() {
                    return Err(unreadable(&"there is none in it (PEM is expected)"));
                }
            }
            None => {
                // An unreadable certificate is skipped.
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
                if roots.is_empty() {
                    let text = "the system trusts no certificates, or has no file with them";
                    return Err(io::Error::new(io::ErrorKind::NotFound, text));
                }
            }
        }
        let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?;
        Ok(TlsClient(Arc::new(config.with_root_certificates(roots).with_no_client_auth())))
    }

    /// Trusts any server: a man in the middle can read everything.
    ///
    /// # Errors
    /// None known.
    pub fn insecure() -> io::Result<TlsClient> {
        let provider = Arc::new(default_provider());
        let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?;
        let anyone = config.dangerous().with_custom_certificate_verifier(Arc::new(Anyone(provider)));
        Ok(TlsClient(Arc::new(anyone.with_no_client_auth())))
    }

    /// The configuration for rustls.
    pub fn config(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.0)
    }

    /// Starts TLS on a stream, which may still be connecting, to the host with this name or address.
    ///
    /// # Errors
    /// When `host` is not a valid host name.
    pub fn connect(&self, stream: Stream, host: &str) -> io::Result<TlsStream> {
        Ok(TlsStream { stream, session: self.session(host)? })
    }

    /// The same on a blocking stream.
    ///
    /// # Errors
    /// When `host` is not a valid host name.
    pub fn connect_blocking(&self, stream: TcpStream, host: &str) -> io::Result<impl Read + Write + use<>> {
        Ok(StreamOwned::new(self.session(host)?, stream))
    }

    fn session(&self, host: &str) -> io::Result<ClientConnection> {
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let name = ServerName::try_from(bare.to_owned()).map_err(|_| {
            io::Error::new(io::ErrorKind::InvalidInput, format!("'{host}' is no name that a certificate can have"))
        })?;
        ClientConnection::new(Arc::clone(&self.0), name).map_err(io::Error::other)
    }
}

/// A stream with TLS. The handshake proceeds with reading and writing: after either, and when the stream is writable,
/// call [`TlsStream::flush`].
#[derive(Debug)]
pub struct TlsStream {
    stream: Stream,
    session: ClientConnection,
}

/// The stream with the traits that rustls needs.
struct Raw<'a>(&'a mut Stream);

impl Read for Raw<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Write for Raw<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl TlsStream {
    /// As [`Stream::connect_result`].
    ///
    /// # Errors
    /// As `connect(2)`.
    pub fn connect_result(&self) -> io::Result<()> {
        self.stream.connect_result()
    }

    /// As [`Stream::register`].
    ///
    /// # Errors
    /// As `epoll_ctl(2)`.
    pub fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        self.stream.register(registry, token)
    }

    /// Reads data from the peer; 0 bytes at its end. `WouldBlock` when everything received is read.
    ///
    /// # Errors
    /// As `read(2)`; `InvalidData` for an untrusted certificate or bytes that are not TLS; `UnexpectedEof` when the
    /// peer ends without a close notification.
    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.session.reader().read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                done => return done,
            }
            if self.session.read_tls(&mut Raw(&mut self.stream))? == 0 {
                // The session knows whether that was expected.
                return self.session.reader().read(buffer).map_err(|error| match error.kind() {
                    io::ErrorKind::WouldBlock => io::ErrorKind::UnexpectedEof.into(),
                    _ => error,
                });
            }
            if let Err(error) = self.session.process_new_packets() {
                // Tells the peer the reason.
                let _ = self.session.write_tls(&mut Raw(&mut self.stream));
                return Err(io::Error::new(io::ErrorKind::InvalidData, in_words(&error)));
            }
        }
    }

    /// Accepts bytes to be written; `WouldBlock` when its buffer is full.
    ///
    /// # Errors
    /// As `write(2)`.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.session.writer().write(bytes)? {
            0 if !bytes.is_empty() => Err(io::ErrorKind::WouldBlock.into()),
            taken => Ok(taken),
        }
    }

    /// Whether the handshake is still in progress, so that accepted bytes cannot be written yet.
    pub fn is_handshaking(&self) -> bool {
        self.session.is_handshaking()
    }

    /// Sends a close notification, as far as it can be written at once.
    pub fn close(&mut self) {
        self.session.send_close_notify();
        let _ = self.flush();
        self.stream.shutdown_write();
    }

    /// Writes accepted bytes and handshake data; `WouldBlock` when some are left.
    ///
    /// # Errors
    /// As `write(2)`.
    pub fn flush(&mut self) -> io::Result<()> {
        while self.session.wants_write() {
            self.session.write_tls(&mut Raw(&mut self.stream))?;
        }
        Ok(())
    }
}

/// The error, for people.
fn in_words(error: &Error) -> String {
    match error {
        Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
            "the certificate is signed by itself, or by an authority that is not trusted".to_owned()
        }
        Error::InvalidCertificate(CertificateError::NotValidForName) => {
            "the certificate is for another host".to_owned()
        }
        Error::InvalidCertificate(CertificateError::NotValidForNameContext { expected, presented }) => {
            let others = presented.join(", ");
            format!("the certificate is for another host: for {others}, not for {}", expected.to_str())
        }
        Error::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => {
            "the certificate has expired".to_owned()
        }
        Error::InvalidCertificate(CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. }) => {
            "the certificate is not valid yet".to_owned()
        }
        Error::InvalidMessage(_) => "what comes is not TLS: the server may speak plain ws:// there".to_owned(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_certificates() {
        let path = std::env::temp_dir().join(format!("percore-tls-{}", std::process::id()));
        let error = |path: &Path| TlsClient::new(Some(path)).expect_err("no certificates").to_string();
        assert!(error(&path).contains("cannot read certificates from"), "{}", error(&path));
        std::fs::write(&path, "no PEM").expect("written");
        assert!(error(&path).contains("there is none in it"), "{}", error(&path));
        std::fs::write(&path, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").expect("written");
        assert!(error(&path).contains("cannot read certificates from"), "{}", error(&path));
        std::fs::remove_file(path).expect("it is there");
    }
}
