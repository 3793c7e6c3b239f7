//! Where an origin is, and what requests for it say.

use crate::os::listener::ListenAddr;
use crate::os::resolve::Endpoint;
use crate::os::url::Url;
use rustls::pki_types::ServerName;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use tokio::net::lookup_host;

/// Schemes of origins, and their ports.
const SCHEMES: [(&str, Option<u16>); 2] = [("http", Some(80)), ("https", Some(443))];

/// A server to call.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Target {
    url: Url,
}

impl Target {
    /// Reads the URL of an origin: `http://`, `https://` or `unix:SOCKET:/PATH`.
    ///
    /// # Errors
    /// A sentence that says what may be typed.
    pub fn origin(text: &str) -> Result<Target, String> {
        Url::parse(text, &SCHEMES).map(|url| Target { url })
    }

    /// Another node, by the address in a connection's name: `HOST:PORT/PATH`.
    ///
    /// # Errors
    /// When it is not one.
    pub fn node(address: &str) -> Result<Target, String> {
        let url = Url::parse(&format!("http://{address}"), &SCHEMES)?;
        Ok(Target { url })
    }

    /// Whether calls are to be made over TLS.
    pub fn is_encrypted(&self) -> bool {
        self.url.scheme == "https"
    }

    /// The value of the Host header.
    pub(super) fn host(&self) -> &str {
        &self.url.host
    }

    pub(super) fn path_and_query(&self) -> &str {
        self.url.target()
    }

    /// The addresses there, in the order in which to try them.
    pub(super) async fn addrs(&self) -> io::Result<Vec<SocketAddr>> {
        match &self.url.place {
            Endpoint::Addr(ListenAddr::Tcp(addr)) => Ok(vec![*addr]),
            Endpoint::Addr(ListenAddr::Unix(_)) => Ok(Vec::new()),
            Endpoint::Name { host, port } => Ok(lookup_host((host.as_str(), *port)).await?.collect()),
        }
    }

    /// The name that its certificate is to have.
    pub(super) fn server_name(&self) -> io::Result<ServerName<'static>> {
        let name = self.url.host_name();
        ServerName::try_from(name.to_owned()).map_err(|_| {
            io::Error::new(io::ErrorKind::InvalidInput, format!("no certificate can have the name '{name}'"))
        })
    }

    /// The path of a unix socket.
    pub(super) fn socket(&self) -> Option<&Path> {
        match &self.url.place {
            Endpoint::Addr(ListenAddr::Unix(path)) => Some(path),
            _ => None,
        }
    }
}
