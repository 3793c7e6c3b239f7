//! Tokens: JSON Web Tokens in which the backend states the identity of a client and its channels, with Centrifugo's
//! claims.

use super::json::in_one_line;
use crate::jwt::{Claims, Refused, Verifier};
use crate::text::fields;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::value::RawValue;
use std::rc::Rc;
use std::time::Duration;

/// The most channels that a token may put a client on.
const MOST_CHANNELS: usize = 1000;

/// The identity of a client.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Identity {
    /// The user; empty if anonymous.
    pub user: Rc<str>,
    /// The information about the user, as JSON.
    pub info: Option<Rc<str>>,
    /// When the identity ends, in Unix time.
    pub until: Option<Duration>,
    /// Channels that the server puts the client on, and the client's information there.
    pub channels: Vec<(String, Option<Rc<str>>)>,
}

/// The permission of a token for one channel.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Grant {
    /// The client's information there, as JSON.
    pub info: Option<Rc<str>>,
    /// When the permission ends, in Unix time.
    pub until: Option<Duration>,
}

/// Why a token is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// It was valid once.
    Expired,
    /// It was never valid, or not for this purpose.
    Invalid,
}

impl From<Refused> for Refusal {
    fn from(refused: Refused) -> Refusal {
        match refused {
            Refused::Expired(_) => Refusal::Expired,
            _ => Refusal::Invalid,
        }
    }
}

impl From<serde_json::Error> for Refusal {
    fn from(_: serde_json::Error) -> Refusal {
        Refusal::Invalid
    }
}

/// The keys that verify tokens; without them every token is refused.
#[derive(Default, Debug)]
pub struct Tokens(Option<Verifier>);

impl Tokens {
    /// With the keys of a verifier.
    pub fn new(verifier: Option<Verifier>) -> Tokens {
        Tokens(verifier)
    }

    /// Loads new keys, if there are any. Call it before tokens are verified.
    ///
    /// # Errors
    /// Why they cannot be read, once for each change.
    pub fn refresh(&mut self, now: Duration) -> Result<(), String> {
        self.0.as_mut().map_or(Ok(()), |verifier| verifier.refresh(now))
    }

    fn verify(&self, token: &str, now: Duration) -> Result<Claims, Refusal> {
        Ok(self.0.as_ref().ok_or(Refusal::Invalid)?.verify(token, now)?)
    }

    /// The identity that a token states.
    ///
    /// # Errors
    /// When the token is invalid, or is meant for a channel.
    pub fn connection(&self, token: &str, now: Duration) -> Result<Identity, Refusal> {
        let claims = self.verify(token, now)?;
        let names = ["info", "b64info", "expire_at", "channels", "subs", "channel"];
        let [info, b64info, expire_at, channels, subs, channel] = fields::read(&claims.json, names)?;
        if channel.is_some() {
            return Err(Refusal::Invalid);
        }
        // For a channel in both, `subs` takes precedence.
        let mut all = Vec::new();
        if let Some(object) = subs.filter(is_there) {
            for (name, options) in fields::entries(object.get(), MOST_CHANNELS)? {
                let [info, b64info] = fields::read(options.get(), ["info", "b64info"])?;
                all.push((name.into_owned(), read_info(info, b64info)?));
            }
        }
        if let Some(list) = channels.filter(is_there) {
            let names: Vec<String> = serde_json::from_str(list.get())?;
            all.extend(names.into_iter().map(|name| (name, None)));
        }
        if all.len() > MOST_CHANNELS {
            return Err(Refusal::Invalid);
        }
        Ok(Identity {
            user: claims.subject.as_deref().unwrap_or_default().into(),
            info: read_info(info, b64info)?,
            until: until(expire_at, claims.expires)?,
            channels: all,
        })
    }

    /// The permission of a user on a channel.
    ///
    /// # Errors
    /// When the token is invalid, or not for that channel and user.
    pub fn subscription(&self, token: &str, channel: &str, user: &str, now: Duration) -> Result<Grant, Refusal> {
        let claims = self.verify(token, now)?;
        let names = ["channel", "info", "b64info", "expire_at"];
        let [named, info, b64info, expire_at] = fields::read(&claims.json, names)?;
        let is_for_channel = fields::string(named).is_some_and(|named| named == channel);
        if !is_for_channel || claims.subject.as_deref().unwrap_or_default() != user {
            return Err(Refusal::Invalid);
        }
        Ok(Grant { info: read_info(info, b64info)?, until: until(expire_at, claims.expires)? })
    }
}

fn is_there(value: &&RawValue) -> bool {
    value.get() != "null"
}

/// Information as JSON, or as JSON in base64.
fn read_info(info: Option<&RawValue>, b64info: Option<&RawValue>) -> Result<Option<Rc<str>>, Refusal> {
    let line = |value: &RawValue| in_one_line(value).map(|line| Rc::from(&*line)).map_err(|_| Refusal::Invalid);
    if let Some(encoded) = fields::string(b64info.filter(is_there)).filter(|encoded| !encoded.is_empty()) {
        let bytes = STANDARD.decode(encoded).map_err(|_| Refusal::Invalid)?;
        return line(serde_json::from_slice(&bytes)?).map(Some);
    }
    info.filter(is_there).map(line).transpose()
}

/// When the permission ends: at `expire_at`, 0 for never, else with the token.
fn until(expire_at: Option<&RawValue>, expires: Option<Duration>) -> Result<Option<Duration>, Refusal> {
    match expire_at.filter(is_there) {
        None => Ok(expires),
        Some(value) => match serde_json::from_str::<u64>(value.get())? {
            0 => Ok(None),
            at => Ok(Some(Duration::from_secs(at))),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jwt::{Keys, Rules};
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

    const SECRET: &str = "0123456789abcdef0123456789abcdef";
    const NOW: Duration = Duration::from_secs(1_000);

    fn signed(claims: &str) -> String {
        let encode = |text: &str| URL_SAFE_NO_PAD.encode(text);
        let head = format!("{}.{}", encode(r#"{"alg":"HS256"}"#), encode(claims));
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, SECRET.as_bytes());
        format!("{head}.{}", URL_SAFE_NO_PAD.encode(ring::hmac::sign(&key, head.as_bytes())))
    }

    fn tokens() -> Tokens {
        let keys = Keys::read_secrets(SECRET).expect("a secret");
        Tokens::new(Some(Verifier::new(keys, Rules::default())))
    }

    #[test]
    fn a_token_says_who_a_client_is() {
        let connection = |claims: &str| tokens().connection(&signed(claims), NOW);
        let ann = connection(
            r#"{"sub":"ann","exp":2000,"info":{"a":
            1},"channels":["x"],"subs":{"y":{"info":2},"z":{}}}"#,
        );
        let ann = ann.expect("good");
        assert_eq!((&*ann.user, ann.until), ("ann", Some(Duration::from_secs(2000))));
        assert!(ann.info.is_some_and(|info| info.starts_with('{') && !info.contains('\n')));
        assert_eq!(ann.channels, [("y".into(), Some("2".into())), ("z".into(), None), ("x".into(), None)]);
        assert_eq!(connection("{}"), Ok(Identity::default()));
        let until = |claims: &str| connection(claims).map(|identity| identity.until);
        assert_eq!(until(r#"{"exp":2000,"expire_at":0}"#), Ok(None));
        assert_eq!(until(r#"{"expire_at":3000}"#), Ok(Some(Duration::from_secs(3000))));
        assert_eq!(connection(r#"{"b64info":"eyJhIjoxfQ=="}"#).map(|one| one.info), Ok(Some("{\"a\":1}".into())));
        assert_eq!(connection(r#"{"exp":10}"#), Err(Refusal::Expired));
        for bad in [
            r#"{"channel":"x"}"#,
            r#"{"channels":1}"#,
            r#"{"subs":[]}"#,
            r#"{"b64info":"eA=="}"#,
            r#"{"expire_at":"x"}"#,
        ] {
            assert_eq!(connection(bad), Err(Refusal::Invalid), "{bad}");
        }
        assert_eq!(Tokens::default().connection(&signed("{}"), NOW), Err(Refusal::Invalid));
    }

    #[test]
    fn a_token_is_for_one_channel_and_user() {
        let subscription = |claims: &str, channel, user| tokens().subscription(&signed(claims), channel, user, NOW);
        let claims = r#"{"sub":"ann","channel":"x","exp":2000,"info":1}"#;
        let grant = Grant { info: Some("1".into()), until: Some(Duration::from_secs(2000)) };
        assert_eq!(subscription(claims, "x", "ann"), Ok(grant));
        assert_eq!(subscription(claims, "y", "ann"), Err(Refusal::Invalid));
        assert_eq!(subscription(claims, "x", "ben"), Err(Refusal::Invalid));
        assert_eq!(subscription(r#"{"sub":"ann"}"#, "x", "ann"), Err(Refusal::Invalid));
        assert_eq!(subscription(r#"{"channel":"x"}"#, "x", ""), Ok(Grant::default()));
        assert_eq!(subscription(r#"{"channel":"x","exp":1}"#, "x", ""), Err(Refusal::Expired));
    }
}
