//! Tokens made by PyJWT (`pyjwt.json`), tokens with a single fault, and arbitrary text.

use super::*;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use proptest::prelude::*;
use ring::hmac;
use serde_json::Value;

const SECRET: &str = "a secret of at least thirty-two bytes";
const NOW: Duration = Duration::from_secs(1_700_000_000);

fn made_by_pyjwt() -> Value {
    serde_json::from_str(include_str!("pyjwt.json")).expect("JSON")
}

fn by_secret() -> Verifier {
    Verifier::new(Keys::read_secrets(SECRET).expect("a secret"), Rules::default())
}

/// A token with this header and these claims, signed with HS256.
fn signed(header: &str, claims: &str, secret: &[u8]) -> String {
    let text = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), text.as_bytes());
    format!("{text}.{}", URL_SAFE_NO_PAD.encode(tag))
}

fn hs256(claims: &str) -> String {
    signed(r#"{"alg":"HS256","typ":"JWT"}"#, claims, SECRET.as_bytes())
}

#[test]
fn tokens_of_another_library_are_taken() {
    let made = made_by_pyjwt();
    let secrets = Keys::read_secrets(made["secret"].as_str().expect("text")).expect("a secret");
    let keys = Keys::read_jwks(&made["jwks"].to_string()).expect("keys").and(secrets);
    let rules = Rules {
        audiences: vec!["other".into(), "percore".into()],
        issuers: vec!["https://issuer.example".into()],
        ..Rules::default()
    };
    let verifier = Verifier::new(keys, rules);
    let tokens = made["tokens"].as_object().expect("tokens");
    assert_eq!(tokens.len(), 12);
    for (algorithm, token) in tokens {
        let token = token.as_str().expect("text");
        let claims = verifier.verify(token, NOW).unwrap_or_else(|error| panic!("{algorithm}: {error}"));
        assert_eq!(Some(claims.json.as_str()), made["claims"].as_str(), "{algorithm}");
        assert_eq!(claims.subject.as_deref(), Some("ann"));
        assert_eq!(claims.expires, Some(Duration::from_secs(1_700_000_600)));
        // A signature with one bit flipped, and claims with one more letter.
        let (text, signature) = token.rsplit_once('.').expect("a signature");
        let mut bytes = URL_SAFE_NO_PAD.decode(signature).expect("base64");
        bytes[7] ^= 1;
        let forged = format!("{text}.{}", URL_SAFE_NO_PAD.encode(bytes));
        assert_eq!(verifier.verify(&forged, NOW), Err(Refused::Signature), "{algorithm}");
        assert_eq!(verifier.verify(&format!("{text}A.{signature}"), NOW), Err(Refused::Signature), "{algorithm}");
        assert_eq!(verifier.verify(&format!("{text}."), NOW), Err(Refused::Signature), "{algorithm}");
    }
}

#[test]
fn a_token_without_a_signature_is_refused() {
    for name in ["none", "None", "NONE", "", "HS1", "ES512"] {
        let header = format!(r#"{{"alg":"{name}"}}"#);
        let token = signed(&header, "{}", SECRET.as_bytes());
        assert_eq!(by_secret().verify(&token, NOW), Err(Refused::Algorithm), "{name}");
        let bare = token.rsplit_once('.').expect("parts").0.to_owned() + ".";
        assert_eq!(by_secret().verify(&bare, NOW), Err(Refused::Algorithm), "{name}");
    }
    for header in ["{}", r#"{"alg":null}"#, r#"{"alg":["HS256"]}"#, r#"{"alg":1}"#] {
        assert_eq!(
            by_secret().verify(&signed(header, "{}", SECRET.as_bytes()), NOW),
            Err(Refused::Algorithm),
            "{header}"
        );
    }
}

/// The attack on verifiers that choose the kind of their key by the algorithm of the token.
#[test]
fn a_public_key_is_not_a_secret() {
    let made = made_by_pyjwt();
    let jwks = &made["jwks"]["keys"];
    let verifier = Verifier::new(Keys::read_jwks(&made["jwks"].to_string()).expect("keys"), Rules::default());
    let n = jwks[0]["n"].as_str().expect("a modulus");
    let texts = [n.to_owned(), jwks[0].to_string(), made["jwks"].to_string()];
    for secret in texts.iter().map(|text| text.clone().into_bytes()).chain([URL_SAFE_NO_PAD.decode(n).expect("base64")])
    {
        let token = signed(r#"{"alg":"HS256","kid":"rsa"}"#, "{}", &secret);
        assert_eq!(verifier.verify(&token, NOW), Err(Refused::NoKey));
    }
    // Nor does a signature of one kind pass as one of another.
    let rs256 = made["tokens"]["RS256"].as_str().expect("a token");
    let (_, rest) = rs256.split_once('.').expect("parts");
    for name in ["ES256", "ES384", "EdDSA", "HS256", "PS256", "RS512"] {
        let header = format!(r#"{{"alg":"{name}","kid":"rsa"}}"#);
        let token = format!("{}.{rest}", URL_SAFE_NO_PAD.encode(header));
        let refused = verifier.verify(&token, NOW).expect_err(name);
        assert!(matches!(refused, Refused::NoKey | Refused::Signature), "{name}: {refused}");
    }
}

#[test]
fn the_key_is_the_one_that_is_named() {
    let oct =
        |id: &str, secret: &str| format!(r#"{{"kty":"oct","kid":"{id}","k":"{}"}}"#, URL_SAFE_NO_PAD.encode(secret));
    let (one, two) = ("one secret of at least thirty-two bytes", "another secret, of as many or more");
    let set = format!(r#"{{"keys":[{},{}]}}"#, oct("one", one), oct("two", two));
    let verifier = Verifier::new(Keys::read_jwks(&set).expect("keys"), Rules::default());
    let token = |kid: &str, secret: &str| signed(&format!(r#"{{"alg":"HS256"{kid}}}"#), "{}", secret.as_bytes());
    for (kid, secret, expected) in [
        (r#","kid":"one""#, one, Ok("{}")),
        (r#","kid":"two""#, two, Ok("{}")),
        ("", two, Ok("{}")),
        (r#","kid":"one""#, two, Err(Refused::Signature)),
        (r#","kid":"three""#, one, Err(Refused::NoKey)),
        (r#","kid":1"#, one, Err(Refused::Malformed("its kid is not a string"))),
        (r#","kid":"one","kid":"two""#, one, Err(Refused::Malformed("its header is not a JSON object"))),
        (r#","crit":["b64"],"b64":false"#, one, Err(Refused::Malformed("its header has unknown extensions"))),
    ] {
        let got = verifier.verify(&token(kid, secret), NOW);
        assert_eq!(got.as_ref().map(|claims| claims.json.as_str()).map_err(|error| *error), expected, "{kid}");
    }
}

#[test]
fn no_more_keys_are_tried_than_were_promised() {
    let secrets: Vec<String> = (0..=MOST_TRIES).map(|n| format!("a secret of thirty-two bytes, number {n}")).collect();
    let verifier = Verifier::new(Keys::read_secrets(&secrets.join("\n")).expect("secrets"), Rules::default());
    let verify = |n: usize| verifier.verify(&signed(r#"{"alg":"HS256"}"#, "{}", secrets[n].as_bytes()), NOW);
    assert!(verify(MOST_TRIES - 1).is_ok());
    assert_eq!(verify(MOST_TRIES), Err(Refused::Signature));
}

#[test]
fn claims_are_held_to_the_rules() {
    let second = Duration::from_secs(1);
    let any = Rules::default;
    let of = |audiences: &[&str], issuers: &[&str]| Rules {
        audiences: audiences.iter().map(|name| (*name).to_owned()).collect(),
        issuers: issuers.iter().map(|name| (*name).to_owned()).collect(),
        ..any()
    };
    let malformed = |why| Err(Refused::Malformed(why));
    for (claims, rules, expected) in [
        ("{}", any(), Ok(())),
        (r#"{"exp":1700000001}"#, any(), Ok(())),
        (r#"{"exp":1699999996}"#, any(), Ok(())),
        (r#"{"exp":1699999995}"#, any(), Err(Refused::Expired(5 * second))),
        (r#"{"exp":1699999995.5}"#, any(), Ok(())),
        (r#"{"exp":0}"#, any(), Err(Refused::Expired(NOW))),
        (r#"{"exp":-1e9}"#, any(), Err(Refused::Expired(NOW))),
        (r#"{"exp":1e300}"#, any(), Ok(())),
        (r#"{"exp":"1700000001"}"#, any(), malformed("its exp is not a number")),
        (r#"{"exp":null}"#, any(), malformed("its exp is not a number")),
        (r#"{"exp":1e999}"#, any(), malformed("its exp is not a number")),
        (r#"{"exp":1700000001,"exp":9}"#, any(), malformed("its claims are not a JSON object")),
        (r#"{"nbf":1700000005}"#, any(), Ok(())),
        (r#"{"nbf":1700000006}"#, any(), Err(Refused::TooEarly(6 * second))),
        (r#"{"nbf":true}"#, any(), malformed("its nbf is not a number")),
        (r#"{"sub":1}"#, any(), malformed("its sub is not a string")),
        (r#"["exp"]"#, any(), malformed("its claims are not a JSON object")),
        ("", any(), malformed("its claims are not a JSON object")),
        (r#"{"aud":"a"}"#, any(), Ok(())),
        (r#"{"aud":"a"}"#, of(&["b", "a"], &[]), Ok(())),
        (r#"{"aud":["c","a"]}"#, of(&["b", "a"], &[]), Ok(())),
        (r#"{"aud":["c","A"]}"#, of(&["b", "a"], &[]), Err(Refused::Audience)),
        (r#"{"aud":["a",1]}"#, of(&["a"], &[]), Err(Refused::Audience)),
        ("{}", of(&["a"], &[]), Err(Refused::Audience)),
        (r#"{"iss":"i"}"#, of(&[], &["i"]), Ok(())),
        (r#"{"iss":"j"}"#, of(&[], &["i"]), Err(Refused::Issuer)),
        (r#"{"iss":["i"]}"#, of(&[], &["i"]), Err(Refused::Issuer)),
        ("{}", of(&[], &["i"]), Err(Refused::Issuer)),
    ] {
        let verifier = Verifier::new(Keys::read_secrets(SECRET).expect("a secret"), rules);
        assert_eq!(verifier.verify(&hs256(claims), NOW).map(|_| ()), expected, "{claims}");
    }
}

#[test]
fn what_is_not_a_token_is_refused() {
    let good = hs256("{}");
    let (text, signature) = good.rsplit_once('.').expect("parts");
    let bad = [
        String::new(),
        "..".to_owned(),
        "a.b".to_owned(),
        text.to_owned(),
        format!("{good}."),
        format!("{good}.a.b"),
        format!("{text}.{signature}="),
        format!("{text}.{signature} "),
        format!(" {good}"),
        format!("{text}.{}", signature.replace(|c: char| c.is_ascii_digit(), "+")),
        format!("{}.e30.AA", "A".repeat(3000)),
        format!("{text}.{}", "A".repeat(MAX_TOKEN_BYTES)),
        hs256(&format!(r#"{{"sub":"{}"}}"#, "x".repeat(MAX_TOKEN_BYTES))),
        signed(r#""alg""#, "{}", SECRET.as_bytes()),
    ];
    for token in bad {
        let refused = by_secret().verify(&token, NOW).expect_err(&token);
        assert!(matches!(refused, Refused::Malformed(_)), "{token}: {refused}");
        assert!(refused.to_string().starts_with("the token is malformed: it"), "{refused}");
    }
}

#[test]
fn claims_fit_in_one_line() {
    let json = "{\n\t\"sub\" : \"Zoë 😀\\n\u{7f}\",\r\n\"n\":12345678901234567890.10 }";
    let claims = by_secret().verify(&hs256(json), NOW).expect("a token");
    assert_eq!(claims.json, json);
    let line = claims.one_line();
    assert_eq!(line, r#"{  "sub" : "Zo\u00eb \ud83d\ude00\n\u007f",  "n":12345678901234567890.10 }"#);
    let value = |text: &str| serde_json::from_str::<Value>(text).expect("JSON");
    assert_eq!(value(&line), value(json));
}

#[test]
fn secrets_are_the_lines_of_a_file() {
    let two = format!("\n{SECRET}\r\n\n  another secret, of as many or more  \n");
    let verifier = Verifier::new(Keys::read_secrets(&two).expect("two secrets"), Rules::default());
    for secret in [SECRET, "another secret, of as many or more"] {
        assert!(verifier.verify(&signed(r#"{"alg":"HS256"}"#, "{}", secret.as_bytes()), NOW).is_ok());
    }
    assert!(!format!("{verifier:?}").contains("secret of"));
    for (bad, why) in [
        ("", "there is no secret"),
        ("\n \n", "there is no secret"),
        ("short", "line 1 has 5 bytes"),
        ("a secret of at least thirty-two bytes\nshort", "line 2 has 5 bytes"),
    ] {
        let said = Keys::read_secrets(bad).expect_err(bad).to_string();
        assert!(said.contains(why) && !said.contains("short"), "{said}");
    }
    assert!(Keys::read_secrets(&format!("{SECRET}\n").repeat(101)).is_err());
}

#[test]
fn a_set_of_keys_tells_what_is_wrong_with_it() {
    let made = made_by_pyjwt();
    let rsa = &made["jwks"]["keys"][0];
    assert!(Keys::read_jwks(&rsa.to_string()).is_ok(), "one key by itself");
    let with = |name: &str, value: &str| {
        let mut key = rsa.clone();
        key[name] = value.into();
        format!(r#"{{"keys":[{key}]}}"#)
    };
    // A modulus with a leading zero is the same number.
    let n = URL_SAFE_NO_PAD.decode(rsa["n"].as_str().expect("text")).expect("base64");
    let padded = with("n", &URL_SAFE_NO_PAD.encode([&[0], &n[..]].concat()));
    let verifier = Verifier::new(Keys::read_jwks(&padded).expect("a key"), Rules::default());
    assert!(verifier.verify(made["tokens"]["RS256"].as_str().expect("text"), NOW).is_ok());
    // A key for one algorithm does not serve another.
    let verifier = Verifier::new(Keys::read_jwks(&with("alg", "RS256")).expect("a key"), Rules::default());
    assert!(verifier.verify(made["tokens"]["RS256"].as_str().expect("text"), NOW).is_ok());
    assert_eq!(verifier.verify(made["tokens"]["RS512"].as_str().expect("text"), NOW), Err(Refused::NoKey));
    for (bad, why) in [
        ("{".to_owned(), "it is not JSON"),
        ("[]".to_owned(), "it is not a JSON Web Key Set"),
        ("{}".to_owned(), "no list of \"keys\""),
        (r#"{"keys":{}}"#.to_owned(), "no list of \"keys\""),
        (r#"{"keys":[]}"#.to_owned(), "none of its keys"),
        (r#"{"keys":[1]}"#.to_owned(), "key 1 is not an object"),
        (with("use", "enc"), "none of its keys"),
        (with("kty", "XYZ"), "none of its keys"),
        (with("alg", "RSA-OAEP"), "none of its keys"),
        (with("alg", "HS256"), "key \"rsa\": its alg does not match its kty"),
        (with("n", "AQAB"), "key \"rsa\": an RSA key of 24 bits"),
        (with("n", "!"), "key \"rsa\": its n is not base64"),
        (r#"{"kty":"RSA"}"#.to_owned(), "key 1: it has no n"),
        (r#"{"kty":"EC","crv":"P-256","x":"AA","y":"AA"}"#.to_owned(), "key 1: its x and y do not have 32 bytes"),
        (r#"{"kty":"OKP","crv":"Ed25519","x":"AA"}"#.to_owned(), "key 1: its x does not have 32 bytes"),
        (r#"{"kty":"oct","k":"AAAA"}"#.to_owned(), "key 1: its k must have 32 to 1024 bytes"),
        (format!(r#"{{"keys":[{}]}}"#, vec!["{}"; 101].join(",")), "101 keys: at most 100"),
    ] {
        let said = Keys::read_jwks(&bad).expect_err(&bad).to_string();
        assert!(said.contains(why), "{said}");
    }
}

#[test]
fn keys_change_while_it_runs() {
    struct Script(Vec<Option<Result<Keys, String>>>);

    impl KeySource for Script {
        fn news(&mut self) -> Option<Result<Keys, String>> {
            self.0.remove(0)
        }
    }

    let second = Duration::from_secs(1);
    let other = "another secret, of as many or more";
    let keys = Keys::read_secrets(other).expect("a secret");
    let script = Script(vec![None, Some(Err("damaged".to_owned())), None, Some(Ok(keys))]);
    let mut verifier = by_secret().watch(script);
    let (old, new) = (hs256("{}"), signed(r#"{"alg":"HS256"}"#, "{}", other.as_bytes()));
    for (now, said) in [(0, Ok(())), (0, Ok(())), (1, Err("damaged".to_owned())), (2, Ok(()))] {
        assert_eq!(verifier.refresh(now * second), said);
        assert!(verifier.verify(&old, NOW).is_ok() && verifier.verify(&new, NOW).is_err(), "{now}");
    }
    assert_eq!(verifier.refresh(3 * second), Ok(()));
    assert!(verifier.verify(&old, NOW).is_err() && verifier.verify(&new, NOW).is_ok());
}

fn any_json() -> impl Strategy<Value = String> {
    let names = prop_oneof!["exp", "nbf", "aud", "iss", "sub", "alg", "kid", "crit", "[a-z\"\\\\]{0,4}"];
    let values =
        prop_oneof!["[-0-9.eE]{1,12}", "\"[a-zA-Z0-9]{0,9}\"", r#"\["a"\]"#, "null|true|\\{\\}", "HS256|\"HS256\""];
    prop::collection::vec((names, values), 0..6).prop_map(|fields| {
        let fields: Vec<String> = fields.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
        format!("{{{}}}", fields.join(","))
    })
}

proptest! {
    #[test]
    fn no_text_makes_it_panic_or_is_taken(text in ".{0,200}", header in any_json(), payload in any_json()) {
        prop_assert!(by_secret().verify(&text, NOW).is_err());
        let unsigned = format!("{}.{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload), text);
        prop_assert!(by_secret().verify(&unsigned, NOW).is_err());
    }

    #[test]
    fn what_is_signed_is_taken_as_it_was_signed(header in any_json(), payload in any_json()) {
        let token = signed(&header, &payload, SECRET.as_bytes());
        if let Ok(claims) = by_secret().verify(&token, NOW) {
            prop_assert_eq!(&claims.json, &payload);
            prop_assert!(claims.one_line().bytes().all(|byte| (b' '..=b'~').contains(&byte)));
            let parsed = serde_json::from_str::<Value>(&payload).expect("JSON");
            prop_assert_eq!(serde_json::from_str::<Value>(&claims.one_line()).expect("JSON"), parsed);
        }
    }

    #[test]
    fn no_letter_of_a_token_can_be_changed(name in "[a-z]{0,9}", at in any::<prop::sample::Index>(), letter in "[A-Za-z0-9_.=-]") {
        let token = hs256(&format!(r#"{{"sub":"{name}"}}"#));
        let at = at.index(token.len());
        let mut changed = token.clone();
        changed.replace_range(at..=at, &letter);
        prop_assert!(by_secret().verify(&token, NOW).is_ok());
        prop_assert!(changed == token || by_secret().verify(&changed, NOW).is_err(), "{}", changed);
    }
}
