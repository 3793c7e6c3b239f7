//! URLs typed on the command line, and where they lead. Each command lists the schemes that it takes.

use super::listener::ListenAddr;
use super::resolve::{Endpoint, has_port};
use std::fmt;

/// A URL; its host is not looked up yet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Url {
    /// The part before `://`, in lower case; `unix` for a socket's path.
    pub scheme: &'static str,
    /// Where to connect.
    pub place: Endpoint,
    /// Value of the Host header: the name, and the port if one was typed.
    pub host: String,
    /// Path and query, as in a request; empty if none was typed.
    pub target: String,
}

impl Url {
    /// Parses `SCHEME://HOST[:PORT][/PATH]`, `unix:SOCKET` or `unix:SOCKET:/PATH`. `schemes` lists the accepted ones,
    /// with their default ports.
    ///
    /// # Errors
    /// A sentence that says what may be typed.
    pub fn parse(text: &str, schemes: &[(&'static str, Option<u16>)]) -> Result<Url, String> {
        if text.contains(|c: char| c.is_control() || c == ' ') {
            return Err(format!(
                "'{}' is not a valid URL: it contains a space or a control character",
                text.escape_default()
            ));
        }
        if let Some(rest) = text.strip_prefix("unix:") {
            let (path, target) = rest.find(":/").map_or((rest, ""), |at| (&rest[..at], &rest[at + 1..]));
            if path.is_empty() {
                return Err("unix: needs the path of a socket, as in unix:/run/percore.sock".into());
            }
            let place = Endpoint::Addr(ListenAddr::Unix(path.into()));
            return Ok(Url { scheme: "unix", place, host: "localhost".into(), target: escaped(target) });
        }
        let names = || {
            let names: Vec<String> = schemes.iter().map(|(name, _)| format!("{name}://HOST:PORT/PATH")).collect();
            format!("{} or unix:SOCKET:/PATH", names.join(", "))
        };
        let (scheme, rest) =
            text.split_once("://").ok_or_else(|| format!("'{text}' is not a valid URL: give {}", names()))?;
        let known = schemes.iter().find(|(name, _)| name.eq_ignore_ascii_case(scheme));
        let (scheme, default_port) =
            known.ok_or_else(|| format!("'{scheme}' is not a scheme supported here: give {}", names()))?;
        let (host, target) = rest.find(['/', '?', '#']).map_or((rest, ""), |at| rest.split_at(at));
        let target = target.split('#').next().unwrap_or_default();
        if host.contains('@') {
            return Err("credentials are not taken from the URL: give them as a header".into());
        }
        if host.is_empty() || host.starts_with(':') {
            return Err(format!("'{text}' is not a valid URL: it has no host"));
        }
        if default_port.is_none() && !has_port(host) {
            return Err(format!("'{text}' names no port"));
        }
        let place = Endpoint::named(host, default_port.unwrap_or_default())?;
        let target = if target.starts_with('?') { format!("/{target}") } else { target.to_owned() };
        let target = escaped(&target);
        Ok(Url { scheme, place, host: host.to_owned(), target })
    }

    /// The host's name or address, without brackets and port.
    pub fn host_name(&self) -> &str {
        let name =
            if has_port(&self.host) { self.host.rsplit_once(':').map_or("", |(name, _)| name) } else { &self.host };
        name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name)
    }

    /// Path and query; `/` if none was typed.
    pub fn target(&self) -> &str {
        if self.target.is_empty() { "/" } else { &self.target }
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Endpoint::Addr(ListenAddr::Unix(path)) if self.target.is_empty() => write!(f, "unix:{}", path.display()),
            Endpoint::Addr(ListenAddr::Unix(path)) => write!(f, "unix:{}:{}", path.display(), self.target),
            _ => write!(f, "{}://{}{}", self.scheme, self.host, self.target),
        }
    }
}

/// Replaces each byte that a request's first line must not contain by `%` and two digits (RFC 3986 section 2.1).
fn escaped(target: &str) -> String {
    let mut line = String::with_capacity(target.len());
    for character in target.chars() {
        if character.is_ascii() {
            line.push(character);
        } else {
            line.extend(character.to_string().bytes().map(|byte| format!("%{byte:02X}")));
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SCHEMES: &[(&str, Option<u16>)] = &[("ws", Some(80)), ("wss", Some(443)), ("tcp", None)];

    #[test]
    fn what_people_type() {
        for (text, place, host, name, target) in [
            ("ws://127.0.0.1:8080/", "127.0.0.1:8080", "127.0.0.1:8080", "127.0.0.1", "/"),
            ("ws://127.0.0.1:8080", "127.0.0.1:8080", "127.0.0.1:8080", "127.0.0.1", ""),
            ("WS://127.0.0.1/ws?room=1#x", "127.0.0.1:80", "127.0.0.1", "127.0.0.1", "/ws?room=1"),
            ("ws://[::1]:9?a", "[::1]:9", "[::1]:9", "::1", "/?a"),
            ("ws://[::1]/", "[::1]:80", "[::1]", "::1", "/"),
            ("wss://example.org#x", "example.org:443", "example.org", "example.org", ""),
            ("wss://example.org:1/a", "example.org:1", "example.org:1", "example.org", "/a"),
            ("tcp://127.0.0.1:7", "127.0.0.1:7", "127.0.0.1:7", "127.0.0.1", ""),
            ("ws://h/gr\u{fc}n?\u{1f980}=1", "h:80", "h", "h", "/gr%C3%BCn?%F0%9F%A6%80=1"),
            ("unix:/run/x.sock", "unix:/run/x.sock", "localhost", "localhost", ""),
            ("unix:/run/x.sock:/ws?y", "unix:/run/x.sock", "localhost", "localhost", "/ws?y"),
        ] {
            let url = Url::parse(text, SCHEMES).expect(text);
            assert_eq!(
                (url.place.to_string(), &url.host[..], url.host_name(), &url.target[..]),
                (place.to_owned(), host, name, target),
                "{text}"
            );
            assert_eq!(Url::parse(&url.to_string(), SCHEMES).as_ref(), Ok(&url));
        }
        for (bad, hint) in [
            ("", "ws://HOST"),
            ("127.0.0.1:8080", "wss://HOST"),
            ("http://x/", "'http' is not a scheme"),
            ("ws://", "no host"),
            ("ws:///x", "no host"),
            ("ws://:80/", "no host"),
            ("ws://me:secret@h/", "header"),
            ("ws://h:port/", "port"),
            ("ws://h:70000/", "port"),
            ("tcp://127.0.0.1", "no port"),
            ("unix:", "path of a socket"),
            ("ws://h/a b", "space"),
            ("unix:/a\nb", "control"),
        ] {
            let error = Url::parse(bad, SCHEMES).expect_err(bad);
            assert!(error.contains(hint), "{bad}: {error}");
        }
    }
    proptest! {
        /// Any input is either refused, or can be shown and parsed again, and fits into a request's first line.
        #[test]
        fn what_is_read_can_be_shown_and_read_again(
            parts in proptest::collection::vec(
                prop_oneof![
                    proptest::sample::select(vec!["ws://", "wss://", "tcp://", "unix:", "WS", ":", "/", "?", "#", "[::1]", "[", "]", "@", "80", "127.0.0.1", "h"]).prop_map(str::to_owned),
                    "\\PC{0,4}",
                    any::<char>().prop_map(String::from),
                ],
                0..8,
            ),
        ) {
            if let Ok(url) = Url::parse(&parts.concat(), SCHEMES) {
                prop_assert_eq!(Url::parse(&url.to_string(), SCHEMES), Ok(url.clone()));
                prop_assert!(url.target().starts_with('/'));
                prop_assert!(url.target.bytes().all(|byte| byte.is_ascii_graphic()));
                prop_assert!(!url.host.contains(|c: char| c.is_control() || c == ' '));
                prop_assert!(!url.host_name().is_empty());
            }
        }
    }
}
