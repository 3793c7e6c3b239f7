//! Bearer tokens (RFC 6750, section 2.1).

use super::http::Request;
use std::hint::black_box;

/// Whether the request has this token in its one Authorization header. The time this takes does not depend on where a
/// wrong token differs.
pub fn is_given(request: &Request<'_>, token: &str) -> bool {
    let mut values = request.headers("authorization");
    let (Some(value), None) = (values.next(), values.next()) else { return false };
    credentials(value, "bearer").is_some_and(|given| is_same(given.as_bytes(), token.as_bytes()))
}

/// The credentials in an Authorization header (RFC 9110, section 11.6.2), if it uses this scheme.
pub(crate) fn credentials<'a>(value: &'a str, scheme: &str) -> Option<&'a str> {
    let (given, rest) = value.split_once(' ')?;
    given.eq_ignore_ascii_case(scheme).then(|| rest.trim())
}

/// Whether a token equals the wanted one, which must not be empty. The time this takes does not depend on where they
/// differ.
pub(crate) fn is_same(given: &[u8], wanted: &[u8]) -> bool {
    let mut differs = u8::from(given.len() != wanted.len() || wanted.is_empty());
    for (one, other) in given.iter().zip(wanted) {
        differs |= black_box(one ^ other);
    }
    black_box(differs) == 0
}

#[cfg(test)]
mod tests {
    use super::super::http::{self, MAX_HEADERS};
    use super::*;
    use crate::net::id::Peer;

    #[test]
    fn only_the_token_is_taken() {
        let given = |lines: &str, token: &str| {
            let head = format!("GET / HTTP/1.1\r\nHost: h\r\n{lines}\r\n");
            let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
            is_given(&http::parse(head.as_bytes(), &mut headers, Peer::UNIX).expect("a request"), token)
        };
        for good in ["Authorization: Bearer abc\r\n", "authorization: bearer  abc \r\n"] {
            assert!(given(good, "abc"), "{good}");
        }
        for bad in [
            "",
            "Authorization: Bearer ab\r\n",
            "Authorization: Bearer abcd\r\n",
            "Authorization: Bearer abd\r\n",
            "Authorization: Bearer \r\n",
            "Authorization: Basic abc\r\n",
            "Authorization: abc\r\n",
            "Authorization: Bearer abc\r\nAuthorization: Bearer abc\r\n",
        ] {
            assert!(!given(bad, "abc"), "{bad}");
        }
        assert!(!given("Authorization: Bearer \r\n", ""), "an empty token is none");
    }
}
