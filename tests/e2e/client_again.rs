//! What `percore client` reports about a server that refuses or does not agree, and its reconnects in a conversation.

use crate::common::program::Program;
use crate::common::{Server, percore, run};
use std::io::{Read, Write};
use std::net::TcpListener;
use tungstenite::Message;

#[test]
fn a_refusal_is_told_with_what_the_server_says() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("ws://{}/", listener.local_addr().expect("bound"));
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a client");
        let (mut request, mut bytes) = (Vec::new(), [0; 1024]);
        while !request.ends_with(b"\r\n\r\n") {
            let length = stream.read(&mut bytes).expect("a request");
            request.extend_from_slice(&bytes[..length]);
        }
        let answer = b"HTTP/1.1 302 Found\r\nLocation: wss://elsewhere/\r\nContent-Length: 10\r\n\r\nover there";
        stream.write_all(answer).expect("it reads");
    });
    let (code, _, err) = run(percore(&["client", &url, "-E"]));
    server.join().expect("answered");
    let said = format!(
        "percore: {url}: the server answered the upgrade with status 302, and points to wss://elsewhere/: over there\n"
    );
    assert_eq!((code, err), (1, said));
}

#[test]
fn a_subprotocol_that_is_not_agreed_on_is_told() {
    let server = Server::start(&["--subprotocol", "chat"]);
    let talk = |names: &[&str]| {
        let mut command = percore(&["client", &server.url("/"), "-E"]);
        names.iter().for_each(|name| {
            command.args(["--subprotocol", name]);
        });
        run(command)
    };
    let (code, _, err) = talk(&["soap", "mqtt"]);
    assert!(code == 0 && err.contains("accepted none of the subprotocols offered: soap, mqtt"), "{err}");
    let (code, _, err) = talk(&["soap", "chat"]);
    assert!(code == 0 && err.contains("subprotocol chat") && !err.contains("agreed"), "{err}");
}

#[test]
fn a_conversation_goes_on_when_the_server_is_back() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("ws://{}/", listener.local_addr().expect("bound"));
    let accept = || tungstenite::accept(listener.accept().expect("a client").0).expect("an upgrade");
    let mut talker = Program::start(percore(&["client", &url, "-E", "--retry", "20ms"]));
    talker.types("one\n");
    let mut first = accept();
    assert_eq!(first.read().expect("a message"), Message::text("one"));
    // The server is gone without a word.
    drop(first);
    talker.says("next attempt in 0.02 s", 1);
    talker.types("two\n");
    let mut second = accept();
    assert_eq!(second.read().expect("a message"), Message::text("two"));
    second.send(Message::text("heard")).expect("sent");
    talker.shows("heard", 1);
    drop(talker.take_input());
    // The end of the input is the end, whatever is to be tried again.
    while second.read().is_ok() {}
    drop(second);
    let (code, _, err) = talker.ends();
    assert_eq!((code, err.last().map(String::as_str)), (Some(0), Some("percore: closed with 1000")), "{err:?}");
}

#[test]
fn a_wait_for_another_attempt_can_be_interrupted() {
    let nobody = crate::common::nginx::free_addr();
    let talker = Program::start(percore(&["client", &format!("ws://{nobody}/"), "--retry", "1h"]));
    talker.says("Connection refused; next attempt in 3600 s", 1);
    talker.signal("INT");
    let (code, _, err) = talker.ends();
    assert!(code == Some(1) && err.last().is_some_and(|line| line.contains("interrupted")), "{err:?}");
}
