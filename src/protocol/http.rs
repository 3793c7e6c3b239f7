//! The part of HTTP/1.1 (RFC 9112) before an upgrade: the heads of requests. Their content is in `content.rs`.

use super::content::Framing;
use super::percent::form_text;
use super::target::{self, is_host};
use crate::net::id::Peer;
use httparse::Header;
use std::borrow::Cow;
use std::fmt;

pub use super::response::Response;
pub(crate) use super::response::is_name;

/// Maximum number of headers in a request; more are answered by 431.
pub const MAX_HEADERS: usize = 64;

/// Limits on a request, each with the status beyond it.
#[derive(Clone, Copy, Debug)]
pub struct HeadLimits {
    /// Bytes of the request line (414).
    pub request_line_bytes: usize,
    /// Bytes of request line and headers together (431).
    pub head_bytes: usize,
}

/// A request that is refused before it reaches the app: the status and a line for people.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BadRequest(pub u16, pub &'static str);

/// A request, as apps see it. It borrows the read buffer.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    pub(crate) method: &'a str,
    pub(crate) path: &'a str,
    pub(crate) query: Option<&'a str>,
    /// The authority of a target in absolute form.
    pub(crate) authority: Option<&'a str>,
    pub(crate) minor_version: u8,
    pub(crate) headers: &'a [Header<'a>],
    pub(crate) peer: Peer,
    pub(crate) proxy: Option<Peer>,
    pub(crate) subprotocol: Option<&'a str>,
    pub(crate) tag: u64,
    pub(crate) content: &'a [u8],
    pub(crate) is_service: bool,
    pub(crate) reply_to: ReplyTo,
}

/// Which answer an app may defer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ReplyTo {
    /// None: the request is answered already.
    Nobody,
    /// The answer to a request on the connection with this key.
    Request(u32),
    /// The same, for an upgrade that can be accepted.
    Upgrade(u32),
}

impl fmt::Debug for Request<'_> {
    // Values of headers may be secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Request { method, path, peer, .. } = self;
        f.debug_struct("Request")
            .field("method", method)
            .field("path", path)
            .field("peer", peer)
            .finish_non_exhaustive()
    }
}

impl<'a> Request<'a> {
    /// A request for `/` with nothing else.
    pub(crate) fn bare(peer: Peer) -> Request<'a> {
        Request {
            method: "GET",
            path: "/",
            query: None,
            authority: None,
            minor_version: 1,
            headers: &[],
            peer,
            proxy: None,
            subprotocol: None,
            tag: 0,
            content: &[],
            is_service: false,
            reply_to: ReplyTo::Nobody,
        }
    }

    /// The method as sent, such as `GET`.
    pub fn method(&self) -> &'a str {
        self.method
    }

    /// The path as sent: not decoded, without the query.
    pub fn path(&self) -> &'a str {
        self.path
    }

    /// Everything after the first `?` of the target.
    pub fn query(&self) -> Option<&'a str> {
        self.query
    }

    /// The value of the first query parameter `name`, decoded as in forms (WHATWG URL, section 5.1): `+` is a space and
    /// `%C3%A4` an `ä`; a `%` without two digits stays unchanged, and bytes that are not UTF-8 become U+FFFD.
    pub fn query_value(&self, name: &str) -> Option<Cow<'a, str>> {
        let pairs = self.query?.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        pairs.into_iter().find(|(key, _)| form_text(key) == name).map(|(_, value)| form_text(value))
    }

    /// The first header with that name, in any case; also `None` if its value is not UTF-8.
    pub fn header(&self, name: &str) -> Option<&'a str> {
        self.headers(name).next()
    }

    /// The requested host, as `HOST` or `HOST:PORT`: the authority of a target in absolute form, else the Host header
    /// (RFC 9112, section 3.2.2); empty if there is neither.
    pub fn host(&self) -> &'a str {
        self.authority.or_else(|| self.header("host")).unwrap_or_default()
    }

    /// All values of headers with that name, in order.
    pub fn headers<'n>(&self, name: &'n str) -> impl Iterator<Item = &'a str> + use<'a, 'n> {
        self.raw_values(name).filter_map(|value| std::str::from_utf8(value).ok())
    }

    /// The same, including values that are not UTF-8: for checks whether a header is present at all.
    pub(crate) fn raw_values<'n>(&self, name: &'n str) -> impl DoubleEndedIterator<Item = &'a [u8]> + use<'a, 'n> {
        let headers: &'a [Header<'a>] = self.headers;
        headers.iter().filter(move |header| header.name.eq_ignore_ascii_case(name)).map(|header| header.value)
    }

    /// Every header, as sent.
    pub fn all_headers(&self) -> impl Iterator<Item = (&'a str, &'a [u8])> + use<'a> {
        self.headers.iter().map(|header| (header.name, header.value))
    }

    /// The sender: behind a trusted proxy ([`ProxyRules`](crate::ProxyRules)) the client that the proxy names.
    pub fn peer(&self) -> Peer {
        self.peer
    }

    /// The proxy that forwarded the request, if [`Request::peer`] comes from its header.
    pub fn proxy(&self) -> Option<Peer> {
        self.proxy
    }

    /// The subprotocols that the client offers, in its order of preference (RFC 6455, section 4.2.1).
    pub fn subprotocols(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        let values = self.headers("sec-websocket-protocol");
        values.flat_map(|value| value.split(',')).map(str::trim).filter(|token| !token.is_empty())
    }

    /// The subprotocol that was agreed on; `None` before the upgrade is accepted.
    pub fn subprotocol(&self) -> Option<&'a str> {
        self.subprotocol
    }

    /// The tag given to [`Outbox::connect`](crate::Outbox::connect), for a connection that we opened, or to
    /// [`Upgrade::tag`](crate::Upgrade::tag), for one accepted with it; otherwise 0.
    pub fn tag(&self) -> u64 {
        self.tag
    }

    /// The content, complete and without chunk framing; empty if there is none, or if the app takes none of it
    /// ([`App::takes_content`](crate::App::takes_content)).
    pub fn content(&self) -> &'a [u8] {
        self.content
    }

    /// Returns whether the request arrived over a service listener
    /// ([`Server::listen_service`](crate::Server::listen_service)), which is for the application behind the server and
    /// not for clients.
    pub fn is_service(&self) -> bool {
        self.is_service
    }

    /// Returns whether a header `name`, read as a comma-separated list, contains `token`, in any case.
    pub fn has_token(&self, name: &str, token: &str) -> bool {
        self.headers(name).flat_map(|value| value.split(',')).any(|item| item.trim().eq_ignore_ascii_case(token))
    }

    /// Returns whether the connection can serve another request after this one (RFC 9112, section 9.3).
    pub fn keeps_alive(&self) -> bool {
        match self.minor_version {
            0 => self.has_token("connection", "keep-alive"),
            _ => !self.has_token("connection", "close"),
        }
    }

    /// Whether content follows the head (RFC 9112, section 6.3).
    ///
    /// # Errors
    /// As [`Request::framing`].
    #[doc(hidden)]
    pub fn has_content(&self) -> Result<bool, BadRequest> {
        self.framing().map(|framing| framing != Framing::Empty)
    }
}

/// The end of the head (after the empty line); searches only beyond the `seen` bytes that were searched before.
pub fn head_end(bytes: &[u8], seen: usize) -> Option<usize> {
    let from = seen.saturating_sub(3);
    let mut position = from;
    while let Some(newline) = bytes[position..].iter().position(|byte| *byte == b'\n') {
        position += newline + 1;
        match &bytes[position..] {
            [b'\n', ..] => return Some(position + 1),
            [b'\r', b'\n', ..] => return Some(position + 2),
            _ => {}
        }
    }
    None
}

/// Checks that an incomplete head may still become valid, so that a hopeless one is refused at once. `seen` bytes of it
/// were checked before: a head that arrives byte by byte is not checked from its start each time.
///
/// # Errors
/// When it is too long, or not HTTP at all (a TLS hello, say).
pub fn check_beginning(bytes: &[u8], seen: usize, limits: &HeadLimits) -> Result<(), BadRequest> {
    let most = limits.request_line_bytes;
    // With this many bytes, the line either ends among them or is too long.
    if seen <= most && bytes.len() > most && !bytes[..=most].contains(&b'\n') {
        return Err(BadRequest(414, "request line too long"));
    }
    if bytes.len() > limits.head_bytes {
        return Err(BadRequest(431, "headers too long"));
    }
    match bytes.first() {
        Some(first) if !first.is_ascii_alphabetic() => Err(BadRequest(400, "not an HTTP request")),
        _ => Ok(()),
    }
}

/// Parses a head that [`head_end`] found complete.
///
/// # Errors
/// The status and reason to refuse it with.
pub fn parse<'a>(
    head: &'a [u8],
    headers: &'a mut [Header<'a>; MAX_HEADERS],
    peer: Peer,
) -> Result<Request<'a>, BadRequest> {
    let mut parsed = httparse::Request::new(headers);
    let result = parsed.parse(head);
    let (method, path) = (parsed.method, parsed.path);
    let (minor_version, headers): (u8, &[Header<'_>]) = match result {
        Ok(httparse::Status::Complete(_)) => (parsed.version.unwrap_or_default(), parsed.headers),
        // A later HTTP/1.x is served as the version that we know (RFC 9110, section 2.5).
        Err(httparse::Error::Version) => (1, parse_later_version(head, method, path, parsed.headers)?),
        Ok(httparse::Status::Partial) => return Err(BadRequest(400, "request cut short")),
        Err(error) => return Err(refusal(error)),
    };
    let (Some(method), Some(target)) = (method, path) else {
        return Err(BadRequest(400, "request cut short"));
    };
    let target = target::read(method, target).ok_or(BadRequest(400, "the target is neither a path nor a URL"))?;
    let target::Target { authority, path, query } = target;
    let request = Request { method, path, query, authority, minor_version, headers, ..Request::bare(peer) };
    // RFC 9112, section 3.2: one Host, unless HTTP/1.0.
    let mut hosts = request.raw_values("host");
    match (hosts.next(), hosts.next()) {
        (Some(host), None) if !is_host(host) => Err(BadRequest(400, "the Host header is not a host")),
        (Some(_), None) => Ok(request),
        (None, _) if minor_version == 0 => Ok(request),
        (None, _) => Err(BadRequest(400, "no Host header")),
        (Some(_), Some(_)) => Err(BadRequest(400, "more than one Host header")),
    }
}

fn refusal(error: httparse::Error) -> BadRequest {
    match error {
        httparse::Error::TooManyHeaders => BadRequest(431, "too many headers"),
        _ => BadRequest(400, "not an HTTP request"),
    }
}

/// Parses the headers of a head whose version httparse does not know, after method and path: HTTP/1.2 to 1.9.
fn parse_later_version<'a>(
    head: &'a [u8],
    method: Option<&str>,
    path: Option<&str>,
    headers: &'a mut [Header<'a>],
) -> Result<&'a [Header<'a>], BadRequest> {
    let line_bytes = head.iter().position(|byte| *byte == b'\n').unwrap_or(head.len());
    let line = head[..line_bytes].trim_ascii_end();
    // Each is followed by one space.
    let before = method.map_or(0, str::len) + path.map_or(0, str::len) + 2;
    match line.get(before..) {
        Some([b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'2'..=b'9']) => {}
        Some([b'H', b'T', b'T', b'P', b'/', b'0' | b'2'..=b'9', b'.', b'0'..=b'9']) => {
            return Err(BadRequest(505, "only HTTP/1.x is spoken here"));
        }
        _ => return Err(BadRequest(400, "not an HTTP request")),
    }
    match httparse::parse_headers(&head[line_bytes + 1..], headers) {
        Ok(httparse::Status::Complete((_, headers))) => Ok(headers),
        Ok(httparse::Status::Partial) => Err(BadRequest(400, "request cut short")),
        Err(error) => Err(refusal(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn with<T>(head: impl AsRef<[u8]>, check: impl FnOnce(Result<Request<'_>, BadRequest>) -> T) -> T {
        let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
        check(parse(head.as_ref(), &mut headers, Peer::UNIX))
    }

    #[test]
    fn a_request_is_read() {
        let head = "GET /ws?room=a+%C3%A4%&x HTTP/1.1\r\nHost: h\r\nConnection: keep-alive, Upgrade\r\nSec-WebSocket-Protocol: a, b\r\n\r\n";
        with(head, |request| {
            let request = request.expect("good");
            assert_eq!((request.method(), request.path(), request.query()), ("GET", "/ws", Some("room=a+%C3%A4%&x")));
            assert_eq!(request.query_value("room").as_deref(), Some("a ä%"));
            assert_eq!(request.query_value("x").as_deref(), Some(""));
            assert_eq!(request.header("HOST"), Some("h"));
            assert!(request.has_token("connection", "upgrade"));
            assert_eq!(request.subprotocols().collect::<Vec<_>>(), ["a", "b"]);
            assert!(request.keeps_alive() && request.has_content() == Ok(false));
        });
    }

    #[test]
    fn bad_requests_have_their_status() {
        let many = format!("GET / HTTP/1.1\r\nHost: h\r\n{}\r\n", "a: b\r\n".repeat(MAX_HEADERS));
        for (head, status) in [
            ("GET / HTTP/1.1\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
            ("GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
            ("GET / HTTP/0.9\r\nHost: a\r\n\r\n", 505),
            ("GET / HTTP/1.10\r\nHost: a\r\n\r\n", 400),
            ("GET / HTTP/2\r\nHost: a\r\n\r\n", 400),
            ("GET / HTTP/3 HTTP/1.2\r\nHost: a\r\n\r\n", 400),
            ("GET / http/1.2\r\nHost: a\r\n\r\n", 400),
            ("GET / HTTP/1.2\r\nHo st: a\r\n\r\n", 400),
            ("GET / HTTP/1.2\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: http://a\r\n\r\n", 400),
            ("GET / HTTP/1.0\r\nHost: a/b\r\n\r\n", 400),
            ("GET http://a/ HTTP/1.1\r\nHost: a/b\r\n\r\n", 400),
            ("GET http://a/ HTTP/1.1\r\n\r\n", 400),
            ("GET a?b://c/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("GET ws HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHo st: a\r\n\r\n", 400),
            ("G\x01T / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            (&many, 431),
        ] {
            assert_eq!(with(head, |request| request.map(|_| ()).map_err(|bad| bad.0)), Err(status), "{head}");
        }
        with("GET / HTTP/1.0\r\n\r\n", |request| assert!(!request.expect("1.0 needs no Host").keeps_alive()));
    }

    #[test]
    fn a_later_minor_version_is_served_as_1_1() {
        for version in ["1.2", "1.9"] {
            with(format!("GET /a?b HTTP/{version}\r\nHost: h\r\nX: y\r\n\r\n"), |request| {
                let request = request.expect("good");
                assert_eq!((request.path(), request.query(), request.header("x")), ("/a", Some("b"), Some("y")));
                assert!(request.keeps_alive() && request.minor_version == 1);
            });
        }
        let many = format!("GET / HTTP/1.2\r\nHost: h\r\n{}\r\n", "a: b\r\n".repeat(MAX_HEADERS));
        assert_eq!(with(many, |request| request.map(|_| ()).map_err(|bad| bad.0)), Err(431));
    }

    #[test]
    fn the_host_is_the_targets_where_it_names_one() {
        for (head, want) in [
            ("GET / HTTP/1.1\r\nHost: a:1\r\n\r\n", "a:1"),
            ("GET ws://b:2/ HTTP/1.1\r\nHost: a:1\r\n\r\n", "b:2"),
            ("GET / HTTP/1.1\r\nHost:\r\n\r\n", ""),
            ("GET / HTTP/1.0\r\n\r\n", ""),
        ] {
            with(head, |request| assert_eq!(request.expect("good").host(), want, "{head}"));
        }
    }

    #[test]
    fn a_beginning_is_looked_at_once() {
        let limits = HeadLimits { request_line_bytes: 20, head_bytes: 40 };
        let status = |bytes: &[u8], seen| check_beginning(bytes, seen, &limits).map_err(|bad| bad.0);
        let line = [b'a'; 20];
        assert_eq!(status(&line, 0), Ok(()));
        assert_eq!(status(&[&line[..], b"\n"].concat(), 20), Ok(()));
        assert_eq!(status(&[&line[..], b"a"].concat(), 20), Err(414));
        assert_eq!(status(&[&line[..], b"a\n"].concat(), 0), Err(414));
        assert_eq!(status(&[&line[..], b"\n", &line].concat(), 0), Err(431));
        // Seen bytes are not searched again, or each byte would cost as much as all before it.
        assert_eq!(status(&[b'a'; 30], 21), Ok(()));
        assert_eq!(head_end(b"\n\naaaaaaa", 8), None);
    }

    #[test]
    fn content_is_seen() {
        for (header, want) in [
            ("Content-Length: 0", Some(false)),
            ("Content-Length: 12", Some(true)),
            ("Content-Length: 1, 1", Some(true)),
            ("Content-Length: 1, 2", None),
            ("Content-Length: -1", None),
            ("Transfer-Encoding: chunked", Some(true)),
            ("Transfer-Encoding: , Chunked,", Some(true)),
        ] {
            let head = format!("GET / HTTP/1.1\r\nHost: h\r\n{header}\r\n\r\n");
            assert_eq!(with(&head, |request| request.expect("good").has_content().ok()), want, "{header}");
        }
    }

    #[test]
    fn content_whose_end_is_doubtful_is_refused() {
        for (version, headers, status) in [
            ("1.1", "Transfer-Encoding: chunked\r\nContent-Length: 5", 400),
            ("1.1", "Content-Length: 0\r\nTransfer-Encoding: chunked", 400),
            ("1.0", "Transfer-Encoding: chunked", 400),
            ("1.1", "Transfer-Encoding:", 400),
            ("1.1", "Transfer-Encoding: gzip", 400),
            ("1.1", "Transfer-Encoding: chunked, gzip", 400),
            ("1.1", "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", 400),
            ("1.1", "Transfer-Encoding: gzip, chunked", 501),
            ("1.1", "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked", 501),
        ] {
            let head = format!("POST / HTTP/{version}\r\nHost: h\r\n{headers}\r\n\r\n");
            let got = with(&head, |request| request.expect("good").has_content().map_err(|bad| bad.0));
            assert_eq!(got, Err(status), "{headers}");
        }
    }

    #[test]
    fn content_is_seen_where_its_header_is_no_text() {
        for (header, want) in [(&b"Content-Length: 1\xff"[..], None), (b"Transfer-Encoding: \xff", None)] {
            let head = [b"GET / HTTP/1.1\r\nHost: h\r\n", header, b"\r\n\r\n"].concat();
            assert_eq!(with(&head, |request| request.expect("good").has_content().ok()), want, "{header:?}");
        }
    }

    proptest! {
        #[test]
        fn the_end_is_found_whatever_the_pieces(bytes in prop::collection::vec(prop::sample::select(b"\r\nab".to_vec()), 0..30), cut in 0usize..30) {
            let whole = head_end(&bytes, 0);
            let cut = cut.min(bytes.len());
            let in_pieces = head_end(&bytes[..cut], 0).or_else(|| head_end(&bytes, cut));
            prop_assert_eq!(whole, in_pieces);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
            if let Ok(request) = parse(&bytes, &mut headers, Peer::UNIX) {
                let _ = (request.has_content(), request.keeps_alive(), request.subprotocols().count());
            }
        }
    }
}
