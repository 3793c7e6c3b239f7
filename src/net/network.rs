//! Networks, and whether a peer belongs to one.

use super::id::Peer;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// A block of addresses, or the peers of unix sockets.
///
/// ```
/// use percore::{Network, Peer};
/// use std::net::SocketAddr;
///
/// let network: Network = "10.0.0.0/8".parse()?;
/// assert!(network.contains(Peer::from(SocketAddr::from(([10, 1, 2, 3], 80)))));
/// assert_eq!("10.0.0.1".parse::<Network>()?.to_string(), "10.0.0.1/32");
/// assert!("unix".parse::<Network>()?.contains(Peer::UNIX));
/// # Ok::<(), String>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Network {
    /// Addresses that share this many leading bits with the given one.
    Block(IpAddr, u8),
    /// All peers of unix sockets.
    Unix,
}

impl Network {
    /// Returns whether the peer belongs to the network. A block of IPv6 addresses contains no IPv4 addresses.
    pub fn contains(&self, peer: Peer) -> bool {
        match (self, peer.addr().map(|addr| addr.ip())) {
            (Network::Unix, _) => peer == Peer::UNIX,
            (Network::Block(IpAddr::V4(block), bits), Some(IpAddr::V4(ip))) => {
                (block.to_bits() ^ ip.to_bits()).leading_zeros() >= u32::from(*bits)
            }
            (Network::Block(IpAddr::V6(block), bits), Some(IpAddr::V6(ip))) => {
                (block.to_bits() ^ ip.to_bits()).leading_zeros() >= u32::from(*bits)
            }
            _ => false,
        }
    }
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Network, String> {
        if text == "unix" {
            return Ok(Network::Unix);
        }
        let usage = || "give an address, a block such as 10.0.0.0/8, or unix".to_owned();
        let (ip, bits) = text.split_once('/').map_or((text, None), |(ip, bits)| (ip, Some(bits)));
        let ip: IpAddr = ip.parse().map_err(|_| usage())?;
        let width = if ip.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            None => width,
            Some(bits) if bits.bytes().all(|byte| byte.is_ascii_digit()) => bits.parse().map_err(|_| usage())?,
            Some(_) => return Err(usage()),
        };
        if bits > width {
            return Err(format!("an address has no more than {width} bits"));
        }
        // An IPv4-mapped IPv6 address is treated as IPv4, as for a peer.
        let (ip, bits) = match ip.to_canonical() {
            IpAddr::V4(v4) if ip.is_ipv6() && bits >= 96 => (IpAddr::V4(v4), bits - 96),
            _ => (ip, bits),
        };
        let first = first_of(ip, bits);
        if first != ip {
            return Err(format!("the address has bits beyond the first {bits}: give {first}/{bits}"));
        }
        Ok(Network::Block(ip, bits))
    }
}

/// The first address of `ip`'s block of `bits`.
fn first_of(ip: IpAddr, bits: u8) -> IpAddr {
    match ip {
        IpAddr::V4(ip) => {
            let kept = u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0);
            IpAddr::V4((ip.to_bits() & kept).into())
        }
        IpAddr::V6(ip) => {
            let kept = u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0);
            IpAddr::V6((ip.to_bits() & kept).into())
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Network::Block(ip, bits) => write!(f, "{ip}/{bits}"),
            Network::Unix => f.write_str("unix"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::SocketAddr;

    fn peer(ip: &str) -> Peer {
        Peer::from(SocketAddr::new(ip.parse().expect("an address"), 4711))
    }

    #[test]
    fn who_belongs_to_a_network() {
        for (network, inside, outside) in [
            ("10.0.0.0/8", "10.255.0.1", "11.0.0.0"),
            ("10.0.0.1", "10.0.0.1", "10.0.0.2"),
            ("192.168.4.0/22", "192.168.7.255", "192.168.8.0"),
            ("0.0.0.0/0", "203.0.113.7", "2001:db8::1"),
            ("::/0", "2001:db8::1", "203.0.113.7"),
            ("2001:db8::/33", "2001:db8:7fff::1", "2001:db8:8000::"),
            ("2001:db8::1", "2001:db8::1", "2001:db8::2"),
            ("::ffff:10.0.0.0/104", "10.1.2.3", "11.0.0.0"),
            ("10.0.0.0/8", "::ffff:10.1.2.3", "::10.1.2.3"),
        ] {
            let network: Network = network.parse().expect("a network");
            assert!(network.contains(peer(inside)), "{inside} in {network}");
            assert!(!network.contains(peer(outside)), "{outside} not in {network}");
            assert!(!network.contains(Peer::UNIX) && !network.contains(Peer::UNKNOWN), "{network}");
        }
        assert!(Network::Unix.contains(Peer::UNIX));
        assert!(!Network::Unix.contains(Peer::UNKNOWN) && !Network::Unix.contains(peer("::1")));
    }

    #[test]
    fn what_is_no_network_is_told_why() {
        for (bad, why) in [
            ("", "give an address"),
            ("10.0.0.0/", "give an address"),
            ("10.0.0.0/x", "give an address"),
            ("10.0.0.0/+8", "give an address"),
            ("10.0.0.0/999", "give an address"),
            ("localhost", "give an address"),
            ("unix:/run/x", "give an address"),
            ("10.0.0.0/33", "no more than 32 bits"),
            ("::/129", "no more than 128 bits"),
            ("10.0.0.1/8", "give 10.0.0.0/8"),
            ("10.0.0.1/0", "give 0.0.0.0/0"),
            ("2001:db8::1/32", "give 2001:db8::/32"),
            ("::ffff:0.0.0.0/80", "give ::/80"),
        ] {
            let got = bad.parse::<Network>().expect_err(bad);
            assert!(got.contains(why), "{bad}: {got}");
        }
    }
}
