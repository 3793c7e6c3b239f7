//! Signatures of calls, as Standard Webhooks has them (github.com/standard-webhooks): `webhook-id`, `webhook-timestamp` and
//! `webhook-signature`, which any of its libraries verifies.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;
use std::fmt;

/// What a secret begins with.
const PREFIX: &str = "whsec_";
/// Secrets have at least as many bytes, and at most so many.
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 24..=64;

/// The secrets that calls are signed with: more than one while they are changed.
#[derive(Clone)]
pub struct Secrets(Vec<hmac::Key>);

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} secrets", self.0.len())
    }
}

impl Secrets {
    /// Reads secrets, one a line: `whsec_` and base64.
    ///
    /// # Errors
    /// A sentence that says what is wrong, without a secret.
    pub fn read(text: &str) -> Result<Secrets, String> {
        let lines = text.lines().map(str::trim).enumerate().filter(|(_, line)| !line.is_empty());
        let keys = lines.map(|(index, line)| {
            let encoded =
                line.strip_prefix(PREFIX).ok_or(format!("line {} does not begin with {PREFIX}", index + 1))?;
            match STANDARD.decode(encoded) {
                Ok(secret) if SECRET_BYTES.contains(&secret.len()) => Ok(hmac::Key::new(hmac::HMAC_SHA256, &secret)),
                _ => Err(format!("line {} is not {PREFIX} and the base64 of 24 to 64 bytes", index + 1)),
            }
        });
        let keys: Vec<_> = keys.collect::<Result<_, String>>()?;
        if keys.is_empty() { Err("there is no secret in it".into()) } else { Ok(Secrets(keys)) }
    }

    /// The value of `webhook-signature` for a call with this `webhook-id` and `webhook-timestamp`.
    pub fn sign(&self, id: &str, timestamp: &str, body: &[u8]) -> String {
        let signatures = self.0.iter().map(|key| {
            let mut context = hmac::Context::with_key(key);
            for part in [id.as_bytes(), b".", timestamp.as_bytes(), b".", body] {
                context.update(part);
            }
            format!("v1,{}", STANDARD.encode(context.sign()))
        });
        signatures.collect::<Vec<_>>().join(" ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sample_of_the_specification() {
        let secrets = Secrets::read("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n").expect("a secret");
        let body = br#"{"test": 2432232314}"#;
        let signature = secrets.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", body);
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn secrets_are_changed_by_having_both() {
        let old = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
        let both = Secrets::read(&format!("{old}\n\nwhsec_{}\n", STANDARD.encode([7; 32]))).expect("two");
        let signature = both.sign("a", "1", b"x");
        let (first, second) = signature.split_once(' ').expect("two");
        assert!(first.starts_with("v1,") && second.starts_with("v1,") && first != second);
        for bad in ["", "\n", "secret", "whsec_", "whsec_AAAA", "whsec_!"] {
            assert!(Secrets::read(bad).is_err(), "{bad}");
        }
        assert!(!format!("{both:?}").contains("MfKQ"));
    }
}
