//! As much of HTTP/1.1 (RFC 9112) as stands before an upgrade: requests without content, and their responses.

use crate::data::id::Peer;
use httparse::Header;

/// Headers a request may have; more are answered by 431.
pub const MAX_HEADERS: usize = 64;

/// Bounds on a request; the status beyond each stands beside it.
#[derive(Clone, Copy, Debug)]
pub struct HeadLimits {
    /// Bytes of the request line (414).
    pub request_line_bytes: usize,
    /// Bytes of request line and headers together (431).
    pub head_bytes: usize,
}

/// A request that is refused before anyone could ask for it: the status and a line for people.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BadRequest(pub u16, pub &'static str);

/// A request, as apps see it. It borrows the read buffer.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    pub(crate) method: &'a str,
    pub(crate) path: &'a str,
    pub(crate) query: Option<&'a str>,
    pub(crate) minor_version: u8,
    pub(crate) headers: &'a [Header<'a>],
    pub(crate) peer: Peer,
    pub(crate) proxy: Option<Peer>,
    pub(crate) subprotocol: Option<&'a str>,
    pub(crate) tag: u64,
}

impl<'a> Request<'a> {
    /// A request for `/` that says nothing else.
    pub(crate) fn bare(peer: Peer) -> Request<'a> {
        Request {
            method: "GET",
            path: "/",
            query: None,
            minor_version: 1,
            headers: &[],
            peer,
            proxy: None,
            subprotocol: None,
            tag: 0,
        }
    }

    /// `GET`, in capitals as it was sent.
    pub fn method(&self) -> &'a str {
        self.method
    }

    /// The path, as it was sent: not decoded, without the query.
    pub fn path(&self) -> &'a str {
        self.path
    }

    /// What follows the first `?` of the target.
    pub fn query(&self) -> Option<&'a str> {
        self.query
    }

    /// The value of the first query parameter `name`, not decoded.
    pub fn query_value(&self, name: &str) -> Option<&'a str> {
        let pairs = self.query?.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        pairs.into_iter().find(|(key, _)| *key == name).map(|(_, value)| value)
    }

    /// The first header of that name, whatever its case; `None` also when its value is not UTF-8.
    pub fn header(&self, name: &str) -> Option<&'a str> {
        self.headers(name).next()
    }

    /// All values of headers of that name, in order.
    pub fn headers<'n>(&self, name: &'n str) -> impl Iterator<Item = &'a str> + use<'a, 'n> {
        self.raw_values(name).filter_map(|value| std::str::from_utf8(value).ok())
    }

    /// The same, with values that are not UTF-8: for whoever must know that a header is there at all.
    pub(crate) fn raw_values<'n>(&self, name: &'n str) -> impl DoubleEndedIterator<Item = &'a [u8]> + use<'a, 'n> {
        let headers: &'a [Header<'a>] = self.headers;
        headers.iter().filter(move |header| header.name.eq_ignore_ascii_case(name)).map(|header| header.value)
    }

    /// Every header, as sent.
    pub fn all_headers(&self) -> impl Iterator<Item = (&'a str, &'a [u8])> + use<'a> {
        self.headers.iter().map(|header| (header.name, header.value))
    }

    /// Who sent it: behind a trusted proxy ([`ProxyRules`](crate::ProxyRules)) the client, as the proxy tells.
    pub fn peer(&self) -> Peer {
        self.peer
    }

    /// The proxy that passed it on to us, where [`Request::peer`] is taken from its header.
    pub fn proxy(&self) -> Option<Peer> {
        self.proxy
    }

    /// The subprotocols that the client offers, in its order of preference (RFC 6455, section 4.2.1).
    pub fn subprotocols(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        let values = self.headers("sec-websocket-protocol");
        values.flat_map(|value| value.split(',')).map(str::trim).filter(|token| !token.is_empty())
    }

    /// The subprotocol that was agreed on; before the upgrade is accepted, `None`.
    pub fn subprotocol(&self) -> Option<&'a str> {
        self.subprotocol
    }

    /// What [`Outbox::connect`](crate::Outbox::connect) was told, for a connection that we opened; otherwise 0.
    pub fn tag(&self) -> u64 {
        self.tag
    }

    /// Whether some header `name`, read as a comma separated list, has `token`, whatever its case.
    pub fn has_token(&self, name: &str, token: &str) -> bool {
        self.headers(name).flat_map(|value| value.split(',')).any(|item| item.trim().eq_ignore_ascii_case(token))
    }

    /// Whether the connection can serve another request after this one (RFC 9112, section 9.3).
    pub fn keeps_alive(&self) -> bool {
        match self.minor_version {
            0 => self.has_token("connection", "keep-alive"),
            _ => !self.has_token("connection", "close"),
        }
    }

    /// Whether content follows the head (RFC 9112, section 6.3).
    ///
    /// # Errors
    /// Lengths that contradict each other or are no numbers.
    pub fn has_content(&self) -> Result<bool, BadRequest> {
        if self.raw_values("transfer-encoding").next().is_some() {
            return Ok(true);
        }
        let lengths = self.raw_values("content-length").flat_map(|value| value.split(|byte| *byte == b','));
        let mut lengths = lengths.map(<[u8]>::trim_ascii);
        let Some(first) = lengths.next() else { return Ok(false) };
        let digits = !first.is_empty() && first.iter().all(u8::is_ascii_digit);
        if !digits || lengths.any(|other| other != first) {
            return Err(BadRequest(400, "Content-Length is not one number"));
        }
        Ok(first.iter().any(|byte| *byte != b'0'))
    }
}

/// Where the head ends (after the empty line), looking only at what lies beyond `seen` bytes that were looked at before.
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

/// Whether a head that is not all there may still become good, so that a hopeless one is refused at once. The first `seen`
/// bytes were found good before: a head that comes byte by byte is not looked through for each of them.
///
/// # Errors
/// Too long, or not HTTP at all (a TLS hello, say).
pub fn check_beginning(bytes: &[u8], seen: usize, limits: &HeadLimits) -> Result<(), BadRequest> {
    let line = limits.request_line_bytes;
    if seen <= line && bytes.len() > line && !bytes[..=line].contains(&b'\n') {
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

/// Reads a head that [`head_end`] found whole.
///
/// # Errors
/// The status and reason to refuse it with.
pub fn parse<'a>(
    head: &'a [u8],
    headers: &'a mut [Header<'a>; MAX_HEADERS],
    peer: Peer,
) -> Result<Request<'a>, BadRequest> {
    let mut parsed = httparse::Request::new(headers);
    match parsed.parse(head) {
        Ok(httparse::Status::Complete(_)) => {}
        Ok(httparse::Status::Partial) => return Err(BadRequest(400, "request cut short")),
        Err(httparse::Error::TooManyHeaders) => return Err(BadRequest(431, "too many headers")),
        Err(httparse::Error::Version) => return Err(BadRequest(505, "only HTTP/1.1 is spoken here")),
        Err(_) => return Err(BadRequest(400, "not an HTTP request")),
    }
    let (Some(method), Some(target), Some(minor_version)) = (parsed.method, parsed.path, parsed.version) else {
        return Err(BadRequest(400, "request cut short"));
    };
    let (path, query) = split_target(target);
    let headers: &[Header<'_>] = parsed.headers;
    let request = Request { method, path, query, minor_version, headers, ..Request::bare(peer) };
    // RFC 9112, section 3.2: one Host, unless HTTP/1.0.
    match request.headers.iter().filter(|header| header.name.eq_ignore_ascii_case("host")).count() {
        1 => Ok(request),
        0 if minor_version == 0 => Ok(request),
        0 => Err(BadRequest(400, "no Host header")),
        _ => Err(BadRequest(400, "more than one Host header")),
    }
}

/// Path and query of a target in origin form or, as proxies send it, in absolute form.
fn split_target(target: &str) -> (&str, Option<&str>) {
    let target = match target.split_once("://") {
        Some((scheme, rest)) if !scheme.contains('/') => rest.find(['/', '?']).map_or("/", |start| &rest[start..]),
        _ => target,
    };
    match target.split_once('?') {
        Some(("", query)) => ("/", Some(query)),
        Some((path, query)) => (path, Some(query)),
        None => (target, None),
    }
}

/// A response to a request that is not upgraded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
}

impl Response {
    /// A response without content. `status` is 200 to 599.
    pub fn new(status: u16) -> Response {
        Response { status, headers: Vec::new(), body: Vec::new() }
    }

    /// A line of plain text.
    pub fn text(status: u16, line: &str) -> Response {
        Response::new(status).content("text/plain; charset=utf-8", format!("{line}\n"))
    }

    /// Sets content and its type.
    pub fn content(self, media_type: &str, body: impl Into<Vec<u8>>) -> Response {
        Response { body: body.into(), ..self.header("Content-Type", media_type) }
    }

    /// Adds a header. `Content-Length`, `Connection` and `Date` are added by themselves.
    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Response {
        self.headers.push((name, value.into()));
        self
    }

    /// The status.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// The response on the wire. `head_only` answers a HEAD request; `date` is an IMF-fixdate.
    pub fn encode(&self, keep_alive: bool, head_only: bool, date: &str) -> Vec<u8> {
        let mut out = format!("HTTP/1.1 {} {}\r\nDate: {date}\r\n", self.status, reason(self.status));
        for (name, value) in &self.headers {
            // A value is never let break out of its line.
            let value: String = value.chars().filter(|c| !c.is_control()).collect();
            out.push_str(&format!("{name}: {value}\r\n"));
        }
        let upgrades = self.headers.iter().any(|(name, _)| *name == "Upgrade");
        let connection = match (keep_alive, upgrades) {
            (true, false) => "keep-alive",
            (true, true) => "Upgrade",
            (false, false) => "close",
            (false, true) => "Upgrade, close",
        };
        out.push_str(&format!("Content-Length: {}\r\nConnection: {connection}\r\n\r\n", self.body.len()));
        let mut out = out.into_bytes();
        if !head_only {
            out.extend_from_slice(&self.body);
        }
        out
    }
}

/// The reason phrase of a status, empty for one that is not used here.
pub fn reason(status: u16) -> &'static str {
    match status {
        101 => "Switching Protocols",
        200 => "OK",
        204 => "No Content",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        413 => "Content Too Large",
        414 => "URI Too Long",
        426 => "Upgrade Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        505 => "HTTP Version Not Supported",
        _ => "",
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
        let head = "GET /ws?room=a&x HTTP/1.1\r\nHost: h\r\nConnection: keep-alive, Upgrade\r\nSec-WebSocket-Protocol: a, b\r\n\r\n";
        with(head, |request| {
            let request = request.expect("good");
            assert_eq!((request.method(), request.path(), request.query()), ("GET", "/ws", Some("room=a&x")));
            assert_eq!(request.query_value("room"), Some("a"));
            assert_eq!(request.query_value("x"), Some(""));
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
            ("GET / HTTP/1.1\r\nHo st: a\r\n\r\n", 400),
            ("G\x01T / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            (&many, 431),
        ] {
            assert_eq!(with(head, |request| request.map(|_| ()).map_err(|bad| bad.0)), Err(status), "{head}");
        }
        with("GET / HTTP/1.0\r\n\r\n", |request| assert!(!request.expect("1.0 needs no Host").keeps_alive()));
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
        ] {
            let head = format!("GET / HTTP/1.1\r\nHost: h\r\n{header}\r\n\r\n");
            assert_eq!(with(&head, |request| request.expect("good").has_content().ok()), want, "{header}");
        }
    }

    #[test]
    fn content_is_seen_where_its_header_is_no_text() {
        for (header, want) in [(&b"Content-Length: 1\xff"[..], None), (b"Transfer-Encoding: \xff", Some(true))] {
            let head = [b"GET / HTTP/1.1\r\nHost: h\r\n", header, b"\r\n\r\n"].concat();
            assert_eq!(with(&head, |request| request.expect("good").has_content().ok()), want, "{header:?}");
        }
    }

    #[test]
    fn targets_of_all_forms() {
        assert_eq!(split_target("http://a:1/ws?q=://"), ("/ws", Some("q=://")));
        assert_eq!(split_target("ws://a"), ("/", None));
        assert_eq!(split_target("ws://a?b"), ("/", Some("b")));
        assert_eq!(split_target("/a?b=http://c"), ("/a", Some("b=http://c")));
    }

    #[test]
    fn a_response_keeps_its_shape() {
        let response = Response::text(200, "hi").header("X-Evil", "a\r\nb: c");
        let want = "HTTP/1.1 200 OK\r\nDate: D\r\nContent-Type: text/plain; charset=utf-8\r\nX-Evil: ab: c\r\n\
                    Content-Length: 3\r\nConnection: keep-alive\r\n\r\n";
        assert_eq!(String::from_utf8_lossy(&response.encode(true, true, "D")), want);
        assert!(response.encode(false, false, "D").ends_with(b"Connection: close\r\n\r\nhi\n"));
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
