//! What an app sent from `on_close` of one connection overflowed the backlog of another, which was to be ended for that.
//! In the same pass the other's Close frame was read, and the end counted as clean, though no Close frame answered it.

use crate::server::{CLOSE, Server};
use percore::{SendRules, Settings};

#[test]
fn an_overflow_comes_before_what_the_peer_sends() {
    let send = SendRules { max_backlog: 10, ..SendRules::default() };
    let mut server = Server::new(Settings { send, ..Settings::default() }, |_, open, out| {
        for id in open {
            out.send_text(*id, "someone left");
        }
    });
    let (leaving, slow) = (server.open(), server.open());
    server.full.push(slow);
    server.receive(slow, &[&[0x82, 0xa0][..], &[0; 36]].concat());
    server.finish();

    server.receive(leaving, CLOSE);
    server.receive(slow, CLOSE);
    server.finish();
    let clean: Vec<bool> = server.sessions.app.closes.iter().map(|(_, reason)| reason.clean).collect();
    assert_eq!(clean, [true, false]);
    assert_eq!(server.sessions.stats().slow_consumers_closed, 1);
}
