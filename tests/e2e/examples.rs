//! The programs in `examples/` do what their comments promise: each is started and tested with tungstenite's client.
//! `cargo test` and `cargo nextest run` build them; with `--test examples` alone, build them first.

use std::io::{BufRead, BufReader};
use std::net::{Shutdown, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::{Message, WebSocket};

/// How long anything may take before the test has failed.
const PATIENCE: Duration = Duration::from_secs(20);

struct Example {
    process: Child,
    output: std::io::Lines<BufReader<ChildStdout>>,
    addr: String,
}

impl Example {
    fn start(name: &str) -> Example {
        Example::start_with(name, &[])
    }

    fn start_with(name: &str, arguments: &[&Path]) -> Example {
        let path = path_of(name);
        let mut command = Command::new(&path);
        let mut process =
            command.arg("127.0.0.1:0").args(arguments).stdout(Stdio::piped()).spawn().unwrap_or_else(|error| {
                panic!("{} does not start ({error}); build it with cargo build --examples", path.display())
            });
        let mut output = BufReader::new(process.stdout.take().expect("its output is piped")).lines();
        let line = output.next().expect("it says where it listens").expect("its output is text");
        let addr = line.strip_prefix("listening on ").expect("that line names the address").to_owned();
        Example { process, output, addr }
    }

    fn connect(&self, target: &str) -> Client {
        let stream = TcpStream::connect(&self.addr).expect("it accepts");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
        let url = format!("ws://{}{target}", self.addr);
        Client(tungstenite::client(url, stream).expect("it upgrades").0)
    }

    /// The first line of its output from here on that begins so.
    fn line(&mut self, beginning: &str) -> String {
        self.output.by_ref().map_while(Result::ok).find(|line| line.starts_with(beginning)).expect("such a line")
    }
}

impl Drop for Example {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Examples lie beside the folder of this test's executable.
fn path_of(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a path");
    let profile = test.parent().and_then(|deps| deps.parent()).expect("target/<profile>/deps");
    profile.join("examples").join(name)
}

struct Client(WebSocket<TcpStream>);

impl Client {
    fn send(&mut self, text: &str) {
        self.0.send(Message::text(text)).expect("the socket takes it");
    }

    fn text(&mut self) -> String {
        match self.0.read().expect("a message") {
            Message::Text(text) => text.to_string(),
            other => panic!("not a text: {other:?}"),
        }
    }

    fn close_code(&mut self) -> CloseCode {
        match self.0.read().expect("a message") {
            Message::Close(Some(frame)) => frame.code,
            other => panic!("not a Close frame: {other:?}"),
        }
    }

    /// The next text that is no periodic one.
    fn answer(&mut self) -> String {
        loop {
            let text = self.text();
            if !text.starts_with("news: ") {
                return text;
            }
        }
    }
}

#[test]
fn echo_sends_back_what_it_gets() {
    let example = Example::start("echo");
    let mut client = example.connect("/");
    for message in [Message::text("grüße"), Message::binary(vec![7; 70_000]), Message::text("")] {
        client.0.send(message.clone()).expect("the socket takes it");
        assert_eq!(client.0.read().expect("an answer"), message);
    }
}

#[test]
fn a_room_hears_its_members_and_no_others() {
    let example = Example::start("room");
    let mut ada = example.connect("/?room=garden&name=ada");
    assert_eq!(ada.text(), "* ada joined garden");
    let mut cid = example.connect("/ws?name=cid");
    assert_eq!(cid.text(), "* cid joined /ws");
    let mut ben = example.connect("/?room=garden&name=ben");
    for member in [&mut ada, &mut ben] {
        assert_eq!(member.text(), "* ben joined garden");
    }
    ben.send("hello");
    for member in [&mut ada, &mut ben] {
        assert_eq!(member.text(), "ben: hello");
    }
    cid.send("alone");
    assert_eq!(cid.text(), "cid: alone");
    ben.0.close(None).expect("the socket takes it");
    assert_eq!(ada.text(), "* ben left garden");
    ada.0.send(Message::binary(vec![1])).expect("the socket takes it");
    assert_eq!(ada.close_code(), CloseCode::Unsupported);
}

#[test]
fn rooms_reach_over_all_processes_on_a_bus() {
    let folder = std::env::temp_dir().join(format!("percore-rooms-{}", std::process::id()));
    let [first, second] = [(); 2].map(|()| Example::start_with("room", &[&folder]));
    let mut ada = first.connect("/?room=garden&name=ada");
    assert_eq!(ada.text(), "* ada joined garden");
    let mut ben = second.connect("/?room=garden&name=ben");
    for member in [&mut ada, &mut ben] {
        assert_eq!(member.text(), "* ben joined garden");
    }
    ada.send("hello");
    for member in [&mut ada, &mut ben] {
        assert_eq!(member.text(), "ada: hello");
    }
    drop(second);
    assert_eq!(ada.text(), "* ben left garden");
    std::fs::remove_dir_all(&folder).expect("the bus");
}

#[test]
fn everyone_hears_everything() {
    let example = Example::start("broadcast");
    let (mut ada, mut ben) = (example.connect("/"), example.connect("/"));
    for text in ["one", "two"] {
        ben.send(text);
        assert_eq!((ada.text(), ben.text()), (text.to_owned(), text.to_owned()));
    }
}

#[test]
fn a_crowd_of_several_processes_has_one_port() {
    let folder = std::env::temp_dir().join(format!("percore-crowd-{}", std::process::id()));
    let first = Example::start_with("crowd", &[&folder]);
    // The kernel gave it a port, which the other shares.
    let shared = Command::new(path_of("crowd")).arg(&first.addr).arg(&folder).stdout(Stdio::piped()).spawn();
    let mut shared = shared.expect("it starts");
    let output = shared.stdout.take().expect("its output is piped");
    assert!(BufReader::new(output).lines().next().is_some_and(|line| line.is_ok()), "it listens");
    let mut clients: Vec<Client> = (0..20).map(|_| first.connect("/")).collect();
    clients[0].0.send(Message::binary(vec![1])).expect("the socket takes it");
    assert_eq!(clients[0].0.read().expect("an answer"), Message::binary(vec![1]));
    clients[3].send("hello");
    assert!(clients.iter_mut().all(|client| client.text() == "hello"));
    shared.kill().and_then(|()| shared.wait()).expect("it ends");
    std::fs::remove_dir_all(&folder).expect("the bus");
}

#[test]
fn state_is_kept_for_each_connection() {
    let mut example = Example::start("state");
    let (mut ada, mut ben) = (example.connect("/"), example.connect("/"));
    for guest in [&mut ada, &mut ben] {
        assert!(guest.answer().starts_with("welcome"));
    }
    ada.send("/nick ada");
    ada.send("one");
    assert_eq!(ada.answer(), "ada 1: one");
    ben.send("uno");
    assert_eq!(ben.answer(), "nobody 1: uno");
    ada.send("two");
    assert_eq!(ada.answer(), "ada 2: two");
    while ben.text() != "news: 2 here" {}

    ada.send("/quit");
    while ada.0.read().is_ok_and(|message| !message.is_close()) {}
    ada.0.flush().expect("the answer to the Close frame");
    assert_eq!(example.line("ada "), "ada left after 2 messages: 1000 bye");

    // Not dropped: with news unread that would be a reset.
    ben.0.get_ref().shutdown(Shutdown::Write).expect("the socket is open");
    assert_eq!(example.line("nobody "), "nobody had an error: stream ended without a Close frame");
    assert_eq!(example.line("nobody "), "nobody was lost after 1 messages: 1006 stream ended without a Close frame");
}
