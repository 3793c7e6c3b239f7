//! A storm of clients that come back to `serve channels` at once, each by a number of its own: what they missed is stored once, a
//! pass of the loop gives so much of it and no more, and what is published meanwhile does not wait.

use percore::internal::pubsub::app::{Channels, PATH};
use percore::internal::pubsub::rules::{Namespace, Rules};
use percore::internal::pubsub::streams::Keep;
use percore::internal::pubsub::tokens::Tokens;
use percore::internal::session::Sessions;
use percore::{Log, Peer, Settings, UpgradeRules};
use std::collections::HashMap;
use std::io::IoSlice;
use std::time::Duration;

const CLIENTS: usize = 64;
const PUBLICATIONS: usize = 100;
/// About what all of them take.
const MISSED_BYTES: usize = 100_000;
/// What a pass gives, and an answer more.
const PASS_BYTES: usize = (1 << 20) + 2 * MISSED_BYTES;

struct World {
    sessions: Sessions<Channels>,
    now: Duration,
    got: HashMap<u32, Vec<u8>>,
}

fn frame(text: &str) -> Vec<u8> {
    let mut out = vec![0x81];
    match u8::try_from(text.len()).ok().filter(|length| *length < 126) {
        Some(length) => out.push(0x80 | length),
        None => {
            out.push(0x80 | 126);
            out.extend_from_slice(&(text.len() as u16).to_be_bytes());
        }
    }
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(text.as_bytes());
    out
}

impl World {
    fn new() -> World {
        let (ttl, meta_ttl) = (Duration::from_secs(100), Duration::from_secs(1000));
        let keep = Keep { size: PUBLICATIONS, ttl, meta_ttl };
        let plain = Namespace { keep, ..Namespace::default() }.open_to_all();
        let app = Channels::new(Rules { plain, is_insecure: true, ..Rules::default() }, Tokens::default(), [1; 32]);
        let upgrade = UpgradeRules { paths: vec![PATH.into()], ..UpgradeRules::default() };
        let settings = Settings { upgrade, ..Settings::default() };
        let sessions = Sessions::new(app, settings, Log::new(None), 0, [1; 32]);
        let mut world = World { sessions, now: Duration::ZERO, got: HashMap::new() };
        world.pass();
        world
    }

    /// Time goes on, and what is due is done. Returns the bytes that were written.
    fn pass(&mut self) -> usize {
        self.now += Duration::from_millis(1);
        self.sessions.begin_pass(self.now);
        self.sessions.expire();
        let written = self.write();
        self.sessions.end_pass(|key, _| panic!("{key} has gone"));
        written
    }

    fn write(&mut self) -> usize {
        let mut written = 0;
        while let Some(key) = self.sessions.queue().next_dirty() {
            let queue = self.sessions.queue();
            let mut slices = [IoSlice::new(&[]); 64];
            let count = queue.gather(key, &mut slices);
            let bytes: Vec<u8> = slices[..count].iter().flat_map(|slice| slice.to_vec()).collect();
            queue.sent(key, bytes.len(), false);
            written += bytes.len();
            self.got.entry(key).or_default().extend(bytes);
        }
        self.sessions.queue().end_flush();
        written
    }

    fn connect(&mut self) -> u32 {
        let key = self.sessions.accept(Peer::UNIX).expect("there is room");
        let request = format!(
            "GET {PATH} HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        );
        self.sessions.receive(key, &mut request.into_bytes());
        self.say(key, "{\"id\":1,\"connect\":{}}");
        self.write();
        self.got.clear();
        key
    }

    fn say(&mut self, key: u32, text: &str) {
        self.sessions.receive(key, &mut frame(text));
    }

    fn publish(&mut self, channel: &str, data: &str) {
        let body = format!("{{\"channel\":\"{channel}\",\"data\":\"{data}\"}}");
        let head = format!("POST /api/publish HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n", body.len());
        let service = self.sessions.accept_service(Peer::UNIX).expect("there is room");
        self.sessions.receive(service, &mut (head + &body).into_bytes());
    }

    fn text(&self, key: u32) -> String {
        String::from_utf8_lossy(self.got.get(&key).map_or(&[], Vec::as_slice)).into_owned()
    }
}

#[test]
fn a_storm_leaves_room_for_others() {
    let mut world = World::new();
    let live = world.connect();
    world.say(live, "{\"id\":2,\"subscribe\":{\"channel\":\"live\"}}");
    let crowd: Vec<u32> = (0..CLIENTS).map(|_| world.connect()).collect();
    for _ in 0..PUBLICATIONS {
        world.publish("news", &"x".repeat(MISSED_BYTES / PUBLICATIONS));
        world.pass();
    }
    world.got.clear();
    // All at once, and each goes on at once.
    world.sessions.begin_pass(world.now + Duration::from_micros(1));
    for (number, key) in (100..).zip(&crowd) {
        let subscribe = format!("{{\"id\":{number},\"subscribe\":{{\"channel\":\"news\",\"recover\":true}}}}");
        world.say(
            *key,
            &format!("{subscribe}\n{{\"id\":{},\"publish\":{{\"channel\":\"other\",\"data\":1}}}}", number + 1),
        );
    }
    let stored = world.sessions.queue().pass_bytes();
    assert!(stored < 2 * MISSED_BYTES, "{stored} bytes are stored for several clients that missed {MISSED_BYTES}");
    world.publish("live", "now");
    let mut passes = 1;
    let mut written = world.write();
    assert!(world.text(live).contains("\"now\""), "it goes out with the first answers");
    while !crowd.iter().all(|key| world.text(*key).contains("\"publish\":{}")) {
        assert!(written <= PASS_BYTES, "{written} bytes in pass {passes}");
        assert!(passes < CLIENTS, "some never get theirs");
        passes += 1;
        written = world.pass();
    }
    assert!(passes >= CLIENTS * MISSED_BYTES / PASS_BYTES, "{passes} passes");
    for (number, key) in (100..).zip(&crowd) {
        let text = world.text(*key);
        let at = |what: &str| text.find(what).unwrap_or_else(|| panic!("{number}: no {what}"));
        assert!(at(&format!("{{\"id\":{number},\"subscribe\"")) < at(&format!("{{\"id\":{},\"publish\"", number + 1)));
        assert!(text.contains("\"recovered\":true") && text.matches("\"offset\":").count() == PUBLICATIONS + 1);
    }
}
