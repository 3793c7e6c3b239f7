//! `percore serve chat`: the messages between clients of one server, and of several on a bus.

use crate::common::chat::{Talker, chat, in_room, refused, sends, sent, start, start_on, told};
use crate::common::client::{BINARY, TEXT, frame, upgrade_request};
use crate::common::{Client, Server, TempDir, percore, process};
use std::collections::HashSet;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const PING_1: &str = r#"{"channel":"ping","message":{"contents":1,"type":"Ping"}}"#;
const PING_2: &str = r#"{"channel":"ping","message":{"contents":2,"type":"Ping"}}"#;

/// A server that is told its port as the environment's, on a bus.
fn start_by_port(bus: &Path) -> Server {
    let mut command = percore(&["serve", "chat", "--bus"]);
    command.arg(bus).env("PORT", "0");
    let server = Server::launch(command, 1);
    assert!(server.listen[0].starts_with("0.0.0.0:"), "{:?}", server.listen);
    server
}

/// Two servers, a client of each, and the messages that it has always been shown with.
#[test]
fn the_session_with_two_servers() {
    let folder = TempDir::new();
    let servers = [start_by_port(&folder.path("bus")), start_by_port(&folder.path("bus"))];
    let mut talkers = servers.each_ref().map(|server| Talker::to(server.addr()));
    let pretty = r#"{
    "channel": "chat",
    "message": {
        "type": "SubmitMessage",
        "contents": "Hello World"
    }
}"#;
    for sender in 0..2 {
        let before = SystemTime::now().duration_since(UNIX_EPOCH).expect("later").as_secs();
        talkers[sender].says(pretty);
        let heard = talkers.each_mut().map(Talker::hears);
        assert_eq!(heard[0], heard[1]);
        let start = r#"{"channel":"chat","message":{"contents":{"content":"Hello World","postedAt":""#;
        let end = r#""},"type":"NewMessageReceived"}}"#;
        let posted_at = heard[0].strip_prefix(start).and_then(|rest| rest.strip_suffix(end));
        let posted_at = posted_at.unwrap_or_else(|| panic!("{}", heard[0]));
        let shape: String = posted_at.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
        assert_eq!(shape, "0000-00-00T00:00:00.000000000Z");
        let day = i64::try_from(before / 86_400).expect("a day");
        // Whole days since 1970 by the calendar, within which the server's clock is.
        let (year, days) = (posted_at[..4].parse::<i64>().expect("a year"), days_in_year(posted_at));
        let new_year = (1970..year).map(|year| if is_leap(year) { 366 } else { 365 }).sum::<i64>();
        assert!((new_year + days - day).abs() <= 1, "{posted_at} on day {day}");
    }
    for (server, path, ping) in
        [(0, "/ping1", PING_1), (0, "/ping2", PING_2), (1, "/ping1", PING_1), (1, "/ping2", PING_2)]
    {
        let response = servers[server].connect().get(path);
        assert_eq!((response.status, response.body.as_str()), (200, ""));
        talkers.iter_mut().for_each(|talker| talker.must_hear(ping));
    }
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

/// Days since the new year.
fn days_in_year(date: &str) -> i64 {
    let (year, month, day): (i64, usize, i64) =
        (date[..4].parse().expect("a year"), date[5..7].parse().expect("a month"), date[8..10].parse().expect("a day"));
    let february = if is_leap(year) { 29 } else { 28 };
    [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31][..month - 1].iter().sum::<i64>() + day - 1
}

#[test]
fn requests_and_their_answers() {
    let server = start(&[]);
    let mut talker = Talker::to(server.addr());
    let mut client = server.connect();
    let got = client.get("/websockets");
    assert_eq!((got.status, got.body.as_str()), (400, "Expected a WebSockets request."));
    for path in ["/", "/ws", "/ping", "/ping3", "/ping1/", "/websockets/"] {
        assert_eq!(client.get(path).status, 404, "{path}");
    }
    assert_eq!(client.get("/healthz").status, 200);
    client.send("POST /ping1 HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n");
    let got = client.response();
    assert_eq!((got.status, got.header("allow")), (405, Some("GET, HEAD")));
    let mut client = server.connect();
    client.send("HEAD /ping1 HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_eq!(client.head_response().status, 200);
    // Of all these only the last is heard.
    assert_eq!(client.get("/ping2?now").status, 200);
    talker.must_hear(PING_2);
    client.send(crate::common::client::upgrade_request("/ws", ""));
    assert_eq!(client.response().status, 404, "upgraded nowhere else");
}

#[test]
fn a_room_of_one_server() {
    let server = start(&[]);
    let [mut ann, mut bob, mut cid] = [(); 3].map(|()| Talker::to(server.addr()));
    let (a, others) = ann.joins("garden");
    assert!(others.is_empty());
    let (b, others) = bob.joins("garden");
    assert_eq!(others, std::slice::from_ref(&a));
    assert_eq!(ann.hears_of("JoinedRoom", "garden"), b);
    // A second join is answered, and nobody is told of it.
    bob.asks_for("garden");
    assert_eq!(bob.hears_members("garden").len(), 2);
    cid.says(&sends("garden", "let me in"));
    cid.must_hear(&refused("not-a-member", "not in the room 'garden': join it first"));
    bob.says(&sends("garden", "gr\u{fc}\u{df}e \u{1f980}"));
    for talker in [&mut ann, &mut bob] {
        talker.must_hear(&sent("garden", &b, "gr\u{fc}\u{df}e \u{1f980}"));
    }
    bob.says(&in_room("LeaveRoom", "garden"));
    ann.must_hear(&told("LeftRoom", "garden", &b));
    bob.says(&in_room("LeaveRoom", "garden"));
    bob.must_hear(&refused("not-a-member", "not in the room 'garden': join it first"));
    bob.says(&sends("garden", "still here?"));
    bob.must_hear(&refused("not-a-member", "not in the room 'garden': join it first"));
    ann.says(&sends("garden", "alone"));
    ann.must_hear(&sent("garden", &a, "alone"));
    // Back, as the same.
    assert_eq!(bob.joins("garden"), (b, vec![a]));
    // Nobody else heard anything.
    cid.submits("end");
    cid.must_hear_chat("end");
}

#[test]
fn everyone_has_another_name() {
    let folder = TempDir::new();
    let servers = [start_on(&folder.path("bus"), &[]), start_on(&folder.path("bus"), &[])];
    let mut talkers: Vec<Talker> = (0..40).map(|n| Talker::to(servers[n % 2].addr())).collect();
    let names: HashSet<String> = talkers
        .iter_mut()
        .map(|talker| {
            talker.asks_for("names");
            talker.hears_members("names");
            let name = talker.hears_of("JoinedRoom", "names");
            let shape: String = name.chars().map(|c| if c.is_ascii_hexdigit() { 'x' } else { c }).collect();
            assert_eq!(shape, "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx");
            // RFC 9562, section 5.4: a random one.
            assert!(name[14..].starts_with('4') && "89ab".contains(&name[19..20]), "{name}");
            name
        })
        .collect();
    assert_eq!(names.len(), talkers.len());
}

/// Each joins on the other server as soon as the last one has its answer: the list is right at once, each time.
#[test]
fn lists_of_members_are_right_at_once() {
    let folder = TempDir::new();
    let servers = [start_on(&folder.path("bus"), &[]), start_on(&folder.path("bus"), &[])];
    let mut talkers: Vec<Talker> = (0..40).map(|n| Talker::to(servers[n % 2].addr())).collect();
    for round in 0..10 {
        let room = format!("room {round}");
        let mut names: Vec<String> = Vec::new();
        for (number, talker) in talkers.iter_mut().enumerate() {
            let (me, others) = talker.joins(&room);
            names.sort_unstable();
            assert_eq!(others, names, "whom number {number} finds in {room}");
            names.push(me);
        }
        let joined: Vec<String> = names.clone();
        // Each hears of those who came later; of whom first is for the servers to say.
        for (number, talker) in talkers.iter_mut().enumerate() {
            let heard: HashSet<String> =
                (number + 1..joined.len()).map(|_| talker.hears_of("JoinedRoom", &room)).collect();
            assert_eq!(heard.len(), joined.len() - number - 1);
        }
        // A leave that has its answer is a leave elsewhere, too.
        talkers[0].says(&in_room("LeaveRoom", &room));
        talkers[0].says("fence");
        assert!(talkers[0].hears().contains("not-json"));
        talkers[1].asks_for(&room);
        loop {
            let heard = talkers[1].hears();
            if heard.contains("MemberList") {
                assert_eq!(heard.matches(r#"-"#).count(), 4 * (joined.len() - 1) + 1, "{heard}");
                break;
            }
            assert!(heard.contains("LeftRoom"), "{heard}");
        }
        for talker in &mut talkers[2..] {
            talker.hears_of("LeftRoom", &room);
        }
    }
}

/// Also when the one that joins had so much to say before that it took the servers some while.
#[test]
fn lists_of_members_are_right_after_a_flood() {
    const SAID: usize = 300;
    let folder = TempDir::new();
    let servers = [start_on(&folder.path("bus"), &[]), start_on(&folder.path("bus"), &[])];
    let [mut ann, mut bob] = servers.each_ref().map(|server| Talker::to(server.addr()));
    let text = "x".repeat(600);
    for round in 0..20 {
        let room = format!("room {round}");
        let mut flood: Vec<u8> = (0..SAID).flat_map(|_| frame(TEXT, chat(&text).as_bytes())).collect();
        flood.extend(frame(TEXT, in_room("JoinRoom", &room).as_bytes()));
        ann.0.send(flood);
        (0..SAID).for_each(|_| ann.must_hear_chat(&text));
        let first = ann.hears_members(&room);
        bob.asks_for(&room);
        let (mut heard, mut said) = (bob.hears(), 0);
        while heard.contains("NewMessageReceived") {
            (heard, said) = (bob.hears(), said + 1);
        }
        assert!(heard.contains("MemberList") && heard.contains(&first[0]), "{heard} without {first:?}");
        (said..SAID).for_each(|_| drop(bob.hears()));
        (0..2).for_each(|_| drop(ann.hears_of("JoinedRoom", &room)));
        bob.hears_of("JoinedRoom", &room);
    }
}

#[test]
fn a_room_across_servers() {
    let folder = TempDir::new();
    let servers = [start_on(&folder.path("bus"), &[]), start_on(&folder.path("bus"), &[])];
    let [mut ann, mut bob] = servers.each_ref().map(|server| Talker::to(server.addr()));
    let (a, _) = ann.joins("garden");
    let (b, others) = bob.joins("garden");
    assert_eq!(others, std::slice::from_ref(&a));
    assert_eq!(ann.hears_of("JoinedRoom", "garden"), b);
    for number in 0..100 {
        let text = format!("number {number}");
        ann.says(&sends("garden", &text));
        bob.says(&sends("garden", &text));
        for talker in [&mut ann, &mut bob] {
            let heard = [talker.hears(), talker.hears()];
            let want = [sent("garden", &a, &text), sent("garden", &b, &text)];
            assert!(want.iter().all(|want| heard.contains(want)), "{heard:?}");
        }
    }
    // A third server, which comes late, knows who is there.
    let late = start_on(&folder.path("bus"), &[]);
    let mut cid = Talker::to(late.addr());
    let (c, others) = cid.joins("garden");
    let mut both = vec![a.clone(), b];
    both.sort_unstable();
    assert_eq!(others, both);
    assert_eq!(ann.hears_of("JoinedRoom", "garden"), c);
    bob.hears_of("JoinedRoom", "garden");
    cid.says(&in_room("LeaveRoom", "garden"));
    assert_eq!((ann.hears_of("LeftRoom", "garden"), bob.hears_of("LeftRoom", "garden")), (c.clone(), c));
    // Of other rooms nothing is heard.
    cid.joins("hall");
    cid.says(&sends("hall", "anyone?"));
    ann.says(&sends("garden", "bye"));
    for talker in [&mut ann, &mut bob] {
        talker.must_hear(&sent("garden", &a, "bye"));
    }
}

#[test]
fn what_cannot_be_taken_is_answered_and_the_connection_goes_on() {
    let server = start(&[]);
    let mut talker = Talker::to(server.addr());
    let no_envelope = r#"not an envelope: send {"channel":..,"message":{"type":..,"contents":..}}"#;
    let room = r#"invalid contents: give {"room":..}"#;
    let long = "x".repeat(100);
    for (text, code, error) in [
        ("", "not-json", "not JSON: EOF while parsing a value at line 1 column 0"),
        ("{", "not-json", "not JSON: EOF while parsing an object at line 1 column 1"),
        ("hello", "not-json", "not JSON: expected value at line 1 column 1"),
        ("null", "no-envelope", no_envelope),
        ("[1]", "no-envelope", no_envelope),
        (r#"{"channel":"chat"}"#, "no-envelope", no_envelope),
        (r#"{"channel":1,"message":{"type":"SubmitMessage","contents":""}}"#, "no-envelope", no_envelope),
        (r#"{"channel":"chat","message":{"contents":""}}"#, "no-envelope", no_envelope),
        (r#"{"channel":"chat","message":"SubmitMessage"}"#, "no-envelope", no_envelope),
        (
            r#"{"channel":"chats","message":{"type":"SubmitMessage","contents":""}}"#,
            "unknown-channel",
            "unknown channel 'chats': use chat or chat-room",
        ),
        (
            &format!(r#"{{"channel":"{long}","message":{{"type":"SubmitMessage","contents":""}}}}"#),
            "unknown-channel",
            &format!("unknown channel '{}': use chat or chat-room", &long[..64]),
        ),
        (
            r#"{"channel":"chat","message":{"type":"NewMessageReceived","contents":""}}"#,
            "unknown-type",
            "unknown type 'NewMessageReceived' on the channel chat",
        ),
        (
            r#"{"channel":"chat-room","message":{"type":"Join","contents":{"room":"a"}}}"#,
            "unknown-type",
            "unknown type 'Join' on the channel chat-room",
        ),
        (r#"{"channel":"chat","message":{"type":"SubmitMessage"}}"#, "bad-contents", "invalid contents: give a string"),
        (
            r#"{"channel":"chat","message":{"type":"SubmitMessage","contents":{"content":"a"}}}"#,
            "bad-contents",
            "invalid contents: give a string",
        ),
        (r#"{"channel":"chat-room","message":{"type":"JoinRoom","contents":"a"}}"#, "bad-contents", room),
        (r#"{"channel":"chat-room","message":{"type":"LeaveRoom","contents":{"room":7}}}"#, "bad-contents", room),
        (
            r#"{"channel":"chat-room","message":{"type":"SendMessage","contents":{"room":"a"}}}"#,
            "bad-contents",
            r#"invalid contents: give {"room":..,"message":..}"#,
        ),
        (&in_room("JoinRoom", ""), "bad-room", "invalid room name: give 1 to 128 bytes"),
        (&in_room("JoinRoom", &"x".repeat(129)), "bad-room", "invalid room name: give 1 to 128 bytes"),
        (&sends("", "a"), "bad-room", "invalid room name: give 1 to 128 bytes"),
        (
            &sends("a", &"x".repeat(64 * 1024 + 1)),
            "too-long",
            "too long: a message has at most 65536 bytes, and twice that as JSON",
        ),
    ] {
        talker.says(text);
        talker.must_hear(&refused(code, error));
    }
    talker.0.send(frame(BINARY, b"{\"channel\":\"\xff\"}"));
    talker.must_hear(&refused("not-text", "not UTF-8: send JSON"));
    talker.0.send(frame(BINARY, chat("binary frames are taken").as_bytes()));
    talker.must_hear_chat("binary frames are taken");
    // The longest name, and names that JSON writes otherwise.
    for room in ["x".repeat(128), r"caf\u00e9 \u0022\u0000".to_owned()] {
        talker.asks_for(&room);
        assert!(talker.hears().contains(r#""type":"MemberList""#));
        assert!(talker.hears().contains(r#""type":"JoinedRoom""#));
    }
    let longest = "y".repeat(64 * 1024);
    talker.submits(&longest);
    talker.must_hear_chat(&longest);
    // Escaped, both ways; what takes more as JSON than twice that is not passed on.
    let escaped = r"\u0001".repeat(20 * 1024);
    talker.submits(&escaped);
    talker.must_hear_chat(&escaped);
    talker.submits(&r"\u0001".repeat(64 * 1024));
    let error = "too long: a message has at most 65536 bytes, and twice that as JSON";
    talker.must_hear(&refused("too-long", error));
    assert_eq!(server.count_log("WebSocket error"), 0);
}

#[test]
fn rooms_have_a_limit_for_each_client() {
    let server = start(&[]);
    let mut talker = Talker::to(server.addr());
    for number in 0..64 {
        talker.joins(&format!("room {number}"));
    }
    talker.asks_for("one more");
    talker.must_hear(&refused("too-many-rooms", "already in 64 rooms: leave one first"));
    // Those it is in are no more.
    talker.asks_for("room 63");
    assert_eq!(talker.hears_members("room 63").len(), 1);
    talker.says(&in_room("LeaveRoom", "room 7"));
    talker.joins("one more");
    let mut other = Talker::to(server.addr());
    assert_eq!(other.joins("one more").1.len(), 1);
}

#[test]
fn a_message_beyond_the_limit_ends_its_connection() {
    let server = start(&["--max-message", "1000"]);
    let [mut ann, mut bob] = [(); 2].map(|()| Talker::to(server.addr()));
    ann.submits(&"x".repeat(900));
    bob.must_hear_chat(&"x".repeat(900));
    ann.must_hear_chat(&"x".repeat(900));
    ann.submits(&"x".repeat(1000));
    assert_eq!(ann.0.closed().0, 1009);
    bob.submits("alone");
    bob.must_hear_chat("alone");
}

/// A page that is not ours could read along, and talk in its visitor's name.
#[test]
fn pages_of_other_hosts_stay_out_unless_they_are_let_in() {
    let evil = upgrade_request("/websockets", "Origin: https://evil.example\r\n");
    for (flags, status) in [(&[][..], 403), (&["--origin", "any"], 101), (&["--origin", "https://evil.example"], 101)] {
        let server = start(flags);
        let mut client = server.connect();
        client.send(&evil);
        assert_eq!(client.head_response().status, status, "{flags:?}");
    }
    let server = start(&[]);
    Talker::with(server.addr(), "Origin: http://test.example\r\n");
    Talker::to(server.addr());
}

/// As values in memory this would be a hundred times as long; compressed it would be 8 KiB.
#[test]
fn what_no_envelope_can_be_is_not_read() {
    let server = start(&["--max-message", "16M"]);
    let mut talker = Talker::to(server.addr());
    talker.says(&format!("[{}0]", r#"{"":0},"#.repeat(700_000)));
    talker.must_hear(&refused("too-long", "too long: a message has at most 65536 bytes, and twice that as JSON"));
    talker.says(&format!(
        r#"{{"channel":"chat","message":{{"type":"SubmitMessage","contents":[{}0]}}}}"#,
        "[0],".repeat(90_000)
    ));
    talker.must_hear(&refused("bad-contents", "invalid contents: give a string"));
    let peak = process::status(server.child().id(), "VmHWM");
    let peak: u64 = peak.trim().trim_end_matches(" kB").parse().expect("a number");
    assert!(peak < 40 << 10, "{peak} KiB");
}

#[test]
fn what_the_bus_cannot_take_is_too_long() {
    let folder = TempDir::new();
    let servers = [(); 2].map(|()| start_on(&folder.path("bus"), &["--bus-size", "16K"]));
    let [mut ann, mut bob] = servers.each_ref().map(|server| Talker::to(server.addr()));
    ann.submits(&"x".repeat(5000));
    let heard = ann.hears();
    assert!(heard.contains(r#""code":"too-long""#) && heard.contains("--bus-size"), "{heard}");
    ann.submits(&"x".repeat(3000));
    for talker in [&mut ann, &mut bob] {
        talker.must_hear_chat(&"x".repeat(3000));
    }
}

#[test]
fn a_bus_switched_off_is_none() {
    // Workers without one are each by itself: the first one on the second worker is alone in the room.
    let server = start(&["--bus", "off", "--workers", "2", "--admin", "off"]);
    let mut talkers: Vec<Talker> = (0..24).map(|_| Talker::to(server.addr())).collect();
    let alone = talkers.iter_mut().filter_map(|talker| talker.joins("room").1.is_empty().then_some(())).count();
    assert_eq!(alone, 2);
    assert!(!Path::new("off").exists());
}

#[test]
fn pings_keep_a_client_that_says_nothing() {
    let server = start(&["--heartbeat", "50ms", "--heartbeat-timeout", "60s"]);
    let mut client: Client = Talker::to(server.addr()).0;
    for _ in 0..3 {
        let frame = client.frame_within(Duration::from_secs(60)).expect("a Ping");
        assert_eq!(frame.first, crate::common::client::PING);
    }
}
