//! Hosts joined by a real Redis: each is a bus of its own, with the real `percore bridge`.

use crate::common::redis::{Host, Redis, bridge, free_port, keys};
use crate::common::{PATIENCE, TempDir, eventually, percore, run};
use percore::{Record, RecordKind};
use std::process::Command;
use std::time::Instant;

/// How often a bridge's log says something.
fn said(host: &Host, text: &str) -> usize {
    host.bridge.count_log(text)
}

#[test]
fn two_hosts_hear_each_other_once() {
    let redis = Redis::start(&[]);
    let mut hosts = [Host::start(&redis.url(), &[]), Host::start(&redis.url(), &[])];
    hosts.iter_mut().for_each(|host| host.count("news", 1));
    eventually("both are subscribed", || redis.subscribers("news") == 2);
    for number in 0..1000 {
        for (index, host) in hosts.iter_mut().enumerate() {
            host.bus.publish(Record::text("news", &format!("{index}:{number}"))).expect("short");
            if number % 50 == 0 {
                host.bus.flush();
            }
        }
    }
    hosts.iter_mut().for_each(|host| host.tell(RecordKind::Binary, "news", b"\xff\0end"));
    let [mut one, mut two] = hosts;
    for (host, other) in [(&mut one, 1), (&mut two, 0)] {
        host.until("1001 messages", |host| host.messages.len() >= 1001);
        let (_, channel, kind, end) = host.messages.pop().expect("the last one");
        assert_eq!((channel.as_str(), kind, &end[..]), ("news", RecordKind::Binary, &b"\xff\0end"[..]));
        assert!(host.messages.iter().all(|(_, channel, kind, _)| channel == "news" && *kind == RecordKind::Text));
        let wanted: Vec<String> = (0..1000).map(|number| format!("{other}:{number}")).collect();
        assert_eq!(host.texts(1000), wanted);
    }
    // Whatever came twice, or back, would be among what was taken in.
    for host in [one, two] {
        let (code, log) = host.bridge.stop();
        let last = log.last().expect("a line");
        assert_eq!(code, Some(0), "{log:?}");
        assert!(last.contains("stopped; passed_on=1001 taken_in=1001 not_connected=0 unanswered=0"), "{last}");
    }
}

#[test]
fn a_channel_is_subscribed_by_the_hosts_that_want_it() {
    let redis = Redis::start(&[]);
    let mut hosts = [Host::start(&redis.url(), &[]), Host::start(&redis.url(), &[])];
    let subscribers = |wanted: u32| {
        eventually(&format!("{wanted} hosts"), || redis.subscribers("chat-room-7") == wanted);
    };
    subscribers(0);
    hosts[0].count("chat-room-7", 1);
    subscribers(1);
    let mut another = hosts[0].join();
    another.count("chat-room-7", 5);
    hosts[1].tell(RecordKind::Count, "chat-room-7", &percore::Interest { subscribers: 0, listens: true }.bytes());
    subscribers(2);
    // One of two processes leaves, and the host stays. A member does not make a channel wanted.
    hosts[0].count("chat-room-7", 0);
    hosts[0].count("other", 1);
    eventually("what was told after", || redis.subscribers("other") == 1);
    subscribers(2);
    drop(another);
    subscribers(1);
    hosts[0].tell(RecordKind::Enter, "chat-room-7", b"ann");
    hosts[1].until_members("chat-room-7", &["ann"]);
    subscribers(1);
    hosts[1].count("chat-room-7", 0);
    subscribers(0);
    // A bridge that starts later finds what is wanted already.
    hosts[1].count("chat-room-7", 3);
    subscribers(1);
    hosts[1].kill_bridge();
    subscribers(0);
    hosts[1].bridge_again(&redis.url(), &[]);
    subscribers(1);
}

#[test]
fn members_of_other_hosts_come_and_go() {
    let redis = Redis::start(&[]);
    let flags = ["--host-timeout", "1s"];
    let [mut one, mut two] = [Host::start(&redis.url(), &flags), Host::start(&redis.url(), &flags)];
    one.tell(RecordKind::Enter, "room", "ann".as_bytes());
    two.tell(RecordKind::Enter, "room", "bob".as_bytes());
    one.until_members("room", &["bob"]);
    two.until_members("room", &["ann"]);
    // A host that comes later is told of all, and tells all; who joins a bus later finds the members of other hosts.
    let mut late = Host::start(&redis.url(), &flags);
    late.until_members("room", &["ann", "bob"]);
    late.tell(RecordKind::Enter, "room", "eve".as_bytes());
    one.until_members("room", &["bob", "eve"]);
    let mut third = one.join();
    third.tell(RecordKind::Enter, "room", b"dan");
    two.until_members("room", &["ann", "dan", "eve"]);
    one.tell(RecordKind::Leave, "room", "ann".as_bytes());
    two.until_members("room", &["dan", "eve"]);
    drop(third);
    two.until_members("room", &["eve"]);
    // A bridge that stops says goodbye; one that is killed is missed, and its own host forgets the others at once.
    assert_eq!(late.bridge.stop().0, Some(0));
    two.until_members("room", &[]);
    one.until_members("room", &["bob"]);
    two.kill_bridge();
    one.until_members("room", &[]);
    one.bridge.wait_for_log("was silent for 1s and counts as gone, with its members");
    one.tell(RecordKind::Enter, "room", "ann".as_bytes());
    two.bridge_again(&redis.url(), &flags);
    one.until_members("room", &["bob"]);
    two.until_members("room", &["ann"]);
}

#[test]
fn a_host_that_was_stopped_for_a_while_is_right_again() {
    let redis = Redis::start(&[]);
    let flags = ["--host-timeout", "1s"];
    let [mut one, mut two] = [Host::start(&redis.url(), &flags), Host::start(&redis.url(), &flags)];
    one.tell(RecordKind::Enter, "room", "ann".as_bytes());
    two.until_members("room", &["ann"]);
    one.bridge.signal("STOP");
    two.until_members("room", &[]);
    one.tell(RecordKind::Enter, "room", "bob".as_bytes());
    one.bridge.signal("CONT");
    two.until_members("room", &["ann", "bob"]);
}

#[test]
fn redis_is_killed_and_comes_back() {
    let mut redis = Redis::start(&[]);
    let [mut one, mut two] = [Host::start(&redis.url(), &[]), Host::start(&redis.url(), &[])];
    two.count("news", 1);
    one.tell(RecordKind::Enter, "room", "ann".as_bytes());
    two.until_members("room", &["ann"]);
    eventually("it is subscribed", || redis.subscribers("news") == 1);
    one.tell(RecordKind::Text, "news", b"before");
    assert_eq!(two.texts(1), ["before"]);
    redis.kill();
    one.bridge.wait_for_log("lost Redis at redis://127.0.0.1:");
    two.bridge.wait_for_log("lost Redis at redis://127.0.0.1:");
    // The bus goes on without.
    let mut neighbour = one.join();
    for number in 0..7 {
        one.tell(RecordKind::Text, "news", number.to_string().as_bytes());
    }
    assert_eq!(neighbour.texts(7), ["0", "1", "2", "3", "4", "5", "6"]);
    let lost = |host: &Host| -> u64 {
        let log = host.bridge.log();
        let lines = log.iter().filter(|line| line.contains("not forwarded to other hosts: no connection to Redis"));
        lines.filter_map(|line| line.split(' ').nth(2)?.parse::<u64>().ok()).sum()
    };
    eventually("what was lost is counted", || lost(&one) == 7);
    one.tell(RecordKind::Enter, "room", "bob".as_bytes());
    redis.restart();
    for host in [&one, &two] {
        eventually("connected again", || said(host, "connected to Redis") == 2);
    }
    eventually("subscribed again", || redis.subscribers("news") == 1);
    two.until_members("room", &["ann", "bob"]);
    one.tell(RecordKind::Text, "news", b"after");
    assert_eq!(two.texts(1), ["after"]);
    let (code, log) = one.bridge.stop();
    let last = log.last().expect("a line");
    assert!(code == Some(0) && last.contains("passed_on=2 taken_in=0 not_connected=7"), "{last}");
}

#[test]
fn redis_stops_answering() {
    let redis = Redis::start(&[]);
    let flags = ["--redis-timeout", "5s", "--max-backlog", "100K"];
    let [mut one, mut two] = [Host::start(&redis.url(), &flags), Host::start(&redis.url(), &[])];
    redis.signal("STOP");
    let message = "x".repeat(10_000);
    // The kernel takes some of it.
    let mut sent = 0;
    eventually("a full backlog", || {
        (0..100).for_each(|_| one.tell(RecordKind::Text, "news", message.as_bytes()));
        sent += 100;
        one.bridge.count_log("the queue for Redis exceeds --max-backlog") > 0
    });
    one.bridge.wait_for_log("no data for 5s (--redis-timeout)");
    redis.signal("CONT");
    eventually("connected again", || said(&one, "connected to Redis") >= 2);
    two.count("news", 1);
    eventually("it is subscribed", || redis.subscribers("news") == 1);
    one.tell(RecordKind::Text, "news", b"after");
    two.until("the message after", |host| host.messages.last().is_some_and(|last| last.3 == b"after"));
    let (code, log) = one.bridge.stop();
    let count = |name: &str| -> usize {
        let last = log.last().expect("a line");
        let word = last.split(' ').find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
        word.and_then(|word| word.parse().ok()).unwrap_or_else(|| panic!("no {name} in {last}"))
    };
    assert_eq!(code, Some(0));
    assert!(count("backlog_full") > 0);
    let all = ["passed_on", "not_connected", "unanswered", "backlog_full", "missed"].map(count);
    assert_eq!(all.iter().sum::<usize>(), sent + 1, "{log:?}");
}

#[test]
fn passwords() {
    const PASSWORD: &str = "p@ss/w%rd:geheim";
    let redis = Redis::start(&["--requirepass", PASSWORD]);
    let cli = |words: &[&str]| redis.cli(&[&["-a", PASSWORD, "--no-auth-warning"], words].concat());
    assert_eq!(cli(&["ACL", "SETUSER", "ann", "on", ">annspass:geheim", "&*", "+@all"]), "OK");
    let encoded = "p%40ss%2Fw%25rd:geheim";
    let url = |login: &str| format!("redis://{login}@127.0.0.1:{}", redis.port);
    let mut logs = Vec::new();
    for login in [format!(":{encoded}"), format!("default:{encoded}"), "ann:annspass%3Ageheim".to_owned()] {
        logs.push(Host::start(&url(&login), &[]).bridge.stop().1);
    }
    // By the environment nobody sees it.
    let host = Host::begin_with(|folder| {
        let mut command = percore(&["bridge", "--bus"]);
        command.arg(folder.path("bus")).env("PERCORE_REDIS", url(&format!(":{encoded}")));
        command
    });
    host.bridge.wait_for_log("connected to Redis");
    let shown = std::fs::read_to_string(format!("/proc/{}/cmdline", host.bridge.child().id())).expect("a process");
    assert!(!shown.contains("geheim"), "{shown}");
    logs.push(host.bridge.stop().1);
    // A wrong one is said to be wrong, and tried again: it may become right.
    let wrong = Host::begin(&url(":falsch-geheim"), &[]);
    let line = wrong.bridge.wait_for_log("login refused: WRONGPASS");
    assert!(line.contains("; next attempt in"), "{line}");
    assert_eq!(cli(&["CONFIG", "SET", "requirepass", "falsch-geheim"]), "OK");
    wrong.bridge.wait_for_log("connected to Redis");
    logs.push(wrong.bridge.stop().1);
    let none = Host::begin(&redis.url(), &[]);
    none.bridge.wait_for_log("error reply: NOAUTH Authentication required.");
    let all = logs.concat().join("\n");
    assert!(!all.contains("geheim") && !all.contains(encoded), "{all}");
}

/// The rights that docs/bridge.md names.
#[test]
fn a_user_of_few_rights() {
    let redis = Redis::start(&[]);
    let rights =
        ["resetchannels", "&percore-presence", "&chat*", "-@all", "+publish", "+subscribe", "+unsubscribe", "+ping"];
    assert_eq!(redis.cli(&[&["ACL", "SETUSER", "percore", "on", ">geheim"], &rights[..]].concat()), "OK");
    let url = format!("redis://percore:geheim@127.0.0.1:{}", redis.port);
    let [mut one, mut two] = [Host::start(&url, &[]), Host::start(&url, &[])];
    two.count("chat-room", 1);
    two.count("secret", 1);
    eventually("what is permitted is subscribed", || redis.subscribers("chat-room") == 1);
    let line = two.bridge.wait_for_log("cannot subscribe to a channel: Redis replied NOPERM");
    assert!(line.contains(" WARN "), "{line}");
    for number in 0..10 {
        one.tell(RecordKind::Text, "secret", b"not heard");
        one.tell(RecordKind::Text, "chat-room", number.to_string().as_bytes());
    }
    assert_eq!(two.texts(10), ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"]);
    let (code, log) = one.bridge.stop();
    let last = log.last().expect("a line");
    assert!(code == Some(0) && last.contains("passed_on=10 taken_in=0 not_connected=0 unanswered=0"), "{last}");
    assert!(last.contains(" refused=10 "), "{last}");
    assert!(log.iter().any(|line| line.contains("redis://percore:***@127.0.0.1:")), "{log:?}");
}

#[test]
fn tls() {
    let keys = keys();
    let path = |name: &str| keys.path(name).display().to_string();
    let arguments = [
        "--port",
        "0",
        "--tls-port",
        "PORT",
        "--tls-auth-clients",
        "no",
        "--tls-cert-file",
        &path("redis.pem"),
        "--tls-key-file",
        &path("redis.key"),
        "--requirepass",
        "geheim",
    ];
    let redis = Redis::start(&arguments);
    let url = |name: &str| format!("rediss://:geheim@{name}:{}", redis.port);
    let mut one = Host::start(&url("localhost"), &["--redis-ca", &path("ca.pem")]);
    // What the system trusts is what is in this file, where it is named.
    let mut two = Host::begin_with(|folder| {
        let mut command = bridge(folder, &url("127.0.0.1"), &[]);
        command.env("SSL_CERT_FILE", path("ca.pem"));
        command
    });
    two.bridge.wait_for_log("connected to Redis at rediss://:***@127.0.0.1:");
    two.count("news", 1);
    one.tell(RecordKind::Enter, "room", b"ann");
    two.until_members("room", &["ann"]);
    let cli = |words: &[&str]| {
        let tls = ["--tls", "--cacert", &path("ca.pem"), "-a", "geheim", "--no-auth-warning"];
        redis.cli(&[&tls, words].concat())
    };
    eventually("it is subscribed", || cli(&["PUBSUB", "NUMSUB", "news"]).ends_with('1'));
    // More than the buffers of TLS and of sockets hold, and less than a ring.
    let long = "x".repeat(900_000);
    for _ in 0..5 {
        for number in 0..3 {
            one.tell(RecordKind::Text, "news", format!("{number}{long}").as_bytes());
        }
        let texts = two.texts(3);
        assert!(texts.iter().enumerate().all(|(number, text)| *text == format!("{number}{long}")));
    }
    for (name, authority) in [("localhost", "other.pem"), ("127.0.0.2", "ca.pem")] {
        let host = Host::begin(&url(name), &["--redis-ca", &path(authority)]);
        if name == "localhost" {
            host.bridge.wait_for_log("by an authority that is not trusted");
        } else {
            host.bridge.wait_for_log("no connection to Redis at rediss://:***@127.0.0.2");
        }
        assert_eq!(said(&host, "connected to Redis"), 0);
    }
    // Plain talk to a port that speaks TLS, and TLS to one that does not, come to an end too.
    let plain = Host::begin(&redis.url(), &[]);
    plain.bridge.wait_for_log("no connection to Redis at redis://127.0.0.1");
    let redis = Redis::start(&[]);
    let url = format!("rediss://127.0.0.1:{}", redis.port);
    let wrong = Host::begin(&url, &["--redis-ca", &path("ca.pem")]);
    wrong.bridge.wait_for_log("no connection to Redis at rediss://127.0.0.1");
}

#[test]
fn anybody_may_publish_on_redis() {
    let folder = TempDir::new();
    let socket = folder.path("redis.sock").display().to_string();
    let redis = Redis::start(&["--unixsocket", &socket]);
    let mut host = Host::start(&format!("unix:{socket}"), &[]);
    host.count("websockets-chat-relay", 1);
    eventually("it is subscribed", || redis.subscribers("websockets-chat-relay") == 1);
    assert_eq!(redis.cli(&["PUBLISH", "websockets-chat-relay", "{\"hello\":\"wörld\"}"]), "1");
    assert_eq!(redis.cli(&["EVAL", "return redis.call('PUBLISH', 'websockets-chat-relay', '\\255')", "0"]), "1");
    host.until("two messages", |host| host.messages.len() == 2);
    let told: Vec<_> = host.messages.drain(..).map(|(_, _, kind, payload)| (kind, payload)).collect();
    let text = "{\"hello\":\"wörld\"}".as_bytes().to_vec();
    assert_eq!(told, [(RecordKind::Text, text), (RecordKind::Binary, vec![255])]);
    // Longer than the bus takes: left out, counted, and the rest goes on.
    let lua = "redis.call('PUBLISH', KEYS[1], string.rep('x', 3000000)); redis.call('PUBLISH', KEYS[1], 'next')";
    redis.cli(&["EVAL", lua, "1", "websockets-chat-relay"]);
    assert_eq!(host.texts(1), ["next"]);
    host.bridge.wait_for_log("1 message of other hosts dropped: longer than the bus takes (--bus-size)");
}

#[test]
fn a_bus_has_one_bridge() {
    let redis = Redis::start(&[]);
    let mut host = Host::start(&redis.url(), &[]);
    let (code, _, error) = run(bridge(host.folder(), &redis.url(), &[]));
    assert_eq!((code, error.lines().count()), (1, 1), "{error}");
    assert!(error.contains("already has a bridge: a second one would forward everything twice"), "{error}");
    // The lock is not left behind.
    host.kill_bridge();
    host.bridge_again(&redis.url(), &[]);
}

#[test]
fn it_ends_at_once_with_redis_and_without() {
    let redis = Redis::start(&[]);
    let host = Host::start(&redis.url(), &[]);
    assert_eq!(host.bridge.stop().0, Some(0));
    redis.signal("STOP");
    let url = format!("redis://localhost:{}", free_port());
    for url in [redis.url(), url] {
        let host = Host::begin(&url, &[]);
        let start = Instant::now();
        assert_eq!(host.bridge.stop().0, Some(0));
        assert!(start.elapsed() < PATIENCE / 6, "{:?}", start.elapsed());
    }
}

#[test]
fn readiness_and_json() {
    let redis = Redis::start(&[]);
    let folder = TempDir::new();
    let (told, log) = (folder.path("ready"), folder.path("log"));
    let script = format!(
        "exec 3>'{}'; exec '{}' bridge --bus '{}' --redis {} --ready-fd 3 --log-format json 2>'{}'",
        told.display(),
        env!("CARGO_BIN_EXE_percore"),
        folder.path("bus").display(),
        redis.url(),
        log.display()
    );
    let mut child = crate::common::Killed(Command::new("sh").args(["-c", &script]).spawn().expect("sh runs"));
    eventually("readiness", || std::fs::read_to_string(&told).is_ok_and(|text| text == "ready\n"));
    crate::common::send_signal(&child.0, "TERM");
    assert_eq!(crate::common::exit_code(&mut child.0), Some(0));
    let log = std::fs::read_to_string(log).expect("a log");
    let events: Vec<serde_json::Value> = log.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    // The folder of a test may be on a disk, which is warned of.
    let names: Vec<&str> =
        events.iter().filter(|event| event["level"] != "warn").filter_map(|event| event["event"].as_str()).collect();
    assert_eq!(names, ["start", "redis_up", "stop"]);
    assert_eq!(events.last().expect("the end")["passed_on"], 0);
}

#[test]
fn what_is_wrong_is_said_in_one_line() {
    let folder = TempDir::new();
    let pem = folder.path("no.pem").display().to_string();
    let bus = folder.path("bus").display().to_string();
    for (arguments, hint) in [
        (&["--redis", "localhost:6379"][..], "--redis: not a valid Redis URL: give redis://"),
        (&["--redis", "http://:geheim@h"], "scheme"),
        (&["--redis", "redis://:geheim/geheim@h"], "%2F"),
        (&["--redis", "redis://h:geheim"], "no valid host or port"),
        (&[], "--redis"),
        (&["--redis", "redis://h", "--redis-ca", &pem], "rediss://"),
        (&["--redis", "rediss://h", "--redis-ca", &pem], "cannot read certificates from"),
        (&["--redis", "redis://h", "--redis-timeout", "0"], "--redis-timeout must be"),
        (&["--redis", "redis://h", "--host-timeout", "soon"], "30s"),
        (&["--redis", "redis://h", "--max-backlog", "much"], "16M"),
    ] {
        let mut command = percore(&["bridge", "--bus", &bus]);
        command.args(arguments);
        let (code, _, error) = run(command);
        assert_eq!((code, error.lines().count()), (2, 1), "{arguments:?}: {error}");
        assert!(error.starts_with("percore: ") && error.contains(hint), "{arguments:?}: {error}");
        assert!(!error.contains("geheim"), "{error}");
    }
    let mut command = percore(&["bridge", "--bus", &bus]);
    command.env("PERCORE_REDIS", "redis://:geheim@h:x");
    let (code, _, error) = run(command);
    assert!(code == 2 && !error.contains("geheim"), "{error}");
    let mut command = percore(&["bridge", "--help"]);
    command.env("PERCORE_REDIS", "redis://:geheim@h");
    let (code, help, _) = run(command);
    assert!(code == 0 && help.contains("PERCORE_REDIS") && !help.contains("geheim"), "{help}");
    // A folder that cannot be one is no matter of the command line.
    let (code, _, error) = run(percore(&["bridge", "--bus", "/dev/null/x", "--redis", "redis://h"]));
    assert!(code == 1 && error.contains("bus in /dev/null/x"), "{error}");
}
