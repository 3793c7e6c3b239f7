//! Reads a few named fields of a JSON object. All others are skipped in one pass without memory, however many fields an
//! object has and however deeply they nest.

use serde_core::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt;

/// The raw values of the requested fields, in the order of the names; for a repeated name, the last.
pub(crate) type Values<'a, const N: usize> = [Option<&'a RawValue>; N];

/// Reads an object.
///
/// # Errors
/// When the text is not JSON, or not an object ([`serde_json::Error::is_data`]).
pub(crate) fn read<'a, const N: usize>(text: &'a str, names: [&str; N]) -> Result<Values<'a, N>, serde_json::Error> {
    read_object(text, &names, false)
}

/// The same, but a repeated name is an error: two readers of a token might each take another value.
///
/// # Errors
/// As [`read`], and when a field is repeated.
pub(crate) fn read_once<'a, const N: usize>(
    text: &'a str,
    names: [&str; N],
) -> Result<Values<'a, N>, serde_json::Error> {
    read_object(text, &names, true)
}

fn read_object<'a, const N: usize>(
    text: &'a str,
    names: &[&str; N],
    once: bool,
) -> Result<Values<'a, N>, serde_json::Error> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let values = Object { names, once }.deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(values)
}

/// Reads all fields of an object, whatever their names, in the order of the text.
///
/// # Errors
/// As [`read`], and when there are more than `most`.
pub(crate) fn entries(text: &str, most: usize) -> Result<Vec<(Cow<'_, str>, &RawValue)>, serde_json::Error> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let entries = deserializer.deserialize_map(Entries(most))?;
    deserializer.end()?;
    Ok(entries)
}

struct Entries(usize);

impl<'de> Visitor<'de> for Entries {
    type Value = Vec<(Cow<'de, str>, &'de RawValue)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an object of at most {} fields", self.0)
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
        let mut entries = Vec::new();
        while let Some(name) = map.next_key()? {
            if entries.len() == self.0 {
                return Err(Error::custom("too many fields"));
            }
            entries.push((name, map.next_value()?));
        }
        Ok(entries)
    }
}

/// The string in such a value.
pub(crate) fn string(value: Option<&RawValue>) -> Option<String> {
    value.and_then(|value| serde_json::from_str(value.get()).ok())
}

struct Object<'n, const N: usize> {
    names: &'n [&'n str; N],
    /// Whether a repeated name is an error.
    once: bool,
}

impl<'de, const N: usize> DeserializeSeed<'de> for Object<'_, N> {
    type Value = Values<'de, N>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de, const N: usize> Visitor<'de> for Object<'_, N> {
    type Value = Values<'de, N>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
        let mut values = [None; N];
        while let Some(place) = map.next_key_seed(Name(self.names))? {
            match place {
                Some(place) if self.once && values[place].is_some() => {
                    return Err(Error::custom(format_args!("{} stands there twice", self.names[place])));
                }
                Some(place) => values[place] = Some(map.next_value()?),
                None => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(values)
    }
}

/// The index of a name among the requested ones.
struct Name<'n>(&'n [&'n str]);

impl<'de> DeserializeSeed<'de> for Name<'_> {
    type Value = Option<usize>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Name<'_> {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<Self::Value, E> {
        Ok(self.0.iter().position(|wanted| *wanted == name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_among_others() {
        let text = r#" {"x":[[{"a":1}],"]"],"b":"\u0041","a":{"c":null},"\u0062":"two"} "#;
        let [a, b, c] = read(text, ["a", "b", "c"]).expect("an object");
        assert_eq!((a.map(RawValue::get), string(b), c.is_none()), (Some(r#"{"c":null}"#), Some("two".into()), true));
        assert_eq!(string(a), None);
        for (text, is_data) in
            [("[]", true), ("1", true), ("{", false), ("{} x", false), ("{\"a\":}", false), ("", false)]
        {
            let error = read(text, ["a"]).expect_err("no object");
            assert_eq!(error.is_data(), is_data, "{text}: {error}");
        }
        // The values are those that any other reader finds.
        let twice = r#"{"a":1,"x":0,"\u0061":2,"x":1}"#;
        assert_eq!(read(twice, ["a"]).expect("an object")[0].map(RawValue::get), Some("2"));
        assert!(read_once(twice, ["a"]).is_err());
        let [a, b] =
            read_once(r#" { "b" : [1, {"a": 2}], "c": {"a": 1}, "\u0061": 1e400 } "#, ["a", "b"]).expect("an object");
        assert_eq!((a.map(RawValue::get), b.map(RawValue::get)), (Some("1e400"), Some(r#"[1, {"a": 2}]"#)));
        for bad in ["", "[]", "null", "1", r#""a""#, "{", r#"{"a":1}{}"#, r#"{"a":1,"a":1}"#] {
            assert!(read_once(bad, ["a"]).is_err(), "{bad}");
        }
        let found = entries(r#"{"a":1,"\u0062":[2]}"#, 2).expect("two");
        let found: Vec<_> = found.iter().map(|(name, value)| (&**name, value.get())).collect();
        assert_eq!(found, [("a", "1"), ("b", "[2]")]);
        assert!(entries(r#"{"a":1,"b":2}"#, 1).is_err() && entries("[]", 1).is_err());
        let deep = format!("{{\"x\":{}1{}}}", "[".repeat(100), "]".repeat(100));
        assert!(read(&deep, ["a"]).is_ok_and(|[a]| a.is_none()));
    }
}
