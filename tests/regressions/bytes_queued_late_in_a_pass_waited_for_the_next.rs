//! An app sends from `on_close`. When a connection was ended after the writing of a pass, for a full backlog say, what
//! the app sent to others lay in the queue until something else woke the loop.

use crate::server::Server;
use percore::{SendRules, Settings};
use std::time::Duration;

#[test]
fn the_loop_does_not_sleep_on_queued_bytes() {
    let settings = Settings {
        send: SendRules { max_backlog: 10, ..SendRules::default() },
        heartbeat: Duration::ZERO,
        heartbeat_timeout: Duration::ZERO,
        ..Settings::default()
    };
    let mut server = Server::new(settings, |_, open, out| {
        for id in open {
            out.send_text(*id, "someone left");
        }
    });
    let (slow, leaving, other) = (server.open(), server.open(), server.open());
    server.full.push(slow);
    server.receive(slow, &[&[0x82, 0xa0][..], &[0; 36]].concat());
    server.finish();

    server.sessions.socket_error(leaving, &std::io::Error::from(std::io::ErrorKind::ConnectionReset));
    server.finish();
    assert_eq!(server.sessions.app.closes.len(), 2, "the slow one was ended as well");
    assert_eq!(server.sessions.next_deadline(), Some(Duration::ZERO), "there is something to write");
    server.finish();
    assert_eq!(server.heard(other), [&b"\x81\x0csomeone left"[..]; 2].concat());
}
