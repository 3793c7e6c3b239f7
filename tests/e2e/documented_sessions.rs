//! Sessions of the documents, run verbatim except for ports, folders and the program's path.

use crate::common::documents::{Block, block_below};
use crate::common::redis::free_port;
use crate::common::{Killed, Server, TempDir, eventually, percore, shell};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};

/// A session at a console: the server that is started first, then a client, what is typed and what it shows.
struct Session {
    server: Vec<String>,
    client: Vec<String>,
    said: Vec<String>,
}

impl Session {
    fn of(block: &Block) -> Session {
        let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let mut commands = block.text.lines().filter_map(|line| line.strip_prefix("$ percore ")).map(words);
        let server = commands.next().expect("a server");
        let server = server.into_iter().filter(|word| word != "&").collect();
        let client = commands.next().expect("a client");
        let said = block.text.lines().filter(|line| !line.starts_with("$ ")).map(str::to_owned).collect();
        Session { server, client, said }
    }

    /// The server on a port of its own, and the client connected to it.
    fn start(&self) -> (Server, Talk) {
        let mut server: Vec<&str> = self.server.iter().map(String::as_str).collect();
        server.extend(["--listen", "127.0.0.1:0"]);
        let server = Server::launch(percore(&server), 1);
        let url = |word: &String| match word.strip_prefix("ws://").and_then(|rest| rest.split_once('/')) {
            Some((_, path)) => server.url(&format!("/{path}")),
            None => word.clone(),
        };
        let arguments: Vec<String> = self.client.iter().map(url).collect();
        let mut client = percore(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
        client.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = client.spawn().expect("the client starts");
        let input = child.stdin.take().expect("piped");
        let output = BufReader::new(child.stdout.take().expect("piped"));
        (server, Talk { child, input, output })
    }
}

/// A running client.
struct Talk {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Talk {
    fn says(&mut self, line: &str) {
        writeln!(self.input, "{line}").expect("the client reads");
    }

    fn hears(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).expect("text");
        line.trim_end().to_owned()
    }
}

impl Drop for Talk {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A text without what differs in each run: digits, and ids of connections.
fn shape(text: &str) -> String {
    let mut shape: String = text.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    for key in ["users\":[\"", "user\":\""] {
        if let Some(at) = shape.find(key) {
            let start = at + key.len();
            let end = shape[start..].find('"').map_or(shape.len(), |end| start + end);
            shape.replace_range(start..end, "id");
        }
    }
    shape
}

fn is_as_shown(document: &str, heading: &str) {
    let session = Session::of(&block_below(document, heading, "console"));
    let (_server, mut talk) = session.start();
    let mut lines = 0;
    for line in &session.said {
        if let Some(typed) = line.strip_prefix("> ") {
            talk.says(typed);
        } else if let Some(shown) = line.strip_prefix("< ") {
            assert_eq!(shape(&talk.hears()), shape(shown), "{document}, {heading}");
            lines += 1;
        }
    }
    assert!(lines > 0, "{document}, {heading}: nothing is shown");
}

#[test]
fn the_first_minute() {
    is_as_shown("README.md", "The first minute");
}

#[test]
fn the_first_measurement() {
    let server = Server::start(&[]);
    let script = block_below("README.md", "The first minute", "sh").text;
    let script = script.replace("ws://127.0.0.1:8080/", &server.url("/"));
    let output = shell(&script).output().expect("sh runs");
    let shown = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && shown.contains("messages"), "{shown}");
}

#[test]
fn a_line_for_each_line_of_the_chat() {
    let Block { language, line, text } = block_below("docs/chat.md", "Talking to it", "console");
    let text = format!("$ percore serve chat &\n{text}");
    let session = Session::of(&Block { language, line, text });
    let (_server, mut talk) = session.start();
    for line in &session.said {
        match line.split_at(2) {
            ("> ", typed) => talk.says(typed),
            ("< ", shown) => assert_eq!(shape(&talk.hears()), shape(shown)),
            _ => {}
        }
    }
}

#[test]
fn the_prices_of_the_ticker() {
    let session = Session::of(&block_below("docs/ticker.md", "Ticker", "console"));
    let (_server, mut talk) = session.start();
    let mut heard = [talk.hears(), talk.hears()].map(|line| shape(&line));
    let expected = ["0000-00-00T00:00:00Z AAPL 000.00", "0000-00-00T00:00:00Z SPY 000.00"];
    // The answer to a Ping may stand between, and the last digit of a price may be a zero that is left out.
    if heard.iter().any(|line| line.contains("ping answered")) {
        heard = [heard.into_iter().find(|line| !line.contains("ping")).unwrap_or_default(), shape(&talk.hears())];
    }
    for (line, expected) in heard.iter().zip(expected) {
        assert!(expected.starts_with(&line[..line.len() - 2]), "{line}");
    }
}

/// Two buses, two bridges, two servers and a Redis.
#[test]
fn the_session_with_redis() {
    let folder = TempDir::new();
    let shown = block_below("docs/bridge.md", "A session to paste", "text").text;
    let script = block_below("docs/bridge.md", "A session to paste", "sh").text;
    let mut script = script.replace("/dev/shm/", &format!("{}/", folder.path("").display()));
    // In two steps, since a port may have the digits of another one.
    for port in ["6379", "9000", "9001"] {
        assert!(script.contains(port), "{script}");
        script = script.replace(port, &format!("<{port}>"));
    }
    for port in ["<6379>", "<9000>", "<9001>"] {
        script = script.replace(port, &free_port().to_string());
    }
    let output = shell(&script).current_dir(folder.path("")).output().expect("sh runs");
    let heard = String::from_utf8_lossy(&output.stdout).into_owned();
    let lines: Vec<String> = shown.lines().map(shape).collect();
    let heard: Vec<String> = heard.lines().filter(|line| line.starts_with('{')).map(shape).collect();
    assert_eq!(heard, lines, "{}", String::from_utf8_lossy(&output.stderr));
    assert!(!folder.path("chat-a").exists(), "the session leaves nothing");
}

#[test]
fn the_commands_of_the_bus() {
    let folder = TempDir::new();
    let bus = folder.path("my-bus").display().to_string();
    let _server = Server::launch(percore(&["serve", "chat", "--listen", "127.0.0.1:0", "--bus", &bus]), 1);
    let script = block_below("docs/bus.md", "Commands", "sh").text.replace("/dev/shm/my-bus", &bus);
    let command = |word: &str| {
        let line = script.lines().find(|line| line.contains(word)).expect("a line");
        line.split('#').next().unwrap_or(line).trim().to_owned()
    };
    let tail = command("--count 10").replace("--count 10", "--count 1").replace("30s", "60s");
    let mut tail = Killed(shell(&format!("exec {tail}")).stdout(Stdio::piped()).spawn().expect("it starts"));
    // What is published before it listens is not for it.
    eventually("the listener's record", || {
        assert!(shell(&command(" publish ")).status().expect("sh runs").success());
        tail.0.try_wait().expect("own child").is_some_and(|status| status.success())
    });
    let output = shell(&command(" status ")).output().expect("sh runs");
    assert!(output.status.success() && !output.stdout.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_health_check() {
    let server = Server::start(&[]);
    let script = block_below("docs/flags.md", "`percore healthcheck`", "sh").text;
    let script = script.replace("127.0.0.1:8080", &server.listen[0]);
    let output = shell(&script).output().expect("sh runs");
    assert!(output.status.success(), "{script}{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn completions_and_man_pages() {
    let folder = TempDir::new();
    let script = block_below("docs/flags.md", "`percore completions` and `percore man`", "sh").text;
    let output = shell(&script).current_dir(folder.path("")).output().expect("sh runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(String::from_utf8_lossy(&output.stdout).contains("percore"));
    assert!(fs::read_dir(folder.path("target/man")).expect("a folder").count() > 10);
}
