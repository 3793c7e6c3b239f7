//! Resolves host names to addresses, with the system's resolver, which may be slow.

use super::listener::ListenAddr;
use std::fmt;
use std::net::{SocketAddr, ToSocketAddrs};
use std::str::FromStr;

/// The address of a server.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Endpoint {
    /// A fixed address.
    Addr(ListenAddr),
    /// The addresses of this host at the time of connecting.
    Name {
        /// The host's name.
        host: String,
        /// The port.
        port: u16,
    },
}

impl Endpoint {
    /// Parses `HOST`, `HOST:PORT`, `[v6]` or `[v6]:PORT`; `default_port` applies if it has no port.
    ///
    /// # Errors
    /// A sentence that describes what is wrong.
    pub fn named(host: &str, default_port: u16) -> Result<Endpoint, String> {
        let (name, port) = match host.rsplit_once(':').filter(|_| has_port(host)) {
            Some((name, port)) => {
                let number =
                    port.parse().map_err(|_| format!("'{port}', of '{host}', is not a port: give 1 to 65535"))?;
                (name, number)
            }
            None => (host, default_port),
        };
        match format!("{name}:{port}").parse() {
            Ok(addr) => Ok(Endpoint::Addr(ListenAddr::Tcp(addr))),
            Err(_) if name.is_empty() || name.contains(['[', ']', ':']) => {
                Err(format!("'{host}' is not a valid host name"))
            }
            Err(_) => Ok(Endpoint::Name { host: name.to_owned(), port }),
        }
    }

    /// The addresses, at least one, in the order in which to try them.
    ///
    /// # Errors
    /// A sentence that names the host.
    pub fn addrs(&self) -> Result<Vec<ListenAddr>, String> {
        match self {
            Endpoint::Addr(addr) => Ok(vec![addr.clone()]),
            Endpoint::Name { host, port } => {
                let addrs = resolve_all(host, *port)?.into_iter().map(ListenAddr::Tcp).collect::<Vec<_>>();
                if addrs.is_empty() { Err(format!("'{host}' has no address")) } else { Ok(addrs) }
            }
        }
    }

    /// The first of the addresses.
    ///
    /// # Errors
    /// As [`Endpoint::addrs`].
    pub fn first_addr(&self) -> Result<ListenAddr, String> {
        Ok(self.addrs()?.swap_remove(0))
    }
}

impl From<ListenAddr> for Endpoint {
    fn from(addr: ListenAddr) -> Endpoint {
        Endpoint::Addr(addr)
    }
}

impl FromStr for Endpoint {
    type Err = String;

    /// Parses `HOST:PORT`, `IP:PORT`, `[v6]:PORT` or `unix:PATH`.
    fn from_str(text: &str) -> Result<Endpoint, String> {
        if text.starts_with("unix:") {
            return text.parse().map(Endpoint::Addr);
        }
        if !has_port(text) {
            return Err(format!("'{text}' names no port"));
        }
        Endpoint::named(text, 0)
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Endpoint::Addr(addr) => addr.fmt(f),
            Endpoint::Name { host, port } => write!(f, "{host}:{port}"),
        }
    }
}

/// Whether `HOST`, `HOST:PORT`, `[v6]` or `[v6]:PORT` has a port.
pub fn has_port(host: &str) -> bool {
    host.rsplit_once(':').is_some_and(|(_, port)| !port.contains(']'))
}

/// All addresses of a host; `default_port` applies if it has no port.
///
/// # Errors
/// A sentence that names the host.
pub fn resolve_all(host: &str, default_port: u16) -> Result<Vec<SocketAddr>, String> {
    let named = if has_port(host) { host.to_owned() } else { format!("{host}:{default_port}") };
    let addrs = named.to_socket_addrs().map_err(|error| format!("cannot find '{host}': {error}"))?;
    Ok(addrs.collect())
}
