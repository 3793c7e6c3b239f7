//! What a function answers: a JSON object, of which a few members count. Anything else says nothing.

use crate::gateway::text::Text;
use crate::protocol::message::Kind;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_core::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;
use std::fmt;

/// The members that count, as they were written.
#[derive(Default, Debug)]
pub struct Said<'a> {
    pub status: Option<Status<'a>>,
    body: Option<&'a RawValue>,
    is_encoded: bool,
    headers: Option<&'a RawValue>,
    has_error_message: bool,
}

/// The status, which is a number, or text that is one.
#[derive(Clone, Copy, Debug)]
pub struct Status<'a>(&'a RawValue);

impl Status<'_> {
    /// As a number; `None` when it is not one.
    pub fn as_number(self) -> Option<u16> {
        let text = self.0.get().trim_matches('"');
        text.parse().ok()
    }
}

impl<'a> Said<'a> {
    /// Reads an answer.
    pub fn read(body: &'a [u8]) -> Said<'a> {
        serde_json::from_slice(body).unwrap_or_default()
    }

    /// Whether it is the error of a function that did not get to its answer.
    pub fn is_error(&self) -> bool {
        self.has_error_message && self.status.is_none()
    }

    /// The message in it.
    pub fn message(&self) -> Option<(Kind, Vec<u8>)> {
        let Text(text) = serde_json::from_str(self.body?.get()).ok()?;
        match self.is_encoded {
            true => STANDARD.decode(&*text).ok().map(|bytes| (Kind::Binary, bytes)),
            false => Some((Kind::Text, text.into_owned().into_bytes())),
        }
    }

    /// The subprotocol that it chooses.
    pub fn subprotocol(&self) -> Option<String> {
        let headers: Value = serde_json::from_str(self.headers?.get()).ok()?;
        let headers = headers.as_object()?;
        let chosen = headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("sec-websocket-protocol"));
        chosen?.1.as_str().map(str::to_owned)
    }
}

impl<'de> Deserialize<'de> for Said<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Said<'de>, D::Error> {
        struct Members;

        impl<'de> Visitor<'de> for Members {
            type Value = Said<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Said<'de>, M::Error> {
                let mut said = Said::default();
                while let Some(name) = map.next_key::<Text<'de>>()? {
                    match &*name.0 {
                        "statusCode" => said.status = Some(Status(map.next_value()?)),
                        "body" => said.body = Some(map.next_value()?),
                        "headers" => said.headers = Some(map.next_value()?),
                        "isBase64Encoded" => said.is_encoded = map.next_value::<&RawValue>()?.get() == "true",
                        "errorMessage" => {
                            map.next_value::<IgnoredAny>()?;
                            said.has_error_message = true;
                        }
                        _ => drop(map.next_value::<IgnoredAny>()?),
                    }
                }
                Ok(said)
            }
        }

        deserializer.deserialize_map(Members)
    }
}
