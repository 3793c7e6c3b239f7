//! Deferred answers, pauses and service listeners, without a socket.

use crate::common::client::{TEXT, close_frame, frame, upgrade_request};
use crate::common::one::{One, post};
use percore::{CloseCode, Peer, Response, Settings, Upgrade};
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn what_follows_an_answer_that_comes_later_waits_for_it() {
    let mut one = One::new(Settings::default());
    let get = "GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n";
    one.send(format!("{get}{}{get}{}", post("/later", "1"), post("/later", "2")));
    one.send(post("/echo", "last"));
    assert_eq!(one.statuses(), [200]);
    assert!(!one.sessions.wants_read(one.key) && one.sessions.has_rest(one.key));
    let first = one.sessions.app.tickets[0];
    assert!(one.app(move |_, out| out.answer(first, Response::text(202, "first"))));
    assert_eq!(one.statuses(), [200, 202, 200]);
    assert!(!one.app(move |_, out| out.answer(first, Response::text(202, "again"))), "it has its answer");
    let second = one.sessions.app.tickets[1];
    assert!(one.app(move |_, out| out.awaits(second) && out.answer(second, Response::text(203, "second"))));
    assert!(!one.app(move |_, out| out.awaits(second)));
    assert_eq!(one.statuses(), [200, 202, 200, 203, 200]);
    assert_eq!(one.responses()[4].1, "last");
    assert!(one.sessions.wants_read(one.key) && !one.sessions.has_rest(one.key));
}

#[test]
fn an_answer_that_does_not_come_is_504() {
    let mut one = One::new(Settings { answer_timeout: 30 * SECOND, ..Settings::default() });
    one.send("GET /later HTTP/1.1\r\nHost: h\r\n\r\nGET /healthz HTTP/1.1\r\nHost: h\r\n\r\n");
    one.pass(29 * SECOND);
    assert!(one.heard.is_empty());
    one.pass(2 * SECOND);
    assert_eq!(one.statuses(), [504, 200]);
    let late = one.sessions.app.tickets[0];
    assert!(!one.app(move |_, out| out.answer(late, Response::new(200))));
    assert_eq!(one.statuses(), [504, 200]);
}

/// It was given, and then taken for late.
#[test]
fn an_answer_that_is_given_as_its_deadline_comes_counts() {
    let settings = Settings { heartbeat_timeout: 75 * SECOND, answer_timeout: 100 * SECOND, ..Settings::default() };
    let mut one = One::new(settings);
    one.send(upgrade_request("/ws", ""));
    one.key = one.sessions.accept(Peer::UNIX).expect("a place");
    one.send(upgrade_request("/ws?later", ""));
    one.sessions.app.heir = one.sessions.app.tickets.first().copied();
    // Both deadlines come in one pass, and the app accepts the upgrade when the other connection ends.
    one.pass(200 * SECOND);
    assert_eq!(one.sessions.app.opened, [(0, None), (9, None)]);
}

#[test]
fn an_upgrade_that_was_put_off_opens_with_what_the_app_gives_it() {
    let settings = || {
        let mut settings = Settings::default();
        settings.upgrade.subprotocols = vec!["ours".into()];
        settings
    };
    let request = upgrade_request("/ws?later", "Sec-WebSocket-Protocol: theirs, ours\r\n");
    for (name, agreed) in [(None, Some("ours")), (Some("theirs"), Some("theirs")), (Some("other"), None)] {
        let mut one = One::new(settings());
        one.send([request.as_bytes(), &frame(TEXT, b"sent ahead")].concat());
        assert!(one.heard.is_empty() && one.sessions.app.open.is_empty());
        let ticket = one.sessions.app.tickets[0];
        let mut upgrade = Upgrade::new().tag(7).header("X-From", "app").expect("a header");
        if let Some(name) = name {
            upgrade = upgrade.subprotocol(name);
        }
        assert!(one.app(move |_, out| out.accept_upgrade(ticket, upgrade)));
        assert_eq!(one.sessions.app.opened, [(7, agreed.map(str::to_owned))]);
        assert_eq!(one.sessions.app.messages, ["sent ahead"]);
        let head = String::from_utf8_lossy(&one.heard).into_owned();
        assert!(head.starts_with("HTTP/1.1 101 ") && head.contains("\r\nX-From: app\r\n"), "{head}");
        let line = agreed.map(|name| format!("\r\nSec-WebSocket-Protocol: {name}\r\n"));
        assert!(line.map_or(!head.contains("Sec-WebSocket-Protocol"), |line| head.contains(&line)), "{head}");
        assert!(!one.app(move |_, out| out.accept_upgrade(ticket, Upgrade::new())), "it was accepted");
    }
    let mut one = One::new(settings());
    one.sessions.app.at_once = true;
    one.send(request);
    assert_eq!(one.sessions.app.opened, [(1, Some("ours".to_owned()))]);
}

#[test]
fn an_upgrade_is_put_off_only_if_it_can_be_accepted() {
    let good = upgrade_request("/ws?later", "");
    for (request, status) in [
        (good.replace("Version: 13", "Version: 12"), 426),
        (good.replace("/ws?", "/nowhere?"), 404),
        (good.replace("GET", "POST"), 405),
        (upgrade_request("/ws?no", ""), 403),
    ] {
        let mut one = One::new(Settings::default());
        one.send(&request);
        assert_eq!(one.statuses(), [status], "{request}");
        assert!(one.sessions.app.tickets.is_empty(), "{request}");
    }
    let mut one = One::new(Settings::default());
    one.send(good);
    assert_eq!(one.sessions.app.tickets.len(), 1);
    let ticket = one.sessions.app.tickets[0];
    assert!(one.app(move |_, out| out.answer(ticket, Response::text(403, "no"))));
    assert_eq!((one.statuses(), one.sessions.app.open.len()), (vec![403], 0));
    // A request that was put off before it was known to be an upgrade is answered, and not upgraded.
    let mut one = One::new(Settings::default());
    one.send(upgrade_request("/later", ""));
    let ticket = one.sessions.app.tickets[0];
    assert!(!one.app(move |_, out| out.accept_upgrade(ticket, Upgrade::new())));
    assert!(one.app(move |_, out| out.answer(ticket, Response::new(204))));
    assert_eq!(one.statuses(), [204]);
}

/// Upgrades that wait could open all at once, beyond any bound.
#[test]
fn upgrades_that_wait_count_as_open_ones() {
    let peer = Peer::from("192.0.2.1:1".parse::<std::net::SocketAddr>().expect("an address"));
    let few = Settings { max_connections: 2, ..Settings::default() };
    let few_each = Settings { max_connections_per_ip: 2, ..Settings::default() };
    for (settings, status) in [(few, 503), (few_each, 429)] {
        let mut one = One::new(settings);
        for wanted in [None, None, Some(status)] {
            one.heard.clear();
            one.key = one.sessions.accept(peer).expect("a place");
            one.send(upgrade_request("/ws?later", ""));
            assert_eq!(one.statuses().first().copied(), wanted);
        }
        // One that is refused makes room.
        let [first, second] = one.sessions.app.tickets[..] else { panic!("two wait") };
        assert!(one.app(move |_, out| out.answer(first, Response::new(403))));
        one.key = one.sessions.accept(peer).expect("a place");
        one.send(upgrade_request("/ws?later", ""));
        let third = one.sessions.app.tickets[2];
        assert!(one.app(move |_, out| out.accept_upgrade(second, Upgrade::new())));
        assert!(one.app(move |_, out| out.accept_upgrade(third, Upgrade::new())));
        assert_eq!(one.sessions.stats().open, 2);
    }
}

#[test]
fn headers_of_an_upgrade_are_checked() {
    for (name, value) in [
        ("", "x"),
        ("a b", "x"),
        ("a:", "x"),
        ("Upgrade", "h2c"),
        ("connection", "close"),
        ("Content-Length", "3"),
        ("TRANSFER-ENCODING", "chunked"),
        ("Sec-WebSocket-Accept", "x"),
        ("X", "a\r\nSet-Cookie: b"),
        ("X", "\0"),
    ] {
        assert!(Upgrade::new().header(name, value).is_err(), "{name}: {value}");
    }
    assert!(Upgrade::new().header("Set-Cookie", "a=b; Path=/; é").is_ok());
}

#[test]
fn a_client_that_leaves_takes_its_ticket_along() {
    let reset = || std::io::Error::from(std::io::ErrorKind::ConnectionReset);
    let requests =
        [("GET /later HTTP/1.1\r\nHost: h\r\n\r\n".to_owned(), true), (upgrade_request("/ws?later", ""), false)];
    for (request, hears_on) in requests {
        let mut one = One::new(Settings::default());
        one.send(&request);
        let ticket = one.sessions.app.tickets[0];
        one.sessions.socket_error(one.key, &reset());
        assert!(!one.app(move |_, out| out.awaits(ticket) || out.answer(ticket, Response::new(200))), "{request}");
        // One that only ends its stream may still hear an answer, but no messages.
        let mut one = One::new(Settings::default());
        one.send(&request);
        let ticket = one.sessions.app.tickets[0];
        one.sessions.end_of_stream(one.key);
        assert_eq!(one.app(move |_, out| out.answer(ticket, Response::new(200))), hears_on, "{request}");
        assert_eq!(one.statuses(), if hears_on { vec![200] } else { vec![] });
        // A driver that does not read hears of it in another way.
        let mut one = One::new(Settings::default());
        one.send(&request);
        let ticket = one.sessions.app.tickets[0];
        one.sessions.peer_shut(one.key, true);
        assert!(!one.app(move |_, out| out.awaits(ticket)), "{request}");
        assert!(!one.is_there());
    }
}

/// The app was told that somebody waited, so it is told of the end as well.
#[test]
fn an_upgrade_that_was_accepted_opens_even_if_its_client_leaves_at_once() {
    let mut one = One::new(Settings::default());
    one.send(upgrade_request("/ws?later", ""));
    let ticket = one.sessions.app.tickets[0];
    assert!(one.sessions.outbox.accept_upgrade(ticket, Upgrade::new().tag(5)));
    one.sessions.socket_error(one.key, &std::io::Error::from(std::io::ErrorKind::BrokenPipe));
    let app = &one.sessions.app;
    assert_eq!((&app.opened[..], app.closed.len(), app.open.len()), (&[(5, None)][..], 1, 0));
    assert_eq!(one.sessions.stats().open, 0);
    one.pass(Duration::ZERO);
    assert!(one.sessions.is_empty());
}

#[test]
fn a_drain_waits_for_answers_that_are_owed() {
    let mut one = One::new(Settings::default());
    let other = one.sessions.accept(Peer::UNIX).expect("a place");
    one.send("GET /later HTTP/1.1\r\nHost: h\r\n\r\n");
    one.sessions.receive(other, &mut upgrade_request("/ws?later", "").into_bytes());
    one.sessions.drain();
    one.pass(Duration::ZERO);
    let [plain, upgrade] = one.sessions.app.tickets[..] else { panic!("two tickets") };
    assert!(one.app(move |_, out| out.answer(plain, Response::text(200, "still"))));
    let heard = String::from_utf8_lossy(&one.heard).into_owned();
    assert!(heard.contains("\r\nConnection: close\r\n"), "{heard}");
    one.heard.clear();
    assert!(one.app(move |_, out| out.accept_upgrade(upgrade, Upgrade::new())));
    assert!(one.heard.starts_with(b"HTTP/1.1 101 "));
    assert_eq!(one.heard.windows(4).filter(|four| four[0] == 0x88 && four[2..] == [0x03, 0xe9]).count(), 1);
}

#[test]
fn a_paused_connection_keeps_what_came_and_is_not_blamed_for_silence() {
    let mut one = One::new(Settings::default());
    one.send(upgrade_request("/ws", ""));
    let id = one.sessions.app.open[0];
    let frames = ["a", "pause", "b", "c"].map(|text| frame(TEXT, text.as_bytes()));
    one.send(frames.concat());
    assert_eq!(one.sessions.app.messages, ["a", "pause"]);
    assert!(!one.sessions.wants_read(one.key));
    for _ in 0..100 {
        one.pass(10 * SECOND);
    }
    assert_eq!((one.sessions.app.open.len(), one.sessions.stats().heartbeat_timeouts), (1, 0));
    assert!(one.app(move |_, out| out.resume(id)));
    assert_eq!(one.sessions.app.messages, ["a", "pause", "b", "c"]);
    // From now on its silence counts, and no earlier.
    one.pass(70 * SECOND);
    assert_eq!(one.sessions.app.open.len(), 1);
    one.pass(70 * SECOND);
    assert_eq!((one.sessions.app.open.len(), one.sessions.stats().heartbeat_timeouts), (0, 1));
    assert!(!one.app(move |_, out| out.pause(id) || out.resume(id)), "it is gone");
}

#[test]
fn a_paused_connection_of_which_nothing_is_kept_is_not_blamed_for_silence() {
    let mut one = One::new(Settings::default());
    one.send(upgrade_request("/ws", ""));
    one.send(frame(TEXT, b"pause"));
    for _ in 0..100 {
        one.pass(10 * SECOND);
    }
    assert!(!one.sessions.has_rest(one.key));
    assert_eq!((one.sessions.app.open.len(), one.sessions.stats().heartbeat_timeouts), (1, 0));
}

#[test]
fn a_paused_connection_that_is_closed_is_read_from_again() {
    let mut one = One::new(Settings::default());
    one.send(upgrade_request("/ws", ""));
    let id = one.sessions.app.open[0];
    one.send([frame(TEXT, b"pause"), frame(TEXT, b"too late"), close_frame(1000, "")].concat());
    one.app(move |_, out| out.close(id, CloseCode::Normal, "done"));
    assert_eq!(one.sessions.app.messages, ["pause"]);
    assert!(one.sessions.app.closed[0].clean, "its Close frame was read");
}

#[test]
fn a_service_listener_has_its_own_rules() {
    let ask = |request: &str, token: Option<&str>| {
        let settings = Settings { service_token: token.map(str::to_owned), ..Settings::default() };
        let mut one = One::new(settings);
        one.key = one.sessions.accept_service(Peer::UNIX).expect("a place");
        one.send(request);
        (one.statuses(), String::from_utf8_lossy(&one.heard).into_owned())
    };
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n");
    let upgrade = upgrade_request("/ws", "");
    for (request, status) in
        [(get("/api"), 200), (get("/healthz"), 200), (get("/readyz"), 200), (get("/ws"), 404), (upgrade.clone(), 400)]
    {
        assert_eq!(ask(&request, None).0, [status], "{request}");
    }
    // The public listener knows no service, and no readiness.
    for path in ["/api", "/readyz"] {
        let mut one = One::new(Settings::default());
        one.send(get(path));
        assert_eq!(one.statuses(), [404]);
    }
    let bearer = |token: &str| format!("GET /api HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {token}\r\n\r\n");
    for (request, status) in [
        (get("/api"), 401),
        (bearer("wrong"), 401),
        (bearer("secret"), 200),
        (get("/healthz"), 200),
        (get("/readyz"), 200),
        (upgrade, 401),
    ] {
        let (statuses, said) = ask(&request, Some("secret"));
        assert_eq!(statuses, [status], "{request}");
        assert_eq!(said.contains("\r\nWWW-Authenticate: Bearer"), status == 401, "{said}");
    }
    // Nothing is read of who has not the token.
    let head = "POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\nExpect: 100-continue\r\n\r\n";
    assert_eq!(ask(head, Some("secret")).0, [401]);
}

#[test]
fn what_bounds_clients_does_not_bound_the_service() {
    let peer = Peer::from("192.0.2.1:1".parse::<std::net::SocketAddr>().expect("an address"));
    let rates = percore::internal::net::rate::RateRules { messages: 1, ..Default::default() };
    let mut one = One::new(Settings { rates, max_connections_per_ip: 1, max_sockets: 11, ..Settings::default() });
    for _ in 0..10 {
        one.key = one.sessions.accept_service(peer).expect("a place");
    }
    one.send("GET /api HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(100));
    assert_eq!(one.statuses(), [200; 100]);
    assert_eq!((one.sessions.len(), one.sessions.stats().shed), (11, 0));
    // Of a client and the service it is the client that makes room.
    one.pass(SECOND);
    let client = one.sessions.shed().expect("somebody");
    one.pass(SECOND);
    assert_eq!((one.sessions.generation(client), one.sessions.len()), (None, 10));
    let kept = one.sessions.accept(peer).expect("a place");
    one.pass(SECOND);
    assert_eq!(one.sessions.shed(), Some(kept));
}

#[test]
fn a_proxy_says_nothing_to_the_service() {
    let mut settings = Settings::default();
    settings.proxies.proxy_protocol = true;
    let mut one = One::new(settings);
    one.key = one.sessions.accept_service(Peer::UNIX).expect("a place");
    one.send("GET /api HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_eq!(one.statuses(), [200]);
}

/// Without a token, what a page in a browser on this machine may have sent is refused.
#[test]
fn pages_do_not_reach_a_service_without_a_token() {
    let ask = |headers: &str| {
        let mut one = One::new(Settings::default());
        one.key = one.sessions.accept_service(Peer::UNKNOWN).expect("a place");
        one.send(format!("GET /api HTTP/1.1\r\n{headers}\r\n").into_bytes());
        one.statuses()
    };
    for good in ["Host: localhost:9465\r\n", "Host: 127.0.0.1\r\nSec-Fetch-Site: none\r\n", "Host: [::1]:9465\r\n"] {
        assert_eq!(ask(good), [200], "{good}");
    }
    for bad in [
        "Host: rebound.example\r\n",
        "Host: localhost\r\nOrigin: http://evil.example\r\n",
        "Host: localhost\r\nOrigin: null\r\n",
        "Host: localhost\r\nSec-Fetch-Site: cross-site\r\n",
    ] {
        assert_eq!(ask(bad), [403], "{bad}");
    }
}
