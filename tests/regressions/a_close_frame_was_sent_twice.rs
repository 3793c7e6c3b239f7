//! An app closed a second connection from `on_close` of a first, and in the same pass the second one's Close frame was
//! read: it was answered though a Close frame was queued already.

use crate::server::{CLOSE, Server};
use percore::{CloseCode, Settings};

#[test]
fn a_close_frame_that_crosses_ours_is_not_answered() {
    let mut server = Server::new(Settings::default(), |_, open, out| {
        for id in open {
            out.close(*id, CloseCode::Away, "");
        }
    });
    let (first, second) = (server.open(), server.open());
    server.receive(first, CLOSE);
    server.receive(second, CLOSE);
    server.finish();
    assert_eq!(server.heard(first), [0x88, 2, 0x03, 0xe8]);
    assert_eq!(server.heard(second), [0x88, 2, 0x03, 0xe9]);
    assert_eq!(server.sessions.app.closes.len(), 2);
}
