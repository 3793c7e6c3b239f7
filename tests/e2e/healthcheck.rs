//! `percore healthcheck` against the real server, and against other programs on its port.

use crate::common::{Server, TempDir, percore, run};
use socket2::{Domain, Socket, Type};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::process::Command;

/// The command with `PERCORE_LISTEN` as the server would have it.
fn healthcheck_of(listen: &str) -> Command {
    let mut command = percore(&["healthcheck"]);
    command.env("PERCORE_LISTEN", listen);
    command
}

fn assert_healthy(command: Command) {
    let shown = format!("{command:?}");
    assert_eq!(run(command), (0, String::new(), String::new()), "{shown}");
}

/// Asserts that it fails with this code and one line that says `hint`.
fn assert_unhealthy(command: Command, code: i32, hint: &str) {
    let shown = format!("{command:?}");
    let (got, stdout, stderr) = run(command);
    assert_eq!((got, stdout.as_str()), (code, ""), "{shown}: {stderr}");
    let one_line = stderr.starts_with("percore: ") && stderr.lines().count() == 1;
    assert!(one_line && stderr.contains(hint), "{shown}: {stderr}");
}

/// A server that takes one connection, reads the request and answers so. It holds the connection until the client
/// has gone.
fn answers(answer: &'static [u8]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = listener.local_addr().expect("bound");
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        let mut request = [0; 1024];
        let bytes = stream.read(&mut request).expect("a request");
        assert!(request[..bytes].starts_with(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1"));
        stream.write_all(answer).expect("the client reads");
        let _ = stream.read(&mut request);
    });
    addr
}

#[test]
fn a_server_that_is_well() {
    let folder = TempDir::new();
    let unix = format!("unix:{}", folder.path("s").display());
    let command = percore(&["serve", "echo", "--listen", "0.0.0.0:0", "--listen", "[::]:0", "--listen", &unix]);
    let server = Server::launch(command, 3);
    // Just what the server was given, wildcards included, and of several addresses the first.
    for listen in &server.listen {
        assert_healthy(healthcheck_of(listen));
        assert_healthy(healthcheck_of(&format!("{listen},127.0.0.1:1")));
    }
    let port = server.listen[0].rsplit_once(':').expect("a port").1;
    let mut by_port = percore(&["healthcheck"]);
    by_port.env("PORT", port);
    assert_healthy(by_port);
    for url in [format!("http://127.0.0.1:{port}/healthcheck"), format!("http://localhost:{port}"), unix.clone()] {
        assert_healthy(percore(&["healthcheck", &url]));
    }
    assert_unhealthy(percore(&["healthcheck", &format!("{unix}:/nonsense")]), 1, "/nonsense: answered 'HTTP/1.1 404");
}

/// The image's health check has the server's environment, and asks from the loopback.
#[test]
fn a_server_behind_a_proxy() {
    for trusted in [None, Some("192.0.2.0/24"), Some("127.0.0.1")] {
        let mut command = percore(&["serve", "echo"]);
        command.env("PERCORE_LISTEN", "0.0.0.0:0").env("PERCORE_PROXY_PROTOCOL", "true");
        if let Some(network) = trusted {
            command.env("PERCORE_TRUSTED_PROXY", network);
        }
        let server = Server::launch(command, 1);
        let mut check = healthcheck_of(&server.listen[0]);
        check.env("PERCORE_PROXY_PROTOCOL", "true");
        assert_healthy(check);
        let mut check = healthcheck_of(&server.listen[0]);
        check.arg("--proxy-protocol");
        assert_healthy(check);
        assert_unhealthy(healthcheck_of(&server.listen[0]), 1, "closed without a response");
    }
}

#[test]
fn the_first_worker_of_many() {
    let folder = TempDir::new();
    let path = format!("unix:{}", folder.path("0.sock").display());
    let _server = Server::launch(percore(&["serve", "echo", "--listen", &path]), 1);
    assert_healthy(healthcheck_of(&path.replace("0.sock", "{worker}.sock")));
}

#[test]
fn a_server_that_drains() {
    let server = Server::start(&[]);
    let mut client = server.open();
    assert_eq!(client.echo("open"), "open");
    server.signal("TERM");
    assert_eq!(client.closed().0, 1001);
    assert_unhealthy(healthcheck_of(&server.listen[0]), 1, "refused");
}

#[test]
fn nobody_and_others_on_the_port() {
    // Bound and not listening: refused, and nobody else's meanwhile.
    let silent = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    silent.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("a port");
    let free = silent.local_addr().ok().and_then(|addr| addr.as_socket()).expect("bound");
    assert_unhealthy(healthcheck_of(&free.to_string()), 1, &format!("http://{free}/healthz: Connection refused"));
    assert_unhealthy(healthcheck_of("unix:/nowhere/s"), 1, "unix:/nowhere/s:/healthz: No such file");
    for (answer, hint) in [
        (&b"HTTP/1.1 503 Service Unavailable\r\n\r\n"[..], "answered 'HTTP/1.1 503 Service Unavailable'"),
        (b"HTTP/1.1 2000 OK\r\n", "2000"),
        (b"\x1b[31mred 404\n", "answered '\\u{1b}[31mred 404'"),
        (&[b'x'; 2000], "not an HTTP response"),
    ] {
        assert_unhealthy(healthcheck_of(&answers(answer).to_string()), 1, hint);
    }
    assert_healthy(healthcheck_of(&answers(b"HTTP/1.0 200\r\n").to_string()));
}

#[test]
fn an_answer_that_does_not_come() {
    for answer in [&b""[..], b"HTTP/1.1 200 OK"] {
        let mut command = healthcheck_of(&answers(answer).to_string());
        command.args(["--timeout", "100ms"]);
        assert_unhealthy(command, 1, "no answer within 100ms");
    }
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = listener.local_addr().expect("bound");
    let closing = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        let _ = stream.read(&mut [0; 1024]);
    });
    assert_unhealthy(healthcheck_of(&addr.to_string()), 1, "closed without a response");
    closing.join().expect("it served one");
}

#[test]
fn a_wrong_command_line() {
    for (args, hint) in [
        (&["healthcheck", "127.0.0.1:8080"][..], "http://HOST:PORT"),
        (&["healthcheck", "http://"], "no host"),
        (&["healthcheck", "--timeout", "0"], "--timeout"),
        (&["healthcheck", "--timeout", "soon"], "30s"),
    ] {
        assert_unhealthy(percore(args), 2, hint);
    }
    assert_unhealthy(healthcheck_of("nowhere"), 2, "nowhere");
}
