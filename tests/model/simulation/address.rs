//! The addresses of a simulation's clients: how the server is told of them, and how it is to count them.

use super::probe::Probe;
use super::random::Random;
use super::settings::PROXY;
use percore::Peer;
use percore::internal::session::Sessions;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

/// Connections of one client beyond its limit that may wait.
const EXTRA: u32 = 8;

/// How the server gets to know a client's address.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Told {
    Socket,
    ProxyHeader,
    ForwardedFor,
}

/// Who a client is.
#[derive(Clone, Copy)]
pub struct Who {
    /// Its address, as the server is to know it.
    pub address: Peer,
    told: Told,
}

impl Who {
    /// One of a few, so that several clients have the same address.
    pub fn new(random: &mut Random, proxy_protocol: bool) -> Who {
        let (client, host, port) = (random.between(1, 6), random.between(1, 3), random.between(1, 60_000));
        let text = match random.between(0, 9) {
            0 if proxy_protocol => return Who { address: Peer::UNKNOWN, told: Told::ProxyHeader },
            0 => return Who { address: Peer::UNIX, told: Told::Socket },
            1..=6 => format!("203.0.113.{client}:{port}"),
            _ => format!("[2001:db8:0:{client}::{host}]:{port}"),
        };
        let told = match (proxy_protocol, random.one_in(2)) {
            (true, _) => Told::ProxyHeader,
            (false, true) => Told::ForwardedFor,
            (false, false) => Told::Socket,
        };
        Who { address: Peer::from(text.parse::<SocketAddr>().expect("an address")), told }
    }

    /// The peer of the socket.
    pub fn connects(&self) -> Peer {
        if self.told == Told::Socket { self.address } else { Peer::from(PROXY) }
    }

    /// The PROXY protocol header, of either version, that its connection begins with, if it does.
    pub fn proxy_header(&self, random: &mut Random) -> Vec<u8> {
        if self.told != Told::ProxyHeader {
            return Vec::new();
        }
        let Some(addr) = self.address.addr() else { return b"PROXY UNKNOWN\r\n".to_vec() };
        let (ip, port) = (addr.ip(), addr.port());
        let (family, kind, octets) = match ip {
            IpAddr::V4(ip) => ("TCP4", 0x11, ip.octets().to_vec()),
            IpAddr::V6(ip) => ("TCP6", 0x21, ip.octets().to_vec()),
        };
        if random.one_in(2) {
            return format!("PROXY {family} {ip} {ip} {port} 80\r\n").into_bytes();
        }
        let body = [&octets[..], &octets, &port.to_be_bytes(), &[0, 80], b"\x04\0\x03xyz"].concat();
        [b"\r\n\r\n\0\r\nQUIT\n\x21", &[kind, 0, body.len() as u8][..], &body].concat()
    }

    /// Whose its connection is to the server before it is open, where its PROXY header has come or not.
    pub fn counts_as(&self, header_has_come: bool) -> Peer {
        match self.told {
            Told::Socket => self.address,
            Told::ProxyHeader if header_has_come => self.address,
            Told::ProxyHeader | Told::ForwardedFor => Peer::UNKNOWN,
        }
    }

    /// Header lines that tell the address, with others that the client made up further left, if they do.
    pub fn forwarded_for(&self, random: &mut Random) -> String {
        if self.told != Told::ForwardedFor {
            return "X-Forwarded-For: 198.51.100.66\r\n".to_owned();
        }
        let made_up = *random.pick(&["", "198.51.100.66, ", "nonsense, ", "198.51.100.66\r\nX-Forwarded-For: "]);
        format!("Forwarded: for=198.51.100.66\r\nX-Forwarded-For: {made_up}{}\r\n", self.address)
    }
}

/// What is counted as one client, as text: an IPv4 address, or what the addresses of a /64 have in common.
fn client(peer: &Peer) -> Option<String> {
    let ip = peer.addr()?.ip().to_string();
    ip.split("::").next().map(str::to_owned)
}

/// Whose a connection is to the server.
pub struct Counted {
    pub peer: Peer,
    pub is_open: bool,
    /// Where that is nobody, it may be this client's.
    pub perhaps: Option<Peer>,
}

#[derive(Default)]
struct Counts {
    /// With those that may be its.
    most: u32,
    least: u32,
    open: u32,
}

/// Each client has as many connections as are counted for it, open and others, and no more than it may. `connections` are
/// all there are.
pub fn check_tally(sessions: &Sessions<Probe>, limit: u32, connections: impl Iterator<Item = Counted>) {
    let tally = sessions.tally();
    let mut counts: HashMap<String, (Peer, Counts)> = HashMap::new();
    for Counted { peer, is_open, perhaps } in connections.filter(|_| limit > 0) {
        let certain = client(&peer).is_some();
        let peer = if certain { peer } else { perhaps.unwrap_or(peer) };
        let Some(client) = client(&peer) else { continue };
        let (_, counts) = counts.entry(client).or_insert((peer, Counts::default()));
        counts.most += 1;
        counts.least += u32::from(certain);
        counts.open += u32::from(is_open);
    }
    let least = counts.values().filter(|(_, counts)| counts.least > 0).count();
    assert!((least..=counts.len()).contains(&tally.clients()), "clients that are counted");
    for (client, (peer, Counts { most, least, open })) in counts {
        let count = tally.count(peer);
        assert!((least..=most).contains(&count), "{count} connections of {client}, not {least} to {most}");
        assert_eq!(tally.open_connections(peer), open, "open connections of {client}");
        assert!(open <= limit && count <= limit + EXTRA, "{count} connections of {client}, {open} open");
    }
}
