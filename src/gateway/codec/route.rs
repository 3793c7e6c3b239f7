//! Route selection expressions of AWS: which route a message takes, by what stands in it.

use crate::gateway::text::Text;
use crate::protocol::message::Kind;
use serde_core::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Number;
use std::fmt;

/// The route of a message that takes no other.
const DEFAULT: &str = "$default";

/// A part of an expression.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Part {
    Text(String),
    /// Names of members, from the outermost.
    Member(Vec<String>),
}

/// An expression: `$request.body.action`, or text with variables such as `${request.body.a}-${request.body.b}`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Selection {
    parts: Vec<Part>,
    /// The routes that there are; empty for any.
    routes: Vec<String>,
}

impl Default for Selection {
    fn default() -> Selection {
        Selection { parts: vec![Part::Member(vec!["action".into()])], routes: Vec::new() }
    }
}

impl Selection {
    /// Reads an expression. `routes` are those that there are, besides `$default`; empty for any.
    ///
    /// # Errors
    /// A sentence that says what may be typed.
    pub fn read(text: &str, routes: Vec<String>) -> Result<Selection, String> {
        if let Some(member) = text.strip_prefix('$').filter(|rest| !rest.starts_with('{')) {
            return Ok(Selection { parts: vec![Part::Member(names(member, text)?)], routes });
        }
        let (mut parts, mut rest) = (Vec::new(), text);
        while let Some((before, after)) = rest.split_once("${") {
            let (member, after) = after.split_once('}').ok_or_else(|| wrong(text))?;
            parts.extend([Part::Text(before.into()), Part::Member(names(member, text)?)]);
            rest = after;
        }
        parts.push(Part::Text(rest.into()));
        let has_member = parts.iter().any(|part| matches!(part, Part::Member(_)));
        if has_member { Ok(Selection { parts, routes }) } else { Err(wrong(text)) }
    }

    /// The route of a message.
    pub fn route(&self, kind: Kind, payload: &[u8]) -> String {
        let found = (kind == Kind::Text).then(|| self.evaluate(payload)).flatten();
        let exists = |route: &String| self.routes.is_empty() || self.routes.contains(route);
        found.filter(exists).unwrap_or_else(|| DEFAULT.into())
    }

    fn evaluate(&self, payload: &[u8]) -> Option<String> {
        let parts = self.parts.iter().map(|part| match part {
            Part::Text(text) => Some(text.clone()),
            Part::Member(names) => find(names, payload),
        });
        parts.collect::<Option<String>>().filter(|route| !route.is_empty())
    }
}

/// What a member is, if the text is JSON and the member is text, a number or a truth value.
fn find(names: &[String], json: &[u8]) -> Option<String> {
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let found = Find(names).deserialize(&mut deserializer).ok()?;
    deserializer.end().ok()?;
    found
}

/// Finds a member by names from the outermost, and keeps nothing of all others: what a client sends is no tree, which may take
/// thirty times the memory.
struct Find<'a>(&'a [String]);

impl Find<'_> {
    fn scalar<E>(&self, value: impl ToString) -> Result<Option<String>, E> {
        Ok(self.0.is_empty().then(|| value.to_string()))
    }
}

impl<'de> DeserializeSeed<'de> for Find<'_> {
    type Value = Option<String>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Option<String>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Find<'_> {
    type Value = Option<String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_str<E>(self, text: &str) -> Result<Option<String>, E> {
        self.scalar(text)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Option<String>, E> {
        self.scalar(value)
    }

    fn visit_u64<E>(self, value: u64) -> Result<Option<String>, E> {
        self.scalar(value)
    }

    fn visit_i64<E>(self, value: i64) -> Result<Option<String>, E> {
        self.scalar(value)
    }

    fn visit_f64<E>(self, value: f64) -> Result<Option<String>, E> {
        Number::from_f64(value).map_or(Ok(None), |number| self.scalar(number))
    }

    fn visit_unit<E>(self) -> Result<Option<String>, E> {
        Ok(None)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Option<String>, A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(None)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Option<String>, A::Error> {
        let mut found = None;
        while let Some(name) = map.next_key::<Text<'de>>()? {
            match self.0.split_first() {
                Some((first, rest)) if *first == name.0 => found = map.next_value_seed(Find(rest))?,
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(found)
    }
}

fn names(member: &str, text: &str) -> Result<Vec<String>, String> {
    let names = member.strip_prefix("request.body.").ok_or_else(|| wrong(text))?;
    let names: Vec<String> = names.split('.').map(str::to_owned).collect();
    if names.iter().any(String::is_empty) { Err(wrong(text)) } else { Ok(names) }
}

fn wrong(text: &str) -> String {
    format!("'{text}' selects no route: give $request.body.NAME, or text with ${{request.body.NAME}}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::Value;

    /// As a tree of all of it has it.
    fn in_tree(names: &[String], json: &str) -> Option<String> {
        let body: Value = serde_json::from_str(json).ok()?;
        match names.iter().try_fold(&body, |value, name| value.get(name))? {
            Value::String(text) => Some(text.clone()),
            value @ (Value::Number(_) | Value::Bool(_)) => Some(value.to_string()),
            _ => None,
        }
    }

    proptest! {
        #[test]
        fn a_member_is_what_a_tree_has(
            json in prop::collection::vec(prop_oneof![
                "[\\[\\]{},: ]", "\"[ab]\"", "\"\\\\u00e4\"", "-?[0-9]{1,25}", "-?[0-9]\\.[0-9]e[0-9]", "true|false|null",
                "\\{\"a\":", "\\{\"b\":1,\"a\":", "\\}",
            ], 0..8),
            names in prop::collection::vec("[ab]", 1..3),
        ) {
            let json = json.concat();
            prop_assert_eq!(find(&names, json.as_bytes()), in_tree(&names, &json), "{}", json);
        }
    }

    #[test]
    fn routes() {
        let route = |expression: &str, body: &str| {
            Selection::read(expression, Vec::new()).expect("good").route(Kind::Text, body.as_bytes())
        };
        for (expression, body, want) in [
            ("$request.body.action", r#"{"action":"join"}"#, "join"),
            ("$request.body.action", r#"{"action":1}"#, "1"),
            ("$request.body.action", r#"{"action":null}"#, DEFAULT),
            ("$request.body.action", "{}", DEFAULT),
            ("$request.body.action", "no JSON", DEFAULT),
            ("$request.body.a.b", r#"{"a":{"b":"c"}}"#, "c"),
            ("${request.body.a}-${request.body.b}", r#"{"a":"x","b":"y"}"#, "x-y"),
            ("${request.body.a}-b", r#"{"a":"${request.body.c}","c":"z"}"#, "${request.body.c}-b"),
            ("$request.body.action", r#"{"action":"a","x":[{"action":"b"},{}],"action":"c"}"#, "c"),
            ("$request.body.action", r#"{"action":"a"}}"#, DEFAULT),
            ("$request.body.action", r#"{"action":{"action":"a"}}"#, DEFAULT),
        ] {
            assert_eq!(route(expression, body), want, "{expression} of {body}");
        }
        assert_eq!(Selection::default().route(Kind::Binary, br#"{"action":"join"}"#), DEFAULT);
        let known = Selection::read("$request.body.action", vec!["join".into()]).expect("good");
        assert_eq!(known.route(Kind::Text, br#"{"action":"join"}"#), "join");
        assert_eq!(known.route(Kind::Text, br#"{"action":"leave"}"#), DEFAULT);
        for bad in ["", "action", "$request.header.x", "${request.body.a", "$request.body.", "${x}"] {
            assert!(Selection::read(bad, Vec::new()).is_err(), "{bad}");
        }
    }
}
