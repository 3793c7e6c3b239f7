//! How many connections each client has open, to bound them.

use super::id::Peer;
use std::collections::HashMap;
use std::net::IpAddr;

/// Open connections by client address, counted only where there is a limit. Clients without an address are not counted.
///
/// Invariant: the sum of the counts is the number of [`Tally::enter`]s of peers with an address less that of
/// [`Tally::leave`]s, and no count is 0.
#[derive(Default)]
pub struct Tally {
    limit: u32,
    counts: HashMap<u128, u32>,
}

/// What counts as one client: an IPv4 address, or the /64 of an IPv6 address, which is what a network hands out to one
/// customer at least.
fn client(peer: Peer) -> Option<u128> {
    Some(match peer.addr()?.ip() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().to_bits(),
        IpAddr::V6(ip) => ip.to_bits() & !u128::from(u64::MAX),
    })
}

impl Tally {
    /// Nobody yet; at most `limit` connections for each client, 0 for no limit.
    pub fn new(limit: u32) -> Tally {
        Tally { limit, counts: HashMap::new() }
    }

    /// Whether the client has as many connections as it may.
    pub fn is_full(&self, peer: Peer) -> bool {
        self.limit > 0 && self.count(peer) >= self.limit
    }

    /// Open connections that count as the client's; 0 where there is no limit.
    pub fn count(&self, peer: Peer) -> u32 {
        client(peer).and_then(|client| self.counts.get(&client)).copied().unwrap_or(0)
    }

    /// How many clients have connections.
    pub fn clients(&self) -> usize {
        self.counts.len()
    }

    /// A connection of the client opened.
    pub fn enter(&mut self, peer: Peer) {
        if let (1.., Some(client)) = (self.limit, client(peer)) {
            *self.counts.entry(client).or_insert(0) += 1;
        }
    }

    /// One that entered is over.
    pub fn leave(&mut self, peer: Peer) {
        let (1.., Some(client)) = (self.limit, client(peer)) else { return };
        let count = self.counts.get_mut(&client);
        debug_assert!(count.is_some(), "whoever leaves has entered");
        if let Some(count) = count {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&client);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::SocketAddr;

    fn peer(addr: &str) -> Peer {
        Peer::from(addr.parse::<SocketAddr>().expect("an address"))
    }

    #[test]
    fn each_client_has_its_own_count() {
        let mut tally = Tally::new(2);
        for addr in ["192.0.2.1:1", "192.0.2.1:2", "192.0.2.2:1", "[2001:db8::1]:1", "[2001:db8:0:0:ffff::]:2"] {
            tally.enter(peer(addr));
        }
        for (addr, count) in [("192.0.2.1:9", 2), ("192.0.2.2:9", 1), ("[2001:db8::]:9", 2), ("[2001:db8:0:1::]:9", 0)]
        {
            assert_eq!((tally.count(peer(addr)), tally.is_full(peer(addr))), (count, count == 2), "{addr}");
        }
        assert_eq!(tally.clients(), 3);
        tally.leave(peer("[2001:db8::abcd]:3"));
        assert!(!tally.is_full(peer("[2001:db8::1]:1")));
        for addr in ["192.0.2.1:1", "192.0.2.1:2", "192.0.2.2:1", "[2001:db8::1]:1"] {
            tally.leave(peer(addr));
        }
        assert_eq!(tally.clients(), 0, "no client is kept without a connection");
    }

    #[test]
    fn who_has_no_address_is_not_counted() {
        let mut tally = Tally::new(1);
        for nobody in [Peer::UNIX, Peer::UNKNOWN] {
            tally.enter(nobody);
            assert!(!tally.is_full(nobody) && tally.clients() == 0);
            tally.leave(nobody);
        }
    }

    #[test]
    fn without_a_limit_nothing_is_counted() {
        let mut tally = Tally::new(0);
        tally.enter(peer("192.0.2.1:1"));
        assert!(!tally.is_full(peer("192.0.2.1:1")) && tally.clients() == 0);
        tally.leave(peer("192.0.2.1:1"));
    }
}
