//! A raw client: bytes out, responses and frames in, without a library that would mend or refuse them.

use super::PATIENCE;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// The sample key of RFC 6455, section 1.3, and the value that accepts it.
pub const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
pub const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// Masking key of every frame that [`frame`] makes.
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// First bytes of final frames.
pub const TEXT: u8 = 0x81;
pub const BINARY: u8 = 0x82;
pub const CLOSE: u8 = 0x88;
pub const PING: u8 = 0x89;
pub const PONG: u8 = 0x8a;

/// A request to upgrade `path`, with further header lines, each ended by CR LF.
pub fn upgrade_request(path: &str, headers: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: test.example\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n{headers}\r\n"
    )
}

/// A masked frame: first byte (FIN, reserved bits, opcode) and payload.
pub fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = header(first, payload.len() as u64);
    out.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    out
}

/// The header of a masked frame whose payload has so many bytes.
pub fn header(first: u8, payload_bytes: u64) -> Vec<u8> {
    let mut out = vec![first];
    match payload_bytes {
        0..126 => out.push(0x80 | payload_bytes as u8),
        126..65536 => {
            out.push(0x80 | 126);
            out.extend_from_slice(&(payload_bytes as u16).to_be_bytes());
        }
        _ => {
            out.push(0x80 | 127);
            out.extend_from_slice(&payload_bytes.to_be_bytes());
        }
    }
    out.extend_from_slice(&MASK);
    out
}

/// A masked Close frame.
pub fn close_frame(code: u16, reason: &str) -> Vec<u8> {
    frame(CLOSE, &[&code.to_be_bytes(), reason.as_bytes()].concat())
}

/// An HTTP response.
#[derive(Debug)]
pub struct Response {
    pub status: u16,
    /// Status line and headers.
    pub head: String,
    pub body: String,
}

impl Response {
    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().skip(1).filter_map(|line| line.split_once(':'));
        lines.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim_start())
    }
}

/// A frame from the server.
#[derive(Debug, PartialEq, Eq)]
pub struct Frame {
    /// FIN, reserved bits and opcode.
    pub first: u8,
    pub payload: Vec<u8>,
}

/// A connection, and the bytes that came and were not looked at yet.
pub struct Client<S = TcpStream> {
    pub stream: S,
    pending: Vec<u8>,
}

impl Client {
    /// Connects by TCP.
    pub fn connect(addr: SocketAddr) -> Client {
        let stream = TcpStream::connect(addr).expect("the server accepts (is ulimit -n too low?)");
        stream.set_read_timeout(Some(PATIENCE)).expect("an option");
        stream.set_nodelay(true).expect("an option");
        Client::over(stream)
    }

    /// Reads a frame, if one begins to come within `time`.
    pub fn frame_within(&mut self, time: Duration) -> Option<Frame> {
        if self.pending.is_empty() {
            self.stream.set_read_timeout(Some(time)).expect("an option");
            let something = self.stream.peek(&mut [0; 1]).is_ok();
            self.stream.set_read_timeout(Some(PATIENCE)).expect("an option");
            if !something {
                return None;
            }
        }
        Some(self.frame())
    }

    /// The client's own address, as it stands in the server's log.
    pub fn addr(&self) -> SocketAddr {
        self.stream.local_addr().expect("connected")
    }
}

impl<S: Read + Write> Client<S> {
    /// A client over a connection that exists.
    pub fn over(stream: S) -> Client<S> {
        Client { stream, pending: Vec::new() }
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).expect("the server reads");
    }

    /// Reads more; false at the end of the stream.
    fn fill(&mut self) -> bool {
        let mut buffer = [0; 16 * 1024];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => return false,
                Ok(bytes) => {
                    self.pending.extend_from_slice(&buffer[..bytes]);
                    return true;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) => {
                    return false;
                }
                Err(error) => panic!("in vain waited for the server: {error}"),
            }
        }
    }

    fn take(&mut self, count: usize) -> Vec<u8> {
        while self.pending.len() < count {
            assert!(self.fill(), "the stream ended within {count} bytes, at {:?}", self.pending);
        }
        self.pending.drain(..count).collect()
    }

    /// Reads a response.
    pub fn response(&mut self) -> Response {
        let mut response = self.head_response();
        let bytes = response.header("content-length").map_or(0, |value| value.parse().expect("a length"));
        response.body = String::from_utf8(self.take(bytes)).expect("text");
        response
    }

    /// Reads a response that has no content whatever its Content-Length says.
    pub fn head_response(&mut self) -> Response {
        let end = loop {
            if let Some(at) = self.pending.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            assert!(self.fill(), "the stream ended within a response: {:?}", String::from_utf8_lossy(&self.pending));
        };
        let head = String::from_utf8(self.take(end)).expect("text");
        let status = head.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)).and_then(|code| code.parse().ok());
        Response { status: status.unwrap_or_else(|| panic!("no status line: {head}")), head, body: String::new() }
    }

    /// Sends `GET path` and reads the response.
    pub fn get(&mut self, path: &str) -> Response {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: test.example\r\n\r\n"));
        self.response()
    }

    /// Upgrades on `/ws`, with further header lines.
    pub fn upgrade(&mut self, headers: &str) -> Response {
        self.send(upgrade_request("/ws", headers));
        let response = self.head_response();
        assert_eq!(response.status, 101, "{}", response.head);
        response
    }

    /// Reads a frame.
    pub fn frame(&mut self) -> Frame {
        let [first, length] = self.take(2)[..] else { unreachable!("two bytes") };
        assert_eq!(length & 0x80, 0, "a server masks nothing");
        let extended = match length {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let bytes = self.take(extended).iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte));
        Frame { first, payload: self.take(if extended == 0 { usize::from(length) } else { bytes }) }
    }

    /// Sends a text and reads the text that comes back.
    pub fn echo(&mut self, text: &str) -> String {
        self.send(frame(TEXT, text.as_bytes()));
        self.text()
    }

    /// Reads a text message, passing over Pings.
    pub fn text(&mut self) -> String {
        loop {
            let frame = self.frame();
            if frame.first == TEXT {
                return String::from_utf8(frame.payload).expect("UTF-8");
            }
            assert_eq!(frame.first, PING, "neither text nor Ping");
        }
    }

    /// Reads up to a Close frame: its code and reason.
    pub fn closed(&mut self) -> (u16, String) {
        loop {
            let Frame { first, payload } = self.frame();
            if first != CLOSE {
                continue;
            }
            let (code, reason) = payload.split_at_checked(2).expect("a Close frame with a code");
            return (u16::from_be_bytes([code[0], code[1]]), String::from_utf8(reason.to_vec()).expect("UTF-8"));
        }
    }

    /// Waits for the end of the stream; what came before it.
    pub fn rest(&mut self) -> Vec<u8> {
        while self.fill() {}
        std::mem::take(&mut self.pending)
    }

    /// Waits for the end of the stream, before which nothing may come.
    pub fn ends(&mut self) {
        let rest = self.rest();
        assert!(rest.is_empty(), "more came: {:?}", String::from_utf8_lossy(&rest));
    }
}
