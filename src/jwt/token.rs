//! One token in the compact form (RFC 7515, section 7.1): taken apart, its signature verified, then its claims read.

use super::Rules;
use super::keys::{Keys, algorithm_in};
use crate::text::fields::{read_once, string};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::value::RawValue;
use std::fmt::{self, Write};
use std::time::Duration;

/// The longest token.
pub const MAX_TOKEN_BYTES: usize = 16 << 10;
/// The longest header of a token, in base64.
const MAX_HEADER_BYTES: usize = 2 << 10;
/// The most keys to try on a token that does not name its own.
pub const MOST_TRIES: usize = 8;

/// The claims of a token whose signature was verified.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Claims {
    /// All claims: a JSON object, as it was signed.
    pub json: String,
    /// `sub`: the subject of the token.
    pub subject: Option<String>,
    /// `exp`, since 1970-01-01 00:00 UTC: when it expires; `None` for never.
    pub expires: Option<Duration>,
}

impl Claims {
    /// Returns the claims as one line of ASCII, fit for a header: the same JSON, with escapes.
    pub fn one_line(&self) -> String {
        let mut line = String::with_capacity(self.json.len());
        for character in self.json.chars() {
            match character {
                // Only between values: JSON strings cannot contain such characters.
                '\n' | '\r' | '\t' => line.push(' '),
                ' '..='~' => line.push(character),
                _ => {
                    for unit in character.encode_utf16(&mut [0; 2]) {
                        // Writing to a String cannot fail.
                        let _ = write!(line, "\\u{unit:04x}");
                    }
                }
            }
        }
        line
    }
}

/// Why a token is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refused {
    /// It is not a token, for this reason.
    Malformed(&'static str),
    /// It is signed with an unsupported algorithm, or not at all.
    Algorithm,
    /// No key fits its algorithm or has its `kid`.
    NoKey,
    /// The signature is not by any of the keys.
    Signature,
    /// It expired this long ago.
    Expired(Duration),
    /// It becomes valid in this time.
    TooEarly(Duration),
    /// It is for another audience.
    Audience,
    /// It is from another issuer.
    Issuer,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refused::Malformed(why) => write!(f, "the token is malformed: {why}"),
            Refused::Algorithm => f.write_str("the token is not signed with an accepted algorithm"),
            Refused::NoKey => f.write_str("there is no key for the token"),
            Refused::Signature => f.write_str("the signature of the token is wrong"),
            Refused::Expired(ago) => write!(f, "the token expired {} s ago", ago.as_secs()),
            Refused::TooEarly(wait) => write!(f, "the token is not valid for another {} s", wait.as_secs().max(1)),
            Refused::Audience => f.write_str("the token is meant for another audience"),
            Refused::Issuer => f.write_str("the token is from another issuer"),
        }
    }
}

impl std::error::Error for Refused {}

/// Decodes a part from base64.
fn part(encoded: &str, why: &'static str) -> Result<String, Refused> {
    let bytes = URL_SAFE_NO_PAD.decode(encoded).map_err(|_| Refused::Malformed(why))?;
    String::from_utf8(bytes).map_err(|_| Refused::Malformed(why))
}

pub(super) fn verify(token: &str, keys: &Keys, rules: &Rules, now: Duration) -> Result<Claims, Refused> {
    if token.len() > MAX_TOKEN_BYTES {
        return Err(Refused::Malformed("it is too long"));
    }
    let not_three = Refused::Malformed("it does not have three parts");
    let (signed, signature) = token.rsplit_once('.').ok_or(not_three)?;
    let (header, payload) = signed.split_once('.').ok_or(not_three)?;
    if payload.contains('.') {
        return Err(not_three);
    }
    if header.len() > MAX_HEADER_BYTES {
        return Err(Refused::Malformed("its header is too long"));
    }
    let header = part(header, "its header is not base64")?;
    let [alg, kid, crit] = read_once(&header, ["alg", "kid", "crit"])
        .map_err(|_| Refused::Malformed("its header is not a JSON object"))?;
    if crit.is_some() {
        return Err(Refused::Malformed("its header has unknown extensions"));
    }
    let (name, algorithm) = alg.and_then(algorithm_in).ok_or(Refused::Algorithm)?;
    let bad_kid = Refused::Malformed("its kid is not a string");
    let kid = kid.map(|kid| string(Some(kid)).ok_or(bad_kid)).transpose()?;
    let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| Refused::Malformed("its signature is not base64"))?;
    match keys.verify((&name, algorithm), kid.as_deref(), (signed.as_bytes(), &signature), MOST_TRIES) {
        Some(true) => read_claims(part(payload, "its claims are not base64")?, rules, now),
        Some(false) => Err(Refused::Signature),
        None => Err(Refused::NoKey),
    }
}

fn read_claims(json: String, rules: &Rules, now: Duration) -> Result<Claims, Refused> {
    let [exp, nbf, aud, iss, sub] = read_once(&json, ["exp", "nbf", "aud", "iss", "sub"])
        .map_err(|_| Refused::Malformed("its claims are not a JSON object"))?;
    let exp = date(exp, "its exp is not a number")?;
    let nbf = date(nbf, "its nbf is not a number")?;
    if let Some(ago) = exp.and_then(|exp| now.checked_sub(exp)).filter(|ago| *ago >= rules.leeway) {
        return Err(Refused::Expired(ago));
    }
    if let Some(wait) = nbf.and_then(|nbf| nbf.checked_sub(now)).filter(|wait| *wait > rules.leeway) {
        return Err(Refused::TooEarly(wait));
    }
    if !rules.audiences.is_empty() && !names_one_of(aud, &rules.audiences) {
        return Err(Refused::Audience);
    }
    let issuer = string(iss);
    if !rules.issuers.is_empty() && !issuer.is_some_and(|issuer| rules.issuers.contains(&issuer)) {
        return Err(Refused::Issuer);
    }
    let subject = sub.map(|sub| string(Some(sub)).ok_or(Refused::Malformed("its sub is not a string"))).transpose()?;
    Ok(Claims { subject, expires: exp, json })
}

/// Reads a date: seconds since 1970, with or without a fraction, clamped to the range of a duration.
fn date(value: Option<&RawValue>, why: &'static str) -> Result<Option<Duration>, Refused> {
    let Some(value) = value else { return Ok(None) };
    let seconds: f64 = serde_json::from_str(value.get()).map_err(|_| Refused::Malformed(why))?;
    Ok(Some(Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(Duration::MAX)))
}

/// Returns whether `aud`, a string or a list of strings, has one of these.
fn names_one_of(aud: Option<&RawValue>, ours: &[String]) -> bool {
    let Some(aud) = aud else { return false };
    match string(Some(aud)) {
        Some(one) => ours.contains(&one),
        None => {
            serde_json::from_str::<Vec<String>>(aud.get()).is_ok_and(|all| all.iter().any(|one| ours.contains(one)))
        }
    }
}
