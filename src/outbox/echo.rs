//! Echoes: a message goes back unchanged, without a copy if possible.

use super::Delivery;
use super::{FRAMES, IN_PLACE_BYTES, MASKED, MID_FRAME, OWN_BUFFER_BYTES, Outbox, READ_PAUSE_BYTES, UnderWay};
use crate::net::id::ConnectionId;
use crate::protocol::frame::{self, MAX_HEADER_BYTES, MAX_UNMASKED_HEADER_BYTES};
use crate::protocol::mask;
use crate::protocol::message::{Body, HEADROOM, Kind, Message};
use crate::protocol::receiver::Piece;

impl Outbox {
    /// Sends a message back unchanged, with the same opcode: the payload is unmasked on its way into the queue, and a
    /// large message is not copied at all.
    #[inline(always)]
    pub fn echo(&mut self, to: ConnectionId, message: Message<'_>) -> Delivery {
        let Body::Masked { frame, start, mask } = &message.body else { return self.echo_any(to, message) };
        if frame.len() >= IN_PLACE_BYTES {
            return self.echo_any(to, message);
        }
        let payload = &frame[*start..];
        if !self.queue.is_in_run(to.index, to.generation) || to.node != self.node {
            self.end_fanout();
            let lane = self.queue.lane(to.index, to.generation).filter(|_| to.node == self.node);
            if lane.is_none_or(|lane| lane.mode != FRAMES || lane.is_blocked()) {
                return self.echo_any(to, message);
            }
            self.queue.begin_run(to.index, to.generation);
        }
        self.stats.send(message.kind.index(), payload.len());
        let space = self.queue.reserve(MAX_UNMASKED_HEADER_BYTES + payload.len());
        let header = frame::encode(space, message.kind.opcode(), false, payload.len(), None);
        mask::copy(payload, &mut space[header..header + payload.len()], *mask);
        self.queue.commit_to_run(header + payload.len());
        Delivery::Queued
    }

    fn echo_any(&mut self, to: ConnectionId, mut message: Message<'_>) -> Delivery {
        let (key, mode) = match self.admit(to) {
            Ok(mode) => (to.index, mode),
            Err(delivery) => return delivery,
        };
        let (kind, length) = (message.kind, message.len());
        let as_it_is = mode & (MASKED | MID_FRAME) == 0 && !self.compresses(mode, length);
        match message.body {
            Body::Masked { frame, start, mask } if as_it_is => {
                self.stats.send(kind.index(), length);
                if mask != [0; 4] {
                    mask::apply(&mut frame[start..], mask);
                }
                // The answer's header overwrites the end of the message's header, which is longer by just the masking
                // key.
                let mut header = [0; MAX_HEADER_BYTES];
                let header_bytes = frame::encode(&mut header, kind.opcode(), false, length, None);
                let begin = start - header_bytes;
                frame[begin..start].copy_from_slice(&header[..header_bytes]);
                if !self.queue.push_in_place(key, &frame[begin..]) {
                    self.queue.push(key, &frame[begin..]);
                }
            }
            Body::Owned { mut buffer, end } if length >= OWN_BUFFER_BYTES && as_it_is => {
                self.stats.send(kind.index(), length);
                let mut header = [0; MAX_HEADER_BYTES];
                let header_bytes = frame::encode(&mut header, kind.opcode(), false, length, None);
                let start = HEADROOM - header_bytes;
                buffer[start..HEADROOM].copy_from_slice(&header[..header_bytes]);
                self.queue.push_owned(key, buffer, start, end);
            }
            _ => {
                self.push_message(key, mode, kind, &[message.payload()]);
                if let Body::Owned { buffer, .. } = message.body {
                    self.queue.pool.give(buffer);
                }
            }
        }
        Delivery::Queued
    }

    /// Begins a server's echo of a partly received message. Other frames for that connection wait until it ends.
    pub(crate) fn begin_echo(&mut self, to: ConnectionId, payload_bytes: usize) {
        let Ok(mode) = self.admit(to) else { return };
        debug_assert!(mode & MASKED == 0, "clients take messages whole");
        let space = self.queue.reserve(MAX_HEADER_BYTES);
        let header = frame::encode(space, Kind::Binary.opcode(), false, payload_bytes, None);
        self.stats.send(Kind::Binary.index(), payload_bytes);
        self.queue.commit(to.index, header);
        let lane = self.queue.lane_at(to.index);
        let behind = lane.queued_bytes() >= READ_PAUSE_BYTES;
        lane.mode |= MID_FRAME;
        self.under_way.insert(to.index, UnderWay { held: Vec::new(), behind });
    }

    /// Continues an echo, if one was begun.
    pub(crate) fn echo_piece(&mut self, key: u32, piece: Piece<'_>) {
        if self.queue.lane_at(key).mode & MID_FRAME != 0 {
            self.end_fanout();
            mask::apply(piece.payload, piece.mask);
            if !self.queue.push_in_place(key, piece.payload) {
                self.queue.push(key, piece.payload);
            }
        }
    }

    /// Ends the echo, and sends the frames that waited for its end.
    pub(crate) fn end_echo(&mut self, key: u32) {
        if let Some(UnderWay { held, .. }) = self.under_way.remove(&key) {
            self.held_bytes -= held.capacity();
            self.queue.lane_at(key).mode &= !MID_FRAME;
            self.queue.push(key, &held);
        }
    }
}
