//! The client side of the opening handshake (RFC 6455, section 4.1).

use super::extension::{self, Agreement, DeflateMode};
use super::http::MAX_HEADERS;
use super::upgrade::accept_value;
use crate::telemetry::log::printable;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::fmt;
use std::sync::Arc;

/// How much of a refusal's content is kept.
const CONTENT_BYTES: usize = 500;

/// What a client requests.
#[derive(Clone, Debug)]
pub struct Offer {
    /// Path and query, as in the request line.
    pub target: String,
    /// Value of `Host`: the name, and the port unless it is the scheme's default.
    pub host: String,
    /// Subprotocols in order of preference.
    pub subprotocols: Vec<String>,
    /// Compression to offer.
    pub deflate: DeflateMode,
    /// Additional headers: names and values, sent unchanged.
    pub headers: Vec<(String, String)>,
}

/// A server's answer that opens a WebSocket.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Opened {
    /// The subprotocol the server chose.
    pub subprotocol: Option<String>,
    /// The compression agreed on.
    pub deflate: Option<Agreement>,
    /// Length of the answer; frames follow it.
    pub head_bytes: usize,
}

/// The answer of a server that does not upgrade.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Refusal {
    /// The status.
    pub status: u16,
    /// The redirect target, if there is one.
    pub location: Option<String>,
    /// The start of the content, as far as it arrived with the head, without characters that are not text.
    pub content: String,
}

/// Why a server's answer does not open a WebSocket.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum HandshakeError {
    /// The status is not 101.
    Refused(Box<Refusal>),
    /// The rule that the answer violates.
    Invalid(&'static str),
}

impl fmt::Display for HandshakeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HandshakeError::Refused(refusal) => {
                let Refusal { status, location, content } = &**refusal;
                write!(f, "the server answered the upgrade with status {status}")?;
                if let Some(location) = location {
                    write!(f, ", and points to {location}")?;
                }
                if content.is_empty() { Ok(()) } else { write!(f, ": {content}") }
            }
            HandshakeError::Invalid(rule) => write!(f, "the server's answer to the upgrade is invalid: {rule}"),
        }
    }
}

impl std::error::Error for HandshakeError {}

/// A handshake in progress: what was requested, and with which key.
///
/// ```
/// use percore::DeflateMode;
/// use percore::internal::protocol::client::{ClientHandshake, Offer};
///
/// let offer = Offer {
///     target: "/ws?room=1".into(),
///     host: "example.org".into(),
///     subprotocols: vec!["chat".into()],
///     deflate: DeflateMode::Off,
///     headers: vec![("Authorization".into(), "Bearer token".into())],
/// };
/// // Each connection needs another 16 random bytes.
/// let handshake = ClientHandshake::new(offer, *b"the sample nonce");
/// assert!(handshake.request().starts_with(b"GET /ws?room=1 HTTP/1.1\r\nHost: example.org\r\n"));
///
/// // The answer, directly followed by a first frame.
/// let answer = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
///     Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: chat\r\n\r\n\x81\x02hi";
/// assert_eq!(handshake.read(&answer[..20], 0)?, None);
/// let opened = handshake.read(answer, 0)?.expect("the answer is all there");
/// assert_eq!(opened.subprotocol.as_deref(), Some("chat"));
/// assert_eq!(&answer[opened.head_bytes..], b"\x81\x02hi");
/// # Ok::<(), percore::internal::protocol::client::HandshakeError>(())
/// ```
#[derive(Clone, Debug)]
pub struct ClientHandshake {
    key: String,
    offer: Arc<Offer>,
}

impl ClientHandshake {
    /// `nonce` is 16 random bytes, new for each connection. Many handshakes may share the offer.
    pub fn new(offer: impl Into<Arc<Offer>>, nonce: [u8; 16]) -> ClientHandshake {
        ClientHandshake { key: STANDARD.encode(nonce), offer: offer.into() }
    }

    /// The request.
    pub fn request(&self) -> Vec<u8> {
        let Offer { target, host, subprotocols, deflate, headers } = &*self.offer;
        let mut out = format!(
            "GET {target} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: {}\r\nSec-WebSocket-Version: 13\r\n",
            self.key
        );
        if !subprotocols.is_empty() {
            out.push_str(&format!("Sec-WebSocket-Protocol: {}\r\n", subprotocols.join(", ")));
        }
        if let Some(offer) = extension::offer(*deflate) {
            out.push_str(&format!("Sec-WebSocket-Extensions: {offer}\r\n"));
        }
        for (name, value) in headers {
            out.push_str(&format!("{name}: {value}\r\n"));
        }
        out.push_str("\r\n");
        out.into_bytes()
    }

    /// Parses the answer at the start of `bytes`; `None` if it is incomplete, as it was in the first `seen` bytes.
    /// Single bytes cause a new parse only with each line, and a head has a bounded number of lines.
    ///
    /// # Errors
    /// When the connection must be closed.
    pub fn read(&self, bytes: &[u8], seen: usize) -> Result<Option<Opened>, HandshakeError> {
        if seen > 0 && !bytes[seen..].contains(&b'\n') {
            return Ok(None);
        }
        let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let mut response = httparse::Response::new(&mut headers);
        let head_bytes = match response.parse(bytes) {
            Ok(httparse::Status::Complete(length)) => length,
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(_) => return Err(HandshakeError::Invalid("not HTTP")),
        };
        let values = |name: &'static str| {
            let matching = response.headers.iter().filter(move |header| header.name.eq_ignore_ascii_case(name));
            matching.filter_map(|header| std::str::from_utf8(header.value).ok())
        };
        if response.code != Some(101) {
            let content = &bytes[head_bytes..bytes.len().min(head_bytes + CONTENT_BYTES)];
            return Err(HandshakeError::Refused(Box::new(Refusal {
                status: response.code.unwrap_or_default(),
                location: values("location").next().map(|url| printable(url, CONTENT_BYTES)),
                content: printable(String::from_utf8_lossy(content).trim(), CONTENT_BYTES),
            })));
        }
        let has_token = |name, token: &str| {
            values(name).flat_map(|value| value.split(',')).any(|item| item.trim().eq_ignore_ascii_case(token))
        };
        if !has_token("upgrade", "websocket") || !has_token("connection", "upgrade") {
            return Err(HandshakeError::Invalid("Upgrade and Connection do not name websocket"));
        }
        if values("sec-websocket-accept").next() != Some(accept_value(&self.key).as_str()) {
            return Err(HandshakeError::Invalid("Sec-WebSocket-Accept does not match our key"));
        }
        let subprotocol = values("sec-websocket-protocol").next().map(str::to_owned);
        if subprotocol.as_ref().is_some_and(|chosen| !self.offer.subprotocols.contains(chosen)) {
            return Err(HandshakeError::Invalid("a subprotocol that was not offered"));
        }
        let deflate = extension::accept(values("sec-websocket-extensions"), self.offer.deflate)
            .map_err(|_| HandshakeError::Invalid("an extension that was not offered"))?;
        Ok(Some(Opened { subprotocol, deflate, head_bytes }))
    }
}

#[cfg(test)]
mod tests {
    use super::super::extension::Deflate;
    use super::super::http;
    use super::super::upgrade::{self, UpgradeRules};
    use super::*;
    use crate::net::id::Peer;

    fn handshake() -> ClientHandshake {
        let offer = Offer {
            target: "/ws?a=b".into(),
            host: "h:1".into(),
            subprotocols: vec!["x".into(), "y".into()],
            deflate: DeflateMode::Takeover,
            headers: vec![("X-Test".into(), "1".into())],
        };
        ClientHandshake::new(offer, *b"the sample nonce")
    }

    #[test]
    fn our_two_halves_agree() {
        let client = handshake();
        let request = client.request();
        let mut headers = [httparse::EMPTY_HEADER; http::MAX_HEADERS];
        let request = http::parse(&request, &mut headers, Peer::UNIX).expect("our own request");
        assert_eq!(request.header("x-test"), Some("1"));
        let rules = UpgradeRules { subprotocols: vec!["y".into()], ..UpgradeRules::default() };
        let deflate = Deflate { mode: DeflateMode::Takeover, ..Deflate::default() };
        let accepted = upgrade::accept(&request, &rules, &deflate).expect("accepted");
        let answer = accepted.encode();
        for cut in 0..answer.len() {
            assert_eq!(client.read(&answer[..cut], cut.saturating_sub(1)), Ok(None));
        }
        let opened = Opened { subprotocol: Some("y".into()), deflate: accepted.deflate, head_bytes: answer.len() };
        assert_eq!(client.read(&[&answer, &b"\x81\x00"[..]].concat(), 0), Ok(Some(opened)));
    }

    #[test]
    fn bad_answers_are_told_apart() {
        let good = "HTTP/1.1 101 X\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                    Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n";
        let read = |head: &str| handshake().read(format!("{head}\r\n").as_bytes(), 0);
        assert!(matches!(read(good), Ok(Some(_))));
        let refused = |status, location: Option<&str>, content: &str| {
            let location = location.map(str::to_owned);
            Err(HandshakeError::Refused(Box::new(Refusal { status, location, content: content.to_owned() })))
        };
        assert_eq!(read("HTTP/1.1 404 X\r\n"), refused(404, None, ""));
        let moved = b"HTTP/1.1 302 X\r\nLocation: wss://h/\r\n\r\nGo\nthere.\n";
        let error = handshake().read(moved, 0);
        assert_eq!(error, refused(302, Some("wss://h/"), "Go\\nthere."));
        let said = error.map_or_else(|error| error.to_string(), |_| String::new());
        assert_eq!(said, "the server answered the upgrade with status 302, and points to wss://h/: Go\\nthere.");
        for bad in [
            good.replace("s3p", "S3P"),
            good.replace("Upgrade: websocket", "Upgrade: x"),
            format!("{good}Sec-WebSocket-Protocol: z\r\n"),
            format!("{good}Sec-WebSocket-Extensions: x-other\r\n"),
        ] {
            assert!(matches!(read(&bad), Err(HandshakeError::Invalid(_))), "{bad}");
        }
        assert!(matches!(handshake().read(b"\x00\x01\x02\x03", 0), Err(HandshakeError::Invalid(_))));
    }
}
