//! percore behind a real nginx that runs the files of `proxy/`.

use crate::common::client::{TEXT, close_frame, frame, upgrade_request};
use crate::common::nginx::{Nginx, RawUpstream, Rendered, Tasks, free_addr, instances, own_ips};
use crate::common::{Client, Server, TempDir, eventually, percore, percore_after, run, tool};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// What a client offers so that the answer tells which server gave it: each speaks one of them.
const OFFER: &str = "Sec-WebSocket-Protocol: one, two\r\n";
const ANYWHERE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
const SWITCHING: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n";

/// A server that speaks the subprotocol `name`.
fn server(name: &str, addr: SocketAddr) -> Server {
    Server::launch(
        percore(&["serve", "echo", "--listen", &addr.to_string(), "--subprotocol", name, "--max-message", "8M"]),
        1,
    )
}

/// A connection through nginx, and the name of the server that it reached.
fn open(nginx: &Nginx) -> (Client, String) {
    let mut client = nginx.connect();
    let name = client.upgrade(OFFER).header("sec-websocket-protocol").expect("one of them").to_owned();
    (client, name)
}

/// So many connections, and how many of them reached the server `name`.
fn open_many(nginx: &Nginx, connections: usize, name: &str) -> (Vec<(Client, String)>, usize) {
    let clients: Vec<_> = (0..connections).map(|_| open(nginx)).collect();
    let count = clients.iter().filter(|(_, reached)| reached == name).count();
    (clients, count)
}

/// Asks for an upgrade on a new connection: the connection, and the status.
fn ask(nginx: &Nginx) -> (Client, u16) {
    let mut client = nginx.connect();
    client.send(upgrade_request("/ws", ""));
    let status = client.head_response().status;
    (client, status)
}

#[test]
fn every_configuration_is_valid() {
    let certificate = Certificate::new();
    let two = instances("127.0.0.1:1", "127.0.0.1:2");
    let chat = [1, 2].map(|n| (["chat-backend-1:8080", "chat-backend-2:8080"][n - 1], format!("127.0.0.1:{n}")));
    let with_tls = [&two[..], &certificate.replacements()].concat();
    for (name, replacements) in [
        ("nginx.conf", &two[..]),
        ("chat.conf", &chat),
        ("gateway.conf", &[("gateway-backend:8080", "127.0.0.1:1".to_owned())]),
        ("channels.conf", &[("channels-backend", "127.0.0.1".to_owned())]),
        ("unix.conf", &[]),
        ("per-worker.conf", &[]),
        ("swarm.conf", &[]),
        ("tls.conf", &with_tls),
        ("proxy-protocol.conf", &two),
    ] {
        let (code, said) = Rendered::new(name, replacements).check();
        assert_eq!(code, 0, "{name}: {said}");
    }
    let (code, said) = Rendered::new("nginx.conf", &[("least_conn;", "most_conn;".into())]).check();
    assert_eq!(code, 1, "{said}");
}

#[test]
fn connections_are_balanced_by_their_number() {
    let (one, two) = (server("one", ANYWHERE), server("two", ANYWHERE));
    let nginx = Nginx::before(one.addr(), two.addr());
    let (mut clients, to_one) = open_many(&nginx, 20, "one");
    assert_eq!(to_one, 10, "each has as many");
    for (client, name) in &mut clients {
        assert_eq!(client.echo(name), *name);
    }
    // All that reached one go, so that the next ones find it with fewer connections: by turns it would get half.
    clients.retain(|(_, name)| name == "two");
    eventually("their end", || one.count_log("connection closed") == 10);
    let (more, to_one) = open_many(&nginx, 10, "one");
    assert_eq!(to_one, 10);
    drop((clients, more));
    let lines = || nginx.access_log().matches("\"GET /ws HTTP/1.1\" 101 ").count();
    eventually("a line for each", || lines() == 30);
    assert_eq!(nginx.access_log().matches(&format!("upstream={} upstream_status=101", one.addr())).count(), 20);
}

#[test]
fn only_percores_own_routes_are_passed_on() {
    let server = server("one", ANYWHERE);
    let nginx = Nginx::before(server.addr(), server.addr());
    let healthcheck = nginx.connect().get("/healthcheck");
    assert_eq!(healthcheck.status, 200);
    assert!(healthcheck.body.starts_with("{\"uptime\":\""), "{}", healthcheck.body);
    assert_eq!(nginx.connect().get("/healthz").body.trim(), "ok");
    assert_eq!(["/", "/ws"].map(|path| nginx.connect().get(path).status), [426, 426], "they upgrade");
    assert_eq!(nginx.connect().get("/ws/elsewhere").body.trim(), "Nothing is here.");
    for path in ["/metrics", "/readyz", "/healthz/x"] {
        let response = nginx.connect().get(path);
        assert!(response.status == 404 && response.body.contains("nginx"), "{path}: {response:?}");
    }
}

#[test]
fn unix_sockets() {
    let folder = TempDir::new();
    let listen = format!("unix:{}", folder.path("percore.sock").display());
    // nginx's workers may have another user than the server.
    let server = Server::launch(percore_after("umask 0", &["serve", "echo", "--listen", &listen]), 1);
    let nginx = Nginx::start("unix.conf", &[("/run/percore/", folder.path("").display().to_string())]);
    assert_eq!(nginx.open().echo("by a unix socket"), "by a unix socket");
    server.wait_for_log("WebSocket connection opened: unix");
}

#[test]
fn one_socket_for_each_worker() {
    let folder = TempDir::new();
    let listen = format!("unix:{}", folder.path("{worker}.sock").display());
    let mut command = percore(&["serve", "echo", "--workers", "4", "--admin", "127.0.0.1:0", "--unix-mode", "666"]);
    let service = Server::launch(
        {
            command.args(["--listen", &listen]);
            command
        },
        4,
    );
    let admin = service.admin();
    let open = || -> [u64; 4] {
        let text = Client::connect(admin).get("/metrics").body;
        let value = |name: String| text.lines().find_map(|line| line.strip_prefix(&name)?.trim().parse().ok());
        [0, 1, 2, 3].map(|worker| value(format!("percore_connections_open{{worker=\"{worker}\"}}")).expect("shown"))
    };
    let nginx = Nginx::start("per-worker.conf", &[("/run/percore/", folder.path("").display().to_string())]);
    let connect = || {
        let mut client = nginx.connect();
        client.upgrade("");
        client
    };
    // Which worker a client has shows by what it adds.
    let mut clients: Vec<(Client, usize)> = (0..8)
        .map(|_| {
            let (before, client, mut worker) = (open(), connect(), None);
            eventually("the connection counts", || {
                worker = open().iter().zip(before).position(|(now, before)| *now > before);
                worker.is_some()
            });
            (client, worker.expect("just seen"))
        })
        .collect();
    for (client, _) in &mut clients {
        assert_eq!(client.echo("hello"), "hello");
    }
    assert_eq!(open(), [2; 4]);
    // The next ones go where there is room.
    clients.retain(|(_, worker)| *worker != 2);
    eventually("their end", || open() == [2, 2, 0, 2]);
    let mut next = [connect(), connect()];
    eventually("two more", || open() == [2; 4]);
    // Whose worker is killed is back at once, and the others notice nothing.
    crate::common::process::signal(crate::common::process::children(service.child().id())[2], "KILL");
    next.iter_mut().for_each(Client::ends);
    let mut again = [connect(), connect()];
    assert_eq!(again.each_mut().map(|client| client.echo("again")), ["again", "again"]);
    for (client, _) in &mut clients {
        assert_eq!(client.echo("still here"), "still here");
    }
}

/// What the clients of [`a_restart_is_noticed_by_its_own_clients_only`] went through.
#[derive(Default)]
struct Told {
    echoes: AtomicUsize,
    going_away_from_one: AtomicUsize,
    stop: AtomicBool,
}

/// Echoes through nginx without a pause, and connects again when told to go, which only server one may.
fn keep_echoing(addr: SocketAddr, told: &Told) {
    let connect = || {
        let mut client = Client::connect(addr);
        let name = client.upgrade(OFFER).header("sec-websocket-protocol").map(str::to_owned);
        (client, name.expect("one of them"))
    };
    let (mut client, mut name) = connect();
    while !told.stop.load(Ordering::Relaxed) {
        client.send(frame(TEXT, b"hello"));
        let answer = client.frame();
        if answer.first == TEXT {
            assert_eq!(answer.payload, b"hello");
            told.echoes.fetch_add(1, Ordering::Relaxed);
            continue;
        }
        assert_eq!((&name[..], &answer.payload[..2]), ("one", &1001u16.to_be_bytes()[..]));
        client.send(close_frame(1001, ""));
        client.ends();
        told.going_away_from_one.fetch_add(1, Ordering::Relaxed);
        (client, name) = connect();
    }
    client.send(close_frame(1000, ""));
    assert_eq!(client.closed().0, 1000);
}

#[test]
fn a_restart_is_noticed_by_its_own_clients_only() {
    let one_addr = free_addr();
    let (one, two) = (server("one", one_addr), server("two", ANYWHERE));
    let soon = ("fail_timeout=5s", "fail_timeout=1s".to_owned());
    let nginx = Nginx::start("nginx.conf", &[&instances(one_addr, two.addr())[..], &[soon]].concat());
    let told = Arc::new(Told::default());
    let clients: Vec<_> = (0..8)
        .map(|_| {
            let (addr, told) = (nginx.files.addr, Arc::clone(&told));
            std::thread::spawn(move || keep_echoing(addr, &told))
        })
        .collect();
    let more_echoes = || {
        let before = told.echoes.load(Ordering::Relaxed);
        eventually("echoes", || told.echoes.load(Ordering::Relaxed) > before + 100);
    };
    eventually("four on each", || [&one, &two].map(|server| server.count_log("connection opened")) == [4, 4]);
    more_echoes();
    assert_eq!(one.stop().0, Some(0));
    eventually("all on the other", || two.count_log("connection opened") == 8);
    assert_eq!(told.going_away_from_one.load(Ordering::Relaxed), 4);
    more_echoes();
    let one = server("one", one_addr);
    // As one has fewer connections, the next ones are for it as soon as nginx tries it again.
    let mut more = Vec::new();
    eventually("the restarted one", || {
        more.push(open(&nginx));
        more.iter().any(|(_, name)| name == "one")
    });
    more_echoes();
    told.stop.store(true, Ordering::Relaxed);
    for client in clients {
        client.join().expect("a client that went through it all");
    }
    eventually("the end of those eight", || two.count_log("connection closed") == 8);
    assert_eq!(two.count_log("WebSocket error"), 0);
    drop(more);
    eventually("their end", || one.count_log("connection opened") == one.count_log("connection closed"));
}

#[test]
fn a_reload_keeps_what_is_open() {
    let (one, two) = (server("one", ANYWHERE), server("two", ANYWHERE));
    let nginx = Nginx::before(one.addr(), one.addr());
    let (mut clients, to_one) = open_many(&nginx, 5, "one");
    assert_eq!(to_one, 5);
    nginx.files.write(&instances(two.addr(), two.addr()));
    nginx.reload();
    let (more, to_two) = open_many(&nginx, 5, "two");
    assert_eq!(to_two, 5);
    clients.extend(more);
    for (client, name) in &mut clients {
        assert_eq!(client.echo(name), *name);
    }
}

#[test]
fn the_heartbeat_keeps_an_idle_connection() {
    let start = |heartbeat: &str| Server::start(&["--heartbeat", heartbeat, "--heartbeat-timeout", "0"]);
    let (pinging, silent) = (start("1s"), start("0"));
    let timers = |server: &Server| {
        let timer = ("proxy_read_timeout 90s", "proxy_read_timeout 3s".to_owned());
        [&instances(server.addr(), server.addr())[..], &[timer]].concat()
    };
    let nginx = Nginx::start("nginx.conf", &timers(&pinging));
    let control = Nginx::start("nginx.conf", &timers(&silent));
    let (mut client, mut given_up) = (nginx.open(), control.open());
    // Five heartbeats are longer than the timeout, which is in force: without a heartbeat it ends the connection.
    for _ in 0..5 {
        assert_eq!(client.frame().first, crate::common::client::PING);
    }
    assert_eq!(client.echo("still here"), "still here");
    given_up.ends();
}

#[test]
fn what_percore_gets_to_see() {
    let upstream = RawUpstream::start(SWITCHING, 1);
    let nginx = Nginx::before(upstream.addr, upstream.addr);
    let forged = "X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Proto: https\r\nForwarded: for=6.6.6.6\r\n";
    let mut client = nginx.connect_from_own_ip();
    client.send(upgrade_request("/ws?room=1", forged).replace("Host: test.example", "Host: test.example:8080"));
    assert_eq!(client.head_response().status, 101);
    let head = upstream.head();
    assert!(head.starts_with("GET /ws?room=1 HTTP/1.1\r\n"), "{head}");
    assert!(!head.contains("6.6.6.6"), "{head}");
    for (name, want) in [
        ("Host", vec!["test.example:8080".to_owned()]),
        ("Upgrade", vec!["websocket".to_owned()]),
        ("Connection", vec!["upgrade".to_owned()]),
        ("X-Forwarded-For", vec![client.addr().ip().to_string()]),
        ("X-Forwarded-Proto", vec!["http".to_owned()]),
        ("Forwarded", vec![]),
    ] {
        assert_eq!(values(&head, name), want, "{head}");
    }
}

/// The values of a header in a request.
fn values(head: &str, name: &str) -> Vec<String> {
    let lines = head.lines().filter_map(|line| line.split_once(": "));
    lines.filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned()).collect()
}

#[test]
fn behind_another_proxy_only_what_that_says_counts() {
    let upstream = RawUpstream::start(SWITCHING, 1);
    let included = "include include/http.conf;\n    include include/behind-proxy.conf;".to_owned();
    let include = ("include include/http.conf;", included);
    for (trusted, want) in [("127.0.0.0/8", "203.0.113.7".to_owned()), ("192.0.2.1", String::new())] {
        let trusted = ("10.0.0.0/8", trusted.to_owned());
        let two = instances(upstream.addr, upstream.addr);
        let nginx = Nginx::start("nginx.conf", &[&two[..], &[include.clone(), trusted]].concat());
        let mut client = nginx.connect();
        client.send(upgrade_request("/ws", "X-Forwarded-For: 6.6.6.6, 203.0.113.7\r\n"));
        assert_eq!(client.head_response().status, 101);
        let want = if want.is_empty() { client.addr().ip().to_string() } else { want };
        assert_eq!(values(&upstream.head(), "X-Forwarded-For"), [want]);
    }
}

#[test]
fn the_origin_check_works_as_the_host_keeps_its_port() {
    let server = Server::start(&["--origin", "same"]);
    let nginx = Nginx::before(server.addr(), server.addr());
    for (origin, want) in [("http://test.example:8080", 101), ("http://test.example", 403), ("http://evil:8080", 403)] {
        let mut client = nginx.connect();
        let request = upgrade_request("/ws", &format!("Origin: {origin}\r\n"));
        client.send(request.replace("Host: test.example", "Host: test.example:8080"));
        assert_eq!(client.head_response().status, want, "{origin}");
    }
}

#[test]
fn an_upgrade_without_an_answer_is_tried_elsewhere() {
    let (mute, server) = (RawUpstream::start(b"", 0), server("one", ANYWHERE));
    let nginx = Nginx::before(mute.addr, server.addr());
    let (mut client, _) = open(&nginx);
    assert!(mute.head().starts_with("GET /ws "));
    assert_eq!(client.echo("once"), "once");
    assert!(mute.is_quiet());
}

#[test]
fn nothing_else_is_sent_twice() {
    // A request that is not idempotent, and was sent.
    let (mute, other) = (RawUpstream::start(b"", 0), RawUpstream::start(b"", 0));
    let nginx = Nginx::before(mute.addr, other.addr);
    let mut client = nginx.connect();
    client.send("POST /ws HTTP/1.1\r\nHost: test.example\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(client.response().status, 502);
    assert!(mute.head().starts_with("POST /ws "));
    assert!(other.is_quiet());
    // An answer is final, also one that says no, and so is an open connection: its frames go nowhere else.
    let hello = frame(TEXT, b"hello");
    let busy = RawUpstream::start(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n", 0);
    let opened = RawUpstream::start(SWITCHING, 11);
    assert_eq!(hello.len(), 11);
    let nginx = Nginx::before(busy.addr, opened.addr);
    assert_eq!(ask(&nginx).1, 503);
    let (mut client, status) = ask(&nginx);
    assert_eq!(status, 101);
    client.send(hello);
    client.ends();
    busy.head();
    opened.head();
    assert!(busy.is_quiet() && opened.is_quiet());
}

#[test]
fn too_many_connections_of_an_address_get_429() {
    let server = server("one", ANYWHERE);
    let limit = ("limit_conn connections 100", "limit_conn connections 2".to_owned());
    let nginx = Nginx::start("nginx.conf", &[&instances(server.addr(), server.addr())[..], &[limit]].concat());
    let (first, second) = (nginx.open(), nginx.open());
    assert_eq!(ask(&nginx).1, 429);
    drop(first);
    eventually("room", || ask(&nginx).1 == 101);
    drop(second);
}

#[test]
fn too_many_requests_of_an_address_get_429() {
    let server = server("one", ANYWHERE);
    let limits = [("rate=20r/s", "rate=1r/m".to_owned()), ("burst=40", "burst=3".to_owned())];
    let nginx = Nginx::start("nginx.conf", &[&instances(server.addr(), server.addr())[..], &limits].concat());
    let statuses: Vec<u16> = (0..6).map(|_| ask(&nginx).1).collect();
    assert_eq!(statuses, [101, 101, 101, 101, 429, 429]);
    assert_eq!(nginx.connect().get("/healthz").status, 200, "probes are not limited");
    eventually("the four", || server.count_log("connection opened") == 4);
}

#[test]
fn swarm_tasks_are_reached_without_a_reload() {
    let tasks = own_ips();
    let one = server("one", free_addr());
    let two = server("two", SocketAddr::from((tasks[1], one.addr().port())));
    let names = Tasks::start("tasks.ws-backend", &tasks[..1]);
    let replacements = [
        ("resolver 127.0.0.11", format!("resolver {}", names.addr)),
        ("tasks.ws-backend:8080", format!("tasks.ws-backend:{}", one.addr().port())),
        // Each worker of nginx asks for itself, so what one has found out another may not know yet.
        ("worker_processes auto", "worker_processes 1".to_owned()),
    ];
    let nginx = Nginx::start("swarm.conf", &replacements);
    let (mut first, name) = open(&nginx);
    assert_eq!(name, "one");
    names.set(&tasks);
    eventually("the new task", || open(&nginx).1 == "two");
    eventually("the old one as well", || open(&nginx).1 == "one");
    assert_eq!(first.echo("all along"), "all along");
    drop(first);
    // A task that is gone is passed over, also while its address is still known.
    assert_eq!(one.stop().0, Some(0));
    assert_eq!(open_many(&nginx, 10, "two").1, 10);
    names.set(&tasks[1..]);
    assert_eq!(open_many(&nginx, 10, "two").1, 10);
    drop(two);
}

/// A self-signed certificate for an address.
struct Certificate(TempDir);

impl Certificate {
    fn new() -> Certificate {
        Certificate(TempDir::new()).sign("127.0.0.1")
    }

    fn sign(self, ip: &str) -> Certificate {
        let mut openssl = Command::new("openssl");
        openssl.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]);
        openssl.args(["-subj", "/CN=test", "-addext", &format!("subjectAltName=IP:{ip}")]);
        openssl.arg("-keyout").arg(self.path("privkey.pem")).arg("-out").arg(self.path("fullchain.pem"));
        openssl.stderr(Stdio::piped());
        let (code, _, said) = run(openssl);
        assert_eq!(code, 0, "{said}");
        self
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path(name)
    }

    fn replacements(&self) -> [(&'static str, String); 1] {
        [("/etc/nginx/tls/", self.path("").display().to_string())]
    }
}

#[test]
fn tls() {
    let server = server("echo", ANYWHERE);
    let certificate = Certificate::new();
    let replacements = [&instances(server.addr(), server.addr())[..], &certificate.replacements()].concat();
    let files = Rendered::new("tls.conf", &replacements);
    let certificate = certificate.sign(&files.tls_addr.ip().to_string());
    let nginx = files.start();
    let addr = nginx.files.tls_addr.to_string();

    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/echo.py");
    let mut python = Command::new(tool("venv/bin/python"));
    python.arg(script).args([&format!("wss://{addr}/ws"), "deflate"]).stderr(Stdio::piped());
    python.env("SSL_CERT_FILE", certificate.path("fullchain.pem"));
    let (code, said, errors) = run(python);
    assert_eq!(code, 0, "{errors}");
    assert_eq!(said, "subprotocol: echo\nextensions: ['permessage-deflate']\nclosed: 4321\nelsewhere: 404\n");

    // A cipher with CBC would do for this certificate, and for nginx's defaults.
    for (version, cipher, works) in
        [("-tls1_3", "DEFAULT", true), ("-tls1_2", "DEFAULT", true), ("-tls1_2", "ECDHE-ECDSA-AES128-SHA256", false)]
    {
        let mut openssl = Command::new("openssl");
        openssl.args(["s_client", "-connect", &addr, version, "-cipher", cipher]);
        openssl.stdin(Stdio::null()).stderr(Stdio::piped());
        let (code, said, errors) = run(openssl);
        assert_eq!(code == 0, works, "{version} {cipher}: {said}{errors}");
    }
    let moved = nginx.connect().get("/ws?room=1");
    assert_eq!(moved.status, 308);
    assert_eq!(moved.header("location"), Some("https://test.example:8443/ws?room=1"));
}

#[test]
fn the_proxy_protocol_comes_first() {
    let upstream = RawUpstream::start(SWITCHING, 1);
    let nginx = Nginx::start("proxy-protocol.conf", &instances(upstream.addr, upstream.addr));
    // The connection that waited for nginx to listen was passed on as well.
    upstream.head();
    let client = nginx.open();
    let head = upstream.head();
    let (header, request) = head.split_once("\r\n").expect("a line");
    let (from, to) = (client.addr(), nginx.files.addr);
    assert_eq!(header, format!("PROXY TCP4 {} {} {} {}", from.ip(), to.ip(), from.port(), to.port()));
    assert!(request.starts_with("GET /ws HTTP/1.1\r\n"), "{request}");
}
