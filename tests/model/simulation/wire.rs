//! A client's view of the wire, written from the RFCs and independently of percore: what it sends as bytes, and what
//! it hears from the bytes of a server.

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress};

pub const TEXT: u8 = 0x1;
pub const BINARY: u8 = 0x2;
pub const CLOSE: u8 = 0x8;
pub const PING: u8 = 0x9;
pub const PONG: u8 = 0xa;
pub const FINAL: u8 = 0x80;
pub const COMPRESSED: u8 = 0x40;

/// A frame: `first` is its first byte. With a `mask` it is a client's.
pub fn frame(first: u8, payload: &[u8], mask: Option<[u8; 4]>) -> Vec<u8> {
    let bit = if mask.is_some() { 0x80 } else { 0 };
    let mut out = vec![first];
    match payload.len() {
        length @ 0..=125 => out.push(bit | length as u8),
        length @ 126..=0xffff => {
            out.push(bit | 126);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            out.push(bit | 127);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    let key = mask.unwrap_or_default();
    if mask.is_some() {
        out.extend_from_slice(&key);
    }
    let start = out.len();
    out.extend_from_slice(payload);
    for (place, byte) in out[start..].iter_mut().enumerate() {
        *byte ^= key[place % 4];
    }
    out
}

/// What a client compresses with.
pub struct Deflate {
    stream: Compress,
    takeover: bool,
}

impl Deflate {
    pub fn new(bits: u8, takeover: bool) -> Deflate {
        Deflate { stream: Compress::new_with_window_bits(Compression::new(6), false, bits), takeover }
    }

    pub fn compress(&mut self, payload: &[u8]) -> Vec<u8> {
        if payload.is_empty() {
            // RFC 7692, section 7.2.3.6.
            return vec![0];
        }
        if !self.takeover {
            self.stream.reset();
        }
        let mut out = Vec::with_capacity(payload.len() + payload.len() / 8 + 64);
        self.stream.compress_vec(payload, &mut out, FlushCompress::Sync).expect("compression");
        assert!(out.ends_with(&[0, 0, 0xff, 0xff]) && out.len() < out.capacity());
        out.truncate(out.len() - 4);
        out
    }
}

/// What a client hears from a server.
#[derive(Debug, PartialEq)]
pub enum Heard {
    /// 100: the rest of the request may come.
    Continue,
    /// A response that is not an upgrade.
    Status {
        status: u16,
        is_last: bool,
    },
    /// 101, with the value of Sec-WebSocket-Extensions.
    Upgraded(Option<String>),
    Message(u8, Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<u16>),
}

/// Bytes from a server to what they mean. Whatever a server may not send is a panic.
#[derive(Default)]
pub struct Ear {
    bytes: Vec<u8>,
    upgraded: bool,
    closed: bool,
    inflate: Option<(Decompress, bool)>,
}

impl Ear {
    pub fn take(&mut self, bytes: &[u8]) {
        assert!(!self.closed || bytes.is_empty(), "bytes after a Close frame: {bytes:02x?}");
        self.bytes.extend_from_slice(bytes);
    }

    /// Whether bytes lie here that are not yet a whole response or frame.
    pub fn is_within_something(&self) -> bool {
        !self.bytes.is_empty()
    }

    pub fn next(&mut self) -> Option<Heard> {
        if self.upgraded { self.next_frame() } else { self.next_response() }
    }

    fn next_response(&mut self) -> Option<Heard> {
        let head_bytes = self.bytes.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
        let head = std::str::from_utf8(&self.bytes[..head_bytes]).expect("a head is ASCII").to_owned();
        let header = |name: &str| {
            let mut lines = head.lines().filter_map(|line| line.split_once(": "));
            lines.find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned())
        };
        let status: u16 = head.get(9..12).and_then(|digits| digits.parse().ok()).expect("a status");
        if status == 100 {
            self.bytes.drain(..head_bytes);
            return Some(Heard::Continue);
        }
        if status == 101 {
            self.bytes.drain(..head_bytes);
            self.upgraded = true;
            let extensions = header("Sec-WebSocket-Extensions");
            if let Some(value) = &extensions {
                let takeover = !value.contains("server_no_context_takeover");
                self.inflate = Some((Decompress::new(false), takeover));
            }
            return Some(Heard::Upgraded(extensions));
        }
        let length: usize = header("Content-Length").expect("a length").parse().expect("a number");
        if self.bytes.len() < head_bytes + length {
            return None;
        }
        self.bytes.drain(..head_bytes + length);
        let is_last = header("Connection").is_some_and(|value| value.ends_with("close"));
        Some(Heard::Status { status, is_last })
    }

    fn next_frame(&mut self) -> Option<Heard> {
        let &[first, second] = self.bytes.first_chunk::<2>()?;
        let (start, length) = match second {
            0..=125 => (2, u64::from(second)),
            126 => {
                let length = u16::from_be_bytes(*self.bytes[2..].first_chunk()?);
                assert!(length > 125, "a length in its shortest form");
                (4, u64::from(length))
            }
            127 => {
                let length = u64::from_be_bytes(*self.bytes[2..].first_chunk()?);
                assert!(length > 0xffff, "a length in its shortest form");
                (10, length)
            }
            _ => panic!("a server does not mask"),
        };
        let end = start + length as usize;
        let payload = self.bytes.get(start..end)?.to_vec();
        self.bytes.drain(..end);
        assert!(first & FINAL != 0 && first & 0x30 == 0, "first byte {first:02x}");
        let opcode = first & 0xf;
        if opcode >= CLOSE {
            assert!(length <= 125 && first & COMPRESSED == 0, "a control frame is short and not compressed");
        }
        Some(match opcode {
            TEXT | BINARY => {
                let payload = if first & COMPRESSED != 0 { self.decompress(&payload) } else { payload };
                assert!(opcode == BINARY || std::str::from_utf8(&payload).is_ok(), "text is UTF-8");
                Heard::Message(opcode, payload)
            }
            PING => Heard::Ping(payload),
            PONG => Heard::Pong(payload),
            CLOSE => {
                self.closed = true;
                assert!(self.bytes.is_empty(), "bytes after a Close frame: {:02x?}", self.bytes);
                Heard::Close(payload.first_chunk().map(|code| u16::from_be_bytes(*code)))
            }
            _ => panic!("opcode {opcode:x}"),
        })
    }

    fn decompress(&mut self, payload: &[u8]) -> Vec<u8> {
        let (stream, takeover) = self.inflate.as_mut().expect("compression was agreed on");
        if !*takeover {
            stream.reset(false);
        }
        let input = [payload, &[0, 0, 0xff, 0xff]].concat();
        let (mut out, before) = (Vec::with_capacity(4096), stream.total_in());
        loop {
            let taken = (stream.total_in() - before) as usize;
            if taken == input.len() && out.len() < out.capacity() {
                return out;
            }
            out.reserve(4096);
            stream.decompress_vec(&input[taken..], &mut out, FlushDecompress::Sync).expect("compressed data");
        }
    }
}
