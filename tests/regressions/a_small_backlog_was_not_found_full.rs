//! With a backlog below the point where reading pauses, one read could lead beyond both. Then nothing more was read, so
//! that nothing met the full backlog: the client was not cut off, or not spared its messages, until the next Ping.

use crate::server::Server;
use percore::{SendRules, Settings};

#[test]
fn its_policy_decides_and_not_the_pause() {
    let send = SendRules { max_backlog: 64 << 10, ..SendRules::default() };
    let mut server = Server::new(Settings { send, ..Settings::default() }, |_, _, _| ());
    let slow = server.open();
    server.full.push(slow);
    let message = [&[0x82, 0xfe, 0x03, 0xe8, 0, 0, 0, 0][..], &[7; 1000]].concat();
    server.receive(slow, &message.repeat(400));
    server.finish();
    assert!(server.fates.is_empty(), "the socket had not refused any of it");

    assert!(server.sessions.wants_read(slow));
    server.receive(slow, &message);
    server.finish();
    assert_eq!(server.sessions.app.closes.len(), 1, "the backlog is full");
}
