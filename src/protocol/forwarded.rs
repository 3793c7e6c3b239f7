//! The client's address in a header that proxies write: `X-Forwarded-For`, or `Forwarded` (RFC 7239).
//!
//! Each proxy appends the address of its own client, so only the right end was written by a proxy that we know;
//! elements further left may come from anyone. Hence everything is read from the right, and nothing further left can
//! change how an element is read.

use super::http::Request;
use crate::net::id::Peer;
use crate::net::network::Network;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The header that trusted proxies write. Only this one is read: the other may be the client's own, passed on by a
/// proxy that does not know it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum ForwardedHeader {
    /// `X-Forwarded-For`: addresses, separated by commas.
    #[default]
    XForwardedFor,
    /// `Forwarded` (RFC 7239): the parameter `for` of each element.
    Forwarded,
}

impl ForwardedHeader {
    fn name(self) -> &'static str {
        match self {
            ForwardedHeader::XForwardedFor => "x-forwarded-for",
            ForwardedHeader::Forwarded => "forwarded",
        }
    }
}

/// Which proxies to trust for the addresses of clients. The default is none.
///
/// ```
/// use percore::{ForwardedHeader, ProxyRules, Settings};
///
/// let proxies = ProxyRules {
///     trusted: vec!["10.0.0.0/8".parse()?, "unix".parse()?],
///     header: ForwardedHeader::XForwardedFor,
///     ..ProxyRules::default()
/// };
/// let settings = Settings { proxies, max_connections_per_ip: 100, ..Settings::default() };
/// # let _ = settings;
/// # Ok::<(), String>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct ProxyRules {
    /// Proxies that may name their client. The header of any other peer is ignored.
    pub trusted: Vec<Network>,
    /// The header in which they name it.
    pub header: ForwardedHeader,
    /// Whether each connection begins with a [PROXY protocol header](super::proxy_header): from a trusted proxy, or
    /// from any peer while `trusted` is empty.
    pub proxy_protocol: bool,
}

impl ProxyRules {
    /// Returns whether the peer is a trusted proxy.
    pub fn trusts(&self, peer: Peer) -> bool {
        self.trusted.iter().any(|network| network.contains(peer))
    }

    /// Returns whether the peer may name its client in a PROXY protocol header.
    pub fn trusts_with_header(&self, peer: Peer) -> bool {
        self.trusted.is_empty() || self.trusts(peer)
    }
}

/// Replaces a request's peer by its client, if the peer is trusted and names it.
pub fn resolve(request: &mut Request<'_>, rules: &ProxyRules) {
    let client = client(request.peer, request.raw_values(rules.header.name()), rules);
    if client != request.peer {
        request.proxy = Some(request.peer);
        request.peer = client;
    }
}

/// The first address from the right that is not trusted, starting with the peer; the leftmost, if all are. An
/// unreadable element ends the walk at the last readable one. `values` are those of the header, in the order of its
/// lines.
pub fn client<'a>(peer: Peer, values: impl DoubleEndedIterator<Item = &'a [u8]>, rules: &ProxyRules) -> Peer {
    let mut last = peer;
    for mut value in values.rev() {
        loop {
            if !rules.trusts(last) {
                return last;
            }
            let (rest, element) = match rules.header {
                ForwardedHeader::XForwardedFor => split_last(value, b',', false),
                ForwardedHeader::Forwarded => split_last(value, b',', true),
            };
            let address = match rules.header {
                ForwardedHeader::XForwardedFor => node(element),
                ForwardedHeader::Forwarded => forwarded_for(element),
            };
            match address {
                Some(address) => last = address,
                None => return last,
            }
            match rest {
                Some(rest) => value = rest,
                None => break,
            }
        }
    }
    last
}

/// Splits at the last `separator`, ignoring quoted ones if quotes count, into the parts before and after it.
fn split_last(value: &[u8], separator: u8, quotes: bool) -> (Option<&[u8]>, &[u8]) {
    let mut quoted = false;
    for (at, byte) in value.iter().enumerate().rev() {
        quoted ^= quotes && *byte == b'"';
        if *byte == separator && !quoted {
            return (Some(&value[..at]), &value[at + 1..]);
        }
    }
    (None, value)
}

/// The address in an element of `Forwarded`: that of its one parameter `for`.
fn forwarded_for(element: &[u8]) -> Option<Peer> {
    // An escaped quote would have been read as a closing one; no address needs a backslash.
    if element.contains(&b'\\') {
        return None;
    }
    let (mut rest, mut found) = (Some(element), None);
    while let Some(element) = rest {
        let (before, pair) = split_last(element, b';', true);
        let equals = pair.iter().position(|byte| *byte == b'=')?;
        let (name, value) = (pair[..equals].trim_ascii(), pair[equals + 1..].trim_ascii());
        if name.eq_ignore_ascii_case(b"for") && found.replace(value).is_some() {
            return None;
        }
        rest = before;
    }
    let value = found?;
    // Some proxies omit the quotes around an address with a colon; that is unambiguous.
    match value.strip_prefix(b"\"") {
        Some(quoted) => node(quoted.strip_suffix(b"\"")?),
        None => node(value),
    }
}

/// Parses an address as proxies write it (RFC 7239, section 6): with or without a port, IPv6 with or without brackets.
/// `None` for `unknown`, for an obfuscated identifier, and for anything else.
fn node(text: &[u8]) -> Option<Peer> {
    let text = std::str::from_utf8(text).ok()?.trim_ascii();
    let (ip, port) = if let Ok(ip) = text.parse::<IpAddr>() {
        (ip, 0)
    } else if let Some(rest) = text.strip_prefix('[') {
        let (ip, port) = rest.split_once(']')?;
        let ip = ip.parse::<Ipv6Addr>().ok()?;
        (IpAddr::V6(ip), if port.is_empty() { 0 } else { node_port(port.strip_prefix(':')?)? })
    } else {
        let (ip, port) = text.split_once(':')?;
        (IpAddr::V4(ip.parse::<Ipv4Addr>().ok()?), node_port(port)?)
    };
    let is_someone = !ip.to_canonical().is_unspecified();
    is_someone.then(|| Peer::from(SocketAddr::new(ip, port)))
}

/// A port; 0 for an obfuscated one.
fn node_port(text: &str) -> Option<u16> {
    match text.strip_prefix('_') {
        Some(name) => {
            let is_name = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
            (is_name && !name.is_empty()).then_some(0)
        }
        None if text.bytes().all(|byte| byte.is_ascii_digit()) => text.parse().ok(),
        None => None,
    }
}

#[cfg(test)]
mod tests {
    use super::ForwardedHeader::{Forwarded, XForwardedFor};
    use super::*;
    use proptest::prelude::*;

    const PROXY: &str = "10.0.0.1:4711";

    fn rules(header: ForwardedHeader) -> ProxyRules {
        let trusted = ["10.0.0.0/8", "2001:db8:aa::/48", "unix"].map(|network| network.parse().expect("a network"));
        ProxyRules { trusted: trusted.into(), header, proxy_protocol: false }
    }

    fn peer(addr: &str) -> Peer {
        addr.parse::<SocketAddr>().map_or(Peer::UNIX, Peer::from)
    }

    fn from(peer: Peer, header: ForwardedHeader, values: &[&[u8]]) -> String {
        client(peer, values.iter().copied(), &rules(header)).to_string()
    }

    #[test]
    fn x_forwarded_for_is_walked_from_the_right() {
        for (values, want) in [
            (&["203.0.113.7"][..], "203.0.113.7"),
            (&["203.0.113.7:1234"], "203.0.113.7:1234"),
            (&["2001:db8::7"], "2001:db8::7"),
            (&["[2001:db8::7]"], "2001:db8::7"),
            (&["[2001:db8::7]:80"], "[2001:db8::7]:80"),
            (&["::ffff:203.0.113.7"], "203.0.113.7"),
            (&[" 198.51.100.1 ,\t203.0.113.7 "], "203.0.113.7"),
            // Elements that a client sent itself are further left.
            (&["127.0.0.1, 10.0.0.9, 203.0.113.7, 10.0.0.2"], "203.0.113.7"),
            (&["127.0.0.1", "203.0.113.7", "10.0.0.2, 2001:db8:aa::1"], "203.0.113.7"),
            // All are trusted: the leftmost.
            (&["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
            (&["10.0.0.4", "10.0.0.3, 10.0.0.2"], "10.0.0.4"),
            // An unreadable element ends the walk.
            (&["203.0.113.7, unknown, 10.0.0.2"], "10.0.0.2"),
            (&["203.0.113.7, _hidden"], PROXY),
            (&["203.0.113.7, unix:"], PROXY),
            (&["203.0.113.7, \"203.0.113.8\""], PROXY),
            (&["203.0.113.7,"], PROXY),
            (&["203.0.113.7,, 10.0.0.2"], "10.0.0.2"),
            (&["203.0.113.7", ""], PROXY),
            (&[""], PROXY),
            (&[], PROXY),
            (&["203.0.113.007"], PROXY),
            (&["203.0.113.7:"], PROXY),
            (&["203.0.113.7:+80"], PROXY),
            (&["203.0.113.7:65536"], PROXY),
            (&["[203.0.113.7]:80"], PROXY),
            (&["[2001:db8::7]80"], PROXY),
            (&["[2001:db8::7"], PROXY),
            (&["fe80::1%eth0"], PROXY),
            (&["0.0.0.0"], PROXY),
            (&["::"], PROXY),
            (&["[::]:1"], PROXY),
            (&["::ffff:0.0.0.0"], PROXY),
        ] {
            let values: Vec<&[u8]> = values.iter().map(|value| value.as_bytes()).collect();
            assert_eq!(from(peer(PROXY), XForwardedFor, &values), want, "{values:?}");
        }
        assert_eq!(from(peer(PROXY), XForwardedFor, &[b"203.0.113.7, \xff"]), PROXY);
        assert_eq!(from(peer(PROXY), XForwardedFor, &[b"203.0.113.7", b"\xff"]), PROXY, "no line is passed over");
    }

    #[test]
    fn forwarded_is_walked_from_the_right() {
        for (values, want) in [
            (&["for=203.0.113.7"][..], "203.0.113.7"),
            (&["For=\"203.0.113.7:47011\""], "203.0.113.7:47011"),
            (&["for=\"[2001:db8:cafe::17]:4711\""], "[2001:db8:cafe::17]:4711"),
            (&["for=\"[2001:db8:cafe::17]\""], "2001:db8:cafe::17"),
            (&["for=\"203.0.113.7:_port\""], "203.0.113.7"),
            (&["for=203.0.113.7:80"], "203.0.113.7:80"),
            (&["by=10.0.0.1;for=203.0.113.7;proto=http;host=a"], "203.0.113.7"),
            (&[" by=\"a,b;c\" ; FOR = 203.0.113.7 ; x=\"=\""], "203.0.113.7"),
            (&["for=1.1.1.1, for=203.0.113.7;proto=https", "for=10.0.0.2;by=\"[::1]\""], "203.0.113.7"),
            (&["for=10.0.0.3, for=10.0.0.2"], "10.0.0.3"),
            (&["for=1.1.1.1, for=unknown"], PROXY),
            (&["for=1.1.1.1, for=\"_gazonk\", for=10.0.0.2"], "10.0.0.2"),
            (&["for=1.1.1.1, proto=http"], PROXY),
            (&["for=1.1.1.1;for=1.1.1.2"], PROXY),
            (&["1.1.1.1"], PROXY),
            (&["for=1.1.1.1;"], PROXY),
            (&["for=\"1.1.1.1"], PROXY),
            (&["for=1.1.1.1\""], PROXY),
            (&["for=\"1.1.1.1\\\"\""], PROXY),
            (&["for=\"1.1.1.1\";x=\"\\\"\""], PROXY),
            (&["xfor=1.1.1.1"], PROXY),
            (&["for="], PROXY),
            (&[""], PROXY),
            // A quote that a client leaves open does not swallow what a proxy appends.
            (&["for=\"1.1.1.1, for=203.0.113.7"], "203.0.113.7"),
            (&["for=1.1.1.1;x=\", for=203.0.113.7;y=\"z\""], "203.0.113.7"),
        ] {
            let values: Vec<&[u8]> = values.iter().map(|value| value.as_bytes()).collect();
            assert_eq!(from(peer(PROXY), Forwarded, &values), want, "{values:?}");
        }
    }

    #[test]
    fn only_a_trusted_peer_is_believed() {
        for untrusted in ["192.0.2.1:5", "[2001:db8:ab::1]:5"] {
            assert_eq!(from(peer(untrusted), XForwardedFor, &[b"203.0.113.7"]), untrusted);
        }
        assert_eq!(from(Peer::UNKNOWN, XForwardedFor, &[b"203.0.113.7"]), "unknown");
        assert_eq!(from(Peer::UNIX, XForwardedFor, &[b"203.0.113.7"]), "203.0.113.7");
        assert_eq!(from(Peer::UNIX, XForwardedFor, &[b"unknown"]), "unix");
        let nobody = ProxyRules::default();
        assert_eq!(client(Peer::UNIX, [&b"203.0.113.7"[..]].into_iter(), &nobody), Peer::UNIX);
    }

    proptest! {
        /// Whatever a client sends, the element that its proxy appends decides.
        #[test]
        fn nothing_a_client_sends_changes_its_address(spoofed in "[ -~]{0,40}", lines in any::<bool>()) {
            for (header, appended) in [
                (XForwardedFor, "203.0.113.7"),
                (Forwarded, "for=203.0.113.7;by=\"[::1]:80\""),
            ] {
                let joined = format!("{spoofed}, {appended}");
                let values = if lines { vec![spoofed.as_bytes(), appended.as_bytes()] } else { vec![joined.as_bytes()] };
                prop_assert_eq!(from(peer(PROXY), header, &values), "203.0.113.7");
            }
        }

        #[test]
        fn no_bytes_make_it_panic(values in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 0..4)) {
            let values: Vec<&[u8]> = values.iter().map(Vec::as_slice).collect();
            for header in [XForwardedFor, Forwarded] {
                from(peer(PROXY), header, &values);
            }
        }
    }
}
