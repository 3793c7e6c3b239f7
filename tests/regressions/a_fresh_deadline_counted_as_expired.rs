//! Several deadlines came in one pass. What was done about the first began the closing of the last, whose own deadline
//! had come in the same pass: it was ended at once for not having answered a Close frame that was not yet sent.

use crate::server::Server;
use percore::{CloseCode, Settings};
use std::time::Duration;

#[test]
fn a_connection_closed_while_deadlines_expire_has_time_to_answer() {
    // Whichever of them is the first whose deadline comes.
    for silent in 0..5 {
        let closes = closes_when_one_falls_silent(silent);
        assert_eq!(closes, 1, "connection {silent} timed out, and the others had just been told");
    }
}

fn closes_when_one_falls_silent(silent: usize) -> usize {
    let second = Duration::from_secs(1);
    let settings = Settings {
        heartbeat: second,
        heartbeat_timeout: second * 10,
        close_timeout: second * 5,
        ..Settings::default()
    };
    let mut server = Server::new(settings, |_, open, out| {
        for id in open {
            out.close(*id, CloseCode::Away, "");
        }
    });
    let keys: Vec<u32> = (0..5).map(|_| server.open()).collect();
    for now in 1..=9 {
        server.begin(second * now);
        for (index, key) in keys.iter().enumerate() {
            if index != silent {
                server.receive(*key, &[0x8a, 0x80, 0, 0, 0, 0]);
            }
        }
        server.finish();
    }
    // One timeout and four Pings are due.
    server.begin(second * 11);
    server.finish();
    server.sessions.app.closes.len()
}
