//! One message for thousands of connections is written in shares, with others served in between; all arrive, in order.

use crate::common::chat::{Talker, start};
use crate::common::client::{TEXT, close_frame, frame};
use crate::common::{Client, process};
use percore::{App, ConnectionId, Message, Outbox, Outcome, Request, Server, ServerOptions};

const LISTENERS: usize = 4_000;
const MESSAGES: usize = 20;

/// Whoever is connected hears what anybody says; `stop` ends the server.
struct Broadcast;

impl App for Broadcast {
    type State = ();

    fn on_open(&mut self, id: ConnectionId, _: &Request<'_>, out: &mut Outbox) {
        out.subscribe(id, "all");
    }

    fn on_message(&mut self, id: ConnectionId, (): &mut (), mut message: Message<'_>, out: &mut Outbox) {
        match message.text() {
            Some("stop") => out.stop(),
            Some("echo") => {
                out.send_text(id, "echo");
            }
            _ => {
                let kind = message.kind();
                out.publish("all", kind, &[message.payload()]).expect("short enough");
            }
        }
    }
}

#[test]
fn what_thousands_are_sent_is_written_in_shares() {
    let options = ServerOptions { signals: false, ..ServerOptions::default() };
    let server = Server::new(Broadcast).options(options).listen("127.0.0.1:0").expect("a port");
    let addr = server.local_addrs().expect("bound")[0].to_string().parse().expect("an address");
    let server = std::thread::spawn(move || server.run().expect("it runs"));
    let connect = |_| {
        let mut client = Client::connect(addr);
        assert_eq!(client.upgrade("").status, 101);
        client
    };
    let mut listeners: Vec<Client> = (0..LISTENERS).map(connect).collect();
    let texts: Vec<String> = (0..MESSAGES).map(|number| format!("{number} {}", "x".repeat(number * 50))).collect();
    // Everything at once, and the answer to a listener is behind all that it hears.
    let sent: Vec<u8> = texts.iter().flat_map(|text| frame(TEXT, text.as_bytes())).collect();
    let last = LISTENERS - 1;
    listeners[last].send([sent, frame(TEXT, b"echo")].concat());
    for (number, listener) in listeners.iter_mut().enumerate() {
        for text in &texts {
            assert_eq!(&listener.text(), text, "listener {number}");
        }
    }
    assert_eq!(listeners[last].text(), "echo");
    listeners[last].send(frame(TEXT, b"stop"));
    for listener in &mut listeners {
        assert_eq!(listener.closed().0, 1001);
        listener.send(close_frame(1001, ""));
    }
    let Outcome::Drained(stats) = server.join().expect("no panic") else { panic!("it drained") };
    assert!(stats.writes_postponed > 0);
    assert_eq!(stats.slow_consumers_closed + stats.memory_closed, 0);
}

/// Each of many says something at once, which all hear: what waits for its turn to be written is not kept for each of them without
/// a bound.
#[test]
fn what_waits_in_line_is_bounded() {
    const TALKERS: usize = 800;
    let server = start(&["--rate-channel", "0"]);
    let mut talkers: Vec<Talker> = (0..TALKERS).map(|_| Talker::to(server.addr())).collect();
    let peak = || -> u64 {
        let peak = process::status(server.child().id(), "VmHWM");
        peak.trim().trim_end_matches(" kB").parse().expect("a number")
    };
    let before = peak();
    talkers.iter_mut().for_each(|talker| talker.submits("hi"));
    // Side by side, so that everybody reads as fast as is written.
    std::thread::scope(|scope| {
        for some in talkers.chunks_mut(TALKERS / 8) {
            scope.spawn(move || {
                for _ in 0..TALKERS {
                    for talker in &mut *some {
                        assert!(talker.hears().contains(r#""content":"hi""#));
                    }
                }
            });
        }
    });
    let grown = peak() - before;
    assert!(grown < 20 << 10, "{grown} KiB");
}
