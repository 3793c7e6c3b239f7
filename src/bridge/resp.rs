//! Redis's protocol, RESP2: commands as bytes, and replies from bytes in pieces of any size. No sockets, no clock.
//!
//! A long bulk string is awaited by its length and never scanned; one beyond the limit is skipped as it arrives, so
//! that memory is bounded by what was asked for and not by what is sent.

use std::fmt;
use std::io::Write;
use std::ops::Range;

/// The longest line: a status, an error, a number.
const MAX_LINE_BYTES: usize = 64 << 10;
/// The most elements of a reply, including those of nested arrays.
const MAX_ELEMENTS: usize = 1024;
/// The deepest nesting of arrays.
const MAX_DEPTH: usize = 8;
/// Capacity to keep for the next reply.
const KEPT_BYTES: usize = 1 << 20;

/// Writes a command; each argument is given in parts.
pub fn command(out: &mut Vec<u8>, arguments: &[&[&[u8]]]) {
    // Writing to memory cannot fail.
    let head = |sign: char, number: usize, out: &mut Vec<u8>| drop(write!(out, "{sign}{number}\r\n"));
    head('*', arguments.len(), out);
    for parts in arguments {
        head('$', parts.iter().map(|part| part.len()).sum(), out);
        parts.iter().for_each(|part| out.extend_from_slice(part));
        out.extend_from_slice(b"\r\n");
    }
}

/// A reply, or an element of one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Reply<'a> {
    /// A status, such as `OK`.
    Status(&'a [u8]),
    /// An error, as text.
    Error(&'a [u8]),
    /// A number.
    Integer(i64),
    /// Bytes.
    Bulk(&'a [u8]),
    /// A bulk string longer than the limit, with its length.
    TooLong(usize),
    /// No bytes, or no array.
    Nil,
    /// An array.
    Array(Vec<Reply<'a>>),
}

/// Why the input is not a reply. The connection cannot continue after it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NoReply(pub &'static str);

impl fmt::Display for NoReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not Redis's protocol: {}", self.0)
    }
}

/// An element read so far. Ranges count from the beginning of the reply.
enum Token {
    Status(Range<usize>),
    Error(Range<usize>),
    Integer(i64),
    Bulk(Range<usize>),
    TooLong(usize),
    Nil,
    Array(usize),
}

/// Reads replies.
#[derive(Default)]
pub struct Replies {
    max_bulk: usize,
    bytes: Vec<u8>,
    /// Start of the current reply.
    start: usize,
    /// Everything before is read.
    at: usize,
    /// There is no end of a line before this.
    searched: usize,
    tokens: Vec<Token>,
    /// Elements still to come, for each open array.
    open: Vec<usize>,
    /// The length of a bulk string still to come.
    bulk: Option<usize>,
    /// Bytes to skip.
    skip: usize,
    done: bool,
}

impl Replies {
    /// Makes a reader. Of a bulk string longer than `max_bulk` it returns only the length, as of one that makes a reply
    /// far longer than two of them.
    pub fn new(max_bulk: usize) -> Replies {
        Replies { max_bulk, ..Replies::default() }
    }

    /// Takes received bytes.
    pub fn feed(&mut self, mut bytes: &[u8]) {
        self.forget();
        if self.start > 0 {
            self.bytes.drain(..self.start);
            (self.at, self.searched) = (self.at - self.start, self.searched.saturating_sub(self.start));
            self.start = 0;
        }
        if self.bytes.is_empty() {
            self.bytes.shrink_to(KEPT_BYTES);
        }
        // Bytes to skip need not be stored first.
        if self.at == self.bytes.len() {
            let passed = self.skip.min(bytes.len());
            (self.skip, bytes) = (self.skip - passed, &bytes[passed..]);
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// Returns the next reply; `None` until more is fed.
    ///
    /// # Errors
    /// When the input is not a reply.
    pub fn next_reply(&mut self) -> Result<Option<Reply<'_>>, NoReply> {
        self.forget();
        while !self.done {
            if !self.read_element()? {
                return Ok(None);
            }
        }
        let bytes = &self.bytes[self.start..self.at];
        Ok(build(&mut self.tokens.iter(), bytes))
    }

    /// Drops the reply that was handed out.
    fn forget(&mut self) {
        if std::mem::take(&mut self.done) {
            self.tokens.clear();
            self.start = self.at;
        }
    }

    /// Reads one element if it is complete. Returns whether it was.
    fn read_element(&mut self) -> Result<bool, NoReply> {
        if self.skip > 0 {
            let passed = self.skip.min(self.bytes.len() - self.at);
            self.bytes.drain(self.at..self.at + passed);
            self.skip -= passed;
            self.searched = self.at;
            if self.skip > 0 {
                return Ok(false);
            }
        }
        let Some(length) = self.bulk else { return self.read_line() };
        let end = self.at + length;
        let Some(after) = self.bytes.get(end..end + 2) else { return Ok(false) };
        if after != b"\r\n" {
            return Err(NoReply("a bulk string does not end where it should"));
        }
        let token = Token::Bulk(self.at - self.start..end - self.start);
        (self.at, self.bulk) = (end + 2, None);
        self.complete(token)
    }

    fn read_line(&mut self) -> Result<bool, NoReply> {
        let from = self.searched.max(self.at);
        let Some(found) = self.bytes[from..].iter().position(|byte| *byte == b'\n') else {
            self.searched = self.bytes.len();
            return if self.bytes.len() - self.at > MAX_LINE_BYTES { Err(TOO_LONG) } else { Ok(false) };
        };
        let (first, end) = (self.at, from + found);
        let [sign, text @ .., b'\r'] = &self.bytes[first..end] else {
            return Err(NoReply("a line without its type or its end"));
        };
        if text.len() > MAX_LINE_BYTES {
            return Err(TOO_LONG);
        }
        let range = first + 1 - self.start..end - 1 - self.start;
        let (sign, number) = (*sign, number(text));
        self.at = end + 1;
        let token = match (sign, number) {
            (b'+', _) => Token::Status(range),
            (b'-', _) => Token::Error(range),
            (b':', Some(number)) => Token::Integer(number),
            (b'$' | b'*', Some(-1)) => Token::Nil,
            (b'$', Some(length @ 0..)) => return self.begin_bulk(length),
            (b'*', Some(length @ 0..)) => return self.begin_array(length),
            (b':' | b'$' | b'*', _) => return Err(NoReply("not a number where one should be")),
            _ => return Err(NoReply("a line that begins with an unknown type")),
        };
        self.complete(token)
    }

    fn begin_bulk(&mut self, length: i64) -> Result<bool, NoReply> {
        let length = usize::try_from(length).map_err(|_| NoReply("a bulk string with an invalid length"))?;
        // A reply holds at most a channel's name and a message.
        let whole = (self.at - self.start).saturating_add(length);
        if length <= self.max_bulk && whole <= 2 * self.max_bulk + MAX_LINE_BYTES {
            self.bulk = Some(length);
            return Ok(true);
        }
        self.skip = length.checked_add(2).ok_or(NoReply("a bulk string with an invalid length"))?;
        // Complete once it is skipped, which comes first, as an element may follow.
        self.complete(Token::TooLong(length))
    }

    fn begin_array(&mut self, length: i64) -> Result<bool, NoReply> {
        let length = usize::try_from(length).ok().filter(|length| *length <= MAX_ELEMENTS);
        let length = length.ok_or(NoReply("an array with too many elements"))?;
        if length == 0 {
            return self.complete(Token::Array(0));
        }
        if self.open.len() == MAX_DEPTH {
            return Err(NoReply("arrays nested too deeply"));
        }
        self.open.push(length);
        self.push(Token::Array(length))
    }

    /// An element without elements of its own.
    fn complete(&mut self, token: Token) -> Result<bool, NoReply> {
        self.push(token)?;
        while let Some(left) = self.open.last_mut() {
            *left -= 1;
            if *left > 0 {
                return Ok(true);
            }
            self.open.pop();
        }
        self.done = true;
        Ok(true)
    }

    fn push(&mut self, token: Token) -> Result<bool, NoReply> {
        if self.tokens.len() == MAX_ELEMENTS {
            return Err(NoReply("a reply with too many elements"));
        }
        self.tokens.push(token);
        Ok(true)
    }
}

const TOO_LONG: NoReply = NoReply("a line that is too long");

fn number(text: &[u8]) -> Option<i64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// Builds an element from its tokens, which are all there once a reply is complete.
fn build<'a>(tokens: &mut std::slice::Iter<'_, Token>, bytes: &'a [u8]) -> Option<Reply<'a>> {
    Some(match tokens.next()? {
        Token::Status(range) => Reply::Status(&bytes[range.clone()]),
        Token::Error(range) => Reply::Error(&bytes[range.clone()]),
        Token::Integer(number) => Reply::Integer(*number),
        Token::Bulk(range) => Reply::Bulk(&bytes[range.clone()]),
        Token::TooLong(length) => Reply::TooLong(*length),
        Token::Nil => Reply::Nil,
        Token::Array(length) => Reply::Array((0..*length).map_while(|_| build(tokens, bytes)).collect()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    /// A reply that owns its bytes.
    #[derive(Clone, PartialEq, Eq, Debug)]
    enum Owned {
        Status(Vec<u8>),
        Error(Vec<u8>),
        Integer(i64),
        Bulk(Vec<u8>),
        TooLong(usize),
        Nil,
        Array(Vec<Owned>),
    }

    #[test]
    fn a_reply_as_a_whole_is_bounded() {
        let mut replies = Replies::new(1 << 20);
        replies.feed(b"*9\r\n");
        for _ in 0..9 {
            assert_eq!(replies.next_reply(), Ok(None));
            replies.feed(b"$1048576\r\n");
            replies.feed(&vec![b'x'; 1 << 20]);
            replies.feed(b"\r\n");
        }
        assert!(replies.bytes.len() < 4 << 20, "{} bytes kept", replies.bytes.len());
        let Ok(Some(Reply::Array(items))) = replies.next_reply() else { panic!("a reply") };
        assert_eq!((items.len(), &items[2..]), (9, &[(); 7].map(|()| Reply::TooLong(1 << 20))[..]));
    }

    fn owned(reply: Reply<'_>) -> Owned {
        match reply {
            Reply::Status(text) => Owned::Status(text.into()),
            Reply::Error(text) => Owned::Error(text.into()),
            Reply::Integer(number) => Owned::Integer(number),
            Reply::Bulk(bytes) => Owned::Bulk(bytes.into()),
            Reply::TooLong(length) => Owned::TooLong(length),
            Reply::Nil => Owned::Nil,
            Reply::Array(all) => Owned::Array(all.into_iter().map(owned).collect()),
        }
    }

    const LIMIT: usize = 20;

    /// Writes it as Redis would send it, and returns what is read of it.
    fn encode(reply: &Owned, out: &mut Vec<u8>) -> Owned {
        let mut line = |sign: &str, text: &[u8]| out.extend_from_slice(&[sign.as_bytes(), text, b"\r\n"].concat());
        match reply {
            Owned::Status(text) => line("+", text),
            Owned::Error(text) => line("-", text),
            Owned::Integer(number) => line(":", number.to_string().as_bytes()),
            Owned::Nil => line("$", b"-1"),
            Owned::TooLong(_) => unreachable!("Redis does not send that"),
            Owned::Bulk(bytes) => {
                line("$", bytes.len().to_string().as_bytes());
                out.extend_from_slice(&[bytes, &b"\r\n"[..]].concat());
                if bytes.len() > LIMIT {
                    return Owned::TooLong(bytes.len());
                }
            }
            Owned::Array(all) => {
                line("*", all.len().to_string().as_bytes());
                return Owned::Array(all.iter().map(|reply| encode(reply, out)).collect());
            }
        }
        reply.clone()
    }

    fn replies() -> impl Strategy<Value = Vec<Owned>> {
        let text = || "[a-z ]{0,12}".prop_map(String::into_bytes);
        let leaf = prop_oneof![
            text().prop_map(Owned::Status),
            text().prop_map(Owned::Error),
            any::<i64>().prop_map(Owned::Integer),
            vec(any::<u8>(), 0..LIMIT * 2).prop_map(Owned::Bulk),
            Just(Owned::Nil),
        ];
        vec(leaf.prop_recursive(4, 30, 5, |inner| vec(inner, 0..5).prop_map(Owned::Array)), 0..8)
    }

    fn read(parser: &mut Replies, into: &mut Vec<Owned>) -> Result<(), NoReply> {
        while let Some(reply) = parser.next_reply()? {
            into.push(owned(reply));
        }
        Ok(())
    }

    proptest! {
        #[test]
        fn what_was_sent_is_read_however_it_is_split(sent in replies(), cuts in vec(1usize..40, 1..20)) {
            let mut bytes = Vec::new();
            let wanted: Vec<Owned> = sent.iter().map(|reply| encode(reply, &mut bytes)).collect();
            let (mut parser, mut came) = (Replies::new(LIMIT), Vec::new());
            let (mut rest, mut cuts) = (&bytes[..], cuts.iter().cycle());
            while !rest.is_empty() {
                let (piece, tail) = rest.split_at(rest.len().min(*cuts.next().expect("a cycle")));
                parser.feed(piece);
                rest = tail;
                read(&mut parser, &mut came).expect("replies");
            }
            prop_assert_eq!(&came, &wanted);
            let (mut whole, mut at_once) = (Replies::new(LIMIT), Vec::new());
            whole.feed(&bytes);
            read(&mut whole, &mut at_once).expect("replies");
            prop_assert_eq!(&at_once, &wanted);
        }

        #[test]
        fn any_bytes_come_to_the_same_however_they_are_split(
            bytes in vec(prop_oneof![Just(b'\r'), Just(b'\n'), Just(b'*'), Just(b'$'), Just(b':'), Just(b'-'), Just(b'1'),
                Just(b'3'), any::<u8>()], 0..80),
            cut in any::<prop::sample::Index>()
        ) {
            let result = |pieces: &[&[u8]]| {
                let (mut parser, mut came) = (Replies::new(LIMIT), Vec::new());
                let ended = pieces.iter().try_for_each(|piece| {
                    parser.feed(piece);
                    read(&mut parser, &mut came)
                });
                (came, ended)
            };
            let (front, back) = bytes.split_at(cut.index(bytes.len() + 1));
            prop_assert_eq!(result(&[&bytes]), result(&[front, back]));
        }

        #[test]
        fn a_command_is_an_array_of_its_arguments(all in vec(vec(vec(any::<u8>(), 0..10), 0..4), 1..5)) {
            let parts: Vec<Vec<&[u8]>> = all.iter().map(|parts| parts.iter().map(Vec::as_slice).collect()).collect();
            let arguments: Vec<&[&[u8]]> = parts.iter().map(Vec::as_slice).collect();
            let (mut bytes, mut parser) = (Vec::new(), Replies::new(1000));
            command(&mut bytes, &arguments);
            parser.feed(&bytes);
            let wanted = all.iter().map(|parts| Owned::Bulk(parts.concat())).collect();
            prop_assert_eq!(parser.next_reply().expect("a reply").map(owned), Some(Owned::Array(wanted)));
            prop_assert_eq!(parser.next_reply(), Ok(None));
        }
    }

    #[test]
    fn what_is_too_long_takes_no_memory() {
        let (mut parser, mut came) = (Replies::new(LIMIT), Vec::new());
        parser.feed(b"*2\r\n$1000000\r\n");
        for _ in 0..1000 {
            read(&mut parser, &mut came).expect("so far");
            parser.feed(&[b'x'; 1000]);
            assert!(parser.bytes.len() < 2000);
        }
        assert!(came.is_empty());
        parser.feed(b"\r\n:7\r\n:8\r\n");
        read(&mut parser, &mut came).expect("replies");
        let array = Owned::Array(vec![Owned::TooLong(1_000_000), Owned::Integer(7)]);
        assert_eq!(came, [array, Owned::Integer(8)]);
    }

    #[test]
    fn what_is_no_reply_is_said_to_be_none() {
        for (bytes, why) in [
            (&b"HTTP/1.1 400 Bad Request\r\n"[..], "unknown type"),
            (b"\r\n", "without its type"),
            (b"+OK\n", "without its type"),
            (b":x\r\n", "not a number"),
            (b"$-2\r\n", "not a number"),
            (b"$2\r\nabcd", "does not end"),
            (b"*2000\r\n", "too many"),
            (&b"*1\r\n".repeat(9), "too deep"),
            (&[&b"*1024\r\n"[..], &b":1\r\n".repeat(1024)].concat(), "too many"),
            (&[b'+'; 70_000], "too long"),
        ] {
            let (mut parser, mut came) = (Replies::new(LIMIT), Vec::new());
            parser.feed(bytes);
            let error = read(&mut parser, &mut came).expect_err("no reply");
            assert!(error.0.contains(why), "{error}");
        }
    }
}
