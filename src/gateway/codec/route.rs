//! Route selection expressions of AWS: which route a message takes, by what stands in it.

use crate::protocol::message::Kind;
use serde_json::Value;

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
        let body: Value = serde_json::from_slice(payload).ok()?;
        let parts = self.parts.iter().map(|part| match part {
            Part::Text(text) => Some(text.clone()),
            Part::Member(names) => match names.iter().try_fold(&body, |value, name| value.get(name))? {
                Value::String(text) => Some(text.clone()),
                value @ (Value::Number(_) | Value::Bool(_)) => Some(value.to_string()),
                _ => None,
            },
        });
        parts.collect::<Option<String>>().filter(|route| !route.is_empty())
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
