//! AWS signatures (Signature Version 4), as its SDKs put them on requests: checks whether a known key made one.

use crate::protocol::http::Request;
use crate::text::hex;
use ring::{digest, hmac};
use std::collections::HashMap;
use std::fmt::{self, Write};
use std::time::Duration;

const ALGORITHM: &str = "AWS4-HMAC-SHA256";
/// The service that API Gateway's requests are signed for.
const SERVICE: &str = "execute-api";
/// How far a request's time may be from ours.
const SKEW: Duration = Duration::from_secs(300);
/// Headers that a signature must cover.
const COVERED: [&str; 2] = ["host", "x-amz-date"];

/// Access keys: secrets by their ids.
#[derive(Clone, Default)]
pub struct AccessKeys(HashMap<String, String>);

impl fmt::Debug for AccessKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} access keys", self.0.len())
    }
}

/// Why a request is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Denied {
    /// It is not signed.
    Unsigned,
    /// Its signature is incomplete.
    Incomplete,
    /// The key is unknown.
    UnknownKey,
    /// It was signed too long ago, or ahead of time.
    Stale,
    /// The signature does not match.
    Wrong,
}

impl Denied {
    /// The type of the error, and a human-readable line, as in AWS.
    pub fn error(self) -> (&'static str, &'static str) {
        match self {
            Denied::Unsigned => ("MissingAuthenticationTokenException", "Missing Authentication Token"),
            Denied::Incomplete => (
                "IncompleteSignatureException",
                "Authorization needs Credential for execute-api, SignedHeaders with host and x-amz-date, and Signature.",
            ),
            Denied::UnknownKey => {
                ("UnrecognizedClientException", "The security token included in the request is invalid.")
            }
            Denied::Stale => {
                ("InvalidSignatureException", "Signature expired: x-amz-date is not within 5 minutes of now.")
            }
            Denied::Wrong => (
                "InvalidSignatureException",
                "The request signature we calculated does not match the signature you provided.",
            ),
        }
    }
}

impl AccessKeys {
    /// Reads a file of credentials as the SDKs have it: sections with `aws_access_key_id` and `aws_secret_access_key`.
    ///
    /// # Errors
    /// A sentence that names the problem, without a secret.
    pub fn read(text: &str) -> Result<AccessKeys, String> {
        let (mut keys, mut id) = (HashMap::new(), None);
        for (index, line) in text.lines().map(str::trim).enumerate() {
            if line.is_empty() || line.starts_with(['#', ';', '[']) {
                continue;
            }
            let (name, value) = line.split_once('=').ok_or(format!("line {} is not NAME = VALUE", index + 1))?;
            match (name.trim(), value.trim()) {
                ("aws_access_key_id", value) => id = Some(value.to_owned()),
                ("aws_secret_access_key", "") => return Err(format!("the secret in line {} is empty", index + 1)),
                ("aws_secret_access_key", value) => {
                    let id = id.take().ok_or(format!("no aws_access_key_id stands before line {}", index + 1))?;
                    keys.insert(id, value.to_owned());
                }
                _ => {}
            }
        }
        if keys.is_empty() {
            return Err("it has no aws_access_key_id with an aws_secret_access_key".into());
        }
        Ok(AccessKeys(keys))
    }

    /// Checks the signature of a request, `now` after 1970-01-01 00:00 UTC.
    ///
    /// # Errors
    /// The reason for the refusal.
    pub fn verify(&self, request: &Request<'_>, now: Duration) -> Result<(), Denied> {
        self.verify_for(SERVICE, request, now)
    }

    fn verify_for(&self, service: &str, request: &Request<'_>, now: Duration) -> Result<(), Denied> {
        let authorization =
            request.headers("authorization").find(|value| is_signature(value)).ok_or(Denied::Unsigned)?;
        let fields = authorization[ALGORITHM.len()..].split(',').filter_map(|field| field.trim().split_once('='));
        let (mut credential, mut signed, mut signature) = (None, None, None);
        for (name, value) in fields {
            match name {
                "Credential" => credential = Some(value),
                "SignedHeaders" => signed = Some(value),
                "Signature" => signature = hex::decode(value),
                _ => {}
            }
        }
        let (Some(credential), Some(signed), Some(signature)) = (credential, signed, signature) else {
            return Err(Denied::Incomplete);
        };
        let (id, scope) = credential.split_once('/').ok_or(Denied::Incomplete)?;
        let [date, region, "aws4_request"] = scope_of(scope, service).ok_or(Denied::Incomplete)? else {
            return Err(Denied::Incomplete);
        };
        let covers = |name: &&str| signed.split(';').any(|have| have == *name);
        if !COVERED.iter().all(covers) {
            return Err(Denied::Incomplete);
        }
        let stamp = request.header("x-amz-date").unwrap_or_default();
        let at = seconds(stamp).filter(|_| stamp.starts_with(date)).ok_or(Denied::Incomplete)?;
        let secret = self.0.get(id).ok_or(Denied::UnknownKey)?;
        if now.as_secs().abs_diff(at) > SKEW.as_secs() {
            return Err(Denied::Stale);
        }
        let hashed = hex::encode(digest::digest(&digest::SHA256, canonical(request, signed).as_bytes()).as_ref());
        let text = format!("{ALGORITHM}\n{stamp}\n{scope}\n{hashed}");
        let first = hmac::Key::new(hmac::HMAC_SHA256, format!("AWS4{secret}").as_bytes());
        let key = [date, region, service, "aws4_request"]
            .iter()
            .fold(first, |key, part| hmac::Key::new(hmac::HMAC_SHA256, hmac::sign(&key, part.as_bytes()).as_ref()));
        hmac::verify(&key, text.as_bytes(), &signature).map_err(|_| Denied::Wrong)
    }
}

/// Whether the value of an Authorization header is a signature.
pub fn is_signature(value: &str) -> bool {
    value.strip_prefix(ALGORITHM).is_some_and(|rest| rest.starts_with([' ', '\t']))
}

/// Date, region and end of a scope for the service.
fn scope_of<'a>(scope: &'a str, service: &str) -> Option<[&'a str; 3]> {
    let mut parts = scope.split('/');
    let (date, region) = (parts.next()?, parts.next()?);
    let is_ours = parts.next()? == service;
    let end = parts.next()?;
    (is_ours && parts.next().is_none() && date.len() == 8).then_some([date, region, end])
}

/// The canonical request.
fn canonical(request: &Request<'_>, signed: &str) -> String {
    let mut text = format!("{}\n{}\n{}\n", request.method(), path(request.path()), query(request.query()));
    for name in signed.split(';') {
        let values =
            request.headers(name).map(|value| value.split(' ').filter(|word| !word.is_empty()).collect::<Vec<_>>());
        let values: Vec<String> = values.map(|words| words.join(" ")).collect();
        text.extend([name, ":", &values.join(","), "\n"]);
    }
    let content = hex::encode(digest::digest(&digest::SHA256, request.content()).as_ref());
    text.extend(["\n", signed, "\n", &content]);
    text
}

/// A path, with each byte encoded once more.
fn path(path: &str) -> String {
    let mut out = String::new();
    encode(path, b"/", &mut out);
    out
}

/// A query, sorted and encoded in the same way for every client.
fn query(query: Option<&str>) -> String {
    let pairs = query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
    let mut pairs: Vec<(&str, &str)> = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, ""))).collect();
    pairs.sort_unstable();
    let mut out = String::new();
    for (place, (name, value)) in pairs.into_iter().enumerate() {
        out.push_str(if place == 0 { "" } else { "&" });
        // Encoded bytes stay as they are.
        encode(name, b"%", &mut out);
        out.push('=');
        encode(value, b"%", &mut out);
    }
    out
}

fn encode(text: &str, also: &[u8], out: &mut String) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) || also.contains(&byte) {
            out.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
}

/// Seconds since 1970 of a time such as `20150830T123600Z`.
fn seconds(stamp: &str) -> Option<u64> {
    let part = |range: std::ops::Range<usize>| {
        let digits = stamp.get(range).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()));
        digits.and_then(|digits| digits.parse::<u64>().ok())
    };
    let is_formed = stamp.len() == 16 && stamp.get(8..9) == Some("T") && stamp.ends_with('Z');
    let (year, month, day) = (part(0..4)?, part(4..6)?, part(6..8)?);
    let (hour, minute, second) = (part(9..11)?, part(11..13)?, part(13..15)?);
    let is_date = (1970..=9999).contains(&year) && (1..=12).contains(&month) && (1..=31).contains(&day);
    if !is_formed || !is_date || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    // Days since 0000-03-01, where a leap day ends a year.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1;
    Some(((days - 719_468) * 24 + hour) * 3600 + minute * 60 + second)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::id::Peer;
    use crate::protocol::http::{self, MAX_HEADERS};
    use crate::time::calendar::Utc;
    use proptest::prelude::*;

    const FILE: &str = "[default]\naws_access_key_id = AKIDEXAMPLE\n\
        aws_secret_access_key=wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY\n# another\n[b]\nregion = x\n";
    const AT: Duration = Duration::from_secs(1_440_938_160);

    fn verified(service: &str, head: &str, now: Duration) -> Result<(), Denied> {
        let head = head.replace('\n', "\r\n");
        let mut space = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let request = http::parse(head.as_bytes(), &mut space, Peer::UNIX).expect("a request");
        AccessKeys::read(FILE).expect("keys").verify_for(service, &request, now)
    }

    /// `get-vanilla` of AWS's own test suite for signatures.
    fn vanilla() -> String {
        "GET / HTTP/1.1\nHost: example.amazonaws.com\nX-Amz-Date: 20150830T123600Z\nAuthorization: AWS4-HMAC-SHA256 \
         Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, SignedHeaders=host;x-amz-date, \
         Signature=5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31\n\n"
            .to_owned()
    }

    #[test]
    fn a_request_of_the_test_suite_of_aws() {
        let good = vanilla();
        assert_eq!(verified("service", &good, AT), Ok(()));
        for (what, by, denied) in [
            ("fbf31", "fbf30", Denied::Wrong),
            ("bf31", "", Denied::Wrong),
            ("fbf31", "", Denied::Incomplete),
            ("fbf31", "zzzzz", Denied::Incomplete),
            ("GET /", "GET /x", Denied::Wrong),
            ("Host: example", "Host: sample", Denied::Wrong),
            ("us-east-1", "us-east-2", Denied::Wrong),
            ("AKIDEXAMPLE", "AKIDANOTHER", Denied::UnknownKey),
            ("/service/", "/another/", Denied::Incomplete),
            ("=host;x-amz-date", "=host", Denied::Incomplete),
            ("/20150830/", "/20150831/", Denied::Incomplete),
            ("20150830T123600Z", "yesterday", Denied::Incomplete),
            ("AWS4-HMAC-SHA256 ", "Bearer ", Denied::Unsigned),
        ] {
            assert!(good.contains(what));
            assert_eq!(verified("service", &good.replace(what, by), AT), Err(denied), "{by}");
        }
        assert_eq!(verified(SERVICE, &good, AT), Err(Denied::Incomplete));
        for late in [AT + SKEW, AT - SKEW] {
            assert_eq!(verified("service", &good, late), Ok(()));
        }
        for late in [AT + SKEW + Duration::from_secs(1), AT - SKEW - Duration::from_secs(1)] {
            assert_eq!(verified("service", &good, late), Err(Denied::Stale));
        }
    }

    #[test]
    fn files_of_credentials() {
        assert_eq!(format!("{:?}", AccessKeys::read(FILE).expect("keys")), "1 access keys");
        for bad in ["", "[default]", "x", "aws_secret_access_key=a", "aws_access_key_id=a\naws_secret_access_key="] {
            let said = AccessKeys::read(bad).expect_err(bad);
            assert!(!said.is_empty(), "{bad}");
        }
    }

    #[test]
    fn queries_are_in_order() {
        assert_eq!(query(Some("b=2&a=x%20y&a=&c")), "a=&a=x%20y&b=2&c=");
        assert_eq!(path("/prod/@connections/a%3D"), "/prod/%40connections/a%253D");
    }

    proptest! {
        #[test]
        fn times_come_back(at in 0u64..250_000_000_000) {
            let text = Utc::from_unix(at).rfc3339(0);
            let stamp = format!("{}{}{}T{}{}{}Z", &text[..4], &text[5..7], &text[8..10], &text[11..13], &text[14..16], &text[17..19]);
            prop_assert_eq!(seconds(&stamp), Some(at));
        }

        #[test]
        fn no_header_makes_it_panic(text in "[ -~]{0,200}", date in "[0-9TZ]{0,20}") {
            let head = format!("GET / HTTP/1.1\nHost: h\nX-Amz-Date: {date}\nAuthorization: AWS4-HMAC-SHA256 {text}\n\n");
            prop_assert!(verified(SERVICE, &head, AT).is_err());
        }
    }
}
