//! The keys that verify signatures, read from text: secrets, one a line, and a JSON Web Key Set.

use crate::text::fields::string;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{self, RsaParameters, RsaPublicKeyComponents, UnparsedPublicKey, VerificationAlgorithm};
use ring::{digest, hmac};
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use std::fmt;

/// RFC 7518, section 3.2: a secret is at least as long as the shortest hash.
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 32..=1024;
/// Section 3.3: at least 2048 bits. Beyond 8192, verification takes too long.
const RSA_BYTES: std::ops::RangeInclusive<usize> = 256..=1024;
/// More keys in a set than this are a mistake.
const MOST_KEYS: usize = 100;

/// Why a text has no keys; a sentence that contains no secret.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeysError(String);

impl fmt::Display for KeysError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for KeysError {}

fn error<T>(text: impl Into<String>) -> Result<T, KeysError> {
    Err(KeysError(text.into()))
}

/// Keys. More than one may fit a token, as during a rotation.
#[derive(Clone, Default)]
pub struct Keys(Vec<Key>);

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} keys", self.0.len())
    }
}

#[derive(Clone)]
struct Key {
    id: Option<String>,
    /// The one algorithm that it is for, if it names one.
    algorithm: Option<String>,
    material: Material,
}

#[derive(Clone)]
enum Material {
    Secret(Box<[hmac::Key; 3]>),
    Rsa(RsaPublicKeyComponents<Vec<u8>>),
    /// A point of the curve P-256 or P-384, uncompressed.
    P256(Vec<u8>),
    P384(Vec<u8>),
    Ed25519(Vec<u8>),
}

/// The algorithm of a signature, by kind of key.
#[derive(Clone, Copy)]
pub(super) enum Algorithm {
    /// The index among the keys of a secret.
    Hmac(usize),
    Rsa(&'static RsaParameters),
    P256,
    P384,
    Ed25519,
}

impl Algorithm {
    /// Returns the algorithm of this name (RFC 7518, section 3.1), if it is supported.
    pub fn named(name: &str) -> Option<Algorithm> {
        Some(match name {
            "HS256" => Algorithm::Hmac(0),
            "HS384" => Algorithm::Hmac(1),
            "HS512" => Algorithm::Hmac(2),
            "RS256" => Algorithm::Rsa(&signature::RSA_PKCS1_2048_8192_SHA256),
            "RS384" => Algorithm::Rsa(&signature::RSA_PKCS1_2048_8192_SHA384),
            "RS512" => Algorithm::Rsa(&signature::RSA_PKCS1_2048_8192_SHA512),
            "PS256" => Algorithm::Rsa(&signature::RSA_PSS_2048_8192_SHA256),
            "PS384" => Algorithm::Rsa(&signature::RSA_PSS_2048_8192_SHA384),
            "PS512" => Algorithm::Rsa(&signature::RSA_PSS_2048_8192_SHA512),
            "ES256" => Algorithm::P256,
            "ES384" => Algorithm::P384,
            "EdDSA" | "Ed25519" => Algorithm::Ed25519,
            _ => return None,
        })
    }
}

impl Material {
    fn fits(&self, algorithm: Algorithm) -> bool {
        matches!(
            (self, algorithm),
            (Material::Secret(_), Algorithm::Hmac(_))
                | (Material::Rsa(_), Algorithm::Rsa(_))
                | (Material::P256(_), Algorithm::P256)
                | (Material::P384(_), Algorithm::P384)
                | (Material::Ed25519(_), Algorithm::Ed25519)
        )
    }

    fn verifies(&self, algorithm: Algorithm, signed: &[u8], given: &[u8]) -> bool {
        let by_point = |how: &'static dyn VerificationAlgorithm, point: &[u8]| {
            UnparsedPublicKey::new(how, point).verify(signed, given).is_ok()
        };
        match (self, algorithm) {
            // In constant time.
            (Material::Secret(keys), Algorithm::Hmac(which)) => hmac::verify(&keys[which], signed, given).is_ok(),
            (Material::Rsa(key), Algorithm::Rsa(how)) => key.verify(how, signed, given).is_ok(),
            (Material::P256(point), Algorithm::P256) => by_point(&signature::ECDSA_P256_SHA256_FIXED, point),
            (Material::P384(point), Algorithm::P384) => by_point(&signature::ECDSA_P384_SHA384_FIXED, point),
            (Material::Ed25519(point), Algorithm::Ed25519) => by_point(&signature::ED25519, point),
            _ => false,
        }
    }
}

/// Makes a key for HMAC, if the secret is long enough.
fn secret(bytes: &[u8]) -> Option<Material> {
    let key = |how| hmac::Key::new(how, bytes);
    let keys = || [key(hmac::HMAC_SHA256), key(hmac::HMAC_SHA384), key(hmac::HMAC_SHA512)];
    SECRET_BYTES.contains(&bytes.len()).then(|| Material::Secret(Box::new(keys())))
}

impl Keys {
    /// Reads secrets, one a line; each is the bytes of its line.
    ///
    /// # Errors
    /// When there is none, or one does not have 32 to 1024 bytes.
    pub fn read_secrets(text: &str) -> Result<Keys, KeysError> {
        let lines = text.lines().map(str::trim).enumerate().filter(|(_, line)| !line.is_empty());
        let keys = lines.map(|(index, line)| match secret(line.as_bytes()) {
            Some(material) => Ok(Key { id: None, algorithm: None, material }),
            None => error(format!(
                "the secret in line {} has {} bytes: it must have 32 to 1024 (openssl rand -hex 32)",
                index + 1,
                line.len()
            )),
        });
        let keys = keys.collect::<Result<Vec<_>, _>>()?;
        match keys.len() {
            0 => error("there is no secret in it: add a long random one (openssl rand -hex 32)"),
            1..=MOST_KEYS => Ok(Keys(keys)),
            more => error(format!("{more} secrets: at most {MOST_KEYS} are allowed")),
        }
    }

    /// Reads a JSON Web Key Set, or a single JSON Web Key. Skips keys for other purposes or of an unsupported kind.
    ///
    /// # Errors
    /// When it is not JSON, a key is damaged or too short to be safe, or none is left.
    pub fn read_jwks(text: &str) -> Result<Keys, KeysError> {
        let value: Value = match serde_json::from_str(text) {
            Ok(value) => value,
            Err(bad) => return error(format!("it is not JSON: {bad}")),
        };
        let set = match value {
            Value::Object(mut object) => match object.remove("keys") {
                Some(Value::Array(keys)) => keys,
                None if object.contains_key("kty") => vec![Value::Object(object)],
                _ => return error("it is not a JSON Web Key Set: it has no list of \"keys\""),
            },
            _ => return error("it is not a JSON Web Key Set: it is not an object"),
        };
        if set.len() > MOST_KEYS {
            return error(format!("{} keys: at most {MOST_KEYS} are allowed", set.len()));
        }
        let mut keys = Vec::new();
        for (index, key) in set.iter().enumerate() {
            let Value::Object(key) = key else { return error(format!("key {} is not an object", index + 1)) };
            let name = match key.get("kid").and_then(Value::as_str) {
                Some(id) => format!("key {id:?}"),
                None => format!("key {}", index + 1),
            };
            keys.extend(read_key(key).map_err(|why| KeysError(format!("{name}: {why}")))?);
        }
        match keys.is_empty() {
            true => error("none of its keys is for a supported signature: RSA, EC with P-256 or P-384, Ed25519, oct"),
            false => Ok(Keys(keys)),
        }
    }

    /// Joins two sets of keys.
    pub fn and(mut self, others: Keys) -> Keys {
        self.0.extend(others.0);
        self
    }

    /// Returns whether one of the fitting keys has made the signature; `None` if none fits. Tries at most `tries` keys.
    pub(super) fn verify(
        &self,
        (name, algorithm): (&str, Algorithm),
        id: Option<&str>,
        (signed, given): (&[u8], &[u8]),
        tries: usize,
    ) -> Option<bool> {
        let fits = |key: &&Key| {
            let same_id = key.id.as_deref().zip(id).is_none_or(|(ours, theirs)| ours == theirs);
            let same_name = key.algorithm.as_deref().is_none_or(|ours| ours == name);
            same_id && same_name && key.material.fits(algorithm)
        };
        let mut fitting = self.0.iter().filter(fits).take(tries).peekable();
        fitting.peek()?;
        Some(fitting.any(|key| key.material.verifies(algorithm, signed, given)))
    }
}

/// Reads a key of a set; `None` if it is not for a supported signature.
fn read_key(key: &Map<String, Value>) -> Result<Option<Key>, String> {
    let is = |name: &str, wanted: &str| key.get(name).and_then(Value::as_str) == Some(wanted);
    let operations = key.get("key_ops").and_then(Value::as_array);
    let verifies = operations.is_none_or(|all| all.iter().any(|one| one == "verify"));
    let is_for_more = key.get("use").is_none_or(|purpose| purpose == "sig");
    let known = key.get("alg").is_none_or(|name| name.as_str().and_then(Algorithm::named).is_some());
    if !verifies || !is_for_more || !known {
        return Ok(None);
    }
    let material = if is("kty", "oct") {
        secret(&bytes(key, "k")?).ok_or("its k must have 32 to 1024 bytes")?
    } else if is("kty", "RSA") {
        let (n, e) = (unpadded(bytes(key, "n")?), unpadded(bytes(key, "e")?));
        if !RSA_BYTES.contains(&n.len()) {
            return Err(format!("an RSA key of {} bits: it must have 2048 to 8192", 8 * n.len()));
        }
        Material::Rsa(RsaPublicKeyComponents { n, e })
    } else if is("kty", "EC") && is("crv", "P-256") {
        Material::P256(point(key, digest::SHA256_OUTPUT_LEN)?)
    } else if is("kty", "EC") && is("crv", "P-384") {
        Material::P384(point(key, digest::SHA384_OUTPUT_LEN)?)
    } else if is("kty", "OKP") && is("crv", "Ed25519") {
        let x = bytes(key, "x")?;
        if x.len() != 32 {
            return Err("its x does not have 32 bytes".to_owned());
        }
        Material::Ed25519(x)
    } else {
        return Ok(None);
    };
    let string = |name: &str| key.get(name).and_then(Value::as_str).map(str::to_owned);
    let algorithm = string("alg");
    if algorithm.as_deref().and_then(Algorithm::named).is_some_and(|algorithm| !material.fits(algorithm)) {
        return Err("its alg does not match its kty".to_owned());
    }
    Ok(Some(Key { id: string("kid"), algorithm, material }))
}

fn bytes(key: &Map<String, Value>, name: &str) -> Result<Vec<u8>, String> {
    let text = key.get(name).and_then(Value::as_str).ok_or(format!("it has no {name}"))?;
    URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).map_err(|_| format!("its {name} is not base64 for URLs"))
}

/// A number without leading zeros.
fn unpadded(mut number: Vec<u8>) -> Vec<u8> {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    number.drain(..zeros);
    number
}

/// An uncompressed point with coordinates of this length.
fn point(key: &Map<String, Value>, length: usize) -> Result<Vec<u8>, String> {
    let (x, y) = (bytes(key, "x")?, bytes(key, "y")?);
    if x.len() != length || y.len() != length {
        return Err(format!("its x and y do not have {length} bytes"));
    }
    Ok([&[4][..], &x, &y].concat())
}

/// The name of an algorithm in a header.
pub(super) fn algorithm_in(value: &RawValue) -> Option<(String, Algorithm)> {
    let name = string(Some(value))?;
    let algorithm = Algorithm::named(&name)?;
    Some((name, algorithm))
}
