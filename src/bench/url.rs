//! Where to: the URL as people type it, and what it comes to.

use crate::os::listener::ListenAddr;
use crate::os::resolve::{has_port, resolve};
use std::net::IpAddr;
use std::str::FromStr;

/// A server to put load on.
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

    /// Reads `ws://HOST[:PORT][/PATH]`, `tcp://HOST:PORT`, `unix:SOCKET` or `unix:SOCKET:/PATH`. Names are resolved here.
    fn from_str(text: &str) -> Result<Url, String> {
        if let Some(rest) = text.strip_prefix("unix:") {
            let (path, target) = rest.split_once(":/").map_or((rest, ""), |(path, target)| (path, target));
            if path.is_empty() {
                return Err("unix: needs the path of a socket, as in unix:/run/percore.sock".into());
            }
            let (addr, host) = (ListenAddr::Unix(path.into()), "localhost".into());
            return Ok(Url { text: text.into(), addr, host, target: format!("/{target}"), handshake: true });
        }
        let (scheme, rest) = text.split_once("://").ok_or_else(|| {
            format!("'{text}' is no URL: give ws://HOST:PORT/PATH, unix:SOCKET or, for a raw TCP echo, tcp://HOST:PORT")
        })?;
        let default_port = match scheme.to_ascii_lowercase().as_str() {
            "ws" => Some(80),
            "tcp" => None,
            "wss" => return Err("wss is not spoken: point at the server itself, behind its TLS proxy".into()),
            other => return Err(format!("'{other}' is no scheme of WebSocket: give ws://, unix: or tcp://")),
        };
        let (host, target) = rest.find(['/', '?']).map_or((rest, ""), |at| rest.split_at(at));
        let target = target.split('#').next().unwrap_or_default();
        if host.is_empty() || target.contains(|c: char| c.is_ascii_control() || c == ' ') {
            return Err(format!("'{text}' is no URL: there is no host, or a space in its path"));
        }
        if default_port.is_none() && !has_port(host) {
            return Err(format!("'{text}' names no port"));
        }
        let addr = resolve(host, default_port.unwrap_or_default())?;
        let target = if target.starts_with('/') { target.to_owned() } else { format!("/{target}") };
        let (addr, handshake) = (ListenAddr::Tcp(addr), default_port.is_some());
        Ok(Url { text: text.into(), addr, host: host.to_owned(), target, handshake })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_type() {
        for (text, addr, host, target) in [
            ("ws://127.0.0.1:8080/", "127.0.0.1:8080", "127.0.0.1:8080", "/"),
            ("ws://127.0.0.1:8080", "127.0.0.1:8080", "127.0.0.1:8080", "/"),
            ("WS://127.0.0.1/ws?room=1#x", "127.0.0.1:80", "127.0.0.1", "/ws?room=1"),
            ("ws://[::1]:9?a", "[::1]:9", "[::1]:9", "/?a"),
            ("ws://[::1]/", "[::1]:80", "[::1]", "/"),
            ("tcp://127.0.0.1:7", "127.0.0.1:7", "127.0.0.1:7", "/"),
            ("unix:/run/x.sock", "unix:/run/x.sock", "localhost", "/"),
            ("unix:/run/x.sock:/ws", "unix:/run/x.sock", "localhost", "/ws"),
        ] {
            let url: Url = text.parse().expect(text);
            assert_eq!(
                (url.addr.to_string(), &url.host[..], &url.target[..]),
                (addr.to_owned(), host, target),
                "{text}"
            );
            assert_eq!(url.handshake, !text.starts_with("tcp"));
        }
        for bad in [
            "",
            "127.0.0.1:8080",
            "http://x/",
            "wss://x/",
            "ws://",
            "ws:///x",
            "tcp://127.0.0.1",
            "unix:",
            "ws://h/a b",
        ] {
            assert!(bad.parse::<Url>().is_err(), "{bad}");
        }
    }
}
