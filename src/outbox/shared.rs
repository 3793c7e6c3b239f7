//! A message for several connections: encoded once for all of them, or once for each way of compressing it.

use super::{Delivery, MASKED, MID_FRAME, Outbox, TAKEOVER};
use crate::data::id::ConnectionId;
use crate::protocol::message::Kind;

/// Where the frames of a message lie among the queue's common bytes.
#[derive(Default)]
pub(crate) struct Shared {
    /// The pass in which they do.
    pass: u64,
    /// By bits of the window, 0 for a frame that is not compressed.
    spans: [Option<(usize, usize)>; 16],
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
        if shared.pass != self.queue.common_pass() {
            *shared = Shared { pass: self.queue.common_pass(), ..Shared::default() };
        }
        let (start, end) = match shared.spans[bits] {
            Some(span) => span,
            None => {
                let start = self.queue.common_bytes();
                self.extend_common_for(bits, kind, payload.len(), &[payload]);
                *shared.spans[bits].insert((start, self.queue.common_bytes()))
            }
        };
        self.stats.send(kind.index(), payload.len());
        self.queue.push_common(to.index, start, end);
        self.note_queued();
        Delivery::Queued
    }
}
