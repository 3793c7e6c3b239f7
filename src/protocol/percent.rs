//! Percent-encoding (RFC 3986, section 2.1): a byte as `%` and two hexadecimal digits.

use std::borrow::Cow;

/// A part of percent-encoded text.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Piece {
    /// A literal byte.
    Plain(u8),
    /// The byte encoded by `%` and two digits.
    Escaped(u8),
    /// A `%` without two digits.
    Broken,
}

/// Splits a text into pieces, one for each decoded byte.
pub fn pieces(text: &str) -> impl Iterator<Item = Piece> {
    let mut rest = text.as_bytes();
    std::iter::from_fn(move || {
        let (&first, tail) = rest.split_first()?;
        rest = tail;
        if first != b'%' {
            return Some(Piece::Plain(first));
        }
        let digit = |at: usize| tail.get(at).and_then(|&digit| char::from(digit).to_digit(16));
        let (Some(high), Some(low)) = (digit(0), digit(1)) else { return Some(Piece::Broken) };
        rest = &tail[2..];
        Some(Piece::Escaped((high << 4 | low) as u8))
    })
}

/// Decodes a part of a query as in forms, with `+` for a space (WHATWG URL, section 5.1). A `%` without digits stays
/// unchanged; bytes that are not UTF-8 become U+FFFD.
pub fn form_text(text: &str) -> Cow<'_, str> {
    if !text.bytes().any(|byte| matches!(byte, b'%' | b'+')) {
        return Cow::Borrowed(text);
    }
    let byte = |piece| match piece {
        Piece::Plain(b'+') => b' ',
        Piece::Plain(byte) | Piece::Escaped(byte) => byte,
        Piece::Broken => b'%',
    };
    let bytes: Vec<u8> = pieces(text).map(byte).collect();
    Cow::Owned(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        for (text, want) in [
            ("", ""),
            ("a+b%20c", "a b c"),
            ("%e4%C3%A4", "\u{fffd}\u{e4}"),
            ("%", "%"),
            ("%2", "%2"),
            ("%2g%%41", "%2g%A"),
            ("%+1", "% 1"),
            ("%2B", "+"),
        ] {
            assert_eq!(form_text(text), want, "{text}");
        }
    }
}
