//! Receives the PROXY protocol, versions 1 and 2: a header that a proxy sends before anything else, to name its client.
//! As specified in HAProxy's `proxy-protocol.txt`.

use crate::net::id::Peer;
use std::net::{IpAddr, SocketAddr};

/// The longest accepted header, including its additional data.
pub const MAX_HEADER_BYTES: usize = 16 * 1024;

/// The start of a version 1 header.
const TEXT: &[u8] = b"PROXY ";
/// The header of a peer that connects for itself: LOCAL, of version 2.
pub const LOCAL: [u8; FIXED_BYTES] = *b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";
/// The longest version 1 header, with CR LF.
const MAX_TEXT_BYTES: usize = 107;
/// The start of a version 2 header.
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// The part of version 2 that is always present: signature, version and command, family and transport, length.
const FIXED_BYTES: usize = SIGNATURE.len() + 4;

/// A PROXY protocol header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ProxyHeader {
    /// Its length; the client's bytes follow.
    pub bytes: usize,
    /// The source of the connection.
    pub source: Source,
}

/// The source of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Source {
    /// The proxy itself, for a health check, say (LOCAL).
    Proxy,
    /// This client; [`Peer::UNKNOWN`] if the header has no address that we can use.
    Client(Peer),
}

/// Why bytes are not a valid header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Malformed(pub &'static str);

/// Parses the header at the start of `bytes`; `None` while they may still become one.
///
/// # Errors
/// When the bytes cannot become a header.
pub fn read(bytes: &[u8]) -> Result<Option<ProxyHeader>, Malformed> {
    if starts_alike(bytes, TEXT) {
        read_text(bytes)
    } else if starts_alike(bytes, SIGNATURE) {
        read_binary(bytes)
    } else {
        Err(Malformed("no PROXY protocol header"))
    }
}

/// Whether one is a prefix of the other.
fn starts_alike(bytes: &[u8], signature: &[u8]) -> bool {
    bytes.iter().zip(signature).all(|(byte, wanted)| byte == wanted)
}

/// Version 1: a line of text.
fn read_text(bytes: &[u8]) -> Result<Option<ProxyHeader>, Malformed> {
    let start = &bytes[..bytes.len().min(MAX_TEXT_BYTES)];
    let Some(newline) = start.iter().position(|byte| *byte == b'\n') else {
        return if bytes.len() < MAX_TEXT_BYTES { Ok(None) } else { Err(Malformed("PROXY header without an end")) };
    };
    let line = bytes[..newline].strip_suffix(b"\r").ok_or(Malformed("PROXY header does not end with CR LF"))?;
    let line = std::str::from_utf8(line).map_err(|_| Malformed("PROXY header is no text"))?;
    let (mut words, mut count) = ([""; 7], 0);
    for (place, word) in words.iter_mut().zip(line.split(' ')) {
        (*place, count) = (word, count + 1);
    }
    let peer = match words[..count] {
        ["PROXY", "UNKNOWN", ..] => Some(Peer::UNKNOWN),
        ["PROXY", family @ ("TCP4" | "TCP6"), source, destination, source_port, destination_port] => {
            text_addr(family, source, source_port)
                .filter(|_| text_addr(family, destination, destination_port).is_some())
                .map(peer_of)
        }
        _ => None,
    };
    let peer = peer.ok_or(Malformed("PROXY header with a bad address"))?;
    Ok(Some(ProxyHeader { bytes: newline + 1, source: Source::Client(peer) }))
}

fn text_addr(family: &str, ip: &str, port: &str) -> Option<SocketAddr> {
    let ip: IpAddr = ip.parse().ok()?;
    let is_number = port == "0" || (port.bytes().all(|byte| byte.is_ascii_digit()) && !port.starts_with('0'));
    let port = port.parse().ok().filter(|_| is_number)?;
    (ip.is_ipv4() == (family == "TCP4")).then(|| SocketAddr::new(ip, port))
}

/// Version 2: fixed part, addresses, and additional data, which is skipped.
fn read_binary(bytes: &[u8]) -> Result<Option<ProxyHeader>, Malformed> {
    let Some((fixed, rest)) = bytes.split_at_checked(FIXED_BYTES) else { return Ok(None) };
    let [command, kind, length @ ..] = &fixed[SIGNATURE.len()..] else { return Ok(None) };
    let length = length.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte));
    let is_local = match command {
        0x20 => true,
        0x21 => false,
        _ => return Err(Malformed("PROXY header of another version or command")),
    };
    let (family, transport) = (kind >> 4, kind & 0xf);
    // A proxy that connects for itself may send anything here.
    if !is_local && (family > 3 || transport > 2) {
        return Err(Malformed("PROXY header of another family or transport"));
    }
    let address_bytes = match family {
        1 => 12,
        2 => 36,
        3 => 216,
        _ => 0,
    };
    if !is_local && length < address_bytes {
        return Err(Malformed("PROXY header too short for its addresses"));
    }
    if FIXED_BYTES + length > MAX_HEADER_BYTES {
        return Err(Malformed("PROXY header too long"));
    }
    let Some(body) = rest.get(..length) else { return Ok(None) };
    let peer = match (is_local, family, transport) {
        (false, 1, 1) => binary_addr::<4>(body, 8),
        (false, 2, 1) => binary_addr::<16>(body, 32),
        _ => None,
    };
    let source = if is_local { Source::Proxy } else { Source::Client(peer.map_or(Peer::UNKNOWN, peer_of)) };
    Ok(Some(ProxyHeader { bytes: FIXED_BYTES + length, source }))
}

/// The address of `N` bytes at the start of `body`, with the port at `port`.
fn binary_addr<const N: usize>(body: &[u8], port: usize) -> Option<SocketAddr>
where
    IpAddr: From<[u8; N]>,
{
    let (ip, port) = (body.first_chunk::<N>()?, body.get(port..)?.first_chunk::<2>()?);
    Some(SocketAddr::new(IpAddr::from(*ip), u16::from_be_bytes(*port)))
}

/// The peer with that address; unknown for 0.0.0.0.
fn peer_of(addr: SocketAddr) -> Peer {
    if addr.ip().to_canonical().is_unspecified() { Peer::UNKNOWN } else { Peer::from(addr) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A header of version 2.
    fn binary(command: u8, kind: u8, body: &[u8]) -> Vec<u8> {
        [SIGNATURE, &[command, kind], &(body.len() as u16).to_be_bytes(), body].concat()
    }

    const V4: &[u8] = &[203, 0, 113, 7, 10, 0, 0, 1, 0x12, 0x34, 0, 80];

    fn v6() -> Vec<u8> {
        let ips = [[0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7], [0; 16]].concat();
        [&ips[..], &[0x12, 0x34, 0, 80]].concat()
    }

    fn source(header: impl AsRef<[u8]>) -> String {
        let header = header.as_ref();
        match read(&[header, b"GET"].concat()) {
            Ok(Some(read)) => {
                assert_eq!(read.bytes, header.len());
                match read.source {
                    Source::Proxy => "proxy".to_owned(),
                    Source::Client(peer) => peer.to_string(),
                }
            }
            Ok(None) => "more".to_owned(),
            Err(Malformed(why)) => why.to_owned(),
        }
    }

    #[test]
    fn version_1() {
        let longest = "PROXY UNKNOWN ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n";
        assert_eq!(longest.len(), MAX_TEXT_BYTES);
        for (line, want) in [
            ("PROXY TCP4 203.0.113.7 10.0.0.1 4711 80\r\n", "203.0.113.7:4711"),
            ("PROXY TCP6 2001:db8::7 ::1 65535 0\r\n", "[2001:db8::7]:65535"),
            ("PROXY TCP6 ::ffff:203.0.113.7 ::1 1 2\r\n", "203.0.113.7:1"),
            ("PROXY TCP4 203.0.113.7 10.0.0.1 0 80\r\n", "203.0.113.7"),
            ("PROXY TCP4 0.0.0.0 10.0.0.1 1 80\r\n", "unknown"),
            ("PROXY UNKNOWN\r\n", "unknown"),
            ("PROXY UNKNOWN whatever it says\r\n", "unknown"),
            (longest, "unknown"),
        ] {
            assert_eq!(source(line), want, "{line}");
        }
        for bad in [
            "PROXY\r\n",
            "PROXY \r\n",
            "PROXY UNKNOWNX\r\n",
            "PROXY TCP4\r\n",
            "PROXY TCP5 203.0.113.7 10.0.0.1 4711 80\r\n",
            "PROXY tcp4 203.0.113.7 10.0.0.1 4711 80\r\n",
            "PROXY TCP4 2001:db8::7 ::1 4711 80\r\n",
            "PROXY TCP6 203.0.113.7 10.0.0.1 4711 80\r\n",
            "PROXY TCP4 203.0.113.7 nonsense 4711 80\r\n",
            "PROXY TCP4 203.0.113.07 10.0.0.1 4711 80\r\n",
            "PROXY TCP4 203.0.113.7 10.0.0.1 04711 80\r\n",
            "PROXY TCP4 203.0.113.7 10.0.0.1 +1 80\r\n",
            "PROXY TCP4 203.0.113.7 10.0.0.1 4711 65536\r\n",
            "PROXY TCP4 203.0.113.7 10.0.0.1 4711\r\n",
            "PROXY TCP4 203.0.113.7  10.0.0.1 4711 80\r\n",
            "PROXY TCP4 203.0.113.7 10.0.0.1 4711 80 \r\n",
            "PROXY TCP4 203.0.113.7 10.0.0.1 4711 80\n",
            "PROXY UNKNOWN\n",
            "GET / HTTP/1.1\r\n",
            "proxy UNKNOWN\r\n",
            "\x16\x03\x01",
        ] {
            assert!(read(bad.as_bytes()).is_err(), "{bad}");
        }
        assert!(read(&longest.replace("\r\n", "x\r\n").into_bytes()).is_err(), "too long");
        assert_eq!(read(&longest.as_bytes()[..MAX_TEXT_BYTES - 1]), Ok(None));
        assert!(read(&[b"PROXY UNKNOWN ".to_vec(), vec![b'x'; 93]].concat()).is_err(), "no end in sight");
    }

    #[test]
    fn version_2() {
        let extra = b"\x03\0\x04abcd\x04\0\x01x";
        let not_v4 = [0; 12];
        for (header, want) in [
            (binary(0x21, 0x11, V4), "203.0.113.7:4660"),
            (binary(0x21, 0x11, &[V4, extra].concat()), "203.0.113.7:4660"),
            (binary(0x21, 0x11, &not_v4), "unknown"),
            (binary(0x21, 0x21, &v6()), "[2001:db8::7]:4660"),
            (binary(0x21, 0x21, &[&v6()[..], extra].concat()), "[2001:db8::7]:4660"),
            (binary(0x21, 0x31, &[b'x'; 216]), "unknown"),
            (binary(0x21, 0x32, &[b'x'; 217]), "unknown"),
            (binary(0x21, 0x12, V4), "unknown"),
            (binary(0x21, 0x00, b""), "unknown"),
            (binary(0x21, 0x00, extra), "unknown"),
            (binary(0x20, 0x00, b""), "proxy"),
            (binary(0x20, 0x11, V4), "proxy"),
            (binary(0x20, 0xff, extra), "proxy"),
            (binary(0x21, 0x11, &[V4, &[0; MAX_HEADER_BYTES - 28][..]].concat()), "203.0.113.7:4660"),
        ] {
            assert_eq!(source(&header), want, "{header:02x?}");
        }
        for (bad, why) in [
            (binary(0x11, 0x11, V4), "another version"),
            (binary(0x22, 0x11, V4), "another version"),
            (binary(0x21, 0x41, V4), "another family"),
            (binary(0x21, 0x13, V4), "another family"),
            (binary(0x21, 0x11, &V4[..11]), "too short"),
            (binary(0x21, 0x21, &v6()[..35]), "too short"),
            (binary(0x21, 0x31, &[b'x'; 215]), "too short"),
            (binary(0x21, 0x11, &[0; MAX_HEADER_BYTES - 15]), "too long"),
            (binary(0x20, 0x00, &[0; 65535])[..16].to_vec(), "too long"),
        ] {
            let got = source(&bad);
            assert!(got.contains(why), "{bad:02x?}: {got}");
        }
    }

    fn headers() -> impl Strategy<Value = Vec<u8>> {
        let samples = [
            b"PROXY TCP4 203.0.113.7 10.0.0.1 4711 80\r\n".to_vec(),
            b"PROXY UNKNOWN\r\n".to_vec(),
            binary(0x21, 0x11, V4),
            binary(0x21, 0x21, &[&v6()[..], b"\x04\0\x02xx"].concat()),
            binary(0x20, 0, b""),
        ];
        (prop::sample::select(samples.to_vec()), prop::collection::vec((any::<usize>(), any::<u8>()), 0..2)).prop_map(
            |(mut bytes, changes)| {
                for (at, byte) in changes {
                    let at = at % bytes.len();
                    bytes[at] = byte;
                }
                bytes
            },
        )
    }

    proptest! {
        /// Bytes received so far never give a result that later bytes change.
        #[test]
        fn pieces_make_no_difference(header in headers(), rest in prop::collection::vec(any::<u8>(), 0..20)) {
            let bytes = [header, rest].concat();
            let whole = read(&bytes);
            for end in 0..bytes.len() {
                match read(&bytes[..end]) {
                    Ok(None) => {}
                    early => {
                        prop_assert_eq!(early, whole);
                        prop_assert!(!matches!(early, Ok(Some(header)) if header.bytes > end));
                    }
                }
            }
            if let Ok(Some(header)) = whole {
                prop_assert_eq!(read(&bytes[..header.bytes - 1]), Ok(None));
            }
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), signed in any::<bool>()) {
            let bytes = if signed { [SIGNATURE, &bytes].concat() } else { bytes };
            let _ = read(&bytes);
        }
    }
}
