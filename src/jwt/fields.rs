//! Some fields of a JSON object, as they stand in its text.

use serde_core::Deserializer;
use serde_core::de::{Error, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::fmt;

/// The values of the named fields of the object that `json` is; the rest is read over.
///
/// # Errors
/// When it is not an object, or has one of the fields twice: two readers might take different ones.
pub fn fields<'a, const N: usize>(
    json: &'a str,
    names: [&'static str; N],
) -> Result<[Option<&'a RawValue>; N], serde_json::Error> {
    let mut reader = serde_json::Deserializer::from_str(json);
    let found = reader.deserialize_map(Wanted(names))?;
    reader.end()?;
    Ok(found)
}

struct Wanted<const N: usize>([&'static str; N]);

impl<'de, const N: usize> Visitor<'de> for Wanted<N> {
    type Value = [Option<&'de RawValue>; N];

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = [None; N];
        while let Some(name) = map.next_key::<String>()? {
            match self.0.iter().position(|wanted| *wanted == name) {
                Some(place) if found[place].is_some() => {
                    return Err(Error::custom(format_args!("{} stands there twice", self.0[place])));
                }
                Some(place) => found[place] = Some(map.next_value::<&'de RawValue>()?),
                None => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(found)
    }
}

/// A value that is a string.
pub fn text(value: &RawValue) -> Option<String> {
    serde_json::from_str(value.get()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_stand_as_they_are_written() {
        let json = r#" { "b" : [1, {"a": 2}], "c": {"a": 1}, "\u0061": 1e400 } "#;
        let [a, b, none] = fields(json, ["a", "b", "d"]).expect("an object");
        assert_eq!(a.map(RawValue::get), Some("1e400"));
        assert_eq!(b.map(RawValue::get), Some(r#"[1, {"a": 2}]"#));
        assert!(none.is_none());
        for bad in ["", "[]", "null", "1", r#""a""#, "{", r#"{"a":1}{}"#, r#"{"a":1,"a":1}"#, r#"{"a":1,"\u0061":2}"#] {
            assert!(fields(bad, ["a"]).is_err(), "{bad}");
        }
    }
}
