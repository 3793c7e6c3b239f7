//! A peer that sent all it had to say and then ended its stream, as `printf ... | nc -N` does, got no answer when the
//! answer was the last one: what was queued was thrown away.

use crate::server::{Server, UPGRADE};
use percore::Settings;
use percore::internal::session::Fate;

#[test]
fn a_last_response_is_written_before_the_end() {
    for request in [&b"GET /healthz HTTP/1.0\r\n\r\n"[..], b"nonsense\r\n\r\n", b"\x16\x03\x01"] {
        let mut server = Server::new(Settings::default(), |_, _, _| {});
        let key = server.connect();
        server.receive(key, request);
        server.sessions.end_of_stream(key);
        server.finish();
        assert!(server.heard(key).starts_with(b"HTTP/1.1 "), "{:?}", request.escape_ascii().to_string());
        assert_eq!(server.fates, [(key, Fate::Close)]);
    }
}

#[test]
fn a_close_frame_for_a_violation_is_written_before_the_end() {
    let mut server = Server::new(Settings::default(), |_, _, _| {});
    let key = server.connect();
    server.receive(key, UPGRADE);
    server.receive(key, b"\x81\x01x");
    server.sessions.end_of_stream(key);
    server.finish();
    let heard = server.heard(key);
    assert!(heard.windows(2).any(|two| two == 1002u16.to_be_bytes()), "{}", heard.escape_ascii());
    assert_eq!(server.fates, [(key, Fate::Close)]);
}
