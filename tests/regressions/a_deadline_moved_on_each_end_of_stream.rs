//! A socket at the end of its stream says so at each event. Each time the close deadline began anew, so that a peer that
//! read a byte now and then was never rid of.

use crate::server::Server;
use percore::Settings;
use percore::internal::session::Fate;
use std::time::Duration;

#[test]
fn the_close_deadline_stays_where_it_was() {
    let settings = Settings { close_timeout: Duration::from_secs(5), ..Settings::default() };
    let mut server = Server::new(settings, |_, _, _| {});
    let key = server.connect();
    server.full.push(key);
    server.receive(key, b"GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n");
    for second in 0..20 {
        server.begin(Duration::from_secs(second));
        if server.sessions.generation(key).is_some() {
            server.sessions.writable(key);
            server.sessions.end_of_stream(key);
        }
        server.finish();
        assert_eq!(server.fates.contains(&(key, Fate::Close)), second > 5, "after {second} s");
    }
}
