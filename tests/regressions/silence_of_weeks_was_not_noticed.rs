//! Silence is counted in milliseconds modulo 2^32, which is 49 days: a heartbeat timeout beyond that never came.

use crate::server::Server;
use percore::Settings;
use std::time::Duration;

#[test]
fn a_timeout_of_weeks_comes() {
    let day = Duration::from_secs(24 * 3600);
    let settings = Settings { heartbeat: day * 30, heartbeat_timeout: day * 60, ..Settings::default() };
    let mut server = Server::new(settings, |_, _, _| {});
    let key = server.open();
    let mut now = Duration::ZERO;
    while server.sessions.generation(key).is_some() {
        now = server.sessions.next_deadline().expect("its deadline").max(now);
        assert!(now < day * 70, "alive after {now:?}");
        server.begin(now);
        server.finish();
    }
    assert!(now > day * 20, "ended after {now:?}");
    assert!(server.heard(key).starts_with(&[0x89, 0]), "it was pinged first");
}
