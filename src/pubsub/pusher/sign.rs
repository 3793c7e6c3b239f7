//! Signatures: HMAC-SHA256 with the app's secret, in hexadecimal.

use crate::text::hex;
use md5::{Digest, Md5};
use ring::hmac;

/// Whether the signature matches the text.
pub fn is_signed(secret: &str, text: &str, signature: &str) -> bool {
    let Some(bytes) = hex::decode(signature) else { return false };
    hmac::verify(&hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()), text.as_bytes(), &bytes).is_ok()
}

/// The signature of a text.
pub fn hex_signature(secret: &str, text: &str) -> String {
    hex::encode(hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()), text.as_bytes()).as_ref())
}

/// The digest of content, which is part of what is signed.
pub fn md5(content: &[u8]) -> String {
    hex::encode(&Md5::digest(content))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The worked examples of Pusher's documentation.
    #[test]
    fn signatures_are_those_of_the_documentation() {
        let secret = "7ad3773142a6692b25b8";
        let private = "58df8b0c36d6982b82c3ecf6b4662e34fe8c25bba48f5369f135bf843651c3a4";
        assert!(is_signed(secret, "1234.1234:private-foobar", private));
        let presence = "31935e7d86dba64c2a90aed31fdc61869f9b22ba9d8863bba239c03ca481bc80";
        let text = "1234.1234:presence-foobar:{\"user_id\":10,\"user_info\":{\"name\":\"Mr. Channels\"}}";
        assert!(is_signed(secret, text, presence));
        assert_eq!(hex_signature(secret, "1234.1234:private-foobar"), private);
        for bad in ["", "58", "zz", &private[2..], "\u{e4}\u{e4}"] {
            assert!(!is_signed(secret, "1234.1234:private-foobar", bad), "{bad}");
        }
        let body = br#"{"name":"foo","channels":["project-3"],"data":"{\"some\":\"data\"}"}"#;
        assert_eq!(md5(body), "ec365a775a4cd0599faeb73354201b6f");
        let request = "POST\n/apps/3/events\nauth_key=278d425bdf160c739803&auth_timestamp=1353088179&auth_version=1.0&\
                       body_md5=ec365a775a4cd0599faeb73354201b6f";
        assert!(is_signed(secret, request, "da454824c97ba181a32ccc17a72625ba02771f50b50e1e7430e47a1f3f457e6c"));
    }
}
