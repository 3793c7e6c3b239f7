//! The ledger: connections that the origin may know and whose end it has not learned. It outlives its worker, so that
//! another worker reports the rest when that one is killed.

use crate::net::id::Peer;
use std::net::{Ipv6Addr, SocketAddr};
use std::time::Duration;

/// Bytes of an entry.
pub const ENTRY_BYTES: usize = 40;
/// Position of the byte with the kind of peer.
const KIND: usize = 34;

/// A connection in the ledger.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry {
    /// Its number, which is not 0.
    pub serial: u64,
    /// When it was opened, since 1970-01-01 00:00 UTC.
    pub opened: Duration,
    /// The client.
    pub peer: Peer,
}

/// Storage for entries.
pub trait Ledger: Send {
    /// A connection was accepted.
    fn enter(&mut self, entry: Entry);

    /// The origin learned of its end, or never will.
    fn strike(&mut self, serial: u64);

    /// Takes over, as our own, the entries of workers that have ended.
    fn adopt(&mut self) -> Vec<Entry>;
}

impl Entry {
    /// Encodes it as bytes.
    pub fn bytes(&self) -> [u8; ENTRY_BYTES] {
        let mut bytes = [0; ENTRY_BYTES];
        bytes[..8].copy_from_slice(&self.serial.to_le_bytes());
        bytes[8..16].copy_from_slice(&(self.opened.as_millis() as u64).to_le_bytes());
        if let Some(addr) = self.peer.addr() {
            let ip = match addr.ip() {
                std::net::IpAddr::V4(ip) => ip.to_ipv6_mapped(),
                std::net::IpAddr::V6(ip) => ip,
            };
            bytes[16..32].copy_from_slice(&ip.octets());
            bytes[32..KIND].copy_from_slice(&addr.port().to_le_bytes());
        }
        bytes[KIND] = match self.peer.addr() {
            Some(_) => 1,
            None if self.peer == Peer::UNIX => 2,
            None => 3,
        };
        bytes
    }

    /// Decodes bytes; `None` if they hold no entry.
    pub fn from_bytes(bytes: &[u8; ENTRY_BYTES]) -> Option<Entry> {
        let (serial, rest) = bytes.split_first_chunk::<8>()?;
        let (opened, rest) = rest.split_first_chunk::<8>()?;
        let (octets, rest) = rest.split_first_chunk::<16>()?;
        let (port, rest) = rest.split_first_chunk::<2>()?;
        let ip = Ipv6Addr::from(*octets);
        let ip = ip.to_ipv4_mapped().map_or(std::net::IpAddr::V6(ip), std::net::IpAddr::V4);
        let peer = match rest.first()? {
            1 => Peer::from(SocketAddr::new(ip, u16::from_le_bytes(*port))),
            2 => Peer::UNIX,
            3 => Peer::UNKNOWN,
            _ => return None,
        };
        let opened = Duration::from_millis(u64::from_le_bytes(*opened));
        Some(Entry { serial: u64::from_le_bytes(*serial), opened, peer }).filter(|entry| entry.serial != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_come_back() {
        let addrs = ["127.0.0.1:80", "[2001:db8::1]:65535"].map(|addr| addr.parse::<SocketAddr>().expect("an address"));
        for peer in addrs.into_iter().map(Peer::from).chain([Peer::UNIX, Peer::UNKNOWN]) {
            let entry = Entry { serial: u64::MAX, opened: Duration::from_millis(7), peer };
            assert_eq!(Entry::from_bytes(&entry.bytes()), Some(entry));
        }
        assert_eq!(Entry::from_bytes(&[0; ENTRY_BYTES]), None);
    }
}
