//! Any text as a token and as keys; and any header and claims, signed.
//!
//! Nothing panics; an unsigned token is refused; the claims of an accepted one come out as they were signed, and once more in ASCII.

#![no_main]

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use libfuzzer_sys::fuzz_target;
use percore::internal::jwt::{Keys, Rules, Verifier};
use ring::hmac;
use std::time::Duration;

const SECRET: &str = "a secret of at least thirty-two bytes";
const NOW: Duration = Duration::from_secs(1_700_000_000);

fuzz_target!(|text: &str| {
    let verifier = Verifier::new(Keys::read_secrets(SECRET).expect("a secret"), Rules::default());
    assert!(verifier.verify(text, NOW).is_err());
    let _ = (Keys::read_secrets(text), Keys::read_jwks(text));
    // Header and claims, one line each.
    let (header, claims) = text.split_once('\n').unwrap_or((r#"{"alg":"HS256"}"#, text));
    let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes()), signed.as_bytes());
    let token = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(tag));
    if let Ok(taken) = verifier.verify(&token, NOW) {
        assert_eq!(taken.json, claims);
        let line = taken.one_line();
        assert!(line.bytes().all(|byte| (b' '..=b'~').contains(&byte)) && line.len() <= 6 * claims.len());
    }
});
