//! A message as an app receives it.

use super::frame::MAX_UNMASKED_HEADER_BYTES;
use super::mask::{self, Mask};
use crate::channel::record::RecordKind;
use crate::telemetry::stats;
use tungstenite::protocol::frame::coding::{Data, OpCode};

/// Space before the payload in a message's own buffer, so that the header of an answer fits there.
pub const HEADROOM: usize = MAX_UNMASKED_HEADER_BYTES;

/// Text or binary (RFC 6455, section 5.6).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Kind {
    /// UTF-8.
    Text = stats::TEXT as isize,
    /// Any bytes.
    Binary = stats::BINARY as isize,
}

impl Kind {
    /// Index of its counters.
    #[inline(always)]
    pub(crate) fn index(self) -> usize {
        self as usize
    }

    /// The opcode of a message's first frame.
    #[doc(hidden)]
    #[inline]
    pub fn opcode(self) -> OpCode {
        match self {
            Kind::Text => OpCode::Data(Data::Text),
            Kind::Binary => OpCode::Data(Data::Binary),
        }
    }
}

impl From<Kind> for RecordKind {
    fn from(kind: Kind) -> RecordKind {
        match kind {
            Kind::Text => RecordKind::Text,
            Kind::Binary => RecordKind::Binary,
        }
    }
}

/// A whole message: fragments joined, unmasked, decompressed, and text checked to be UTF-8.
///
/// It borrows the process's read buffer, so use or copy it before the handler returns. The first access unmasks a
/// binary payload; [`Outbox::echo`](crate::Outbox::echo) unmasks it while copying.
pub struct Message<'a> {
    pub(crate) kind: Kind,
    pub(crate) body: Body<'a>,
}

pub(crate) enum Body<'a> {
    /// In the read buffer: a whole frame whose payload begins at `start`, masked unless the mask is zero.
    Masked {
        frame: &'a mut [u8],
        start: usize,
        mask: Mask,
    },
    Bytes(&'a [u8]),
    /// The payload is at `HEADROOM..end` in a buffer of its own.
    Owned {
        buffer: Vec<u8>,
        end: usize,
    },
}

impl Message<'_> {
    /// Text or binary.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Returns whether it is a text message.
    pub fn is_text(&self) -> bool {
        self.kind == Kind::Text
    }

    /// Length of the payload in bytes.
    pub fn len(&self) -> usize {
        match &self.body {
            Body::Masked { frame, start, .. } => frame.len() - start,
            Body::Bytes(bytes) => bytes.len(),
            Body::Owned { end, .. } => end - HEADROOM,
        }
    }

    /// Returns whether the payload is empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The payload.
    pub fn payload(&mut self) -> &[u8] {
        match &mut self.body {
            Body::Masked { frame, start, mask } => {
                let payload = &mut frame[*start..];
                if *mask != [0; 4] {
                    mask::apply(payload, std::mem::take(mask));
                }
                payload
            }
            Body::Bytes(bytes) => bytes,
            Body::Owned { buffer, end } => &buffer[HEADROOM..*end],
        }
    }

    /// The payload of a text message; `None` for a binary one. It was checked to be UTF-8 on arrival; the check is
    /// repeated here, in safe code, because it costs less than a copy.
    pub fn text(&mut self) -> Option<&str> {
        if self.kind == Kind::Binary {
            return None;
        }
        simdutf8::basic::from_utf8(self.payload()).ok()
    }
}

impl std::fmt::Debug for Message<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Message").field("kind", &self.kind).field("len", &self.len()).finish()
    }
}
