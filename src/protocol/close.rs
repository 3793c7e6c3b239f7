//! Why a connection ends: close codes (RFC 6455, section 7.4) and protocol violations.

use super::frame::MAX_CONTROL_BYTES;
use std::fmt;
use tungstenite::protocol::frame::coding::CloseCode;

/// What a peer did wrong, so that its connection is closed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Violation {
    /// A frame header that the RFC forbids; the text names the rule.
    Protocol(&'static str),
    /// Text that is not UTF-8 (section 8.1).
    NotUtf8,
    /// A message longer than `--max-message`.
    TooBig {
        /// The limit, in bytes.
        limit: usize,
    },
    /// Compressed data that does not decompress (RFC 7692).
    BadDeflate,
}

impl Violation {
    /// The close code that the peer is sent.
    pub fn code(&self) -> CloseCode {
        match self {
            Violation::Protocol(_) => CloseCode::Protocol,
            Violation::NotUtf8 | Violation::BadDeflate => CloseCode::Invalid,
            Violation::TooBig { .. } => CloseCode::Size,
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Violation::Protocol(rule) => f.write_str(rule),
            Violation::NotUtf8 => f.write_str("text that is not UTF-8"),
            Violation::TooBig { limit } => write!(f, "message longer than {limit} bytes"),
            Violation::BadDeflate => f.write_str("compressed data that does not decompress"),
        }
    }
}

impl std::error::Error for Violation {}

/// A Close frame's payload, or its substitute if none arrived.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CloseReason {
    /// 1005 if the peer's Close frame had no code, 1006 if no Close frame arrived (section 7.1.5).
    pub code: CloseCode,
    /// The peer's or our text; may be empty.
    pub reason: String,
    /// Whether both sides sent a Close frame.
    pub clean: bool,
}

impl CloseReason {
    /// The connection ended without a Close frame.
    pub fn abnormal(reason: impl Into<String>) -> CloseReason {
        CloseReason { code: CloseCode::Abnormal, reason: reason.into(), clean: false }
    }
}

/// The payload of a Close frame: the code, and as much of the reason as fits into a control frame (section 5.5.1).
pub fn payload(code: CloseCode, reason: &str) -> Vec<u8> {
    let mut cut = reason.len().min(MAX_CONTROL_BYTES - 2);
    while !reason.is_char_boundary(cut) {
        cut -= 1;
    }
    let code = u16::from(code).to_be_bytes();
    [&code, &reason.as_bytes()[..cut]].concat()
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", u16::from(self.code))?;
        if !self.reason.is_empty() {
            write!(f, " {}", self.reason)?;
        }
        Ok(())
    }
}

/// A Close frame's payload.
pub type ClosePayload<'a> = Option<(CloseCode, &'a str)>;

/// Parses a Close frame's payload: `None` if it is empty.
///
/// # Errors
/// When it has one byte, a code that must not be sent (section 7.4.1), or a reason that is not UTF-8.
pub fn parse(payload: &[u8]) -> Result<ClosePayload<'_>, Violation> {
    let Some((code, reason)) = payload.split_first_chunk::<2>() else {
        return if payload.is_empty() { Ok(None) } else { Err(Violation::Protocol("Close frame with half a code")) };
    };
    let code = CloseCode::from(u16::from_be_bytes(*code));
    if !may_be_sent(code) {
        return Err(Violation::Protocol("Close frame with a code that must not be sent"));
    }
    let reason = simdutf8::basic::from_utf8(reason).map_err(|_| Violation::NotUtf8)?;
    Ok(Some((code, reason)))
}

/// Whether `code` is allowed in a Close frame: the codes of the RFC and its registry, and 3000 to 4999.
pub fn may_be_sent(code: CloseCode) -> bool {
    matches!(u16::from(code), 1000..=1003 | 1007..=1014 | 3000..=4999)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads() {
        assert_eq!(parse(b""), Ok(None));
        assert_eq!(parse(b"\x03\xe8bye"), Ok(Some((CloseCode::Normal, "bye"))));
        assert_eq!(parse(b"\x03\xe8\xff"), Err(Violation::NotUtf8));
        for bad in [0u16, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535] {
            assert!(matches!(parse(&bad.to_be_bytes()), Err(Violation::Protocol(_))), "{bad}");
        }
        for good in [1000u16, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999] {
            assert!(parse(&good.to_be_bytes()).is_ok(), "{good}");
        }
        assert!(parse(b"\x03").is_err());
    }
}
