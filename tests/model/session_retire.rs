//! A process that retires drains its connections one after another, on a simulated clock and without sockets.

use percore::internal::apps::echo::Echo;
use percore::internal::session::Sessions;
use percore::{Log, Peer, Settings};
use std::time::Duration;

const REQUEST: &[u8] = b"GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
const SECOND: Duration = Duration::from_secs(1);

struct World(Sessions<Echo>);

impl World {
    fn new() -> World {
        // Nothing else is to happen meanwhile.
        let quiet = Settings {
            heartbeat: Duration::ZERO,
            heartbeat_timeout: Duration::ZERO,
            handshake_timeout: 1000 * SECOND,
            close_timeout: 1000 * SECOND,
            ..Settings::default()
        };
        World(Sessions::new(Echo, quiet, Log::new(None), 0, [7; 32]))
    }

    fn accept(&mut self) -> u32 {
        self.0.accept(Peer::UNIX).expect("a place")
    }

    fn upgrade(&mut self, key: u32) -> Vec<u8> {
        self.0.receive(key, &mut REQUEST.to_vec());
        let written = self.written();
        assert_eq!(written.len(), 1);
        written[0].1.clone()
    }

    /// What was queued, by connection.
    fn written(&mut self) -> Vec<(u32, Vec<u8>)> {
        let mut all = Vec::new();
        while let Some(key) = self.0.queue().next_dirty() {
            let bytes = self.0.queue().single(key).expect("one piece").to_vec();
            self.0.queue().sent(key, bytes.len(), false);
            all.push((key, bytes));
        }
        self.0.queue().end_flush();
        all
    }

    /// Lets time pass up to the next deadline, and says who is told to go then.
    fn step(&mut self, now: Duration) -> Vec<u32> {
        self.0.begin_pass(now);
        self.0.expire();
        let told = self.written();
        self.0.end_pass(|_, _| {});
        for (_, bytes) in &told {
            assert_eq!(bytes[..4], [0x88, bytes.len() as u8 - 2, 0x03, 0xe9], "a Close frame with 1001");
        }
        told.into_iter().map(|(key, _)| key).collect()
    }
}

#[test]
fn each_in_its_turn_and_who_comes_late_at_the_end() {
    let mut world = World::new();
    world.step(Duration::ZERO);
    let open: Vec<u32> = (0..10).map(|_| world.accept()).collect();
    for &key in &open {
        world.upgrade(key);
    }
    let late = world.accept();
    world.0.retire(10 * SECOND);
    assert!(!world.0.is_draining());
    let mut told = Vec::new();
    for second in 0..10u32 {
        let due = world.0.next_deadline().expect("someone is to be told");
        assert!(due >= second * SECOND && due < (second + 1) * SECOND, "{due:?}");
        told.push(world.step(due));
        if second == 5 {
            let answer = world.upgrade(late);
            assert!(answer.starts_with(b"HTTP/1.1 101 "), "who was accepted is served");
        }
    }
    let wanted: Vec<Vec<u32>> = open.iter().map(|key| vec![*key]).collect();
    assert_eq!(told, wanted);
    assert_eq!(world.0.next_deadline(), Some(10 * SECOND));
    assert_eq!(world.step(10 * SECOND), [late]);
    assert!(world.0.is_draining());
}

#[test]
fn nobody_is_told_twice_and_a_gone_connection_not_at_all() {
    let mut world = World::new();
    world.step(Duration::ZERO);
    let keys: Vec<u32> = (0..4).map(|_| world.accept()).collect();
    for &key in &keys {
        world.upgrade(key);
    }
    world.0.retire(4 * SECOND);
    assert_eq!(world.step(Duration::ZERO), [keys[0]]);
    world.0.end_of_stream(keys[1]);
    // Another one in its place has not been told yet when its predecessor's turn comes.
    world.step(SECOND / 2);
    let heir = world.accept();
    assert_eq!(heir, keys[1]);
    world.upgrade(heir);
    assert_eq!(world.step(SECOND), [0; 0]);
    // A drain tells all that are left at once.
    world.0.drain();
    let mut told: Vec<u32> = world.written().into_iter().map(|(key, _)| key).collect();
    told.sort_unstable();
    assert_eq!(told, [heir, keys[2], keys[3]]);
    assert_eq!(world.step(5 * SECOND), [0; 0]);
}
