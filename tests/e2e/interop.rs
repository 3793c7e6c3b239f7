//! Clients by others, in other languages. `tests/run` installs them.

use crate::common::chat::{Talker, sends, sent, start_on};
use crate::common::{Killed, PATIENCE, Server, eventually, exit_code, tool};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::mpsc;

/// A file of `tests/clients`.
fn script(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/clients").join(name)
}

/// Runs a client's script against `percore serve echo` with these flags: what it printed.
fn run(command: &mut Command, flags: &[&str], compression: &str) -> String {
    // A million characters are more bytes than that.
    let server = Server::start(&[flags, &["--max-message", "8M"]].concat());
    let output = command.args([&server.url("/ws"), compression]).output().expect("the client starts (see tests/run)");
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{stdout}{stderr}\n{}", server.log().join("\n"));
    // A clean close from the client's side, and from the server's.
    server.wait_for_log("WebSocket connection closed");
    assert_eq!(server.count_log("WebSocket error"), 0);
    stdout.into_owned()
}

fn python() -> Command {
    let mut command = Command::new(tool("venv/bin/python"));
    command.arg(script("echo.py"));
    command
}

fn node() -> Command {
    tool("node_modules/ws/package.json");
    let mut command = Command::new("node");
    command.arg(script("echo.js"));
    command
}

#[test]
fn python_websockets() {
    let said = run(&mut python(), &["--subprotocol", "echo"], "none");
    assert_eq!(said, "subprotocol: echo\nextensions: []\nclosed: 4321\nelsewhere: 404\n");
}

#[test]
fn python_websockets_compressed() {
    for mode in ["no-takeover", "takeover"] {
        let said = run(&mut python(), &["--deflate", mode, "--deflate-min", "0"], "deflate");
        assert_eq!(said, "subprotocol: None\nextensions: ['permessage-deflate']\nclosed: 4321\nelsewhere: 404\n");
    }
}

#[test]
fn node_ws() {
    let said = run(&mut node(), &["--subprotocol", "echo"], "none");
    assert_eq!(said, "subprotocol: echo\nextensions: []\nclosed: 4321\nelsewhere: 404\n");
}

#[test]
fn node_ws_compressed() {
    for mode in ["no-takeover", "takeover"] {
        let flags = ["--deflate", mode, "--deflate-min", "0", "--subprotocol", "echo"];
        let said = run(&mut node(), &flags, "deflate");
        assert_eq!(said, "subprotocol: echo\nextensions: [ 'permessage-deflate' ]\nclosed: 4321\nelsewhere: 404\n");
    }
}

/// A client's script that takes part in a chat: what is written to it it says in the room, and it prints what it hears.
struct Visitor {
    child: Killed,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Visitor {
    fn start(mut command: Command, server: &Server) -> Visitor {
        command.args([&server.url("/websockets"), "garden"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("the client starts (see tests/run)");
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        Visitor { child: Killed(child), lines }
    }

    fn says(&mut self, text: &str) {
        writeln!(self.child.0.stdin.as_mut().expect("piped"), "{text}").expect("it reads");
    }

    fn hears(&mut self) -> String {
        self.lines.next().expect("a line").expect("text")
    }
}

/// Python's websockets, node's ws and a raw client in one room, each on a server of its own and with a compression of its own.
#[test]
fn clients_of_three_kinds_in_one_room() {
    let folder = crate::common::TempDir::new();
    let start = |mode| start_on(&folder.path("bus"), &["--deflate", mode, "--deflate-min", "40"]);
    let servers = ["takeover", "no-takeover", "off"].map(start);
    let client = |program: PathBuf, name: &str| {
        let mut command = Command::new(program);
        command.arg(script(name));
        command
    };
    tool("node_modules/ws/package.json");
    let mut python = Visitor::start(client(tool("venv/bin/python"), "chat.py"), &servers[0]);
    assert_eq!(python.hears(), "compression: on");
    let p = python.hears().strip_prefix("here: ").expect("a list of one").to_owned();
    let mut node = Visitor::start(client("node".into(), "chat.js"), &servers[1]);
    assert_eq!(node.hears(), "compression: on");
    assert!(node.hears().contains(&p));
    let n = python.hears().strip_prefix("joined: ").expect("the other one").to_owned();
    let mut raw = Talker::to(servers[2].addr());
    let (r, others) = raw.joins("garden");
    assert_eq!(others.len(), 2);
    for visitor in [&mut python, &mut node] {
        assert_eq!(visitor.hears(), format!("joined: {r}"));
    }
    let texts: Vec<String> = (1..6).map(|count| "gr\u{fc}\u{df}e \u{1f980} ".repeat(count * count * count)).collect();
    for text in &texts {
        for speaker in 0..3 {
            let name = match speaker {
                0 => {
                    python.says(text);
                    &p
                }
                1 => {
                    node.says(text);
                    &n
                }
                _ => {
                    raw.says(&sends("garden", text));
                    &r
                }
            };
            raw.must_hear(&sent("garden", name, text));
            assert_eq!(python.hears(), format!("{name}: {text}"));
            assert_eq!(node.hears(), format!("{name}: {text}"));
        }
    }
    // The end of its input has it go.
    drop(python.child.0.stdin.take());
    assert_eq!(exit_code(&mut python.child.0), Some(0));
    assert_eq!(node.hears(), format!("left: {p}"));
    assert_eq!(raw.hears_of("LeftRoom", "garden"), p);
    node.child.0.kill().expect("it runs");
    assert_eq!(raw.hears_of("LeftRoom", "garden"), n);
}

#[test]
fn a_ticker_feed_is_understood_by_all() {
    // Who is silent for two of these is let go, which a client on a busy machine must not be.
    let args = ["serve", "ticker", "--listen", "127.0.0.1:0", "--tick", "50ms", "--ping", "1s"];
    let server = Server::launch(crate::common::percore(&args), 1);
    for (program, name, added) in
        [(tool("venv/bin/python"), "ticker.py", "NEW.PY"), ("node".into(), "ticker.js", "NEW.JS")]
    {
        let output = Command::new(program).arg(script(name)).arg(server.url("/")).output().expect("the client starts");
        let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{stdout}{stderr}\n{}", server.log().join("\n"));
        assert_eq!(stdout, format!("symbols: AAPL, {added}, SPY\nclosed: 1000\n"));
    }
    assert_eq!(server.count_log("WebSocket error"), 0);
}

/// A websocat at work.
struct Websocat {
    child: Killed,
    lines: mpsc::Receiver<String>,
}

impl Websocat {
    fn start(args: &[&str]) -> Websocat {
        let mut command = Command::new(tool("bin/websocat"));
        command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("websocat starts");
        let stdout = child.stdout.take().expect("piped");
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        Websocat { child: Killed(child), lines }
    }

    fn types(&mut self, line: &str) {
        writeln!(self.child.0.stdin.as_mut().expect("open"), "{line}").expect("websocat reads");
    }

    fn shows(&self) -> String {
        self.lines.recv_timeout(PATIENCE).expect("a line from websocat")
    }
}

#[test]
fn a_session_with_websocat() {
    let server = Server::start(&["--hostname-prefix", "--log-messages"]);
    let mut session = Websocat::start(&["-E", "--ping-interval", "5", "--ping-timeout", "10", &server.url("/ws")]);
    let greeting = session.shows();
    let hostname = greeting.strip_suffix(" hello :) type a message and press ENTER").expect("the greeting").to_owned();
    assert!(hostname.starts_with('[') && hostname.ends_with(']') && hostname.len() > 2, "{hostname}");
    for typed in ["hello", "h\u{e9}llo \u{1f980}", "bye"] {
        session.types(typed);
        assert_eq!(session.shows(), format!("{hostname} {typed}"));
    }
    let line = server.wait_for_log("h\u{e9}llo");
    assert!(line.contains(": h\u{e9}llo \u{1f980} id="), "the newline is trimmed: {line}");
    // End of input ends the session (-E), without an error on either side.
    drop(session.child.0.stdin.take());
    assert_eq!(exit_code(&mut session.child.0), Some(0));
    server.wait_for_log("WebSocket connection closed");
    assert_eq!(server.count_log("WebSocket error"), 0, "{:?}", server.log());
}

#[test]
fn websocat_over_a_long_silence() {
    // Both sides ping; the session lives on for longer than either would wait.
    let server = Server::start(&["--heartbeat", "200ms", "--heartbeat-timeout", "2s"]);
    let mut session = Websocat::start(&["-E", "--ping-interval", "1", "--ping-timeout", "2", &server.url("/ws")]);
    session.types("before");
    assert_eq!(session.shows(), "before");
    // As long as it takes until a client that answers nothing is given up twice over.
    for ended in 1..=2 {
        let mut silent = server.open();
        assert_eq!(silent.closed().0, 1011);
        eventually("its end", || server.count_log("WebSocket error") == ended);
    }
    session.types("after");
    assert_eq!(session.shows(), "after");
}

#[test]
fn json_lines_are_json() {
    let server = Server::start(&["--log-format", "json", "--log-messages", "--log-level", "debug"]);
    let odd = "quote \" backslash \\ tab \t null \0 \u{7f}\u{85}\u{2028} \u{1f980} \n end";
    let mut client = server.open();
    assert_eq!(client.echo(odd), odd);
    drop(client);
    let mut stranger = server.connect();
    assert_eq!(stranger.get("/\"odd\\path").status, 404);
    server.wait_for_log("WebSocket connection closed");
    let (_, log) = server.stop();
    let program = "import json, sys\nfor line in sys.stdin: print(json.loads(line)['event'])";
    let mut command = Command::new(tool("venv/bin/python"));
    command.args(["-c", program]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut python = command.spawn().expect("python starts");
    python.stdin.take().expect("piped").write_all((log.join("\n") + "\n").as_bytes()).expect("python reads");
    let mut events = String::new();
    python.stdout.take().expect("piped").read_to_string(&mut events).expect("UTF-8");
    assert_eq!(exit_code(&mut python), Some(0), "{log:?}");
    assert_eq!(events.lines().count(), log.len());
    for event in ["start", "open", "message", "error", "close", "rejected", "drain", "stop"] {
        assert!(events.lines().any(|line| line == event), "no {event}: {log:?}");
    }
}
