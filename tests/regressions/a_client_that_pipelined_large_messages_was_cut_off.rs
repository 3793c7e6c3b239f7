//! A message that is echoed while it comes is read to its end, since a client may send all of it before it reads. In a
//! stream of such messages one is always under way: a client that sent many before it read was read from without end,
//! and then cut off for its backlog.

use crate::server::UPGRADE;
use percore::Settings;
use percore::internal::apps::echo::Echo;
use percore::internal::net::id::Peer;
use percore::internal::session::Sessions;
use percore::internal::telemetry::log::Log;
use std::time::Duration;

const PAYLOAD_BYTES: usize = 1 << 20;
const READ_BYTES: usize = 512 * 1024;

/// The end of a pass in which the socket takes everything or nothing; whether the connection is still there.
fn end_pass(sessions: &mut Sessions<Echo>, takes: bool) -> bool {
    let queue = sessions.queue();
    while let Some(key) = queue.next_dirty() {
        let bytes = if takes { queue.lane_at(key).queued_bytes() } else { 0 };
        queue.sent(key, bytes, !takes);
    }
    queue.end_flush();
    let mut open = true;
    sessions.end_pass(|_, _| open = false);
    open
}

/// A server with an open connection, and the bytes of 64 messages.
fn open() -> (Sessions<Echo>, u32, Vec<u8>) {
    let mut sessions = Sessions::new(Echo, Settings::default(), Log::new(None), 0, [1; 32]);
    sessions.begin_pass(Duration::ZERO);
    let key = sessions.accept(Peer::UNIX).expect("there is room");
    sessions.receive(key, &mut UPGRADE.to_vec());
    assert!(end_pass(&mut sessions, true));

    let header = [&[0x82, 0xff][..], &(PAYLOAD_BYTES as u64).to_be_bytes(), &[0; 4]].concat();
    let stream = [header, vec![0; PAYLOAD_BYTES]].concat().repeat(64);
    (sessions, key, stream)
}

#[test]
fn its_messages_wait_in_its_own_buffers() {
    let (mut sessions, key, stream) = open();
    let mut read = 0;
    for piece in stream.chunks(READ_BYTES) {
        if !sessions.wants_read(key) {
            break;
        }
        sessions.receive(key, &mut piece.to_vec());
        read += piece.len();
        assert!(end_pass(&mut sessions, false), "cut off after {read} bytes");
    }
    // One message to its end, and what was read of the next with that.
    assert!((PAYLOAD_BYTES..3 * PAYLOAD_BYTES).contains(&read), "paused after {read} bytes");
    sessions.writable(key);
    assert!(sessions.wants_read(key), "the pause ends when the client reads");
}

#[test]
fn a_socket_that_takes_a_little_lets_in_no_more() {
    let (mut sessions, key, stream) = open();
    let (mut pieces, mut passes) = (stream.chunks(READ_BYTES).peekable(), 0);
    while pieces.peek().is_some() {
        // The order of the loop: what waited is written before more is read.
        if sessions.writable(key) {
            let queue = sessions.queue();
            let taken = queue.lane_at(key).queued_bytes().min(100_000);
            queue.sent(key, taken, true);
        }
        if sessions.wants_read(key) {
            sessions.receive(key, &mut pieces.next().unwrap_or_default().to_vec());
        }
        assert!(end_pass(&mut sessions, false), "cut off");
        let waiting = sessions.queue().lane_at(key).queued_bytes();
        assert!(waiting < 4 * PAYLOAD_BYTES, "{waiting} bytes wait after {passes} passes");
        passes += 1;
    }
}
