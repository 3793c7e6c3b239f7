//! Identifiers of connections and of their peers.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// Identifies one connection, and never another one: an index may be reused, but not with the same generation.
///
/// It is small, `Copy` and hashable, so an app may keep ids as it likes, also after the connection's end: sending to an
/// id whose connection is closed returns [`Delivery::Closed`](crate::Delivery::Closed). As text it is 24 hexadecimal
/// digits, as in the log.
///
/// `node` identifies the process (host and slot) if several processes share a bus; a single process is node 0.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId {
    /// The process that holds the connection.
    pub node: u32,
    /// Counts the connections of that process, so that a reused index differs from its former owner.
    pub generation: u32,
    /// Index in the process's tables.
    pub index: u32,
}

impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}{:08x}{:08x}", self.node, self.generation, self.index)
    }
}

impl fmt::Debug for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A participant of a bus: a slot, and the number of its owner, counted from 1.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
pub struct Participant {
    /// The slot.
    pub slot: u32,
    /// Tells the slot's owners apart: a reused slot never passes for its former owner.
    pub generation: u32,
}

impl fmt::Display for Participant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.slot, self.generation)
    }
}

/// The address of a connection's other end, in 18 bytes because every idle connection keeps one. Behind a trusted proxy
/// ([`ProxyRules`](crate::ProxyRules)) it is the client that the proxy names; behind any other it is the proxy.
///
/// If only an address is known and no port, the port is 0 and left out of the text.
///
/// ```
/// use percore::Peer;
/// use std::net::SocketAddr;
///
/// let addr: SocketAddr = "192.0.2.7:4711".parse()?;
/// assert_eq!(Peer::from(addr).addr(), Some(addr));
/// assert_eq!(Peer::UNIX.addr(), None);
/// # Ok::<(), std::net::AddrParseError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Peer {
    octets: [u8; 16],
    port: [u8; 2],
}

impl Peer {
    /// The peer of a unix socket, which has no address.
    pub const UNIX: Peer = Peer { octets: [0; 16], port: [0; 2] };

    /// A client behind a proxy that did not give its address. No socket's peer is `[::]:1`.
    pub const UNKNOWN: Peer = Peer { octets: [0; 16], port: [0, 1] };

    /// The address; `None` for a unix socket or an unknown peer. IPv4 addresses are returned as IPv4.
    pub fn addr(&self) -> Option<SocketAddr> {
        if matches!(*self, Peer::UNIX | Peer::UNKNOWN) {
            return None;
        }
        let ip = Ipv6Addr::from(self.octets);
        let ip = ip.to_ipv4_mapped().map_or(IpAddr::V6(ip), IpAddr::V4);
        Some(SocketAddr::new(ip, u16::from_be_bytes(self.port)))
    }

    /// Returns whether the peer is on this host: a unix socket, or a loopback address.
    pub fn is_local(&self) -> bool {
        *self == Peer::UNIX || self.addr().is_some_and(|addr| addr.ip().is_loopback())
    }
}

impl From<SocketAddr> for Peer {
    fn from(addr: SocketAddr) -> Peer {
        let ip = match addr.ip() {
            IpAddr::V4(ip) => ip.to_ipv6_mapped(),
            IpAddr::V6(ip) => ip,
        };
        Peer { octets: ip.octets(), port: addr.port().to_be_bytes() }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.addr() {
            Some(addr) if addr.port() == 0 => addr.ip().fmt(f),
            Some(addr) => addr.fmt(f),
            None if *self == Peer::UNIX => f.write_str("unix"),
            None => f.write_str("unknown"),
        }
    }
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_keeps_its_address() {
        for text in ["127.0.0.1:8080", "[::1]:9", "[2001:db8::7]:65535"] {
            let addr: SocketAddr = text.parse().expect("an address");
            assert_eq!(Peer::from(addr).to_string(), text);
        }
        assert_eq!(Peer::UNIX.to_string(), "unix");
        assert_eq!(Peer::UNKNOWN.to_string(), "unknown");
        assert_eq!((Peer::UNIX.addr(), Peer::UNKNOWN.addr()), (None, None));
        assert_eq!(Peer::from(SocketAddr::from(([203, 0, 113, 7], 0))).to_string(), "203.0.113.7");
        assert_eq!(Peer::from(SocketAddr::from(([1, 2, 3, 4, 5, 6, 7, 8], 0))).to_string(), "1:2:3:4:5:6:7:8");
        assert_eq!(size_of::<Peer>(), 18);
    }
}
