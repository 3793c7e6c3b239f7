//! An echo pass without a socket: what percore does with the bytes of a read.
//!
//! The frames are copied into a read buffer, as `read(2)` would, and what would be written is only counted.

use percore::internal::apps::echo::Echo;
use percore::internal::protocol::frame::{MAX_HEADER_BYTES, encode};
use percore::internal::protocol::mask::{self, Mask};
use percore::internal::queue::MAX_SLICES;
use percore::internal::session::Sessions;
use percore::{Kind, Log, Peer, Settings};
use std::io::IoSlice;
use std::time::Duration;

/// So much comes with one read.
const READ_BUFFER_BYTES: usize = 256 * 1024;
/// The key of every frame of a load.
pub const KEY: Mask = [0x37, 0xfa, 0x21, 0x3d];
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// The messages of a pass.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Text or binary.
    pub kind: Kind,
    /// Payload of each message.
    pub size: usize,
    /// Messages that come in one pass.
    pub in_flight: usize,
}

impl Load {
    /// The frames, masked as a client sends them or plain as a server answers.
    pub fn frames(&self, mask: Option<Mask>) -> Vec<u8> {
        let mut frame = vec![b'x'; MAX_HEADER_BYTES + self.size];
        let start = encode(&mut frame, self.kind.opcode(), false, self.size, mask);
        frame.truncate(start + self.size);
        let payload = &mut frame[start..];
        payload.fill(b'x');
        mask::apply(payload, mask.unwrap_or_default());
        frame.repeat(self.in_flight)
    }
}

/// All of percore but the sockets, with one open connection.
pub struct Percore {
    sessions: Sessions<Echo>,
    key: u32,
    input: Vec<u8>,
    answer_bytes: usize,
}

impl Percore {
    /// Opens the connection, and echoes once to see that it does.
    pub fn new(load: Load) -> Percore {
        let mut sessions = Sessions::new(Echo, Settings::default(), Log::new(None), 0, [0; 32]);
        let key = sessions.accept(Peer::UNIX).expect("a place for the first");
        sessions.receive(key, &mut REQUEST.to_vec());
        write_dirty(&mut sessions, |_| {});
        let (input, answer) = (load.frames(Some(KEY)), load.frames(None));
        let mut percore = Percore { sessions, key, input, answer_bytes: answer.len() };
        let mut output = Vec::new();
        percore.read_and_write(|slice| output.extend_from_slice(slice));
        assert!(output == answer, "the echo of {load:?}");
        percore
    }

    /// One pass of the loop.
    pub fn pass(&mut self) {
        let mut written = 0;
        self.read_and_write(|slice| written += slice.len());
        assert_eq!(written, self.answer_bytes);
    }

    #[inline]
    fn read_and_write(&mut self, mut write: impl FnMut(&[u8])) {
        self.sessions.begin_pass(Duration::ZERO);
        for piece in self.input.chunks(READ_BUFFER_BYTES) {
            let mut buffer = self.sessions.queue().lend_input();
            let space = &mut buffer.space()[..piece.len()];
            space.copy_from_slice(piece);
            self.sessions.receive(self.key, space);
            self.sessions.queue().take_back_input(buffer, piece.len());
            write_dirty(&mut self.sessions, &mut write);
        }
        self.sessions.expire();
        self.sessions.end_pass(|key, fate| panic!("connection {key} went: {fate:?}"));
    }
}

/// As the reactor does, with a socket that takes everything.
#[inline]
fn write_dirty(sessions: &mut Sessions<Echo>, mut write: impl FnMut(&[u8])) {
    let queue = sessions.queue();
    while let Some(key) = queue.next_dirty() {
        let mut bytes = 0;
        match queue.single(key) {
            Some(slice) => {
                bytes = slice.len();
                write(slice);
            }
            None => {
                let mut slices = [IoSlice::new(&[]); MAX_SLICES];
                let count = queue.gather(key, &mut slices);
                for slice in &slices[..count] {
                    bytes += slice.len();
                    write(slice);
                }
            }
        }
        queue.sent(key, bytes, false);
    }
    queue.end_flush();
}
