//! tungstenite's client, an independent implementation, as the oracle for replies.

use crate::common::{PATIENCE, Server};
use std::net::TcpStream;
use tungstenite::protocol::frame::coding::{CloseCode, Control, Data, OpCode};
use tungstenite::protocol::frame::{CloseFrame, Frame, FrameHeader};
use tungstenite::{Bytes, Error, Message, Utf8Bytes, WebSocket};

type Oracle = WebSocket<TcpStream>;

fn connect(server: &Server) -> Oracle {
    let stream = TcpStream::connect(server.addr()).expect("the server accepts");
    stream.set_read_timeout(Some(PATIENCE)).expect("an option");
    stream.set_nodelay(true).expect("an option");
    let (socket, response) = tungstenite::client(server.url("/ws?a=b"), stream).expect("a handshake");
    assert_eq!(response.status(), 101);
    socket
}

/// Bytes without a period that a wrong copy or mask could hide behind.
fn noise(bytes: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    };
    (0..bytes).map(|_| next()).collect()
}

/// Text of exactly so many bytes, with characters of one to four bytes at its beginning and end.
fn text(bytes: usize) -> String {
    let (start, end) = ("a\u{e9}\u{20ac}\u{1f980}", "\u{1f980}\u{20ac}\u{e9}z");
    match bytes.checked_sub(start.len() + end.len()) {
        Some(middle) => format!("{start}{}{end}", "x".repeat(middle)),
        None => "x".repeat(bytes),
    }
}

#[test]
fn every_size_comes_back_as_it_went() {
    let server = Server::start(&["--max-message", "16M", "--max-backlog", "32M"]);
    let mut socket = connect(&server);
    let sizes = [0, 1, 2, 3, 4, 7, 8, 15, 16, 31, 63, 124, 125, 126, 127, 128, 1000, 4096, 16384, 65_534, 65_535];
    for size in sizes.into_iter().chain([65_536, 65_537, 262_143, 262_144, 1 << 20, (1 << 20) + 1, 16 << 20]) {
        for message in [Message::binary(noise(size)), Message::text(text(size))] {
            socket.send(message.clone()).expect("sent");
            assert!(socket.read().expect("an answer") == message, "{size} bytes");
        }
    }
}

#[test]
fn many_in_flight_keep_their_order() {
    let server = Server::start(&[]);
    let mut socket = connect(&server);
    for round in 0..20 {
        let messages: Vec<Message> = (0..500)
            .map(|n| if n % 3 == 0 { Message::binary(noise(n)) } else { Message::text(format!("{round}/{n}")) })
            .collect();
        for message in &messages {
            socket.write(message.clone()).expect("written");
        }
        socket.flush().expect("sent");
        for message in &messages {
            assert_eq!(&socket.read().expect("an answer"), message);
        }
    }
}

fn fragment(payload: &[u8], opcode: Data, is_final: bool) -> Message {
    Message::Frame(Frame::message(payload.to_vec(), OpCode::Data(opcode), is_final))
}

#[test]
fn fragments_come_back_as_one_message() {
    let server = Server::start(&[]);
    let mut socket = connect(&server);
    let whole = text(200_000);
    // Cuts within characters, empty fragments, and sizes at every border of the header.
    for cuts in [vec![0, 0], vec![2, 2, 4, 8], vec![1], vec![125, 126, 65_535, 131_071], (1..300).collect()] {
        let (mut from, mut opcode) = (0, Data::Text);
        for cut in cuts {
            socket.send(fragment(&whole.as_bytes()[from..cut], opcode, false)).expect("sent");
            // Control frames may come in between (RFC 6455, section 5.4).
            socket.send(Message::Ping(Bytes::from(cut.to_string()))).expect("sent");
            assert_eq!(socket.read().expect("a Pong"), Message::Pong(Bytes::from(cut.to_string())));
            (from, opcode) = (cut, Data::Continue);
        }
        socket.send(fragment(&whole.as_bytes()[from..], opcode, true)).expect("sent");
        assert!(socket.read().expect("an answer") == Message::text(whole.as_str()));
    }
    socket.send(fragment(b"", Data::Binary, false)).expect("sent");
    socket.send(fragment(b"", Data::Continue, true)).expect("sent");
    assert_eq!(socket.read().expect("an answer"), Message::binary(Vec::new()));
}

#[test]
fn pings_are_answered_and_pongs_are_not() {
    let server = Server::start(&[]);
    let mut socket = connect(&server);
    for size in [0, 1, 64, 125] {
        socket.send(Message::Pong(Bytes::from(noise(size)))).expect("sent");
        socket.send(Message::Ping(Bytes::from(noise(size)))).expect("sent");
        assert_eq!(socket.read().expect("a Pong"), Message::Pong(Bytes::from(noise(size))));
    }
}

/// Reads the Close frame and then the end of the connection.
fn closing(socket: &mut Oracle) -> Option<CloseFrame> {
    let Message::Close(frame) = socket.read().expect("a Close frame") else { panic!("no Close frame") };
    assert!(matches!(socket.read(), Err(Error::ConnectionClosed)));
    frame
}

#[test]
fn a_close_is_answered_with_its_code() {
    let server = Server::start(&[]);
    for code in [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1011, 3000, 3999, 4000, 4999] {
        let mut socket = connect(&server);
        let (code, reason) = (CloseCode::from(code), Utf8Bytes::from("r".repeat(123)));
        socket.close(Some(CloseFrame { code, reason })).expect("sent");
        assert_eq!(closing(&mut socket).map(|frame| frame.code), Some(code));
    }
    let mut socket = connect(&server);
    socket.close(None).expect("sent");
    assert_eq!(closing(&mut socket), None);
    assert_eq!(server.count_log("WebSocket error"), 0, "a normal close is not an error");
}

#[test]
fn what_must_not_be_sent_is_closed_with_its_code() {
    let server = Server::start(&["--max-message", "1K"]);
    let (text, close) = (OpCode::Data(Data::Text), OpCode::Control(Control::Close));
    let bad_close = |code: u16| (close, code.to_be_bytes().to_vec(), CloseCode::Protocol);
    for (opcode, payload, code) in [
        (text, b"\xff".to_vec(), CloseCode::Invalid),
        (text, b"\xed\xa0\x80".to_vec(), CloseCode::Invalid),
        (close, b"\x03\xe8\xff".to_vec(), CloseCode::Invalid),
        (text, vec![b'x'; 1025], CloseCode::Size),
        (OpCode::Data(Data::Reserved(3)), Vec::new(), CloseCode::Protocol),
        (OpCode::Data(Data::Continue), Vec::new(), CloseCode::Protocol),
        (close, vec![3], CloseCode::Protocol),
        bad_close(999),
        bad_close(1005),
        bad_close(1006),
        bad_close(1015),
        bad_close(2999),
        bad_close(5000),
    ] {
        let mut socket = connect(&server);
        let shown = format!("{opcode:?} of {payload:?}");
        let header = FrameHeader { opcode, mask: Some([1, 2, 3, 4]), ..FrameHeader::default() };
        socket.send(Message::Frame(Frame::from_payload(header, payload.into()))).expect("sent");
        let got = socket.read().expect("a Close frame");
        assert!(matches!(&got, Message::Close(Some(close)) if close.code == code), "{shown}: {got:?}");
    }
    server.assert_alive();
}

#[test]
fn messages_of_the_largest_size_and_not_beyond() {
    let server = Server::start(&["--max-message", "100000"]);
    let mut socket = connect(&server);
    socket.send(Message::binary(noise(100_000))).expect("sent");
    assert!(socket.read().expect("an answer") == Message::binary(noise(100_000)));
    // In fragments the sum counts.
    socket.send(fragment(&noise(60_000), Data::Binary, false)).expect("sent");
    socket.send(fragment(&noise(40_001), Data::Continue, true)).expect("sent");
    assert_eq!(closing(&mut socket).map(|frame| frame.code), Some(CloseCode::Size));
}
