//! The content of `POST /sr`: messages, each for connections of any nodes, in the JSON of websocket-service.

use crate::gateway::codec::json::write_message;
use crate::gateway::text::Text;
use crate::protocol::message::Kind;
use base64::Engine;
use base64::alphabet;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};
use serde_core::de::{self, Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use std::fmt;

const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A message and whom it is for.
#[derive(Default, Debug)]
pub struct Outgoing {
    /// Names of connections, decoded.
    pub ids: Vec<Vec<u8>>,
    /// The message; `None` when it has both text and bytes, or neither: such a one is left out.
    pub message: Option<(Kind, Vec<u8>)>,
}

/// Reads the content.
///
/// # Errors
/// What is wrong with it, in words.
pub fn read(content: &[u8]) -> Result<Vec<Outgoing>, String> {
    let body: Body = serde_json::from_slice(content).map_err(|error| error.to_string())?;
    let messages = body.messages.unwrap_or_default().into_iter();
    Ok(messages.map(|item| Outgoing { ids: bytes_of(item.ids), message: item.message.and_then(message) }).collect())
}

fn bytes_of(ids: Option<Vec<Bytes>>) -> Vec<Vec<u8>> {
    ids.unwrap_or_default().into_iter().map(|Bytes(bytes)| bytes).collect()
}

fn message(message: Message) -> Option<(Kind, Vec<u8>)> {
    match (message.text, message.binary) {
        (Some(text), None) => Some((Kind::Text, text.into_bytes())),
        (None, Some(Bytes(bytes))) => Some((Kind::Binary, bytes)),
        _ => None,
    }
}

/// Writes the content: messages, each for connections of these public names.
pub fn write<'a>(messages: impl Iterator<Item = (&'a [String], Kind, &'a [u8])>) -> Vec<u8> {
    let mut body = String::from(r#"{"OutgoingWebSocketMessages":["#);
    for (place, (names, kind, payload)) in messages.enumerate() {
        body.push_str(if place == 0 { r#"{"ConnectionIds":["# } else { r#",{"ConnectionIds":["# });
        for (place, name) in names.iter().enumerate() {
            let before = if place == 0 { "\"" } else { ",\"" };
            body.extend([before, name, "\""]);
        }
        body.push_str(r#"],"Message":"#);
        write_message(&mut body, kind, payload);
        body.push('}');
    }
    body.push_str("]}");
    body.into_bytes()
}

/// The public name of a connection, as it was written before it was decoded.
pub fn name_of(id: &[u8]) -> String {
    STANDARD.encode(id)
}

/// Declares an object: of each field its name, which is read in any case as Go does. Other fields are passed over.
macro_rules! object {
    ($name:ident { $($key:literal $field:ident: $type:ty,)+ }) => {
        #[derive(Default)]
        struct $name {
            $($field: Option<$type>,)+
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<$name, D::Error> {
                struct Fields;

                impl<'de> Visitor<'de> for Fields {
                    type Value = $name;

                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str("an object")
                    }

                    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<$name, M::Error> {
                        let mut object = $name::default();
                        while let Some(key) = map.next_key::<Text<'de>>()? {
                            match () {
                                $(() if key.0.eq_ignore_ascii_case($key) => object.$field = map.next_value()?,)+
                                () => drop(map.next_value::<IgnoredAny>()?),
                            }
                        }
                        Ok(object)
                    }
                }

                deserializer.deserialize_map(Fields)
            }
        }
    };
}

object!(Body { "OutgoingWebSocketMessages" messages: Vec<Item>, });
object!(Item { "ConnectionIds" ids: Vec<Bytes>, "Message" message: Message, });
object!(Message { "Binary" binary: Bytes, "Text" text: String, });

object!(Batch { "ids" ids: Vec<String>, "message" message: Message, });

/// Names and the message of the content of `POST /connections:batch`; `None` when it is not of that form.
pub fn read_batch(content: &[u8]) -> Option<(Vec<String>, Kind, Vec<u8>)> {
    let Batch { ids, message: content } = serde_json::from_slice(content).ok()?;
    let (kind, payload) = message(content?)?;
    Some((ids?, kind, payload))
}

/// Bytes: base64, or numbers in a row, as Go reads them.
struct Bytes(Vec<u8>);

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
        struct Form;

        impl<'de> Visitor<'de> for Form {
            type Value = Bytes;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("base64, or a list of bytes")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Bytes, E> {
                LENIENT.decode(text).map(Bytes).map_err(|error| E::custom(format!("not base64: {error}")))
            }

            fn visit_seq<S: SeqAccess<'de>>(self, mut list: S) -> Result<Bytes, S::Error> {
                let mut bytes = Vec::new();
                while let Some(byte) = list.next_element()? {
                    bytes.push(byte);
                }
                Ok(Bytes(bytes))
            }
        }

        deserializer.deserialize_any(Form)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn only(text: &str) -> Outgoing {
        let mut all = read(text.as_bytes()).expect("good");
        assert_eq!(all.len(), 1, "{text}");
        all.remove(0)
    }

    #[test]
    fn what_origins_send() {
        let text = r#"{"OutgoingWebSocketMessages":[{"ConnectionIds":["AQI=","A\/8="],"Message":{"Binary":null,"Text":"hi"}}]}"#;
        let outgoing = only(text);
        assert_eq!(outgoing.ids, [vec![1, 2], vec![3, 255]]);
        assert_eq!(outgoing.message, Some((Kind::Text, b"hi".to_vec())));
        let any_case =
            r#"{"x":{"y":[1]},"outgoingwebsocketmessages":[{"connectionIDS":[[1,2]],"MESSAGE":{"binary":""},"z":0}]}"#;
        let outgoing = only(any_case);
        assert_eq!((outgoing.ids, outgoing.message), (vec![vec![1, 2]], Some((Kind::Binary, Vec::new()))));
        for left_out in [
            r#"{"OutgoingWebSocketMessages":[{"ConnectionIds":["AA=="],"Message":{"Binary":"AA==","Text":"a"}}]}"#,
            r#"{"OutgoingWebSocketMessages":[{"ConnectionIds":["AA=="],"Message":{}}]}"#,
            r#"{"OutgoingWebSocketMessages":[{"ConnectionIds":["AA=="],"Message":null}]}"#,
        ] {
            assert_eq!(only(left_out).message, None, "{left_out}");
        }
        assert!(read(b"{}").expect("nothing to do").is_empty());
    }

    #[test]
    fn what_is_not_of_this_form_is_refused() {
        for bad in [
            "",
            "null",
            "[]",
            "1",
            r#"{"OutgoingWebSocketMessages":[null]}"#,
            r#"{"OutgoingWebSocketMessages":{}}"#,
            r#"{"OutgoingWebSocketMessages":[{"ConnectionIds":["!"]}]}"#,
            r#"{"OutgoingWebSocketMessages":[{"ConnectionIds":[256]}]}"#,
            r#"{"OutgoingWebSocketMessages":[{"Message":{"Text":1}}]}"#,
            r#"{"OutgoingWebSocketMessages":[]}x"#,
        ] {
            assert!(read(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn batches() {
        let text = br#"{"ids":["a","b"],"message":{"text":"hi"}}"#;
        assert_eq!(read_batch(text), Some((vec!["a".into(), "b".into()], Kind::Text, b"hi".to_vec())));
        let binary = br#"{"ids":[],"message":{"binary":"AAE="}}"#;
        assert_eq!(read_batch(binary), Some((Vec::new(), Kind::Binary, vec![0, 1])));
        for bad in [
            "",
            "null",
            "{}",
            r#"{"ids":[1],"message":{"text":"a"}}"#,
            r#"{"ids":[],"message":{}}"#,
            r#"{"ids":[],"message":{"text":"a","binary":""}}"#,
            r#"{"ids":null,"message":{"text":"a"}}"#,
            r#"{"ids":[],"message":{"binary":"!"}}"#,
        ] {
            assert_eq!(read_batch(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn what_is_written_is_read() {
        for (kind, payload) in [(Kind::Text, &b"<\"\n"[..]), (Kind::Binary, b"\0\xff"), (Kind::Binary, b"")] {
            let names = [name_of(b"a"), name_of(b"b")];
            let written = write([(&names[..], kind, payload)].into_iter());
            let outgoing = only(std::str::from_utf8(&written).expect("text"));
            assert_eq!(
                (outgoing.ids, outgoing.message),
                (vec![vec![b'a'], vec![b'b']], Some((kind, payload.to_vec())))
            );
        }
    }
}
