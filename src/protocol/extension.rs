//! Negotiation of permessage-deflate (RFC 7692, section 7.1), for both sides.

/// The compression that a server accepts or a client offers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DeflateMode {
    /// No compression.
    Off,
    /// Each message on its own: worse compression, but no memory for an idle connection.
    NoTakeover,
    /// Windows persist between messages: better compression, but hundreds of kilobytes per connection.
    Takeover,
}

/// How messages are compressed (RFC 7692).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Deflate {
    /// The mode agreed on with clients that offer compression. Default [`DeflateMode::NoTakeover`].
    pub mode: DeflateMode,
    /// Limit on both windows, as a binary logarithm: 9 to 15. Default 15.
    pub window_bits: u8,
    /// 1 (fast) to 9 (small). Default 1.
    pub level: u32,
    /// Messages of at least this size are compressed, in bytes. Default 1 KiB.
    pub min_bytes: usize,
    /// Longer messages are not compressed, since compression takes proportional time: at level 1 about 10 ns for each
    /// byte that does not shrink. The limit halves with each step of the window below 4 KiB, where every byte costs
    /// more. Default 128 KiB.
    pub max_bytes: usize,
}

impl Default for Deflate {
    fn default() -> Deflate {
        Deflate {
            mode: DeflateMode::NoTakeover,
            window_bits: LARGEST_BITS,
            level: 1,
            min_bytes: 1024,
            max_bytes: 128 << 10,
        }
    }
}

/// The parameters that both sides agreed on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Agreement {
    /// Whether the server keeps its window between messages.
    pub server_takeover: bool,
    /// Whether the client keeps its window between messages.
    pub client_takeover: bool,
    /// Binary logarithm of the server's window, 9 to 15.
    pub server_bits: u8,
    /// Binary logarithm of the client's window, 8 to 15.
    pub client_bits: u8,
}

/// zlib does not compress with a smaller window.
const SMALLEST_BITS: u8 = 9;
const LARGEST_BITS: u8 = 15;
const NAME: &str = "permessage-deflate";

#[derive(Default)]
struct Parameters {
    server_no_takeover: bool,
    client_no_takeover: bool,
    server_bits: Option<u8>,
    /// `Some(None)`: present without a value.
    client_bits: Option<Option<u8>>,
}

/// Parses one element of `Sec-WebSocket-Extensions`: `None` if it is not permessage-deflate, or invalid.
fn parse(element: &str) -> Option<Parameters> {
    let mut parts = element.split(';').map(str::trim);
    if !parts.next()?.eq_ignore_ascii_case(NAME) {
        return None;
    }
    let mut found = Parameters::default();
    for part in parts {
        let (name, value) = match part.split_once('=') {
            Some((name, value)) => (name.trim_end(), Some(bits(value.trim_start())?)),
            None => (part, None),
        };
        // A repeated parameter, or an unexpected value, makes the whole offer invalid.
        let fresh = match (name, value) {
            ("server_no_context_takeover", None) => !std::mem::replace(&mut found.server_no_takeover, true),
            ("client_no_context_takeover", None) => !std::mem::replace(&mut found.client_no_takeover, true),
            ("server_max_window_bits", Some(bits)) => found.server_bits.replace(bits).is_none(),
            ("client_max_window_bits", value) => found.client_bits.replace(value).is_none(),
            _ => false,
        };
        if !fresh {
            return None;
        }
    }
    Some(found)
}

/// Parses 8 to 15 without a leading zero, optionally in quotes.
fn bits(value: &str) -> Option<u8> {
    let value = value.strip_prefix('"').map_or(Some(value), |rest| rest.strip_suffix('"'))?;
    let bits = value.parse().ok().filter(|bits| (8..=LARGEST_BITS).contains(bits))?;
    (!value.starts_with(['0', '+'])).then_some(bits)
}

/// The server side: picks the first of the client's offers that can be met, and returns the header value for the
/// answer. `offers` are the values of all `Sec-WebSocket-Extensions` headers; `max_bits` (9 to 15) bounds both windows.
pub fn negotiate<'a>(
    offers: impl Iterator<Item = &'a str>,
    mode: DeflateMode,
    max_bits: u8,
) -> Option<(Agreement, String)> {
    if mode == DeflateMode::Off {
        return None;
    }
    offers.flat_map(|value| value.split(',')).filter_map(parse).find_map(|offer| {
        let server_bits = offer.server_bits.unwrap_or(LARGEST_BITS).min(max_bits);
        if server_bits < SMALLEST_BITS {
            return None;
        }
        let keep = mode == DeflateMode::Takeover;
        let client_bits = offer.client_bits.map(|bits| bits.unwrap_or(LARGEST_BITS).min(max_bits));
        let agreement = Agreement {
            server_takeover: keep && !offer.server_no_takeover,
            client_takeover: keep && !offer.client_no_takeover,
            server_bits,
            client_bits: client_bits.unwrap_or(LARGEST_BITS),
        };
        let mut answer = NAME.to_owned();
        if !agreement.server_takeover {
            answer.push_str("; server_no_context_takeover");
        }
        if !agreement.client_takeover {
            answer.push_str("; client_no_context_takeover");
        }
        if offer.server_bits.is_some() || server_bits < LARGEST_BITS {
            answer.push_str(&format!("; server_max_window_bits={server_bits}"));
        }
        // Only a client that named the parameter may be sent it (section 7.1.2.2).
        if let Some(bits) = client_bits.filter(|bits| *bits < LARGEST_BITS) {
            answer.push_str(&format!("; client_max_window_bits={bits}"));
        }
        Some((agreement, answer))
    })
}

/// The client side: the offer to make, `None` for none.
pub fn offer(mode: DeflateMode) -> Option<&'static str> {
    match mode {
        DeflateMode::Off => None,
        DeflateMode::NoTakeover => {
            Some("permessage-deflate; server_no_context_takeover; client_no_context_takeover; client_max_window_bits")
        }
        DeflateMode::Takeover => Some("permessage-deflate; client_max_window_bits"),
    }
}

/// The server's answer contains something that was not offered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NotOffered;

/// The client side: what the server's answer to [`offer`] agrees to.
///
/// # Errors
/// When the answer has an extension or a parameter that was not offered; the connection must fail then (RFC 6455,
/// section 4.1).
pub fn accept<'a>(answers: impl Iterator<Item = &'a str>, mode: DeflateMode) -> Result<Option<Agreement>, NotOffered> {
    let mut agreed = None;
    for element in answers.flat_map(|value| value.split(',')).filter(|element| !element.trim().is_empty()) {
        let answer = parse(element).ok_or(NotOffered)?;
        let keep = mode == DeflateMode::Takeover;
        let client_bits = answer.client_bits.map_or(Some(LARGEST_BITS), |bits| bits).ok_or(NotOffered)?;
        let asked = mode == DeflateMode::NoTakeover;
        if mode == DeflateMode::Off
            || agreed.is_some()
            || (asked && !answer.server_no_takeover)
            || client_bits < SMALLEST_BITS
        {
            return Err(NotOffered);
        }
        agreed = Some(Agreement {
            server_takeover: !answer.server_no_takeover,
            client_takeover: keep && !answer.client_no_takeover,
            server_bits: answer.server_bits.unwrap_or(LARGEST_BITS),
            client_bits,
        });
    }
    Ok(agreed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(offer: &str, mode: DeflateMode, bits: u8) -> Option<String> {
        negotiate([offer].into_iter(), mode, bits).map(|(_, answer)| answer)
    }

    #[test]
    fn offers_and_answers() {
        use DeflateMode::{NoTakeover, Off, Takeover};
        let both = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";
        let cases: [(&str, DeflateMode, u8, Option<&str>); 14] = [
            ("permessage-deflate", NoTakeover, 15, Some(both)),
            ("permessage-deflate; client_max_window_bits", NoTakeover, 15, Some(both)),
            ("permessage-deflate", Off, 15, None),
            ("permessage-deflate; client_max_window_bits", Takeover, 15, Some("permessage-deflate")),
            ("x-other, permessage-deflate", Takeover, 15, Some("permessage-deflate")),
            (
                "permessage-deflate; server_no_context_takeover",
                Takeover,
                15,
                Some("permessage-deflate; server_no_context_takeover"),
            ),
            (
                "permessage-deflate; server_max_window_bits=10",
                Takeover,
                15,
                Some("permessage-deflate; server_max_window_bits=10"),
            ),
            (
                "permessage-deflate; server_max_window_bits=\"10\"",
                Takeover,
                15,
                Some("permessage-deflate; server_max_window_bits=10"),
            ),
            ("permessage-deflate; server_max_window_bits=8", Takeover, 15, None),
            (
                "permessage-deflate; server_max_window_bits=8, permessage-deflate",
                Takeover,
                15,
                Some("permessage-deflate"),
            ),
            ("permessage-deflate; server_max_window_bits", Takeover, 15, None),
            ("permessage-deflate; client_max_window_bits=016", Takeover, 15, None),
            ("permessage-deflate; x=1", Takeover, 15, None),
            (
                "permessage-deflate; client_max_window_bits=12",
                Takeover,
                11,
                Some("permessage-deflate; server_max_window_bits=11; client_max_window_bits=11"),
            ),
        ];
        for (offer, mode, bits, want) in cases {
            assert_eq!(answer(offer, mode, bits).as_deref(), want, "{offer}");
        }
        assert_eq!(
            answer("permessage-deflate; client_no_context_takeover; client_no_context_takeover", Takeover, 15),
            None
        );
    }

    #[test]
    fn what_we_offer_we_understand() {
        for mode in [DeflateMode::NoTakeover, DeflateMode::Takeover] {
            let (agreed, answer) = negotiate(offer(mode).into_iter(), mode, 15).expect("agreement with ourselves");
            assert_eq!(accept([answer.as_str()].into_iter(), mode), Ok(Some(agreed)));
        }
        assert_eq!(accept(["permessage-deflate"].into_iter(), DeflateMode::Off), Err(NotOffered));
        assert_eq!(accept(["x-other"].into_iter(), DeflateMode::Takeover), Err(NotOffered));
        assert_eq!(accept([].into_iter(), DeflateMode::Takeover), Ok(None));
    }
}
