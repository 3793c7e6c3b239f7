//! The client's address behind proxies, and its uses: headers from trusted and other proxies, the PROXY protocol, the
//! limit per address. The tests play the proxy.

use crate::common::client::{close_frame, upgrade_request};
use crate::common::{Client, Server, TempDir, eventually, percore};
use std::io::Write;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;

const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// A header of the PROXY protocol, version 2.
fn v2(command: u8, kind: u8, body: &[u8]) -> Vec<u8> {
    [V2, &[command, kind], &(body.len() as u16).to_be_bytes(), body].concat()
}

/// Ends a connection: its address, as it stands in the lines of the log that begin and end it.
fn known_as<S: std::io::Read + Write>(server: &Server, client: &mut Client<S>) -> String {
    const CLOSED: &str = "WebSocket connection closed: ";
    let before = server.count_log(CLOSED);
    client.send(close_frame(1000, ""));
    client.closed();
    eventually("its end in the log", || server.count_log(CLOSED) > before);
    let lines = server.log();
    let closed = lines.iter().rev().find_map(|line| Some(line.split_once(CLOSED)?.1)).expect("just seen");
    let (address, rest) = closed.split_once(" id=").expect("an id");
    let opened = format!("WebSocket connection opened: {address} id={} path=/ws", &rest[..24]);
    assert!(lines.iter().any(|line| line.ends_with(&opened)), "{address} did not open:\n{}", lines.join("\n"));
    address.to_owned()
}

#[test]
fn a_header_from_whom_nobody_trusts_is_not_believed() {
    let headers = "X-Forwarded-For: 203.0.113.7\r\nForwarded: for=203.0.113.7\r\n";
    for flags in [&[][..], &["--trusted-proxy", "10.0.0.0/8,unix"], &["--trusted-proxy", "::/0"]] {
        let server = Server::start(flags);
        let mut client = server.open_with(headers);
        assert_eq!(known_as(&server, &mut client), client.addr().to_string(), "{flags:?}");
    }
}

#[test]
fn a_trusted_proxy_tells_the_address() {
    let server = Server::start(&["--trusted-proxy", "127.0.0.1", "--trusted-proxy", "10.0.0.0/8,2001:db8:aa::/48"]);
    for (headers, want) in [
        ("X-Forwarded-For: 203.0.113.7\r\n", "203.0.113.7"),
        ("X-Forwarded-For: 203.0.113.7:1234\r\n", "203.0.113.7:1234"),
        ("X-Forwarded-For: 2001:db8::7\r\n", "2001:db8::7"),
        ("X-Forwarded-For: 127.0.0.1, 203.0.113.7\r\n", "203.0.113.7"),
        ("X-Forwarded-For: 1.1.1.1, 203.0.113.7\r\nx-forwarded-for: 2001:db8:aa::9, 10.1.2.3\r\n", "203.0.113.7"),
        ("X-Forwarded-For: 1.1.1.1, nonsense, 10.1.2.3\r\n", "10.1.2.3"),
        ("X-Forwarded-For: 10.0.0.8, 10.0.0.9\r\n", "10.0.0.8"),
        // What a proxy that writes the other header passes on as it came.
        ("Forwarded: for=1.1.1.1\r\nX-Forwarded-For: 203.0.113.7\r\n", "203.0.113.7"),
    ] {
        assert_eq!(known_as(&server, &mut server.open_with(headers)), want, "{headers}");
    }
    for headers in ["", "X-Forwarded-For: unknown\r\n", "Forwarded: for=1.1.1.1\r\n"] {
        let mut client = server.open_with(headers);
        assert_eq!(known_as(&server, &mut client), client.addr().to_string(), "{headers}");
    }
}

#[test]
fn forwarded_is_read_where_it_is_asked_for() {
    let server = Server::start(&["--trusted-proxy", "127.0.0.0/8", "--forwarded-header", "forwarded"]);
    for (headers, want) in [
        ("Forwarded: for=\"[2001:db8::7]:47011\";proto=https\r\n", "[2001:db8::7]:47011"),
        ("X-Forwarded-For: 1.1.1.1\r\nForwarded: For=203.0.113.7\r\n", "203.0.113.7"),
        ("Forwarded: for=\"1.1.1.1, for=203.0.113.7;by=\"[::1]\"\r\n", "203.0.113.7"),
    ] {
        assert_eq!(known_as(&server, &mut server.open_with(headers)), want, "{headers}");
    }
    for headers in ["X-Forwarded-For: 1.1.1.1\r\n", "Forwarded: for=1.1.1.1, for=_hidden\r\n"] {
        let mut client = server.open_with(headers);
        assert_eq!(known_as(&server, &mut client), client.addr().to_string(), "{headers}");
    }
}

#[test]
fn each_request_of_a_proxys_connection_has_its_own_address() {
    let server = Server::start(&["--trusted-proxy", "127.0.0.1", "--log-level", "debug"]);
    let mut client = server.connect();
    for ip in ["203.0.113.1", "203.0.113.2"] {
        client.send(format!("GET /nothing HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: {ip}\r\n\r\n"));
        assert_eq!(client.response().status, 404);
        server.wait_for_log(&format!("request for /nothing from {ip} answered with 404"));
    }
    client.upgrade("");
    assert_eq!(known_as(&server, &mut client), client.addr().to_string());
}

#[test]
fn a_unix_socket_may_be_trusted() {
    let folder = TempDir::new();
    for (flags, want) in [(&["--trusted-proxy", "unix"][..], "203.0.113.7"), (&[], "unix")] {
        let listen = format!("unix:{}", folder.path("s").display());
        let server = Server::launch(percore(&[&["serve", "echo", "--listen", &listen], flags].concat()), 1);
        let mut client = Client::over(UnixStream::connect(folder.path("s")).expect("it listens"));
        client.upgrade("X-Forwarded-For: 203.0.113.7\r\n");
        assert_eq!(known_as(&server, &mut client), want);
        assert_eq!(server.stop().0, Some(0));
    }
}

#[test]
fn a_proxy_header_tells_the_address() {
    let server = Server::start(&["--proxy-protocol"]);
    let v4 = [203, 0, 113, 7, 127, 0, 0, 1, 0x12, 0x34, 0, 80];
    let v6 = [&[0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7][..], &[0; 16], &[0, 9, 0, 80]].concat();
    for (header, want) in [
        (b"PROXY TCP4 203.0.113.7 127.0.0.1 4711 80\r\n".to_vec(), "203.0.113.7:4711"),
        (b"PROXY TCP6 2001:db8::7 ::1 4711 80\r\n".to_vec(), "[2001:db8::7]:4711"),
        (b"PROXY UNKNOWN\r\n".to_vec(), "unknown"),
        (v2(0x21, 0x11, &v4), "203.0.113.7:4660"),
        (v2(0x21, 0x21, &[&v6[..], b"\x04\0\x03abc"].concat()), "[2001:db8::7]:9"),
        (v2(0x21, 0x31, &[0; 216]), "unknown"),
        (v2(0x21, 0x00, b""), "unknown"),
    ] {
        // Header, request and a frame in one piece; the header of a request is not believed, since nobody is trusted.
        let mut client = server.connect();
        let request = upgrade_request("/ws", "X-Forwarded-For: 1.1.1.1\r\n");
        client.send([&header[..], request.as_bytes()].concat());
        assert_eq!(client.head_response().status, 101, "{header:02x?}");
        assert_eq!(client.echo("hello"), "hello");
        assert_eq!(known_as(&server, &mut client), want, "{header:02x?}");
    }
    let (code, log) = server.stop();
    assert!(code == Some(0) && log.iter().all(|line| !line.contains("PROXY header")), "{log:?}");
}

#[test]
fn a_proxy_header_in_pieces_of_one_byte() {
    let server = Server::start(&["--proxy-protocol"]);
    let v4 = [203, 0, 113, 8, 127, 0, 0, 1, 0, 7, 0, 80, 4, 0, 1, b'x'];
    let headers = [b"PROXY TCP4 203.0.113.7 127.0.0.1 9 80\r\n".to_vec(), v2(0x21, 0x11, &v4)];
    let (mut local, mut clients) = (server.connect(), [server.connect(), server.connect()]);
    local.send(v2(0x20, 0, b""));
    for (client, header) in clients.iter_mut().zip(headers) {
        for byte in [&header[..], upgrade_request("/ws", "").as_bytes()].concat() {
            client.send([byte]);
            // Its answer shows that the server has been through a pass, and so has read the byte by itself.
            assert_eq!(local.get("/healthz").status, 200);
        }
        assert_eq!(client.head_response().status, 101);
    }
    let known = clients.each_mut().map(|client| known_as(&server, client));
    assert_eq!(known, ["203.0.113.7:9", "203.0.113.8:7"]);
}

#[test]
fn a_health_check_by_local_keeps_the_proxys_address() {
    let server = Server::start(&["--proxy-protocol", "--trusted-proxy", "127.0.0.1"]);
    let mut check = server.connect();
    check.send(v2(0x20, 0, b"whatever it says"));
    assert_eq!(check.get("/healthz").status, 200);
    // One that only connects, and one that says LOCAL and goes, as checks by TCP do.
    server.connect().stream.shutdown(Shutdown::Both).expect("connected");
    let mut goes = server.connect();
    goes.send(v2(0x20, 0, b""));
    goes.stream.shutdown(Shutdown::Write).expect("connected");
    goes.ends();
    let mut local = server.connect();
    local.send(v2(0x20, 0, b""));
    local.upgrade("");
    assert_eq!(known_as(&server, &mut local), local.addr().to_string());
    let (code, log) = server.stop();
    assert!(code == Some(0) && log.iter().all(|line| !line.contains("PROXY")), "{log:?}");
}

#[test]
fn a_connection_without_a_proxy_header_is_closed_and_counted() {
    let server = Server::start(&["--proxy-protocol", "--handshake-timeout", "300ms", "--log-format", "json"]);
    let long = v2(0x21, 0x11, &[0; 65535]);
    let beginnings: [&[u8]; 7] = [
        b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01",
        b"PROXY TCP4 203.0.113.7 127.0.0.1 99999 80\r\nGET /healthz HTTP/1.1\r\nHost: a\r\n\r\n",
        b"PROXY TCP4 203.0.113.7 127.0.0.1 1 80\nGET /healthz HTTP/1.1\r\nHost: a\r\n\r\n",
        b"\r\n\r\n\0\r\nQUIT\n\x31\x11\0\x0c",
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x01x",
        &long[..16],
    ];
    for (done, beginning) in beginnings.iter().enumerate() {
        let mut client = server.connect();
        client.send(beginning);
        client.ends();
        eventually("a line of the log", || server.count_log("\"warn\"") == done + 1);
    }
    // These have until the deadline.
    for beginning in [&b""[..], b"PROXY TCP4 203.0.113.7", &V2[..7], &v2(0x21, 0x11, &[0; 12])[..20]] {
        let mut client = server.connect();
        client.send(beginning);
        client.ends();
    }
    eventually("their lines", || server.count_log("no PROXY protocol header in time") == 4);
    let (code, log) = server.stop();
    let end = log.last().expect("counters");
    assert!(code == Some(0) && end.contains("\"proxy_errors\":7,"), "{end}");
    assert!(end.contains("\"handshake_timeouts\":4,") && end.contains("\"accepted\":11,"), "{end}");
}

#[test]
fn only_a_trusted_proxy_may_send_a_proxy_header() {
    let server = Server::start(&["--proxy-protocol", "--trusted-proxy", "10.0.0.0/8"]);
    let mut client = server.connect();
    // It may be closed before this is sent.
    let _ =
        client.stream.write_all(b"PROXY TCP4 10.0.0.7 127.0.0.1 4711 80\r\nGET /healthz HTTP/1.1\r\nHost: a\r\n\r\n");
    client.ends();
    let line = server.wait_for_log("closed: it is not a --trusted-proxy");
    assert!(line.contains(&format!("connection from {}", client.addr())), "{line}");
    assert!(server.stop().1.iter().any(|line| line.contains("1 PROXY header missing")));
}

#[test]
fn what_a_proxy_header_tells_must_itself_be_trusted_to_forward() {
    let mut command = percore(&["serve", "echo", "--listen", "127.0.0.1:0"]);
    command.env("PERCORE_TRUSTED_PROXY", "127.0.0.1,10.0.0.0/8,unix").env("PERCORE_PROXY_PROTOCOL", "true");
    let server = Server::launch(command, 1);
    for (header, want) in [
        ("PROXY TCP4 10.0.0.9 127.0.0.1 4711 80\r\n", "203.0.113.7"),
        ("PROXY TCP4 192.0.2.9 127.0.0.1 4711 80\r\n", "192.0.2.9:4711"),
        // Whoever this is, the header of its request is its own.
        ("PROXY UNKNOWN\r\n", "unknown"),
    ] {
        let mut client = server.connect();
        client.send(header);
        client.upgrade("X-Forwarded-For: 203.0.113.7\r\n");
        assert_eq!(known_as(&server, &mut client), want, "{header}");
    }
}

#[test]
fn connections_of_one_client_are_limited_until_some_end() {
    let server = Server::start(&["--max-connections-per-ip", "2", "--trusted-proxy", "127.0.0.1"]);
    let header = |ip: &str| format!("X-Forwarded-For: {ip}\r\n");
    let status = |ip: &str| {
        let mut client = server.connect();
        client.send(upgrade_request("/ws", &header(ip)));
        let response = client.head_response();
        assert_eq!(response.header("retry-after").is_some(), response.status == 429, "{}", response.head);
        response.status
    };
    let mut open: Vec<Client> = (0..2).map(|_| server.open_with(&header("203.0.113.7"))).collect();
    assert_eq!(status("203.0.113.7"), 429);
    let mut other = server.open_with(&header("203.0.113.8"));
    // Addresses of one /64 count as one client, those of the next do not.
    let mut v6: Vec<Client> = ["2001:db8::1", "2001:db8::ffff:0:0:2"].map(|ip| server.open_with(&header(ip))).into();
    assert_eq!(status("2001:db8::3"), 429);
    v6.push(server.open_with(&header("2001:db8:0:1::1")));
    // A refused upgrade takes no place, and other requests are not limited.
    assert_eq!(open[0].echo("still here"), "still here");
    let mut plain = server.connect();
    plain.send("GET /healthz HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 203.0.113.7\r\n\r\n");
    assert_eq!(plain.response().status, 200);

    // However one ends, its place is free.
    let mut ended = open.remove(0);
    ended.send(close_frame(1000, ""));
    ended.closed();
    open.push(server.open_with(&header("203.0.113.7")));
    assert_eq!(status("203.0.113.7"), 429);
    drop(open.remove(0));
    let mut again = None;
    eventually("the place of one that went without a word", || {
        let mut client = server.connect();
        client.send(upgrade_request("/ws", &header("203.0.113.7")));
        again = (client.head_response().status == 101).then_some(client);
        again.is_some()
    });
    assert_eq!(status("203.0.113.7"), 429);
    let mut violates = again.expect("opened");
    violates.send(b"\x81\x00");
    assert_eq!(violates.closed().0, 1002);
    let last = server.open_with(&header("203.0.113.7"));
    assert_eq!(other.echo("not concerned"), "not concerned");
    drop((last, v6));
}

#[test]
fn what_is_limited_is_counted() {
    let server = Server::start(&["--max-connections-per-ip", "1", "--log-format", "json"]);
    let open = server.open();
    for _ in 0..3 {
        let mut client = server.connect();
        client.send(upgrade_request("/ws", ""));
        assert_eq!(client.response().status, 429);
    }
    drop(open);
    let (_, log) = server.stop();
    let end = log.last().expect("counters");
    assert!(end.contains("\"limited_per_ip\":3,") && end.contains("\"rejected\":3,"), "{end}");
}

#[test]
fn clients_of_a_unix_socket_are_not_limited() {
    let folder = TempDir::new();
    let listen = format!("unix:{}", folder.path("s").display());
    let flags = ["serve", "echo", "--listen", &listen, "--max-connections-per-ip", "1", "--trusted-proxy", "unix"];
    let _server = Server::launch(percore(&flags), 1);
    let connect = || Client::over(UnixStream::connect(folder.path("s")).expect("it listens"));
    let mut clients = [connect(), connect(), connect()];
    for client in &mut clients {
        client.upgrade("");
    }
    // Where a proxy tells the address, it counts.
    let mut known = connect();
    known.upgrade("X-Forwarded-For: 203.0.113.7\r\n");
    let mut second = connect();
    second.send(upgrade_request("/ws", "X-Forwarded-For: 203.0.113.7\r\n"));
    assert_eq!(second.head_response().status, 429);
}
