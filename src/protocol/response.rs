//! Responses to requests that are not upgraded (RFC 9112, section 4).

use super::content::is_token;
use std::borrow::Cow;

/// A response to a request that is not upgraded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    status: u16,
    headers: Vec<(Cow<'static, str>, String)>,
    body: Vec<u8>,
}

impl Response {
    /// A response without content. `status` is 200 to 599.
    pub fn new(status: u16) -> Response {
        Response { status, headers: Vec::new(), body: Vec::new() }
    }

    /// A response with a line of plain text.
    pub fn text(status: u16, line: &str) -> Response {
        Response::new(status).content("text/plain; charset=utf-8", format!("{line}\n"))
    }

    /// Sets the content and its type.
    pub fn content(self, media_type: &str, body: impl Into<Vec<u8>>) -> Response {
        Response { body: body.into(), ..self.header("Content-Type", media_type) }
    }

    /// Adds a header, unless its name is not a token (RFC 9110, section 5.6.2). `Content-Length` (if the status allows
    /// content), `Connection` and `Date` are added automatically.
    pub fn header(mut self, name: impl Into<Cow<'static, str>>, value: impl Into<String>) -> Response {
        let name = name.into();
        if is_name(&name) {
            self.headers.push((name, value.into()));
        }
        self
    }

    /// The status code.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// Encodes the response for the wire. `head_only` answers a HEAD request; `date` is an IMF-fixdate.
    pub fn encode(&self, keep_alive: bool, head_only: bool, date: &str) -> Vec<u8> {
        let mut out = format!("HTTP/1.1 {} {}\r\nDate: {date}\r\n", self.status, reason(self.status));
        for (name, value) in &self.headers {
            // A value cannot break out of its line.
            let value: String = value.chars().filter(|c| !c.is_control()).collect();
            out.push_str(&format!("{name}: {value}\r\n"));
        }
        let upgrades = self.headers.iter().any(|(name, _)| name == "Upgrade");
        let connection = match (keep_alive, upgrades) {
            (true, false) => "keep-alive",
            (true, true) => "Upgrade",
            (false, false) => "close",
            (false, true) => "Upgrade, close",
        };
        // These never have content, nor its length (RFC 9110, section 8.6; for 304 it would have to be that of another
        // response).
        let has_content = !matches!(self.status, 100..=199 | 204 | 304);
        if has_content {
            out.push_str(&format!("Content-Length: {}\r\n", self.body.len()));
        }
        out.push_str(&format!("Connection: {connection}\r\n\r\n"));
        let mut out = out.into_bytes();
        if has_content && !head_only {
            out.extend_from_slice(&self.body);
        }
        out
    }
}

/// Whether this is a valid header name.
pub(crate) fn is_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(is_token)
}

/// The reason phrase of a status (RFC 9110, section 15, and the registry); empty for an unregistered one.
fn reason(status: u16) -> &'static str {
    match status {
        100 => "Continue",
        101 => "Switching Protocols",
        103 => "Early Hints",
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        203 => "Non-Authoritative Information",
        204 => "No Content",
        205 => "Reset Content",
        206 => "Partial Content",
        300 => "Multiple Choices",
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        304 => "Not Modified",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        402 => "Payment Required",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        407 => "Proxy Authentication Required",
        408 => "Request Timeout",
        409 => "Conflict",
        410 => "Gone",
        411 => "Length Required",
        412 => "Precondition Failed",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        416 => "Range Not Satisfiable",
        417 => "Expectation Failed",
        421 => "Misdirected Request",
        422 => "Unprocessable Content",
        423 => "Locked",
        424 => "Failed Dependency",
        425 => "Too Early",
        426 => "Upgrade Required",
        428 => "Precondition Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        451 => "Unavailable For Legal Reasons",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        507 => "Insufficient Storage",
        511 => "Network Authentication Required",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_response_keeps_its_shape() {
        let response = Response::text(200, "hi").header("X-Evil", "a\r\nb: c").header("a\r\nb".to_owned(), "c");
        let want = "HTTP/1.1 200 OK\r\nDate: D\r\nContent-Type: text/plain; charset=utf-8\r\nX-Evil: ab: c\r\n\
                    Content-Length: 3\r\nConnection: keep-alive\r\n\r\n";
        assert_eq!(String::from_utf8_lossy(&response.encode(true, true, "D")), want);
        assert!(response.encode(false, false, "D").ends_with(b"Connection: close\r\n\r\nhi\n"));
    }

    #[test]
    fn some_responses_have_no_content() {
        for (status, want) in [(204, "204 No Content"), (304, "304 Not Modified")] {
            let got = Response::text(status, "left out").encode(true, false, "D");
            let want = format!(
                "HTTP/1.1 {want}\r\nDate: D\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: keep-alive\r\n\r\n"
            );
            assert_eq!(String::from_utf8_lossy(&got), want);
        }
        let empty = String::from_utf8(Response::new(302).encode(true, false, "D")).expect("text");
        assert!(empty.starts_with("HTTP/1.1 302 Found\r\n") && empty.contains("\r\nContent-Length: 0\r\n"), "{empty}");
    }
}
