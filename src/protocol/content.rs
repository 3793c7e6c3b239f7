//! The content of a request: where it ends, and its data without the chunk framing (RFC 9112, sections 6 and 7).
//!
//! Memory grows with the bytes received, never with a declared length. The bytes around the chunks (their lines,
//! extensions and trailer fields) are read and dropped, and bounded: extensions must not let a client send a lot that
//! hardly counts.

use super::http::{BadRequest, Request};

/// Free bytes of a chunk's line: a 64-bit size has no more digits.
const FREE_LINE_BYTES: usize = 16;

/// How the end of a request's content is determined (RFC 9112, section 6.3).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Framing {
    /// There is no content: it is not announced, or its length is 0.
    Empty,
    /// By its length in bytes; one that does not fit is the maximum.
    Length(u64),
    /// By chunks.
    Chunked,
}

impl Request<'_> {
    /// How the end of the content is determined. A request with neither a length nor a coding has no content.
    ///
    /// # Errors
    /// When lengths contradict each other or are not numbers; for a Transfer-Encoding with a length or in HTTP/1.0, one
    /// that does not end in `chunked`, and an unknown one (501). The end of such content is ambiguous, so the
    /// connection must end after the answer.
    #[doc(hidden)]
    pub fn framing(&self) -> Result<Framing, BadRequest> {
        let lengths = self.raw_values("content-length").flat_map(|value| value.split(|byte| *byte == b','));
        let mut lengths = lengths.map(<[u8]>::trim_ascii);
        let first = lengths.next();
        if self.raw_values("transfer-encoding").next().is_some() {
            if first.is_some() || self.minor_version == 0 {
                return Err(BadRequest(400, "Transfer-Encoding does not go with Content-Length or HTTP/1.0"));
            }
            return self.check_transfer_coding().map(|()| Framing::Chunked);
        }
        let Some(first) = first else { return Ok(Framing::Empty) };
        let digits = !first.is_empty() && first.iter().all(u8::is_ascii_digit);
        if !digits || lengths.any(|other| other != first) {
            return Err(BadRequest(400, "Content-Length is not one number"));
        }
        let add = |length: u64, digit: &u8| length.saturating_mul(10).saturating_add(u64::from(digit - b'0'));
        Ok(match first.iter().fold(0, add) {
            0 => Framing::Empty,
            length => Framing::Length(length),
        })
    }

    /// Only `chunked` is supported, once, and last (RFC 9112, sections 6.1 and 6.3).
    fn check_transfer_coding(&self) -> Result<(), BadRequest> {
        let codings = self.raw_values("transfer-encoding").flat_map(|value| value.split(|byte| *byte == b','));
        let mut codings = codings.map(<[u8]>::trim_ascii).filter(|coding| !coding.is_empty());
        let is_chunked = |coding: &[u8]| coding.eq_ignore_ascii_case(b"chunked");
        if !codings.next_back().is_some_and(is_chunked) {
            return Err(BadRequest(400, "Transfer-Encoding does not end in chunked"));
        }
        match codings.next() {
            None => Ok(()),
            Some(coding) if is_chunked(coding) => Err(BadRequest(400, "Transfer-Encoding names chunked twice")),
            Some(_) => Err(BadRequest(501, "the only Transfer-Encoding supported here is chunked")),
        }
    }

    /// Whether the client waits for a 100 before it sends content (RFC 9110, section 10.1.1). HTTP/1.0 does not have
    /// this.
    ///
    /// # Errors
    /// 417 for any other expectation.
    #[doc(hidden)]
    pub fn expects_continue(&self) -> Result<bool, BadRequest> {
        let items = self.raw_values("expect").flat_map(|value| value.split(|byte| *byte == b','));
        let mut expects = false;
        for item in items.map(<[u8]>::trim_ascii).filter(|item| !item.is_empty()) {
            if !item.eq_ignore_ascii_case(b"100-continue") {
                return Err(BadRequest(417, "the only Expect supported here is 100-continue"));
            }
            expects = true;
        }
        Ok(expects && self.minor_version > 0)
    }
}

/// What comes next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// This much of content whose length was declared.
    Length(usize),
    /// A digit of a chunk's size, or what ends it, after this many digits.
    Size {
        value: usize,
        digits: usize,
    },
    /// A semicolon, after white space following the size.
    Semicolon,
    /// The rest of an extension.
    Extension,
    /// The end of the line of a chunk of this size.
    LineFeed {
        size: usize,
    },
    /// This much of a chunk.
    Data(usize),
    /// The CR and the LF after a chunk.
    DataEnd,
    DataLineFeed,
    /// A trailer field, or the last line.
    Trailer,
    TrailerName,
    TrailerValue,
    TrailerLineFeed,
    /// The LF of the last line.
    LastLineFeed,
    End,
}

/// Partly received content of a request.
#[derive(Debug)]
pub struct Content {
    state: State,
    /// Size of the chunk whose line is being read.
    size: usize,
    /// Bytes that may still be added.
    room: usize,
    /// Bytes added so far.
    taken: usize,
    /// Bytes of the chunk's line so far.
    line: usize,
    /// Bytes still allowed around the chunks, beyond those free for every chunk's line.
    spare: usize,
}

impl Content {
    /// Content of at most `limit` bytes; the extensions and trailer fields of chunks have at most `overhead` bytes.
    ///
    /// # Errors
    /// 413 for a length beyond the limit.
    pub fn new(framing: Framing, limit: usize, overhead: usize) -> Result<Content, BadRequest> {
        let state = match framing {
            Framing::Empty => State::End,
            Framing::Chunked => State::Size { value: 0, digits: 0 },
            Framing::Length(length) => match usize::try_from(length) {
                Ok(length) if length <= limit => State::Length(length),
                _ => return Err(TOO_LONG),
            },
        };
        let room = if let State::Length(length) = state { length } else { limit };
        Ok(Content { state, size: 0, room, taken: 0, line: 0, spare: overhead })
    }

    /// Bytes of content received.
    pub fn taken(&self) -> usize {
        self.taken
    }

    /// The content in place, if its length was declared and `input` starts with all of it.
    pub fn whole<'a>(&self, input: &'a [u8]) -> Option<&'a [u8]> {
        match self.state {
            State::Length(length) => input.get(..length),
            State::End => Some(&[]),
            _ => None,
        }
    }

    /// Takes content from the start of `input`, and adds it to `out`. Returns how many bytes were used, and whether the
    /// content is complete.
    ///
    /// # Errors
    /// 400 for invalid chunks, 413 for content that is too long, 431 for trailer fields that are too long.
    pub fn take(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<(usize, bool), BadRequest> {
        let mut used = 0;
        while used < input.len() && self.state != State::End {
            match self.state {
                State::Length(left) => {
                    let bytes = self.append(left, &input[used..], out);
                    used += bytes;
                    self.state = if bytes == left { State::End } else { State::Length(left - bytes) };
                }
                State::Data(left) => {
                    let bytes = self.append(left, &input[used..], out);
                    used += bytes;
                    self.state = if bytes == left { State::DataEnd } else { State::Data(left - bytes) };
                }
                _ => {
                    self.state = self.after(input[used])?;
                    used += 1;
                }
            }
        }
        Ok((used, self.state == State::End))
    }

    /// Adds at most `left` bytes. Memory doubles as it is used up, but never exceeds what may still come.
    fn append(&mut self, left: usize, input: &[u8], out: &mut Vec<u8>) -> usize {
        let bytes = &input[..left.min(input.len())];
        if out.capacity() - out.len() < bytes.len() {
            out.reserve_exact(bytes.len().max(out.len().min(self.room)));
        }
        out.extend_from_slice(bytes);
        self.room -= bytes.len();
        self.taken += bytes.len();
        bytes.len()
    }

    /// The state after a byte that is not content.
    fn after(&mut self, byte: u8) -> Result<State, BadRequest> {
        match (self.state, byte) {
            (State::Size { value, digits }, _) if byte.is_ascii_hexdigit() => {
                self.charge_line()?;
                let digit = if byte.is_ascii_digit() { byte - b'0' } else { (byte | 0x20) - b'a' + 10 };
                let value = value.checked_mul(16).and_then(|value| value.checked_add(digit.into()));
                match value.filter(|value| *value <= self.room) {
                    Some(value) => Ok(State::Size { value, digits: digits + 1 }),
                    None => Err(TOO_LONG),
                }
            }
            (State::Size { value, digits: 1.. }, b'\r') => Ok(State::LineFeed { size: value }),
            (State::Size { value, digits: 1.. }, b';' | b' ' | b'\t') => {
                self.size = value;
                self.charge_line()?;
                Ok(if byte == b';' { State::Extension } else { State::Semicolon })
            }
            (State::Semicolon, b' ' | b'\t') => self.charge_line().map(|()| State::Semicolon),
            (State::Semicolon, b';') => self.charge_line().map(|()| State::Extension),
            (State::Extension, b'\r') => Ok(State::LineFeed { size: self.size }),
            (State::Extension, _) if is_text(byte) => self.charge_line().map(|()| State::Extension),
            (State::LineFeed { size }, b'\n') => {
                self.line = 0;
                Ok(if size == 0 { State::Trailer } else { State::Data(size) })
            }
            (State::DataEnd, b'\r') => Ok(State::DataLineFeed),
            (State::DataLineFeed, b'\n') => Ok(State::Size { value: 0, digits: 0 }),
            (State::Trailer, b'\r') => Ok(State::LastLineFeed),
            (State::Trailer | State::TrailerName, _) if is_token(byte) => {
                self.charge_trailer().map(|()| State::TrailerName)
            }
            (State::TrailerName, b':') => self.charge_trailer().map(|()| State::TrailerValue),
            (State::TrailerValue, b'\r') => Ok(State::TrailerLineFeed),
            (State::TrailerValue, _) if is_text(byte) => self.charge_trailer().map(|()| State::TrailerValue),
            (State::TrailerLineFeed, b'\n') => self.charge_trailer().map(|()| State::Trailer),
            (State::LastLineFeed, b'\n') => Ok(State::End),
            (State::Trailer | State::TrailerName | State::TrailerValue | State::TrailerLineFeed, _) => {
                Err(BadRequest(400, "a trailer field is malformed"))
            }
            _ => Err(BadRequest(400, "a chunk is malformed")),
        }
    }

    fn charge_line(&mut self) -> Result<(), BadRequest> {
        self.line += 1;
        if self.line > FREE_LINE_BYTES {
            self.spare = self.spare.checked_sub(1).ok_or(BadRequest(400, "chunk extensions are too long"))?;
        }
        Ok(())
    }

    fn charge_trailer(&mut self) -> Result<(), BadRequest> {
        self.spare = self.spare.checked_sub(1).ok_or(BadRequest(431, "trailer fields are too long"))?;
        Ok(())
    }
}

const TOO_LONG: BadRequest = BadRequest(413, "The content is longer than this path takes.");

/// Characters allowed in extensions and in field values: no control characters, since another reader might see one as
/// the end of the line.
fn is_text(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

/// A character of a name (RFC 9110, section 5.6.2).
pub(crate) fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIMIT: usize = 1000;
    const OVERHEAD: usize = 100;

    /// Reads a chunked body in pieces. Returns the content, and how many bytes were used; or the status.
    fn read(pieces: &[&[u8]]) -> Result<(Vec<u8>, usize, bool), u16> {
        let mut content = Content::new(Framing::Chunked, LIMIT, OVERHEAD).expect("no length");
        let (mut out, mut used, mut ends) = (Vec::new(), 0, false);
        for piece in pieces {
            let (taken, is_whole) = content.take(piece, &mut out).map_err(|bad| bad.0)?;
            (used, ends) = (used + taken, is_whole);
            assert!(ends || taken == piece.len(), "all is taken of what has not ended");
            assert_eq!(content.taken(), out.len());
        }
        Ok((out, used, ends))
    }

    #[test]
    fn chunks_are_joined() {
        for (body, content) in [
            ("0\r\n\r\n", ""),
            ("5\r\nhello\r\n0\r\n\r\n", "hello"),
            ("5\r\nhello\r\n1\r\n,\r\n0006\r\n world\r\n000\r\n\r\n", "hello, world"),
            ("A\r\n0123456789\r\na\r\n0123456789\r\n0\r\n\r\n", "01234567890123456789"),
            ("2;a=b;c=\"d;e\"\r\nhi\r\n0;last\r\n\r\n", "hi"),
            ("2 \t; a\r\nhi\r\n0 ;\r\n\r\n", "hi"),
            ("2\r\nhi\r\n0\r\nChecksum: abc\r\nX:\r\n\r\n", "hi"),
            ("4\r\n\r\n\r\n\r\n0\r\n\r\n", "\r\n\r\n"),
        ] {
            let followed = format!("{body}GET / HTTP/1.1");
            assert_eq!(read(&[followed.as_bytes()]), Ok((content.into(), body.len(), true)), "{body:?}");
        }
    }

    #[test]
    fn what_is_no_chunk_is_refused() {
        let many = "1\r\nx\r\n".repeat(LIMIT + 1);
        let extension = format!("1;{}\r\nx\r\n", "e".repeat(OVERHEAD / 2));
        let trailer = format!("0\r\nA: {}\r\n\r\n", "t".repeat(OVERHEAD));
        for (body, status) in [
            ("\r\n", 400),
            ("x", 400),
            ("-1\r\n", 400),
            ("+1\r\n", 400),
            ("0x1\r\n", 400),
            (" 1\r\n", 400),
            (";a\r\n", 400),
            ("1\n", 400),
            ("1 \r\n", 400),
            ("1\r\r", 400),
            ("1;a\nx", 400),
            ("1;a\rx", 400),
            ("1;\0", 400),
            ("1\r\nxy", 400),
            ("1\r\nx\n", 400),
            ("1\r\nx\rx", 400),
            ("0\r\n\n", 400),
            ("0\r\n\rx", 400),
            ("0\r\n folded: a", 400),
            ("0\r\nno colon", 400),
            ("0\r\nA: b\n", 400),
            ("0\r\n: b", 400),
            ("3e9\r\n", 413),
            ("fffffffffffffffff\r\n", 413),
            ("ffffffffffffffffffffffffffffffffffffffff\r\n", 413),
            (&many, 413),
            (&extension.repeat(4), 400),
            (&"0".repeat(OVERHEAD + FREE_LINE_BYTES + 1), 400),
            (&trailer, 431),
        ] {
            assert_eq!(read(&[body.as_bytes()]), Err(status), "{body:?}");
        }
    }

    /// Chunks of one byte, each with an extension of 10 KB, let a client send ten thousand times what counts.
    #[test]
    fn extensions_do_not_multiply_what_is_read() {
        let one = format!("1;{}\r\nx\r\n", "e".repeat(10_000));
        let mut content = Content::new(Framing::Chunked, 1 << 20, 16 << 10).expect("no length");
        let mut out = Vec::new();
        let taken = (0..10).take_while(|_| content.take(one.as_bytes(), &mut out).is_ok()).count();
        assert!(taken < 2, "{taken} of them were taken");
    }

    #[test]
    fn a_length_is_a_promise_and_costs_nothing() {
        let mut content = Content::new(Framing::Length(1 << 30), 1 << 30, 0).expect("as long as may be");
        let mut out = Vec::new();
        assert_eq!((content.whole(b"abc"), content.take(b"abc", &mut out)), (None, Ok((3, false))));
        assert!(out.capacity() < 100, "{} bytes for 3", out.capacity());
        let whole = Content::new(Framing::Length(3), 3, 0).expect("as long as may be");
        assert_eq!(whole.whole(b"abcd"), Some(&b"abc"[..]));
        assert_eq!(Content::new(Framing::Length(4), 3, 0).map(|_| ()), Err(TOO_LONG));
        assert_eq!(Content::new(Framing::Length(u64::MAX), 3, 0).map(|_| ()), Err(TOO_LONG));
    }

    /// A body of chunks, and its content.
    fn chunked() -> impl Strategy<Value = (Vec<u8>, Vec<u8>)> {
        let chunk = (prop::collection::vec(any::<u8>(), 1..40), 0usize..3, prop::bool::ANY);
        (prop::collection::vec(chunk, 0..12), prop::bool::ANY).prop_map(|(chunks, trailer)| {
            let (mut body, mut content) = (Vec::new(), Vec::new());
            for (data, zeros, extension) in chunks {
                let extension = if extension { ";e=\"1\"" } else { "" };
                body.extend(format!("{}{:x}{extension}\r\n", "0".repeat(zeros), data.len()).into_bytes());
                body.extend_from_slice(&data);
                body.extend_from_slice(b"\r\n");
                content.extend(data);
            }
            body.extend_from_slice(if trailer { b"0\r\nA: b\r\n\r\n" } else { b"0\r\n\r\n" });
            (body, content)
        })
    }

    proptest! {
        #[test]
        fn every_split_gives_the_same((body, content) in chunked()) {
            let wanted = Ok((content, body.len(), true));
            prop_assert_eq!(&read(&[&body]), &wanted);
            for cut in 0..=body.len() {
                let (first, second) = body.split_at(cut);
                prop_assert_eq!(&read(&[first, second]), &wanted, "cut at {}", cut);
            }
            let bytes: Vec<&[u8]> = body.chunks(1).collect();
            prop_assert_eq!(&read(&bytes), &wanted);
        }

        #[test]
        fn any_bytes_give_the_same_in_any_pieces(bytes in prop::collection::vec(
            prop::sample::select(b"0123aF;: \t\r\n\0x\"".to_vec()), 0..60), cut in any::<prop::sample::Index>()) {
            let cut = cut.index(bytes.len() + 1);
            let whole = read(&[&bytes]);
            prop_assert_eq!(read(&bytes.chunks(1).collect::<Vec<_>>()).err(), whole.as_ref().err().copied());
            prop_assert_eq!(read(&[&bytes[..cut], &bytes[cut..]]).err(), whole.err());
        }
    }
}
