//! The URL as people type it, and the server it names.

use crate::os::listener::ListenAddr;
use crate::os::url;
use std::net::IpAddr;
use std::str::FromStr;

/// The schemes of a benchmark.
const SCHEMES: &[(&str, Option<u16>)] = &[("ws", Some(80)), ("wss", Some(443)), ("tcp", None)];

/// A server to load.
#[derive(Clone, Debug)]
pub struct Url {
    /// As it was typed.
    pub text: String,
    /// Where to connect.
    pub addr: ListenAddr,
    /// Value of the Host header.
    pub host: String,
    /// Path and query.
    pub target: String,
    /// False for `tcp://`: frames begin at once, and come back byte for byte.
    pub handshake: bool,
    /// For `wss://`, the name that the certificate must be for.
    pub tls: Option<String>,
}

impl Url {
    /// The server's address, unless it is a unix socket.
    pub fn ip(&self) -> Option<IpAddr> {
        match &self.addr {
            ListenAddr::Tcp(addr) => Some(addr.ip()),
            ListenAddr::Unix(_) => None,
        }
    }
}

impl FromStr for Url {
    type Err = String;

    /// Reads `ws://HOST[:PORT][/PATH]`, `wss://` for TLS, `tcp://HOST:PORT`, `unix:SOCKET` or `unix:SOCKET:/PATH`. A
    /// name is resolved here, to its first address.
    fn from_str(text: &str) -> Result<Url, String> {
        let url = url::Url::parse(text, SCHEMES)?;
        let addr = url.place.first_addr()?;
        let (target, handshake) = (url.target().to_owned(), url.scheme != "tcp");
        let tls = (url.scheme == "wss").then(|| url.host_name().to_owned());
        Ok(Url { text: text.into(), addr, host: url.host, target, handshake, tls })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_type() {
        for (text, addr, target, handshake) in [
            ("ws://127.0.0.1:8080", "127.0.0.1:8080", "/", true),
            ("tcp://127.0.0.1:7", "127.0.0.1:7", "/", false),
            ("unix:/run/x.sock:/ws", "unix:/run/x.sock", "/ws", true),
        ] {
            let url: Url = text.parse().expect(text);
            assert_eq!((url.addr.to_string(), &url.target[..]), (addr.to_owned(), target), "{text}");
            assert_eq!(url.handshake, handshake, "{text}");
        }
        let url: Url = "wss://127.0.0.1/".parse().expect("an address");
        assert_eq!((url.addr.to_string(), url.tls.as_deref()), ("127.0.0.1:443".to_owned(), Some("127.0.0.1")));
        for bad in ["", "https://x/", "tcp://127.0.0.1"] {
            assert!(bad.parse::<Url>().is_err(), "{bad}");
        }
    }
}
