//! Slots for connections before their upgrade: counted for their client from the first moment, bounded in number and
//! time, and taken from the connection that waits longest when they run out.

use crate::common::client::upgrade_request;
use crate::common::{Client, Server, TempDir, eventually, percore, percore_after};
use percore::internal::apps::echo::Echo;
use percore::internal::session::{Fate, Sessions};
use percore::{Log, Peer, ProxyRules, Settings};
use socket2::{Domain, Socket, Type};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::Duration;

const HEALTHZ: &[u8] = b"GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n";
/// Beyond the limits, as `src/session/places.rs` has it.
const EXTRA: usize = 256;
const EXTRA_OF_CLIENT: u32 = 8;

/// A client with an address of its own.
fn connect_from(server: &Server, source: &str) -> Client {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    let source: SocketAddr = format!("{source}:0").parse().expect("an address");
    socket.bind(&source.into()).expect("an address of the loopback");
    socket.connect(&server.addr().into()).expect("the server accepts");
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(crate::common::PATIENCE)).expect("an option");
    Client::over(stream)
}

#[test]
fn one_address_that_says_nothing_keeps_nobody_out() {
    let server = Server::start(&[
        "--max-connections",
        "10",
        "--max-connections-per-ip",
        "2",
        "--handshake-timeout",
        "10m",
        "--admin",
        "127.0.0.1:0",
    ]);
    let mut silent: Vec<Client> = (0..266).map(|_| connect_from(&server, "127.0.0.1")).collect();
    for (number, client) in silent.iter_mut().enumerate() {
        // Whoever has made room already is not there to read it.
        let said = if number % 2 == 0 { HEALTHZ } else { &HEALTHZ[..10] };
        let _ = std::io::Write::write_all(&mut client.stream, said);
    }
    eventually("room", || server.metric("percore_http_connections_shed_total") >= 256);
    let mut others = Vec::new();
    for source in ["127.0.0.2", "127.0.0.3", "127.0.0.4", "127.0.0.5"] {
        for _ in 0..2 {
            let mut client = connect_from(&server, source);
            client.upgrade("");
            assert_eq!(client.echo("here"), "here");
            others.push(client);
        }
        let mut third = connect_from(&server, source);
        third.send(upgrade_request("/ws", ""));
        assert_eq!(third.head_response().status, 429);
    }
    // So does that address itself, up to its limit.
    let mut own = connect_from(&server, "127.0.0.1");
    own.upgrade("");
    assert_eq!((own.echo("here"), others[0].echo("still")), ("here".into(), "still".into()));
    assert_eq!(server.metric("percore_connections_refused_total"), 0);
}

#[test]
fn who_has_no_address_keeps_nobody_out() {
    let folder = TempDir::new();
    let listen = format!("unix:{}", folder.path("s").display());
    let _server = Server::launch(percore(&["serve", "echo", "--listen", &listen, "--max-connections", "10"]), 1);
    let connect = || Client::over(UnixStream::connect(folder.path("s")).expect("it listens"));
    let mut idle: Vec<_> = (0..400).map(|_| connect()).collect();
    let mut clients: Vec<_> = (0..10).map(|_| connect()).collect();
    for client in &mut clients {
        client.upgrade("");
    }
    let mut eleventh = connect();
    eleventh.send(upgrade_request("/ws", ""));
    assert_eq!(eleventh.head_response().status, 503);
    assert_eq!(clients[0].echo("here"), "here");
    assert_eq!(idle[0].rest(), b"", "the oldest made room");
}

#[test]
fn out_of_descriptors_whoever_idles_longest_makes_room() {
    let args = ["serve", "echo", "--listen", "127.0.0.1:0", "--handshake-timeout", "10m"];
    let server = Server::launch(percore_after("ulimit -n 40", &args), 1);
    let mut open = server.open();
    let mut idle: Vec<Client> = (0..100).map(|_| server.connect()).collect();
    for client in &mut idle {
        // Each has its turn, however many came before.
        assert_eq!(client.get("/healthz").status, 200);
    }
    idle[0].ends();
    let mut late = server.open();
    assert_eq!((open.echo("still"), late.echo("here")), ("still".into(), "here".into()));
    server.wait_for_log(" closed for newer ones (raise the limit of open files)");
    drop((open, late));
    let (_, log) = server.stop();
    let end = log.last().expect("counters");
    assert!(end.contains(" HTTP connection") && !end.contains(" refused"), "{end}");
}

#[test]
fn requests_do_not_make_a_connection_live_for_ever() {
    let server = Server::start(&["--http-lifetime", "300ms"]);
    let mut client = server.connect();
    let mut answers = 0;
    eventually("the last answer", || {
        answers += 1;
        client.get("/healthz").header("connection") == Some("close")
    });
    assert!(answers > 2, "the first answers were not the last");
    client.ends();
    let without_end = Server::start(&["--http-lifetime", "0"]);
    assert_eq!(without_end.connect().get("/healthz").header("connection"), Some("keep-alive"));
}

/// Sessions, whose sockets take all that is written.
struct World {
    sessions: Sessions<Echo>,
    now: Duration,
    closed: Vec<u32>,
}

impl World {
    fn new(settings: Settings) -> World {
        let sessions = Sessions::new(Echo, settings, Log::new(None), 0, [0; 32]);
        World { sessions, now: Duration::ZERO, closed: Vec::new() }
    }

    fn accept(&mut self, peer: Peer) -> u32 {
        self.sessions.accept(peer).expect("a place")
    }

    /// A pass in which a connection receives bytes. Returns what it was sent.
    fn receive(&mut self, key: u32, bytes: impl AsRef<[u8]>) -> String {
        self.begin();
        self.sessions.receive(key, &mut bytes.as_ref().to_vec());
        self.finish(key)
    }

    fn begin(&mut self) {
        self.now += Duration::from_millis(1);
        self.sessions.begin_pass(self.now);
    }

    fn finish(&mut self, of: u32) -> String {
        self.sessions.expire();
        let (queue, mut heard) = (self.sessions.queue(), Vec::new());
        while let Some(key) = queue.next_dirty() {
            let bytes = queue.single(key).expect("one piece").to_vec();
            queue.sent(key, bytes.len(), false);
            if key == of {
                heard.extend(bytes);
            }
        }
        queue.end_flush();
        let closed = &mut self.closed;
        self.sessions.end_pass(|key, fate| closed.extend((fate == Fate::Close).then_some(key)));
        String::from_utf8_lossy(&heard).into_owned()
    }

    fn count(&self, peer: Peer) -> (u32, u32) {
        (self.sessions.tally().count(peer), self.sessions.tally().open_connections(peer))
    }
}

fn peer(addr: &str) -> Peer {
    Peer::from(addr.parse::<SocketAddr>().expect("an address"))
}

#[test]
fn a_connection_counts_until_its_socket_is_closed() {
    let client = peer("203.0.113.7:1");
    let mut world = World::new(Settings { max_connections_per_ip: 5, ..Settings::default() });
    let key = world.accept(client);
    assert_eq!(world.count(client), (1, 0), "accepted");
    world.receive(key, HEALTHZ);
    assert_eq!(world.count(client), (1, 0), "asked for something");
    assert!(world.receive(key, upgrade_request("/ws", "")).starts_with("HTTP/1.1 101"));
    assert_eq!((world.count(client), world.sessions.tally().waiting()), ((1, 1), 0), "open");
    world.receive(key, b"\x81\x00");
    assert_eq!((world.count(client), world.sessions.tally().waiting()), ((1, 0), 1), "lingers");
    world.begin();
    world.sessions.end_of_stream(key);
    world.finish(key);
    assert_eq!((world.count(client), world.closed.len()), ((0, 0), 1));
}

#[test]
fn a_connection_of_a_proxy_is_its_clients_while_it_serves_that() {
    let (client, other, proxy) = (peer("203.0.113.7:0"), peer("203.0.113.8:0"), peer("10.0.0.1:1"));
    let proxies = ProxyRules { trusted: vec!["10.0.0.0/8".parse().expect("a network")], ..ProxyRules::default() };
    let mut world = World::new(Settings { max_connections_per_ip: 1, proxies, ..Settings::default() });
    let key = world.accept(proxy);
    assert_eq!(world.count(proxy), (0, 0));
    let get = |ip: &str, more: &str| {
        format!("GET /healthz HTTP/1.1\r\nHost: h\r\nX-Forwarded-For: 203.0.113.{ip}\r\n{more}\r\n")
    };
    world.receive(key, get("7", ""));
    assert_eq!((world.count(client), world.sessions.tally().clients()), ((0, 0), 0), "the next may be another's");
    world.receive(key, upgrade_request("/ws", "X-Forwarded-For: 203.0.113.8\r\n"));
    assert_eq!((world.count(other), world.count(proxy)), ((1, 1), (0, 0)));
    let last = world.accept(proxy);
    world.receive(last, get("8", "Connection: close\r\n"));
    assert_eq!(world.count(other), (2, 1), "the last answer is still to be taken");
    // Many at once of one client make room for each other, and not at the cost of anyone else.
    let bystander = world.accept(peer("203.0.113.9:1"));
    let keys: Vec<u32> = (0..20).map(|_| world.accept(proxy)).collect();
    for key in keys {
        world.receive(key, get("8", "Connection: close\r\n"));
    }
    assert_eq!(world.count(other), (1 + EXTRA_OF_CLIENT, 1));
    assert!(world.closed[0] == last && !world.closed.contains(&bystander), "{:?}", world.closed);
}

#[test]
fn an_answer_that_was_not_written_yet_is_not_shed() {
    let mut world = World::new(Settings { max_connections: 1, ..Settings::default() });
    let keys: Vec<u32> = (0..=EXTRA).map(|_| world.accept(Peer::UNIX)).collect();
    assert_eq!(world.sessions.accept(Peer::UNIX), None, "all came just now, and have not had their turn");
    world.finish(0);
    world.begin();
    world.sessions.receive(keys[0], &mut HEALTHZ.to_vec());
    let newcomer = world.accept(Peer::UNIX);
    assert!(world.finish(keys[0]).starts_with("HTTP/1.1 200"));
    assert_eq!(world.closed, [keys[1]]);
    world.begin();
    world.accept(Peer::UNIX);
    world.finish(newcomer);
    assert_eq!(world.closed, [keys[1], keys[0]]);
    let stats = world.sessions.stats();
    assert_eq!((stats.shed, stats.refused, world.sessions.len()), (2, 1, EXTRA + 1));
}

#[test]
fn the_last_answer_of_a_long_life_says_so() {
    let mut world = World::new(Settings { http_lifetime: Duration::from_secs(60), ..Settings::default() });
    let key = world.accept(Peer::UNIX);
    for second in (5..100).step_by(5) {
        world.now = Duration::from_secs(second);
        let answer = world.receive(key, HEALTHZ);
        assert_eq!(answer.contains("Connection: keep-alive"), second < 60, "after {second} s: {answer}");
        if second == 60 {
            assert!(answer.contains("Connection: close"), "{answer}");
            break;
        }
    }
    world.now += Duration::from_secs(10);
    world.begin();
    world.finish(key);
    assert_eq!(world.closed, [key]);
}
