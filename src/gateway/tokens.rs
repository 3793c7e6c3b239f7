//! The tokens of clients: where a request for a connection carries them, and the answer to a client without a good one.

use crate::jwt::{Refused, Verifier};
use crate::outbox::Outbox;
use crate::protocol::bearer::credentials;
use crate::protocol::http::{Request, Response};
use crate::telemetry::log::Level;
use std::borrow::Cow;
use std::sync::Arc;

/// Lets in clients with a good token: in `Authorization: Bearer`, in a query parameter or in a cookie. The first that is there
/// counts.
pub struct Tokens {
    verifier: Verifier,
    parameter: Option<String>,
    cookie: Option<String>,
}

impl Tokens {
    /// Verifies tokens by this; `parameter` and `cookie` are the names of those that may hold one.
    pub fn new(verifier: Verifier, parameter: Option<String>, cookie: Option<String>) -> Tokens {
        Tokens { verifier, parameter, cookie }
    }

    /// The claims of a request's token, in one line; or the answer to a request without a good one.
    pub fn claims(&mut self, request: &Request<'_>, out: &mut Outbox) -> Result<Arc<str>, Response> {
        if let Err(error) = self.verifier.refresh(out.now()) {
            out.log(Level::Error, "keys", None, format_args!("keys stay as they were: {error}"));
        }
        let token = self.find(request).ok_or(None);
        let claims = token.and_then(|token| self.verifier.verify(&token, out.unix_time()).map_err(Some));
        claims.map(|claims| claims.one_line().into()).map_err(|refused| {
            out.stats.gateway_tokens_refused += 1;
            refusal(refused)
        })
    }

    fn find<'a>(&self, request: &Request<'a>) -> Option<Cow<'a, str>> {
        let bearer = request.headers("authorization").find_map(|value| credentials(value, "bearer"));
        let in_query = || self.parameter.as_deref().and_then(|name| request.query_value(name));
        let in_cookie = || self.cookie.as_deref().and_then(|name| cookie(request, name));
        bearer.map(Cow::Borrowed).or_else(in_query).or_else(|| in_cookie().map(Cow::Borrowed))
    }
}

/// The answer to a request with no token or a refused one (RFC 6750, section 3).
fn refusal(refused: Option<Refused>) -> Response {
    const CHALLENGE: &str = "Bearer realm=\"percore\"";
    let (line, challenge) = match refused {
        None => ("A token is needed.".to_owned(), CHALLENGE.to_owned()),
        Some(why) => (format!("{why}."), format!("{CHALLENGE}, error=\"invalid_token\", error_description=\"{why}\"")),
    };
    Response::text(401, &line).header("WWW-Authenticate", challenge)
}

/// The value of a cookie (RFC 6265, section 4.2.1).
fn cookie<'a>(request: &Request<'a>, name: &str) -> Option<&'a str> {
    let pairs = request.headers("cookie").flat_map(|value| value.split(';'));
    pairs
        .filter_map(|pair| pair.trim().split_once('='))
        .find(|(key, _)| *key == name)
        .map(|(_, value)| value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jwt::{Keys, Rules};
    use crate::net::id::Peer;
    use crate::protocol::http::{self, MAX_HEADERS};

    fn found(target: &str, headers: &str) -> Option<String> {
        let verifier = Verifier::new(Keys::default(), Rules::default());
        let tokens = Tokens::new(verifier, Some("access_token".into()), Some("session".into()));
        let head = format!("GET {target} HTTP/1.1\r\nHost: h\r\n{headers}\r\n");
        let mut space = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let request = http::parse(head.as_bytes(), &mut space, Peer::UNIX).expect("a request");
        tokens.find(&request).map(Cow::into_owned)
    }

    #[test]
    fn where_a_token_stands() {
        for (target, headers, token) in [
            ("/", "", None),
            ("/", "Authorization: Bearer a.b.c\r\n", Some("a.b.c")),
            ("/", "authorization: bEARER  a.b.c \r\n", Some("a.b.c")),
            ("/", "Authorization: Basic a.b.c\r\n", None),
            ("/", "Authorization: a.b.c\r\n", None),
            ("/?access_token=a.b.c&x=y", "", Some("a.b.c")),
            ("/?x=y&access_token=a.b.c", "Authorization: Basic x\r\n", Some("a.b.c")),
            ("/?access_token=a", "Authorization: Bearer b\r\n", Some("b")),
            ("/?Access_Token=a", "", None),
            ("/", "Cookie: a=b; session=a.b.c; d=e\r\n", Some("a.b.c")),
            ("/", "Cookie: session=\"a.b.c\"\r\n", Some("a.b.c")),
            ("/", "Cookie: a=b\r\nCookie: session=a=b\r\n", Some("a=b")),
            ("/", "Cookie: xsession=a.b.c\r\n", None),
            ("/?access_token=a", "Cookie: session=b\r\n", Some("a")),
        ] {
            assert_eq!(found(target, headers).as_deref(), token, "{target} {headers}");
        }
    }
}
