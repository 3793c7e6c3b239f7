//! Text in JSON, borrowed where it has no escapes.

use serde_core::de::{Deserialize, Deserializer, Visitor};
use std::borrow::Cow;
use std::fmt;

/// The text. `Cow` alone would always be copied.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Text<'a>(pub Cow<'a, str>);

impl<'de> Deserialize<'de> for Text<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Text<'de>, D::Error> {
        struct Form;

        impl<'de> Visitor<'de> for Form {
            type Value = Text<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("text")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }

        deserializer.deserialize_str(Form)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_escapes_are_copied() {
        let read = |json| serde_json::from_str::<Text<'_>>(json).expect("text").0;
        assert!(matches!(read(r#""abc""#), Cow::Borrowed("abc")));
        assert!(matches!(read(r#""a\nc""#), Cow::Owned(text) if text == "a\nc"));
        assert!(serde_json::from_str::<Text<'_>>("1").is_err());
    }
}
