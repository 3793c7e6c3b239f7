//! JSON that passes through: publications are embedded as received, on one line.

use serde_json::value::RawValue;
use std::borrow::Cow;

/// The deepest nesting that is passed on: readers in many languages give up at some depth.
pub const MAX_DEPTH: usize = 128;

/// A value nested deeper than [`MAX_DEPTH`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TooDeep;

/// A value without line breaks: between tokens they are white space, and would end a line of the protocol.
///
/// # Errors
/// When it is nested too deep.
pub fn in_one_line(value: &RawValue) -> Result<Cow<'_, str>, TooDeep> {
    let text = value.get();
    let bytes = text.as_bytes();
    if bytes.iter().filter(|byte| matches!(byte, b'[' | b'{')).count() > MAX_DEPTH && depth(bytes) > MAX_DEPTH {
        return Err(TooDeep);
    }
    // Inside a string they are escaped.
    if !bytes.iter().any(|byte| matches!(byte, b'\n' | b'\r')) {
        return Ok(Cow::Borrowed(text));
    }
    Ok(Cow::Owned(text.chars().filter(|c| !matches!(c, '\n' | '\r')).collect()))
}

/// The nesting depth of valid JSON.
fn depth(bytes: &[u8]) -> usize {
    let (mut depth, mut deepest, mut in_string, mut is_escaped) = (0usize, 0, false, false);
    for byte in bytes {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = in_string,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            b'[' | b'{' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

/// Appends a text as a JSON string.
pub fn push_string(out: &mut String, text: &str) {
    let is_plain = |byte: u8| byte >= 0x20 && byte != b'"' && byte != b'\\';
    out.push('"');
    if text.bytes().all(is_plain) {
        out.push_str(text);
    } else {
        for c in text.chars() {
            match c {
                '"' => out.push_str("\\\""),
                '\\' => out.push_str("\\\\"),
                c if u32::from(c) < 0x20 => out.push_str(&format!("\\u{:04x}", u32::from(c))),
                c => out.push(c),
            }
        }
    }
    out.push('"');
}

/// A text as a JSON string.
pub fn string(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    push_string(&mut out, text);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn line(text: &str) -> Result<String, TooDeep> {
        in_one_line(serde_json::from_str(text).expect("JSON")).map(Cow::into_owned)
    }

    #[test]
    fn line_breaks_between_parts_go() {
        assert_eq!(line("{\"a\":\n [1,\r\n2],\"b\":\"\\n\"}"), Ok("{\"a\": [1,2],\"b\":\"\\n\"}".into()));
        assert_eq!(line("\"plain\""), Ok("\"plain\"".into()));
    }

    #[test]
    fn what_is_too_deep_is_refused() {
        let nested = |depth| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(line(&nested(MAX_DEPTH)).is_ok());
        assert_eq!(line(&nested(MAX_DEPTH + 1)), Err(TooDeep));
        let wide = format!("[{}\"{}\"]", "[],".repeat(1000), "[".repeat(1000));
        assert!(line(&wide).is_ok());
        let after_quote = format!("[\"\\\"[\\\\\",{}]", nested(MAX_DEPTH));
        assert_eq!(line(&after_quote), Err(TooDeep));
    }

    proptest! {
        #[test]
        fn strings_are_those_of_serde(text in any::<String>()) {
            prop_assert_eq!(serde_json::from_str::<String>(&string(&text)).ok(), Some(text));
        }
    }
}
