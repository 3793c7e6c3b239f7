//! The log under stress: it is not read, clients send much, many are refused, several processes write to it.

use crate::common::chat::{Talker, chat, start_on};
use crate::common::client::{BINARY, TEXT, close_frame, frame, upgrade_request};
use crate::common::{Client, Killed, Server, TempDir, eventually, exit_code, percore, run, send_signal};
use serde_json::Value;
use std::collections::HashSet;
use std::io::{BufRead, BufReader, PipeReader};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::time::Instant;

/// A server whose log is read only as far as a test wants.
struct Unread {
    child: Killed,
    log: BufReader<PipeReader>,
    addr: SocketAddr,
    admin: SocketAddr,
}

impl Unread {
    fn start(flags: &[&str]) -> Unread {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        let args = ["serve", "echo", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--log-messages"];
        let mut command = percore(&[&args, flags].concat());
        let child = Killed(command.stderr(writer).spawn().expect("it starts"));
        let mut log = BufReader::new(reader);
        let mut after = |words: &str| {
            let mut line = String::new();
            log.read_line(&mut line).expect("a line");
            let (_, rest) = line.split_once(words).unwrap_or_else(|| panic!("no {words} in {line}"));
            rest.split(['.', ' ', '\n']).take(4).collect::<Vec<_>>().join(".").trim_end_matches('.').to_owned()
        };
        let addr = after("Starting server on ").parse().expect("an address");
        let admin = after("admin listener on ").parse().expect("an address");
        Unread { child, log, addr, admin }
    }

    fn metric(&self, name: &str) -> u64 {
        let text = Client::connect(self.admin).get("/metrics").body;
        let values = text.lines().filter(|line| line.starts_with(name)).filter_map(|line| line.rsplit_once(' '));
        values.filter_map(|(_, value)| value.parse::<u64>().ok()).sum()
    }

    fn lines_dropped(&self) -> u64 {
        self.metric("percore_log_lines_dropped_total")
    }

    /// Opens connections that talk until lines of the log are left out.
    fn fill(&self) -> Vec<Client> {
        let message = "m".repeat(1000);
        let mut open: Vec<Client> = Vec::new();
        while self.lines_dropped() == 0 {
            for _ in 0..50 {
                let mut client = Client::connect(self.addr);
                client.upgrade("");
                (0..10).for_each(|_| assert_eq!(client.echo(&message), message));
                open.push(client);
            }
        }
        open
    }

    fn next_line(&mut self) -> String {
        let mut line = String::new();
        assert!(self.log.read_line(&mut line).expect("text") > 0, "the log goes on");
        line
    }
}

#[test]
fn a_standard_error_that_nobody_reads_holds_up_nobody() {
    let mut server = Unread::start(&[]);
    let mut open = server.fill();
    assert!(open.len() >= 100, "{} connections", open.len());
    assert_eq!(Client::connect(server.admin).get("/readyz").status, 200);
    for client in &mut open {
        assert_eq!(client.echo("still here"), "still here");
    }
    // What waits is bounded: of every further line the number grows.
    let before = server.lines_dropped();
    assert_eq!(open[0].echo("once more"), "once more");
    eventually("another one", || server.lines_dropped() > before);

    // It is read at last: what waited comes, and then how many lines are missing.
    let missing = server.lines_dropped();
    let line = loop {
        let line = server.next_line();
        if line.contains("log lines left out: standard error was not read in time") {
            break line;
        }
        assert!(line.contains("WebSocket connection opened: ") || line.contains("Received message from "), "{line}");
    };
    let told = line.split(' ').find_map(|word| word.parse::<u64>().ok()).expect("a number");
    assert_eq!(told, missing, "{line}");
    assert_eq!(open[0].echo("it flows"), "it flows");
    assert!(server.next_line().contains(": it flows id="));
    assert_eq!(server.lines_dropped(), missing);
}

#[test]
fn a_standard_error_that_nobody_reads_does_not_hold_up_the_end() {
    for flags in [&[][..], &["--workers", "2"]] {
        let mut server = Unread::start(flags);
        let mut open = server.fill();
        send_signal(&server.child.0, "TERM");
        for client in &mut open {
            assert_eq!(client.closed().0, 1001, "{flags:?}");
        }
        drop(open);
        assert_eq!(exit_code(&mut server.child.0), Some(0), "{flags:?}");
    }
}

#[test]
fn lines_of_workers_say_which() {
    for format in ["text", "json"] {
        let args =
            ["serve", "echo", "--listen", "127.0.0.1:0", "--workers", "2", "--admin", "off", "--log-format", format];
        let server = Server::launch(percore(&args), 1);
        let opened = |server: &Server| -> HashSet<String> {
            let lines = server.log().into_iter().filter(|line| line.contains("connection opened"));
            lines.map(|line| worker_of(&line, format).unwrap_or_else(|| panic!("no worker in {line}"))).collect()
        };
        eventually("connections of both", || {
            drop(server.open());
            opened(&server).len() == 2
        });
        assert_eq!(opened(&server), ["0", "1"].map(str::to_owned).into());
        let (code, log) = server.stop();
        assert_eq!(code, Some(0));
        let stopped: HashSet<_> =
            log.iter().filter(|line| line.contains("stopped; ")).map(|line| worker_of(line, format)).collect();
        assert_eq!(stopped.len(), 2, "{log:?}");
        let started = log.iter().find(|line| line.contains("Starting server on")).expect("a start");
        assert_eq!(worker_of(started, "text"), None, "the supervisor is no worker: {started}");
    }
}

fn worker_of(line: &str, format: &str) -> Option<String> {
    match format {
        "json" => serde_json::from_str::<Value>(line).expect("JSON")["worker"].as_u64().map(|slot| slot.to_string()),
        _ => Some(line.rsplit_once(" worker=")?.1.to_owned()),
    }
}

#[test]
fn refusals_are_logged_once_a_second_with_their_number() {
    let start = Instant::now();
    let server = Server::start(&["--max-connections", "1", "--origin", "https://example.org", "--log-format", "json"]);
    let asks = |headers: &str, want: u16| {
        let mut client = server.connect();
        client.send(upgrade_request("/ws", headers));
        assert_eq!(client.response().status, want);
    };
    (0..50).for_each(|_| asks("Origin: https://elsewhere.example\r\n", 403));
    // This is no refusal: nothing is there.
    assert_eq!(server.connect().get("/nothing").status, 404);
    let _open = server.open();
    (0..100).for_each(|_| asks("", 503));
    let lines = || -> Vec<Value> {
        let log = server.log().into_iter().filter(|line| line.contains(r#""event":"refused""#));
        log.map(|line| serde_json::from_str(&line).expect("JSON")).collect()
    };
    let counted = |status: &str| lines().iter().filter_map(|line| line[status].as_u64()).sum::<u64>();
    eventually("all of them", || (counted("403"), counted("503")) == (50, 100));
    let (lines, seconds) = (lines(), start.elapsed().as_secs());
    assert!(lines.len() as u64 <= 2 + seconds, "{} lines in {seconds} s", lines.len());
    for line in &lines {
        assert_eq!((line["level"].as_str(), line["path"].as_str(), line.get("404")), (Some("warn"), Some("/ws"), None));
    }
    assert!(lines[0]["message"].as_str().is_some_and(|text| text.starts_with("refused: 1 with 403; last 127.0.0.1:")));
}

#[test]
fn an_echo_with_a_prefix_logs_what_it_got() {
    let server = Server::start(&["--hostname-prefix"]);
    let mut client = server.open();
    client.text();
    for text in ["asdf\n", "two\nlines\u{202e}"] {
        client.send(frame(TEXT, text.as_bytes()));
        assert!(client.text().ends_with(text));
    }
    client.send(frame(BINARY, &[0, 255]));
    client.frame();
    assert!(server.wait_for_log("Got message: asdf").ends_with(" INFO Got message: asdf"));
    assert!(server.wait_for_log("Got message: two").ends_with(r" INFO Got message: two\nlines\u{202e}"));
    server.wait_for_log("Got message: 2 bytes, binary");

    // A flood of long ones does not fill the disk.
    let start = Instant::now();
    let flood = frame(TEXT, "f".repeat(5000).as_bytes());
    for _ in 0..2000 {
        client.send(&flood);
        client.frame();
    }
    server.wait_for_log("log lines left out: there were too many at once");
    let bytes: usize = server.log().iter().map(String::len).sum();
    let most = 320 * 1024 + 8 * 1024 * (1 + start.elapsed().as_secs() as usize);
    assert!((100_000..most).contains(&bytes), "{bytes} bytes of log, {most} at most");
    assert!(server.log().iter().all(|line| line.len() < 1200));
    client.send(close_frame(1000, ""));
    server.wait_for_log("WebSocket connection closed");
}

#[test]
fn an_echo_with_a_prefix_listens_where_the_original_does() {
    let start = |addr: &str, flags: &[&str]| {
        let mut command = percore(&[&["serve", "echo"], flags].concat());
        command.env("HTTP_SERVER_ADDR", addr).env("PORT", "0");
        command
    };
    for (addr, flags, want) in [
        (":0", &["--hostname-prefix"][..], "0.0.0.0:"),
        ("127.0.0.1:0", &["--hostname-prefix"], "127.0.0.1:"),
        ("127.0.0.1:0", &["--hostname-prefix", "--listen", "0.0.0.0:0"], "0.0.0.0:"),
        // No other app has it, and what is empty is not there.
        ("127.0.0.1:0", &[], "0.0.0.0:"),
        ("", &["--hostname-prefix"], "0.0.0.0:"),
    ] {
        let server = Server::launch(start(addr, flags), 1);
        assert!(server.listen[0].starts_with(want), "{addr} {flags:?}: {:?}", server.listen);
    }
    let mut bad = start("nowhere", &["--hostname-prefix"]);
    bad.stderr(std::process::Stdio::piped());
    let (code, _, error) = run(bad);
    assert!(code == 2 && error.starts_with("percore: HTTP_SERVER_ADDR in the environment: "), "{error}");
    // So does whoever asks how it is.
    let server = Server::launch(start("127.0.0.1:0", &["--hostname-prefix"]), 1);
    let mut check = percore(&["healthcheck"]);
    check.env("HTTP_SERVER_ADDR", server.addr().to_string());
    assert_eq!(run(check).0, 0);
}

#[test]
fn a_chat_logs_clients_messages_and_pings() {
    let folder = TempDir::new();
    let bus = folder.path("bus");
    let servers = [start_on(&bus, &[]), start_on(&bus, &[])];
    let socket = folder.path("quiet");
    let listen = format!("unix:{}", socket.display());
    let bus = bus.to_str().expect("UTF-8");
    let quiet = percore(&["serve", "chat", "--listen", &listen, "--bus", bus, "--log-level", "warn"]);
    let quiet = Server::launch(quiet, 0);
    eventually("the quiet one", || UnixStream::connect(&socket).is_ok());
    let mut talkers: Vec<Talker> = (0..10).map(|_| Talker::to(servers[0].addr())).collect();
    let line = servers[0].wait_for_log("and 2 more");
    let (_, rest) = line.split_once(" INFO New connection ").expect("its form");
    let (user, rest) = rest.split_once("; connected clients: ").expect("its form");
    let (clients, id) = rest.split_once(" and 2 more id=").expect("its form");
    assert_eq!((user.len(), clients.split(", ").count(), id.len()), (36, 8, 24), "{line}");
    assert!(servers[0].wait_for_log(&format!("id={id} path=/websockets")).contains("connection opened"));

    // Long ones are cut, and what a client sends stays on its line.
    talkers[9].says(&chat("Hello World"));
    let line = servers[0].wait_for_log("Hello World");
    assert!(line.ends_with(&format!(r#" INFO Received from {user}: SubmitMessage "Hello World" id={id}"#)), "{line}");
    talkers[9].says(&chat(&format!(r"a\nb{}", "x".repeat(60_000))));
    let line = servers[0].wait_for_log(r#"SubmitMessage "a\nbxx"#);
    assert!(line.len() < 500, "{line}");
    // Every server says that there was a ping.
    assert_eq!(servers[1].connect().get("/ping2").status, 200);
    for server in &servers {
        assert!(server.wait_for_log("ping2").ends_with(" INFO Received ping2"));
    }
    // One that leaves is listed no more.
    drop(talkers);
    eventually("their ends", || servers[0].count_log("connection closed") == 10);
    let _last = Talker::to(servers[0].addr());
    eventually("a list of one", || {
        let mut lists = servers[0].log().into_iter().filter(|line| line.contains("; connected clients: "));
        lists.next_back().is_some_and(|line| !line.contains(", "))
    });
    Client::over(UnixStream::connect(&socket).expect("it listens")).get("/ping1");
    let (code, mut log) = quiet.stop();
    // The folder of a test may be on a disk.
    log.retain(|line| !line.contains("is not in memory"));
    assert_eq!((code, log), (Some(0), Vec::new()));
}
