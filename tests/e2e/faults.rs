//! Too many, too slow, too silent: what the server does when clients or the system fail it.

use crate::common::client::{BINARY, CLOSE, PING, PONG, TEXT, frame, upgrade_request};
use crate::common::{Client, Killed, PATIENCE, Server, eventually, percore_after, send_signal, tool};
use socket2::{Domain, Socket, Type};
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

#[test]
fn out_of_descriptors_it_refuses_and_recovers() {
    let args = ["serve", "echo", "--listen", "127.0.0.1:0"];
    let server = Server::launch(percore_after("ulimit -n 40", &args), 1);
    let start = Instant::now();
    let mut held = Vec::new();
    let mut refused = 0;
    // Those that can be served are; all others are closed at once rather than left to wait, since nobody idles.
    while refused < 300 {
        let mut client = server.connect();
        let _ = client.stream.write_all(upgrade_request("/ws", "").as_bytes());
        match client.stream.read(&mut [0; 1]) {
            Ok(1) => held.push(client),
            Ok(_) => refused += 1,
            Err(error) if error.kind() == ErrorKind::ConnectionReset => refused += 1,
            Err(error) => panic!("neither served nor refused: {error}"),
        }
    }
    assert!((20..40).contains(&held.len()), "{} served", held.len());
    server.wait_for_log("(raise the limit of open files)");
    let lines = server.count_log("accept failed: ");
    assert!(lines as u64 <= 1 + start.elapsed().as_secs(), "{lines} lines within {:?}", start.elapsed());
    drop(held);
    eventually("a free descriptor", || {
        let mut client = server.connect();
        let _ = client.stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n");
        client.stream.read(&mut [0; 1]).is_ok_and(|bytes| bytes == 1)
    });
    server.assert_alive();
    assert_eq!(server.stop().0, Some(0));
}

#[test]
fn beyond_max_connections_there_is_503() {
    let server = Server::start(&["--max-connections", "2"]);
    let (first, mut second) = (server.open(), server.open());
    let mut third = server.connect();
    third.send(upgrade_request("/ws", ""));
    let got = third.response();
    assert_eq!(got.status, 503);
    assert!(got.header("retry-after").is_some_and(|value| value.parse::<u32>().is_ok_and(|seconds| seconds > 0)));
    // Plain requests are no such connections, and the same client may try again.
    assert_eq!(third.get("/healthz").status, 200);
    drop(first);
    server.wait_for_log("WebSocket connection closed");
    third.upgrade("");
    assert_eq!((third.echo("third"), second.echo("second")), ("third".to_owned(), "second".to_owned()));
}

#[test]
fn thousands_of_half_open_handshakes_are_no_obstacle() {
    let server = Server::start(&["--handshake-timeout", "1s"]);
    let mut half_open: Vec<Client> = (0..5000)
        .map(|n| {
            let mut client = server.connect();
            // Some say nothing at all, the others a part of a request.
            client.send(&upgrade_request("/ws", "")[..n % 100]);
            client
        })
        .collect();
    let mut normal = server.open();
    assert_eq!(normal.echo("normal"), "normal");
    for client in &mut half_open {
        assert_eq!(client.response().status, 408);
        client.ends();
    }
    assert_eq!(normal.echo("still normal"), "still normal");
    drop(half_open);
    server.assert_alive();
}

/// A client with a small receive buffer, so that what it does not read soon waits in the server.
fn open_with_small_buffer(server: &Server) -> Client {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.set_recv_buffer_size(4096).expect("an option");
    socket.connect(&server.addr().into()).expect("the server accepts");
    let mut client = Client::over(std::net::TcpStream::from(socket));
    client.stream.set_read_timeout(Some(PATIENCE)).expect("an option");
    client.upgrade("");
    client
}

#[test]
fn a_slow_reader_is_closed() {
    let server = Server::start(&["--max-backlog", "64K", "--deflate", "off"]);
    let mut other = server.open();
    let mut slow = open_with_small_buffer(&server);
    let (addr, message) = (slow.addr(), frame(BINARY, &[7; 1000]));
    slow.stream.set_write_timeout(Some(PATIENCE)).expect("an option");
    // Until the server ends it, which makes writing fail.
    while slow.stream.write_all(&message).is_ok() {}
    let line = server.wait_for_log("reads too slowly");
    assert!(line.contains(&format!("WebSocket error from {addr}: ")), "{line}");
    server.wait_for_log(&format!("WebSocket connection closed: {addr}"));
    assert_eq!(other.echo("not affected"), "not affected");
    drop(other);
    let (_, log) = server.stop();
    assert!(log.iter().any(|line| line.contains("1 slow consumer closed")), "{log:?}");
}

#[test]
fn a_slow_reader_misses_messages_where_that_is_the_policy() {
    let server = Server::start(&["--max-backlog", "64K", "--slow-consumer", "drop", "--deflate", "off"]);
    let mut slow = open_with_small_buffer(&server);
    // More than the buffers of both ends hold.
    let sent = 20_000_u32;
    for n in 0..sent {
        slow.send(frame(BINARY, &[&n.to_be_bytes()[..], &[7; 996]].concat()));
    }
    // What does come is whole and in order, and once the client has caught up it is as any other.
    let (mut received, mut last, mut caught_up) = (0, None, false);
    while !caught_up {
        slow.send(frame(TEXT, b"caught up?"));
        while let Some(back) = slow.frame_within(Duration::from_millis(100)) {
            if back.first == TEXT {
                caught_up = true;
                break;
            }
            let n = u32::from_be_bytes(back.payload[..4].try_into().expect("four bytes"));
            assert!(back.payload.len() == 1000 && last < Some(n), "{n} after {last:?}");
            (received, last) = (received + 1, Some(n));
        }
    }
    assert!(0 < received && received < sent, "{received} of {sent}");
    assert_eq!(server.count_log("WebSocket error"), 0);
    drop(slow);
    server.wait_for_log("connection closed");
    let (_, log) = server.stop();
    assert!(log.iter().any(|line| line.contains(" dropped")), "{log:?}");
}

#[test]
fn whoever_does_not_read_is_not_read_from() {
    // With the default backlog nothing is closed and nothing lost: the client's own buffers fill up, and all comes
    // once it reads.
    let server = Server::start(&["--deflate", "off"]);
    let (mut slow, mut other) = (open_with_small_buffer(&server), server.open());
    slow.stream.set_nonblocking(true).expect("an option");
    let message = frame(BINARY, &vec![7; 10_000]);
    let mut bytes = 0;
    let mut since = Instant::now();
    while since.elapsed() < Duration::from_millis(200) {
        let offset = bytes % message.len();
        match slow.stream.write(&message[offset..]) {
            Ok(more) => {
                // Its answer shows that the server has been through a pass: it has each piece in a read of its own.
                assert_eq!(other.echo("pass"), "pass");
                (bytes, since) = (bytes + more, Instant::now());
            }
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
    }
    slow.stream.set_nonblocking(false).expect("an option");
    let mut writer = slow.stream.try_clone().expect("a second handle");
    let rest = message[bytes % message.len()..].to_vec();
    let sent = bytes / message.len() + 1;
    std::thread::spawn(move || writer.write_all(&rest));
    for n in 0..sent {
        let back = slow.frame();
        assert!(back.first == BINARY && back.payload == vec![7; 10_000], "message {n} of {sent}");
    }
    assert_eq!(slow.echo("caught up"), "caught up");
    assert_eq!(server.count_log("WebSocket error"), 0);
}

#[test]
fn one_flood_does_not_starve_the_others() {
    let server = Server::start(&["--deflate", "off"]);
    let mut flood = server.open();
    let mut reader = flood.stream.try_clone().expect("a second handle");
    let handle = flood.stream.try_clone().expect("a third handle");
    // Both threads run until the connection is shut.
    std::thread::spawn(move || {
        let burst = frame(BINARY, &[7; 1000]).repeat(100);
        while flood.stream.write_all(&burst).is_ok() {}
    });
    let through = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&through);
    std::thread::spawn(move || {
        let mut buffer = vec![0; 1 << 20];
        while let Ok(bytes @ 1..) = reader.read(&mut buffer) {
            counter.fetch_add(bytes as u64, Ordering::Relaxed);
        }
    });
    let mut normal = server.open();
    // What the flood gets through while the other waits for its answer. The least of it counts, since a busy machine
    // may keep this thread from seeing its answer, and the last exchanges, since it must not grow.
    let exchanges: Vec<u64> = (0..30)
        .map(|n| {
            let before = through.load(Ordering::Relaxed);
            assert_eq!(normal.echo(&n.to_string()), n.to_string());
            through.load(Ordering::Relaxed) - before
        })
        .collect();
    let least = exchanges[20..].iter().min().expect("ten");
    assert!(*least < 8 << 20, "bytes of the flood during each exchange: {exchanges:?}");
    let _ = handle.shutdown(Shutdown::Both);
    server.assert_alive();
}

#[test]
fn pings_come_and_silence_ends_a_connection() {
    let server = Server::start(&["--heartbeat", "200ms", "--heartbeat-timeout", "1s"]);
    let done = AtomicBool::new(false);
    let mut lively = server.open();
    std::thread::scope(|scope| {
        // One answers its Pings, for longer than the other is let to be silent.
        let lively = scope.spawn(|| {
            let mut pings = 0;
            while !done.load(Ordering::Relaxed) {
                let ping = lively.frame();
                assert_eq!(ping.first, PING);
                lively.send(frame(PONG, &ping.payload));
                pings += 1;
            }
            (lively.echo("alive"), pings)
        });
        let mut silent = server.open();
        let first = silent.frame();
        assert_eq!(first.first, PING);
        assert_eq!(silent.closed(), (1011, "heartbeat timeout".to_owned()));
        silent.ends();
        done.store(true, Ordering::Relaxed);
        let (echoed, pings) = lively.join().expect("the lively one");
        assert_eq!(echoed, "alive");
        assert!(pings >= 2, "{pings} Pings");
    });
    assert_eq!(server.count_log("WebSocket error"), 1);
}

#[test]
fn a_stopped_client_is_found_out() {
    let server = Server::start(&["--heartbeat", "200ms", "--heartbeat-timeout", "600ms"]);
    let mut command = Command::new(tool("bin/websocat"));
    command.args(["-n", &server.url("/ws")]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    let client = Killed(command.spawn().expect("websocat starts"));
    server.wait_for_log("WebSocket connection opened");
    // The kernel keeps acknowledging for it; only the Pongs are missing.
    send_signal(&client.0, "STOP");
    let line = server.wait_for_log("WebSocket error");
    assert!(line.contains("nothing came for "), "{line}");
    server.wait_for_log("WebSocket connection closed");
    server.assert_alive();
}

#[test]
fn without_a_heartbeat_nobody_is_pinged() {
    let server = Server::start(&["--heartbeat", "0", "--heartbeat-timeout", "300ms"]);
    let mut client = server.open();
    let end = client.frame();
    assert_eq!((end.first, &end.payload[..2]), (CLOSE, &1011u16.to_be_bytes()[..]));
    client.ends();
}

#[test]
fn resets_in_the_midst_of_everything() {
    let server = Server::start(&[]);
    let whole = frame(TEXT, &[b'x'; 70_000]);
    let request = upgrade_request("/ws", "");
    for cut in [1, 2, 6, 10, 14, 15, 1000, 70_000] {
        let mut client = server.open();
        client.send(&whole[..cut]);
        reset(client);
    }
    for cut in [0, 1, request.len() - 1, request.len()] {
        let mut client = server.connect();
        client.send(&request[..cut]);
        reset(client);
    }
    // With an answer under way.
    let mut client = open_with_small_buffer(&server);
    client.send(frame(BINARY, &vec![7; 1 << 20]));
    client.stream.read_exact(&mut [0; 100]).expect("the beginning of an answer");
    reset(client);
    server.assert_alive();
    eventually("every end", || {
        let opened = server.count_log("connection opened");
        opened >= 10 && opened == server.count_log("connection closed")
    });
}

/// Closes with a TCP reset instead of an orderly end.
fn reset(client: Client) {
    let socket = Socket::from(client.stream);
    socket.set_linger(Some(Duration::ZERO)).expect("an option");
}
