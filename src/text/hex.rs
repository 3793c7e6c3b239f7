//! Bytes as hexadecimal digits, two for each.

use std::fmt::Write;

/// Encodes in lower case.
pub fn encode(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Decodes digits of either case; `None` for anything else.
pub fn decode(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let pairs = text.as_bytes().chunks(2).map(|pair| match pair {
        [high, low] => Some((digit(*high)? << 4 | digit(*low)?) as u8),
        _ => None,
    });
    pairs.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back() {
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(decode(&encode(&all)), Some(all));
        assert_eq!(
            (encode(&[0, 0xab]).as_str(), decode("00AB"), decode("")),
            ("00ab", Some(vec![0, 0xab]), Some(vec![]))
        );
        for bad in ["0", "abc", "zz", "+1", "0 ", "\u{e4}"] {
            assert_eq!(decode(bad), None, "{bad}");
        }
    }
}
