//! A message for several connections: encoded once for all of them, or once for each way of compressing it.

use super::{Delivery, MASKED, MID_FRAME, Outbox, TAKEOVER};
use crate::net::id::ConnectionId;
use crate::protocol::frame::{MAX_HEADER_BYTES, encode};
use crate::protocol::message::Kind;

/// The header of a stored block of DEFLATE, which is not the last (RFC 1951, section 3.2.4), and what one may hold.
const STORED_HEADER_BYTES: usize = 5;
const MOST_STORED_BYTES: usize = u16::MAX as usize;

/// Where bytes of a message lie among the queue's common ones, and whether they are compressed.
type Span = (usize, usize, bool);

/// Where the frames of a message, or the ends of their payloads, lie among the queue's common bytes.
#[derive(Default)]
pub(crate) struct Shared {
    /// The pass in which they do.
    pass: u64,
    /// By bits of the window, 0 for what is not compressed.
    spans: [Option<Span>; 16],
}

impl Shared {
    /// The spans as of this pass.
    fn spans(&mut self, pass: u64) -> &mut [Option<Span>; 16] {
        if self.pass != pass {
            *self = Shared { pass, ..Shared::default() };
        }
        &mut self.spans
    }
}

impl Outbox {
    /// Sends a message to one of several connections; `shared` is of this message alone, and the same for all of them.
    pub(crate) fn send_shared(
        &mut self,
        to: ConnectionId,
        kind: Kind,
        payload: &[u8],
        shared: &mut Shared,
    ) -> Delivery {
        let mode = match self.admit(to) {
            Ok(mode) => mode,
            Err(delivery) => return delivery,
        };
        let bits = self.window_bits(mode, payload.len());
        if mode & (MID_FRAME | MASKED) != 0 || (bits != 0 && mode & TAKEOVER != 0) {
            self.push_message(to.index, mode, kind, &[payload]);
            return Delivery::Queued;
        }
        let spans = shared.spans(self.queue.common_pass());
        let (start, end, _) = match spans[bits] {
            Some(span) => span,
            None => {
                let start = self.queue.common_bytes();
                self.extend_common_for(bits, kind, payload.len(), &[payload]);
                *spans[bits].insert((start, self.queue.common_bytes(), bits != 0))
            }
        };
        self.stats.send(kind.index(), payload.len());
        self.queue.push_common(to.index, start, end);
        self.note_queued();
        Delivery::Queued
    }

    /// Sends a message that begins in another way for each connection and ends the same for all; `shared` is of that end alone.
    ///
    /// In a compressed message the beginning is a stored block, and the end refers to nothing before itself.
    pub(crate) fn send_headed(
        &mut self,
        to: ConnectionId,
        kind: Kind,
        own: &[u8],
        end: &[u8],
        shared: &mut Shared,
    ) -> Delivery {
        let mode = match self.admit(to) {
            Ok(mode) => mode,
            Err(delivery) => return delivery,
        };
        let payload_bytes = own.len() + end.len();
        let bits = self.window_bits(mode, payload_bytes);
        if mode & (MID_FRAME | MASKED) != 0 || (bits != 0 && mode & TAKEOVER != 0) || own.len() > MOST_STORED_BYTES {
            self.push_message(to.index, mode, kind, &[own, end]);
            return Delivery::Queued;
        }
        let spans = shared.spans(self.queue.common_pass());
        let (from, until, compressed) = match spans[bits] {
            Some(span) => span,
            None => {
                let start = self.queue.common_bytes();
                let compressed = self.extend_common_by(bits, end);
                *spans[bits].insert((start, self.queue.common_bytes(), compressed))
            }
        };
        self.stats.send(kind.index(), payload_bytes);
        let stored = if compressed { STORED_HEADER_BYTES } else { 0 };
        let space = self.queue.reserve(MAX_HEADER_BYTES + STORED_HEADER_BYTES + own.len());
        let mut at = encode(space, kind.opcode(), compressed, stored + own.len() + until - from, None);
        if compressed {
            let length = own.len() as u16;
            space[at] = 0;
            space[at + 1..at + 3].copy_from_slice(&length.to_le_bytes());
            space[at + 3..at + 5].copy_from_slice(&(!length).to_le_bytes());
            at += stored;
        }
        space[at..at + own.len()].copy_from_slice(own);
        self.queue.commit(to.index, at + own.len());
        self.queue.push_common(to.index, from, until);
        self.note_queued();
        Delivery::Queued
    }

    /// Stores the end of a payload, for those who agreed to a window of so many bits. Returns whether it is compressed.
    fn extend_common_by(&mut self, bits: usize, payload: &[u8]) -> bool {
        if bits == 0 {
            self.queue.extend_common(payload);
            return false;
        }
        let mut deflated = std::mem::take(&mut self.deflated);
        self.shared_deflater(bits).deflate(&[payload], &mut deflated);
        let compressed = deflated.len() < payload.len();
        self.queue.extend_common(if compressed { &deflated } else { payload });
        self.give_deflated(deflated);
        compressed
    }
}
