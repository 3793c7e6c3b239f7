//! Floor 1, JSON Web Tokens (RFC 7519): verifies the signature of a token and reads its claims.
//!
//! [`Keys`] reads the secrets and the JSON Web Key Set (RFC 7517) that verify signatures; a [`Verifier`] has keys and
//! [`Rules`], and turns a token into [`Claims`] or the reason why not ([`Refused`]). The signatures of RFC 7518, by
//! `ring`: HS256, HS384, HS512, RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, and EdDSA (RFC 8037) with
//! Ed25519. There is no `none`.
//!
//! No files, no sockets and no clocks: `now` is an argument, in Unix time, and new keys come from a [`KeySource`].
//!
//! Invariants: a key verifies only algorithms of its own kind, so that a public key cannot serve as a secret; claims
//! are read only after the signature has been verified; whatever the token, verifying it computes at most
//! [`MOST_TRIES`] signatures and takes no more memory than a few times [`MAX_TOKEN_BYTES`].

mod keys;
#[cfg(test)]
mod tests;
mod token;

pub use keys::{Keys, KeysError};
pub use token::{Claims, MAX_TOKEN_BYTES, MOST_TRIES, Refused};

use std::fmt;
use std::time::Duration;

/// What a token must claim, besides being signed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rules {
    /// Its `aud` names one of these; empty to skip the check.
    pub audiences: Vec<String>,
    /// Its `iss` is one of these; empty to skip the check.
    pub issuers: Vec<String>,
    /// How far the clocks of issuers may differ from ours, for `exp` and `nbf`.
    pub leeway: Duration,
}

impl Default for Rules {
    /// Any audience and any issuer; 5 s of leeway.
    fn default() -> Self {
        Rules { audiences: Vec::new(), issuers: Vec::new(), leeway: Duration::from_secs(5) }
    }
}

/// A source of keys that may change.
pub trait KeySource: Send {
    /// Returns the keys if they have changed, or why they cannot be read, once for each change.
    fn news(&mut self) -> Option<Result<Keys, String>>;
}

/// Shortest interval between questions to a source.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Verifies tokens.
pub struct Verifier {
    keys: Keys,
    rules: Rules,
    source: Option<Box<dyn KeySource>>,
    next_look: Duration,
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier").field("keys", &self.keys).field("rules", &self.rules).finish_non_exhaustive()
    }
}

impl Verifier {
    /// Makes a verifier with these keys and rules.
    pub fn new(keys: Keys, rules: Rules) -> Verifier {
        Verifier { keys, rules, source: None, next_look: Duration::ZERO }
    }

    /// Adds a source of later keys.
    pub fn watch(mut self, source: impl KeySource + 'static) -> Verifier {
        self.source = Some(Box::new(source));
        self
    }

    /// Asks the source for new keys, unless it was asked within the last second. Call it before verifying tokens. If
    /// the new keys cannot be read, the old ones stay.
    ///
    /// # Errors
    /// Why the new keys cannot be read, once for each change.
    pub fn refresh(&mut self, now: Duration) -> Result<(), String> {
        if now < self.next_look {
            return Ok(());
        }
        self.next_look = now + LOOK_EVERY;
        if let Some(news) = self.source.as_mut().and_then(|source| source.news()) {
            self.keys = news?;
        }
        Ok(())
    }

    /// Verifies a token in the compact form, `now` after 1970-01-01 00:00 UTC.
    ///
    /// # Errors
    /// Why it is refused.
    pub fn verify(&self, token: &str, now: Duration) -> Result<Claims, Refused> {
        token::verify(token, &self.keys, &self.rules, now)
    }
}
