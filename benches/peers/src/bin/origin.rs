//! The application behind a gateway, for `benches/gateway`: it answers at once, in the form that it is asked in.
//!
//! * WebSocket-over-HTTP, as Pushpin speaks it: messages come back in the answer.
//! * The events of AWS: the answer to a message is its text.
//! * The JSON of websocket-service: each event is taken.
//!
//! A connection to `/subscribe?NAME` is put on the channel NAME. `GET /count` tells how many messages came, `GET /ids` the
//! ids of the connections that opened, in the JSON of websocket-service.

use mio::event::Event;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use percore_peers::address;
use slab::Slab;
use std::io::{self, ErrorKind, Read, Write};

const LISTENER: Token = Token(usize::MAX);
const READ_BYTES: usize = 256 * 1024;
const WEBSOCKET_EVENTS: &[u8] = b"application/websocket-events";

struct Connection {
    stream: TcpStream,
    /// The beginning of a request whose end has not come.
    input: Vec<u8>,
    /// What the socket did not take.
    output: Vec<u8>,
}

#[derive(Default)]
struct Origin {
    messages: u64,
    ids: Vec<Vec<u8>>,
}

struct Request<'a> {
    target: &'a [u8],
    head: &'a [u8],
    content: &'a [u8],
}

fn find(text: &[u8], what: &[u8]) -> Option<usize> {
    text.windows(what.len()).position(|window| window == what)
}

/// What stands between `before` and the next `end`.
fn between<'a>(text: &'a [u8], before: &[u8], end: &[u8]) -> Option<&'a [u8]> {
    let rest = &text[find(text, before)? + before.len()..];
    Some(&rest[..find(rest, end)?])
}

impl<'a> Request<'a> {
    /// The first request of these bytes, and its length.
    fn read(bytes: &'a [u8]) -> Option<(Request<'a>, usize)> {
        let end = find(bytes, b"\r\n\r\n")?;
        let head = &bytes[..end];
        let length = header(head, b"content-length").and_then(|value| std::str::from_utf8(value).ok()?.parse().ok());
        let (start, length): (usize, usize) = (end + 4, length.unwrap_or(0));
        let content = bytes.get(start..start + length)?;
        let target = head.split(|byte| *byte == b' ').nth(1)?;
        Some((Request { target, head, content }, start + length))
    }
}

fn header<'a>(head: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    head.split(|byte| *byte == b'\n').find_map(|line| {
        let (have, value) = line.split_at_checked(name.len())?;
        let value = value.strip_prefix(b":").filter(|_| have.eq_ignore_ascii_case(name))?;
        Some(value.trim_ascii())
    })
}

fn respond(out: &mut Vec<u8>, headers: &[u8], content: &[&[u8]]) {
    out.extend_from_slice(b"HTTP/1.1 200 OK\r\n");
    out.extend_from_slice(headers);
    let length: usize = content.iter().map(|part| part.len()).sum();
    // Writing to a Vec cannot fail.
    let _ = write!(out, "Content-Length: {length}\r\n\r\n");
    content.iter().for_each(|part| out.extend_from_slice(part));
}

impl Origin {
    fn answer(&mut self, request: &Request<'_>, out: &mut Vec<u8>) {
        let content = request.content;
        match request.target {
            b"/count" => respond(out, b"", &[self.messages.to_string().as_bytes()]),
            b"/ids" => respond(out, b"", &[&self.ids.join(&b'\n')]),
            _ if header(request.head, b"content-type") == Some(WEBSOCKET_EVENTS) => {
                self.answer_events(request, out);
            }
            _ => {
                if content.starts_with(b"{\"WebSocketEvent\"") {
                    self.take(request, out);
                } else if let Some(text) = between(content, b"\"body\":\"", b"\",\"isBase64Encoded\"") {
                    self.messages += 1;
                    respond(out, b"", &[b"{\"statusCode\":200,\"body\":\"", text, b"\"}"]);
                } else {
                    respond(out, b"", &[b"{\"statusCode\":200}"]);
                }
            }
        }
    }

    /// An event of websocket-service.
    fn take(&mut self, request: &Request<'_>, out: &mut Vec<u8>) {
        if find(request.content, b"\"MessageReceived\":{").is_some() {
            self.messages += 1;
        } else if find(request.content, b"\"ConnectionEstablished\":{").is_some() {
            self.ids.extend(between(request.content, b"\"ConnectionId\":\"", b"\"").map(<[u8]>::to_vec));
            if let Some(channel) = header(request.head, b"percore-query") {
                return respond(out, &[b"percore-channels: ", channel, b"\r\n"].concat(), &[]);
            }
        }
        respond(out, b"", &[]);
    }

    /// Events of WebSocket-over-HTTP: `TYPE[ HEXLENGTH]\r\n`, and `CONTENT\r\n` where there is a length.
    fn answer_events(&mut self, request: &Request<'_>, out: &mut Vec<u8>) {
        let (mut events, mut rest) = (Vec::new(), request.content);
        let mut headers = b"Content-Type: application/websocket-events\r\n".to_vec();
        while let Some(end) = find(rest, b"\r\n") {
            let mut words = rest[..end].split(|byte| *byte == b' ');
            let kind = words.next().unwrap_or_default();
            let length = words.next().and_then(|word| std::str::from_utf8(word).ok());
            let length = length.and_then(|word| usize::from_str_radix(word, 16).ok());
            let whole = end + 2 + length.map_or(0, |length| length + 2);
            let Some(event) = rest.get(..whole) else { break };
            match kind {
                b"OPEN" => {
                    events.extend_from_slice(event);
                    let subscribes = request.target.strip_prefix(b"/subscribe?");
                    if let Some(channel) = subscribes.and_then(|channel| std::str::from_utf8(channel).ok()) {
                        headers.extend_from_slice(b"Sec-WebSocket-Extensions: grip\r\n");
                        let control = format!("c:{{\"type\":\"subscribe\",\"channel\":\"{channel}\"}}");
                        events.extend_from_slice(format!("TEXT {:x}\r\n{control}\r\n", control.len()).as_bytes());
                    }
                }
                b"TEXT" | b"BINARY" => {
                    self.messages += 1;
                    events.extend_from_slice(event);
                }
                b"CLOSE" => events.extend_from_slice(event),
                _ => {}
            }
            rest = &rest[whole..];
        }
        respond(out, &headers, &[&events]);
    }
}

impl Connection {
    /// Answers what has come. False when the peer is gone.
    fn ready(&mut self, event: &Event, origin: &mut Origin, buffer: &mut [u8]) -> io::Result<bool> {
        loop {
            let bytes = match self.stream.read(buffer) {
                Ok(0) => return Ok(false),
                Ok(bytes) => bytes,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            };
            if self.input.is_empty() {
                let used = respond_to_all(origin, &buffer[..bytes], &mut self.output);
                self.input.extend_from_slice(&buffer[used..bytes]);
            } else {
                self.input.extend_from_slice(&buffer[..bytes]);
                let used = respond_to_all(origin, &self.input, &mut self.output);
                self.input.drain(..used);
            }
            if bytes < buffer.len() && !event.is_read_closed() {
                break;
            }
        }
        self.write()?;
        Ok(true)
    }

    fn write(&mut self) -> io::Result<()> {
        while !self.output.is_empty() {
            match self.stream.write(&self.output) {
                Ok(bytes) => drop(self.output.drain(..bytes)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Answers the whole requests of these bytes. Returns how many bytes they are.
fn respond_to_all(origin: &mut Origin, bytes: &[u8], out: &mut Vec<u8>) -> usize {
    let mut used = 0;
    while let Some((request, length)) = Request::read(&bytes[used..]) {
        origin.answer(&request, out);
        used += length;
    }
    used
}

fn accept(listener: &TcpListener, connections: &mut Slab<Connection>, poll: &Poll) -> io::Result<()> {
    loop {
        let mut stream = match listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        };
        stream.set_nodelay(true)?;
        let entry = connections.vacant_entry();
        poll.registry().register(&mut stream, Token(entry.key()), Interest::READABLE | Interest::WRITABLE)?;
        entry.insert(Connection { stream, input: Vec::new(), output: Vec::new() });
    }
}

fn main() -> io::Result<()> {
    let (mut poll, mut events) = (Poll::new()?, Events::with_capacity(1024));
    let mut listener = TcpListener::bind(address())?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    let (mut connections, mut origin, mut buffer) = (Slab::new(), Origin::default(), vec![0; READ_BYTES]);
    loop {
        match poll.poll(&mut events, None) {
            Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error),
            _ => {}
        }
        for event in &events {
            if event.token() == LISTENER {
                accept(&listener, &mut connections, &poll)?;
                continue;
            }
            let key = event.token().0;
            let Some(connection) = connections.get_mut(key) else { continue };
            // A reset ends the connection like an end of stream.
            if !connection.ready(event, &mut origin, &mut buffer).unwrap_or(false) {
                connections.remove(key);
            }
        }
    }
}
