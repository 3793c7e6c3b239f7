//! The server side of the opening handshake (RFC 6455, section 4.2).

use super::extension::{self, Agreement, Deflate};
use super::http::{Request, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest, Sha1};

/// Appended to the key before it is hashed (section 4.2.2).
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
const KEY_BYTES: usize = 16;

/// Which upgrades are accepted.
#[derive(Clone, Debug)]
pub struct UpgradeRules {
    /// Paths that upgrade; `*` for any.
    pub paths: Vec<String>,
    /// Origins that may connect, `same` for the host itself; empty for any. A request without `Origin`, which no
    /// browser sends, is accepted.
    pub origins: Vec<String>,
    /// Supported subprotocols; the client's order decides among them.
    pub subprotocols: Vec<String>,
}

impl Default for UpgradeRules {
    fn default() -> UpgradeRules {
        UpgradeRules { paths: vec!["/".into(), "/ws".into()], origins: Vec::new(), subprotocols: Vec::new() }
    }
}

impl UpgradeRules {
    /// Returns whether this path upgrades.
    pub fn takes(&self, path: &str) -> bool {
        self.paths.iter().any(|ours| ours == path || ours == "*")
    }
}

/// An accepted upgrade, to be answered by 101.
#[derive(Debug)]
pub struct Accepted<'a> {
    accept: String,
    /// The subprotocol agreed on.
    pub subprotocol: Option<&'a str>,
    /// The compression agreed on.
    pub deflate: Option<Agreement>,
    extensions: Option<String>,
}

/// The value of `Sec-WebSocket-Accept` for a `Sec-WebSocket-Key`.
pub fn accept_value(key: &str) -> String {
    let mut hash = Sha1::new();
    hash.update(key.as_bytes());
    hash.update(GUID);
    STANDARD.encode(hash.finalize())
}

/// Whether the request asks for a WebSocket at all.
pub fn is_asked(request: &Request<'_>) -> bool {
    request.has_token("upgrade", "websocket")
}

/// The answer to a request on an upgrade path that does not ask for a WebSocket.
pub fn required() -> Response {
    Response::text(426, "This path speaks WebSocket: send Upgrade: websocket.").header("Upgrade", "websocket")
}

/// Decides on an upgrade.
///
/// # Errors
/// The response that refuses it.
pub fn accept<'a>(request: &Request<'a>, rules: &UpgradeRules, deflate: &Deflate) -> Result<Accepted<'a>, Response> {
    let bad = |line| Err(Response::text(400, line));
    if request.minor_version == 0 {
        return bad("WebSocket needs HTTP/1.1 (behind nginx: proxy_http_version 1.1).");
    }
    if !request.has_token("connection", "upgrade") {
        return bad("Connection does not name Upgrade (behind nginx: proxy_set_header Connection \"upgrade\").");
    }
    let mut versions = request.headers("sec-websocket-version");
    if versions.next() != Some("13") || versions.next().is_some() {
        let response = Response::text(426, "Sec-WebSocket-Version is not 13.");
        return Err(response.header("Upgrade", "websocket").header("Sec-WebSocket-Version", "13"));
    }
    let mut keys = request.headers("sec-websocket-key");
    let (Some(key), None) = (keys.next(), keys.next()) else {
        return bad("There must be one Sec-WebSocket-Key.");
    };
    let mut nonce = [0; KEY_BYTES + 2];
    if STANDARD.decode_slice(key, &mut nonce) != Ok(KEY_BYTES) {
        return bad("Sec-WebSocket-Key is not base64 of 16 bytes.");
    }
    if !origin_is_allowed(request, &rules.origins) {
        return Err(Response::text(403, "This Origin may not connect."));
    }
    let spoken = |offered: &&str| rules.subprotocols.iter().any(|ours| ours == offered);
    let deflate = extension::negotiate(request.headers("sec-websocket-extensions"), deflate.mode, deflate.window_bits);
    let (deflate, extensions) = deflate.map_or((None, None), |(agreed, answer)| (Some(agreed), Some(answer)));
    Ok(Accepted { accept: accept_value(key), subprotocol: request.subprotocols().find(spoken), deflate, extensions })
}

fn origin_is_allowed(request: &Request<'_>, allowed: &[String]) -> bool {
    let mut origins = request.raw_values("origin");
    let Some(origin) = origins.next() else { return true };
    if allowed.is_empty() {
        return true;
    }
    // No browser sends more than one, or one that is not text; neither matches an origin on the list.
    let (Ok(origin), None) = (std::str::from_utf8(origin), origins.next()) else { return false };
    let host = request.host();
    allowed.iter().any(|allowed| match allowed.as_str() {
        "same" => origin.split_once("://").is_some_and(|(_, authority)| authority.eq_ignore_ascii_case(host)),
        exact => origin.eq_ignore_ascii_case(exact),
    })
}

impl Accepted<'_> {
    /// The 101 response.
    pub fn encode(&self) -> Vec<u8> {
        self.encode_with(&[])
    }

    /// The same, with headers of the app, which are valid as they are.
    pub(crate) fn encode_with(&self, headers: &[(String, String)]) -> Vec<u8> {
        let mut out = Vec::with_capacity(256);
        out.extend_from_slice(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n");
        let lines = [
            ("Sec-WebSocket-Accept", Some(self.accept.as_str())),
            ("Sec-WebSocket-Protocol", self.subprotocol),
            ("Sec-WebSocket-Extensions", self.extensions.as_deref()),
        ];
        let own = headers.iter().map(|(name, value)| (name.as_str(), Some(value.as_str())));
        for (name, value) in lines.into_iter().chain(own) {
            let Some(value) = value else { continue };
            for part in [name, ": ", value, "\r\n"] {
                out.extend_from_slice(part.as_bytes());
            }
        }
        out.extend_from_slice(b"\r\n");
        out
    }
}

#[cfg(test)]
mod tests {
    use super::super::http::{self, MAX_HEADERS};
    use super::*;
    use crate::net::id::Peer;

    const GOOD: &str = "GET /ws HTTP/1.1\r\nHost: example.org:8080\r\nUpgrade: WebSocket\r\nConnection: keep-alive, upgrade\r\n\
                        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n";

    fn answer(head: impl AsRef<[u8]>, rules: &UpgradeRules) -> String {
        let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let request = http::parse(head.as_ref(), &mut headers, Peer::UNIX).expect("a request");
        assert!(is_asked(&request));
        let bytes = accept(&request, rules, &Deflate::default())
            .map_or_else(|refusal| refusal.encode(true, false, "D"), |yes| yes.encode());
        String::from_utf8(bytes).expect("text")
    }

    #[test]
    fn the_sample_of_the_rfc() {
        let got = answer(format!("{GOOD}\r\n"), &UpgradeRules::default());
        assert_eq!(
            got,
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
        );
    }

    #[test]
    fn each_rule_has_its_status() {
        let rules =
            UpgradeRules { origins: vec!["https://a.example".into(), "same".into()], ..UpgradeRules::default() };
        let with = |from: &str, to: &str| answer(format!("{}\r\n", GOOD.replace(from, to)), &rules);
        let adding = |line: &str| answer(format!("{GOOD}{line}\r\n\r\n"), &rules);
        for (got, status) in [
            (with("keep-alive, upgrade", "keep-alive"), 400),
            (with("Version: 13", "Version: 8"), 426),
            (with("Sec-WebSocket-Version: 13\r\n", ""), 426),
            (with("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZQ=="), 400),
            (with("dGhlIHNhbXBsZSBub25jZQ==", "!"), 400),
            (with("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25jZSB0aGF0IGlzIHRvbyBsb25n"), 400),
            (with("HTTP/1.1", "HTTP/1.0"), 400),
            (adding("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="), 400),
            (adding("Origin: https://b.example"), 403),
            (adding("Origin: https://A.example"), 101),
            (adding("Origin: http://example.org:8080"), 101),
            (adding("Origin: null"), 403),
        ] {
            assert!(got.starts_with(&format!("HTTP/1.1 {status} ")), "{status}: {got}");
            assert_eq!(status == 426, got.contains("\r\nSec-WebSocket-Version: 13\r\n"), "{got}");
        }
        // A target in absolute form determines the host, whatever the Host header says.
        let absolute = GOOD.replace("GET /ws", "GET ws://c.example/ws");
        for (origin, status) in [("http://c.example", 101), ("http://example.org:8080", 403)] {
            let got = answer(format!("{absolute}Origin: {origin}\r\n\r\n"), &rules);
            assert!(got.starts_with(&format!("HTTP/1.1 {status} ")), "{status}: {got}");
        }
    }

    /// An unreadable `Origin` was treated as absent.
    #[test]
    fn an_origin_must_be_one_and_text() {
        let rules = UpgradeRules { origins: vec!["https://a.example".into()], ..UpgradeRules::default() };
        let origin = &b"Origin: https://a.example"[..];
        for (lines, status) in [
            (vec![origin], 101),
            (vec![origin, b"\xff"], 403),
            (vec![b"Origin: \xff"], 403),
            (vec![origin, b"\r\n", origin], 403),
        ] {
            let head = [GOOD.as_bytes(), &lines.concat(), b"\r\n\r\n"].concat();
            let got = answer(&head, &rules);
            assert!(got.starts_with(&format!("HTTP/1.1 {status} ")), "{status}: {got}");
        }
    }

    #[test]
    fn the_clients_order_decides_on_the_subprotocol() {
        let rules = UpgradeRules { subprotocols: vec!["b".into(), "c".into()], ..UpgradeRules::default() };
        let got = answer(format!("{GOOD}Sec-WebSocket-Protocol: a, c\r\nSec-WebSocket-Protocol: b\r\n\r\n"), &rules);
        assert!(got.contains("\r\nSec-WebSocket-Protocol: c\r\n"), "{got}");
        let got = answer(format!("{GOOD}Sec-WebSocket-Protocol: x\r\n\r\n"), &rules);
        assert!(got.starts_with("HTTP/1.1 101") && !got.contains("Sec-WebSocket-Protocol"), "{got}");
    }
}
