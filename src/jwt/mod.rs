//! Floor 1, JSON Web Tokens (RFC 7519): whether a token was signed by somebody who may, and what it claims.
//!
//! [`Keys`] reads the secrets and the JSON Web Key Set (RFC 7517) that signatures are verified with; a [`Verifier`] has keys and
//! [`Rules`], and turns a token into [`Claims`] or says why not ([`Refused`]). Signatures are those of RFC 7518, by `ring`:
//! HS256, HS384, HS512, RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, and EdDSA (RFC 8037) with Ed25519. There is
//! no `none`.
//!
//! No files, no sockets and no clocks: `now` is an argument, Unix time, and keys that change come from a [`KeySource`].
//!
//! Invariants: a key verifies only algorithms of its own kind, so that nobody passes off a public key as a secret; nothing of
//! a token's claims is looked at before its signature is verified; whatever the token, at most [`MOST_TRIES`] signatures are
//! computed, and no more memory is taken than a few times [`MAX_TOKEN_BYTES`].

mod keys;
#[cfg(test)]
mod tests;
mod token;

pub use keys::{Keys, KeysError};
pub use token::{Claims, MAX_TOKEN_BYTES, MOST_TRIES, Refused};

use std::fmt;
use std::time::Duration;

/// What a token has to claim besides being signed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rules {
    /// Its `aud` names one of these; empty if it is not looked at.
    pub audiences: Vec<String>,
    /// Its `iss` is one of these; empty if it is not looked at.
    pub issuers: Vec<String>,
    /// How far the clocks of those who sign may be from ours, for `exp` and `nbf`.
    pub leeway: Duration,
}

impl Default for Rules {
    /// Any audience and any issuer; 5 s of leeway.
    fn default() -> Self {
        Rules { audiences: Vec::new(), issuers: Vec::new(), leeway: Duration::from_secs(5) }
    }
}

/// Where keys come from, which may change.
pub trait KeySource: Send {
    /// The keys, if they are others than before; or why they cannot be read, once for each change.
    fn news(&mut self) -> Option<Result<Keys, String>>;
}

/// A source is asked no more often than this.
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
    /// By these keys and rules.
    pub fn new(keys: Keys, rules: Rules) -> Verifier {
        Verifier { keys, rules, source: None, next_look: Duration::ZERO }
    }

    /// Has a source of later keys.
    pub fn watch(mut self, source: impl KeySource + 'static) -> Verifier {
        self.source = Some(Box::new(source));
        self
    }

    /// Asks the source for other keys, unless it was asked within the last second. To be called before tokens are verified;
    /// without tokens nobody has to look. Keys that cannot be read leave those that there were.
    ///
    /// # Errors
    /// Why other keys cannot be read, once for each change.
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
