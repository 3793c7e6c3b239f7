//! The library's [`Client`] against the real server: the same loop and the same core, in the other role.

use crate::common::Server;
use percore::internal::protocol::client::HandshakeError;
use percore::{
    App, Client, CloseCode, CloseReason, ConnectError, ConnectionId, DeflateMode, Error, Kind, Message, Outbox,
    Outcome, Request, Settings, Target,
};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::time::Duration;

/// Lengths of the messages that each connection sends, one after the other.
const SIZES: [usize; 8] = [0, 1, 125, 126, 5_000, 65_535, 65_536, 300_000];

fn payload(size: usize) -> Vec<u8> {
    (0..size).map(|i| b'a' + (i % 19) as u8).collect()
}

/// Opens connections, checks the echo of each size on each of them, closes them, and stops.
#[derive(Default)]
struct Checker {
    connections: u64,
    over: u64,
    checked: usize,
    opened: Vec<u64>,
    failed: Vec<(u64, ConnectError)>,
    errors: Vec<Error>,
    reasons: Vec<CloseReason>,
    request: String,
}

impl Checker {
    fn new(connections: u64) -> Checker {
        Checker { connections, ..Checker::default() }
    }

    fn end_one(&mut self, out: &mut Outbox) {
        self.over += 1;
        if self.over == self.connections {
            out.stop();
        }
    }
}

fn send(id: ConnectionId, step: usize, out: &mut Outbox) {
    let kind = if step % 2 == 1 { Kind::Text } else { Kind::Binary };
    out.send(id, kind, &[&payload(SIZES[step])]);
}

impl App for Checker {
    type State = usize;

    fn on_tick(&mut self, _: Duration, out: &mut Outbox) -> Option<Duration> {
        (0..self.connections).for_each(|tag| out.connect(0, tag + 100));
        None
    }

    fn on_open(&mut self, id: ConnectionId, request: &Request<'_>, out: &mut Outbox) -> usize {
        self.opened.push(request.tag());
        self.request = format!("{} {:?} {:?}", request.path(), request.query(), request.subprotocol());
        send(id, 0, out);
        0
    }

    fn on_message(&mut self, id: ConnectionId, step: &mut usize, mut message: Message<'_>, out: &mut Outbox) {
        assert_eq!(message.is_text(), *step % 2 == 1);
        assert!(message.payload() == payload(SIZES[*step]), "{} bytes", SIZES[*step]);
        self.checked += 1;
        *step += 1;
        if *step < SIZES.len() {
            send(id, *step, out);
        } else {
            out.close(id, CloseCode::Normal, "done");
        }
    }

    fn on_connect_failed(&mut self, tag: u64, error: &ConnectError, out: &mut Outbox) {
        self.failed.push((tag, error.clone()));
        self.end_one(out);
    }

    fn on_error(&mut self, _: ConnectionId, _: &mut usize, error: &Error, _: &mut Outbox) {
        self.errors.push(error.clone());
    }

    fn on_close(&mut self, _: ConnectionId, _: usize, reason: &CloseReason, out: &mut Outbox) {
        self.reasons.push(reason.clone());
        self.end_one(out);
    }
}

fn target(addr: &str, path: &str, deflate: DeflateMode) -> Target {
    let url = if addr.starts_with("unix:") { format!("{addr}:{path}") } else { format!("ws://{addr}{path}") };
    Target::parse(&url).expect("a URL").subprotocols(["b"]).deflate(deflate)
}

fn run(client: Client<Checker>, target: Target) -> Checker {
    let (outcome, app) = client.target(target).run().expect("the loop runs");
    assert!(matches!(outcome, Outcome::Drained(_)), "{outcome:?}");
    app
}

fn assert_all_echoed(app: &Checker) {
    assert_eq!(
        (app.checked as u64, &app.failed, &app.errors),
        (app.connections * SIZES.len() as u64, &vec![], &vec![])
    );
    let mut opened = app.opened.clone();
    opened.sort();
    assert_eq!(opened, (100..100 + app.connections).collect::<Vec<u64>>());
    assert!(app.reasons.iter().all(|reason| reason.clean && reason.code == CloseCode::Normal), "{:?}", app.reasons);
}

#[test]
fn every_size_comes_back_on_every_connection() {
    let server = Server::start(&["--subprotocol", "b"]);
    let app = run(Client::new(Checker::new(50)), target(&server.listen[0], "/ws?x=1", DeflateMode::Off));
    assert_all_echoed(&app);
    assert_eq!(app.request, "/ws Some(\"x=1\") Some(\"b\")");
}

#[test]
fn compressed_with_and_without_windows_that_live_on() {
    for (mode, flag) in [(DeflateMode::NoTakeover, "no-takeover"), (DeflateMode::Takeover, "takeover")] {
        let server = Server::start(&["--deflate", flag, "--deflate-min", "1"]);
        assert_all_echoed(&run(Client::new(Checker::new(5)), target(&server.listen[0], "/", mode)));
    }
}

#[test]
fn over_a_unix_socket_and_from_a_chosen_address() {
    let path = std::env::temp_dir().join(format!("percore-client-{}.sock", std::process::id()));
    let unix = format!("unix:{}", path.display());
    let server =
        Server::launch(crate::common::percore(&["serve", "echo", "--listen", &unix, "--listen", "127.0.0.1:0"]), 2);
    assert_all_echoed(&run(Client::new(Checker::new(3)), target(&unix, "/", DeflateMode::Off)));

    let source = "127.0.0.9".parse().expect("an address");
    let target = target(&server.listen[1], "/", DeflateMode::Off).source(source);
    let (_, app) = Client::new(Checker::new(1)).target(target).run().expect("the loop runs");
    assert_all_echoed(&app);
    assert!(server.log().iter().any(|line| line.contains("127.0.0.9:")), "the server saw the address");
}

#[test]
fn what_fails_is_told_with_its_tag() {
    let nobody = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port");
    let app = run(Client::new(Checker::new(1)), target(&nobody.to_string(), "/", DeflateMode::Off));
    assert!(
        matches!(&app.failed[..], [(100, ConnectError::Io(std::io::ErrorKind::ConnectionRefused, _))]),
        "{:?}",
        app.failed
    );

    let server = Server::start(&[]);
    let app = run(Client::new(Checker::new(1)), target(&server.listen[0], "/nowhere", DeflateMode::Off));
    let [(100, ConnectError::Handshake(HandshakeError::Refused(refusal)))] = &app.failed[..] else {
        panic!("{:?}", app.failed)
    };
    assert_eq!((refusal.status, refusal.content.as_str()), (404, "Nothing is here."));

    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = silent.local_addr().expect("bound").to_string();
    let settings = Settings { handshake_timeout: Duration::from_millis(100), ..Settings::default() };
    let app = run(Client::new(Checker::new(1)).settings(settings), target(&addr, "/", DeflateMode::Off));
    assert_eq!(app.failed, [(100, ConnectError::Timeout)]);

    let rude = TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = rude.local_addr().expect("bound").to_string();
    let ends = std::thread::spawn(move || drop(rude.accept().and_then(|(mut stream, _)| stream.read(&mut [0; 4096]))));
    let app = run(Client::new(Checker::new(1)), target(&addr, "/", DeflateMode::Off));
    ends.join().expect("the server ends");
    assert_eq!(app.failed, [(100, ConnectError::UnexpectedEof)]);
}

#[test]
fn frames_that_come_back_as_they_were_sent() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = listener.local_addr().expect("bound").to_string();
    let echo = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a client");
        let mut buffer = [0; 4096];
        while let Ok(bytes @ 1..) = stream.read(&mut buffer) {
            if stream.write_all(&buffer[..bytes]).is_err() {
                break;
            }
        }
    });
    let app = run(Client::new(Checker::new(1)).without_handshake(), target(&addr, "/", DeflateMode::Off));
    echo.join().expect("the server ends");
    assert_all_echoed(&app);
}

/// Asks for the time and stops.
#[derive(Default)]
struct Clocks(Option<Duration>);

impl App for Clocks {
    type State = ();

    fn on_tick(&mut self, _: Duration, out: &mut Outbox) -> Option<Duration> {
        self.0 = Some(out.unix_time());
        out.stop();
        None
    }

    fn on_open(&mut self, _: ConnectionId, _: &Request<'_>, _: &mut Outbox) {}

    fn on_message(&mut self, _: ConnectionId, _: &mut (), _: Message<'_>, _: &mut Outbox) {}
}

#[test]
fn a_client_knows_what_time_it_is() {
    let now = || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    let before = now();
    let (_, app) = Client::new(Clocks::default()).run().expect("it runs");
    let told = app.0.expect("asked");
    assert!(before <= told && told <= now(), "{told:?}");
}
