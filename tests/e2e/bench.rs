//! `percore bench` as a user runs it: against the real server, against servers that answer wrongly, and against none.

use crate::common::{Killed, Server, TempDir, exit_code, percore, percore_after, run, send_signal};
use serde_json::Value;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::thread;

/// Runs it for a moment, and reads its JSON.
fn bench(args: &[&str]) -> (i32, Value) {
    let mut all = vec!["bench"];
    all.extend_from_slice(args);
    all.extend_from_slice(&["--warmup", "50ms", "--json", "-", "--quiet"]);
    let (code, stdout, stderr) = run(percore(&all));
    let json = serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{error}: {stderr}"));
    (code, json)
}

pub fn number(json: &Value, path: &str) -> f64 {
    json.pointer(path).and_then(Value::as_f64).unwrap_or_else(|| panic!("{path} in {json:#}"))
}

/// A server that answers each handshake rightly, and is then up to `after`.
fn faulty(after: impl Fn(TcpStream) + Send + Copy + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("ws://{}/", listener.local_addr().expect("bound"));
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || {
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") {
                    let mut byte = [0];
                    if stream.read_exact(&mut byte).is_err() {
                        return;
                    }
                    request.push(byte[0]);
                }
                let text = String::from_utf8(request).expect("a request is text");
                let key = text.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Key: ")).expect("a key");
                let accept = percore::internal::protocol::upgrade::accept_value(key);
                let answer = format!(
                    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                     Sec-WebSocket-Accept: {accept}\r\n\r\n"
                );
                if stream.write_all(answer.as_bytes()).is_ok() {
                    after(stream);
                }
            });
        }
    });
    url
}

fn read_to_end(mut stream: &TcpStream) {
    let _ = stream.read_to_end(&mut Vec::new());
}

#[test]
fn echo_is_counted_timed_and_checked() {
    let server = Server::start(&[]);
    let pid = server.child().id().to_string();
    for flags in [
        &["--in-flight", "8"][..],
        &["--text", "--size", "70000"],
        &["--in-flight", "16", "--size", "300K"],
        &["--deflate", "--text", "--size", "2K"],
    ] {
        let url = server.url("/");
        let mut args = vec!["echo", &url, "-c", "20", "-d", "300ms", "--pid", &pid];
        args.extend_from_slice(flags);
        let (code, json) = bench(&args);
        assert_eq!((code, &json["errors"]), (0, &serde_json::json!({})), "{flags:?}");
        assert_eq!(number(&json, "/connected"), 20.0);
        let messages = number(&json, "/messages");
        assert!(messages >= 20.0, "{messages}");
        let per_second = messages / number(&json, "/duration_seconds");
        assert!((number(&json, "/messages_per_second") / per_second - 1.0).abs() < 0.001);
        let latency: Vec<f64> = ["min", "p50", "p90", "p99", "p99.9", "p99.99", "max"]
            .map(|name| json["latency_seconds"][name].as_f64().expect(name))
            .to_vec();
        assert!(latency.is_sorted() && latency[0] > 0.0, "{latency:?}");
        assert!(number(&json, "/server/cpu_seconds") > 0.0);
        let over_time = json["over_time"].as_array().expect("intervals");
        let counted: f64 = over_time.iter().map(|interval| interval["messages"].as_f64().expect("a number")).sum();
        assert_eq!(counted, messages);
    }
}

#[test]
fn an_open_loop_keeps_its_rate() {
    let server = Server::start(&[]);
    let (code, json) = bench(&["echo", &server.url("/"), "-c", "10", "-d", "1s", "--rate", "2000"]);
    assert_eq!(code, 0, "{json:#}");
    // All that is due is sent; what is under way at either end is not much.
    assert!((1900.0..2100.0).contains(&number(&json, "/messages")), "{json:#}");
}

#[test]
fn a_stall_is_not_hidden() {
    // Says nothing for a while, then echoes.
    let url = faulty(|mut stream| {
        thread::sleep(std::time::Duration::from_millis(500));
        let mut buffer = [0; 65536];
        while let Ok(bytes @ 1..) = stream.read(&mut buffer) {
            // Masked frames of six bytes of header and four of payload.
            for frame in buffer[..bytes].chunks_exact(10) {
                let payload: Vec<u8> = (0..4).map(|i| frame[6 + i] ^ frame[2 + i]).collect();
                let _ = stream.write_all(&[&[0x82, 4][..], &payload].concat());
            }
        }
    });
    let (_, json) = bench(&["echo", &url, "-c", "1", "-d", "1s", "--rate", "100", "--size", "4"]);
    let (p50, max) = (number(&json, "/latency_seconds/p50"), number(&json, "/latency_seconds/max"));
    assert!(max > 0.3 && p50 < max, "the messages that were to go during the stall waited for it: {p50} {max}");
}

#[test]
fn idle_connections_are_held_and_weighed() {
    let server = Server::start(&[]);
    let pid = server.child().id().to_string();
    let (code, json) = bench(&["idle", &server.url("/"), "-c", "2000", "-d", "200ms", "--echo", "--pid", &pid]);
    assert_eq!((code, number(&json, "/connected")), (0, 2000.0));
    let bytes = number(&json, "/server/memory_bytes_per_connection");
    assert!((50.0..2000.0).contains(&bytes), "{bytes} bytes a connection");
}

#[test]
fn connections_are_opened_and_closed() {
    let server = Server::start(&[]);
    let (code, json) = bench(&["connect", &server.url("/"), "-c", "8", "-d", "300ms"]);
    assert_eq!((code, &json["errors"]), (0, &serde_json::json!({})));
    assert!(number(&json, "/handshakes") > 8.0 && number(&json, "/handshakes_per_second") > 0.0);
    assert!(server.log().iter().any(|line| line.contains("127.0.0.16:")), "from several addresses");
}

#[test]
fn a_publisher_and_its_subscribers() {
    let room = example("room", &[]);
    let url = format!("ws://{}/", room.1);
    for flags in [&["--in-flight", "4"][..], &["--rate", "500"]] {
        let mut args = vec!["fanout", &url, "-c", "6", "-d", "300ms", "--text", "--size", "100"];
        args.extend_from_slice(flags);
        let (code, json) = bench(&args);
        assert_eq!((code, &json["errors"]), (0, &serde_json::json!({})), "{flags:?}");
        let (published, delivered) = (number(&json, "/published"), number(&json, "/messages"));
        assert!(published > 0.0 && delivered >= 5.0 * (published - 8.0), "{published} {delivered}");
    }
}

#[test]
fn a_server_that_delivers_to_nobody() {
    let server = Server::start(&[]);
    let (code, json) = bench(&["fanout", &server.url("/"), "-c", "3", "-d", "100ms"]);
    assert_eq!((code, &json["errors"]), (1, &serde_json::json!({"no delivery": 1})));
}

#[test]
fn a_publisher_on_another_process_of_the_bus() {
    let folder = TempDir::new();
    let bus = folder.path("bus").display().to_string();
    let [here, there] = [(), ()].map(|()| example("broadcast", &[&bus]));
    let [url, publish_to] = [&here, &there].map(|server| format!("ws://{}/", server.1));
    let args = ["fanout", &url, "-c", "6", "-d", "300ms", "--publish-to", &publish_to];
    let (code, json) = bench(&args);
    assert_eq!((code, &json["errors"]), (0, &serde_json::json!({})));
    let (published, delivered) = (number(&json, "/published"), number(&json, "/messages"));
    assert!(published > 0.0 && delivered >= 5.0 * (published - 2.0), "{published} {delivered}");
    // Nobody else is on the bus without the other.
    drop(there);
    assert_eq!(bench(&args).0, 1);
}

/// An example, and where it listens.
pub fn example(name: &str, more: &[&str]) -> (Killed, String) {
    let mut example = std::path::PathBuf::from(env!("CARGO_BIN_EXE_percore"));
    example.pop();
    example.push("examples");
    example.push(name);
    let port = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port");
    let child =
        Command::new(example).arg(port.to_string()).args(more).stderr(Stdio::null()).spawn().expect("the example runs");
    crate::common::eventually("the example listens", || TcpStream::connect(port).is_ok());
    (Killed(child), port.to_string())
}

#[test]
fn over_a_unix_socket_and_against_a_raw_echo() {
    let folder = TempDir::new();
    let listen = format!("unix:{}", folder.path("s").display());
    let server = Server::launch(percore(&["serve", "echo", "--listen", &listen]), 1);
    let (code, json) = bench(&["echo", &format!("{listen}:/ws"), "-c", "5", "-d", "100ms"]);
    assert!(code == 0 && number(&json, "/messages") > 5.0, "{json:#}");
    drop(server);

    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("tcp://{}", listener.local_addr().expect("bound"));
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || {
                let mut reader = stream.try_clone().expect("a copy");
                std::io::copy(&mut reader, &mut stream)
            });
        }
    });
    let (code, json) = bench(&["echo", &url, "-c", "3", "-d", "100ms", "--size", "1000", "--in-flight", "4"]);
    assert!(code == 0 && number(&json, "/messages") > 3.0, "{json:#}");
}

#[test]
fn each_fault_is_an_error_of_its_own_kind() {
    let nobody = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port");
    let nobody = format!("ws://{nobody}/");
    let server = Server::start(&[]);
    let nowhere = server.url("/nowhere");
    let wrong = faulty(|mut stream| {
        let _ = stream.write_all(b"\x82\x04oops");
        read_to_end(&stream);
    });
    let masked = faulty(|mut stream| {
        let _ = stream.write_all(b"\x82\x81\x00\x00\x00\x00x");
        read_to_end(&stream);
    });
    let ends = faulty(|stream| {
        let _ = stream.shutdown(std::net::Shutdown::Write);
        read_to_end(&stream);
    });
    let closes = faulty(|mut stream| {
        let _ = stream.write_all(b"\x88\x02\x03\xe8");
        read_to_end(&stream);
    });
    let silent = faulty(|stream| read_to_end(&stream));
    let missing_socket = "unix:/nonexistent/socket".to_owned();
    for (url, kind) in [
        (&nobody, "refused"),
        (&nowhere, "upgrade refused"),
        (&wrong, "wrong answer"),
        (&masked, "protocol error"),
        (&ends, "ended by the server"),
        (&closes, "closed by the server"),
        (&silent, "no answer"),
        (&missing_socket, "no such socket"),
    ] {
        let (code, json) = bench(&["echo", url, "-c", "2", "-d", "1200ms", "--size", "4"]);
        assert_eq!(code, 1, "{kind}");
        let count = json["errors"][kind].as_u64();
        assert!(count.is_some_and(|count| count >= 1), "{kind} in {:#}", json["errors"]);
    }
}

#[test]
fn the_table_the_progress_and_the_plot() {
    let (server, folder) = (Server::start(&[]), TempDir::new());
    let (plot, json) = (folder.path("p.svg"), folder.path("r.json"));
    let mut command = percore(&["bench", "echo", &server.url("/"), "-c", "5", "-d", "1200ms", "--warmup", "0"]);
    command.arg("--plot").arg(&plot).arg("--json").arg(&json);
    let (code, stdout, stderr) = run(command);
    assert_eq!(code, 0, "{}", stderr);
    for word in ["throughput", "messages/s", "p50", "p99.99", "errors         none", "5 of 5"] {
        assert!(stdout.contains(word), "{word} in {}", stdout);
    }
    assert!(stderr.lines().any(|line| line.contains("5 connected") && line.contains("p99 ")), "{}", stderr);
    let svg = std::fs::read_to_string(plot).expect("the plot");
    let title = format!("5 connections, 1 in flight, 125 bytes, binary, percore {}, 20", env!("CARGO_PKG_VERSION"));
    assert!(svg.starts_with("<svg") && svg.contains("polyline") && svg.contains(&title), "{svg}");
    for words in ["Latency by percentile", "messages per second", "Latency over time", "p50", "p99", "no errors"] {
        assert!(svg.contains(words), "{words} in {svg}");
    }
    let json: Value = serde_json::from_str(&std::fs::read_to_string(json).expect("the JSON")).expect("JSON");
    assert_eq!(json["workload"], "echo");
}

#[test]
fn an_interrupt_ends_it_early_with_the_results_so_far() {
    let server = Server::start(&[]);
    let mut command = percore(&["bench", "echo", &server.url("/"), "-c", "5", "-d", "1h", "--warmup", "0"]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child: Child = command.spawn().expect("it runs");
    // The first line of progress that has a rate: it measures.
    let mut said = String::new();
    let mut stderr = child.stderr.take().expect("piped");
    while !said.contains("messages/s") {
        let mut byte = [0];
        stderr.read_exact(&mut byte).expect("progress");
        said.push(char::from(byte[0]));
    }
    send_signal(&child, "INT");
    assert_eq!(exit_code(&mut child), Some(0));
    let mut table = String::new();
    child.stdout.take().expect("piped").read_to_string(&mut table).expect("the table");
    assert!(table.contains("interrupted") && table.contains("throughput"), "{table}");
}

#[test]
fn what_cannot_be_is_said_before_anything_is_done() {
    for (args, hint) in [
        (&["bench", "echo", "http://x/"][..], "scheme"),
        (&["bench", "echo", "wss://127.0.0.1/", "--ca", "/no/such/file"], "/no/such/file"),
        (&["bench", "echo", "ws://127.0.0.1/", "-n", "5", "--duration", "1s"], "cannot be used with"),
        (&["bench", "echo"], "<URL>"),
        (&["bench", "echo", "ws://127.0.0.1:1/", "-d", "0"], "--duration"),
        (&["bench", "echo", "ws://127.0.0.1:1/", "--rate", "0"], "above 0"),
        (&["bench", "echo", "ws://127.0.0.1:1/", "-H", "x"], "Name: value"),
        (&["bench", "echo", "ws://127.0.0.1:1/", "--subprotocol", "a b"], "token"),
        (&["bench", "fanout", "ws://127.0.0.1:1/", "-s", "5"], "24 bytes"),
        (&["bench", "fanout", "ws://127.0.0.1:1/", "-c", "1"], "subscriber"),
        (&["bench", "echo", "ws://127.0.0.1:1/", "--source", "::1"], "cannot reach"),
        (&["bench", "nothing", "ws://127.0.0.1:1/"], "nothing"),
    ] {
        let (code, stdout, stderr) = run(percore(args));
        assert_eq!((code, stdout.as_str()), (2, ""), "{args:?}: {}", stderr);
        assert!(stderr.contains(hint) && stderr.lines().count() == 1, "{args:?}: {}", stderr);
    }
    let (code, _, stderr) = run(percore_after("ulimit -n 100", &["bench", "idle", "ws://127.0.0.1:1/", "-c", "5000"]));
    assert!(code == 2 && stderr.contains("ulimit -n"), "{}", stderr);
    let (code, _, stderr) = run(percore(&["bench", "idle", "ws://127.0.0.1:1/", "--pid", "4294967295"]));
    assert!(code == 1 && stderr.contains("4294967295"), "{}", stderr);
}

/// A server that sends on what comes on one connection to the others, as `deliver` says: how often the message of that number
/// goes to the subscriber of that number.
pub fn hub(deliver: impl Fn(usize, usize) -> usize + Send + Sync + Copy + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("ws://{}/", listener.local_addr().expect("bound"));
    let all = std::sync::Arc::new(std::sync::Mutex::new(Vec::<TcpStream>::new()));
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let all = std::sync::Arc::clone(&all);
            // Nobody publishes before all are open.
            all.lock().expect("the others").push(stream.try_clone().expect("a copy"));
            thread::spawn(move || {
                let mut socket = tungstenite::accept(stream).expect("an upgrade");
                let mut number = 0;
                while let Ok(message) = socket.read() {
                    if !message.is_binary() {
                        continue;
                    }
                    let mut frame = vec![0x82, message.len() as u8];
                    frame.extend_from_slice(&message.into_data());
                    for (subscriber, stream) in all.lock().expect("the others").iter_mut().enumerate() {
                        for _ in 0..deliver(number, subscriber) {
                            let _ = stream.write_all(&frame);
                        }
                    }
                    number += 1;
                }
            });
        }
    });
    url
}

/// Connections open one after another, so that the first is the one that publishes.
fn fanout(url: &str, more: &[&str]) -> (i32, Value) {
    bench(&[&["fanout", url, "-c", "5", "-d", "300ms", "--size", "100", "--connect-rate", "100"], more].concat())
}

#[test]
fn what_comes_to_every_subscriber_once_is_no_error() {
    for flags in [&["--rate", "200"][..], &["--in-flight", "3"]] {
        let (code, json) = fanout(&hub(|_, _| 1), flags);
        assert_eq!((code, &json["errors"]), (0, &serde_json::json!({})), "{flags:?}");
    }
}

#[test]
fn a_subscriber_that_gets_nothing_is_an_error() {
    for flags in [&["--rate", "200"][..], &["--in-flight", "3"]] {
        let (code, json) = fanout(&hub(|_, subscriber| usize::from(subscriber != 3)), flags);
        let missing = number(&json, "/errors/missing delivery");
        assert_eq!(code, 1);
        assert!(missing > 0.0 && json["errors"].as_object().is_some_and(|errors| errors.len() == 1), "{json:#}");
        // All that was published, in the warm-up as well.
        assert!(missing >= number(&json, "/published"), "{json:#}");
    }
}

#[test]
fn the_last_messages_are_missed_too() {
    let (code, json) = fanout(&hub(|number, _| usize::from(number < 20)), &["--rate", "200"]);
    assert_eq!(code, 1);
    // 60 are published, and 50 ms of warm-up before; each goes to four.
    assert!(number(&json, "/errors/missing delivery") >= 4.0 * 30.0, "{json:#}");
}

#[test]
fn a_message_that_comes_twice_is_an_error() {
    for flags in [&["--rate", "200"][..], &["--in-flight", "3"]] {
        let (code, json) = fanout(&hub(|number, _| 1 + usize::from(number == 10)), flags);
        assert_eq!((code, &json["errors"]), (1, &serde_json::json!({"delivered twice": 4})), "{flags:?}");
    }
}

#[test]
fn answers_that_do_not_come_are_counted_all_of_them() {
    // Echoes ten, and nothing after that.
    let url = faulty(|mut stream| {
        let mut frame = [0; 10];
        let mut number = 0;
        while stream.read_exact(&mut frame).is_ok() {
            number += 1;
            let payload: Vec<u8> = (0..4).map(|i| frame[6 + i] ^ frame[2 + i]).collect();
            if number <= 10 && stream.write_all(&[&[0x82, 4][..], &payload].concat()).is_err() {
                return;
            }
        }
    });
    let args = ["bench", "echo", &url, "-c", "2", "-d", "300ms", "--warmup", "0", "--size", "4", "--rate", "100"];
    let (code, table, error) = run(percore(&args));
    assert_eq!(code, 1, "{error}");
    // Those of the last moment as well, which were waited for.
    let line = table.lines().find(|line| line.contains("no answer")).unwrap_or_else(|| panic!("{table}"));
    let count: u32 = line.split_whitespace().nth(1).and_then(|word| word.parse().ok()).expect("a number");
    assert!((8..=12).contains(&count), "of 30 messages 20 were answered: {line}");
    assert!(line.contains("none came within 1.") && line.contains(" s to 1."), "their ages: {line}");
}

#[test]
fn late_answers_are_no_errors() {
    // The first message of each connection waits, and all others behind it.
    let url = faulty(|mut stream| {
        thread::sleep(std::time::Duration::from_millis(700));
        let mut frame = [0; 10];
        while stream.read_exact(&mut frame).is_ok() {
            let payload: Vec<u8> = (0..4).map(|i| frame[6 + i] ^ frame[2 + i]).collect();
            let _ = stream.write_all(&[&[0x82, 4][..], &payload].concat());
        }
    });
    let (code, json) = bench(&["echo", &url, "-c", "1", "-d", "300ms", "--size", "4", "--rate", "100"]);
    assert_eq!((code, &json["errors"], number(&json, "/messages")), (0, &serde_json::json!({}), 0.0));
    assert!(number(&json, "/late") >= 30.0 && number(&json, "/late_latency_seconds/max") > 0.3, "{json:#}");
}
