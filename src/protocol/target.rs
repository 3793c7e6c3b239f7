//! The target of a request (RFC 9112, section 3.2), and its host (RFC 9110, sections 4.2 and 7.2).

use std::net::Ipv6Addr;

/// Schemes of a target in absolute form.
const SCHEMES: [&str; 4] = ["http", "https", "ws", "wss"];

/// The parts of a target.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Target<'a> {
    /// Host and port of a target in absolute form.
    pub authority: Option<&'a str>,
    pub path: &'a str,
    pub query: Option<&'a str>,
}

/// Parses a target: in origin form; in absolute form, as proxies send it; or `*`, for OPTIONS only. `None` for any
/// other.
pub(super) fn read<'a>(method: &str, target: &'a str) -> Option<Target<'a>> {
    if target == "*" {
        return (method == "OPTIONS").then_some(Target { authority: None, path: "*", query: None });
    }
    if target.starts_with('/') {
        return Some(from_path(None, target));
    }
    let (scheme, rest) = target.split_once("://")?;
    let (authority, rest) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    // Neither scheme allows an empty host (RFC 9110, section 4.2), and user information must not be accepted.
    let is_good = SCHEMES.iter().any(|known| scheme.eq_ignore_ascii_case(known))
        && !authority.is_empty()
        && !authority.starts_with(':')
        && is_host(authority.as_bytes());
    is_good.then(|| from_path(Some(authority), rest))
}

fn from_path<'a>(authority: Option<&'a str>, rest: &'a str) -> Target<'a> {
    let (path, query) = rest.split_once('?').map_or((rest, None), |(path, query)| (path, Some(query)));
    Target { authority, path: if path.is_empty() { "/" } else { path }, query }
}

/// Whether the bytes are a host, optionally with a port, or empty: what a Host header may contain.
pub(super) fn is_host(value: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(value) else { return false };
    let (host_is_good, rest) = match text.strip_prefix('[') {
        Some(inner) => match inner.split_once(']') {
            Some((literal, rest)) => (literal.parse::<Ipv6Addr>().is_ok() || is_future_address(literal), rest),
            None => return false,
        },
        None => {
            let (name, rest) = text.split_at(text.find(':').unwrap_or(text.len()));
            (is_registered_name(name), rest)
        }
    };
    let is_port = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit());
    host_is_good && (rest.is_empty() || rest.strip_prefix(':').is_some_and(is_port))
}

/// `IPvFuture` of RFC 3986, section 3.2.2.
fn is_future_address(literal: &str) -> bool {
    let Some((version, address)) = literal.strip_prefix(['v', 'V']).and_then(|rest| rest.split_once('.')) else {
        return false;
    };
    let is_version = !version.is_empty() && version.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_version && !address.is_empty() && address.bytes().all(|byte| is_plain(byte) || byte == b':')
}

/// `reg-name` of RFC 3986, section 3.2.2, which includes IPv4 addresses.
fn is_registered_name(name: &str) -> bool {
    let mut rest = name.as_bytes();
    while let [byte, after @ ..] = rest {
        rest = match (byte, after) {
            (b'%', [first, second, after @ ..]) if first.is_ascii_hexdigit() && second.is_ascii_hexdigit() => after,
            (byte, after) if is_plain(*byte) => after,
            _ => return false,
        };
    }
    true
}

/// `unreserved` and `sub-delims` of RFC 3986, section 2.
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_of_all_forms() {
        let target = |authority, path, query| Some(Target { authority, path, query });
        for (method, text, want) in [
            ("GET", "/", target(None, "/", None)),
            ("GET", "/a?b=http://c", target(None, "/a", Some("b=http://c"))),
            ("GET", "//a/b?", target(None, "//a/b", Some(""))),
            ("GET", "http://a:1/ws?q=://", target(Some("a:1"), "/ws", Some("q=://"))),
            ("GET", "ws://a", target(Some("a"), "/", None)),
            ("GET", "WSS://a?b", target(Some("a"), "/", Some("b"))),
            ("GET", "https://[::1]:8080/x", target(Some("[::1]:8080"), "/x", None)),
            ("OPTIONS", "*", target(None, "*", None)),
            ("GET", "*", None),
            ("OPTIONS", "*x", None),
            ("GET", "healthz", None),
            ("GET", "?a", None),
            ("CONNECT", "a:80", None),
            // These were mistaken for /healthz.
            ("GET", "a?b://c/healthz", None),
            ("GET", "ftp://a/healthz", None),
            ("GET", "://a/healthz", None),
            ("GET", "http:///healthz", None),
            ("GET", "http://:80/healthz", None),
            ("GET", "http://user@a/healthz", None),
            ("GET", "http://a:b/healthz", None),
        ] {
            assert_eq!(read(method, text), want, "{method} {text}");
        }
    }

    #[test]
    fn hosts_are_told_from_what_is_none() {
        let good =
            ["", "a", "a:", "a:80", "127.0.0.1:8080", "xn--p1ai.example", "a_b.c", "%41", "[::1]", "[2001:db8::7]:9"];
        for host in good.iter().chain(&["[v1.a:b]:1", "a;b=c"]) {
            assert!(is_host(host.as_bytes()), "{host}");
        }
        let bad = [
            "a b",
            "a/b",
            "a@b",
            "a:80:80",
            "a:x",
            "a:-1",
            "[::1",
            "[::1]x",
            "[]",
            "[fe80::1%25eth0]",
            "[v.a]",
            "%4",
            "%4g",
        ];
        for host in bad.iter().chain(&["a\"", "http://a", "a, b", "ü", "a#", "a?", "\\"]) {
            assert!(!is_host(host.as_bytes()), "{host}");
        }
        assert!(!is_host(b"a\xff"));
    }
}
