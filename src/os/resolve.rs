//! Names of hosts as addresses, by the system's resolver, which may take its time.

use std::net::{SocketAddr, ToSocketAddrs};

/// Whether `HOST`, `HOST:PORT`, `[v6]` or `[v6]:PORT` names a port.
pub fn has_port(host: &str) -> bool {
    host.rsplit_once(':').is_some_and(|(_, port)| !port.contains(']'))
}

/// The first address of a host, with `default_port` where it names none.
///
/// # Errors
/// A sentence that names the host.
pub fn resolve(host: &str, default_port: u16) -> Result<SocketAddr, String> {
    resolve_all(host, default_port)?.first().copied().ok_or_else(|| format!("'{host}' has no address"))
}

/// All addresses of a host, as [`resolve`].
///
/// # Errors
/// A sentence that names the host.
pub fn resolve_all(host: &str, default_port: u16) -> Result<Vec<SocketAddr>, String> {
    let named = if has_port(host) { host.to_owned() } else { format!("{host}:{default_port}") };
    let addrs = named.to_socket_addrs().map_err(|error| format!("cannot find '{host}': {error}"))?;
    Ok(addrs.collect())
}
