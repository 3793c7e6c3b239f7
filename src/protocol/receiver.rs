//! The receiving side of a connection: from bytes to messages and control frames.
//!
//! A frame that is complete in the current input is handled in place. Anything else is assembled in an `Assembly`,
//! which exists only from the first byte of a message or frame to its last, so that an idle connection has none.
//!
//! Any split of the same bytes gives the same events, followed by the same violation.

mod memory;
mod scratch;

use super::Role;
use super::close::{self, ClosePayload, Violation};
use super::deflate::Inflater;
use super::frame::{self, Head, MAX_CONTROL_BYTES, MAX_HEADER_BYTES, Short};
use super::mask::{self, Mask};
use super::message::{Body, HEADROOM, Kind, Message};
use super::utf8::Utf8Stream;
use crate::queue::pool::Pool;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

pub use scratch::{STEP_BYTES, Scratch};

/// An event in a connection's input.
#[derive(Debug)]
pub enum Event<'a> {
    /// A whole message.
    Message(Message<'a>),
    /// A part of a large message, if [`Rules::pieces_from`] asks for parts.
    Piece(Piece<'a>),
    /// A Ping with its payload, to be answered by a Pong with the same payload.
    Ping(&'a [u8]),
    /// A Pong.
    Pong(&'a [u8]),
    /// A Close frame. Everything after it is ignored.
    Close(ClosePayload<'a>),
}

/// A part of a large binary message, unfragmented and uncompressed, as it arrives.
#[derive(Debug)]
pub struct Piece<'a> {
    /// Still masked.
    pub payload: &'a mut [u8],
    /// The key rotated for the start of this piece.
    pub mask: Mask,
    /// In the first piece: the length of the whole message.
    pub begins: Option<usize>,
    /// Whether it is the last.
    pub ends: bool,
}

/// The rules for all receivers of a process.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// Our side: a server expects masked frames, a client unmasked ones.
    pub role: Role,
    /// The longest message in bytes, after decompression.
    pub max_message: usize,
    /// The longest payload of a frame, in bytes.
    pub max_frame: usize,
    /// Incomplete binary messages of at least this size, if unfragmented and uncompressed, are delivered in pieces
    /// instead of being assembled; `None` for never. At least 1.
    pub pieces_from: Option<usize>,
}

/// Frames of at least this size take a buffer from the pool.
const POOLED_FROM_BYTES: u64 = 64 * 1024;
/// Initial buffer of a message, before more of it arrives.
const LEAST_BUFFER_BYTES: usize = 4 * 1024;

/// The receiving side of one connection.
#[derive(Default)]
pub struct Receiver {
    assembly: Option<Box<Assembly>>,
    /// The window of a peer that compresses with context takeover.
    inflater: Option<Box<Inflater>>,
    deflate: bool,
}

/// A partly received message or frame.
#[derive(Default)]
struct Assembly {
    /// The start of a header, or of a control frame.
    stash: Vec<u8>,
    /// The data frame whose payload is being received.
    frame: Option<DataFrame>,
    /// The message whose fragments are being received.
    message: Option<Started>,
    /// Its payload so far: `buffer[HEADROOM..filled]`.
    buffer: Vec<u8>,
    filled: usize,
    utf8: Utf8Stream,
}

struct DataFrame {
    is_final: bool,
    remaining: u64,
    mask: Option<Mask>,
    pieces: Pieces,
}

/// How a frame's payload is delivered.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Pieces {
    /// It is assembled.
    No,
    /// In pieces, none delivered yet.
    Begin,
    /// In pieces.
    GoOn,
}

#[derive(Clone, Copy)]
struct Started {
    kind: Kind,
    compressed: bool,
}

type Step<'a> = Result<(usize, Option<Event<'a>>), Violation>;

impl Receiver {
    /// A receiver without permessage-deflate.
    pub fn new() -> Receiver {
        Receiver::default()
    }

    /// A receiver for compressed messages; with `inflater` if the peer keeps its window between them.
    pub fn with_deflate(inflater: Option<Box<Inflater>>) -> Receiver {
        Receiver { assembly: None, inflater, deflate: true }
    }

    /// Whether no message or frame is partly received, so that no buffer is held.
    pub fn is_idle(&self) -> bool {
        self.assembly.is_none()
    }

    /// [`short_message`] for the role in `rules`, if nothing is partly received.
    #[inline]
    pub fn next_short<'a>(&mut self, input: &'a mut [u8], rules: &Rules) -> Option<(usize, Message<'a>)> {
        match rules.role {
            _ if !self.is_idle() => None,
            Role::Server => short_message::<true>(input, rules),
            Role::Client => short_message::<false>(input, rules),
        }
    }

    /// Takes bytes from the start of `input` up to and including the next event, and returns their number; all of them
    /// if there is no event. Payloads are unmasked in place, so the bytes taken are used up.
    ///
    /// # Errors
    /// When the peer broke the protocol; the connection must be closed with [`Violation::code`].
    pub fn next<'a>(
        &'a mut self,
        input: &'a mut [u8],
        rules: &Rules,
        scratch: &'a mut Scratch,
        pool: &mut Pool,
    ) -> Step<'a> {
        if self.assembly.is_none() {
            match frame::decode(input)? {
                Some(head) if input.len() as u64 - head.header_bytes as u64 >= head.payload_bytes => {
                    self.check(&head, rules)?;
                    if head.header.is_final {
                        return self.whole(head, input, rules, scratch);
                    }
                }
                _ => {}
            }
        }
        self.in_pieces(input, rules, scratch, pool)
    }

    /// Handles a complete control frame or unfragmented message, while nothing else is partly received.
    fn whole<'a>(&'a mut self, head: Head, input: &'a mut [u8], rules: &Rules, scratch: &'a mut Scratch) -> Step<'a> {
        let (start, end) = (head.header_bytes, head.header_bytes + head.payload_bytes as usize);
        let (opcode, compressed) = (head.header.opcode, head.header.rsv1);
        let kind = if opcode == OpCode::Data(Data::Text) { Kind::Text } else { Kind::Binary };
        let (frame, mut mask) = (&mut input[..end], head.header.mask.unwrap_or_default());
        if opcode != OpCode::Data(Data::Binary) || compressed {
            mask::apply(&mut frame[start..], std::mem::take(&mut mask));
        }
        let event = match opcode {
            OpCode::Control(opcode) => control(opcode, &frame[start..])?,
            _ if compressed => Event::Message(checked(
                kind,
                scratch.inflate(self.inflater.as_deref_mut(), &frame[start..], rules.max_message)?,
            )?),
            _ => {
                if kind == Kind::Text {
                    simdutf8::basic::from_utf8(&frame[start..]).map_err(|_| Violation::NotUtf8)?;
                }
                Event::Message(Message { kind, body: Body::Masked { frame, start, mask } })
            }
        };
        Ok((end, Some(event)))
    }

    fn in_pieces<'a>(
        &'a mut self,
        input: &'a mut [u8],
        rules: &Rules,
        scratch: &'a mut Scratch,
        pool: &mut Pool,
    ) -> Step<'a> {
        let mut used = 0;
        loop {
            let assembly = self.assembly.get_or_insert_with(|| scratch.take_assembly());
            let Some(data) = &mut assembly.frame else {
                let Some(head) = assembly.take_header(input, &mut used)? else { return Ok((used, None)) };
                self.check(&head, rules)?;
                if let OpCode::Control(opcode) = head.header.opcode {
                    if !self.take_control(&head, input, &mut used, scratch) {
                        return Ok((used, None));
                    }
                    return Ok((used, Some(control(opcode, &scratch.control)?)));
                }
                self.begin_frame(&head, rules, scratch, pool);
                continue;
            };
            let taken = data.remaining.min((input.len() - used) as u64) as usize;
            if data.pieces != Pieces::No {
                if taken == 0 {
                    return Ok((used, None));
                }
                let piece = data.next_piece(&mut input[used..used + taken]);
                if piece.ends {
                    self.release(scratch);
                }
                return Ok((used + taken, Some(Event::Piece(piece))));
            }
            data.remaining -= taken as u64;
            let (remaining, is_final) = (data.remaining, data.is_final);
            let before = assembly.buffer.capacity();
            let appended = assembly.append(&input[used..used + taken]);
            scratch.assembly_bytes += assembly.buffer.capacity() - before;
            appended?;
            used += taken;
            if remaining > 0 {
                return Ok((used, None));
            }
            assembly.frame = None;
            if is_final {
                return Ok((used, Some(self.finish(rules, scratch, pool)?)));
            }
        }
    }

    /// Checks the rules of RFC 6455, section 5, that a header alone can break.
    fn check(&self, head: &Head, rules: &Rules) -> Result<(), Violation> {
        let (header, assembly) = (&head.header, self.assembly.as_deref());
        let under_way = assembly.is_some_and(|assembly| assembly.message.is_some());
        let error = |rule| Err(Violation::Protocol(rule));
        if header.mask.is_some() != (rules.role == Role::Server) {
            let is_server = rules.role == Role::Server;
            return error(if is_server { "frame without a mask" } else { "masked frame from a server" });
        }
        if header.rsv2 || header.rsv3 || (header.rsv1 && !self.deflate) {
            return error("frame with a reserved bit set");
        }
        match header.opcode {
            OpCode::Control(_) if !header.is_final => return error("fragmented control frame"),
            OpCode::Control(_) if head.payload_bytes > MAX_CONTROL_BYTES as u64 => {
                return error("control frame longer than 125 bytes");
            }
            OpCode::Control(_) | OpCode::Data(Data::Continue) if header.rsv1 => {
                return error("compression bit on a frame that does not begin a message");
            }
            OpCode::Control(_) => return Ok(()),
            OpCode::Data(Data::Continue) if !under_way => return error("continuation of no message"),
            OpCode::Data(Data::Text | Data::Binary) if under_way => return error("new message within a message"),
            OpCode::Data(_) => {}
        }
        let so_far = assembly.map_or(0, |assembly| assembly.filled.saturating_sub(HEADROOM));
        // Incompressible data grows, by an eighth if fixed Huffman codes are used: the limit applies to the
        // decompressed size.
        let compressed =
            assembly.and_then(|assembly| assembly.message).map_or(header.rsv1, |started| started.compressed);
        let slack = if compressed { rules.max_message / 4 + 64 } else { 0 };
        let limit = rules.max_message.saturating_add(slack);
        if head.payload_bytes > (limit - so_far.min(limit)) as u64 {
            return Err(Violation::TooBig { limit: rules.max_message });
        }
        if head.payload_bytes > rules.max_frame as u64 {
            return Err(Violation::TooBig { limit: rules.max_frame });
        }
        Ok(())
    }

    /// Moves a control frame's payload to `scratch.control`. Returns false if it is incomplete.
    fn take_control(&mut self, head: &Head, input: &[u8], used: &mut usize, scratch: &mut Scratch) -> bool {
        let Some(assembly) = &mut self.assembly else { return false };
        if !assembly.fill_stash(head.header_bytes + head.payload_bytes as usize, input, used) {
            return false;
        }
        scratch.control.clear();
        scratch.control.extend_from_slice(&assembly.stash[head.header_bytes..]);
        mask::apply(&mut scratch.control, head.header.mask.unwrap_or_default());
        assembly.stash.clear();
        if assembly.message.is_none() {
            self.release(scratch);
        }
        true
    }

    fn begin_frame(&mut self, head: &Head, rules: &Rules, scratch: &mut Scratch, pool: &mut Pool) {
        let Some(assembly) = &mut self.assembly else { return };
        assembly.stash.clear();
        let kind = match head.header.opcode {
            OpCode::Data(Data::Text) => Some(Kind::Text),
            OpCode::Data(Data::Binary) => Some(Kind::Binary),
            _ => None,
        };
        if let Some(kind) = kind {
            assembly.message = Some(Started { kind, compressed: head.header.rsv1 });
            assembly.filled = HEADROOM;
            assembly.utf8 = Utf8Stream::default();
        }
        let large = rules.pieces_from.is_some_and(|from| head.payload_bytes >= from as u64);
        let in_pieces = large && kind == Some(Kind::Binary) && head.header.is_final && !head.header.rsv1;
        if assembly.buffer.is_empty() && head.payload_bytes >= POOLED_FROM_BYTES && !in_pieces {
            assembly.buffer = pool.take();
            scratch.assembly_bytes += assembly.buffer.capacity();
        }
        assembly.frame = Some(DataFrame {
            is_final: head.header.is_final,
            remaining: head.payload_bytes,
            mask: head.header.mask,
            pieces: if in_pieces { Pieces::Begin } else { Pieces::No },
        });
    }

    /// The last byte of a message has arrived.
    fn finish<'a>(
        &'a mut self,
        rules: &Rules,
        scratch: &'a mut Scratch,
        pool: &mut Pool,
    ) -> Result<Event<'a>, Violation> {
        let Some(mut assembly) = self.assembly.take() else {
            return Err(Violation::Protocol("continuation of no message"));
        };
        let Some(message) = assembly.message.take() else {
            return Err(Violation::Protocol("continuation of no message"));
        };
        let mut buffer = std::mem::take(&mut assembly.buffer);
        scratch.assembly_bytes -= buffer.capacity();
        let (end, mut utf8) = (assembly.filled, assembly.utf8);
        assembly.filled = 0;
        scratch.give_assembly(assembly);
        if !message.compressed {
            if message.kind == Kind::Text {
                utf8.finish().map_err(|_| Violation::NotUtf8)?;
            }
            if buffer.len() < end {
                buffer.resize(end, 0);
            }
            return Ok(Event::Message(Message { kind: message.kind, body: Body::Owned { buffer, end } }));
        }
        let payload = buffer.get(HEADROOM..end).unwrap_or_default();
        let inflated = scratch.inflate(self.inflater.as_deref_mut(), payload, rules.max_message);
        pool.give(buffer);
        Ok(Event::Message(checked(message.kind, inflated?)?))
    }
}

/// The hot path of nearly all messages: unfragmented, uncompressed, below 64 KiB, complete at the start of `input`,
/// while nothing is partly received ([`Receiver::is_idle`]). Returns the number of bytes used with it. On `None` the
/// caller uses [`Receiver::next`], which handles everything. `MASKED` as for [`frame::decode_short`].
#[inline(always)]
pub fn short_message<'a, const MASKED: bool>(input: &'a mut [u8], rules: &Rules) -> Option<(usize, Message<'a>)> {
    let Short { first, start, end, mask } = frame::decode_short::<MASKED>(input)?;
    if end - start > rules.max_message.min(rules.max_frame) {
        return None;
    }
    let frame = &mut input[..end];
    if first == frame::FINAL_BINARY {
        return Some((end, Message { kind: Kind::Binary, body: Body::Masked { frame, start, mask } }));
    }
    let payload = &mut frame[start..];
    mask::apply(payload, mask);
    if simdutf8::basic::from_utf8(payload).is_err() {
        // Restored to its original state.
        mask::apply(payload, mask);
        return None;
    }
    Some((end, Message { kind: Kind::Text, body: Body::Masked { frame, start, mask: [0; 4] } }))
}

impl DataFrame {
    /// Counts `payload` as delivered.
    fn next_piece<'a>(&mut self, payload: &'a mut [u8]) -> Piece<'a> {
        let mask = self.mask.unwrap_or_default();
        let begins = (self.pieces == Pieces::Begin).then_some(self.remaining as usize);
        self.pieces = Pieces::GoOn;
        self.remaining -= payload.len() as u64;
        self.mask = Some(mask::rotate(mask, payload.len()));
        Piece { payload, mask, begins, ends: self.remaining == 0 }
    }
}

impl Assembly {
    /// The next header, `None` if `input` ends within it. It stays in the stash.
    fn take_header(&mut self, input: &[u8], used: &mut usize) -> Result<Option<Head>, Violation> {
        loop {
            let wanted = frame::header_bytes_wanted(&self.stash);
            debug_assert!(wanted <= MAX_HEADER_BYTES);
            if self.stash.len() >= wanted {
                return frame::decode(&self.stash);
            }
            if !self.fill_stash(wanted, input, used) {
                return Ok(None);
            }
        }
    }

    /// Moves bytes to the stash until it holds `wanted`. Returns false if `input` ends before.
    fn fill_stash(&mut self, wanted: usize, input: &[u8], used: &mut usize) -> bool {
        let missing = wanted.saturating_sub(self.stash.len());
        let taken = missing.min(input.len() - *used);
        self.stash.extend_from_slice(&input[*used..*used + taken]);
        *used += taken;
        taken == missing
    }

    /// Unmasks a piece of payload into the buffer, and checks text as far as it has arrived.
    fn append(&mut self, piece: &[u8]) -> Result<(), Violation> {
        let Some(frame) = &mut self.frame else { return Ok(()) };
        let (start, end) = (self.filled, self.filled + piece.len());
        if self.buffer.len() < end {
            // Twice what has arrived, at most up to the frame's end: a declared length takes no memory.
            let promised = end.saturating_add(frame.remaining as usize);
            let length = promised.min(LEAST_BUFFER_BYTES.max(end * 2));
            if self.buffer.is_empty() {
                self.buffer = vec![0; length];
            } else {
                self.buffer.resize(length, 0);
            }
        }
        let target = &mut self.buffer[start..end];
        match &mut frame.mask {
            Some(mask) => {
                mask::copy(piece, target, *mask);
                *mask = mask::rotate(*mask, piece.len());
            }
            None => target.copy_from_slice(piece),
        }
        self.filled = end;
        match self.message {
            Some(Started { kind: Kind::Text, compressed: false }) => {
                self.utf8.push(&self.buffer[start..end]).map_err(|_| Violation::NotUtf8)
            }
            _ => Ok(()),
        }
    }
}

fn checked(kind: Kind, bytes: &[u8]) -> Result<Message<'_>, Violation> {
    if kind == Kind::Text {
        simdutf8::basic::from_utf8(bytes).map_err(|_| Violation::NotUtf8)?;
    }
    Ok(Message { kind, body: Body::Bytes(bytes) })
}

fn control(opcode: Control, payload: &[u8]) -> Result<Event<'_>, Violation> {
    match opcode {
        Control::Ping => Ok(Event::Ping(payload)),
        Control::Pong => Ok(Event::Pong(payload)),
        Control::Close => Ok(Event::Close(close::parse(payload)?)),
        Control::Reserved(_) => Err(Violation::Protocol("frame with a reserved opcode")),
    }
}
