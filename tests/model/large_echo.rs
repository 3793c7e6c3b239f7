//! Large messages are echoed in place, binary ones piece by piece: nothing may get between the pieces, and nothing may
//! get lost.

use percore::internal::apps::echo::Echo;
use percore::internal::session::{Sessions, Settings};
use percore::{CloseCode, Log, Peer};
use std::io::IoSlice;
use std::time::Duration;

const REQUEST: &[u8] = b"GET /ws HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
const PAYLOAD_BYTES: usize = 300_000;

struct Connection {
    sessions: Sessions<Echo>,
    key: u32,
    got: Vec<u8>,
    now: Duration,
}

impl Connection {
    fn open() -> Connection {
        let mut sessions = Sessions::new(Echo, Settings::default(), Log::new(None), 0, [1; 32]);
        sessions.begin_pass(Duration::ZERO);
        let key = sessions.accept(Peer::UNIX).expect("there is room");
        let mut connection = Connection { sessions, key, got: Vec::new(), now: Duration::ZERO };
        connection.receive(REQUEST);
        assert!(connection.got.starts_with(b"HTTP/1.1 101 "));
        connection.got.clear();
        connection
    }

    fn receive(&mut self, bytes: &[u8]) {
        self.sessions.begin_pass(self.now);
        // As the loop reads: what goes back is queued where it lies.
        let mut input = self.sessions.queue().lend_input();
        let space = &mut input.space()[..bytes.len()];
        space.copy_from_slice(bytes);
        self.sessions.receive(self.key, space);
        self.sessions.queue().take_back_input(input, bytes.len());
        self.flush();
    }

    fn advance(&mut self, by: Duration) {
        self.now += by;
        self.sessions.begin_pass(self.now);
        self.sessions.expire();
        self.flush();
    }

    fn flush(&mut self) {
        let queue = self.sessions.queue();
        while let Some(key) = queue.next_dirty() {
            let mut slices = [IoSlice::new(&[]); 64];
            let count = queue.gather(key, &mut slices);
            let bytes: Vec<u8> = slices[..count].iter().flat_map(|slice| slice.to_vec()).collect();
            queue.sent(key, bytes.len(), false);
            self.got.extend(bytes);
        }
        queue.end_flush();
        self.sessions.end_pass(|_, _| ());
    }
}

/// A masked binary frame, and its echo.
fn frame(fill: u8) -> (Vec<u8>, Vec<u8>) {
    let mask = [1, 2, 3, 4];
    let payload: Vec<u8> = (0..PAYLOAD_BYTES).map(|i| fill.wrapping_add(i as u8)).collect();
    let length = (PAYLOAD_BYTES as u64).to_be_bytes();
    let masked = payload.iter().enumerate().map(|(i, byte)| byte ^ mask[i % 4]);
    let sent = [0x82, 0xff].into_iter().chain(length).chain(mask).chain(masked).collect();
    let echoed = [0x82, 0x7f].into_iter().chain(length).chain(payload.iter().copied()).collect();
    (sent, echoed)
}

/// A masked frame, and its echo, with the shortest form of the length.
fn whole(opcode: u8, payload_bytes: usize) -> (Vec<u8>, Vec<u8>) {
    let mask = [9, 8, 7, 6];
    let payload: Vec<u8> = (0..payload_bytes).map(|i| b'a' + (i % 23) as u8).collect();
    let length = match u16::try_from(payload_bytes) {
        Ok(short @ 0..=125) => vec![short as u8],
        Ok(short) => [&[126][..], &short.to_be_bytes()].concat(),
        Err(_) => [&[127][..], &(payload_bytes as u64).to_be_bytes()].concat(),
    };
    let masked = payload.iter().enumerate().map(|(i, byte)| byte ^ mask[i % 4]);
    let sent = [0x80 | opcode, length[0] | 0x80].into_iter().chain(length[1..].to_vec()).chain(mask).chain(masked);
    let echoed = [&[0x80 | opcode][..], &length, &payload].concat();
    (sent.collect(), echoed)
}

#[test]
fn what_comes_whole_goes_back_from_where_it_was_read() {
    let mut connection = Connection::open();
    for payload_bytes in [8191, 8192, 16_384, 65_535, 65_536, 200_000] {
        for opcode in [1, 2] {
            let (sent, echoed) = whole(opcode, payload_bytes);
            connection.receive(&sent);
            assert!(connection.got == echoed, "{payload_bytes} bytes, opcode {opcode}");
            connection.got.clear();
        }
    }
}

#[test]
fn long_and_short_in_one_read_keep_their_order() {
    let mut connection = Connection::open();
    let frames = [10, 9001, 10, 11, 70_000, 20_001, 0, 9000].map(|bytes| whole(1 + (bytes % 2) as u8, bytes));
    connection.receive(&frames.iter().flat_map(|(sent, _)| sent.clone()).collect::<Vec<u8>>());
    let wanted: Vec<u8> = frames.iter().flat_map(|(_, echoed)| echoed.clone()).collect();
    assert!(connection.got == wanted);
}

#[test]
fn pieces_make_one_frame() {
    let mut connection = Connection::open();
    let (sent, echoed) = frame(7);
    for piece in sent.chunks(65_537) {
        connection.receive(piece);
    }
    assert!(connection.got == echoed);
    let stats = connection.sessions.stats();
    assert_eq!((stats.messages_in(), stats.messages_out()), (1, 1));
}

#[test]
fn a_heartbeat_waits_for_the_end_of_the_frame() {
    let mut connection = Connection::open();
    let (sent, echoed) = frame(9);
    let (first, rest) = sent.split_at(100_000);
    connection.receive(first);
    connection.advance(Duration::from_secs(31));
    assert!(echoed.starts_with(&connection.got), "the Ping came within the frame");
    connection.receive(rest);
    assert!(connection.got.strip_prefix(&echoed[..]) == Some(&[0x89, 0][..]), "the Ping follows the frame");
}

#[test]
fn a_close_waits_for_the_end_of_the_frame() {
    let mut connection = Connection::open();
    let (sent, echoed) = frame(11);
    let (first, rest) = sent.split_at(5);
    connection.receive(first);
    connection.receive(&rest[..70_000]);
    connection.sessions.drain();
    connection.flush();
    assert!(echoed.starts_with(&connection.got), "the Close frame came within the frame");
    connection.receive(&rest[70_000..]);
    let close = connection.got.strip_prefix(&echoed[..]).expect("the echo first");
    assert_eq!(close[0], 0x88);
    assert_eq!(close[2..4], u16::from(CloseCode::Away).to_be_bytes());
}
